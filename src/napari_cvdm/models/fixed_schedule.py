"""Schedules that are not learned: one rate for every pixel, and a clock from the literature.

The CDDPM of the paper is the network with one of these.
"""

from math import acos, cos, exp, pi, sin, sqrt

import torch
from torch import Tensor, nn

# A thousand steps of 1e-4 to 0.02 (Ho et al. 2020) in continuous time (Song et al. 2021).
BETA_FIRST, BETA_LAST = (0.1, 20.0)
LINEAR_RATE = (BETA_FIRST + BETA_LAST) / 2
COSINE_OFFSET = 0.008  # Nichol and Dhariwal 2021
COSINE_RATE = 9.21  # gamma(1) = 1e-4: the cosine's own zero would be an infinite rate


class LinearClock(nn.Module):
    """beta = b0 + (b1 - b0) t, so lambda T(t) = b0 t + (b1 - b0) t^2 / 2.

    Sources: Ho et al. 2020, Song et al. 2021.
    """

    def forward(self, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """T, dT/dt and d2T/dt2 at times in [0, 1], each of the shape of `times`."""
        growth = BETA_LAST - BETA_FIRST
        value = (BETA_FIRST * times + growth * times.square() / 2) / LINEAR_RATE
        speed = (BETA_FIRST + growth * times) / LINEAR_RATE
        return value, speed, torch.full_like(times, growth / LINEAR_RATE)


class CosineClock(nn.Module):
    """gamma = cos^2(theta) / cos^2(theta_0) with theta = pi/2 (c t + s) / (1 + s).

    Source: Nichol and Dhariwal 2021. c is chosen so that gamma ends at 1e-4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = pi / 2 * COSINE_OFFSET / (1 + COSINE_OFFSET)
        # Of theta, from t = 0 to 1.
        self.turn = acos(sqrt(exp(-COSINE_RATE)) * cos(self.first)) - self.first

    def forward(self, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """T, dT/dt and d2T/dt2 at times in [0, 1], each of the shape of `times`."""
        cosine, tangent = (
            torch.cos(self.first + self.turn * times),
            torch.tan(self.first + self.turn * times),
        )
        # cos(first + d) / cos(first) - 1, without the cancellation at d = 0
        bend = self.turn * times
        relative = -2 * torch.sin(bend / 2).square() - sin(self.first) / cos(
            self.first
        ) * torch.sin(bend)
        value = -2 * torch.log1p(relative) / COSINE_RATE
        return (
            value,
            2 * self.turn * tangent / COSINE_RATE,
            2 * (self.turn / cosine).square() / COSINE_RATE,
        )


class FixedRate(nn.Module):
    """The same lambda at every pixel of every image.

    Parameters
    ----------
    rate : float
    fold : int
        Output pixels to one pixel of the folded condition, along each axis.
    """

    receptive_radius = 0

    def __init__(self, rate: float, fold: int) -> None:
        super().__init__()
        self.rate, self.fold = rate, fold

    def forward(self, features: Tensor) -> Tensor:
        """Folded condition (B, inputs, Y, X) -> lambda of shape (B, 1, fold Y, fold X)."""
        batch, _, height, width = features.shape
        return features.new_full((batch, 1, height * self.fold, width * self.fold), self.rate)
