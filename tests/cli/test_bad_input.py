"""Bad input is answered with exit code 2 and one line that helps.

Nothing is left behind, and nothing that was there is lost.
"""

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load, save

from napari_cvdm.cli import main
from napari_cvdm.io import write_image
from napari_cvdm.models.checkpoint import CARD, WEIGHTS

WAVELENGTH, INDEX, DEFOCUS = (
    ["--wavelength-um", "0.55"],
    ["--medium-index", "1.33"],
    ["--defocus-um", "-1", "1"],
)
OPTICS = [*WAVELENGTH, *INDEX, *DEFOCUS]
PIXEL = ["--pixel-um", "0.065"]
QUICK = ["--samples", "1", "--steps", "1", "--device", "cpu"]


@dataclass(frozen=True)
class Bench:
    """A folder with good and bad files, and two tiny models."""

    folder: Path
    phase: Path
    widefield: Path

    def npy(self, array: np.ndarray) -> Path:
        """The array in a file of its own."""
        path = self.folder / f"image{len(list(self.folder.iterdir()))}.npy"
        np.save(path, array)
        return path

    def tif(self, array: np.ndarray, **metadata: object) -> Path:
        """The array in a TIFF of its own."""
        path = self.folder / f"image{len(list(self.folder.iterdir()))}.tif"
        tifffile.imwrite(path, array, **metadata)
        return path

    def noise(self, *shape: int) -> np.ndarray:
        """A noisy image."""
        return np.random.default_rng(len(shape)).poisson(90, shape or (32, 36)).astype(np.float32)

    def spots(self) -> Path:
        """A good fluorescence image that knows its pixel size."""
        return self.tif(
            self.noise(), imagej=True, resolution=(1 / 0.065, 1 / 0.065), metadata={"unit": "um"}
        )

    def planes(self) -> Path:
        """A good stack of two planes that knows its pixel size."""
        path = self.folder / "planes.ome.tif"
        write_image(
            path, self.noise(2, 32, 36), axes="PYX", pixel_um=0.2, unit="counts", name="planes"
        )
        return path

    def with_pixel(self, value: float) -> Path:
        """A good image with one pixel replaced."""
        image = self.noise()
        image[3, 4] = value
        return self.npy(image)

    def cut(self, path: Path, size: int) -> Path:
        """The first bytes of a file, in its place."""
        path.write_bytes(path.read_bytes()[:size])
        return path

    def broken_model(self, name: str, content: bytes | None) -> Path:
        """The fluorescence model with one file replaced, or (None) cut in half."""
        copy = self.folder / "broken"
        copy.mkdir()
        for path in self.widefield.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        (copy / name).write_bytes(
            (copy / name).read_bytes()[: (copy / name).stat().st_size // 2]
            if content is None
            else content
        )
        return copy

    def card_with(self, entry: str, value: object) -> Path:
        """The fluorescence model with another entry in its card."""
        card = json.loads((self.widefield / CARD).read_text())
        return self.broken_model(CARD, json.dumps({**card, entry: value}).encode())

    def model_of_nan(self) -> Path:
        """The fluorescence model, every weight lost."""
        tensors = load(((self.widefield) / WEIGHTS).read_bytes())
        return self.broken_model(
            WEIGHTS,
            save({name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()}),
        )


@pytest.fixture
def bench(tmp_path: Path, tiny_phase_model: Path, tiny_widefield_model: Path) -> Bench:
    folder = tmp_path / "files"
    folder.mkdir()
    return Bench(folder, tiny_phase_model, tiny_widefield_model)


Case = Callable[[Bench], list[object]]
FLUORESCENCE: dict[str, tuple[Case, tuple[str, ...]]] = {
    "missing file": (
        lambda b: [b.folder / "nothing.tif", *PIXEL],
        ("nothing.tif", "no such file", "check the name"),
    ),
    "a folder": (lambda b: [b.folder, *PIXEL], ("is a folder", ".tif", "give one image file")),
    "text in a TIFF": (
        lambda b: [b.cut(b.spots(), 0).write_text("no image") and b.folder / "image0.tif", *PIXEL],
        ("image0.tif", "TIFF", "again"),
    ),
    "no bytes": (lambda b: [b.cut(b.spots(), 0), *PIXEL], ("image0.tif", "empty", "again")),
    "truncated TIFF": (
        lambda b: [b.cut(b.spots(), 2000), *PIXEL],
        ("image0.tif", "cut short", "Copy it again"),
    ),
    "truncated NPY": (
        lambda b: [b.cut(b.npy(b.noise()), 500), *PIXEL],
        ("image0.npy", "NPY", "numpy.save"),
    ),
    "truncated MRC": (
        lambda b: [b.cut(b.spots(), 900).rename(b.folder / "image.mrc"), *PIXEL],
        ("image.mrc", "MRC", "again"),
    ),
    "unknown format": (
        lambda b: [b.spots().rename(b.folder / "image.jpg"), *PIXEL],
        (".jpg", "allowed are .tif", "OME-TIFF"),
    ),
    "empty image": (
        lambda b: [b.npy(np.zeros((0, 5))), *PIXEL],
        ("empty", "(0, 5)", "pixels in it"),
    ),
    "one dimension": (lambda b: [b.npy(np.zeros(5)), *PIXEL], ("(5,)", "two dimensions")),
    "complex pixels": (
        lambda b: [b.npy(b.noise() * 1j), *PIXEL],
        ("complex", "real numbers", "amplitude"),
    ),
    "NaN": (
        lambda b: [b.npy(np.full((32, 36), np.nan)), *PIXEL],
        ("no measured pixel", "something in it"),
    ),
    "too large to square": (
        lambda b: [b.npy(b.noise() * 1e30), *PIXEL],
        ("e+31", "up to 1e+18", "another unit"),
    ),
    "too much alike to square": (
        lambda b: [b.npy(b.noise() * 1e-35), *PIXEL],
        ("e-34", "differ by 1e-16", "another unit"),
    ),
    "constant image": (
        lambda b: [b.npy(np.full((32, 32), 7.0)), *PIXEL],
        ("constant", "7", "something in it"),
    ),
    "two images for one": (
        lambda b: [b.spots(), b.npy(b.noise()), *PIXEL],
        ("2 images", "one widefield", "Give one image"),
    ),
    "no pixel size": (lambda b: [b.npy(b.noise())], ("pixel_um", "image0.npy", "--pixel-um")),
    "pixel size of exactly 1": (
        lambda b: [b.tif(b.noise(), imagej=True, resolution=(1.0, 1.0), metadata={"unit": "um"})],
        ("pixel_um", "--pixel-um"),
    ),
    "pixel size in pixels": (
        lambda b: [
            b.tif(b.noise(), imagej=True, resolution=(8.0, 8.0), metadata={"unit": "pixel"})
        ],
        ("pixel_um", "--pixel-um"),
    ),
    "pixel of nanometres": (
        lambda b: [b.spots(), "--pixel-um", "65"],
        ("pixel_um is 65", "0.005 to 20", "65 nm is 0.065"),
    ),
    "negative pixel": (
        lambda b: [b.spots(), "--pixel-um", "-0.065"],
        ("pixel_um is -0.065", "0.005 to 20", "micrometres"),
    ),
    "pixel that is NaN": (
        lambda b: [b.spots(), "--pixel-um", "nan"],
        ("pixel_um is nan", "0.005 to 20"),
    ),
    "wavelength of nanometres": (
        lambda b: [b.spots(), "--wavelength-um", "520"],
        ("wavelength_um is 520", "0.2 to 2", "520 nm is 0.52"),
    ),
    "NA above the index": (
        lambda b: [b.spots(), "--na", "1.4", "--medium-index", "1.0"],
        ("na is 1.4", "0.01 to 1", "medium_index"),
    ),
    "index of a vacuum and less": (
        lambda b: [b.spots(), "--medium-index", "0.5"],
        ("medium_index is 0.5", "1 to 2", "water 1.333"),
    ),
    "no samples": (
        lambda b: [b.spots(), "--samples", "0"],
        ("samples is 0", "1 to 1024", "8 is a good start"),
    ),
    "no steps": (
        lambda b: [b.spots(), "--steps", "0"],
        ("steps is 0", "1 to 1000", "6 is a good start"),
    ),
    "negative seed": (lambda b: [b.spots(), "--seed", "-1"], ("seed is -1", "0 to")),
    "tiny tile": (lambda b: [b.spots(), "--tile", "1"], ("tile is 1", "16 to", "512")),
    "negative schedule": (
        lambda b: [b.spots(), "--schedule-points", "-1"],
        ("schedule_points is -1", "0 to 1000"),
    ),
    "unknown sampler": (lambda b: [b.spots(), "--sampler", "euler"], ("euler", "sde-2m", "--help")),
    "unknown device": (lambda b: [b.spots(), "--device", "cuda:77"], ("cuda:77", "cpu", "auto")),
    "missing background": (
        lambda b: [b.spots(), "--background", b.folder / "blank.tif"],
        ("blank.tif", "no such file"),
    ),
    "background of another shape": (
        lambda b: [b.spots(), "--background", b.npy(b.noise(20, 20))],
        ("(20, 20)", "(32, 36)"),
    ),
    "background with a hole": (
        lambda b: [b.spots(), "--background", b.with_pixel(np.nan)],
        ("background", "NaN", "auto"),
    ),
    "decimal comma": (
        lambda b: [b.spots(), "--pixel-um", "0,065"],
        ("'0,065'", "0.065", "decimal point"),
    ),
    "word for a number": (
        lambda b: [b.spots(), "--samples", "many"],
        ("'many'", "whole number", "--help"),
    ),
    "unknown option": (lambda b: [b.spots(), "--pixel", "0.065"], ("--pixel", "--help")),
    "samples of five axes": (
        lambda b: [b.npy(b.noise(2, 2, 2, 2, 16, 16)), *PIXEL, "--keep-samples"],
        ("no room for samples", "fewer axes"),
    ),
}
PHASE: dict[str, tuple[Case, tuple[str, ...]]] = {
    "one plane": (lambda b: [b.spots(), *OPTICS], ("one plane", "2 are needed", "2 image files")),
    "three planes": (
        lambda b: [b.npy(b.noise(3, 32, 36)), *OPTICS, *PIXEL],
        ("(3, 32, 36)", "2 planes are needed", "defocus_um"),
    ),
    "two planes, three positions": (
        lambda b: [b.npy(b.noise()), b.npy(b.noise() + 1), *OPTICS[:-2], "-1", "0", "1", *PIXEL],
        ("has 2 planes", "defocus_um has 3 positions", "one position for each plane"),
    ),
    "three files, two positions": (
        lambda b: [*(b.npy(b.noise() + shift) for shift in range(3)), *OPTICS, *PIXEL],
        ("has 3 planes", "defocus_um has 2 positions"),
    ),
    "a third plane given twice": (
        lambda b: [
            b.npy(np.stack([image := b.noise(), image + 1, image])),
            *OPTICS[:-2],
            "-1",
            "0",
            "1",
            *PIXEL,
        ],
        ("planes 1 and 3", "same pixels"),
    ),
    "two equal positions of three": (
        lambda b: [b.npy(b.noise(3, 32, 36)), *OPTICS[:-2], "1", "-1", "1.0001", *PIXEL],
        ("defocus_um has 1 and 1.0001", "same plane twice"),
    ),
    "condenser above the index": (
        lambda b: [b.planes(), *OPTICS, "--condenser-na", "1.4"],
        ("condenser_na is 1.4", "0 to 1.33", "not of the objective"),
    ),
    "condenser below zero": (
        lambda b: [b.planes(), *OPTICS, "--condenser-na", "-0.1"],
        ("condenser_na is -0.1", "0 to 1.33"),
    ),
    "condenser above every lens": (
        lambda b: [
            b.planes(),
            *WAVELENGTH,
            *DEFOCUS,
            "--medium-index",
            "1.9",
            "--condenser-na",
            "1.7",
        ],
        ("condenser_na is 1.7", "0 to 1.6"),
    ),
    "two stacks of two": (
        lambda b: [b.planes(), b.spots(), *OPTICS],
        ("planes are", "same axes and shape", "Crop"),
    ),
    "planes of different shape": (
        lambda b: [b.npy(b.noise()), b.npy(b.noise(30, 36)), *OPTICS, *PIXEL],
        ("(32, 36)", "(30, 36)", "Crop"),
    ),
    "twice the same plane": (
        lambda b: [*[b.npy(b.noise())] * 2, *OPTICS, *PIXEL],
        ("same pixels", "different focus"),
    ),
    "one constant plane": (
        lambda b: [b.npy(np.stack([b.noise(), np.ones((32, 36))])), *OPTICS, *PIXEL],
        ("plane 2 is constant", "something in it"),
    ),
    "no wavelength": (
        lambda b: [b.planes(), *INDEX, *DEFOCUS],
        ("wavelength_um", "--wavelength-um"),
    ),
    "no index": (lambda b: [b.planes(), *WAVELENGTH, *DEFOCUS], ("medium_index", "--medium-index")),
    "no defocus": (
        lambda b: [b.planes(), *WAVELENGTH, *INDEX],
        ("defocus_um", "--defocus-um -1 1"),
    ),
    "one defocus": (
        lambda b: [b.planes(), *WAVELENGTH, *INDEX, "--defocus-um", "1"],
        ("defocus_um has 1 value", "at least two", "-1 1"),
    ),
    "equal defocus": (
        lambda b: [b.planes(), *WAVELENGTH, *INDEX, "--defocus-um", "1", "1"],
        ("defocus_um has 1 and 1", "same plane twice", "-1 1"),
    ),
    "nanometres of defocus": (
        lambda b: [b.planes(), *WAVELENGTH, *INDEX, "--defocus-um", "-500", "500"],
        ("-500", "500 nm is 0.5"),
    ),
    "defocus of nothing": (
        lambda b: [b.planes(), *WAVELENGTH, *INDEX, "--defocus-um", "0", "1e-300"],
        ("same plane", "-1 1"),
    ),
    "counts called divided": (
        lambda b: [b.planes(), *OPTICS, "--background", "none"],
        ("background none", "median is", "auto"),
    ),
    "absurd defocus": (
        lambda b: [b.planes(), *WAVELENGTH, *INDEX, "--defocus-um", "-5000", "1"],
        ("-5000", "-250 to 250", "500 nm is 0.5"),
    ),
    "negative wavelength": (
        lambda b: [b.planes(), *INDEX, *DEFOCUS, "--wavelength-um", "-0.5"],
        ("wavelength_um is -0.5", "0.2 to 2"),
    ),
    "negative background": (
        lambda b: [b.planes(), *OPTICS, "--background", b.npy(-b.noise())],
        ("background", "positive", "--background FILE"),
    ),
}


def answer(capfd: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    """Exactly one line was said, with these words in it."""
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and said.startswith("napari-cvdm: error: "), said
    assert not [word for word in words if word not in said], said


def refused(
    arguments: list[object], words: tuple[str, ...], bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command ends with 2 and one line; the folder where the result would be is as it was."""
    home = bench.folder.parent
    before = sorted(home.rglob("*"))
    assert main([str(word) for word in arguments]) == 2
    answer(capfd, words)
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize("name", FLUORESCENCE)
def test_bad_fluorescence_is_refused(
    name: str, bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    case, words = FLUORESCENCE[name]
    refused(
        [
            "restore",
            *QUICK,
            *case(bench),
            "--model",
            bench.widefield,
            "--out",
            bench.folder.parent / "a" / "out",
        ],
        words,
        bench,
        capfd,
    )


@pytest.mark.parametrize("name", PHASE)
def test_bad_planes_are_refused(name: str, bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    case, words = PHASE[name]
    refused(
        [
            "restore",
            *QUICK,
            *case(bench),
            "--model",
            bench.phase,
            "--out",
            bench.folder.parent / "out",
        ],
        words,
        bench,
        capfd,
    )


@pytest.mark.parametrize(
    ("make_model", "words"),
    [
        (lambda b: "phase-3shot", ("'phase-3shot'", "shipped", "napari-cvdm models")),
        (lambda b: b.folder, ("card.json", "model.safetensors", "checkpoint is a folder with")),
        (
            lambda b: b.broken_model(WEIGHTS, None),
            (WEIGHTS, "cannot be loaded", "copy the model again"),
        ),
        (
            lambda b: b.broken_model(WEIGHTS, b"\x80\x04pickle"),
            (WEIGHTS, "cannot be loaded", "copy the model again"),
        ),
        (lambda b: b.broken_model(CARD, None), (CARD, "not a model card")),
        (lambda b: b.broken_model(CARD, b"[1]"), (CARD, "not a model card")),
        (
            lambda b: b.broken_model(CARD, b'{"format": 99}'),
            ("format 99", "reads format 1", "Update"),
        ),
        (lambda b: b.card_with("task", "phase-4shot"), ("phase-4shot", "known are", "phase-2shot")),
        (lambda b: b.card_with("task", "phase-2shot"), ("does not fit the task", "Copy the model")),
        (lambda b: b.card_with("training", None), (CARD, "not a model card")),
        (lambda b: b.card_with("optics", {"pixel_um": ["a", "b"]}), (CARD, "not a model card")),
        (lambda b: b.card_with("optics", {"pixel_um": [0.1]}), (CARD, "not a model card")),
        (lambda b: b.model_of_nan(), (WEIGHTS, "NaN", "copy the model again")),
    ],
)
def test_bad_models_are_refused(
    make_model: Case, words: tuple[str, ...], bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(
        [
            "restore",
            bench.spots(),
            "--model",
            make_model(bench),
            "--out",
            bench.folder.parent / "out",
            *QUICK,
        ],
        words,
        bench,
        capfd,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ("COMMAND", "--help")),
        (["reconstruct"], ("reconstruct", "restore", "--help")),
        (["restore", "a.tif", "--out", "b"], ("--model", "napari-cvdm restore --help")),
        (["restore", "a.tif", "--model", "m"], ("--out", "napari-cvdm restore --help")),
        (["models", "--what"], ("--what", "--help")),
        (["train", "nothing.toml", "--out", "OUT"], ("nothing.toml", "recipes/smoke.toml")),
        (
            ["train", "nothing.toml", "--out", "OUT", "--resume"],
            ("OUT", "training.safetensors", "leave out --resume"),
        ),
        (["simulate", "clouds", "--out", "OUT"], ("clouds", "phase", "widefield")),
        (["simulate", "phase", "--out", "OUT", "--count", "0"], ("count is 0", "1 to 100000")),
        (["simulate", "phase", "--out", "OUT", "--seed", "-1"], ("seed is -1", "from 0")),
    ],
)
def test_bad_commands_are_refused(
    arguments: list[object], words: tuple[str, ...], bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(
        [bench.folder.parent / "OUT" if word == "OUT" else word for word in arguments],
        words,
        bench,
        capfd,
    )


def test_a_recipe_for_the_other_kind_is_refused(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "smoke.toml"
    arguments = ["simulate", "phase", "--recipe", recipe, "--out", bench.folder.parent / "out"]
    refused(arguments, ("smoke.toml", "widefield-x2", "another recipe"), bench, capfd)


@pytest.mark.parametrize("command", ["restore", "demo", "simulate", "train"])
def test_what_exists_is_not_replaced_unasked(
    command: str, bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    out = bench.folder.parent / "out"
    out.mkdir()
    (out / "diary.txt").write_text("dear diary")
    recipe = Path(__file__).parents[2] / "recipes" / "smoke.toml"
    first = {
        "restore": [bench.spots(), "--model", bench.widefield],
        "demo": [],
        "simulate": ["phase"],
        "train": [recipe],
    }[command]
    refused(
        [command, *first, "--out", out],
        (str(out), "--resume" if command == "train" else "--overwrite"),
        bench,
        capfd,
    )
    assert (out / "diary.txt").read_text() == "dear diary"


def test_what_is_no_result_is_not_replaced_even_when_asked(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "restore",
        bench.spots(),
        "--model",
        bench.widefield,
        "--out",
        bench.folder.parent,
        "--overwrite",
    ]
    refused([*arguments], ("image0.tif", "lies in", "another folder"), bench, capfd)
    elsewhere = bench.folder.parent / "mine"
    elsewhere.mkdir()
    (elsewhere / "thesis.txt").write_text("all of it")
    refused(
        [*arguments[:-2], elsewhere, "--overwrite"],
        ("thesis.txt", "never overwritten", "another folder"),
        bench,
        capfd,
    )


def test_a_file_is_no_output_folder(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    spots = bench.spots()
    refused(
        ["restore", spots, "--model", bench.widefield, "--out", spots, *QUICK],
        ("is a file", "folder"),
        bench,
        capfd,
    )


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), OSError("512 requested and 0 written")],
)
def test_a_full_disk_leaves_nothing(
    error: OSError, bench: Bench, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **settings: object) -> None:
        raise error

    spots = bench.spots()
    monkeypatch.setattr(tifffile.TiffWriter, "write", full)
    refused(
        [
            "restore",
            spots,
            "--model",
            bench.widefield,
            "--out",
            bench.folder.parent / "out",
            *QUICK,
        ],
        ("full", "another disk"),
        bench,
        capfd,
    )


def test_too_little_memory_is_said_in_words(
    bench: Bench, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_cvdm.models import tiled

    def small(*arguments: object, **settings: object) -> None:
        raise MemoryError

    monkeypatch.setattr(tiled, "map_tiles", small)
    refused(
        [
            "restore",
            bench.spots(),
            "--model",
            bench.widefield,
            "--out",
            bench.folder.parent / "out",
            *QUICK,
        ],
        ("memory", "crop it"),
        bench,
        capfd,
    )


def test_libraries_stay_silent_in_a_process_of_its_own(bench: Bench) -> None:
    cut = bench.cut(bench.spots(), 2000)
    command = [
        sys.executable,
        "-m",
        "napari_cvdm.cli",
        "restore",
        str(cut),
        "--model",
        str(bench.widefield),
        "--out",
        str(bench.folder.parent / "out"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1 and "cut short" in ended.stderr
