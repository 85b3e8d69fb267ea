"""Docks fit a small screen, and stand in tabs beside each other."""

import pytest
from qtpy.QtWidgets import QDockWidget

from napari_cvdm.widgets.common.fields import Dock
from napari_cvdm.widgets.inspect.inspect_widget import InspectWidget
from napari_cvdm.widgets.live.live_widget import LiveWidget
from napari_cvdm.widgets.measure.measure_widget import MeasureWidget
from napari_cvdm.widgets.reconstruct.reconstruct_widget import ReconstructWidget
from napari_cvdm.widgets.train.train_widget import TrainWidget

DOCKS = (ReconstructWidget, InspectWidget, LiveWidget, MeasureWidget, TrainWidget)
# Of a window of 1280 x 800: menu, titles, tabs and status line take the rest.
HEIGHT, WIDTH = 800 - 110, 1280 // 3


@pytest.mark.window
def test_every_dock_fits_with_a_result(viewer, measured, open_dock, finished, tiny_widefield_model):
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    dock.start()
    finished(dock)
    dock.results.schedule.click()
    docks = [dock, *(kind(viewer) for kind in DOCKS[1:])]
    for one in docks[1:]:
        viewer.window.add_dock_widget(one)
    for theme in ("dark", "light"):
        viewer.theme = theme
        for one in docks:
            least = one.minimumSizeHint()
            assert least.height() <= HEIGHT and least.width() <= WIDTH, (type(one).__name__, theme)


@pytest.mark.window
def test_a_second_dock_becomes_a_tab_of_the_first(viewer, qtbot):
    window = viewer.window._qt_window
    docks = [viewer.window.add_dock_widget(kind(viewer), name=kind.__name__) for kind in DOCKS[:3]]
    for dock in docks:
        inside = dock.findChild(Dock)
        inside._join_others()
    assert all(isinstance(dock, QDockWidget) for dock in docks)
    for dock in docks:
        assert {*window.tabifiedDockWidgets(dock), dock} == set(docks)
