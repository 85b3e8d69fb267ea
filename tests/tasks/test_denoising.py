"""One fluorescence image without its noise: the task and its simulation.

Also tested: everything that knows a task only by its name.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint
from paper.experiment import read_experiment, runs_of

from napari_cvdm.checks.check_model import SameGridCheckModel
from napari_cvdm.checks.forward_check import LIMIT, verdict
from napari_cvdm.core.intensity import dark_level
from napari_cvdm.core.request import ImageStack, ReconstructionRequest, TrainRequest
from napari_cvdm.core.result import ForwardCheck
from napari_cvdm.core.result import finished as drained
from napari_cvdm.evaluation.pair_sets import simulated_pairs
from napari_cvdm.export.sampler import OneStep, OneStepFromCounts
from napari_cvdm.io import write_image
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.physics.camera import CameraNoise, photon_transfer
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.simulate.ranges import RANGES, DenoisingRanges
from napari_cvdm.simulate.scenes import draw_scene, simulate_noisy, simulate_widefield
from napari_cvdm.simulate.structures import mitochondria, splat
from napari_cvdm.tasks import TASKS, Denoise
from napari_cvdm.training.loop import train
from napari_cvdm.training.measured import align_pair
from napari_cvdm.training.pairs import Folders
from napari_cvdm.training.recipe import read_recipe, write_recipe
from napari_cvdm.training.sources import SimulatedFields, split_measured

CLAIMS = Path(__file__).parents[2] / "recipes" / "experiments" / "claims-denoising.toml"
SMALL = DenoisingRanges(field_px=48)
DIM = replace(SMALL, photons=(40, 40), background=(0.1, 0.1), haze=(0, 0))
BRIGHT = replace(DIM, photons=(400, 400))


def thick(rng, side, pixel_um):
    return splat(mitochondria(rng, (side * pixel_um,) * 2), (side, side), pixel_um)


def assert_blank(field):
    """A flat truth, at the level of the noise around it."""
    assert float(field.truth.std()) < 1e-5
    assert float(field.truth.mean()) == pytest.approx(
        float(field.initial_estimate.mean()),
        abs=5 * float(field.initial_estimate.std()) / field.initial_estimate.numel() ** 0.5,
    )


def test_the_simulated_truth_is_the_mean_of_many_noisy_images():
    draws, scene, pair = 400, draw_scene(3, DIM, thick), simulate_noisy(3, DIM, thick)
    many = np.stack([replace(scene, seed=seed).exposed() for seed in range(draws)]).astype(float)
    expected = pair.truth + dark_level(pair.counts)
    deviations = (many.mean(axis=0) - expected) / (many.std(axis=0, ddof=1) / np.sqrt(draws))
    assert np.abs(deviations).max() < 5.5
    assert deviations.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_noise_neither_adds_nor_takes_light(seed):
    pair = simulate_noisy(seed, SMALL)
    noise = pair.counts - dark_level(pair.counts) - pair.truth
    assert abs(noise.mean()) < 5 * noise.std() / np.sqrt(noise.size)


def test_it_is_the_image_of_the_super_resolution_and_only_the_truth_differs():
    noisy, sharp = simulate_noisy(5, SMALL), simulate_widefield(5, SMALL)
    np.testing.assert_array_equal(noisy.counts, sharp.counts)
    assert sharp.truth.shape == tuple(2 * size for size in noisy.truth.shape)


def test_the_estimate_that_is_built_upon_is_the_image_itself():
    counts = np.random.default_rng(0).poisson(30, (1, 40, 52)).astype(np.uint16)
    prepared = Denoise().condition(counts, "auto")
    np.testing.assert_allclose(
        prepared.initial_estimate * prepared.gain + prepared.estimated["dark_level"],
        counts[0],
        rtol=1e-5,
    )
    assert torch.equal(prepared.initial_estimate, prepared.channels[0])


def test_what_is_learned_is_the_noise_and_nothing_else():
    field = SimulatedFields(ranges=DIM, seed=0).field(0)
    noise = field.truth - field.initial_estimate
    assert abs(float(noise.mean())) < 5 * float(noise.std()) / noise.numel() ** 0.5
    assert_blank(SimulatedFields(ranges=DIM, seed=0).blank(0))


@pytest.fixture
def measured_pairs(tmp_path):
    """Two noisy images, and long exposures of the same fields in another unit and level."""
    found = [
        simulate_noisy(seed, BRIGHT, thick) for seed in (1, 6)
    ]  # with enough structure in the middle to fit a gain to
    for number, pair in enumerate(found):
        for name, pixels in (("measured", pair.counts), ("truth", 3 * pair.truth + 70)):
            (tmp_path / name).mkdir(exist_ok=True)
            write_image(
                tmp_path / name / f"{number}.tif",
                pixels,
                axes="YX",
                pixel_um=pair.microscope.pixel_um,
                unit="counts",
                name=name,
            )
    return found, Folders(measured=str(tmp_path / "measured"), truth=str(tmp_path / "truth"))


def test_measured_pairs_in_any_unit_are_those_of_the_simulation(measured_pairs):
    pairs, folders = measured_pairs
    for pair, entry in zip(pairs, folders.entries("denoise"), strict=True):
        measured, truth = align_pair(entry.load(), "denoise", register=False)
        np.testing.assert_array_equal(measured[0], pair.counts)
        np.testing.assert_allclose(truth, pair.truth, atol=0.02 * np.ptp(pair.truth))


def test_a_blank_field_of_measured_pairs_has_the_level_of_its_noise(measured_pairs):
    source = split_measured(
        measured_pairs[1].entries("denoise"), "denoise", 0, 0.5, register=False
    ).training
    assert_blank(source.blank(0))


def test_a_checkpoint_restores_onto_the_grid_of_the_image_the_same_whole_and_in_tiles(tmp_path):
    model = load_checkpoint(tiny_checkpoint("denoise", tmp_path / "tiny"))
    pair = simulate_noisy(1, DIM, thick)
    image = ImageStack(array=pair.counts, axes="YX", pixel_um=0.065, source="noisy")
    request = ReconstructionRequest(image=image, model="", samples=2, steps=3, seed=1, device="cpu")
    whole, tiled = (drained(reconstruct(replace(request, tile=tile), model)) for tile in (64, 32))
    assert whole.mean.shape == pair.counts.shape
    assert (whole.pixel_um, whole.unit) == (0.065, "counts")
    np.testing.assert_allclose(whole.mean, tiled.mean, rtol=1e-3, atol=1e-2)
    assert whole.forward is not None
    assert whole.forward.chi2 is not None  # without any optics


def test_the_truth_leaves_noise_over_and_a_blank_leaves_structure():
    pair = simulate_noisy(2, BRIGHT, thick)
    signal, gain, offset = (
        pair.counts - dark_level(pair.counts),
        1 / pair.camera.gain_e_per_count,
        pair.camera.offset_counts,
    )
    level = dark_level(pair.counts) - offset
    noise = CameraNoise(
        gain=gain, read_variance=gain * level + (pair.camera.read_noise_e * gain) ** 2 + 1 / 12
    )
    how = SameGridCheckModel(measured=signal, noise=noise, valid=np.ones(signal.shape, bool))
    for image in (pair.truth, 2 * pair.truth + 30):  # a gain and a level are free, and said
        assert how.compare(image).chi2(how.valid) == pytest.approx(1, abs=0.12)
    assert how.compare(pair.truth).gain == pytest.approx(1, abs=0.03)
    assert how.compare(np.zeros_like(signal)).chi2(how.valid) > 3
    assert how.compare(pair.truth[::-1]).chi2(how.valid) > 3


def test_fields_to_judge_by_are_those_of_the_task():
    pair = simulated_pairs(1, 600_000, DIM).pairs[0]()
    assert pair.truth.shape == pair.request.image.array.shape
    assert pair.tags["structure"] in DIM.structures


def test_one_evaluation_from_counts_is_that_from_the_channels(tmp_path):
    network = load_checkpoint(tiny_checkpoint("denoise", tmp_path / "tiny")).network
    counts = simulate_noisy(4, DIM, thick).counts
    prepared = Denoise().condition(counts[None], "auto")
    found = []
    for kind, inputs in (
        (OneStep, (prepared.channels[None], prepared.initial_estimate[None, None])),
        (OneStepFromCounts, (torch.from_numpy(counts)[None, None],)),
    ):
        one = kind(network.config).eval()
        one.load_state_dict(network.state_dict())
        with torch.inference_mode():
            found.append(one(*inputs))
    torch.testing.assert_close(found[0] * prepared.gain, found[1], rtol=1e-3, atol=1e-2)


def test_the_recipe_of_the_experiment_comes_back_trains_and_restores(tmp_path):
    run = next(
        run for run in runs_of(read_experiment(CLAIMS), tmp_path, 0.001) if run.variant == "CVDM"
    )
    recipe = replace(
        run.recipe,
        plan=replace(run.recipe.plan, patch_px=16, pool_fields=2, batch=2),
        simulation=replace(run.recipe.simulation, field_px=32),
        validation=replace(run.recipe.validation, fields=1, samples=2, evaluations=2),
    )
    assert read_recipe(write_recipe(recipe, tmp_path / "short.toml")) == recipe
    assert RANGES["denoise"] is type(recipe.simulation)
    drained(
        train(
            TrainRequest(
                recipe=str(tmp_path / "short.toml"), out=str(tmp_path / "model"), device="cpu"
            )
        )
    )
    model = load_checkpoint(tmp_path / "model")
    assert (model.card.task, model.card.unit, model.card.inputs) == (
        "denoise",
        "counts",
        TASKS["denoise"].inputs,
    )
    image = ImageStack(array=simulate_noisy(7, SMALL).counts, axes="YX", pixel_um=0.065)
    assert drained(
        reconstruct(
            ReconstructionRequest(image=image, model="", samples=1, steps=2, device="cpu"), model
        )
    ).mean.shape == (48, 48)


@pytest.mark.parametrize(("kept", "explained"), [(0.0, True), (0.5, False), (1.0, False)])
def test_what_keeps_the_noise_is_not_explained(kept: float, explained: bool):
    pair = simulate_noisy(5, BRIGHT, thick)
    measured, truth = pair.counts - dark_level(pair.counts), pair.truth.astype(float)
    imaging = SameGridCheckModel(
        measured=measured,
        noise=photon_transfer(measured, np.ones(measured.shape, bool)),
        valid=np.ones(measured.shape, bool),
    )
    chi2 = imaging.compare(truth + kept * (measured - truth)).chi2(imaging.valid)
    check = ForwardCheck(chi2=chi2, limit=LIMIT, verdict=verdict(chi2, LIMIT, None, ""))
    assert check.explained is explained
    assert ("repeats the noise" in check.verdict) is not explained


def test_above_a_dark_image_nothing_more_is_taken_off_what_keeps_its_background():
    light = np.random.default_rng(0).poisson(140, (1, 48, 48)).astype(float)
    dark = np.full((48, 48), 100.0)
    levels = [
        task.condition(light, dark).estimated["dark_level"]
        for task in (TASKS["denoise"], TASKS["widefield-x2"])
    ]
    assert levels == [0, 0]
