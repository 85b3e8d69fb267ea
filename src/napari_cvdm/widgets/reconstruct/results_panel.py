"""Actions on a result: choose it, change how its spread is shown, continue it, repeat it."""

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtGui import QEnterEvent
from qtpy.QtWidgets import QComboBox, QFormLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_cvdm.core.statistics import STATISTICS
from napari_cvdm.widgets.common.choices import ChoiceBox, ChoiceItem
from napari_cvdm.widgets.common.fields import explain_control, limit_width
from napari_cvdm.widgets.layers.result_layers import (
    ResultGroup,
    choices_of,
    groups_of,
    help_of,
    layers_of,
    show_spread_as,
)
from napari_cvdm.widgets.layers.shown_layers import remove_layers
from napari_cvdm.widgets.reconstruct.quality_flag import QualityFlagSign

if TYPE_CHECKING:
    from napari.viewer import Viewer


class ResultsPanel(QWidget):
    """The results in a viewer, each a group of layers, and what can be done with the chosen one.

    Parameters
    ----------
    viewer : Viewer
    """

    changed = Signal()
    more_asked = Signal()
    repeat_asked = Signal()
    command_asked = Signal()
    compare_asked = Signal()

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self.group = ChoiceBox(viewer, self._offered)
        self.light = QualityFlagSign()
        self.statistic = limit_width(QComboBox())
        self.statistic.addItems(STATISTICS)
        self.more = QPushButton("Add sa&mples")
        self.repeat = QPushButton("Repe&at")
        self.command = QPushButton("Cop&y as command")
        self.remove = QPushButton("Rem&ove")
        self.compare = QPushButton("Compare with classical metho&d")
        self._explain()
        self._lay_out()
        self._connect()
        self._on_chosen()

    def _explain(self) -> None:
        self.group.setToolTip("A result: all layers that came from one run.")
        self.statistic.setToolTip(help_of(None))
        explain_control(
            self.more,
            "Draw more samples of this result; mean and spread go on from where they are.",
        )
        explain_control(self.repeat, "Put the settings of this result into the form above.")
        explain_control(
            self.command,
            "Copy the napari-cvdm command that gives the same pixels. The image must have been "
            "opened from a file.",
        )
        explain_control(
            self.compare,
            "Run what one would use without a model on the same image and settings, and add it "
            "with the same contrast:\n"
            "US-TIE for phase, Richardson-Lucy deconvolution for fluorescence. For the last "
            "result of this dock.",
        )
        explain_control(self.remove, "Remove all layers of this result.")

    def _lay_out(self) -> None:
        rows = QFormLayout()
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        rows.addRow("result", self.group)
        rows.addRow("spread as", self.statistic)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 0, 4, 4)
        layout.addLayout(rows)
        layout.addWidget(self.light)
        for pair in ((self.more, self.repeat), (self.command, self.remove), (self.compare,)):
            line = QHBoxLayout()
            for button in pair:
                line.addWidget(button)
            layout.addLayout(line)

    def _connect(self) -> None:
        self.group.changed.connect(self._on_chosen)
        self.statistic.currentTextChanged.connect(self._on_statistic)
        self.more.clicked.connect(self.more_asked)
        self.repeat.clicked.connect(self.repeat_asked)
        self.command.clicked.connect(self.command_asked)
        self.compare.clicked.connect(self.compare_asked)
        self.remove.clicked.connect(self._on_remove)

    def _offered(self) -> list[ChoiceItem]:
        groups = groups_of(self._viewer.layers)
        return [
            ChoiceItem(text=group.name, key=group.name, value=group, preferred=group is groups[-1])
            for group in groups
        ]

    def value(self) -> ResultGroup | None:
        """The chosen result; None without one."""
        group: ResultGroup | None = self.group.value()
        return group

    def choose(self, name: str) -> None:
        """Choose a result by its name; one that is not there changes nothing."""
        self.group.set_value(name)

    def _on_chosen(self) -> None:
        group = self.value()
        self.setVisible(group is not None)
        self.light.show_provenance({} if group is None else group.mark.get("provenance", {}))
        self.list_statistics()
        self.changed.emit()

    def enterEvent(self, event: QEnterEvent) -> None:
        """What the Inspect dock has calibrated since is offered, too."""
        super().enterEvent(event)
        self.list_statistics()

    def list_statistics(self) -> None:
        """Offer what the spread of the chosen result can be shown as, and what it is now."""
        group = self.value()
        if group is None or group.spread is None:
            return
        with signals_blocked(self.statistic):
            self.statistic.clear()
            self.statistic.addItems(choices_of(group))
            self.statistic.setCurrentText(group.statistic)
        self.statistic.setToolTip(help_of(group))

    def _on_statistic(self, wanted: str) -> None:
        """Show the chosen result's spread the other way."""
        group = self.value()
        if group is not None:
            show_spread_as(group, wanted)

    def _on_remove(self) -> None:
        group = self.value()
        if group is not None:
            remove_layers(self._viewer, layers_of(self._viewer.layers, group.name))
