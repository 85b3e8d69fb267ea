"""The Dry mass dock: what the cells of a phase reconstruction weigh, and how well that is known."""

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_cvdm.analysis.dry_mass import (
    ALPHA_UM3_PER_PG,
    LEAST_ALPHA,
    MOST_ALPHA,
    FrameMasses,
    measure_frames,
    reasons_not_to_quantify,
    suggest_frames,
)
from napari_cvdm.core.request import RequestError
from napari_cvdm.widgets.common.choices import LayerChoice
from napari_cvdm.widgets.common.fields import NARROWEST_PX, explain_control, wrapped_label
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, WARNING, RunPanel
from napari_cvdm.widgets.dry_mass.mask_layers import is_mask, mask_frame
from napari_cvdm.widgets.dry_mass.mass_table import MassTable
from napari_cvdm.widgets.dry_mass.phase_results import Index, PhaseResult, is_phase_result
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
FEATURES = ("dry mass [pg]", "error [pg]", "area [µm²]", "mean OPD [nm]")


class DryMassWidget(QWidget):
    """Plugins > CVDM reconstruction > Dry mass.

    Parameters
    ----------
    napari_viewer : Viewer
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.phase = LayerChoice(napari_viewer, accepts=is_phase_result)
        self.mask = LayerChoice(napari_viewer, accepts=is_mask)
        self.suggest = QPushButton("S&uggest a mask")
        self.alpha = _alpha_box()
        self.every_frame = QCheckBox("Ever&y frame")
        self.panel = RunPanel("&Measure")
        self.table = MassTable()
        self.copy = QPushButton("Copy &table")
        self.save = QPushButton("&Save as CSV…")
        self._lay_out()
        self._connect()
        self._on_changed()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for name, text, field in (
            ("phase", "Phas&e", self.phase),
            ("mask", "M&ask", self.mask),
            ("alpha", "&α", self.alpha),
        ):
            label = QLabel(text)
            label.setBuddy(field)
            label.setToolTip(HELP[name])
            form.addRow(label, field)
            if name == "mask":
                form.addRow(self.suggest)
        form.addRow(self.every_frame)
        buttons = QHBoxLayout()
        buttons.addWidget(self.copy)
        buttons.addWidget(self.save)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addLayout(form)
        layout.addWidget(self.panel)
        layout.addWidget(self.table, 1)
        layout.addLayout(buttons)
        layout.addWidget(wrapped_label(ABOUT))
        helped = {
            "phase": self.phase,
            "mask": self.mask,
            "alpha": self.alpha,
            "frames": self.every_frame,
            "measure": self.panel.run,
        }
        for name, widget in {
            **helped,
            "suggest": self.suggest,
            "copy": self.copy,
            "save": self.save,
        }.items():
            explain_control(widget, HELP[name])

    def _connect(self) -> None:
        self.phase.changed.connect(self._on_changed)
        self.mask.changed.connect(self._on_changed)
        self.suggest.clicked.connect(self.start_suggesting)
        self.panel.asked.connect(self.start)
        self.copy.clicked.connect(self._on_copy)
        self.save.clicked.connect(self._ask_file)

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
            self.panel.message.say(WARNING, _doubts(self._result().warnings))
        else:
            self.panel.message.clear()

    def _asked_frames(self, result: PhaseResult) -> list[Index]:
        every = self.every_frame.isChecked() and len(result.indices()) > 1
        return result.indices() if every else [frame_index(self._viewer, result.layer)]

    def start(self) -> None:
        """Weigh the regions of the mask, in the frame that is shown or in every frame."""
        mask, point = self.mask.value(), self._viewer.dims.point
        if self.panel.busy or mask is None:
            return
        try:
            result = self._result()
            frames = [
                (result.frame(index), mask_frame(mask, result.layer, index, point))
                for index in self._asked_frames(result)
            ]
            made_with = {
                "alpha_um3_per_pg": self.alpha.value(),
                **result.made_with(),
                "mask": mask.name,
            }
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return
        steps = measure_frames(frames, self.alpha.value())
        shown = partial(self._on_measured, mask, made_with, result.warnings)
        self.panel.start(
            steps, title=f"Weighing {result.group}", total=len(frames), on_result=shown
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
        text = [_summary(measured, made_with), *([_doubts(warnings)] if warnings else [])]
        self.panel.message.say(WARNING if warnings else INFORMATION, " ".join(text))

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
        shown = partial(
            self._on_suggested, result.source, Placement.of(result.layer), result.layer.data.shape
        )
        self.panel.start(
            suggest_frames(frames),
            title=f"Looking for cells in {result.group}",
            total=len(frames),
            on_result=shown,
        )

    def _on_suggested(
        self, source: str, place: Placement, shape: tuple[int, ...], masks: np.ndarray
    ) -> None:
        from napari.layers import Labels

        layer = Labels(
            masks.reshape(shape), name=f"mask of {source}", opacity=0.7, **place.keywords()
        )
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
            Path(path).write_text(self.table.text(), encoding="utf-8", newline="")
        except OSError as error:
            self.panel.message.say(
                ERROR, f"{path} cannot be written: {error.strerror}. Choose another folder."
            )
        else:
            self.panel.message.say(INFORMATION, f"Saved {path}")


def store_features(mask: "Layer", measured: FrameMasses) -> None:
    """Store the numbers as features of a Labels layer that has no others.

    napari shows features under the cursor.
    """
    from napari.layers import Labels

    if isinstance(mask, Labels) and set(mask.features.columns) <= {"index", *FEATURES}:
        masses = measured.masses
        columns: tuple[list[Any], ...] = (
            [mass.mass_pg for mass in masses],
            [np.nan if mass.error_pg is None else mass.error_pg for mass in masses],
            [mass.area_um2 for mass in masses],
            [mass.mean_opd_nm for mass in masses],
        )
        mask.features = {
            "index": [mass.label for mass in masses],
            **dict(zip(FEATURES, columns, strict=True)),
        }


def _alpha_box() -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(LEAST_ALPHA, MOST_ALPHA)
    box.setDecimals(3)
    box.setSingleStep(0.005)
    box.setSuffix(" µm³/pg")
    box.setValue(ALPHA_UM3_PER_PG)
    box.setMinimumWidth(NARROWEST_PX)
    return box


def _doubts(warnings: tuple[str, ...]) -> str:
    forbidden = reasons_not_to_quantify(warnings)
    return " ".join(["Not for quantification:" if forbidden else "Look again:", *warnings])


def _summary(measured: tuple[FrameMasses, ...], made_with: dict[str, object]) -> str:
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
