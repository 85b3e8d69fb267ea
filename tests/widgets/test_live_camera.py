"""Micro-Manager's demo camera, streaming into a layer that is followed."""

import numpy as np
import pytest
from qtpy.QtCore import QTimer

pymmcore_plus = pytest.importorskip(
    "pymmcore_plus", reason="pymmcore-plus is not installed: pip install napari-cvdm[microscope]"
)
pytest.importorskip(
    "mm_test_adapters",
    reason="the demo camera's driver is not installed: pip install napari-cvdm[microscope]",
)

from napari_cvdm.widgets.live.live_widget import LiveWidget  # noqa: E402 - after the skips

SIDE = 64


@pytest.fixture
def core():
    """Micro-Manager with its demo camera, a small field."""
    core = pymmcore_plus.CMMCorePlus()
    core.loadSystemConfiguration()
    core.setROI(0, 0, SIDE, SIDE)
    core.setExposure(10)
    yield core
    core.stopSequenceAcquisition()
    core.unloadAllDevices()


def test_the_demo_camera_is_followed_and_never_waits(viewer, core, qtbot, tiny_widefield_model):
    layer = viewer.add_image(core.snap(), name="preview", scale=(0.1, 0.1), units=("um", "um"))
    dock = LiveWidget(viewer)
    viewer.window.add_dock_widget(dock)
    dock.form.model.set_value(str(tiny_widefield_model))
    dock.form.words["device"].setCurrentText("cpu")
    dock.start()
    source = dock._runs[0].source
    seen = []

    def fetch():
        if core.getRemainingImageCount():
            seen.append(core.getLastImage())
            layer.data = seen[-1]

    preview = QTimer()
    preview.timeout.connect(fetch)
    core.startContinuousSequenceAcquisition(0)
    preview.start(10)
    qtbot.waitUntil(lambda: dock._done >= 3)
    preview.stop()
    core.stopSequenceAcquisition()
    qtbot.waitUntil(lambda: dock._last[0].number == source.posted)
    np.testing.assert_array_equal(dock._last[0].image.array, seen[-1])
    assert dock._done + source.dropped == source.posted
    assert viewer.layers["live reconstruction of preview [counts]"].data.shape == (
        2 * SIDE,
        2 * SIDE,
    )
    assert not core.isBufferOverflowed()
    dock.stop("")
    qtbot.waitUntil(lambda: not dock.following)
