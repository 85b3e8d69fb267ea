"""The Dry mass dock: what the cells of a phase reconstruction weigh, and how well that is known."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication, QKeySequence
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QShortcut,
    QStyle,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
)

from napari_cvdm.analysis.dry_mass import (
    ALPHA_UM3_PER_PG,
    LEAST_ALPHA,
    MOST_ALPHA,
    FrameMasses,
    RegionMass,
    mass_rows,
    measure_frames,
    reasons_not_to_quantify,
    suggest_frames,
    table_text,
)
from napari_cvdm.core.request import RequestError
from napari_cvdm.io import ImageFileError
from napari_cvdm.io.atomic import write_file
from napari_cvdm.widgets.common.choices import LayerChoice
from napari_cvdm.widgets.common.fields import (
    NARROWEST_PX,
    Dock,
    explain_control,
    fill_layout,
    label_field,
    make_button,
    wrapped_label,
)
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, WARNING, RunPanel
from napari_cvdm.widgets.dry_mass.phase_layers import (
    PhaseResult,
    is_mask,
    is_phase_result,
    mask_frame,
)
from napari_cvdm.widgets.layers.frames import frame_index
from napari_cvdm.widgets.layers.placement import Placement

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

HELP = {
    "phase": (
        "A phase reconstruction, made with Reconstruct. Its posterior samples, if they were kept, "
        "give the error."
    ),
    "mask": (
        "Where to weigh: each label of a Labels layer, or each closed shape of a Shapes layer, is "
        "a region.\n"
        "It may be drawn on any layer; it counts where it lies on the phase."
    ),
    "alpha": (
        "Specific refraction increment: how much one picogram in one µm³ raises the refractive "
        "index.\n"
        "Proteins and cells: 0.18 (red light) to 0.20 (ultraviolet). The same number as in mL/g."
    ),
    "frames": "Weigh every frame, not only the one that the sliders show.",
    "measure": "Weigh every region of the mask.",
    "suggest": (
        "Make a Labels layer of all that stands out from the medium (triangle threshold).\n"
        "Correct it by hand: paint, erase, and fill in different labels for touching cells."
    ),
    "copy": "Copy all rows, with all digits and how they were made, to paste into a spreadsheet.",
    "save": "Save all rows, with all digits and how they were made, as a CSV file.",
}
ABOUT = (
    "Mass is relative to the medium: its zero is the median phase of what is empty outside all "
    "regions. The error is the spread of the posterior samples, not calibrated; it holds no error "
    "of α, pixel size, wavelength or outline."
)
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
FEATURES = ("dry mass [pg]", "error [pg]", "area [µm²]", "mean OPD [nm]")


class DryMassWidget(Dock):
    """Plugins > CVDM reconstruction > Dry mass."""

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.phase = LayerChoice(napari_viewer, accepts=is_phase_result)
        self.mask = LayerChoice(napari_viewer, accepts=is_mask)
        self.suggest = make_button("S&uggest a mask", HELP["suggest"], self.start_suggesting)
        self.alpha = QDoubleSpinBox()
        self.alpha.setRange(LEAST_ALPHA, MOST_ALPHA)
        self.alpha.setDecimals(3)
        self.alpha.setSingleStep(0.005)
        self.alpha.setSuffix(" µm³/pg")
        self.alpha.setValue(ALPHA_UM3_PER_PG)
        self.alpha.setMinimumWidth(NARROWEST_PX)
        self.every_frame = QCheckBox("Ever&y frame")
        self.panel = RunPanel("&Measure")
        self.table = MassTable()
        self.copy = make_button("Copy &table", HELP["copy"], self._on_copy)
        self.save = make_button("&Save as CSV…", HELP["save"], self._ask_file)
        self._lay_out()
        self.phase.changed.connect(self._on_changed)
        self.mask.changed.connect(self._on_changed)
        self.panel.asked.connect(self.start)
        self._on_changed()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for name, text, field in (
            ("phase", "Phas&e", self.phase),
            ("mask", "M&ask", self.mask),
            ("alpha", "&α", self.alpha),
        ):
            label = label_field(text, field)
            for control in (label, field):
                control.setToolTip(HELP[name])
            form.addRow(label, field)
            if name == "mask":
                form.addRow(self.suggest)
        form.addRow(self.every_frame)
        explain_control(self.every_frame, HELP["frames"])
        explain_control(self.panel.run, HELP["measure"])
        fill_layout(
            QVBoxLayout(self),
            form,
            self.panel,
            (self.table, 1),
            fill_layout(QHBoxLayout(), self.copy, self.save),
            wrapped_label(ABOUT),
            margins=(4, 4, 4, 4),
        )

    def _result(self) -> PhaseResult:
        layer = self.phase.value()
        if layer is None:
            raise RequestError(
                "a phase reconstruction is needed. Make one with Plugins > CVDM reconstruction > "
                "Reconstruct."
            )
        return PhaseResult.of(self._viewer, layer)

    def _on_changed(self) -> None:
        """Say before a measurement what is missing or why the result should not be quantified."""
        phase, mask = self.phase.value(), self.mask.value()
        self.panel.set_ready(phase is not None and mask is not None)
        self.suggest.setEnabled(phase is not None)
        self.every_frame.setVisible(phase is not None and len(self._result().indices()) > 1)
        for button in (self.copy, self.save):
            button.setEnabled(self.table.rowCount() > 0)
        if self.panel.busy:
            return
        if phase is None:
            self.panel.message.say(
                INFORMATION,
                "Needed: a phase reconstruction, made with Plugins > CVDM reconstruction > "
                "Reconstruct.",
            )
        elif mask is None:
            self.panel.message.say(
                INFORMATION, "Needed: a mask. Suggest one, or draw one in a Labels or Shapes layer."
            )
        elif self._result().warnings:
            self.panel.message.say(WARNING, _say_doubts(self._result().warnings))
        else:
            self.panel.message.clear()

    def start(self) -> None:
        """Weigh the regions of the mask, in the frame that is shown or in every frame."""
        mask, point = self.mask.value(), self._viewer.dims.point
        if self.panel.busy or mask is None:
            return
        try:
            result = self._result()
            every = self.every_frame.isChecked() and len(result.indices()) > 1
            asked = result.indices() if every else [frame_index(self._viewer, result.layer)]
            frames = [
                (result.frame(index), mask_frame(mask, result.layer, index, point))
                for index in asked
            ]
            made_with = {
                "alpha_um3_per_pg": self.alpha.value(),
                **result.made_with(),
                "mask": mask.name,
            }
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return
        self.panel.start(
            measure_frames(frames, self.alpha.value()),
            title=f"Weighing {result.group}",
            total=len(frames),
            on_result=partial(self._on_measured, mask, made_with, result.warnings),
        )

    def _on_measured(
        self,
        mask: "Layer",
        made_with: dict[str, object],
        warnings: tuple[str, ...],
        measured: tuple[FrameMasses, ...],
    ) -> None:
        self.table.show_masses(measured, made_with)
        for button in (self.copy, self.save):
            button.setEnabled(True)
        if len(measured) == 1:
            store_features(mask, measured[0])
        doubts = [_say_doubts(warnings)] if warnings else []
        self.panel.message.report(_summarise(measured, made_with), doubts)

    def start_suggesting(self) -> None:
        """Make a mask of all that stands out from the medium, for every frame."""
        if self.panel.busy:
            return
        try:
            result = self._result()
            frames = [result.frame(index) for index in result.indices()]
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return
        place = {"name": f"mask of {result.source}", **Placement.of(result.layer).keywords()}
        self.panel.start(
            suggest_frames(frames),
            title=f"Looking for cells in {result.group}",
            total=len(frames),
            on_result=partial(self._on_suggested, place, result.layer.data.shape),
        )

    def _on_suggested(
        self, place: Mapping[str, Any], shape: tuple[int, ...], masks: np.ndarray
    ) -> None:
        from napari.layers import Labels

        layer = Labels(masks.reshape(shape), opacity=0.7, **place)
        layer.contour = 2  # an outline, so that the cell is seen
        self._viewer.add_layer(layer)
        self.mask.set_value(layer)
        self.panel.message.say(
            INFORMATION,
            "Suggested. Look at the outlines, correct them by hand where they are wrong, then "
            "measure.",
        )

    def _on_copy(self) -> None:
        self.table.copy()
        self.panel.message.say(INFORMATION, "Copied; paste it into a spreadsheet.")

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the table", "dry mass.csv", "CSV (*.csv)")
        if path:
            self.save_table(path)

    def save_table(self, path: str) -> None:
        """Save all rows as CSV; a failure is said in the message line."""
        try:
            write_file(Path(path), self.table.text().encode())
        except ImageFileError as error:
            self.panel.message.say(ERROR, str(error))
        else:
            self.panel.message.say(INFORMATION, f"Saved {path}")


def store_features(mask: "Layer", measured: FrameMasses) -> None:
    """Store the numbers as features of a Labels layer that has no others.

    napari shows features under the cursor.
    """
    from napari.layers import Labels

    if isinstance(mask, Labels) and set(mask.features.columns) <= {"index", *FEATURES}:
        values = [
            (
                mass.mass_pg,
                np.nan if mass.error_pg is None else mass.error_pg,
                mass.area_um2,
                mass.mean_opd_nm,
            )
            for mass in measured.masses
        ]
        mask.features = {
            "index": [mass.label for mass in measured.masses],
            **dict(zip(FEATURES, np.array(values).T, strict=True)),
        }


def _say_doubts(warnings: tuple[str, ...]) -> str:
    forbidden = reasons_not_to_quantify(warnings)
    return " ".join(["Not for quantification:" if forbidden else "Look again:", *warnings])


def _summarise(measured: tuple[FrameMasses, ...], made_with: dict[str, object]) -> str:
    """The weighed regions, alpha, and the relative error of the errors, 1 / sqrt(2 (N - 1))."""
    count = sum(len(frame.masses) for frame in measured)
    samples = measured[0].masses[0].samples
    weighed = (
        f"{count} region{'s' if count > 1 else ''} of {made_with['group']} with α = "
        f"{made_with['alpha_um3_per_pg']:g} µm³/pg."
    )
    if samples < 2:
        return (
            f"{weighed} No errors: reconstruct with two or more samples, and keep them, to have "
            "them."
        )
    return (
        f"{weighed} Errors from {samples} samples, themselves known to about "
        f"{1 / math.sqrt(2 * (samples - 1)):.0%}."
    )


def format_with_error(value: float, error: float | None) -> str:
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

        Every row says how it was made when it is copied or saved.
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
        format_with_error(mass.mass_pg, mass.error_pg),
        f"{mass.mean_opd_nm:.1f}",
        "; ".join(mass.remarks),
    )


def _item(text: str, *, is_number: bool) -> QTableWidgetItem:
    item = QTableWidgetItem(text)
    item.setToolTip(text)
    if is_number:
        item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return item
