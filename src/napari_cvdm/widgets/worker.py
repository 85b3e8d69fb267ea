"""Long work in a thread: the only place where a thread starts, and where an error becomes words."""

import logging
import time
from collections.abc import Generator
from dataclasses import dataclass
from threading import Event
from typing import Any, ClassVar, TypeVar

from napari.qt.threading import GeneratorWorker, thread_worker
from napari.utils import progress as activity
from qtpy.QtCore import QObject, Signal

from napari_cvdm.result import Progress

Result = TypeVar("Result")
LOG = logging.getLogger(__name__)
LEAST_INTERVAL_S = 0.05  # napari draws its activity bar inside every update: faster updates would nest without end


@dataclass(frozen=True, slots=True)
class WorkFailed:
    """Work that ended without a result; the message is for the user.

    It is no exception: superqt raises an exception that a worker returns, and napari would show its traceback.
    """

    message: str


def explain(error: BaseException) -> str:
    """One line for the user: what happened and what to try.

    Parameters
    ----------
    error : BaseException
        ValueErrors of this package explain themselves; running out of memory and other errors are explained here.

    Returns
    -------
    str
    """
    from napari_cvdm.device import out_of_memory

    if out_of_memory(error):
        return "The memory is too small for this run. Try a smaller tile (half of it), close other programs, or choose device cpu."
    first = (str(error).splitlines() or [""])[0] or type(error).__name__
    if isinstance(error, ValueError):
        return first
    return f"The run stopped: {first} Nothing was changed. Try again, or with device cpu; the full message is in the console."


def relay(steps: Generator[Progress, None, Result], stopped: Event) -> Generator[Progress, None, Result | WorkFailed]:
    """The same steps, as many of them as the window can show; an error that can be expected comes back as `WorkFailed`.

    superqt takes a RuntimeError in a generator for a deleted worker and stays silent for ever, and torch raises RuntimeError
    for nearly everything. A returned failure always arrives, and shows the user no traceback.

    Parameters
    ----------
    steps : generator
    stopped : Event
        Set when the user cancels: the next step is passed on at once, and the worker ends there.
    """
    shown = -LEAST_INTERVAL_S
    try:
        while True:
            progress = next(steps)
            if stopped.is_set() or time.monotonic() - shown >= LEAST_INTERVAL_S:
                shown = time.monotonic()
                yield progress
    except StopIteration as end:
        return end.value
    except (ValueError, RuntimeError, MemoryError, OSError) as error:
        if not isinstance(error, ValueError):
            LOG.warning("%s", error, exc_info=error)
        return WorkFailed(explain(error))


class Job(QObject):
    """One piece of long work, in a thread, with progress in napari's activity area.

    Signals are delivered in the GUI thread: `progressed` (Progress), then at most one of `succeeded` (what the work
    returned) and `failed` (str), and `ended` in any case, last.

    Parameters
    ----------
    steps : generator
        Yields Progress, returns a result; it must not touch widgets, layers or viewers.
    title : str
        For the activity area.
    total : int
        Number of steps to come, 0 if not known.
    """

    _running: ClassVar[set["Job"]] = set()  # a job outlives the dock that started it, until its thread has ended

    progressed = Signal(object)
    succeeded = Signal(object)
    failed = Signal(str)
    ended = Signal()

    def __init__(self, steps: Generator[Progress, None, Any], *, title: str, total: int) -> None:
        super().__init__()
        self._steps = steps
        self._stopped = Event()
        self._activity = activity(total=total, desc=title)
        self._worker: GeneratorWorker | None = thread_worker(relay, ignore_errors=True)(steps, self._stopped)
        self._worker.yielded.connect(self._on_yielded)
        self._worker.returned.connect(self._on_returned)
        self._worker.errored.connect(self._on_errored)
        self._worker.finished.connect(self._on_finished)

    def start(self) -> None:
        """Start the thread."""
        if self._worker is not None:
            self._running.add(self)
            self._worker.start()

    def cancel(self) -> None:
        """Stop before the next step."""
        if self._worker is not None:
            self._worker.quit()
            self._stopped.set()

    def _on_yielded(self, progress: Progress) -> None:
        self.progressed.emit(progress)
        self._activity.update(progress.done - self._activity.n)

    def _on_returned(self, outcome: object) -> None:
        if isinstance(outcome, WorkFailed):
            self.failed.emit(outcome.message)
        else:
            self.succeeded.emit(outcome)

    def _on_errored(self, error: Exception) -> None:
        self.failed.emit(explain(error))

    def _on_finished(self) -> None:
        self._worker = None
        self._activity.close()
        self._steps.close()  # napari's task list keeps the worker; the frame with its tensors must not live as long
        self.ended.emit()
        self._running.discard(self)
