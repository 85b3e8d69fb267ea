"""Broken files by the thousand.

Valid specimens, what is done to them, who reads them, and what a reader may do meanwhile.
"""
