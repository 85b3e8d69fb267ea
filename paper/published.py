"""The published procedure as a reference for speed: `python -m paper.published`.

Its U-Net noise network, its schedule networks and its sampler, re-built in torch after
github.com/casus/cvdm (MIT; arXiv 2312.02246) with random weights: the time does not depend on them.
In the published sampler every step evaluates the schedule networks again, over 200 steps.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional

from paper.measure import Row, print_rows

STEPS = 200
SIZE = 256
TIMED_STEPS = 3
NOISE_PARAMETERS, SCHEDULE_PARAMETERS = 48.81e6, 14.41e6  # counted in the official code
OFFICIAL_STEP_S, OFFICIAL_STEP_CPU_S = (
    0.85,
    1.36,
)  # the official code under TensorFlow 2.14 on two cores with AVX-512, in a run of its own
LAST_TIME, SMALLEST_ALPHA, LARGEST_ALPHA = 0.99999, 1e-6, 0.99999


class Convolution(nn.Module):
    """softplus(conv(x)) of the same size.

    An even kernel is padded below and to the right, as TensorFlow does.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        before, after = (kernel - 1) // 2, kernel // 2
        self.padding = (before, after, before, after)
        self.layer = nn.Conv2d(inputs, outputs, kernel)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, Y, X) -> (B, outputs, Y, X)."""
        return functional.softplus(self.layer(functional.pad(features, self.padding)))


def stage(inputs: int, *outputs: int) -> nn.Sequential:
    """3 x 3 convolutions, each followed by an instance norm with gain and offset."""
    sizes = zip((inputs, *outputs), outputs, strict=False)
    return nn.Sequential(
        *(
            layer
            for size in sizes
            for layer in (Convolution(*size, 3), nn.InstanceNorm2d(size[1], eps=1e-3, affine=True))
        )
    )


class Rise(nn.Module):
    """Twice the resolution: a transposed convolution, then a 2 x 2 convolution.

    The transposed convolution has a fixed width, whatever the network's own.
    """

    def __init__(self, inputs: int, fixed: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, fixed, 3, stride=2, padding=1, output_padding=1)
        self.after = Convolution(fixed, outputs, 2)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, Y, X) -> (B, outputs, 2Y, 2X)."""
        return self.after(functional.softplus(self.up(features)))


class PublishedUNet(nn.Module):
    """The U-Net of the published code; sizes must be multiples of 16.

    Parameters
    ----------
    inputs : int
        Channels of the image.
    level_inputs : int
        Channels of the second input (the map gamma for the noise network, the condition itself for
        the rate).
    width : int
        Channels at the finest level: 64 for the noise network, 32 for the rate.
    """

    def __init__(self, inputs: int, level_inputs: int, width: int) -> None:
        super().__init__()
        w = width
        self.image, self.level = Convolution(inputs, w, 3), Convolution(level_inputs, w, 7)
        self.first_norm = nn.InstanceNorm2d(w, eps=1e-3, affine=True)
        self.down = nn.ModuleList(
            [
                stage(w, w),
                stage(w, 2 * w, 2 * w),
                stage(2 * w, 4 * w, 4 * w),
                stage(4 * w, 8 * w, 16 * w),
                stage(16 * w, 16 * w, 16 * w),
            ]
        )
        self.rise = nn.ModuleList(
            [
                Rise(16 * w, 512, 16 * w),
                Rise(8 * w, 256, 4 * w),
                Rise(4 * w, 128, 2 * w),
                Rise(2 * w, 64, w),
            ]
        )
        self.up = nn.ModuleList(
            [
                stage(32 * w, 8 * w, 8 * w),
                stage(8 * w, 4 * w, 4 * w),
                stage(4 * w, 2 * w, 2 * w),
                stage(2 * w, w, w, w),
            ]
        )
        self.last = nn.Conv2d(w, 1, 1)

    def forward(self, image: Tensor, level: Tensor) -> Tensor:
        """(B, inputs, Y, X) and (B, level_inputs, Y, X) -> (B, 1, Y, X)."""
        features = self.first_norm(self.image(image) + self.level(level))
        skips: list[Tensor] = []
        for depth, block in enumerate(self.down):
            features = block(functional.max_pool2d(features, 2) if depth else features)
            skips.append(features)
        for rise, block, skip in zip(self.rise, self.up, reversed(skips[:-1]), strict=True):
            features = block(torch.cat([skip, rise(features)], dim=1))
        return self.last(features)


class PublishedTimeModel(nn.Module):
    """tau(t), or its integral: (w t + b + conv1(sigmoid(conv3(w t + b)))) t over a map of times."""

    def __init__(self, width: int = 1024) -> None:
        super().__init__()
        self.line = nn.Conv2d(1, 1, 1)
        self.wide, self.narrow = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.abs_()  # non-negative kernels

    def forward(self, times: Tensor) -> Tensor:
        """A map of times (B, 1, Y, X) -> (B, 1, Y, X)."""
        line = self.line(times)
        return (line + self.narrow(torch.sigmoid(self.wide(line)))) * times


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The networks of one published model.

    Parameters
    ----------
    noise, rate : PublishedUNet
    tau : PublishedTimeModel
    """

    noise: PublishedUNet
    rate: PublishedUNet
    tau: PublishedTimeModel

    @classmethod
    def build(cls, condition_channels: int = 2) -> "Published":
        """Random weights, in the layout of memory that convolutions like."""
        networks = (
            PublishedUNet(condition_channels + 1, 1, 64),
            PublishedUNet(condition_channels, condition_channels, 32),
            PublishedTimeModel(),
        )
        noise, rate, tau = (
            network.eval().to(memory_format=torch.channels_last) for network in networks
        )  # type: ignore[call-overload]  # torch's stubs
        return cls(noise=noise, rate=rate, tau=tau)

    def beta(self, condition: Tensor, time: float) -> Tensor:
        """beta(t, x) = lambda(x) tau(t); both networks are evaluated, at every step."""
        times = torch.full_like(condition[:, :1], min(time, LAST_TIME))
        return functional.softplus(self.rate(condition, condition)) * self.tau(times)

    def alpha(self, condition: Tensor, index: int, steps: int) -> Tensor:
        """1 - beta / T, clipped."""
        return (1 - self.beta(condition, index / steps) / steps).clamp(
            SMALLEST_ALPHA, LARGEST_ALPHA
        )

    def less_noisy(
        self, noisy: Tensor, condition: Tensor, alphas: Tensor, gammas: Tensor, index: int
    ) -> Tensor:
        """One ancestral step of DDPM with a noise level at every pixel.

        arXiv 2006.11239, eq. 7. alphas and gammas hold all steps.
        """
        alpha, gamma = alphas[index], gammas[index]
        before = gammas[index - 1] if index else torch.ones_like(gamma)
        found = self.noise(torch.cat([noisy, condition], dim=1), gamma)
        mean = (noisy - (1 - alpha) / (1 - gamma).sqrt() * found) / alpha.sqrt()
        return mean + ((1 - before) / (1 - gamma) * (1 - alpha)).sqrt() * torch.randn_like(noisy)


@torch.inference_mode()
def published_sample(model: Published, condition: Tensor, steps: int = STEPS) -> Iterator[Tensor]:
    """All alphas first, then the steps from the noisiest.

    Yields after every evaluation, of the schedule or of the noise.

    Parameters
    ----------
    model : Published
    condition : Tensor of shape (1, C, Y, X)
    steps : int

    Yields
    ------
    Tensor of shape (1, 1, Y, X)
        `steps` alphas, then `steps` noisy images, the last without noise.
    """
    alphas = []
    for index in range(steps):
        alphas.append(model.alpha(condition, index, steps))
        yield alphas[-1]
    stacked = torch.stack(alphas)
    gammas = torch.cumprod(stacked, dim=0)
    noisy = torch.randn_like(condition[:, :1])
    for index in reversed(range(steps)):
        noisy = model.less_noisy(noisy, condition, stacked, gammas, index)
        yield noisy


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of one step of a procedure.

    The schedule's and the noise network's part are each timed by themselves.

    Parameters
    ----------
    schedule_s, noise_s : tuple of float
        One entry for each timed step.
    """

    schedule_s: tuple[float, ...]
    noise_s: tuple[float, ...]

    @property
    def step_s(self) -> float:
        """Median of both parts together."""
        return median(self.schedule_s) + median(self.noise_s)

    @property
    def sample_s(self) -> float:
        """One sample, extrapolated to all steps: every step does the same work."""
        return self.step_s * STEPS


def timed_published(
    model: Published,
    size: int = SIZE,
    steps: int = TIMED_STEPS,
    clock: Callable[[], float] = time.perf_counter,
) -> StepTime:
    """Time a few steps of each part, after one of each to warm up.

    Parameters
    ----------
    model : Published
    size : int
        Side of the image [px], a multiple of 16.
    steps : int
        Timed steps.
    clock : callable
        Seconds: wall time, or `time.process_time`.
    """
    condition = torch.randn(1, model.rate.image.layer.in_channels, size, size)
    seconds: list[float] = []
    before = clock()
    for _ in published_sample(model, condition, steps + 1):
        seconds.append(clock() - before)
        before = clock()
    return StepTime(schedule_s=tuple(seconds[1 : steps + 1]), noise_s=tuple(seconds[steps + 2 :]))


def parameter_count(networks: Sequence[nn.Module]) -> int:
    """Trained numbers of some networks."""
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def measure(size: int, steps: int) -> list[Row]:
    """The network's size and the time of a step beside the official one."""
    model = Published.build()
    wall, cpu = (
        timed_published(model, size, steps),
        timed_published(model, size, steps, time.process_time),
    )
    count = parameter_count([model.noise])
    return [
        Row(
            what="parameters of the noise network",
            value=f"{count / 1e6:.2f} M",
            bar="48.8 M",
            met=abs(count / NOISE_PARAMETERS - 1) < 0.01,
        ),
        Row(
            what=f"one step at {size} x {size}, {torch.get_num_threads()} threads: wall",
            value=spread(wall),
            bar=f"official code: {OFFICIAL_STEP_S} s on 2 cores",
        ),
        Row(
            what="the same: processor time",
            value=spread(cpu),
            bar=f"official code: {OFFICIAL_STEP_CPU_S} s",
        ),
        Row(
            what=f"{STEPS} steps, extrapolated from {steps}: wall",
            value=f"{wall.sample_s:.0f} s",
            bar=f"official code: {OFFICIAL_STEP_S * STEPS:.0f} s on 2 cores",
        ),
    ]


def spread(timed: StepTime) -> str:
    """Median of a step and its parts."""
    return (
        f"{timed.step_s:.2f} s (schedule {median(timed.schedule_s):.2f} + noise "
        f"{median(timed.noise_s):.2f})"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument(
        "--steps", type=int, default=TIMED_STEPS, help="steps to time; the rest is extrapolated"
    )
    given = parser.parse_args()
    print_rows("The published procedure", measure(given.size, given.steps))
