"""The Measure dock: objects on a result, and how well each of their numbers is known."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.viewer import Viewer
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
from superqt.utils import signals_blocked

from napari_cvdm.analysis.intervals import Estimate
from napari_cvdm.analysis.measure import (
    ALPHA_UM3_PER_PG,
    LEAST_ALPHA,
    MOST_ALPHA,
    FrameMeasures,
    ObjectMeasure,
    measure_frames,
    object_rows,
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
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, WARNING, MessageLine, RunPanel
from napari_cvdm.widgets.common.worker import Follower
from napari_cvdm.widgets.layers.frames import frame_index
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.measure.measured_layers import (
    MeasuredResult,
    is_mask,
    is_result,
    mark_suggested,
    mask_frame,
    threshold_of,
)

HELP = {
    "result": (
        "A reconstruction, made with Reconstruct. Its posterior samples, if they were kept, give "
        "the intervals."
    ),
    "mask": (
        "Where to measure: each label of a Labels layer, or each closed shape of a Shapes layer, "
        "is an object.\n"
        "It may be drawn on any layer; it counts where it lies on the result."
    ),
    "alpha": (
        "Specific refraction increment: how much one picogram in one µm³ raises the refractive "
        "index.\n"
        "Proteins and cells: 0.18 (red light) to 0.20 (ultraviolet). The same number as in mL/g."
    ),
    "background": (
        "Subtract the median outside all regions from every value.\n"
        "A phase is always relative to that median."
    ),
    "outlines": (
        "Apply the threshold of the suggested mask to every sample, so that the area has an "
        "interval.\n"
        "What you corrected by hand stays as you drew it."
    ),
    "frames": "Measure every frame, not only the one that the sliders show.",
    "measure": "Measure every object of the mask.",
    "suggest": (
        "Make a Labels layer of all that stands out from the background (triangle threshold).\n"
        "Correct it by hand: paint, erase, and fill in different labels for touching cells."
    ),
    "copy": "Copy all rows, with all digits and how they were made, to paste into a spreadsheet.",
    "save": "Save all rows, with all digits and how they were made, as a CSV file.",
    "table": "Click a row to see its object; click an object with napari's picker to see its row.",
}
ABOUT = (
    "± is half of the interval that holds the truth with the named probability, if the spread of "
    "the samples is right. It holds no error of α, pixel size, wavelength or a drawn outline."
)
KEEP_SAMPLES = "No intervals: tick Keep samples in a run with two or more samples."
WIDEST_REMARK_PX = 170
OUTDATED = "This table is of an earlier mask, result or setting. Measure again."
# Of Labels and Shapes; events that a layer does not have are left out.
CHANGES = ("data", "paint", "labels_update", "scale", "translate", "rotate", "shear", "affine")
SELECTIONS = ("selected_label", "highlight")  # events of Labels and of Shapes


def columns_of(unit: str) -> dict[str, str]:
    """Headers of the table, with what they mean."""
    phase = {
        "Dry mass\n[pg]": "Relative to the medium.",
        "OPD\n[nm]": "Mean optical path difference to the medium.",
    }
    return {
        "Object": "Label of the region, or number of the shape.",
        "Area\n[µm²]": "It has an interval where the threshold is applied to every sample.",
        **(phase if unit == "rad" else {}),
        f"Mean\n[{unit}]": "Mean over the pixels of the object.",
        f"Sum\n[{unit}]": "Sum over the pixels of the object.",
        "Remark": "Reasons to look at this object again.",
    }


class MeasureWidget(Dock):
    """Plugins > CVDM reconstruction > Measure."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._measured: tuple[Any, Any] | None = None  # result and mask of the table
        self._selected = Follower(self, self._on_selected, SELECTIONS)
        # A run again keeps its layers and gives them other metadata, as a calibration does.
        self._renewed = Follower(self, self._on_changed, ("metadata",))
        self._changed = [Follower(self, self._on_outdated, CHANGES) for _ in range(2)]
        self.result = LayerChoice(napari_viewer, accepts=is_result)
        self.mask = LayerChoice(napari_viewer, accepts=is_mask)
        self.suggest = make_button("S&uggest a mask", HELP["suggest"], self.start_suggesting)
        self.alpha = QDoubleSpinBox()
        self.alpha.setRange(LEAST_ALPHA, MOST_ALPHA)
        self.alpha.setDecimals(3)
        self.alpha.setSingleStep(0.005)
        self.alpha.setSuffix(" µm³/pg")
        self.alpha.setValue(ALPHA_UM3_PER_PG)
        self.alpha.setMinimumWidth(NARROWEST_PX)
        self.background = QCheckBox("Above the back&ground")
        self.outlines = QCheckBox("&Outlines from every sample")
        self.outlines.setChecked(True)
        self.every_frame = QCheckBox("Ever&y frame")
        self.panel = RunPanel("&Measure")
        self.table, self.outdated = ObjectTable(), MessageLine()
        self.copy = make_button("Copy &table", HELP["copy"], self._on_copy)
        self.save = make_button("&Save as CSV…", HELP["save"], self._ask_file)
        self._lay_out()
        self.result.changed.connect(self._on_changed)
        self.mask.changed.connect(self._on_changed)
        self.alpha.valueChanged.connect(self._on_outdated)
        for box in (self.background, self.outlines, self.every_frame):
            box.toggled.connect(self._on_outdated)
        self.panel.asked.connect(self.start)
        self.table.itemSelectionChanged.connect(self._on_row)
        self._on_changed()

    def _lay_out(self) -> None:
        self._form = form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for name, text, field in (
            ("result", "&Result", self.result),
            ("mask", "M&ask", self.mask),
            ("alpha", "&α", self.alpha),
        ):
            label = label_field(text, field)
            for control in (label, field):
                control.setToolTip(HELP[name])
            form.addRow(label, field)
            if name == "mask":
                form.addRow(self.suggest)
        form.addRow(self.outlines)
        form.addRow(self.background)
        form.addRow(self.every_frame)
        explain_control(self.outlines, HELP["outlines"])
        explain_control(self.background, HELP["background"])
        explain_control(self.every_frame, HELP["frames"])
        explain_control(self.panel.run, HELP["measure"])
        self.table.setToolTip(HELP["table"])
        fill_layout(
            QVBoxLayout(self),
            form,
            self.panel,
            self.outdated,
            (self.table, 1),
            fill_layout(QHBoxLayout(), self.copy, self.save),
            wrapped_label(ABOUT),
            margins=(4, 4, 4, 4),
        )

    def _chosen(self) -> MeasuredResult:
        layer = self.result.value()
        if layer is None:
            raise RequestError(
                "a reconstruction is needed. Make one with Plugins > CVDM reconstruction > "
                "Reconstruct."
            )
        return MeasuredResult.of(self._viewer, layer)

    def _on_changed(self) -> None:
        """Say before a measurement what is missing or why the result should not be quantified."""
        layer, mask = self.result.value(), self.mask.value()
        chosen = None if layer is None else self._chosen()
        self.panel.set_ready(layer is not None and mask is not None)
        self.suggest.setEnabled(layer is not None)
        self.every_frame.setVisible(chosen is not None and len(chosen.indices()) > 1)
        self._form.setRowVisible(self.alpha, chosen is None or chosen.is_phase)
        self.background.setVisible(chosen is not None and not chosen.is_phase)
        self.outlines.setVisible(
            chosen is not None
            and mask is not None
            and any(
                threshold_of(mask, chosen, number) is not None
                for number in range(len(chosen.indices()))
            )
        )
        self._selected.follow(mask)
        self._renewed.follow(layer)
        if self._measured != (layer, mask):
            self._on_outdated()
        for button in (self.copy, self.save):
            button.setEnabled(self.table.rowCount() > 0)
        if self.panel.busy:  # its line belongs to the run
            return
        if chosen is None:
            self.panel.message.say(
                INFORMATION,
                "Needed: a reconstruction, made with Plugins > CVDM reconstruction > Reconstruct.",
            )
        elif mask is None:
            self.panel.message.say(
                INFORMATION, "Needed: a mask. Suggest one, or draw one in a Labels or Shapes layer."
            )
        elif chosen.warnings:
            self.panel.message.say(WARNING, _say_doubts(chosen.warnings))
        else:
            self.panel.message.clear()

    def _frames(self, chosen: MeasuredResult, mask: Layer) -> list[Any]:
        """Frames of the result with their masks: the one that is shown, or every one."""
        indices, point = chosen.indices(), self._viewer.dims.point
        every = self.every_frame.isChecked() and len(indices) > 1
        asked = indices if every else [frame_index(self._viewer, chosen.layer)]
        outlines = self.outlines.isChecked()
        return [
            (
                chosen.frame(index, above_background=self.background.isChecked()),
                replace(
                    mask_frame(mask, chosen.layer, index, point),
                    threshold=threshold_of(mask, chosen, indices.index(index))
                    if outlines
                    else None,
                ),
            )
            for index in asked
        ]

    def start(self) -> None:
        """Measure the objects of the mask, in the frame that is shown or in every frame."""
        mask = self.mask.value()
        if self.panel.busy or mask is None:
            return
        try:
            chosen = self._chosen()
            frames = self._frames(chosen, mask)
            made_with = {
                **({"alpha_um3_per_pg": self.alpha.value()} if chosen.is_phase else {}),
                **chosen.made_with(),
                "mask": mask.name,
            }
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return
        self.panel.start(
            measure_frames(frames, self.alpha.value()),
            title=f"Measuring {chosen.group}",
            total=len(frames),
            on_result=partial(self._on_measured, mask, made_with, chosen.warnings),
            cancelled="nothing was measured",
        )
        # From the start on, so that a change while it is measured is seen, too.
        self._measured = (chosen.layer, mask)
        for follower, layer in zip(self._changed, self._measured, strict=True):
            follower.follow(layer)

    def _on_measured(
        self,
        mask: Layer,
        made_with: dict[str, object],
        warnings: tuple[str, ...],
        measured: tuple[FrameMeasures, ...],
    ) -> None:
        self.table.show_objects(measured, made_with)
        if self._measured is not None:  # else something was changed while it was measured
            self.outdated.clear()
        for button in (self.copy, self.save):
            button.setEnabled(True)
        if len(measured) == 1:  # features belong to a label, whatever the frame
            store_features(mask, measured[0], str(made_with["unit"]))
        doubts = [_say_doubts(warnings)] if warnings else []
        self.panel.message.report(_summarise(measured, made_with), doubts)

    def start_suggesting(self) -> None:
        """Make a mask of all that stands out from the background, for every frame."""
        if self.panel.busy:
            return
        try:
            chosen = self._chosen()
            frames = [chosen.frame(index) for index in chosen.indices()]
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return
        place = {"name": f"mask of {chosen.source}", **Placement.of(chosen.layer).keywords()}
        self.panel.start(
            suggest_frames(frames),
            title=f"Looking for objects in {chosen.group}",
            total=len(frames),
            on_result=partial(self._on_suggested, place, chosen),
            cancelled="no mask was made",
        )

    def _on_suggested(
        self,
        place: Mapping[str, Any],
        chosen: MeasuredResult,
        suggested: tuple[np.ndarray, tuple[float | None, ...]],
    ) -> None:
        masks, thresholds = suggested
        layer = Labels(
            masks.reshape(chosen.layer.data.shape),
            opacity=0.7,
            metadata=mark_suggested(chosen, thresholds),
            **place,
        )
        layer.contour = 2  # an outline, so that the cell is seen
        self._viewer.add_layer(layer)
        self.mask.set_value(layer)
        self.panel.message.say(
            INFORMATION,
            "Suggested. Look at the outlines, correct them by hand where they are wrong, then "
            "measure.",
        )

    def _on_outdated(self, *_: object) -> None:
        """Say that the table is of another mask, another result or other settings."""
        if self._measured is not None:
            self._measured = None
            if self.table.rowCount() or self.panel.busy:
                self.outdated.say(WARNING, OUTDATED)

    def _on_selected(self) -> None:
        """Select the row of the object that was selected in the mask."""
        mask = self.mask.value()
        if mask is None:
            return
        label = getattr(mask, "selected_label", None)
        if label is None:  # shapes are counted from 0, objects from 1; 0 is no object
            label = min(mask.selected_data, default=-1) + 1
        with signals_blocked(self.table):  # else the row would select the object again
            self.table.select_object(int(label))

    def _on_row(self) -> None:
        """Select the object of the row in the mask, and bring it into view."""
        chosen, mask, layer = self.table.selected_object(), self.mask.value(), self.result.value()
        if chosen is None or mask is None or layer is None:
            return
        place, label = chosen
        for axis, position in place.items():
            if axis in layer.axis_labels:
                number = layer.axis_labels.index(axis)
                world = layer.data_to_world([position] * layer.ndim)[number]
                # napari aligns the axes of layers at the last ones.
                self._viewer.dims.set_point(self._viewer.dims.ndim - layer.ndim + number, world)
        if hasattr(mask, "selected_label"):
            mask.selected_label = label
        else:  # shapes are counted from 0
            mask.selected_data = {label - 1}
        self._centre(mask, layer, label)

    def _centre(self, mask: Layer, layer: Image, label: int) -> None:
        """Move the view to an object."""
        index = frame_index(self._viewer, layer)
        try:
            frame = mask_frame(mask, layer, index, self._viewer.dims.point)
            regions = frame.read((layer.data.shape[-2], layer.data.shape[-1]))
        except ValueError:  # the mask was changed since it was measured
            return
        rows, columns = np.nonzero(regions == label)
        if rows.size:
            world = layer.data_to_world((*index, rows.mean(), columns.mean()))
            self._viewer.scene.camera.center = (0.0, *world[-2:])

    def _on_copy(self) -> None:
        self.table.copy()
        self.panel.message.say(INFORMATION, "Copied; paste it into a spreadsheet.")

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the table", "objects.csv", "CSV (*.csv)")
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


def features_of(one: ObjectMeasure, unit: str) -> dict[str, float]:
    """What napari shows of an object under the cursor."""
    phase = {"dry mass [pg]": one.mass_pg, "mean OPD [nm]": one.opd_nm}
    numbers: dict[str, Estimate | None] = {
        **(phase if one.mass_pg is not None else {}),
        "area [µm²]": one.area_um2,
        f"mean [{unit}]": one.mean,
        f"sum [{unit}]": one.total,
    }
    return {name: found.value for name, found in numbers.items() if found is not None}


def store_features(mask: Layer, measured: FrameMeasures, unit: str) -> None:
    """Store the numbers as features of a Labels layer that has no others.

    napari shows features under the cursor.
    """
    rows = [features_of(one, unit) for one in measured.objects]
    # Ours end in a unit; what the user loaded stays.
    own = {"index", *(name for name in mask.features.columns if name.endswith("]"))}
    if isinstance(mask, Labels) and set(mask.features.columns) <= own:
        mask.features = {
            "index": [one.label for one in measured.objects],
            **{name: [row[name] for row in rows] for name in rows[0]},
        }


def _say_doubts(warnings: tuple[str, ...]) -> str:
    forbidden = reasons_not_to_quantify(warnings)
    return " ".join(["Not for quantification:" if forbidden else "Look again:", *warnings])


def _summarise(measured: tuple[FrameMeasures, ...], made_with: dict[str, object]) -> str:
    """The measured objects, alpha, and the relative error of the widths, 1 / sqrt(2 (N - 1))."""
    count, first = sum(len(frame.objects) for frame in measured), measured[0].objects[0]
    alpha = made_with.get("alpha_um3_per_pg")
    weighed = "" if alpha is None else f" with α = {alpha:g} µm³/pg"
    said = f"{count} object{'s' if count > 1 else ''} of {made_with['group']}{weighed}."
    if first.samples < 2:
        return f"{said} {KEEP_SAMPLES}"
    kind = "calibrated on single pixels" if first.mean.calibrated else "not calibrated"
    return (
        f"{said} {first.mean.level:.0%} intervals from {first.samples} samples, {kind}; their "
        f"widths are known to about {1 / math.sqrt(2 * (first.samples - 1)):.0%}."
    )


def format_estimate(estimate: Estimate) -> str:
    """A value ± half of its interval, with as many decimals as that has meaning: two digits."""
    # An interval without width has no logarithm, and so no digits.
    if estimate.low is None or estimate.high is None or estimate.high == estimate.low:
        return f"{estimate.value:.4g}"
    half = (estimate.high - estimate.low) / 2
    decimals = max(0, 1 - math.floor(math.log10(half)))
    return f"{estimate.value:.{decimals}f} ± {half:.{decimals}f}"


class ObjectTable(QTableWidget):
    """Objects as rows, after a column for the frame where there are several."""

    def __init__(self) -> None:
        super().__init__(0, 0)
        self._rows: list[dict[str, object]] = []
        self._objects: list[tuple[Mapping[str, int], int]] = []
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.verticalHeader().hide()
        self.setTabKeyNavigation(False)
        self.setMinimumHeight(6 * self.fontMetrics().height())
        shortcut = QShortcut(QKeySequence(QKeySequence.StandardKey.Copy), self)
        # Elsewhere in napari this key copies other things.
        shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
        shortcut.activated.connect(self.copy)

    def show_objects(
        self, measured: Sequence[FrameMeasures], made_with: Mapping[str, object]
    ) -> None:
        """Show what was measured, in place of what was there.

        Every row says how it was made when it is copied or saved.
        """
        self._rows = object_rows(measured, made_with)
        self._objects = [(frame.place, one.label) for frame in measured for one in frame.objects]
        axes, columns = list(measured[0].place), columns_of(str(made_with["unit"]))
        with signals_blocked(self):  # an emptied table selects nothing in the mask
            self.clear()
            self.clearSelection()
        remark = len(axes) + len(columns) - 1
        self.setColumnCount(remark + 1)
        self.setHorizontalHeaderLabels([*axes, *columns])
        for column, tip in enumerate(columns.values(), start=len(axes)):
            self.horizontalHeaderItem(column).setToolTip(tip)
        lines = [
            (*map(str, frame.place.values()), *_cells(one))
            for frame in measured
            for one in frame.objects
        ]
        self.setRowCount(len(lines))
        for row, line in enumerate(lines):
            for column, text in enumerate(line):
                self.setItem(row, column, _item(text, is_number=column < remark))
            if line[-1]:  # seen in a narrow dock, too
                item = self.item(row, len(axes))
                item.setIcon(self.style().standardIcon(QStyle.StandardPixmap.SP_MessageBoxWarning))
                item.setToolTip(line[-1])
        self.setColumnHidden(remark, not any(line[-1] for line in lines))
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        self.horizontalHeader().setStretchLastSection(True)
        self.resizeColumnsToContents()
        # A long remark wraps in its column instead of widening the table.
        self.setColumnWidth(remark, min(WIDEST_REMARK_PX, self.columnWidth(remark)))
        self.horizontalHeaderItem(remark).setTextAlignment(
            Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        )
        self.resizeRowsToContents()

    def selected_object(self) -> tuple[Mapping[str, int], int] | None:
        """Frame and label of the selected row; None without one."""
        rows = self.selectionModel().selectedRows()
        found = [row.row() for row in rows if row.row() < len(self._objects)]
        return self._objects[found[0]] if found else None

    def select_object(self, label: int) -> None:
        """Select the row of an object, of the same frame as the selected row if there is one."""
        chosen = self.selected_object()
        rows = [row for row, (_, other) in enumerate(self._objects) if other == label]
        same = [row for row in rows if chosen and self._objects[row][0] == chosen[0]]
        if rows:
            self.selectRow((same or rows)[0])
        else:
            self.clearSelection()

    def text(self, delimiter: str = ",") -> str:
        """All rows with all digits, as `table_text`; "" before anything was measured."""
        return table_text(self._rows, delimiter) if self._rows else ""

    def copy(self) -> None:
        """Put the rows on the clipboard, to be pasted into a spreadsheet."""
        QGuiApplication.clipboard().setText(self.text("\t"))


def _cells(one: ObjectMeasure) -> tuple[str, ...]:
    numbers = (one.area_um2, one.mass_pg, one.opd_nm, one.mean, one.total)
    return (
        str(one.label),
        *(format_estimate(found) for found in numbers if found is not None),
        "; ".join(one.remarks),
    )


def _item(text: str, *, is_number: bool) -> QTableWidgetItem:
    item = QTableWidgetItem(text)
    item.setToolTip(text)
    if is_number:
        item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return item
