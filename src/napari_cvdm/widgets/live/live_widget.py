"""The Live dock: fast reconstruction of the newest frame of a camera's layer or of a folder."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer
from napari.utils.events import Event
from napari.viewer import Viewer
from qtpy.QtCore import QTimer, Signal
from qtpy.QtGui import QHideEvent
from qtpy.QtWidgets import QHBoxLayout, QSpinBox, QStyle, QVBoxLayout, QWidget

from napari_cvdm.core.plan import count_planes
from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.live.sources import FolderWatch, FrameSource, LatestValue, ReadFrame
from napari_cvdm.widgets.common.fields import (
    NARROWEST_PX,
    Dock,
    LabelledRows,
    PathField,
    explain_control,
    fill_layout,
    in_words,
    make_button,
    scrolled,
    word_choice,
    wrapped_label,
)
from napari_cvdm.widgets.common.reconstruct_form import OTHER_PLANES, ReconstructForm
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, WARNING, MessageLine, RunPanel
from napari_cvdm.widgets.common.worker import when_gone
from napari_cvdm.widgets.layers.contributions import placement
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, LayerData, layer_name
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.reconstruction import Run, engine_problem, steps_of
from napari_cvdm.widgets.layers.result_layers import STORED, to_layer_data
from napari_cvdm.widgets.layers.shown_layers import show_layers, show_result_in_turn
from napari_cvdm.widgets.live.live_run import LayerFeed, LiveRun

if TYPE_CHECKING:
    from napari_cvdm.live.follow import LiveFrame, SkippedFrame

MOST_STEPS = 100
HELP = {
    "follow": (
        "What to follow: the layer that is chosen as image below (a camera's preview, a growing "
        "time-lapse; keep it visible),\n"
        "or a folder that images are saved into."
    ),
    "folder": (
        "Every new or changed TIFF, MRC or NPY file in this folder is reconstructed when it is "
        "complete.\n"
        "Files that are there already are left alone."
    ),
    "live steps": (
        "Evaluations of the network for each live frame. 1 is the preview: as fast as it gets, "
        "close to the mean, without fine detail.\n"
        "Samples and steps below belong to the full posterior."
    ),
}
ALL_PLANES = "a layer with all planes (along one axis)"
SOURCE_REMOVED = "The followed layer was removed, so following has stopped."
TWO_LAYERS = (
    "Following needs all planes in one layer: choose image2 'in the same layer', and a layer with "
    "an axis as long as defocus_um has positions, for example (plane, y, x) or (t, plane, y, x). A "
    "camera that cycles through the planes must write them as one stack (numpy.stack)."
)


class LiveWidget(Dock):
    """Plugins > CVDM reconstruction > Live."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        # At most one; it outlives this widget, and must not go on without it.
        self._runs: list[LiveRun] = []
        self._feed: LayerFeed | None = None
        self._live: LiveLayer | None = None
        self._last: tuple[LiveFrame, Placement] | None = None
        self._place: Placement | None = None
        self._done = 0
        self._title = ""
        self._started_with: dict[str, Any] = {}
        if problem := engine_problem():
            QVBoxLayout(self).addWidget(wrapped_label(problem))
            return
        self._lay_out()
        self.source.changed.connect(self._on_changed)
        self.form.changed.connect(self._on_changed)
        for refused in (self.form.model.refused, self.form.presets.refused):
            refused.connect(partial(self.message.say, ERROR))
        self.panel.asked.connect(self.start_full)
        self._hidden = QTimer(self)
        self._hidden.setSingleShot(True)
        self._hidden.setInterval(0)  # ms: after the event in which a dock that moves is shown again
        self._hidden.timeout.connect(self._on_hidden)
        when_gone(self, _stop_all, self._runs)
        self._on_changed()

    def _lay_out(self) -> None:
        self.source, self.form = LiveSource(), ReconstructForm(self._viewer)
        self.start_button = make_button(
            "&Start",
            "Follow: reconstruct the newest frame, again and again. The camera is never kept "
            "waiting.",
            self.start,
        )
        self.stop_button = make_button(
            "S&top",
            "Stop following before the next step. The layers stay.",
            lambda: self.stop("Stopped."),
        )
        self.status, self.message = wrapped_label(), MessageLine()
        self.status.setToolTip(
            "Frames reconstructed for each second; frames passed over for a newer one;\n"
            "time from a frame's coming to its reconstruction."
        )
        self.panel = RunPanel("Full p&osterior of this frame")
        explain_control(
            self.panel.run,
            "Reconstruct the frame that is shown now once more, with the samples and steps "
            "above:\n"
            "with its uncertainty, as layers of their own.",
        )
        self.panel.set_ready(False)  # until there is a frame
        buttons = fill_layout(QHBoxLayout(), (self.start_button, 2), (self.stop_button, 1))
        controls = fill_layout(
            QVBoxLayout(), buttons, self.status, self.message, margins=(4, 0, 4, 4)
        )
        form = scrolled(self.form)
        fill_layout(QVBoxLayout(self), self.source, controls, (form, 1), self.panel)

    @property
    def following(self) -> bool:
        """Whether frames are being reconstructed."""
        return bool(self._runs)

    def missing(self) -> tuple[str, ...]:
        """Names of the settings that a start still needs.

        A setting that files may state is reported only when they do not state it.
        """
        if self.source.is_layer:
            return tuple(
                ALL_PLANES if name == OTHER_PLANES else name for name in self.form.missing()
            )
        found = {"a folder": self.source.folder, "a model": self.form.task}
        return tuple(name for name, value in found.items() if value is None)

    def _settings(self) -> dict[str, Any]:
        """Everything that a following depends on, by name."""
        followed = self.form.image.value() if self.source.is_layer else self.source.folder
        return {
            **self.form.settings(),
            "steps": self.source.steps.value(),
            "samples": 1,
            "followed": followed,
            "second": self.form.second.value(),
        }

    def _on_changed(self) -> None:
        """Say what is missing or wrong; a following whose settings changed ends."""
        missing = self.missing()
        self.form.image.setEnabled(self.source.is_layer)
        self.start_button.setEnabled(not missing and not self.following)
        self.stop_button.setEnabled(self.following)
        try:
            settings = self._settings()
            if self.following and _differ(settings, self._started_with):
                self.stop(
                    "The settings were changed, so following has stopped; start it again."
                    if self._source_is_there()
                    else SOURCE_REMOVED
                )
            warnings = self.form.warnings()
        except ValueError as error:
            # Frames of the old settings would belong to a form that says something else.
            self.stop(str(error))
            self._say(ERROR, str(error))
            return
        if missing and not self.following:
            self._say(INFORMATION, f"Needed before a start: {', '.join(missing)}.")
        elif not self.following:
            self._say(WARNING, " ".join(warnings))

    def _say(self, kind: QStyle.StandardPixmap, text: str) -> None:
        if not text:
            self.message.clear()
        elif in_words(text) != self.message.text():
            self.message.say(kind, text)

    def start(self) -> None:
        """Follow with the settings as they are now."""
        if self.following:
            return
        try:
            self._begin()
        except ValueError as error:
            self._say(ERROR, str(error))

    def _begin(self) -> None:
        missing, task, settings = self.missing(), self.form.task, self._settings()
        if missing or task is None:
            raise RequestError(f"Needed before a start: {', '.join(missing)}.")
        if self.source.is_layer and task.planes > 1 and settings["second"] is not None:
            raise RequestError(TWO_LAYERS)
        asked = {
            name: value for name, value in settings.items() if name not in ("followed", "second")
        }
        blank = ImageStack(array=np.zeros((1, 1)), axes="YX")  # each frame takes its place
        template = ReconstructionRequest(image=blank, **asked)
        source, self._title = self._open(count_planes(task.planes, settings.get("defocus_um")))
        run = LiveRun(source, template, title=f"Following {self._title}", on_stop=self._on_stop)
        run.framed.connect(self._on_frame)
        run.skipped.connect(self._on_skipped)
        run.ended.connect(self._on_ended)
        self._started_with = settings
        self._live, self._done = None, 0
        self._runs.append(run)  # before the viewer can tell that the layer is gone
        self._viewer.layers.events.removed.connect(self._on_removed)
        self.message.clear()
        self.status.setText("loading the model")
        self._on_changed()
        run.start()

    def _open(self, planes: int) -> tuple[FrameSource, str]:
        layer, folder = self.form.image.value(), self.source.folder
        if not self.source.is_layer and folder is not None:
            self._place = None
            return FolderWatch(folder), str(folder.name)
        newest: LatestValue[ReadFrame] = LatestValue()
        self._feed = LayerFeed(layer, planes, newest.put)
        # A typed pixel size goes before that of the layer, also for where the result lies.
        self._place = self._feed.place.with_pixel(self.form.settings()["pixel_um"])
        self._feed.post_now()  # the frame that is there is the first
        return newest, self._place.name

    def stop(self, why: str) -> None:
        """Stop following, if that is going on, and say why."""
        for run in self._runs:
            self.stop_button.setEnabled(False)
            run.stop(why)

    def _on_stop(self) -> None:
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _on_frame(self, frame: "LiveFrame") -> None:
        found = frame.reconstruction
        # All files are shown in one layer at the origin, wherever the stage was.
        place = self._place or placement(
            self._title, found.axes, found.pixel_um * found.upsampling, {}
        )
        if self._live is None:
            self._live = LiveLayer(self._viewer, place)
        self._live.show(frame)
        self._last, self._done = (frame, place), frame.done
        self.panel.set_ready(True)
        skipped = f", {frame.skipped} unusable" if frame.skipped else ""
        self.status.setText(
            f"{describe_pace(frame.frames_per_s)}, {frame.dropped} dropped{skipped}, latency "
            f"{frame.latency_s:.3g} s"
        )
        # Warnings come with every frame, and must not hide what was said of one.
        if frame.warnings and self.message.isHidden():
            self._say(WARNING, " ".join(frame.warnings))

    def _on_skipped(self, skipped: "SkippedFrame") -> None:
        self._say(WARNING, f"Frame {skipped.number} was passed over: {skipped.reason}")

    def _source_is_there(self) -> bool:
        return self._feed is None or self._feed.layer in self._viewer.layers

    def _on_removed(self, event: Event) -> None:
        if not self._source_is_there():
            self.stop(SOURCE_REMOVED)
        elif self._live is not None and event.value is self._live.layer:
            self.stop("The live layer was removed, so following has stopped.")

    def hideEvent(self, event: QHideEvent | None) -> None:
        """A dock that stays hidden has been closed; one that moves is shown again at once."""
        super().hideEvent(event)
        if self._runs:
            self._hidden.start()

    def _on_hidden(self) -> None:
        if not self.isVisible():
            self.stop("The dock was closed, so following has stopped.")

    def _on_ended(self, why: str, failed: bool) -> None:
        run = self._runs.pop()
        self._live = None
        self.status.setText(f"{self._done} reconstructed, {run.source.dropped} dropped")
        self._on_changed()
        if why:  # after the form had its say, which would replace it
            self._say(ERROR if failed else INFORMATION, why)

    def start_full(self) -> None:
        """Reconstruct the shown frame with the form's samples and steps; the live run goes on."""
        task = self.form.task
        if self._last is None or task is None or self.panel.busy:
            return
        frame, place = self._last  # the one that is seen, though a newer one may be in work
        try:
            request = ReconstructionRequest(image=frame.image, **self.form.settings())
        except ValueError as error:
            self._say(ERROR, str(error))
            return
        run = Run(request=request, place=place, unit=task.unit, upsampling=task.upsampling)
        self.panel.start(
            run.work(),
            title=f"Full posterior of frame {frame.number} of {place.name}",
            total=steps_of(request),
            on_result=partial(self._on_full, frame.number, place),
        )

    def _on_full(
        self, number: int, place: Placement, reconstruction: Reconstruction
    ) -> Iterator[None]:
        yield from show_result_in_turn(self._viewer, to_layer_data(reconstruction, place))
        provenance = reconstruction.provenance
        self.panel.message.report(
            f"Frame {number}: done in {provenance.timings_s['total']:.1f} s.", provenance.warnings
        )


def describe_pace(frames_per_s: float) -> str:
    """Frames for each second, or seconds for each frame where they are fewer."""
    if frames_per_s >= 1:
        pace = f"{frames_per_s:.3g}"
        return f"{pace} frame/s" if pace == "1" else f"{pace} frames/s"
    return f"one frame in {1 / frames_per_s:.3g} s" if frames_per_s > 0 else "first frame"


def _differ(settings: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether settings by the same names differ; images do unless they are the very same."""
    # A comparison of arrays gives an array, which is neither true nor false.
    pairs = [(one, others[name]) for name, one in settings.items()]
    return any(
        one is not other
        and (isinstance(one, np.ndarray) or isinstance(other, np.ndarray) or one != other)
        for one, other in pairs
    )


def _stop_all(runs: list[LiveRun]) -> None:  # knows no dock: see `when_gone`
    for run in runs:
        run.stop("")


class LiveSource(QWidget):
    """Layer or folder, and the steps for each live frame."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.kind = word_choice(("the image layer below", "a folder"))
        self.path = PathField("Choose the folder to follow")
        self.steps = QSpinBox()
        self.steps.setRange(1, MOST_STEPS)
        self.steps.setMinimumWidth(NARROWEST_PX)
        self._rows = LabelledRows(
            {"follow": self.kind, "folder": self.path, "live steps": self.steps}, HELP
        )
        self.setLayout(self._rows)
        self.kind.currentIndexChanged.connect(self._on_kind)
        self.path.changed.connect(self.changed)
        self.steps.valueChanged.connect(self.changed)
        self._on_kind()

    def _on_kind(self) -> None:
        self._rows.show_row("folder", not self.is_layer)
        self.changed.emit()

    @property
    def is_layer(self) -> bool:
        """Whether a layer is followed."""
        return self.kind.currentIndex() == 0

    @property
    def folder(self) -> Path | None:
        """The folder to follow; None as long as none is named."""
        return self.path.value()


class LiveLayer:
    """Shows frame after frame in one layer; contrast limits stay those of the first."""

    def __init__(self, viewer: Viewer, place: Placement) -> None:
        self._viewer = viewer
        self.place = place
        self.layer: Layer | None = None

    def show(self, frame: "LiveFrame") -> None:
        """Show a frame, and where it comes from in the metadata."""
        layer = self.layer
        if layer is None or layer.ndim != frame.mean.ndim:
            self.layer = None  # so that nobody takes the change of layers for the user's wish
            show_layers(self._viewer, [self._first(frame)])
            self.layer = self._viewer.layers[-1]
            return
        metadata = layer.metadata[METADATA_KEY]
        provenance = asdict(frame.reconstruction.provenance)
        layer.metadata = {**layer.metadata, METADATA_KEY: {**metadata, "provenance": provenance}}
        layer.data = frame.mean

    def _first(self, frame: "LiveFrame") -> LayerData:
        *_, (values, keywords, kind) = to_layer_data(frame.reconstruction, self.place)
        metadata = {**keywords["metadata"][METADATA_KEY], "group": f"live, {self.place.name}"}
        metadata.pop(STORED)  # the frames after it have other pixels
        name = layer_name("live reconstruction", self.place.name, frame.reconstruction.unit)
        return values, {**keywords, "name": name, "metadata": {METADATA_KEY: metadata}}, kind
