"""Work that is asked for again and again, of which only the newest answer counts."""

from collections.abc import Generator
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_cvdm.core.result import Progress
from napari_cvdm.widgets.common.worker import Job


class LatestWork(QObject):
    """One piece of work at a time, which a newer one may replace.

    Only the answer of the newest work arrives.

    Parameters
    ----------
    parent : QObject
        When it goes, so does the answer.
    title : str
        For napari's activity area.
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
