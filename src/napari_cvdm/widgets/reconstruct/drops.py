"""Files that are dropped on a widget."""

from qtpy.QtCore import Qt
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QWidget


def take_drops(widget: QWidget) -> None:
    """Let a widget take what is dropped on it or on anything in it.

    Qt gives a drop to the innermost widget that accepts drops. A text field would insert the path
    of a file as text.
    """
    for inside in widget.findChildren(QWidget):
        inside.setAcceptDrops(False)
    widget.setAcceptDrops(True)


def accepted_files(event: QDropEvent | None) -> list[str]:
    """Paths of the local files and folders in a drag or a drop, which is accepted then.

    Other handlers get text, layers of napari's list and web addresses. Files are always copied,
    never moved, because a file manager deletes a file that was moved.
    """
    data = None if event is None else event.mimeData()
    if event is None or data is None:
        return []
    paths = [url.toLocalFile() for url in data.urls() if url.isLocalFile()]
    if paths:
        event.setDropAction(Qt.DropAction.CopyAction)
        event.accept()
    else:
        event.ignore()
    return paths
