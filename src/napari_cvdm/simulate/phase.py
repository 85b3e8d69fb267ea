"""Defocus pairs of phase objects over ranges of microscopes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.physics.forward_model import PhaseForwardModel, PhaseObject, canvas_shape
from napari_cvdm.simulate.phase_objects import draw_object, power_law_field

Range = tuple[float, float]
LARGEST_SLOPE = 1.8  # rad/px: beyond this neighbouring pixels alias
MOST_SMOOTHINGS = 3
CROPPED_SHARE = (
    0.7  # of the fields are parts of larger ones, as nearly every photograph of a microscope is
)
CONDENSER_SHARE = 0.3
STACK_SHARE = 0.2
MOST_PLANES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRanges:
    """Ranges (low, high) that one simulated field is drawn from.

    Parameters
    ----------
    wavelength_um, pixel_um, medium_index, na : tuple of float
        Optics; NA limits the pupil in a share of the fields only.
    fresnel : tuple of float
        lambda dz / (n px^2) of the distance dz between the planes; dz follows from it. Log-uniform.
    strength_rad : tuple of float
        Peak-to-peak phase, see `draw_strength`.
    photons : tuple of float
        Photons of a blank pixel. Log-uniform.
    absorption : tuple of float
        Largest absorbance, in the share of fields that absorb.
    field_px : tuple of int
        Side of the field that is inverted as a whole, in steps of 16.
    condenser_na : tuple of float
        Numerical aperture of the illumination, in the share of fields that are not coherent. It
        holds for all fields, if both numbers are equal.
    ramp : tuple of float
        Standard deviation of the illumination's ramps over the field, in half of the fields.
        Log-uniform.
    photographs : str
        Folder of photographs that some of the objects are taken from; none if empty.
    """

    task: ClassVar[str] = "phase-2shot"
    wavelength_um: Range = (0.4, 0.7)
    pixel_um: Range = (0.08, 0.5)
    medium_index: Range = (1.0, 1.52)
    na: Range = (0.3, 0.95)
    fresnel: Range = (4.0, 300.0)
    strength_rad: Range = (0.05, 6.0)
    photons: Range = (100.0, 1e5)
    absorption: Range = (0.01, 0.3)
    field_px: tuple[int, int] = (128, 192)
    condenser_na: Range = (0.05, 0.35)
    ramp: Range = (3e-4, 6e-3)
    photographs: str = ""

    @property
    def smallest_px(self) -> int:
        """Side of the smallest field."""
        return self.field_px[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DefocusPair:
    """Simulated planes and the phase behind them.

    Parameters
    ----------
    planes : ndarray of shape (P, Y, X), float32
        Photons over the photons of a blank pixel.
    phase : ndarray of shape (Y, X), float32
        Radians, zero mean over the field.
    microscope : Microscope
    defocus_um : tuple of float
    photons : float
        Of a blank pixel.
    condenser_na : float
    """

    planes: np.ndarray = field(repr=False)
    phase: np.ndarray = field(repr=False)
    microscope: Microscope
    defocus_um: tuple[float, ...]
    photons: float
    condenser_na: float = 0.0


def _log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))


def draw_microscope(rng: np.random.Generator, ranges: PhaseRanges) -> Microscope:
    """A random microscope; a third of them have a pupil that matters."""
    wavelength, index = rng.uniform(*ranges.wavelength_um), rng.uniform(*ranges.medium_index)
    na = rng.uniform(*ranges.na) if rng.uniform() < 0.33 else None
    pixel = _log_uniform(rng, ranges.pixel_um)
    if na is not None:
        pixel = min(pixel, wavelength / (2 * na))  # the camera samples what the pupil passes
    return Microscope(
        pixel_um=max(pixel, ranges.pixel_um[0]), wavelength_um=wavelength, medium_index=index, na=na
    )


def draw_defocus(
    rng: np.random.Generator, microscope: Microscope, ranges: PhaseRanges
) -> tuple[float, float]:
    """Plane positions: symmetric about focus (60 %), one in focus (25 %) or anywhere."""
    distance = (
        _log_uniform(rng, ranges.fresnel)
        * microscope.medium_index
        * microscope.pixel_um**2
        / microscope.wavelength_um
    )
    kind = rng.uniform()
    if kind < 0.6:
        return -distance / 2, distance / 2
    start = (
        (0.0 if rng.uniform() < 0.5 else -distance)
        if kind < 0.85
        else -rng.uniform(0, 1) * distance
    )
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
        return _log_uniform(rng, bounds)
    return (
        float(rng.uniform(*bounds))
        if kind < 0.9
        else _log_uniform(rng, (bounds[1], 10 * bounds[1]))
    )


def steepest(image: np.ndarray) -> float:
    """Largest difference of neighbouring pixels."""
    return max(float(np.abs(np.diff(image, axis=axis)).max()) for axis in (0, 1))


def draw_absorbance(rng: np.random.Generator, phase: np.ndarray, ranges: PhaseRanges) -> np.ndarray:
    """A weak absorbance: none (70 %), following the phase, or a texture of its own; (Y, X) >= 0."""
    if rng.uniform() < 0.7:
        return np.zeros_like(phase)
    pattern = (
        np.abs(phase) if rng.uniform() < 0.5 else power_law_field(rng, phase.shape).clip(min=0)
    )
    return _log_uniform(rng, ranges.absorption) * pattern / (pattern.max() + 1e-12)


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
        phase.shape,
        defocus_um,
        microscope,
        condenser_na=condenser_na,
        like=torch.zeros(1, dtype=torch.float64),
    )
    maps = torch.from_numpy(np.stack([-absorbance / 2, phase])).double()
    return model.apply(replace(model.zero(), maps=maps)).numpy().astype(np.float32)


DrawPhase = Callable[[np.random.Generator, tuple[int, int], PhaseRanges, float], np.ndarray]
"""(rng, shape, ranges, pixel size [um]) -> phase [rad] of that shape."""


def simulate_phase(seed: int, ranges: PhaseRanges, draw: DrawPhase = draw_phase) -> DefocusPair:
    """One simulated field: object, optics, image formation, camera.

    Parameters
    ----------
    seed : int
        The planes are a pure function of the arguments.
    ranges : PhaseRanges
    draw : callable
        What is in the field.

    Returns
    -------
    DefocusPair
    """
    rng = np.random.default_rng(seed)
    microscope = draw_microscope(rng, ranges)
    defocus_um = draw_stack(rng, draw_defocus(rng, microscope, ranges))
    side = int(rng.integers(ranges.field_px[0] // 16, ranges.field_px[1] // 16 + 1)) * 16
    canvas = (
        canvas_shape((side, side), defocus_um, microscope)
        if rng.uniform() < CROPPED_SHARE
        else (side, side)
    )
    is_open = rng.uniform() < CONDENSER_SHARE or ranges.condenser_na[0] == ranges.condenser_na[1]
    condenser_na = rng.uniform(*ranges.condenser_na) if is_open else 0.0
    double = torch.zeros(1, dtype=torch.float64)
    model = PhaseForwardModel.create(
        (side, side),
        defocus_um,
        microscope,
        canvas_shape=canvas,
        condenser_na=condenser_na,
        like=double,
    )
    phase = draw(rng, canvas, ranges, microscope.pixel_um)
    absorbance = draw_absorbance(rng, phase, ranges)
    sample = PhaseObject(
        maps=torch.from_numpy(np.stack([-absorbance / 2, phase])).double(),
        illumination=draw_illumination(rng, model, ranges),
    )
    photons = _log_uniform(rng, ranges.photons)
    noisy = rng.poisson(model.apply(sample).numpy().clip(min=0) * photons) / photons
    truth = phase[model.frame]
    return DefocusPair(
        planes=noisy.astype(np.float32),
        phase=(truth - truth.mean()).astype(np.float32),
        microscope=microscope,
        defocus_um=defocus_um,
        photons=photons,
        condenser_na=condenser_na,
    )


def draw_illumination(
    rng: np.random.Generator, model: PhaseForwardModel, ranges: PhaseRanges
) -> Tensor:
    """Coefficients of the illumination of each plane, (P, K).

    Half of the fields have ramps, and bowls a fiftieth as high.
    """
    coefficients = torch.zeros(model.planes, len(model.terms), dtype=torch.float64)
    if rng.uniform() < 0.5:
        heights = _log_uniform(rng, ranges.ramp) * np.array([0.0, 1, 1, 0.02, 0.02, 0.02])
        coefficients += torch.from_numpy(rng.normal(size=coefficients.shape) * heights)
    return coefficients
