"""MRC files: Angstrom in the standard, micrometres and sections in Priism's older variant."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from napari_cvdm.io import ImageFileError, read_image

DATA = Path(__file__).parents[2].parent / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real images are not at {DATA}")


def ramp(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def write_priism(
    path: Path, header: bytes, array: np.ndarray, counts: tuple[int, int, int], mode: int
) -> None:
    """An image behind the header of a real Priism file.

    Only size, type and the numbers of times, sequence and waves are new.
    """
    raw = bytearray(header[:1024])
    raw[0:16] = np.array(
        [array.shape[-1], array.shape[-2], int(np.prod(array.shape[:-2])), mode], "<i4"
    ).tobytes()
    raw[180:182], raw[182:184], raw[196:198] = (
        np.array(number, "<i2").tobytes() for number in counts
    )
    path.write_bytes(bytes(raw) + array.tobytes())


def planted_header() -> bytes:
    raw = bytearray(1024)
    raw[28:52] = (
        np.array([1, 1, 1], "<i4").tobytes() + np.array([0.0626, 0.0626, 0.0], "<f4").tobytes()
    )
    raw[64:76], raw[96:98] = np.array([1, 2, 3], "<i4").tobytes(), np.array(-16224, "<i2").tobytes()
    raw[198:200] = np.array(515, "<i2").tobytes()
    return bytes(raw)


@pytest.mark.parametrize(
    ("counts", "axes"),
    [
        ((1, 0, 1), "Z"),
        ((3, 1, 2), "TZC"),
        ((3, 2, 2), "TCZ"),
        ((3, 0, 2), "CTZ"),
        ((3, 0, 1), "TZ"),
    ],
)
def test_priism_sections_and_micrometres(
    tmp_path: Path, counts: tuple[int, int, int], axes: str
) -> None:
    sizes = {"T": counts[0], "C": counts[2], "Z": 5}
    array = ramp(*(sizes[letter] for letter in axes), 8, 9)
    write_priism(tmp_path / "a.mrc", planted_header(), array, counts, 6)
    image = read_image(tmp_path / "a.mrc")
    assert (image.axes, image.pixel_um) == (axes + "YX", pytest.approx(0.0626))
    assert dict(image.metadata) == ({"emission_um": 0.515} if counts[2] == 1 else {})
    np.testing.assert_array_equal(image.array, array)


@real_data
@pytest.mark.parametrize(
    ("wavelength", "emission_um"),
    [("488_cam1_0_z30", 0.515), ("560_cam2_0_z21", 0.61), ("647_cam2_0_z21", 0.66)],
)
def test_headers_of_the_laboratory_that_made_biosr(
    tmp_path: Path, wavelength: str, emission_um: float
) -> None:
    real = DATA / "sr" / "biosr_lab_otf" / f"TIRF{wavelength}_OTF2d.mrc"
    with pytest.raises(ImageFileError, match="complex"):
        read_image(real)
    array = ramp(8, 9, dtype="uint8") + np.uint8(180)
    write_priism(tmp_path / "a.mrc", real.read_bytes(), array, (1, 0, 1), 0)
    image = read_image(tmp_path / "a.mrc")
    assert (image.axes, image.pixel_um) == ("YX", pytest.approx(0.0312, rel=1e-3))
    assert image.metadata["emission_um"] == pytest.approx(emission_um)
    np.testing.assert_array_equal(image.array, array)


@pytest.mark.parametrize(("angstrom", "expected"), [(626.0, 0.0626), (0.0, None), (1.0, None)])
def test_standard_mrc_counts_in_angstrom(
    tmp_path: Path, angstrom: float, expected: float | None
) -> None:
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(ramp(3, 8, 9, dtype="float32"))
        mrc.voxel_size = angstrom
    image = read_image(tmp_path / "a.mrc")
    assert image.axes == "ZYX"
    assert image.pixel_um == (None if expected is None else pytest.approx(expected))


def test_voxels_that_are_not_square_have_no_size(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(ramp(8, 9, dtype="float32"))
        mrc.voxel_size = (650.0, 1300.0, 2000.0)
    image = read_image(tmp_path / "a.mrc")
    assert image.pixel_um is None and "must be square" in image.origins["pixel_um"]
