"""Ranges that simulated fields are drawn from, and those of a microscope that a user describes."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from napari_cvdm.core.microscope import check_condenser, check_optics
from napari_cvdm.core.request import RequestError
from napari_cvdm.simulate.structures import (
    STRUCTURE_NAMES,
    STRUCTURES,
    draw_specimen,
    draw_texture,
    structure_kinds,
)

Range = tuple[float, float]
OPTICS = ("pixel_um", "wavelength_um", "medium_index", "na")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRanges:
    """Ranges (low, high) that one simulated defocus pair is drawn from.

    Parameters
    ----------
    wavelength_um, pixel_um, medium_index, na : tuple of float
        Optics; NA limits the pupil in a share of the fields only.
    fresnel : tuple of float
        lambda dz / (n px^2) of the distance dz between the planes; dz follows from it. Log-uniform.
    strength_rad : tuple of float
        Peak-to-peak phase, see `draw_phase`.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class WidefieldRanges:
    """Ranges (low, high) that one simulated widefield image is drawn from.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoisingRanges(WidefieldRanges):
    """`WidefieldRanges` of oil objectives with little light.

    The offset of the cameras keeps the read noise above zero. There a mean is not biased.
    """

    task: ClassVar[str] = "denoise"
    na: Range = (1.1, 1.49)
    cutoff_px: Range = (2.2, 4.0)
    photons: Range = (3.0, 300.0)
    offset_counts: Range = (100.0, 400.0)
    frames: tuple[int, int] = (1, 1)
    stretched: float = 0.0  # noise is the camera's, in its counts; so is `correlated`
    correlated: float = 0.0


Ranges = PhaseRanges | WidefieldRanges
RANGES: dict[str, type[Ranges]] = {
    kind.task: kind for kind in (PhaseRanges, WidefieldRanges, DenoisingRanges)
}


def ranges_for(
    task: str, known: Mapping[str, float | None], *, defocus_um: tuple[float, ...] | None = None
) -> Ranges:
    """Ranges around one microscope: what is known is fixed, and the rest stays free.

    Parameters
    ----------
    task : str
        A name of `RANGES`.
    known : mapping of str to float or None
        Values by the names of the ranges: pixel_um, wavelength_um, medium_index, na, condenser_na,
        photons, ... None for what is not known. ``strength_rad`` is the largest strength, and
        weaker objects are drawn, too.
    defocus_um : tuple of float, optional
        Positions of two or more planes [um], in any order. With pixel, wavelength and index, the
        distance of the outermost two fixes lambda dz / (n px^2).

    Raises
    ------
    RequestError, OpticsError
        Values that no microscope has; a defocus without the optics that it needs.
    """
    check_optics(**{name: known.get(name) for name in OPTICS})
    if (condenser_na := known.get("condenser_na")) is not None:
        check_condenser(condenser_na, known.get("medium_index"))
    values: dict[str, object] = {
        name: (value, value) for name, value in known.items() if value is not None
    }
    if (strongest := known.get("strength_rad")) is not None:
        values["strength_rad"] = (min(PhaseRanges().strength_rad[0], strongest), strongest)
    if "gain_e_per_count" in values or "offset_counts" in values:
        # Counts of a camera that is known are as it gives them.
        values |= {"stretched": 0.0, "correlated": 0.0}
    if defocus_um is not None:
        pixel_um, wavelength_um, index = (known.get(name) for name in OPTICS[:3])
        if pixel_um is None or wavelength_um is None or index is None:
            raise RequestError(
                "defocus_um is given; pixel_um, wavelength_um and medium_index are needed with it, "
                "or leave it empty to have it drawn."
            )
        fresnel = wavelength_um * (max(defocus_um) - min(defocus_um)) / (index * pixel_um**2)
        values["fresnel"] = (fresnel, fresnel)
    return RANGES[task](**values)  # type: ignore[arg-type]  # names and types are those of the ranges
