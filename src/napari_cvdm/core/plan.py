"""What a run computes: a request with every open value filled in, and its planes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np

from napari_cvdm.core.microscope import Microscope, OpticsError
from napari_cvdm.core.request import OPTICS, ImageStack, MeasuredPsf, Sampler

STEP_TOLERANCE = 0.05  # of the z step that a file states


class StatedOptics(Protocol):
    """The optics of an image as far as they are known: a plan, or a request before it runs."""

    @property
    def image(self) -> ImageStack:
        """The image."""

    @property
    def pixel_um(self) -> float | None:
        """Pixel size in the sample [um]."""

    @property
    def wavelength_um(self) -> float | None:
        """Vacuum wavelength [um]."""

    @property
    def medium_index(self) -> float | None:
        """Refractive index."""

    @property
    def na(self) -> float | None:
        """Numerical aperture of detection."""

    @property
    def defocus_um(self) -> tuple[float, ...] | None:
        """Positions of the planes [um]."""

    @property
    def psf(self) -> MeasuredPsf | None:
        """Measured PSF."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """A resolved request; `napari_cvdm.reconstruction.plan.resolve` makes it.

    Nothing below reads the request again. What is not listed is as in `ReconstructionRequest`.

    Parameters
    ----------
    pixel_um : float
        Pixel size in the sample [um].
    wavelength_um, medium_index, na : float, optional
        None where neither the request nor the image states it, and the task does without.
    defocus_um : tuple of float, optional
        Signed positions of the planes [um]; None for fluorescence.
    condenser_na : float
        Of the illumination; 0 is coherent.
    register : bool
        Whether to look for a shift between the planes.
    device : str
        A device that this machine has, such as ``cuda:0``.
    settings : mapping
        Every setting by the name of the request, for the provenance.
    """

    image: ImageStack
    pixel_um: float
    wavelength_um: float | None
    medium_index: float | None
    na: float | None
    defocus_um: tuple[float, ...] | None
    condenser_na: float
    background: Literal["auto", "none"] | np.ndarray = field(repr=False)
    psf: MeasuredPsf | None
    register: bool
    region: tuple[int, int, int, int] | None
    samples: int
    steps: int
    seed: int
    sampler: Sampler
    device: str
    precision: Literal["fp32", "bf16"]
    tile: int
    schedule_points: int
    keep_samples: bool
    settings: Mapping[str, Any]

    @property
    def microscope(self) -> Microscope:
        """Optics of the planes of a phase; OpticsError where wavelength or index is not known."""
        if self.wavelength_um is None or self.medium_index is None:
            raise OpticsError("wavelength_um and medium_index are needed.")
        return Microscope(
            pixel_um=self.pixel_um,
            wavelength_um=self.wavelength_um,
            medium_index=self.medium_index,
            na=self.na,
        )

    @property
    def positions_um(self) -> tuple[float, ...]:
        """Positions of the planes [um]; OpticsError where there are none."""
        if self.defocus_um is None:
            raise OpticsError("defocus_um is needed.")
        return self.defocus_um

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the input that were asked for."""
        height, width = self.image.array.shape[-2:]
        top, bottom, left, right = self.region or (0, height, 0, width)
        return slice(top, bottom), slice(left, right)


def count_planes(fewest: int, defocus_um: Sequence[float] | None) -> int:
    """Planes of one frame: as many as there are positions, if the task takes two or more.

    `fewest` is the smallest number of planes that the task takes.
    """
    return fewest if fewest == 1 else max(fewest, len(defocus_um or ()))


TYPED = "typed"


def optics_origins(optics: StatedOptics) -> dict[str, str]:
    """Where each known value of optics comes from: a place in the file, or `TYPED`."""
    origins, image = {}, optics.image
    for name in OPTICS:
        value = getattr(optics, name)
        if value is not None:
            stated = value == image.states(name)
            origins[name] = (image.origin(name) or image.source) if stated else TYPED
    return origins


def file_warnings(optics: StatedOptics) -> tuple[str, ...]:
    """What the reader noticed, and values that differ from those of the file by more than 5 %."""
    image = optics.image
    sentences = list(image.warnings)
    for name in OPTICS:
        used, stated = getattr(optics, name), image.states(name)
        if used is None:
            continue
        # The origin then says why the pixel size of the file was not taken.
        if stated is None and name == "pixel_um" and image.origin(name):
            sentences.append(f"{image.origin(name)}; {name} is {used:g}, as was typed.")
        elif stated is not None and abs(used - stated) > STEP_TOLERANCE * stated:
            where = image.origin(name) or image.source
            sentences.append(
                f"{name} is {used:g}, as was typed, but {where} states {stated:g}. The typed value "
                "was used; correct it if the file is right."
            )
    return tuple(sentences)


def one_sided_warning(optics: StatedOptics) -> tuple[str, ...]:
    """Warn if all planes lie on one side of focus."""
    positions = optics.defocus_um
    # The phase transfer 2 sin(chi) is odd in z, that of absorption, 2 cos(chi), even.
    if positions is None or min(positions) <= 0 <= max(positions):
        return ()
    return (
        f"all planes lie on one side of focus: defocus_um is {_listed(positions)}. Phase and "
        "absorption cannot be told apart well there. Take planes on both sides of focus, or one "
        "in focus.",
    )


def z_step_warning(optics: StatedOptics) -> tuple[str, ...]:
    """Warn if a z step of the file differs from a step of ``defocus_um`` by more than 5 %."""
    image, positions = optics.image, optics.defocus_um
    stated = image.place.get("z_step_um")
    if not stated or positions is None or image.taken_for_planes != "Z":
        return ()
    # Only positions of single planes tell in which direction Z runs.
    told = bool(image.place.get("z_directed"))
    steps = [
        second - first if told else abs(second - first) for first, second in pairwise(positions)
    ]
    stated = stated if told else abs(stated)
    worst = max(steps, key=lambda step: abs(step - stated))
    if abs(worst - stated) <= STEP_TOLERANCE * abs(stated):
        return ()
    return (
        f"{image.source} states a z step of {stated:g} um, but defocus_um ({_listed(positions)}) "
        f"has a step of {worst:g} um. defocus_um was used; correct it if the file is right.",
    )


def _listed(positions: Sequence[float]) -> str:
    return " ".join(f"{position:g}" for position in positions)
