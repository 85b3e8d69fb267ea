"""Choosing what to follow: the layer of the form, or a folder."""

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QSpinBox, QWidget

from napari_cvdm.widgets.common.fields import NARROWEST_PX, LabelledRows, PathField, limit_width

MOST_STEPS = 100
HELP = {
    "follow": (
        "What to follow: the layer that is chosen as image below (a camera's preview, a growing "
        "time-lapse; keep it visible),\n"
        "or a folder that images are saved into."
    ),
    "folder": (
        "Every new or changed TIFF, MRC or NPY file in this folder is reconstructed when it is "
        "complete.\n"
        "Files that are there already are left alone."
    ),
    "live steps": (
        "Evaluations of the network for each live frame. 1 is the preview: as fast as it gets, "
        "close to the mean, without fine detail.\n"
        "Samples and steps below belong to the full posterior."
    ),
}


class LiveSource(QWidget):
    """Layer or folder, and the steps for each live frame."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.kind = limit_width(QComboBox())
        self.kind.addItems(("the image layer below", "a folder"))
        self.path = PathField("Choose the folder to follow")
        self.steps = QSpinBox()
        self.steps.setRange(1, MOST_STEPS)
        self.steps.setMinimumWidth(NARROWEST_PX)
        layout = LabelledRows(
            {"follow": self.kind, "folder": self.path, "live steps": self.steps}, HELP
        )
        self.setLayout(layout)
        self._rows = layout
        self.kind.currentIndexChanged.connect(self._on_kind)
        self.path.changed.connect(self.changed)
        self.steps.valueChanged.connect(lambda _: self.changed.emit())
        self._on_kind()

    def _on_kind(self) -> None:
        self._rows.show_row("folder", not self.is_layer)
        self.changed.emit()

    @property
    def is_layer(self) -> bool:
        """Whether a layer is followed."""
        return self.kind.currentIndex() == 0

    @property
    def folder(self) -> Path | None:
        """The folder to follow; None as long as none is named."""
        return self.path.value()

    def set_folder(self, folder: str | Path) -> None:
        """Follow a folder."""
        self.kind.setCurrentIndex(1)
        self.path.set_value(folder)
