"""Sample images for File > Open Sample: the package's simulated samples as layers, with everything the form wants to know."""

from typing import Any

import numpy as np

from napari_cvdm.request import ImageStack
from napari_cvdm.widgets.layers import METADATA_KEY, LayerData


def two_defocused_planes() -> list[LayerData]:
    """Cells in brightfield below and above focus, as one layer of two planes; their true phase beside it, hidden.

    Returns
    -------
    list of (data, keywords, layer type)
        Camera counts of shape (2, Y, X); phase of shape (Y, X) [rad].
    """
    from napari_cvdm.simulate.samples import CELL_DEFOCUS_UM, cell_phase, cell_planes

    sample = cell_planes()
    pixel = _pixel(sample)
    distance = CELL_DEFOCUS_UM[1] - CELL_DEFOCUS_UM[0]
    optics = {**sample.metadata, "defocus_um": CELL_DEFOCUS_UM}
    image = _image("two defocused planes", sample.array, (distance, pixel, pixel), ("z", "y", "x"), optics)
    return [_truth("true phase of cells", cell_phase(), pixel, 0.0), image]


def widefield_network() -> list[LayerData]:
    """A tubular network in widefield fluorescence; what twice the resolution would show beside it, hidden.

    Returns
    -------
    list of (data, keywords, layer type)
        Camera counts of shape (Y, X); truth of shape (2Y, 2X).
    """
    from napari_cvdm.simulate.samples import reticulum, reticulum_pair

    sample = reticulum()
    pixel = _pixel(sample)
    image = _image("widefield network", sample.array, (pixel, pixel), ("y", "x"), dict(sample.metadata))
    return [_truth("true structure of network", reticulum_pair().truth, pixel / 2, -pixel / 4), image]


def _pixel(sample: ImageStack) -> float:
    if sample.pixel_um is None:
        raise ValueError(f"the sample {sample.source} has no pixel size; it cannot be shown in micrometres.")
    return sample.pixel_um


def _image(name: str, counts: np.ndarray, scale: tuple[float, ...], labels: tuple[str, ...], optics: dict[str, Any]) -> LayerData:
    units = ("um",) * len(labels)
    return counts, {"name": name, "scale": scale, "units": units, "axis_labels": labels, "metadata": {METADATA_KEY: {"optics": optics}}}, "image"


def _truth(name: str, values: np.ndarray, pixel: float, shift: float) -> LayerData:
    keywords = {
        "name": name,
        "scale": (pixel, pixel),
        "translate": (shift, shift),
        "units": ("um", "um"),
        "axis_labels": ("y", "x"),
        "visible": False,
        "metadata": {METADATA_KEY: {"role": "truth"}},
    }
    return values, keywords, "image"
