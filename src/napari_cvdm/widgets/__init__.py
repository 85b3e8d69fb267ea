"""The dock in napari.

Only this part of the package knows Qt and napari. It does no arithmetic on pixels.
"""
