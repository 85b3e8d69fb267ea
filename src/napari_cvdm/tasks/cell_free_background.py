"""The cell-free background of a phase, and the drift of a field by photon noise.

The drift has a few periods across the field.
"""

from functools import cache

import numpy as np
import torch

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.inversion.background import densest_value
from napari_cvdm.physics.tie import expected_noise_power

MOST_WAVES = 8  # across the field: noise power falls with the fourth power of their number
BLOCK_PX = 4
SHY_BLOCKS = 2  # distance of background from all else
MOST_BLOCKS = 128  # along an axis; larger fields have larger blocks
FLATNESS_RAD = 0.05  # what real medium and glass still vary by
LEAST_BACKGROUND = (
    0.1  # of the frame within `FLATNESS_RAD` of the commonest phase: less is no background
)


@cache
def wave_numbers() -> np.ndarray:
    """Wave numbers of the field along y and x, one of each pair (k, -k): shape (M, 2).

    They satisfy 0 < |k| <= MOST_WAVES.
    """
    ky, kx = np.mgrid[0 : MOST_WAVES + 1, -MOST_WAVES : MOST_WAVES + 1].reshape(2, -1)
    kept = (np.hypot(ky, kx) <= MOST_WAVES) & ((ky > 0) | (kx > 0))
    return np.stack([ky[kept], kx[kept]], axis=1)


def block_means(phase: np.ndarray, block_px: int) -> np.ndarray:
    """Means of whole square blocks of (Y, X); rows and columns that fill no block are left out."""
    rows, columns = (size // block_px for size in phase.shape)
    whole = phase[: rows * block_px, : columns * block_px]
    return whole.reshape(rows, block_px, columns, block_px).mean(axis=(1, 3))


def drift_deviations(
    shape: tuple[int, int], derivative_sigma: float, microscope: Microscope
) -> np.ndarray:
    """Standard deviation [rad] of the cosine and the sine of each of `wave_numbers`: (M,).

    It comes from photon noise in US-TIE.
    """
    power = expected_noise_power(
        shape, derivative_sigma, microscope, torch.zeros(1, dtype=torch.float64)
    ).numpy()
    ky, kx = (wave_numbers() % np.array(shape)).T
    return np.sqrt(2 * power[ky, kx]) / (shape[0] * shape[1])


def find_background(phase: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Mean phase of the cell-free background [rad], and where the background is.

    It is the whole field where there is no background.

    Parameters
    ----------
    phase : ndarray of shape (Y, X) [rad]

    Returns
    -------
    level : float
    background : ndarray of shape (Y, X), bool
    share : float
        Of the field within `FLATNESS_RAD` of its commonest phase.
    """
    flat = np.abs(phase - densest_value(phase)) < FLATNESS_RAD
    share = float(flat.mean())
    background = flat if share >= LEAST_BACKGROUND else np.ones(phase.shape, dtype=bool)
    return float(phase[background].mean()), background, share
