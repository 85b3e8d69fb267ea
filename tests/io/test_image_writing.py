"""Results appear complete or not at all, and read back as they were."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_cvdm.io import ImageFileError, folders, output_folder, read_image, write_image
from napari_cvdm.io.folders import NOTES

many_files = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


def write(path: Path, array: np.ndarray, axes: str, **more: object) -> None:
    write_image(
        path, array, axes=axes, **({"pixel_um": 0.0313, "unit": "rad", "name": "mean"} | more)
    )


def plane_positions(path: Path) -> set[tuple[str, str, str]]:
    with tifffile.TiffFile(path) as tiff:
        planes = tifffile.xml2dict(tiff.ome_metadata or "")["OME"]["Image"]["Pixels"]["Plane"]
    planes = planes if isinstance(planes, list) else [planes]
    return {(plane["PositionY"], plane["PositionX"], plane["PositionXUnit"]) for plane in planes}


@st.composite
def axes_and_sizes(draw: st.DrawFn) -> tuple[str, tuple[int, ...]]:
    leading = draw(
        st.permutations("STCZ").flatmap(
            lambda letters: st.integers(0, 4).map(lambda count: "".join(letters[:count]))
        )
    )
    sizes = draw(st.lists(st.integers(1, 3), min_size=len(leading), max_size=len(leading)))
    return leading + "YX", (*sizes, draw(st.integers(1, 6)), draw(st.integers(1, 6)))


@many_files
@given(case=axes_and_sizes(), pixel_um=st.sampled_from([0.0313, 0.139, 6.5, None]))
def test_what_is_written_reads_back(
    tmp_path: Path, case: tuple[str, tuple[int, ...]], pixel_um: float | None
) -> None:
    axes, shape = case
    array = values(*shape)
    write(tmp_path / "a.ome.tif", array, axes, pixel_um=pixel_um)
    image = read_image(tmp_path / "a.ome.tif")
    kept = [index for index, letter in enumerate(axes) if letter in "YX" or shape[index] > 1]
    expected = array.reshape([shape[index] for index in kept])
    letters = "".join(axes[index] for index in kept)
    if (
        letters.startswith("S") and len(letters) == 6
    ):  # a sixth axis has to share one of OME's: S then comes second
        letters, expected = letters[1] + "S" + letters[2:], np.moveaxis(expected, 0, 1)
    assert (image.axes, image.pixel_um) == (
        letters,
        None if pixel_um is None else pytest.approx(pixel_um),
    )
    np.testing.assert_array_equal(image.array, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.tif"]


@pytest.mark.parametrize(
    ("axes", "read_as"),
    [
        ("KYX", "TYX"),
        ("KCYX", "TCYX"),
        ("KTYX", "STYX"),
        ("PYX", "ZYX"),
        ("SPYX", "SZYX"),
        ("TZPYX", "TZSYX"),
    ],
)
def test_letters_that_ome_lacks(tmp_path: Path, axes: str, read_as: str) -> None:
    array = values(*range(2, len(axes)), 6, 7)
    write(tmp_path / "a.ome.tif", array, axes)
    image = read_image(tmp_path / "a.ome.tif")
    assert image.axes == read_as
    np.testing.assert_array_equal(image.array, array)


def test_position_units_names_and_times(tmp_path: Path) -> None:
    write(
        tmp_path / "a.ome.tif",
        values(3, 2, 4, 5),
        "KCYX",
        offset_um=(-0.01565, 0.02),
        times=(0.25, 0.5, 1.0),
        z_step_um=0.3,
        name="gamma",
        unit="1",
    )
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        xml = tiff.ome_metadata or ""
    pixels = tifffile.xml2dict(xml)["OME"]["Image"]["Pixels"]
    assert (
        plane_positions(tmp_path / "a.ome.tif") == {(-0.01565, 0.02, "µm")}
        and len(pixels["Plane"]) == 6
    )
    assert [pixels[f"PhysicalSize{letter}"] for letter in "XYZ"] == [0.0313, 0.0313, 0.3]
    assert [channel["Name"] for channel in pixels["Channel"]] == ["gamma [1] 0", "gamma [1] 1"]
    assert "0.25 0.5 1.0" in xml and "pixel values in 1" in xml


@pytest.mark.parametrize(
    ("name", "axes", "more", "says"),
    [
        ("a.png", "YX", {}, "ome.tif"),
        ("a.tif", "TYX", {}, "do not fit"),
        ("a.tif", "XY", {}, "do not fit"),
        ("a.tif", "YX", {"times": (0.1,)}, "times"),
        ("missing/a.tif", "YX", {}, "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, name: str, axes: str, more: dict[str, object], says: str
) -> None:
    with pytest.raises(ImageFileError, match=says):
        write(tmp_path / name, values(4, 5), axes, **more)
    assert not list(tmp_path.iterdir())


def test_too_many_axes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="cannot hold"):
        write(tmp_path / "a.tif", values(2, 2, 2, 4, 5), "SKTYX")


def test_a_full_disk_keeps_the_older_file_and_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="file size limits are a matter of POSIX")
    write(tmp_path / "a.ome.tif", values(8, 8), "YX")
    before = (tmp_path / "a.ome.tif").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (100_000, hard)
    )  # the system itself now refuses larger files
    try:
        with pytest.raises(ImageFileError, match="disk is full"):
            write(tmp_path / "a.ome.tif", values(400, 400), "YX")
        with (
            pytest.raises(ImageFileError, match=r"result.b\.ome\.tif: the disk is full"),
            output_folder(tmp_path / "result", False) as folder,
        ):
            write(folder / "b.ome.tif", values(400, 400), "YX")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.tif"]
    assert (tmp_path / "a.ome.tif").read_bytes() == before


def fill(folder: Path, text: str) -> None:
    (folder / "provenance.json").write_text(text)


def test_a_folder_appears_with_everything_in_it(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "result"
    with output_folder(target, False) as folder:
        fill(folder, "new")
        assert not target.parent.exists()
    assert (target / "provenance.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_an_older_result_is_replaced_only_when_asked(tmp_path: Path) -> None:
    target = tmp_path / "result"
    with output_folder(target, False) as folder:
        fill(folder, "old")
        (folder / "leftover").touch()
    with pytest.raises(ImageFileError, match="--overwrite"), output_folder(target, False):
        pytest.fail("the block must not run")
    with output_folder(target, True) as folder:
        fill(folder, "new")
        assert (target / "provenance.json").read_text() == "old"
    assert (
        sorted(path.name for path in target.iterdir()) == [NOTES, "provenance.json"]
        and (target / "provenance.json").read_text() == "new"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize(
    "make", [lambda path: (path.mkdir(), (path / "thesis.doc").touch()), lambda path: path.touch()]
)
def test_what_is_no_result_is_never_overwritten(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "mine")
    with pytest.raises(ImageFileError), output_folder(tmp_path / "mine", True):
        pytest.fail("the block must not run")
    assert (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        RuntimeError("broken"),
        OSError(errno.ENOSPC, "No space left on device"),
        GeneratorExit(),
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_whatever_goes_wrong_leaves_the_older_result(
    tmp_path: Path, error: BaseException, older: bool
) -> None:
    target = tmp_path / "result"
    if older:
        with output_folder(target, False) as folder:
            fill(folder, "old")
    expected = ImageFileError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), output_folder(target, True) as folder:
        fill(folder, "half")
        raise error
    assert [path.name for path in tmp_path.iterdir()] == (["result"] if older else [])
    assert not older or (target / "provenance.json").read_text() == "old"


def test_a_folder_below_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ImageFileError, match="not a folder"),
        output_folder(tmp_path / "file" / "deep" / "result", False),
    ):
        pytest.fail("the block must not run")


def test_a_result_that_another_process_made_meanwhile_stays(tmp_path: Path) -> None:
    with (
        pytest.raises(ImageFileError, match="cannot be written"),
        output_folder(tmp_path / "result", False) as folder,
    ):
        fill(folder, "ours")
        (tmp_path / "result").mkdir()
        fill(tmp_path / "result", "theirs")
    assert [path.name for path in tmp_path.iterdir()] == ["result"] and (
        tmp_path / "result" / "provenance.json"
    ).read_text() == "theirs"


def test_a_failing_last_step_puts_the_older_result_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system cannot exchange two folders at once, it renames twice."""
    target, rename = tmp_path / "result", os.rename
    with output_folder(target, False) as folder:
        fill(folder, "old")
    monkeypatch.setattr(folders, "_exchange", lambda *names: False)

    def failing(source: Path, destination: Path) -> None:
        if str(source).endswith(".part"):
            raise PermissionError(errno.EACCES, "denied", str(source))
        rename(source, destination)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(ImageFileError, match="denied"), output_folder(target, True) as folder:
        fill(folder, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["result"] and (
        target / "provenance.json"
    ).read_text() == "old"


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_root_or_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for target in (Path("/"), tmp_path / "loop" / "result"):
        with pytest.raises(ImageFileError), output_folder(target, False):
            raise AssertionError("the work must not start")
