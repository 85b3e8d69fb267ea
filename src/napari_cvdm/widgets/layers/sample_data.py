"""Sample images for File > Open Sample.

The simulated samples of the package become layers with all optics that the form needs.
"""

from typing import Any

import numpy as np

from napari_cvdm.core.request import ImageStack
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, LayerData


def two_defocused_planes() -> list[LayerData]:
    """Cells in brightfield below and above focus, as one layer of two planes.

    Their true phase is a second, hidden layer.

    Returns
    -------
    list of (data, keywords, layer type)
        Camera counts of shape (2, Y, X); phase of shape (Y, X) [rad].
    """
    from napari_cvdm.simulate.samples import CELL_DEFOCUS_UM, cell_phase, cell_planes

    return _two_planes(
        "two defocused planes", cell_planes(), CELL_DEFOCUS_UM, "true phase of cells", cell_phase()
    )


def measured_cell() -> list[LayerData]:
    """Two planes simulated from the measured phase of a cell.

    That phase is a second, hidden layer.

    Returns
    -------
    list of (data, keywords, layer type)
        Camera counts of shape (2, Y, X); phase of shape (Y, X) [rad].
    """
    from napari_cvdm.simulate.samples import (
        MEASURED_DEFOCUS_UM,
        measured_cell_phase,
        measured_cell_planes,
    )

    return _two_planes(
        "planes simulated from a measured cell",
        measured_cell_planes(),
        MEASURED_DEFOCUS_UM,
        "measured phase of cell",
        measured_cell_phase(),
    )


def widefield_network() -> list[LayerData]:
    """A tubular network in widefield fluorescence.

    The truth at twice the resolution is a second, hidden layer.

    Returns
    -------
    list of (data, keywords, layer type)
        Camera counts of shape (Y, X); truth of shape (2Y, 2X).
    """
    from napari_cvdm.simulate.samples import reticulum, reticulum_pair

    return _widefield(
        "widefield network", reticulum(), "true structure of network", reticulum_pair().truth
    )


def widefield_microtubules() -> list[LayerData]:
    """Microtubules in widefield fluorescence.

    The truth at twice the resolution is a second, hidden layer.

    Returns
    -------
    list of (data, keywords, layer type)
        Camera counts of shape (Y, X); truth of shape (2Y, 2X).
    """
    from napari_cvdm.simulate.samples import microtubules, microtubules_pair

    return _widefield(
        "widefield microtubules",
        microtubules(),
        "true structure of microtubules",
        microtubules_pair().truth,
    )


def _two_planes(
    name: str,
    sample: ImageStack,
    defocus_um: tuple[float, float],
    truth_name: str,
    truth: np.ndarray,
) -> list[LayerData]:
    pixel = _pixel(sample)
    optics = {**sample.metadata, "defocus_um": defocus_um}
    image = _image(
        name, sample.array, (defocus_um[1] - defocus_um[0], pixel, pixel), ("z", "y", "x"), optics
    )
    return [_truth(truth_name, truth, pixel, 0.0), image]


def _widefield(
    name: str, sample: ImageStack, truth_name: str, truth: np.ndarray
) -> list[LayerData]:
    pixel = _pixel(sample)
    image = _image(name, sample.array, (pixel, pixel), ("y", "x"), dict(sample.metadata))
    return [_truth(truth_name, truth, pixel / 2, -pixel / 4), image]


def _pixel(sample: ImageStack) -> float:
    if sample.pixel_um is None:
        raise ValueError(
            f"the sample {sample.source} has no pixel size; it cannot be shown in micrometres."
        )
    return sample.pixel_um


def _image(
    name: str,
    counts: np.ndarray,
    scale: tuple[float, ...],
    labels: tuple[str, ...],
    optics: dict[str, Any],
) -> LayerData:
    units = ("um",) * len(labels)
    return (
        counts,
        {
            "name": name,
            "scale": scale,
            "units": units,
            "axis_labels": labels,
            "metadata": {METADATA_KEY: {"optics": optics}},
        },
        "image",
    )


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
