"""One live run from Start to Stop.

A thread reconstructs, and a timer fetches its newest frame for the screen.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal

from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.core.result import Progress
from napari_cvdm.live.sources import FrameSource, LatestValue
from napari_cvdm.widgets.common.worker import LEAST_INTERVAL_S, Job

if TYPE_CHECKING:
    from napari_cvdm.live.follow import LiveFrame, SkippedFrame


def followed(
    source: FrameSource,
    template: ReconstructionRequest,
    frames: "LatestValue[LiveFrame]",
    refused: "LatestValue[SkippedFrame]",
) -> Generator[Progress, None, None]:
    """Load the model and follow the source, in the worker's thread.

    Two mailboxes hold the newest frame and the newest skipped frame.
    """
    from napari_cvdm.live.follow import LiveFrame, SkippedFrame, follow
    from napari_cvdm.models.registry import load_model

    running = Progress(stage="following", done=0, total=0)
    yield running
    with closing(follow(source, template, load_model(template.model))) as events:
        for event in events:
            if isinstance(event, LiveFrame):
                frames.put(event)
            elif isinstance(event, SkippedFrame):
                refused.put(event)
            yield running


class LiveRun(QObject):
    """Follows a source until it is stopped.

    Signals are delivered in the GUI thread. `framed` (LiveFrame) and `skipped` (SkippedFrame) give
    the newest frame, as often as the window can draw it. `ended` (the reason as a text; whether the
    run failed) comes last.

    Parameters
    ----------
    source : FrameSource
    template : ReconstructionRequest
        All settings; its image does not matter.
    title : str
        For napari's activity area.
    on_stop : callable
        Called once when nothing more is to be posted.
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
            followed(source, template, self._frames, self._refused), title=title, total=0
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

        Parameters
        ----------
        why : str
            For `ended`; of several reasons the first counts.
        """
        if not self.source.stopped:
            self._why = self._why or why
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
            letter = box.take()
            if letter is not None:
                signal.emit(letter.content)

    def _on_failed(self, message: str) -> None:
        self._why, self._failed = message, True

    def _on_ended(self) -> None:
        self._clock.stop()
        self._release()
        self._deliver()
        self.ended.emit(self._why, self._failed)
