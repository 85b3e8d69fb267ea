"""Files that are dropped on a widget."""

from qtpy.QtCore import QMimeData
from qtpy.QtWidgets import QWidget


def take_drops(widget: QWidget) -> None:
    """Let a widget take what is dropped on it or on anything in it.

    Qt gives a drop to the innermost widget that takes drops at all, and a text field would write the path of a file into itself.
    """
    for inside in widget.findChildren(QWidget):
        inside.setAcceptDrops(False)
    widget.setAcceptDrops(True)


def dropped_files(data: QMimeData | None) -> list[str]:
    """Paths of the local files and folders in what is dropped; empty for text, layers of napari's list or addresses of the web."""
    urls = [] if data is None else data.urls()
    return [url.toLocalFile() for url in urls if url.isLocalFile()]
