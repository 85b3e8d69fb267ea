"""The forward process, one equation a function.

z = sqrt(gamma) y + sqrt(1 - gamma) eps with gamma = exp(-n) (CVDM, arXiv 2312.02246, equation of
q(z_t | y, x)).
"""

import torch
from torch import Tensor


def signal_level(neg_log_gamma: Tensor) -> Tensor:
    """a = sqrt(gamma) = exp(-n/2)."""
    return torch.exp(-neg_log_gamma / 2)


def noise_level(exponent: Tensor) -> Tensor:
    """s = sqrt(1 - gamma) = sqrt(-expm1(-n)), exact for small n."""
    return torch.sqrt(-torch.expm1(-exponent))


def half_log_snr(exponent: Tensor) -> Tensor:
    """l = log(a / s) = -1/2 log expm1(n), written so that large n does not overflow."""
    return -(exponent + torch.log(-torch.expm1(-exponent))) / 2


def exponent_at(half_log_snr: Tensor) -> Tensor:
    """n = log(1 + exp(-2 l)), the inverse of `half_log_snr`."""
    return torch.nn.functional.softplus(-2 * half_log_snr)


def add_noise(target: Tensor, exponent: Tensor, noise: Tensor) -> Tensor:
    """z = a y + s eps."""
    return signal_level(exponent) * target + noise_level(exponent) * noise


def velocity(target: Tensor, exponent: Tensor, noise: Tensor) -> Tensor:
    """v = a eps - s y (Salimans & Ho, arXiv 2202.00512)."""
    return signal_level(exponent) * noise - noise_level(exponent) * target


def clean_from_velocity(noisy: Tensor, v: Tensor, exponent: Tensor) -> Tensor:
    """x = a z - s v: no division, however little signal is left."""
    return signal_level(exponent) * noisy - noise_level(exponent) * v


def clean_from_noise(noisy: Tensor, noise: Tensor, exponent: Tensor) -> Tensor:
    """x = (z - s eps) / a, the paper's choice; it amplifies errors by 1/a at the start."""
    return (noisy - noise_level(exponent) * noise) / signal_level(exponent)


def noise_from_clean(noisy: Tensor, clean: Tensor, exponent: Tensor) -> Tensor:
    """eps = (z - a x) / s."""
    return (noisy - signal_level(exponent) * clean) / noise_level(exponent)
