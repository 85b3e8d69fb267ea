"""Rank correlations between the rate map, the posterior spread, the structure and the error.

The error needs a known truth. The maps of one frame are correlated for the Inspect dock, those of
one field for an evaluation, which averages over fields.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from scipy import ndimage, stats

from napari_cvdm.core.result import Progress

MOST_PIXELS = 100_000  # of a frame: the ranks of more change a correlation by less than 0.01
EDGE_PX = 1.0
BINS = 10
CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResultFrame:
    """One frame of a result, arrays of shape (Y, X).

    Parameters
    ----------
    mean, spread : ndarray
        Mean and standard deviation of the posterior samples, in the unit of the result.
    rate : ndarray
        The learned noise-rate map.
    valid : ndarray, bool
        False where the result is marked as not to be trusted.
    """

    mean: np.ndarray = field(repr=False)
    spread: np.ndarray = field(repr=False)
    rate: np.ndarray = field(repr=False)
    valid: np.ndarray = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ErrorBySpread:
    """Error against spread in B bins of equally many pixels, the smallest spread first; all (B,).

    Both are root mean squares over the pixels of a bin, and equal for an honest spread.
    """

    spread: np.ndarray = field(repr=False)
    error: np.ndarray = field(repr=False)
    pixels: np.ndarray = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlations:
    """Spearman rank correlations of the maps of one frame.

    A value is NaN where one of the two maps is constant, and None without a truth.

    Parameters
    ----------
    rate_spread, rate_structure, spread_structure : float
        Structure is the gradient of the reconstruction at a scale of one pixel.
    rate_error, spread_error, structure_error : float or None
        Error is abs(mean - truth).
    rmse, rms_spread : float or None
        Root mean squares over the frame, in the unit of the result; `rmse` is None without a truth.
    used, usable : int
        Pixels that were ranked, and valid pixels. At most 100 000 pixels are ranked.
    by_spread : ErrorBySpread or None
    """

    rate_spread: float
    rate_structure: float
    spread_structure: float
    rate_error: float | None
    spread_error: float | None
    structure_error: float | None
    rms_spread: float
    rmse: float | None
    used: int
    usable: int
    by_spread: ErrorBySpread | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over fields and its bootstrap interval.

    All are NaN without fields; `low` and `high` are NaN with fewer than two.
    """

    mean: float
    low: float
    high: float
    fields: int


def structure_of(mean: np.ndarray) -> np.ndarray:
    """Gradient of an image at a scale of one pixel, shape (Y, X).

    It is large at edges and thin lines, whatever the unit of the image.
    """
    return ndimage.gaussian_gradient_magnitude(mean.astype(np.float64), EDGE_PX)


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays of shape (N,), -1 to 1; NaN if one is constant."""
    # SciPy returns NaN here as well, but with a warning.
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(stats.spearmanr(first, second).statistic)


def partial_correlation(first: np.ndarray, second: np.ndarray, given: np.ndarray) -> float:
    """Spearman's correlation of two arrays with a third taken out of both.

    The formula is (r12 - r13 r23) / sqrt((1 - r13^2) (1 - r23^2)) of rank correlations. It is NaN
    where one array is constant or follows from the third.
    """
    r12, r13, r23 = spearman(first, second), spearman(first, given), spearman(second, given)
    rest = (1 - r13**2) * (1 - r23**2)
    # Rounding leaves a little where the third array decides one of the others.
    return (r12 - r13 * r23) / sqrt(rest) if rest > 1e-12 else float("nan")


def error_by_spread(spread: np.ndarray, error: np.ndarray) -> ErrorBySpread:
    """Root mean square error in bins of the spread that hold equally many pixels.

    There are fewer bins where many pixels have the same spread.
    """
    # Equal spreads give equal quantiles, between which a bin would be empty.
    inner = np.unique(np.quantile(spread, np.linspace(0, 1, BINS + 1)))[1:-1]
    places = np.searchsorted(inner, spread, side="right")
    pixels = np.bincount(places)
    filled = pixels > 0
    roots = [
        np.sqrt(np.bincount(places, np.square(values, dtype=np.float64))[filled] / pixels[filled])
        for values in (spread, error)
    ]
    return ErrorBySpread(spread=roots[0], error=roots[1], pixels=pixels[filled])


def correlate_maps(
    frame: ResultFrame, truth: np.ndarray | None = None, *, phase: bool = False
) -> Generator[Progress, None, Correlations]:
    """Rank correlations over the valid pixels of a frame (Spearman 1904), and error by spread.

    For a phase, the constant of the error is left out: planes determine no absolute phase.

    Raises
    ------
    ValueError
        A truth of another shape, or fewer than three valid pixels.
    """
    yield Progress(stage="ranking pixels", done=0, total=2)
    where, usable = _chosen_pixels(frame, truth)
    rate, spread = frame.rate[where], frame.spread[where]
    structure = structure_of(frame.mean)[where]  # a gradient needs the neighbours, too
    error = None
    if truth is not None:
        error = (frame.mean.astype(np.float64) - truth)[where]
        error = np.abs(error - error.mean() if phase else error)
    yield Progress(stage="ranking pixels", done=1, total=2)
    return Correlations(
        rate_spread=spearman(rate, spread),
        rate_structure=spearman(rate, structure),
        spread_structure=spearman(spread, structure),
        rate_error=None if error is None else spearman(rate, error),
        spread_error=None if error is None else spearman(spread, error),
        structure_error=None if error is None else spearman(structure, error),
        rms_spread=_root_mean_square(spread),
        rmse=None if error is None else _root_mean_square(error),
        used=where[0].size,
        usable=usable,
        by_spread=None if error is None else error_by_spread(spread, error),
    )


def _chosen_pixels(
    frame: ResultFrame, truth: np.ndarray | None
) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """Rows and columns of the pixels to rank, always the same, and the number of usable pixels."""
    if truth is not None and truth.shape != frame.mean.shape:
        given, wanted = (" × ".join(map(str, image.shape)) for image in (truth, frame.mean))
        raise ValueError(
            f"the truth has {given} pixels, the result {wanted}; give a truth on the grid of the "
            "result."
        )
    arrays = (frame.mean, frame.spread, frame.rate, *(() if truth is None else (truth,)))
    # A truth may be NaN where it is not known.
    finite = np.logical_and.reduce([np.isfinite(array) for array in arrays])
    usable = np.flatnonzero(frame.valid & finite)
    if usable.size < 3:
        raise ValueError(
            f"{usable.size} valid pixels; at least 3 are needed to rank them. Look at the layer of "
            "untrusted pixels."
        )
    ranked = usable
    if usable.size > MOST_PIXELS:
        # A fixed seed, so that a result has the same numbers whenever it is opened.
        ranked = np.random.default_rng(0).choice(usable, MOST_PIXELS, replace=False)
    rows, columns = np.unravel_index(ranked, frame.mean.shape)
    return (rows, columns), usable.size


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def describe_correlations(found: Correlations, unit: str) -> str:
    """Say in short paragraphs what the schedule shows, with the numbers of this image.

    `unit` is that of the result.
    """
    lines = [
        "The schedule is a learned noise rate λ for each pixel, made to ease training. It tells "
        "how the samples were drawn, not how wrong they are."
    ]
    structure = f"structure (edges, {_rank(found.rate_structure)})"
    if found.rate_error is None or found.spread_error is None or found.rmse is None:
        lines.append(
            f"Here λ goes with {structure} and with the spread of the samples "
            f"({_rank(found.rate_spread)}). Whether either goes with the error, only a truth can "
            "tell: choose one above. λ is not an uncertainty."
        )
    else:
        error = f"error ({_rank(found.rate_error)})"
        lines.append(
            f"Here λ goes with the {error} more than with {structure}: one image, and no "
            "calibration. λ is not an uncertainty."
            if abs(found.rate_error) > abs(found.rate_structure)
            else f"λ is not an uncertainty: here it goes with {structure} at least as much as with "
            f"the {error}."
        )
        lines.append(
            f"Spread and error: {_rank(found.spread_error)}; the error is {found.rmse:.3g} {unit} "
            f"(RMS) where the spread says {found.rms_spread:.3g} {unit}."
        )
    if found.used < found.usable:
        lines.append(
            f"Over {found.used} of {found.usable} valid pixels, drawn at random, always the same."
        )
    return "\n".join(lines)


def _rank(value: float) -> str:
    if np.isnan(value):
        return "ρ undefined, one of the two is the same everywhere"
    return f"ρ = {value:.2f}"


def rank_correlations(
    rate: np.ndarray,
    spread: np.ndarray,
    error: np.ndarray,
    intensity: np.ndarray,
    structure: np.ndarray,
) -> dict[str, float]:
    """Spearman's correlations of one field, all of shape (n,).

    `error` is abs(mean - truth); `intensity` and `structure` are the reconstruction and its
    gradient. ``rate-error given intensity`` is the correlation of what intensity does not explain,
    see `partial_correlation`.
    """
    found = {
        "rate-spread": spearman(rate, spread),
        "rate-error": spearman(rate, error),
        "spread-error": spearman(spread, error),
        "structure-error": spearman(structure, error),
    }
    for name, values in (("rate", rate), ("spread", spread)):
        for given, third in (("intensity", intensity), ("structure", structure)):
            found[f"{name}-error given {given}"] = partial_correlation(values, error, third)
    return found


def over_fields(values: Sequence[float]) -> Interval:
    """Mean over fields, one value for each, with its 95 % interval (BCa bootstrap).

    Whole fields are resampled, since the pixels of one field are not independent. NaN are left out.
    """
    known = np.array([value for value in values if np.isfinite(value)])
    mean = float(known.mean()) if known.size else float("nan")
    # BCa has no answer for equal values, and warns.
    if known.size < 2 or np.ptp(known) == 0:
        end = mean if known.size > 1 else float("nan")
        return Interval(mean=mean, low=end, high=end, fields=known.size)
    rng = np.random.default_rng(0)
    found = stats.bootstrap(
        (known,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, rng=rng
    )
    low, high = (float(value) for value in found.confidence_interval)
    return Interval(mean=mean, low=low, high=high, fields=known.size)
