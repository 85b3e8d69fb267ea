"""Running mean and variance of posterior samples, and the intervals that follow from them."""

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np
from scipy import stats

STATISTICS = ("standard deviation", "variance")
# Half its width: factor x standard deviation, of calibrated models only.
INTERVAL = "calibrated interval"


def spread_as(
    values: np.ndarray, given: str, wanted: str, factor: float | None = None
) -> np.ndarray:
    """Convert the spread of the samples, of any shape, from the statistic `given` to `wanted`.

    The statistics are those of `STATISTICS`, and `INTERVAL` where a `factor`, half-width over
    standard deviation, is given. ValueError for another one.
    """
    known = STATISTICS if factor is None else (*STATISTICS, INTERVAL)
    for statistic in (given, wanted):
        if statistic not in known:
            raise ValueError(
                f"the spread is a {statistic!r}; known are {' and '.join(known)}. Reconstruct "
                "again with this version."
            )
    if given == wanted:
        return values
    deviation = values
    if given == "variance":
        deviation = np.sqrt(values)
    elif given == INTERVAL:
        deviation = values / np.float32(factor)
    if wanted == "variance":
        return np.square(deviation)
    return deviation * np.float32(factor) if wanted == INTERVAL else deviation


def conformal_scores(error: np.ndarray, spread: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """Absolute error over max(spread, floor), all in one unit and of shape (n,).

    It is 0 where there is no error, and infinite where there is an error but no spread.
    """
    size = np.abs(error.astype(np.float64))
    least = np.maximum(spread.astype(np.float64), floor)
    return np.where(
        size > 0, np.divide(size, least, out=np.full_like(size, np.inf), where=least > 0), 0.0
    )


def normal_factor(samples: int, level: float) -> float:
    """Half-width of a central interval over the standard deviation of N samples.

    The truth is one more draw of the same normal distribution. The factor is
    t_{N-1}((1 + level) / 2) sqrt(1 + 1 / N). Student's t is for the estimated deviation, and the
    root is for the estimated mean.
    """
    return float(stats.t.ppf((1 + level) / 2, samples - 1)) * sqrt(1 + 1 / samples)


def carried_calibration(
    calibration: Mapping[str, Any], samples: int, steps: int, sampler: str
) -> dict[str, Any]:
    """Carry a calibration of a card over to another number of samples, or to more steps.

    The spread of fewer samples is known less well: `factor` is multiplied by normal_factor(samples)
    / normal_factor(fitted samples), and `fitted_factor` is the original one. With more steps the
    spread is no smaller, so that the interval is at least wide enough.

    The result is {} where the calibration does not apply: to another sampler, to one sample, or to
    fewer steps, which leave too little spread.
    """
    if (
        not calibration
        or samples < 2
        or sampler != calibration["sampler"]
        or steps < int(calibration["steps"])
    ):
        return {}
    level, factor = float(calibration["level"]), float(calibration["factor"])
    fitted = normal_factor(int(calibration["samples"]), level)
    carried = factor * normal_factor(samples, level) / fitted
    return {**calibration, "factor": carried, "fitted_factor": factor}


class RunningMoments:
    """Mean and unbiased variance of images that come one by one (Welford 1962).

    The state is what the result shows (count, mean, variance; float32), computed in float64. A
    result that is continued later gives the same bytes as one longer run.

    Parameters
    ----------
    mean, variance : ndarray of shape (Y, X)
        Of the images counted already.
    count : int
        How many those are; with 0 only the shape of `mean` matters.
    """

    def __init__(self, mean: np.ndarray, variance: np.ndarray, count: int = 0) -> None:
        self.count = count
        self.mean = mean.astype(np.float32)
        self.variance = variance.astype(np.float32)

    def add(self, image: np.ndarray) -> None:
        """Count one more image in."""
        mean = self.mean.astype(np.float64)
        squares = self.variance.astype(np.float64) * max(0, self.count - 1)
        self.count += 1
        # Differences from the running mean do not cancel, as sums of squares would.
        difference = image - mean
        mean = mean + difference / self.count
        squares = squares + difference * (image - mean)
        self.mean = mean.astype(np.float32)
        self.variance = (squares / max(1, self.count - 1)).astype(np.float32)


def interior(shape: tuple[int, int], border: int) -> np.ndarray:
    """True but for a border band of `border` pixels, bool of shape (Y, X)."""
    mask = np.zeros(shape, dtype=bool)
    mask[border : shape[0] - border, border : shape[1] - border] = True
    return mask
