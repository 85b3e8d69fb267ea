"""Image files are read with axes, pixel size and optics, or refused in one line."""

from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_cvdm.io import ImageFileError, combine_planes, read_image

DATA = Path(__file__).parents[2].parent / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real images are not at {DATA}")
many_files = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

OME_WITH_OPTICS = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
<Instrument ID="Instrument:0"><Objective ID="Objective:0" LensNA="0.4"/>\
<Objective ID="Objective:1" LensNA="1.4"/></Instrument>
<Image ID="Image:0"><InstrumentRef ID="Instrument:0"/>\
<ObjectiveSettings ID="Objective:1" RefractiveIndex="1.518"/>
<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" \
SizeX="20" SizeY="16" SizeC="1" SizeZ="1" SizeT="1"
 PhysicalSizeX="{x}" PhysicalSizeXUnit="{unit}" PhysicalSizeY="{y}" PhysicalSizeYUnit="{unit}">
<Channel ID="Channel:0:0" EmissionWavelength="525.0"/>\
<TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>"""


def ramp(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(ImageFileError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize(
    ("x", "unit", "expected"),
    [
        (65, "nm", 0.065),
        (6.5e-5, "mm", 0.065),
        (0.065, "µm", 0.065),
        (1, "µm", None),
        (3, "pixel", None),
    ],
)
def test_ome_pixel_size_in_any_unit_and_optics(
    tmp_path: Path, x: float, unit: str, expected: float | None
) -> None:
    xml = OME_WITH_OPTICS.format(x=x, y=x, unit=unit).encode()
    tifffile.imwrite(tmp_path / "a.ome.tif", ramp(16, 20), description=xml, metadata=None)
    image = read_image(tmp_path / "a.ome.tif")
    assert image.pixel_um == (None if expected is None else pytest.approx(expected))
    assert dict(image.metadata) == {
        "na": 1.4,
        "immersion_index": 1.518,
        "emission_um": pytest.approx(0.525),
    }


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        (1 / 0.065, "um", 0.065),
        (1 / 0.065, "\\u00B5m", 0.065),
        (1 / 65, "nm", 0.065),
        (1.0, "um", None),
        (10.0, "pixel", None),
        (10.0, "", None),
        (72.0, "inch", None),
    ],
)
def test_imagej_resolution_is_pixels_per_unit(
    tmp_path: Path, resolution: float, unit: str, expected: float | None
) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        ramp(3, 2, 16, 20),
        imagej=True,
        resolution=(resolution, resolution),
        metadata={"axes": "TCYX", "unit": unit},
    )
    image = read_image(tmp_path / "a.tif")
    assert (image.axes, image.array.shape) == ("TCYX", (3, 2, 16, 20))
    assert image.pixel_um == (None if expected is None else pytest.approx(expected, rel=1e-4))


@pytest.mark.parametrize(
    ("pixels", "unit", "expected"),
    [
        (72, "INCH", None),
        (96, "INCH", None),
        (300, "INCH", None),
        (2400, "INCH", None),
        (118.11, "CENTIMETER", None),
        (1e4 / 0.065, "CENTIMETER", 0.065),
        (1, "NONE", None),
    ],
)
def test_printer_resolutions_are_no_pixel_size(
    tmp_path: Path, pixels: float, unit: str, expected: float | None
) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", ramp(16, 20), resolution=(pixels, pixels), resolutionunit=unit
    )
    assert read_image(tmp_path / "a.tif").pixel_um == (
        None if expected is None else pytest.approx(expected, rel=1e-4)
    )


def test_pixels_that_are_not_square_have_no_size_and_a_reason(tmp_path: Path) -> None:
    for y, wrong in ((65.3, False), (66.0, True)):
        tifffile.imwrite(
            tmp_path / "a.ome.tif",
            ramp(16, 20),
            description=OME_WITH_OPTICS.format(x=65, y=y, unit="nm").encode(),
            metadata=None,
        )
        image = read_image(tmp_path / "a.ome.tif")
        assert image.pixel_um == (None if wrong else pytest.approx(0.065))
        assert ("0.065 x 0.066 um" in image.origins["pixel_um"]) == wrong


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours_become_a_leading_channel_axis(tmp_path: Path, planar: str) -> None:
    colours = ramp(3, 16, 20, dtype="uint8")
    pixels = np.moveaxis(colours, 0, -1) if planar == "contig" else colours
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", planarconfig=planar)
    image = read_image(tmp_path / "a.tif")
    assert image.axes == "CYX"
    np.testing.assert_array_equal(image.array, colours)


@many_files
@given(
    leading=st.lists(st.integers(1, 3), max_size=3),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from(["uint8", ">u2", "int16", "float32", ">f8", "bool"]),
    suffix=st.sampled_from([".npy", ".tif"]),
)
def test_values_survive_reading_whatever_shape_and_type(
    tmp_path: Path, leading: list[int], size: tuple[int, int], dtype: str, suffix: str
) -> None:
    array = (
        (ramp(*leading, *size) % 2).astype(dtype)
        if dtype == "bool"
        else ramp(*leading, *size).astype(dtype)
    )
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    else:
        tifffile.imwrite(
            path, array, photometric="minisblack", metadata={"axes": "QIR"[: len(leading)] + "YX"}
        )
    image = read_image(path)
    assert image.array.dtype.isnative and image.pixel_um is None
    assert set(image.axes) <= set("STZYX")
    np.testing.assert_array_equal(
        image.array, array.reshape([length for length in leading if length > 1] + list(size))
    )


@real_data
def test_real_files() -> None:
    widefield = read_image(DATA / "sr" / "tsim_er" / "ER_1_wf_t1.tif")
    raw = read_image(DATA / "sr" / "tsim_er" / "ER_1_raw_t3_p9.tif")
    assert (raw.axes, raw.array.shape, raw.pixel_um) == ("ZCYX", (3, 9, 112, 512), None)
    np.testing.assert_allclose(raw.array[1].mean(axis=0), widefield.array, rtol=1e-6)
    assert read_image(
        DATA / "sr" / "dlsim_microtubule" / "HER_sim_normal_light.tif"
    ).pixel_um == pytest.approx(0.03, rel=1e-6)
    lenses = combine_planes(
        *(
            read_image(DATA / "qpi" / "ustie_microlens" / name)
            for name in ("I0.tiff", "Iz_-1um.tiff")
        )
    )
    assert (lenses.axes, lenses.array.shape, lenses.array.dtype, lenses.pixel_um) == (
        "PYX",
        (2, 960, 1280),
        np.uint8,
        None,
    )


def _uncompressed(path: Path, array: np.ndarray) -> None:
    tifffile.imwrite(path, array, photometric="minisblack")


def _pages(path: Path, array: np.ndarray) -> None:
    with tifffile.TiffWriter(path) as writer:
        for page in array:
            writer.write(page, contiguous=False, metadata=None, compression="zlib")


def _ome(path: Path, array: np.ndarray) -> None:
    tifffile.imwrite(path, array, ome=True, metadata={"axes": "TYX"}, compression="zlib")


def _imagej(path: Path, array: np.ndarray) -> None:
    tifffile.imwrite(path, array, imagej=True, metadata={"axes": "TYX"})


def _tiles(path: Path, array: np.ndarray) -> None:
    tifffile.imwrite(path, array, tile=(16, 16), compression="zlib", photometric="minisblack")


def _npy(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)


def _mrc(path: Path, array: np.ndarray) -> None:
    with mrcfile.new(path) as mrc:
        mrc.set_data(array)


WRITERS = {
    "plain.tif": _uncompressed,
    "pages.tif": _pages,
    "a.ome.tif": _ome,
    "imagej.tif": _imagej,
    "tiles.tif": _tiles,
    "a.npy": _npy,
    "a.mrc": _mrc,
}


@many_files
@given(cut=st.floats(0, 1, exclude_max=True), name=st.sampled_from(sorted(WRITERS)))
def test_a_cut_file_is_refused_or_whole_never_half(tmp_path: Path, cut: float, name: str) -> None:
    array = np.random.default_rng(3).integers(0, 9, (4, 40, 24)).astype("uint16")
    path = tmp_path / name
    path.unlink(missing_ok=True)
    WRITERS[name](path, array)
    whole = path.read_bytes()
    np.testing.assert_array_equal(read_image(path).array, array)
    path.write_bytes(whole[: int(cut * len(whole))])
    try:
        np.testing.assert_array_equal(read_image(path).array, array)
    except ImageFileError as error:
        assert "\n" not in str(error)


@real_data
@pytest.mark.parametrize(
    "name",
    [
        "qpi/ustie_microlens/I0.tiff",
        "sr/tsim_er/ER_1_raw_t3_p9.tif",
        "sr/dlsim_microtubule/HE/HE_15.tif",
    ],
)
@pytest.mark.parametrize("cut", [0.02, 0.5, 0.97])
def test_a_cut_real_file_is_refused(tmp_path: Path, name: str, cut: float) -> None:
    whole = (DATA / name).read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: int(cut * len(whole))])
    assert "cut short" in refusal(lambda: read_image(tmp_path / "cut.tif"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.tif", None, "no such file"),
        ("a.jpg", b"x", "allowed are .tif, .tiff, .stk, .lsm"),
        ("noise.tif", b"not an image at all" * 99, "cannot be read as TIFF"),
        ("noise.npy", b"not an image at all" * 99, "cannot be read as NPY"),
        ("noise.mrc", b"not an image at all" * 99, "cannot be read as MRC"),
        ("empty.tif", b"", "0 bytes"),
    ],
)
def test_what_is_no_image_is_refused(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert says in refusal(lambda: read_image(tmp_path / name))


@pytest.mark.parametrize("name", ["a.npy", "a.mrc", "a.tif"])
def test_an_image_names_its_file_in_full_whatever_path_was_given(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.arange(64, dtype=np.float32).reshape(8, 8)
    if name == "a.npy":
        np.save(tmp_path / name, array)
    elif name == "a.mrc":
        with mrcfile.new(tmp_path / name) as mrc:
            mrc.set_data(array)
    else:
        tifffile.imwrite(tmp_path / name, array)
    monkeypatch.chdir(tmp_path)
    assert read_image(name).files == (str((tmp_path / name).resolve()),)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "folder" in refusal(lambda: read_image(tmp_path))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 0, 4)), "empty"),
        (np.ones((4, 4), complex), "complex"),
        (np.array([[{}, 1]], object), "pickle"),
        (np.zeros((2,) * 7), "axes are too many"),
        (np.zeros(5), "Y and X"),
        (np.array(["a"]), "real numbers"),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path: Path, array: np.ndarray, says: str) -> None:
    np.save(tmp_path / "a.npy", array)
    assert says in refusal(lambda: read_image(tmp_path / "a.npy"))


def test_frames_that_were_promised_and_never_written_are_counted(tmp_path: Path) -> None:
    xml = (
        OME_WITH_OPTICS.format(x=65, y=65, unit="nm")
        .replace('SizeT="1"', 'SizeT="3"')
        .replace('PlaneCount="1"', 'PlaneCount="3"')
    )
    tifffile.imwrite(tmp_path / "a.ome.tif", ramp(16, 20), description=xml.encode(), metadata=None)
    image = read_image(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(image.array, ramp(16, 20))
    assert "a.ome.tif: 1 of 3 frames along T were written" in image.warnings[0]


def test_a_compression_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pages(tmp_path / "a.tif", ramp(1, 16, 20))

    def missing(*args: object, **options: object) -> None:
        raise KeyError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", missing)
    assert "pip install imagecodecs" in refusal(lambda: read_image(tmp_path / "a.tif"))


@many_files
@given(where=st.integers(0, 1500), byte=st.integers(0, 255), name=st.sampled_from(sorted(WRITERS)))
def test_a_damaged_byte_never_gives_another_error(
    tmp_path: Path, where: int, byte: int, name: str
) -> None:
    path = tmp_path / name
    path.unlink(missing_ok=True)
    WRITERS[name](path, ramp(4, 40, 24))
    raw = bytearray(path.read_bytes())
    raw[where] = byte
    path.write_bytes(raw)
    try:
        assert read_image(path).array.size > 0
    except ImageFileError as error:
        assert "\n" not in str(error)
