"""Rank correlations of the learned rate map with the error over fields, with their uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats

from napari_cvdm.analysis.correlations import spearman

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over fields and its bootstrap interval.

    Parameters
    ----------
    mean, low, high : float
        NaN without fields; low and high NaN with fewer than two.
    fields : int
    """

    mean: float
    low: float
    high: float
    fields: int


def rank_correlations(
    rate: np.ndarray,
    spread: np.ndarray,
    error: np.ndarray,
    intensity: np.ndarray,
    structure: np.ndarray,
) -> dict[str, float]:
    """Spearman's correlations of one field, all of shape (n,).

    Parameters
    ----------
    rate, spread : ndarray
        The learned noise rate and the standard deviation of the samples.
    error : ndarray
        abs(mean - truth).
    intensity, structure : ndarray
        The reconstruction and its gradient.

    Returns
    -------
    dict
        ``rate-error given intensity`` is the correlation of what intensity does not explain, see
        `partial_correlation`.
    """
    named = {
        "rate": rate,
        "spread": spread,
        "error": error,
        "intensity": intensity,
        "structure": structure,
    }
    ranks = {name: stats.rankdata(values) for name, values in named.items()}
    found = {
        f"{first}-{second}": spearman(ranks[first], ranks[second])
        for first, second in (("rate", "spread"), ("rate", "error"), ("spread", "error"))
    }
    found["structure-error"] = spearman(ranks["structure"], ranks["error"])
    for first in ("rate", "spread"):
        for given in ("intensity", "structure"):
            found[f"{first}-error given {given}"] = partial_correlation(
                ranks[first], ranks["error"], ranks[given]
            )
    return found


def partial_correlation(first: np.ndarray, second: np.ndarray, given: np.ndarray) -> float:
    """Spearman's correlation of two arrays with a third taken out of both.

    The formula is (r12 - r13 r23) / sqrt((1 - r13^2) (1 - r23^2)) of rank correlations. It is NaN
    where one array is constant or follows from the third.
    """
    r12, r13, r23 = spearman(first, second), spearman(first, given), spearman(second, given)
    rest = (1 - r13**2) * (1 - r23**2)
    return (r12 - r13 * r23) / sqrt(rest) if rest > 1e-12 else float("nan")


def over_fields(values: Sequence[float]) -> Interval:
    """Mean over fields with its 95 % interval (BCa bootstrap).

    Whole fields are resampled, since the pixels of one field are not independent.

    Parameters
    ----------
    values : sequence of float
        One for each field; NaN are left out.
    """
    known = np.array([value for value in values if np.isfinite(value)])
    if known.size < 2 or np.ptp(known) == 0:
        mean = float(known.mean()) if known.size else float("nan")
        spread = mean if known.size > 1 else float("nan")
        return Interval(mean=mean, low=spread, high=spread, fields=known.size)
    found = stats.bootstrap(
        (known,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        rng=np.random.default_rng(0),
    )
    low, high = (float(value) for value in found.confidence_interval)
    return Interval(mean=float(known.mean()), low=low, high=high, fields=known.size)
