"""Two defocused brightfield planes to quantitative phase."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.ndimage import maximum_filter
from torch import Tensor

from napari_cvdm.intensity import noise_sigma
from napari_cvdm.microscope import Microscope, defocus_pair
from napari_cvdm.physics.tie import expected_noise_power, regularised, wiener_gain
from napari_cvdm.request import Align, RequestError, RestoreRequest
from napari_cvdm.tasks.anchor import light_anchor
from napari_cvdm.tasks.conditioned import BORDER_PX, Background, Blocks, Conditioned, fitting, interior, saturated
from napari_cvdm.tasks.plane_checks import CheckedPlanes, check_planes, unchecked
from napari_cvdm.tasks.sampled import SampledPlane

TIE_REGULARISATIONS = (1e-7, 1e-5, 1e-3)  # half amplitude at periods of 353, 112 and 35 px
SMALLEST_STRENGTH_RAD = 0.02
SMALLEST_NOISE_RAD = 1e-3
SMALLEST_CONTRAST_NOISE = 1e-5
CONTRAST_GAIN = 2.0
DEFOCUS_GAIN = 0.2
LOG_GAIN = 0.25
TYPICAL_NOISE = 0.01
DARK_FRACTION = 0.1
DIVIDED_MEDIANS = (0.2, 5.0)


def phase_optics(request: RestoreRequest) -> tuple[Microscope, tuple[float, float]]:
    """Microscope and positions of both planes [um] of a request; OpticsError or RequestError where one is missing."""
    values = {name: request.optics_value(name) for name in ("pixel_um", "wavelength_um", "medium_index")}
    if request.defocus_um is None:
        raise RequestError("defocus_um is not known; the positions of both planes are needed. Give them with --defocus-um, for example --defocus-um -1 1.")
    return Microscope(**values, na=request.na), defocus_pair(request.defocus_um)


def fresnel_parameter(defocus_um: float, microscope: Microscope) -> float:
    """lambda z / (n px^2), the one number that a defocused image of a given pixel pattern depends on (signed)."""
    return microscope.wavelength_um * defocus_um / (microscope.medium_index * microscope.pixel_um**2)


def over_background(frame: np.ndarray, background: Background) -> tuple[np.ndarray, list[float]]:
    """Brightfield planes over their blank-field intensity.

    Parameters
    ----------
    frame : ndarray of shape (2, Y, X)
    background : {"auto", "none"} or ndarray of shape (Y, X) or (2, Y, X)
        ``auto`` takes the median of both planes, and makes their means equal: defocus moves light about but loses none, so
        a lamp that flickers between the planes is told from a phase.

    Returns
    -------
    ratio : ndarray of shape (2, Y, X), float64
    level : list of float
        Blank-field intensity of each plane (its median, where an image was given).

    Raises
    ------
    RequestError
        A background that is not positive or of another shape, or planes that ``none`` cannot be true of.
    """
    planes = frame.astype(np.float64)
    if isinstance(background, str) and background == "none":
        _check_divided(planes)
    if isinstance(background, str):
        levels = _estimated_levels(planes) if background == "auto" else np.ones((2, 1, 1))
    else:
        levels = np.broadcast_to(fitting(background, planes), planes.shape)
    if not (np.isfinite(levels) & (levels > 0)).all():
        raise RequestError(
            "the background intensity is not positive everywhere; give a blank-field image with --background FILE, or none for planes already divided by it."
        )
    return planes / levels, [float(np.median(level)) for level in levels]


def usable_pixels(frame: np.ndarray, ratio: np.ndarray, margin_px: int = 0) -> np.ndarray:
    """Where both planes of the camera say something.

    Parameters
    ----------
    frame, ratio : ndarray of shape (2, Y, X)
        Planes as measured, and over background, registered.
    margin_px : int
        How far a plane was moved.

    Returns
    -------
    ndarray of shape (Y, X), bool
        False in the border band and where a plane is saturated or dark.
    """
    clipped = saturated(frame)
    if margin_px:  # what was saturated has moved
        clipped = maximum_filter(clipped, 2 * margin_px + 1)
    inside = interior((frame.shape[1], frame.shape[2]), BORDER_PX + margin_px)
    return np.asarray(inside & ~clipped & (ratio.mean(axis=0) > DARK_FRACTION))


def _check_divided(planes: np.ndarray) -> None:
    middle = float(np.median(planes))
    if not DIVIDED_MEDIANS[0] < middle < DIVIDED_MEDIANS[1]:
        raise RequestError(
            f"background none says that the planes are divided by the blank field, "
            f"but their median is {middle:.4g}, not about 1; use auto, or give a blank-field image."
        )


def _estimated_levels(planes: np.ndarray) -> np.ndarray:
    means = planes.mean(axis=(1, 2), keepdims=True)
    return np.median(planes) * means / means.mean() if means.mean() else means


def without_noise(phase: Tensor, derivative_sigma: float, microscope: Microscope) -> tuple[Tensor, float]:
    """US-TIE without what noise explains, and the noise that is left.

    Parameters
    ----------
    phase : Tensor of shape (Y, X)
        US-TIE [rad] with almost no regularisation.
    derivative_sigma : float
        Standard deviation of the noise of dI/dz [1/um], intensity over background.
    microscope : Microscope

    Returns
    -------
    phase : Tensor of shape (Y, X) [rad]
    noise_rad : float
        Expected root mean square of the noise in it.
    """
    gain = wiener_gain(phase, derivative_sigma, microscope)
    left = gain.square() * expected_noise_power((phase.shape[-2], phase.shape[-1]), derivative_sigma, microscope, phase)
    return torch.fft.ifft2(torch.fft.fft2(phase) * gain).real, float(left.mean().sqrt()) / phase.numel() ** 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldNumbers:
    """What holds for a whole field: signed Fresnel parameters of both planes, and levels in radians or contrast.

    Parameters
    ----------
    fresnel : tuple of float
        lambda z / (n px^2) of each plane.
    contrast_noise : float
        Noise of the planes' difference, over background.
    strength_rad : float
        Root mean square of the US-TIE phase.
    noise_rad : float
        Expected noise in it.
    """

    fresnel: tuple[float, float]
    contrast_noise: float
    strength_rad: float
    noise_rad: float

    @property
    def gain_rad(self) -> float:
        """Radians for one network unit, sqrt(strength * noise): both a wrong shape and a little noise are of order one."""
        return float(np.sqrt(self.strength_rad * self.noise_rad))

    def channels(self) -> Tensor:
        """The numbers on compressed scales, shape (5, 1, 1)."""
        levels = (self.contrast_noise / TYPICAL_NOISE, self.strength_rad, self.noise_rad / self.strength_rad)
        values = [*(DEFOCUS_GAIN * np.arcsinh(z) for z in self.fresnel), *(LOG_GAIN * np.log(level) for level in levels)]
        return torch.tensor(values)[:, None, None]


def _channels(planes: Tensor, baseline: Tensor, microscope: Microscope, numbers: FieldNumbers) -> Tensor:
    contrast = torch.asinh(CONTRAST_GAIN * (planes - 1) / numbers.strength_rad)
    level = baseline - baseline.median()
    scaled = torch.stack([torch.asinh(level / numbers.strength_rad), torch.asinh(level / numbers.noise_rad) / 2])
    long_periods = torch.asinh((baseline - regularised(baseline, microscope.pixel_um, TIE_REGULARISATIONS)) / numbers.gain_rad)
    return torch.cat([contrast, scaled, long_periods, numbers.channels().expand(-1, *baseline.shape)])


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
        ratio, levels = over_background(frame, background)
        estimated = {"background": levels}
        if defocus_um[0] > defocus_um[1]:
            ratio, frame, levels, defocus_um = ratio[::-1], frame[::-1], levels[::-1], (defocus_um[1], defocus_um[0])
        sigma = float(np.hypot(noise_sigma(ratio[0]), noise_sigma(ratio[1])))
        checked = check_planes(ratio, frame, levels, sigma, defocus_um, microscope) if align == "auto" else unchecked(ratio, defocus_um, microscope)
        return _conditioned(checked, usable_pixels(frame, checked.planes, checked.margin_px), sigma, defocus_um, microscope, estimated)

    def survey(self, planes: Sequence[SampledPlane], request: RestoreRequest) -> Blocks:
        """Not yet."""
        raise RequestError("phase cannot be restored block by block yet; give a folder with --out.")

    def blocks(self, numbers: Mapping[str, np.ndarray]) -> Blocks:
        """Not yet."""
        raise RequestError("phase cannot be restored block by block yet; give a folder with --out.")

    def from_request(self, frame: np.ndarray, request: RestoreRequest) -> Conditioned:
        """Prepare one frame with the optics of a request; OpticsError where one is missing."""
        microscope, defocus_um = phase_optics(request)
        return self.condition(frame, microscope, defocus_um, request.background, request.align)


def _conditioned(
    checked: CheckedPlanes, valid: np.ndarray, sigma: float, defocus_um: tuple[float, float], microscope: Microscope, estimated: dict[str, Any]
) -> Conditioned:
    """The frame for the networks, from planes in rising order and the noise of their difference."""
    derivative_sigma = sigma / (defocus_um[1] - defocus_um[0])
    baseline, noise_rad = without_noise(checked.phase, derivative_sigma, microscope)
    numbers = FieldNumbers(
        fresnel=(fresnel_parameter(defocus_um[0], microscope), fresnel_parameter(defocus_um[1], microscope)),
        contrast_noise=max(sigma, SMALLEST_CONTRAST_NOISE),
        strength_rad=float(np.hypot(float(baseline.square().mean().sqrt()), SMALLEST_STRENGTH_RAD)),
        noise_rad=float(np.hypot(noise_rad, SMALLEST_NOISE_RAD)),
    )
    anchor = light_anchor(baseline, derivative_sigma, defocus_um, microscope)
    estimated |= {"noise_sigma": sigma, "strength_rad": numbers.strength_rad, "noise_rad": numbers.noise_rad}
    estimated["levelled_by_medium_share"] = anchor.levelling.share if anchor.levelling else 0.0
    estimated |= {} if checked.checks is None else {"planes": checked.checks.as_mapping()}
    return Conditioned(
        channels=_channels(torch.from_numpy(np.ascontiguousarray(checked.planes)), baseline, microscope, numbers).float(),
        baseline=(baseline / numbers.gain_rad).float(),
        gain=numbers.gain_rad,
        valid=valid,
        estimated=estimated,
        anchor=anchor,
    )
