"""The paper's experiments, as short as possible: a table and a figure.

Nothing is trained twice.
"""

import csv
from pathlib import Path

import pytest
import torch
from paper.experiment import COUNTS_ONLY, held_out_fields, read_experiment, runs_of
from paper.experiments import COLUMNS, main

from napari_cvdm.core.request import RequestError
from napari_cvdm.simulate.structures import STRUCTURE_NAMES

RECIPES = Path(__file__).parents[2] / "recipes" / "experiments"
SHORT = """
question = "Which alpha?"
seeds = [1, 2]

[base]
title = "A trial"
task = "widefield-x2"
resolution = "none worth stating"

[base.network]
target = "residual"
denoiser = { widths = [8, 16], blocks = [1, 1], level_channels = 8 }

[base.simulation]
field_px = 32

[base.plan]
mean_steps = 0
diffusion_steps = 3
batch = 2
patch_px = 16
joint = true
pool_fields = 2

[base.validation]
fields = 2
samples = 2
evaluations = 2
largest_px = 32

[variants."with"]
plan.alpha = 1e-3

[variants."without"]
plan.alpha = 0.0
"""


@pytest.fixture
def experiments(tmp_path):
    """Two files that have a variant in common."""
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text(SHORT)
    second.write_text(
        SHORT.replace('"without"', '"global"').replace(
            "plan.alpha = 0.0", 'network.schedule = "global"'
        )
    )
    return first, second


@pytest.mark.stress
def test_an_experiment_ends_in_a_table_and_a_figure_and_trains_nothing_twice(experiments, tmp_path):
    out = tmp_path / "out"
    main([*map(str, experiments), "--out", str(out), "--device", "cpu"])
    assert len(list((out / "runs").iterdir())) == 6  # three different recipes, two seeds
    for path in experiments:
        with (out / path.stem / "table.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == 4
        assert set(COLUMNS) <= set(rows[0])
        assert (out / path.stem / "figure.png").read_bytes().startswith(b"\x89PNG")
        assert "| with |" in (out / path.stem / "table.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.safetensors")}
    table = (out / "first" / "table.csv").read_bytes()
    main([str(experiments[0]), "--out", str(out), "--device", "cpu"])
    assert {
        path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.safetensors")
    } == before
    assert (out / "first" / "table.csv").read_bytes() == table


@pytest.mark.stress
def test_every_model_is_scored_on_every_set_of_fields(tmp_path):
    path, out = tmp_path / "unseen.toml", tmp_path / "out"
    sets = (
        '[judged."rings"]\nsimulation.structures = '
        '["rings"]\n[judged."nothing"]\nsimulation.structures = ["nothing"]\n'
    )
    path.write_text(SHORT.replace("seeds = [1, 2]", "seeds = [1]") + sets)
    main([str(path), "--out", str(out), "--device", "cpu"])
    with (out / "unseen" / "table.csv").open(newline="") as stream:
        rows = {row["variant"]: row for row in csv.DictReader(stream)}
    assert list(rows) == [
        "with, on rings",
        "with, on nothing",
        "without, on rings",
        "without, on nothing",
    ]
    assert (
        rows["with, on rings"]["model"]
        == rows["with, on nothing"]["model"]
        != rows["without, on rings"]["model"]
    )
    assert rows["with, on rings"]["RMSE"] != rows["with, on nothing"]["RMSE"]


@pytest.mark.stress
def test_a_network_that_sees_no_deconvolution_is_scored_on_the_same_fields(tmp_path):
    """The recipes of the two experiments of super-resolution, with a step each."""
    for name, rows in (("deconvolution", 2), ("textures", 4)):
        path, out = tmp_path / f"{name}.toml", tmp_path / "out"
        text = (
            (RECIPES / path.name)
            .read_text()
            .replace("[1, 2]", "[1]")
            .replace("fields = 32", "fields = 1")
            .replace("pool_fields = 64", "pool_fields = 1")
        )
        path.write_text(text)
        main([str(path), "--out", str(out), "--device", "cpu", "--steps-factor", "0.001"])
        with (out / name / "table.csv").open(newline="") as stream:
            assert len(list(csv.DictReader(stream))) == rows
    experiment = read_experiment(RECIPES / "deconvolution.toml")
    whole, counts = (
        held_out_fields(experiment, out, {"validation": {"fields": 2}}, task)
        for task in ("widefield-x2", COUNTS_ONLY.name)
    )
    for one, other in zip(whole, counts, strict=True):
        assert torch.equal(one.truth, other.truth)
        assert torch.equal(one.channels[: len(other.channels)], other.channels)


def test_what_is_left_out_of_an_experiment_is_what_it_is_judged_on(tmp_path):
    unseen = read_experiment(RECIPES / "unseen-structure.toml")
    drawn = {
        run.variant: set(run.recipe.simulation.structures) for run in runs_of(unseen, tmp_path)
    }
    assert drawn.pop("all structures") == set(STRUCTURE_NAMES)
    assert {f"without {name}": set(STRUCTURE_NAMES) - {name} for name in unseen.judged} == drawn


def test_the_recipes_differ_only_in_what_they_ask(tmp_path):
    found = {
        name: read_experiment(RECIPES / f"{name}.toml") for name in ("l-gamma", "schedule", "alpha")
    }
    assert found["l-gamma"].base == found["schedule"].base == found["alpha"].base
    recipes = {
        name: {run.recipe.fingerprint for run in runs_of(one, tmp_path)}
        for name, one in found.items()
    }
    assert recipes["l-gamma"] < recipes["alpha"]
    assert len(recipes["schedule"] & recipes["alpha"]) == 3  # the pixel-wise one


def test_a_file_that_is_no_experiment_is_refused(tmp_path):
    path = tmp_path / "no.toml"
    path.write_text("question = 'why?'")
    with pytest.raises(RequestError, match=r"alpha\.toml is an example"):
        read_experiment(path)
