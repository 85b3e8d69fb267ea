"""The command line is a contract: options, files, units, names, exit codes."""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_cvdm.cli import main, options
from napari_cvdm.cli import restore as restoring
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import ALIGNMENTS, PRECISIONS, SAMPLERS, STEPS, ReconstructionRequest
from napari_cvdm.io import read_image, write_image
from napari_cvdm.io.folders import NOTES
from napari_cvdm.simulate.scenes import defocus_pair_of

pytestmark = pytest.mark.usefixtures("few_solver_steps", "remembered_inversions")
OPTICS = ["--wavelength-um", "0.55", "--medium-index", "1.33", "--defocus-um", "-1", "1"]
QUICK = ["--samples", "2", "--steps", "2", "--device", "cpu"]
CONTRACT = {
    "restore": "image image2 model out samples steps seed device tile pixel_um wavelength_um "
    "defocus_um medium_index na condenser_na background "
    "schedule_points keep_samples overwrite",
    "measure": "result out overwrite mask alpha above_background",
    "plan": "image image2 model out overwrite device pixel_um wavelength_um defocus_um "
    "medium_index na condenser_na background",
    "models": "json",
    "export": (
        "model out overwrite format author samples steps seed pixel_um wavelength_um defocus_um "
        "medium_index"
    ),
    "demo": "out",
    "train": "recipe out resume",
    "simulate": "out",
    "evaluate": "model set out fields field_px seed samples steps",
    "benchmark": "out models sets fields field_px seed samples steps",
    "calibrate": "model set out in_place level check fields field_px seed samples steps",
}


def make_planes(shape: tuple[int, int] = (48, 40)) -> np.ndarray:
    """Two noisy brightfield planes, counts."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    phase = np.exp(-6 * (y**2 + x**2))
    pair = defocus_pair_of(
        phase,
        0 * phase,
        Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.33),
        (-1.0, 1.0),
    )
    return np.random.default_rng(0).poisson(pair * 2000).astype(np.uint16)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """One file with both planes and a pixel size."""
    path = tmp_path / "planes.ome.tif"
    write_image(path, make_planes(), axes="PYX", pixel_um=0.2, unit="counts", name="planes")
    return path


@pytest.fixture
def spots(tmp_path: Path) -> Path:
    """A fluorescence image as ImageJ would write it."""
    path = tmp_path / "spots.tif"
    counts = (
        np.random.default_rng(1)
        .poisson(60 + 40 * np.random.default_rng(2).random((40, 44)))
        .astype(np.uint16)
    )
    tifffile.imwrite(
        path, counts, imagej=True, resolution=(1 / 0.065, 1 / 0.065), metadata={"unit": "um"}
    )
    return path


def reconstruct(images: Path | list[Path], model: Path, out: Path, *more: str) -> int:
    """Run the command and return its exit code."""
    paths = images if isinstance(images, list) else [images]
    return main(
        ["restore", *map(str, paths), "--model", str(model), "--out", str(out), *QUICK, *more]
    )


def pixels(folder: Path, name: str = "mean") -> np.ndarray:
    return tifffile.imread(folder / f"{name}.ome.tif")


def command_parsers() -> dict[str, argparse.ArgumentParser]:
    actions = options.build_parser()._actions
    return dict(
        next(action.choices for action in actions if isinstance(action, argparse._SubParsersAction))
    )


def test_every_word_of_the_contract_is_an_option() -> None:
    parsers = command_parsers()
    assert set(CONTRACT) == set(parsers)
    for command, words in CONTRACT.items():
        assert set(words.split()) <= {action.dest for action in parsers[command]._actions}, command


def test_options_and_request_have_the_same_names_and_defaults() -> None:
    actions = {action.dest: action for action in command_parsers()["restore"]._actions}
    requested = {entry.name: entry.default for entry in fields(ReconstructionRequest)}
    assert set(requested) <= set(actions)
    assert set(actions) - set(requested) == {
        "help",
        "image2",
        "series",
        "out",
        "overwrite",
        "block",
        "halo",
        "scheduler",
    }
    assert (options.SAMPLERS, options.STEPS, options.PRECISIONS, options.ALIGNMENTS) == (
        SAMPLERS,
        STEPS,
        PRECISIONS,
        ALIGNMENTS,
    )
    for name, default in requested.items():
        said = re.search(r"\(default ([^):]+)", actions[name].help or "")
        assert (said[1] if said else None) == (
            None if default is MISSING or default is None or default is False else str(default)
        ), name


def test_phase_leaves_the_contracted_files(
    stack: Path, tiny_phase_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert (
        reconstruct(
            stack, tiny_phase_model, out, *OPTICS, "--schedule-points", "3", "--keep-samples"
        )
        == 0
    )
    maps = {
        "mean": "rad",
        "std": "rad",
        "variance": "rad^2",
        "samples": "rad",
        **dict.fromkeys(("rate", "valid", "gamma", "beta", "residual", "chi2"), "dimensionless"),
    }
    assert {path.name for path in out.iterdir()} == {f"{name}.ome.tif" for name in maps} | {
        "provenance.json",
        NOTES,
    }
    for name, unit in maps.items():
        with tifffile.TiffFile(out / f"{name}.ome.tif") as file:
            assert file.is_ome and file.series[0].dtype == np.float32
            assert (
                'PhysicalSizeXUnit="µm"' in file.ome_metadata
                and f"{name} [{unit}]" in file.ome_metadata
            )
        assert read_image(out / f"{name}.ome.tif").pixel_um == pytest.approx(0.2)
    np.testing.assert_allclose(pixels(out, "std") ** 2, pixels(out, "variance"), rtol=1e-5)
    np.testing.assert_allclose(pixels(out, "samples").mean(axis=0), pixels(out), atol=1e-5)
    np.testing.assert_allclose(
        pixels(out, "samples").var(axis=0, ddof=1), pixels(out, "variance"), atol=1e-5
    )
    assert set(np.unique(pixels(out, "valid"))) == {1}
    gamma = read_image(out / "gamma.ome.tif")
    assert (gamma.axes, gamma.array.shape) == ("TYX", (3, 48, 40))


def test_maps_and_samples_are_written_only_when_asked(
    spots: Path, tiny_widefield_model: Path, tmp_path: Path
) -> None:
    assert reconstruct(spots, tiny_widefield_model, tmp_path / "out") == 0
    names = ("mean", "std", "variance", "rate", "valid")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{name}.ome.tif" for name in names
    } | {"provenance.json", NOTES}


def test_the_check_is_written_where_the_optics_are_known(
    spots: Path, tiny_widefield_model: Path, tmp_path: Path, capsys: Any
) -> None:
    assert reconstruct(spots, tiny_widefield_model, tmp_path / "without") == 0
    said = json.loads((tmp_path / "without" / "provenance.json").read_text(encoding="utf-8"))[
        "forward"
    ]
    assert said["chi2"] is None and "--na" in said["verdict"] and -1 <= said["rsp"] <= 1
    assert f"check: {said['verdict']}" in capsys.readouterr().err
    assert (
        reconstruct(
            spots, tiny_widefield_model, tmp_path / "with", "--na", "1.4", "--wavelength-um", "0.52"
        )
        == 0
    )
    said = json.loads((tmp_path / "with" / "provenance.json").read_text(encoding="utf-8"))[
        "forward"
    ]
    residual = read_image(tmp_path / "with" / "residual.ome.tif")
    assert (residual.axes, residual.array.shape) == ("YX", (40, 44))
    local = read_image(tmp_path / "with" / "chi2.ome.tif")
    assert (local.axes, local.array.shape, local.pixel_um) == ("YX", (40, 44), residual.pixel_um)
    assert residual.pixel_um == pytest.approx(0.065)
    valid = pixels(tmp_path / "with", "valid")[::2, ::2] > 0
    assert said["chi2"] == pytest.approx(
        float(np.mean(residual.array[valid].astype(np.float64) ** 2)), rel=1e-4
    )


def test_two_files_are_as_good_as_one_stack(
    stack: Path, tiny_phase_model: Path, tmp_path: Path
) -> None:
    files = [tmp_path / "below.npy", tmp_path / "above.npy"]
    for path, plane in zip(files, make_planes(), strict=True):
        np.save(path, plane)
    assert reconstruct(stack, tiny_phase_model, tmp_path / "one", *OPTICS) == 0
    assert reconstruct(files, tiny_phase_model, tmp_path / "two", *OPTICS, "--pixel-um", "0.2") == 0
    np.testing.assert_allclose(pixels(tmp_path / "one"), pixels(tmp_path / "two"), atol=1e-5)


def test_super_resolution_halves_the_pixel_and_keeps_the_place(
    spots: Path, tiny_widefield_model: Path, tmp_path: Path
) -> None:
    assert reconstruct(spots, tiny_widefield_model, tmp_path / "out") == 0
    mean = read_image(tmp_path / "out" / "mean.ome.tif")
    assert mean.array.shape == (80, 88)
    assert mean.pixel_um == pytest.approx(0.0325)
    with tifffile.TiffFile(tmp_path / "out" / "mean.ome.tif") as file:
        first = {
            letter: float(re.search(rf'Position{letter}="([^"]+)"', file.ome_metadata)[1])
            for letter in "YX"
        }
    for letter in (
        "YX"
    ):  # the centres of the first two fine pixels lie evenly about that of the first coarse one
        assert first[letter] + (first[letter] + mean.pixel_um) == pytest.approx(0)


def test_a_region_is_a_part_of_the_whole_and_lies_where_it_lay(
    spots: Path, tiny_widefield_model: Path, tmp_path: Path
) -> None:
    for folder, more in (("whole", []), ("part", ["--region", "8", "28", "4", "24"])):
        assert reconstruct(spots, tiny_widefield_model, tmp_path / folder, *more) == 0
    np.testing.assert_allclose(
        pixels(tmp_path / "part"), pixels(tmp_path / "whole")[16:56, 8:48], rtol=1e-5
    )
    with tifffile.TiffFile(tmp_path / "part" / "mean.ome.tif") as file:
        first = {
            letter: float(re.search(rf'Position{letter}="([^"]+)"', file.ome_metadata)[1])
            for letter in "YX"
        }
    assert first == pytest.approx({"Y": 8 * 0.065 - 0.01625, "X": 4 * 0.065 - 0.01625})


def test_the_same_command_leaves_the_same_bytes(
    spots: Path, tiny_widefield_model: Path, tmp_path: Path
) -> None:
    for folder, seed in (("a", "9"), ("b", "9"), ("c", "10")):
        assert reconstruct(spots, tiny_widefield_model, tmp_path / folder, "--seed", seed) == 0
    for name in ("mean.ome.tif", "variance.ome.tif", "rate.ome.tif"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert pixels(tmp_path / "a").tobytes() != pixels(tmp_path / "c").tobytes()


def test_provenance_has_every_option_by_its_name(
    stack: Path, tiny_phase_model: Path, tmp_path: Path
) -> None:
    blank = tmp_path / "blank.npy"
    np.save(blank, np.full((48, 40), 2000.0))
    out = tmp_path / "out"
    assert reconstruct(stack, tiny_phase_model, out, *OPTICS, "--background", str(blank)) == 0
    provenance = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    said = provenance["settings"]
    assert set(said) == set(CONTRACT["restore"].split()) | {
        "sampler",
        "precision",
        "region",
        "align",
        "psf",
    }
    assert (
        said["image"] == str(stack)
        and said["out"] == str(out)
        and said["background"] == str(blank)
        and said["overwrite"] is False
    )
    assert (said["samples"], said["steps"], said["tile"], said["defocus_um"]) == (
        2,
        2,
        512,
        [-1.0, 1.0],
    )
    assert said["pixel_um"] == pytest.approx(0.2)
    assert {role: entry["file_sha256"] for role, entry in provenance["inputs"].items()} == {
        "image": restoring.file_sha256(stack),
        "background": restoring.file_sha256(blank),
    }
    assert provenance["estimated"]["frames"][0]["background"] == [2000.0, 2000.0]
    assert (
        len(provenance["model"]["sha256"]) == 64
        and len(provenance["pixels_sha256"]["planes.ome.tif"]) == 64
    )
    assert provenance["versions"]["torch"] and provenance["machine"]["device"] == "cpu"
    assert provenance["timings_s"]["total"] >= provenance["timings_s"]["restore"] > 0


def test_unnamed_axes_and_movies_are_looped(tiny_widefield_model: Path, tmp_path: Path) -> None:
    movie = np.random.default_rng(0).poisson(80, (3, 2, 24, 28)).astype(np.float32)
    write_image(
        tmp_path / "movie.ome.tif", movie, axes="TCYX", pixel_um=0.065, unit="counts", name="movie"
    )
    np.save(tmp_path / "stack.npy", movie[:, 0])
    assert (
        reconstruct(
            tmp_path / "movie.ome.tif", tiny_widefield_model, tmp_path / "one", "--keep-samples"
        )
        == 0
    )
    assert (
        reconstruct(
            tmp_path / "stack.npy",
            tiny_widefield_model,
            tmp_path / "two",
            "--pixel-um",
            "0.065",
            "--keep-samples",
            "--schedule-points",
            "2",
        )
        == 0
    )
    first = read_image(tmp_path / "one" / "mean.ome.tif")
    assert (first.axes, first.array.shape) == ("TCYX", (3, 2, 48, 56))
    np.testing.assert_allclose(pixels(tmp_path / "two")[0], first.array[0, 0], atol=1e-4)
    assert all(
        pixels(tmp_path / "two", name).shape == (2, 3, 48, 56) for name in ("samples", "beta")
    )


def test_one_plane_in_focus_is_as_good(stack: Path, tiny_phase_model: Path, tmp_path: Path) -> None:
    assert (
        reconstruct(
            stack, tiny_phase_model, tmp_path / "out", *OPTICS[:4], "--defocus-um", "0", "2.5"
        )
        == 0
    )
    assert np.isfinite(pixels(tmp_path / "out")).all()


@pytest.mark.parametrize("words", [("-1.", "1."), ("-1e0", "+1"), ("-.1e1", "01")])
def test_a_number_may_be_spelt_as_numbers_are(words: tuple[str, str]) -> None:
    arguments = options.build_parser().parse_args(
        ["restore", "a.tif", "--model", "m", "--out", "o", "--defocus-um", *words]
    )
    assert arguments.defocus_um == [-1.0, 1.0]


def test_doubts_are_said_on_stderr(
    stack: Path, tiny_phase_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert reconstruct(stack, tiny_phase_model, tmp_path / "out", *OPTICS, "--pixel-um", "1.5") == 0
    doubts = [
        line
        for line in capfd.readouterr().err.splitlines()
        if not line.startswith("napari-cvdm: check: ")
    ]
    assert any(line.startswith("napari-cvdm: warning: pixel_um is 1.5") for line in doubts)
    written = json.loads((tmp_path / "out" / "provenance.json").read_text(encoding="utf-8"))[
        "warnings"
    ]
    assert [f"napari-cvdm: warning: {doubt}" for doubt in written] == [
        line for line in doubts if not line.startswith("napari-cvdm: check: ")
    ]


def test_an_older_result_is_replaced_when_asked(
    spots: Path, tiny_widefield_model: Path, tmp_path: Path
) -> None:
    assert reconstruct(spots, tiny_widefield_model, tmp_path / "out") == 0
    before = pixels(tmp_path / "out")
    assert (
        reconstruct(spots, tiny_widefield_model, tmp_path / "out", "--seed", "1", "--overwrite")
        == 0
    )
    assert not np.array_equal(pixels(tmp_path / "out"), before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "spots.tif"]


def test_real_planes_are_restored(
    shared_data: Path, tiny_phase_model: Path, tmp_path: Path
) -> None:
    folder = shared_data / "qpi" / "ustie_microlens"
    whole = [read_image(folder / name) for name in ("Iz_-1um.tiff", "I0.tiff")]
    files = [tmp_path / "below.npy", tmp_path / "focus.npy"]
    for path, image in zip(files, whole, strict=True):
        np.save(path, image.array[..., :96, :128])
    optics = [
        "--pixel-um",
        "0.3",
        "--wavelength-um",
        "0.6",
        "--medium-index",
        "1",
        "--defocus-um",
        "-1",
        "0",
    ]
    assert reconstruct(files, tiny_phase_model, tmp_path / "out", *optics) == 0
    assert pixels(tmp_path / "out").shape == (96, 128)


def test_an_interruption_leaves_nothing(
    spots: Path,
    tiny_widefield_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    def interrupted(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tifffile.TiffWriter, "write", interrupted)
    assert reconstruct(spots, tiny_widefield_model, tmp_path / "out") == 130
    assert [path.name for path in tmp_path.iterdir()] == ["spots.tif"]
    assert capfd.readouterr().err == "napari-cvdm: stopped: no result was left behind.\n"


def test_help_is_light() -> None:
    heavy = "{'torch', 'numpy', 'matplotlib', 'tqdm'}"
    code = (
        "import sys\nfrom napari_cvdm.cli import main\ntry: main(['restore', '--help'])\nexcept "
        f"SystemExit as end: print(end.code, {heavy} & {{*sys.modules}})"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.splitlines()[-1]
        == "0 set()"
    )


def test_step_and_stage_position_of_the_input_are_kept(
    tiny_widefield_model: Path, tmp_path: Path
) -> None:
    """A reconstructed stack lies where the measured one lay.

    It starts half a fine pixel earlier and has the same step along Z.
    """
    stack = np.random.default_rng(0).poisson(100, (3, 24, 20)).astype(np.float32)
    write_image(
        tmp_path / "in.ome.tif",
        stack,
        axes="ZYX",
        pixel_um=0.08,
        unit="counts",
        name="in",
        offset_um=(-7.5, 1234.5),
        z_step_um=0.3,
    )
    words = [
        "restore",
        tmp_path / "in.ome.tif",
        "--model",
        tiny_widefield_model,
        "--out",
        tmp_path / "out",
        "--samples",
        "1",
        "--steps",
        "1",
    ]
    assert main([*map(str, words)]) == 0
    place = read_image(tmp_path / "out" / "mean.ome.tif").place
    assert place == pytest.approx({"z_step_um": 0.3, "y_um": -7.52, "x_um": 1234.48})
