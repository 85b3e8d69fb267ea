"""What a training makes of a held-out field, as layers that are renewed."""

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, LayerData, plugin_metadata
from napari_cvdm.widgets.layers.shown_layers import show_layers

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_cvdm.training.validation import Preview

ROLE = "training preview"
IMAGES = ("measured", "truth", "spread", "mean")  # the last lies on top
LIMITS_PERCENTILES = (0.5, 99.5)
LEAST_RANGE = 1e-6


class TrainingPreview:
    """Layers measured, truth, spread and mean of one held-out field, renewed with every preview.

    Parameters
    ----------
    viewer : Viewer
    """

    def __init__(self, viewer: "Viewer") -> None:
        self._viewer = viewer

    def layers(self) -> "dict[str, Layer]":
        """Those that are there, by what they show."""
        marks = [(layer, plugin_metadata(layer)) for layer in self._viewer.layers]
        return {str(mark["source"]): layer for layer, mark in marks if mark.get("role") == ROLE}

    def show(self, preview: "Preview") -> None:
        """Show a preview; contrast limits stay as they are, so that a change is seen."""
        found = self.layers()
        if all(
            name in found and found[name].data.shape == getattr(preview, name).shape
            for name in IMAGES
        ):
            for name in IMAGES:
                found[name].data = getattr(preview, name)
        else:
            show_layers(self._viewer, [_layer(preview, name) for name in IMAGES])


def _layer(preview: "Preview", name: str) -> LayerData:
    values = getattr(preview, name)
    finer = preview.truth.shape[0] // preview.measured.shape[0] if name != "measured" else 1
    pixel, unit = (preview.pixel_um, "um") if preview.pixel_um else (1.0, "pixel")
    keywords = {
        "name": f"{ROLE}: {name}",
        "scale": (pixel / finer,) * 2,
        "translate": (-pixel * (finer - 1) / (2 * finer),) * 2,
        "units": (unit, unit),
        "axis_labels": ("y", "x"),
        "visible": name in ("measured", "mean"),
        "metadata": {METADATA_KEY: {"role": ROLE, "source": name}},
        **_look(preview, name),
    }
    return values, keywords, "image"


def _look(preview: "Preview", name: str) -> dict[str, Any]:
    """Colour map and fixed limits; the same for truth and mean, which are to be compared."""
    shown = {"measured": preview.measured, "spread": preview.spread}.get(name, preview.truth)
    low, high = (float(value) for value in np.percentile(shown, LIMITS_PERCENTILES))
    low = 0.0 if name == "spread" else low
    return {
        "colormap": "magma" if name == "spread" else "gray",
        "contrast_limits": (low, max(high, low + LEAST_RANGE)),
    }
