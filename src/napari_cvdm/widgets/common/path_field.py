"""A line for the path of a folder or a file, with a button to look for it."""

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QStyle, QToolButton, QWidget

from napari_cvdm.widgets.common.choices import NARROWEST_PX


class PathField(QWidget):
    """The path of a folder, or of a file.

    Parameters
    ----------
    title : str
        Of the dialog, such as "Choose the folder to follow".
    files : str, optional
        Which files to offer, such as "Arrays (*.npy *.npz)"; a folder is chosen without.
    new : bool
        Whether a name is asked for that does not exist yet.
    """

    changed = Signal()

    def __init__(self, title: str, files: str = "", *, new: bool = False) -> None:
        super().__init__()
        self._title, self._files, self._new = title, files, new
        self.line = QLineEdit()
        self.line.setMinimumWidth(NARROWEST_PX)
        self.line.setPlaceholderText("needed")
        self._browse = QToolButton()
        self._browse.setIcon(self.style().standardIcon(QStyle.StandardPixmap.SP_DirOpenIcon))
        self._browse.setToolTip(f"{title}.")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.line, 1)
        row.addWidget(self._browse)
        self.setFocusProxy(self.line)
        self.line.textChanged.connect(lambda _: self.changed.emit())
        self._browse.clicked.connect(self._ask)

    def _ask(self) -> None:
        if self._new:
            path, _ = QFileDialog.getSaveFileName(self, self._title, self.line.text(), self._files)
        elif self._files:
            path, _ = QFileDialog.getOpenFileName(self, self._title, self.line.text(), self._files)
        else:
            path = QFileDialog.getExistingDirectory(self, self._title, self.line.text())
        if path:
            self.line.setText(path)

    def value(self) -> Path | None:
        """The path; None as long as none is named."""
        text = self.line.text().strip()
        return Path(text).expanduser() if text else None

    def set_value(self, path: str | Path) -> None:
        """Name a path."""
        self.line.setText(str(path))

    def setToolTip(self, text: str | None) -> None:
        """Show the same help over the line."""
        self.line.setToolTip(text)
