"""Plots of the docks: drawn by pyqtgraph, in the colours of napari's theme."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QBuffer, QByteArray, QIODevice, Qt
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_cvdm.analysis.correlations import ErrorBySpread
from napari_cvdm.analysis.intervals import CredibleInterval, LineProfile, SampleHistogram
from napari_cvdm.analysis.schedule_maps import ScheduleCurves

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_cvdm.analysis.next_image import Outlook  # it brings torch

# Okabe and Ito: told apart by every eye, on dark and on light.
COLORS = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#0072b2")
SCHEDULE_PLOTS = {"gamma": "γ", "beta": "β", "half_log_snr": "½ log SNR"}
LEAST_HEIGHT_PX = 84
AXIS_WIDTH_PX = 52  # the same in plots that stand above each other
MARGINS_PX = (0, 6, 10, 6)
LINE_PX = 2
PNG_SCALE = 3
SHOWN_LEVEL = (-8.0, 4.0)  # beyond these the signal, or the noise, is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class ThemeColors:
    """Colours "#rrggbb" of the text of a theme, and of what it stands on."""

    text: str
    paper: str

    @classmethod
    def of(cls, viewer: "Viewer") -> "ThemeColors":
        """The colours of a viewer now."""
        from napari.utils.theme import get_theme

        theme = get_theme(viewer.theme)
        text, paper = (color.as_hex(format="long") for color in (theme.text, theme.background))
        return cls(text=str(text), paper=str(paper))


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCurves:
    """Curves of a region, with its name and colour."""

    name: str
    color: str
    curves: ScheduleCurves = field(repr=False)


def new_plot(left: str, bottom: str) -> Any:
    """An empty plot that neither moves nor zooms, and grows and shrinks with its dock."""
    import pyqtgraph

    plot = pyqtgraph.PlotWidget()
    plot.setMinimumSize(AXIS_WIDTH_PX, LEAST_HEIGHT_PX)
    plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
    plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the Tab key passes: there is nothing to set
    plot.setAntialiasing(True)
    plot.setMouseEnabled(x=False, y=False)
    plot.setMenuEnabled(False)
    plot.hideButtons()
    item = plot.getPlotItem()
    item.layout.setContentsMargins(*MARGINS_PX)
    item.getAxis("left").setWidth(AXIS_WIDTH_PX)
    for side, title in (("left", left), ("bottom", bottom)):
        # Else pyqtgraph scales the numbers and writes a factor such as (x0.001) beside them.
        item.getAxis(side).enableAutoSIPrefix(False)
        item.getAxis(side).setStyle(maxTickLevel=0)  # small ticks take most of the time of drawing
        if title:
            item.setLabel(side, title)
    return plot


def paint(plot: Any, colors: ThemeColors) -> None:
    """Paper, axes, numbers and titles in the colours of a theme."""
    plot.setBackground(colors.paper)
    for side in ("left", "bottom"):
        axis = plot.getPlotItem().getAxis(side)
        axis.setPen(colors.text)
        axis.setTextPen(colors.text)


def _line(color: str) -> dict[str, Any]:
    return {"color": color, "width": LINE_PX}


def _dashes(color: str) -> dict[str, Any]:
    return {"color": color, "style": Qt.PenStyle.DashLine}


def _only(widget: QWidget, *plots: Any) -> None:
    layout = QVBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(0)
    for plot in plots:
        layout.addWidget(plot, 1)


class SchedulePlots(QWidget):
    """gamma, beta and half log-SNR over t, one above the other.

    The curves are those of one pixel, and of regions in their colours.
    """

    def __init__(self, colors: ThemeColors) -> None:
        from pyqtgraph import InfiniteLine

        super().__init__()
        self.plots = {
            name: new_plot(title, "t" if name == "half_log_snr" else "")
            for name, title in SCHEDULE_PLOTS.items()
        }
        self._pixel = {name: plot.plot() for name, plot in self.plots.items()}
        self._now = {name: InfiniteLine() for name in self.plots}
        self._regions: list[tuple[Any, Any]] = []
        _only(self, *self.plots.values())
        for name, plot in self.plots.items():
            axis = plot.getPlotItem().getAxis("bottom")
            axis.setTicks([[(0.0, "0"), (0.25, ""), (0.5, "0.5"), (0.75, ""), (1.0, "1")]])
            axis.setStyle(showValues=name == "half_log_snr")  # the lowest plot has them for all
            # A line without ends must not take part in the range of the plot.
            plot.addItem(self._now[name], ignoreBounds=True)
            self._pixel[name].setZValue(1)
        self.plots["gamma"].setYRange(0, 1)
        self.plots["beta"].setLogMode(y=True)
        self.plots["half_log_snr"].setYRange(*SHOWN_LEVEL)
        for plot in self.plots.values():
            plot.setXRange(0, 1)  # after the logarithm, which lets go of it
        self.show_time(None)
        self.set_theme_colors(colors)

    def show_pixel(self, curves: ScheduleCurves | None) -> None:
        """Draw the schedule of one pixel; None draws none."""
        for name, item in self._pixel.items():
            item.setData(*(([], []) if curves is None else (curves.times, getattr(curves, name))))

    def show_regions(self, regions: Sequence[NamedCurves]) -> None:
        """Draw these regions and no others."""
        for plot, item in self._regions:
            plot.removeItem(item)
        self._regions = [
            (plot, plot.plot(one.curves.times, getattr(one.curves, name), pen=_line(one.color)))
            for name, plot in self.plots.items()
            for one in regions
        ]

    def show_time(self, time: float | None) -> None:
        """Mark the t of napari's slider; None marks nothing."""
        for line in self._now.values():
            line.setVisible(time is not None)
            line.setValue(0.0 if time is None else time)

    def set_theme_colors(self, colors: ThemeColors) -> None:
        """Draw in the colours of another theme."""
        for name, plot in self.plots.items():
            paint(plot, colors)
            self._pixel[name].setPen(_line(colors.text))
            self._now[name].setPen(_dashes(colors.text))


class SamplePlot(QWidget):
    """Histogram of the samples at one pixel, with the interval that the spread claims."""

    def __init__(self, colors: ThemeColors) -> None:
        from pyqtgraph import InfiniteLine, LinearRegionItem

        super().__init__()
        self.plot = new_plot("samples", "value")
        self._claim = LinearRegionItem(movable=False)
        self._bars = self.plot.plot(fillLevel=0, brush=f"{COLORS[1]}a0", pen=COLORS[1])
        self._mean = InfiniteLine()
        for item in (self._claim, self._mean):
            self.plot.addItem(item)
        _only(self, self.plot)
        self.set_theme_colors(colors)

    def show_samples(
        self, histogram: SampleHistogram, claim: CredibleInterval, mean: float, unit: str
    ) -> None:
        """Draw the samples of one pixel, their mean and the claimed interval."""
        self.plot.setLabel("bottom", f"value [{unit}]")
        self._claim.setRegion((claim.low, claim.high))
        self._bars.setData(histogram.edges, histogram.counts, stepMode="center")
        self._mean.setValue(mean)

    def set_theme_colors(self, colors: ThemeColors) -> None:
        """Draw in the colours of another theme."""
        paint(self.plot, colors)
        self._claim.setBrush(f"{colors.text}28")
        self._mean.setPen(_line(colors.text))
        for edge in self._claim.lines:
            edge.setPen(_dashes(colors.text))


class ErrorPlot(QWidget):
    """Error against spread: on the dashed line the spread is honest, above it too small."""

    def __init__(self, colors: ThemeColors) -> None:
        super().__init__()
        self.plot = new_plot("RMS error", "spread")
        self._honest = self.plot.plot()
        self._found = self.plot.plot(
            pen=_line(COLORS[0]), symbol="o", symbolSize=7, symbolBrush=COLORS[0], symbolPen=None
        )
        _only(self, self.plot)
        self.set_theme_colors(colors)

    def show_error(self, found: ErrorBySpread, unit: str) -> None:
        """Draw one point for each bin, and the line of an honest spread."""
        self.plot.setLabel("left", f"RMS error [{unit}]")
        self.plot.setLabel("bottom", f"spread [{unit}]")
        end = float(found.spread[-1])
        self._honest.setData([0.0, end], [0.0, end])
        self._found.setData(found.spread, found.error)

    def set_theme_colors(self, colors: ThemeColors) -> None:
        """Draw in the colours of another theme."""
        paint(self.plot, colors)
        self._honest.setPen(_dashes(colors.text))


def plot_png(plot: Any) -> bytes:
    """A plot as it is seen, as a PNG of three times as many pixels."""
    from pyqtgraph.exporters import ImageExporter

    exporter = ImageExporter(plot.getPlotItem())
    exporter.parameters()["width"] = PNG_SCALE * max(1, plot.width())
    content = QByteArray()
    buffer = QBuffer(content)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    exporter.export(toBytes=True).save(buffer, "PNG")
    return bytes(content.data())


class ProfilePlot(QWidget):
    """A result along a line with its interval, and the measured image scaled to its range."""

    def __init__(self, colors: ThemeColors) -> None:
        from pyqtgraph import FillBetweenItem

        super().__init__()
        self.plot = new_plot("value", "distance [µm]")
        self._low, self._high = self.plot.plot(), self.plot.plot()
        self._band = FillBetweenItem(self._low, self._high, brush=f"{COLORS[1]}60")
        self.plot.addItem(self._band)
        self._raw, self._mean = self.plot.plot(), self.plot.plot()
        _only(self, self.plot)
        self.set_theme_colors(colors)

    def show_profile(self, profile: LineProfile, raw: np.ndarray | None, unit: str) -> None:
        """Draw one profile. `raw` (K,) is the measured image at its points, in any unit."""
        self.plot.setLabel("left", f"value [{unit}]")
        inside = np.isfinite(profile.mean)  # NaN where the line leaves the result
        distance, mean = profile.distance_um[inside], profile.mean[inside]
        self._mean.setData(distance, mean)
        for curve, end in ((self._low, profile.low), (self._high, profile.high)):
            curve.setData(distance, mean if end is None else end[inside])
        self._band.setVisible(profile.low is not None)
        self._raw.setVisible(raw is not None)
        if raw is not None:
            seen = inside & np.isfinite(raw)
            shown = raw[seen] - raw[seen].min() if seen.any() else raw[seen]
            most = float(shown.max()) if shown.size else 0.0
            scaled = mean.min() + shown * (float(np.ptp(mean)) / most if most else 1.0)
            self._raw.setData(profile.distance_um[seen], scaled)

    def clear(self) -> None:
        """Draw nothing."""
        for curve in (self._low, self._high, self._mean, self._raw):
            curve.setData([], [])

    def set_theme_colors(self, colors: ThemeColors) -> None:
        """Draw in the colours of another theme."""
        paint(self.plot, colors)
        self._mean.setPen(_line(colors.text))
        self._raw.setPen(_dashes(COLORS[0]))
        for edge in (self._low, self._high):
            edge.setPen(None)


class OutlookPlot(QWidget):
    """Expected error over the distance of the planes, or over the exposure."""

    def __init__(self, colors: ThemeColors) -> None:
        from pyqtgraph import InfiniteLine

        super().__init__()
        self.plot = new_plot("expected error", "")
        self.plot.setLogMode(x=True)
        self._curve = self.plot.plot(pen=_line(COLORS[0]))
        self._now = InfiniteLine()
        self.plot.addItem(self._now, ignoreBounds=True)
        _only(self, self.plot)
        self.set_theme_colors(colors)

    def show_outlook(self, outlook: "Outlook") -> None:
        """Draw one curve, and mark where the present image is."""
        planes, exposure = "half distance of the outer planes [µm]", "exposure [× this image]"
        self.plot.setLabel("left", f"expected error [{outlook.unit}]")
        self.plot.setLabel("bottom", planes if outlook.of_planes else exposure)
        self._curve.setData(outlook.curve, outlook.errors)
        # pyqtgraph takes the logarithm of curves, but not of single lines and of ticks.
        self._now.setValue(float(np.log10(outlook.present)))
        self.plot.setYRange(0, 1.05 * float(outlook.errors.max()))
        ticks = [(float(np.log10(at)), f"{at:.2g}") for at in outlook.curve[::4]]
        self.plot.getPlotItem().getAxis("bottom").setTicks([ticks])

    def set_theme_colors(self, colors: ThemeColors) -> None:
        """Draw in the colours of another theme."""
        paint(self.plot, colors)
        self._now.setPen(_dashes(colors.text))
