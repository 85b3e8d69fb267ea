"""One napari window for the tests of a process: opened once, cleared after each test.

To open and to close a window takes longer than most tests of a dock.
"""

import gc
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from app_model import Application
from napari import Viewer
from napari._app_model._app import NapariApplication, _napari_names
from napari._qt._qapp_model.qactions import init_qactions
from napari._qt.threads.status_checker import StatusChecker
from napari.plugins import _initialize_plugins
from napari.settings import get_settings
from qtpy.QtCore import QCoreApplication, QEvent

NAME = "napari of the tests"


class SharedWindow:
    """A viewer in a hidden window, set up as napari's `make_napari_viewer` does it."""

    def __init__(self) -> None:
        self._viewer: Any = None
        self._stack = ExitStack()

    def open(self) -> Viewer:
        """The viewer, opened if it is not there."""
        if self._viewer is None:
            get_settings().reset()
            _forget_actions()
            app = NapariApplication(NAME)
            app.injection_store.namespace = _napari_names
            self._stack.callback(_forget_actions)
            self._stack.callback(Application.destroy, NAME)
            self._stack.enter_context(
                patch.object(NapariApplication, "get_app_model", return_value=app)
            )
            self._stack.enter_context(patch.object(StatusChecker, "start", lambda *_: None))
            self._viewer = Viewer(show=False, show_welcome_screen=False)
        return self._viewer

    def clear(self) -> None:
        """Destroy the docks, remove the layers, and put the settings back."""
        viewer, window = self._viewer, self._viewer.window
        for dock in list(window.dock_widgets.values()):
            window.remove_dock_widget(dock)
            dock.deleteLater()
        viewer.layers.clear()
        viewer.dims.reset()
        viewer.dims.ndisplay = 2
        viewer.canvas.grid.enabled = False
        viewer.reset_view()
        get_settings().reset()
        viewer.theme = get_settings().appearance.theme
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
        QCoreApplication.processEvents()
        gc.collect(1)

    def close(self) -> None:
        """Close the window, so that a test can open one of its own."""
        if self._viewer is not None:
            with patch.object(self._viewer.window._qt_window, "_save_current_window_settings"):
                self._viewer.close()
            self._viewer = None
            self._stack.close()
            gc.collect()


def _forget_actions() -> None:
    _initialize_plugins.cache_clear()
    init_qactions.cache_clear()
