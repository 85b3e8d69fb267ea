"""From a user's request to a recipe.

Pairs are saved, the pace is measured, and the steps fit into the time.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_cvdm.core.microscope import OpticsError
from napari_cvdm.core.request import ImageStack, RequestError, TrainRequest
from napari_cvdm.core.result import finished as drained
from napari_cvdm.models.checkpoint import read_card
from napari_cvdm.models.registry import model_folder
from napari_cvdm.simulate.ranges import ranges_for
from napari_cvdm.simulate.scenes import simulate_phase
from napari_cvdm.training.fine_tuning import (
    LOOKING_SHARE,
    RECIPE,
    FineTuning,
    LayerPairs,
    Pace,
    Simulated,
    TimeLeft,
    fine_tuning_recipe,
    fit_looks,
    fit_steps,
    measure_pace,
    prepare,
    unfinished_runs,
)
from napari_cvdm.training.loop import train
from napari_cvdm.training.pairs import Folders, save_pairs
from napari_cvdm.training.recipe import InitialModel, read_recipe
from napari_cvdm.training.state import STATE, kept_if_resumable


@pytest.fixture
def recipe(tiny_widefield_model):
    """A fine-tuning of the tiny model for a described microscope."""
    source = Simulated(
        ranges=ranges_for("widefield-x2", {"na": 0.8, "pixel_um": 0.11, "medium_index": 1.0})
    )
    start = InitialModel(model=str(tiny_widefield_model))
    return fine_tuning_recipe(
        name="mine",
        start=start,
        card=read_card(tiny_widefield_model),
        source=source,
        patch_px=32,
        batch=2,
    )


def test_a_described_phase_microscope_makes_planes_at_its_own_distance():
    known = {
        "pixel_um": 0.2,
        "wavelength_um": 0.55,
        "medium_index": 1.337,
        "na": None,
        "photons": 1e4,
        "strength_rad": 2.0,
    }
    ranges = ranges_for("phase-2shot", known, defocus_um=(-1.0, 2.0))
    for seed in range(4):
        pair = simulate_phase(seed, replace(ranges, na=(0.3, 0.31), field_px=(64, 64)))
        assert pair.defocus_um[-1] - pair.defocus_um[0] == pytest.approx(3.0)
        assert np.ptp(pair.phase) <= 2.0 + 1e-3
        assert pair.microscope.wavelength_um == 0.55


def test_a_microscope_that_cannot_be_is_refused():
    with pytest.raises(OpticsError, match="na"):
        ranges_for("widefield-x2", {"na": 1.4, "medium_index": 1.0})
    with pytest.raises(RequestError, match="wavelength_um"):
        ranges_for("phase-2shot", {"pixel_um": 0.2}, defocus_um=(-1.0, 1.0))


def test_few_fields_are_solved_for_a_described_microscope_and_pairs_keep_the_pool_of_the_model():
    """A field of the shipped model takes longer than a step, since it is deconvolved first.

    Measured pairs are few.
    """
    card, start = read_card(model_folder("widefield-x2")), InitialModel(model="widefield-x2")
    plans = {
        kind: fine_tuning_recipe(name="mine", start=start, card=card, source=source).plan
        for kind, source in (
            ("described", Simulated(ranges=ranges_for(card.task, {"na": 1.4}))),
            ("pairs", Folders(measured="measured", truth="truth")),
        )
    }
    assert (plans["described"].pool_fields, plans["described"].fields_per_step) == (24, 0.1)
    assert plans["pairs"].pool_fields == card.training["plan"]["pool_fields"] > 24


def test_what_is_not_said_is_as_the_model_was_made(tiny_widefield_model):
    source, start = (
        Simulated(ranges=ranges_for("widefield-x2", {})),
        InitialModel(model="widefield-x2"),
    )
    card = read_card(Path(__file__).parents[2] / "src/napari_cvdm/models/weights/widefield-x2")
    recipe = fine_tuning_recipe(name="mine", start=start, card=card, source=source)
    made = card.training["plan"]
    assert (recipe.plan.batch, recipe.plan.patch_px, recipe.plan.alpha) == (
        made["batch"],
        made["patch_px"],
        made["alpha"],
    )
    assert 0 < recipe.plan.learning_rate < made["learning_rate"]
    assert recipe.limits[: len(card.limits)] == card.limits


@pytest.mark.parametrize("minutes", [10.0, 60.0, 480.0])
@pytest.mark.parametrize("part", ["all", "denoiser"])
def test_the_steps_and_the_looks_fill_the_time(recipe, minutes, part):
    recipe = replace(
        recipe,
        start=replace(recipe.start, part=part),
        plan=replace(recipe.plan, patch_px=72, batch=5),
    )
    pace = Pace(step_s={"mean": 0.1, "diffusion": 0.3} if part == "all" else {"diffusion": 0.3})
    planned = fit_steps(recipe, pace, minutes)
    training_s = (
        planned.plan.mean_steps * pace.step_s.get("mean", 0.0)
        + planned.plan.diffusion_steps * pace.step_s["diffusion"]
    )
    assert training_s == pytest.approx(60 * minutes * (1 - LOOKING_SHARE), rel=0.01)
    assert (planned.plan.mean_steps > 0) == (part == "all")
    looks = (planned.plan.mean_steps + planned.plan.diffusion_steps) / planned.validation.every
    assert 2 <= looks <= 30


def test_looks_are_fewer_where_they_cost_more(recipe):
    pace = Pace(step_s={"mean": 0.1, "diffusion": 0.3})
    cheap, dear = (
        fit_looks(replace(recipe, validation=replace(recipe.validation, samples=samples)), pace)
        for samples in (2, 64)
    )
    assert dear.validation.every > cheap.validation.every


def test_the_pace_of_every_stage_that_is_trained_is_measured(recipe):
    assert set(drained(measure_pace(recipe, "cpu")).step_s) == {"mean", "diffusion"}
    fixed_mean = replace(recipe, start=replace(recipe.start, part="schedule"))
    found = drained(measure_pace(fixed_mean, "cpu"))
    assert set(found.step_s) == {"diffusion"}
    assert found.step_s["diffusion"] > 0


def test_the_time_left_counts_the_stages_to_come(recipe):
    plan = replace(recipe.plan, mean_steps=100, diffusion_steps=50)
    left = TimeLeft(plan, Pace(step_s={"mean": 1.0, "diffusion": 2.0}))
    assert left.after("mean", 1) == pytest.approx(99 * 1.0 + 50 * 2.0)
    assert left.after("diffusion", 10) == pytest.approx(40 * 2.0)


@pytest.fixture
def stacks():
    """Three fields of view of two channels, and truths twice as fine."""
    rng = np.random.default_rng(0)
    measured = ImageStack(
        array=rng.poisson(100, (3, 2, 24, 20)).astype(np.uint16),
        axes="TCYX",
        pixel_um=0.1,
        source="measured",
    )
    truth = ImageStack(
        array=rng.random((3, 2, 48, 40)).astype(np.float32),
        axes="TCYX",
        pixel_um=0.05,
        source="truth",
    )
    return measured, truth


def test_saved_pairs_are_found_again_field_by_field(stacks, tmp_path):
    measured, truth = stacks
    folders = drained(save_pairs(measured, truth, "widefield-x2", tmp_path))
    entries = Folders(measured=str(folders[0]), truth=str(folders[1])).entries("widefield-x2")
    assert len({entry.view for entry in entries}) == 3
    pairs = [entry.load() for entry in entries]
    assert np.array_equal([pair.measured[0] for pair in pairs], measured.array.reshape(-1, 24, 20))
    assert np.array_equal([pair.truth for pair in pairs], truth.array.reshape(-1, 48, 40))
    assert pairs[0].measured.dtype == np.uint16  # saturation can still be seen
    assert pairs[0].optics["pixel_um"] == pytest.approx(0.1)


def test_two_planes_stay_together(tmp_path):
    rng = np.random.default_rng(0)
    planes = ImageStack(
        array=rng.random((2, 2, 24, 24)).astype(np.float32),
        axes="TPYX",
        pixel_um=0.2,
        source="planes",
    )
    phase = ImageStack(
        array=rng.random((2, 24, 24)).astype(np.float32), axes="TYX", pixel_um=0.2, source="phase"
    )
    folders = drained(save_pairs(planes, phase, "phase-2shot", tmp_path))
    entries = Folders(measured=str(folders[0]), truth=str(folders[1])).entries("phase-2shot")
    assert np.array_equal([entry.load().measured for entry in entries], planes.array)


def test_frames_without_a_truth_are_refused(stacks, tmp_path):
    measured, truth = stacks
    with pytest.raises(RequestError, match="T 3 C 2, and truth T 2 C 2"):
        drained(
            save_pairs(
                measured, replace(truth, array=truth.array[:2]), "widefield-x2", tmp_path / "pairs"
            )
        )
    assert not (tmp_path / "pairs").exists()


def test_a_prepared_run_is_trained_from_its_folder_alone(stacks, tiny_widefield_model, tmp_path):
    measured, truth = (replace(stack, array=stack.array.astype(np.float32)) for stack in stacks)
    alike = replace(
        truth, array=np.repeat(np.repeat(measured.array, 2, -1), 2, -2)
    )  # a truth of the same field
    start = InitialModel(model=str(tiny_widefield_model))
    recipe = fine_tuning_recipe(
        name="mine",
        start=start,
        card=read_card(tiny_widefield_model),
        source=Folders(measured="", truth=""),
        patch_px=16,
        batch=2,
        mean_steps=2,
        diffusion_steps=2,
    )
    asked = FineTuning(
        recipe=recipe,
        folder=tmp_path / "runs" / "mine",
        layers=LayerPairs(measured=measured, truth=alike),
        device="cpu",
    )
    request, _ = drained(prepare(asked))
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    moved = TrainRequest(
        recipe=str(tmp_path / "elsewhere" / "mine" / RECIPE),
        out=str(tmp_path / "again"),
        device="cpu",
    )
    assert Path(request.recipe).name == RECIPE
    trained = drained(train(moved))
    assert trained.start is not None
    assert trained.card.title.endswith("fine-tuned from tiny-widefield-x2")
    with pytest.raises(RequestError, match="holds a run already"):
        next(prepare(replace(asked, folder=tmp_path / "elsewhere" / "mine")))


def test_images_smaller_than_a_patch_are_refused_in_words(stacks, tiny_widefield_model, tmp_path):
    measured, _ = stacks
    alike = ImageStack(
        array=np.repeat(np.repeat(measured.array, 2, -1), 2, -2),
        axes="TCYX",
        pixel_um=0.05,
        source="truth",
    )
    folders = drained(save_pairs(measured, alike, "widefield-x2", tmp_path))
    start = InitialModel(model=str(tiny_widefield_model))
    source = Folders(measured=str(folders[0]), truth=str(folders[1]))
    recipe = fine_tuning_recipe(
        name="mine",
        start=start,
        card=read_card(tiny_widefield_model),
        source=source,
        patch_px=32,
        mean_steps=1,
    )
    request, _ = drained(prepare(FineTuning(recipe=recipe, folder=tmp_path / "run", device="cpu")))
    with pytest.raises(RequestError, match="24 x 20 px; choose a patch that fits"):
        drained(train(request))


def test_only_what_can_be_resumed_is_left_after_an_error(tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    for folder in (tmp_path / "new", full, tmp_path / "resumable"):
        with pytest.raises(RequestError), kept_if_resumable(folder):
            folder.mkdir(exist_ok=True)
            (folder / "log.csv").touch()
            if folder.name == "resumable":
                (folder / STATE).touch()
            raise RequestError("no")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "resumable"]


def test_runs_that_can_be_gone_on_with_are_found(tmp_path):
    for name, files in {
        "stopped": (STATE, RECIPE),
        "done": (STATE, RECIPE, "card.json"),
        "foreign": (STATE,),
    }.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    assert [run.name for run in unfinished_runs(tmp_path)] == ["stopped"]


def test_the_recipe_of_a_run_is_the_one_that_was_asked_for(recipe, tmp_path):
    asked = FineTuning(recipe=recipe, folder=tmp_path / "run", minutes=1.0, device="cpu")
    request, pace = drained(prepare(asked))
    assert read_recipe(request.recipe) == fit_steps(recipe, pace, 1.0)
