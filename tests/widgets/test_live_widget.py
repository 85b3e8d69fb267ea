"""Following in a real window.

Every way to write a frame, every way to end, and a camera that never waits.
"""

import threading

import numpy as np
import pytest
from live_frames import FRAMES, alone, frame, shown

from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.core.result import finished as drained
from napari_cvdm.live import follow as live
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, is_measurement, plugin_metadata
from napari_cvdm.widgets.live.live_run import LayerFeed
from napari_cvdm.widgets.live.live_widget import describe_pace

LIVE = "live reconstruction of cell [counts]"

MEAN = "reconstruction of cell [counts]"

RESULTS = ("uncertainty", "untrusted pixels", "reconstruction")


def assign(layer, number):
    layer.data = frame(number)


def in_place(layer, number):
    layer.data[...] = frame(number)
    layer.refresh()


def grow(layer, number):
    layer.data = np.concatenate([layer.data, frame(number)[None]])


@pytest.mark.parametrize("write", [assign, in_place, grow])
def test_the_last_frame_that_was_written_is_the_one_that_is_shown(
    viewer, measured, open_live, film, qtbot, tiny_widefield_model, write
):
    if write is grow:
        stack = {
            "data": measured["data"][None],
            "scale": (1.0, 0.065, 0.065),
            "translate": (0.0, 5.0, 7.0),
        }
        measured |= stack | {"units": ("s", "um", "um"), "axis_labels": ("t", "y", "x")}
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    dock.start_button.click()
    source = dock._runs[0].source
    film(layer, write)
    expected = alone(frame(FRAMES), tiny_widefield_model)
    qtbot.waitUntil(lambda: shown(viewer).tobytes() == expected.tobytes())
    last, place = dock._last
    assert source.posted == 1 + FRAMES == last.done + last.dropped
    assert last.skipped == 0
    assert "latency" in dock.status.text()
    result = viewer.layers[LIVE]
    np.testing.assert_allclose(result.scale, (0.0325, 0.0325))
    np.testing.assert_allclose(result.translate, (5 - 0.065 / 4, 7 - 0.065 / 4))
    assert viewer.layers.units is not None
    assert not is_measurement(result)
    assert (
        result.metadata[METADATA_KEY]["provenance"]["inputs"]
        == last.reconstruction.provenance.inputs
    )
    assert result.metadata[METADATA_KEY]["source"] == place.name == "cell"


@pytest.mark.window
def test_one_layer_is_kept_with_the_limits_that_the_user_gave_it(
    viewer, measured, open_live, film, qtbot, tiny_widefield_model
):
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    dock.start()
    qtbot.waitUntil(lambda: shown(viewer).size > 0)
    result = viewer.layers[LIVE]
    result.contrast_limits = (1.0, 77.0)
    film(layer, assign)
    qtbot.waitUntil(lambda: dock._last[0].number == 1 + FRAMES)
    assert viewer.layers[LIVE] is result
    assert result.contrast_limits == [1, 77]
    assert len(viewer.layers) == 2


def test_writing_a_frame_never_reconstructs_in_the_window(
    viewer, measured, open_live, film, qtbot, tiny_widefield_model, monkeypatch
):
    threads = []

    def watched(*args, **named):
        threads.append(threading.current_thread())
        return (yield from reconstruct(*args, **named))

    monkeypatch.setattr(live, "reconstruct", watched)
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    dock.start()
    film(layer, assign)
    qtbot.waitUntil(lambda: dock._last is not None and dock._last[0].number == 1 + FRAMES)
    assert len(threads) == dock._last[0].done
    assert threading.main_thread() not in threads


def test_a_writer_in_a_hung_following_is_not_kept_waiting(
    viewer, measured, open_live, film, qtbot, tiny_widefield_model, monkeypatch
):
    free = threading.Event()

    def stuck(*args, **named):
        free.wait(60)
        return (yield from reconstruct(*args, **named))

    monkeypatch.setattr(live, "reconstruct", stuck)
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    dock.start()
    source = dock._runs[0].source
    film(layer, assign)
    assert source.posted == 1 + FRAMES
    free.set()
    qtbot.waitUntil(lambda: dock._last is not None and dock._last[0].number == 1 + FRAMES)
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


def test_bad_frames_are_named_and_following_goes_on(
    viewer, measured, open_live, qtbot, tiny_widefield_model
):
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    dock.start()
    for bad, words in (
        (np.full((40, 36), 7, np.uint16), "constant"),
        (np.full((40, 36), np.nan, np.float32), "NaN"),
        (np.zeros((40, 36, 3), np.uint16), "axes|plane|constant"),
    ):
        layer.data = bad
        qtbot.waitUntil(
            lambda words=words: any(word in dock.message.text() for word in words.split("|")),
        )
        assert dock.following
    layer.data = frame(1)
    expected = alone(frame(1), tiny_widefield_model)
    qtbot.waitUntil(lambda: shown(viewer).tobytes() == expected.tobytes())
    assert dock._last[0].skipped == 3
    assert "3 unusable" in dock.status.text()


def test_a_camera_whose_field_changes_is_followed(
    viewer, measured, open_live, qtbot, tiny_widefield_model
):
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    dock.start()
    layer.data = frame(1, (30, 50))
    qtbot.waitUntil(lambda: shown(viewer).shape == (60, 100))
    assert dock.following


@pytest.mark.parametrize(
    "labels", [("plane", "y", "x"), ("-3", "-2", "-1"), ("t", "plane", "y", "x")]
)
def test_two_planes_in_one_layer_are_followed(
    viewer, planes, open_live, qtbot, tiny_phase_model, labels
):
    data = planes if len(labels) == 3 else planes[None]
    layer = viewer.add_image(
        data,
        name="cell",
        scale=(*(1,) * (len(labels) - 2), 0.2, 0.2),
        units=("um",) * len(labels),
        axis_labels=labels,
    )
    dock = open_live(tiny_phase_model)
    for name, value in {
        "wavelength_um": 0.55,
        "medium_index": 1.33,
        "defocus_um": (-1.0, 1.0),
    }.items():
        dock.form.optics[name].set_value(value)
    dock.start()
    qtbot.waitUntil(lambda: shown(viewer).shape == (48, 40))
    layer.data = np.concatenate([data, data[:, ::-1]]) if len(labels) == 4 else data[::-1]
    qtbot.waitUntil(lambda: dock._last[0].number == 2)
    np.testing.assert_array_equal(dock._last[0].image.array, planes[::-1])
    assert viewer.layers.units is not None


def test_planes_in_two_layers_are_refused_with_what_is_needed(
    viewer, planes, open_live, tiny_phase_model
):
    for name, plane in zip(("far", "near"), planes, strict=True):
        viewer.add_image(plane, name=name, scale=(0.2, 0.2), units=("um", "um"))
    dock = open_live(tiny_phase_model)
    for name, value in {
        "wavelength_um": 0.55,
        "medium_index": 1.33,
        "defocus_um": (-1.0, 1.0),
    }.items():
        dock.form.optics[name].set_value(value)
    dock.start()
    assert not dock.following
    assert "all planes in one layer" in dock.message.text()


def test_the_full_posterior_of_the_shown_frame(
    viewer, measured, open_live, qtbot, tiny_widefield_model
):
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    assert not dock.panel.run.isEnabled()
    dock.start()
    qtbot.waitUntil(lambda: dock.panel.run.isEnabled())
    dock.panel.run.click()
    request = ReconstructionRequest(image=dock._last[0].image, **dock.form.settings())
    layer.data = frame(9)
    qtbot.waitUntil(lambda: not dock.panel.busy)
    assert dock.following
    shown = {plugin_metadata(layer).get("role") for layer in viewer.layers}
    assert set(RESULTS) <= shown
    assert LIVE in viewer.layers
    provenance = viewer.layers[MEAN].metadata[METADATA_KEY]["provenance"]
    assert (
        (provenance["settings"]["samples"], provenance["settings"]["steps"])
        == (request.samples, request.steps)
        == (2, 3)
    )
    assert (
        viewer.layers[MEAN].data.tobytes()
        == drained(reconstruct(request, load_model(request.model))).mean.tobytes()
    )


@pytest.mark.parametrize(
    ("pace", "said"),
    [
        (12.345, "12.3 frames/s"),
        (1.0, "1 frame/s"),
        (0.1, "one frame in 10 s"),
        (1 / 3.456, "one frame in 3.46 s"),
        (0.0, "first frame"),
    ],
)
def test_a_slow_pace_is_said_in_seconds(pace, said):
    assert describe_pace(pace) == said
