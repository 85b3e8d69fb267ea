"""CVDM on one page: a diffusion model that learns a noise schedule for every pixel.

After della Maggiora et al., arXiv 2312.02246.

Toy problem: discs, blurred, and measured with noise that grows from left to right. The model sees
the measurement y and the standard deviation of its noise. It draws images x from p(x | y). The
samples agree inside the discs and differ at their borders. After so short a training the rate is
near the bottom of its range at most pixels. Everything is plain PyTorch.

Usage: python examples/cvdm_on_one_page.py [--steps 1000] [--out cvdm.png]
       one to two minutes on two cores
"""

import argparse
import itertools
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

SIDE = 32
BLUR_SIGMA_PX = 1.5
NOISE_SIGMA = (0.05, 1.0)  # at the left and at the right border
RATE_RANGE = (7.0, 40.0)  # exp(-7) = 1e-3: at t = 1 hardly anything is left of the image
ALPHA = 1e-3  # weight of L_gamma, as in the paper
SAMPLING_STEPS = 40


# The problem --------------------------------------------------------------------------------------


def draw_discs(batch: int) -> Tensor:
    """Clean images x of shape (B, 1, Y, X) within -1..1: five soft discs each."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    centre = torch.rand(2, batch, 5, 1, 1) * SIDE
    radius = 2 + 4 * torch.rand(batch, 5, 1, 1)
    distance = torch.hypot(y - centre[0], x - centre[1])
    discs = torch.sigmoid(2 * (radius - distance))
    return 2 * discs.amax(dim=1, keepdim=True) - 1


def noise_sigma() -> Tensor:
    """Standard deviation of the measurement's noise at every pixel, (1, 1, Y, X)."""
    low, high = NOISE_SIGMA
    return torch.linspace(low, high, SIDE).expand(1, 1, SIDE, SIDE)


def measure(clean: Tensor) -> Tensor:
    """The condition, (B, 2, Y, X): the blurred, noisy image, and the noise's deviation."""
    offset = torch.arange(-4, 5)
    kernel = torch.exp(-(offset**2) / (2 * BLUR_SIGMA_PX**2))
    kernel = torch.outer(kernel, kernel)[None, None] / kernel.sum() ** 2
    blurred = functional.conv2d(functional.pad(clean, (4, 4, 4, 4), mode="replicate"), kernel)
    sigma = noise_sigma().expand_as(clean)
    return torch.cat([blurred + sigma * torch.randn_like(clean), sigma], dim=1)


# The learned schedule -----------------------------------------------------------------------------


class Schedule(nn.Module):
    """gamma(t, x) = exp(-lambda(x) T(t)): a rate lambda for every pixel, a clock T for all.

    Both are positive and T rises from 0 to 1, so that gamma falls from 1 to nearly 0 whatever the
    parameters are. The paper's beta is lambda(x) T'(t), and d gamma / dt = -beta gamma holds by
    construction.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rate_layers = nn.Sequential(
            nn.Conv2d(2, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 1, 3, padding=1)
        )
        self.mix = nn.Parameter(torch.tensor([3.0, 0.0, 0.0]))  # of the powers t, t^2, t^3

    def rate(self, condition: Tensor) -> Tensor:
        """lambda(x) of shape (B, 1, Y, X), within `RATE_RANGE`."""
        low, high = RATE_RANGE
        return low + (high - low) * torch.sigmoid(self.rate_layers(condition) - 2)

    def clock(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """T(t) and its first two derivatives: a convex mixture of powers of t."""
        weights, powers = self.mix.softmax(dim=0), torch.tensor([1.0, 2.0, 3.0])
        t = t[..., None]
        value = (weights * t**powers).sum(-1)
        speed = (weights * powers * t ** (powers - 1)).sum(-1)
        acceleration = (weights * powers * (powers - 1) * t ** (powers - 2).clamp(min=0)).sum(-1)
        return value, speed, acceleration


def add_noise(clean: Tensor, exponent: Tensor, noise: Tensor) -> Tensor:
    """z = sqrt(gamma) x + sqrt(1 - gamma) eps, with gamma = exp(-exponent) at every pixel."""
    gamma = torch.exp(-exponent)
    return gamma.sqrt() * clean + (1 - gamma).sqrt() * noise


# The denoiser -------------------------------------------------------------------------------------


class Denoiser(nn.Module):
    """Predict v = sqrt(gamma) eps - sqrt(1 - gamma) x.

    The inputs are the noisy image, the condition and the noise level.

    The noise level is a map, since each pixel has its own. v stands for x and eps at once (Salimans
    and Ho, arXiv 2202.00512).
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(4, width, 3, padding=1), nn.SiLU()]
        for dilation in (1, 2, 4, 2, 1):
            layers += [nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, noisy: Tensor, condition: Tensor, exponent: Tensor) -> Tensor:
        """v of shape (B, 1, Y, X)."""
        half_log_snr = -(exponent + torch.log(-torch.expm1(-exponent))) / 2
        return self.layers(torch.cat([noisy, condition, half_log_snr.clamp(-6, 6) / 4], dim=1))

    def clean(self, noisy: Tensor, condition: Tensor, exponent: Tensor) -> Tensor:
        """x = sqrt(gamma) z - sqrt(1 - gamma) v."""
        gamma = torch.exp(-exponent)
        return gamma.sqrt() * noisy - (1 - gamma).sqrt() * self(noisy, condition, exponent)


# The losses ---------------------------------------------------------------------------------------


def compute_loss(
    schedule: Schedule, denoiser: Denoiser, clean: Tensor, condition: Tensor
) -> Tensor:
    """Noise loss + 2 prior + 2 alpha L_gamma, with the paper's weights.

    It trains schedule and denoiser together.

    The noise loss asks for a schedule under which the noise is easy to tell. The prior asks that
    nothing is left of the image at t = 1. Both would be happy with a schedule that jumps; L_gamma =
    (d2 gamma / dt2)^2 keeps it smooth.
    """
    t = ((torch.arange(len(clean)) + torch.rand(len(clean))) / len(clean)).clamp(1e-4, 1 - 1e-4)[
        :, None, None, None
    ]
    rate, (clock, speed, acceleration) = schedule.rate(condition), schedule.clock(t)
    exponent, noise = rate * clock, torch.randn_like(clean)
    gamma = torch.exp(-exponent)
    error = denoiser(add_noise(clean, exponent, noise), condition, exponent) - (
        gamma.sqrt() * noise - (1 - gamma).sqrt() * clean
    )
    noise_loss = (gamma * error.square()).mean()  # eps is off by sqrt(gamma) times what v is off by
    last = torch.exp(-rate)
    prior = (last * clean.square() - last - torch.log1p(-last)).mean() / 2
    bend = ((rate * speed).square() - rate * acceleration) * gamma
    return noise_loss + 2 * prior + 2 * ALPHA * bend.square().mean()


def train(steps: int, batch: int = 16) -> tuple[Schedule, Denoiser]:
    """Learn schedule and denoiser together."""
    schedule, denoiser = Schedule(), Denoiser()
    optimiser = torch.optim.Adam([*schedule.parameters(), *denoiser.parameters()])
    annealing = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    for step in range(steps):
        clean = draw_discs(batch)
        loss = compute_loss(schedule, denoiser, clean, measure(clean))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        annealing.step()
        if step % 100 == 0:
            print(f"step {step:5d}   loss {loss.item():.4f}")
    return schedule, denoiser


# The sampler --------------------------------------------------------------------------------------


@torch.no_grad()
def draw_samples(schedule: Schedule, denoiser: Denoiser, condition: Tensor, count: int) -> Tensor:
    """Samples (N, 1, Y, X) of p(x | y) of one condition (1, 2, Y, X).

    By the ancestral sampler of Ho et al. (arXiv 2006.11239).

    From noise level r to the lower level t: z_t ~ q(z_t | z_r, x) with the x that the denoiser
    sees.
    """
    condition = condition.expand(count, -1, -1, -1)
    rate, times = schedule.rate(condition), torch.linspace(1, 0, SAMPLING_STEPS + 1)
    clock, _, _ = schedule.clock(times)
    noisy = torch.randn_like(rate)
    for now, later in itertools.pairwise(clock):
        clean = denoiser.clean(noisy, condition, rate * now)
        step = torch.exp(-rate * (now - later))  # gamma_r / gamma_t
        gamma_now, gamma_later = torch.exp(-rate * now), torch.exp(-rate * later)
        mean = (
            gamma_later.sqrt() * (1 - step) * clean + step.sqrt() * (1 - gamma_later) * noisy
        ) / (1 - gamma_now)
        variance = (1 - gamma_later) * (1 - step) / (1 - gamma_now)
        noisy = mean + variance.sqrt() * torch.randn_like(mean)
    return noisy


# The figure ---------------------------------------------------------------------------------------


@torch.no_grad()
def draw_figure(schedule: Schedule, clean: Tensor, condition: Tensor, samples: Tensor) -> Figure:
    """Draw measurement, truth, mean, spread, error, rate, and the extreme schedules."""
    rate, mean, spread = (
        schedule.rate(condition),
        samples.mean(dim=0, keepdim=True),
        samples.std(dim=0, keepdim=True),
    )
    figure = Figure(figsize=(14, 7), layout="constrained")
    *panels, curves, scatter = figure.subplots(2, 4).ravel()
    shown = {
        "measurement": condition[:, :1],
        "truth": clean,
        "mean of the samples": mean,
        "spread": spread,
        "error": (mean - clean).abs(),
        "rate lambda(x)": rate,
    }
    for panel, (name, image) in zip(panels, shown.items(), strict=True):
        figure.colorbar(
            panel.imshow(image[0, 0].numpy(), cmap="gray" if name in list(shown)[:3] else "magma"),
            ax=panel,
        )
        panel.set(title=name, xticks=[], yticks=[])
    t = torch.linspace(0, 1, 200)
    for name, value in (("slowest pixel", rate.min()), ("fastest pixel", rate.max())):
        curves.plot(t.numpy(), torch.exp(-value * schedule.clock(t)[0]).numpy(), label=name)
    curves.set(title="schedule", xlabel="t", ylabel="gamma")
    curves.legend()
    scatter.plot(rate.flatten().numpy(), spread.flatten().numpy(), ".", markersize=3)
    scatter.set(title="schedule and uncertainty", xlabel="rate lambda(x)", ylabel="spread")
    return figure


def main(words: list[str] | None = None) -> None:
    """Train, sample, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("cvdm.png"))
    options = parser.parse_args(words)
    torch.manual_seed(0)
    schedule, denoiser = train(options.steps)
    clean = draw_discs(1)
    condition = measure(clean)
    samples = draw_samples(schedule, denoiser, condition, options.samples)
    spread, error = samples.std(dim=0), (samples.mean(dim=0, keepdim=True) - clean).abs()
    left, right = slice(0, SIDE // 2), slice(SIDE // 2, SIDE)
    for name, part in (("left, little noise", left), ("right, much noise", right)):
        print(f"{name}: spread {spread[..., part].mean():.3f}, error {error[..., part].mean():.3f}")
    draw_figure(schedule, clean, condition, samples).savefig(options.out, dpi=120)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
