"""Broken files by the thousand: valid specimens, what is done to them, who reads them, and what a reader may do meanwhile."""
