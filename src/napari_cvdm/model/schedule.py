"""The learned schedule: a rate at every pixel and one clock for all, tied and monotone by construction.

gamma(t, x) = exp(-lambda(x) T(t)), beta(t, x) = lambda(x) T'(t). T is a convex combination of functions that rise from 0 at
t = 0 to 1 at t = 1, so that T' is exact and positive; among them is the clock of gamma = 1 - t.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cvdm.model.unet import silence
from napari_cvdm.result import ClockCurve

RATE_MIN = 7.0  # gamma(1) <= 9.2e-4 everywhere: the sampler may start from pure noise
RATE_MAX = 40.0  # gamma(1) >= 4e-18: still above zero in float32
POWERS = (1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0)
END_LEVELS = (1e-4, 1e-3, 1e-2, 0.3, 1e-4, 1e-3, 1e-1, 1e-2)
START = 1  # gamma = 1 - (1 - 1e-3) t


class Clock(nn.Module):
    """T(t) = sum of softmax(weights)_k log(1 - (1 - d_k) t^p_k) / log d_k.

    Each term is the clock of gamma = 1 - (1 - d) t^p at the rate -log d: the linear schedule for p = 1, and for p = 2 what
    the cosine schedule looks like at its start.
    """

    power: Tensor
    end: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("power", torch.tensor(POWERS), persistent=False)
        self.register_buffer("end", torch.tensor(END_LEVELS), persistent=False)
        weights = torch.zeros(len(POWERS))
        weights[START] = 5.0
        self.weights = nn.Parameter(weights)

    def forward(self, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """T, dT/dt and d2T/dt2 at times in [0, 1], each of the shape of `times`."""
        t = times[..., None].clamp(min=1e-12)
        p, drop = self.power, 1 - self.end
        mix = functional.softmax(self.weights, dim=0)
        left = (1 - t**p) + self.end * t**p  # not 1 - drop t^p: exact at t = 1
        fall = drop * p * t ** (p - 1)
        bend = drop * p * (p - 1) * t ** (p - 2)
        scale = mix / torch.log(self.end)
        value = (scale * torch.log(left)).sum(-1)
        speed = (scale * -fall / left).sum(-1)
        acceleration = (scale * -(bend * left + fall.square()) / left.square()).sum(-1)
        return value, speed, acceleration


class PixelRate(nn.Module):
    """lambda(x): four small dilated convolutions on the folded grid, bounded to [7, 40].

    Parameters
    ----------
    inputs : int
        Channels of the folded condition.
    fold : int
        Output pixels folded into one; the map comes out unfolded.
    """

    receptive_radius = 1 + 2 + 4 + 1

    def __init__(self, inputs: int, fold: int, width: int = 24) -> None:
        super().__init__()
        self.fold = fold
        last = nn.Conv2d(width, fold**2, 3, padding=1)
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=4, dilation=4),
            nn.SiLU(),
            last,
        )
        silence(last, bias=-3.0)

    def forward(self, features: Tensor) -> Tensor:
        """Folded condition (B, inputs, Y, X) -> lambda of shape (B, 1, fold Y, fold X)."""
        return bounded_rate(functional.pixel_shuffle(self.layers(features), self.fold).to(features.dtype))


class GlobalRate(nn.Module):
    """One learned lambda for every pixel of every image: the ablation of the pixel-wise schedule."""

    receptive_radius = 0

    def __init__(self, fold: int) -> None:
        super().__init__()
        self.fold = fold
        self.level = nn.Parameter(torch.tensor(-3.0))

    def forward(self, features: Tensor) -> Tensor:
        """Folded condition (B, inputs, Y, X) -> lambda of shape (B, 1, fold Y, fold X)."""
        batch, _, height, width = features.shape
        return bounded_rate(self.level).expand(batch, 1, height * self.fold, width * self.fold)


@torch.inference_mode()
def clock_curve(clock: nn.Module, points: int) -> ClockCurve:
    """T and dT/dt at the times 1/points, 2/points, ..., 1."""
    times = torch.arange(1, points + 1, device=clock_device(clock)) / points
    value, speed, _ = clock(times)
    return ClockCurve(times=tuple(times.tolist()), values=tuple(value.tolist()), speeds=tuple(speed.tolist()))


def clock_device(clock: nn.Module) -> torch.device:
    """Where a clock computes; one without weights does so wherever it is asked."""
    return next((part.device for part in clock.parameters()), torch.device("cpu"))


def bounded_rate(logit: Tensor) -> Tensor:
    """lambda = 7 + 33 sigmoid(logit): the rate is clipped, gamma never is."""
    return RATE_MIN + (RATE_MAX - RATE_MIN) * torch.sigmoid(logit)


def gamma_and_beta(rate: Tensor, clock: nn.Module, time: float) -> tuple[Tensor, Tensor]:
    """gamma(t, x) = exp(-lambda T) and beta(t, x) = lambda T' at one time in (0, 1], of the shape of `rate`."""
    if not 0 < time <= 1 or not math.isfinite(time):
        raise ValueError(f"time is {time:g}; the schedule is defined on (0, 1].")
    value, speed, _ = clock(torch.tensor(time, dtype=rate.dtype, device=rate.device))
    return torch.exp(-rate * value), rate * speed
