"""The view of a training: health lights, curves and a held-out field.

The field is reconstructed again every few minutes. pyqtgraph draws the curves in the colours of
the theme.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer
from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QSpinBox,
    QSplitter,
    QStyle,
    QVBoxLayout,
    QWidget,
)

from napari_cvdm.widgets.common.fields import (
    explain_control,
    fill_layout,
    label_field,
    make_button,
    word_choice,
    wrapped_label,
)
from napari_cvdm.widgets.common.plots import (
    AXIS_WIDTH_PX,
    COLORS,
    LINE_PX,
    ThemeColors,
    new_plot,
    paint,
)
from napari_cvdm.widgets.common.worker import listen
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, LayerData, plugin_metadata
from napari_cvdm.widgets.layers.shown_layers import show_layers
from napari_cvdm.widgets.train.train_run import PREVIEW_EVERY_MIN, TrainingControl

if TYPE_CHECKING:
    from napari_cvdm.training.health import Finding
    from napari_cvdm.training.loop import Trained, TrainStep
    from napari_cvdm.training.validation import Preview, ScheduleNow, Score

LIGHT_COLUMNS = 2
GOOD, BAD = QStyle.StandardPixmap.SP_DialogApplyButton, QStyle.StandardPixmap.SP_MessageBoxWarning
NOT_YET = "Not looked at yet."
STAGES = ("mean", "diffusion")
LOWEST = 1e-6  # a term below this has done its work, and would only make the others flat
HEIGHTS = (200, 140, 120)  # in proportion
N_PREVIOUS = 6  # schedules of before that stay to be seen
ROLE = "training preview"
IMAGES = ("measured", "truth", "spread", "mean")  # the last lies on top
LIMITS_PERCENTILES = (0.5, 99.5)  # the rarest pixels set no contrast
LEAST_RANGE = 1e-6  # of contrast limits, for an image of one value


class TrainProgress(QWidget):
    """Lights, plots and previews of one training at a time."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._control = TrainingControl()  # nobody reads it before a training begins
        self.lights, self.preview = HealthSigns(), TrainingPreview(viewer)
        self.every, self.field = QSpinBox(), QSpinBox()
        self.every.setRange(0, 999)
        self.every.setValue(PREVIEW_EVERY_MIN)
        self.field.setRange(1, 999)
        explain_control(
            self.every,
            "Minutes after which a held-out field is reconstructed again and shown as layers; 0 "
            "for never.",
        )
        explain_control(self.field, "Which of the held-out fields.")
        self.now = make_button(
            "&Make one now", "Reconstruct it after the next step.", self._ask_preview
        )
        self.plots = TrainPlots(ThemeColors.of(viewer))
        row = fill_layout(
            QHBoxLayout(),
            label_field("preview ever&y, min", self.every),
            self.every,
            label_field("fiel&d", self.field),
            self.field,
            (self.now, 1),
        )
        self._layout = fill_layout(
            QVBoxLayout(self), row, self.lights, (self.plots, 1), margins=(4, 4, 4, 4)
        )
        listen(self, viewer.events.theme, self._on_theme)
        for signal in (self.every.valueChanged, self.field.valueChanged):
            signal.connect(self._set_control)
        self.end()

    def begin(self, control: TrainingControl) -> None:
        """Show nothing of an earlier training, and heed what is asked of this one."""
        old, self.plots = self.plots, TrainPlots(ThemeColors.of(self._viewer))
        self._layout.replaceWidget(old, self.plots)
        old.hide()  # it is deleted later, and would lie over the new plots until then
        old.deleteLater()
        self.lights.forget()
        self._control = control
        self.now.setEnabled(True)
        self._set_control()

    def end(self) -> None:
        """The training has ended; what is shown stays."""
        self.now.setEnabled(False)

    def on_step(self, step: "TrainStep") -> None:
        """Draw what a step has to tell."""
        self.plots.add(step)
        if step.findings is not None:
            self.lights.show_findings(step.findings, looked_for(step))

    def on_preview(self, preview: "Preview") -> None:
        """Show a held-out field."""
        self.preview.show(preview)

    def on_trained(self, trained: "Trained") -> None:
        """The last look: at the model that was made."""
        if trained.score is not None:
            self.plots.add_last(trained.score)

    def _set_control(self) -> None:
        self._control.preview_every_s = 60.0 * self.every.value()
        self._control.field = self.field.value() - 1  # users count from 1

    def _ask_preview(self) -> None:
        self._control.preview_asked.set()

    def _on_theme(self) -> None:
        self.plots.set_theme_colors(ThemeColors.of(self._viewer))


def looked_for(step: "TrainStep") -> set[str]:
    """Names of the failures that a step with findings tells of."""
    from napari_cvdm.training.health import SCHEDULE_FAILURES, SPREAD_FAILURES

    names = {"exploding gradients", "data wrong"}
    names |= set(SCHEDULE_FAILURES) if step.schedule is not None else set()
    if step.score is not None:
        names |= {"overfitting", *(SPREAD_FAILURES if step.stage == "diffusion" else ())}
    return names


class HealthSign(QWidget):
    """What is good or not, with an icon; grey as long as nobody has looked.

    `name` is that of the failure, and `good` what is so without it.
    """

    def __init__(self, name: str, good: str) -> None:
        super().__init__()
        self.name, self._good = name, good
        self._icon, self._text = QLabel(), QLabel()
        self._icon.setFixedWidth(self.fontMetrics().height())
        fill_layout(QHBoxLayout(self), self._icon, (self._text, 1))
        self.show_finding(None, looked=False)

    def text(self) -> str:
        """What stands beside the icon."""
        return self._text.text()

    @property
    def is_grey(self) -> bool:
        """Whether nobody has looked yet."""
        return not self._text.isEnabled()

    def show_finding(self, finding: "Finding | None", *, looked: bool = True) -> None:
        """Light up with a finding; None is good, or grey as long as nobody has `looked`."""
        self.finding = finding
        text, tip = self._good, "Looked at: no sign of it." if looked else NOT_YET
        if finding is not None:
            text = self.name
            tip = f"{finding.value:.3g}, threshold {finding.threshold:.3g}. {finding.advice}"
        self._icon.clear()
        if looked:
            icon, side = GOOD if finding is None else BAD, self.fontMetrics().height()
            self._icon.setPixmap(self.style().standardIcon(icon).pixmap(side, side))
        font = self._text.font()
        font.setBold(finding is not None)
        self._text.setFont(font)
        self._text.setText(text)
        self._text.setEnabled(looked)
        self.setToolTip(tip)


class HealthSigns(QWidget):
    """Every light, and below them what to do about those that are lit."""

    def __init__(self) -> None:
        from napari_cvdm.training.health import FAILURES

        super().__init__()
        self.lights = {name: HealthSign(name, good) for name, good in FAILURES.items()}
        self.advice = wrapped_label()
        grid = QGridLayout()
        grid.setVerticalSpacing(0)
        for number, light in enumerate(self.lights.values()):
            grid.addWidget(light, number // LIGHT_COLUMNS, number % LIGHT_COLUMNS)
        fill_layout(QVBoxLayout(self), grid, self.advice, margins=(4, 0, 4, 0))
        self.advice.hide()

    def show_findings(self, findings: "Sequence[Finding]", looked: Collection[str]) -> None:
        """Show what was found; what was looked for and is not named is good."""
        found = {finding.name: finding for finding in findings}
        for name in {*looked, *found}:
            self.lights[name].show_finding(found.get(name))
        self._advise()

    def add(self, finding: "Finding") -> None:
        """Light one more."""
        self.show_findings([finding], ())

    def forget(self) -> None:
        """Put every light out."""
        for light in self.lights.values():
            light.show_finding(None, looked=False)
        self._advise()

    def _advise(self) -> None:
        lit = [light.finding for light in self.lights.values() if light.finding is not None]
        self.advice.setText("\n".join(f"{finding.name}: {finding.advice}" for finding in lit))
        self.advice.setVisible(bool(lit))


class Trace:
    """One curve that grows; `number` chooses its colour, and dashes where colours are used up."""

    def __init__(self, plot: Any, name: str, number: int) -> None:
        from pyqtgraph import mkPen

        style = (Qt.PenStyle.SolidLine, Qt.PenStyle.DashLine)[number // len(COLORS) % 2]
        self.name, self.color = name, COLORS[number % len(COLORS)]
        self._points: list[tuple[float, float]] = []
        self._item = plot.plot(
            pen=mkPen(self.color, width=LINE_PX, style=style),
            symbol="o",
            symbolSize=4,
            symbolBrush=self.color,
            symbolPen=None,
        )

    def add(self, step: int, value: float) -> None:
        """Grow by one point; what a run that was gone on with makes again goes."""
        self._points = [point for point in self._points if point[0] < step] + [(float(step), value)]
        self._item.setData(*np.array(self._points).T)

    @property
    def values(self) -> list[float]:
        """Every value so far."""
        return [value for _, value in self._points]


class Legend(QLabel):
    """Names of curves in their colours, with their latest values, beside the plot."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.RichText)
        self.setContentsMargins(AXIS_WIDTH_PX, 0, 0, 0)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)

    def show_traces(self, traces: Iterable[Trace]) -> None:
        """List these."""
        self.setText(
            " &nbsp; ".join(
                f'<span style="color:{trace.color}">■</span>&nbsp;'
                f"{trace.name}&nbsp;{trace.values[-1]:.3g}"
                for trace in traces
                if trace.values
            )
        )


class TermsPlot(QWidget):
    """Every term of the loss, of the stage that is chosen; logarithmic."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = word_choice(STAGES)
        explain_control(
            self.stage,
            "The stage whose loss terms are drawn: the regression mean, or denoiser and schedule.",
        )
        self.legend = Legend()
        self.plots = {name: new_plot("", "") for name in STAGES}
        self.traces: dict[str, dict[str, Trace]] = {name: {} for name in STAGES}
        for plot in self.plots.values():
            plot.setLogMode(y=True)
        stage = label_field("loss terms of", self.stage)
        row = fill_layout(QHBoxLayout(), stage, (self.stage, 1))
        plots = ((plot, 1) for plot in self.plots.values())
        fill_layout(QVBoxLayout(self), row, self.legend, *plots).setSpacing(0)
        self.stage.currentTextChanged.connect(self._on_stage)
        self._on_stage(STAGES[0])

    def _on_stage(self, chosen: str) -> None:
        for name, plot in self.plots.items():
            plot.setVisible(name == chosen)
        self.legend.show_traces(self.traces[chosen].values())

    def add(self, step: "TrainStep") -> None:
        """Draw one line of the log; a stage that begins is shown."""
        traces, plot = self.traces[step.stage], self.plots[step.stage]
        # Only at its first line: afterwards the choice is the user's.
        if not traces and step.terms:
            self.stage.setCurrentText(step.stage)
        for name, value in step.terms.items():
            if name not in ("learning_rate", "gradient"):
                if name not in traces:
                    traces[name] = Trace(plot, name, len(traces))
                traces[name].add(step.step, max(value, LOWEST))  # zero has no logarithm
        self.legend.show_traces(self.traces[self.stage.currentText()].values())


class HeldOutPlot(QWidget):
    """Error on held-out fields over all steps; the dashed line is the model at the start."""

    def __init__(self) -> None:
        from pyqtgraph import InfiniteLine

        super().__init__()
        self.plot = new_plot("held out", "step, over both stages")
        self.legend = Legend()
        self.rmse, self.crps = Trace(self.plot, "RMSE", 0), Trace(self.plot, "CRPS", 1)
        self._start = (InfiniteLine(angle=0), InfiniteLine(angle=0))
        for line in self._start:
            line.setVisible(False)
            self.plot.addItem(line)
        fill_layout(QVBoxLayout(self), self.legend, (self.plot, 1)).setSpacing(0)

    def add(self, step: int, score: "Score") -> None:
        """Draw one look."""
        self.rmse.add(step, score.rmse)
        self.crps.add(step, score.crps)
        self.legend.show_traces((self.rmse, self.crps))

    def show_start(self, score: "Score") -> None:
        """Draw the model that the training began with."""
        from pyqtgraph import mkPen

        traces, values = (self.rmse, self.crps), (score.rmse, score.crps)
        for line, trace, value in zip(self._start, traces, values, strict=True):
            line.setPen(mkPen(trace.color, style=Qt.PenStyle.DashLine))
            line.setValue(value)
            line.setVisible(True)


class MovingSchedule(QWidget):
    """gamma(t) of the median pixel, and the band between the 5 and 95 % pixels.

    Earlier curves of the median are faint.
    """

    def __init__(self) -> None:
        from pyqtgraph import FillBetweenItem, mkPen

        super().__init__()
        self.plot = new_plot("γ", "t")
        self.plot.setXRange(0, 1)
        self.plot.setYRange(0, 1)
        self._low, self._high = self.plot.plot(pen=mkPen(None)), self.plot.plot(pen=mkPen(None))
        self.plot.addItem(FillBetweenItem(self._low, self._high, brush=f"{COLORS[1]}5a"))
        self.previous = [self.plot.plot() for _ in range(N_PREVIOUS)]
        self._median = self.plot.plot(pen=mkPen(COLORS[1], width=LINE_PX))
        self.seen: list[tuple[np.ndarray, np.ndarray]] = []
        fill_layout(QVBoxLayout(self), self.plot)

    def show_schedule(self, schedule: "ScheduleNow") -> None:
        """Draw where the schedule is now."""
        from napari_cvdm.analysis.schedule_maps import pixel_curves

        low, median, high = (pixel_curves(rate, schedule.clock) for rate in schedule.rates)
        for item, curve in ((self._low, low), (self._high, high), (self._median, median)):
            item.setData(curve.times, curve.gamma)
        for item, (times, gamma) in zip(self.previous, self.seen[::-1], strict=False):
            item.setData(times, gamma)
        self.seen = [*self.seen, (median.times, median.gamma)][-N_PREVIOUS:]


class TrainPlots(QSplitter):
    """All plots of a training, one above the other; what is between them can be dragged."""

    def __init__(self, colors: ThemeColors) -> None:
        super().__init__()
        self.terms, self.held_out, self.schedule = TermsPlot(), HeldOutPlot(), MovingSchedule()
        self.setOrientation(Qt.Orientation.Vertical)
        self.setChildrenCollapsible(False)
        for part in (self.terms, self.held_out, self.schedule):
            # What each would like is not what there is.
            part.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Ignored)
            self.addWidget(part)
        self.setSizes(list(HEIGHTS))
        # Steps of the stages that are over, and of the one that is not.
        self._before, self._last = (0, 0)
        self._stage = ""
        self.set_theme_colors(colors)

    def add(self, step: "TrainStep") -> None:
        """Draw what a step has to tell."""
        # Steps are counted anew in each stage, but the held-out curve runs over both.
        if step.stage == "diffusion" and self._stage == "mean":
            self._before = self._last
        self._stage, self._last = step.stage, step.step
        self.terms.add(step)
        if step.start is not None:
            self.held_out.show_start(step.start)
        if step.score is not None:
            self.held_out.add(self._before + step.step, step.score)
        if step.schedule is not None:
            self.schedule.show_schedule(step.schedule)

    def add_last(self, score: "Score") -> None:
        """Draw the score of the model that was made."""
        self.held_out.add(self._before + self._last, score)

    def set_theme_colors(self, colors: ThemeColors) -> None:
        """Draw in the colours of another theme."""
        from pyqtgraph import mkColor, mkPen

        for plot in (*self.terms.plots.values(), self.held_out.plot, self.schedule.plot):
            paint(plot, colors)
        faint = mkColor(colors.text)
        faint.setAlpha(70)
        for curve in self.schedule.previous:
            curve.setPen(mkPen(faint))


class TrainingPreview:
    """Layers measured, truth, spread and mean of one held-out field, renewed with every preview."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer

    def layers(self) -> dict[str, Layer]:
        """Those that are there, by what they show."""
        marks = [(layer, plugin_metadata(layer)) for layer in self._viewer.layers]
        return {str(mark["source"]): layer for layer, mark in marks if mark.get("role") == ROLE}

    def show(self, preview: "Preview") -> None:
        """Show a preview; contrast limits stay as they are, so that a change is seen."""
        found = self.layers()
        # The user may have removed a layer, and another field may have another shape.
        if all(
            name in found and found[name].data.shape == getattr(preview, name).shape
            for name in IMAGES
        ):
            for name in IMAGES:
                found[name].data = getattr(preview, name)
        else:
            show_layers(self._viewer, [_layer(preview, name) for name in IMAGES])


def _layer(preview: "Preview", name: str) -> LayerData:
    """One of the images; truth and mean, which are to be compared, have the same limits."""
    finer = preview.truth.shape[0] // preview.measured.shape[0] if name != "measured" else 1
    pixel, unit = (preview.pixel_um, "um") if preview.pixel_um else (1.0, "pixel")
    ranged = {"measured": preview.measured, "spread": preview.spread}.get(name, preview.truth)
    low, high = (float(value) for value in np.percentile(ranged, LIMITS_PERCENTILES))
    low = 0.0 if name == "spread" else low
    keywords = {
        "name": f"{ROLE}: {name}",
        "scale": (pixel / finer,) * 2,
        # napari places the centre of a pixel, so finer pixels begin a part of a pixel earlier.
        "translate": (-pixel * (finer - 1) / (2 * finer),) * 2,
        "units": (unit, unit),
        "axis_labels": ("y", "x"),
        "visible": name in ("measured", "mean"),
        "metadata": {METADATA_KEY: {"role": ROLE, "source": name}},
        "colormap": "magma" if name == "spread" else "gray",
        "contrast_limits": (low, max(high, low + LEAST_RANGE)),
    }
    return getattr(preview, name), keywords, "image"
