"""Parts of a phase field that is never whole in memory, prepared so that they fit together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from napari_cvdm.microscope import Microscope
from napari_cvdm.physics.tie import us_tie_of
from napari_cvdm.request import RequestError
from napari_cvdm.tasks.conditioned import BORDER_PX, Background, Conditioned, FrameReader, fitting, interior, saturated
from napari_cvdm.tasks.phase_channels import (
    DARK_FRACTION,
    FieldNumbers,
    check_divided,
    equalised_levels,
    network_channels,
)
from napari_cvdm.tasks.sampled import SampledPlane
from napari_cvdm.tasks.tie_scales import TwoScales, coarse_solution, coarse_step, window_profile

SURVEYED_WINDOWS = 16
DEVIATIONS_IN_SURROUNDINGS = 8  # of the Gaussian that parts the scales: so far from its edge a window is sure
_MICROSCOPE = ("pixel_um", "wavelength_um", "medium_index")


@dataclass(frozen=True, kw_only=True, eq=False)
class PhaseBlocks:
    """Prepares parts of one phase field with what must be global known.

    Parameters
    ----------
    levels : ndarray of shape (2,)
        Blank-field intensity of each plane, in the order of the file; 1 where an image of it is given.
    falling : bool
        Whether the planes come in falling order of position.
    scales : TwoScales
    numbers_of_field : FieldNumbers
    level : float
        Median of US-TIE over the field [rad].
    """

    levels: np.ndarray = field(repr=False)
    falling: bool
    scales: TwoScales = field(repr=False)
    numbers_of_field: FieldNumbers
    level: float

    def over_background(self, frame: np.ndarray, background: Background) -> np.ndarray:
        """Planes (2, Y, X) over their blank-field intensity, in rising order of position: float64."""
        return rising_ratio(frame, background, self.levels, self.falling)

    def prepare(self, frame: np.ndarray, background: Background, first: tuple[int, int]) -> Conditioned:
        """A part of shape (2, Y, X) whose first pixel is `first`."""
        ratio = self.over_background(frame, background)
        planes, numbers, microscope = torch.from_numpy(ratio), self.numbers_of_field, self.scales.microscope
        baseline = self.scales.phase(us_tie_of(planes, self.scales.defocus_um, microscope), first)
        valid = interior(frame.shape[1:], BORDER_PX) & ~saturated(frame) & (ratio.mean(axis=0) > DARK_FRACTION)
        return Conditioned(
            channels=network_channels(planes, baseline, microscope, numbers, self.level).float(),
            baseline=(baseline / numbers.gain_rad).float(),
            gain=numbers.gain_rad,
            valid=valid,
            estimated={},
            anchor=self.scales.anchor(baseline),
            origin=first,
            anchor_origin=first,
        )

    def numbers(self) -> dict[str, np.ndarray]:
        """All of it, for a file."""
        scales, numbers, microscope = self.scales, self.numbers_of_field, self.scales.microscope
        return {
            "levels": self.levels,
            "falling": np.asarray(self.falling),
            "level": np.asarray(self.level),
            "microscope": np.array([getattr(microscope, name) for name in _MICROSCOPE]),
            "defocus_um": np.array(scales.defocus_um),
            "scales": np.array([scales.derivative_sigma, scales.step, scales.deviation_px, scales.coarse_noise_rad]),
            "coarse": scales.coarse.numpy(),
            "profile": scales.profile.numpy(),
            "field": np.array([*numbers.fresnel, numbers.contrast_noise, numbers.strength_rad, numbers.noise_rad]),
        }

    @classmethod
    def of_numbers(cls, kept: Mapping[str, np.ndarray]) -> "PhaseBlocks":
        """The inverse of `numbers`."""
        sigma, step, deviation, coarse_noise_rad = kept["scales"].tolist()
        below, above, contrast, strength, noise = kept["field"].tolist()
        scales = TwoScales(
            microscope=Microscope(**dict(zip(_MICROSCOPE, kept["microscope"].tolist(), strict=True))),
            defocus_um=(float(kept["defocus_um"][0]), float(kept["defocus_um"][1])),
            derivative_sigma=sigma,
            step=int(step),
            coarse=torch.from_numpy(kept["coarse"]),
            coarse_noise_rad=coarse_noise_rad,
            deviation_px=deviation,
            profile=torch.from_numpy(kept["profile"]),
        )
        numbers = FieldNumbers(fresnel=(below, above), contrast_noise=contrast, strength_rad=strength, noise_rad=noise)
        return cls(levels=kept["levels"], falling=bool(kept["falling"]), scales=scales, numbers_of_field=numbers, level=float(kept["level"]))


def rising_ratio(frame: np.ndarray, background: Background, levels: np.ndarray, falling: bool) -> np.ndarray:
    """Planes (2, Y, X) over a blank-field image or two levels, in rising order of position."""
    over = levels[:, None, None] if isinstance(background, str) else np.broadcast_to(background, frame.shape)
    ratio = frame.astype(np.float64) / over
    return np.ascontiguousarray(ratio[::-1] if falling else ratio)


def blank_levels(planes: Sequence[SampledPlane], background: Background, shape: tuple[int, int]) -> np.ndarray:
    """Blank-field intensity of both planes from their samples, as `over_background` has it of whole planes: (2,).

    Raises
    ------
    RequestError
        A background that is not positive or of another shape, or planes that ``none`` cannot be true of.
    """
    pooled = np.concatenate([plane.pixels.ravel() for plane in planes])
    levels = np.ones(2)
    if not isinstance(background, str):
        positive = bool((fitting(background, np.broadcast_to(np.float32(0), (2, *shape))) > 0).all())
    elif background == "none":
        check_divided(pooled)
        positive = True
    else:
        levels = equalised_levels(float(np.median(pooled)), np.array([plane.mean for plane in planes]))
        positive = bool((levels > 0).all())
    if not positive:
        raise RequestError(
            "the background intensity is not positive everywhere; give a blank-field image with --background FILE, or none for planes already divided by it."
        )
    return levels


def survey_phase(
    planes: Sequence[SampledPlane],
    microscope: Microscope,
    defocus_um: tuple[float, float],
    background: Background,
    reader: FrameReader,
    surroundings_px: int,
) -> PhaseBlocks:
    """What must be global of one field.

    Parameters
    ----------
    planes : sequence of SampledPlane
        Over the blank-field image, where there is one.
    microscope : Microscope
    defocus_um : tuple of float
        Of the planes, in the order of the file [um].
    background : {"auto", "none"} or ndarray
    reader : FrameReader
    surroundings_px : int
        Around the part of a window that is written.

    Returns
    -------
    PhaseBlocks
    """
    levels, falling = blank_levels(planes, background, reader.shape), defocus_um[0] > defocus_um[1]
    rising = (min(defocus_um), max(defocus_um))
    sigma = float(np.hypot(*(plane.noise_sigma() / level for plane, level in zip(planes, levels, strict=True))))
    step, derivative_sigma = coarse_step(reader.shape), sigma / (rising[1] - rising[0])

    def ratio(frame: np.ndarray, part: Background) -> torch.Tensor:
        return torch.from_numpy(rising_ratio(frame, part, levels, falling))

    solved = [(us_tie_of(ratio(frame, part), rising, microscope), first, core) for frame, part, first, core in reader.windows(SURVEYED_WINDOWS)]
    deviation_px = surroundings_px / DEVIATIONS_IN_SURROUNDINGS
    coarse, coarse_noise_rad = coarse_solution((ratio(*band) for band in reader.bands(step)), step, rising, microscope, derivative_sigma, deviation_px)
    profile = window_profile([phase for phase, _, _ in solved])
    scales = TwoScales(
        microscope=microscope,
        defocus_um=rising,
        derivative_sigma=derivative_sigma,
        step=step,
        coarse=coarse,
        coarse_noise_rad=coarse_noise_rad,
        deviation_px=deviation_px,
        profile=profile,
    )
    phases = np.concatenate([scales.phase(phase, first)[core].numpy().ravel() for phase, first, core in solved])
    window = (solved[0][0].shape[-2], solved[0][0].shape[-1])
    numbers = FieldNumbers.of(rising, microscope, sigma, scales.strength_rad(solved), scales.noise_rad(window))
    return PhaseBlocks(levels=levels, falling=falling, scales=scales, numbers_of_field=numbers, level=float(np.median(phases)))
