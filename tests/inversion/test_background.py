"""Laws of the flat background: it is found where there is one, and it changes nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.result import finished
from napari_cvdm.inversion import Fit, background, fit_object, flatten_background
from napari_cvdm.inversion.background import (
    LAST_WIDTH_RAD,
    PRIOR_STD_RAD,
    expected_costs,
    find_background,
    flat_change,
    penalty_of,
)
from napari_cvdm.physics.forward_model import PhaseForwardModel, PhaseObject
from napari_cvdm.simulate.phase_objects import dead_leaves
from napari_cvdm.tasks.phase_inversion import draw_phases

AIR = Microscope(pixel_um=0.21, wavelength_um=0.521)
SIDE, CANVAS, PHOTONS = 128, 160, 1e4


def cells(side: int) -> np.ndarray:
    """Two domes of 2 and 3 rad, one of them cut by the frame."""
    y, x = np.mgrid[0:side, 0:side].astype(float)
    domes = [
        np.sqrt((1 - ((y - a) ** 2 + (x - b) ** 2) / r**2).clip(min=0)) * h
        for a, b, r, h in ((60, 95, 22, 3.0), (120, 30, 26, 2.0))
    ]
    return gaussian_filter(np.sum(domes, axis=0) * (1 + 0.2 * np.sin(y / 2 + x)), 1.0)


def leaves(side: int) -> np.ndarray:
    """Structure everywhere."""
    return gaussian_filter(
        3 * dead_leaves(np.random.default_rng(0), (side, side)).astype(float), 1.0
    )


def fit_of(phase: np.ndarray) -> Fit:
    """Two noisy planes of a part of a field, inverted."""
    model = PhaseForwardModel.create(
        (SIDE, SIDE), (-2.0, 2.0), AIR, canvas_shape=phase.shape, like=torch.zeros(1)
    )
    maps = torch.from_numpy(np.stack([np.zeros_like(phase), phase])).float()
    expected = model.apply(replace(model.zero(), maps=maps))
    weight = PHOTONS / expected.clamp(min=0.01)
    noise = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    return finished(fit_object(model, expected + noise / weight.sqrt(), weight))


def error(fit: Fit, phase: np.ndarray) -> float:
    """Standard deviation of the difference within the frame [rad]."""
    return float(np.std(fit.phase.numpy() - phase[fit.model.frame]))


@pytest.fixture(scope="module")
def cell_fit() -> Fit:
    return fit_of(cells(CANVAS))


def test_a_bent_background_becomes_flat_and_the_cells_better(cell_fit):
    found = finished(flatten_background(cell_fit))
    empty = cells(CANVAS)[cell_fit.model.frame] == 0
    assert found.prior.flat is not None
    assert found.phase.numpy()[empty].std() < 0.5 * cell_fit.phase.numpy()[empty].std()
    assert error(found, cells(CANVAS)) < 0.7 * error(cell_fit, cells(CANVAS))
    assert float(found.chi2) < 1.02 * float(cell_fit.chi2)


def test_background_is_background(cell_fit):
    found = find_background(cell_fit)
    assert found is not None
    assert (cells(CANVAS)[found.numpy() > 0] < LAST_WIDTH_RAD).mean() > 0.98


def test_draws_know_that_the_background_is_flat(cell_fit):
    found = finished(flatten_background(cell_fit))
    inside = found.prior.flat > 0
    before, after = (
        finished(draw_phases(fit, 0, [0, 1]))[:, inside].std(dim=1).mean()
        for fit in (cell_fit, found)
    )
    assert after < 0.85 * before


@pytest.mark.parametrize("weight", [1e12, 1e25])
def test_planes_without_noise_have_an_answer(cell_fit, weight):
    found = finished(
        flatten_background(replace(cell_fit, weight=torch.full_like(cell_fit.weight, weight)))
    )
    assert bool(torch.isfinite(found.phase).all())


def test_a_field_without_background_stays_as_it_is():
    fit = fit_of(leaves(CANVAS))
    assert finished(flatten_background(fit)) is fit


@pytest.mark.parametrize("shape", [(5, 7), (16, 1), (33, 8)])
def test_small_fields_have_an_answer(shape):
    model = PhaseForwardModel.create(
        shape, (-1.0, 1.0), AIR, canvas_shape=shape, like=torch.zeros(1)
    )
    planes = 1 + 0.01 * torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    found = finished(
        flatten_background(finished(fit_object(model, planes, torch.full_like(planes, 1e4))))
    )
    assert bool(torch.isfinite(found.phase).all())


def test_a_background_that_really_bends_is_not_made_flat():
    """A bend that the data see, of many times the noise, stays."""
    y, x = np.mgrid[0:CANVAS, 0:CANVAS] / CANVAS
    bend = 2 * np.sin(2 * np.pi * 3 * y) * np.sin(2 * np.pi * 3 * x)
    fit = fit_of(cells(CANVAS) + bend)
    assert finished(flatten_background(fit)) is fit


def test_more_steps_change_the_background_no_further(cell_fit, monkeypatch):
    flat = find_background(cell_fit) / PRIOR_STD_RAD**2
    few = finished(flat_change(cell_fit, flat)).maps[1]
    monkeypatch.setattr(background, "FLAT_STEPS", 300)
    many = finished(flat_change(cell_fit, flat)).maps[1]
    assert (few - many).std() < 0.2 * many.std()


def test_noise_costs_what_is_expected(cell_fit):
    """Draws about the fit, flat in the background, cost `expected_costs` on average."""
    flat = find_background(cell_fit) / LAST_WIDTH_RAD**2
    costs = []
    for draw in finished(draw_phases(cell_fit, 0, [0, 1, 2])):
        sample = PhaseObject(
            maps=torch.stack([torch.zeros_like(draw), draw]),
            illumination=torch.zeros_like(cell_fit.estimate.illumination),
        )
        costs.append(
            penalty_of(cell_fit, finished(flat_change(replace(cell_fit, estimate=sample), flat)))
        )
    assert np.mean(costs) == pytest.approx(expected_costs(cell_fit, flat)[0], rel=0.4)
