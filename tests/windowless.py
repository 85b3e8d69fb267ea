"""A viewer without napari's window: for tests of what a dock does, not of what napari draws.

In a window each layer takes a third of a second: its controls, its visuals and its colour bar.
"""

import gc
from typing import Any

from napari.components import ViewerModel
from npe2 import PluginManager
from qtpy.QtCore import QCoreApplication, QEvent
from qtpy.QtWidgets import QWidget


class Docks:
    """What a test asks of a window: to keep docks."""

    def __init__(self) -> None:
        self._docks: list[QWidget] = []

    def add_dock_widget(self, dock: QWidget, name: str = "") -> None:
        """Keep a dock until the end of the test."""
        dock.setObjectName(name)
        self._docks.append(dock)

    def clear(self) -> None:
        """Destroy the docks."""
        while self._docks:
            self._docks.pop().deleteLater()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
        QCoreApplication.processEvents()


class Windowless(ViewerModel):
    """Layers, sliders, camera and docks."""

    _window: Any = None

    def __init__(self) -> None:
        super().__init__()
        PluginManager.instance().discover()  # napari's own readers, and no menus
        self._window = Docks()

    @property
    def window(self) -> Docks:
        """Where docks are added."""
        return self._window

    def clear(self) -> None:
        """Destroy the docks, and remove the layers."""
        self.window.clear()
        self.layers.clear()
        gc.collect(1)
