"""What the tabs of the Inspect dock share, and the tab Schedule.

It shows the schedule at a pixel, over regions and as layers, and the samples.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from html import escape
from threading import Event
from typing import Any
from weakref import ref

from napari.layers import Labels, Shapes
from napari.viewer import Viewer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QSpinBox, QVBoxLayout, QWidget
from superqt.utils import qdebounced, qthrottled, signals_blocked

from napari_cvdm.analysis.intervals import pixel_interval, sample_histogram
from napari_cvdm.analysis.regions import BACKGROUND, STRUCTURE, structure_and_background
from napari_cvdm.analysis.schedule_maps import RegionCurves, pixel_curves, region_curves
from napari_cvdm.widgets.common.choices import ChoiceBox, ChoiceItem
from napari_cvdm.widgets.common.fields import (
    explain_control,
    fill_layout,
    label_field,
    make_button,
    wrapped_label,
)
from napari_cvdm.widgets.common.plots import (
    COLORS,
    NamedCurves,
    SamplePlot,
    SchedulePlots,
    ThemeColors,
)
from napari_cvdm.widgets.common.worker import Follower, LatestWork, when_gone
from napari_cvdm.widgets.layers.frames import (
    Pixel,
    drawn_regions,
    frame_index,
    pixel_at,
    result_frame,
    samples_at,
    values_at,
)
from napari_cvdm.widgets.layers.result_layers import ResultGroup
from napari_cvdm.widgets.layers.shown_layers import is_schedule, show_schedule

AUTOMATIC = "structure and background"
NONE = "no regions"
# Of Shapes and of Labels; events that a layer does not have are left out.
CHANGES = ("data", "labels_update", "paint", "features", "scale", "translate")
TITLES = {"gamma": "&Gamma", "beta": "&Beta", "log-SNR": "Log-S&NR"}
HELP = {
    "gamma": (
        "Add γ(t, x), the share of the signal that is left at time t, as a layer with a slider for "
        "t."
    ),
    "beta": "Add β(t, x), the rate at which the signal is lost, as a layer with a slider for t.",
    "log-SNR": (
        "Add half the logarithm of signal to noise, as the network sees it, as a layer with a "
        "slider for t."
    ),
    "pixel": "The pixel (row, column) of the result whose curves and samples are shown.",
    "follow": "Show the pixel under the mouse. Off: the pixel that is typed here stays.",
    "regions": (
        "Average the schedule over these regions: bright and dark parts of the reconstruction "
        "(Otsu's threshold),\n"
        "or the shapes or labels of a layer that you draw. Shapes count on every slice."
    ),
}


class ResultTab(QWidget):
    """A tab that shows one result. It has a `plot`, or draws in the colours of a theme itself."""

    trouble = Signal(str)  # what is wrong, in words; "" when nothing is any more
    plot: Any

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._group: ResultGroup | None = None

    @property
    def unit(self) -> str:
        """Unit of the result's values; "" without a result."""
        return "" if self._group is None else str(self._group.mark.get("unit", ""))

    def set_theme_colors(self, colors: ThemeColors) -> None:
        """Draw in the colours of another theme."""
        self.plot.set_theme_colors(colors)

    def _clear(self) -> None:
        raise NotImplementedError

    def _on_failed(self, message: str) -> None:
        self._clear()
        self.trouble.emit(message)


class PixelTab(ResultTab):
    """Curves and samples of one result."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self._pixel: Pixel = (0, 0)
        self._frame: tuple[int, ...] = ()
        self._regions: Sequence[NamedCurves] = ()
        self._region_events = Follower(self, self._on_drawn, CHANGES)
        self.buttons = {
            role: make_button(title, HELP[role], partial(self._add_layer, role))
            for role, title in TITLES.items()
        }
        self.row, self.column = QSpinBox(), QSpinBox()
        self.follow = QCheckBox("F&ollow")
        self.follow.setChecked(True)
        self.regions = ChoiceBox(viewer, self._region_entries)
        self.curves = SchedulePlots(ThemeColors.of(viewer))
        self.legend, self.values = wrapped_label(), wrapped_label()
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.samples = SamplePlot(ThemeColors.of(viewer))
        self.work = LatestWork(self, "Averaging the schedule")
        self._lay_out()
        for box in (self.row, self.column):
            box.valueChanged.connect(self._on_typed)
        self.regions.changed.connect(self._on_regions)
        self.work.succeeded.connect(self._on_averaged)
        self.work.failed.connect(self.trouble)
        follow_mouse(viewer, self)

    def _lay_out(self) -> None:
        layers = fill_layout(
            QHBoxLayout(), QLabel("As layers"), *((button, 1) for button in self.buttons.values())
        )
        pixel = fill_layout(
            QHBoxLayout(),
            label_field("P&ixel", self.row),
            (self.row, 1),
            (self.column, 1),
            self.follow,
        )
        average = fill_layout(
            QHBoxLayout(), label_field("&Average over", self.regions), (self.regions, 1)
        )
        fill_layout(
            QVBoxLayout(self),
            layers,
            pixel,
            average,
            self.legend,
            (self.curves, 3),
            self.values,
            (self.samples, 1),
            margins=(4, 4, 4, 4),
        ).setSpacing(4)
        for name, widget in (("follow", self.follow), ("regions", self.regions)):
            explain_control(widget, HELP[name])
        for box in (self.row, self.column):
            box.setToolTip(HELP["pixel"])

    def _region_entries(self) -> list[ChoiceItem]:
        drawn = [layer for layer in self._viewer.layers if isinstance(layer, Labels | Shapes)]
        fixed = [ChoiceItem(text=name, key=name, value=name) for name in (AUTOMATIC, NONE)]
        return [*fixed, *(ChoiceItem(text=layer.name, key=layer, value=layer) for layer in drawn)]

    def set_group(self, group: ResultGroup | None) -> None:
        """Show another result, or the same after its layers have changed; None shows nothing."""
        known = self._group is not None and group is not None and self._group.name == group.name
        self._group = group if group is not None and not group.missing() else None
        self.setEnabled(self._group is not None)
        if self._group is None or self._group.rate is None:
            self._clear()
            return
        height, width = self._group.rate.data.shape[-2:]
        y, x = self._pixel if known else (height // 2, width // 2)
        # A value above the new maximum changes, and a change by hand would end Follow.
        with signals_blocked(self.row), signals_blocked(self.column):
            self.row.setMaximum(height - 1)
            self.column.setMaximum(width - 1)
        self._frame = frame_index(self._viewer, self._group.rate)
        self.show_pixel((min(y, height - 1), min(x, width - 1)))
        self.refresh_regions()

    def _clear(self) -> None:
        self.work.cancel()
        self._regions = ()
        self.curves.show_pixel(None)
        self.curves.show_regions(())
        self.samples.hide()
        for label in (self.legend, self.values):
            label.clear()

    def on_slider(self) -> None:
        """Show the frame where napari's sliders stand, and mark t."""
        if self._group is None or self._group.rate is None:
            return
        before, self._frame = self._frame, frame_index(self._viewer, self._group.rate)
        if before == self._frame:
            self.curves.show_time(self._slider_time())
        else:
            self.show_pixel(self._pixel)
            self.refresh_regions()

    def set_theme_colors(self, colors: ThemeColors) -> None:
        """Draw in the colours of another theme."""
        self.curves.set_theme_colors(colors)
        self.samples.set_theme_colors(colors)
        self._say_legend()  # the curve of the pixel has the theme's text colour

    def _add_layer(self, role: str, _: bool = False) -> None:
        if self._group is not None:
            try:
                show_schedule(self._viewer, self._group, role)
            except ValueError as error:
                self.trouble.emit(str(error))

    @qthrottled(timeout=100)  # ms: at most ten pixels a second, however fast the mouse moves
    def on_mouse(self) -> None:
        """Show the pixel under the mouse, if it is to be followed and there is one."""
        rate = None if self._group is None else self._group.rate
        # In 3D no single pixel lies under the mouse.
        if rate is None or not self.follow.isChecked() or self._viewer.dims.ndisplay != 2:
            return
        pixel = pixel_at(rate, self._viewer.cursor.position)
        if pixel is not None and pixel != self._pixel:
            self.show_pixel(pixel)

    def _on_typed(self) -> None:
        self.follow.setChecked(False)
        self.show_pixel((self.row.value(), self.column.value()))

    def show_pixel(self, pixel: Pixel) -> None:
        """Curves, numbers and samples of one pixel of the frame where the sliders stand."""
        group = self._group
        if group is None or group.clock is None:
            return
        self._pixel = pixel
        for box, place in zip((self.row, self.column), pixel, strict=True):
            with signals_blocked(box):  # else this counts as typed, and ends Follow
                box.setValue(place)
        rate, mean, spread = values_at(self._viewer, group, pixel)
        self.curves.show_pixel(pixel_curves(rate, group.clock))
        self.curves.show_time(self._slider_time())
        claim = pixel_interval(mean, spread, group.mark.get("provenance", {}))
        trust = "calibrated" if claim.calibrated else "not calibrated"
        numbers = (
            f"λ = {rate:.3g}; {mean:.3g} ± {spread:.2g} {self.unit}. The spread claims "
            f"{claim.low:.3g} to {claim.high:.3g} {self.unit} ({claim.level:.0%}, {trust})."
        )
        samples = samples_at(self._viewer, group, pixel)
        self.samples.setVisible(samples is not None)
        if samples is None:
            numbers += (
                "\nThis result has no samples layer; keep the samples in a run to see their "
                "histogram."
            )
        else:
            self.samples.show_samples(sample_histogram(samples), claim, mean, self.unit)
        self.values.setText(numbers)

    def _slider_time(self) -> float | None:
        layer = next((layer for layer in self._viewer.layers if is_schedule(layer)), None)
        if layer is None:
            return None
        # napari aligns layers at their last axes, and t is the first axis of this one.
        return float(self._viewer.dims.point[self._viewer.dims.ndim - layer.ndim])

    def _on_regions(self) -> None:
        self._region_events.follow(self.regions.value())
        self.refresh_regions()

    def _on_drawn(self) -> None:  # a plain method, as `Follower` needs one
        self.refresh_regions()

    @qdebounced(timeout=200)  # ms: one stroke of the brush is many events
    def refresh_regions(self) -> None:
        """Average over the regions as they are now."""
        group, chosen = self._group, self.regions.value()
        self.work.cancel()  # else curves of the former regions may arrive after this
        if group is None or group.rate is None or group.clock is None or chosen in (None, NONE):
            self._show_regions(())
            return
        try:
            frame = result_frame(self._viewer, group)
            labels = (
                structure_and_background(frame.mean, frame.valid)
                if chosen == AUTOMATIC
                else drawn_regions(self._viewer, chosen, group.rate)
            )
        except ValueError as error:
            self.trouble.emit(str(error))
            return
        self.work.start(region_curves(frame.rate, labels, group.clock, most=len(COLORS)))

    def _on_averaged(self, found: RegionCurves) -> None:
        automatic = self.regions.value() == AUTOMATIC
        names = {STRUCTURE: "structure", BACKGROUND: "background"} if automatic else {}
        kind = type(self.regions.value()).__name__.lower().rstrip("s")
        shown = [
            NamedCurves(
                name=f"{names.get(number, f'{kind} {number}')} ({one.pixels} px)",
                color=color,
                curves=one,
            )
            for color, (number, one) in zip(COLORS, found.curves.items(), strict=False)
        ]
        self._show_regions(shown, found.found)
        self.trouble.emit("")  # an earlier trouble is over

    def _show_regions(self, shown: Sequence[NamedCurves], found: int = 0) -> None:
        self._regions = shown
        self.curves.show_regions(shown)
        self._say_legend(found)

    def _say_legend(self, found: int = 0) -> None:
        entries = [(one.name, one.color) for one in self._regions]
        legend = format_legend([*entries, ("pixel", ThemeColors.of(self._viewer).text)])
        if found > len(self._regions):
            legend += f"the first {len(self._regions)} of {found} regions"
        self.legend.setText(legend)


def format_legend(entries: Iterable[tuple[str, str]]) -> str:
    """Names and colours "#rrggbb" of curves as rich text."""
    # Within a name spaces do not break, so that a legend wraps between its entries.
    return "".join(
        f'<span style="color:{color}">■</span>&nbsp;{escape(name).replace(" ", "&nbsp;")}&nbsp; '
        for name, color in entries
    )


def follow_mouse(viewer: Viewer, tab: PixelTab) -> None:
    """Tell a tab that the mouse moves, as long as it exists; the viewer must not keep it alive."""
    gone, known = Event(), ref(tab)

    def moved(_viewer: object, _event: object) -> None:
        found = known()
        # Python may still hold a tab that Qt has destroyed.
        if found is not None and not gone.is_set():
            found.on_mouse()

    def leave() -> None:
        gone.set()
        if moved in viewer.mouse_move_callbacks:
            viewer.mouse_move_callbacks.remove(moved)

    when_gone(tab, leave)
    viewer.mouse_move_callbacks.append(moved)
