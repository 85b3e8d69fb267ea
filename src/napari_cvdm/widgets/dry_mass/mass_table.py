"""The table of weighed regions. It shows rounded values.

Copy and save give every digit and the provenance.
"""

import math
from collections.abc import Mapping, Sequence

from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication, QKeySequence
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QShortcut,
    QStyle,
    QTableWidget,
    QTableWidgetItem,
)

from napari_cvdm.analysis.dry_mass import FrameMasses, RegionMass, mass_rows, table_text

WIDEST_REMARK_PX = 170
COLUMNS = {
    "Region": "Label of the region, or number of the shape.",
    "Area\n[µm²]": "Pixels of the region times the pixel's area.",
    "Dry mass\n[pg]": (
        "Relative to the medium: mean ± standard deviation over the posterior samples."
    ),
    "OPD\n[nm]": "Mean optical path difference to the medium.",
    "Remark": "Reasons to look at this region again.",
}


def with_error(value: float, error: float | None) -> str:
    """A value with as many decimals as its error has meaning: two digits of it."""
    if not error:
        return f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


class MassTable(QTableWidget):
    """Regions as rows, after a column for the frame where there are several."""

    def __init__(self) -> None:
        super().__init__(0, 0)
        self._rows: list[dict[str, object]] = []
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.verticalHeader().hide()
        self.setTabKeyNavigation(False)
        self.setMinimumHeight(6 * self.fontMetrics().height())
        shortcut = QShortcut(QKeySequence(QKeySequence.StandardKey.Copy), self)
        shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
        shortcut.activated.connect(self.copy)

    def show_masses(self, measured: Sequence[FrameMasses], made_with: Mapping[str, object]) -> None:
        """Show what was weighed, in place of what was there.

        Parameters
        ----------
        measured : sequence of FrameMasses
        made_with : mapping
            What every row says about how it was made, when it is copied or saved.
        """
        self._rows = mass_rows(measured, made_with)
        axes = list(measured[0].place)
        self.clear()
        self.setColumnCount(len(axes) + len(COLUMNS))
        self.setHorizontalHeaderLabels([*axes, *COLUMNS])
        for column, tip in enumerate(COLUMNS.values(), start=len(axes)):
            self.horizontalHeaderItem(column).setToolTip(tip)
        lines = [
            (*map(str, frame.place.values()), *_cells(mass))
            for frame in measured
            for mass in frame.masses
        ]
        self.setRowCount(len(lines))
        for row, line in enumerate(lines):
            for column, text in enumerate(line):
                self.setItem(row, column, _item(text, is_number=column < len(line) - 1))
            if line[-1]:  # seen in a narrow dock, too
                self.item(row, len(axes)).setIcon(
                    self.style().standardIcon(QStyle.StandardPixmap.SP_MessageBoxWarning)
                )
                self.item(row, len(axes)).setToolTip(line[-1])
        self.setColumnHidden(self.columnCount() - 1, not any(line[-1] for line in lines))
        self._fit()

    def _fit(self) -> None:
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        self.horizontalHeader().setStretchLastSection(True)
        self.resizeColumnsToContents()
        remark = self.columnCount() - 1
        self.setColumnWidth(remark, min(WIDEST_REMARK_PX, self.columnWidth(remark)))
        self.horizontalHeaderItem(remark).setTextAlignment(
            Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        )
        self.resizeRowsToContents()

    def text(self, delimiter: str = ",") -> str:
        """All rows with all digits, as `table_text`; "" before anything was weighed."""
        return table_text(self._rows, delimiter) if self._rows else ""

    def copy(self) -> None:
        """Put the rows on the clipboard, to be pasted into a spreadsheet."""
        QGuiApplication.clipboard().setText(self.text("\t"))


def _cells(mass: RegionMass) -> tuple[str, ...]:
    return (
        str(mass.label),
        f"{mass.area_um2:.1f}",
        with_error(mass.mass_pg, mass.error_pg),
        f"{mass.mean_opd_nm:.1f}",
        "; ".join(mass.remarks),
    )


def _item(text: str, *, is_number: bool) -> QTableWidgetItem:
    item = QTableWidgetItem(text)
    item.setToolTip(text)
    if is_number:
        item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return item
