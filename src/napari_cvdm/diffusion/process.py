"""The forward process, and what the network predicts of it.

z = sqrt(gamma) y + sqrt(1 - gamma) eps with gamma = exp(-n) (CVDM, arXiv 2312.02246, equation of
q(z_t | y, x)). `PREDICTIONS` define what the network's output means, and `TARGETS` the image around
which the target is diffused. All are in the units of the network and scaled by one stored constant.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor


def signal_level(neg_log_gamma: Tensor) -> Tensor:
    """a = sqrt(gamma) = exp(-n/2)."""
    return torch.exp(-neg_log_gamma / 2)


def noise_level(neg_log_gamma: Tensor) -> Tensor:
    """s = sqrt(1 - gamma) = sqrt(-expm1(-n)), exact for small n."""
    return torch.sqrt(-torch.expm1(-neg_log_gamma))


def half_log_snr(neg_log_gamma: Tensor) -> Tensor:
    """l = log(a / s) = -1/2 log expm1(n), written so that large n does not overflow."""
    return -(neg_log_gamma + torch.log(-torch.expm1(-neg_log_gamma))) / 2


def neg_log_gamma_at(half_log_snr: Tensor) -> Tensor:
    """n = log(1 + exp(-2 l)), the inverse of `half_log_snr`."""
    return torch.nn.functional.softplus(-2 * half_log_snr)


def add_noise(target: Tensor, neg_log_gamma: Tensor, noise: Tensor) -> Tensor:
    """z = a y + s eps."""
    return signal_level(neg_log_gamma) * target + noise_level(neg_log_gamma) * noise


def noise_from_clean(noisy: Tensor, clean: Tensor, neg_log_gamma: Tensor) -> Tensor:
    """eps = (z - a x) / s."""
    # s > 0: no clock value of a sampler is 0.
    return (noisy - signal_level(neg_log_gamma) * clean) / noise_level(neg_log_gamma)


class Prediction(Protocol):
    """Meaning of the network's output."""

    @property
    def bounded(self) -> bool:
        """Whether an error of the output stays as small in the clean target at a = 0, no signal."""

    def wanted(self, target: Tensor, neg_log_gamma: Tensor, noise: Tensor) -> Tensor:
        """What the network should have said."""

    def clean(self, noisy: Tensor, output: Tensor, neg_log_gamma: Tensor) -> Tensor:
        """The clean target that the output implies."""

    def noise_error(self, error: Tensor, neg_log_gamma: Tensor) -> Tensor:
        """The error of eps that an error of the output implies."""


@dataclass(frozen=True, slots=True)
class Velocity:
    """v = a eps - s y, the default (Salimans & Ho, arXiv 2202.00512)."""

    bounded: ClassVar[bool] = True

    def wanted(self, target: Tensor, neg_log_gamma: Tensor, noise: Tensor) -> Tensor:
        """v of the forward process."""
        return signal_level(neg_log_gamma) * noise - noise_level(neg_log_gamma) * target

    def clean(self, noisy: Tensor, output: Tensor, neg_log_gamma: Tensor) -> Tensor:
        """x = a z - s v: no division, however little signal is left."""
        return signal_level(neg_log_gamma) * noisy - noise_level(neg_log_gamma) * output

    def noise_error(self, error: Tensor, neg_log_gamma: Tensor) -> Tensor:
        """eps = s z + a v, so its error is a times that of v."""
        return signal_level(neg_log_gamma) * error


@dataclass(frozen=True, slots=True)
class Noise:
    """eps, as published; kept for the reproduction."""

    bounded: ClassVar[bool] = False

    def wanted(self, target: Tensor, neg_log_gamma: Tensor, noise: Tensor) -> Tensor:
        """eps of the forward process."""
        return noise

    def clean(self, noisy: Tensor, output: Tensor, neg_log_gamma: Tensor) -> Tensor:
        """x = (z - s eps) / a; it amplifies errors by 1 / a at the start."""
        # a > 0: the rate is bounded, see `models.schedule.RATE_MAX`.
        return (noisy - noise_level(neg_log_gamma) * output) / signal_level(neg_log_gamma)

    def noise_error(self, error: Tensor, neg_log_gamma: Tensor) -> Tensor:
        """The error itself."""
        return error


PREDICTIONS: dict[str, Prediction] = {"v": Velocity(), "eps": Noise()}


def centre_on_zero(initial_estimate: Tensor, mean_residual: Tensor) -> Tensor:
    """The image itself is diffused (paper: brightfield phase)."""
    return torch.zeros_like(initial_estimate)


def centre_on_estimate(initial_estimate: Tensor, mean_residual: Tensor) -> Tensor:
    """The difference to the physical estimate is diffused (paper: super-resolution)."""
    return initial_estimate


def centre_on_mean(initial_estimate: Tensor, mean_residual: Tensor) -> Tensor:
    """The difference to a learned regression mean is diffused (arXiv 2406.04388), the default."""
    return initial_estimate + mean_residual


TARGETS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "direct": centre_on_zero,
    "residual": centre_on_estimate,
    "zero-mean": centre_on_mean,
    "regression": centre_on_mean,
}
"""The image around which the target is diffused, from initial estimate and mean residual."""
