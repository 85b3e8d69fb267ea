"""Measurements: every figure in docs/evidence.md is printed by a command here."""
