"""A reconstruction imaged once more: what the camera would have measured of it, and how far that is from what it did measure."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize_scalar
from torch import Tensor

from napari_cvdm.microscope import Microscope
from napari_cvdm.physics.fresnel import defocused_planes
from napari_cvdm.physics.grids import circular_pupil
from napari_cvdm.physics.widefield import bin_pixels, blur, gaussian_transfer, optical_transfer, widefield_psf
from napari_cvdm.trust.by_blocks import by_blocks, inside
from napari_cvdm.trust.camera_noise import CameraNoise

PSF_SIZE = 61
MARGIN_PX = 16  # of the camera, mirrored around the field: transforms are periodic, samples are not
HAZE_UM = 1.0  # standard deviation of what counts as smooth background
SMOOTHING_PX = 2.0
PHASE_MARGIN_PX = 48  # mirrored, too: light that diffracts comes from farther away
MIDDLE_PX = 256  # of the camera: large enough to fit one width
BLUR_TOLERANCE = 0.05  # px^2 of the fine grid
ILLUMINATION_ORDER = 2
ABSORPTION_PX = 1.5  # standard deviation over which a transmission is smooth
ABSORPTION_ROUNDS = 2
LEAST_TRANSMISSION = 0.05
LOCAL_PX = 3.0  # of the camera: about the width of a point, and wide enough that noise alone stays within 1 +- 0.13


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """What was measured against what the reconstruction predicts.

    Parameters
    ----------
    residual : ndarray of shape (Y, X) or (P, Y, X), float32
        (measured - predicted) / sigma, signed.
    predicted : ndarray of the same shape
        In units of the measured image.
    gain : float
        By which the reconstruction had to be multiplied: 1 when its flux is right.
    fitted : float or ndarray of shape (Y, X)
        What was fitted of the sample: the variance of its blur, in squared pixels of the fine grid; or the transmission of a phase object.
    """

    residual: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)
    gain: float
    fitted: float | np.ndarray = field(default=0.0, repr=False)

    def chi2(self, valid: np.ndarray) -> float:
        """Reduced chi-squared: the mean of the squared residual over the valid pixels (Y, X); about 1 for the truth."""
        return float(np.square(self.residual[..., valid], dtype=np.float64).mean())

    def local_chi2(self, valid: np.ndarray) -> np.ndarray:
        """chi2(x) = G(v r^2) / G(v), r^2 averaged over the planes, G a Gaussian of `LOCAL_PX`: where the reconstruction and the measured image part.

        Of unit normals it is 1 with standard deviation 1 / (LOCAL_PX sqrt(2 pi P)).

        Parameters
        ----------
        valid : ndarray of shape (Y, X), bool

        Returns
        -------
        ndarray of shape (Y, X), float32
            At least 0, dimensionless; 0 where a pixel does not count, so that nothing is said of it.
        """
        squares = np.square(self.residual).reshape(-1, *valid.shape).mean(axis=0)
        average = weighted_average(valid.astype(np.float32), LOCAL_PX)
        return np.where(valid, average(np.where(valid, squares, 0)), 0).astype(np.float32)


class Imaging(Protocol):
    """How an image came about."""

    @property
    def measured(self) -> np.ndarray:
        """What the camera measured, (Y, X) or (P, Y, X)."""

    @property
    def valid(self) -> np.ndarray:
        """Pixels of the camera that count, bool (Y, X)."""

    @property
    def noisy(self) -> bool:
        """Whether there is noise to compare with."""

    def compare(self, image: np.ndarray, fitted: float | np.ndarray | None = None) -> Comparison:
        """Image a reconstruction of shape (uY, uX) again, and compare; `fitted` is what was fitted of the sample before."""


@lru_cache(maxsize=8)
def sharp_to_seen(shape: tuple[int, int], fine: Microscope, own_sigma_px: float) -> Tensor:
    """OTF exp(2 pi^2 s^2 f^2) within the cutoff 2 NA / lambda: from what a reconstruction of own blur s shows to what the objective shows; (Y, X).

    Nowhere above 1, since an image never has more contrast than its object.
    """
    otf = optical_transfer(widefield_psf(fine, PSF_SIZE), shape)
    own = gaussian_transfer(shape, own_sigma_px, otf.real).clamp(min=1e-6)
    ratio = otf / own * circular_pupil(shape, fine.pixel_um, 2 * float(fine.na or 0) / fine.wavelength_um, otf)
    return ratio / ratio.abs().clamp(min=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WidefieldImaging:
    """A widefield image of a sharp one: y = a D (h * x) + b + noise, D the binning, a one gain, b >= 0 a smooth background.

    b is what the model removes on purpose (haze); a and the width of h are fitted within what it was trained for.

    Parameters
    ----------
    measured : ndarray of shape (Y, X)
        Counts above the dark level.
    noise : CameraNoise
    valid : ndarray of shape (Y, X), bool
    microscope : Microscope
        With an NA; its pixel is the camera's.
    upsampling : int
    own_sigma_px : float
        Standard deviation of the reconstruction's own point spread, in pixels of the fine grid.
    extra_sigma_px : float
        Largest blur by the sample, in camera pixels.
    """

    measured: np.ndarray = field(repr=False)
    noise: CameraNoise
    valid: np.ndarray = field(repr=False)
    microscope: Microscope
    upsampling: int = 2
    own_sigma_px: float = 0.0
    extra_sigma_px: float = 0.0

    @property
    def noisy(self) -> bool:
        """Whether there is noise to compare with."""
        return not self.noise.none

    @property
    def fine(self) -> Microscope:
        """The microscope with the pixel of the reconstruction."""
        return replace(self.microscope, pixel_um=self.microscope.pixel_um / self.upsampling)

    def compare(self, image: np.ndarray, fitted: float | np.ndarray | None = None) -> Comparison:
        """Image a reconstruction (uY, uX) in counts again; without `fitted`, the blur that fits best is taken."""
        extra = self.best_blur(image) if fitted is None else float(fitted)
        return self._with_background(self.seen(image, extra), extra)

    def seen(self, image: np.ndarray, extra: float) -> np.ndarray:
        """D (h * x): the image (uY, uX) through the objective and a Gaussian of variance `extra` [px^2], binned to the camera; (Y, X)."""

        def through(block: Tensor) -> Tensor:
            shape = (block.shape[0], block.shape[1])
            transfer = sharp_to_seen(shape, self.fine, self.own_sigma_px) * gaussian_transfer(shape, extra**0.5, block)
            return inside(bin_pixels(blur(block, transfer), self.upsampling), MARGIN_PX) / self.upsampling**2

        return by_blocks(through, image, MARGIN_PX * self.upsampling)

    def best_blur(self, image: np.ndarray) -> float:
        """Variance of the extra blur [px^2] with the least chi-squared, from the middle of the field."""
        widest = (self.extra_sigma_px * self.upsampling) ** 2
        middle, inner = self._middle(image)
        if widest == 0 or not middle.valid.any():
            return 0.0

        def cost(extra: float) -> float:
            return middle._with_background(middle.seen(inner, extra), extra).chi2(middle.valid)

        return float(minimize_scalar(cost, bounds=(0, widest), method="bounded", options={"xatol": BLUR_TOLERANCE}).x)

    def _middle(self, image: np.ndarray) -> "tuple[WidefieldImaging, np.ndarray]":
        starts = [max(0, (size - MIDDLE_PX) // 2) for size in self.measured.shape]
        coarse = tuple(slice(start, start + MIDDLE_PX) for start in starts)
        fine = tuple(slice(start * self.upsampling, (start + MIDDLE_PX) * self.upsampling) for start in starts)
        return replace(self, measured=self.measured[coarse], valid=self.valid[coarse]), image[fine]

    def _with_background(self, seen: np.ndarray, extra: float) -> Comparison:
        """One gain by weighted least squares of what is not smooth, and the smooth rest where it is positive."""
        variance = self.noise.variance(gaussian_filter(self.measured, SMOOTHING_PX))
        weight = self.valid / variance
        smooth = _weighted_smoothing(weight, HAZE_UM / self.microscope.pixel_um)
        details, wanted = seen - smooth(seen), self.measured - smooth(self.measured)
        size = float((weight * details**2).sum())
        gain = max(0.0, float((weight * details * wanted).sum()) / size) if size > 0 else 0.0
        predicted = gain * seen + np.clip(smooth(self.measured - gain * seen), 0, None)
        return Comparison(residual=((self.measured - predicted) / np.sqrt(variance)).astype(np.float32), predicted=predicted, gain=gain, fitted=extra)


def weighted_average(weight: np.ndarray, sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    """f -> G(w f) / G(w): the Gaussian average [px] of images (Y, X) over pixels that count."""
    total = np.maximum(gaussian_filter(weight, sigma, truncate=3.0), np.finfo(weight.dtype).tiny)
    return lambda image: np.asarray(gaussian_filter(weight * image, sigma, truncate=3.0) / total)


def _weighted_smoothing(weight: np.ndarray, sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    """f -> S f + S (f - S f), S a `weighted_average`: twice, so that slopes stay at the border."""
    average = weighted_average(weight, sigma)

    def smooth(image: np.ndarray) -> np.ndarray:
        once = average(image)
        return once + average(image - once)

    return smooth


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhaseImaging:
    """Two planes of a phase object: y_p = q_p |P_z sqrt(A) exp(i phi)|^2 + noise, q_p an illumination of second order over the field.

    The transmission A says nothing of the phase, and the model makes no claim of it: it is fitted, smooth over a few pixels, from what both planes have
    in common.

    Parameters
    ----------
    measured : ndarray of shape (2, Y, X)
        Over the blank field's intensity.
    noise : tuple of CameraNoise
        Of each plane.
    valid : ndarray of shape (Y, X), bool
    microscope : Microscope
    defocus_um : tuple of float
    """

    measured: np.ndarray = field(repr=False)
    noise: tuple[CameraNoise, ...]
    valid: np.ndarray = field(repr=False)
    microscope: Microscope
    defocus_um: tuple[float, float]

    @property
    def noisy(self) -> bool:
        """Whether there is noise to compare with."""
        return not any(noise.none for noise in self.noise)

    def compare(self, image: np.ndarray, fitted: float | np.ndarray | None = None) -> Comparison:
        """Propagate sqrt(A) exp(i phi), phi [rad] of shape (Y, X), to both planes, and compare; without `fitted`, A is fitted."""
        transmission = np.ones(image.shape) if fitted is None else np.asarray(fitted)
        predicted = self.planes(image, transmission)
        for _ in range(ABSORPTION_ROUNDS if fitted is None else 0):
            transmission = transmission * self.lacking(predicted)
            predicted = self.planes(image, transmission)
        lit = np.stack([illumination(seen, measured, self.valid) for seen, measured in zip(predicted, self.measured, strict=True)])
        predicted = predicted * lit
        sigma = np.sqrt(np.stack([noise.variance(seen) for noise, seen in zip(self.noise, predicted, strict=True)]))
        residual = (self.measured - predicted) / sigma
        return Comparison(residual=residual.astype(np.float32), predicted=predicted, gain=float(np.median(lit)), fitted=transmission)

    def planes(self, phase: np.ndarray, transmission: np.ndarray) -> np.ndarray:
        """|P_z sqrt(A) exp(i phi)|^2 at both positions: (2, Y, X)."""

        def through(block: Tensor) -> Tensor:
            light = torch.polar(block[1].clamp(min=0).sqrt(), block[0])
            return inside(defocused_planes(light, self.defocus_um, self.microscope), PHASE_MARGIN_PX)

        return by_blocks(through, np.stack([phase, transmission]), PHASE_MARGIN_PX)

    def lacking(self, predicted: np.ndarray) -> np.ndarray:
        """The smooth factor that both planes lack together: what a phase moves from one plane to the other is not in it; (Y, X)."""
        measured, seen = (gaussian_filter(planes.mean(axis=0), ABSORPTION_PX) for planes in (self.measured, predicted))
        return np.asarray((measured / np.maximum(seen, 1e-3)).clip(LEAST_TRANSMISSION, 1 / LEAST_TRANSMISSION))


def illumination(seen: np.ndarray, measured: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The polynomial of second order q with the least squares of measured - q seen over valid pixels; (Y, X)."""
    y, x = (np.vander(np.linspace(-1, 1, size), ILLUMINATION_ORDER + 1, increasing=True) for size in seen.shape)
    rows, columns = np.nonzero(np.tri(ILLUMINATION_ORDER + 1)[::-1])  # powers of y and x, no more than the order together
    step = max(1, int((valid.sum() / 40_000) ** 0.5))
    few = (slice(None, None, step),) * 2
    kept = valid[few]
    terms = [np.outer(y[::step, i], x[::step, j])[kept] * seen[few][kept] for i, j in zip(rows, columns, strict=True)]
    factors = np.zeros((ILLUMINATION_ORDER + 1, ILLUMINATION_ORDER + 1))
    factors[rows, columns] = np.linalg.lstsq(np.stack(terms, axis=1), measured[few][kept], rcond=None)[0]
    return np.asarray(y @ factors @ x.T)
