"""The Inspect dock: the schedule of a result, its samples, and how far both may be believed."""

import math
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Layer
from napari.viewer import Viewer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QTabWidget, QVBoxLayout
from superqt.utils import qdebounced

from napari_cvdm.analysis.correlations import Correlations, correlate_maps, describe_correlations
from napari_cvdm.core.request import RequestError
from napari_cvdm.widgets.common.choices import ChoiceBox, ChoiceItem, ResultChoice
from napari_cvdm.widgets.common.fields import (
    Dock,
    fill_layout,
    label_field,
    make_button,
    wrapped_label,
)
from napari_cvdm.widgets.common.plots import ErrorPlot, ThemeColors
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, MessageLine
from napari_cvdm.widgets.common.worker import LatestWork, listen, when_gone
from napari_cvdm.widgets.inspect.further_tabs import NextImageTab, ProfileTab
from napari_cvdm.widgets.inspect.pixel_tab import PixelTab, ResultTab
from napari_cvdm.widgets.layers.frames import frame_index, frame_pixels, result_frame, same_place
from napari_cvdm.widgets.layers.layer_data import plugin_metadata
from napari_cvdm.widgets.layers.result_layers import (
    RECONSTRUCTION,
    TRUTH,
    ResultGroup,
    put_calibration,
)

if TYPE_CHECKING:
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


class InspectWidget(Dock):
    """Plugins > CVDM reconstruction > Inspect."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._gone = gone = Event()
        when_gone(self, gone.set)
        self.group = ResultChoice(napari_viewer)
        self.pixel = PixelTab(napari_viewer)
        self.agreement = AgreementTab(napari_viewer)
        self.profile = ProfileTab(napari_viewer)
        self.next_image = NextImageTab(napari_viewer)
        self._pages = (self.pixel, self.agreement, self.profile, self.next_image)
        self.tabs = QTabWidget()
        self.message = MessageLine()
        self._troubles: dict[ResultTab, str] = {}
        titles = ("&Schedule", "Spread and &error", "Profile", "Ne&xt image")
        for tab, title in zip(self._pages, titles, strict=True):
            self.tabs.addTab(tab, title)
            tab.trouble.connect(partial(self._on_trouble, tab))
        self.group.setToolTip("The result to inspect: the layers of one reconstruction.")
        choice = fill_layout(QHBoxLayout(), label_field("&Result", self.group), (self.group, 1))
        fill_layout(QVBoxLayout(self), choice, (self.tabs, 1), self.message, margins=(4, 4, 4, 4))
        self.group.changed.connect(self.refresh)
        # The interval at the chosen pixel is another one then.
        self.agreement.calibrated.connect(self._on_calibrated)
        listen(self, napari_viewer.dims.events.current_step, self._on_slider)
        listen(self, napari_viewer.events.theme, self._on_theme)
        self.show_group()

    @qdebounced(timeout=50)  # ms: layers come and go many at a time
    def refresh(self) -> None:
        """Show the chosen result as its layers are now."""
        self.show_group()

    def show_group(self) -> None:
        """Show the chosen result in every tab, and say what is missing."""
        group = self.group.value()
        self._troubles.clear()
        self.message.clear()
        if group is None:
            self.message.say(INFORMATION, "No result among the layers. Reconstruct an image first.")
        elif group.classical:
            self.message.say(
                INFORMATION,
                f"{group.name}: a classical method gives a single answer; there is no spread and "
                "no schedule to inspect.",
            )
        elif group.missing():
            self.message.say(
                INFORMATION,
                f"{group.name}: {' and '.join(group.missing())} not among the layers; undo the "
                "removal or reconstruct again.",
            )
        for tab in self._pages:
            tab.set_group(group)

    def _on_calibrated(self) -> None:
        for tab in (self.pixel, self.profile):
            tab.set_group(self.group.value())

    def _on_trouble(self, tab: ResultTab, message: str) -> None:
        self._troubles[tab] = message
        told = next(filter(None, self._troubles.values()), "")
        if told:
            self.message.say(ERROR, told)
        elif self.pixel.isEnabled():  # else the line says what is missing of the result
            self.message.clear()

    def _on_slider(self) -> None:
        if not self._gone.is_set():  # the viewer outlives a dock that was removed
            self._show_frame()

    @qdebounced(timeout=50)  # ms: a dragged slider passes many frames
    def _show_frame(self) -> None:
        for tab in self._pages:
            tab.on_slider()

    def _on_theme(self) -> None:
        if not self._gone.is_set():
            for tab in self._pages:
                tab.set_theme_colors(ThemeColors.of(self._viewer))


class AgreementTab(ResultTab):
    """Rank correlations of rate map, spread, structure and error, and error against spread."""

    calibrated = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self._frame: tuple[int, ...] = ()
        self._note = ""
        self.truth = ChoiceBox(viewer, self._truth_entries)
        self.truth.setToolTip(HELP["truth"])
        self.numbers: dict[tuple[str, str], QLabel] = {}
        self.plot = ErrorPlot(ThemeColors.of(viewer))
        self.plot.plot.setToolTip(HELP["plot"])
        self.text = wrapped_label()
        self.calibrate = make_button(
            "&Calibrate on this truth", HELP["calibrate"], self._on_calibrate
        )
        self.calibrate.setEnabled(False)
        self.work = LatestWork(self, "Comparing rate map and spread")
        self.fitting = LatestWork(self, "Calibrating the spread")
        choice = fill_layout(QHBoxLayout(), label_field("&Truth", self.truth), (self.truth, 1))
        fill_layout(
            QVBoxLayout(self),
            choice,
            self.calibrate,
            self._table(),
            self.text,
            (self.plot, 1),
            margins=(4, 4, 4, 4),
        ).addStretch()
        self.truth.changed.connect(self.refresh)
        self.work.succeeded.connect(self._on_compared)
        self.work.failed.connect(self._on_failed)
        self.fitting.succeeded.connect(self._on_calibrated)
        self.fitting.failed.connect(self.trouble)
        self._clear()

    def _table(self) -> QGridLayout:
        table = QGridLayout()
        for row, (first, title) in enumerate({"": "Spearman's ρ", **ROWS}.items()):
            for column, (second, head) in enumerate({"": title, **COLUMNS}.items()):
                is_head = not (row and column)
                # Of each pair only one order has a number; the other cells stay empty.
                if not is_head and f"{first}_{second}" not in Correlations.__dataclass_fields__:
                    continue
                cell = QLabel(head if is_head else "")
                if not is_head:
                    self.numbers[first, second] = cell
                cell.setToolTip(HELP["ranks"])
                cell.setAlignment(
                    Qt.AlignmentFlag.AlignRight if column else Qt.AlignmentFlag.AlignLeft
                )
                table.addWidget(cell, row, column)
        return table

    def _truth_entries(self) -> list[ChoiceItem]:
        # A truth has one value for each pixel, and one grid; another reconstruction may serve.
        entries = [
            ChoiceItem(text=layer.name, key=layer, value=layer, preferred=self._fits(layer))
            for layer in self._viewer.layers
            if isinstance(layer, Image)
            and not layer.rgb
            and not layer.multiscale
            and plugin_metadata(layer).get("role") in (None, TRUTH, RECONSTRUCTION)
        ]
        return [ChoiceItem(text="none", key=None, value=None), *entries]

    def _fits(self, layer: Layer) -> bool:
        """Whether a layer is marked as a truth and lies on the grid of the result."""
        rate = None if self._group is None else self._group.rate
        return (
            rate is not None
            and plugin_metadata(layer).get("role") == TRUTH
            and layer.data.shape[-2:] == rate.data.shape[-2:]
            and same_place(self._viewer, rate, layer)
        )

    def set_group(self, group: ResultGroup | None) -> None:
        """Show another result, or the same after its layers have changed; None shows nothing."""
        other = group is None or self._group is None or group.name != self._group.name
        self._group = group if group is not None and not group.missing() else None
        self.setEnabled(self._group is not None)
        if other:  # what lies on the grid of one result need not lie on that of another
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

    @qdebounced(timeout=200)  # ms
    def refresh(self) -> None:
        """Compare again."""
        self.work.cancel()  # else the answer of the former frame or truth may arrive after this
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
        # A phase is known up to a constant, which is no error.
        self.work.start(correlate_maps(frame, truth, phase=self.unit == "rad"), total=2)

    def _truth_pixels(self, group: ResultGroup, layer: Layer | None) -> np.ndarray | None:
        self._note = ""
        rate = group.rate
        if layer is None or rate is None:
            return None
        given, needed = (
            " × ".join(str(side) for side in one.data.shape[-2:]) for one in (layer, rate)
        )
        if given != needed:
            raise RequestError(
                f"{layer.name} has {given} pixels, the result {needed}; a truth must lie on the "
                "grid of the result. Choose another, or resample it to that grid first."
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
            phase = self.unit == "rad"
            work = calibrate_frame(frame, truth, settings, layer.name, phase=phase)
            self.fitting.start(work, total=1)

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
        self.text.setText(describe_correlations(found, self.unit) + self._note)
        self.plot.setVisible(found.by_spread is not None)
        if found.by_spread is not None:
            self.plot.show_error(found.by_spread, self.unit)

    def _clear(self) -> None:
        for label in self.numbers.values():
            label.setText("–")
        self.text.clear()
        self.plot.hide()
