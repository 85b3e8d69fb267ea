"""Sample images that are always the same.

They are pairs of defocused planes of cells, and widefield images of a reticulum and of
microtubules. They are simulated, so that no user's data has to be shipped, with optics that many
microscopes have. The planes of one pair are those of a measured phase, the cell that comes with
scikit-image.
"""

from dataclasses import replace
from functools import cache

import numpy as np

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import ImageStack
from napari_cvdm.simulate.phase_objects import cells
from napari_cvdm.simulate.ranges import WidefieldRanges
from napari_cvdm.simulate.scenes import WidefieldPair, defocus_pair_of, simulate_widefield

CELL_MICROSCOPE = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.337)
CELL_DEFOCUS_UM = (-2.5, 2.5)
CELL_PHASE_RAD = 2.5
CELL_COUNTS = 20000.0
CELL_SHAPE = (256, 320)
CELL_MARGIN_PX = 32
# No cell touches the frame. A user should aim for this, since US-TIE repeats a cut object at the
# other side.
CELL_SEED = 39
# scikit-image's cell has 0.107 um/px; Mueller et al., Opt. Express 26, 10729 (2018) measured it.
# The file keeps grey values, not radians, so the strength is chosen.
MEASURED_MICROSCOPE = Microscope(pixel_um=0.107, wavelength_um=0.647, medium_index=1.335)
MEASURED_DEFOCUS_UM = (-1.0, 1.0)
MEASURED_PHASE_RAD = 3.0  # from the medium to the brightest pixel
MEASURED_CENTRE = (374, 427)
MEASURED_SIDE_PX = 200
# As far as 1 um of defocus carries light, lambda z / (2 n px), so that the periodic border of the
# field makes no ripples.
MEASURED_MARGIN_PX = 22
RETICULUM_SEED = 4
MICROTUBULES_SEED = 6
WIDEFIELD_RANGES = WidefieldRanges(
    na=(1.4, 1.4),
    wavelength_um=(0.52, 0.52),
    pixel_um=(0.0626, 0.0626),
    medium_index=(1.518, 1.518),
    photons=(250, 250),
    background=(0.05, 0.05),
    haze=(0.1, 0.2),
    stretched=0.0,
    correlated=0.0,
    field_px=256,
)


@cache
def _wide_cells() -> np.ndarray:
    """Phase [rad] with a margin: light enters from outside the frame, as in a microscope."""
    height, width = (size + 2 * CELL_MARGIN_PX for size in CELL_SHAPE)
    image = cells(np.random.default_rng(CELL_SEED), (height, width))
    return CELL_PHASE_RAD * image / np.ptp(image)


def cell_phase() -> np.ndarray:
    """The phase [rad] behind `cell_planes`, shape (256, 320), zero mean."""
    phase = _crop(_wide_cells(), CELL_MARGIN_PX)
    return phase - phase.mean()


def cell_planes() -> ImageStack:
    """Two brightfield planes, 2.5 um below and above focus, axes PYX, counts of a camera."""
    return _two_planes(
        _wide_cells(), CELL_MICROSCOPE, CELL_DEFOCUS_UM, CELL_MARGIN_PX, "cells, two planes"
    )


@cache
def _wide_measured_cell() -> np.ndarray:
    """Phase [rad] with a margin."""
    from skimage.data import cell

    reach = MEASURED_SIDE_PX // 2 + MEASURED_MARGIN_PX
    grey = cell().astype(float)
    medium = np.median(grey)
    rows, columns = (slice(middle - reach, middle + reach) for middle in MEASURED_CENTRE)
    return MEASURED_PHASE_RAD * (grey - medium)[rows, columns] / (grey.max() - medium)


def measured_cell_phase() -> np.ndarray:
    """The phase [rad] behind `measured_cell_planes`, shape (200, 200), zero mean.

    A hologram measured it, and its strength was chosen.
    """
    phase = _crop(_wide_measured_cell(), MEASURED_MARGIN_PX)
    return phase - phase.mean()


def measured_cell_planes() -> ImageStack:
    """Two brightfield planes simulated from a measured phase, axes PYX, in camera counts.

    They lie 1 um below and above focus.
    """
    return _two_planes(
        _wide_measured_cell(),
        MEASURED_MICROSCOPE,
        MEASURED_DEFOCUS_UM,
        MEASURED_MARGIN_PX,
        "measured cell, two planes",
    )


def _crop(image: np.ndarray, margin: int) -> np.ndarray:
    return image[..., margin:-margin, margin:-margin]


def _two_planes(
    phase: np.ndarray,
    microscope: Microscope,
    defocus_um: tuple[float, float],
    margin: int,
    source: str,
) -> ImageStack:
    planes = _crop(defocus_pair_of(phase, np.zeros_like(phase), microscope, defocus_um), margin)
    counts = np.random.default_rng(CELL_SEED).poisson(planes * CELL_COUNTS).astype(np.uint16)
    return _stack_of(counts, "PYX", microscope, source)


def _stack_of(array: np.ndarray, axes: str, microscope: Microscope, source: str) -> ImageStack:
    metadata = {"wavelength_um": microscope.wavelength_um, "medium_index": microscope.medium_index}
    if microscope.na is not None:
        metadata["na"] = microscope.na
    return ImageStack(
        array=array, axes=axes, pixel_um=microscope.pixel_um, source=source, metadata=metadata
    )


@cache
def reticulum_pair() -> WidefieldPair:
    """Camera counts of shape (256, 256) and the truth behind them, (512, 512)."""
    return simulate_widefield(RETICULUM_SEED, replace(WIDEFIELD_RANGES, structures=("reticulum",)))


@cache
def microtubules_pair() -> WidefieldPair:
    """Camera counts of shape (256, 256) and the truth behind them, (512, 512)."""
    return simulate_widefield(
        MICROTUBULES_SEED, replace(WIDEFIELD_RANGES, structures=("microtubules",))
    )


def reticulum() -> ImageStack:
    """A widefield fluorescence image of a tubular network, axes YX, counts of a camera."""
    pair = reticulum_pair()
    return _stack_of(pair.counts, "YX", pair.microscope, "reticulum, widefield")


def microtubules() -> ImageStack:
    """A widefield fluorescence image of filaments, axes YX, counts of a camera."""
    pair = microtubules_pair()
    return _stack_of(pair.counts, "YX", pair.microscope, "microtubules, widefield")
