"""Widefield fluorescence images of simulated structures, and what a microscope of twice the resolution would show."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from napari_cvdm.microscope import Camera, Microscope
from napari_cvdm.physics.camera import expose
from napari_cvdm.physics.widefield import bin_pixels, blur, gaussian_transfer, optical_transfer, widefield_psf
from napari_cvdm.simulate.structures import Emitters, draw_structure, log_uniform

Range = tuple[float, float]
UPSAMPLING = 2
RESOLUTION_SIGMA_PX = 1.4  # of the target, in pixels of the fine grid: FWHM 3.3 px = 1.65 camera pixels, 103 nm at 62.6 nm
MARGIN_PX = 16
PSF_SIZE = 61
BRIGHT_PERCENTILE = 99.5


@dataclass(frozen=True, slots=True, kw_only=True)
class WidefieldRanges:
    """Ranges (low, high) that one simulated field is drawn from.

    Parameters
    ----------
    na, wavelength_um, pixel_um, medium_index : tuple of float
        Optics; the pixel is the camera's.
    photons : tuple of float
        Photons of the brightest structure in one camera pixel. Log-uniform.
    background : tuple of float
        Flat background, as a share of `photons`. Log-uniform.
    haze : tuple of float
        Flux of out-of-focus structure over that of the structure in focus, in half of the fields.
    defocus_um : tuple of float
        Distance of the structure from focus.
    blur_px : tuple of float
        Extra Gaussian blur by the sample, standard deviation in camera pixels.
    read_noise_e, gain_e_per_count, offset_counts : tuple of float
        Camera.
    frames : tuple of int
        Frames averaged into one image.
    field_px : int
        Side of the field in camera pixels.
    """

    na: Range = (1.1, 1.49)
    wavelength_um: Range = (0.5, 0.69)
    pixel_um: Range = (0.055, 0.08)
    medium_index: Range = (1.515, 1.52)
    photons: Range = (8.0, 3000.0)
    background: Range = (0.01, 0.6)
    haze: Range = (0.0, 1.5)
    defocus_um: Range = (-0.15, 0.15)
    blur_px: Range = (0.0, 0.7)
    read_noise_e: Range = (0.5, 3.0)
    gain_e_per_count: Range = (0.2, 2.5)
    offset_counts: Range = (0.0, 400.0)
    frames: tuple[int, int] = (1, 9)
    field_px: int = 160

    @property
    def smallest_px(self) -> int:
        """Side of the smallest field."""
        return self.field_px


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WidefieldPair:
    """A simulated camera image and its sharp truth.

    Parameters
    ----------
    counts : ndarray of shape (Y, X), float32
        Camera counts.
    truth : ndarray of shape (2Y, 2X), float32
        Structure in focus at the stated resolution: counts of a camera pixel, without background, haze or offset.
    microscope : Microscope
    camera : Camera
    photons : float
        Of the brightest structure in a camera pixel, in all frames together.
    """

    counts: np.ndarray = field(repr=False)
    truth: np.ndarray = field(repr=False)
    microscope: Microscope
    camera: Camera
    photons: float


def draw_microscope(rng: np.random.Generator, ranges: WidefieldRanges) -> Microscope:
    """A random objective on a random camera."""
    return Microscope(
        pixel_um=rng.uniform(*ranges.pixel_um),
        wavelength_um=rng.uniform(*ranges.wavelength_um),
        medium_index=rng.uniform(*ranges.medium_index),
        na=rng.uniform(*ranges.na),
    )


def draw_camera(rng: np.random.Generator, ranges: WidefieldRanges) -> Camera:
    """A random camera."""
    return Camera(
        read_noise_e=rng.uniform(*ranges.read_noise_e),
        gain_e_per_count=log_uniform(rng, *ranges.gain_e_per_count),
        offset_counts=rng.uniform(*ranges.offset_counts),
        bit_depth=16,
    )


def splat(emitters: Emitters, shape: tuple[int, int], pixel_um: float) -> Tensor:
    """Emitters on a grid, each shared bilinearly by four pixels so that flux and position are kept; float32 (Y, X)."""
    positions, brightness = emitters
    place = positions / pixel_um - 0.5
    corner = np.floor(place).astype(np.int64)
    share = place - corner
    image = np.zeros(shape[0] * shape[1])
    for dy in (0, 1):
        for dx in (0, 1):
            y, x = corner[:, 0] + dy, corner[:, 1] + dx
            inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
            weight = np.abs(1 - dy - share[:, 0]) * np.abs(1 - dx - share[:, 1]) * brightness
            image += np.bincount((y * shape[1] + x)[inside], weight[inside], minlength=image.size)
    return torch.from_numpy(image.reshape(shape)).float()


def _in_focus(rng: np.random.Generator, emitters: Tensor, fine: Microscope, ranges: WidefieldRanges) -> Tensor:
    shape = (emitters.shape[0], emitters.shape[1])
    transfer = optical_transfer(widefield_psf(fine, PSF_SIZE, rng.uniform(*ranges.defocus_um)), shape)
    return blur(emitters, transfer * gaussian_transfer(shape, UPSAMPLING * rng.uniform(*ranges.blur_px), emitters)).clamp(min=0)


def _haze(rng: np.random.Generator, shape: tuple[int, int], fine: Microscope) -> Tensor:
    """Out-of-focus structure and broad autofluorescence, sum 1 (or 0)."""
    size = (shape[0] * fine.pixel_um, shape[1] * fine.pixel_um)
    layer = splat(draw_structure(rng, size), shape, fine.pixel_um)
    defocused = blur(layer, optical_transfer(widefield_psf(fine, PSF_SIZE, rng.uniform(0.4, 2.0)), shape)).clamp(min=0)
    broad = torch.from_numpy(gaussian_filter(rng.uniform(size=shape), rng.uniform(15, 60)).astype(np.float32))
    broad = (broad - broad.min()) * rng.uniform(0, 1) * defocused.sum() / (broad - broad.min()).sum().clamp(min=1e-9)
    total = defocused + broad
    return total / total.sum().clamp(min=1e-9)


DrawStructure = Callable[[np.random.Generator, int, float], Tensor]
"""(rng, side in fine pixels, size of a fine pixel [um]) -> emitters on that grid, float32 (side, side), any unit, >= 0."""


def draw_emitters(rng: np.random.Generator, side: int, pixel_um: float) -> Tensor:
    """Emitters of a random structure."""
    return splat(draw_structure(rng, (side * pixel_um,) * 2), (side, side), pixel_um)


def simulate_widefield(seed: int, ranges: WidefieldRanges, draw: DrawStructure = draw_emitters) -> WidefieldPair:
    """One simulated field: structure, optics, haze, camera.

    Parameters
    ----------
    seed : int
        The pair is a pure function of the arguments.
    ranges : WidefieldRanges
    draw : callable
        What is in focus.

    Returns
    -------
    WidefieldPair
    """
    rng = np.random.default_rng(seed)
    microscope, camera = draw_microscope(rng, ranges), draw_camera(rng, ranges)
    fine = Microscope(pixel_um=microscope.pixel_um / UPSAMPLING, wavelength_um=microscope.wavelength_um, medium_index=microscope.medium_index, na=microscope.na)
    side = UPSAMPLING * (ranges.field_px + 2 * MARGIN_PX)
    emitters = draw(rng, side, fine.pixel_um)
    sharp = blur(emitters, gaussian_transfer((side, side), RESOLUTION_SIGMA_PX, emitters)).clamp(min=0)
    seen = _in_focus(rng, emitters, fine, ranges)
    photons = log_uniform(rng, *ranges.photons)
    unit = photons / _brightest(bin_pixels(seen, UPSAMPLING))
    expected = bin_pixels(seen, UPSAMPLING) * unit + photons * log_uniform(rng, *ranges.background)
    if rng.uniform() < 0.5:
        flux = max(float(seen.sum()) * unit, 0.3 * photons * expected.numel() / 10)
        expected = expected + bin_pixels(_haze(rng, (side, side), fine), UPSAMPLING) * flux * rng.uniform(*ranges.haze)
    frames = int(rng.integers(ranges.frames[0], ranges.frames[1] + 1))
    kept, kept_fine = (slice(MARGIN_PX * factor, -MARGIN_PX * factor) for factor in (1, UPSAMPLING))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    counts = (
        expose((expected[kept, kept] / frames).expand(frames, -1, -1), camera, generator).mean(dim=0)
        if frames > 1
        else expose(expected[kept, kept], camera, generator)
    )
    truth = sharp[kept_fine, kept_fine] * unit * UPSAMPLING**2 / frames / camera.gain_e_per_count
    seen_counts, true_counts = (image.numpy().astype(np.float32) for image in (counts, truth))
    return WidefieldPair(counts=seen_counts, truth=true_counts, microscope=microscope, camera=camera, photons=photons)


def _brightest(image: Tensor) -> float:
    """A robust peak; 1 for a blank field."""
    peak = float(np.percentile(image.numpy(), BRIGHT_PERCENTILE))
    return peak if peak > 0 else max(float(image.max()), 1.0)
