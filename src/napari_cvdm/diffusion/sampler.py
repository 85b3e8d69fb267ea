"""Samplers of the reverse process, elementwise in a pixel-wise schedule.

A sampler is a function of callables. It evaluates the denoiser once at every point of a falling
grid of clock values T. It is a generator: it yields every clean estimate on the way, so that the
caller can show a preview or cancel, and it returns the last one. If the clean estimate at the first
point is already known, the caller gives it as `first`, and it is not evaluated again.

Who evaluates the denoiser part by part takes the `QUERIES` of a sampler, and answers each.

Notation at two grid points r (noisier) -> t: a = sqrt(gamma), s = sqrt(1 - gamma), l = log(a/s),
h = l_t - l_r > 0.
"""

from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from napari_cvdm.diffusion.process import (
    half_log_snr,
    neg_log_gamma_at,
    noise_from_clean,
    noise_level,
    signal_level,
)

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(noisy, neg_log_gamma) -> clean estimate; shapes (..., Y, X)."""

NoiseSource = Callable[[int], Tensor]
"""step -> standard normal noise of the image's shape; step 0 is the start."""

Sampling = Generator[Tensor, None, Tensor]

Queries = Generator[tuple[Tensor, Tensor], Tensor, None]
"""Yields what the denoiser takes, and is sent the clean estimate: once for each clock value."""

Fresh = Callable[[], Tensor]
"""() -> fresh noise, which a deterministic sampler does not ask for."""

Update = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Fresh], Tensor]
"""(noisy, clean, n_r, n_t, h, fresh noise) -> noisy at t."""

LAST_HALF_LOG_SNR = 2.8


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


def clock_grid(rate: float, evaluations: int, last: float = LAST_HALF_LOG_SNR) -> tuple[float, ...]:
    """Falling clock values from T = 1 to T(last), uniform in the half log-SNR of one rate.

    Parameters
    ----------
    rate : float
        The rate lambda that sets the spacing, > 0, the median; one grid serves all pixels.
    evaluations : int
        N >= 1 points.
    last : float
        Half log-SNR of the last evaluation. 2.8 leaves 6 % of the target's scale as noise. A much
        larger value leaves less noise, but costs accuracy at the earlier points.
    """
    start = half_log_snr(torch.tensor(rate, dtype=torch.float64))
    levels = torch.linspace(float(start), last, evaluations, dtype=torch.float64)
    grid = neg_log_gamma_at(levels) / rate
    return (1.0, *grid[1:].tolist())  # the first is 1 but for rounding


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


def _sample(
    denoise: Denoiser,
    rate: Tensor,
    clocks: Sequence[float],
    noise: NoiseSource,
    first: Tensor | None = None,
    *,
    name: str,
) -> Sampling:
    queries = QUERIES[name](rate, clocks, noise)
    query = next(queries)
    for number in range(len(clocks)):
        clean = denoise(*query) if first is None or number else first
        yield clean
        query = next_query(queries, clean) or query  # none follows the last
    return clean


def next_query(queries: Queries, clean: Tensor) -> tuple[Tensor, Tensor] | None:
    """Answer a query; what the denoiser takes next, or None after the last one."""
    try:
        return queries.send(clean)
    except StopIteration:
        return None


def _query(
    rate: Tensor,
    clocks: Sequence[float],
    noise: NoiseSource,
    *,
    update: Update,
    second_order: bool = False,
) -> Queries:
    noisy = noise(0)
    before: tuple[Tensor, Tensor] | None = None
    clean = yield noisy, rate * clocks[0]
    for index, (now, later) in enumerate(pairwise(clocks), start=1):
        step = half_log_snr(rate * later) - half_log_snr(rate * now)
        direction = clean
        if second_order:
            if before is not None:  # D of DPM-Solver++(2M), arXiv 2211.01095, algorithm 2
                direction = torch.addcmul(clean, step / (2 * before[1]), clean - before[0])
            before = clean, step
        fresh = partial(noise, index)  # not drawn here: deterministic updates ask for none
        noisy = update(noisy, direction, rate * now, rate * later, step, fresh)
        clean = yield noisy, rate * later


def _sde_dpm_solver_2m(
    noisy: Tensor, clean: Tensor, now: Tensor, later: Tensor, step: Tensor, noise: Fresh
) -> Tensor:
    """SDE-DPM-Solver++(2M), the default: second order, stochastic (arXiv 2211.01095, eq. 23).

    z_t = (s_t/s_r) e^-h z_r + a_t (1 - e^-2h) D + s_t sqrt(1 - e^-2h) xi.
    """
    fresh, sigma = -torch.expm1(-2 * step), noise_level(later)
    kept = sigma / noise_level(now) * torch.exp(-step) * noisy
    return kept.addcmul_(signal_level(later) * fresh, clean).addcmul_(sigma * fresh.sqrt(), noise())


def _ode_dpm_solver_2m(
    noisy: Tensor, clean: Tensor, now: Tensor, later: Tensor, step: Tensor, noise: Fresh
) -> Tensor:
    """DPM-Solver++(2M): second order, deterministic after the start (arXiv 2211.01095, eq. 20).

    z_t = (s_t/s_r) z_r - a_t expm1(-h) D.
    """
    return (
        noise_level(later) / noise_level(now) * noisy
        - signal_level(later) * torch.expm1(-step) * clean
    )


def _ddim(
    noisy: Tensor, clean: Tensor, now: Tensor, later: Tensor, step: Tensor, noise: Fresh
) -> Tensor:
    """DDIM: first order, deterministic after the start (arXiv 2010.02502, eq. 12, sigma = 0).

    z_t = a_t x + s_t eps_hat.
    """
    return signal_level(later) * clean + noise_level(later) * noise_from_clean(noisy, clean, now)


def _ancestral(
    noisy: Tensor, clean: Tensor, now: Tensor, later: Tensor, step: Tensor, noise: Fresh
) -> Tensor:
    """Ancestral sampling of DDPM with the exact posterior variance (arXiv 2006.11239, eq. 7).

    It corrects the sampler of the paper.

    v = (s_t/s_r)^2 (1 - e^-(n_r - n_t)), z_t = a_t x + sqrt(s_t^2 - v) eps_hat + sqrt(v) xi.
    """
    spread = noise_level(later)
    variance = (spread / noise_level(now)).square() * -torch.expm1(later - now)
    # At least 0 but for rounding.
    kept = (spread.square() - variance).clamp(min=0).sqrt() * noise_from_clean(noisy, clean, now)
    return signal_level(later) * clean + kept + variance.sqrt() * noise()


QUERIES: dict[str, Callable[[Tensor, Sequence[float], NoiseSource], Queries]] = {
    "sde-2m": partial(_query, update=_sde_dpm_solver_2m, second_order=True),
    "ode-2m": partial(_query, update=_ode_dpm_solver_2m, second_order=True),
    "ddim": partial(_query, update=_ddim),
    "ancestral": partial(_query, update=_ancestral),
}
SAMPLERS: dict[str, Sampler] = {name: partial(_sample, name=name) for name in QUERIES}
