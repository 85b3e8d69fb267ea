"""Laws of the prior that follows edges.

Its operators, where it is tight, and that it makes estimates better.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.result import finished
from napari_cvdm.inversion import Fit, fit_local_prior, fit_object
from napari_cvdm.inversion.gauss_newton import measure_local_precision, solve_round
from napari_cvdm.inversion.priors import LocalPrecision, divergence, gradients, laplacian
from napari_cvdm.physics.forward_model import PhaseForwardModel

AIR = Microscope(pixel_um=0.21, wavelength_um=0.521)
SIDE, CANVAS, PHOTONS = 96, 128, 400.0


def steps(side: int) -> np.ndarray:
    """Flat pieces of 0 to 3 rad."""
    y, x = np.mgrid[0:side, 0:side] / side
    pieces = 2.0 * (x + 0.3 * y > 0.6) + 1.0 * ((x - 0.4) ** 2 + (y - 0.5) ** 2 < 0.05)
    return gaussian_filter(pieces, 0.7, mode="wrap")


def dome(side: int) -> np.ndarray:
    """Smooth everywhere."""
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    return 2.5 * np.exp(-(x**2 + y**2) / 0.05)


def fit_of(phase: np.ndarray) -> Fit:
    """Two noisy planes of a part of a field, inverted."""
    model = PhaseForwardModel.create(
        (SIDE, SIDE), (-1.0, 1.0), AIR, canvas_shape=phase.shape, like=torch.zeros(1)
    )
    maps = torch.from_numpy(np.stack([np.zeros_like(phase), phase])).float()
    expected = model.apply(replace(model.zero(), maps=maps))
    weight = torch.full_like(expected, PHOTONS)
    noise = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    return finished(fit_object(model, expected + noise / PHOTONS**0.5, weight))


def error(fit: Fit, phase: np.ndarray) -> float:
    """Standard deviation of the difference within the frame [rad]."""
    return float(np.std(fit.phase.numpy() - phase[fit.model.frame]))


@pytest.fixture(scope="module")
def step_fit() -> Fit:
    return fit_of(steps(CANVAS))


def test_divergence_is_the_adjoint_of_the_gradient():
    image, flow = torch.randn(9, 7, dtype=torch.float64), torch.randn(2, 9, 7, dtype=torch.float64)
    torch.testing.assert_close((gradients(image) * flow).sum(), (image * divergence(flow)).sum())


def test_the_laplacian_of_a_wave_is_its_frequency_squared():
    """To second order: a wave twice as long has a quarter of the error."""
    errors = []
    for size in (32, 64):
        wave = torch.cos(2 * torch.pi * torch.arange(size, dtype=torch.float64) / size).expand(
            size, size
        )
        errors.append(float((laplacian(wave) * (size / (2 * torch.pi)) ** 2 + wave).abs().max()))
    assert errors[1] == pytest.approx(errors[0] / 4, rel=0.05)


def test_equal_weights_are_diagonal_in_fourier_space():
    """What the preconditioner takes the operator for is then exact."""
    weight = torch.ones(12, 10, dtype=torch.float64)
    local, phase = (
        LocalPrecision(gradient=3 * weight, curvature=5 * weight),
        torch.randn(12, 10, dtype=torch.float64),
    )
    there = torch.fft.irfft2(torch.fft.rfft2(phase) * local.spectrum(), s=phase.shape)
    torch.testing.assert_close(local.apply(phase), there)


def test_a_phase_of_flat_pieces_becomes_better(step_fit):
    found = finished(fit_local_prior(step_fit))
    assert error(found, steps(CANVAS)) < 0.7 * error(step_fit, steps(CANVAS))


def test_a_smooth_phase_becomes_no_worse():
    fit = fit_of(dome(CANVAS))
    assert error(finished(fit_local_prior(fit)), dome(CANVAS)) < 1.05 * error(fit, dome(CANVAS))


def test_the_prior_is_wide_at_edges_alone_and_constant_around_the_frame(step_fit):
    local, (rows, columns) = measure_local_precision(step_fit), step_fit.model.frame
    steep = gradients(torch.from_numpy(steps(CANVAS)))[:, rows, columns].abs().amax(dim=0) > 0.5
    for weight in (local.gradient, local.curvature):
        assert weight[rows, columns][steep].median() < 0.2 * weight[rows, columns].median()
        outside = torch.ones(weight.shape, dtype=torch.bool)
        outside[rows, columns] = False
        assert weight[outside].unique().numel() == 1


def test_a_round_lowers_the_cost(step_fit):
    def cost(fit: Fit) -> float:
        return float(
            (fit.weight * fit.residual.square()).sum() / 2 + fit.prior.penalty(fit.estimate)
        )

    fit = replace(step_fit, prior=replace(step_fit.prior, local=measure_local_precision(step_fit)))
    assert cost(finished(solve_round(fit, 10))) < cost(fit)


@pytest.mark.parametrize("shape", [(5, 7), (16, 1), (33, 8)])
def test_small_fields_and_planes_without_noise_have_an_answer(shape):
    model = PhaseForwardModel.create(
        shape, (-1.0, 1.0), AIR, canvas_shape=shape, like=torch.zeros(1)
    )
    planes = torch.ones((2, *shape))
    for weight in (1e4, 1e12):
        found = finished(
            fit_local_prior(finished(fit_object(model, planes, torch.full_like(planes, weight))))
        )
        assert bool(torch.isfinite(found.phase).all())
