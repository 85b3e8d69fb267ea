"""Intensity scales that can be undone: counts in, dimensionless numbers to the network, counts out."""

from dataclasses import dataclass

import numpy as np

BRIGHT_PERCENTILE = 99.8
FEWEST_CLIPPED = 20
PILE = 4  # times as many pixels at the top value as one below
BRIGHT = 1.1
DARK_PERCENTILE = 1.0
NOISE_FLOOR = 12.0
LARGEST_SUBSET = 4_000_000
MAD_TO_SIGMA = 1.4826


def noise_sigma(image: np.ndarray) -> float:
    """Standard deviation of the pixel noise, by the median of a 2 x 2 checkerboard difference (Immerkaer-like).

    Parameters
    ----------
    image : ndarray of shape (Y, X)

    Returns
    -------
    float
        In units of the image; smooth structure cancels to second order. Zero for an image of a single row or column.
    """
    if min(image.shape) < 2:
        return 0.0
    return checkerboard_sigma(image[:-1, :-1], image[1:, :-1], image[:-1, 1:], image[1:, 1:])


def checkerboard_sigma(
    top_left: np.ndarray, bottom_left: np.ndarray, top_right: np.ndarray, bottom_right: np.ndarray
) -> float:
    """Standard deviation of the noise from the four corners of 2 x 2 patches: MAD of a - b - c + d, over 2; arrays of one shape."""
    return (
        MAD_TO_SIGMA * grouped_median(np.abs(top_left - bottom_left - top_right + bottom_right)) / 2
    )


def grouped_median(sizes: np.ndarray) -> float:
    """Median of values >= 0 that may be rounded: equal values count as spread evenly over their rounding step.

    Whole counts have few different values, and their plain median jumps; where no values are equal, it is the plain median.
    """
    levels, counts = np.unique(sizes, return_counts=True)
    below = np.cumsum(counts) - counts
    index = int(np.searchsorted(below + counts, sizes.size / 2))
    if counts[index] == 1 or len(levels) == 1:
        return float(np.median(sizes))
    step = float(np.diff(levels).min())
    low, high = max(0.0, levels[index] - step / 2), levels[index] + step / 2
    return float(low + (high - low) * (sizes.size / 2 - below[index]) / counts[index])


def clipping_level(plane: np.ndarray) -> int | None:
    """The value at which a camera's plane (Y, X) was cut off: the top of its type, or a largest value at which pixels pile up (12 bits in 16).

    None where none was, and for numbers that are no integers.
    """
    if plane.dtype.kind not in "ui":
        return None
    top = int(plane.max())
    at_top, below = int((plane == top).sum()), int((plane == top - 1).sum())
    piled = at_top >= max(FEWEST_CLIPPED, PILE * below) and top > BRIGHT * float(np.median(plane))
    return top if piled or top == np.iinfo(plane.dtype).max else None


def unclipped_mean(sample: np.ndarray, mean: float) -> float:
    """Mean of the pixels of a plane that were not cut off; of all pixels, if all were.

    Parameters
    ----------
    sample : ndarray of shape (Y, X)
        The plane or even parts of it, as the camera gave them; shows at which value the plane was cut off, and how often.
    mean : float
        Of all pixels of the plane.
    """
    top = clipping_level(sample)
    clipped = 0.0 if top is None else float((sample >= top).mean())
    return mean if top is None or clipped == 1 else (mean - clipped * top) / (1 - clipped)


def dark_level(counts: np.ndarray) -> float:
    """The first percentile of an image [counts]: what a field that is not full of structure shows where there is none."""
    return float(np.percentile(counts, DARK_PERCENTILE))


@dataclass(frozen=True, slots=True, kw_only=True)
class IntensityScale:
    """x = (counts - offset) / scale.

    Parameters
    ----------
    offset : float
        Dark level [counts].
    scale : float
        Counts for one unit of the network, > 0.
    """

    offset: float
    scale: float

    @classmethod
    def fit(cls, image: np.ndarray, offset: float) -> "IntensityScale":
        """Scale of a whole fluorescence image: its robust brightest signal, but never less than 12 noise deviations.

        The floor is what keeps a blank field blank: without it, noise would be stretched to look like structure.

        Parameters
        ----------
        image : ndarray of shape (Y, X)
            Counts.
        offset : float
            Dark level [counts].

        Returns
        -------
        IntensityScale
        """
        pixels = image.ravel()[:: max(1, image.size // LARGEST_SUBSET)]
        return cls.of_statistics(
            float(np.percentile(pixels, BRIGHT_PERCENTILE)), noise_sigma(image), offset
        )

    @classmethod
    def of_statistics(cls, bright: float, noise: float, offset: float) -> "IntensityScale":
        """The same from the bright percentile and the noise deviation [counts] of an image that is not in memory."""
        scale = max(bright - offset, NOISE_FLOOR * noise)
        return cls(offset=offset, scale=scale if scale > 0 else 1.0)

    def apply(self, counts: np.ndarray) -> np.ndarray:
        """Counts to network units, float32."""
        return ((counts - self.offset) / self.scale).astype(np.float32)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Network units to counts, float32."""
        return (values * self.scale + self.offset).astype(np.float32)
