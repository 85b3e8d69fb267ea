"""Fields with a known truth, for either task, which the battery changes and compares."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from napari_cvdm.core.microscope import Camera, Microscope
from napari_cvdm.physics.camera import expose
from napari_cvdm.simulate.phase_objects import cells
from napari_cvdm.simulate.ranges import WidefieldRanges
from napari_cvdm.simulate.scenes import (
    LARGEST_SLOPE,
    DrawStructure,
    WidefieldPair,
    defocus_pair_of,
    simulate_widefield,
    steepest,
)
from napari_cvdm.simulate.structures import Draw, reticulum, splat

WIDEFIELD_SEED, PHASE_SEED = (
    6,
    6,
)  # of fields that end inside the frame: empty background beside structure
SEED = 7  # of noise alone
FALSE_STRUCTURE_SIGMAS = 1.5  # of the input's noise over empty background, as in paper/blank.py
FALSE_STRUCTURE_RAD = 0.1  # twice what real medium varies by
READ_NOISE_E, GAIN_E_PER_COUNT, OFFSET_COUNTS = 1.5, 0.5, 100.0
WIDEFIELD = WidefieldRanges(
    correlated=0.0,
    na=(1.3, 1.3),
    wavelength_um=(0.52, 0.52),
    pixel_um=(0.0626, 0.0626),
    medium_index=(1.518, 1.518),
    photons=(250.0, 250.0),
    background=(0.05, 0.05),
    haze=(0.0, 0.0),
    defocus=(0.0, 0.0),
    blur_periods=(0.0, 0.0),
    read_noise_e=(READ_NOISE_E, READ_NOISE_E),
    gain_e_per_count=(GAIN_E_PER_COUNT, GAIN_E_PER_COUNT),
    offset_counts=(OFFSET_COUNTS, OFFSET_COUNTS),
    frames=(1, 1),
)
MARGIN_PX = 24  # what light comes in from beyond the frame of a phase field
SMOOTHING_PX = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A measured image, what is true of it, and what the program is told.

    Parameters
    ----------
    array : ndarray of shape (Y, X) or (2, Y, X)
        Camera counts: one widefield image, or two defocused planes.
    truth : ndarray of shape (uY, uX)
        Of the structure in focus [counts of a camera pixel], or phase [rad].
    told : mapping
        Optics by the names of `ReconstructionRequest`, whether true or not.
    threshold : float
        What stands more than this above empty surroundings counts as structure, in the unit of
        `truth`.
    """

    array: np.ndarray = field(repr=False)
    truth: np.ndarray = field(repr=False)
    told: Mapping[str, Any]
    threshold: float

    def spoiled(self, array: np.ndarray) -> "Scene":
        """The same truth behind another image."""
        return replace(self, array=array)

    def told_otherwise(self, **optics: Any) -> "Scene":
        """The same image with other optics in the request."""
        return replace(self, told={**self.told, **optics})


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseOptics:
    """How a phase field is measured.

    Parameters
    ----------
    microscope : Microscope
    defocus_um : tuple of float
        True positions of both planes.
    photons : float
        Of a blank pixel, one count each.
    strength_rad : float
        Peak-to-peak phase; less where a camera could not follow the slopes.
    """

    microscope: Microscope = field(
        default_factory=lambda: Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.337)
    )
    defocus_um: tuple[float, float] = (-2.5, 2.5)
    photons: float = 2e4
    strength_rad: float = 2.5


PHASE = PhaseOptics()
DrawMap = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
"""(rng, shape) -> any map of that shape, to be scaled to radians."""


def emitters_of(structure: Draw) -> DrawStructure:
    """Emitters of one kind of structure on the fine grid."""

    def draw(rng: np.random.Generator, side: int, fine_um: float) -> torch.Tensor:
        return splat(structure(rng, (side * fine_um,) * 2), (side, side), fine_um)

    return draw


def background_noise(ranges: WidefieldRanges) -> float:
    """Standard deviation [counts] of the camera's noise over cell-free background.

    sqrt(N + sigma_read^2) / gain.
    """
    photons = ranges.photons[0] * ranges.background[0]
    return float(np.sqrt(photons + ranges.read_noise_e[0] ** 2) / ranges.gain_e_per_count[0])


def widefield_pair(
    side: int,
    ranges: WidefieldRanges = WIDEFIELD,
    draw: DrawStructure | None = None,
    seed: int = WIDEFIELD_SEED,
) -> WidefieldPair:
    """Counts of shape (side, side) and their truth; the ranges do not change the structure."""
    return simulate_widefield(seed, replace(ranges, field_px=side), draw or emitters_of(reticulum))


def widefield_scene(
    side: int,
    ranges: WidefieldRanges = WIDEFIELD,
    draw: DrawStructure | None = None,
    seed: int = WIDEFIELD_SEED,
) -> Scene:
    """A widefield image, told the optics of `WIDEFIELD` whatever the true ones are."""
    pair = widefield_pair(side, ranges, draw, seed)
    told = {
        name: getattr(WIDEFIELD, name)[0]
        for name in ("pixel_um", "wavelength_um", "medium_index", "na")
    }
    return Scene(
        array=pair.counts,
        truth=pair.truth,
        told=told,
        threshold=FALSE_STRUCTURE_SIGMAS * background_noise(ranges),
    )


def phase_map(side: int, strength_rad: float, draw: DrawMap = cells) -> np.ndarray:
    """Phase [rad] of a field with a margin all around: (side + 2 margin)^2."""
    shape = (side + 2 * MARGIN_PX,) * 2
    image = gaussian_filter(
        draw(np.random.default_rng(PHASE_SEED), shape).astype(float), SMOOTHING_PX
    )
    image = image / max(float(np.ptp(image)), 1e-12)
    return image * min(strength_rad, LARGEST_SLOPE / max(steepest(image), 1e-12))


def phase_scene(side: int, optics: PhaseOptics = PHASE, draw: DrawMap = cells) -> Scene:
    """Two planes, told the truth about the optics."""
    phase = phase_map(side, optics.strength_rad, draw)
    inner = slice(MARGIN_PX, MARGIN_PX + side)
    planes = defocus_pair_of(phase, np.zeros_like(phase), optics.microscope, optics.defocus_um)[
        :, inner, inner
    ]
    counts = (
        np.random.default_rng(PHASE_SEED)
        .poisson(planes.clip(min=0) * optics.photons)
        .astype(np.float32)
    )
    truth = phase[inner, inner]
    return Scene(
        array=counts,
        truth=truth - truth.mean(),
        told=told_of(optics),
        threshold=FALSE_STRUCTURE_RAD,
    )


def told_of(optics: PhaseOptics) -> dict[str, Any]:
    """The optics as a request names them."""
    microscope = optics.microscope
    named = {
        name: getattr(microscope, name)
        for name in ("pixel_um", "wavelength_um", "medium_index", "na")
    }
    return {**named, "defocus_um": optics.defocus_um}


def flat_counts(side: int, photons: float, seed: int = SEED) -> np.ndarray:
    """An empty field through a camera, uint16 (side, side)."""
    camera = Camera(
        read_noise_e=READ_NOISE_E, gain_e_per_count=GAIN_E_PER_COUNT, offset_counts=OFFSET_COUNTS
    )
    light = torch.full((side, side), photons, dtype=torch.float64)
    return expose(light, camera, torch.Generator().manual_seed(seed)).numpy().astype(np.uint16)
