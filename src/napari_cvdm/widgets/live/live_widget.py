"""The Live dock: fast reconstruction of the newest frame of a camera's layer or of a folder."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtGui import QHideEvent
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QStyle, QVBoxLayout, QWidget

from napari_cvdm.core.plan import count_planes
from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.live.sources import FolderWatch, FrameSource, LatestValue, ReadFrame
from napari_cvdm.widgets.common.fields import explain_control, scrolled, wrapped_label
from napari_cvdm.widgets.common.lifetime import when_gone
from napari_cvdm.widgets.common.reconstruct_form import OTHER_PLANES, ReconstructForm
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, WARNING, MessageLine, RunPanel
from napari_cvdm.widgets.layers.contributions import placement
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.reconstruction import Run, engine_problem, steps_of
from napari_cvdm.widgets.layers.result_layers import to_layer_data
from napari_cvdm.widgets.layers.shown_layers import show_result
from napari_cvdm.widgets.live.live_feed import LayerFeed
from napari_cvdm.widgets.live.live_layer import LiveLayer
from napari_cvdm.widgets.live.live_run import LiveRun
from napari_cvdm.widgets.live.live_source import LiveSource

if TYPE_CHECKING:
    from napari.utils.events import Event
    from napari.viewer import Viewer

    from napari_cvdm.live.follow import LiveFrame, SkippedFrame

ALL_PLANES = "a layer with all planes (along one axis)"
SOURCE_REMOVED = "The followed layer was removed, so following has stopped."
TWO_LAYERS = (
    "Following needs all planes in one layer: choose image2 'in the same layer', and a layer with "
    "an axis as long as defocus_um has positions, for example (plane, y, x) or (t, plane, y, x). A "
    "camera that cycles through the planes must write them as one stack (numpy.stack)."
)


class LiveWidget(QWidget):
    """Plugins > CVDM reconstruction > Live.

    Parameters
    ----------
    napari_viewer : Viewer
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._runs: list[
            LiveRun
        ] = []  # at most one; it outlives this widget, and must not go on without it
        self._feed: LayerFeed | None = None
        self._live: LiveLayer | None = None
        self._last: tuple[LiveFrame, Placement] | None = None
        self._place: Placement | None = None
        self._done = 0
        self._title = ""
        self._started_with: dict[str, Any] = {}
        problem = engine_problem()
        if problem:
            QVBoxLayout(self).addWidget(wrapped_label(problem))
            return
        self._make_parts()
        self._lay_out()
        self._connect()
        self._on_changed()

    def _make_parts(self) -> None:
        self.source, self.form = LiveSource(), ReconstructForm(self._viewer)
        self.start_button, self.stop_button = QPushButton("&Start"), QPushButton("S&top")
        explain_control(
            self.start_button,
            "Follow: reconstruct the newest frame, again and again. The camera is never kept "
            "waiting.",
        )
        explain_control(self.stop_button, "Stop following before the next step. The layers stay.")
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
        self._hidden = QTimer(self)
        self._hidden.setSingleShot(True)
        self._hidden.setInterval(0)

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.addWidget(self.start_button, 2)
        buttons.addWidget(self.stop_button, 1)
        controls = QVBoxLayout()
        controls.setContentsMargins(4, 0, 4, 4)
        controls.addLayout(buttons)
        controls.addWidget(self.status)
        controls.addWidget(self.message)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.source)
        layout.addLayout(controls)
        layout.addWidget(scrolled(self.form), 1)
        layout.addWidget(self.panel)

    def _connect(self) -> None:
        self.source.changed.connect(self._on_changed)
        self.form.changed.connect(self._on_changed)
        self.form.model.refused.connect(partial(self.message.say, ERROR))
        self.start_button.clicked.connect(self.start)
        self.stop_button.clicked.connect(lambda: self.stop("Stopped."))
        self.panel.asked.connect(self.start_full)
        self._hidden.timeout.connect(self._on_hidden)
        when_gone(self, _stop_all, self._runs)

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
        elif text != self.message.text():
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
        template = ReconstructionRequest(
            image=ImageStack(array=np.zeros((1, 1)), axes="YX"), **asked
        )
        source, self._title = self._open(count_planes(task.planes, settings.get("defocus_um")))
        run = LiveRun(source, template, title=f"Following {self._title}", on_stop=self._on_stop)
        run.framed.connect(self._on_frame)
        run.skipped.connect(self._on_skipped)
        run.ended.connect(self._on_ended)
        self._started_with = settings
        self._live, self._done = None, 0
        self._runs.append(run)
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
        mailbox: LatestValue[ReadFrame] = LatestValue()
        self._feed = LayerFeed(layer, planes, mailbox.put)
        self._place = self._feed.place
        self._feed.post_now()
        return mailbox, self._place.name

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
        place = self._place or self._place_of_file(frame)
        if self._live is None:
            self._live = LiveLayer(self._viewer, place)
        self._live.show(frame)
        self._last, self._done = (frame, place), frame.done
        self.panel.set_ready(True)
        self._show_status(frame)
        if frame.warnings and self.message.isHidden():
            self._say(WARNING, " ".join(frame.warnings))

    def _place_of_file(self, frame: "LiveFrame") -> Placement:
        """At the origin, wherever the stage was: all files are shown in one layer."""
        found = frame.reconstruction
        return placement(self._title, found.axes, found.pixel_um * found.upsampling, {})

    def _show_status(self, frame: "LiveFrame") -> None:
        skipped = f", {frame.skipped} unusable" if frame.skipped else ""
        self.status.setText(
            f"{frame.frames_per_s:.1f} frames/s, {frame.dropped} dropped{skipped}, latency "
            f"{frame.latency_s:.2f} s"
        )

    def _on_skipped(self, skipped: "SkippedFrame") -> None:
        self._say(WARNING, f"Frame {skipped.number} was passed over: {skipped.reason}")

    def _source_is_there(self) -> bool:
        return self._feed is None or self._feed.layer in self._viewer.layers

    def _on_removed(self, event: "Event") -> None:
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
        if why:
            self._say(ERROR if failed else INFORMATION, why)

    def start_full(self) -> None:
        """Reconstruct the shown frame with the form's samples and steps; the live run goes on."""
        if self._last is None or self.panel.busy:
            return
        frame, place = self._last
        try:
            request = ReconstructionRequest(image=frame.image, **self.form.settings())
        except ValueError as error:
            self._say(ERROR, str(error))
            return
        task = self.form.task
        if task is None:
            return
        run = Run(request=request, place=place, unit=task.unit, upsampling=task.upsampling)
        title = f"Full posterior of frame {frame.number} of {place.name}"
        self.panel.start(
            run.work(),
            title=title,
            total=steps_of(request),
            on_result=partial(self._on_full, frame.number, place),
        )

    def _on_full(self, number: int, place: Placement, reconstruction: Reconstruction) -> None:
        show_result(self._viewer, to_layer_data(reconstruction, place))
        warnings = reconstruction.provenance.warnings
        seconds = reconstruction.provenance.timings_s["total"]
        self.panel.message.say(
            WARNING if warnings else INFORMATION,
            " ".join([f"Frame {number}: done in {seconds:.1f} s.", *warnings]),
        )


def _differ(settings: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether settings by the same names differ; images do unless they are the very same."""
    pairs = [(one, others[name]) for name, one in settings.items()]
    return any(
        one is not other
        and (isinstance(one, np.ndarray) or isinstance(other, np.ndarray) or one != other)
        for one, other in pairs
    )


def _stop_all(runs: "list[LiveRun]") -> None:
    for run in runs:
        run.stop("")
