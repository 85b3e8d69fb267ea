"""One live run from Start to Stop: frames of a layer, a thread, and a timer for the screen.

A layer's newest frame is copied whenever its pixels change. A thread reconstructs, and the timer
fetches its newest frame.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject, QTimer, Signal

from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.core.result import Progress
from napari_cvdm.io.axes import usable_dtype
from napari_cvdm.live.sources import FrameSource, LatestValue, ReadFrame
from napari_cvdm.widgets.common.worker import LEAST_INTERVAL_S, Job
from napari_cvdm.widgets.layers.layer_data import layer_pixel_um, plugin_metadata
from napari_cvdm.widgets.layers.placement import Placement, axis_letters

if TYPE_CHECKING:
    from napari_cvdm.live.follow import LiveFrame, SkippedFrame


class LayerFeed:
    """Posts each new frame of an image layer.

    napari 0.9.2 emits `data` when data are assigned, and `set_data` before it while the layer is
    visible. It emits `set_data` alone for pixels written in place and `refresh`, but also when a
    slider moves. So the feed listens to both, and does not post a frame that equals the last one
    bit by bit. Pixels written in place into a hidden layer emit nothing and are not seen.

    The newest frame is the last along the time axis, in the finest level. It has so many defocus
    `planes`. `post` takes a function that returns it as an `ImageStack`, or raises ValueError; it
    is called in the thread that wrote the pixels. RequestError or ImageFileError for a layer that
    cannot be followed: colour, axes or a pixel that is not square.
    """

    def __init__(self, layer: Image, planes: int, post: Callable[[ReadFrame], None]) -> None:
        self.layer = layer
        self._planes, self._post = planes, post
        self._last: np.ndarray | None = None
        _, axes = self._newest()
        self.place = replace(Placement.of(layer).finer(axes, 1), planes=planes)
        optics = {
            name: float(value)
            for name, value in plugin_metadata(layer).get("optics", {}).items()
            if name != "defocus_um"
        }
        self._known: dict[str, Any] = {
            "pixel_um": layer_pixel_um(layer),
            "source": layer.name,
            "metadata": optics,
        }
        layer.events.data.connect(self.post_now)
        layer.events.set_data.connect(self.post_now)

    def _newest(self) -> tuple[np.ndarray, str]:
        from napari_cvdm.live.follow import newest_index

        layer = self.layer
        if layer.rgb:
            raise RequestError(
                f"{layer.name}: a colour (RGB) image; one channel is needed. Right-click it, "
                "choose Split RGB, and follow one of the three."
            )
        data = layer.data[0] if layer.multiscale else layer.data
        index, axes = newest_index(data.shape, axis_letters(layer), self._planes)
        return np.array(data[index]), axes  # a copy: the camera may write the next frame there

    def post_now(self, _: object = None) -> None:
        """Post the frame that is there, unless it was posted already."""
        try:
            pixels, axes = self._newest()
        except RequestError as error:
            # The layer got other axes meanwhile; the one who follows says it.
            self._post(partial(_refuse, str(error)))
            return
        is_float = pixels.dtype.kind == "f"  # integers have no NaN to compare
        if self._last is not None and np.array_equal(pixels, self._last, equal_nan=is_float):
            return
        self._last = pixels
        self._post(partial(_frame, pixels, axes, self._known))

    def close(self) -> None:
        """Listen no more."""
        self.layer.events.data.disconnect(self.post_now)
        self.layer.events.set_data.disconnect(self.post_now)


def _frame(pixels: np.ndarray, axes: str, known: dict[str, Any]) -> ImageStack:
    return ImageStack(array=usable_dtype(pixels, known["source"]), axes=axes, **known)


def _refuse(reason: str) -> ImageStack:
    raise RequestError(reason)


def follow_source(
    source: FrameSource,
    template: ReconstructionRequest,
    frames: "LatestValue[LiveFrame]",
    refused: "LatestValue[SkippedFrame]",
) -> Generator[Progress, None, None]:
    """Load the model and follow the source, in the worker's thread.

    The newest frame and the newest skipped frame are put into `frames` and `refused`.
    """
    from napari_cvdm.live.follow import LiveFrame, SkippedFrame, follow
    from napari_cvdm.models.registry import load_model

    running = Progress(stage="following", done=0, total=0)
    yield running
    # A frame that is given up in mid-work counts as dropped when the generator is closed.
    with closing(follow(source, template, load_model(template.model))) as events:
        for event in events:
            if isinstance(event, LiveFrame):
                frames.put(event)
            elif isinstance(event, SkippedFrame):
                refused.put(event)
            yield running  # also while no frame comes: here a stop is heard


class LiveRun(QObject):
    """Follows a source until it is stopped.

    Signals are delivered in the GUI thread. `framed` (LiveFrame) and `skipped` (SkippedFrame) give
    the newest frame, as often as the window can draw it. `ended` (the reason as a text; whether the
    run failed) comes last.

    `template` holds all settings; its image does not matter. `on_stop` is called once when nothing
    more is to be posted.
    """

    framed = Signal(object)
    skipped = Signal(object)
    ended = Signal(str, bool)

    def __init__(
        self,
        source: FrameSource,
        template: ReconstructionRequest,
        *,
        title: str,
        on_stop: Callable[[], None],
    ) -> None:
        super().__init__()
        self.source = source
        self._frames: LatestValue[LiveFrame] = LatestValue()
        self._refused: LatestValue[SkippedFrame] = LatestValue()
        self._on_stop = on_stop
        self._why, self._failed = "", False
        self._job = Job(
            follow_source(source, template, self._frames, self._refused), title=title, total=0
        )
        self._job.failed.connect(self._on_failed)
        self._job.ended.connect(self._on_ended)
        self._clock = QTimer(self)
        # The timer starts again after each drawing, so a slow screen gets fewer frames and the
        # window stays responsive.
        self._clock.setSingleShot(True)
        self._clock.setInterval(round(1000 * LEAST_INTERVAL_S))
        self._clock.timeout.connect(self._on_clock)

    def start(self) -> None:
        """Start the thread."""
        self._clock.start()
        self._job.start()

    def stop(self, why: str) -> None:
        """Stop before the next step; a frame in work is given up and counts as dropped.

        The reason `why` goes to `ended`; of several reasons the first counts.
        """
        if not self.source.stopped:
            self._why = self._why or why  # a failure may have come first
            self._release()
            self._job.cancel()

    def _release(self) -> None:
        if not self.source.stopped:
            self.source.stop()
            self._on_stop()

    def _on_clock(self) -> None:
        self._deliver()
        self._clock.start()

    def _deliver(self) -> None:
        for box, signal in ((self._refused, self.skipped), (self._frames, self.framed)):
            if (item := box.take()) is not None:
                signal.emit(item.content)

    def _on_failed(self, message: str) -> None:
        self._why, self._failed = message, True

    def _on_ended(self) -> None:
        self._clock.stop()
        self._release()
        self._deliver()  # what came after the last tick
        self.ended.emit(self._why, self._failed)
