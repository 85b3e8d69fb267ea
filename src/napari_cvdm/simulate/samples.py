"""Two sample images, always the same: a pair of defocused planes of cells, and a widefield image of a reticulum.

They are simulated, so that nobody's data has to be shipped, with optics that many microscopes have.
"""

from functools import cache

import numpy as np

from napari_cvdm.microscope import Microscope
from napari_cvdm.request import ImageStack
from napari_cvdm.simulate.phase import defocus_pair_of
from napari_cvdm.simulate.phase_objects import cells
from napari_cvdm.simulate.widefield import WidefieldPair, WidefieldRanges, simulate_widefield

CELL_MICROSCOPE = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.337)
CELL_DEFOCUS_UM = (-2.5, 2.5)
CELL_PHASE_RAD = 2.5
CELL_COUNTS = 20000.0
CELL_SHAPE = (256, 320)
CELL_MARGIN_PX = 32
CELL_SEED = 39  # no cell touches the frame: what a user should aim for, since US-TIE sees a cut object again at the other side
RETICULUM_SEED = 5
RETICULUM_RANGES = WidefieldRanges(
    na=(1.4, 1.4),
    wavelength_um=(0.52, 0.52),
    pixel_um=(0.0626, 0.0626),
    medium_index=(1.518, 1.518),
    photons=(250, 250),
    background=(0.05, 0.05),
    haze=(0.1, 0.2),
    field_px=256,
)


@cache
def _cells_beyond_the_frame() -> np.ndarray:
    """Phase [rad] of the field with a margin: light comes in from outside the frame, as it does in a microscope."""
    height, width = (size + 2 * CELL_MARGIN_PX for size in CELL_SHAPE)
    image = cells(np.random.default_rng(CELL_SEED), (height, width))
    return CELL_PHASE_RAD * image / np.ptp(image)


def _frame(image: np.ndarray) -> np.ndarray:
    return image[..., CELL_MARGIN_PX:-CELL_MARGIN_PX, CELL_MARGIN_PX:-CELL_MARGIN_PX]


def cell_phase() -> np.ndarray:
    """The phase [rad] behind `cell_planes`, shape (256, 320), zero mean."""
    phase = _frame(_cells_beyond_the_frame())
    return phase - phase.mean()


def cell_planes() -> ImageStack:
    """Two brightfield planes, 2.5 um below and above focus, axes PYX, counts of a camera."""
    phase = _cells_beyond_the_frame()
    planes = _frame(defocus_pair_of(phase, np.zeros_like(phase), CELL_MICROSCOPE, CELL_DEFOCUS_UM))
    counts = np.random.default_rng(CELL_SEED).poisson(planes * CELL_COUNTS).astype(np.uint16)
    metadata = {"wavelength_um": CELL_MICROSCOPE.wavelength_um, "medium_index": CELL_MICROSCOPE.medium_index}
    return ImageStack(array=counts, axes="PYX", pixel_um=CELL_MICROSCOPE.pixel_um, source="cells, two planes", metadata=metadata)


@cache
def reticulum_pair() -> WidefieldPair:
    """Camera counts of shape (256, 256) and the truth behind them, (512, 512)."""
    return simulate_widefield(RETICULUM_SEED, RETICULUM_RANGES)


def reticulum() -> ImageStack:
    """A widefield fluorescence image, axes YX, counts of a camera."""
    pair = reticulum_pair()
    microscope = pair.microscope
    metadata = {"wavelength_um": microscope.wavelength_um, "medium_index": microscope.medium_index, "na": float(microscope.na or 0)}
    return ImageStack(array=pair.counts, axes="YX", pixel_um=microscope.pixel_um, source="reticulum, widefield", metadata=metadata)
