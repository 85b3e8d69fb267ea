"""The Inspect dock when work is pending: the newest answer counts, and every end is survived."""

import gc
from functools import partial

import numpy as np
import pytest
from inspected_result import point_at, reconstruction, settle
from qtpy.QtCore import QThread

from napari_cvdm.core.result import Progress
from napari_cvdm.widgets.common.worker import Job
from napari_cvdm.widgets.inspect.inspect_widget import InspectWidget
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.result_layers import to_layer_data
from napari_cvdm.widgets.layers.shown_layers import show_layers


def slow(*_, **__):
    for done in range(10_000):
        QThread.msleep(20)
        yield Progress(stage="slow", done=done, total=10_000)


def _busy(work):
    return work.busy


def test_only_the_newest_answer_arrives(viewer, show, inspect, qtbot, monkeypatch):
    show()
    dock = inspect()
    with monkeypatch.context() as slowed:
        slowed.setattr("napari_cvdm.widgets.inspect.inspect_widget.correlate_maps", slow)
        dock.agreement.refresh()
        qtbot.waitUntil(lambda: dock.agreement.work.busy)
        dock.agreement.numbers["rate", "spread"].setText("stale")
    dock.agreement.refresh()
    settle(qtbot, dock)
    assert dock.agreement.numbers["rate", "spread"].text() == "1.00"


def test_closing_the_viewer_with_a_pending_job_is_survived(make_napari_viewer, qtbot, monkeypatch):
    from superqt.utils import WorkerBase

    monkeypatch.setattr("napari_cvdm.widgets.inspect.inspect_widget.correlate_maps", slow)
    viewer = make_napari_viewer()
    source = viewer.add_image(np.zeros((12, 10)), name="cell")
    show_layers(viewer, to_layer_data(reconstruction(), Placement.of(source)))
    dock = InspectWidget(viewer)
    viewer.window.add_dock_widget(dock)
    qtbot.waitUntil(lambda: dock.agreement.work.busy)
    viewer.close()
    WorkerBase.await_workers(600_000)
    qtbot.waitUntil(lambda: not Job._running)
    assert not Job._running


@pytest.mark.window
def test_a_dock_that_is_destroyed_leaves_the_viewer_alone(
    viewer, show, inspect, qtbot, monkeypatch
):
    _, layers = show()
    callbacks = len(viewer.mouse_move_callbacks)
    dock = inspect()
    assert len(viewer.mouse_move_callbacks) == callbacks + 1
    monkeypatch.setattr("napari_cvdm.widgets.inspect.inspect_widget.correlate_maps", slow)
    dock.agreement.refresh()
    qtbot.waitUntil(partial(_busy, dock.agreement.work))
    (job,) = dock.agreement.work._unfinished
    with qtbot.waitSignal(job.ended):
        viewer.window.remove_dock_widget(dock)
        dock.deleteLater()
        del dock
    gc.collect()
    point_at(viewer, layers["reconstruction"], (3, 3))
    viewer.theme = "light"
    viewer.layers.clear()
    assert len(viewer.mouse_move_callbacks) == callbacks
