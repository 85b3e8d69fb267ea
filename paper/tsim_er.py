"""Real widefield images of the endoplasmic reticulum, and SIM of the same field."""

from collections.abc import Mapping

import numpy as np
import tifffile
from scipy.ndimage import shift

from paper.measure import DATA

FIELDS = (1, 2, 3)
GRID_SHIFT_PX = (
    -0.5
)  # this SIM reconstruction puts its pixel 2i on widefield pixel i; napari and we centre both grids
ASSUMED_PIXEL_UM = (
    0.0626  # not recorded with the data; only the warning about trained ranges uses it
)


def scaled_truth(image: np.ndarray) -> np.ndarray:
    """SIM between its 0.1 and 99.9 percentiles, clipped to 0..1."""
    low, high = np.percentile(image, (0.1, 99.9))
    return ((image - low) / (high - low)).clip(0, 1)


def on_its_grid(image: np.ndarray) -> np.ndarray:
    """An image on centred grids, moved onto the SIM reconstruction's grid."""
    return shift(image, GRID_SHIFT_PX, order=3, mode="nearest")


Fields = Mapping[int, tuple[np.ndarray, np.ndarray]]
"""Widefield image (Y, X) and SIM reconstruction (2Y, 2X), by number."""


def measured_fields() -> Fields:
    """The fields of the data set."""
    names = {number: (f"ER_{number}_wf_t1.tif", f"ER_{number}_gt_sim.tif") for number in FIELDS}
    read = {
        number: [tifffile.imread(DATA / "sr/tsim_er" / name).astype(np.float64) for name in pair]
        for number, pair in names.items()
    }
    return {number: (widefield, sim) for number, (widefield, sim) in read.items()}
