"""A file dropped on the dock is opened; several wait, and are reconstructed when Start is pressed.

Each of them gets its own answer.
"""

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from dropping import drag_enter, drop, enqueue
from qtpy.QtCore import QMimeData, Qt, QUrl
from qtpy.QtWidgets import QApplication, QFileDialog, QLineEdit, QWidget

from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.core.result import finished as drained
from napari_cvdm.io import read_image
from napari_cvdm.io.pairing import ImageEntry, Sorted
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.widgets.layers.layer_data import plugin_metadata
from napari_cvdm.widgets.reconstruct.queue_panel import STATE, QueuePanel, State


@pytest.fixture
def dock(open_dock, tiny_widefield_model):
    """A dock without a layer."""
    return open_dock(tiny_widefield_model)


def states(dock):
    return {row.text(0): row.state for row in dock.queue.view.rows}


def test_a_dropped_file_is_shown_chosen_and_waits_for_reconstruct(
    viewer, measured, dock, write, worked_off
):
    viewer.add_image(**measured)
    assert drop(dock, write("dropped.tif", pixel_um=None))
    worked_off(dock)
    assert dock.form.image.value() is viewer.layers["dropped"]
    assert [layer.name for layer in viewer.layers] == ["cell", "dropped"]
    assert dock.panel.message.text() == "Needed before a run: pixel size."
    assert dock.queue.view.rows == [] and not dock.panel.run.isEnabled()
    drop(dock, write("known.tif", pixel_um=0.08))
    worked_off(dock)
    assert dock.form.image.value() is viewer.layers["known"]
    assert dock.panel.run.isEnabled() and dock.panel.message.text() == ""
    dock.panel.run.click()
    worked_off(dock)
    np.testing.assert_allclose(
        viewer.layers["reconstruction of known [counts]"].scale, 0.04, rtol=1e-6
    )


def test_several_dropped_files_wait_for_start(viewer, dock, write, worked_off):
    drop(dock, write("a.tif"), write("b.tif"))
    worked_off(dock)
    assert set(states(dock).values()) == {State.WAITING}
    assert len(viewer.layers) == 0
    assert "2 images wait" in dock.panel.message.text()
    dock.queue.view.start.click()
    worked_off(dock)
    assert set(states(dock).values()) == {State.DONE}


def test_a_damaged_dropped_file_says_why_and_adds_no_layer(
    viewer, dock, write, worked_off, monkeypatch
):
    monkeypatch.setattr("napari.utils.notifications.show_error", lambda _: None)
    path = write("cut.tif")
    path.write_bytes(path.read_bytes()[:-500])
    drop(dock, path)
    worked_off(dock)
    assert "cut short" in dock.panel.message.text()
    assert len(viewer.layers) == 0


def test_a_listed_file_is_opened_with_its_pixel_size_and_reconstructed_as_it_would_be_directly(
    viewer, dock, write, worked_off
):
    path = write("cell.tif", pixel_um=0.08)
    assert dock.queue.view.list.isHidden()
    enqueue(dock, path)
    assert not dock.queue.view.list.isHidden()
    worked_off(dock)
    layer, result = viewer.layers["cell"], viewer.layers["reconstruction of cell [counts]"]
    np.testing.assert_allclose(layer.scale, 0.08, rtol=1e-6)
    assert [f"{unit:~}" for unit in layer.units] == ["µm", "µm"]
    assert layer.axis_labels == ("y", "x")
    np.testing.assert_allclose(result.scale, 0.04, rtol=1e-6)
    asked = dock.form.settings() | {"pixel_um": None}
    alone = drained(
        reconstruct(
            ReconstructionRequest(image=read_image(path), **asked), load_model(asked["model"])
        )
    )
    assert result.data.tobytes() == alone.mean.tobytes()
    assert viewer.layers["uncertainty of cell [counts]"].data.tobytes() == alone.std.tobytes()
    assert states(dock) == {"cell.tif": State.DONE}


def test_a_folder_is_worked_off_in_natural_order_and_strays_are_named(
    viewer, dock, write, worked_off, tmp_path
):
    for name in ("in/c10.tif", "in/c2.tif"):
        write(name)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    enqueue(dock, tmp_path / "in")
    worked_off(dock)
    assert states(dock) == {"c2.tif": State.DONE, "c10.tif": State.DONE, "notes.txt": State.SKIPPED}
    stray = dock.queue.view.rows[-1]
    assert ".txt are not read" in stray.text(1)
    names = [layer.name for layer in viewer.layers]
    assert names.index("reconstruction of c2 [counts]") < names.index("c10")
    assert dock.panel.message.text() == "The queue has ended: 2 done, 1 skipped."


def test_damaged_lost_and_constant_files_fail_with_words_and_the_others_go_on(
    viewer, dock, write, spots, worked_off, tmp_path, monkeypatch
):
    shown = []
    monkeypatch.setattr("napari.utils.notifications.show_error", shown.append)
    good, cut, lost, flat, last = (write(f"{name}.tif") for name in ("a", "b", "c", "d", "e"))
    cut.write_bytes(cut.read_bytes()[:-500])
    tifffile.imwrite(flat, np.zeros_like(spots))
    lost.unlink()
    enqueue(dock, good, cut, lost, flat, last)
    worked_off(dock)
    assert list(states(dock).values()) == [
        State.DONE,
        State.FAILED,
        State.FAILED,
        State.FAILED,
        State.DONE,
    ]
    for row, words in zip(
        dock.queue.view.rows[1:4], ("cut short", "no such file", "constant"), strict=True
    ):
        assert words in row.text(1)
        assert words in row.toolTip(1)
    of = {plugin_metadata(layer).get("source", layer.name) for layer in viewer.layers}
    assert of == {"a", "e"}
    assert "cut short" in dock.queue.view.detail.text()
    assert not shown


def test_optics_that_only_another_layer_told_are_not_taken_for_a_file(
    viewer, dock, write, worked_off
):
    enqueue(dock, write("known.tif"), write("unknown.tif", pixel_um=None))
    worked_off(dock)
    assert dock.form.optics["pixel_um"].value() == pytest.approx(0.1)
    assert states(dock)["unknown.tif"] is State.FAILED
    assert "The file does not say pixel size" in dock.queue.view.rows[1].detail
    assert "unknown" not in viewer.layers
    dock.form.optics["pixel_um"].setText("")
    dock.form.optics["pixel_um"].setText("0.1")  # the same number, but typed
    dock.queue.view.start.click()
    worked_off(dock)
    assert states(dock) == {"known.tif": State.DONE, "unknown.tif": State.DONE}
    settings = plugin_metadata(viewer.layers["reconstruction of unknown [counts]"])["provenance"][
        "settings"
    ]
    assert settings["pixel_um"] == 0.1


def test_what_the_file_says_goes_before_the_form(viewer, dock, write, worked_off):
    dock.form.optics["pixel_um"].setText("0.3")
    enqueue(dock, write("known.tif", pixel_um=0.1), write("unknown.tif", pixel_um=None))
    worked_off(dock)
    names = ("known", "unknown")
    pixels = [
        plugin_metadata(layer)["provenance"]["settings"]["pixel_um"]
        for layer in (viewer.layers[f"reconstruction of {name} [counts]"] for name in names)
    ]
    assert pixels == pytest.approx([0.1, 0.3])
    np.testing.assert_allclose(
        [viewer.layers[name].scale[0] for name in names], (0.1, 0.3), rtol=1e-6
    )
    assert viewer.layers.units is not None


def test_cancel_stops_the_file_at_work_and_the_rest_and_start_goes_on(
    qtbot, viewer, dock, write, worked_off
):
    paths = [write(f"{name}.tif") for name in "abc"]
    dock.form.counts["samples"].setValue(100)
    enqueue(dock, paths[0])
    dock.form.counts["samples"].setValue(2)
    enqueue(dock, *paths[1:])  # appended; the settings are those that the queue began with
    qtbot.waitUntil(
        lambda: dock.panel.bar.value() > 2 and dock.panel.keep.isVisibleTo(dock.panel),
    )
    assert "%" in dock.queue.view.rows[0].text(1)
    dock.panel.cancel.click()
    worked_off(dock)
    assert set(states(dock).values()) == {State.CANCELLED}
    assert len(viewer.layers) == 0
    dock.queue.view.start.click()
    worked_off(dock)
    assert set(states(dock).values()) == {State.DONE}
    assert {f"reconstruction of {name} [counts]" for name in "abc"} <= {
        layer.name for layer in viewer.layers
    }


def test_cancel_all_of_the_list_does_the_same_in_the_second_file(
    qtbot, viewer, dock, write, worked_off
):
    enqueue(dock, *(write(f"{name}.tif") for name in "abc"))
    qtbot.waitUntil(lambda: states(dock)["b.tif"] is not State.WAITING)
    dock.queue.view.cancel.click()
    worked_off(dock)
    assert states(dock) == {"a.tif": State.DONE, "b.tif": State.CANCELLED, "c.tif": State.CANCELLED}
    assert {plugin_metadata(layer).get("source", layer.name) for layer in viewer.layers} == {"a"}


def test_a_drop_while_a_run_is_on_waits_in_the_list(
    qtbot, viewer, measured, dock, write, worked_off
):
    viewer.add_image(**measured)
    dock.form.counts["steps"].setValue(30)
    dock.start()
    drop(dock, write("later.tif"))
    worked_off(dock)
    assert states(dock) == {"later.tif": State.WAITING}
    dock.queue.view.start.click()
    worked_off(dock)
    assert states(dock) == {"later.tif": State.DONE}
    names = [layer.name for layer in viewer.layers]
    assert (
        names.index("reconstruction of cell [counts]")
        < names.index("later")
        < names.index("reconstruction of later [counts]")
    )
    assert dock.preview.isEnabled()


def test_stop_and_keep_keeps_this_file_and_goes_on(qtbot, viewer, dock, write, worked_off):
    dock.form.counts["samples"].setValue(200)
    enqueue(dock, write("a.tif"), write("b.tif"))
    for name in ("a.tif", "b.tif"):
        qtbot.waitUntil(
            lambda name=name: states(dock)[name] is State.RUNNING and dock.panel.bar.value() > 20,
        )
        dock.panel.keep.click()
        qtbot.waitUntil(lambda name=name: states(dock)[name] is State.DONE)
    worked_off(dock)
    assert "Stopped with" in dock.queue.view.rows[0].detail


def test_a_queued_result_can_be_repeated(viewer, dock, write, worked_off):
    enqueue(dock, write("a.tif"), write("b.tif"))
    worked_off(dock)
    first = viewer.layers["reconstruction of a [counts]"].data.tobytes()
    dock.results.choose("a by tiny-widefield-x2")
    dock.results.repeat.click()
    assert dock.form.image.value() is viewer.layers["a"]
    dock.start()
    worked_off(dock)
    assert viewer.layers["reconstruction of a [counts]"].data.tobytes() == first


@pytest.mark.window
def test_every_part_of_the_dock_takes_a_drop_of_files_and_nothing_else(viewer, dock, tmp_path):
    parts = [dock, *(part for part in dock.findChildren(QWidget) if part.window() is dock.window())]
    assert any(isinstance(part, QLineEdit) for part in parts)
    (tmp_path / "stray.txt").touch()
    taken = [drop(part, tmp_path / "stray.txt") for part in parts]
    assert all(taken)
    assert len(dock.queue.view.rows) == len(parts)
    text = QMimeData()
    text.setText("0.1")
    web = QMimeData()
    web.setUrls([QUrl("https://example.org/cell.tif")])
    for data in (text, web):
        enter = drag_enter(data)
        QApplication.sendEvent(dock, enter)
        assert not enter.isAccepted()
    assert viewer.window._qt_viewer.acceptDrops()


def test_rows_go_with_the_delete_key_and_with_clear_but_not_the_one_at_work(
    qtbot, dock, write, worked_off
):
    dock.form.counts["samples"].setValue(100)
    enqueue(dock, *(write(f"{name}.tif") for name in "abcd"))
    view = dock.queue.view
    qtbot.waitUntil(lambda: view.rows[0].state is State.RUNNING)
    view.list.selectAll()
    view.rows[1].setSelected(False)
    qtbot.keyClick(view.list, Qt.Key.Key_Delete)
    assert list(states(dock)) == ["a.tif", "b.tif"]
    view.clear.click()
    assert list(states(dock)) == ["a.tif"]
    dock.panel.cancel.click()
    worked_off(dock)
    view.clear.click()
    assert view.list.isHidden()
    assert not view.rows


def test_a_row_that_waits_again_has_no_sign_of_its_failure(qtbot):
    view = QueuePanel(start=print, cancel=print)
    qtbot.addWidget(view)
    view.add_sorted(Sorted(entries=(ImageEntry(files=(Path("a.tif"),)),), strays=()))
    (row,) = view.rows
    view.show_state(row, State.FAILED, "it is no image")
    assert not row.icon(STATE).isNull()
    view.change((State.FAILED,), State.WAITING)
    assert row.icon(STATE).isNull()


def test_files_can_be_chosen_without_a_mouse(dock, write, worked_off, monkeypatch):
    path = write("cell.tif")
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *_: ([str(path)], ""))
    dock.queue.view.add.click()
    worked_off(dock)
    assert dock.form.image.value().name == "cell"


@pytest.mark.window
def test_nothing_of_a_finished_file_is_kept_but_its_layers(qtbot, viewer, dock, write, worked_off):
    enqueue(dock, write("a.tif"), write("b.tif"))
    worked_off(dock)
    pixels = [
        weakref.ref(viewer.layers[name].data) for name in ("a", "reconstruction of a [counts]")
    ]
    for name in [layer.name for layer in viewer.layers if " of a" in f" of {layer.name}"]:
        viewer.layers.remove(name)

    # Under PySide6 napari's controls of a layer hold it until the event loop has deleted them.
    def freed():
        gc.collect()
        assert [found() is None for found in pixels] == [True, True]

    qtbot.waitUntil(freed)


def test_closing_the_viewer_in_mid_queue_is_survived(
    make_napari_viewer, tiny_widefield_model, write, qtbot
):
    from superqt.utils import WorkerBase

    from napari_cvdm.widgets.reconstruct.reconstruct_widget import ReconstructWidget

    viewer = make_napari_viewer()
    dock = ReconstructWidget(viewer)
    viewer.window.add_dock_widget(dock)
    dock.form.model.set_value(str(tiny_widefield_model))
    dock.form.counts["samples"].setValue(500)
    enqueue(dock, write("a.tif"), write("b.tif"))
    qtbot.waitUntil(lambda: dock.panel.bar.value() > 2 and "a" in viewer.layers)
    viewer.close()
    WorkerBase.await_workers(600_000)
    qtbot.wait(50)
    assert "b" not in viewer.layers


def test_a_file_of_the_same_name_is_a_layer_of_its_own(viewer, dock, write, spots, worked_off):
    enqueue(dock, write("one/cell.tif"), write("two/cell.tif", spots[::-1]))
    worked_off(dock)
    assert viewer.layers["cell [1]"].data[0].tobytes() == spots[-1].tobytes()
    request = replace(
        dock.form.value(),
        image=read_image(viewer.layers["cell [1]"].metadata["napari-cvdm"]["file"]),
    )
    alone = drained(reconstruct(request, load_model(request.model)))
    assert (
        viewer.layers["reconstruction of cell [1] [counts]"].data.tobytes() == alone.mean.tobytes()
    )
