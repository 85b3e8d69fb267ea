"""The Reconstruct dock."""
