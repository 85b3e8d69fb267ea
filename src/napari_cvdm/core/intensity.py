"""Intensity scales that can be inverted.

Counts become dimensionless numbers for the network, and these become counts again.
"""

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
    """Standard deviation of the pixel noise.

    The estimate is the median of a 2 x 2 checkerboard difference (Immerkaer-like) of an image
    (Y, X), in its units. Smooth structure cancels to second order. It is zero for an image of a
    single row or column.
    """
    if min(image.shape) < 2:
        return 0.0
    return checkerboard_sigma(image[:-1, :-1], image[1:, :-1], image[:-1, 1:], image[1:, 1:])


def checkerboard_sigma(
    top_left: np.ndarray, bottom_left: np.ndarray, top_right: np.ndarray, bottom_right: np.ndarray
) -> float:
    """Standard deviation of the noise from the four corners of 2 x 2 patches.

    It is the MAD of a - b - c + d, over 2. All arrays have one shape.
    """
    return (
        MAD_TO_SIGMA * grouped_median(np.abs(top_left - bottom_left - top_right + bottom_right)) / 2
    )


def grouped_median(sizes: np.ndarray) -> float:
    """Median of values >= 0 that may be rounded.

    Equal values count as spread evenly over their rounding step. Whole counts have few different
    values, and their plain median jumps. Where no values are equal, the result is the plain median.
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
    """Value at which a camera's plane (Y, X) was clipped.

    It is the top of the integer type, or a largest value at which pixels pile up (12 bits in 16).
    None where no pixel was clipped, and for numbers that are not integers.
    """
    if plane.dtype.kind not in "ui":
        return None
    top = int(plane.max())
    at_top, below = int((plane == top).sum()), int((plane == top - 1).sum())
    piled = at_top >= max(FEWEST_CLIPPED, PILE * below) and top > BRIGHT * float(np.median(plane))
    return top if piled or top == np.iinfo(plane.dtype).max else None


def unclipped_mean(sample: np.ndarray, mean: float) -> float:
    """Mean of the pixels of a plane that were not cut off; of all pixels, if all were.

    `sample` (Y, X) is the plane, or evenly drawn parts of it, as measured. It shows at which value
    the plane was clipped, and how often. `mean` is that of all pixels of the plane.
    """
    top = clipping_level(sample)
    clipped = 0.0 if top is None else float((sample >= top).mean())
    return mean if top is None or clipped == 1 else (mean - clipped * top) / (1 - clipped)


def dark_level(counts: np.ndarray) -> float:
    """First percentile of an image [counts].

    A field that is not full of structure shows this level where there is no structure.
    """
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
        """Fit the scale of a whole fluorescence image.

        The scale is the robust brightest signal, but at least 12 standard deviations of the noise.
        This floor keeps a blank field blank. Without it, noise would be stretched to look like
        structure. `image` (Y, X) and the dark level `offset` are in counts.
        """
        pixels = image.ravel()[:: max(1, image.size // LARGEST_SUBSET)]
        return cls.of_statistics(
            float(np.percentile(pixels, BRIGHT_PERCENTILE)), noise_sigma(image), offset
        )

    @classmethod
    def of_statistics(cls, bright: float, noise: float, offset: float) -> "IntensityScale":
        """Scale of an image that is not in memory, from its numbers [counts].

        The numbers are the bright percentile, the standard deviation of the noise and the offset.
        """
        scale = max(bright - offset, NOISE_FLOOR * noise)
        return cls(offset=offset, scale=scale if scale > 0 else 1.0)

    def apply(self, counts: np.ndarray) -> np.ndarray:
        """Counts to network units, float32."""
        return ((counts - self.offset) / self.scale).astype(np.float32)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Network units to counts, float32."""
        return (values * self.scale + self.offset).astype(np.float32)
