"""A crash costs a training at most the steps since the last save.

It never leaves a file that cannot be read.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import begin
from short_trainings import write_short_recipe

from napari_cvdm.cli import main
from napari_cvdm.core.request import TrainRequest
from napari_cvdm.models.checkpoint import CARD, CheckpointError, load_checkpoint
from napari_cvdm.training import state as training_state
from napari_cvdm.training.loop import train
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.state import STATE, load_state

INTERVAL = 5

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="signals and limits are those of POSIX"
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    """A short recipe, with a state saved every few steps."""
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    return write_short_recipe(path, 40, save_every=INTERVAL, log_every=INTERVAL)


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory) -> Path:
    """The folder of a training that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole")
    for _ in train(TrainRequest(recipe=str(recipe), out=str(out), device="cpu")):
        pass
    return out


def kill_at_work(recipe: Path, out: Path, lines: int) -> None:
    """Train in a process of its own, and kill -9 it when it has added so many lines to its log.

    It goes on with what is there. It has as many threads, since they decide the order of sums.
    """
    more = ["--resume"] if (out / STATE).exists() else []
    words = ["train", str(recipe), "--out", str(out), "--device", "cpu", *more]
    wanted = lines_of(out) + lines
    process = begin(train_with, torch.get_num_threads(), words)
    while process.is_alive() and lines_of(out) < wanted:
        time.sleep(0.02)
    process.kill()
    process.join()


def train_with(threads: int, words: list[str]) -> int:
    """Train in this process from the command line."""
    torch.set_num_threads(threads)
    return main(words)


def lines_of(out: Path) -> int:
    """Whole lines in the log of a training."""
    log = out / "log.csv"
    return log.read_text().count("\n") if log.exists() else 0


def assert_same_model(first: Path, second: Path) -> None:
    """Bit for bit the same weights."""
    one, other = (load_checkpoint(folder).network.state_dict() for folder in (first, second))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.stress)])
def test_a_training_that_is_killed_ends_like_an_undisturbed_one(recipe, whole, tmp_path, kills):
    """After kill -9 at a random line of the log, the state is readable and has not gone back."""
    out, rng, reached = tmp_path / "out", np.random.default_rng(0), (0, 0)
    for _ in range(kills):
        kill_at_work(recipe, out, lines=int(rng.integers(1, 4)))
        assert not (out / CARD).exists()  # it was at work
        if (out / STATE).exists():
            state = load_state(out, read_recipe(recipe).fingerprint)
            now = (("mean", "diffusion").index(state.stage), state.step)
            assert now >= reached
            reached = now
            load_checkpoint(out / "so-far")
    resume = (out / STATE).exists()
    for _ in train(TrainRequest(recipe=str(recipe), out=str(out), resume=resume, device="cpu")):
        pass
    assert_same_model(whole, out)
    assert (out / "log.csv").read_bytes() == (whole / "log.csv").read_bytes()


def test_a_kill_costs_no_more_than_one_interval(recipe, tmp_path):
    """A generator abandoned between two saves, as by a kill, leaves the last save on disk."""
    steps = train(TrainRequest(recipe=str(recipe), out=str(tmp_path), device="cpu"))
    for done in range(1, 4 * INTERVAL):
        next(steps)
        if done >= INTERVAL:
            assert done - load_state(tmp_path, read_recipe(recipe).fingerprint).step < INTERVAL
    steps.close()


def test_a_full_disk_stops_with_words_and_leaves_the_last_good_state(recipe, whole, tmp_path):
    """Files may not grow beyond a limit from some step on; later there is space again."""
    request = TrainRequest(recipe=str(recipe), out=str(tmp_path), device="cpu")
    steps = train(request)
    for _ in range(2 * INTERVAL):
        next(steps)
    before = (tmp_path / STATE).read_bytes()
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, unlimited[1]))
    try:
        with pytest.raises(CheckpointError, match="Free some space"):
            list(steps)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert (tmp_path / STATE).read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))
    for _ in train(TrainRequest(recipe=str(recipe), out=str(tmp_path), device="cpu", resume=True)):
        pass
    assert_same_model(whole, tmp_path)


def test_a_state_appears_complete_or_not_at_all(recipe, tmp_path, monkeypatch):
    """Whoever looks at any moment of a save finds the old state or the new one."""
    seen, replace_file = [], training_state.replace_file

    def watched(path, content, within=None):
        seen.append(
            load_state(tmp_path, read_recipe(recipe).fingerprint).step if path.exists() else None
        )
        replace_file(path, content, within)

    monkeypatch.setattr(training_state, "replace_file", watched)
    steps = train(TrainRequest(recipe=str(recipe), out=str(tmp_path), device="cpu"))
    for _ in range(3 * INTERVAL):
        next(steps)
    steps.close()
    assert seen == [None, INTERVAL, 2 * INTERVAL]
