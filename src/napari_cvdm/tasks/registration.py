"""Shift and magnification between two planes of focus, by structures of reversed contrast.

A structure that is dark below focus is bright above it, so the planes themselves do not correlate.
Both planes show strong contrast at the same places. The features for this are the absolute
contrast, one plane with its contrast inverted, or the gradient. Two features that give the same
shift are trusted. The third is used where they leave doubt.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import (
    affine_transform,
    binary_fill_holes,
    find_objects,
    fourier_shift,
    gaussian_filter,
    gaussian_gradient_magnitude,
    label,
)
from skimage.filters import difference_of_gaussians, threshold_otsu, window
from skimage.measure import block_reduce
from skimage.registration import phase_cross_correlation

Feature = Literal["absolute", "inverted", "gradient"]
FEATURES: tuple[Feature, ...] = ("absolute", "inverted", "gradient")
FINE_PX, COARSE_PX = 1.0, 10.0  # what is smaller is noise, what is larger is the lamp's
TAPERED_SHARE = 0.2
BLOCKS = 5  # along each axis, left out one by one for the standard error
MOST_ROUNDS = 8
SETTLED_PX = 0.003
FARTHEST_PX = 24.0
LARGEST_MAGNIFICATION = 0.1
SMALLEST_CORRELATION = 0.2
SMALLEST_ERROR = 1e-9
SMALLEST_SIDE_PX = 48
FEWEST_STRUCTURES = (
    6  # defocus makes the rings of one cell wider: only many places tell that from magnification
)
SMALLEST_STRUCTURE_PX = 8
PADDING_PX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Where the second plane lies relative to the first.

    Parameters
    ----------
    shift_px : tuple of float
        (y, x): what the first plane shows at `centre_px`, the second shows at `centre_px` + shift
        [px].
    shift_error_px : float
        Standard error of each [px].
    magnification : float
        The second plane shows everything larger by this share.
    magnification_error : float
        Its standard error; infinite where there are too few structures.
    centre_px : tuple of float
        (y, x) of the middle of all structures [px]. There the shift does not depend on the
        magnification.
    correlation : float
        Of the features, once they are aligned, -1 to 1.
    """

    shift_px: tuple[float, float]
    shift_error_px: float
    magnification: float
    magnification_error: float
    centre_px: tuple[float, float]
    correlation: float

    @property
    def distance_px(self) -> float:
        """Length of the shift [px]."""
        return float(np.hypot(*self.shift_px))


def features_of(planes: np.ndarray, feature: Feature) -> np.ndarray:
    """Images that planes of reversed contrast have in common: (2, Y, X).

    They have mean 0 and variance 1 (0 for an empty plane).
    """
    contrast = np.stack(
        [difference_of_gaussians(plane, FINE_PX, COARSE_PX, mode="reflect") for plane in planes]
    )
    if feature == "absolute":
        contrast = np.abs(contrast)
    elif feature == "inverted":
        contrast[1] *= -1
    else:
        contrast = np.stack([gaussian_gradient_magnitude(plane, FINE_PX) for plane in contrast])
    contrast -= contrast.mean(axis=(1, 2), keepdims=True)
    return contrast / (contrast.std(axis=(1, 2), keepdims=True) + np.finfo(float).tiny)


def middle_of(feature: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Centroid of the squared gradient, which is what a shift is seen by; (y, x) [px]."""
    energy = sum(np.square(slope) for slope in np.gradient(feature)) * weight
    rows, columns = (np.arange(size) for size in feature.shape)
    return np.array([energy.sum(axis=1) @ rows, energy.sum(axis=0) @ columns]) / (
        energy.sum() + np.finfo(float).tiny
    )


def warped(
    image: np.ndarray,
    shift_px: np.ndarray,
    magnification: float,
    centre: np.ndarray,
    order: Literal[1, 5],
) -> np.ndarray:
    """The image (Y, X) at c + (1 + m)(r - c) + s for every pixel r, with the centre c.

    This undoes a shift and a magnification.
    """
    scale = 1 + magnification
    offset = centre * (1 - scale) + shift_px
    return np.asarray(
        affine_transform(image, np.full(2, scale), offset=offset, order=order, mode="reflect")
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Step:
    """Normal equations of f1 - f2 = grad f . (s + m (r - c)), by block.

    They have the shapes (B, 3, 3) and (B, 3). m is in units of 2 / longest side.
    """

    matrix: np.ndarray
    vector: np.ndarray

    def solution(self) -> np.ndarray:
        return np.linalg.lstsq(self.matrix.sum(axis=0), self.vector.sum(axis=0), rcond=None)[0]

    def standard_errors(self) -> np.ndarray:
        """Standard errors by the jackknife over the blocks.

        See Efron and Tibshirani, An Introduction to the Bootstrap, eq. 11.5.
        """
        total = self.matrix.sum(axis=0), self.vector.sum(axis=0)
        count = len(self.matrix)
        left_out = [
            np.linalg.lstsq(total[0] - one, total[1] - other, rcond=None)[0]
            for one, other in zip(self.matrix, self.vector, strict=True)
        ]
        return np.std(left_out, axis=0) * np.sqrt(count - 1)


def _step(first: np.ndarray, second: np.ndarray, weight: np.ndarray, centre: np.ndarray) -> _Step:
    """One step of Lucas and Kanade (IJCAI 1981) for a shift and a magnification."""
    half = max(first.shape) / 2
    rows, columns = (
        (np.arange(size) - middle) / half for size, middle in zip(first.shape, centre, strict=True)
    )
    down, across = np.gradient((first + second) / 2)
    columns_of = (down, across, down * rows[:, None] + across * columns)
    block = tuple(-(-size // BLOCKS) for size in first.shape)

    def by_block(image: np.ndarray) -> np.ndarray:
        return block_reduce(image * weight, block, np.sum).ravel()

    matrix = np.array([[by_block(one * other) for one in columns_of] for other in columns_of])
    vector = np.array([by_block(one * (first - second)) for one in columns_of])
    return _Step(matrix=matrix.transpose(2, 0, 1), vector=vector.T)


def register_feature(planes: np.ndarray, feature: Feature) -> Registration | None:
    """Shift and magnification by one feature.

    A whole-pixel peak of the correlation comes first, then least squares.

    Parameters
    ----------
    planes : ndarray of shape (2, Y, X)
        Over background.
    feature : {"absolute", "inverted", "gradient"}

    Returns
    -------
    Registration or None
        None where the features do not correlate, or lie farther apart than 24 px.
    """
    first, second = features_of(planes, feature)
    weight = window(("tukey", TAPERED_SHARE), first.shape)
    centre = middle_of(first, weight)
    peak, _, _ = phase_cross_correlation(first * weight, second * weight, normalization=None)
    shift, magnification, half = -np.asarray(peak, float), 0.0, max(first.shape) / 2
    for _ in range(MOST_ROUNDS):
        if np.abs(shift).max() > FARTHEST_PX or abs(magnification) > LARGEST_MAGNIFICATION:
            return None
        there = warped(second, shift, magnification, centre, order=1)
        step = _step(first, there, weight, centre)
        change = step.solution()
        shift, magnification = shift + change[:2], magnification + change[2] / half
        if np.abs(change).max() < SETTLED_PX:
            break
    correlation = float(
        (first * there * weight).sum()
        / np.sqrt((first**2 * weight).sum() * (there**2 * weight).sum() + np.finfo(float).tiny)
    )
    if correlation < SMALLEST_CORRELATION:
        return None
    errors = step.standard_errors()
    return Registration(
        shift_px=(float(shift[0]), float(shift[1])),
        shift_error_px=float(errors[:2].max()),
        magnification=float(magnification),
        magnification_error=float(errors[2] / half),
        centre_px=(float(centre[0]), float(centre[1])),
        correlation=correlation,
    )


def count_structures(planes: np.ndarray) -> int:
    """Number of separate places where either plane shows contrast (Otsu's threshold).

    Rings and what they enclose count once.
    """
    contrast = [
        difference_of_gaussians(plane, FINE_PX, COARSE_PX, mode="reflect") for plane in planes
    ]
    activity = gaussian_filter(np.abs(contrast).sum(axis=0), COARSE_PX / 2)
    places, _ = label(binary_fill_holes(activity > threshold_otsu(activity)))
    sides = [
        min(part.stop - part.start for part in place) for place in find_objects(places) if place
    ]
    return sum(side >= SMALLEST_STRUCTURE_PX for side in sides)


def register_planes(planes: np.ndarray, significance: float) -> Registration | None:
    """Shift and magnification of the second plane, with errors compared between features.

    A second and third feature are used only where the first shows something significant.

    Parameters
    ----------
    planes : ndarray of shape (2, Y, X)
        Over background.
    significance : float
        In standard errors.

    Returns
    -------
    Registration or None
        None where it cannot be determined: too small a field, too little contrast, or one plane
        without contrast (in focus).
    """
    if min(planes.shape[1:]) < SMALLEST_SIDE_PX:
        return None
    found: list[Registration] = []
    for one in _registrations(planes):
        if one is None:
            return None
        found.append(one)
        if not _significant(one, significance):
            break
    return _agreed(found, planes)


def _registrations(planes: np.ndarray) -> Iterator[Registration | None]:
    return (register_feature(planes, feature) for feature in FEATURES)


def _significant(found: Registration, significance: float) -> bool:
    return (
        found.distance_px > significance * found.shift_error_px
        or abs(found.magnification) > significance * found.magnification_error
    )


def _agreed(found: list[Registration], planes: np.ndarray) -> Registration:
    """Mean of several registrations, each weighted by its precision.

    The error includes how far they lie apart.
    """
    shifts = [
        _weighted(
            np.array([one.shift_px[axis] for one in found]),
            np.array([one.shift_error_px for one in found]),
        )
        for axis in (0, 1)
    ]
    magnification, error = _weighted(
        np.array([one.magnification for one in found]),
        np.array([one.magnification_error for one in found]),
    )
    few = len(found) > 1 and count_structures(planes) < FEWEST_STRUCTURES
    return Registration(
        shift_px=(shifts[0][0], shifts[1][0]),
        shift_error_px=max(shifts[0][1], shifts[1][1]),
        magnification=magnification,
        magnification_error=np.inf if few else error,
        centre_px=found[0].centre_px,
        correlation=min(one.correlation for one in found),
    )


def _weighted(values: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """sum(x / e^2) / sum(1 / e^2), and its error.

    The error is the smallest of all, since they see the same light, with the scatter added.
    """
    weights = 1 / np.maximum(errors, SMALLEST_ERROR) ** 2
    mean = float(np.average(values, weights=weights))
    scatter = float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
    return mean, float(np.hypot(errors.min(), scatter))


def warp_to_reference(
    plane: np.ndarray,
    shift_px: tuple[float, float],
    magnification: float,
    centre_px: tuple[float, float],
) -> np.ndarray:
    """A plane moved back by its shift, and shrunk by its magnification.

    A shift alone is a phase factor in Fourier space, which leaves the noise white. Magnification
    needs splines.

    Parameters
    ----------
    plane : ndarray of shape (Y, X)
    shift_px : tuple of float
        (y, x) [px], as in `Registration`.
    magnification : float
    centre_px : tuple of float
        (y, x) of what moves by the shift alone [px].

    Returns
    -------
    ndarray of shape (Y, X), float64
    """
    if magnification:
        return warped(plane, np.array(shift_px), magnification, np.array(centre_px), order=5)
    padding = PADDING_PX + int(np.ceil(np.abs(shift_px).max()))
    padded = np.pad(plane, padding, mode="symmetric")
    moved = np.fft.ifft2(fourier_shift(np.fft.fft2(padded), [-part for part in shift_px])).real
    return moved[padding:-padding, padding:-padding]
