"""Images, optics, requests, results and shared numerical code.

This package does not depend on any task or network.
"""
