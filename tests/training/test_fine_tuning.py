"""Fine-tuning: what moves, what is kept, and what is said about it."""

import csv
from dataclasses import replace
from functools import partial
from math import pi, sqrt
from pathlib import Path

import pytest
import torch
from conftest import few_steps

from napari_cvdm.core.request import RequestError, TrainRequest
from napari_cvdm.core.result import Stop
from napari_cvdm.core.result import finished as drained
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.training.loop import train
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.validation import pool_errors, sum_errors

FINE_TUNING = """
name = "tuned"
title = "A tiny model, tuned"
task = "widefield-x2"
resolution = "none worth stating"
seed = 3

[start]
model = "{model}"
part = "{part}"

[simulation]
field_px = 48
photons = [50.0, 60.0]

[validation]
fields = 2
every = 2
samples = 2
evaluations = 2
largest_px = 32
{validation}
[plan]
mean_steps = 4
diffusion_steps = 4
batch = 2
patch_px = 32
learning_rate = {rate}
ema_decay = 0.5
pool_fields = 3
fields_per_step = 0.25
log_every = 1
save_every = 2
"""
pytestmark = pytest.mark.usefixtures("few_solver_steps")


def request_in(folder, model, part="all", rate=1e-3, validation=""):
    """A fine-tuning of a model, in a folder."""
    path = folder / "recipe.toml"
    path.write_text(
        FINE_TUNING.format(
            model=Path(model).as_posix(), part=part, rate=rate, validation=validation
        )
    )
    return TrainRequest(recipe=str(path), out=str(folder / "out"), device="cpu")


@pytest.fixture
def request_for(tmp_path, tiny_widefield_model):
    """A fine-tuning of the tiny model."""
    return partial(request_in, tmp_path, tiny_widefield_model)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_widefield_model):
    """A fine-tuning that nobody disturbed: its request, and what came of it."""
    request = request_in(tmp_path_factory.mktemp("whole"), tiny_widefield_model)
    with few_steps():
        return request, drained(train(request))


@pytest.mark.parametrize(
    ("part", "moved"),
    [
        ("all", {"mean", "denoiser", "schedule"}),
        ("denoiser", {"denoiser"}),
        ("schedule", {"schedule"}),
    ],
)
def test_only_the_named_part_moves(request_for, tiny_widefield_model, part, moved):
    request = request_for(part)
    for step in train(request):
        assert step.stage in ("mean", "diffusion")
        if step.step == 3 and step.stage == "diffusion":
            break
    tuned = load_checkpoint(Path(request.out) / "so-far").network.state_dict()
    before = load_checkpoint(tiny_widefield_model).network.state_dict()
    changed = {
        name.split(".")[0]
        for name, tensor in before.items()
        if not torch.equal(tensor, tuned[name])
    }
    names = {"rate_network": "schedule", "clock": "schedule", "residual_scale": "mean"}
    assert {names.get(name, name) for name in changed} == moved


def test_both_models_are_scored_on_the_same_fields(whole):
    _, trained = whole
    assert trained.start is not None and trained.score is not None
    assert (
        trained.start.baseline_rmse == trained.score.baseline_rmse
    )  # the physical estimate is no model's
    assert trained.better == (trained.score.crps < trained.start.crps)
    assert trained.card.metrics["held_out"]["start"]["rmse"] == trained.start.rmse
    assert trained.card.metrics["held_out"]["new"]["rmse"] == trained.score.rmse


def test_weights_that_only_got_worse_are_not_kept(request_for, tiny_widefield_model):
    """A learning rate that wrecks the network: the best look was the one before the first step."""
    request = request_for(part="denoiser", rate=30.0)
    trained = drained(train(request))
    before, after = (
        load_checkpoint(folder).network.state_dict()
        for folder in (tiny_widefield_model, request.out)
    )
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert trained.score == trained.start
    assert not trained.better


def test_patience_ends_a_stage(request_for):
    steps = list(train(request_for(part="denoiser", rate=30.0, validation="patience = 1\n")))
    assert steps[-1].step == 2


def test_a_stage_ends_when_asked_and_the_next_one_begins(request_for):
    steps = train(request_for())
    next(steps)
    following = steps.send(Stop.KEEP)
    assert (following.stage, following.step) == ("diffusion", 1)


@pytest.mark.parametrize("stop_after", [1, 3, 4, 6])
def test_a_resumed_fine_tuning_is_the_uninterrupted_one(whole, tmp_path, stop_after):
    request, trained = whole
    cut = replace(request, out=str(tmp_path))
    steps = train(cut)
    for _ in range(stop_after):
        next(steps)
    steps.close()
    resumed = drained(train(replace(cut, resume=True)))
    assert (resumed.score, resumed.start) == (trained.score, trained.start)
    logs = (Path(out, "log.csv").read_bytes() for out in (cut.out, request.out))
    assert next(logs) == next(logs)
    first, second = (
        load_checkpoint(folder).network.state_dict() for folder in (request.out, cut.out)
    )
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_looks_are_written_to_the_log(whole):
    request, _ = whole
    rows = list(csv.DictReader((Path(request.out) / "log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows if row["held_out_crps"]] == ["2", "4", "2", "4"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ('part = "all"', "part is 'mean'; allowed are all, denoiser, schedule"),
        ("[validation]", "leave \\[network\\] out"),
        ('task = "widefield-x2"', "is for widefield-x2"),
        ("every = 2", "every is -1"),
        ("samples = 2", "samples is 1"),
        ("fields = 2", "fields is 0"),
    ],
)
def test_a_fine_tuning_that_cannot_be_is_refused(request_for, given, words):
    request = request_for()
    wrong = {
        'part = "all"': 'part = "mean"',
        "[validation]": "[network]\nfold = 2\n[validation]",
        'task = "widefield-x2"': 'task = "phase-2shot"',
        "every = 2": "every = -1",
        "samples = 2": "samples = 1",
        "fields = 2": "fields = 0",
    }[given]
    path = Path(request.recipe)
    text = path.read_text().replace(given, wrong)
    path.write_text(
        text.replace("field_px = 48", "field_px = [48, 48]") if "phase" in wrong else text
    )
    with pytest.raises(RequestError, match=words):
        read_recipe(path)


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_spread_ratio_and_crps_are_those_of_normal_distributions(spread):
    """A calibrated ensemble has the ratio 1 for any S, and the CRPS 1 / sqrt(pi).

    Truth from N(0, 1), samples from N(0, s^2).
    """
    generator = torch.Generator().manual_seed(0)
    truth, samples = (
        torch.randn(1, 1, 300, 300, generator=generator),
        spread * torch.randn(4, 1, 300, 300, generator=generator),
    )
    score = pool_errors(sum_errors(samples, 0 * truth, 2 * truth, truth), samples=4)
    error = sqrt(1 + spread**2 / 4)
    assert score.spread_ratio == pytest.approx(sqrt(1.25) * spread / error, rel=0.01)
    assert score.crps == pytest.approx(sqrt(2 * (1 + spread**2) / pi) - spread / sqrt(pi), rel=0.02)
    assert (score.rmse, score.centre_rmse) == pytest.approx((error, 1), rel=0.01)
