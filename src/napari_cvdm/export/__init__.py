"""Packages of the BioImage Model Zoo (bioimage.io), format 0.5, for other programs.

Their export needs the extra ``bmz``.
"""
