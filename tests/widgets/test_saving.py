"""What is saved opens again as it was, works as after a run, and is never reconstructed again."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from made_results import every_layer
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.settings import get_settings
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QFileDialog
from small_images import spots, widefield_request

import napari_cvdm
from napari_cvdm.cli import main
from napari_cvdm.core.result import ClockCurve, Provenance, Reconstruction, finished
from napari_cvdm.io import ImageFileError, write_image
from napari_cvdm.io.result_folder import check_measured, image_notes, read_result_folder
from napari_cvdm.models.registry import load_model
from napari_cvdm.out_of_core.job import BlockJob
from napari_cvdm.out_of_core.run import reconstruct_by_blocks
from napari_cvdm.reconstruction.provenance import write_result
from napari_cvdm.widgets.layers import contributions
from napari_cvdm.widgets.layers.contributions import get_image_reader, get_result_reader
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, is_measurement, plugin_metadata
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.reconstruction import Run
from napari_cvdm.widgets.layers.result_layers import (
    SCHEDULE,
    STORED,
    disk_layer_data,
    groups_of,
    preview_layer_data,
    show_spread_as,
)
from napari_cvdm.widgets.reconstruct import results_panel
from napari_cvdm.widgets.reconstruct.reconstruct_widget import classical_layer_data

MANIFEST = Path(napari_cvdm.__file__).with_name("napari.yaml")
PLUGIN = "napari-cvdm"


@pytest.fixture
def plugin(npe2pm):
    """The plugin, as if it were installed."""
    with npe2pm.tmp_plugin(manifest=str(MANIFEST)) as registered:
        yield registered.name


def measured(shape=(6, 8), **changes):
    """A measured layer that lies somewhere, and looks like no other."""
    labels = ("z", "t", "y", "x")[-len(shape) :] if len(shape) != 3 else ("t", "y", "x")
    known = {"z": (0.3, "um"), "t": (2.5, "s"), "y": (0.1, "um"), "x": (0.1, "um")}
    scale, units = zip(*(known[label] for label in labels), strict=True)
    values = np.random.default_rng(0).integers(0, 1000, shape).astype(np.uint16)
    keywords = {
        "name": "cell",
        "scale": scale,
        "units": units,
        "axis_labels": labels,
        "translate": (*(0.0,) * (len(shape) - 2), 5.0, -7.0),
        "colormap": "magenta",
        "contrast_limits": (3.0, 777.0),
        "gamma": 0.8,
        "opacity": 0.7,
        "blending": "additive",
        "visible": False,
        "metadata": {METADATA_KEY: {"optics": {"na": 1.4, "wavelength_um": 0.52}}},
    }
    return Image(values, **{**keywords, **changes})


def result_of(unit, axes="YX"):
    """A result of a phase, or of counts on a grid twice as fine, with all that one can have."""
    upsampling = 1 if unit == "rad" else 2
    shape = (*(3,) * (len(axes) - 2), 6 * upsampling, 8 * upsampling)
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    settings = {"model": "tiny", "pixel_um": 0.1, "wavelength_um": 0.52, "seed": 3}
    return Reconstruction(
        mean=values,
        variance=values**2,
        rate=np.abs(values),
        axes=axes,
        unit=unit,
        pixel_um=0.1 / upsampling,
        upsampling=upsampling,
        valid=values > 0,
        provenance=Provenance(
            inputs={"cell": "0"},
            model={
                "name": "tiny",
                "calibration": {"factor": 1.7, "floor": 0.0, "level": 0.9, "set": "tests"},
            },
            settings=settings | ({"defocus_um": (-1.0, 1.0)} if unit == "rad" else {}),
            estimated={},
            versions={"napari-cvdm": "0"},
            timings_s={"total": 1.0},
            warnings=('<far> & "away" µ',),
            quality_flag="amber",
        ),
        clock=ClockCurve(times=(0.5, 1.0), values=(0.4, 1.0), speeds=(1.0, 2.0)),
        samples=np.stack([values, values + 1]),
        counts=np.full(shape[:-2], 2),
    )


def layers_of_kind(kind, folder, model):
    """Layers of every kind that the plugin makes."""
    source = Placement.of(measured())
    if kind == "image":
        return [measured(), measured((3, 6, 8)), measured((2, 3, 6, 8))]
    if kind == "colours":
        return [Image(np.random.default_rng(0).random((6, 8, 3)), rgb=True, name="colours")]
    if kind in ("phase", "fluorescence"):
        made = every_layer(result_of("rad" if kind == "phase" else "counts"), source)
    elif kind == "time-lapse":
        moving = Placement.of(measured((3, 6, 8)))
        made = every_layer(result_of("counts", "TYX"), moving)
    elif kind == "preview":
        made = [preview_layer_data(result_of("counts"), source)]
    elif kind == "classical":
        made = [classical_layer_data(result_of("counts"), source, None)]
    else:
        image = spots((60, 70))
        job = BlockJob(
            request=widefield_request(image), out=str(folder / "large.ome.zarr"), block=64, halo=0
        )
        written = finished(reconstruct_by_blocks(job, load_model(str(model))))
        run = Run(request=job.request, place=source, unit="counts", upsampling=2)
        made = disk_layer_data(written.path, written.images, run)
    return [Layer.create(*one) for one in made]


def known_of(layer):
    """What a layer says of itself, but for what it was made from.

    A result folder notes the version of Python, too.
    """
    said = plain({key: one for key, one in plugin_metadata(layer).items() if key != STORED})
    said.get("provenance", {}).get("versions", {}).pop("python", None)
    return said


def plain(value):
    """As JSON has it."""
    return json.loads(json.dumps(value, default=lambda one: np.asarray(one).tolist()))


def assert_same(one, other):
    """Two layers show the same pixels at the same place in the same way, and say the same."""
    pixels = [
        np.asarray(layer.data[0] if layer.multiscale else layer.data) for layer in (one, other)
    ]
    np.testing.assert_array_equal(*pixels)
    assert pixels[0].dtype == pixels[1].dtype
    assert (type(one), one.name, one.visible, one.opacity, one.axis_labels) == (
        type(other),
        other.name,
        other.visible,
        other.opacity,
        other.axis_labels,
    )
    assert one.units == other.units
    assert one.blending == other.blending
    for name in ("scale", "translate", "rotate", "shear"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.affine.affine_matrix, other.affine.affine_matrix)
    np.testing.assert_allclose(one.extent.world, other.extent.world)
    assert known_of(one) == known_of(other)
    assert is_measurement(one) == is_measurement(other)
    if isinstance(one, Image):
        assert (one.rgb, one.gamma) == (other.rgb, other.gamma)
    if isinstance(one, Image) and not one.rgb:
        assert list(one.contrast_limits) == list(other.contrast_limits)
        assert one.colormap.name == other.colormap.name
        np.testing.assert_allclose(one.colormap.colors, other.colormap.colors)
        np.testing.assert_allclose(one.colormap.controls, other.colormap.controls)


def assert_same_result(one, other):
    """All pixels and numbers of two reconstructions are the same."""
    for name in ("mean", "variance", "rate", "valid", "counts", "samples"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("axes", "unit", "pixel_um", "upsampling", "region", "clock"):
        assert getattr(one, name) == getattr(other, name)
    assert plain(one.provenance.settings) == plain(other.provenance.settings)
    assert (one.forward is None) == (other.forward is None)
    if one.forward is not None:
        np.testing.assert_array_equal(one.forward.residual, other.forward.residual)
        np.testing.assert_array_equal(one.forward.local_chi2, other.forward.local_chi2)
        assert plain(one.forward.numbers()) == plain(other.forward.numbers())


KINDS = (
    "image",
    "colours",
    "phase",
    "fluorescence",
    "time-lapse",
    "preview",
    "classical",
    "on disk",
)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_come_back_from_an_ome_zarr_as_they_were(
    plugin, tmp_path, tiny_widefield_model, kind
):
    viewer, path = ViewerModel(), str(tmp_path / "saved.ome.zarr")
    for layer in layers_of_kind(kind, tmp_path, tiny_widefield_model):
        viewer.add_layer(layer)
    assert viewer.layers.save(path, plugin=PLUGIN) == [path]
    opened = ViewerModel().open(path, plugin=PLUGIN)
    assert len(opened) == len(viewer.layers)
    for one, other in zip(opened, viewer.layers, strict=True):
        assert_same(one, other)
    for one, other in zip(groups_of(opened), groups_of(viewer.layers), strict=True):
        assert_same_result(one.stored.reconstruction, other.stored.reconstruction)
        for role in other.stored.makers():
            assert_same(Layer.create(*one.stored.makers()[role]()), other.stored.layer(role))


@pytest.mark.parametrize("kind", KINDS)
def test_each_image_comes_back_from_an_ome_tiff_as_it_was(
    plugin, tmp_path, tiny_widefield_model, kind
):
    layers = layers_of_kind(kind, tmp_path, tiny_widefield_model)
    images = [layer for layer in layers if isinstance(layer, Image)]
    assert images
    for number, layer in enumerate(images):
        path = str(tmp_path / f"{number}.ome.tif")
        viewer = ViewerModel()
        viewer.add_layer(layer)
        assert viewer.layers.save(path, plugin=PLUGIN) == [path]
        (opened,) = ViewerModel().open(path, plugin=PLUGIN)
        assert_same(opened, layer)


def test_what_is_preferred_for_a_kind_of_file_opens_it(plugin, tmp_path):
    viewer = ViewerModel()
    viewer.add_layer(measured())
    tiff, folder = tmp_path / "a.ome.tif", tmp_path / "a.ome.zarr"
    for path in (tiff, folder):
        viewer.layers.save(str(path), plugin=PLUGIN)
    before = dict(get_settings().plugins.extension2reader)
    get_settings().plugins.extension2reader = {"*.ome.tif": PLUGIN, "*.ome.zarr/": PLUGIN}
    try:
        for path in (tiff, folder):
            (opened,) = ViewerModel().open(str(path), plugin=None)
            assert_same(opened, viewer.layers[0])
    finally:
        get_settings().plugins.extension2reader = before


def test_spread_that_is_shown_in_another_way_stays_so(plugin, tmp_path):
    viewer = ViewerModel()
    for one in every_layer(result_of("counts"), Placement.of(measured())):
        viewer.add_layer(Layer.create(*one))
    show_spread_as(groups_of(viewer.layers)[0], "variance")
    viewer.layers.save(str(tmp_path / "a.ome.zarr"), plugin=PLUGIN)
    again = ViewerModel()
    again.open(str(tmp_path / "a.ome.zarr"), plugin=PLUGIN)
    (group,) = groups_of(again.layers)
    assert group.statistic == "variance"
    assert isinstance(group.layers["untrusted pixels"], Labels)
    assert group.missing() == ()
    show_spread_as(group, "standard deviation")
    np.testing.assert_allclose(group.spread.data, np.sqrt(result_of("counts").variance), rtol=1e-6)


def test_a_layer_that_is_turned_comes_back_turned(plugin, tmp_path):
    viewer = ViewerModel()
    viewer.add_layer(measured(rotate=30.0))
    viewer.layers.save(str(tmp_path / "a.ome.tif"), plugin=PLUGIN)
    (opened,) = ViewerModel().open(str(tmp_path / "a.ome.tif"), plugin=PLUGIN)
    assert_same(opened, viewer.layers[0])


def test_a_result_that_was_written_block_by_block_opens_as_after_the_run(
    plugin, tmp_path, tiny_widefield_model
):
    shown = layers_of_kind("on disk", tmp_path, tiny_widefield_model)
    opened = ViewerModel().open(str(tmp_path / "large.ome.zarr"), plugin=PLUGIN)
    assert [layer.data.shape for layer in opened] == [layer.data.shape for layer in shown]
    for one, other in zip(opened, shown, strict=True):
        np.testing.assert_array_equal(one.data, other.data)
        assert plugin_metadata(one)["role"] == plugin_metadata(other)["role"]
        assert not is_measurement(one)


def test_ome_tiff_of_others_is_read_with_its_pixel_size(plugin, tmp_path):
    path = tmp_path / "other.ome.tif"
    pixels = np.zeros((6, 8), np.uint16)
    tifffile.imwrite(
        path, pixels, metadata={"axes": "YX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1}
    )
    assert get_result_reader(str(path)) is None
    (opened,) = ViewerModel().open(str(path), plugin=PLUGIN)
    assert tuple(opened.scale) == (0.1, 0.1)
    tifffile.imwrite(tmp_path / "plain.tif", pixels)
    assert get_image_reader(str(tmp_path / "plain.tif")) is None
    assert get_result_reader(str(tmp_path / "plain.tif")) is None


@pytest.mark.parametrize("name", ["a.ome.tif", "a.ome.zarr"])
def test_damaged_notes_are_told(plugin, tmp_path, name, monkeypatch):
    really = contributions.appearance_of
    monkeypatch.setattr(
        contributions, "appearance_of", lambda *given: {**really(*given), "labels": 3, "axes": 7}
    )
    viewer = ViewerModel()
    viewer.add_layer(measured())
    viewer.layers.save(str(tmp_path / name), plugin=PLUGIN)
    with pytest.raises(ImageFileError, match="is damaged"):
        get_result_reader(str(tmp_path / name))(str(tmp_path / name))


def results_in_files(folder, plugin):
    """The same result in each of the three formats, and single images of it."""
    viewer, made = ViewerModel(), result_of("counts")
    for one in every_layer(made, Placement.of(measured())):
        viewer.add_layer(Layer.create(*one))
    (folder / "folder").mkdir()
    write_result(folder / "folder", made, {}, {})
    viewer.layers.save(str(folder / "all.ome.zarr"), plugin=PLUGIN)
    reconstruction = viewer.layers["reconstruction of cell [counts]"]
    alone = ViewerModel()
    alone.add_layer(Layer.create(*reconstruction.as_layer_data_tuple()))
    alone.layers.save(str(folder / "one.ome.tif"), plugin=PLUGIN)
    (folder / "moved.ome.tif").write_bytes((folder / "folder" / "mean.ome.tif").read_bytes())
    return [
        folder / name
        for name in (
            "folder",
            "folder/mean.ome.tif",
            "moved.ome.tif",
            "one.ome.tif",
            "all.ome.zarr",
        )
    ]


def test_a_result_is_refused_as_an_image_by_the_command_line(
    plugin, tmp_path, tiny_widefield_model, capsys
):
    for path in results_in_files(tmp_path, plugin):
        assert image_notes(path)["role"]
        with pytest.raises(ImageFileError, match=r"is a result .* not a measured image"):
            check_measured([path])
        for out in ("out", "out.ome.zarr"):
            words = ["restore", str(path), "--model", str(tiny_widefield_model)]
            assert main([*words, "--out", str(tmp_path / out), "--device", "cpu"]) == 2
            said = capsys.readouterr().err
            assert "is a result of napari-cvdm" in said and "original image" in said
            assert not (tmp_path / out).exists()


def test_a_result_is_refused_by_the_queue_of_the_dock(
    plugin, tmp_path, viewer, open_dock, worked_off, tiny_widefield_model
):
    *_, one, _ = results_in_files(tmp_path, plugin)
    dock = open_dock(tiny_widefield_model)
    dock.queue.add([str(one)])
    worked_off(dock)
    assert "is a result of napari-cvdm" in dock.panel.message.text()
    assert len(viewer.layers) == 0


def test_a_measured_image_that_was_saved_is_no_result(plugin, tmp_path):
    viewer = ViewerModel()
    viewer.add_layer(measured())
    viewer.layers.save(str(tmp_path / "a.ome.tif"), plugin=PLUGIN)
    viewer.layers.save(str(tmp_path / "a.ome.zarr"), plugin=PLUGIN)
    write_image(
        tmp_path / "b.ome.tif", np.ones((4, 4)), axes="YX", pixel_um=0.1, unit="counts", name="raw"
    )
    check_measured([tmp_path / name for name in ("a.ome.tif", "a.ome.zarr", "b.ome.tif", "none")])


@pytest.fixture
def choose(monkeypatch):
    """Answer the file dialog."""

    def answer(path, kind):
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *given: (str(path), kind))

    return answer


@pytest.fixture
def run_from_file(viewer, open_dock, finished, tiny_widefield_model, write):
    """The dock with a result of an image that was opened from a file."""
    from napari_cvdm.io import read_image
    from napari_cvdm.widgets.layers.contributions import image_layer

    path = write("cell.tif")
    data, keywords, _ = image_layer(read_image(path), "cell")
    keywords["metadata"][METADATA_KEY]["file"] = str(path)
    viewer.add_image(data, **keywords)
    dock = open_dock(tiny_widefield_model)
    dock.start()
    finished(dock)
    return dock


@pytest.mark.parametrize("kind", ["folder", "zarr"])
def test_a_saved_result_opens_again_and_works_as_after_the_run(
    plugin, tmp_path, viewer, run_from_file, finished, choose, kind
):
    dock = run_from_file
    before = {
        name: layer.as_layer_data_tuple()
        for layer in viewer.layers
        if plugin_metadata(layer).get("role") not in (None, *SCHEDULE)
        for name in [layer.name]
    }
    chosen = results_panel.SAVE_FOLDER if kind == "folder" else results_panel.SAVE_ZARR
    choose(tmp_path / "kept", chosen)
    dock.results.save.click()
    finished(dock)
    assert dock.panel.message.text().startswith("Saved: ")
    path = tmp_path / ("kept" if kind == "folder" else "kept.ome.zarr")
    dock.results.remove.click()
    assert dock.results.value() is None
    opened = viewer.open(str(path), plugin=PLUGIN)
    shown = {layer.name: layer for layer in opened}
    for name, one in before.items():
        layer = Layer.create(*one)
        # A folder does not hold how a layer is blended, which napari chooses by its place.
        shown[name].blending = layer.blending if kind == "folder" else shown[name].blending
        assert_same(shown[name], layer)
    group = dock.results.value()
    assert group is not None and group.missing() == ()
    assert_same_result(group.stored.reconstruction, dock.last[1])
    dock.results.repeat.click()
    assert "has the settings" in dock.panel.message.text()
    dock.results.command.click()
    finished(dock)
    assert QApplication.clipboard().text().startswith("napari-cvdm restore")


def test_a_result_folder_is_that_of_the_command_line(
    tmp_path, run_from_file, finished, choose, tiny_widefield_model
):
    dock = run_from_file
    choose(tmp_path / "kept", results_panel.SAVE_FOLDER)
    dock.results.save.click()
    finished(dock)
    _, reconstruction = dock.last
    stored = read_result_folder(tmp_path / "kept")
    assert_same_result(stored.reconstruction, reconstruction)
    assert stored.files == dict(dock.last[0].place.files)


def test_a_result_that_was_opened_is_saved_once_more(
    plugin, tmp_path, viewer, open_dock, finished, choose, tiny_widefield_model
):
    dock = open_dock(tiny_widefield_model)
    (tmp_path / "one").mkdir()
    write_result(tmp_path / "one", result_of("counts"), {"y_um": 2.0}, {})
    viewer.open(str(tmp_path / "one"), plugin=PLUGIN)
    choose(tmp_path / "two", results_panel.SAVE_FOLDER)
    dock.results.save.click()
    finished(dock)
    one, two = (read_result_folder(tmp_path / name) for name in ("one", "two"))
    assert one.place == two.place
    assert_same_result(one.reconstruction, two.reconstruction)


def test_without_a_place_nothing_is_saved(tmp_path, run_from_file, choose):
    choose("", "")
    run_from_file.results.save.click()
    assert not run_from_file.panel.busy


def test_what_cannot_be_saved_is_told(tmp_path, run_from_file, finished, choose):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work", encoding="utf-8")
    choose(tmp_path / "mine", results_panel.SAVE_FOLDER)
    run_from_file.results.save.click()
    finished(run_from_file)
    assert "never overwritten" in run_from_file.panel.message.text()
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.window
def test_a_result_that_is_opened_in_a_window_comes_whole_with_its_colour_bars(
    plugin, tmp_path, viewer, qtbot
):
    """napari gets the reconstruction, and the window is served before the others come."""
    (tmp_path / "one").mkdir()
    write_result(tmp_path / "one", result_of("counts"), {"y_um": 2.0}, {})
    QTimer.singleShot(0, lambda: viewer.open(str(tmp_path / "one"), plugin=PLUGIN))

    def dressed():
        images = [layer for layer in viewer.layers if isinstance(layer, Image)]
        return len(images) == 2 and all(layer.colorbar.visible for layer in images)

    qtbot.waitUntil(dressed)
    found = [plugin_metadata(layer)["role"] for layer in viewer.layers]
    assert found == ["uncertainty", "untrusted pixels", "reconstruction"]
    assert viewer.layers.selection.active is viewer.layers[-1]
