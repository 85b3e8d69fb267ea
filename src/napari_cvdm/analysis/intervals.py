"""Credible intervals from posterior samples: of a pixel, of a quantity, along a line.

A quantity is computed in every sample. So its interval holds how the pixels move together, which
the spread of single pixels does not tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats
from scipy.ndimage import map_coordinates
from scipy.signal import find_peaks, peak_widths

from napari_cvdm.core.request import RequestError
from napari_cvdm.core.statistics import normal_factor

LEVEL = 0.9
STEP_PX = 0.5  # between the points of a profile
ROUNDING_PX = 1e-3  # of vertices, which are of single precision in a viewer
LEAST_PROMINENCE = 0.2  # of the range of a profile: a lower bump is no second peak
LEAST_SHARE = 0.5  # of the samples: a width that fewer of them have gets no interval


@dataclass(frozen=True, slots=True, kw_only=True)
class CredibleInterval:
    """The interval that holds the truth with probability `level`, if the spread is right.

    It is in the unit of the result. If it is `calibrated`, its factor was fitted on held-out pairs.
    If not, the factor is that of a normal distribution.
    """

    low: float
    high: float
    level: float
    calibrated: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleHistogram:
    """How the posterior samples are spread at one pixel.

    The edges (B + 1,) of the counts (B,) are in the unit of the result.
    """

    edges: np.ndarray = field(repr=False)
    counts: np.ndarray = field(repr=False)


def pixel_interval(mean: float, spread: float, provenance: Mapping[str, Any]) -> CredibleInterval:
    """mean +- factor * spread, with the factor of a calibrated model or of a normal distribution.

    The provenance of a result of a calibrated model has
    ``model: {calibration: {factor: .., level: .., floor: ..}}``: a share `level` of the errors on
    held-out pairs was below `factor` times the spread, which counts as at least `floor`.
    """
    calibration = provenance.get("model", {}).get("calibration")
    known = calibration if isinstance(calibration, Mapping) else {}
    factor, level, calibrated = interval_factor(None, known)
    half_width = factor * max(spread, float(known.get("floor", 0.0)) if calibrated else 0.0)
    return CredibleInterval(
        low=mean - half_width, high=mean + half_width, level=level, calibrated=calibrated
    )


def sample_histogram(samples: np.ndarray) -> SampleHistogram:
    """Histogram of the samples (N,) at one pixel, with as many bins as their number supports."""
    finite = samples[np.isfinite(samples)].astype(np.float64)
    if finite.size == 0:
        return SampleHistogram(edges=np.array([0.0, 1.0]), counts=np.array([0]))
    counts, edges = np.histogram(finite, bins="sturges")
    return SampleHistogram(edges=edges, counts=counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A quantity with the interval that the posterior samples give it.

    Parameters
    ----------
    value : float
        Mean over the samples, or the value in the only image.
    deviation : float, optional
        Standard deviation over the samples. None without samples, as are `low` and `high`.
    low, high : float, optional
        Ends of the interval that holds the truth with probability `level`, if the spread is right.
    calibrated : bool
        Whether the model's calibration scales the deviation. It was fitted on single pixels.
    """

    value: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    level: float = LEVEL
    calibrated: bool = False


def interval_factor(
    samples: int | None, calibration: Mapping[str, Any]
) -> tuple[float, float, bool]:
    """Half-width over the standard deviation of N >= 2 samples, level, and if it is calibrated.

    The factor is that of a calibrated model, else that of a normal distribution with Student's t.
    If N is None, the deviation is taken for exact.
    """
    if "factor" in calibration:
        return float(calibration["factor"]), float(calibration.get("level", LEVEL)), True
    if samples is None:
        return float(stats.norm.ppf((1 + LEVEL) / 2)), LEVEL, False
    return normal_factor(samples, LEVEL), LEVEL, False


def estimate_from_samples(
    values: np.ndarray, calibration: Mapping[str, Any] | None = None, least: float = -np.inf
) -> Estimate:
    """A quantity from its value in every sample (N,); NaN where a sample does not have it.

    The interval does not go below the `least` value that is possible. There is no interval of one
    value, or where less than half of the samples have the quantity.
    """
    found = values[np.isfinite(values)].astype(np.float64)
    if found.size == 0:
        return Estimate(value=float("nan"))
    value = float(found.mean())
    if found.size < max(2, LEAST_SHARE * values.size):
        return Estimate(value=value)
    factor, level, calibrated = interval_factor(found.size, calibration or {})
    deviation = float(found.std(ddof=1))
    return Estimate(
        value=value,
        deviation=deviation,
        low=max(least, value - factor * deviation),
        high=value + factor * deviation,
        level=level,
        calibrated=calibrated,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LineProfile:
    """A result along a line, with its interval and what is told by its peaks.

    Parameters
    ----------
    distance_um : ndarray of shape (K,)
        From the first point of the line.
    mean : ndarray of shape (K,)
        In the unit of the result; NaN outside of it.
    low, high : ndarray of shape (K,), optional
        Interval at each point.
    fwhm_um : Estimate
        Full width at half height of the highest peak; NaN where there is no peak.
    peaks_um : Estimate
        Distance of the two most prominent peaks; NaN where there is one.
    samples, two_peaks : int
        Samples that were used, 0 without, and how many of them have two peaks.
    """

    distance_um: np.ndarray = field(repr=False)
    mean: np.ndarray = field(repr=False)
    low: np.ndarray | None = field(repr=False)
    high: np.ndarray | None = field(repr=False)
    fwhm_um: Estimate
    peaks_um: Estimate
    level: float
    calibrated: bool
    samples: int = 0
    two_peaks: int = 0


def points_along(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (K, 2) along a path, and the length to each (K,) [px], in steps of at most `STEP_PX`.

    The vertices (V, 2) are row and column of each corner [px]. RequestError if the path has no
    length.
    """
    sides = np.hypot(*np.diff(np.asarray(vertices, float), axis=0).T)
    at_corner = np.concatenate([[0.0], np.cumsum(sides)])
    if len(vertices) < 2 or at_corner[-1] <= 0:
        raise RequestError("the line has no length; draw it from one point to another.")
    steps = int(np.ceil(at_corner[-1] / STEP_PX - ROUNDING_PX))  # rounding must not add a point
    lengths = np.linspace(0, at_corner[-1], steps + 1)
    rows, columns = (np.interp(lengths, at_corner, vertices[:, axis]) for axis in (0, 1))
    return np.stack([rows, columns], axis=1), lengths


def box_around(points: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of an image that its values at points (K, 2) depend on.

    At least one pixel is in it.
    """
    # Interpolation reads the neighbours of a point, and a slice ends before its end.
    first, last = np.floor(points.min(axis=0)) - 1, np.ceil(points.max(axis=0)) + 2
    rows, columns = (
        slice(min(max(int(start), 0), size - 1), min(max(int(stop), 1), size))
        for start, stop, size in zip(first, last, shape[-2:], strict=True)
    )
    return rows, columns


def values_along(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """An image (Y, X), interpolated linearly at points (K, 2); NaN outside of it."""
    last = np.array(image.shape) - 1.0
    inside = np.clip(points, 0, last)
    # A point that only rounding put outside has the value of the border.
    near = np.where(np.abs(points - inside) < ROUNDING_PX, inside, points)
    grey = image.astype(np.float64)
    return np.asarray(map_coordinates(grey, near.T, order=1, mode="constant", cval=np.nan))


def peak_width(values: np.ndarray, step: float) -> float:
    """Full width of the highest peak of a profile (K,), at half of its prominence; NaN without.

    `step` is the distance between points; the width is in its unit.
    """
    places, properties = find_peaks(values, prominence=0)
    if not places.size:
        return float("nan")
    best = int(np.argmax(properties["prominences"]))
    # SciPy means half of the prominence, so the background under the peak does not count.
    (width,), *_ = peak_widths(values, places[[best]], rel_height=0.5)
    return float(width * step)


def peak_distance(values: np.ndarray, step: float) -> float:
    """Distance of the two most prominent peaks of a profile (K,); NaN without two.

    A peak counts if it stands out by a fifth of the range of the profile. Each place is that of a
    parabola through three points.
    """
    places, properties = find_peaks(values, prominence=LEAST_PROMINENCE * np.ptp(values))
    if places.size < 2:
        return float("nan")
    first, second = (
        _vertex(values, int(places[number]))
        for number in np.argsort(properties["prominences"])[-2:]
    )
    return float(abs(first - second) * step)


def _vertex(values: np.ndarray, place: int) -> float:
    before, here, after = values[place - 1 : place + 2]
    bend = before - 2 * here + after
    # A flat top has no bend, and so no parabola.
    return place + (0.5 * (before - after) / bend if bend else 0.0)


def profile_along(
    vertices: np.ndarray,
    mean: np.ndarray,
    pixel_um: float,
    *,
    spread: np.ndarray | None = None,
    samples: np.ndarray | None = None,
    calibration: Mapping[str, Any] | None = None,
) -> LineProfile:
    """A result along a path.

    The band is factor times the standard deviation, of the samples if they are there, else of each
    pixel. Width and distance have an interval only from samples.

    Parameters
    ----------
    vertices : ndarray of shape (V, 2)
        Row and column of each corner [px].
    mean : ndarray of shape (Y, X)
    pixel_um : float
        [um].
    spread : ndarray of shape (Y, X), optional
        Standard deviation of each pixel.
    samples : ndarray of shape (N, Y, X), optional
    calibration : mapping, optional
        ``factor``, ``level`` and ``floor`` of a calibrated model.

    Raises
    ------
    RequestError
        The line has no length, or misses the result.
    """
    points, lengths = points_along(np.asarray(vertices, np.float64))
    values, known, step_um = values_along(mean, points), calibration or {}, lengths[1] * pixel_um
    inside = np.isfinite(values)
    if inside.sum() < 2:
        raise RequestError("the line misses the result; draw it over the image.")
    drawn, deviation = None, None
    if samples is not None and len(samples) > 1:
        drawn = np.stack([values_along(sample, points) for sample in samples])
        values, deviation = drawn.mean(axis=0), drawn.std(axis=0, ddof=1)
    elif spread is not None:
        deviation = values_along(spread, points)
    factor, level, calibrated = interval_factor(None if drawn is None else len(drawn), known)
    half = None if deviation is None else factor * np.maximum(deviation, known.get("floor", 0.0))
    # Each sample by itself: a mean of peaks that move is one wide peak.
    lines = [line[inside] for line in (drawn if drawn is not None else values[None])]
    widths, distances = (
        np.array([measure(line, step_um) for line in lines])
        for measure in (peak_width, peak_distance)
    )
    return LineProfile(
        distance_um=lengths * pixel_um,
        mean=values,
        low=None if half is None else values - half,
        high=None if half is None else values + half,
        fwhm_um=estimate_from_samples(widths, known, least=0.0),
        peaks_um=estimate_from_samples(distances, known, least=0.0),
        level=level,
        calibrated=calibrated,
        samples=0 if drawn is None else len(drawn),
        two_peaks=int(np.isfinite(distances).sum()),
    )
