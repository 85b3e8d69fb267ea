"""The soak in a real window.

Docks are opened, run, cancelled, given what they must refuse, and closed.
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import napari
import numpy as np
from napari.layers import Layer
from paper.gauges import Gauges
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication, QLabel, QWidget
from tests.stress.fuzzing.model_specimens import tiny_model
from tests.stress.soak import FEWEST_LAPS, QUICK, laps

from napari_cvdm.widgets.inspect.inspect_widget import InspectWidget
from napari_cvdm.widgets.layers.layer_data import LayerData
from napari_cvdm.widgets.reconstruct.reconstruct_widget import ReconstructWidget
from napari_cvdm.widgets.train.train_widget import TrainWidget

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


def open_dock(viewer: napari.Viewer, model: Path) -> ReconstructWidget:
    """The Reconstruct dock with a tiny model."""
    dock = ReconstructWidget(viewer)
    viewer.window.add_dock_widget(dock, name="Reconstruct")
    dock.form.model.set_value(str(model))
    for name in ("samples", "steps", "tile"):
        dock.form.counts[name].setValue(QUICK[name])
    dock.form.words["device"].setCurrentText("cpu")
    wait(lambda: not dock.cost.waiting)
    return dock


def settled(dock: ReconstructWidget) -> bool:
    """Whether nothing is under way."""
    return not (dock.panel.busy or dock.cost.waiting)


def close_dock(viewer: napari.Viewer, dock: QWidget) -> None:
    """As its owner closes it; what Qt was to delete later is deleted now."""
    viewer.window.remove_dock_widget(dock)
    dock.deleteLater()
    delete_now()


def delete_now() -> None:
    """What Qt was to delete later, such as the controls of layers that are gone."""
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QApplication.processEvents()


def reconstruct(viewer: napari.Viewer, model: Path, number: int) -> ReconstructWidget:
    """A layer, and what a run makes of it."""
    image = np.random.default_rng(number).poisson(100.0, (96, 96)).astype(np.uint16)
    viewer.add_image(image, name="cell", scale=(0.1, 0.1), units=("um", "um"))
    dock = open_dock(viewer, model)
    dock.start()
    wait(lambda: settled(dock))
    assert len(viewer.layers) == LAYERS
    return dock


def one_lap(viewer: napari.Viewer, model: Path, number: int) -> None:
    """Open, refuse, run, cancel, look, close."""
    dock = reconstruct(viewer, model, number)
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
    clear(viewer)


def clear(viewer: napari.Viewer) -> None:
    """No layers, and nothing of their controls."""
    viewer.layers.clear()
    QApplication.processEvents()
    delete_now()


def bare_lap(viewer: napari.Viewer, layers: list[LayerData]) -> None:
    """The layers of a lap and as many docks, without this program.

    They show what napari and Qt leave behind by themselves.
    """
    for data, how, kind in layers:
        viewer.add_layer(Layer.create(data, how, kind))
    docks = [QLabel("empty") for _ in range(DOCKS)]
    for dock in docks:
        viewer.window.add_dock_widget(dock)
    QApplication.processEvents()
    for dock in docks:
        close_dock(viewer, dock)
    clear(viewer)


def made_layers(viewer: napari.Viewer, model: Path) -> list[LayerData]:
    """The image and the results of one run, as napari passes layers on.

    The metadata that this program writes are left out.
    """
    dock = reconstruct(viewer, model, 0)
    layers = [layer.as_layer_data_tuple() for layer in viewer.layers]
    close_dock(viewer, dock)
    clear(viewer)
    return [(data, {**how, "metadata": {}}, kind) for data, how, kind in layers]


def soak_window(seconds: float, fewest: int = FEWEST_LAPS, *, bare: bool = False) -> Gauges:
    """Lap after lap in one window.

    Parameters
    ----------
    seconds : float
    fewest : int
        Laps in any case.
    bare : bool
        Of napari alone, with the layers that a lap makes.
    """
    gauges, viewer = Gauges(), napari.Viewer(show=True)
    with TemporaryDirectory() as name:
        model = tiny_model(Path(name))
        layers = made_layers(viewer, model) if bare else []
        for number in laps(seconds, fewest):
            bare_lap(viewer, layers) if bare else one_lap(viewer, model, number)
            gauges.read()
    viewer.close()
    return gauges
