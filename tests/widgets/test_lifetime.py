"""The end of a docked widget is heard once, whoever brings it about, under every Qt binding."""

import gc
import weakref

import numpy as np
import pytest
from napari.utils.events import EventEmitter
from qtpy.QtCore import QCoreApplication, QEvent, QObject
from qtpy.QtWidgets import QLabel, QWidget

from napari_cvdm.core.result import Progress
from napari_cvdm.widgets.common.menu_actions import ReconstructDock
from napari_cvdm.widgets.common.worker import Job, listen, when_gone
from napari_cvdm.widgets.inspect.inspect_widget import InspectWidget
from napari_cvdm.widgets.live.live_widget import LiveWidget
from napari_cvdm.widgets.measure.measure_widget import MeasureWidget
from napari_cvdm.widgets.reconstruct.reconstruct_widget import ReconstructWidget
from napari_cvdm.widgets.train.train_widget import TrainWidget


def destroy(widget):
    """What Qt does in its event loop with a widget that is to be deleted."""
    widget.deleteLater()
    QCoreApplication.sendPostedEvents(widget, QEvent.Type.DeferredDelete.value)


@pytest.fixture
def gone(qapp):
    """What was called, with what."""
    return []


def test_a_widget_that_qt_destroys_is_gone_while_python_still_holds_it(gone):
    widget = QWidget()
    when_gone(widget, gone.append, "qt")
    destroy(widget)
    assert gone == ["qt"]
    del widget
    gc.collect()
    assert gone == ["qt"]


def test_a_widget_in_a_reference_cycle_is_gone_when_it_is_collected(gone):
    widget = QWidget()
    widget.itself = widget
    when_gone(widget, gone.append, "python")
    alive = weakref.ref(widget)
    del widget
    gc.collect()
    assert alive() is None
    assert gone == ["python"]


def test_a_widget_goes_with_its_parent(gone):
    parent = QWidget()
    child = QLabel(parent)
    when_gone(child, gone.append, "child")
    when_gone(child, gone.append, "again")
    destroy(parent)
    assert sorted(gone) == ["again", "child"]


def test_a_widget_that_stays_is_not_gone(gone):
    widget = QWidget()
    when_gone(widget, gone.append, "early")
    widget.hide()
    widget.setParent(None)
    gc.collect()
    assert gone == []
    destroy(widget)
    assert gone == ["early"]


class Listener(QWidget):
    heard = 0

    def hear(self):
        self.heard += 1


@pytest.mark.parametrize("by_qt", [True, False])
def test_a_widget_that_is_gone_leaves_no_listener(qapp, by_qt):
    emitter, listener = EventEmitter(type_name="renamed"), Listener()
    listen(listener, emitter, listener.hear)
    emitter()
    assert listener.heard == 1
    assert len(emitter.callbacks) == 1
    if by_qt:
        destroy(listener)
        assert len(emitter.callbacks) == 0
    del listener
    gc.collect()
    assert len(emitter.callbacks) == 0


def test_docks_that_were_opened_and_closed_leave_no_listener(viewer, qtbot):
    emitters = [
        getattr(viewer.layers.events, name)
        for name in ("inserted", "removed", "reordered", "renamed")
    ]
    emitters += [viewer.events.theme, viewer.dims.events.current_step]

    def listeners():
        return [len(emitter.callbacks) for emitter in emitters]

    before = listeners()
    # The dock of the menu holds one of the others.
    kinds = (ReconstructWidget, InspectWidget, TrainWidget, MeasureWidget, LiveWidget)
    for kind in (*kinds, ReconstructDock):
        dock = kind(viewer)
        qtbot.waitUntil(lambda dock=dock: getattr(dock, "content", dock) is not None)
        assert sum(listeners()) > sum(before)
        destroy(dock)
        del dock
        gc.collect()
    assert listeners() == before


@pytest.mark.window
def test_docks_that_were_closed_leave_no_listener_at_a_layer(viewer):
    place = {"scale": (0.1, 0.1), "units": ("um", "um")}
    layers = [
        viewer.add_image(np.ones((8, 8)), name="cell", **place),
        viewer.add_labels(np.ones((8, 8), np.uint8), name="mask", **place),
        viewer.add_shapes([[[0, 0], [5, 5]]], shape_type="line", name="line", **place),
    ]

    def listeners():
        return [
            len(emitter.callbacks) for one in layers for emitter in one.events.emitters.values()
        ]

    before = listeners()
    for kind in (ReconstructWidget, InspectWidget, MeasureWidget):
        dock = kind(viewer)
        assert sum(listeners()) > sum(before)
        destroy(dock)
        del dock
        gc.collect()
        left = zip(listeners(), before, strict=True)
        assert all(after <= earlier for after, earlier in left), kind


def endless():
    done = 0
    while True:
        yield Progress(stage="waiting", done=done, total=0)
        done += 1


@pytest.mark.parametrize("by_qt", [True, False])
def test_work_ends_with_its_owner(qtbot, by_qt):
    owner = QObject()
    job = Job(endless(), title="", total=0, owner=owner)
    with qtbot.waitSignal(job.ended):
        with qtbot.waitSignal(job.progressed):
            job.start()
        if by_qt:
            destroy(owner)
        del owner
        gc.collect()
    assert job not in Job._running
