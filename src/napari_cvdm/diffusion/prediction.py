"""What the network predicts and what the diffusion models: two choices, a few small types.

`Velocity` and `Noise` define what the network's output means. `Direct`, `Residual` and `ZeroMean`
define the image around which the target is diffused. All are in the units of the network and
scaled by one stored constant.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from napari_cvdm.diffusion import process


class Prediction(Protocol):
    """Meaning of the network's output."""

    @property
    def bounded(self) -> bool:
        """Whether an error of the output stays as small in the clean target at a = 0, no signal."""

    def wanted(self, target: Tensor, exponent: Tensor, noise: Tensor) -> Tensor:
        """What the network should have said."""

    def clean(self, noisy: Tensor, output: Tensor, exponent: Tensor) -> Tensor:
        """The clean target that the output implies."""

    def noise_error(self, error: Tensor, exponent: Tensor) -> Tensor:
        """The error of eps that an error of the output implies."""


@dataclass(frozen=True, slots=True)
class Velocity:
    """v = a eps - s y, the default: bounded at every noise level."""

    bounded: ClassVar[bool] = True

    def wanted(self, target: Tensor, exponent: Tensor, noise: Tensor) -> Tensor:
        """v of the forward process."""
        return process.velocity(target, exponent, noise)

    def clean(self, noisy: Tensor, output: Tensor, exponent: Tensor) -> Tensor:
        """x = a z - s v."""
        return process.clean_from_velocity(noisy, output, exponent)

    def noise_error(self, error: Tensor, exponent: Tensor) -> Tensor:
        """eps = s z + a v, so its error is a times that of v."""
        return process.signal_level(exponent) * error


@dataclass(frozen=True, slots=True)
class Noise:
    """eps, as published; kept for the reproduction."""

    bounded: ClassVar[bool] = False

    def wanted(self, target: Tensor, exponent: Tensor, noise: Tensor) -> Tensor:
        """eps of the forward process."""
        return noise

    def clean(self, noisy: Tensor, output: Tensor, exponent: Tensor) -> Tensor:
        """x = (z - s eps) / a."""
        return process.clean_from_noise(noisy, output, exponent)

    def noise_error(self, error: Tensor, exponent: Tensor) -> Tensor:
        """The error itself."""
        return error


PREDICTIONS: dict[str, Prediction] = {"v": Velocity(), "eps": Noise()}


class Target(Protocol):
    """The image around which the target is diffused."""

    def centre(self, baseline: Tensor, correction: Tensor) -> Tensor:
        """That image, from the initial estimate `baseline` and the mean residual `correction`."""


@dataclass(frozen=True, slots=True)
class Direct:
    """The image itself is diffused (paper: brightfield phase)."""

    def centre(self, baseline: Tensor, correction: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(baseline)


@dataclass(frozen=True, slots=True)
class Residual:
    """The difference to the physical estimate is diffused (paper: super-resolution)."""

    def centre(self, baseline: Tensor, correction: Tensor) -> Tensor:
        """The physical estimate."""
        return baseline


@dataclass(frozen=True, slots=True)
class ZeroMean:
    """The difference to a learned regression mean is diffused (arXiv 2406.04388), the default."""

    def centre(self, baseline: Tensor, correction: Tensor) -> Tensor:
        """The physical estimate, corrected by the mean network."""
        return baseline + correction


TARGETS: dict[str, Target] = {
    "direct": Direct(),
    "residual": Residual(),
    "zero-mean": ZeroMean(),
    "regression": ZeroMean(),
}
