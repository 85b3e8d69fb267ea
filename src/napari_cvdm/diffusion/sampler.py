"""Samplers of the reverse process, elementwise in a pixel-wise schedule.

A sampler is a function of callables. It evaluates the denoiser once at every point of a falling
grid of clock values T. It is a generator: it yields every clean estimate on the way, so that the
caller can show a preview or cancel, and it returns the last one. If the clean estimate at the first
point is already known, the caller gives it as `first`, and it is not evaluated again.

Notation at two grid points r (noisier) -> t: a = sqrt(gamma), s = sqrt(1 - gamma), l = log(a/s),
h = l_t - l_r > 0.
"""

import itertools
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from napari_cvdm.diffusion.process import (
    exponent_at,
    half_log_snr,
    noise_from_clean,
    noise_level,
    signal_level,
)

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(noisy, exponent) -> clean estimate; shapes (..., Y, X)."""

NoiseSource = Callable[[int], Tensor]
"""step -> standard normal noise of the image's shape; step 0 is the start."""

Sampling = Generator[Tensor, None, Tensor]


class Sampler(Protocol):
    """A way from pure noise to a clean estimate."""

    def __call__(
        self,
        denoise: Denoiser,
        rate: Tensor,
        clocks: Sequence[float],
        noise: NoiseSource,
        first: Tensor | None = None,
    ) -> Sampling:
        """The clean estimate at each clock value, in turn."""


LAST_HALF_LOG_SNR = 2.8


def clock_grid(rate: float, evaluations: int, last: float = LAST_HALF_LOG_SNR) -> tuple[float, ...]:
    """Falling clock values, uniform in the half log-SNR of one (the median) rate.

    Parameters
    ----------
    rate : float
        The rate lambda that sets the spacing, > 0; one grid serves all pixels.
    evaluations : int
        N >= 1 points.
    last : float
        Half log-SNR of the last evaluation. 2.8 leaves 6 % of the target's scale as noise. A much
        larger value leaves less noise, but costs accuracy at the earlier points.

    Returns
    -------
    tuple of float
        From T = 1 down to T(last).
    """
    start = half_log_snr(torch.tensor(rate, dtype=torch.float64))
    levels = torch.linspace(float(start), last, evaluations, dtype=torch.float64)
    grid = exponent_at(levels) / rate
    return (1.0, *grid[1:].tolist())


def uniform_time_grid(
    clock: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
    evaluations: int,
    device: torch.device | str = "cpu",
) -> tuple[float, ...]:
    """The published grid: falling clock values T(t) at t = 1, (N-1)/N, ..., 1/N.

    `device` is the device of the clock.
    """
    times = torch.arange(evaluations, 0, -1, dtype=torch.float32, device=device) / evaluations
    return tuple(clock(times)[0].tolist())


def _evaluate(denoise: Denoiser, noisy: Tensor, rate: Tensor, clock: float) -> Tensor:
    return denoise(noisy, rate * clock)


def _extrapolated(
    clean: Tensor, previous: Tensor | None, step: Tensor, previous_step: Tensor | None
) -> Tensor:
    # D of DPM-Solver++(2M), arXiv 2211.01095, algorithm 2; the first step has no history.
    if previous is None or previous_step is None:
        return clean
    return torch.addcmul(clean, step / (2 * previous_step), clean - previous)


def _second_order(
    denoise: Denoiser,
    rate: Tensor,
    clocks: Sequence[float],
    noise: NoiseSource,
    first: Tensor | None,
    update: Callable[..., Tensor],
) -> Sampling:
    noisy = noise(0)
    previous: Tensor | None = None
    previous_step: Tensor | None = None
    level = half_log_snr(rate * clocks[0])
    for index, (now, later) in enumerate(itertools.pairwise(clocks)):
        clean, first = _evaluate(denoise, noisy, rate, now) if first is None else first, None
        yield clean
        next_level = half_log_snr(rate * later)
        step = next_level - level
        direction = _extrapolated(clean, previous, step, previous_step)
        noisy = update(noisy, direction, rate * now, rate * later, step, index + 1)
        previous, previous_step, level = clean, step, next_level
    clean = _evaluate(denoise, noisy, rate, clocks[-1]) if first is None else first
    yield clean
    return clean


def sde_dpm_solver_2m(
    denoise: Denoiser,
    rate: Tensor,
    clocks: Sequence[float],
    noise: NoiseSource,
    first: Tensor | None = None,
) -> Sampling:
    """SDE-DPM-Solver++(2M), the default: second order, stochastic (arXiv 2211.01095, eq. 23).

    z_t = (s_t/s_r) e^-h z_r + a_t (1 - e^-2h) D + s_t sqrt(1 - e^-2h) xi.
    """

    def update(
        noisy: Tensor, direction: Tensor, now: Tensor, later: Tensor, step: Tensor, index: int
    ) -> Tensor:
        fresh, sigma = -torch.expm1(-2 * step), noise_level(later)
        kept = sigma / noise_level(now) * torch.exp(-step) * noisy
        return kept.addcmul_(signal_level(later) * fresh, direction).addcmul_(
            sigma * fresh.sqrt(), noise(index)
        )

    return _second_order(denoise, rate, clocks, noise, first, update)


def ode_dpm_solver_2m(
    denoise: Denoiser,
    rate: Tensor,
    clocks: Sequence[float],
    noise: NoiseSource,
    first: Tensor | None = None,
) -> Sampling:
    """DPM-Solver++(2M): second order, deterministic after the start (arXiv 2211.01095, eq. 20).

    z_t = (s_t/s_r) z_r - a_t expm1(-h) D.
    """

    def update(
        noisy: Tensor, direction: Tensor, now: Tensor, later: Tensor, step: Tensor, index: int
    ) -> Tensor:
        return (
            noise_level(later) / noise_level(now) * noisy
            - signal_level(later) * torch.expm1(-step) * direction
        )

    return _second_order(denoise, rate, clocks, noise, first, update)


def _first_order(
    denoise: Denoiser,
    rate: Tensor,
    clocks: Sequence[float],
    noise: NoiseSource,
    first: Tensor | None,
    update: Callable[..., Tensor],
) -> Sampling:
    noisy = noise(0)
    for index, (now, later) in enumerate(itertools.pairwise(clocks)):
        clean, first = _evaluate(denoise, noisy, rate, now) if first is None else first, None
        yield clean
        noisy = update(noisy, clean, rate * now, rate * later, index + 1)
    clean = _evaluate(denoise, noisy, rate, clocks[-1]) if first is None else first
    yield clean
    return clean


def ddim(
    denoise: Denoiser,
    rate: Tensor,
    clocks: Sequence[float],
    noise: NoiseSource,
    first: Tensor | None = None,
) -> Sampling:
    """DDIM, z_t = a_t x + s_t eps_hat (arXiv 2010.02502, eq. 12, sigma = 0).

    It is of first order, and deterministic after the start.
    """

    def update(noisy: Tensor, clean: Tensor, now: Tensor, later: Tensor, index: int) -> Tensor:
        return signal_level(later) * clean + noise_level(later) * noise_from_clean(
            noisy, clean, now
        )

    return _first_order(denoise, rate, clocks, noise, first, update)


def ancestral(
    denoise: Denoiser,
    rate: Tensor,
    clocks: Sequence[float],
    noise: NoiseSource,
    first: Tensor | None = None,
) -> Sampling:
    """Ancestral sampling of DDPM with the exact posterior variance (arXiv 2006.11239, eq. 7).

    It corrects the sampler of the paper.

    v = (s_t/s_r)^2 (1 - e^-(n_r - n_t)), z_t = a_t x + sqrt(s_t^2 - v) eps_hat + sqrt(v) xi.
    """

    def update(noisy: Tensor, clean: Tensor, now: Tensor, later: Tensor, index: int) -> Tensor:
        spread = noise_level(later)
        variance = (spread / noise_level(now)).square() * -torch.expm1(later - now)
        kept = (spread.square() - variance).clamp(min=0).sqrt() * noise_from_clean(
            noisy, clean, now
        )
        return signal_level(later) * clean + kept + variance.sqrt() * noise(index)

    return _first_order(denoise, rate, clocks, noise, first, update)


SAMPLERS: dict[str, Sampler] = {
    "sde-2m": sde_dpm_solver_2m,
    "ode-2m": ode_dpm_solver_2m,
    "ddim": ddim,
    "ancestral": ancestral,
}
