"""Reconstructions beside their truth: metrics, calibration, summaries."""
