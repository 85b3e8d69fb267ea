"""The two jobs: how a measured image becomes what the networks see, once, on the whole image.

Training and restoring call the same functions, so the network meets the same numbers in both. What must be global (the
background, US-TIE, the intensity scale) is computed here; everything after this is local.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_cvdm.intensity import IntensityScale, noise_sigma
from napari_cvdm.microscope import Microscope, defocus_pair
from napari_cvdm.physics.tie import axial_difference, regularised, solve_us_tie, wiener_filtered
from napari_cvdm.request import RequestError, RestoreRequest

Background = Literal["auto", "none"] | np.ndarray

TIE_REGULARISATIONS = (1e-7, 1e-5, 1e-3)  # half amplitude at periods of 353, 112 and 35 px
SMALLEST_GAIN_RAD = 0.02
CONTRAST_GAIN = 2.0
DEFOCUS_GAIN = 0.2
LOG_GAIN = 0.25
TYPICAL_NOISE = 0.01
BORDER_PX = 8
DARK_FRACTION = 0.1
DARK_PERCENTILE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conditioned:
    """One frame, ready for the networks.

    Parameters
    ----------
    channels : Tensor of shape (C, Y, X), float32
        The condition.
    baseline : Tensor of shape (uY, uX), float32
        The physical estimate of the target, in network units.
    gain : float
        Output units for one network unit.
    valid : ndarray of shape (Y, X), bool
        False in the border band and where the camera says nothing (saturated, dark).
    estimated : mapping
        What was estimated from the frame.
    """

    channels: Tensor = field(repr=False)
    baseline: Tensor = field(repr=False)
    gain: float
    valid: np.ndarray = field(repr=False)
    estimated: Mapping[str, Any]


class Task(Protocol):
    """One job: what it takes, and how a frame is prepared."""

    name: str
    title: str
    inputs: str
    planes: int
    upsampling: int
    channels: tuple[str, ...]
    unit: str
    needed_optics: tuple[str, ...]

    def from_request(self, frame: np.ndarray, request: RestoreRequest) -> Conditioned:
        """Prepare one frame of shape (P, Y, X) with the optics of a request."""


def fresnel_parameter(defocus_um: float, microscope: Microscope) -> float:
    """lambda z / (n px^2), the one number that a defocused image of a given pixel pattern depends on (signed)."""
    return microscope.wavelength_um * defocus_um / (microscope.medium_index * microscope.pixel_um**2)


def interior(shape: tuple[int, int], border: int) -> np.ndarray:
    """True but for a border band of `border` pixels, bool of shape (Y, X)."""
    mask = np.zeros(shape, dtype=bool)
    mask[border : shape[0] - border, border : shape[1] - border] = True
    return mask


def saturated(frame: np.ndarray) -> np.ndarray:
    """Pixels at the top of an integer camera's range in any plane: (P, Y, X) -> bool (Y, X)."""
    if frame.dtype.kind not in "ui":
        return np.zeros(frame.shape[1:], dtype=bool)
    return (frame >= np.iinfo(frame.dtype).max).any(axis=0)


def over_background(frame: np.ndarray, background: Background) -> tuple[np.ndarray, list[float]]:
    """Brightfield planes over their blank-field intensity.

    Parameters
    ----------
    frame : ndarray of shape (2, Y, X)
    background : {"auto", "none"} or ndarray of shape (Y, X) or (2, Y, X)
        ``auto`` takes each plane's median: phase only moves light about, and most of a field is not specks.

    Returns
    -------
    ratio : ndarray of shape (2, Y, X), float64
    level : list of float
        Blank-field intensity of each plane (its median, where an image was given).

    Raises
    ------
    RequestError
        A background that is not positive, or of another shape.
    """
    planes = frame.astype(np.float64)
    if isinstance(background, str):
        levels = np.median(planes, axis=(1, 2), keepdims=True) if background == "auto" else np.ones((2, 1, 1))
    else:
        levels = np.broadcast_to(_fitting(background, planes), planes.shape)
    if not (np.isfinite(levels) & (levels > 0)).all():
        raise RequestError(
            "the background intensity is not positive everywhere; give a blank-field image with --background FILE, or none for planes already divided by it."
        )
    return planes / levels, [float(np.median(level)) for level in levels]


def _fitting(background: np.ndarray, planes: np.ndarray) -> np.ndarray:
    if background.shape not in (planes.shape, planes.shape[1:]):
        raise RequestError(f"the background image has shape {background.shape}; it must be {planes.shape[1:]}, like the image.")
    return background.astype(np.float64)


def wiener_us_tie(planes: Tensor, defocus_um: tuple[float, float], microscope: Microscope, sigma: float) -> Tensor:
    """US-TIE of two planes (2, Y, X) over background, without what noise of deviation `sigma` in their difference explains."""
    phase = solve_us_tie(planes.mean(dim=0), axial_difference(planes, defocus_um), microscope)
    return wiener_filtered(phase, sigma / abs(defocus_um[1] - defocus_um[0]), microscope)


def _field_numbers(defocus_um: tuple[float, float], microscope: Microscope, sigma: float, strength: float) -> Tensor:
    defocus = [DEFOCUS_GAIN * np.arcsinh(fresnel_parameter(z, microscope)) for z in defocus_um]
    levels = [LOG_GAIN * np.log(max(sigma, 1e-6) / TYPICAL_NOISE), LOG_GAIN * np.log(strength)]
    return torch.tensor([*defocus, *levels])[:, None, None]


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
        "US-TIE",
        "US-TIE beyond 353 px",
        "US-TIE beyond 112 px",
        "US-TIE beyond 35 px",
        "defocus below",
        "defocus above",
        "noise",
        "strength",
    )
    unit: str = "rad"
    needed_optics: tuple[str, ...] = ("pixel_um", "wavelength_um", "medium_index", "defocus_um")

    def condition(self, frame: np.ndarray, microscope: Microscope, defocus_um: tuple[float, float], background: Background) -> Conditioned:
        """Contrast, US-TIE and its long periods, and the numbers that hold for the whole field.

        The channels are the contrast I / I_background - 1 of both planes (compressed by asinh); US-TIE with every frequency
        that stands above the expected noise (the baseline), from its median; what of it is lost at each of three
        regularisations (this is where noise and light that drifts end up); both signed Fresnel parameters; noise level and
        strength of the field on a logarithmic scale. One network unit is the strength, the root mean square of the US-TIE
        phase in radians: it comes from physics, so the radians are absolute, and a faint cell is seen as well as a thick one.

        Parameters
        ----------
        frame : ndarray of shape (2, Y, X)
        microscope : Microscope
        defocus_um : tuple of float
            Signed positions; the planes are put in rising order.
        background : {"auto", "none"} or ndarray

        Returns
        -------
        Conditioned
            Ten channels, in the order of `channels`.
        """
        ratio, levels = over_background(frame, background)
        if defocus_um[0] > defocus_um[1]:
            ratio, defocus_um = ratio[::-1], (defocus_um[1], defocus_um[0])
        planes = torch.from_numpy(np.ascontiguousarray(ratio))
        sigma = float(np.hypot(*(noise_sigma(plane) for plane in ratio)))
        baseline = wiener_us_tie(planes, defocus_um, microscope, sigma)
        strength = float(np.hypot(float(baseline.square().mean().sqrt()), SMALLEST_GAIN_RAD))
        long_periods = baseline - regularised(baseline, microscope.pixel_um, TIE_REGULARISATIONS)
        contrast = torch.asinh(CONTRAST_GAIN * (planes - 1) / strength)
        local = torch.cat([contrast, (baseline - baseline.median())[None] / strength, torch.asinh(long_periods / strength)])
        numbers = _field_numbers(defocus_um, microscope, sigma, strength).expand(4, *baseline.shape)
        valid = interior(planes.shape[1:], BORDER_PX) & ~saturated(frame) & (ratio.mean(axis=0) > DARK_FRACTION)
        return Conditioned(
            channels=torch.cat([local, numbers]).float(),
            baseline=(baseline / strength).float(),
            gain=strength,
            valid=valid,
            estimated={"background": levels, "noise_sigma": sigma, "strength_rad": strength},
        )

    def from_request(self, frame: np.ndarray, request: RestoreRequest) -> Conditioned:
        """Prepare one frame with the optics of a request; OpticsError where one is missing."""
        values = {name: request.optics_value(name) for name in self.needed_optics if name != "defocus_um"}
        microscope = Microscope(**values, na=request.na)
        if request.defocus_um is None:
            raise RequestError("defocus_um is not known; the positions of both planes are needed. Give them with --defocus-um, for example --defocus-um -1 1.")
        return self.condition(frame, microscope, defocus_pair(request.defocus_um), request.background)


@dataclass(frozen=True, slots=True)
class WidefieldX2:
    """Widefield fluorescence to twice the resolution on a grid twice as fine, in counts above the dark level."""

    name: str = "widefield-x2"
    title: str = "Super-resolution x2 from one widefield fluorescence image"
    inputs: str = "one widefield fluorescence image"
    planes: int = 1
    upsampling: int = 2
    channels: tuple[str, ...] = ("signal", "root of signal")
    unit: str = "counts"
    needed_optics: tuple[str, ...] = ("pixel_um",)

    def condition(self, frame: np.ndarray, background: Background) -> Conditioned:
        """Signal above the dark level over one robust intensity of the whole image, and its square root.

        Parameters
        ----------
        frame : ndarray of shape (1, Y, X)
            Camera counts.
        background : {"auto", "none"} or ndarray of shape (Y, X)
            ``auto`` takes the first percentile as dark level, ``none`` zero; an image is subtracted.

        Returns
        -------
        Conditioned
            Two channels; one network unit is `gain` counts.
        """
        counts, offset = above_dark(frame[0], background)
        scale = IntensityScale.fit(counts, offset)
        signal = torch.from_numpy(scale.apply(counts))
        channels = torch.stack([signal, signal.sign() * signal.abs().sqrt()])
        baseline = functional.interpolate(signal[None, None], scale_factor=2, mode="bicubic", align_corners=False)[0, 0]
        estimated = {"dark_level": offset, "intensity_scale": scale.scale, "noise_sigma": noise_sigma(counts)}
        valid = interior(signal.shape, BORDER_PX) & ~saturated(frame)
        return Conditioned(channels=channels, baseline=baseline, gain=scale.scale, valid=valid, estimated=estimated)

    def from_request(self, frame: np.ndarray, request: RestoreRequest) -> Conditioned:
        """Prepare one frame; only the pixel size is needed, the other optics are compared with the trained range."""
        request.optics_value("pixel_um")
        return self.condition(frame, request.background)


def above_dark(image: np.ndarray, background: Background) -> tuple[np.ndarray, float]:
    """Counts as float64 and their dark level; a dark image is subtracted first."""
    counts = image.astype(np.float64)
    if not isinstance(background, str):
        return counts - _fitting(background, counts[None]).reshape(counts.shape), 0.0
    return counts, float(np.percentile(counts, DARK_PERCENTILE)) if background == "auto" else 0.0


TASKS: dict[str, Task] = {task.name: task for task in (PhaseTwoShot(), WidefieldX2())}
