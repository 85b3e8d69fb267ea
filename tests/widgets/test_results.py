"""Actions on a result in the dock.

Preview, watch, stop and keep, add samples, switch the spread, repeat, copy as command.
"""

import shlex
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from held_steps import hold_while
from napari.layers import Image
from qtpy.QtWidgets import QApplication

from napari_cvdm.cli import main
from napari_cvdm.core.result import Progress
from napari_cvdm.core.result import finished as drained
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.widgets.common import run_panel
from napari_cvdm.widgets.common.run_panel import RunPanel
from napari_cvdm.widgets.layers.frames import drawn_each, on_screen
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, plugin_metadata
from napari_cvdm.widgets.layers.result_layers import groups_of

MEAN = "reconstruction of cell [counts]"


@pytest.fixture
def dock(viewer, measured, open_dock, tiny_widefield_model):
    """A dock with a measured image."""
    viewer.add_image(**measured)
    return open_dock(tiny_widefield_model)


def test_added_samples_make_the_result_of_one_longer_run(viewer, dock, finished):
    dock.start()
    finished(dock)
    dock.form.counts["samples"].setValue(3)
    assert dock.results.more.text() == "Add 3 sa&mples"
    dock.results.more.click()
    finished(dock)
    whole = drained(
        reconstruct(replace(dock.form.value(), samples=5), load_model(dock.form.model.value()))
    )
    assert viewer.layers[MEAN].data.tobytes() == whole.mean.tobytes()
    assert viewer.layers["uncertainty of cell [counts]"].data.tobytes() == whole.std.tobytes()
    assert plugin_metadata(viewer.layers[MEAN])["provenance"]["settings"]["samples"] == 5


def test_the_time_left_of_a_run_that_goes_on_is_that_of_its_own_steps(qtbot, monkeypatch):
    panel = RunPanel("&Go")
    qtbot.addWidget(panel)
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(run_panel, "time", SimpleNamespace(monotonic=lambda: clock.now))
    said = []
    for done, now in ((0, 0.0), (801, 5.0), (802, 7.0), (810, 23.0)):
        clock.now = now
        panel._on_progress(Progress(stage="sample", done=done, total=820))
        said.append(panel.stage.text())
    assert said == ["sample", "sample", "sample, 00:36 left", "sample, 00:20 left"]


def test_stop_and_keep_gives_what_is_finished(qtbot, viewer, dock, finished):
    dock.form.counts["samples"].setValue(1000)
    dock.start()
    qtbot.waitUntil(lambda: dock.panel.bar.value() > 20)
    dock.panel.keep.click()
    finished(dock)
    _, kept = dock.last
    count = int(kept.counts)
    assert 1 <= count < 1000
    shorter = drained(
        reconstruct(replace(dock.form.value(), samples=count), load_model(dock.form.model.value()))
    )
    assert viewer.layers[MEAN].data.tobytes() == shorter.mean.tobytes()
    assert f"Stopped with {count} of 1000" in dock.panel.message.text()


@pytest.mark.window
def test_layers_show_the_result_while_it_is_made_and_go_when_it_is_there(
    qtbot, viewer, dock, finished
):
    dock.form.counts["samples"].setValue(1000)
    dock.form.counts["steps"].setValue(
        100
    )  # a run that is not over before a busy window looks again
    dock.start()
    qtbot.waitUntil(lambda: "reconstruction of cell (running)" in viewer.layers)
    running = viewer.layers["reconstruction of cell (running)"]
    first = running.data.copy()
    assert running.units == viewer.layers["cell"].units
    qtbot.waitUntil(lambda: not np.array_equal(first, running.data))
    dock.panel.cancel.click()
    finished(dock)
    assert [layer.name for layer in viewer.layers] == ["cell"]


def test_a_time_lapse_streams_frame_by_frame(
    qtbot, viewer, measured, open_dock, finished, tiny_widefield_model, monkeypatch
):
    free = threading.Event()

    def held(*given, **named):
        """The same steps, held after the third frame until the test has looked."""

        def is_third(progress):
            return progress.frame_done and progress.view().index == (2,)

        return hold_while(
            reconstruct(*given, **named),
            lambda progress: is_third(progress) and not free.wait(0.01),
        )

    monkeypatch.setattr("napari_cvdm.reconstruction.reconstruct.reconstruct", held)
    movie = (
        np.repeat(measured["data"][None], 6, axis=0) + np.arange(6, dtype=np.uint16)[:, None, None]
    )
    place = {
        "scale": (1, 0.065, 0.065),
        "translate": (0, 5, 7),
        "units": ("s", "um", "um"),
        "axis_labels": ("t", "y", "x"),
    }
    viewer.add_image(movie, name="movie", **place)
    dock = open_dock(tiny_widefield_model)
    dock.start()
    qtbot.waitUntil(lambda: "reconstruction of movie (running)" in viewer.layers)
    running = viewer.layers["reconstruction of movie (running)"]
    assert running.data.shape == (6, 80, 72)
    qtbot.waitUntil(lambda: running.data[2].any())
    assert not running.data[3:].any()
    early = running.data[0].copy()
    free.set()
    qtbot.waitUntil(lambda: not dock.panel.busy)
    final = viewer.layers["reconstruction of movie [counts]"].data
    assert np.array_equal(early, final[0])
    assert final.any(axis=(1, 2)).all()
    assert "reconstruction of movie (running)" not in viewer.layers


def test_a_preview_of_the_screen_is_one_layer_of_that_part(viewer, dock, finished):
    corners = np.array([[10, 6], [35, 30]])
    viewer.layers["cell"].corner_pixels = corners
    dock.start_preview()
    finished(dock)
    layer = viewer.layers["preview of cell [counts]"]
    assert plugin_metadata(layer)["provenance"]["settings"]["region"] == (10, 36, 6, 31)
    request = replace(
        dock.form.value(), region=(10, 36, 6, 31), samples=1, steps=1, schedule_points=0
    )
    assert (
        layer.data.tobytes()
        == drained(reconstruct(request, load_model(request.model))).mean.tobytes()
    )
    np.testing.assert_allclose(
        layer.data_to_world((0.5, 0.5)), viewer.layers["cell"].data_to_world((10, 6))
    )
    assert dock.results.value() is None


def test_a_preview_of_a_drawn_rectangle_follows_scale_and_slider(
    viewer, measured, open_dock, finished, tiny_widefield_model
):
    movie = np.stack([measured["data"], measured["data"][::-1]])
    viewer.add_image(
        movie,
        name="movie",
        scale=(1, 0.1, 0.1),
        units=("s", "um", "um"),
        axis_labels=("t", "y", "x"),
    )
    shapes = viewer.add_shapes(
        [np.array([[0, 0.5, 0.3], [0, 0.5, 2.9], [0, 2.7, 2.9], [0, 2.7, 0.3]])],
        units=("s", "um", "um"),
    )
    dock = open_dock(tiny_widefield_model)
    viewer.dims.set_point(0, 1)
    viewer.layers.selection.active = shapes
    dock.start_preview()
    finished(dock)
    settings = plugin_metadata(viewer.layers["preview of movie [counts]"])["provenance"]["settings"]
    assert settings["region"] == (5, 28, 3, 30)
    image = replace(dock.form.value().image, array=movie[1], axes="YX")
    request = replace(
        dock.form.value(), image=image, region=(5, 28, 3, 30), samples=1, steps=1, schedule_points=0
    )
    assert (
        viewer.layers["preview of movie [counts]"].data.tobytes()
        == drained(reconstruct(request, load_model(request.model))).mean.tobytes()
    )


@pytest.mark.parametrize(
    ("shape", "rgb", "shown"),
    [((3, 2, 24, 20), False, (48, 40)), ((3, 24, 20, 3), True, (3, 1, 48, 40))],
)
def test_a_preview_of_many_axes_is_one_frame(
    viewer, open_dock, finished, tiny_widefield_model, shape, rgb, shown
):
    """The result lies on the frame of the sliders; its axes have the units of its source."""
    data = np.random.default_rng(3).integers(20, 200, shape).astype(np.uint8)
    axes = len(shape) - rgb
    movie = viewer.add_image(
        data,
        name="movie",
        rgb=rgb,
        scale=(*(1,) * (axes - 2), 0.1, 0.1),
        units=(*("pixel",) * (axes - 2), "um", "um"),
    )
    dock = open_dock(tiny_widefield_model)
    viewer.dims.set_point(0, 2)
    dock.start_preview()
    finished(dock)
    layer = viewer.layers["preview of movie [counts]"]
    assert layer.data.shape == shown
    kept = min(layer.ndim, movie.ndim)
    there = (2, *(0,) * (movie.ndim - 1))
    np.testing.assert_allclose(
        layer.data_to_world((*(0,) * (layer.ndim - 2), 0.5, 0.5))[-kept:],
        movie.data_to_world(there)[-kept:],
        atol=1e-9,
    )
    assert layer.units[-kept:] == movie.units[-kept:]


def test_a_pyramid_that_is_seen_whole_is_taken_whole():
    layer = Image([np.zeros((66 // 2**level, 98 // 2**level)) for level in range(3)])
    assert layer.data_level == 2
    assert on_screen(layer) == (0, 66, 0, 98)


@pytest.mark.parametrize(("order", "ndisplay"), [((1, 0, 2), 2), ((2, 0, 1), 2), ((0, 1, 2), 3)])
def test_a_rolled_view_is_no_field_of_view(
    viewer, spots, open_dock, tiny_widefield_model, order, ndisplay
):
    """What is on the screen is then no part of a frame."""
    viewer.add_image(np.stack([spots] * 3), name="stack", scale=(0.2, 0.1, 0.1), units=("um",) * 3)
    dock = open_dock(tiny_widefield_model)
    viewer.dims.order, viewer.dims.ndisplay = order, ndisplay
    dock.start_preview()
    viewer.dims.order, viewer.dims.ndisplay = (0, 1, 2), 2
    assert not dock.panel.busy
    assert "does not show the y and x axes of stack" in dock.panel.message.text()


def test_a_rectangle_beside_the_image_is_refused_in_words(viewer, dock):
    viewer.add_shapes([np.array([[90, 90], [90, 99], [99, 99], [99, 90]])], units=("um", "um"))
    dock.start_preview()
    assert "misses cell" in dock.panel.message.text()


@pytest.mark.window
def test_the_spread_can_be_switched_there_and_back(viewer, dock, finished):
    dock.start()
    finished(dock)
    layer = viewer.layers["uncertainty of cell [counts]"]
    before = layer.data.copy()
    dock.results.statistic.setCurrentText("variance")
    np.testing.assert_allclose(layer.data, before**2, rtol=1e-6)
    assert (plugin_metadata(layer)["statistic"], plugin_metadata(layer)["unit"]) == (
        "variance",
        "counts²",
    )
    dock.results.statistic.setCurrentText("standard deviation")
    np.testing.assert_allclose(layer.data, before, rtol=1e-6)
    assert plugin_metadata(layer)["unit"] == "counts"


def test_settings_of_a_result_are_put_back_into_the_form(viewer, dock, finished):
    dock.form.counts["seed"].setValue(17)
    dock.start()
    finished(dock)
    asked = dock.form.settings()
    for name in ("seed", "steps"):
        dock.form.counts[name].setValue(5)
    dock.results.repeat.click()
    assert dock.form.settings() == asked
    first = viewer.layers[MEAN].data.tobytes()
    dock.start()
    finished(dock)
    assert viewer.layers[MEAN].data.tobytes() == first


def test_repeating_chooses_a_layer_whose_name_looks_like_two(
    viewer, measured, open_dock, finished, tiny_widefield_model
):
    layers = [
        viewer.add_image(**{**measured, "name": name}) for name in ("cell + dye", "cell", "dye")
    ]
    dock = open_dock(tiny_widefield_model)
    dock.form.image.set_value(layers[0])
    dock.start()
    finished(dock)
    dock.form.image.set_value(layers[2])
    dock.results.repeat.click()
    assert dock.form.image.value() is layers[0]
    assert "same pixels" in dock.panel.message.text()


@pytest.mark.parametrize("lost", ["the image cell", "the region", "the background image"])
def test_repeating_says_what_the_form_cannot_show(viewer, dock, finished, lost):
    dock.start()
    finished(dock)
    change = {
        "the region": {"region": (0, 20, 0, 20)},
        "the background image": {"background": "image sha256:0123"},
    }.get(lost, {})
    for layer in dock.results.value().layers.values():
        layer.metadata[METADATA_KEY]["provenance"]["settings"] |= change
    if not change:
        viewer.layers["cell"].name = "another"
    dock.results.repeat.click()
    assert f"but for {lost}: a run would give other pixels" in dock.panel.message.text()


def test_the_copied_command_gives_the_same_pixels(
    viewer, spots, open_dock, finished, tiny_widefield_model, tmp_path, monkeypatch
):
    path = tmp_path / "cell.tif"
    tifffile.imwrite(path, spots)
    viewer.open(str(path), plugin="napari")
    layer = viewer.layers[0]
    layer.scale, layer.units = (0.065, 0.065), ("um", "um")
    dock = open_dock(tiny_widefield_model)
    dock.start()
    finished(dock)
    dock.results.command.click()
    finished(dock)
    words = shlex.split(QApplication.clipboard().text())
    assert words[:3] == ["napari-cvdm", "restore", str(path)]
    monkeypatch.chdir(tmp_path)
    assert main(words[1:]) == 0
    written = tifffile.imread(tmp_path / words[words.index("--out") + 1] / "mean.ome.tif")
    assert (
        written.tobytes()
        == viewer.layers[f"reconstruction of {layer.name} [counts]"].data.tobytes()
    )


def test_no_command_is_given_that_would_make_other_pixels(
    viewer, measured, dock, finished, tmp_path
):
    dock.start()
    finished(dock)
    assert not dock.results.command.isEnabled()
    assert "not opened from a file" in dock.results.command.toolTip()
    path = tmp_path / "other.npy"
    np.save(path, measured["data"][::-1])
    for layer in dock.results.value().layers.values():
        layer.metadata[METADATA_KEY]["files"] = {"image": str(path)}
    dock.results.group.refresh()
    dock.results._on_chosen()
    dock.results.command.click()
    finished(dock)
    assert "holds other pixels" in dock.panel.message.text()


def test_removing_a_result_removes_its_layers_only(viewer, dock, finished):
    dock.start()
    finished(dock)
    dock.results.remove.click()
    assert [layer.name for layer in viewer.layers] == ["cell"]
    assert dock.results.value() is None
    assert not dock.results.more.isEnabled()


def test_the_cost_is_said_before_the_run(qtbot, dock):
    dock.cost._rest.start(0)
    qtbot.waitUntil(lambda: not dock.cost.waiting)
    assert "MB" in dock.cost.text()
    assert "about" in dock.cost.text()


def test_the_input_may_go_while_it_is_reconstructed(qtbot, viewer, dock, finished):
    dock.form.counts["samples"].setValue(30)
    dock.start()
    qtbot.waitUntil(lambda: dock.panel.bar.value() > 2)
    viewer.layers.remove("cell")
    finished(dock)
    assert viewer.layers[MEAN].data.any()
    assert dock.form.missing() == ("an image layer",)


def test_each_drawn_rectangle_is_a_result_of_its_own(
    viewer, measured, open_dock, finished, tiny_widefield_model, qtbot
):
    source = viewer.add_image(**{**measured, "data": np.tile(measured["data"], (2, 2))})
    dock = open_dock(tiny_widefield_model)
    assert dock.rectangles.isHidden()
    corners = [((0, 0), (34, 36)), ((40, 36), (76, 70))]
    shapes = viewer.add_shapes(
        [[source.data_to_world(corner) for corner in pair] for pair in corners],
        shape_type="rectangle",
        units=source.units,
    )
    viewer.layers.selection.active = shapes
    dock.form.image.set_value(source)
    assert not dock.rectangles.isHidden()
    dock.rectangles.click()
    regions = drawn_each(shapes, source)
    names = {
        number: "reconstruction of cell, rows {} to {}, columns {} to {} [counts]".format(*region)
        for number, region in regions.items()
    }
    qtbot.waitUntil(lambda: not dock.panel.busy and names[2] in viewer.layers)
    request = dock.form.value()
    for number in (1, 2):
        layer = viewer.layers[names[number]]
        region = regions[number]
        alone = drained(reconstruct(replace(request, region=region), load_model(request.model)))
        assert layer.data.tobytes() == alone.mean.tobytes()
    groups = groups_of(viewer.layers)
    assert len(groups) == 2 and {group.mark["source"] for group in groups} == {"cell"}
