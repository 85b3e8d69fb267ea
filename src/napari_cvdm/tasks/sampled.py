"""Levels and noise of a plane that is never whole in memory.

They come from 2 x 2 patches on an even grid.
"""

from dataclasses import dataclass, field

import numpy as np

from napari_cvdm.core.intensity import checkerboard_sigma, noise_sigma

LARGEST_SAMPLE_PX = 4_000_000


def sampled_lines(size: int, other: int) -> np.ndarray:
    """Rows (or columns) of a sample along an axis of `size` pixels.

    These are all of a small plane, else pairs (k s, k s + 1). The step s is the smallest with which
    the sample of the whole plane has at most LARGEST_SAMPLE_PX pixels.
    """
    if size * other <= LARGEST_SAMPLE_PX:
        return np.arange(size)
    step = int(np.ceil(2 * np.sqrt(size * other / LARGEST_SAMPLE_PX)))
    first = np.arange(0, size - 1, step)
    return np.stack([first, first + 1], axis=1).ravel()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampledPlane:
    """Evenly drawn pixels of one plane.

    Small planes give all of their pixels, so that every figure is exact then. A percentile p of a
    sample of n pixels is a percentile p +- sqrt(p (1 - p) / n) of the plane. With the 4 million of
    a large plane, this is 99.8 +- 0.002 and 1 +- 0.005.

    Parameters
    ----------
    pixels : ndarray of shape (Y', X'), float64
        On the lines of `sampled_lines`.
    whole : bool
        Whether that is every pixel.
    mean : float
        Of all measured pixels that were not cut off, see `intensity.unclipped_mean`.
    """

    pixels: np.ndarray = field(repr=False)
    whole: bool
    mean: float

    def percentile(self, percent: float) -> float:
        """A percentile of the plane, 0 to 100."""
        return float(np.percentile(self.pixels, percent))

    def noise_sigma(self) -> float:
        """Standard deviation of the pixel noise, as `intensity.noise_sigma` of the whole plane."""
        if self.whole:
            return noise_sigma(self.pixels)
        return checkerboard_sigma(
            self.pixels[::2, ::2],
            self.pixels[1::2, ::2],
            self.pixels[::2, 1::2],
            self.pixels[1::2, 1::2],
        )
