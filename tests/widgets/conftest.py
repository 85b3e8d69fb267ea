"""What the tests of the dock share: small measured layers, a dock in a real window, and patience."""

import numpy as np
import pytest


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
    return {"data": spots, "name": "cell", "scale": (0.065, 0.065), "translate": (5.0, 7.0), "units": ("um", "um"), "axis_labels": ("y", "x")}


@pytest.fixture(autouse=True)
def own_models(tmp_path, monkeypatch):
    """An empty folder for the user's own models, not the one of whoever runs the tests."""
    from napari_cvdm.widgets import preferences

    folder = tmp_path / "own models"
    monkeypatch.setattr(preferences, "OWN_MODELS", folder)
    return folder


@pytest.fixture
def viewer(make_napari_viewer):
    """A real window."""
    return make_napari_viewer(show=False)


@pytest.fixture
def open_dock(viewer):
    """Open the dock with a model chosen."""
    from napari_cvdm.widgets.restore_widget import RestoreWidget

    def opened(model):
        dock = RestoreWidget(viewer)
        viewer.window.add_dock_widget(dock)
        dock.form.model.set_value(str(model))
        for name, count in {"samples": 2, "steps": 3, "tile": 64}.items():
            dock.form.counts[name].setValue(count)
        dock.form.words["device"].setCurrentText("cpu")
        return dock

    return opened


@pytest.fixture
def finished(qtbot):
    """Wait until a dock's run is over."""

    def wait(dock):
        qtbot.waitUntil(lambda: not dock.panel.busy, timeout=30_000)

    return wait
