"""Point spread function of a widefield objective, its effect on an image, and its cut-off."""

from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch
from psf_generator.propagators import VectorialSphericalPropagator
from scipy.fft import next_fast_len
from scipy.signal.windows import hann
from torch import Tensor

from napari_cvdm.core.microscope import Microscope, OpticsError
from napari_cvdm.physics.fresnel import squared_radius

MEDIA = (1.0, 1.333, 1.515)  # air, water, oil
MEDIUM_ROOM = 1.01  # by how much the index of a medium exceeds the NA at least
PUPIL_SAMPLES = 97  # odd, as Simpson's rule wants it
NM_PER_UM = 1000.0
# Of the cut-off frequency and of the structure, for `estimate_cutoff`.
PERIODS_PX = tuple(np.geomspace(1.9, 9.0, 40).tolist())
EXPONENTS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
LOWEST_FREQUENCY = 0.03  # cycles/px: below it are haze and uneven illumination
RINGS = 80
SMALLEST_SIDE_PX = 32
LEAST_EVIDENCE = 20.0  # in log-likelihood: what a transfer function must explain
# Of the microscopes that people have, and in its logarithm.
USUAL_PERIOD_PX, USUAL_SPREAD = (3.3, 0.4)


def widefield_psf(microscope: Microscope, size: int, defocus_um: float = 0.0) -> Tensor:
    """Vectorial point spread function for unpolarised emission: (size, size), float32, sum 1.

    It is the Richards-Wolf integral of the package psf-generator, centred.

    Parameters
    ----------
    microscope : Microscope
        Pixel, emission wavelength, NA (needed) and immersion index.
    size : int
        Odd side of the square, in pixels.
    defocus_um : float
        Distance of the emitter from the focal plane [um].

    Raises
    ------
    OpticsError
        The microscope has no NA, or the size is even.
    """
    if microscope.na is None:
        raise OpticsError(
            "na is not known; a widefield PSF needs it. Give it with --na, for example 1.4."
        )
    if size % 2 == 0:
        raise OpticsError(f"a PSF of {size} px has no centre pixel; give an odd size.")
    # The package spreads size * pix_size over size - 1 intervals. It steps symmetrically about
    # focus in whole units, hence nanometres, so a first plane of one is at -step / 2.
    propagator = VectorialSphericalPropagator(
        n_pix_psf=size,
        n_pix_pupil=PUPIL_SAMPLES,
        wavelength=microscope.wavelength_um * NM_PER_UM,
        na=microscope.na,
        pix_size=microscope.pixel_um * NM_PER_UM * (size - 1) / size,
        n_i=microscope.medium_index,
        n_i0=microscope.medium_index,
        defocus_step=-2 * round(defocus_um * NM_PER_UM),
        n_defocus=1,
    )
    intensity = propagator.compute_focus_field().abs().square().sum(dim=(0, 1))
    intensity = intensity + intensity.T  # the other polarisation is the transpose
    return intensity / intensity.sum()


def optical_transfer(kernel: Tensor, shape: tuple[int, int]) -> Tensor:
    """Transfer function of a centred kernel on a periodic grid of `shape`, complex, shape (Y, X).

    The kernel is cropped about its centre where the grid is smaller than it.
    """
    grid = kernel.new_zeros(shape)
    rows, columns = (
        min(size, (extent - 1) // 2 * 2 + 1)
        for size, extent in zip(kernel.shape, shape, strict=True)
    )
    top, left = (kernel.shape[0] - rows) // 2, (kernel.shape[1] - columns) // 2
    grid[:rows, :columns] = kernel[top : top + rows, left : left + columns]
    return torch.fft.fft2(torch.roll(grid, (-(rows // 2), -(columns // 2)), dims=(0, 1)))


def gaussian_transfer(shape: tuple[int, int], sigma_px: float, like: Tensor) -> Tensor:
    """Transfer function exp(-2 pi^2 sigma^2 f^2) of a Gaussian blur, f in cycles/px: (Y, X)."""
    return torch.exp(-2 * torch.pi**2 * sigma_px**2 * squared_radius(shape, 1.0, like))


def blur(image: Tensor, transfer: Tensor) -> Tensor:
    """Periodic convolution of a real image (..., Y, X) with a transfer function (Y, X)."""
    return torch.fft.ifft2(torch.fft.fft2(image) * transfer).real


def bin_pixels(image: Tensor, factor: int) -> Tensor:
    """Sum over factor x factor blocks: (..., Y, X) -> (..., Y // factor, X // factor)."""
    height, width = image.shape[-2] // factor, image.shape[-1] // factor
    blocks = (
        image[..., : height * factor, : width * factor]
        .unflatten(-2, (height, factor))
        .unflatten(-1, (width, factor))
    )
    return blocks.sum(dim=(-3, -1))


def usual_index(na: float) -> float:
    """Index of air, water or oil, the first that allows this NA; else that of a denser oil."""
    return next(
        (index for index in MEDIA if index > MEDIUM_ROOM * na), max(MEDIA[-1], MEDIUM_ROOM * na)
    )


def cutoff_period_um(microscope: Microscope) -> float:
    """Period of a widefield image's cut-off, lambda / (2 NA) [um]; OpticsError without NA."""
    if microscope.na is None:
        raise OpticsError(
            "na is not known; the cut-off frequency needs it. Give it with --na, for example 1.4."
        )
    return microscope.wavelength_um / (2 * microscope.na)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WidefieldForwardModel:
    """Expected counts of a camera from the light on a canvas with finer pixels.

    The canvas is larger than the frame, since light also enters from outside. (A x)_i is the mean
    over the camera pixel i of (h * x), with the point spread function h of sum 1. Light is in
    counts of a camera pixel, so that a flat x gives the same flat image.

    Parameters
    ----------
    transfer : Tensor of shape (H, W // 2 + 1), complex
        Of the point spread function on the canvas.
    canvas_shape, frame_shape : tuple of int
        (H, W) of the canvas in fine pixels, (Y, X) of the camera's frame.
    margin : int
        Fine pixels of the canvas before the first row and column of the frame.
    upsampling : int
        Fine pixels to a camera pixel along each axis.
    """

    transfer: Tensor = field(repr=False)
    canvas_shape: tuple[int, int]
    frame_shape: tuple[int, int]
    margin: int
    upsampling: int

    @classmethod
    def on_canvas(
        cls, psf: Tensor, frame_shape: tuple[int, int], margin: int, upsampling: int
    ) -> "WidefieldForwardModel":
        """A model with `margin` fine pixels or more around the frame; `psf` is on the fine grid."""
        height, width = (
            next_fast_len(upsampling * size + 2 * margin, real=True) for size in frame_shape
        )
        transfer = optical_transfer(psf, (height, width))[:, : width // 2 + 1].contiguous()
        return cls(
            transfer=transfer,
            canvas_shape=(height, width),
            frame_shape=frame_shape,
            margin=margin,
            upsampling=upsampling,
        )

    @property
    def frame(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas that the camera saw."""
        rows, columns = (
            slice(self.margin, self.margin + self.upsampling * size) for size in self.frame_shape
        )
        return rows, columns

    def apply(self, light: Tensor) -> Tensor:
        """A x: (..., H, W) -> (..., Y, X)."""
        seen = torch.fft.irfft2(torch.fft.rfft2(light) * self.transfer, s=self.canvas_shape)
        return bin_pixels(seen[(..., *self.frame)], self.upsampling) / self.upsampling**2

    def adjoint(self, counts: Tensor) -> Tensor:
        """A^T y: (..., Y, X) -> (..., H, W)."""
        factor = self.upsampling
        spread = counts.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
        canvas = counts.new_zeros((*counts.shape[:-2], *self.canvas_shape))
        canvas[(..., *self.frame)] = spread / factor**2
        return torch.fft.irfft2(torch.fft.rfft2(canvas) * self.transfer.conj(), s=self.canvas_shape)


def ideal_transfer(frequency: np.ndarray, period: float) -> np.ndarray:
    """Transfer function of an aberration-free round pupil.

    With s = f period, it is (2 / pi) (arccos s - s sqrt(1 - s^2)), and 0 beyond the cut-off
    (Goodman, Introduction to Fourier Optics, equation 6-34). `frequency` has any shape, and
    `period` is in the unit of 1 / frequency.
    """
    share = np.clip(frequency * period, 0, 1)
    return 2 / np.pi * (np.arccos(share) - share * np.sqrt(1 - share**2))


def ring_powers(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean power of a windowed image (Y, X) on rings of frequency.

    The results are frequency [cycles/px], power and number of values, each of shape (R,).
    """
    window = np.outer(hann(image.shape[0], sym=False), hann(image.shape[1], sym=False))
    power = np.abs(np.fft.rfft2((image - image.mean()) * window)) ** 2
    frequency = np.hypot(
        np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None, :]
    )
    kept = (frequency >= LOWEST_FREQUENCY) & (frequency <= 0.5)
    frequency, power = frequency[kept], power[kept]
    ring = (frequency - LOWEST_FREQUENCY) / (0.5 - LOWEST_FREQUENCY) * RINGS
    ring = ring.astype(int).clip(max=RINGS - 1)
    counts = np.bincount(ring, minlength=RINGS)
    there = counts > 0
    mean_frequency, mean_power = (
        np.bincount(ring, values, minlength=RINGS)[there] / counts[there]
        for values in (frequency, power)
    )
    return mean_frequency, mean_power, counts[there]


def estimate_cutoff(image: np.ndarray) -> float | None:
    """Period of the cut-off frequency [px], 1.9 to 9, by maximum likelihood (Whittle).

    The model of the power is P(f) = A f^-a H(f)^2 + N. The result is None for an image (Y, X)
    below 32 px on a side, and where it has no structure above its noise.
    """
    if min(image.shape) < SMALLEST_SIDE_PX or not np.ptp(image):
        return None
    frequency, power, number = ring_powers(image.astype(np.float64))
    keys = list(product(PERIODS_PX, EXPONENTS))
    shapes = [frequency**-slope * ideal_transfer(frequency, period) ** 2 for period, slope in keys]
    empty, *misfits = _misfits(power, number, np.stack([0 * power, *shapes])).tolist()
    found = dict(zip(keys, misfits, strict=True))
    if empty - min(misfits) < LEAST_EVIDENCE:
        return None

    def score(key: tuple[float, float]) -> float:
        return found[key] + 0.5 * (np.log(key[0] / USUAL_PERIOD_PX) / USUAL_SPREAD) ** 2

    return min(found, key=score)[0]


def _misfits(power: np.ndarray, number: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """- log-likelihood of ring powers (R,) under the best A shape + N, A and N not negative.

    The shapes are (S, R). Where one of the two amplitudes would be negative, the other is alone.
    """
    floor, tiny = 1e-12 * float(power.max()), np.finfo(float).tiny
    expected = np.broadcast_to(power, shapes.shape)
    for _ in range(3):  # weights of the model, not of the data
        weight = number / np.maximum(expected, floor) ** 2
        own, mixed, flat = ((weight * term).sum(axis=1) for term in (shapes**2, shapes, 1))
        seen, total = (weight * shapes * power).sum(axis=1), (weight * power).sum(axis=1)
        gain, rest = flat * seen - mixed * total, own * total - mixed * seen
        determinant = np.maximum(own * flat - mixed**2, tiny)
        alone = seen / np.maximum(own, tiny)
        amplitude = np.where(gain > 0, np.where(rest > 0, gain / determinant, alone), 0)
        noise = np.where(gain > 0, np.where(rest > 0, rest / determinant, 0), total / flat)
        expected = np.maximum(amplitude[:, None] * shapes + noise[:, None], floor)
    likelihoods = power / expected + np.log(expected)
    return np.asarray(np.sum(number * likelihoods, axis=1))
