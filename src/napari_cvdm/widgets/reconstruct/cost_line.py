"""The expected duration of a run, shown beside its button.

It is measured on one tile whenever the settings have stopped changing.
"""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel
from tqdm import tqdm

from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.core.result import Progress
from napari_cvdm.widgets.common.worker import Job

if TYPE_CHECKING:
    from napari_cvdm.reconstruction.cost import Estimate

REST_MS = 700
GIGABYTE = 1e9
LONG_S = 100


def measured(request: ReconstructionRequest) -> "Generator[Progress, None, Estimate]":
    """The estimate for a request; for the worker's thread."""
    from napari_cvdm.models.registry import load_model
    from napari_cvdm.reconstruction.cost import estimate

    yield Progress(stage="loading the model", done=0, total=0)
    return (yield from estimate(request, load_model(request.model)))


def cost_sentence(found: "Estimate") -> str:
    """An estimate in words."""
    tiles = f" in {found.tiles} tiles" if found.tiles > 1 else ""
    size = (
        f"{found.memory_bytes / GIGABYTE:.1f} GB"
        if found.memory_bytes >= GIGABYTE / 2
        else f"{found.memory_bytes / 1e6:.0f} MB"
    )
    seconds = max(1, round(found.seconds))
    time = f"{seconds} s" if seconds < LONG_S else tqdm.format_interval(seconds)
    return f"about {time} and {size}{tiles}"


class CostLine(QLabel):
    """Says what a run would cost.

    Parameters
    ----------
    request : callable
        () -> the current request, or None when there is nothing to run or something runs already.
    """

    def __init__(self, request: Callable[[], ReconstructionRequest | None]) -> None:
        super().__init__()
        self.setToolTip(
            "Time and memory of the full run with these settings, measured on one tile of this "
            "image on this device."
        )
        self.setWordWrap(True)
        self._request = request
        self._job: Job | None = None
        self._measuring = self._again = False
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._measure)

    @property
    def waiting(self) -> bool:
        """Whether a measurement is to come, or under way."""
        return self._rest.isActive() or self._measuring

    def refresh(self) -> None:
        """Measure again, once the settings have come to rest."""
        self.clear()
        self._rest.start()

    def _measure(self) -> None:
        if self._measuring:  # the one under way is of older settings
            self._again = True
            return
        request = self._request()
        if request is None:
            return
        self._job = job = Job(measured(request), title="", total=0, owner=self)
        job.succeeded.connect(self._on_succeeded)
        job.ended.connect(self._on_ended)
        self._measuring = True
        job.start()

    def _on_succeeded(self, found: "Estimate") -> None:
        if not (self._again or self._rest.isActive()):
            self.setText(cost_sentence(found))

    def _on_ended(self) -> None:
        self._measuring = False
        if self._again:
            self._again = False
            self.refresh()
