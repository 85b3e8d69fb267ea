"""Pixels are checked, planes are paired, and fingerprints follow what an image is."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io import ImageFileError, check_pixels, combine_planes, sha256_of
from napari_cvdm.io.axes import usable_dtype


def ramp(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def stack(array: np.ndarray, axes: str, **more: object) -> ImageStack:
    return ImageStack(array=array, axes=axes, source="test.tif", **more)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(ImageFileError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


def test_one_frame_that_can_be_used_is_enough_and_the_first_fault_is_named() -> None:
    array = ramp(3, 8, 9, dtype="float64")
    array[0], array[1, 2, 3] = np.nan, 1e300
    check_pixels(stack(array, "TYX"))
    array[2] = 7.0
    message = refusal(lambda: check_pixels(stack(array, "TYX")))
    assert "frame T 0" in message and "no measured pixel" in message


@given(value=st.integers(0, 255), size=st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_constant_images_and_planes_are_refused(value: int, size: tuple[int, int]) -> None:
    blank = np.full(size, value, np.uint8)
    assert f"every pixel is {value}" in refusal(lambda: check_pixels(stack(blank, "YX")))
    planes = np.stack(
        [np.pad(blank, 1, constant_values=value // 2 + 1), np.pad(blank, 1, constant_values=value)]
    )
    assert "plane" in refusal(lambda: check_pixels(stack(planes, "PYX")))


@given(
    sizes=st.fixed_dictionaries({letter: st.integers(2, 4) for letter in "SCTZ"}),
    axes=st.permutations("SCTZ"),
)
def test_the_plane_axis_of_one_stack(sizes: dict[str, int], axes: list[str]) -> None:
    array = ramp(*(sizes[letter] for letter in axes), 3, 5, dtype="int64")
    given_stack = stack(array, "".join(axes) + "YX", pixel_um=0.1, metadata={"na": 0.7})
    expected = next((letter for letter in "ZSCT" if sizes[letter] == 2), None)
    if expected is None:
        assert "2 planes" in refusal(lambda: combine_planes(given_stack))
        return
    planes = combine_planes(given_stack)
    assert planes.axes == "".join(axes).replace(expected, "") + "PYX"
    assert (planes.pixel_um, dict(planes.metadata)) == (0.1, {"na": 0.7})
    np.testing.assert_array_equal(
        planes.array[..., 1, :, :], array.take(1, axis=axes.index(expected))
    )


def test_two_files_make_the_stack_that_one_file_holds() -> None:
    array = ramp(2, 3, 8, 9)
    pair = combine_planes(stack(array[0], "TYX"), stack(array[1], "TYX", pixel_um=0.2))
    one = combine_planes(stack(array, "ZTYX"))
    assert (pair.axes, pair.pixel_um) == ("TPYX", 0.2)
    np.testing.assert_array_equal(pair.array, one.array)
    np.testing.assert_array_equal(combine_planes(pair).array, pair.array)


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (stack(ramp(8, 8) + 1, "YX"), "same axes and shape"),
        (stack(ramp(8, 9, dtype="float32"), "YX"), "same camera"),
        (stack(ramp(8, 9) + 1, "YX", pixel_um=0.103), "same magnification"),
        (stack(ramp(8, 9), "YX"), "same pixels"),
        (None, "has one plane"),
    ],
)
def test_planes_that_do_not_fit_are_refused(second: ImageStack | None, says: str) -> None:
    assert says in refusal(lambda: combine_planes(stack(ramp(8, 9), "YX", pixel_um=0.1), second))


def test_fingerprint_follows_values_type_and_shape_not_memory() -> None:
    array = ramp(4, 6)
    same = {
        sha256_of(image)
        for image in (
            array,
            np.asfortranarray(array),
            array.astype(">u2"),
            np.repeat(array, 2, axis=1)[:, ::2],
        )
    }
    other = {sha256_of(image) for image in (array.astype("int16"), array.reshape(6, 4), array + 1)}
    assert len(same) == 1 and len(other) == 3 and not same & other


def test_long_doubles_are_read_as_doubles():
    wide = np.arange(12, dtype=np.longdouble).reshape(3, 4)
    read = usable_dtype(wide, "wide")
    assert read.dtype == np.float64
    np.testing.assert_array_equal(read, wide)
    assert len(sha256_of(read)) == 64
