"""Attacks, accidents and long runs, each a program of its own: `python -m tests.stress.fuzz`."""
