"""Pairs of defocused planes of small cells, and what can go wrong between the planes."""

import numpy as np
from scipy.ndimage import gaussian_filter, shift

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.simulate.scenes import defocus_pair_of

MICROSCOPE = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.337)
DEFOCUS_UM = (-1.0, 1.0)
PHOTONS = 1e5


def domes(shape: tuple[int, int], height: float = 1.5) -> np.ndarray:
    """Small cells on a jittered grid, clear of the frame: phase [rad] of shape (Y, X)."""
    rng = np.random.default_rng(3)
    phase, (y, x) = np.zeros(shape), np.mgrid[: shape[0], : shape[1]]
    for row in np.arange(30, shape[0] - 20, 46):
        for column in np.arange(30, shape[1] - 20, 46):
            down, right = rng.uniform(-4, 4, 2)
            wide, high = rng.uniform(9, 13, 2)
            phase += height * (
                1 - ((y - row - down) / high) ** 2 - ((x - column - right) / wide) ** 2
            ).clip(min=0)
    return gaussian_filter(phase, 1.5)


def pair(
    shape: tuple[int, int],
    defocus_um: tuple[float, float] = DEFOCUS_UM,
    photons: float = PHOTONS,
    spots: float = 0.0,
) -> np.ndarray:
    """Two planes without a mistake, in units of the background."""
    absorbance = gaussian_filter(np.random.default_rng(5).random(shape) > 0.997, 1.5) * spots
    planes = defocus_pair_of(domes(shape), absorbance, MICROSCOPE, defocus_um)
    return np.random.default_rng(1).poisson(planes * photons) / photons


def moved(planes: np.ndarray, down: float, right: float) -> np.ndarray:
    """The second plane moved down and right."""
    return np.stack([planes[0], shift(planes[1], (down, right), order=3, mode="reflect")])
