"""How the light changed from one plane of focus to the other: a ramp or a bowl that US-TIE would take for a phase of radians.

A polynomial of order 2 in the ratio of the planes stands for the lamp, and is fitted where it does most harm: in the phase. There
the empty medium is flat, and each term of the polynomial is known in closed form, as the phase that US-TIE makes of it. In the ratio
itself the rings of a cell outweigh a lamp's drift a hundred times, and a dome looks like a bowl: the mean of x^2 laplace(phi)
is that of 2 phi.
"""

from dataclasses import dataclass, field
from math import pi

import numpy as np
import torch
from scipy.ndimage import binary_erosion, gaussian_filter
from torch import Tensor

from napari_cvdm.microscope import Microscope
from napari_cvdm.physics.tie import AUTHORS_REGULARISATION, inverse_laplacian
from napari_cvdm.tasks.levelling import BLOCK_PX, MOST_BLOCKS, SHY_BLOCKS, block_means, densest_value

TERMS = ("ramp_y", "ramp_x", "quadratic_yy", "quadratic_xx", "quadratic_yx")
TOLERANCES = (0.1, 0.15, 0.25)  # how far medium may lie from its level, as a share of all phases
SMALLEST_TOLERANCE_RAD = 0.03
SMALLEST_MEDIUM = 0.08
ROUNDS = 8
TILES = 4  # along each axis, left out one by one for the standard error
FEWEST_TILES = 4
DISTRUST = 2.0  # a fit sees the slow waves of the noise as light: its own standard error is too small
SMALLEST_SIDE_PX = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class LightDrift:
    """Change of the light from the first plane to the second, as shares of it.

    Parameters
    ----------
    terms : tuple of float
        By `TERMS`: ramps from edge to edge (a of a y, with y from -1/2 to 1/2), then the coefficients of y^2, x^2 and y x.
    errors : tuple of float
        Standard error of each.
    medium_share : float
        Share of the field that was taken for empty medium.
    """

    terms: tuple[float, ...]
    errors: tuple[float, ...]
    medium_share: float

    def significant(self, significance: float, smallest: float) -> tuple[float, ...]:
        """The terms that are as many standard errors and as large as that; 0 for the others."""
        return tuple(term if abs(term) > max(significance * error, smallest) else 0.0 for term, error in zip(self.terms, self.errors, strict=True))


def polynomials(shape: tuple[int, int]) -> np.ndarray:
    """The terms y, x, y^2 - 1/12, x^2 - 1/12 and y x on a field from -1/2 to 1/2, each of mean 0: (5, Y, X)."""
    y, x = (((np.arange(size) + 0.5) / size - 0.5) for size in shape)
    down, across = np.broadcast_arrays(y[:, None], x[None, :])
    return np.stack([down, across, down**2 - 1 / 12, across**2 - 1 / 12, down * across])


def phase_of_terms(shape: tuple[int, int], defocus_um: tuple[float, float], microscope: Microscope) -> np.ndarray:
    """What US-TIE makes of each polynomial between planes of uniform light: laplace(phi) = -k p / dz; (5, Y, X) [rad]."""
    k = 2 * pi * microscope.medium_index / microscope.wavelength_um
    density = torch.from_numpy(polynomials(shape)) * (-k / (defocus_um[1] - defocus_um[0]))
    return inverse_laplacian(density, microscope.pixel_um, AUTHORS_REGULARISATION).numpy()


def ramp_of_difference(planes: np.ndarray) -> np.ndarray:
    """First guess of both ramps, the first moments of (I2 - I1) / mean: objects within the frame have none, (5,)."""
    difference = (planes[1] - planes[0]) / planes.mean()
    ramps = polynomials((planes.shape[1], planes.shape[2]))[:2]
    guess = (ramps * difference).sum(axis=(1, 2)) / np.square(ramps).sum(axis=(1, 2))
    return np.concatenate([guess, np.zeros(3)])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Blocks:
    """The phase and the terms of a field, by blocks."""

    phase: np.ndarray
    columns: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, phase: np.ndarray, terms: np.ndarray) -> "_Blocks":
        side = max(BLOCK_PX, -(-max(phase.shape) // MOST_BLOCKS))
        means = block_means(phase, side)
        return cls(phase=means, columns=np.stack([np.ones_like(means), *(block_means(term, side) for term in terms)], axis=-1))

    def medium(self, coefficients: np.ndarray, tolerance: float) -> np.ndarray | None:
        """Blocks at the commonest phase, once the polynomial is taken out, and away from all others."""
        left = gaussian_filter(self.phase - self.columns @ coefficients, 0.7)
        allowed = max(tolerance * float(np.ptp(np.percentile(left, [1, 99]))), SMALLEST_TOLERANCE_RAD)
        medium = binary_erosion(np.abs(left - densest_value(left)) < allowed, border_value=1, iterations=SHY_BLOCKS)
        return medium if medium.mean() > SMALLEST_MEDIUM else None

    def solve(self, medium: np.ndarray) -> np.ndarray:
        return np.linalg.lstsq(self.columns[medium], self.phase[medium], rcond=None)[0]

    def errors(self, medium: np.ndarray) -> np.ndarray | None:
        """Jackknife over the tiles of the field that hold medium (Efron and Tibshirani, eq. 11.5)."""
        rows, columns = (np.arange(size) * TILES // size for size in medium.shape)
        tile = rows[:, None] * TILES + columns
        held = np.unique(tile[medium])
        if len(held) < FEWEST_TILES:
            return None
        left_out = [self.solve(medium & (tile != one)) for one in held]
        return np.std(left_out, axis=0) * np.sqrt(len(held) - 1)


def _fit(blocks: _Blocks, start: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Medium and polynomial in turn, each found by means of the other: coefficients, errors and share of medium."""
    coefficients, medium = np.concatenate([[0.0], start]), blocks.medium(np.concatenate([[0.0], start]), tolerance)
    for _ in range(ROUNDS):
        if medium is None:
            return None
        coefficients, held = blocks.solve(medium), medium
        medium = blocks.medium(coefficients, tolerance)
    errors = blocks.errors(held)
    return None if errors is None else (coefficients[1:], errors[1:], float(held.mean()))


def light_drift(phase: Tensor, planes: np.ndarray, defocus_um: tuple[float, float], microscope: Microscope) -> LightDrift | None:
    """The change of the light between two planes.

    Six fits, with two beginnings and three ideas of how flat a medium is, must all find a medium; their scatter is the error,
    where it is more than the jackknife's.

    Parameters
    ----------
    phase : Tensor of shape (Y, X)
        US-TIE [rad] with almost no regularisation.
    planes : ndarray of shape (2, Y, X)
        Over background.
    defocus_um : tuple of float
    microscope : Microscope

    Returns
    -------
    LightDrift or None
        None where there is no empty medium to see it by.
    """
    shape = (planes.shape[1], planes.shape[2])
    if min(shape) < SMALLEST_SIDE_PX:
        return None
    blocks = _Blocks.of(phase.numpy(), phase_of_terms(shape, defocus_um, microscope))
    starts = (ramp_of_difference(planes), np.zeros(len(TERMS)))
    fits = [fit for start in starts for tolerance in TOLERANCES if (fit := _fit(blocks, start, tolerance)) is not None]
    if len(fits) < len(starts) * len(TOLERANCES):
        return None
    terms, errors, shares = (np.array([fit[part] for fit in fits]) for part in range(3))
    error = DISTRUST * np.hypot(np.median(errors, axis=0), terms.std(axis=0))
    return LightDrift(terms=tuple(np.median(terms, axis=0).tolist()), errors=tuple(error.tolist()), medium_share=float(shares.mean()))


def evened(planes: np.ndarray, terms: tuple[float, ...], ratio: float = 1.0) -> np.ndarray:
    """Planes (2, Y, X) with the polynomial of their logarithmic ratio taken out, and the ratio of their means; half of it from each."""
    half = np.exp(np.tensordot(terms, polynomials((planes.shape[1], planes.shape[2])), axes=1) / 2) * ratio**0.5
    return np.stack([planes[0] * half, planes[1] / half])
