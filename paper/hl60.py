"""Phase of an HL60 cell, measured by others, and defocused planes made of it."""

import numpy as np

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.simulate.scenes import defocus_pair_of
from paper.measure import DATA

FRAMES = (0, 35, 70, 105)
MICROSCOPE = Microscope(pixel_um=0.139, wavelength_um=0.647, medium_index=1.335)
DEFOCUS_UM = (-1.0, 1.0)
PHOTONS = 1e4
REGULARISATIONS = 10.0 ** np.arange(-10, 0.1, 0.5)


def measured_planes(phase: np.ndarray, seed: int) -> np.ndarray:
    """Two noisy planes over background, (2, Y, X)."""
    planes = defocus_pair_of(phase, np.zeros_like(phase), MICROSCOPE, DEFOCUS_UM)
    return np.random.default_rng(seed).poisson(planes * PHOTONS) / PHOTONS


def measured_phases() -> dict[int, np.ndarray]:
    """Phases [rad] of the cell, by frame."""
    series = np.load(DATA / "qpi/phase_gt/hl60_qlsi_series/hl60_qlsi_140.npz")["phase"].astype(
        np.float64
    )
    return {frame: series[frame] for frame in FRAMES}
