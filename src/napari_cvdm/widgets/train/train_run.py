"""One training from Start to its end: a generator for the worker's thread, signals for the dock."""

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal
from tqdm import tqdm

from napari_cvdm.core.request import TrainRequest
from napari_cvdm.core.result import Progress, Stop
from napari_cvdm.widgets.common.worker import Job, when_gone

if TYPE_CHECKING:
    from napari_cvdm.training.fine_tuning import FineTuning, TimeLeft
    from napari_cvdm.training.loop import Trained
    from napari_cvdm.training.recipe import Plan

LOOK_WHILE_PAUSED_S = 0.1  # how long a pause hears nothing of Stop
PREVIEW_EVERY_MIN = 2
NEWS_MS = 300


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingEnd:
    """How a training in the folder `run` ended."""

    run: Path
    trained: "Trained | None" = None  # None where it was stopped; it can then be continued
    # The new model among the user's own; None if it is not better than the one at the start.
    model: Path | None = None


class TrainingControl:
    """What the window asks of a running training: set there, read in the worker's thread."""

    def __init__(self) -> None:
        self.pausing = Event()  # wait after the step that it is in
        self.stopped = Event()  # save the state after that step, and end
        self.finishing = Event()  # end every stage, and make a model of what was learned
        self.preview_asked = Event()  # show one after the next step
        self.preview_every_s = 60.0 * PREVIEW_EVERY_MIN  # 0 for never
        self.field = 0  # of the held-out ones, to be previewed
        self._previewed = time.monotonic()

    @property
    def paused(self) -> bool:
        """Whether it is to wait."""
        ending = self.stopped.is_set() or self.finishing.is_set()
        return self.pausing.is_set() and not ending

    def preview_is_due(self) -> bool:
        """Whether to make one now; once for each time that it is."""
        late = 0 < self.preview_every_s <= time.monotonic() - self._previewed
        if not (late or self.preview_asked.is_set()):
            return False
        self.preview_asked.clear()
        self._previewed = time.monotonic()  # one that was asked for puts the next one off, too
        return True


def run_training(
    asked: "FineTuning | TrainRequest",
    control: TrainingControl,
    news: "SimpleQueue[object]",
    models: Path,
) -> Generator[Progress, None, TrainingEnd]:
    """Prepare, train, and put a model that is better among the user's own; for the worker's thread.

    A TrainRequest continues a run. `news` gets the Progress of the preparation, every TrainStep
    with something to report, every Preview, and the Finding of each refused pair. `models` is the
    user's folder of models.
    """
    from napari_cvdm.models.bundle import add_model
    from napari_cvdm.training.fine_tuning import Pace, TimeLeft, prepare
    from napari_cvdm.training.health import data_finding
    from napari_cvdm.training.measured import PairError
    from napari_cvdm.training.recipe import read_recipe
    from napari_cvdm.training.state import kept_if_resumable

    run = Path(asked.out) if isinstance(asked, TrainRequest) else asked.folder
    try:
        # Refused pairs leave no folder, so that the name stays free.
        with kept_if_resumable(run):
            request, pace = (
                (asked, Pace(step_s={}))
                if isinstance(asked, TrainRequest)
                else (yield from prepare(asked))
            )
            plan = read_recipe(request.recipe).plan
            found = yield from _steps(request, plan, TimeLeft(plan, pace), control, news)
    except PairError as error:  # the health light of the data tells of it, too
        news.put(data_finding(error))
        raise
    offered = add_model(run, models) if found is not None and found.better else None
    return TrainingEnd(run=run, trained=found, model=offered)


def _steps(
    request: TrainRequest,
    plan: "Plan",
    left: "TimeLeft",
    control: TrainingControl,
    news: "SimpleQueue[object]",
) -> "Generator[Progress, None, Trained | None]":
    """The steps of a training; None when it was stopped, its state saved."""
    from napari_cvdm.training.loop import train

    total = plan.mean_steps + plan.diffusion_steps
    yield Progress(stage="reading the data", done=0, total=0)
    # Closing saves the state, also when the worker is cancelled in one of the yields below.
    with closing(train(request, news.put)) as steps:
        message = None
        while True:
            try:
                step = next(steps) if message is None else steps.send(message)
            except StopIteration as end:
                return end.value
            if step.terms or step.score is not None:
                news.put(step)
            # Before the next step and in this thread, because a preview uses the network.
            if control.preview_is_due() and (preview := step.preview(control.field)) is not None:
                news.put(preview)
            done = step.step + (plan.mean_steps if step.stage == "diffusion" else 0)
            done, place = min(done, total), f"{step.stage} {step.step}/{step.total}"
            rest = tqdm.format_interval(left.after(step.stage, step.step))
            yield Progress(stage=f"{place}, {rest} left", done=done, total=total)
            while control.paused:
                time.sleep(LOOK_WHILE_PAUSED_S)
                left.begin_again()  # else the pause would count as time of steps
                yield Progress(stage=f"{place}, paused", done=done, total=total)
            if control.stopped.is_set():
                return None
            # Sent after every step: one ends only the stage that it meets.
            message = Stop.KEEP if control.finishing.is_set() else None


class TrainRun(QObject):
    """A training under way.

    Signals are delivered in the GUI thread. `progressed` (Progress), `stepped` (TrainStep),
    `previewed` (Preview) and `refused` (Finding) come as they happen. Then at most one of
    `succeeded` (TrainingEnd) and `failed` (str) comes, and `ended` in any case.

    When `owner` goes, the training is stopped and its state is saved.
    """

    progressed = Signal(object)
    stepped = Signal(object)
    previewed = Signal(object)
    refused = Signal(object)
    succeeded = Signal(object)
    failed = Signal(str)
    ended = Signal()

    def __init__(self, asked: "FineTuning | TrainRequest", models: Path, owner: QObject) -> None:
        super().__init__()
        self.control = TrainingControl()
        self._news: SimpleQueue[object] = SimpleQueue()
        self._job = Job(
            run_training(asked, self.control, self._news, models), title="Training", total=0
        )
        # The news of a step come before its progress, and all news before the end.
        for ours, theirs in (
            (self._job.progressed, self.progressed),
            (self._job.succeeded, self.succeeded),
            (self._job.failed, self.failed),
        ):
            ours.connect(self._deliver)
            ours.connect(theirs)
        # The preparation takes no steps that would bring its news.
        self._clock = QTimer(self)
        self._clock.setInterval(NEWS_MS)
        self._clock.timeout.connect(self._deliver)
        self._job.ended.connect(self._clock.stop)
        self._job.ended.connect(self.ended)
        when_gone(owner, self.control.stopped.set)

    def start(self) -> None:
        """Start the thread."""
        self._clock.start()
        self._job.start()

    def _deliver(self) -> None:
        from napari_cvdm.training.health import Finding
        from napari_cvdm.training.loop import TrainStep
        from napari_cvdm.training.validation import Preview

        signals = {
            Progress: self.progressed,
            TrainStep: self.stepped,
            Preview: self.previewed,
            Finding: self.refused,
        }
        while not self._news.empty():
            news = self._news.get()
            signals[type(news)].emit(news)
