"""Whether a posterior spread is as large as the error, and at the same pixels.

The measures are coverage, spread-skill ratio, sparsification, ranking and CRPS. Every function
takes the pixels of one field as flat arrays. The caller averages over fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from scipy import stats
from scoringrules import crps_ensemble

from napari_cvdm.core.statistics import normal_factor

LEVELS = (0.5, 0.8, 0.9, 0.95)
REMOVED = np.linspace(0, 0.95, 20)
LARGE_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpreadScore:
    """What the first N samples of a field say about its error.

    Parameters
    ----------
    samples : int
        N.
    coverage : mapping of str to float
        Share of the pixels within mean +- normal_factor(N, level) * spread, by level.
    error, variance : float
        Mean squared error of the mean, mean unbiased variance.
    crps : float
        Fair estimate (Ferro 2014), in the unit of the samples.
    ause, auroc : float
        See `ause` and `auroc`; NaN where the error is zero everywhere.
    """

    samples: int
    coverage: dict[str, float] = field(repr=False)
    error: float
    variance: float
    crps: float
    ause: float
    auroc: float

    @property
    def ratio(self) -> float:
        """The spread-skill ratio of this field."""
        return spread_skill(np.array([self.variance]), np.array([self.error]), self.samples)


def spread_score(samples: np.ndarray, truth: np.ndarray) -> SpreadScore:
    """Score the samples of one field.

    Parameters
    ----------
    samples : ndarray of shape (N, n)
        N of at least 2, at n pixels.
    truth : ndarray of shape (n,)
    """
    drawn, known = samples.astype(np.float64), truth.astype(np.float64)
    error, spread = drawn.mean(axis=0) - known, drawn.std(axis=0, ddof=1)
    return SpreadScore(
        samples=len(drawn),
        coverage={f"{level:g}": coverage(error, spread, len(drawn), level) for level in LEVELS},
        error=float(np.mean(error**2)),
        variance=float(np.mean(spread**2)),
        crps=float(np.mean(crps_ensemble(known, drawn.T, estimator="fair"))),
        ause=ause(spread, np.abs(error)),
        auroc=auroc(spread, np.abs(error)),
    )


def coverage(error: np.ndarray, spread: np.ndarray, samples: int, level: float) -> float:
    """Share of pixels whose error is within the central credible interval of N samples.

    The interval assumes a normal distribution.

    Parameters
    ----------
    error, spread : ndarray of shape (n,)
        mean - truth, and the unbiased standard deviation of N samples.
    samples : int
        N. The interval has Student's t and sqrt(1 + 1/N), see
        `napari_cvdm.core.statistics.normal_factor`.
    level : float
        In (0, 1): what the share ought to be.
    """
    return float(np.mean(np.abs(error) <= normal_factor(samples, level) * spread))


def spread_skill(variances: np.ndarray, errors: np.ndarray, samples: int) -> float:
    """sqrt((1 + 1/N) <variance> / <squared error>) (Fortin 2014).

    It is 1 where the spread is as large as the error.

    Parameters
    ----------
    variances, errors : ndarray of shape (K,)
        Mean variance and mean squared error of each field.
    samples : int
        N.
    """
    error = float(np.mean(errors))
    return (
        sqrt((1 + 1 / samples) * float(np.mean(variances)) / error) if error > 0 else float("nan")
    )


def sparsification(
    spread: np.ndarray, error: np.ndarray, removed: Sequence[float] | np.ndarray = REMOVED
) -> np.ndarray:
    """Relative error of the pixels that remain when those of largest spread are removed.

    It is their root mean square error over that of all pixels.

    Parameters
    ----------
    spread : ndarray of shape (n,)
        What pixels are removed by.
    error : ndarray of shape (n,)
        abs(mean - truth).
    removed : sequence of float
        Shares in [0, 1).

    Returns
    -------
    ndarray
        One value for each share; 1 for none removed.
    """
    squares = np.square(error[np.argsort(spread, kind="stable")].astype(np.float64))
    kept = np.maximum(1, np.round((1 - np.asarray(removed)) * len(squares)).astype(int))
    curve = np.sqrt(np.cumsum(squares)[kept - 1] / kept)
    return curve / np.sqrt(squares.mean()) if squares.any() else np.zeros(len(kept))


def ause(spread: np.ndarray, error: np.ndarray) -> float:
    """Area between the sparsification curves of the spread and of the error (Ilg 2018).

    It is 0 for a spread that ranks the pixels as the error does.
    """
    return float(
        np.trapezoid(sparsification(spread, error) - sparsification(error, error), REMOVED)
    )


def auroc(spread: np.ndarray, error: np.ndarray, share: float = LARGE_SHARE) -> float:
    """Probability that a pixel of large error has a larger spread than another (Mann-Whitney).

    It is 0.5 for chance.

    Parameters
    ----------
    spread, error : ndarray of shape (n,)
    share : float
        Of the pixels whose errors count as large.
    """
    large = error > np.quantile(error, 1 - share)
    count = int(large.sum())
    if count in (0, large.size):
        return float("nan")
    ranks = stats.rankdata(spread)
    return float((ranks[large].sum() - count * (count + 1) / 2) / (count * (large.size - count)))
