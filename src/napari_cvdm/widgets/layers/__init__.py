"""Results as layers of napari, and layers as images."""
