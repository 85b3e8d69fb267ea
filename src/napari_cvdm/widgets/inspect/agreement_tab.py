"""Rank correlations of rate map, spread, structure and error in a result.

The tab also plots error against spread.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget
from superqt.utils import qdebounced

from napari_cvdm.analysis.correlations import Correlations, correlate_maps, describe_correlations
from napari_cvdm.core.request import RequestError
from napari_cvdm.widgets.common.choices import ChoiceBox, ChoiceItem
from napari_cvdm.widgets.common.fields import explain_control, wrapped_label
from napari_cvdm.widgets.common.plots import ErrorPlot, ThemeColors
from napari_cvdm.widgets.common.worker import LatestWork
from napari_cvdm.widgets.layers.frames import frame_index, frame_pixels, result_frame, same_place
from napari_cvdm.widgets.layers.layer_data import plugin_metadata
from napari_cvdm.widgets.layers.result_layers import (
    RECONSTRUCTION,
    TRUTH,
    ResultGroup,
    put_calibration,
)

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_cvdm.evaluation.calibration import Calibration

ROWS = {"rate": "rate map λ", "spread": "spread", "structure": "structure"}
COLUMNS = {"spread": "spread", "structure": "structure", "error": "error"}
HELP = {
    "truth": (
        "An image that is known to be right, on the grid of the result. Then rate map and spread "
        "are compared with the error."
    ),
    "ranks": (
        "Spearman's ρ over the valid pixels: 1, one rises whenever the other does; 0, they have "
        "nothing to do with each other.\n"
        "Structure is the gradient of the reconstruction; error is |reconstruction - truth|."
    ),
    "plot": (
        "Each point is a tenth of the pixels, from the smallest spread to the largest.\n"
        "On the dashed line the spread is honest, above it the spread is too small."
    ),
    "calibrate": (
        "Find the factor so that 90 % of the errors against this truth are below factor x spread, "
        "and show the uncertainty as that.\n"
        "It holds for images like this one. Many pairs and a model that keeps the factor: "
        "napari-cvdm calibrate."
    ),
}


class AgreementTab(QWidget):
    """Statistics of one result.

    Parameters
    ----------
    viewer : Viewer
    """

    calibrated = Signal()
    trouble = Signal(str)  # what is wrong, in words; "" when nothing is any more

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._group: ResultGroup | None = None
        self._frame: tuple[int, ...] = ()
        self._note = ""
        self.truth = ChoiceBox(viewer, self._truth_entries)
        self.numbers: dict[tuple[str, str], QLabel] = {}
        self.plot = ErrorPlot(ThemeColors.of(viewer))
        self.text = wrapped_label()
        self.calibrate = QPushButton("&Calibrate on this truth")
        self.work = LatestWork(self, "Comparing rate map and spread")
        self.fitting = LatestWork(self, "Calibrating the spread")
        self._lay_out()
        self.truth.changed.connect(self.refresh)
        self.work.succeeded.connect(self._on_compared)
        self.work.failed.connect(self._on_failed)
        self.calibrate.clicked.connect(self._on_calibrate)
        self.fitting.succeeded.connect(self._on_calibrated)
        self.fitting.failed.connect(self.trouble)
        self.calibrate.setEnabled(False)
        self._clear()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        label = QLabel("&Truth")
        label.setBuddy(self.truth)
        choice = QHBoxLayout()
        choice.addWidget(label)
        choice.addWidget(self.truth, 1)
        layout.addLayout(choice)
        layout.addWidget(self.calibrate)
        layout.addLayout(self._table())
        layout.addWidget(self.text)
        layout.addWidget(self.plot, 1)
        layout.addStretch()
        self.truth.setToolTip(HELP["truth"])
        self.plot.plot.setToolTip(HELP["plot"])
        explain_control(self.calibrate, HELP["calibrate"])

    def _table(self) -> QGridLayout:
        table = QGridLayout()
        heads = [
            (QLabel("Spearman's ρ"), 0, 0),
            *((QLabel(text), row, 0) for row, text in enumerate(ROWS.values(), start=1)),
        ]
        heads += [
            (QLabel(text), 0, column) for column, text in enumerate(COLUMNS.values(), start=1)
        ]
        for row, first in enumerate(ROWS, start=1):
            for column, second in enumerate(COLUMNS, start=1):
                if f"{first}_{second}" in Correlations.__dataclass_fields__:
                    self.numbers[first, second] = number = QLabel()
                    heads.append((number, row, column))
        for cell, row, column in heads:
            cell.setToolTip(HELP["ranks"])
            cell.setAlignment(Qt.AlignmentFlag.AlignRight if column else Qt.AlignmentFlag.AlignLeft)
            table.addWidget(cell, row, column)
        return table

    def _truth_entries(self) -> list[ChoiceItem]:
        from napari.layers import Image

        images = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image) and not layer.rgb and not layer.multiscale
        ]
        offered = [
            layer
            for layer in images
            if plugin_metadata(layer).get("role") in (None, TRUTH, RECONSTRUCTION)
        ]
        entries = [
            ChoiceItem(text=layer.name, key=layer, value=layer, preferred=self._fits(layer))
            for layer in offered
        ]
        return [ChoiceItem(text="none", key=None, value=None), *entries]

    def _fits(self, layer: "Layer") -> bool:
        """Whether a layer is marked as a truth and lies on the grid of the result."""
        rate = None if self._group is None else self._group.rate
        marked = (
            plugin_metadata(layer).get("role") == TRUTH
            and rate is not None
            and layer.data.shape[-2:] == rate.data.shape[-2:]
        )
        return bool(marked and rate is not None and same_place(self._viewer, rate, layer))

    def set_group(self, group: ResultGroup | None) -> None:
        """Show another result, or the same after its layers have changed; None shows nothing."""
        other = group is None or self._group is None or group.name != self._group.name
        self._group = group if group is not None and not group.missing() else None
        self.setEnabled(self._group is not None)
        if other:
            self.truth.choose_preferred()
        self.refresh()

    def on_slider(self) -> None:
        """Compare the frame where napari's sliders stand, if the result has frames."""
        if (
            self._group is not None
            and self._group.rate is not None
            and self._frame != frame_index(self._viewer, self._group.rate)
        ):
            self.refresh()

    def set_theme_colors(self, colors: ThemeColors) -> None:
        """Draw in the colours of another theme."""
        self.plot.set_theme_colors(colors)

    @qdebounced(timeout=200)
    def refresh(self) -> None:
        """Compare again."""
        self.work.cancel()
        self.calibrate.setEnabled(self._group is not None and self.truth.value() is not None)
        if self._group is None:
            self._clear()
            return
        try:
            self._frame = frame_index(self._viewer, self._group.rate)
            frame = result_frame(self._viewer, self._group)
            truth = self._truth_pixels(self._group, self.truth.value())
        except ValueError as error:
            self._on_failed(str(error))
            return
        phase = self._group.mark.get("unit") == "rad"
        self.work.start(correlate_maps(frame, truth, phase=phase), total=2)

    def _truth_pixels(self, group: ResultGroup, layer: "Layer | None") -> "np.ndarray | None":
        self._note = ""
        rate = group.rate
        if layer is None or rate is None:
            return None
        if layer.data.shape[-2:] != rate.data.shape[-2:]:
            raise RequestError(
                f"{layer.name} has {_size(layer)} pixels, the result {_size(rate)}; a truth must "
                "lie on the grid of the result. Choose another, or resample it to that grid "
                "first."
            )
        if not same_place(self._viewer, rate, layer):
            self._note = (
                f" {layer.name} lies elsewhere than the result; it was compared pixel by pixel all "
                "the same."
            )
        return frame_pixels(self._viewer, layer)

    def _on_calibrate(self) -> None:
        group, layer = self._group, self.truth.value()
        if group is None or layer is None:
            return
        try:
            frame, truth = result_frame(self._viewer, group), self._truth_pixels(group, layer)
        except ValueError as error:
            self.trouble.emit(str(error))
            return
        from napari_cvdm.evaluation.calibration import calibrate_frame  # it brings torch

        if truth is not None:
            settings = group.mark.get("provenance", {}).get("settings", {})
            self.fitting.start(
                calibrate_frame(
                    frame, truth, settings, layer.name, phase=group.mark.get("unit") == "rad"
                ),
                total=1,
            )

    def _on_calibrated(self, found: "Calibration") -> None:
        if self._group is None:
            return
        put_calibration(self._viewer, self._group, found.values())
        self.text.setText(
            f"{found.level:.0%} of the errors are below {found.factor:.3g} times the spread, in "
            "this image; the uncertainty layer shows that now."
        )
        self.calibrated.emit()

    def _on_compared(self, found: Correlations) -> None:
        for (first, second), label in self.numbers.items():
            value = getattr(found, f"{first}_{second}")
            label.setText("–" if value is None or math.isnan(value) else f"{value:.2f}")
        self.trouble.emit("")
        unit = "" if self._group is None else str(self._group.mark.get("unit", ""))
        self.text.setText(describe_correlations(found, unit) + self._note)
        self.plot.setVisible(found.by_spread is not None)
        if found.by_spread is not None:
            self.plot.show_error(found.by_spread, unit)

    def _on_failed(self, message: str) -> None:
        self._clear()
        self.trouble.emit(message)

    def _clear(self) -> None:
        for label in self.numbers.values():
            label.setText("–")
        self.text.clear()
        self.plot.hide()


def _size(layer: "Layer") -> str:
    return " × ".join(str(side) for side in layer.data.shape[-2:])
