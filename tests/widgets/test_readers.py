"""Files and result folders open as layers through napari.

A result opens as the dock would show it.
"""

from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.errors import ReaderPluginError
from napari.layers import Image, Layer

import napari_cvdm
from napari_cvdm.core.request import ImageStack
from napari_cvdm.core.result import ClockCurve, Provenance, Reconstruction
from napari_cvdm.io import ImageFileError
from napari_cvdm.io.result_folder import read_result_folder
from napari_cvdm.reconstruction.provenance import write_images, write_provenance, write_result
from napari_cvdm.widgets.layers.contributions import (
    get_image_reader,
    get_result_reader,
    image_layer,
    read_result_layers,
    write_stored,
)
from napari_cvdm.widgets.layers.layer_data import (
    METADATA_KEY,
    known_optics,
    plugin_metadata,
    read_layer,
)
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.result_layers import STORED, to_layer_data

MANIFEST = Path(napari_cvdm.__file__).with_name("napari.yaml")


@pytest.fixture
def plugin(npe2pm):
    """The plugin, as if it were installed."""
    with npe2pm.tmp_plugin(manifest=str(MANIFEST)) as registered:
        yield registered.name


@pytest.fixture
def mrc(tmp_path):
    """An MRC file of an image of 65 nm pixels."""
    path = tmp_path / "cell.mrc"
    with mrcfile.new(path) as file:
        file.set_data(np.arange(48, dtype=np.uint16).reshape(6, 8))
        file.voxel_size = 650.0
    return path


def reconstruction(upsampling=2, axes="YX", shape=(12, 16)):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    settings = {"model": "tiny", "pixel_um": 0.1}
    return Reconstruction(
        mean=values,
        variance=values**2,
        rate=np.abs(values),
        axes=axes,
        unit="counts",
        pixel_um=0.1 / upsampling,
        upsampling=upsampling,
        valid=values > 0,
        provenance=Provenance(
            inputs={"cell": "0"},
            model={"name": "tiny"},
            settings=settings,
            estimated={},
            versions={"napari-cvdm": "0"},
            timings_s={},
        ),
        clock=ClockCurve(times=(0.5, 1.0), values=(0.4, 1.0), speeds=(1.0, 2.0)),
        counts=np.full(shape[:-2], 2),
    )


def folder_of(result, folder, place):
    write_images(folder, result, place)
    write_provenance(folder, result, {}, {}, {"total": 1.0}, "cpu")
    return folder


def test_an_mrc_file_opens_by_its_name_with_pixel_size(plugin, mrc):
    viewer = ViewerModel()
    (layer,) = viewer.open(mrc, plugin=None)
    assert layer.name == "cell"
    assert known_optics(layer)["pixel_um"] == pytest.approx(0.065)
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 2
    assert layer.axis_labels == ("y", "x")
    np.testing.assert_array_equal(layer.data, np.arange(48).reshape(6, 8))


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TCYX", "TZCSYX"])
@pytest.mark.parametrize("pixel_um", [None, 0.065])
def test_an_image_comes_back_from_its_layer(axes, pixel_um):
    optics = {"na": 1.4, "wavelength_um": 0.52}
    shape = tuple(range(2, 2 + len(axes)))
    image = ImageStack(
        array=np.zeros(shape),
        axes=axes,
        pixel_um=pixel_um,
        metadata=optics,
        place={"z_step_um": 0.3, "y_um": 5.0, "x_um": 7.0},
    )
    layer = Layer.create(*image_layer(image, "cell"))
    read = read_layer(layer)
    assert (read.axes, read.pixel_um, dict(read.metadata)) == (axes, pixel_um, optics)
    if pixel_um is not None:
        np.testing.assert_allclose(layer.translate[-2:], (5.0, 7.0))
    if "Z" in axes:
        assert layer.scale[axes.index("Z")] == (1.0 if pixel_um is None else 0.3)


def test_layers_of_files_with_and_without_time_go_together():
    viewer = ViewerModel()
    for axes in ("YX", "TYX", "ZYX"):
        image = ImageStack(array=np.zeros((2, 3, 4)[: len(axes)]), axes=axes, pixel_um=0.1)
        viewer.add_layer(Layer.create(*image_layer(image, axes)))
    viewer.add_image(np.zeros((5, 3, 4)), scale=(1, 0.1, 0.1), units=("pixel", "um", "um"))
    assert viewer.layers.units is not None


@pytest.mark.parametrize("upsampling", [1, 2])
def test_a_result_folder_opens_as_the_dock_would_show_it(plugin, tmp_path, upsampling):
    source = Image(
        np.zeros((6, 8)),
        name="cell",
        scale=(0.1, 0.1),
        translate=(5.0, 7.0),
        units=("um", "um"),
        axis_labels=("y", "x"),
    )
    result = reconstruction(upsampling)
    folder = folder_of(result, tmp_path, {"y_um": 5.0, "x_um": 7.0})
    stored = read_result_folder(folder).reconstruction
    shown = [
        Layer.create(*one)
        for one in to_layer_data(
            replace(result, provenance=stored.provenance), Placement.of(source)
        )
    ]
    opened = ViewerModel().open(folder, plugin=plugin)
    assert [layer.name for layer in opened] == [layer.name for layer in shown]
    for one, other in zip(opened, shown, strict=True):
        np.testing.assert_array_equal(one.data, other.data)
        np.testing.assert_allclose(one.extent.world, other.extent.world)
        assert (type(one), one.units, one.axis_labels, one.visible) == (
            type(other),
            other.units,
            other.axis_labels,
            other.visible,
        )
        marks = [
            {name: value for name, value in plugin_metadata(layer).items() if name != "stored"}
            for layer in (one, other)
        ]
        assert marks[0] == marks[1]
        if isinstance(one, Image):
            assert (one.colormap.name, one.contrast_limits) == (
                other.colormap.name,
                other.contrast_limits,
            )


def test_the_provenance_file_opens_its_folder(plugin, tmp_path):
    folder_of(reconstruction(), tmp_path, {})
    layers = ViewerModel().open(tmp_path / "provenance.json", plugin=None)
    assert "reconstruction of cell [counts]" in [layer.name for layer in layers]


def test_what_is_not_ours_is_left_to_others(tmp_path, mrc):
    (tmp_path / "other.tif").write_bytes(b"II*\0")
    (tmp_path / "provenance.json").write_text("{}", encoding="utf-8")
    for path in ("other.tif", "missing.mrc", "provenance.json", "", "missing"):
        assert get_image_reader(str(tmp_path / path)) is None
        assert get_result_reader(str(tmp_path / path)) is None
    assert get_image_reader([str(mrc), str(mrc)]) is None
    assert get_image_reader([str(mrc)]) is not None


def test_a_damaged_result_says_what_is_wrong(plugin, tmp_path):
    folder_of(reconstruction(), tmp_path, {})
    (tmp_path / "rate.ome.tif").unlink()
    with pytest.raises(ReaderPluginError) as caught:
        ViewerModel().open(tmp_path / "provenance.json", plugin=None)
    assert isinstance(caught.value.__cause__, ImageFileError)
    assert "rate.ome.tif is missing" in str(caught.value.__cause__)


@pytest.mark.parametrize("defocus_um", [(-1.0, 1.5), (-2.5, 0.0, 2.5)])
def test_a_result_of_planes_goes_with_the_layer_of_all(plugin, tmp_path, defocus_um):
    result = reconstruction(upsampling=1)
    provenance = replace(
        result.provenance, settings={**result.provenance.settings, "defocus_um": defocus_um}
    )
    folder_of(replace(result, provenance=provenance), tmp_path, {})
    viewer = ViewerModel()
    planes = viewer.add_image(
        np.zeros((len(defocus_um), 12, 16)),
        name="cell",
        scale=(2.5, 0.1, 0.1),
        units=("um",) * 3,
        axis_labels=("z", "y", "x"),
    )
    opened = viewer.open(tmp_path / "provenance.json", plugin=None)
    assert viewer.layers.units is not None
    shown = [
        Layer.create(*one)
        for one in to_layer_data(result, replace(Placement.of(planes), planes=len(defocus_um)))
    ]
    for one, other in zip(opened, shown, strict=True):
        assert one.data.shape == other.data.shape
        np.testing.assert_allclose(one.extent.world, other.extent.world)


def test_names_of_channels_outlive_saving_and_opening(tmp_path):
    names = ("DAPI", "GFP")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    result = reconstruction(axes="CYX", shape=(2, 12, 16))
    write_result(tmp_path / "one", result, {}, {}, channels=names)
    layers = read_result_layers(str(tmp_path / "one"))
    kept = [keywords["metadata"][METADATA_KEY] for _, keywords, _ in layers]
    assert all(tuple(one["channels"]) == names for one in kept)
    write_stored(tmp_path / "two", kept[-1][STORED])
    assert read_result_folder(tmp_path / "two").channels == names
