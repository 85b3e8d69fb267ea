"""Laws of the levelling by empty medium."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from napari_cvdm.intensity import noise_sigma
from napari_cvdm.microscope import Microscope
from napari_cvdm.physics.tie import us_tie_of
from napari_cvdm.simulate.phase import defocus_pair_of
from napari_cvdm.simulate.samples import CELL_MARGIN_PX, CELL_MICROSCOPE, _cells_beyond_the_frame, cell_phase
from napari_cvdm.tasks.levelling import (
    FLATNESS_RAD,
    LARGEST_DRIFT,
    MOST_WAVES,
    Levelling,
    block_means,
    densest_value,
    drift_deviations,
    find_background,
    find_medium,
    level_by_medium,
    levelling_over,
    wave_numbers,
)

MICROSCOPE = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.337)
SHAPE = (150, 205)
DERIVATIVE_SIGMA = 0.002


def waves_of(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A drift that photon noise may make, drawn wave by wave."""
    y, x = np.arange(shape[0])[:, None] / shape[0], np.arange(shape[1])[None, :] / shape[1]
    drift = np.zeros(shape)
    for (ky, kx), deviation in zip(wave_numbers(), drift_deviations(shape, DERIVATIVE_SIGMA, MICROSCOPE), strict=True):
        angle = 2 * np.pi * (ky * y + kx * x)
        drift += deviation * (rng.normal() * np.cos(angle) + rng.normal() * np.sin(angle))
    return drift


def cell(shape: tuple[int, int], height: float = 2.0) -> np.ndarray:
    """One dome in the middle of empty medium."""
    y, x = np.arange(shape[0])[:, None] - shape[0] / 2, np.arange(shape[1])[None, :] - shape[1] / 2
    return height * (1 - (y**2 + x**2) / (0.25 * min(shape)) ** 2).clip(min=0)


def levelling_of(phase: np.ndarray) -> Levelling:
    found = level_by_medium(phase, DERIVATIVE_SIGMA, MICROSCOPE)
    assert found is not None
    return found


@pytest.mark.parametrize("shape", [SHAPE, (128, 96), (301, 301)])
@pytest.mark.parametrize("sign", [1, -1])
def test_planted_drifts_are_taken_out_of_the_object_too(shape: tuple[int, int], sign: int):
    truth = sign * cell(shape)
    drifts = [waves_of(np.random.default_rng(seed), shape) for seed in range(12)]
    pairs = [(drift, level_by_medium(truth + drift, DERIVATIVE_SIGMA, MICROSCOPE)) for drift in drifts]
    errors = [(drift, found.apply(truth + drift) - truth) for drift, found in pairs if found is not None]
    assert len(errors) > 6
    before, after = (np.mean([np.square(pair[part] - pair[part].mean()) for pair in errors], axis=0) for part in (0, 1))
    assert after.mean() < 0.6**2 * before.mean()
    assert after[truth != 0].mean() < before[truth != 0].mean()


def test_a_flat_medium_is_left_as_it_is():
    truth = cell(SHAPE)
    assert_allclose(levelling_of(truth).apply(truth), truth, atol=0.02)


def test_levelling_is_linear_and_keeps_the_mean():
    rng, found = np.random.default_rng(0), levelling_of(cell(SHAPE))
    first, second = rng.normal(size=SHAPE), rng.normal(size=SHAPE)
    assert_allclose(found.apply(2 * first - second), 2 * found.apply(first) - found.apply(second), atol=1e-10)
    assert_allclose(found.apply(first + 0.3).mean(), first.mean() + 0.3, atol=1e-10)


def test_the_drift_of_samples_is_small_over_the_medium_and_open_inside_the_object():
    """Samples that each carry a drift keep what the medium cannot tell: more in the middle of the object."""
    rng, truth = np.random.default_rng(1), cell(SHAPE)
    found = levelling_of(truth)
    left = np.stack([found.apply(waves_of(rng, SHAPE)) for _ in range(60)]).std(axis=0)
    drifting = np.stack([waves_of(rng, SHAPE) for _ in range(60)]).std(axis=0)
    middle = truth > 0.8 * truth.max()
    outside = truth == 0
    assert left[outside].mean() < left[middle].mean() < drifting[middle].mean()


@pytest.mark.parametrize("flatness_rad", [0.05, 0.002])
def test_the_estimator_is_the_posterior_mean(flatness_rad: float):
    """Against the textbook form with the covariance of the data: C A^T (A C A^T + s^2)^-1."""
    shape, rng = (96, 128), np.random.default_rng(2)
    medium = rng.uniform(size=(24, 32)) < 0.2
    deviations = np.concatenate([[1.0], np.full(2 * len(wave_numbers()), 0.1)])
    found = levelling_over(medium, 4, shape, deviations, flatness_rad=flatness_rad)
    identity = np.eye(len(deviations))
    centres = (np.argwhere(medium) + 0.5) * 4 - 0.5
    angle = 2 * np.pi * (centres / shape) @ wave_numbers().T
    design = np.concatenate([np.ones((len(centres), 1)), np.cos(angle), np.sin(angle)], axis=1)
    prior = identity * deviations**2
    expected = prior @ design.T @ np.linalg.inv(design @ prior @ design.T + flatness_rad**2 * np.eye(len(centres)))
    assert_allclose(found.estimator, expected, atol=1e-8)


def test_a_drift_on_the_field_is_that_of_its_waves():
    shape = (70, 81)
    medium = np.ones((17, 20), bool)
    deviations = np.concatenate([[5.0], np.full(2 * len(wave_numbers()), 5.0)])
    y, x = np.arange(shape[0])[:, None] / shape[0], np.arange(shape[1])[None, :] / shape[1]
    wave = 0.4 + np.cos(2 * np.pi * (2 * y - x)) + 0.5 * np.sin(2 * np.pi * (y + 3 * x))
    assert_allclose(levelling_over(medium, 4, shape, deviations).drift(wave), wave, atol=0.1)


@pytest.mark.parametrize(
    "phase",
    [np.zeros(SHAPE), np.full(SHAPE, 3.0), cell(SHAPE, 1e-4), cell((40, 200))],
    ids=["blank", "constant", "lost in noise", "too small"],
)
def test_no_levelling_without_objects_clear_of_the_drift(phase: np.ndarray):
    assert level_by_medium(phase, DERIVATIVE_SIGMA, MICROSCOPE) is None


def test_hills_and_valleys_have_no_medium():
    y, x = np.arange(SHAPE[0])[:, None] / SHAPE[0], np.arange(SHAPE[1])[None, :] / SHAPE[1]
    assert level_by_medium(3 * np.sin(2 * np.pi * 2 * y) * np.sin(2 * np.pi * 3 * x), DERIVATIVE_SIGMA, MICROSCOPE) is None


def test_a_drift_that_noise_cannot_make_is_left_to_the_user():
    """A lens under the whole field is an object, however smooth: nothing is taken away."""
    y, x = np.arange(SHAPE[0])[:, None] / SHAPE[0], np.arange(SHAPE[1])[None, :] / SHAPE[1]
    noise = np.sqrt(np.square(drift_deviations(SHAPE, DERIVATIVE_SIGMA, MICROSCOPE)).sum())
    lens = 4 * LARGEST_DRIFT * noise * np.cos(2 * np.pi * x) * np.cos(2 * np.pi * y)
    assert level_by_medium(cell(SHAPE) + lens, DERIVATIVE_SIGMA, MICROSCOPE) is None


def test_the_densest_value_is_the_commonest_and_no_average():
    values = np.concatenate([np.full(300, 0.5), np.linspace(1, 9, 700)])
    assert densest_value(np.random.default_rng(0).permutation(values).reshape(20, 50)) == pytest.approx(0.5)


def test_block_means_leave_out_what_fills_no_block():
    image = np.arange(7 * 10, dtype=float).reshape(7, 10)
    means = block_means(image, 4)
    assert means.shape == (1, 2)
    assert means[0, 1] == image[:4, 4:8].mean()


def test_medium_is_found_beside_objects_only():
    means = block_means(cell(SHAPE), 4)
    medium = find_medium(means, 0.05)
    assert medium is not None
    assert not medium[means > 0.1].any()
    assert medium[means == 0].mean() > 0.8


def test_one_of_each_pair_of_waves_is_kept():
    numbers = {tuple(int(k) for k in pair) for pair in wave_numbers()}
    assert (0, 0) not in numbers
    assert not any((-ky, -kx) in numbers for ky, kx in numbers)
    assert (MOST_WAVES, 0) in numbers
    assert (0, MOST_WAVES) in numbers


@pytest.mark.parametrize("defocus_um", [(-1.0, 1.0), (-1.5, 1.5), (0.0, 2.0)])
def test_soft_edges_of_cells_in_noise_are_not_taken_for_medium(defocus_um: tuple[float, float]):
    """Over several noises the error of US-TIE falls, and in no single one does it rise by a tenth."""
    whole = _cells_beyond_the_frame()
    planes = defocus_pair_of(whole, np.zeros_like(whole), CELL_MICROSCOPE, defocus_um)[:, CELL_MARGIN_PX:-CELL_MARGIN_PX, CELL_MARGIN_PX:-CELL_MARGIN_PX]
    before, after = [], []
    for seed in range(5):
        noisy = np.random.default_rng(seed).poisson(planes * 1e4) / 1e4
        phase = us_tie_of(torch.from_numpy(noisy), defocus_um, CELL_MICROSCOPE).numpy()
        sigma = np.hypot(*(noise_sigma(plane) for plane in noisy)) / (defocus_um[1] - defocus_um[0])
        found = level_by_medium(phase, float(sigma), CELL_MICROSCOPE)
        before.append(np.std(phase - cell_phase()))
        after.append(np.std((phase if found is None else found.apply(phase)) - cell_phase()))
    assert np.mean(after) < 0.8 * np.mean(before)
    assert np.max(np.array(after) / before) < 1.1


def test_the_background_is_the_commonest_phase():
    phase = 0.7 + cell(SHAPE)
    level, background, share = find_background(phase)
    assert level == pytest.approx(phase[background].mean())
    assert_array_equal(background, np.abs(phase - 0.7) < FLATNESS_RAD)
    assert share == pytest.approx(background.mean())
