"""The soak in a real window: docks are opened, run, cancelled, given what they must refuse, and closed."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import napari
import numpy as np
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication, QLabel, QWidget

from benchmarks.fuzzing.model_specimens import tiny_model
from benchmarks.gauges import Gauges
from benchmarks.soak import FEWEST_LAPS, QUICK, laps
from napari_cvdm.widgets.inspect_widget import InspectWidget
from napari_cvdm.widgets.restore_widget import RestoreWidget
from napari_cvdm.widgets.train_widget import TrainWidget

PATIENCE_S = 600.0  # the machine may be busy with other things
FAR_TOO_MANY = 1000
LAYERS, DOCKS = 7, 3  # of a lap: the image, and what a run makes of it


def wait(until: Callable[[], bool]) -> None:
    """Let the window live until something is so.

    Raises
    ------
    TimeoutError
        It never became so.
    """
    end = time.monotonic() + PATIENCE_S
    while not until():
        if time.monotonic() > end:
            raise TimeoutError("the window waited in vain")
        QApplication.processEvents()
        time.sleep(0.005)


def open_dock(viewer: napari.Viewer, model: Path) -> RestoreWidget:
    """The Reconstruct dock with a tiny model."""
    dock = RestoreWidget(viewer)
    viewer.window.add_dock_widget(dock, name="Reconstruct")
    dock.form.model.set_value(str(model))
    for name in ("samples", "steps", "tile"):
        dock.form.counts[name].setValue(QUICK[name])
    dock.form.words["device"].setCurrentText("cpu")
    wait(lambda: not dock.cost.waiting)
    return dock


def settled(dock: RestoreWidget) -> bool:
    """Whether nothing is under way."""
    return not (dock.panel.busy or dock.cost.waiting)


def close_dock(viewer: napari.Viewer, dock: QWidget) -> None:
    """As its owner closes it; what Qt was to delete later is deleted now."""
    viewer.window.remove_dock_widget(dock)
    dock.deleteLater()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QApplication.processEvents()


def one_lap(viewer: napari.Viewer, model: Path, number: int) -> None:
    """Open, refuse, run, cancel, look, close."""
    image = np.random.default_rng(number).poisson(100.0, (96, 96)).astype(np.uint16)
    viewer.add_image(image, name="cell", scale=(0.1, 0.1), units=("um", "um"))
    dock = open_dock(viewer, model)
    dock.start()
    wait(lambda: settled(dock))
    assert len(viewer.layers) == LAYERS
    dock.form.counts["samples"].setValue(FAR_TOO_MANY)
    dock.start()
    wait(lambda: dock.panel.bar.value() > 2)
    dock.panel.cancel.click()
    wait(lambda: settled(dock))
    others = [kind(viewer) for kind in (InspectWidget, TrainWidget)]
    for other in others:
        viewer.window.add_dock_widget(other)
    QApplication.processEvents()
    for closing in (*others, dock):
        close_dock(viewer, closing)
    viewer.layers.clear()
    QApplication.processEvents()


def bare_lap(viewer: napari.Viewer, model: Path, number: int) -> None:
    """As many layers and docks as a lap has, and nothing of this program: what napari and Qt leave behind by themselves."""
    image = np.random.default_rng(number).random((96, 96), dtype=np.float32)
    for layer in range(LAYERS):
        viewer.add_image(image, name=f"layer {layer}", scale=(0.1, 0.1), units=("um", "um"))
    docks = [QLabel("empty") for _ in range(DOCKS)]
    for dock in docks:
        viewer.window.add_dock_widget(dock)
    QApplication.processEvents()
    for dock in docks:
        close_dock(viewer, dock)
    viewer.layers.clear()
    QApplication.processEvents()


def soak_window(seconds: float, fewest: int = FEWEST_LAPS, lap: Callable[[napari.Viewer, Path, int], None] = one_lap) -> Gauges:
    """Lap after lap in one window."""
    gauges, viewer = Gauges(), napari.Viewer(show=True)
    with TemporaryDirectory() as name:
        model = tiny_model(Path(name))
        for number in laps(seconds, fewest):
            lap(viewer, model, number)
            gauges.read()
    viewer.close()
    return gauges
