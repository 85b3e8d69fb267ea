"""Tiles as integers and slices; no network is known here."""
