"""The traffic light of a result, with its reasons in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from qtpy.QtCore import QPointF, Qt
from qtpy.QtGui import QColor, QPainter, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QWidget

from napari_cvdm.widgets.common.fields import wrapped_label

# Of equal meaning for who cannot tell red from green: the word stands beside the colour.
COLOURS = {"green": "#3aa655", "amber": "#e0a526", "red": "#d2453c"}
WORDS = {"green": "Green", "amber": "Amber", "red": "Red"}
SHOWN_REASONS = 1  # the others are in the tooltip, so that the dock stays short


class QualityFlagSign(QWidget):
    """The quality flag, with its gravest reason and the number of other reasons beside it.

    The tooltip lists all reasons.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lamp, self._text = QLabel(), wrapped_label()
        self._lamp.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(4, 0, 4, 0)
        layout.addWidget(self._lamp, 0, Qt.AlignmentFlag.AlignTop)
        layout.addWidget(self._text, 1)
        self.colour = ""
        self.hide()

    def show_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Show the light of a result; a result of an older version has none, and shows none."""
        self.colour = str(provenance.get("light", ""))
        reasons = [str(reason) for reason in provenance.get("light_reasons", ())]
        self.setVisible(self.colour in COLOURS)
        if self.colour in COLOURS:
            self._lamp.setPixmap(lamp(COLOURS[self.colour], self.fontMetrics().height()))
            self._text.setText(sentence(WORDS[self.colour], reasons))
            self.setToolTip("\n".join(reasons))

    def text(self) -> str:
        """What stands beside the lamp."""
        return self._text.text()


def sentence(colour: str, reasons: Sequence[str]) -> str:
    """The colour, the first reason, and how many more there are."""
    more = len(reasons) - SHOWN_REASONS
    rest = "" if more <= 0 else f" And {more} more: point here."
    return f"{colour}: {' '.join(reasons[:SHOWN_REASONS])}{rest}"


def lamp(colour: str, side: int) -> QPixmap:
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
