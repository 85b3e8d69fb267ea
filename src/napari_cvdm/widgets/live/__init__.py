"""The Live dock."""
