"""Two defocused brightfield planes to quantitative phase."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from napari_cvdm.intensity import noise_sigma
from napari_cvdm.microscope import Microscope
from napari_cvdm.request import Align, RestoreRequest
from napari_cvdm.tasks.anchor import Anchor, light_anchor
from napari_cvdm.tasks.conditioned import Background, Conditioned, FrameReader
from napari_cvdm.tasks.phase_blocks import PhaseBlocks, survey_phase
from napari_cvdm.tasks.phase_channels import (
    FieldNumbers,
    network_channels,
    over_background,
    phase_optics,
    usable_pixels,
    without_noise,
)
from napari_cvdm.tasks.plane_checks import CheckedPlanes, check_planes, seen_as_they_are, unchecked
from napari_cvdm.tasks.sampled import SampledPlane
from napari_cvdm.tasks.surroundings import crossing_share


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RisingPlanes:
    """Two planes over their background, the lower one first.

    Parameters
    ----------
    ratio : ndarray of shape (2, Y, X), float64
        Over background.
    frame : ndarray of shape (2, Y, X)
        The same as the camera gave them.
    levels : list of float
        Blank-field intensity of each.
    sigma : float
        Standard deviation of the noise of their difference, over background.
    defocus_um : tuple of float
        Rising.
    """

    ratio: np.ndarray = field(repr=False)
    frame: np.ndarray = field(repr=False)
    levels: list[float]
    sigma: float
    defocus_um: tuple[float, float]

    @classmethod
    def of(cls, frame: np.ndarray, defocus_um: tuple[float, float], background: Background) -> "RisingPlanes":
        """From planes in any order; errors as of `over_background`."""
        ratio, levels = over_background(frame, background)
        sigma = float(np.hypot(noise_sigma(ratio[0]), noise_sigma(ratio[1])))
        if defocus_um[0] > defocus_um[1]:
            ratio, frame, levels, defocus_um = ratio[::-1], frame[::-1], levels[::-1], (defocus_um[1], defocus_um[0])
        return cls(ratio=ratio, frame=frame, levels=levels, sigma=sigma, defocus_um=defocus_um)

    def levels_as_given(self, defocus_um: tuple[float, float]) -> list[float]:
        """`levels` in the order of these positions."""
        return self.levels if defocus_um[0] < defocus_um[1] else self.levels[::-1]

    def aligned(self, microscope: Microscope) -> CheckedPlanes:
        """What differs between them besides the focus is found, and taken back where it is significant."""
        return check_planes(self.ratio, self.frame, self.levels, self.sigma, self.defocus_um, microscope)


@dataclass(frozen=True, slots=True)
class PhaseTwoShot:
    """Two defocused brightfield planes to phase in radians, absolute scale, zero mean over the field."""

    name: str = "phase-2shot"
    title: str = "Phase from two defocused brightfield planes"
    inputs: str = "two brightfield planes at different focus (one may be in focus)"
    planes: int = 2
    upsampling: int = 1
    channels: tuple[str, ...] = (
        "contrast below",
        "contrast above",
        "US-TIE over strength",
        "US-TIE over noise",
        "US-TIE beyond 353 px",
        "US-TIE beyond 112 px",
        "US-TIE beyond 35 px",
        "defocus below",
        "defocus above",
        "noise",
        "strength",
        "noise over strength",
    )
    unit: str = "rad"
    surroundings_px: int = 512
    needed_optics: tuple[str, ...] = ("pixel_um", "wavelength_um", "medium_index", "defocus_um")

    def condition(
        self, frame: np.ndarray, microscope: Microscope, defocus_um: tuple[float, float], background: Background, align: Align = "off"
    ) -> Conditioned:
        """Contrast, US-TIE and its long periods, and the numbers that hold for the whole field.

        The channels are the contrast I / I_background - 1 of both planes; US-TIE with every frequency that stands above the
        expected noise (the baseline), from its median, once over its strength and once over its noise, so that a thick cell
        and an undulation of the empty field are both seen; what of it is lost at each of three regularisations (where noise
        and light that drifts end up); and the field's numbers. Large values are compressed by asinh. The network's unit
        comes from physics (US-TIE in radians and the photon noise), so the radians are absolute.

        Parameters
        ----------
        frame : ndarray of shape (2, Y, X)
        microscope : Microscope
        defocus_um : tuple of float
            Signed positions; the planes are put in rising order.
        background : {"auto", "none"} or ndarray
        align : {"off", "auto"}
            ``auto`` looks for differences of the planes besides the focus and takes back what is significant.

        Returns
        -------
        Conditioned
            Twelve channels, in the order of `channels`.
        """
        rising = RisingPlanes.of(frame, defocus_um, background)
        return self._of_rising(rising, microscope, align, {"background": rising.levels_as_given(defocus_um)})

    def _of_rising(self, rising: RisingPlanes, microscope: Microscope, align: Align, estimated: dict[str, Any]) -> Conditioned:
        checked = rising.aligned(microscope) if align == "auto" else unchecked(rising.ratio, rising.defocus_um, microscope)
        valid = usable_pixels(rising.frame, checked.planes, checked.margin_px)
        return _conditioned(checked, valid, rising.sigma, rising.defocus_um, microscope, estimated)

    def without(self, pixels: np.ndarray, background: np.ndarray) -> np.ndarray:
        """Pixels over the same part of the blank-field image."""
        return pixels / background

    def survey(self, planes: Sequence[SampledPlane], request: RestoreRequest, reader: FrameReader) -> PhaseBlocks:
        """What must be global: background, noise, the coarse image's US-TIE and the strength of the phase."""
        microscope, defocus_um = phase_optics(request)
        return survey_phase(planes, microscope, defocus_um, request.background, reader, self.surroundings_px)

    def blocks(self, numbers: Mapping[str, np.ndarray]) -> PhaseBlocks:
        """A survey that was kept in a file."""
        return PhaseBlocks.of_numbers(numbers)

    def from_request(self, frame: np.ndarray, request: RestoreRequest) -> Conditioned:
        """Prepare one frame with the optics of a request; OpticsError where one is missing."""
        microscope, defocus_um = phase_optics(request)
        rising = RisingPlanes.of(frame, defocus_um, request.background)
        prepared = self._of_rising(rising, microscope, request.align, {"background": rising.levels_as_given(defocus_um)})
        return prepared if request.align == "auto" else _looked_at(prepared, rising)


def _looked_at(prepared: Conditioned, rising: RisingPlanes) -> Conditioned:
    """The same frame, with what its planes tell as they are; training has no use for it, so `condition` does not look."""
    if not isinstance(prepared.anchor, Anchor):
        return prepared
    checks = seen_as_they_are(rising.frame, rising.ratio, rising.levels, prepared.anchor.phase.numpy())
    return replace(prepared, estimated={**prepared.estimated, "planes": checks.as_mapping()})


def _conditioned(
    checked: CheckedPlanes, valid: np.ndarray, sigma: float, defocus_um: tuple[float, float], microscope: Microscope, estimated: dict[str, Any]
) -> Conditioned:
    """The frame for the networks, from planes in rising order and the noise of their difference."""
    derivative_sigma = sigma / (defocus_um[1] - defocus_um[0])
    baseline, wiener, noise_rad = without_noise(checked.phase, derivative_sigma, microscope)
    numbers = FieldNumbers.of(defocus_um, microscope, sigma, float(baseline.square().mean().sqrt()), noise_rad)
    crossing = crossing_share(checked.planes[1] - checked.planes[0], sigma)
    anchor = light_anchor(baseline, wiener, derivative_sigma, defocus_um, microscope, crossing)
    estimated |= {"noise_sigma": sigma, "strength_rad": numbers.strength_rad, "noise_rad": numbers.noise_rad}
    estimated["crossing_share"] = crossing
    estimated["levelled_by_medium_share"] = anchor.levelling.share if anchor.levelling else 0.0
    estimated |= {} if checked.checks is None else {"planes": checked.checks.as_mapping()}
    return Conditioned(
        channels=network_channels(torch.from_numpy(np.ascontiguousarray(checked.planes)), baseline, microscope, numbers).float(),
        baseline=(baseline / numbers.gain_rad).float(),
        gain=numbers.gain_rad,
        valid=valid,
        estimated=estimated,
        anchor=anchor,
    )
