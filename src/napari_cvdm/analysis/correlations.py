"""Rank correlations between the rate map, the posterior spread, the structure and the error.

The error needs a known truth.
"""

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage, stats

from napari_cvdm.core.result import Progress

MOST_PIXELS = 100_000
EDGE_PX = 1.0
BINS = 10


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
    """Error against spread in bins of equally many pixels, from the smallest spread to the largest.

    Parameters
    ----------
    spread : ndarray of shape (B,)
        Root mean square of the spread in each bin.
    error : ndarray of shape (B,)
        Root mean square of the error in each bin; equal to `spread` for an honest spread.
    pixels : ndarray of shape (B,), int
    """

    spread: np.ndarray = field(repr=False)
    error: np.ndarray = field(repr=False)
    pixels: np.ndarray = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
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


def structure_of(mean: np.ndarray) -> np.ndarray:
    """Gradient of an image at a scale of one pixel, shape (Y, X).

    It is large at edges and thin lines, whatever the unit of the image.
    """
    return ndimage.gaussian_gradient_magnitude(mean.astype(np.float64), EDGE_PX)


def correlate_maps(
    frame: ResultFrame, truth: np.ndarray | None = None, *, phase: bool = False
) -> Generator[Progress, None, Agreement]:
    """Rank correlations over the valid pixels of a frame (Spearman 1904), and error by spread.

    Parameters
    ----------
    frame : ResultFrame
    truth : ndarray of shape (Y, X), optional
    phase : bool
        Whether the constant of the error is left out: planes determine no absolute phase.

    Yields
    ------
    Progress

    Returns
    -------
    Agreement

    Raises
    ------
    ValueError
        A truth of another shape, or fewer than three valid pixels.
    """
    yield Progress(stage="ranking pixels", done=0, total=2)
    where, usable = chosen_pixels(frame, truth)
    rate, spread, structure = (
        frame.rate[where],
        frame.spread[where],
        structure_of(frame.mean)[where],
    )
    error = None if truth is None else (frame.mean.astype(np.float64) - truth)[where]
    if error is not None:
        error = np.abs(error - error.mean() if phase else error)
    yield Progress(stage="ranking pixels", done=1, total=2)
    return Agreement(
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


def chosen_pixels(
    frame: ResultFrame, truth: np.ndarray | None = None
) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """Rows and columns of the pixels to rank, and the number of usable pixels.

    The choice is always the same.

    Raises
    ------
    ValueError
        A truth of another shape, or fewer than three valid pixels.
    """
    if truth is not None and truth.shape != frame.mean.shape:
        raise ValueError(
            f"the truth has {_size(truth)} pixels, the result {_size(frame.mean)}; give a truth on "
            "the grid of the result."
        )
    arrays = (frame.mean, frame.spread, frame.rate, *(() if truth is None else (truth,)))
    usable = np.flatnonzero(
        frame.valid & np.logical_and.reduce([np.isfinite(array) for array in arrays])
    )
    if usable.size < 3:
        raise ValueError(
            f"{usable.size} valid pixels; at least 3 are needed to rank them. Look at the layer of "
            "untrusted pixels."
        )
    ranked = usable
    if usable.size > MOST_PIXELS:
        ranked = np.random.default_rng(0).choice(usable, MOST_PIXELS, replace=False)
    rows, columns = np.unravel_index(ranked, frame.mean.shape)
    return (rows, columns), usable.size


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays of shape (N,), -1 to 1; NaN if one is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(stats.spearmanr(first, second).statistic)


def error_by_spread(spread: np.ndarray, error: np.ndarray, bins: int = BINS) -> ErrorBySpread:
    """Root mean square error in bins of the spread that hold equally many pixels.

    Parameters
    ----------
    spread, error : ndarray of shape (N,)
    bins : int
        At most; fewer where many pixels have the same spread.

    Returns
    -------
    ErrorBySpread
    """
    inner = np.unique(np.quantile(spread, np.linspace(0, 1, bins + 1)))[1:-1]
    places = np.searchsorted(inner, spread, side="right")
    pixels = np.bincount(places)
    filled = pixels > 0
    roots = [
        np.sqrt(np.bincount(places, np.square(values, dtype=np.float64))[filled] / pixels[filled])
        for values in (spread, error)
    ]
    return ErrorBySpread(spread=roots[0], error=roots[1], pixels=pixels[filled])


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _size(image: np.ndarray) -> str:
    return " × ".join(str(side) for side in image.shape)


def in_words(found: Agreement, unit: str) -> str:
    """Say in short paragraphs what the schedule shows, with the numbers of this image.

    Parameters
    ----------
    found : Agreement
    unit : str
        Of the result.
    """
    lines = [
        "The schedule is a learned noise rate λ for each pixel, made to ease training. It tells "
        "how the samples were drawn, not how wrong they are."
    ]
    if found.rate_error is None or found.spread_error is None or found.rmse is None:
        ranks = (
            f"structure (edges, {_rank(found.rate_structure)}) and with the spread of the samples "
            f"({_rank(found.rate_spread)})"
        )
        lines.append(
            f"Here λ goes with {ranks}. Whether either goes with the error, only a truth can tell: "
            "choose one above. λ is not an uncertainty."
        )
    else:
        lines.append(_rate_and_error(found.rate_structure, found.rate_error))
        spread = f"Spread and error: {_rank(found.spread_error)}"
        lines.append(
            f"{spread}; the error is {found.rmse:.3g} {unit} (RMS) where the spread says "
            f"{found.rms_spread:.3g} {unit}."
        )
    if found.used < found.usable:
        lines.append(
            f"Over {found.used} of {found.usable} valid pixels, drawn at random, always the same."
        )
    return "\n".join(lines)


def _rate_and_error(with_structure: float, with_error: float) -> str:
    if abs(with_error) > abs(with_structure):
        ranks = (
            f"error ({_rank(with_error)}) more than with structure (edges, {_rank(with_structure)})"
        )
        return (
            f"Here λ goes with the {ranks}: one image, and no calibration. λ is not an uncertainty."
        )
    ranks = (
        f"structure (edges, {_rank(with_structure)}) at least as much as with the error "
        f"({_rank(with_error)})"
    )
    return f"λ is not an uncertainty: here it goes with {ranks}."


def _rank(value: float) -> str:
    return (
        "ρ undefined, one of the two is the same everywhere"
        if np.isnan(value)
        else f"ρ = {value:.2f}"
    )
