"""Laws over shapes, axes, types and units of files.

A file that is written comes back; a file that cannot be used is refused in words.
"""

from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tests.stress.fuzzing.watch import outcome

from napari_cvdm.core.microscope import PIXEL_RANGE_UM, OpticsError
from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.core.result import finished as drained
from napari_cvdm.io import ImageFileError, read_image, write_image
from napari_cvdm.io.metadata import length_um
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.reconstruction.reconstruct import reconstruct

FEW = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
FEWER = settings(FEW, max_examples=8)
SIDES = st.integers(1, 20)
LENGTHS_UM = st.floats(0.01, 10.0).filter(lambda length: length != 1.0)
STORED = st.sampled_from([np.uint8, np.int16, np.uint16, np.uint32, np.float32, np.float64])

KINDS = st.one_of(
    arrays.scalar_dtypes(), arrays.byte_string_dtypes(), arrays.complex_number_dtypes()
)


@st.composite
def written(draw: st.DrawFn) -> tuple[np.ndarray, str]:
    """An image with axes that OME-TIFF has."""
    leading = "".join(letter for letter in "TCZ" if draw(st.booleans()))
    shape = (*(draw(st.integers(2, 3)) for _ in leading), draw(SIDES), draw(SIDES))
    dtype = draw(STORED)
    elements = (
        st.integers(0, 200) if np.dtype(dtype).kind in "iu" else st.floats(-1e6, 1e6, width=32)
    )
    return draw(arrays.arrays(dtype, shape, elements=elements, fill=elements)), f"{leading}YX"


@FEW
@given(written(), LENGTHS_UM, LENGTHS_UM, st.tuples(LENGTHS_UM, LENGTHS_UM))
def test_what_is_written_comes_back(
    image: tuple[np.ndarray, str], pixel_um: float, step_um: float, offset_um: tuple[float, float]
) -> None:
    array, axes = image
    with TemporaryDirectory() as folder:
        path = Path(folder) / "image.ome.tif"
        settings_ = {
            "axes": axes,
            "pixel_um": pixel_um,
            "unit": "counts",
            "name": "image",
            "offset_um": offset_um,
            "dtype": array.dtype,
        }
        write_image(path, array, **settings_, z_step_um=step_um if "Z" in axes else None)
        back = read_image(path)
        assert sorted(found.name for found in Path(folder).iterdir()) == [path.name]
    assert (back.axes, back.array.dtype) == (axes, array.dtype)
    np.testing.assert_array_equal(back.array, array)
    np.testing.assert_allclose(
        [back.pixel_um, back.place["y_um"], back.place["x_um"]], [pixel_um, *offset_um], rtol=1e-6
    )
    assert "Z" not in axes or np.isclose(back.place["z_step_um"], step_um)


@FEW
@given(
    arrays.arrays(
        st.one_of(
            arrays.scalar_dtypes(), arrays.byte_string_dtypes(), arrays.complex_number_dtypes()
        ),
        arrays.array_shapes(min_dims=0, max_dims=7, min_side=0, max_side=3),
    )
)
def test_an_array_of_any_kind_is_read_as_it_is_or_refused(array: np.ndarray) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "array.npy"
        np.save(path, array, allow_pickle=False)
        found = []
        said = outcome(lambda: found.append(read_image(path)), (ImageFileError,))
    if said == "read":
        stack = found[0]
        assert stack.axes.endswith("YX") and stack.array.ndim == len(stack.axes)
        np.testing.assert_array_equal(
            stack.array.reshape(-1), array.astype(stack.array.dtype).reshape(-1)
        )
    else:
        assert (
            array.dtype.kind not in "buif"
            or array.size == 0
            or array.ndim < 2
            or array.ndim > 6
            or np.squeeze(array).ndim > 6
        )


@FEW
@given(
    st.floats(1e-3, 1e3),
    st.sampled_from(
        [("nm", 1e-3), ("µm", 1.0), ("mm", 1e3), ("angstrom", 1e-4), ("micron", 1.0), ("pm", 1e-6)]
    ),
)
def test_a_length_is_the_same_in_every_unit(length: float, unit: tuple[str, float]) -> None:
    name, factor = unit
    found = length_um(length / factor, name)
    assert found is None or np.isclose(found, length)
    assert found is not None or 1.0 in (length / factor, length)


@st.composite
def asked(draw: st.DrawFn) -> tuple[np.ndarray, str, dict[str, object]]:
    """An image and settings, most of them possible."""
    axes = draw(st.sampled_from(["YX", "TYX", "ZYX", "TZYX", "PYX", "XY", "YXC"]))
    shape = tuple(2 if letter in "TZPC" else draw(st.integers(1, 24)) for letter in axes)
    array = np.random.default_rng(0).poisson(50, shape).astype(draw(STORED))
    lengths = st.sampled_from([0.1, 0.065, 20.0, 0.0, -0.1, 65.0, float("nan"), float("inf"), None])
    counts = {
        "samples": st.sampled_from([1, 1, 2, 0]),
        "steps": st.sampled_from([1, 2, -1]),
        "tile": st.sampled_from([16, 64, 3]),
    }
    return (
        array,
        axes,
        {"pixel_um": draw(lengths), **{name: draw(values) for name, values in counts.items()}},
    )


@FEWER
@given(asked())
def test_a_request_is_carried_out_or_refused(
    tiny_widefield_model: Path, question: tuple[np.ndarray, str, dict[str, object]]
) -> None:
    array, axes, given_ = question
    results = []

    def attempt() -> None:
        request = ReconstructionRequest(
            image=ImageStack(array=array, axes=axes), model="tiny", device="cpu", **given_
        )
        results.append(drained(reconstruct(request, load_checkpoint(tiny_widefield_model))))

    if outcome(attempt, (RequestError, OpticsError, ImageFileError)) == "read":
        (result,) = results
        assert result.mean.shape == (*array.shape[:-2], 2 * array.shape[-2], 2 * array.shape[-1])
        assert (
            np.isfinite(result.mean).all()
            and np.isfinite(result.variance).all()
            and (result.variance >= 0).all()
        )
        assert result.pixel_um * 2 == given_["pixel_um"] and isfinite(result.pixel_um)
    else:
        possible = (
            given_["pixel_um"] is not None
            and PIXEL_RANGE_UM[0] <= given_["pixel_um"] <= PIXEL_RANGE_UM[1]
            and axes.endswith("YX")
            and "P" not in axes
        )
        assert not (
            possible
            and given_["samples"] > 0
            and given_["steps"] > 0
            and given_["tile"] >= 16
            and min(array.shape[-2:]) > 1
        )
