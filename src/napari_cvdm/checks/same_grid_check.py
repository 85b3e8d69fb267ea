"""A denoised image against its noisy measured image: the residual must look like noise."""

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_cvdm.checks.check_model import SMOOTHING_PX, Comparison, Fitted
from napari_cvdm.physics.camera_noise import CameraNoise


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SameGridCheckModel:
    """A noisy image of a noiseless one on the same grid: y = a x + d + noise.

    The whole image has one gain a and one level d.

    No optics are needed. A reconstruction that keeps the noise has a chi-squared near 0, where the
    truth has 1.

    Parameters
    ----------
    measured : ndarray of shape (Y, X)
        Counts above the dark level.
    noise : CameraNoise
    valid : ndarray of shape (Y, X), bool
    """

    measured: np.ndarray = field(repr=False)
    noise: CameraNoise
    valid: np.ndarray = field(repr=False)

    @property
    def noisy(self) -> bool:
        """Whether there is noise to compare with."""
        return not self.noise.none

    @property
    def most_fitted(self) -> float:
        """Not known."""
        return 0.0

    def compare(self, image: np.ndarray, fitted: Fitted | None = None) -> Comparison:
        """Compare an image (Y, X) in counts, with the gain and level of weighted least squares.

        Nothing of the sample is fitted.
        """
        variance = self.noise.variance(gaussian_filter(self.measured, SMOOTHING_PX))
        weight = self.valid / variance
        seen, wanted = (
            values - np.average(values, weights=weight)
            for values in (image.astype(np.float64), self.measured)
        )
        size = float((weight * seen**2).sum())
        gain = float((weight * seen * wanted).sum()) / size if size > 0 else 0.0
        predicted = self.measured - wanted + gain * seen
        return Comparison(
            residual=((self.measured - predicted) / np.sqrt(variance)).astype(np.float32),
            predicted=predicted,
            gain=gain,
        )
