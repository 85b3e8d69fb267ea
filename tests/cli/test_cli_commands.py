"""The commands beside ``restore``: models, demo, train, simulate, and the bar that they share."""

import io
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_cvdm.cli import handle_termination, main, progress, train
from napari_cvdm.cli.progress import with_bar
from napari_cvdm.core.result import Progress
from napari_cvdm.io import read_image
from napari_cvdm.io.folders import NOTES
from napari_cvdm.models import registry as zoo
from napari_cvdm.models.checkpoint import WEIGHTS
from napari_cvdm.models.registry import load_model
from napari_cvdm.simulate.ranges import PhaseRanges
from napari_cvdm.simulate.scenes import simulate_phase
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.session import Session
from napari_cvdm.training.sources import load_field, load_training_field
from napari_cvdm.training.state import STATE

RECIPE = Path(__file__).parents[2] / "recipes" / "smoke.toml"
PNG_MAGIC = b"\x89PNG\r\n"
pytestmark = pytest.mark.usefixtures("few_solver_steps", "remembered_inversions")


@pytest.fixture
def shipped(
    tmp_path: Path,
    tiny_phase_model: Path,
    tiny_widefield_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[dict[str, Path]]:
    """The tiny models in the place of the shipped ones."""
    folders = {"phase-2shot": tiny_phase_model, "widefield-x2": tiny_widefield_model}
    for name, folder in folders.items():
        (tmp_path / "models" / name).mkdir(parents=True)
        for path in folder.iterdir():
            (tmp_path / "models" / name / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(zoo, "SHIPPED", tmp_path / "models")
    yield folders


@pytest.fixture
def short_recipe(tmp_path: Path) -> Path:
    """A recipe of eight steps that saves its state after every second one."""
    text = RECIPE.read_text(encoding="utf-8")
    for name, value in (
        ("mean_steps", 4),
        ("diffusion_steps", 4),
        ("log_every", 2),
        ("save_every", 2),
        ("pool_fields", 2),
        ("fields_per_step", 0.1),
    ):
        text = "\n".join(
            f"{name} = {value}" if line.startswith(f"{name} =") else line
            for line in text.splitlines()
        )
    path = tmp_path / "short.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_models_are_listed_in_words_and_as_json(
    shipped: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert main(["models", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)
    assert set(cards) == set(shipped)
    for name, card in cards.items():
        assert card["bytes"] == (shipped[name] / WEIGHTS).stat().st_size
        for text in (
            f"{name}: {card['title']}",
            card["inputs"],
            card["resolution"],
            card["licence"],
            *card["limits"],
            f"{card['bytes'] / 1e6:.1f} MB",
        ):
            assert text in words
        assert all(
            f"{key} {low:g} to {high:g}" in words for key, (low, high) in card["optics"].items()
        )


def test_demo_leaves_pictures_tiffs_and_commands_that_make_them_again(
    shipped: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--samples", "1"]) == 0
    assert {path.name for path in out.iterdir()} == {
        "inputs",
        "commands.txt",
        NOTES,
        *shipped,
        *(f"{name}.png" for name in shipped),
    }
    before = read_image(out / "phase-2shot" / "mean.ome.tif").array
    assert np.isfinite(before).all()
    assert all((out / f"{name}.png").read_bytes().startswith(PNG_MAGIC) for name in shipped)
    commands = (out / "commands.txt").read_text(encoding="utf-8").splitlines()
    assert len(commands) == len(shipped)
    assert main(shlex.split(commands[0])[1:]) == 0
    np.testing.assert_array_equal(read_image(out / "phase-2shot" / "mean.ome.tif").array, before)


def test_training_leaves_a_model_and_says_how_it_goes(
    short_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["train", str(short_recipe), "--out", str(tmp_path / "model"), "--device", "cpu"]) == 0
    )
    said = capsys.readouterr().out
    assert (
        "mean 2/4" in said and "diffusion 4/4" in said and "left" in said and "smoothness" in said
    )
    assert load_model(str(tmp_path / "model")).card.task == "widefield-x2"


def test_an_interrupted_training_is_resumed(
    short_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "model"
    really = train.line_of

    def interrupted(step: train.TrainStep, shown: object) -> str:
        if step.step == 4:
            raise KeyboardInterrupt
        return really(step, shown)

    monkeypatch.setattr(train, "line_of", interrupted)
    assert main(["train", str(short_recipe), "--out", str(out), "--device", "cpu"]) == 130
    assert (out / STATE).exists()
    assert "--resume" in capfd.readouterr().err
    monkeypatch.setattr(train, "line_of", really)
    assert main(["train", str(short_recipe), "--out", str(out), "--device", "cpu", "--resume"]) == 0
    assert (out / WEIGHTS).exists()


def test_a_training_that_did_not_begin_leaves_nothing(
    short_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "begin", interrupted)
    assert (
        main(["train", str(short_recipe), "--out", str(tmp_path / "model"), "--device", "cpu"])
        == 130
    )
    assert [path.name for path in tmp_path.iterdir()] == ["short.toml"]


def test_a_training_keeps_what_it_learned_since_the_last_save(
    short_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def interrupted(step: train.TrainStep, shown: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "line_of", interrupted)
    recipe = short_recipe.read_text(encoding="utf-8").replace("save_every = 2", "save_every = 100")
    short_recipe.write_text(recipe, encoding="utf-8")
    assert (
        main(["train", str(short_recipe), "--out", str(tmp_path / "model"), "--device", "cpu"])
        == 130
    )
    assert (tmp_path / "model" / STATE).exists()
    assert "--resume" in capfd.readouterr().err


def test_simulated_planes_can_be_restored(tiny_phase_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    assert main(["simulate", "phase", "--out", str(out), "--count", "2", "--seed", "4"]) == 0
    pairs = json.loads((out / "optics.json").read_text(encoding="utf-8"))["pairs"]
    assert [pair["seed"] for pair in pairs] == [4, 5]
    truth = read_image(out / "00001-truth.ome.tif")
    np.testing.assert_array_equal(truth.array, simulate_phase(5, PhaseRanges()).phase)
    scope, defocus = pairs[1]["microscope"], pairs[1]["defocus_um"]
    optics = [
        "--wavelength-um",
        str(scope["wavelength_um"]),
        "--medium-index",
        str(scope["medium_index"]),
        "--defocus-um",
        *map(str, defocus),
    ]
    image = str(out / "00001-planes.ome.tif")
    arguments = [
        image,
        "--model",
        str(tiny_phase_model),
        "--out",
        str(tmp_path / "out"),
        "--samples",
        "1",
        "--steps",
        "1",
        "--background",
        "none",
    ]
    assert main(["restore", *arguments, *optics]) == 0
    reconstructed = read_image(tmp_path / "out" / "mean.ome.tif")
    assert reconstructed.array.shape == truth.array.shape
    assert reconstructed.pixel_um == pytest.approx(scope["pixel_um"])


def test_a_stack_of_unequal_steps_states_no_z_step(tmp_path: Path) -> None:
    """optics.json has positions and condenser.

    An image file has one step, which is enough for two planes only.
    """
    counts = [len(simulate_phase(seed, PhaseRanges()).defocus_um) for seed in range(40)]
    seeds = {
        "pair": counts.index(2),
        "stack": next(seed for seed, count in enumerate(counts) if count > 2),
    }
    for name, seed in seeds.items():
        out, expected = tmp_path / name, simulate_phase(seed, PhaseRanges())
        assert main(["simulate", "phase", "--out", str(out), "--seed", str(seed)]) == 0
        (pair,) = json.loads((out / "optics.json").read_text(encoding="utf-8"))["pairs"]
        assert pair["defocus_um"] == pytest.approx(expected.defocus_um)
        assert pair["condenser_na"] == pytest.approx(expected.condenser_na)
        with tifffile.TiffFile(out / "00000-planes.ome.tif") as file:
            assert ("PhysicalSizeZ=" in file.ome_metadata) == (name == "pair")
        assert read_image(out / "00000-planes.ome.tif").array.shape == expected.planes.shape


SMALL_PHASE = """name = "small"
title = "small fields"
task = "phase-2shot"
resolution = "none"
[network]
denoiser = { widths = [8, 16], blocks = [1, 1], level_channels = 8 }
mean = { widths = [8, 16], blocks = [1, 1], level_channels = 0 }
[simulation]
field_px = [48, 48]
fresnel = [8.0, 20.0]
[plan]
mean_steps = 2
diffusion_steps = 2
patch_px = 32
batch = 2
log_every = 1
"""


@pytest.fixture
def solved_recipe(tmp_path: Path) -> Path:
    """A recipe of a tiny phase model."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL_PHASE, encoding="utf-8")
    return path


def solve(out: Path, recipe: Path, count: int) -> int:
    """Make solved fields from the command line."""
    return main(
        [
            "simulate",
            "phase",
            "--solved",
            "--out",
            str(out),
            "--count",
            str(count),
            "--seed",
            "5",
            "--recipe",
            str(recipe),
        ]
    )


def test_solved_fields_are_kept_and_completed(
    solved_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "solved"
    assert solve(out, solved_recipe, 1) == 0
    first, when = (out / "000000.npz").read_bytes(), (out / "000000.npz").stat().st_mtime_ns
    assert solve(out, solved_recipe, 3) == 0
    assert "3 solved fields" in capsys.readouterr().out
    assert sorted(path.name for path in out.glob("*.npz")) == [
        "000000.npz",
        "000001.npz",
        "000002.npz",
    ]
    assert ((out / "000000.npz").read_bytes(), (out / "000000.npz").stat().st_mtime_ns) == (
        first,
        when,
    )
    ranges = read_recipe(solved_recipe).simulation
    assert isinstance(ranges, PhaseRanges)
    np.testing.assert_array_equal(
        load_field(out / "000002.npz").truth, simulate_phase(7, ranges).phase
    )


def test_a_model_is_trained_from_solved_fields(solved_recipe: Path, tmp_path: Path) -> None:
    """The folder is beside the recipe; an empty one is refused in one line."""
    solved_recipe.write_text(SMALL_PHASE + '[solved]\nfolder = "solved"\n', encoding="utf-8")
    out = tmp_path / "model"
    assert main(["train", str(solved_recipe), "--out", str(out), "--device", "cpu"]) == 2
    assert not out.exists()
    assert solve(tmp_path / "solved", solved_recipe, 2) == 0
    assert main(["train", str(solved_recipe), "--out", str(out), "--device", "cpu"]) == 0
    card = load_model(str(out)).card
    assert (card.task, len(card.channels)) == ("phase-2shot", 13)


@pytest.mark.parametrize(("kind", "channels"), [("widefield", 17), ("denoising", 2)])
def test_fluorescence_fields_are_solved_too(kind: str, channels: int, tmp_path: Path) -> None:
    assert (
        main(["simulate", kind, "--solved", "--out", str(tmp_path / "solved"), "--count", "1"]) == 0
    )
    assert len(load_training_field(tmp_path / "solved" / "000000.npz").channels) == channels


def test_a_recipe_gives_the_ranges_of_a_simulation(tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    assert main(["simulate", "widefield", "--out", str(out), "--recipe", str(RECIPE)]) == 0
    image, truth = read_image(out / "00000-image.ome.tif"), read_image(out / "00000-truth.ome.tif")
    assert image.array.shape == (48, 48) and truth.array.shape == (96, 96)
    assert truth.pixel_um == pytest.approx(image.pixel_um / 2)
    assert json.loads((out / "optics.json").read_text(encoding="utf-8"))["ranges"]["field_px"] == 48


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def counted(total: int) -> Iterator[Progress]:
    for done in range(1, total + 1):
        time.sleep(0.002)
        yield Progress(stage="counting", done=done, total=total)
    return total


@pytest.mark.parametrize(("stderr", "shows"), [(Terminal(), True), (io.StringIO(), False)])
def test_a_bar_with_time_left_is_shown_on_a_terminal(
    stderr: io.StringIO, shows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    assert with_bar(counted(300), "reconstructing") == 300
    assert ("reconstructing:" in stderr.getvalue() and "<" in stderr.getvalue()) is shows


def test_a_log_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress, "LOG_INTERVAL_S", 0.05)
    with_bar(counted(200), "reconstructing")
    lines = log.getvalue().splitlines()
    assert "\r" not in log.getvalue() and len(lines) > 1
    assert all(line.startswith("reconstructing: ") and "counting" in line for line in lines)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_schedulers_signal_cleans_up_as_ctrl_c_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def struck(*_: object) -> None:
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(10)

    before = signal.getsignal(getattr(signal, name))
    monkeypatch.setattr("napari_cvdm.cli.restore.load_method", struck)
    assert main(["restore", "a.tif", "--model", "m", "--out", str(tmp_path / "out")]) == 130
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(getattr(signal, name)) == before
    assert "stopped" in capfd.readouterr().err


def test_a_handler_that_python_does_not_know_ends_no_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a program that embeds Python: signal.signal returns None then, and takes none."""
    handlers = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: handlers.append(handler))
    with handle_termination():
        count = len(handlers)
    assert handlers[count:] == [signal.SIG_DFL] * count


def test_a_path_in_an_error_can_be_copied(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", "a b  c.tif", "--model", "widefield-x2", "--out", "o"]) == 2
    assert "a b  c.tif" in capfd.readouterr().err
