"""Simulated fields: object, optics, image formation and camera, as pure functions of a seed.

Phase objects give defocused planes, and fluorescent structures give widefield images. A clean image
may take the place of the simulated object.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.transform import rescale
from torch import Tensor

from napari_cvdm.core.intensity import dark_level, noise_sigma
from napari_cvdm.core.microscope import Camera, Microscope
from napari_cvdm.physics.camera import expose
from napari_cvdm.physics.forward_model import PhaseForwardModel, PhaseObject, canvas_shape
from napari_cvdm.physics.widefield import (
    bin_pixels,
    blur,
    cutoff_period_um,
    gaussian_transfer,
    optical_transfer,
    usual_index,
    widefield_psf,
)
from napari_cvdm.simulate.phase_objects import draw_object, log_uniform, power_law_field
from napari_cvdm.simulate.ranges import DenoisingRanges, PhaseRanges, Range, WidefieldRanges
from napari_cvdm.simulate.structures import draw_structure, drawn_pixel, splat

LARGEST_SLOPE = 1.8  # rad/px: beyond this neighbouring pixels alias
MOST_SMOOTHINGS = 3
# Of the fields, parts of larger ones, as nearly every photograph of a microscope is.
CROPPED_SHARE = 0.7
CONDENSER_SHARE = 0.3
STACK_SHARE = 0.2
MOST_PLANES = 5
UPSAMPLING = 2
MARGIN_PX = 24
PSF_SIZE = 81
BRIGHT_PERCENTILE = 99.5
DARK_PERCENTILE = 5.0
TOP_OF_16_BITS = 65535.0
LEAST_GAIN = 1e-6  # the least that a Camera may have
DOUBLE = torch.zeros(1, dtype=torch.float64)  # the precision that planes are simulated in
# Standard deviation of what registration and interpolation do to an image.
SMOOTHING_PX = (0.3, 1.2)
# Standard deviation of the lines of a CMOS camera over that of the noise of its pixels.
LINE_SIGMAS = (0.2, 1.2)

DrawPhase = Callable[[np.random.Generator, tuple[int, int], PhaseRanges, float], np.ndarray]
"""(rng, shape, ranges, pixel size [um]) -> phase [rad] of that shape."""

DrawStructure = Callable[[np.random.Generator, int, float], Tensor]
"""(rng, side in fine pixels, size of a fine pixel [um]) -> emitters on that grid.

The emitters are float32 (side, side) in any unit, >= 0.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DefocusPair:
    """Simulated planes and the phase behind them.

    Parameters
    ----------
    planes : ndarray of shape (P, Y, X), float32
        Photons over the photons of a blank pixel.
    phase : ndarray of shape (Y, X), float32
        Radians, zero mean over the field.
    photons : float
        Of a blank pixel.
    """

    planes: np.ndarray = field(repr=False)
    phase: np.ndarray = field(repr=False)
    microscope: Microscope
    defocus_um: tuple[float, ...]
    photons: float
    condenser_na: float = 0.0


def draw_brightfield_microscope(rng: np.random.Generator, ranges: PhaseRanges) -> Microscope:
    """A random microscope; a third of them have a pupil that matters."""
    wavelength, index = rng.uniform(*ranges.wavelength_um), rng.uniform(*ranges.medium_index)
    na = rng.uniform(*ranges.na) if rng.uniform() < 0.33 else None
    pixel = log_uniform(rng, *ranges.pixel_um)
    if na is not None:
        pixel = min(pixel, wavelength / (2 * na))  # the camera samples what the pupil passes
    return Microscope(
        pixel_um=max(pixel, ranges.pixel_um[0]), wavelength_um=wavelength, medium_index=index, na=na
    )


def draw_defocus(
    rng: np.random.Generator, microscope: Microscope, ranges: PhaseRanges
) -> tuple[float, float]:
    """Plane positions: symmetric about focus (60 %), one in focus (25 %) or anywhere."""
    fresnel = log_uniform(rng, *ranges.fresnel)
    distance = fresnel * microscope.medium_index * microscope.pixel_um**2 / microscope.wavelength_um
    kind = rng.uniform()
    if kind < 0.6:
        return -distance / 2, distance / 2
    if kind < 0.85:
        start = 0.0 if rng.uniform() < 0.5 else -distance
    else:
        start = -rng.uniform(0, 1) * distance
    return start, start + distance


def draw_stack(rng: np.random.Generator, pair: tuple[float, float]) -> tuple[float, ...]:
    """The two positions, in a share of the fields with more between them, at unequal steps."""
    if rng.uniform() >= STACK_SHARE:
        return pair
    between = rng.uniform(0.1, 0.9, int(rng.integers(1, MOST_PLANES - 1)))
    return (pair[0], *sorted(pair[0] + between * (pair[1] - pair[0])), pair[1])


def draw_phase(
    rng: np.random.Generator, shape: tuple[int, int], ranges: PhaseRanges, pixel_um: float
) -> np.ndarray:
    """A random object of a random strength, shape (Y, X) [rad].

    It is no steeper than a camera can follow. Objects have no size of their own.
    """
    image = draw_object(rng, shape, ranges.photographs)
    strength = draw_strength(rng, ranges.strength_rad)
    for _ in range(MOST_SMOOTHINGS):
        if steepest(image) * strength <= LARGEST_SLOPE:
            break
        image = gaussian_filter(image, 2.0)
    if steepest(image) > 0:
        strength = min(strength, LARGEST_SLOPE / steepest(image))
    return image * strength * (1.0 if rng.uniform() < 0.85 else -1.0)


def draw_strength(rng: np.random.Generator, bounds: Range) -> float:
    """Peak-to-peak phase [rad] of one field.

    It is log-uniform (50 %), so that weak objects occur, or uniform (40 %), so that strong ones
    occur. In the other 10 % it is up to ten times the range, for lenses and other smooth objects.
    `draw_phase` keeps the slopes in bounds.
    """
    kind = rng.uniform()
    if kind < 0.5:
        return log_uniform(rng, *bounds)
    if kind < 0.9:
        return float(rng.uniform(*bounds))
    return log_uniform(rng, bounds[1], 10 * bounds[1])


def steepest(image: np.ndarray) -> float:
    """Largest difference of neighbouring pixels."""
    return max(float(np.abs(np.diff(image, axis=axis)).max()) for axis in (0, 1))


def draw_absorbance(rng: np.random.Generator, phase: np.ndarray, ranges: PhaseRanges) -> np.ndarray:
    """A weak absorbance: none (70 %), following the phase, or a texture of its own; (Y, X) >= 0."""
    if rng.uniform() < 0.7:
        return np.zeros_like(phase)
    own = rng.uniform() >= 0.5
    pattern = power_law_field(rng, phase.shape).clip(min=0) if own else np.abs(phase)
    return log_uniform(rng, *ranges.absorption) * pattern / (pattern.max() + 1e-12)


def draw_illumination(
    rng: np.random.Generator, model: PhaseForwardModel, ranges: PhaseRanges
) -> Tensor:
    """Coefficients of the illumination of each plane, (P, K).

    Half of the fields have ramps, and bowls a fiftieth as high.
    """
    coefficients = torch.zeros(model.planes, len(model.terms), dtype=torch.float64)
    if rng.uniform() < 0.5:
        # No constant: planes are divided by the blank field.
        heights = log_uniform(rng, *ranges.ramp) * np.array([0.0, 1, 1, 0.02, 0.02, 0.02])
        coefficients += torch.from_numpy(rng.normal(size=coefficients.shape) * heights)
    return coefficients


def defocus_pair_of(
    phase: np.ndarray,
    absorbance: np.ndarray,
    microscope: Microscope,
    defocus_um: Sequence[float],
    condenser_na: float = 0.0,
) -> np.ndarray:
    """Noiseless planes of a periodic object over the blank field: (P, Y, X), float32.

    The object is exp(-absorbance / 2 + i phase).
    """
    model = PhaseForwardModel.create(
        phase.shape, defocus_um, microscope, condenser_na=condenser_na, like=DOUBLE
    )
    maps = torch.from_numpy(np.stack([-absorbance / 2, phase])).double()
    return model.apply(replace(model.zero(), maps=maps)).numpy().astype(np.float32)


def simulate_phase(seed: int, ranges: PhaseRanges, draw: DrawPhase = draw_phase) -> DefocusPair:
    """One simulated field, a pure function of the arguments; `draw` says what is in it."""
    rng = np.random.default_rng(seed)
    microscope = draw_brightfield_microscope(rng, ranges)
    defocus_um = draw_stack(rng, draw_defocus(rng, microscope, ranges))
    side = int(rng.integers(ranges.field_px[0] // 16, ranges.field_px[1] // 16 + 1)) * 16
    shape = canvas = (side, side)
    # Light from outside the frame: the object goes on around it.
    if rng.uniform() < CROPPED_SHARE:
        canvas = canvas_shape(shape, defocus_um, microscope)
    # A range of no width is a condenser that is known.
    is_open = rng.uniform() < CONDENSER_SHARE or ranges.condenser_na[0] == ranges.condenser_na[1]
    condenser_na = rng.uniform(*ranges.condenser_na) if is_open else 0.0
    model = PhaseForwardModel.create(
        shape, defocus_um, microscope, canvas_shape=canvas, condenser_na=condenser_na, like=DOUBLE
    )
    phase = draw(rng, canvas, ranges, microscope.pixel_um)
    maps = np.stack([-draw_absorbance(rng, phase, ranges) / 2, phase])
    sample = PhaseObject(
        maps=torch.from_numpy(maps).double(), illumination=draw_illumination(rng, model, ranges)
    )
    photons = log_uniform(rng, *ranges.photons)
    noisy = rng.poisson(model.apply(sample).numpy().clip(min=0) * photons) / photons
    # Planes do not tell the mean of a phase.
    truth = phase[model.frame]
    return DefocusPair(
        planes=noisy.astype(np.float32),
        phase=(truth - truth.mean()).astype(np.float32),
        microscope=microscope,
        defocus_um=defocus_um,
        photons=photons,
        condenser_na=condenser_na,
    )


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
    photons : float
        Photons of the brightest structure in a camera pixel, in all frames together.
    """

    counts: np.ndarray = field(repr=False)
    truth: np.ndarray = field(repr=False)
    microscope: Microscope
    camera: Camera
    photons: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A simulated fluorescence field before the camera.

    Parameters
    ----------
    expected : Tensor of shape (Y, X)
        Expected photons in each camera pixel, in all frames together.
    truth : Tensor of shape (2Y, 2X)
        The structure in focus at twice the resolution, with haze and background [photons of a
        camera pixel].
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

    def exposed(self) -> np.ndarray:
        """The average of the noisy frames [counts], float32 (Y, X)."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.frames == 1:
            return expose(self.expected, self.camera, generator).numpy().astype(np.float32)
        frames = (self.expected / self.frames).expand(self.frames, -1, -1)
        return expose(frames, self.camera, generator).mean(dim=0).numpy().astype(np.float32)


def draw_fluorescence_microscope(rng: np.random.Generator, ranges: WidefieldRanges) -> Microscope:
    """A random objective on a camera whose pixels suit it."""
    na, wavelength_um = rng.uniform(*ranges.na), rng.uniform(*ranges.wavelength_um)
    pixel_um = wavelength_um / (2 * na) / log_uniform(rng, *ranges.cutoff_px)
    return Microscope(
        pixel_um=float(np.clip(pixel_um, *ranges.pixel_um)),
        wavelength_um=wavelength_um,
        medium_index=float(np.clip(usual_index(na), *ranges.medium_index)),
        na=na,
    )


def _draw_haze(
    rng: np.random.Generator, shape: tuple[int, int], fine: Microscope, names: tuple[str, ...]
) -> Tensor:
    """Out-of-focus structure and broad autofluorescence, sum 1 (or 0)."""
    drawn_um = drawn_pixel(rng, fine.pixel_um)
    field_um = (shape[0] * drawn_um, shape[1] * drawn_um)
    layer = splat(draw_structure(rng, field_um, names), shape, drawn_um)
    na = fine.na or 1.0
    distance = rng.uniform(1.0, 5.0) * fine.medium_index * fine.wavelength_um / na**2
    transfer = optical_transfer(widefield_psf(fine, PSF_SIZE, distance), shape)
    defocused = blur(layer, transfer).clamp(min=0)
    smooth = gaussian_filter(rng.uniform(size=shape), rng.uniform(15, 60)).astype(np.float32)
    broad = torch.from_numpy(smooth - smooth.min())
    broad = broad * rng.uniform(0, 1) * defocused.sum() / broad.sum().clamp(min=1e-9)
    total = defocused + broad
    return total / total.sum().clamp(min=1e-9)


def draw_scene(seed: int, ranges: WidefieldRanges, draw: DrawStructure | None = None) -> Scene:
    """Structure, optics, haze and camera of one field, a pure function of the arguments.

    Without `draw`, the ranges say what is in focus.
    """
    rng = np.random.default_rng(seed)
    microscope = draw_fluorescence_microscope(rng, ranges)
    camera = Camera(
        read_noise_e=rng.uniform(*ranges.read_noise_e),
        gain_e_per_count=log_uniform(rng, *ranges.gain_e_per_count),
        offset_counts=rng.uniform(*ranges.offset_counts),
        bit_depth=16,
    )
    fine = replace(microscope, pixel_um=microscope.pixel_um / UPSAMPLING)
    side = UPSAMPLING * (ranges.field_px + 2 * MARGIN_PX)
    shape = (side, side)
    emitters = (draw or ranges.draw)(rng, side, fine.pixel_um)
    sigma = ranges.target_sigma_periods * cutoff_period_um(microscope) / microscope.pixel_um
    sharp = blur(emitters, gaussian_transfer(shape, sigma, emitters)).clamp(min=0)
    depth_um = fine.medium_index * fine.wavelength_um / (fine.na or 1.0) ** 2
    psf = widefield_psf(fine, PSF_SIZE, rng.uniform(*ranges.defocus) * depth_um)
    extra = rng.uniform(*ranges.blur_periods) * cutoff_period_um(fine) / fine.pixel_um
    transfer = optical_transfer(psf, shape) * gaussian_transfer(shape, extra, emitters)
    seen = blur(emitters, transfer).clamp(min=0)
    photons = log_uniform(rng, *ranges.photons)
    binned = bin_pixels(seen, UPSAMPLING).numpy()
    # Not the maximum, which a single bright spot would decide.
    peak = float(np.percentile(binned, BRIGHT_PERCENTILE))
    unit = photons / (peak if peak > 0 else max(float(binned.max()), 1.0))  # 1 for a blank field
    # In photons of a fine pixel.
    rest = torch.full_like(seen, photons * log_uniform(rng, *ranges.background) / UPSAMPLING**2)
    if rng.uniform() < 0.5:
        # A blank field may have haze, too.
        flux = max(float(seen.sum()) * unit, 0.3 * photons * (side / UPSAMPLING) ** 2 / 10)
        haze = _draw_haze(rng, shape, fine, ranges.structures)
        rest = rest + haze * flux * rng.uniform(*ranges.haze)
    # The margin: transforms are periodic, and structures go on outside the field.
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


def simulate_fluorescence(
    seed: int, ranges: WidefieldRanges, draw: DrawStructure | None = None
) -> WidefieldPair:
    """The field of a seed, for the task of its ranges."""
    simulate = simulate_noisy if isinstance(ranges, DenoisingRanges) else simulate_widefield
    return simulate(seed, ranges, draw)


def simulate_widefield(
    seed: int, ranges: WidefieldRanges, draw: DrawStructure | None = None
) -> WidefieldPair:
    """One simulated field, a pure function of the arguments: structure, optics, haze, camera.

    Truth = E - d, with the light E of the scene at twice the resolution and the dark level d of the
    noisy image. A result differs from counts by d.
    """
    scene = draw_scene(seed, ranges, draw)
    # A generator of its own, so that the scene of a seed stays the same.
    counts, rng = scene.exposed(), np.random.default_rng((seed, 3))
    if rng.uniform() < ranges.correlated:
        counts = correlate_noise(counts, rng)
    pair = _pair_of(scene, counts, scene.truth)
    stored = np.random.default_rng((seed, 1)).uniform() < ranges.stretched
    return stretch_contrast(pair) if stored else pair


def simulate_noisy(
    seed: int, ranges: WidefieldRanges, draw: DrawStructure | None = None
) -> WidefieldPair:
    """The image of `simulate_widefield`, and the expectation of its counts on the same grid.

    Truth = E[counts] - d, with background and haze, where d is the dark level of the noisy image. A
    result differs from counts by this one number.
    """
    scene = draw_scene(seed, ranges, draw)
    return _pair_of(scene, scene.exposed(), scene.expected)


def correlate_noise(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image (Y, X) with correlated noise, float32.

    The image is smoothed with its noise, or each line gets a random offset.
    """
    if rng.uniform() < 0.5:
        return gaussian_filter(counts, rng.uniform(*SMOOTHING_PX))
    lines = rng.normal(0, rng.uniform(*LINE_SIGMAS) * noise_sigma(counts), (len(counts), 1))
    return (counts + lines).astype(np.float32)


def _pair_of(scene: Scene, counts: np.ndarray, truth: Tensor) -> WidefieldPair:
    """The image that a scene gave, and a truth of it [photons of a camera pixel]."""
    camera = scene.camera
    in_counts = (truth / scene.frames / camera.gain_e_per_count).numpy().astype(np.float32)
    return WidefieldPair(
        counts=counts,
        # As a user's image: its dark level is estimated, and a result lies above that.
        truth=in_counts + np.float32(camera.offset_counts - dark_level(counts)),
        microscope=scene.microscope,
        camera=camera,
        photons=scene.photons,
    )


def stretch_contrast(pair: WidefieldPair) -> WidefieldPair:
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


def structure_of_image(image: np.ndarray, pixel_um: float) -> DrawStructure:
    """Emitters that a sharp fluorescence image (Y, X) of any unit shows.

    Its dark level (5th percentile) counts as nothing. `pixel_um` is that in the sample.
    """
    clean = np.clip(image.astype(np.float32) - np.percentile(image, DARK_PERCENTILE), 0, None)

    def draw(rng: np.random.Generator, side: int, fine_um: float) -> Tensor:
        part = _random_part(rng, clean, pixel_um / fine_um, (side, side))
        return torch.from_numpy(np.ascontiguousarray(part)).float()

    return draw


def phase_of_image(phase: np.ndarray, pixel_um: float) -> DrawPhase:
    """A phase map (Y, X) [rad] as the object; `pixel_um` is that in the sample.

    It is made weaker where its slopes would be steeper than a camera can follow.
    """
    clean = phase.astype(np.float64) - np.median(phase)

    def draw(
        rng: np.random.Generator, shape: tuple[int, int], ranges: PhaseRanges, seen_um: float
    ) -> np.ndarray:
        part = _random_part(rng, clean, pixel_um / seen_um, shape)
        return part * min(1.0, LARGEST_SLOPE / max(steepest(part), 1e-9))

    return draw


def _random_part(
    rng: np.random.Generator, image: np.ndarray, factor: float, shape: tuple[int, int]
) -> np.ndarray:
    """A random part of an image on another grid; its mirror image continues a smaller one."""
    if abs(factor - 1) >= 1e-3:  # less shifts a field of 1000 px by less than one
        image = rescale(image, factor, order=1, mode="reflect", anti_aliasing=factor < 1)
    lacking = [max(0, wanted - size) for wanted, size in zip(shape, image.shape, strict=True)]
    if any(lacking):
        image = np.pad(image, [(0, lack) for lack in lacking], mode="symmetric")
    top, left = (
        int(rng.integers(size - wanted + 1))
        for size, wanted in zip(image.shape, shape, strict=True)
    )
    return image[top : top + shape[0], left : left + shape[1]]
