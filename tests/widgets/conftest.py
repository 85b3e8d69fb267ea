"""Fixtures of the tests of the dock.

Small measured layers, a dock in a real window, and functions that wait.
"""

from functools import partial

import numpy as np
import pytest
import tifffile
from inspected_result import add_samples, delayed, reconstruction, roles, settle
from live_frames import FRAMES
from made_results import every_layer
from qtpy.QtCore import QTimer

from napari_cvdm.widgets.inspect.inspect_widget import InspectWidget
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.result_layers import SCHEDULE
from napari_cvdm.widgets.layers.shown_layers import show_layers
from napari_cvdm.widgets.live.live_widget import LiveWidget
from napari_cvdm.widgets.reconstruct import reconstruct_widget

NEVER_MS = 24 * 3_600_000


@pytest.fixture(autouse=True)
def few_inversions(few_solver_steps, remembered_inversions):
    """Docks do not invert: they show what is made of it."""


@pytest.fixture(autouse=True)
def no_costs(monkeypatch):
    """No tile is measured for what a run would cost: a test that asks for it starts the timer."""
    monkeypatch.setattr(reconstruct_widget, "REST_MS", NEVER_MS)


@pytest.fixture
def spots():
    """A noisy fluorescence image."""
    rng = np.random.default_rng(0)
    return rng.poisson(100 + 50 * rng.random((40, 36))).astype(np.uint16)


@pytest.fixture
def planes():
    """Two noisy brightfield planes."""
    rng = np.random.default_rng(1)
    return (1000 + 20 * rng.normal(size=(2, 48, 40))).astype(np.float32)


@pytest.fixture
def measured(spots):
    """Keywords of a measured layer that knows its place."""
    return {
        "data": spots,
        "name": "cell",
        "scale": (0.065, 0.065),
        "translate": (5.0, 7.0),
        "units": ("um", "um"),
        "axis_labels": ("y", "x"),
    }


@pytest.fixture(autouse=True)
def own_models(tmp_path, monkeypatch):
    """An empty folder for the user's own models, not the one of whoever runs the tests."""
    from napari_cvdm.widgets.common import preferences

    folder = tmp_path / "own models"
    monkeypatch.setattr(preferences, "OWN_MODELS", folder)
    return folder


def set_up(dock, viewer, model):
    """A dock in its window, with a model chosen and little to compute."""
    viewer.window.add_dock_widget(dock)
    dock.form.model.set_value(str(model))
    for name, count in {"samples": 2, "steps": 3, "tile": 64}.items():
        dock.form.counts[name].setValue(count)
    dock.form.words["device"].setCurrentText("cpu")
    return dock


@pytest.fixture
def open_dock(viewer):
    """Open the dock with a model chosen."""
    from napari_cvdm.widgets.reconstruct.reconstruct_widget import ReconstructWidget

    return lambda model: set_up(ReconstructWidget(viewer), viewer, model)


@pytest.fixture
def finished(qtbot):
    """Wait until a dock's run is over."""

    def wait(dock):
        qtbot.waitUntil(lambda: not dock.panel.busy)

    return wait


@pytest.fixture
def write(tmp_path, spots):
    """Write a TIFF with a pixel size, or without one."""

    def written(name, pixels=None, pixel_um=0.1):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        said = (
            {}
            if pixel_um is None
            else {"resolution": (1 / pixel_um,) * 2, "metadata": {"unit": "um"}}
        )
        tifffile.imwrite(
            path, spots if pixels is None else pixels, imagej=pixel_um is not None, **said
        )
        return path

    return written


@pytest.fixture
def worked_off(qtbot):
    """Wait until a dock's queue has ended."""

    def wait(dock):
        qtbot.waitUntil(lambda: not dock.queue.running and not dock.panel.busy)

    return wait


@pytest.fixture
def open_live(viewer, qtbot):
    """Open the dock with a model chosen; what still runs at the end of the test is ended."""
    docks = []

    def opened(model):
        dock = set_up(LiveWidget(viewer), viewer, model)
        docks.append(dock)
        return dock

    yield opened
    for dock in docks:
        dock.stop("")
        qtbot.waitUntil(partial(_idle, dock))


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
        qtbot.waitUntil(lambda: len(written) == FRAMES)

    return filmed


@pytest.fixture
def show(viewer):
    """Put a measured layer and its result into the viewer.

    Returns the result and the role's layers.
    """

    def shown(shape=(24, 20), axes="YX", samples=False):
        labels = tuple(axes.lower())
        size = (*shape[:-2], shape[-2] // 2, shape[-1] // 2)
        units = tuple("s" if label == "t" else "um" for label in labels)
        scale = tuple(1.0 if label == "t" else 0.2 for label in labels)
        source = viewer.add_image(
            np.zeros(size), name="cell", scale=scale, units=units, axis_labels=labels
        )
        result = reconstruction(shape, axes)
        show_layers(
            viewer,
            [
                data
                for data in every_layer(result, Placement.of(source))
                if data[1]["metadata"][METADATA_KEY]["role"] not in SCHEDULE
            ],
        )
        if samples:
            add_samples(viewer, result)
        return result, roles(viewer)

    return shown


@pytest.fixture
def inspect(viewer, qtbot):
    """Open the dock, which waits for nobody to type, until it has nothing more to do."""

    def opened():
        dock = InspectWidget(viewer)
        for call in delayed(dock):
            call.setTimeout(0)
        viewer.window.add_dock_widget(dock)
        settle(qtbot, dock)
        return dock

    return opened


def _idle(dock):
    return not dock.following and not dock.panel.busy
