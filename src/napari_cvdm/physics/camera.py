"""From photons to camera counts, and the noise of a camera from its image."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import convolve, gaussian_filter, minimum_filter
from scipy.optimize import nnls
from torch import Tensor

from napari_cvdm.core.intensity import noise_sigma
from napari_cvdm.core.microscope import Camera

LEVELS = 12  # groups of equal brightness
LEAST_IN_A_LEVEL = 64
SMOOTHING_PX = 2.0
# Of planes over their background: no camera has less noise, and simulated planes may have none.
LEAST_DEVIATION = 1e-5
SECOND_DIFFERENCES = np.outer([1.0, -2.0, 1.0], [1.0, -2.0, 1.0])  # squares add up to 36


def expose(photons: Tensor, camera: Camera, generator: torch.Generator) -> Tensor:
    """Counts (ADU) of one noisy exposure, clipped to the bit depth: (..., Y, X).

    They are round((Poisson(QE N) + read noise) / gain + offset), with N expected photons
    (..., Y, X). `generator` is on the device of `photons`.
    """
    electrons = torch.poisson(photons.clamp(min=0) * camera.quantum_efficiency, generator=generator)
    electrons = electrons + camera.read_noise_e * torch.randn(
        photons.shape, generator=generator, dtype=photons.dtype, device=photons.device
    )
    counts = electrons / camera.gain_e_per_count + camera.offset_counts
    return counts if camera.bit_depth is None else counts.round().clamp(0, 2**camera.bit_depth - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraNoise:
    """variance = gain * signal + read^2.

    Parameters
    ----------
    gain : float
        Variance for one unit of signal, >= 0. For a camera that only counts photons, it is the
        number of counts for one electron.
    read_variance : float
        Variance of an empty pixel, >= 0.
    """

    gain: float
    read_variance: float

    @property
    def dark_signal(self) -> float:
        """Signal whose photon noise equals the read noise, read^2 / gain; infinite without gain."""
        return self.read_variance / self.gain if self.gain > 0 else float("inf")

    @property
    def none(self) -> bool:
        """Whether the image has no noise at all, as simulated and empty ones."""
        return self.gain == 0 and self.read_variance == 0

    def variance(self, signal: np.ndarray) -> np.ndarray:
        """Expected variance of a signal (..., Y, X), at least a thousandth of its mean."""
        # A weight is one over it: no dark pixel may outweigh all others.
        expected = self.gain * np.clip(signal, 0, None) + self.read_variance
        return np.maximum(expected, 1e-3 * float(expected.mean()) + np.finfo(np.float32).tiny)


def photon_transfer(image: np.ndarray, valid: np.ndarray) -> CameraNoise:
    """Photon transfer line of one image, the variance of second differences over brightness.

    A second difference along both axes has variance 36 (gain * signal + read^2). Structure that the
    optics can pass cancels to fourth order (Immerkaer, Comput. Vis. Image Underst. 64, 300 (1996)).
    The line is fitted to groups of equal brightness by non-negative least squares.

    `image` (Y, X) has counts above the dark level, and `valid` (Y, X) are the pixels to use. The
    result has no gain where the image is too small for groups.
    """
    usable = minimum_filter(valid, 3)
    if usable.sum() < 2 * LEAST_IN_A_LEVEL:
        return CameraNoise(gain=0.0, read_variance=noise_sigma(image) ** 2)
    difference = convolve(image, SECOND_DIFFERENCES)[usable]
    bright = gaussian_filter(image, SMOOTHING_PX)[usable]
    groups = np.array_split(np.argsort(bright), min(LEVELS, bright.size // LEAST_IN_A_LEVEL))
    signal = np.array([max(0.0, float(bright[group].mean())) for group in groups])
    variance = np.array([float(np.mean(difference[group] ** 2)) / 36 for group in groups])
    if not variance.any():
        return CameraNoise(gain=0.0, read_variance=0.0)
    # A sample variance spreads in proportion to itself, so the fit is relative.
    floor = np.maximum(variance, 1e-6 * variance.max() + np.finfo(float).tiny)
    design = np.stack([signal, np.ones(len(groups))], axis=1)
    line, _ = nnls(design / floor[:, None], variance / floor)
    return CameraNoise(gain=float(line[0]), read_variance=float(line[1]))


def inverse_variance(planes: np.ndarray, usable: np.ndarray | None = None) -> np.ndarray:
    """One over the variance of every pixel of planes, from each plane's own photon transfer.

    `planes` and `usable`, the pixels that were measured (all, if None), have the shape (P, Y, X).
    The result is 0 where a pixel is not usable, and nowhere more than that of `LEAST_DEVIATION`.
    """
    usable = np.ones(planes.shape, dtype=bool) if usable is None else usable
    variances = [
        photon_transfer(plane, where).variance(gaussian_filter(plane, SMOOTHING_PX))
        for plane, where in zip(planes, usable, strict=True)
    ]
    return np.where(usable, 1 / np.maximum(np.stack(variances), LEAST_DEVIATION**2), 0)
