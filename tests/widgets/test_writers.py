"""What is saved comes back, and a file is never incomplete.

Pixels, scale in micrometres, axes, place and provenance come back.
"""

import json
import sys
from pathlib import Path

import dask.array
import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager

import napari_cvdm
from napari_cvdm.io import ImageFileError, read_image
from napari_cvdm.widgets.layers.contributions import image_layer, write_tiff, write_zarr
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY

MANIFEST = Path(napari_cvdm.__file__).with_name("napari.yaml")
MARK = {
    "role": "reconstruction",
    "unit": "rad",
    "provenance": {
        "settings": {"seed": 3, "defocus_um": (-1.0, 1.0)},
        "warnings": ['<far> & "away" µ'],
    },
}


def layer_of(shape=(6, 8), labels=("y", "x"), dtype=np.float32, **changes):
    values = (np.random.default_rng(0).random(shape) * 1000).astype(dtype)
    known = {"z": (0.3, "um"), "t": (2.5, "s"), "y": (0.065, "um"), "x": (0.065, "um")}
    scale, units = zip(*(known.get(label, (1.0, "pixel")) for label in labels), strict=True)
    translate = [0.0] * (len(labels) - 2) + [5.0, -7.0]
    keywords = {
        "scale": scale,
        "units": units,
        "translate": translate,
        "axis_labels": labels,
        "name": "cell",
        "metadata": {METADATA_KEY: MARK},
    }
    return Image(values, **{**keywords, **changes})


def saved(write, path, *layers):
    data = [layer.as_layer_data_tuple() for layer in layers]
    return write(str(path), *data[0][:2]) if write is write_tiff else write(str(path), data)


AXES = [
    ((6, 8), ("y", "x")),
    ((3, 6, 8), ("z", "y", "x")),
    ((3, 6, 8), ("t", "y", "x")),
    ((2, 3, 4, 6, 8), ("t", "c", "z", "y", "x")),
]


@pytest.mark.parametrize(("shape", "labels"), [*AXES, ((2, 3, 6, 8), ("sample", "t", "y", "x"))])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_an_image_comes_back_from_a_tiff(tmp_path, shape, labels, dtype):
    layer = layer_of(shape, labels, dtype)
    assert saved(write_tiff, tmp_path / "a.ome.tif", layer) == [str(tmp_path / "a.ome.tif")]
    read = read_image(tmp_path / "a.ome.tif")
    assert read.array.dtype == dtype
    again = Image(*image_layer(read, "cell")[:1], **image_layer(read, "cell")[1])
    np.testing.assert_array_equal(again.data, layer.data)
    assert again.axis_labels == labels
    spatial = [axis for axis, label in enumerate(labels) if label in "zyx"]
    np.testing.assert_allclose(again.scale[spatial], layer.scale[spatial])
    np.testing.assert_allclose(again.translate, layer.translate)
    assert [again.units[axis] for axis in spatial] == [layer.units[axis] for axis in spatial]


def test_a_tiff_tells_time_provenance_and_value_unit(tmp_path):
    saved(write_tiff, tmp_path / "a.tif", layer_of((3, 6, 8), ("t", "y", "x")))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert 'TimeIncrement="2.5"' in file.ome_metadata
        assert 'TimeIncrementUnit="s"' in file.ome_metadata
        annotation = tifffile.xml2dict(file.ome_metadata)["OME"]["StructuredAnnotations"][
            "MapAnnotation"
        ]["Value"]["M"]
    notes = {entry["K"]: entry["value"] for entry in annotation}
    assert notes["value_unit"] == "rad"
    known = json.loads(notes[METADATA_KEY])
    assert {name: known[name] for name in MARK} == json.loads(json.dumps(MARK))


@pytest.mark.parametrize("unit", ["nm", "mm", "m"])
def test_a_tiff_is_in_micrometres_whatever_the_layer_is_in(tmp_path, unit):
    in_um = {"nm": 1e-3, "mm": 1e3, "m": 1e6}[unit]
    saved(
        write_tiff,
        tmp_path / "a.tif",
        layer_of(scale=(0.065 / in_um,) * 2, translate=(5 / in_um, 7 / in_um), units=(unit, unit)),
    )
    read = read_image(tmp_path / "a.tif")
    assert read.pixel_um == pytest.approx(0.065)
    assert dict(read.place) == pytest.approx({"y_um": 5.0, "x_um": 7.0})


def test_a_layer_in_pixels_is_not_given_a_size(tmp_path):
    saved(write_tiff, tmp_path / "a.tif", layer_of(units=("pixel", "pixel")))
    assert read_image(tmp_path / "a.tif").pixel_um is None


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        (np.array([[0, 2**31]]), np.uint32),
        (np.array([[-5, 7]]), np.int32),
        (np.array([[True, False]]), np.uint8),
    ],
)
def test_types_that_tiff_lacks_keep_their_values(tmp_path, values, stored):
    saved(write_tiff, tmp_path / "a.tif", Image(values))
    read = tifffile.imread(tmp_path / "a.tif")
    assert read.dtype == stored
    np.testing.assert_array_equal(read, values)


def ngff(group):
    """Axes, scale and translation of the only level of an image."""
    (multiscale,) = group.attrs["ome"]["multiscales"]
    (level,) = multiscale["datasets"]
    scale, translation = level["coordinateTransformations"]
    return multiscale["axes"], scale["scale"], translation["translation"]


@pytest.mark.parametrize(("shape", "labels"), [*AXES, ((2, 6, 8), ("sample", "y", "x"))])
@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.float32])
def test_an_image_comes_back_from_a_zarr(tmp_path, shape, labels, dtype):
    layer = layer_of(shape, labels, dtype)
    saved(write_zarr, tmp_path / "a.ome.zarr", layer)
    yaozarrs.validate_zarr_store(tmp_path / "a.ome.zarr")
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][:], layer.data)
    assert group["0"].dtype == dtype
    axes, scale, translation = ngff(group)
    assert tuple(axis["name"] for axis in axes) == labels
    assert [axis.get("unit", "pixel") for axis in axes] == [str(unit) for unit in layer.units]
    np.testing.assert_allclose(scale, layer.scale)
    np.testing.assert_allclose(translation, layer.translate)
    known = group.attrs[METADATA_KEY]
    assert {name: known[name] for name in MARK} == json.loads(json.dumps(MARK))


def test_axes_in_another_order_are_put_into_that_of_the_format(tmp_path):
    layer = layer_of((4, 2, 6, 8), ("z", "t", "y", "x"))
    saved(write_zarr, tmp_path / "a.zarr", layer)
    yaozarrs.validate_zarr_store(tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert [axis["name"] for axis in ngff(group)[0]] == ["t", "z", "y", "x"]
    assert ngff(group)[1] == pytest.approx([2.5, 0.3, 0.065, 0.065])
    np.testing.assert_array_equal(group["0"][:], np.swapaxes(layer.data, 0, 1))


def test_several_layers_become_one_collection(tmp_path):
    mask = Labels(
        np.eye(6, 8, dtype=np.uint8),
        scale=(0.065, 0.065),
        units=("um", "um"),
        axis_labels=("y", "x"),
        name="untrusted",
    )
    layers = [layer_of(), layer_of((2, 6, 8), ("t", "y", "x")), mask]
    saved(write_zarr, tmp_path / "a.ome.zarr", *layers)
    yaozarrs.validate_zarr_store(tmp_path / "a.ome.zarr")
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    assert group["OME"].attrs["ome"]["series"] == ["0", "1", "2"]
    for number, layer in enumerate(layers):
        assert group[str(number)].attrs["ome"]["multiscales"][0]["name"] == layer.name
        np.testing.assert_array_equal(group[f"{number}/0"][:], layer.data)


@pytest.mark.parametrize("write", [write_tiff, write_zarr])
def test_lazy_multiscale_and_colour_layers_are_saved_whole(tmp_path, write):
    values = np.random.default_rng(0).integers(0, 255, (4, 6, 8), dtype=np.uint8)
    colour = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    lazy = Image(dask.array.from_array(values, chunks=(1, 6, 8)))
    for layer, expected in [
        (lazy, values),
        (Image([values, values[:, ::2, ::2]], multiscale=True), values),
        (Image(colour, rgb=True), np.moveaxis(colour, -1, 0)),
    ]:
        path = tmp_path / ("a.ome.tif" if write is write_tiff else "a.ome.zarr")
        saved(write, path, layer)
        read = (
            tifffile.imread(path)
            if write is write_tiff
            else zarr.open_group(path, mode="r")["0"][:]
        )
        np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("name", ["a.ome.tif", "a.ome.zarr"])
def test_napari_saves_through_the_plugin(npe2pm, tmp_path, name):
    from napari.components import ViewerModel

    viewer = ViewerModel()
    viewer.add_layer(layer_of())
    with npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        assert viewer.layers.save(str(tmp_path / name)) == [str(tmp_path / name)]
    assert (tmp_path / name).exists()


def test_what_the_format_lacks_is_told(tmp_path):
    turned = layer_of(rotate=30.0)
    saved(write_tiff, tmp_path / "a.tif", turned)
    assert "rotation" in notification_manager.records[-1].message
    assert read_image(tmp_path / "a.tif").pixel_um == 0.065


BAD = [
    (write_tiff, "a.tif", layer_of(scale=(0.1, 0.2)), "must be square"),
    (write_tiff, "a.tif", Image(np.array([[0, 2**40]])), "32 bits"),
    (write_tiff, "a.png", layer_of(), "OME-TIFF"),
    (write_zarr, "a.tif", layer_of(), "ome.zarr"),
    (
        write_zarr,
        "a.zarr",
        layer_of((2, 3, 6, 8), ("c", "sample", "y", "x")),
        "one of channel or sample",
    ),
]


@pytest.mark.parametrize(("write", "name", "layer", "told"), BAD)
def test_what_cannot_be_saved_is_told_and_leaves_nothing(tmp_path, write, name, layer, told):
    with pytest.raises(ImageFileError, match=told):
        saved(write, tmp_path / name, layer)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [write_tiff, write_zarr])
def test_an_older_file_stays_until_the_new_one_is_complete(tmp_path, write):
    def plane(block, block_info):
        if block_info[0]["chunk-location"][0] == 2:
            raise OSError(28, "No space left on device")
        return block

    failing = dask.array.ones((3, 6, 8), chunks=(1, 6, 8), dtype=np.float32).map_blocks(
        plane, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32)
    )
    path = tmp_path / ("a.ome.tif" if write is write_tiff else "a.ome.zarr")
    older, newer = layer_of(), Image(failing, contrast_limits=(0, 1))
    saved(write, path, older)
    with pytest.raises((OSError, ImageFileError)):
        saved(write, path, newer)
    assert list(tmp_path.iterdir()) == [path]
    read = tifffile.imread(path) if write is write_tiff else zarr.open_group(path, mode="r")["0"][:]
    np.testing.assert_array_equal(read, older.data)


def test_a_folder_that_is_no_zarr_is_never_replaced(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(ImageFileError, match="never overwritten"):
        saved(write_zarr, tmp_path / "a.zarr", layer_of())
    assert (tmp_path / "a.zarr" / "thesis.txt").exists()


def test_without_zarr_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImageFileError, match=r"napari-cvdm\[zarr\]"):
        saved(write_zarr, tmp_path / "a.zarr", layer_of())
    assert not list(tmp_path.iterdir())
