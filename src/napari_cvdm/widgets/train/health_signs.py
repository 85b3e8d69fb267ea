"""Health lights of a training, one for each known failure, with advice for those that are lit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QLabel, QStyle, QVBoxLayout, QWidget

from napari_cvdm.widgets.common.fields import wrapped_label

if TYPE_CHECKING:
    from napari_cvdm.training.health import Finding

COLUMNS = 2
GOOD, BAD = QStyle.StandardPixmap.SP_DialogApplyButton, QStyle.StandardPixmap.SP_MessageBoxWarning
NOT_YET = "Not looked at yet."


class HealthSign(QWidget):
    """A name, and an icon beside it: nothing, good or not."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._icon, self._text = QLabel(), QLabel(name)
        self._icon.setFixedWidth(self.fontMetrics().height())
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._icon, 0, 0)
        layout.addWidget(self._text, 0, 1)
        layout.setColumnStretch(1, 1)
        self.finding: Finding | None = None
        self.setToolTip(NOT_YET)

    def show_finding(self, finding: "Finding | None") -> None:
        """Light up with a finding; None is good."""
        self.finding = finding
        side = self.fontMetrics().height()
        self._icon.setPixmap(
            self.style().standardIcon(GOOD if finding is None else BAD).pixmap(side, side)
        )
        font = self._text.font()
        font.setBold(finding is not None)
        self._text.setFont(font)
        self.setToolTip("Looked at: no sign of it." if finding is None else _said(finding))

    def forget(self) -> None:
        """Show nothing: not looked at yet."""
        self.finding = None
        self._icon.clear()
        self.setToolTip(NOT_YET)


class HealthSigns(QWidget):
    """Every light, and below them what to do about those that are lit."""

    def __init__(self) -> None:
        from napari_cvdm.training.health import FAILURES

        super().__init__()
        self.lights = {name: HealthSign(name) for name in FAILURES}
        self.advice = wrapped_label()
        grid = QGridLayout()
        grid.setVerticalSpacing(0)
        for number, light in enumerate(self.lights.values()):
            grid.addWidget(light, number // COLUMNS, number % COLUMNS)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 0, 4, 0)
        layout.addLayout(grid)
        layout.addWidget(self.advice)
        self.advice.hide()

    def show_findings(self, findings: "Sequence[Finding]") -> None:
        """Show what was found, all of it: a light that is not named is good."""
        found = {finding.name: finding for finding in findings}
        for name, light in self.lights.items():
            light.show_finding(found.get(name))
        self._advise()

    def add(self, finding: "Finding") -> None:
        """Light one more."""
        self.lights[finding.name].show_finding(finding)
        self._advise()

    def forget(self) -> None:
        """Put every light out."""
        for light in self.lights.values():
            light.forget()
        self._advise()

    def _advise(self) -> None:
        lit = [light.finding for light in self.lights.values() if light.finding is not None]
        self.advice.setText("\n".join(f"{finding.name}: {finding.advice}" for finding in lit))
        self.advice.setVisible(bool(lit))


def _said(finding: "Finding") -> str:
    return f"{finding.value:.3g}, threshold {finding.threshold:.3g}. {finding.advice}"
