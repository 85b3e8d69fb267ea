"""The mean and the variance of posterior samples, taken up one by one."""

import numpy as np

STATISTICS = ("standard deviation", "variance")


def spread_as(values: np.ndarray, given: str, wanted: str) -> np.ndarray:
    """The spread of the samples as a standard deviation or as a variance.

    Parameters
    ----------
    values : ndarray
        The spread, of any shape.
    given, wanted : {"standard deviation", "variance"}
        What `values` are, and what they shall be.

    Raises
    ------
    ValueError
        Another statistic.
    """
    for statistic in (given, wanted):
        if statistic not in STATISTICS:
            raise ValueError(f"the spread is a {statistic!r}; known are {' and '.join(STATISTICS)}. Reconstruct again with this version.")
    if given == wanted:
        return values
    return np.sqrt(values) if wanted == "standard deviation" else np.square(values)


class RunningMoments:
    """Mean and unbiased variance of images that come one by one (Welford 1962).

    The state is what the result shows (count, mean, variance; float32), computed in float64: a result that is taken up again
    later goes on to the very bytes that one longer run would have given.

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
        mean, squares = self.mean.astype(np.float64), self.variance.astype(np.float64) * max(0, self.count - 1)
        self.count += 1
        difference = image - mean
        mean = mean + difference / self.count
        squares = squares + difference * (image - mean)
        self.mean = mean.astype(np.float32)
        self.variance = (squares / max(1, self.count - 1)).astype(np.float32)
