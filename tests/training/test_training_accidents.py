"""Power cuts, links and second writers where a training, its fields and its card are written."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint
from power_cuts import UnsafeDisk
from short_trainings import write_short_recipe

from napari_cvdm.cli import calibrate, main
from napari_cvdm.core.request import TrainRequest
from napari_cvdm.evaluation.calibration import DISTRIBUTION_SEED
from napari_cvdm.io import ImageFileError
from napari_cvdm.io.atomic import temporary_name
from napari_cvdm.models.checkpoint import CARD, WEIGHTS, load_checkpoint, read_card
from napari_cvdm.simulate.ranges import DenoisingRanges
from napari_cvdm.training.loop import train
from napari_cvdm.training.recipe import read_recipe, write_recipe
from napari_cvdm.training.session import SO_FAR, Session
from napari_cvdm.training.sources import RECORD, solve_missing
from napari_cvdm.training.state import STATE

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.toml"
posix = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps, saved and logged often."""
    return write_short_recipe(tmp_path_factory.mktemp("recipe") / "recipe.toml", 6)


def trained(recipe: Path, out: Path, resume: bool = False) -> Path:
    for _ in train(TrainRequest(recipe=str(recipe), out=str(out), device="cpu", resume=resume)):
        pass
    return out


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(recipe, tmp_path_factory.mktemp("whole"))


def same(first: Path, second: Path) -> bool:
    """The same weights and the same log."""
    one, other = (load_checkpoint(folder).network.state_dict() for folder in (first, second))
    logs = [(folder / "log.csv").read_bytes() for folder in (first, second)]
    return logs[0] == logs[1] and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.skipif(sys.platform != "linux", reason="open folders have names in /proc there")
def test_a_power_cut_at_any_moment_costs_no_more_than_steps(
    recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    copies = {number: tmp_path / f"cut-{number}" for number in (9, 40, 80, 130)}
    UnsafeDisk(root, monkeypatch, copies)
    trained(recipe, root)
    monkeypatch.undo()
    for cut in copies.values():
        if not (cut / CARD).exists():
            trained(recipe, cut, resume=(cut / STATE).exists())
        assert same(cut, whole)
        assert not list(cut.rglob("*.part"))


@pytest.mark.parametrize("damage", [b"", b"\x10", b"half"])
def test_a_state_that_was_cut_short_means_not_begun(
    damage: bytes,
    recipe: Path,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = (whole / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(state[: len(state) // 2] if damage == b"half" else damage)
    shutil.copy(whole / "log.csv", tmp_path)
    words = ["train", str(recipe), "--out", str(tmp_path), "--resume", "--device", "cpu"]
    assert main(words) == 0
    assert f"no {STATE} that was saved in full" in capsys.readouterr().err
    assert same(tmp_path, whole)


@pytest.mark.parametrize("log", [None, b"", b"stage,st", b"whole"])
def test_a_training_that_ended_before_its_first_state_begins_again(
    log: bytes | None, recipe: Path, whole: Path, tmp_path: Path
) -> None:
    """But not in a folder that holds anything else."""
    (tmp_path / temporary_name()).write_bytes(b"half")
    if log is not None:
        text = (whole / "log.csv").read_bytes()
        (tmp_path / "log.csv").write_bytes(text if log == b"whole" else log)
    shutil.copytree(whole / SO_FAR, tmp_path / SO_FAR)
    words = ["train", str(recipe), "--out", str(tmp_path), "--resume", "--device", "cpu"]
    for name in ("thesis.txt", f"{SO_FAR}/thesis.txt"):
        (tmp_path / name).write_text("all of it")
        assert main(words) == 2
        (tmp_path / name).unlink()
    assert main(words) == 0
    assert same(tmp_path, whole)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe of few steps, and the folder of its training, which stopped after two of them."""
    folder = tmp_path_factory.mktemp("begun")
    recipe = write_short_recipe(folder / "recipe.toml", 3)
    steps = train(TrainRequest(recipe=str(recipe), out=str(folder / "out"), device="cpu"))
    for _ in range(2):
        next(steps)
    steps.close()
    return recipe, folder / "out"


@posix
@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize(
    "name", [CARD, WEIGHTS, STATE, "log.csv", SO_FAR, f"{SO_FAR}/{CARD}", f"{SO_FAR}/{WEIGHTS}"]
)
def test_a_link_in_the_folder_of_a_training_is_not_followed(
    name: str, dangling: bool, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    """It is replaced or refused, and what it points to stays as it was."""
    out, outside = tmp_path / "out", tmp_path / "outside"
    recipe, stopped = begun
    shutil.copytree(stopped, out)
    spot = out / name
    if name == STATE:
        shutil.copy(spot, outside)
    elif spot.is_dir():
        shutil.rmtree(spot)
        outside.mkdir()
    elif not dangling:
        outside.write_bytes(b"mine")
    if dangling and name != STATE:
        shutil.rmtree(outside) if outside.is_dir() else outside.unlink(missing_ok=True)
    spot.unlink(missing_ok=True)
    spot.symlink_to(outside)
    before = outside.read_bytes() if outside.is_file() else outside.exists()
    try:
        trained(recipe, out, resume=True)
    except ValueError as error:
        assert "is a link" in str(error)
    else:
        assert not spot.is_symlink()
    assert before == (outside.read_bytes() if outside.is_file() else outside.exists())
    assert not outside.is_dir() or not list(outside.iterdir())


def test_a_training_has_its_folder_for_itself(recipe: Path, tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("no locks of folders there")
    steps = train(TrainRequest(recipe=str(recipe), out=str(tmp_path), device="cpu"))
    for _ in range(3):
        next(steps)
    with pytest.raises(ImageFileError, match="another napari-cvdm"):
        trained(recipe, tmp_path, resume=True)
    steps.close()


def test_leftovers_of_a_killed_training_go(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / SO_FAR).mkdir()
    for folder in (tmp_path, tmp_path / SO_FAR):
        (folder / temporary_name()).write_bytes(b"half")
    trained(recipe, tmp_path)
    assert not list(tmp_path.rglob("*.part"))


@posix
@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("name", [RECORD, "000000.npz", "000000.partial"])
def test_a_link_among_solved_fields_is_not_followed(
    name: str, dangling: bool, tmp_path: Path
) -> None:
    folder, outside = tmp_path / "fields", tmp_path / "outside"
    ranges = DenoisingRanges(field_px=40)
    list(solve_missing(folder, ranges, 0, range(1)))
    content = (folder / name).read_bytes() if name == RECORD else b"mine"
    (folder / name).unlink(missing_ok=True)
    if not dangling:
        outside.write_bytes(content)
    (folder / name).symlink_to(outside)
    list(solve_missing(folder, ranges, 0, range(1)))
    assert outside.exists() is not dangling
    assert dangling or outside.read_bytes() == content
    with np.load(folder / "000000.npz") as kept:
        assert kept.files


@posix
def test_a_recipe_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").symlink_to(tmp_path / "nowhere")
    write_recipe(read_recipe(SMOKE), tmp_path / "recipe.toml")
    assert not (tmp_path / "nowhere").exists()


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Path]:
    yield tiny_checkpoint("denoise", tmp_path / "model")


FIT = ("--distribution", "--fields", "20", "--held-out", "5", "--field-px", "32", "--in-place")


@posix
def test_a_second_calibration_of_one_card_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first one ends well."""
    fit, ended = calibrate.fit_distribution, []
    weights = (model / WEIGHTS).read_bytes()

    def begin_another(*given: object) -> object:
        monkeypatch.setattr(calibrate, "fit_distribution", fit)
        ended.append(main(["calibrate", str(model), *FIT, "--seed", "1"]))
        return fit(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(calibrate, "fit_distribution", begin_another)
    assert main(["calibrate", str(model), *FIT]) == 0
    assert ended == [2] and "another napari-cvdm writes to it" in capsys.readouterr().err
    assert (model / WEIGHTS).read_bytes() == weights
    assert read_card(model).training_distribution["first_seed"] == DISTRIBUTION_SEED
    assert {path.name for path in model.iterdir()} == {CARD, WEIGHTS}


def test_a_card_is_not_written_beside_weights_that_it_does_not_know(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another program may replace the model while it is calibrated."""
    other = tiny_checkpoint("denoise", tmp_path / "other", widths=(8, 24))
    fit = calibrate.fit_distribution

    def replaced_meanwhile(*given: object) -> object:
        for name in (CARD, WEIGHTS):
            shutil.copy(other / name, model / name)
            os.utime(model / name, ns=(1, 1))
        return fit(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(calibrate, "fit_distribution", replaced_meanwhile)
    assert main(["calibrate", str(model), *FIT]) == 2
    assert "changed while it was calibrated" in capsys.readouterr().err
    assert {name: (model / name).read_bytes() for name in (CARD, WEIGHTS)} == {
        name: (other / name).read_bytes() for name in (CARD, WEIGHTS)
    }


def test_a_training_that_is_killed_while_its_model_is_written_goes_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its stages are shorter than the steps between two states."""
    rare = tmp_path / "recipe.toml"
    rare.write_text(recipe.read_text().replace("save_every = 2", "save_every = 500"))
    whole = trained(rare, tmp_path / "whole")

    def killed(path: Path, *given: object) -> None:
        (path / WEIGHTS).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Session, "finish", lambda session: killed(tmp_path / "cut"))
        with pytest.raises(KeyboardInterrupt):
            trained(rare, tmp_path / "cut")
    words = ["train", str(rare), "--out", str(tmp_path / "cut"), "--resume", "--device", "cpu"]
    assert main(words) == 0
    assert same(tmp_path / "cut", whole)
