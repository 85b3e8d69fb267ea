"""The dock in napari: the only part of this package that knows Qt and napari. It does no arithmetic on pixels."""
