"""A result folder gives back its reconstruction, or an error that says what is wrong."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_cvdm.core.result import NO_CLOCK, ClockCurve, ForwardCheck, Provenance, Reconstruction
from napari_cvdm.io import ImageFileError, read_image, write_image
from napari_cvdm.io.result_folder import (
    image_notes,
    is_result_folder,
    read_result_folder,
)
from napari_cvdm.io.zarr_write import NOTES_KEY
from napari_cvdm.models.schedule import gamma_and_beta
from napari_cvdm.reconstruction.provenance import write_images, write_provenance, write_result

CLOCK = ClockCurve(times=(0.5, 1.0), values=(0.4, 1.0), speeds=(1.25, 2.0))
PLACE = {"y_um": 12.0, "x_um": -3.5, "z_step_um": 0.3}


def curve_of(points: int) -> ClockCurve:
    times = tuple((k + 1) / points for k in range(points))
    return ClockCurve(times=times, values=times, speeds=(1.0,) * points)


def reconstruction(
    shape: tuple[int, ...], axes: str, *, upsampling: int = 1, points: int = 0, samples: int = 0
) -> Reconstruction:
    rng = np.random.default_rng(len(shape))

    def draw(*size: int) -> np.ndarray:
        return rng.random(size, dtype=np.float32)

    provenance = Provenance(
        inputs={"cell.tif": "0" * 64},
        model={"name": "tiny", "sha256": "1" * 64, "task": "phase-2shot", "training": {}},
        settings={
            "model": "tiny",
            "seed": 3,
            "pixel_um": 0.25 * upsampling,
            "defocus_um": (-1.0, 1.0),
        },
        estimated={"frames": [{"level": 3.0}], "tile_used": 64},
        versions={"napari-cvdm": "0.1.0", "torch": "2"},
        timings_s={"total": 1.0},
        warnings=("far from training",),
    )
    return Reconstruction(
        mean=draw(*shape),
        variance=draw(*shape),
        rate=draw(*shape),
        valid=draw(*shape) > 0.5,
        axes=axes,
        unit="rad",
        pixel_um=0.25,
        upsampling=upsampling,
        provenance=provenance,
        clock=CLOCK,
        schedule_clock=curve_of(points),
        samples=draw(samples, *shape) if samples else None,
        counts=np.full(shape[:-2], 2),
    )


def written(folder: Path, result: Reconstruction, place: dict[str, float] = PLACE) -> Path:
    """The folder, filled as the command line fills it."""
    write_images(folder, result, place)
    write_provenance(
        folder,
        result,
        {"image": "cell.tif", "out": "there"},
        {"image": {"path": "cell.tif"}},
        {"total": 2.0},
        "cpu",
    )
    return folder


def changed_record(folder: Path, **changes: Any) -> None:
    path = folder / "provenance.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8"
    )


@pytest.mark.parametrize("names", [(), ("DAPI", "GFP"), ("counts", "")])
@pytest.mark.parametrize("axes", ["CYX", "TCYX", "YX"])
def test_names_of_channels_come_back(tmp_path: Path, names: tuple[str, ...], axes: str) -> None:
    shape = tuple({"T": 3, "C": 2, "Y": 6, "X": 8}[letter] for letter in axes)
    result = reconstruction(shape, axes)
    write_result(tmp_path, result, PLACE, {}, channels=names)
    assert read_result_folder(tmp_path).channels == (names if "C" in axes else ())


@pytest.mark.parametrize(("axes", "shape"), [("TYX", (3, 3, 4)), ("TPYX", (3, 2, 3, 4))])
def test_the_check_comes_back(tmp_path: Path, axes: str, shape: tuple[int, ...]) -> None:
    result, rng = reconstruction((3, 6, 8), "TYX", upsampling=2), np.random.default_rng(0)
    residual, local = (rng.normal(size=size).astype(np.float32) for size in (shape, (3, 3, 4)))
    frames = np.array([1.0, 2.0, np.nan])
    numbers = {
        "axes": axes,
        "chi2": 1.5,
        "frame_chi2": frames,
        "sample_chi2": 2 * frames,
        "gain": 0.98,
        "rsp": 0.9,
        "rse": 3.0,
        "limit": 1.5,
        "verdict": "ok",
    }
    check = ForwardCheck(residual=residual, local_chi2=local, **numbers)
    none = ForwardCheck(limit=1.5, verdict="na not known")
    for name, given in (
        ("with", check),
        ("before chi2", replace(check, local_chi2=None)),
        ("without", none),
        ("older", None),
    ):
        (tmp_path / name).mkdir()
        found = read_result_folder(
            written(tmp_path / name, replace(result, forward=given))
        ).reconstruction.forward
        assert (found is None) == (given is None)
        if given is not None and found is not None:
            assert found.numbers() == given.numbers()
            np.testing.assert_array_equal(found.residual, given.residual)
            np.testing.assert_array_equal(found.local_chi2, given.local_chi2)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A whole result folder."""
    return written(tmp_path, reconstruction((6, 8), "YX", points=2, samples=3))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((6, 8), "YX"),
        ((3, 6, 8), "TYX"),
        ((1, 6, 8), "TYX"),
        ((2, 3, 6, 8), "CZYX"),
        ((2, 3, 2, 6, 8), "TZCYX"),
        ((1, 3, 1, 6, 8), "TZCYX"),
        ((2, 1, 8), "ZYX"),
    ],
)
@pytest.mark.parametrize(("points", "samples"), [(0, 0), (1, 1), (4, 3)])
def test_what_was_written_is_read(
    tmp_path: Path, shape: tuple[int, ...], axes: str, points: int, samples: int
) -> None:
    result = reconstruction(shape, axes, upsampling=2, points=points, samples=samples)
    read = read_result_folder(written(tmp_path, result)).reconstruction
    for entry in fields(Reconstruction):
        if entry.name in ("provenance", "schedule_clock"):
            continue
        before, after = getattr(result, entry.name), getattr(read, entry.name)
        if isinstance(before, np.ndarray):
            assert (after.dtype, after.shape) == (before.dtype, before.shape), entry.name
            np.testing.assert_array_equal(after, before, err_msg=entry.name)
        else:
            assert after == before, entry.name


def test_the_schedule_is_written_and_not_read(whole: Path) -> None:
    result = reconstruction((6, 8), "YX", points=2)
    assert read_result_folder(whole).reconstruction.schedule_clock == NO_CLOCK
    for name, values in zip(
        ("gamma", "beta"), gamma_and_beta(result.rate, result.schedule_clock), strict=True
    ):
        np.testing.assert_array_equal(read_image(whole / f"{name}.ome.tif").array, values)


def test_the_provenance_is_what_was_written_and_more(whole: Path) -> None:
    before, after = (
        asdict(reconstruction((6, 8), "YX").provenance),
        asdict(read_result_folder(whole).reconstruction.provenance),
    )
    for name in ("inputs", "model", "estimated", "warnings"):
        assert after[name] == before[name], name
    for name in ("settings", "versions"):
        assert before[name].items() <= after[name].items(), name
    assert after["settings"]["image"] == "cell.tif"


@pytest.mark.parametrize("upsampling", [1, 2])
def test_the_place_is_that_of_the_measured_image(tmp_path: Path, upsampling: int) -> None:
    stored = read_result_folder(
        written(tmp_path, reconstruction((2, 6, 8), "ZYX", upsampling=upsampling))
    )
    assert stored.place == pytest.approx(PLACE)
    assert stored.source == "cell.tif"


def test_other_folders_are_not_ours(tmp_path: Path) -> None:
    assert not is_result_folder(tmp_path / "nowhere")
    assert not is_result_folder(tmp_path)
    for versions in ('{"another-program": "1"}', "null"):
        (tmp_path / "provenance.json").write_text(f'{{"versions": {versions}}}', encoding="utf-8")
        assert not is_result_folder(tmp_path)
    with pytest.raises(ImageFileError, match="napari-cvdm restore"):
        read_result_folder(tmp_path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "name",
    [
        "provenance.json",
        "mean.ome.tif",
        "variance.ome.tif",
        "rate.ome.tif",
        "valid.ome.tif",
        "samples.ome.tif",
    ],
)
def test_a_file_cut_short_is_told(whole: Path, name: str) -> None:
    cut(whole / name)
    assert is_result_folder(whole)
    with pytest.raises(ImageFileError, match="cut short"):
        read_result_folder(whole)


@pytest.mark.parametrize("name", ["mean", "variance", "rate", "valid"])
def test_a_missing_file_is_named(whole: Path, name: str) -> None:
    (whole / f"{name}.ome.tif").unlink()
    assert is_result_folder(whole)
    with pytest.raises(ImageFileError, match=rf"{name}\.ome\.tif is missing"):
        read_result_folder(whole)


def test_a_file_of_another_result_is_told(
    whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = written(tmp_path_factory.mktemp("other"), reconstruction((7, 8), "YX"))
    (whole / "rate.ome.tif").write_bytes((other / "rate.ome.tif").read_bytes())
    with pytest.raises(ImageFileError, match="from another result"):
        read_result_folder(whole)


@pytest.mark.parametrize("lost", ["output", "settings", "pixels_sha256", "warnings"])
def test_a_record_that_lacks_something_is_told_in_one_line(whole: Path, lost: str) -> None:
    changed_record(whole, **{lost: None})
    with pytest.raises(ImageFileError) as caught:
        read_result_folder(whole)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pixel_um", [0, 1e-320])
def test_a_pixel_size_that_is_none_is_told_in_one_line(whole: Path, pixel_um: float) -> None:
    record = json.loads((whole / "provenance.json").read_text(encoding="utf-8"))
    changed_record(whole, output={**record["output"], "pixel_um": pixel_um})
    with pytest.raises(ImageFileError, match="lacks what a result has"):
        read_result_folder(whole)


def test_notes_are_read_from_the_first_page_alone(tmp_path: Path) -> None:
    path, notes = tmp_path / "mean.ome.tif", {"role": "mean"}
    write_image(
        path,
        np.arange(3 * 8 * 9).reshape(3, 8, 9),
        axes="ZYX",
        pixel_um=0.1,
        unit="rad",
        name="mean",
        notes={NOTES_KEY: json.dumps(notes)},
    )
    assert image_notes(path) == notes
    with tifffile.TiffFile(path) as file:
        first, second = file.pages[0], file.pages[1]
        following = (
            second.offset
            + 2
            + 12 * int.from_bytes(path.read_bytes()[second.offset : second.offset + 2], "little")
        )
    content = bytearray(path.read_bytes())
    content[following : following + 4] = first.offset.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match="lead back"):
        read_image(path)
    assert image_notes(path) == notes
