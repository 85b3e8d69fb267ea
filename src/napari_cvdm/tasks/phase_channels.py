"""What the phase network sees: contrast, US-TIE and its long periods, and the numbers that hold for a whole field."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import maximum_filter
from torch import Tensor

from napari_cvdm.microscope import Microscope, defocus_pair
from napari_cvdm.physics.tie import expected_noise_power, regularised, wiener_gain
from napari_cvdm.request import RequestError, RestoreRequest
from napari_cvdm.tasks.conditioned import BORDER_PX, Background, fitting, interior, saturated

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
        check_divided(planes)
    if isinstance(background, str):
        levels = _estimated_levels(planes) if background == "auto" else np.ones((2, 1, 1))
    else:
        levels = np.broadcast_to(fitting(background, planes), planes.shape)
    if not (np.isfinite(levels) & (levels > 0)).all():
        raise RequestError(
            "the background intensity is not positive everywhere; give a blank-field image with --background FILE, or none for planes already divided by it."
        )
    return planes / levels, [float(np.median(level)) for level in levels]


def check_divided(planes: np.ndarray) -> None:
    """RequestError unless pixels are about 1, as those of planes over their background."""
    middle = float(np.median(planes))
    if not DIVIDED_MEDIANS[0] < middle < DIVIDED_MEDIANS[1]:
        raise RequestError(
            f"background none says that the planes are divided by the blank field, "
            f"but their median is {middle:.4g}, not about 1; use auto, or give a blank-field image."
        )


def _estimated_levels(planes: np.ndarray) -> np.ndarray:
    return equalised_levels(float(np.median(planes)), planes.mean(axis=(1, 2), keepdims=True))


def equalised_levels(median: float, means: np.ndarray) -> np.ndarray:
    """The median of both planes, shared out so that both have the same mean over it."""
    return median * means / means.mean() if means.mean() else means


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


def without_noise(phase: Tensor, derivative_sigma: float, microscope: Microscope) -> tuple[Tensor, Tensor, float]:
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
    gain : Tensor of shape (Y, X)
        What was kept of each frequency, 0 to 1.
    noise_rad : float
        Expected root mean square of the noise in it.
    """
    gain = wiener_gain(phase, derivative_sigma, microscope)
    left = gain.square() * expected_noise_power((phase.shape[-2], phase.shape[-1]), derivative_sigma, microscope, phase)
    return torch.fft.ifft2(torch.fft.fft2(phase) * gain).real, gain, float(left.mean().sqrt()) / phase.numel() ** 0.5


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

    @classmethod
    def of(cls, defocus_um: tuple[float, float], microscope: Microscope, sigma: float, strength_rad: float, noise_rad: float) -> "FieldNumbers":
        """From planes in rising order and the noise of their difference; none of the levels is smaller than what can be told from zero."""
        return cls(
            fresnel=(fresnel_parameter(defocus_um[0], microscope), fresnel_parameter(defocus_um[1], microscope)),
            contrast_noise=max(sigma, SMALLEST_CONTRAST_NOISE),
            strength_rad=float(np.hypot(strength_rad, SMALLEST_STRENGTH_RAD)),
            noise_rad=float(np.hypot(noise_rad, SMALLEST_NOISE_RAD)),
        )

    @property
    def gain_rad(self) -> float:
        """Radians for one network unit, sqrt(strength * noise): both a wrong shape and a little noise are of order one."""
        return float(np.sqrt(self.strength_rad * self.noise_rad))

    def channels(self) -> Tensor:
        """The numbers on compressed scales, shape (5, 1, 1)."""
        levels = (self.contrast_noise / TYPICAL_NOISE, self.strength_rad, self.noise_rad / self.strength_rad)
        values = [*(DEFOCUS_GAIN * np.arcsinh(z) for z in self.fresnel), *(LOG_GAIN * np.log(level) for level in levels)]
        return torch.tensor(values)[:, None, None]


def network_channels(planes: Tensor, baseline: Tensor, microscope: Microscope, numbers: FieldNumbers, level_rad: float | None = None) -> Tensor:
    """The twelve channels (12, Y, X) of planes over background (2, Y, X) and US-TIE (Y, X); `level_rad` is its median, where this is a part."""
    contrast = torch.asinh(CONTRAST_GAIN * (planes - 1) / numbers.strength_rad)
    level = baseline - (baseline.median() if level_rad is None else level_rad)
    scaled = torch.stack([torch.asinh(level / numbers.strength_rad), torch.asinh(level / numbers.noise_rad) / 2])
    long_periods = torch.asinh((baseline - regularised(baseline, microscope.pixel_um, TIE_REGULARISATIONS)) / numbers.gain_rad)
    return torch.cat([contrast, scaled, long_periods, numbers.channels().expand(-1, *baseline.shape)])
