"""The paper's own setting, small: the same fields for both tasks, and a table at any time."""

from dataclasses import asdict

import numpy as np
import paper.paper_setting as setting
import pytest
import torch
from paper.experiment import carry_out, held_out_fields, read_experiment, runs_of
from paper.phase_fields import photograph_fields
from skimage.io import imsave

from napari_cvdm.training.sources import load_training_field
from napari_cvdm.training.validation import Validation

pytestmark = pytest.mark.usefixtures("few_solver_steps")
SIDE = 32
NAMES = ("camera", "coins")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A recipe of short trainings, and the folder with the fields of both tasks."""
    for registry in (setting.TASKS, setting.RANGES, setting.FIELDS, setting.INTENSITIES):
        for task in (setting.ALONE, setting.AROUND):
            monkeypatch.setitem(registry, task.name, None)  # taken out again after the test
    monkeypatch.setattr(setting, "PHOTOGRAPHS", NAMES)
    monkeypatch.setattr(setting, "scored_fields", lambda: photograph_fields(SIDE, names=NAMES))
    look = Validation(fields=len(NAMES), samples=2, evaluations=2, largest_px=SIDE)
    monkeypatch.setattr(setting, "LOOK", look)
    photographs, recipe, out = (tmp_path / name for name in ("photographs", "small.toml", "out"))
    photographs.mkdir()
    pixels = np.random.default_rng(0).integers(256, size=(64, 64), dtype=np.uint8)
    imsave(photographs / "one.png", pixels, check_contrast=False)
    text = setting.RECIPE.read_text(encoding="utf-8")
    for old, new in (
        ("[1, 2, 3]", "[1]"),
        ("patch_px = 64", "patch_px = 32"),
        ("fields = 12", "fields = 2"),
        ("[base.simulation]", f"[base.simulation]\nfield_px = [{SIDE}, {SIDE}]"),
    ):
        assert old in text
        text = text.replace(old, new)
    recipe.write_text(text, encoding="utf-8")
    monkeypatch.setattr(setting, "RECIPE", recipe)
    words = ["--photographs", str(photographs), "--count", "1"]
    setting.main(["fields", "--out", str(out), *words])
    return recipe, out


def test_the_table_tells_what_is_complete_and_what_is_missing(small, capsys):
    recipe, out = small
    runs = runs_of(read_experiment(recipe), out, 1e-4)
    carry_out(runs[1], "cpu")
    setting.main(["table", "--out", str(out), "--steps-factor", "1e-4"])
    text = capsys.readouterr().out
    assert f"| {runs[1].variant} | 1 |" in text
    for run in (runs[0], *runs[2:]):
        assert f"| {run.variant} |" not in text
        assert f"{run.variant}, seed 1" in text


def test_both_tasks_have_the_same_planes_and_truths(small):
    recipe, out = small
    experiment = read_experiment(recipe)
    for run in runs_of(experiment, out)[:2]:
        task, solved = run.recipe.task, run.recipe.solved
        held_out = held_out_fields(experiment, out, {}, task, solved)
        assert len(held_out) == len(NAMES)
        assert {len(one.channels) for one in held_out} == {len(setting.TASKS[task].channels)}
    for number in range(len(NAMES) + 1):
        alone, around = (
            load_training_field(out / "small" / task.name / f"{number:06d}.npz")
            for task in (setting.ALONE, setting.AROUND)
        )
        assert torch.equal(alone.truth, around.truth)
        assert torch.equal(alone.channels, around.channels[:2])
        assert len(around.channels) == len(setting.AROUND.channels)
        assert not alone.initial_estimate.any()
        lacking = around.truth - around.initial_estimate
        assert lacking.square().mean() < alone.truth.square().mean()


def test_a_score_leaves_the_constant_out():
    one = photograph_fields(SIDE, names=NAMES[:1])[0]
    samples = one.phase + np.random.default_rng(1).normal(size=(8, SIDE, SIDE))
    rate = np.random.default_rng(2).uniform(size=one.phase.shape)
    scores = [asdict(setting.score_phase(samples + shift, one, rate=rate)) for shift in (0.0, 7.0)]
    assert scores[0] == pytest.approx(scores[1])
    exact = setting.score_phase(np.stack([one.phase + 1] * 2), one)
    assert exact.rmse == pytest.approx(0, abs=1e-12)


def test_a_single_answer_has_no_spread_and_its_crps_is_the_absolute_error():
    one = photograph_fields(SIDE, names=NAMES[:1])[0]
    score = setting.score_phase(np.zeros((2, SIDE, SIDE)), one)
    assert score.crps == pytest.approx(np.abs(one.phase - one.phase.mean()).mean())
    assert np.isnan([score.spread_ratio, score.covered, score.rate_error]).all()
