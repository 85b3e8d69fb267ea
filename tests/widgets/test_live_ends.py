"""Every end of a following is clean and says why, and what stopped starts again."""

import shutil
from functools import partial

import numpy as np
import pytest
from live_frames import alone, frame, shown

from napari_cvdm.widgets.live.live_widget import LiveWidget

LIVE = "live reconstruction of cell [counts]"


def ways_to_end(dock, viewer):
    return {
        "stop": (dock.stop_button.click, "Stopped"),
        "source": (partial(viewer.layers.remove, "cell"), "followed layer was removed"),
        "live": (
            partial(viewer.layers.remove, LIVE),
            "live layer was removed",
        ),
        "steps": (partial(dock.source.steps.setValue, 4), "settings were changed"),
        "text": (partial(dock.form.optics["pixel_um"].setText, "abc"), "a number is needed"),
    }


@pytest.mark.parametrize("way", ["stop", "source", "live", "steps", "text", "model"])
def test_every_end_is_clean_and_says_why(
    viewer, measured, open_live, qtbot, tiny_widefield_model, way
):
    layer = viewer.add_image(**measured)
    dock = open_live(tiny_widefield_model)
    dock.start()
    qtbot.waitUntil(lambda: shown(viewer).size > 0)
    source = dock._runs[0].source
    act, words = ways_to_end(dock, viewer).get(
        way, (partial(dock.form.model.set_value, "widefield-x2"), "settings were changed")
    )
    act()
    qtbot.waitUntil(lambda: not dock.following)
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
        qtbot.waitUntil(lambda: dock._done > 0)
        dock.stop("Stopped.")
        qtbot.waitUntil(lambda: not dock.following)
        assert dock.start_button.isEnabled()
    assert [layer.name for layer in viewer.layers] == [
        "cell",
        LIVE,
    ]


def test_a_closed_dock_stops_but_a_tab_behind_another_goes_on(
    make_napari_viewer, measured, qtbot, tiny_widefield_model
):
    viewer = make_napari_viewer(show=True)
    layer = viewer.add_image(**measured)
    dock, other = LiveWidget(viewer), LiveWidget(viewer)
    frames = [
        viewer.window.add_dock_widget(one, name=name, tabify=name == "other")
        for one, name in ((dock, "live"), (other, "other"))
    ]
    dock.form.model.set_value(str(tiny_widefield_model))
    frames[0].raise_()
    qtbot.waitUntil(dock.isVisible)
    dock.start()
    qtbot.waitUntil(lambda: dock._done > 0)
    frames[1].raise_()
    layer.data = frame(2)
    qtbot.waitUntil(lambda: dock._last[0].number == 2)
    assert dock.following
    frames[0].close()
    qtbot.waitUntil(lambda: not dock.following)
    assert "dock was closed" in dock.message.text()


@pytest.mark.window
def test_a_dock_that_is_destroyed_ends_its_following(
    viewer, measured, open_live, qtbot, tiny_widefield_model
):
    layer = viewer.add_image(**measured)
    dock = LiveWidget(viewer)
    viewer.window.add_dock_widget(dock)
    dock.form.model.set_value(str(tiny_widefield_model))
    dock.start()
    (run,) = dock._runs
    with qtbot.waitSignal(run._job.ended):
        viewer.window.remove_dock_widget(dock)
        dock.deleteLater()
        del dock
    layer.data = frame(2)
    viewer.layers.remove(layer)
    assert run.source.stopped
    assert run.source.posted == 1


def test_closing_the_viewer_while_following_is_survived(
    make_napari_viewer, measured, tiny_widefield_model, qtbot
):
    from superqt.utils import WorkerBase

    viewer = make_napari_viewer()
    viewer.add_image(**measured)
    dock = LiveWidget(viewer)
    viewer.window.add_dock_widget(dock)
    dock.form.model.set_value(str(tiny_widefield_model))
    dock.start()
    qtbot.waitUntil(lambda: dock._done > 0)
    (run,) = dock._runs
    viewer.close()
    WorkerBase.await_workers(600_000)
    qtbot.waitUntil(lambda: run.source.stopped)
    assert run.source.posted == 1


def test_a_folder_is_followed_until_it_vanishes(
    viewer, open_live, qtbot, tmp_path, tiny_widefield_model
):
    folder = tmp_path / "camera"
    folder.mkdir()
    dock = open_live(tiny_widefield_model)
    dock.source.kind.setCurrentIndex(1)
    assert dock.missing() == ("a folder",)
    dock.source.path.set_value(folder)
    dock.form.optics["pixel_um"].set_value(0.065)
    assert dock.start_button.isEnabled()
    dock.start()
    qtbot.waitUntil(lambda: dock.following)
    np.save(folder / "one.npy", frame(4))
    expected = alone(frame(4), tiny_widefield_model)

    def shows_it():
        return (
            "live reconstruction of camera [counts]" in viewer.layers
            and viewer.layers[0].data.tobytes() == expected.tobytes()
        )

    qtbot.waitUntil(shows_it)
    np.testing.assert_allclose(viewer.layers[0].scale, (0.0325, 0.0325))
    assert str(viewer.layers[0].units[0]) == "micrometer"
    shutil.rmtree(folder)
    qtbot.waitUntil(lambda: not dock.following)
    assert "cannot be read" in dock.message.text()


def test_a_folder_that_is_not_there_is_said_at_once(open_live, tmp_path, tiny_widefield_model):
    dock = open_live(tiny_widefield_model)
    dock.source.kind.setCurrentIndex(1)
    dock.source.path.set_value(tmp_path / "nowhere")
    dock.start()
    assert not dock.following
    assert "cannot be read" in dock.message.text()
