"""Where the field shows empty medium, the phase is flat: what drifts there is noise, and is taken out of the objects too.

Photon noise in US-TIE is a drift of a few waves across the field. Seen over empty medium, it can be followed into the
objects by Gaussian interpolation (Rasmussen and Williams, Gaussian Processes for Machine Learning, eq. 2.11). That is
linear, so a posterior sample that carries a drift of its own (see `Anchor`) keeps exactly what the medium leaves open of
it: little beside the medium, more in the middle of a wide object.
"""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import binary_erosion, gaussian_filter

from napari_cvdm.intensity import MAD_TO_SIGMA
from napari_cvdm.microscope import Microscope
from napari_cvdm.physics.tie import expected_noise_power

MOST_WAVES = 8  # across the field: noise power falls with the fourth power of their number
BLOCK_PX = 4
SHY_BLOCKS = 2  # distance of medium from all else: soft edges of cells, taken for medium, would bend the field
MOST_BLOCKS = 128  # along an axis; larger fields have larger blocks
FLATNESS_RAD = 0.05  # what real medium and glass still vary by, in a block
DENSEST_SHARE = 0.15
LEAST_BACKGROUND = 0.1  # of the frame within `FLATNESS_RAD` of the commonest phase: less is no background
SMALLEST_SHARE = 0.05
LARGEST_SHARE = 0.95
OTHER_SIDE_SHARE = 0.02
CLEAR_OF_NOISE = 12.0
LARGEST_DRIFT = 3.0  # standard deviations: what drifts more than noise can is no noise
ROUNDS = 4  # the medium is found anew once the drift is known
FIRST_TOLERANCE = 3.0  # in standard deviations of the drift
LATER_TOLERANCE = 3.0  # in those of what is left over the medium


@cache
def wave_numbers() -> np.ndarray:
    """Waves across the field along y and x, one of each pair (k, -k), 0 < |k| <= MOST_WAVES: shape (M, 2)."""
    ky, kx = np.mgrid[0 : MOST_WAVES + 1, -MOST_WAVES : MOST_WAVES + 1].reshape(2, -1)
    kept = (np.hypot(ky, kx) <= MOST_WAVES) & ((ky > 0) | (kx > 0))
    return np.stack([ky[kept], kx[kept]], axis=1)


def _harmonics(size: int, numbers: np.ndarray) -> np.ndarray:
    return np.exp(2j * np.pi * np.outer(np.arange(size) / size, numbers))


def block_means(phase: np.ndarray, block_px: int) -> np.ndarray:
    """Means of whole square blocks of (Y, X); rows and columns that fill no block are left out."""
    rows, columns = (size // block_px for size in phase.shape)
    whole = phase[: rows * block_px, : columns * block_px]
    return whole.reshape(rows, block_px, columns, block_px).mean(axis=(1, 3))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Levelling:
    """Takes the drift that shows over empty medium out of a whole field.

    Parameters
    ----------
    shape : tuple of int
        Of the field (Y, X).
    block_px : int
        Side of a block.
    medium : ndarray of shape (bY, bX), bool
        Blocks of empty medium.
    estimator : ndarray of shape (1 + 2 M, blocks of medium)
        Gives the level and the cosines and sines of `wave_numbers` [rad] from the phase of the medium.
    """

    shape: tuple[int, int]
    block_px: int
    medium: np.ndarray = field(repr=False)
    estimator: np.ndarray = field(repr=False)

    @property
    def share(self) -> float:
        """Share of the field that is empty medium."""
        return float(self.medium.mean())

    def apply(self, phase: np.ndarray) -> np.ndarray:
        """The phase [rad] of shape (Y, X) without its drift; its mean stays what it was."""
        drift = self.drift(phase)
        return phase - (drift - drift.mean())

    def drift(self, phase: np.ndarray) -> np.ndarray:
        """Level and waves that the medium shows, on every pixel; the sum is separable, so large fields cost little.

        Parameters
        ----------
        phase : ndarray of shape (Y, X)
            [rad].

        Returns
        -------
        ndarray of shape (Y, X), float64
            [rad].
        """
        level, *waves = self.estimator @ block_means(phase, self.block_px)[self.medium]
        cosines, sines = np.split(np.array(waves), 2)
        spectrum = np.zeros((MOST_WAVES + 1, 2 * MOST_WAVES + 1), complex)
        ky, kx = wave_numbers().T
        spectrum[ky, kx + MOST_WAVES] = cosines - 1j * sines
        down = _harmonics(self.shape[0], np.arange(MOST_WAVES + 1))
        across = _harmonics(self.shape[1], np.arange(-MOST_WAVES, MOST_WAVES + 1))
        return np.asarray((down @ spectrum @ across.T).real + level)


def levelling_over(medium: np.ndarray, block_px: int, shape: tuple[int, int], deviations: np.ndarray, flatness_rad: float = FLATNESS_RAD) -> Levelling:
    """The levelling of a field whose medium is flat to `flatness_rad` in every block.

    w = S (S A^T A S / s^2 + 1)^-1 S A^T y / s^2 for y = A w + s e, w ~ N(0, S^2), e ~ N(0, 1).

    Parameters
    ----------
    medium : ndarray of shape (bY, bX), bool
    block_px : int
    shape : tuple of int
        Of the field (Y, X).
    deviations : ndarray of shape (1 + 2 M,)
        S, the prior standard deviation [rad] of the level and of each cosine and sine.
    flatness_rad : float
        s, what the medium itself still varies by from block to block [rad].

    Returns
    -------
    Levelling
    """
    centres = (np.argwhere(medium) + 0.5) * block_px - 0.5
    angle = 2 * np.pi * (centres / shape) @ wave_numbers().T
    scaled = np.concatenate([np.ones((len(centres), 1)), np.cos(angle), np.sin(angle)], axis=1) * deviations / flatness_rad
    solved = cho_solve(cho_factor(scaled.T @ scaled + np.eye(len(deviations))), scaled.T)
    return Levelling(shape=shape, block_px=block_px, medium=medium, estimator=deviations[:, None] * solved / flatness_rad)


def drift_deviations(shape: tuple[int, int], derivative_sigma: float, microscope: Microscope) -> np.ndarray:
    """Standard deviation [rad] of the cosine and the sine of each of `wave_numbers`, from photon noise in US-TIE: (M,)."""
    power = expected_noise_power(shape, derivative_sigma, microscope, torch.zeros(1, dtype=torch.float64)).numpy()
    ky, kx = (wave_numbers() % np.array(shape)).T
    return np.sqrt(2 * power[ky, kx]) / (shape[0] * shape[1])


def densest_value(values: np.ndarray) -> float:
    """Middle of the narrowest interval that holds DENSEST_SHARE of the values."""
    ordered = np.sort(values, axis=None)
    count = max(2, int(DENSEST_SHARE * ordered.size))
    start = int(np.argmin(ordered[count - 1 :] - ordered[: ordered.size - count + 1]))
    return float(np.median(ordered[start : start + count]))


def find_background(phase: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Mean phase of the cell-free background [rad], and where it is: the whole field where there is none.

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


def find_medium(means: np.ndarray, tolerance: float) -> np.ndarray | None:
    """Blocks of empty medium, or None where the field has none that is sure.

    The medium is the commonest phase, and nothing but noise lies on its other side: objects are denser than the medium, or
    all thinner. A smooth field with hills and valleys has no medium, and is left alone.

    Parameters
    ----------
    means : ndarray of shape (bY, bX)
        Phase of each block [rad].
    tolerance : float
        How far medium may lie from its level [rad].

    Returns
    -------
    ndarray of shape (bY, bX), bool, or None
    """
    smooth = gaussian_filter(means, 0.7)
    above = smooth - densest_value(smooth)
    medium = binary_erosion(np.abs(above) < tolerance, border_value=1, iterations=SHY_BLOCKS)
    two_sided = min((above < -tolerance).mean(), (above > tolerance).mean()) > OTHER_SIDE_SHARE
    return None if two_sided or not SMALLEST_SHARE < medium.mean() < LARGEST_SHARE else medium


def level_by_medium(phase: np.ndarray, derivative_sigma: float, microscope: Microscope) -> Levelling | None:
    """Find the empty medium of a field and the drift that noise may have put there.

    Parameters
    ----------
    phase : ndarray of shape (Y, X)
        US-TIE [rad].
    derivative_sigma : float
        Standard deviation of the noise of dI/dz [1/um], intensity over background.
    microscope : Microscope

    Returns
    -------
    Levelling or None
        None where objects do not stand clear of the drift, no medium is found, or more drifts there than noise explains.
    """
    shape = (phase.shape[0], phase.shape[1])
    if min(shape) <= 2 * MOST_WAVES * BLOCK_PX:
        return None
    block_px = max(BLOCK_PX, -(-max(shape) // MOST_BLOCKS))
    waves = drift_deviations(shape, derivative_sigma, microscope)
    noise = float(np.sqrt(np.square(waves).sum()))
    means = block_means(phase, block_px)
    span = float(np.ptp(np.percentile(means, [1, 99])))
    if span < CLEAR_OF_NOISE * noise:
        return None
    deviations, left, tolerance = np.concatenate([[10 * span], waves, waves]), means, max(FIRST_TOLERANCE * noise, FLATNESS_RAD)
    for _ in range(ROUNDS):
        medium = find_medium(left, tolerance)
        if medium is None:
            return None
        found = levelling_over(medium, block_px, shape, deviations)
        drift = found.drift(phase)
        left = means - block_means(drift, block_px)
        tolerance = min(tolerance, max(LATER_TOLERANCE * MAD_TO_SIGMA * float(np.median(np.abs(left[medium]))), FLATNESS_RAD))
    return found if drift.std() < LARGEST_DRIFT * noise else None
