"""Laws of the diffusion.

Exactness on Gaussians, order of convergence, closed forms against autograd.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_cvdm.core.result import ClockCurve
from napari_cvdm.diffusion import process
from napari_cvdm.diffusion.loss import (
    cvdm_loss,
    gamma_second_derivative,
    prior_divergence,
    stratified_times,
)
from napari_cvdm.diffusion.process import PREDICTIONS, TARGETS
from napari_cvdm.diffusion.sampler import SAMPLERS, clock_grid, uniform_time_grid
from napari_cvdm.models.schedule import (
    CLOCK_TERMS,
    RATE_MAX,
    RATE_MIN,
    Clock,
    CosineClock,
    LinearClock,
    bounded_rate,
    gamma_and_beta,
)

NEG_LOG_GAMMAS = torch.logspace(-6, 1.6, 60, dtype=torch.float64)


def drained(steps):
    """Run a sampler to its end."""
    return list(steps)[-1]


def gaussian_denoiser(mean, variance):
    """E[y | z] of y ~ N(mean, variance) at every pixel, in closed form."""

    def denoise(noisy, neg_log_gamma):
        a, s = process.signal_level(neg_log_gamma), process.noise_level(neg_log_gamma)
        return (variance * a * noisy + s**2 * mean) / (variance * a**2 + s**2)

    return denoise


def seeded_noise(shape, seed=0, dtype=torch.float64):
    """Independent noise for every step."""
    return lambda step: torch.randn(
        shape, generator=torch.Generator().manual_seed(1000 * seed + step), dtype=dtype
    )


def test_signal_and_noise_share_the_power():
    torch.testing.assert_close(
        process.signal_level(NEG_LOG_GAMMAS) ** 2 + process.noise_level(NEG_LOG_GAMMAS) ** 2,
        torch.ones_like(NEG_LOG_GAMMAS),
    )


def test_half_log_snr_and_neg_log_gamma_are_inverses():
    torch.testing.assert_close(
        process.neg_log_gamma_at(process.half_log_snr(NEG_LOG_GAMMAS)), NEG_LOG_GAMMAS
    )
    assert process.half_log_snr(torch.tensor(200.0)).isfinite()


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_perfect_output_gives_the_clean_target(name):
    target, noise = (
        torch.randn(60, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in (1, 2)
    )
    kind = PREDICTIONS[name]
    noisy = process.add_noise(target, NEG_LOG_GAMMAS, noise)
    torch.testing.assert_close(
        kind.clean(noisy, kind.wanted(target, NEG_LOG_GAMMAS, noise), NEG_LOG_GAMMAS),
        target,
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("name", PREDICTIONS)
def test_noise_error_is_the_error_of_the_noise_that_is_implied(name):
    target, noise, error = (
        torch.randn(60, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in (1, 2, 3)
    )
    kind, neg_log_gamma = PREDICTIONS[name], NEG_LOG_GAMMAS.clamp(min=1e-3)
    noisy = process.add_noise(target, neg_log_gamma, noise)
    implied = process.noise_from_clean(
        noisy,
        kind.clean(noisy, kind.wanted(target, neg_log_gamma, noise) + error, neg_log_gamma),
        neg_log_gamma,
    )
    torch.testing.assert_close(
        implied - noise, kind.noise_error(error, neg_log_gamma), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("name", TARGETS)
def test_targets_centre_on_what_they_say(name):
    initial_estimate, mean_residual = torch.ones(3), torch.full((3,), 0.5)
    expected = {"direct": 0.0, "residual": 1.0, "zero-mean": 1.5, "regression": 1.5}[name]
    torch.testing.assert_close(
        TARGETS[name](initial_estimate, mean_residual), torch.full((3,), expected)
    )


@pytest.mark.parametrize("name", ["sde-2m", "ode-2m"])
def test_second_order_samplers_reproduce_a_gaussian_in_20_evaluations(name):
    pixels, rate = (
        60_000,
        torch.empty(60_000, dtype=torch.float64).uniform_(
            7, 25, generator=torch.Generator().manual_seed(5)
        ),
    )
    mean, deviation = 0.7, 0.5
    steps = SAMPLERS[name](
        gaussian_denoiser(mean, deviation**2),
        rate,
        clock_grid(float(rate.median()), 20),
        seeded_noise(pixels),
    )
    sample = drained(steps)
    assert abs(sample.mean().item() - mean) < 0.03 * deviation
    assert abs(sample.std().item() / deviation - 1) < 0.03


@pytest.mark.parametrize("name", ["ddim", "ancestral"])
def test_first_order_samplers_reach_the_gaussian_with_many_evaluations(name):
    rate = torch.full((40_000,), 9.0, dtype=torch.float64)
    sample = drained(
        SAMPLERS[name](
            gaussian_denoiser(-0.3, 0.49),
            rate,
            clock_grid(9.0, 400, last=4.0),
            seeded_noise(40_000),
        )
    )
    assert abs(sample.mean().item() + 0.3) < 0.02
    assert abs(sample.std().item() / 0.7 - 1) < 0.03


def exact_gaussian_flow(start, rate, clock_end, mean, variance):
    """The probability-flow ODE of a Gaussian keeps the standardised state.

    Then the denoiser is applied.
    """

    def moments(neg_log_gamma):
        a, s = process.signal_level(neg_log_gamma), process.noise_level(neg_log_gamma)
        return a * mean, (variance * a**2 + s**2).sqrt()

    centre, spread = moments(rate)
    centre_end, spread_end = moments(rate * clock_end)
    return centre_end + spread_end * (start - centre) / spread


def order_of(name, counts=(20, 40, 80)):
    """Observed order of convergence of the state under a pixel-wise schedule."""
    rate = torch.linspace(7, 25, 64, dtype=torch.float64)
    noise, mean, variance = seeded_noise(64, 3), 0.4, 0.3
    errors = []
    for count in counts:
        grid = clock_grid(12.0, count)
        exact = exact_gaussian_flow(
            noise(0), rate, grid[-1], mean, torch.tensor(variance, dtype=torch.float64)
        )
        denoise = gaussian_denoiser(mean, variance)
        found = drained(SAMPLERS[name](denoise, rate, grid, noise))
        errors.append((found - denoise(exact, rate * grid[-1])).square().mean().sqrt().item())
    return math.log2(errors[-2] / errors[-1])


def test_ode_2m_is_second_order_and_ddim_first_order_with_a_pixel_wise_schedule():
    assert 1.85 < order_of("ode-2m") < 2.3
    assert 0.85 < order_of("ddim") < 1.2


def test_samplers_yield_every_evaluation_and_return_the_last():
    rate = torch.full((16,), 8.0, dtype=torch.float64)
    for sampler in SAMPLERS.values():
        steps = sampler(gaussian_denoiser(0.0, 1.0), rate, clock_grid(8.0, 5), seeded_noise(16))
        seen = list(steps)
        assert len(seen) == 5
        assert all(image.isfinite().all() for image in seen)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_first_estimate_that_is_known_is_not_evaluated_and_changes_nothing(name, count):
    rate, denoise, evaluated = (
        torch.linspace(RATE_MIN, RATE_MAX, 64, dtype=torch.float64),
        gaussian_denoiser(0.4, 0.3),
        [],
    )
    grid, noise = clock_grid(12.0, count), seeded_noise(64)

    def counted(noisy, neg_log_gamma):
        evaluated.append(neg_log_gamma)
        return denoise(noisy, neg_log_gamma)

    known = list(SAMPLERS[name](counted, rate, grid, noise, denoise(noise(0), rate)))
    assert len(evaluated) == count - 1
    assert all(
        torch.equal(one, other)
        for one, other in zip(known, SAMPLERS[name](denoise, rate, grid, noise), strict=True)
    )


@pytest.mark.parametrize("name", ["sde-2m", "ode-2m"])
def test_samples_that_share_the_first_estimate_reproduce_a_gaussian_as_well(name):
    rate = torch.empty(60_000, dtype=torch.float64).uniform_(
        RATE_MIN, 25, generator=torch.Generator().manual_seed(5)
    )
    denoise, first = gaussian_denoiser(0.7, 0.25), seeded_noise(60_000, seed=1)(0)
    sample = drained(
        SAMPLERS[name](
            denoise,
            rate,
            clock_grid(float(rate.median()), 20),
            seeded_noise(60_000),
            denoise(first, rate),
        )
    )
    assert abs(sample.mean().item() - 0.7) < 0.03 * 0.5
    assert abs(sample.std().item() / 0.5 - 1) < 0.03


def test_one_evaluation_is_the_regression_mean():
    rate = torch.full((1000,), 12.0, dtype=torch.float64)
    seen = drained(
        SAMPLERS["sde-2m"](
            gaussian_denoiser(1.5, 0.2), rate, clock_grid(12.0, 1), seeded_noise(1000)
        )
    )
    assert abs(seen.mean().item() - 1.5) < 0.01
    assert seen.std() < 0.01


@given(count=st.integers(1, 200), rate=st.floats(RATE_MIN, RATE_MAX))
def test_clock_grid_falls_from_one(count, rate):
    grid = clock_grid(rate, count)
    assert grid[0] == 1.0
    assert len(grid) == count
    assert all(later < now for now, later in itertools.pairwise(grid))
    assert grid[-1] > 0


def test_published_grid_is_uniform_in_time():
    clock = Clock()
    grid = uniform_time_grid(clock, 200)
    assert len(grid) == 200
    assert grid[0] == pytest.approx(1.0)
    assert all(later < now for now, later in itertools.pairwise(grid))


def clock_with(seed):
    clock = Clock().double()
    with torch.no_grad():
        clock.weights.copy_(
            torch.randn(
                len(clock.weights),
                generator=torch.Generator().manual_seed(seed),
                dtype=torch.float64,
            )
            * 3
        )
    return clock


@pytest.mark.parametrize(
    "clock",
    [
        *map(clock_with, range(6)),
        *(Clock(terms).double() for terms in CLOCK_TERMS),
        LinearClock(),
        CosineClock(),
    ],
)
def test_clock_runs_from_zero_to_one_and_its_derivatives_are_exact(clock):
    times = torch.linspace(0.002, 0.999, 400, dtype=torch.float64, requires_grad=True)
    value, speed, acceleration = clock(times)
    (first,) = torch.autograd.grad(value.sum(), times, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), times)
    torch.testing.assert_close(speed, first)
    torch.testing.assert_close(acceleration, second)
    ends = clock(torch.tensor([0.0, 1.0], dtype=torch.float64))[0]
    torch.testing.assert_close(
        ends, torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=0, atol=1e-9
    )
    assert (speed > 0).all()


def at(clock, time):
    """The clock at one time."""
    dtype = clock.weights.dtype
    value, speed, _ = clock(torch.tensor(time, dtype=dtype))
    return ClockCurve(times=(time,), values=(value.item(),), speeds=(speed.item(),))


@settings(max_examples=60)
@given(logit=st.floats(-1e6, 1e6), seed=st.integers(0, 1000))
def test_gamma_is_in_the_open_interval_and_falls_for_any_input(logit, seed):
    rate = bounded_rate(torch.tensor([logit], dtype=torch.float32))
    clock = clock_with(seed).float()
    gammas = np.array(
        [
            gamma_and_beta(rate.numpy(), at(clock, time))[0].item()
            for time in np.linspace(0.05, 1, 20)
        ]
    )
    assert ((gammas > 0) & (gammas < 1)).all()
    assert (np.diff(gammas) < 0).all()
    assert gammas[-1] <= 1e-3


@settings(max_examples=30)
@given(rate=st.floats(RATE_MIN, RATE_MAX), seed=st.integers(0, 1000), time=st.floats(0.01, 0.99))
def test_beta_and_gamma_are_tied(rate, seed, time):
    """d gamma/dt = -beta gamma identically, so the paper's L_beta is zero."""
    clock, rates = clock_with(seed), np.array([rate])
    h = 1e-6
    gamma, beta = gamma_and_beta(rates, at(clock, time))
    above, below = (gamma_and_beta(rates, at(clock, time + step))[0] for step in (h, -h))
    np.testing.assert_allclose((above - below) / (2 * h), -beta * gamma, rtol=1e-4, atol=1e-8)


def fitted_clock_error(wanted, rate):
    """Largest error of gamma after the clock's weights were fitted to a wanted schedule."""
    clock = Clock().double()
    optimiser = torch.optim.LBFGS(clock.parameters(), max_iter=300, line_search_fn="strong_wolfe")
    times = torch.linspace(0.005, 0.995, 200, dtype=torch.float64)

    def gap():
        return torch.exp(-rate * clock(times)[0]) - wanted(times)

    def closure():
        optimiser.zero_grad()
        loss = gap().square().mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    return gap().abs().max().item()


def test_the_clock_can_be_linear_gamma_and_close_to_cosine():
    assert fitted_clock_error(lambda t: 1 - t, -math.log(1e-3)) < 0.01
    assert fitted_clock_error(lambda t: torch.cos(torch.pi * t / 2) ** 2, 12.0) < 0.04


def test_second_derivative_of_gamma_matches_autograd():
    clock, rate = clock_with(4), torch.tensor(11.0, dtype=torch.float64)
    times = torch.linspace(0.01, 0.99, 50, dtype=torch.float64, requires_grad=True)
    value, speed, acceleration = clock(times)
    gamma = torch.exp(-rate * value)
    (first,) = torch.autograd.grad(gamma.sum(), times, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), times)
    torch.testing.assert_close(gamma_second_derivative(rate, value, speed, acceleration), second)


def test_smoothness_counts_every_item_of_a_batch():
    """The official code regularised the first item only; here all items weigh alike."""
    target, noise = torch.zeros(4, 1, 2, 2), torch.zeros(4, 1, 2, 2)
    rates = torch.full((4, 1, 2, 2), 10.0)
    clock, times = Clock(), torch.full((4, 1, 1, 1), 0.4)

    def smoothness(rate):
        return cvdm_loss(
            lambda noisy, neg_log_gamma: noisy,
            PREDICTIONS["v"],
            rate,
            clock,
            target,
            times,
            noise,
            1.0,
        ).smoothness.item()

    changes = []
    for item in range(4):
        changed = rates.clone()
        changed[item] = 20.0
        changes.append(smoothness(changed) - smoothness(rates))
    assert changes == pytest.approx([changes[0]] * 4)
    assert changes[0] != 0


def test_prior_divergence_is_zero_only_for_pure_noise():
    target = torch.ones(1, 1, 4, 4)
    assert prior_divergence(target, torch.full_like(target, 30.0)).item() < 1e-10
    assert prior_divergence(target, torch.full_like(target, 2.0)).item() > 0.05


def test_perfect_network_has_no_noise_loss():
    generator = torch.Generator().manual_seed(0)
    target, noise = (torch.randn(3, 1, 4, 4, generator=generator) for _ in range(2))
    times, clock, rate = stratified_times(3, generator), Clock(), torch.full((3, 1, 4, 4), 9.0)
    wanted = PREDICTIONS["v"].wanted(target, rate * clock(times)[0], noise)
    terms = cvdm_loss(
        lambda noisy, neg_log_gamma: wanted,
        PREDICTIONS["v"],
        rate,
        clock,
        target,
        times,
        noise,
        1e-3,
    )
    assert terms.network.item() == pytest.approx(0, abs=1e-10)
    assert terms.noise.item() == pytest.approx(0, abs=1e-10)
    assert terms.schedule.item() == pytest.approx(
        2 * terms.prior.item() + 2 * terms.smoothness.item()
    )


def test_times_are_stratified():
    times = stratified_times(10, torch.Generator().manual_seed(3)).flatten()
    assert ((times * 10).floor() == torch.arange(10)).all()


def test_the_published_grid_is_made_where_its_clock_lives():
    with (
        torch.device("meta"),
        pytest.raises(NotImplementedError),
    ):  # a meta tensor has no values to list, but got that far
        uniform_time_grid(Clock(), 4, "meta")
