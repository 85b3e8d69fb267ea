"""Run, Cancel, how far it has come, and what there is to say."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QStyle,
    QVBoxLayout,
    QWidget,
)
from tqdm import tqdm

from napari_cvdm.core.result import FrameView, Progress
from napari_cvdm.widgets.common.fields import (
    explain_control,
    fill_layout,
    in_words,
    make_button,
    wrapped_label,
)
from napari_cvdm.widgets.common.worker import Job
from napari_cvdm.widgets.layers.shown_layers import Turns

INFORMATION = QStyle.StandardPixmap.SP_MessageBoxInformation
WARNING = QStyle.StandardPixmap.SP_MessageBoxWarning
ERROR = QStyle.StandardPixmap.SP_MessageBoxCritical
CANCELLING = "Cancelling…"
LEAST_PARTS = 100  # of the bar
BREAK_HERE = "\u200b"  # a zero-width space, so that a long path wraps instead of widening the dock


class RunPanel(QWidget):
    """Buttons, bar and message line around one job at a time.

    `asked` is emitted when the button is pressed. `started` and `progressed` (Progress) are emitted
    during a job. `idle` is emitted when a job has ended and no other began at once. The `verb` is
    on the button that starts, its key marked with `&`.
    """

    asked = Signal()
    started = Signal()
    progressed = Signal(object)
    idle = Signal()

    def __init__(self, verb: str) -> None:
        super().__init__()
        self.run = QPushButton(verb)
        explain_control(self.run, f"{verb.replace('&', '')} with the settings above.")
        self.keep = make_button(
            "Stop and &keep",
            "Stop now, with the samples that are finished as the result.",
            self._on_keep,
        )
        self.cancel = make_button(
            "&Cancel", "Stop before the next step. Nothing is changed.", self._on_cancel
        )
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.stage = QLabel()
        self.message = MessageLine()
        self._job: Job | None = None
        self._former: Job | None = None
        self._busy = self._cancelling = self._has_ended = False
        self._showing = Turns(self)
        self._ready = True
        self._started = 0.0
        self._first: float | None = None
        self._on_result: Callable[[Any], Iterator[None] | None] | None = None
        self._on_view: Callable[[FrameView], None] | None = None
        self._on_failure: Callable[[str], None] | None = None
        self._on_end: Callable[[], None] | None = None
        self.buttons = fill_layout(QHBoxLayout(), (self.run, 2), (self.keep, 1), (self.cancel, 1))
        parts = (self.buttons, self.bar, self.stage, self.message)
        fill_layout(QVBoxLayout(self), *parts, margins=(4, 4, 4, 4))
        self.run.clicked.connect(self.asked)
        self._show_idle()

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._busy

    def set_ready(self, ready: bool) -> None:
        """Allow or forbid a start."""
        self._ready = ready
        self.run.setEnabled(ready and not self.busy)

    def start(
        self,
        steps: Generator[Progress, Any, Any],
        *,
        title: str,
        total: int,
        on_result: Callable[[Any], Iterator[None] | None],
        on_view: Callable[[FrameView], None] | None = None,
        on_leave: Callable[[], None] | None = None,
        on_failure: Callable[[str], None] | None = None,
        on_end: Callable[[], None] | None = None,
        cancelled: str = "no layer was changed",
    ) -> None:
        """Do long work; one job at a time.

        Parameters
        ----------
        steps, title, total
            As of a `Job`; `on_result` takes what it returns, in the GUI thread.
        on_result : callable
            Not called after a failure or a cancelled run, nor when this panel is gone. The parts of
            what takes long are yielded, see `Turns`.
        on_view : callable, optional
            Takes the views during the run. With it, the work can also be stopped and kept.
        on_leave : callable, optional
            Called in any case, before `on_end`, and also when this panel is gone. It must not refer
            to the panel.
        on_failure : callable, optional
            Takes the reason of a failure. Without it, this panel and napari show the reason.
        on_end : callable, optional
            Called in any case, last, unless this panel is gone. It may start the next job.
        cancelled : str
            What is said of a cancelled run.
        """
        self._former = self._job  # it may be emitting yet
        self._job = job = Job(steps, title=title, total=total, owner=self)
        job.progressed.connect(self._on_progress)
        job.succeeded.connect(self._on_succeeded)
        job.failed.connect(self._on_failed)
        job.seen.connect(self._on_seen)
        # Before `_on_ended`, whose `on_end` may start the next job.
        if on_leave is not None:
            job.ended.connect(on_leave)
        job.ended.connect(self._on_ended)
        self._on_result, self._on_view = on_result, on_view
        self._on_failure, self._on_end = on_failure, on_end
        self._cancelled = f"Cancelled; {cancelled}."
        self._busy, self._first = True, None
        self._cancelling = self._has_ended = False
        self.message.clear()
        self.bar.setRange(0, total)
        self.bar.setValue(0)
        self.stage.setText("starting")
        self.run.setEnabled(False)
        self.cancel.setEnabled(True)
        self.keep.setEnabled(True)
        self.keep.setVisible(on_view is not None)
        for widget in (self.bar, self.stage):
            widget.show()
        self.started.emit()
        job.start()

    def _show_idle(self) -> None:
        self.run.setEnabled(self._ready)
        self.cancel.setEnabled(False)
        self.cancel.setText("&Cancel")
        for widget in (self.bar, self.stage, self.keep):
            widget.hide()

    def _on_progress(self, progress: Progress) -> None:
        if self._cancelling:
            return
        # So many parts that the tiles of a few evaluations are seen, too.
        parts = max(1, LEAST_PARTS // max(1, progress.total))
        self.bar.setRange(0, parts * progress.total)
        self.bar.setValue(int(parts * progress.done))
        now, text = time.monotonic(), progress.stage
        # A run that goes on begins in the middle, and loading the model tells nothing of a step.
        if progress.done and self._first is None:
            self._first, self._started = progress.done, now
        elif self._first is not None and progress.done != self._first:
            pace_s = (now - self._started) / (progress.done - self._first)
            left_s = pace_s * (progress.total - progress.done)
            if left_s >= 1:  # of less, tqdm says 00:00
                text += f", {tqdm.format_interval(left_s)} left"
        self.stage.setText(text)
        self.progressed.emit(progress)

    def _on_keep(self) -> None:
        if self._job is not None:
            self.keep.setEnabled(False)
            self._job.keep()

    def _on_cancel(self) -> None:
        if self._job is not None:
            self.cancel.setEnabled(False)
            self.keep.setEnabled(False)
            self.cancel.setText(CANCELLING)
            self.stage.setText(CANCELLING)
            self.message.say(INFORMATION, CANCELLING)
            self._cancelling = True
            self._job.cancel()

    def _on_seen(self, view: FrameView) -> None:
        if self._on_view is not None:
            self._on_view(view)

    def _on_succeeded(self, result: object) -> None:
        self._cancelling = False  # it had ended before it was asked
        self.cancel.setEnabled(False)
        parts = None if self._on_result is None else self._on_result(result)
        if parts is not None:
            self._showing.start(parts, self._on_shown)

    def _on_failed(self, message: str) -> None:
        self._cancelling = False
        if self._on_failure is not None:
            self._on_failure(message)
        else:
            self.fail(message)

    def fail(self, message: str) -> None:
        """Say the reason of a failure here, and by napari."""
        from napari.utils.notifications import show_error

        self.message.say(ERROR, message)
        show_error(in_words(message))

    def _on_shown(self) -> None:
        if self._has_ended:
            self._on_ended()

    def _on_ended(self) -> None:
        self._has_ended = True
        if self._showing.busy:
            return
        self._busy = False  # the job stays referenced until the next but one: it still emits
        # The callables refer to layers and results, which must not stay with the panel.
        on_end, self._on_end = self._on_end, None
        self._on_result = self._on_view = self._on_failure = None
        self._show_idle()
        if self._cancelling:
            self.message.say(INFORMATION, self._cancelled)
        if on_end is not None:
            on_end()
        if not self._busy:
            self.idle.emit()


class MessageLine(QWidget):
    """One message that wraps, with an icon that says how serious it is; empty, it takes no room."""

    def __init__(self) -> None:
        super().__init__()
        self._icon = QLabel()
        self._text = wrapped_label()
        fill_layout(QHBoxLayout(self), self._icon, (self._text, 1))
        self.clear()

    def say(self, kind: QStyle.StandardPixmap, text: str) -> None:
        """Show a message, in the words of a window."""
        text = in_words(text)
        side = self.fontMetrics().height()
        self._icon.setPixmap(self.style().standardIcon(kind).pixmap(side, side))
        self._text.setText(text.replace("/", "/" + BREAK_HERE))
        self.show()

    def report(self, outcome: str, warnings: Sequence[str]) -> None:
        """Show what came of a run, and after it the warnings."""
        self.say(WARNING if warnings else INFORMATION, " ".join([outcome, *warnings]))

    def clear(self) -> None:
        """Show nothing."""
        self._text.clear()
        self.hide()

    def text(self) -> str:
        """The message that is shown."""
        return self._text.text().replace(BREAK_HERE, "")
