"""The models that ship, on the sample images: laws that a tiny random network cannot show."""

from dataclasses import fields, replace

import numpy as np
import pytest

from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.core.result import finished as drained
from napari_cvdm.core.statistics import carried_calibration
from napari_cvdm.models.registry import load_model, shipped_models
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.simulate.samples import (
    CELL_DEFOCUS_UM,
    CELL_MARGIN_PX,
    CELL_MICROSCOPE,
    MEASURED_DEFOCUS_UM,
    _wide_cells,
    cell_phase,
    cell_planes,
    measured_cell_planes,
    microtubules,
    reticulum,
    reticulum_pair,
)
from napari_cvdm.simulate.scenes import defocus_pair_of

pytestmark = pytest.mark.usefixtures("remembered_inversions")
INNER = (slice(CELL_MARGIN_PX, -CELL_MARGIN_PX),) * 2


def reconstructed(image, model, **settings):
    """Drain a reconstruction by a shipped model."""
    return drained(
        reconstruct(
            ReconstructionRequest(image=image, model=model, device="cpu", **settings),
            load_model(model),
        )
    )


def rmse(found, truth):
    difference = found - truth
    return float(np.std(difference))


def part_of(image, height=128, width=128):
    """The upper left corner of an image."""
    return replace(image, array=image.array[..., :height, :width])


def planes_at(defocus_um, seed=0):
    """The sample cells, focused elsewhere."""
    whole = _wide_cells()
    planes = defocus_pair_of(whole, np.zeros_like(whole), CELL_MICROSCOPE, defocus_um)[
        (slice(None), *INNER)
    ]
    return replace(
        cell_planes(), array=np.random.default_rng(seed).poisson(planes * 20_000).astype(np.uint16)
    )


@pytest.mark.usefixtures("few_solver_steps")
def test_tiles_do_not_choose_the_pixels_of_the_phase():
    """The network that ships sees farther than a tiny one: its halo is what is tested."""
    image = part_of(cell_planes(), 168, 152)
    settings = {"samples": 1, "steps": 2, "defocus_um": (-2.5, 2.5)}
    whole, tiled = (
        reconstructed(image, "phase-2shot", tile=side, **settings) for side in (1024, 64)
    )
    assert np.abs(whole.mean - tiled.mean).max() <= 1e-5 * np.ptp(whole.mean)
    assert np.abs(whole.rate - tiled.rate).max() <= 1e-5 * np.ptp(whole.rate)


@pytest.mark.usefixtures("few_solver_steps")
def test_tiles_do_not_choose_the_pixels_of_the_fluorescence():
    image = part_of(reticulum(), 168, 152)
    whole, tiled = (
        reconstructed(image, "widefield-x2", samples=1, steps=2, tile=side) for side in (1024, 64)
    )
    assert np.abs(whole.mean - tiled.mean).max() <= 1e-5 * np.ptp(whole.mean)


def test_one_plane_in_focus_is_enough():
    results = [
        reconstructed(part_of(planes_at(pair)), "phase-2shot", samples=2, steps=2, defocus_um=pair)
        for pair in ((-1.0, 1.0), (0.0, 2.0))
    ]
    errors = [rmse(result.mean, cell_phase()[:128, :128]) for result in results]
    assert max(errors) < 0.8 * 0.054  # rad, of version 0.1.0
    assert max(errors) < 0.1 * np.std(cell_phase()) + 0.02
    assert all(
        0.8 < result.forward.chi2 < 1.2 for result in results
    )  # the network keeps off what many photons decide


def test_a_phase_of_bright_planes_explains_them_up_to_the_noise():
    settings = {"samples": 2, "steps": 2, "defocus_um": CELL_DEFOCUS_UM}
    result = reconstructed(cell_planes(), "phase-2shot", **settings)
    assert 0.8 < result.forward.chi2 < 1.2
    assert result.provenance.quality_flag == "green"


@pytest.mark.parametrize(
    ("sample", "model", "defocus_um"),
    [
        (measured_cell_planes, "phase-2shot", MEASURED_DEFOCUS_UM),
        (reticulum, "widefield-x2", None),
        (microtubules, "widefield-x2", None),
    ],
)
def test_the_samples_of_the_package_are_green(sample, model, defocus_um):
    """Two samples instead of eight: the mean is rougher, and the check no easier."""
    result = reconstructed(sample(), model, samples=2, defocus_um=defocus_um)
    assert result.provenance.quality_flag == "green"


@pytest.mark.usefixtures("few_solver_steps")
def test_planes_in_the_other_order_and_with_the_other_sign_give_the_same_phase():
    """(a, b) at (-z, z) is (b, a) at (z, -z), to the bit."""
    image = part_of(planes_at((-2.5, 2.5)))
    turned = replace(image, array=image.array[::-1].copy())
    settings = {"samples": 1, "steps": 2}
    first = reconstructed(image, "phase-2shot", defocus_um=(-2.5, 2.5), **settings)
    second = reconstructed(turned, "phase-2shot", defocus_um=(2.5, -2.5), **settings)
    np.testing.assert_array_equal(first.mean, second.mean)


def test_the_mean_is_nearer_to_the_truth_than_a_sample_and_than_the_image():
    image = part_of(reticulum())
    result = reconstructed(image, "widefield-x2", samples=4, keep_samples=True)
    truth = reticulum_pair().truth[:256, :256]
    cubic = np.kron(image.array - np.percentile(image.array, 1), np.ones((2, 2)))
    assert rmse(result.mean, truth) < rmse(result.samples[0], truth) < rmse(cubic, truth)


@pytest.mark.usefixtures("few_solver_steps")
def test_twice_the_light_gives_twice_the_counts():
    image = part_of(reticulum())
    once, twice = (
        reconstructed(
            replace(image, array=image.array * factor), "widefield-x2", samples=1, steps=2
        ).mean
        for factor in (1.0, 2.0)
    )
    assert np.abs(twice - 2 * once).max() < 1e-3 * np.ptp(twice)


@pytest.mark.parametrize("name", [card.name for _, card in shipped_models()])
def test_a_run_with_the_defaults_has_a_calibrated_interval(name: str):
    card, asked = (
        load_model(name).card,
        {entry.name: entry.default for entry in fields(ReconstructionRequest)},
    )
    carried = carried_calibration(
        card.calibration, asked["samples"], asked["steps"], asked["sampler"]
    )
    assert carried["factor"] > 0
    assert card.calibration["fields"] >= 100
