"""Widefield images of simulated structures, and the same field at twice the resolution."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from napari_cvdm.core.intensity import dark_level, noise_sigma
from napari_cvdm.core.microscope import Camera, Microscope
from napari_cvdm.core.request import RequestError
from napari_cvdm.physics.camera import expose
from napari_cvdm.physics.widefield import (
    bin_pixels,
    blur,
    cutoff_period_um,
    gaussian_transfer,
    optical_transfer,
    usual_index,
    widefield_psf,
)
from napari_cvdm.simulate.phase_objects import dead_leaves, photograph, power_law_field
from napari_cvdm.simulate.structures import (
    STRUCTURE_NAMES,
    STRUCTURES,
    Emitters,
    draw_structure,
    log_uniform,
    structure_kinds,
)

Range = tuple[float, float]
UPSAMPLING = 2
MARGIN_PX = 24
PSF_SIZE = 81
BRIGHT_PERCENTILE = 99.5
# A fine pixel, as the structures are drawn: a dry objective is shown larger ones.
FINEST_DRAWN_UM, COARSEST_DRAWN_UM = (0.012, 0.05)
TOP_OF_16_BITS = 65535.0
LEAST_GAIN = 1e-6
# Standard deviation of what registration and interpolation do to an image.
SMOOTHING_PX = (0.3, 1.2)
# Standard deviation of the lines of a CMOS camera over that of the noise of its pixels.
LINE_SIGMAS = (0.2, 1.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class WidefieldRanges:
    """Ranges (low, high) that one simulated field is drawn from.

    Parameters
    ----------
    na, wavelength_um, medium_index : tuple of float
        Optics. The index is that of air, water or oil, whichever suits the NA, within its range.
    cutoff_px : tuple of float
        Period of the cut-off frequency, lambda / (2 NA), in camera pixels. Log-uniform.
    pixel_um : tuple of float
        The camera's pixel, which follows from the others, is kept within this range.
    photons : tuple of float
        Photons of the brightest structure in one camera pixel. Log-uniform.
    background : tuple of float
        Flat background, as a share of `photons`. Log-uniform.
    haze : tuple of float
        Flux of out-of-focus structure over that of the structure in focus, in half of the fields.
    defocus : tuple of float
        Distance of the structure from focus, in units of n lambda / NA^2.
    blur_periods : tuple of float
        Extra Gaussian blur by sample and lenses, standard deviation in cut-off periods.
    read_noise_e, gain_e_per_count, offset_counts : tuple of float
        Camera.
    frames : tuple of int
        Frames averaged into one image.
    field_px : int
        Side of the field in camera pixels.
    stretched : float
        Share of the images that are stored between 0 and 65535, as programs do that show contrast.
    target_sigma_periods : float
        Standard deviation of what the truth shows of a point, in fine pixels over the cut-off
        period in camera pixels.
    correlated : float
        Share of the images whose noise is not white. It is smoothed by registration, or has lines
        of a CMOS camera.
    textures : float
        Share of the fields that show a generic texture in place of a structure.
    structures : tuple of str
        Structures that may be drawn, in and out of focus. They are some of `STRUCTURE_NAMES`, in
        the proportions of all. Generic textures are drawn only with all of them.
    photographs : str
        Folder of photographs that some of the textures are taken from; none if empty.
    """

    task: ClassVar[str] = "widefield-x2"
    na: Range = (0.4, 1.49)
    wavelength_um: Range = (0.45, 0.72)
    cutoff_px: Range = (2.2, 6.0)
    pixel_um: Range = (0.025, 0.4)
    medium_index: Range = (1.0, 1.52)
    photons: Range = (8.0, 5000.0)
    background: Range = (0.01, 0.6)
    haze: Range = (0.0, 1.5)
    defocus: Range = (-0.4, 0.4)
    blur_periods: Range = (0.0, 0.15)
    read_noise_e: Range = (0.5, 3.0)
    gain_e_per_count: Range = (0.2, 2.5)
    offset_counts: Range = (0.0, 400.0)
    frames: tuple[int, int] = (1, 9)
    field_px: int = 144
    stretched: float = 0.15
    target_sigma_periods: float = 0.35
    correlated: float = 0.15
    textures: float = 0.25
    structures: tuple[str, ...] = STRUCTURE_NAMES
    photographs: str = ""

    def __post_init__(self) -> None:
        unknown = [name for name in self.structures if name not in STRUCTURE_NAMES]
        if unknown or not self.structures:
            said = f"has {', '.join(map(repr, unknown))}" if unknown else "is empty"
            raise RequestError(
                f"[simulation] structures {said}; allowed are {', '.join(STRUCTURE_NAMES)}, "
                "at least one. Leave it out for all."
            )

    @property
    def smallest_px(self) -> int:
        """Side of the smallest field."""
        return self.field_px

    def draw(self, rng: np.random.Generator, side: int, pixel_um: float) -> Tensor:
        """Emitters of what may be drawn, see `DrawStructure`: structures, or a texture."""
        if self.structures == STRUCTURE_NAMES and rng.uniform() < self.textures:
            return draw_texture(rng, side, self.photographs)
        return draw_specimen(rng, side, pixel_um, self.structures)

    def drawn_kind(self, rng: np.random.Generator) -> str:
        """Name of the structure, or "texture", that `draw` makes first of a generator.

        The generator is not advanced.
        """
        ahead = deepcopy(rng)
        if self.structures == STRUCTURE_NAMES and ahead.uniform() < self.textures:
            return "texture"
        ahead.uniform()  # chose the scale
        return STRUCTURES[structure_kinds(ahead, self.structures)[0]][0].__name__

    def simulated(self, seed: int, draw: "DrawStructure | None" = None) -> "WidefieldPair":
        """The field of a seed, see `simulate_widefield`."""
        return simulate_widefield(seed, self, draw)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WidefieldPair:
    """A simulated camera image and its truth.

    Parameters
    ----------
    counts : ndarray of shape (Y, X), float32
        Camera counts.
    truth : ndarray of shape (uY, uX), float32
        Counts of a camera pixel above the dark level of the image. `simulate_widefield` gives a
        grid twice as fine, with the structure in focus at twice the resolution and the same haze
        and background as the image. `simulate_noisy` gives the image without its noise.
    microscope : Microscope
    camera : Camera
    photons : float
        Photons of the brightest structure in a camera pixel, in all frames together.
    """

    counts: np.ndarray = field(repr=False)
    truth: np.ndarray = field(repr=False)
    microscope: Microscope
    camera: Camera
    photons: float


def draw_microscope(rng: np.random.Generator, ranges: WidefieldRanges) -> Microscope:
    """A random objective on a camera whose pixels suit it."""
    na, wavelength_um = rng.uniform(*ranges.na), rng.uniform(*ranges.wavelength_um)
    pixel_um = wavelength_um / (2 * na) / log_uniform(rng, *ranges.cutoff_px)
    return Microscope(
        pixel_um=float(np.clip(pixel_um, *ranges.pixel_um)),
        wavelength_um=wavelength_um,
        medium_index=float(np.clip(usual_index(na), *ranges.medium_index)),
        na=na,
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
    """Emitters on a grid (Y, X), float32.

    Four pixels share each emitter bilinearly, so that flux and position are kept.
    """
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


def _in_focus(
    rng: np.random.Generator, emitters: Tensor, fine: Microscope, ranges: WidefieldRanges
) -> Tensor:
    shape, depth = (
        (emitters.shape[0], emitters.shape[1]),
        fine.medium_index * fine.wavelength_um / (fine.na or 1.0) ** 2,
    )
    transfer = optical_transfer(
        widefield_psf(fine, PSF_SIZE, rng.uniform(*ranges.defocus) * depth), shape
    )
    sigma = rng.uniform(*ranges.blur_periods) * cutoff_period_um(fine) / fine.pixel_um
    return blur(emitters, transfer * gaussian_transfer(shape, sigma, emitters)).clamp(min=0)


def _haze(
    rng: np.random.Generator, shape: tuple[int, int], fine: Microscope, names: tuple[str, ...]
) -> Tensor:
    """Out-of-focus structure and broad autofluorescence, sum 1 (or 0)."""
    drawn_um = _drawn_pixel(rng, fine.pixel_um)
    layer = splat(
        draw_structure(rng, (shape[0] * drawn_um, shape[1] * drawn_um), names), shape, drawn_um
    )
    distance = (
        rng.uniform(1.0, 5.0) * fine.medium_index * fine.wavelength_um / (fine.na or 1.0) ** 2
    )
    defocused = blur(layer, optical_transfer(widefield_psf(fine, PSF_SIZE, distance), shape)).clamp(
        min=0
    )
    broad = torch.from_numpy(
        gaussian_filter(rng.uniform(size=shape), rng.uniform(15, 60)).astype(np.float32)
    )
    broad = (
        (broad - broad.min())
        * rng.uniform(0, 1)
        * defocused.sum()
        / (broad - broad.min()).sum().clamp(min=1e-9)
    )
    total = defocused + broad
    return total / total.sum().clamp(min=1e-9)


def _drawn_pixel(rng: np.random.Generator, pixel_um: float) -> float:
    """The size that a fine pixel has while structures are drawn."""
    return min(pixel_um, log_uniform(rng, FINEST_DRAWN_UM, COARSEST_DRAWN_UM))


DrawStructure = Callable[[np.random.Generator, int, float], Tensor]
"""From (rng, side in fine pixels, size of a fine pixel [um]) to emitters on that grid.

The emitters are float32 (side, side) in any unit, >= 0.
"""


def draw_specimen(
    rng: np.random.Generator, side: int, pixel_um: float, names: tuple[str, ...] = STRUCTURE_NAMES
) -> Tensor:
    """Emitters of random structures of those named, under a smooth random brightness.

    One field therefore holds dim and bright structures.
    """
    drawn_um = _drawn_pixel(rng, pixel_um)
    image = splat(draw_structure(rng, (side * drawn_um,) * 2, names), (side, side), drawn_um)
    smooth = torch.from_numpy(
        gaussian_filter(rng.normal(size=(side, side)), side / rng.uniform(6, 20), mode="wrap")
    ).float()
    return image * torch.exp(rng.uniform(0, 1.2) * smooth / smooth.std())


def draw_texture(rng: np.random.Generator, side: int, photographs: str = "") -> Tensor:
    """Emitters that form no structure of a cell.

    They show dead leaves, a random field of a power law, or a photograph.
    """
    kind = rng.choice(3 if photographs else 2)
    if kind == 0:
        image = gaussian_filter(dead_leaves(rng, (side, side)), rng.uniform(0.3, 1.5))
    elif kind == 1:
        image = np.exp(
            rng.uniform(0.2, 1.0)
            * power_law_field(rng, (side, side), rng.uniform(0.6, 2.0)).clip(-4, 4)
        )
    else:
        image = photograph(rng, (side, side), photographs)
    low, high = float(image.min()), float(image.max())
    contrast = ((image - low) / max(high - low, 1e-9)) ** rng.uniform(0.7, 2.5)
    return torch.from_numpy(
        np.asarray(contrast, np.float32) + np.float32(rng.choice([0.0, rng.uniform(0, 0.5)]))
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A simulated field before the camera.

    Parameters
    ----------
    expected : Tensor of shape (Y, X)
        Expected photons in each camera pixel, in all frames together.
    truth : Tensor of shape (2Y, 2X)
        The structure in focus at twice the resolution, with haze and background [photons of a
        camera pixel].
    microscope : Microscope
    camera : Camera
    photons : float
        Photons of the brightest structure in a camera pixel.
    frames : int
        Number of frames that are averaged.
    seed : int
        Seed of the noise.
    """

    expected: Tensor = field(repr=False)
    truth: Tensor = field(repr=False)
    microscope: Microscope
    camera: Camera
    photons: float
    frames: int
    seed: int

    def in_counts(self, photons: Tensor) -> np.ndarray:
        """Photons of all frames as counts of their average, float32.

        The counts do not include the camera's offset.
        """
        counts: np.ndarray = (
            (photons / self.frames / self.camera.gain_e_per_count).numpy().astype(np.float32)
        )
        return counts

    def exposed(self) -> np.ndarray:
        """The average of the noisy frames [counts], float32 (Y, X)."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.frames == 1:
            return expose(self.expected, self.camera, generator).numpy().astype(np.float32)
        frames = (self.expected / self.frames).expand(self.frames, -1, -1)
        return expose(frames, self.camera, generator).mean(dim=0).numpy().astype(np.float32)


def draw_scene(seed: int, ranges: WidefieldRanges, draw: DrawStructure | None = None) -> Scene:
    """Structure, optics, haze and camera of one field, a pure function of the arguments.

    Without `draw`, the ranges say what is in focus.
    """
    rng = np.random.default_rng(seed)
    microscope, camera = draw_microscope(rng, ranges), draw_camera(rng, ranges)
    fine = replace(microscope, pixel_um=microscope.pixel_um / UPSAMPLING)
    side = UPSAMPLING * (ranges.field_px + 2 * MARGIN_PX)
    emitters = (draw or ranges.draw)(rng, side, fine.pixel_um)
    sigma = ranges.target_sigma_periods * cutoff_period_um(microscope) / microscope.pixel_um
    sharp = blur(emitters, gaussian_transfer((side, side), sigma, emitters)).clamp(min=0)
    seen = _in_focus(rng, emitters, fine, ranges)
    photons = log_uniform(rng, *ranges.photons)
    unit = photons / _brightest(bin_pixels(seen, UPSAMPLING))
    # In photons of a fine pixel.
    rest = torch.full_like(seen, photons * log_uniform(rng, *ranges.background) / UPSAMPLING**2)
    if rng.uniform() < 0.5:
        flux = max(float(seen.sum()) * unit, 0.3 * photons * (side / UPSAMPLING) ** 2 / 10)
        rest = rest + _haze(rng, (side, side), fine, ranges.structures) * flux * rng.uniform(
            *ranges.haze
        )
    kept, kept_fine = (slice(MARGIN_PX * factor, -MARGIN_PX * factor) for factor in (1, UPSAMPLING))
    return Scene(
        expected=bin_pixels(seen * unit + rest, UPSAMPLING)[kept, kept],
        truth=(sharp * unit + rest)[kept_fine, kept_fine] * UPSAMPLING**2,
        microscope=microscope,
        camera=camera,
        photons=photons,
        frames=int(rng.integers(ranges.frames[0], ranges.frames[1] + 1)),
        seed=int(rng.integers(2**62)),
    )


def simulate_widefield(
    seed: int, ranges: WidefieldRanges, draw: DrawStructure | None = None
) -> WidefieldPair:
    """One simulated field: structure, optics, haze, camera.

    Truth = E - d, with the light E of the scene at twice the resolution and the dark level d of the
    noisy image. A result differs from counts by d.

    Parameters
    ----------
    seed : int
        The pair is a pure function of the arguments.
    ranges : WidefieldRanges
    draw : callable, optional
        What is in focus; what the ranges name unless given.

    Returns
    -------
    WidefieldPair
    """
    scene = draw_scene(seed, ranges, draw)
    counts, rng = scene.exposed(), np.random.default_rng((seed, 3))
    pair = make_pair(
        scene,
        correlate_noise(counts, rng) if rng.uniform() < ranges.correlated else counts,
        scene.truth,
    )
    return (
        stretched(pair) if np.random.default_rng((seed, 1)).uniform() < ranges.stretched else pair
    )


def correlate_noise(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image (Y, X) with correlated noise, float32.

    The image is smoothed with its noise, or each line gets a random offset.
    """
    if rng.uniform() < 0.5:
        return gaussian_filter(counts, rng.uniform(*SMOOTHING_PX))
    lines = rng.normal(0, rng.uniform(*LINE_SIGMAS) * noise_sigma(counts), (len(counts), 1))
    return (counts + lines).astype(np.float32)


def make_pair(scene: Scene, counts: np.ndarray, truth: Tensor) -> WidefieldPair:
    """The image that a scene gave, and a truth of it [photons of a camera pixel]."""
    above = scene.in_counts(truth) + np.float32(scene.camera.offset_counts - dark_level(counts))
    return WidefieldPair(
        counts=counts,
        truth=above,
        microscope=scene.microscope,
        camera=scene.camera,
        photons=scene.photons,
    )


def stretched(pair: WidefieldPair) -> WidefieldPair:
    """The same image between 0 and 65535, as programs that show contrast store it.

    Offset and gain are then those of another camera.
    """
    low, high = float(pair.counts.min()), float(pair.counts.max())
    factor = TOP_OF_16_BITS / max(high - low, 1.0)
    camera = replace(
        pair.camera,
        offset_counts=(pair.camera.offset_counts - low) * factor,
        gain_e_per_count=max(pair.camera.gain_e_per_count / factor, LEAST_GAIN),
    )
    counts = np.round((pair.counts - low) * np.float32(factor))
    return replace(pair, counts=counts, truth=pair.truth * np.float32(factor), camera=camera)


def _brightest(image: Tensor) -> float:
    """A robust peak; 1 for a blank field."""
    peak = float(np.percentile(image.numpy(), BRIGHT_PERCENTILE))
    return peak if peak > 0 else max(float(image.max()), 1.0)
