"""Actions on a result: choose it, change how its spread is shown, continue it, repeat it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QPointF, Qt, Signal
from qtpy.QtGui import QColor, QEnterEvent, QPainter, QPixmap
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_cvdm.core.statistics import STATISTICS
from napari_cvdm.widgets.common.choices import ResultChoice
from napari_cvdm.widgets.common.fields import (
    fill_layout,
    make_button,
    word_choice,
    wrapped_label,
)
from napari_cvdm.widgets.layers.result_layers import (
    ResultGroup,
    choices_of,
    help_of,
    layers_of,
    show_spread_as,
)
from napari_cvdm.widgets.layers.shown_layers import remove_layers

if TYPE_CHECKING:
    from napari.viewer import Viewer

# Of equal meaning for who cannot tell red from green: the word stands beside the colour.
COLOURS = {"green": "#3aa655", "amber": "#e0a526", "red": "#d2453c"}
WORDS = {"green": "Green", "amber": "Amber", "red": "Red"}
SHOWN_REASONS = 1  # the others are in the tooltip, so that the dock stays short


class ResultsPanel(QWidget):
    """The results in a viewer, each a group of layers, and what can be done with the chosen one.

    Parameters
    ----------
    viewer : Viewer
    more, repeat, command, compare : callable
        Called when these buttons are pressed.
    """

    changed = Signal()

    def __init__(
        self,
        viewer: "Viewer",
        *,
        more: Callable[[], None],
        repeat: Callable[[], None],
        command: Callable[[], None],
        compare: Callable[[], None],
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self.group = ResultChoice(viewer)
        self.light = QualityFlagSign()
        self.statistic = word_choice(STATISTICS)
        self.more = make_button(
            "Add sa&mples",
            "Draw more samples of this result; mean and spread go on from where they are.",
            more,
        )
        self.repeat = make_button(
            "Repe&at", "Put the settings of this result into the form above.", repeat
        )
        self.command = make_button(
            "Cop&y as command",
            "Copy the napari-cvdm command that gives the same pixels. The image must have been "
            "opened from a file.",
            command,
        )
        self.remove = make_button("Rem&ove", "Remove all layers of this result.", self._on_remove)
        self.compare = make_button(
            "Compare with classical metho&d",
            "Run what one would use without a model on the same image and settings, and add it "
            "with the same contrast:\n"
            "US-TIE for phase, Richardson-Lucy deconvolution for fluorescence. For the last "
            "result of this dock.",
            compare,
        )
        self.group.setToolTip("A result: all layers that came from one run.")
        self.statistic.setToolTip(help_of(None))
        rows = QFormLayout()
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        rows.addRow("result", self.group)
        rows.addRow("spread as", self.statistic)
        fill_layout(
            QVBoxLayout(self),
            rows,
            self.light,
            fill_layout(QHBoxLayout(), self.more, self.repeat),
            fill_layout(QHBoxLayout(), self.command, self.remove),
            self.compare,
            margins=(4, 0, 4, 4),
        )
        self.group.changed.connect(self._on_chosen)
        self.statistic.currentTextChanged.connect(self._on_statistic)
        self._on_chosen()

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


class QualityFlagSign(QWidget):
    """The quality flag, with its gravest reason and the number of other reasons beside it.

    The tooltip lists all reasons.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lamp, self._text = QLabel(), wrapped_label()
        self._lamp.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        row = fill_layout(QHBoxLayout(self), self._lamp, (self._text, 1), margins=(4, 0, 4, 0))
        row.setAlignment(self._lamp, Qt.AlignmentFlag.AlignTop)
        self.colour = ""
        self.hide()

    def show_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Show the light of a result; a result of an older version has none, and shows none."""
        self.colour = str(provenance.get("quality_flag", ""))
        reasons = [str(reason) for reason in provenance.get("quality_reasons", ())]
        self.setVisible(self.colour in COLOURS)
        if self.colour in COLOURS:
            self._lamp.setPixmap(draw_lamp(COLOURS[self.colour], self.fontMetrics().height()))
            more = len(reasons) - SHOWN_REASONS
            rest = "" if more <= 0 else f" And {more} more: point here."
            self._text.setText(f"{WORDS[self.colour]}: {' '.join(reasons[:SHOWN_REASONS])}{rest}")
            self.setToolTip("\n".join(reasons))

    def text(self) -> str:
        """What stands beside the lamp."""
        return self._text.text()


def draw_lamp(colour: str, side: int) -> QPixmap:
    """A filled circle."""
    pixmap = QPixmap(side, side)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(QColor(colour))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.drawEllipse(QPointF(side / 2, side / 2), side / 2 - 1, side / 2 - 1)
    painter.end()
    return pixmap
