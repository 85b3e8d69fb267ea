"""The learned schedule: a rate at every pixel and one clock for all, tied and monotone by design.

gamma(t, x) = exp(-lambda(x) T(t)), beta(t, x) = lambda(x) T'(t). T is a convex combination of
functions that rise from 0 at t = 0 to 1 at t = 1, so that T' is exact and positive. One of them is
the clock of gamma = 1 - t.

The CDDPM of the paper is the network with a schedule that is not learned: one rate for every pixel,
and a clock from the literature.
"""

from itertools import product
from math import acos, cos, exp, pi, sin, sqrt

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cvdm.core.result import ClockCurve
from napari_cvdm.models.networks import is_whole, zero_init

RATE_MIN = 7.0  # gamma(1) <= 9.2e-4 everywhere: the sampler may start from pure noise
RATE_MAX = 40.0  # gamma(1) >= 4e-18: still above zero in float32
CLOCK_TERMS: dict[int, tuple[tuple[float, float], ...]] = {
    2: ((1.0, 1e-3), (2.0, 1e-3)),
    8: (
        (1.0, 1e-4),
        (1.0, 1e-3),
        (1.0, 1e-2),
        (1.0, 0.3),
        (2.0, 1e-4),
        (2.0, 1e-3),
        (2.0, 1e-1),
        (3.0, 1e-2),
    ),
    32: tuple(product((1.0, 2.0, 3.0, 4.0), (1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 0.6))),
}
"""(p, d) of each term, by their number."""
START = (1.0, 1e-3)  # gamma = 1 - (1 - 1e-3) t
DILATIONS = (1, 2, 4)
MOST_LAYERS, LARGEST_DILATION = 8, 64  # a card comes from anywhere
# A thousand steps of 1e-4 to 0.02 (Ho et al. 2020) in continuous time (Song et al. 2021).
BETA_FIRST, BETA_LAST = (0.1, 20.0)
LINEAR_RATE = (BETA_FIRST + BETA_LAST) / 2
COSINE_OFFSET = 0.008  # Nichol and Dhariwal 2021
COSINE_RATE = 9.21  # gamma(1) = 1e-4: the cosine's own zero would be an infinite rate


def check_schedule(dilations: tuple[int, ...], terms: int) -> None:
    """ValueError unless `PixelRate` has such layers, and `Clock` so many terms."""
    if terms not in CLOCK_TERMS:
        raise ValueError(
            f"clock_terms is {terms!r:.80}; allowed are {', '.join(map(str, CLOCK_TERMS))}."
        )
    whole = all(is_whole(one, 1, LARGEST_DILATION) for one in dilations)
    if len(dilations) > MOST_LAYERS or not whole:
        raise ValueError(
            f"rate_dilations is {dilations!r:.80}; at most {MOST_LAYERS} whole numbers from 1 to "
            f"{LARGEST_DILATION} are needed, such as 1, 2, 4."
        )


class Clock(nn.Module):
    """T(t) = sum of softmax(weights)_k log(1 - (1 - d_k) t^p_k) / log d_k.

    Each term is the clock of gamma = 1 - (1 - d) t^p at the rate -log d. p = 1 gives the linear
    schedule. p = 2 gives a schedule that starts like the cosine schedule. `terms` is a key of
    `CLOCK_TERMS`.
    """

    power: Tensor
    end: Tensor

    def __init__(self, terms: int = 8) -> None:
        super().__init__()
        powers, ends = zip(*CLOCK_TERMS[terms], strict=True)
        self.register_buffer("power", torch.tensor(powers), persistent=False)
        self.register_buffer("end", torch.tensor(ends), persistent=False)
        weights = torch.zeros(terms)
        weights[CLOCK_TERMS[terms].index(START)] = 5.0
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
    """lambda(x): small dilated convolutions on the folded grid, bounded to [7, 40].

    Parameters
    ----------
    inputs : int
        Channels of the folded condition.
    fold : int
        Output pixels folded into one; the map comes out unfolded.
    dilations : tuple of int
        Dilation of each hidden 3 x 3 layer; a last 3 x 3 layer follows. An empty tuple gives a
        single 1 x 1 layer, which sees one folded pixel.
    width : int
        Channels of the hidden layers.
    """

    def __init__(
        self, inputs: int, fold: int, dilations: tuple[int, ...] = DILATIONS, width: int = 24
    ) -> None:
        super().__init__()
        self.fold = fold
        self.receptive_radius = sum(dilations) + 1 if dilations else 0
        hidden: list[nn.Module] = []
        for channels, dilation in zip((inputs, *[width] * len(dilations)), dilations, strict=False):
            hidden += [
                nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation),
                nn.SiLU(),
            ]
        last = (
            nn.Conv2d(width, fold**2, 3, padding=1) if dilations else nn.Conv2d(inputs, fold**2, 1)
        )
        self.layers = nn.Sequential(*hidden, last)
        zero_init(last, bias=-3.0)

    def forward(self, features: Tensor) -> Tensor:
        """Folded condition (B, inputs, Y, X) -> lambda of shape (B, 1, fold Y, fold X)."""
        return bounded_rate(
            functional.pixel_shuffle(self.layers(features), self.fold).to(features.dtype)
        )


class GlobalRate(nn.Module):
    """One learned lambda for every pixel of every image, as an ablation of the pixel-wise rate."""

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
    return ClockCurve(
        times=tuple(times.tolist()), values=tuple(value.tolist()), speeds=tuple(speed.tolist())
    )


def clock_device(clock: nn.Module) -> torch.device:
    """Where a clock computes; one without weights does so wherever it is asked."""
    return next((part.device for part in clock.parameters()), torch.device("cpu"))


def bounded_rate(logit: Tensor) -> Tensor:
    """lambda = 7 + 33 sigmoid(logit): the rate is clipped, gamma never is."""
    return RATE_MIN + (RATE_MAX - RATE_MIN) * torch.sigmoid(logit)


def gamma_and_beta(rate: np.ndarray, clock: ClockCurve) -> tuple[np.ndarray, np.ndarray]:
    """gamma(t, x) = exp(-lambda T) and beta(t, x) = lambda T' at every time of a clock.

    Both have the shape ``(K, *rate.shape)`` and the dtype of `rate`.
    """
    pixels = torch.from_numpy(rate)
    gamma = torch.stack([torch.exp(-pixels * value) for value in clock.values])
    beta = torch.stack([pixels * speed for speed in clock.speeds])
    return gamma.numpy(), beta.numpy()


class LinearClock(nn.Module):
    """beta = b0 + (b1 - b0) t (Ho et al. 2020), so lambda T = b0 t + (b1 - b0) t^2 / 2."""

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
        bend = self.turn * times
        cosine, tangent = torch.cos(self.first + bend), torch.tan(self.first + bend)
        # cos(first + d) / cos(first) - 1, without the cancellation at d = 0
        slope = sin(self.first) / cos(self.first)
        relative = -2 * torch.sin(bend / 2).square() - slope * torch.sin(bend)
        value = -2 * torch.log1p(relative) / COSINE_RATE
        speed = 2 * self.turn * tangent / COSINE_RATE
        return value, speed, 2 * (self.turn / cosine).square() / COSINE_RATE


class FixedRate(nn.Module):
    """One lambda for all pixels; `fold` output pixels to one of the folded condition."""

    receptive_radius = 0

    def __init__(self, rate: float, fold: int) -> None:
        super().__init__()
        self.rate, self.fold = rate, fold

    def forward(self, features: Tensor) -> Tensor:
        """Folded condition (B, inputs, Y, X) -> lambda of shape (B, 1, fold Y, fold X)."""
        batch, _, height, width = features.shape
        return features.new_full((batch, 1, height * self.fold, width * self.fold), self.rate)
