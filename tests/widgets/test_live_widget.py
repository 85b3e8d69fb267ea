"""Following in a real window: every way to write a frame, every way to end, and the camera that never waits."""

import shutil
import threading
from functools import partial

import numpy as np
import pytest
from qtpy.QtCore import QTimer

from napari_cvdm.follow import live
from napari_cvdm.model.zoo import load_model
from napari_cvdm.request import ImageStack, RestoreRequest
from napari_cvdm.restore import restore
from napari_cvdm.result import finished as drained
from napari_cvdm.widgets.layers import METADATA_KEY, is_measurement
from napari_cvdm.widgets.live_feed import LayerFeed
from napari_cvdm.widgets.live_widget import LiveWidget

RESULTS = ("gamma", "beta", "noise-rate map", "uncertainty", "untrusted pixels", "reconstruction")
FRAMES = 12
PATIENCE_MS = 30_000


def frame(number, shape=(40, 36)):
    rng = np.random.default_rng(number)
    return rng.poisson(100 + 50 * rng.random(shape)).astype(np.uint16)


@pytest.fixture
def open_live(viewer, qtbot):
    """Open the dock with a model chosen; what still runs at the end of the test is ended."""
    docks = []

    def opened(model):
        dock = LiveWidget(viewer)
        viewer.window.add_dock_widget(dock)
        dock.form.model.set_value(str(model))
        for name, count in {"samples": 2, "steps": 3, "tile": 64}.items():
            dock.form.counts[name].setValue(count)
        dock.form.words["device"].setCurrentText("cpu")
        docks.append(dock)
        return dock

    yield opened
    for dock in docks:
        dock.stop("")
        qtbot.waitUntil(partial(_idle, dock), timeout=PATIENCE_MS)


def _idle(dock):
    return not dock.following and not dock.panel.busy


def alone(array, model, **settings):
    """What restoring a frame directly, in one step, gives."""
    image = ImageStack(array=array, axes="YX", pixel_um=0.065, source="cell")
    return drained(restore(RestoreRequest(image=image, model=str(model), samples=1, steps=1, tile=64, device="cpu", **settings), load_model(str(model)))).mean


def assign(layer, number):
    layer.data = frame(number)


def in_place(layer, number):
    layer.data[...] = frame(number)
    layer.refresh()


def grow(layer, number):
    layer.data = np.concatenate([layer.data, frame(number)[None]])


def shown(viewer):
    return viewer.layers["live reconstruction of cell"].data if "live reconstruction of cell" in viewer.layers else np.zeros(0)


@pytest.fixture
def film(qtbot):
    """Write frames with a timer, and wait for the last one."""

    def filmed(layer, write):
        written = []
        timer = QTimer()

        def tick():
            written.append(len(written) + 1)
            write(layer, written[-1])
            if len(written) == FRAMES:
                timer.stop()

        timer.timeout.connect(tick)
        timer.start(10)
        qtbot.waitUntil(lambda: len(written) == FRAMES, timeout=PATIENCE_MS)

    return filmed


@pytest.mark.parametrize("write", [assign, in_place, grow])
def test_the_last_frame_that_was_written_is_the_one_that_is_shown(viewer, measured, open_live, film, qtbot, tiny_widefield_model, write):
    if write is grow:
        stack = {"data": measured["data"][None], "scale": (1.0, 0.065, 0.065), "translate": (0.0, 5.0, 7.0)}
        measured |= stack | {"units": ("s", "um", "um"), "axis_labels": ("t", "y", "x")}
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    dock.start_button.click()
    source = dock._runs[0].source
    film(layer, write)
    expected = alone(frame(FRAMES), tiny_widefield_model)
    qtbot.waitUntil(lambda: shown(viewer).tobytes() == expected.tobytes(), timeout=PATIENCE_MS)
    last, place = dock._last
    assert source.posted == 1 + FRAMES == last.done + last.dropped
    assert last.skipped == 0
    assert "frames/s" in dock.status.text()
    result = viewer.layers["live reconstruction of cell"]
    np.testing.assert_allclose(result.scale, (0.0325, 0.0325))
    np.testing.assert_allclose(result.translate, (5 - 0.065 / 4, 7 - 0.065 / 4))
    assert viewer.layers.units is not None
    assert not is_measurement(result)
    assert result.metadata[METADATA_KEY]["provenance"]["inputs"] == last.restoration.provenance.inputs
    assert result.metadata[METADATA_KEY]["source"] == place.name == "cell"


def test_one_layer_is_kept_with_the_limits_that_the_user_gave_it(viewer, measured, open_live, film, qtbot, tiny_widefield_model):
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    dock.start()
    qtbot.waitUntil(lambda: shown(viewer).size > 0, timeout=PATIENCE_MS)
    result = viewer.layers["live reconstruction of cell"]
    result.contrast_limits = (1.0, 77.0)
    film(layer, assign)
    qtbot.waitUntil(lambda: dock._last[0].number == 1 + FRAMES, timeout=PATIENCE_MS)
    assert viewer.layers["live reconstruction of cell"] is result
    assert result.contrast_limits == [1, 77]
    assert len(viewer.layers) == 2


def test_writing_a_frame_never_reconstructs_in_the_window(viewer, measured, open_live, film, qtbot, tiny_widefield_model, monkeypatch):
    threads = []

    def watched(*args, **named):
        threads.append(threading.current_thread())
        return (yield from restore(*args, **named))

    monkeypatch.setattr(live, "restore", watched)
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    dock.start()
    film(layer, assign)
    qtbot.waitUntil(lambda: dock._last is not None and dock._last[0].number == 1 + FRAMES, timeout=PATIENCE_MS)
    assert len(threads) == dock._last[0].done
    assert threading.main_thread() not in threads


def test_a_writer_in_a_hung_following_is_not_kept_waiting(viewer, measured, open_live, film, qtbot, tiny_widefield_model, monkeypatch):
    free = threading.Event()

    def stuck(*args, **named):
        free.wait(60)
        return (yield from restore(*args, **named))

    monkeypatch.setattr(live, "restore", stuck)
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    dock.start()
    source = dock._runs[0].source
    film(layer, assign)
    assert source.posted == 1 + FRAMES
    free.set()
    qtbot.waitUntil(lambda: dock._last is not None and dock._last[0].number == 1 + FRAMES, timeout=PATIENCE_MS)
    assert dock._last[0].done + source.dropped == source.posted


def test_a_slider_or_a_look_posts_nothing(viewer):
    posted = []
    layer = viewer.add_image(np.stack([frame(1), frame(2)]))
    feed = LayerFeed(layer, 1, lambda read: posted.append(read()))
    feed.post_now()
    viewer.dims.set_point(0, 1)
    layer.visible = False
    layer.visible = True
    layer.scale = (1, 2, 2)
    layer.refresh()
    assert len(posted) == 1
    np.testing.assert_array_equal(posted[0].array, frame(2))
    layer.visible = False
    layer.data = np.stack([frame(1), frame(3)])
    assert len(posted) == 2
    feed.close()
    layer.data = np.stack([frame(1), frame(4)])
    assert len(posted) == 2


def test_a_posted_frame_is_a_copy(viewer):
    posted = []
    layer = viewer.add_image(frame(1))
    LayerFeed(layer, 1, posted.append).post_now()
    layer.data[...] = 0
    np.testing.assert_array_equal(posted[0]().array, frame(1))


def test_bad_frames_are_named_and_following_goes_on(viewer, measured, open_live, qtbot, tiny_widefield_model):
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    dock.start()
    for bad, words in (
        (np.full((40, 36), 7, np.uint16), "constant"),
        (np.full((40, 36), np.nan, np.float32), "NaN"),
        (np.zeros((40, 36, 3), np.uint16), "axes|plane|constant"),
    ):
        layer.data = bad
        qtbot.waitUntil(lambda words=words: any(word in dock.message.text() for word in words.split("|")), timeout=PATIENCE_MS)
        assert dock.following
    layer.data = frame(1)
    expected = alone(frame(1), tiny_widefield_model)
    qtbot.waitUntil(lambda: shown(viewer).tobytes() == expected.tobytes(), timeout=PATIENCE_MS)
    assert dock._last[0].skipped == 3
    assert "3 unusable" in dock.status.text()


def test_a_camera_whose_field_changes_is_followed(viewer, measured, open_live, qtbot, tiny_widefield_model):
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    dock.start()
    layer.data = frame(1, (30, 50))
    qtbot.waitUntil(lambda: shown(viewer).shape == (60, 100), timeout=PATIENCE_MS)
    assert dock.following


@pytest.mark.parametrize("labels", [("plane", "y", "x"), ("-3", "-2", "-1"), ("t", "plane", "y", "x")])
def test_two_planes_in_one_layer_are_followed(viewer, planes, open_live, qtbot, tiny_phase_model, labels):
    data = planes if len(labels) == 3 else planes[None]
    layer = viewer.add_image(data, name="cell", scale=(*(1,) * (len(labels) - 2), 0.2, 0.2), units=("um",) * len(labels), axis_labels=labels)
    dock = open_live(tiny_phase_model)
    for name, value in {"wavelength_um": 0.55, "medium_index": 1.33, "defocus_um": (-1.0, 1.0)}.items():
        dock.form.optics[name].set_value(value)
    dock.start()
    qtbot.waitUntil(lambda: shown(viewer).shape == (48, 40), timeout=PATIENCE_MS)
    layer.data = np.concatenate([data, data[:, ::-1]]) if len(labels) == 4 else data[::-1]
    qtbot.waitUntil(lambda: dock._last[0].number == 2, timeout=PATIENCE_MS)
    np.testing.assert_array_equal(dock._last[0].image.array, planes[::-1])
    assert viewer.layers.units is not None


def test_planes_in_two_layers_are_refused_with_what_is_needed(viewer, planes, open_live, tiny_phase_model):
    for name, plane in zip(("far", "near"), planes, strict=True):
        viewer.add_image(plane, name=name, scale=(0.2, 0.2), units=("um", "um"))
    dock = open_live(tiny_phase_model)
    for name, value in {"wavelength_um": 0.55, "medium_index": 1.33, "defocus_um": (-1.0, 1.0)}.items():
        dock.form.optics[name].set_value(value)
    dock.start()
    assert not dock.following
    assert "both planes in one layer" in dock.message.text()


def test_the_full_posterior_of_the_shown_frame(viewer, measured, open_live, qtbot, tiny_widefield_model):
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    assert not dock.panel.run.isEnabled()
    dock.start()
    qtbot.waitUntil(lambda: dock.panel.run.isEnabled(), timeout=PATIENCE_MS)
    dock.panel.run.click()
    request = RestoreRequest(image=dock._last[0].image, **dock.form.settings())
    layer.data = frame(9)
    qtbot.waitUntil(lambda: not dock.panel.busy, timeout=PATIENCE_MS)
    assert dock.following
    assert {f"{role} of cell" for role in RESULTS} < {one.name for one in viewer.layers}
    assert "live reconstruction of cell" in viewer.layers
    provenance = viewer.layers["reconstruction of cell"].metadata[METADATA_KEY]["provenance"]
    assert (provenance["settings"]["samples"], provenance["settings"]["steps"]) == (request.samples, request.steps) == (2, 3)
    assert viewer.layers["reconstruction of cell"].data.tobytes() == drained(restore(request, load_model(request.model))).mean.tobytes()


def ways_to_end(dock, viewer):
    return {
        "stop": (dock.stop_button.click, "Stopped"),
        "source": (partial(viewer.layers.remove, "cell"), "followed layer was removed"),
        "live": (partial(viewer.layers.remove, "live reconstruction of cell"), "live layer was removed"),
        "steps": (partial(dock.source.steps.setValue, 4), "settings were changed"),
        "text": (partial(dock.form.optics["pixel_um"].setText, "abc"), "a number is needed"),
    }


@pytest.mark.parametrize("way", ["stop", "source", "live", "steps", "text", "model"])
def test_every_end_is_clean_and_says_why(viewer, measured, open_live, qtbot, tiny_widefield_model, way):
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    dock.start()
    qtbot.waitUntil(lambda: shown(viewer).size > 0, timeout=PATIENCE_MS)
    source = dock._runs[0].source
    act, words = ways_to_end(dock, viewer).get(way, (partial(dock.form.model.set_value, "widefield-x2"), "settings were changed"))
    act()
    qtbot.waitUntil(lambda: not dock.following, timeout=PATIENCE_MS)
    assert words in dock.message.text()
    posted = source.posted
    layer.data = frame(3)
    assert source.posted == posted == dock._done + source.dropped
    assert dock.stop_button.isEnabled() is False


def test_what_stopped_starts_again(viewer, measured, open_live, qtbot, tiny_widefield_model):
    viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    for _ in range(2):
        dock.start()
        dock.start()
        assert len(dock._runs) == 1
        qtbot.waitUntil(lambda: dock._done > 0, timeout=PATIENCE_MS)
        dock.stop("Stopped.")
        qtbot.waitUntil(lambda: not dock.following, timeout=PATIENCE_MS)
        assert dock.start_button.isEnabled()
    assert [layer.name for layer in viewer.layers] == ["cell", "live reconstruction of cell"]


def test_a_closed_dock_stops_but_a_tab_behind_another_goes_on(make_napari_viewer, measured, qtbot, tiny_widefield_model):
    viewer = make_napari_viewer(show=True)
    layer = viewer.add_image(**measured)
    dock, other = LiveWidget(viewer), LiveWidget(viewer)
    frames = [viewer.window.add_dock_widget(one, name=name, tabify=name == "other") for one, name in ((dock, "live"), (other, "other"))]
    dock.form.model.set_value(str(tiny_widefield_model))
    frames[0].raise_()
    qtbot.waitUntil(dock.isVisible, timeout=PATIENCE_MS)
    dock.start()
    qtbot.waitUntil(lambda: dock._done > 0, timeout=PATIENCE_MS)
    frames[1].raise_()
    layer.data = frame(2)
    qtbot.waitUntil(lambda: dock._last[0].number == 2, timeout=PATIENCE_MS)
    assert dock.following
    frames[0].close()
    qtbot.waitUntil(lambda: not dock.following, timeout=PATIENCE_MS)
    assert "dock was closed" in dock.message.text()


def test_a_dock_that_is_destroyed_ends_its_following(viewer, measured, open_live, qtbot, tiny_widefield_model):
    layer = viewer.add_image(**measured)
    dock = LiveWidget(viewer)
    viewer.window.add_dock_widget(dock)
    dock.form.model.set_value(str(tiny_widefield_model))
    dock.start()
    (run,) = dock._runs
    with qtbot.waitSignal(run._job.ended, timeout=PATIENCE_MS):
        viewer.window.remove_dock_widget(dock)
        dock.deleteLater()
        del dock
    layer.data = frame(2)
    viewer.layers.remove(layer)
    assert run.source.stopped
    assert run.source.posted == 1


def test_closing_the_viewer_while_following_is_survived(make_napari_viewer, measured, tiny_widefield_model, qtbot):
    from superqt.utils import WorkerBase

    viewer = make_napari_viewer()
    viewer.add_image(**measured)
    dock = LiveWidget(viewer)
    viewer.window.add_dock_widget(dock)
    dock.form.model.set_value(str(tiny_widefield_model))
    dock.start()
    qtbot.waitUntil(lambda: dock._done > 0, timeout=PATIENCE_MS)
    (run,) = dock._runs
    viewer.close()
    WorkerBase.await_workers(10_000)
    qtbot.waitUntil(lambda: run.source.stopped, timeout=PATIENCE_MS)
    assert run.source.posted == 1


def test_a_folder_is_followed_until_it_vanishes(viewer, open_live, qtbot, tmp_path, tiny_widefield_model):
    folder = tmp_path / "camera"
    folder.mkdir()
    dock = open_live(tiny_widefield_model)
    dock.source.kind.setCurrentIndex(1)
    assert dock.missing() == ("a folder",)
    dock.source.set_folder(folder)
    dock.form.optics["pixel_um"].set_value(0.065)
    assert dock.start_button.isEnabled()
    dock.start()
    qtbot.waitUntil(lambda: dock.following, timeout=PATIENCE_MS)
    np.save(folder / "one.npy", frame(4))
    expected = alone(frame(4), tiny_widefield_model)

    def shows_it():
        return "live reconstruction of camera" in viewer.layers and viewer.layers[0].data.tobytes() == expected.tobytes()

    qtbot.waitUntil(shows_it, timeout=PATIENCE_MS)
    np.testing.assert_allclose(viewer.layers[0].scale, (0.0325, 0.0325))
    assert str(viewer.layers[0].units[0]) == "micrometer"
    shutil.rmtree(folder)
    qtbot.waitUntil(lambda: not dock.following, timeout=PATIENCE_MS)
    assert "cannot be read" in dock.message.text()


def test_a_folder_that_is_not_there_is_said_at_once(open_live, tmp_path, tiny_widefield_model):
    dock = open_live(tiny_widefield_model)
    dock.source.set_folder(tmp_path / "nowhere")
    dock.start()
    assert not dock.following
    assert "cannot be read" in dock.message.text()


def test_the_dock_opens_from_the_menu(npe2pm, make_napari_viewer):
    from pathlib import Path

    import napari_cvdm

    with npe2pm.tmp_plugin(manifest=str(Path(napari_cvdm.__file__).with_name("napari.yaml"))) as plugin:
        viewer = make_napari_viewer()
        _, dock = viewer.window.add_plugin_dock_widget(plugin.name, "Live")
        assert isinstance(dock, LiveWidget)
        assert "an image layer" in dock.message.text()
