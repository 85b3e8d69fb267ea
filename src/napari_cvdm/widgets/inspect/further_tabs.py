"""The tabs Profile and Next image: a line over a result, and what the next image would bring."""

import math
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Layer, Shapes
from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLabel, QVBoxLayout
from superqt.utils import qdebounced

from napari_cvdm.analysis.intervals import (
    Estimate,
    LineProfile,
    box_around,
    points_along,
    profile_along,
    values_along,
)
from napari_cvdm.analysis.measure import profile_rows, table_text
from napari_cvdm.core.request import OPTICS, ReconstructionRequest, RequestError
from napari_cvdm.core.result import Progress
from napari_cvdm.core.statistics import spread_as
from napari_cvdm.io import ImageFileError
from napari_cvdm.io.atomic import write_file
from napari_cvdm.widgets.common.choices import ChoiceBox, ChoiceItem
from napari_cvdm.widgets.common.fields import fill_layout, make_button, wrapped_label
from napari_cvdm.widgets.common.plots import COLORS, OutlookPlot, ProfilePlot, ThemeColors, plot_png
from napari_cvdm.widgets.common.worker import Follower, LatestWork
from napari_cvdm.widgets.inspect.pixel_tab import ResultTab, format_legend
from napari_cvdm.widgets.layers.frames import frame_index, frame_pixels, grid_map
from napari_cvdm.widgets.layers.layer_data import (
    finest_level,
    layer_pixel_um,
    named_layers,
    read_layer,
)
from napari_cvdm.widgets.layers.placement import axis_letters
from napari_cvdm.widgets.layers.result_layers import RECONSTRUCTION, SAMPLES, ResultGroup

if TYPE_CHECKING:
    from napari_cvdm.analysis.next_image import Outlook

LINES = ("line", "path")
CHANGES = ("data", "set_data", "highlight", "scale", "translate")  # highlight: another selection
NEW_LINE = "profile line"
LINE_SHARE = 0.3  # of the width of a result: half of the line that is drawn first
HELP = {
    "line": "The Shapes layer with the line. Its selected line or path counts, or its last one.",
    "draw": "Add a line over the brightest pixel. Move its ends with napari's tools.",
    "csv": "Save every point of the line, with interval and measured image, as a CSV file.",
    "png": "Save the plot as a PNG.",
    "estimate": (
        "Fit noise and object of the measured image again, and compute the expected error with "
        "other exposures and planes.\n"
        "It takes some seconds."
    ),
}
KEEP_SAMPLES = (
    "Width and distance have no interval: tick Keep samples in a run with two or more samples."
)
ABOUT_NEXT = (
    "The expected error is that of the physics alone, for a weak object in the middle of the "
    "field, with noise and object as estimated from this image. No network is part of it. It is "
    "better for comparing options than as an error."
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShownProfile:
    """A profile and the measured image (K,) at its points."""

    profile: LineProfile
    raw: np.ndarray | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProfileSource:
    """Arrays of one frame that a profile is read from; they may be lazy."""

    vertices: np.ndarray
    pixel_um: float
    mean: Any = field(repr=False)
    spread: Any = field(default=None, repr=False)
    samples: Any = field(default=None, repr=False)
    raw: Any = field(default=None, repr=False)
    to_raw: np.ndarray | None = None
    statistic: str = "standard deviation"
    calibration: dict[str, Any] = field(default_factory=dict)

    def read(self) -> Generator[Progress, None, ShownProfile]:
        """Read the pixels around the line, and measure; for the worker's thread."""
        yield Progress(stage="profile", done=0, total=1)
        # Only the box around the line is read: the arrays may be lazy and large.
        box = box_around(self.vertices, self.mean.shape)
        moved = self.vertices - [box[0].start, box[1].start]
        spread = None
        if self.spread is not None:  # the layer may show an interval or a variance
            factor, shown = self.calibration.get("factor"), np.asarray(self.spread[box])
            spread = spread_as(shown, self.statistic, "standard deviation", factor)
        profile = profile_along(
            moved,
            np.asarray(self.mean[box]),
            self.pixel_um,
            spread=spread,
            samples=None if self.samples is None else np.asarray(self.samples[:, *box]),
            calibration=self.calibration,
        )
        raw = None
        if self.raw is not None and self.to_raw is not None:
            # The camera's grid is coarser than that of a super-resolved result.
            points = points_along(self.vertices)[0] @ self.to_raw[:2, :2].T + self.to_raw[:2, 2]
            box = box_around(points, self.raw.shape)
            raw = values_along(np.asarray(self.raw[box]), points - [box[0].start, box[1].start])
        return ShownProfile(profile=profile, raw=raw)


class ProfileTab(ResultTab):
    """A line over a result: mean, interval, measured image, width and distance of peaks."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self._line_events = Follower(self, self._on_moved, CHANGES)
        self._shown: ShownProfile | None = None
        self.line = ChoiceBox(viewer, self._line_entries)
        self.line.setToolTip(HELP["line"])
        self.draw = make_button("&Draw a line", HELP["draw"], self.add_line)
        self.plot = ProfilePlot(ThemeColors.of(viewer))
        self.legend, self.numbers = wrapped_label(), wrapped_label()
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.csv = make_button("Save as CSV…", HELP["csv"], self._ask_csv)
        self.png = make_button("Save as PNG…", HELP["png"], self._ask_png)
        self.work = LatestWork(self, "")
        fill_layout(
            QVBoxLayout(self),
            fill_layout(QHBoxLayout(), QLabel("Line"), (self.line, 1), self.draw),
            self.legend,
            (self.plot, 1),
            self.numbers,
            fill_layout(QHBoxLayout(), self.csv, self.png),
            margins=(4, 4, 4, 4),
        )
        self.line.changed.connect(self._on_line)
        self.work.succeeded.connect(self._on_read)
        self.work.failed.connect(self._on_failed)
        self._clear()
        self._line_events.follow(self.line.value())

    def _line_entries(self) -> list[ChoiceItem]:
        return [
            ChoiceItem(
                text=layer.name,
                key=layer,
                value=layer,
                preferred=any(kind in LINES for kind in layer.shape_type),
            )
            for layer in self._viewer.layers
            if isinstance(layer, Shapes)
        ]

    def set_group(self, group: ResultGroup | None) -> None:
        """Show another result, or the same after its layers have changed; None shows nothing."""
        self._group = group if group is not None and group.layer(RECONSTRUCTION) else None
        self.setEnabled(self._group is not None)
        self.refresh()

    def on_slider(self) -> None:
        """Show the frame where napari's sliders stand."""
        self.refresh()

    def set_theme_colors(self, colors: ThemeColors) -> None:
        """Draw in the colours of another theme."""
        super().set_theme_colors(colors)
        self._say_legend()  # the curve of the reconstruction has the theme's text colour

    def add_line(self) -> None:
        """Add a layer with a line over the brightest pixel, ready to be moved."""
        layer = None if self._group is None else self._group.layer(RECONSTRUCTION)
        if layer is None:
            return
        index, pixels = frame_index(self._viewer, layer), frame_pixels(self._viewer, layer)
        height, width = pixels.shape
        row, middle = np.unravel_index(int(np.argmax(pixels)), pixels.shape)
        ends = [
            layer.data_to_world((*index, row, min(max(middle + side, 0), width - 1)))[-2:]
            for side in (-LINE_SHARE * width, LINE_SHARE * width)
        ]
        shapes = Shapes(
            [np.array(ends)],
            shape_type="line",
            name=NEW_LINE,
            edge_color=COLORS[0],
            # In units of the world, as wide on the screen for every size of image.
            edge_width=max(height, width) / 150 * abs(float(layer.scale[-1])),
            units=layer.units[-2:],
            axis_labels=layer.axis_labels[-2:],
        )
        self._viewer.add_layer(shapes)
        shapes.mode = "direct"  # in which a vertex can be moved at once
        shapes.selected_data = {0}
        self.line.set_value(shapes)

    def _on_line(self) -> None:
        self._line_events.follow(self.line.value())
        self.refresh()

    def _on_moved(self) -> None:  # a plain method, as `Follower` needs one
        self.refresh()

    @qdebounced(timeout=100)  # ms: a line that is dragged moves many times
    def refresh(self) -> None:
        """Read the line as it is now."""
        self.work.cancel()  # else the profile of the former line may arrive after this
        chosen = self.line.value()
        vertices = None if chosen is None else line_of(chosen)
        if self._group is None or vertices is None:
            self._clear()
            return
        try:
            source = profile_source(self._viewer, self._group, chosen, vertices)
        except ValueError as error:
            self._on_failed(str(error))
            return
        self.work.start(source.read())

    def _on_read(self, shown: ShownProfile) -> None:
        self._shown = shown
        self.plot.show_profile(shown.profile, shown.raw, self.unit)
        self.plot.show()
        self._say_legend()
        self.numbers.setText(describe_profile(shown.profile))
        for button in (self.csv, self.png):
            button.setEnabled(True)
        self.trouble.emit("")  # an earlier trouble is over

    def _clear(self) -> None:
        self._shown = None
        self.plot.clear()
        self.legend.clear()
        self.numbers.setText("Draw a line or a path over the result in a Shapes layer.")
        for button in (self.csv, self.png):
            button.setEnabled(False)

    def _say_legend(self) -> None:
        if self._shown is None:
            return
        profile = self._shown.profile
        kind = "calibrated" if profile.calibrated else "not calibrated"
        entries = [("reconstruction", ThemeColors.of(self._viewer).text)]
        if profile.low is not None:
            entries.append((f"{profile.level:.0%} interval, {kind}", COLORS[1]))
        if self._shown.raw is not None:
            entries.append(("measured image, scaled", COLORS[0]))
        self.legend.setText(format_legend(entries))

    def text(self) -> str:
        """The profile as CSV; "" without one."""
        if self._shown is None or self._group is None:
            return ""
        model = self._group.mark.get("provenance", {}).get("model", {})
        made_with = {
            "unit": self.unit,
            "group": self._group.name,
            "model": model.get("name", ""),
            "model_sha256": model.get("sha256", ""),
        }
        return table_text(profile_rows(self._shown.profile, self._shown.raw, made_with))

    def _ask_csv(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save profile", "profile.csv", "CSV (*.csv)")
        if path:
            self.save(path, self.text().encode())

    def _ask_png(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save plot", "profile.png", "PNG (*.png)")
        if path:
            self.save(path, plot_png(self.plot.plot))

    def save(self, path: str, content: bytes) -> None:
        """Save the table or the picture; a failure is said in the message line."""
        try:
            write_file(Path(path), content)
        except ImageFileError as error:
            self.trouble.emit(str(error))


def line_of(shapes: Shapes) -> np.ndarray | None:
    """Corners (V, 2) of the selected line or path of a layer, else of its last one."""
    lines = [number for number, kind in enumerate(shapes.shape_type) if kind in LINES]
    chosen = [number for number in lines if number in shapes.selected_data] or lines[-1:]
    return np.asarray(shapes.data[chosen[0]])[:, -2:] if chosen else None


def profile_source(
    viewer: Viewer, group: ResultGroup, shapes: Layer, vertices: np.ndarray
) -> ProfileSource:
    """What a profile needs of the layers, in the frame where the sliders stand.

    RequestError if the pixel size is not known.
    """
    layer = reconstruction_of(group)
    pixel_um = layer_pixel_um(layer)
    if pixel_um is None:
        raise RequestError(
            f"the pixel size of {layer.name} is not known. Give its scale in micrometres."
        )
    matrix = grid_map(viewer, shapes, layer)
    samples, spread = group.layer(SAMPLES), group.spread
    raw = measured_layers(viewer, group)
    return ProfileSource(
        vertices=vertices @ matrix[:2, :2].T + matrix[:2, 2],
        pixel_um=pixel_um,
        mean=layer.data[frame_index(viewer, layer)],
        spread=None if spread is None else frame_pixels(viewer, spread),
        # Every sample of this frame: the first axis of that layer counts them.
        samples=None
        if samples is None
        else samples.data[(slice(None), *frame_index(viewer, samples)[1:])],
        raw=None if not raw else finest_level(raw[0])[frame_index(viewer, raw[0])],
        to_raw=grid_map(viewer, layer, raw[0]) if raw else None,
        statistic=group.statistic,
        calibration=dict(group.calibration),
    )


def reconstruction_of(group: ResultGroup) -> Image:
    """The layer with the reconstruction of a result; RequestError where there is none."""
    layer: Any = group.layer(RECONSTRUCTION)
    if layer is None:
        raise RequestError(
            f"{group.name}: the reconstruction is not among the layers; undo the removal or "
            "reconstruct again."
        )
    return layer


def measured_layers(viewer: Viewer, group: ResultGroup) -> list[Image]:
    """Layers that a result was made from, as far as they are there and not in colour."""
    found = named_layers(viewer.layers, str(group.mark.get("source", ""))) or ()
    return [layer for layer in found if layer is not None and not getattr(layer, "rgb", False)]


def describe_profile(profile: LineProfile) -> str:
    """Width and distance in words."""
    lines = [
        f"FWHM of the highest peak: {_said(profile.fwhm_um)}.",
        f"Distance of the two highest peaks: {_said(profile.peaks_um)}.",
    ]
    if profile.samples and 0 < profile.two_peaks < profile.samples:
        lines.append(f"{profile.two_peaks} of {profile.samples} samples have two peaks.")
    return " ".join(lines if profile.samples else [*lines, KEEP_SAMPLES])


def _said(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "none"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3g} µm"
    kind = "calibrated" if estimate.calibrated else "not calibrated"
    ends = f"{estimate.low:.3g} to {estimate.high:.3g}"
    return f"{estimate.value:.3g} µm ({ends}, {estimate.level:.0%}, {kind})"


class NextImageTab(ResultTab):
    """Expected errors with more photons, one more plane, or other distances."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self.estimate = make_button("Esti&mate", HELP["estimate"], self.start)
        self.text = wrapped_label()
        self.plot = OutlookPlot(ThemeColors.of(viewer))
        self.work = LatestWork(self, "Planning the next image")
        fill_layout(
            QVBoxLayout(self),
            self.estimate,
            self.text,
            (self.plot, 1),
            wrapped_label(ABOUT_NEXT),
            margins=(4, 4, 4, 4),
        ).addStretch()
        self.work.succeeded.connect(self._on_planned)
        self.work.failed.connect(self._on_failed)
        self._clear()

    def set_group(self, group: ResultGroup | None) -> None:
        """Be ready for another result, or the same after its layers have changed."""
        former = self._group
        other = (
            group is None
            or former is None
            or group.name != former.name
            or group.stored is not former.stored  # a run again makes a result of the same name
        )
        self._group = group if group is not None and group.layer(RECONSTRUCTION) else None
        self.setEnabled(self._group is not None)
        if other:
            self.work.cancel()
            self._clear()

    def on_slider(self) -> None:
        """The plan stays that of the frame it was made from."""

    def start(self) -> None:
        """Plan from the frame where napari's sliders stand."""
        if self._group is None:
            return
        try:
            steps = plan_of_group(self._viewer, self._group)
        except ValueError as error:
            self._on_failed(str(error))
            return
        self.text.setText("Fitting noise and object of the measured image…")
        self.work.start(steps)

    def _on_planned(self, outlook: "Outlook") -> None:
        from napari_cvdm.analysis.next_image import describe_outlook

        self.text.setText(describe_outlook(outlook))
        self.plot.show_outlook(outlook)
        self.plot.show()
        self.trouble.emit("")

    def _clear(self) -> None:
        self.text.clear()
        self.plot.hide()


def plan_of_group(viewer: Viewer, group: ResultGroup) -> "Generator[Progress, None, Outlook]":
    """Plan the next image from the measured layers and settings of a result.

    RequestError, OpticsError or CheckpointError if the measured layers or the model are not there
    any more, or a setting is not known.
    """
    from napari_cvdm.reconstruction.methods import card_of_method
    from napari_cvdm.reconstruction.plan import with_planes

    settings = dict(group.mark.get("provenance", {}).get("settings", {}))
    layers = measured_layers(viewer, group)
    if not layers or "model" not in settings:
        raise RequestError(
            f"{group.mark.get('source', group.name)} is not among the layers; the plan needs the "
            "measured image. Open it again, or undo its removal."
        )
    card, positions = card_of_method(str(settings["model"])), settings.get("defocus_um")
    image = with_planes([read_layer(layer) for layer in layers], card, positions)
    names = (*OPTICS, "condenser_na", "region", "device")
    known = {name: settings[name] for name in names if settings.get(name) is not None}
    if positions is not None:
        known["defocus_um"] = tuple(positions)
    # Of a measured background the settings hold only a fingerprint.
    if settings.get("background") == "none":
        known["background"] = "none"
    request = ReconstructionRequest(image=image, model=str(settings["model"]), **known)
    result = reconstruction_of(group)
    at = dict(zip(axis_letters(result), frame_index(viewer, result), strict=False))
    index = tuple(slice(None) if axis in "PYX" else at.get(axis, 0) for axis in image.axes)
    return _plan(request, image.array[index])


def _plan(request: ReconstructionRequest, pixels: Any) -> "Generator[Progress, None, Outlook]":
    """Resolve and plan; for the worker's thread."""
    from napari_cvdm.analysis.next_image import plan_next_image
    from napari_cvdm.reconstruction.methods import card_of_method
    from napari_cvdm.reconstruction.plan import resolve, task_of

    yield Progress(stage="reading", done=0, total=0)
    task = task_of(card_of_method(request.model))
    frame = np.asarray(pixels)  # here, in the worker, because lazy pixels are read by this
    frame = frame if frame.ndim > len("YX") else frame[None]
    return (yield from plan_next_image(frame, resolve(request, task), task.name))
