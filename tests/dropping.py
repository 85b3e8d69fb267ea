"""Drops of files on a widget, as Qt delivers them."""

from pathlib import Path
from typing import Any

from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QWidget

COPY = Qt.DropAction.CopyAction
MOVE = Qt.DropAction.MoveAction
KEYS = (Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
PLACE = QPointF(2, 2)


def data_of(*paths: Path) -> QMimeData:
    """Files, as file managers hand them over."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    data.setText("\n".join(map(str, paths)))
    return data


def drag_enter(data: QMimeData, actions: Qt.DropAction = COPY) -> QDragEnterEvent:
    """A drag that comes in: Qt 6.12 wants a point of floats, earlier ones one of integers."""
    try:
        return QDragEnterEvent(PLACE, actions, data, *KEYS)
    except TypeError:
        return QDragEnterEvent(PLACE.toPoint(), actions, data, *KEYS)


def drop(widget: QWidget, *paths: Path) -> bool:
    """Drop on a widget as Qt does: the innermost that takes the drag gets it. Was it taken?"""
    data = data_of(*paths)
    enter = drag_enter(data, COPY | MOVE)
    enter.setDropAction(MOVE)  # what Explorer proposes within a disk
    QApplication.sendEvent(widget, enter)
    if enter.isAccepted():
        dropped = QDropEvent(PLACE, COPY | MOVE, data, *KEYS)
        dropped.setDropAction(MOVE)
        QApplication.sendEvent(widget, dropped)
        assert (enter.dropAction(), dropped.dropAction()) == (
            COPY,
            COPY,
        )  # a move would let the file manager delete the file
    return enter.isAccepted()


def enqueue(dock: Any, *paths: Path) -> None:
    """Put files into the list of a Reconstruct dock, also a single one, and start."""
    dock.queue.append([str(path) for path in paths])
    dock.queue.start()
