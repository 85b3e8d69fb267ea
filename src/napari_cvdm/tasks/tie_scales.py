"""Phase from two planes that are never whole in memory: US-TIE on two scales.

The Laplacian reaches far, so a window alone knows neither the level of its phase nor its waves longer than itself. They come
from the whole image in coarse pixels; the window gives the rest. With S a Gaussian low-pass,

    phi = (1 - S) phi_window + S phi_coarse.

What the cut edge of a window does to its phase is harmonic inside, and the mean of a harmonic function over a disc is its value
in the middle: 1 - S takes it out. What is lost: near the edge of the image itself (four deviations of S) the window stands
alone, and in the noise that the samples share with US-TIE, waves longer than 2 pi deviations of S have no spread.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import pi

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from napari_cvdm.microscope import Microscope
from napari_cvdm.physics.grids import squared_radius
from napari_cvdm.physics.tie import expected_noise_power, ring_profile, spread_over_rings, us_tie_of, wiener_gain
from napari_cvdm.tasks.anchor import NETWORK_ERROR, Anchor, drawn_amplitude, linear_range, tie_gain
from napari_cvdm.tasks.levelling import level_by_medium

COARSE_PX = 2048  # longest side of the coarse image


def gaussian_transfer(shape: tuple[int, int], deviation_px: float, like: Tensor) -> Tensor:
    """S = exp(-2 pi^2 s^2 f^2) on the unshifted FFT grid of (Y, X), for a Gaussian of s pixels."""
    return torch.exp(-2 * pi**2 * deviation_px**2 * squared_radius(shape, 1.0, like))


def filtered(image: Tensor, transfer: Tensor) -> Tensor:
    """F^-1{transfer F{image}} of a real image (Y, X)."""
    return torch.fft.ifft2(torch.fft.fft2(image) * transfer).real


def binned(planes: np.ndarray, step: int) -> np.ndarray:
    """Means over squares of `step` pixels of (P, Y, X); rows and columns that fill no square are left out."""
    rows, columns = (size // step for size in planes.shape[1:])
    whole = planes[:, : rows * step, : columns * step]
    return whole.reshape(len(planes), rows, step, columns, step).mean(axis=(2, 4))


def coarse_step(shape: tuple[int, int], coarse_px: int = COARSE_PX) -> int:
    """Pixels to one coarse pixel along each axis."""
    return -(-max(shape) // coarse_px)


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoScales:
    """US-TIE of any window of an image, in agreement with all others.

    Parameters
    ----------
    microscope : Microscope
    defocus_um : tuple of float
        Rising.
    derivative_sigma : float
        Standard deviation of the noise of dI/dz [1/um].
    step : int
        Pixels to one coarse pixel.
    coarse : Tensor of shape (y, x)
        S phi_coarse [rad], without what noise explains.
    coarse_noise_rad : float
        Root mean square of the photon noise that is left in it.
    deviation_px : float
        Of S, in pixels of the image.
    profile : Tensor of shape (R,)
        Mean power of phi_window over rings of frequencies.
    """

    microscope: Microscope
    defocus_um: tuple[float, float]
    derivative_sigma: float
    step: int
    coarse: Tensor = field(repr=False)
    coarse_noise_rad: float
    deviation_px: float
    profile: Tensor = field(repr=False)

    def noise(self, shape: tuple[int, int]) -> Tensor:
        """Power of photon noise in the US-TIE phase of a window."""
        return expected_noise_power(shape, self.derivative_sigma, self.microscope, self.coarse)

    def wiener(self, shape: tuple[int, int]) -> Tensor:
        """max(0, 1 - N / P) of every frequency of a window, the same for all windows."""
        power = spread_over_rings(self.profile, shape)
        noise = spread_over_rings(ring_profile(self.noise(shape)), shape)
        return (1 - noise / power.clamp(min=torch.finfo(power.dtype).tiny)).clamp(min=0)

    def long_waves(self, shape: tuple[int, int], first: tuple[int, int]) -> Tensor:
        """S phi_coarse on the pixels of a window."""
        y, x = ((np.arange(size) + start + 0.5) / self.step - 0.5 for size, start in zip(shape, first, strict=True))
        rows, columns = (slice(max(0, int(at[0]) - 4), int(at[-1]) + 6) for at in (y, x))
        where = np.meshgrid(y - rows.start, x - columns.start, indexing="ij")
        return torch.from_numpy(map_coordinates(self.coarse[rows, columns].numpy(), where, order=3, mode="nearest"))

    def phase(self, window: Tensor, first: tuple[int, int]) -> Tensor:
        """The phase [rad] of a window from its own US-TIE solution (Y, X) and the coarse image."""
        shape = (window.shape[-2], window.shape[-1])
        short = self.wiener(shape) * (1 - gaussian_transfer(shape, self.deviation_px, window))
        return filtered(window, short) + self.long_waves(shape, first)

    def noise_rad(self, shape: tuple[int, int]) -> float:
        """Root mean square of the photon noise that is left in `phase`."""
        kept = self.wiener(shape) * (1 - gaussian_transfer(shape, self.deviation_px, self.coarse))
        return float(np.hypot(root_mean_square(kept, self.noise(shape)), self.coarse_noise_rad))

    def strength_rad(self, windows: Sequence[tuple[Tensor, tuple[int, int], tuple[slice, slice]]]) -> float:
        """Root mean square of `phase`: of the coarse image everywhere, and what the short waves add to its square in the windows."""
        squares = []
        for solution, first, core in windows:
            shape = (solution.shape[-2], solution.shape[-1])
            squares.append(float((self.phase(solution, first).square() - self.long_waves(shape, first).square())[core].mean()))
        return float(np.sqrt(max(0.0, float(self.coarse.square().mean()) + float(np.mean(squares)))))

    def anchor(self, phase: Tensor) -> Anchor:
        """As `tasks.anchor.light_anchor`, with the power of the whole image, and a draw of noise without long waves."""
        shape = (phase.shape[-2], phase.shape[-1])
        noise, wiener = self.noise(shape), self.wiener(shape)
        linear = linear_range(shape, self.defocus_um, self.microscope, phase)
        gain = tie_gain(NETWORK_ERROR**2 * spread_over_rings(self.profile, shape) * wiener.square(), noise, linear)
        amplitude = drawn_amplitude(gain, wiener, noise, linear) * (1 - gaussian_transfer(shape, self.deviation_px, phase))
        return Anchor(phase=phase, gain=gain, noise_amplitude=amplitude)


def window_profile(phases: Sequence[Tensor]) -> Tensor:
    """Mean power over rings of frequencies of the US-TIE phases of windows (Y, X): (R,)."""
    return torch.stack([ring_profile(torch.fft.fft2(phase).abs().square()) for phase in phases]).mean(dim=0)


def root_mean_square(transfer: Tensor, power: Tensor) -> float:
    """Of an image (Y, X) whose spectrum has some power before it passes a filter (Parseval)."""
    return float((transfer.square() * power).mean().sqrt()) / float(np.sqrt(power.numel()))


def coarse_solution(
    bands: Iterable[Tensor], step: int, defocus_um: tuple[float, float], microscope: Microscope, derivative_sigma: float, deviation_px: float
) -> tuple[Tensor, float]:
    """S phi_coarse of a whole image, without what noise explains and without drift over empty medium.

    Parameters
    ----------
    bands : iterable of Tensor of shape (2, rows, X)
        Both planes over background from top to bottom; rows are multiples of `step`, but for the last band.
    step : int
        Pixels to one coarse pixel along each axis.
    defocus_um : tuple of float
    microscope : Microscope
        Of the image.
    derivative_sigma : float
        Of the image [1/um]; the mean of step^2 pixels has 1/step of it.
    deviation_px : float
        Of S, in pixels of the image.

    Returns
    -------
    phase : Tensor of shape (y, x) [rad]
    noise_rad : float
        Root mean square of the photon noise that is left in it.
    """
    planes = torch.from_numpy(np.concatenate([binned(band.numpy(), step) for band in bands], axis=1))
    coarser, sigma = replace(microscope, pixel_um=microscope.pixel_um * step), derivative_sigma / step
    phase = us_tie_of(planes, defocus_um, coarser)
    shape, gain = (phase.shape[-2], phase.shape[-1]), wiener_gain(phase, sigma, coarser)
    phase, smooth = filtered(phase, gain), gaussian_transfer(shape, deviation_px / step, phase)
    levelling = level_by_medium(phase.numpy(), sigma, coarser)
    if levelling is not None:
        phase = torch.from_numpy(levelling.apply(phase.numpy()))
    return filtered(phase, smooth), root_mean_square(gain * smooth, expected_noise_power(shape, sigma, coarser, phase))
