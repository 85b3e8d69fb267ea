"""Plots of a training: every loss term, the held-out fields, and the schedule over time.

pyqtgraph draws them in the colours of the theme.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QSplitter, QVBoxLayout, QWidget

from napari_cvdm.widgets.common.fields import explain_control, word_choice
from napari_cvdm.widgets.common.plots import (
    AXIS_WIDTH_PX,
    COLORS,
    LINE_PX,
    ThemeColors,
    new_plot,
    paint,
)

if TYPE_CHECKING:
    from napari_cvdm.training.loop import TrainStep
    from napari_cvdm.training.validation import ScheduleNow, Score

STAGES = ("mean", "diffusion")
LOWEST = 1e-6  # a term below this has done its work, and would only make the others flat
HEIGHTS = (200, 140, 120)  # in proportion
N_PREVIOUS = 6  # schedules of before that stay to be seen


class Trace:
    """One curve that grows.

    Parameters
    ----------
    plot : PlotWidget
    name : str
    number : int
        Chooses the colour, and dashes where the colours are used up.
    """

    def __init__(self, plot: Any, name: str, number: int) -> None:
        from pyqtgraph import mkPen

        style = (Qt.PenStyle.SolidLine, Qt.PenStyle.DashLine)[number // len(COLORS) % 2]
        self.name, self.color, self._points = (
            name,
            COLORS[number % len(COLORS)],
            list[tuple[float, float]](),
        )
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
        drawn = [trace for trace in traces if trace.values]
        self.setText(
            " &nbsp; ".join(
                f'<span style="color:{trace.color}">■</span>&nbsp;'
                f"{trace.name}&nbsp;{trace.values[-1]:.3g}"
                for trace in drawn
            )
        )


class TermsPlot(QWidget):
    """Every term of the loss, of the stage that is chosen; logarithmic."""

    def __init__(self, colors: ThemeColors) -> None:
        super().__init__()
        self.stage = word_choice(STAGES)
        explain_control(
            self.stage,
            "The stage whose loss terms are drawn: the regression mean, or denoiser and schedule.",
        )
        label = QLabel("loss terms of")
        label.setBuddy(self.stage)
        row = QHBoxLayout()
        row.addWidget(label)
        row.addWidget(self.stage, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(row)
        self.legend = Legend()
        layout.addWidget(self.legend)
        self._plots = {name: new_plot("", "") for name in STAGES}
        self.traces: dict[str, dict[str, Trace]] = {name: {} for name in STAGES}
        for plot in self._plots.values():
            plot.setLogMode(y=True)
            layout.addWidget(plot, 1)
        self.stage.currentTextChanged.connect(self._on_stage)
        self._on_stage(STAGES[0])
        self.set_theme_colors(colors)

    def _on_stage(self, chosen: str) -> None:
        for name, plot in self._plots.items():
            plot.setVisible(name == chosen)
        self.legend.show_traces(self.traces[chosen].values())

    def add(self, step: "TrainStep") -> None:
        """Draw one line of the log; a stage that begins is shown."""
        traces, plot = self.traces[step.stage], self._plots[step.stage]
        if not traces and step.terms:
            self.stage.setCurrentText(step.stage)
        for name, value in step.terms.items():
            if name not in ("learning_rate", "gradient"):
                if name not in traces:
                    traces[name] = Trace(plot, name, len(traces))
                traces[name].add(step.step, max(value, LOWEST))
        self.legend.show_traces(self.traces[self.stage.currentText()].values())

    def set_theme_colors(self, colors: ThemeColors) -> None:
        """Draw in the colours of another theme."""
        for plot in self._plots.values():
            paint(plot, colors)


class HeldOutPlot(QWidget):
    """Error on held-out fields over all steps; the dashed line is the model at the start."""

    def __init__(self, colors: ThemeColors) -> None:
        from pyqtgraph import InfiniteLine

        super().__init__()
        self.plot = new_plot("held out", "step, over both stages")
        self.legend = Legend()
        self.rmse, self.crps = Trace(self.plot, "RMSE", 0), Trace(self.plot, "CRPS", 1)
        self._start = {0: InfiniteLine(angle=0), 1: InfiniteLine(angle=0)}
        for line in self._start.values():
            line.setVisible(False)
            self.plot.addItem(line)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.legend)
        layout.addWidget(self.plot, 1)
        self.set_theme_colors(colors)

    def add(self, step: int, score: "Score") -> None:
        """Draw one look."""
        self.rmse.add(step, score.rmse)
        self.crps.add(step, score.crps)
        self.legend.show_traces((self.rmse, self.crps))

    def show_start(self, score: "Score") -> None:
        """Draw the model that the training began with."""
        from pyqtgraph import mkPen

        for (number, line), value in zip(
            self._start.items(), (score.rmse, score.crps), strict=True
        ):
            line.setPen(mkPen(COLORS[number], style=Qt.PenStyle.DashLine))
            line.setValue(value)
            line.setVisible(True)

    def set_theme_colors(self, colors: ThemeColors) -> None:
        """Draw in the colours of another theme."""
        paint(self.plot, colors)


class MovingSchedule(QWidget):
    """gamma(t) of the median pixel, and the band between the 5 and 95 % pixels.

    Earlier curves of the median are faint.
    """

    def __init__(self, colors: ThemeColors) -> None:
        from pyqtgraph import FillBetweenItem, mkPen

        super().__init__()
        self.plot = new_plot("γ", "t")
        self.plot.setXRange(0, 1)
        self.plot.setYRange(0, 1)
        self._low, self._high = self.plot.plot(pen=mkPen(None)), self.plot.plot(pen=mkPen(None))
        self.plot.addItem(FillBetweenItem(self._low, self._high, brush=(86, 180, 233, 90)))
        self._before = [self.plot.plot() for _ in range(N_PREVIOUS)]
        self._median = self.plot.plot(pen=mkPen(COLORS[1], width=LINE_PX))
        self.seen: list[tuple[np.ndarray, np.ndarray]] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)
        self.set_theme_colors(colors)

    def show_schedule(self, schedule: "ScheduleNow") -> None:
        """Draw where the schedule is now."""
        from napari_cvdm.analysis.schedule_maps import pixel_curves

        low, median, high = (pixel_curves(rate, schedule.clock) for rate in schedule.rates)
        for item, curve in ((self._low, low), (self._high, high), (self._median, median)):
            item.setData(curve.times, curve.gamma)
        for item, (times, gamma) in zip(self._before, self.seen[::-1], strict=False):
            item.setData(times, gamma)
        self.seen = [*self.seen, (median.times, median.gamma)][-N_PREVIOUS:]

    def set_theme_colors(self, colors: ThemeColors) -> None:
        """Draw in the colours of another theme."""
        from pyqtgraph import mkColor, mkPen

        paint(self.plot, colors)
        faint = mkColor(colors.text)
        faint.setAlpha(70)
        for item in self._before:
            item.setPen(mkPen(faint))


class TrainPlots(QSplitter):
    """All plots of a training, one above the other; what is between them can be dragged."""

    def __init__(self, colors: ThemeColors) -> None:
        super().__init__()
        self.terms, self.held_out, self.schedule = (
            TermsPlot(colors),
            HeldOutPlot(colors),
            MovingSchedule(colors),
        )
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

    def add(self, step: "TrainStep") -> None:
        """Draw what a step has to tell."""
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
        for part in (self.terms, self.held_out, self.schedule):
            part.set_theme_colors(colors)
