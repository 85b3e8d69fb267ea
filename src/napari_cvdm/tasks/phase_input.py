"""Input of the phase network from an inverted field.

The input is maps of the inversion on compressed scales, and numbers of the whole field. None of it
depends on the number of planes. Physics sets the lengths. The unit of the network is the geometric
mean of the strength of the phase and of its posterior width, so that a little noise and a wrong
shape are both of order one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.tasks.phase_inversion import NOISE_ORIGIN, PhaseMaps
from napari_cvdm.tasks.phase_posterior import PhasePosterior
from napari_cvdm.tasks.task import NetworkInput, count_from

CHANNELS = (
    "phase over strength",
    "phase over width",
    "pull of the data on the phase",
    "pull of the data on the absorption",
    "absorption",
    "difference of the borders",
    "width",
    "misfit",
    "frame",
    "strength",
    "width over strength",
    "noise",
    "Fresnel number",
)
SURROUNDINGS_PX = 16  # of the canvas around the frame that the network sees
SMALLEST_STRENGTH_RAD = 0.02
SMALLEST_WIDTH_RAD = 1e-3
ABSORPTION_UNIT = 0.02  # of log-amplitude
# So that the logarithms of usual fields are about zero.
TYPICAL_NOISE = 0.01
TYPICAL_FRESNEL = 30.0
LOG_GAIN = 0.25  # a factor of e^4 counts as one
LARGEST_MISFIT = 100.0
TINY = 1e-30  # a blank field without noise has no pull


def network_window(maps: PhaseMaps) -> tuple[slice, slice]:
    """Rows and columns of the canvas that the network sees: the frame and a little around it."""
    rows, columns = (
        slice(max(0, part.start - SURROUNDINGS_PX), min(size, part.stop + SURROUNDINGS_PX))
        for part, size in zip(maps.frame, maps.phase.shape, strict=True)
    )
    return rows, columns


def inner_frame(maps: PhaseMaps) -> tuple[slice, slice]:
    """The frame within `network_window`."""
    return count_from(network_window(maps), maps.frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldNumbers:
    """What holds for a whole field, also where only a part of it is prepared.

    Parameters
    ----------
    level : float
        Median of the phase over the frame [rad].
    strength, width : float
        Root mean squares over the frame of the phase and of its posterior width [rad].
    pull, pull_absorption : float
        Root mean squares of both pulls of the data.
    noise : float
        Standard deviation over the blank field.
    fresnel : float
        Largest |lambda z| / (n px^2).
    """

    level: float
    strength: float
    width: float
    pull: float
    pull_absorption: float
    noise: float
    fresnel: float

    @classmethod
    def measure(cls, maps: PhaseMaps) -> "FieldNumbers":
        """From the maps of a whole field."""
        phase = maps.phase[maps.frame]
        return cls(
            level=float(np.median(phase)),
            strength=float(np.hypot(np.std(phase), SMALLEST_STRENGTH_RAD)),
            width=float(np.hypot(_rms(maps.width[maps.frame]), SMALLEST_WIDTH_RAD)),
            pull=_rms(maps.pull[maps.frame]),
            pull_absorption=_rms(maps.pull_absorption[maps.frame]),
            noise=maps.noise,
            fresnel=maps.fresnel,
        )

    @property
    def unit(self) -> float:
        """Radians for one unit of the network."""
        return float(np.sqrt(self.strength * self.width))


def network_channels(maps: PhaseMaps, numbers: FieldNumbers) -> Tensor:
    """Channels, as in `CHANNELS`, of a field within `network_window`: (13, Y, X), float32."""
    window = network_window(maps)
    level = maps.phase - numbers.level
    inside = np.zeros(maps.phase.shape, np.float32)
    inside[maps.frame] = 1
    # asinh is linear for small values and logarithmic for large ones, and keeps the sign.
    images = (
        np.arcsinh(level / numbers.strength),
        np.arcsinh(level / numbers.width) / 2,
        np.arcsinh(maps.pull / max(numbers.pull, TINY)),
        np.arcsinh(maps.pull_absorption / max(numbers.pull_absorption, TINY)),
        np.arcsinh(maps.absorption / ABSORPTION_UNIT),
        np.arcsinh(maps.border_difference / numbers.unit),
        np.log(np.maximum(maps.width, SMALLEST_WIDTH_RAD) / numbers.width),
        np.log(np.clip(maps.misfit, 0.1, LARGEST_MISFIT)) / 2,
        inside,
    )
    constants = (
        numbers.strength,
        numbers.width / numbers.strength,
        numbers.noise / TYPICAL_NOISE,
        numbers.fresnel / TYPICAL_FRESNEL,
    )
    shown = torch.from_numpy(np.stack([image[window] for image in images]).astype(np.float32))
    logarithms = LOG_GAIN * torch.log(torch.tensor(constants, dtype=torch.float32))
    return torch.cat([shown, logarithms[:, None, None].expand(-1, *shown.shape[1:])])


def assemble_input(
    maps: PhaseMaps,
    numbers: FieldNumbers,
    posterior: PhasePosterior,
    usable: np.ndarray,
    estimated: Mapping[str, Any],
    first: tuple[int, int] = (0, 0),
) -> NetworkInput:
    """The frame for the networks, from its maps and the fit behind them.

    `posterior` is that on `network_window`. `usable` (Y, X) are the pixels of the frame that the
    camera measured. `first` is the frame's first pixel in the whole image.
    """
    valid = np.zeros(maps.phase.shape, dtype=bool)
    valid[maps.frame] = usable
    row, column = (
        NOISE_ORIGIN + start + seen.start - part.start
        for start, seen, part in zip(first, posterior.window, maps.frame, strict=True)
    )
    return NetworkInput(
        channels=network_channels(maps, numbers),
        initial_estimate=torch.from_numpy(posterior.estimate / numbers.unit).float(),
        gain=numbers.unit,
        valid=valid[posterior.window],
        estimated=estimated,
        posterior=posterior,
        origin=(row, column),
        frame=inner_frame(maps),
    )


def _rms(image: np.ndarray) -> float:
    return float(np.sqrt(np.square(image, dtype=np.float64).mean()))
