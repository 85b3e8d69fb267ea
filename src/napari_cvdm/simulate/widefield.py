"""Widefield fluorescence images of simulated structures, and what a microscope of twice the resolution would show."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from napari_cvdm.microscope import Camera, Microscope
from napari_cvdm.physics.camera import expose
from napari_cvdm.physics.widefield import bin_pixels, blur, gaussian_transfer, optical_transfer, widefield_psf
from napari_cvdm.request import RequestError
from napari_cvdm.simulate.structures import STRUCTURE_NAMES, Emitters, draw_structure, log_uniform

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
    structures : tuple of str
        What may be drawn, in and out of focus: some of `STRUCTURE_NAMES`, in the proportions of all.
    """

    task: ClassVar[str] = "widefield-x2"
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
    structures: tuple[str, ...] = STRUCTURE_NAMES

    def __post_init__(self) -> None:
        unknown = [name for name in self.structures if name not in STRUCTURE_NAMES]
        if unknown or not self.structures:
            said = f"has {', '.join(map(repr, unknown))}" if unknown else "is empty"
            raise RequestError(f"[simulation] structures {said}; allowed are {', '.join(STRUCTURE_NAMES)}, at least one. Leave it out for all.")

    @property
    def smallest_px(self) -> int:
        """Side of the smallest field."""
        return self.field_px

    def draw(self, rng: np.random.Generator, side: int, pixel_um: float) -> Tensor:
        """Emitters of a random structure that may be drawn, see `DrawStructure`."""
        return draw_emitters(rng, side, pixel_um, self.structures)

    def simulated(self, seed: int, draw: "DrawStructure | None" = None) -> "WidefieldPair":
        """The field of a seed, see `simulate_widefield`."""
        return simulate_widefield(seed, self, draw)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WidefieldPair:
    """A simulated camera image and what ought to be made of it.

    Parameters
    ----------
    counts : ndarray of shape (Y, X), float32
        Camera counts.
    truth : ndarray of shape (uY, uX), float32
        Counts of a camera pixel above the dark level. Of `simulate_widefield`, twice as fine: the structure in focus at the stated resolution,
        without background, haze or offset. Of `simulate_noisy`: the image without its noise.
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


def _haze(rng: np.random.Generator, shape: tuple[int, int], fine: Microscope, names: tuple[str, ...]) -> Tensor:
    """Out-of-focus structure and broad autofluorescence, sum 1 (or 0)."""
    size = (shape[0] * fine.pixel_um, shape[1] * fine.pixel_um)
    layer = splat(draw_structure(rng, size, names), shape, fine.pixel_um)
    defocused = blur(layer, optical_transfer(widefield_psf(fine, PSF_SIZE, rng.uniform(0.4, 2.0)), shape)).clamp(min=0)
    broad = torch.from_numpy(gaussian_filter(rng.uniform(size=shape), rng.uniform(15, 60)).astype(np.float32))
    broad = (broad - broad.min()) * rng.uniform(0, 1) * defocused.sum() / (broad - broad.min()).sum().clamp(min=1e-9)
    total = defocused + broad
    return total / total.sum().clamp(min=1e-9)


DrawStructure = Callable[[np.random.Generator, int, float], Tensor]
"""(rng, side in fine pixels, size of a fine pixel [um]) -> emitters on that grid, float32 (side, side), any unit, >= 0."""


def draw_emitters(rng: np.random.Generator, side: int, pixel_um: float, names: tuple[str, ...] = STRUCTURE_NAMES) -> Tensor:
    """Emitters of a random structure, one of those named."""
    return splat(draw_structure(rng, (side * pixel_um,) * 2, names), (side, side), pixel_um)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """What a simulated camera is about to see.

    Parameters
    ----------
    expected : Tensor of shape (Y, X)
        Expected photons in each camera pixel, in all frames together.
    sharp : Tensor of shape (2Y, 2X)
        The structure in focus at the stated resolution [photons of a camera pixel].
    microscope : Microscope
    camera : Camera
    photons : float
        Of the brightest structure in a camera pixel.
    frames : int
        That are averaged.
    seed : int
        Of the noise.
    """

    expected: Tensor = field(repr=False)
    sharp: Tensor = field(repr=False)
    microscope: Microscope
    camera: Camera
    photons: float
    frames: int
    seed: int

    def in_counts(self, photons: Tensor) -> np.ndarray:
        """Photons of all frames as counts of their average, without the camera's offset; float32."""
        counts: np.ndarray = (photons / self.frames / self.camera.gain_e_per_count).numpy().astype(np.float32)
        return counts

    def exposed(self) -> np.ndarray:
        """The average of the noisy frames [counts], float32 (Y, X)."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.frames == 1:
            return expose(self.expected, self.camera, generator).numpy().astype(np.float32)
        frames = (self.expected / self.frames).expand(self.frames, -1, -1)
        return expose(frames, self.camera, generator).mean(dim=0).numpy().astype(np.float32)


def draw_scene(seed: int, ranges: WidefieldRanges, draw: DrawStructure | None = None) -> Scene:
    """Structure, optics, haze and camera of one field, a pure function of the arguments; without `draw`, the ranges say what is in focus."""
    rng = np.random.default_rng(seed)
    microscope, camera = draw_microscope(rng, ranges), draw_camera(rng, ranges)
    fine = replace(microscope, pixel_um=microscope.pixel_um / UPSAMPLING)
    side = UPSAMPLING * (ranges.field_px + 2 * MARGIN_PX)
    emitters = (draw or ranges.draw)(rng, side, fine.pixel_um)
    sharp = blur(emitters, gaussian_transfer((side, side), RESOLUTION_SIGMA_PX, emitters)).clamp(min=0)
    seen = _in_focus(rng, emitters, fine, ranges)
    photons = log_uniform(rng, *ranges.photons)
    unit = photons / _brightest(bin_pixels(seen, UPSAMPLING))
    expected = bin_pixels(seen, UPSAMPLING) * unit + photons * log_uniform(rng, *ranges.background)
    if rng.uniform() < 0.5:
        flux = max(float(seen.sum()) * unit, 0.3 * photons * expected.numel() / 10)
        expected = expected + bin_pixels(_haze(rng, (side, side), fine, ranges.structures), UPSAMPLING) * flux * rng.uniform(*ranges.haze)
    kept, kept_fine = (slice(MARGIN_PX * factor, -MARGIN_PX * factor) for factor in (1, UPSAMPLING))
    return Scene(
        expected=expected[kept, kept],
        sharp=sharp[kept_fine, kept_fine] * unit * UPSAMPLING**2,
        microscope=microscope,
        camera=camera,
        photons=photons,
        frames=int(rng.integers(ranges.frames[0], ranges.frames[1] + 1)),
        seed=int(rng.integers(2**62)),
    )


def simulate_widefield(seed: int, ranges: WidefieldRanges, draw: DrawStructure | None = None) -> WidefieldPair:
    """One simulated field: structure, optics, haze, camera.

    Parameters
    ----------
    seed : int
        The pair is a pure function of the arguments.
    ranges : WidefieldRanges
    draw : callable, optional
        What is in focus; one of the structures that the ranges name unless given.

    Returns
    -------
    WidefieldPair
    """
    scene = draw_scene(seed, ranges, draw)
    return WidefieldPair(counts=scene.exposed(), truth=scene.in_counts(scene.sharp), microscope=scene.microscope, camera=scene.camera, photons=scene.photons)


def _brightest(image: Tensor) -> float:
    """A robust peak; 1 for a blank field."""
    peak = float(np.percentile(image.numpy(), BRIGHT_PERCENTILE))
    return peak if peak > 0 else max(float(image.max()), 1.0)
