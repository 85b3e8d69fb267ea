"""``calibrate --distribution``: a field unlike the training is found, one of the recipe is not."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import few_steps

from napari_cvdm.checks.out_of_distribution import (
    PHASE_IMAGES,
    STATISTICS,
    TrainingDistribution,
    vectors_of,
)
from napari_cvdm.cli import main
from napari_cvdm.core.result import finished as drained
from napari_cvdm.evaluation import calibration
from napari_cvdm.io import write_image
from napari_cvdm.models.checkpoint import CheckpointError, read_card, write_card
from napari_cvdm.simulate.ranges import Ranges, WidefieldRanges
from napari_cvdm.simulate.scenes import simulate_widefield
from napari_cvdm.tasks import WidefieldX2

SEED = 990_000
RANGES = WidefieldRanges(
    field_px=64, structures=("rings", "beads"), textures=0.0, photons=(200, 900)
)
FIT = ["--distribution", "--fields", "60", "--held-out", "60"]
FEW = ["--distribution", "--fields", "16", "--held-out", "4"]
pytestmark = pytest.mark.usefixtures("few_solver_steps")


@pytest.fixture(scope="module")
def model(tiny_widefield_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose recipe has rings and beads, with its training distribution."""
    folder = tmp_path_factory.mktemp("described") / "model"
    shutil.copytree(tiny_widefield_model, folder)
    card = read_card(folder)
    simulation = {"field_px": 64, "structures": ["rings", "beads"], "textures": 0.0}
    simulation |= {"photons": [200, 900]}
    write_card(folder, replace(card, training={"simulation": simulation}))
    with few_steps():
        assert main(["calibrate", str(folder), "--in-place", *FIT]) == 0
    return folder


def distance(model: Path, counts: np.ndarray) -> float:
    """Distance of an image from the training, over the threshold in the model's card."""
    found = TrainingDistribution.from_card(read_card(model).training_distribution)
    assert found is not None
    vectors = vectors_of(WidefieldX2().condition(counts[None], "auto"), "counts")
    return found.distance(vectors) / found.threshold


def test_a_field_of_the_recipe_is_not_found(model: Path) -> None:
    fields = [simulate_widefield(SEED + number, RANGES).counts for number in range(40)]
    assert np.mean([distance(model, counts) > 1 for counts in fields]) <= 0.1


def planted(name: str) -> np.ndarray:
    """Counts of 64 x 64 px of what no recipe has."""
    rng, y = np.random.default_rng(3), np.arange(64)[:, None]
    return {
        "stripes of the camera": 100.0 + 80.0 * (y % 2) + np.zeros((1, 64)),
        "slanted lines": rng.poisson(100 + 400 * ((y + y.T) % 16 < 3)).astype(float),
        "a ramp": 100.0 + 5.0 * y + rng.normal(0.0, 0.1, (64, 64)),
    }[name]


@pytest.mark.parametrize("name", ["stripes of the camera", "slanted lines", "a ramp"])
def test_a_planted_field_is_found(model: Path, name: str) -> None:
    assert distance(model, planted(name)) > 1


@pytest.mark.parametrize("outside", [False, True])
def test_restore_warns_of_the_planted_field_only(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], outside: bool
) -> None:
    counts = planted("slanted lines") if outside else simulate_widefield(SEED, RANGES).counts
    path = tmp_path / "image.ome.tif"
    write_image(path, counts, axes="YX", pixel_um=0.1, unit="counts", name="image")
    words = ["restore", str(path), "--model", str(model), "--out", str(tmp_path / "out")]
    assert main([*words, "--samples", "1", "--steps", "2", "--device", "cpu"]) == 0
    assert ("unlike what tiny-widefield-x2 was trained on" in capsys.readouterr().err) == outside


def test_the_rest_of_the_card_stays_and_the_entry_says_how_it_was_made(
    model: Path, tiny_widefield_model: Path
) -> None:
    card, before = read_card(model), read_card(tiny_widefield_model)
    assert replace(card, training_distribution={}, training=before.training) == before
    assert card.training_distribution["fields"] == card.training_distribution["held_out"] == 60
    assert card.training_distribution["command"] == (
        f"napari-cvdm calibrate {model} --distribution --fields 60 --held-out 60"
    )


def test_the_same_command_writes_the_same_card_and_another_seed_does_not(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["calibrate", str(model), *FIT]
    assert main([*words, "--out", str(tmp_path / "copy")]) == 0
    assert "12 statistics of 60 simulated fields" in capsys.readouterr().out
    assert (tmp_path / "copy" / "card.json").read_bytes() == (model / "card.json").read_bytes()
    weights = "model.safetensors"
    assert (tmp_path / "copy" / weights).read_bytes() == (model / weights).read_bytes()
    words = ["calibrate", str(model), *FEW]
    assert main([*words, "--out", str(tmp_path / "first")]) == 0
    assert main([*words, "--out", str(tmp_path / "other"), "--seed", "1"]) == 0
    first = read_card(tmp_path / "first").training_distribution
    other = read_card(tmp_path / "other").training_distribution
    assert other["mean"] != first["mean"]
    assert other["command"].endswith("--seed 1")


@pytest.mark.parametrize("place", ["--in-place", "--out"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), MemoryError("too large"), None])
def test_the_card_is_written_whole_or_not_at_all(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException | None,
    place: str,
) -> None:
    card, files = (model / "card.json").read_bytes(), sorted(model.iterdir())
    measure, made = calibration._training_vectors, []

    def fail_late(*parts: object) -> np.ndarray:
        made.append(parts)
        if failure is not None and len(made) == 15:
            raise failure
        return measure(*parts)  # type: ignore[arg-type]

    def have_no_space(path: Path, target: Path, **folders: int) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(calibration, "_training_vectors", fail_late)
    if failure is None:  # every field is described, and then the disk is full
        monkeypatch.setattr(os, "replace", have_no_space)
    out = tmp_path / "out"
    where = [place, str(out)] if place == "--out" else [place]
    assert main(["calibrate", str(model), *FEW, "--seed", "2", *where]) in (2, 130)
    assert len(made) == (20 if failure is None else 15)
    assert (model / "card.json").read_bytes() == card and sorted(model.iterdir()) == files
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--fields", "0"], "at least 1 of each"),
        (["--fields", "3", "--held-out", "2"], "300 fields"),
        (["--set", "dim"], "--set is for the factor"),
        (["--noise-scales", "1"], "--noise-scales is for the factor"),
        (["--check", "0"], "--check is for the factor"),
        (["--field-px", "33"], "multiples of 16"),
    ],
)
def test_what_cannot_be_described_is_refused(
    model: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    card = (model / "card.json").read_bytes()
    assert main(["calibrate", str(model), "--in-place", "--distribution", *more]) == 2
    assert said in capsys.readouterr().err and (model / "card.json").read_bytes() == card


def test_held_out_fields_are_of_no_use_for_the_factor(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(model), "--in-place", "--held-out", "3"]) == 2
    assert "--held-out is for --distribution" in capsys.readouterr().err


def test_a_model_of_measured_pairs_has_no_fields_to_describe(tiny_widefield_model: Path) -> None:
    card = replace(read_card(tiny_widefield_model), training={"data": "pairs"})
    with pytest.raises(CheckpointError, match="no simulation"):
        drained(calibration.fit_distribution(card, 60, 60))


@pytest.mark.usefixtures("few_solver_steps")
def test_a_phase_is_described_as_a_run_describes_it(
    tiny_phase_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, inverted = np.random.default_rng(0), []
    measure = calibration._training_vectors

    def near_the_first(ranges: Ranges, seed: int, unit: str) -> np.ndarray:
        """Invert one field only; 60 take two minutes."""
        if not inverted:
            inverted.append(measure(ranges, seed, unit))
        return inverted[0] + rng.normal(0.0, 0.1, inverted[0].shape)

    monkeypatch.setattr(calibration, "_training_vectors", near_the_first)
    found = drained(calibration.fit_distribution(read_card(tiny_phase_model), 60, 2, field_px=48))
    assert found.mean.shape == (len(PHASE_IMAGES) * len(STATISTICS),)
    assert np.abs(found.mean - inverted[0]).max() < 0.1
    assert TrainingDistribution.from_card(found.plain(), "rad") is not None
