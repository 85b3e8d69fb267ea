"""Long work in a thread: the only place where a thread starts, and where an error becomes words."""

import atexit
import logging
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, ClassVar, TypeVar
from weakref import finalize, ref

from napari.qt.threading import GeneratorWorker
from napari.qt.threading import create_worker as create_listed_worker
from napari.resources import LOADING_GIF_PATH
from napari.utils import progress as activity
from qtpy.QtCore import QObject, QThreadPool, QTimer, Signal
from qtpy.QtGui import QMovie
from qtpy.QtWidgets import QApplication, QLabel
from superqt.utils import WorkerBase, create_worker

from napari_cvdm.core.result import FrameView, Progress, Stop

Result = TypeVar("Result")
LOG = logging.getLogger(__name__)
VIEW_INTERVAL_S = 0.25  # layers are drawn anew at most so often
# Largest share of the time for drawing, because drawing without a graphics card takes the
# processor that the worker needs.
DRAWING_SHARE = 0.05
# napari draws its activity bar inside every update, so faster updates would nest without end.
LEAST_INTERVAL_S = 0.05
# A step that came sooner than that may last for long, and is shown then.
LOOK_MS = 200
LEAST_THREADS = 16  # of Qt's pool, so that a training, Live and several docks work at once
# napari's activity sign turns slowly during work: each frame of this picture redraws the whole
# window. Without a graphics card the processor draws, and the work has to wait for it.
SLOW_PERCENT, AS_MADE_PERCENT = 20, 100


@dataclass(frozen=True, slots=True)
class WorkFailed:
    """Work that ended without a result; the message is for the user.

    It is no exception. superqt raises an exception that a worker returns, and napari would show its
    traceback.
    """

    message: str


def explain(error: BaseException) -> str:
    """One line for the user: what happened and what to try.

    ValueErrors of this package explain themselves.
    """
    from napari_cvdm.core.device import accelerator_lost, out_of_memory

    if out_of_memory(error):
        return (
            "The memory is too small for this run. Try a smaller tile (half of it), close other "
            "programs, or choose device cpu."
        )
    first = (str(error).splitlines() or [""])[0] or type(error).__name__
    if accelerator_lost(error):
        return (
            f"The GPU has failed ({first}). Nothing was changed. Choose device cpu, or save your "
            "work and start napari again to use the GPU."
        )
    if isinstance(error, ValueError):
        return first
    return (
        f"The run stopped: {first} Nothing was changed. Try again, or with device cpu; the full "
        "message is in the console."
    )


class Control:
    """What the window asks of running work."""

    def __init__(self) -> None:
        self.cancelled = Event()
        self.latest: ProgressUpdate | None = None
        self.view_interval_s = VIEW_INTERVAL_S
        self._keep = Event()

    def keep(self) -> None:
        """Stop, and keep what is finished."""
        self._keep.set()

    def drawn_in(self, seconds: float) -> None:
        """Views took so long to draw: the next ones come so late that the worker hardly notices."""
        self.view_interval_s = max(VIEW_INTERVAL_S, seconds / DRAWING_SHARE)

    def message(self) -> Stop | None:
        """What to send into the generator now. Each message is sent once."""
        if not self._keep.is_set():
            return None
        self._keep.clear()
        return Stop.KEEP


@dataclass(frozen=True, slots=True, eq=False)
class ProgressUpdate:
    """A step, and what there is to see of it: frames that are done, or the one in the making.

    The steps of a job are numbered.
    """

    progress: Progress
    number: int
    views: tuple[FrameView, ...] = ()


def relay(
    steps: Generator[Progress, Stop | None, Result], control: Control
) -> Generator[ProgressUpdate, None, Result | WorkFailed]:
    """The same steps, as many of them as the window can show.

    Once `control` is cancelled, the next step is passed on at once, and the worker ends there.

    An expected error is returned as `WorkFailed`. superqt takes a RuntimeError in a generator for a
    deleted worker and reports nothing, and torch raises RuntimeError for nearly everything. A
    returned failure always arrives, and shows the user no traceback.
    """
    shown = looked = time.monotonic() - LEAST_INTERVAL_S
    finished: list[FrameView] = []
    message, number = None, 0
    try:
        while True:
            progress = next(steps) if message is None else steps.send(message)
            number += 1
            control.latest = ProgressUpdate(progress, number)
            message, now = control.message(), time.monotonic()
            view = progress.view
            if progress.frame_done and view is not None:
                finished.append(view())
            if control.cancelled.is_set() or now - shown >= LEAST_INTERVAL_S:
                shown, views = now, list[FrameView]()
                if view is not None and now - looked >= control.view_interval_s:
                    views, finished = finished or [view()], []
                    looked = time.monotonic()
                if control.cancelled.is_set():
                    # here, not in the window's thread, because it takes a while to close a cluster
                    # or to save a training
                    steps.close()
                yield ProgressUpdate(progress, number, tuple(views))
    except StopIteration as end:
        return end.value
    except (ValueError, RuntimeError, MemoryError, OSError) as error:
        if not isinstance(error, ValueError):
            LOG.warning("%s", error, exc_info=error)
        return WorkFailed(explain(error))


def _pass_on(
    relayed: Generator[ProgressUpdate, None, object],
) -> Generator[ProgressUpdate, None, object]:
    """The same steps for the worker, which never closes a generator that it gave up.

    The job can close the inner generator, which may hold resources.
    """
    return (yield from relayed)


class Job(QObject):
    """One piece of long work, in a thread, with progress in napari's activity area.

    Signals are delivered in the GUI thread. `progressed` (Progress) and `seen` (FrameView) come
    first. Then at most one of `succeeded` (what the work returned) and `failed` (str) comes, and
    `ended` in any case, last.

    Parameters
    ----------
    steps : generator
        Yields Progress, returns a result; it must not touch widgets, layers or viewers.
    title : str
        For the activity area. "" is for short work that needs no line there and no question when
        the window is closed.
    total : int
        Number of steps to come, 0 if not known.
    owner : QObject, optional
        When it goes, the work is cancelled, because nobody is left to take the result.
    """

    # A job outlives the dock that started it, until its thread has ended.
    _running: ClassVar[set["Job"]] = set()

    progressed = Signal(object)
    seen = Signal(object)
    succeeded = Signal(object)
    failed = Signal(str)
    ended = Signal()

    def __init__(
        self,
        steps: Generator[Progress, Any, Any],
        *,
        title: str,
        total: int,
        owner: QObject | None = None,
    ) -> None:
        super().__init__()
        self._steps = steps
        self._control = Control()
        self._relayed = relay(steps, self._control)
        self._activity = activity(total=total, desc=title) if title else None
        # napari keeps a listed worker for as long as its window is there, and asks before the
        # window is closed
        made: Callable[..., GeneratorWorker] = create_listed_worker if title else create_worker
        self._worker: GeneratorWorker | None = made(
            _pass_on, self._relayed, _worker_class=GeneratorWorker, _ignore_errors=True
        )
        self._worker.yielded.connect(self._on_yielded)
        self._worker.returned.connect(self._on_returned)
        self._worker.errored.connect(self._on_errored)
        self._worker.finished.connect(self._on_finished)
        self._shown = 0
        self._looking = QTimer(self)
        self._looking.setInterval(LOOK_MS)
        self._looking.timeout.connect(self._on_look)
        if owner is not None:
            when_gone(owner, _cancel, ref(self))

    def start(self) -> None:
        """Start the thread."""
        if self._worker is not None:
            self._running.add(self)
            if self._activity is not None:
                _set_sign_speed(SLOW_PERCENT)
            self._looking.start()
            # Qt has a thread for each processor, and a run would wait for the end of a training.
            threads = QThreadPool.globalInstance()
            threads.setMaxThreadCount(max(threads.maxThreadCount(), LEAST_THREADS))
            self._worker.start()

    def cancel(self) -> None:
        """Stop before the next step, which is one tile or less; then `ended` comes."""
        if self._worker is not None:
            self._worker.quit()
            self._control.cancelled.set()

    def keep(self) -> None:
        """Stop at the next step, with what is finished as the result."""
        self._control.keep()

    def _on_look(self) -> None:
        update = self._control.latest
        if update is not None and update.number > self._shown:
            self._show(update)

    def _show(self, update: ProgressUpdate) -> None:
        self._shown = update.number
        self.progressed.emit(update.progress)
        if self._activity is not None:
            if self._activity.total != update.progress.total:
                # known only when the files were looked at
                self._activity.total = update.progress.total
            self._activity.update(int(update.progress.done) - self._activity.n)

    def _on_yielded(self, update: ProgressUpdate) -> None:
        if update.number > self._shown:
            self._show(update)
        # napari handles waiting events inside that, among them the end of this work
        if update.views and self._worker is not None and not self._control.cancelled.is_set():
            started = time.monotonic()
            for view in update.views:
                self.seen.emit(view)
            # painting comes after this, with the events that wait
            QTimer.singleShot(0, lambda: self._control.drawn_in(time.monotonic() - started))

    def _on_returned(self, outcome: object) -> None:
        if isinstance(outcome, WorkFailed):
            self.failed.emit(outcome.message)
        else:
            self.succeeded.emit(outcome)

    def _on_errored(self, error: Exception) -> None:
        self.failed.emit(explain(error))

    def _on_finished(self) -> None:
        self._worker = None
        self._looking.stop()
        if self._activity is not None:
            self._activity.close()
        self._close()
        self.ended.emit()
        self._running.discard(self)
        if self._activity is not None and all(job._activity is None for job in self._running):
            _set_sign_speed(AS_MADE_PERCENT)

    def _close(self) -> None:
        """Napari's task list keeps the worker; the frames with their tensors must go earlier."""
        for steps in (self._relayed, self._steps):
            steps.close()

    @classmethod
    def end_all(cls) -> None:
        """Cancel all work and wait until its threads have ended, each after its current step.

        napari waits when its event loop ends, but a script has none. A thread that still works
        while the interpreter shuts down aborts the program.
        """
        for job in cls._running:
            job.cancel()
        if cls._running:
            WorkerBase.await_workers()
        for job in tuple(cls._running):
            job._close()  # nobody hears that they have ended: a training saves its state here


def _cancel(job: "ref[Job]") -> None:
    running = job()
    if running is not None:
        running.cancel()


atexit.register(Job.end_all)


class LatestWork(QObject):
    """One piece of work at a time, which a newer one may replace.

    Only the answer of the newest work arrives, and none when the parent has gone. The title is for
    napari's activity area.
    """

    succeeded = Signal(object)
    failed = Signal(str)

    def __init__(self, parent: QObject, title: str) -> None:
        super().__init__(parent)
        self._title = title
        self._unfinished = list[Job]()

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return bool(self._unfinished)

    def start(self, steps: Generator[Progress, None, Any], total: int = 0) -> None:
        """Do this instead of what is being done."""
        self.cancel()
        job = Job(steps, title=self._title, total=total, owner=self)
        self._unfinished.append(job)
        job.succeeded.connect(self._on_succeeded)
        job.failed.connect(self._on_failed)
        job.start()

    def cancel(self) -> None:
        """Want no answer any more."""
        while self._unfinished:
            job = self._unfinished.pop()
            job.succeeded.disconnect(self._on_succeeded)
            job.failed.disconnect(self._on_failed)
            job.cancel()

    def _on_succeeded(self, result: object) -> None:
        self._unfinished.clear()  # the job keeps itself until its thread has ended
        self.succeeded.emit(result)

    def _on_failed(self, message: str) -> None:
        self._unfinished.clear()
        self.failed.emit(message)


def signs() -> list[QMovie]:
    """napari's activity sign of each window; moving pictures of others are not touched."""
    labels = (widget for widget in QApplication.allWidgets() if isinstance(widget, QLabel))
    return [
        movie
        for label in labels
        if (movie := label.movie()) is not None and Path(movie.fileName()) == Path(LOADING_GIF_PATH)
    ]


def _set_sign_speed(percent: int) -> None:
    for movie in signs():
        movie.setSpeed(percent)


def when_gone(widget: QObject, clean_up: Callable[..., object], *given: object) -> None:
    """Call `clean_up(*given)` once, when Qt destroys a widget or Python frees it.

    Neither `clean_up` nor `given` may refer to the widget, because it would never be freed.
    """
    # napari 0.9 sends no closing event to docked widgets, so this is their only end. A lambda
    # connected to `destroyed` is not enough: the cycle collector may have emptied it before the
    # call, and an exception in a slot ends the program. Python's own register keeps a finalizer.
    end = finalize(widget, clean_up, *given)
    end.atexit = False
    widget.destroyed.connect(end)


def listen(widget: QObject, emitter: Any, method: Callable[..., object]) -> None:
    """Connect a method of a widget to an event of napari, for as long as the widget is there."""
    # napari holds the method weakly, but drops dead references only when it emits the event
    # again, which may never happen: every dock that was closed would leave a reference.
    emitter.connect(method)
    when_gone(widget, _disconnect, ref(emitter), (ref(widget), method.__name__))


class Follower:
    """Calls a method of a widget at events of one layer, for as long as the widget is there.

    Names of events that a layer does not have are left out.
    """

    def __init__(
        self, widget: QObject, method: Callable[..., object], events: Sequence[str]
    ) -> None:
        self._widget, self._name, self._events = ref(widget), method.__name__, events
        self._followed: list[ref[Any]] = []
        when_gone(widget, _disconnect_all, self._followed, (self._widget, self._name))

    def follow(self, layer: Any) -> None:
        """Follow another layer; None follows nothing."""
        _disconnect_all(self._followed, (self._widget, self._name))
        for name in self._events:
            emitter = getattr(getattr(layer, "events", None), name, None)
            if emitter is not None:
                emitter.connect(getattr(self._widget(), self._name))
                self._followed.append(ref(emitter))


def _disconnect_all(emitters: "list[ref[Any]]", connected: tuple[Any, str]) -> None:
    while emitters:
        _disconnect(emitters.pop(), connected)


def _disconnect(emitter: "ref[Any]", connected: tuple[Any, str]) -> None:
    found = emitter()
    if found is not None:
        found.disconnect(connected)
