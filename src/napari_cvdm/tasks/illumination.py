"""Change of the light from one plane of focus to the other.

US-TIE would take a ramp or a bowl of the light for a phase of radians. A polynomial of order 2 in
the ratio of the planes describes the lamp. It is fitted in the phase, where it does most harm.
There the cell-free background is flat. Each term of the polynomial is known in closed form there,
as the phase that US-TIE makes of it. In the ratio itself, the rings of a cell outweigh a lamp's
drift a hundred times, and a dome looks like a bowl: the mean of x^2 laplace(phi) is that of 2 phi.
"""

from dataclasses import dataclass, field
from math import pi

import numpy as np
import torch
from scipy.ndimage import binary_erosion, gaussian_filter
from torch import Tensor

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.inversion.background import densest_value
from napari_cvdm.physics.tie import AUTHORS_REGULARISATION, inverse_laplacian
from napari_cvdm.tasks.cell_free_background import (
    BLOCK_PX,
    MOST_BLOCKS,
    SHY_BLOCKS,
    block_means,
    drift_deviations,
    wave_numbers,
)

TERMS = ("ramp_y", "ramp_x", "quadratic_yy", "quadratic_xx", "quadratic_yx")
TOLERANCES = (0.1, 0.15, 0.25)  # how far medium may lie from its level, as a share of all phases
SMALLEST_TOLERANCE_RAD = 0.03
SMALLEST_MEDIUM = 0.08
ROUNDS = 8
TILES = 4  # along each axis, left out one by one for the standard error
FEWEST_TILES = 4
DISTRUST = 2.0  # soft edges of objects lie in the medium of every fit
SMALLEST_SIDE_PX = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class LampDrift:
    """Change of the light from the first plane to the second, as shares of it.

    Parameters
    ----------
    terms : tuple of float
        By `TERMS`: ramps from edge to edge (a of a y, with y from -1/2 to 1/2), then the
        coefficients of y^2, x^2 and y x.
    errors : tuple of float
        Standard error of each.
    medium_share : float
        Share of the field that was taken for cell-free background.
    """

    terms: tuple[float, ...]
    errors: tuple[float, ...]
    medium_share: float

    def significant(self, significance: float, smallest: float) -> tuple[float, ...]:
        """Terms of the change; 0 for those that are not significant.

        One term must exceed `smallest` and `significance` standard errors, or all are 0. Then each
        term above half of `significance` is kept. Light with a clear ramp may well have a bowl.
        Without any clear term, a doubtful one is more likely an object.
        """
        sizes, errors = np.abs(self.terms), np.array(self.errors)
        if not (sizes > np.maximum(significance * errors, smallest)).any():
            return (0.0,) * len(self.terms)
        return tuple(np.where(sizes > significance / 2 * errors, self.terms, 0.0).tolist())


def polynomials(shape: tuple[int, int]) -> np.ndarray:
    """Terms y, x, y^2 - 1/12, x^2 - 1/12 and y x, each of mean 0: (5, Y, X).

    y and x run from -1/2 to 1/2 over the field.
    """
    y, x = (((np.arange(size) + 0.5) / size - 0.5) for size in shape)
    down, across = np.broadcast_arrays(y[:, None], x[None, :])
    return np.stack([down, across, down**2 - 1 / 12, across**2 - 1 / 12, down * across])


def phase_of_terms(
    shape: tuple[int, int], defocus_um: tuple[float, float], microscope: Microscope
) -> np.ndarray:
    """US-TIE phase of each polynomial between planes of uniform light, (5, Y, X) [rad].

    It solves laplace(phi) = -k p / dz.
    """
    k = 2 * pi * microscope.medium_index / microscope.wavelength_um
    density = torch.from_numpy(polynomials(shape)) * (-k / (defocus_um[1] - defocus_um[0]))
    return inverse_laplacian(density, microscope.pixel_um, AUTHORS_REGULARISATION).numpy()


def ramp_of_difference(planes: np.ndarray) -> np.ndarray:
    """First guess of both ramps, from the first moments of (I2 - I1) / mean; shape (5,).

    Objects within the frame have no such moments.
    """
    difference = (planes[1] - planes[0]) / planes.mean()
    ramps = polynomials((planes.shape[1], planes.shape[2]))[:2]
    guess = (ramps * difference).sum(axis=(1, 2)) / np.square(ramps).sum(axis=(1, 2))
    return np.concatenate([guess, np.zeros(3)])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Blocks:
    """The phase and the terms of a field, by blocks."""

    phase: np.ndarray
    columns: np.ndarray = field(repr=False)
    noise: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, phase: np.ndarray, terms: np.ndarray, deviations: np.ndarray) -> "_Blocks":
        """`deviations` are those of the noise's waves, see `drift_deviations`."""
        side = max(BLOCK_PX, -(-max(phase.shape) // MOST_BLOCKS))
        means = block_means(phase, side)
        columns = np.stack(
            [np.ones_like(means), *(block_means(term, side) for term in terms)], axis=-1
        )
        rows, across = (
            ((np.arange(size) + 0.5) * side - 0.5) / whole
            for size, whole in zip(means.shape, phase.shape, strict=True)
        )
        ky, kx = wave_numbers().T
        waves = (
            np.exp(2j * np.pi * np.multiply.outer(rows, ky))[:, None]
            * np.exp(2j * np.pi * np.multiply.outer(across, kx))
            * deviations
        )
        return cls(
            phase=means, columns=columns, noise=np.concatenate([waves.real, waves.imag], axis=-1)
        )

    def medium(self, coefficients: np.ndarray, tolerance: float) -> np.ndarray | None:
        """Blocks at the commonest phase without the polynomial, and away from all others."""
        left = gaussian_filter(self.phase - self.columns @ coefficients, 0.7)
        allowed = max(
            tolerance * float(np.ptp(np.percentile(left, [1, 99]))), SMALLEST_TOLERANCE_RAD
        )
        medium = binary_erosion(
            np.abs(left - densest_value(left)) < allowed, border_value=1, iterations=SHY_BLOCKS
        )
        return medium if medium.mean() > SMALLEST_MEDIUM else None

    def solve(self, medium: np.ndarray) -> np.ndarray:
        return np.linalg.lstsq(self.columns[medium], self.phase[medium], rcond=None)[0]

    def noise_errors(self, medium: np.ndarray) -> np.ndarray:
        """Error of each coefficient by the photon noise at low spatial frequencies.

        It is the root of the diagonal of P N N^T P^T, with the solving matrix P.
        """
        return np.linalg.norm(
            np.linalg.lstsq(self.columns[medium], self.noise[medium], rcond=None)[0], axis=1
        )

    def errors(self, medium: np.ndarray) -> np.ndarray | None:
        """Jackknife errors over the tiles of the field that hold cell-free background.

        See Efron and Tibshirani, eq. 11.5.
        """
        rows, columns = (np.arange(size) * TILES // size for size in medium.shape)
        tile = rows[:, None] * TILES + columns
        held = np.unique(tile[medium])
        if len(held) < FEWEST_TILES:
            return None
        left_out = [self.solve(medium & (tile != one)) for one in held]
        return np.std(left_out, axis=0) * np.sqrt(len(held) - 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fit:
    """Coefficients of `TERMS`, their errors, and the share of cell-free background.

    The errors are those by the jackknife and by photon noise.
    """

    terms: np.ndarray
    scatter: np.ndarray
    noise: np.ndarray
    medium_share: float


def _fit(blocks: _Blocks, start: np.ndarray, tolerance: float) -> _Fit | None:
    """Medium and polynomial in turn, each found by means of the other."""
    coefficients, medium = (
        np.concatenate([[0.0], start]),
        blocks.medium(np.concatenate([[0.0], start]), tolerance),
    )
    for _ in range(ROUNDS):
        if medium is None:
            return None
        coefficients, held = blocks.solve(medium), medium
        medium = blocks.medium(coefficients, tolerance)
    errors = blocks.errors(held)
    if errors is None:
        return None
    return _Fit(
        terms=coefficients[1:],
        scatter=errors[1:],
        noise=blocks.noise_errors(held)[1:],
        medium_share=float(held.mean()),
    )


def lamp_drift(
    phase: Tensor,
    planes: np.ndarray,
    derivative_sigma: float,
    defocus_um: tuple[float, float],
    microscope: Microscope,
) -> LampDrift | None:
    """The change of the light between two planes.

    Six fits, with two starts and three tolerances for the flatness of a background, must all find a
    background. Their scatter is the error, where it is more than the jackknife's.

    Parameters
    ----------
    phase : Tensor of shape (Y, X)
        US-TIE [rad] with almost no regularisation.
    planes : ndarray of shape (2, Y, X)
        Over background.
    derivative_sigma : float
        Standard deviation of the noise of dI/dz [1/um].
    defocus_um : tuple of float
    microscope : Microscope

    Returns
    -------
    LampDrift or None
        None where there is no cell-free background to estimate it from.
    """
    shape = (planes.shape[1], planes.shape[2])
    if min(shape) < SMALLEST_SIDE_PX:
        return None
    blocks = _Blocks.of(
        phase.numpy(),
        phase_of_terms(shape, defocus_um, microscope),
        drift_deviations(shape, derivative_sigma, microscope),
    )
    starts = (ramp_of_difference(planes), np.zeros(len(TERMS)))
    fits = [
        fit
        for start in starts
        for tolerance in TOLERANCES
        if (fit := _fit(blocks, start, tolerance)) is not None
    ]
    if len(fits) < len(starts) * len(TOLERANCES):
        return None
    terms = np.array([fit.terms for fit in fits])
    scatter, noise = (
        np.median([getattr(fit, name) for fit in fits], axis=0) for name in ("scatter", "noise")
    )
    error = np.hypot(noise, DISTRUST * np.hypot(scatter, terms.std(axis=0)))
    share = float(np.mean([fit.medium_share for fit in fits]))
    return LampDrift(
        terms=tuple(np.median(terms, axis=0).tolist()),
        errors=tuple(error.tolist()),
        medium_share=share,
    )


def divide_illumination(
    planes: np.ndarray, terms: tuple[float, ...], ratio: float = 1.0
) -> np.ndarray:
    """Planes (2, Y, X) without their difference in illumination.

    The polynomial of their logarithmic ratio and the ratio of their means are taken out, half of it
    from each plane.
    """
    half = (
        np.exp(np.tensordot(terms, polynomials((planes.shape[1], planes.shape[2])), axes=1) / 2)
        * ratio**0.5
    )
    return np.stack([planes[0] * half, planes[1] / half])
