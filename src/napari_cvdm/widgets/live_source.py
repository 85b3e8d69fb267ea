"""Choosing what to follow: the layer of the form, or a folder."""

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QFormLayout, QHBoxLayout, QLabel, QLineEdit, QSpinBox, QStyle, QToolButton, QWidget

from napari_cvdm.widgets.choices import NARROWEST_PX, narrow

MOST_STEPS = 100
HELP = {
    "follow": "What to follow: the layer that is chosen as image below (a camera's preview, a growing time-lapse; keep it visible),\n"
    "or a folder that images are saved into.",
    "folder": "Every new or changed TIFF, MRC or NPY file in this folder is reconstructed when it is complete.\nFiles that are there already are left alone.",
    "live steps": "Evaluations of the network for each live frame. 1 is the preview: as fast as it gets, close to the mean, without fine detail.\n"
    "Samples and steps below belong to the full posterior.",
}


class LiveSource(QWidget):
    """Layer or folder, and the steps for each live frame."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.kind = narrow(QComboBox())
        self.kind.addItems(("the image layer below", "a folder"))
        self.path = QLineEdit()
        self.path.setMinimumWidth(NARROWEST_PX)
        self.path.setPlaceholderText("needed")
        self.steps = QSpinBox()
        self.steps.setRange(1, MOST_STEPS)
        self.steps.setMinimumWidth(NARROWEST_PX)
        self.path.setToolTip(HELP["folder"])
        self._browse = QToolButton()
        self._browse.setIcon(self.style().standardIcon(QStyle.StandardPixmap.SP_DirOpenIcon))
        self._browse.setToolTip("Choose the folder to follow.")
        self._labels: dict[str, QLabel] = {}
        self._folder = QWidget()
        self._lay_out()
        self.kind.currentIndexChanged.connect(self._on_kind)
        self.path.textChanged.connect(lambda _: self.changed.emit())
        self.steps.valueChanged.connect(lambda _: self.changed.emit())
        self._browse.clicked.connect(self._ask_folder)
        self._on_kind()

    def _lay_out(self) -> None:
        row = QHBoxLayout(self._folder)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.path, 1)
        row.addWidget(self._browse)
        self._folder.setFocusProxy(self.path)
        layout = QFormLayout(self)
        layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setVerticalSpacing(4)
        for name, field in {"follow": self.kind, "folder": self._folder, "live steps": self.steps}.items():
            self._labels[name] = label = QLabel(name)
            label.setBuddy(field)
            label.setToolTip(HELP[name])
            field.setToolTip(HELP[name])
            layout.addRow(label, field)

    def _on_kind(self) -> None:
        for widget in (self._labels["folder"], self._folder):
            widget.setVisible(not self.is_layer)
        self.changed.emit()

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose the folder to follow", self.path.text())
        if folder:
            self.path.setText(folder)

    @property
    def is_layer(self) -> bool:
        """Whether a layer is followed."""
        return self.kind.currentIndex() == 0

    @property
    def folder(self) -> Path | None:
        """The folder to follow; None as long as none is named."""
        text = self.path.text().strip()
        return Path(text).expanduser() if text else None

    def set_folder(self, folder: str | Path) -> None:
        """Follow a folder."""
        self.kind.setCurrentIndex(1)
        self.path.setText(str(folder))
