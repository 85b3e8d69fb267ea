"""The credible interval at one pixel, and the samples that it was made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class CredibleInterval:
    """The interval that holds the truth with probability `level`, if the spread is right.

    Parameters
    ----------
    low, high : float
        In the unit of the result.
    level : float
        In (0, 1).
    calibrated : bool
        Whether the factor was fitted on held-out pairs. If not, the factor is that of a normal
        distribution.
    """

    low: float
    high: float
    level: float
    calibrated: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleHistogram:
    """How the posterior samples are spread at one pixel.

    Parameters
    ----------
    edges : ndarray of shape (B + 1,)
        In the unit of the result.
    counts : ndarray of shape (B,), int
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
    calibrated = isinstance(calibration, Mapping) and "factor" in calibration
    level = float(calibration.get("level", LEVEL)) if calibrated else LEVEL
    factor = float(calibration["factor"]) if calibrated else float(stats.norm.ppf((1 + level) / 2))
    half_width = factor * max(spread, float(calibration.get("floor", 0.0)) if calibrated else 0.0)
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
