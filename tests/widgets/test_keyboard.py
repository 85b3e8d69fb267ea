"""Every dock can be used without a mouse, and says what its controls do."""

from importlib import import_module

import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QTabBar,
    QTableView,
    QTabWidget,
    QWidget,
)

DOCKS = {
    "Reconstruct": "reconstruct.reconstruct_widget:ReconstructWidget",
    "Live": "live.live_widget:LiveWidget",
    "Inspect": "inspect.inspect_widget:InspectWidget",
    "Measure": "measure.measure_widget:MeasureWidget",
    "Train": "train.train_widget:TrainWidget",
}
CONTROLS = (QAbstractButton, QAbstractSpinBox, QComboBox)


@pytest.fixture(params=DOCKS)
def dock(request, viewer):
    """Each dock in turn, in a window."""
    module, name = DOCKS[request.param].split(":")
    opened = getattr(import_module(f"napari_cvdm.widgets.{module}"), name)(viewer)
    viewer.window.add_dock_widget(opened, name=request.param)
    return opened


def mnemonics(root: QWidget) -> dict[str, list[str]]:
    """Texts by the key that stands underlined in them."""
    labels = [label.text() for label in root.findChildren(QLabel) if label.buddy() is not None]
    buttons = [button.text() for button in root.findChildren(QAbstractButton)]
    tabs = [
        tabs.tabText(index)
        for tabs in root.findChildren(QTabWidget)
        for index in range(tabs.count())
    ]
    found: dict[str, list[str]] = {}
    for text in (*labels, *buttons, *tabs):
        key = QKeySequence.mnemonic(text).toString()
        if key:
            found.setdefault(key, []).append(text)
    return found


def own_controls(root: QWidget) -> list[QWidget]:
    """Widgets that a user meets.

    Qt makes the arrows of a row of tabs and the corner of a table itself; they are left out.
    """
    return [
        control
        for kind in CONTROLS
        for control in root.findChildren(kind)
        if not isinstance(control.parent(), (QTabBar, QTableView))
    ]


@pytest.mark.window
def test_no_key_has_two_meanings(dock, viewer):
    menus = {
        QKeySequence.mnemonic(action.text()).toString()
        for action in viewer.window._qt_window.menuBar().actions()
    }
    found = mnemonics(dock)
    assert {key: texts for key, texts in found.items() if len(texts) > 1} == {}
    assert {key: texts for key, texts in found.items() if key in menus} == {}


def test_every_control_says_what_it_does(dock):
    silent = [control for control in own_controls(dock) if not control.toolTip()]
    assert [
        (type(control).__name__, control.text() if hasattr(control, "text") else "")
        for control in silent
    ] == []


def test_every_control_is_reached_by_the_keyboard(dock):
    unreachable = [
        control
        for control in own_controls(dock)
        if not control.focusPolicy() & Qt.FocusPolicy.TabFocus
    ]
    assert [(type(control).__name__, control.toolTip()) for control in unreachable] == []


def test_every_line_to_write_in_has_a_name_or_a_tooltip(dock):
    lines = [
        line
        for line in dock.findChildren(QLineEdit)
        if not isinstance(line.parent(), (QAbstractSpinBox, QComboBox))
    ]
    assert [line for line in lines if not line.toolTip()] == []
