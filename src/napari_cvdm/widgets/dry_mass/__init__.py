"""The Dry mass dock."""
