"""The Train dock.

It takes pairs, a model to start from, and a time. During the training it shows curves, health
lights and previews. At the end it offers a model.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QInputDialog, QTabWidget, QVBoxLayout, QWidget

from napari_cvdm.core.request import TrainRequest
from napari_cvdm.widgets.common.fields import scrolled, wrapped_label
from napari_cvdm.widgets.common.preferences import own_models
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, WARNING
from napari_cvdm.widgets.layers.reconstruction import engine_problem
from napari_cvdm.widgets.train.train_form import RUNS, TrainForm
from napari_cvdm.widgets.train.train_panel import TrainPanel
from napari_cvdm.widgets.train.train_progress import TrainProgress
from napari_cvdm.widgets.train.train_run import TrainingEnd, TrainRun
from napari_cvdm.widgets.train.trained_model import TrainedModel

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_cvdm.training.fine_tuning import FineTuning

SETTINGS, PROGRESS = range(2)


class TrainWidget(QWidget):
    """Plugins > CVDM reconstruction > Train.

    The training continues when the dock is hidden. When the dock goes with its viewer, the training
    is stopped and saved.

    Parameters
    ----------
    napari_viewer : Viewer
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.run: TrainRun | None = None
        self._former: TrainRun | None = None  # it may be emitting yet
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        problem = engine_problem()
        if problem:
            layout.addWidget(wrapped_label(problem))
            return
        self.form, self.progress = TrainForm(napari_viewer), TrainProgress(napari_viewer)
        self.panel, self.result = TrainPanel(), TrainedModel(napari_viewer, self.form.source.optics)
        self.tabs = QTabWidget()
        self.tabs.addTab(scrolled(self.form), "Settin&gs")
        self.tabs.addTab(self.progress, "P&rogress")
        for widget, stretch in ((self.tabs, 1), (self.panel, 0), (self.result, 0)):
            layout.addWidget(widget, stretch)
        self._connect()
        self._on_changed()

    def _connect(self) -> None:
        self.form.changed.connect(self._on_changed)
        self.form.model.refused.connect(partial(self.panel.message.say, ERROR))
        self.panel.start_asked.connect(self.start)
        self.panel.resume_asked.connect(self._ask_resume)
        self.panel.pause_asked.connect(self._on_pause)
        self.panel.finish_asked.connect(self._on_finish)
        self.panel.stop_asked.connect(self._on_stop)
        self.result.said.connect(self.panel.message.say)

    @property
    def training(self) -> bool:
        """Whether a training is under way, or paused."""
        return self.run is not None

    def _on_changed(self) -> None:
        if self.training:
            return
        missing = self.form.missing()
        self.panel.show_idle(ready=not missing, resumable=bool(self.unfinished()))
        if missing:
            self.panel.message.say(INFORMATION, f"Needed before a start: {', '.join(missing)}.")
        else:
            self.panel.message.clear()

    def unfinished(self) -> tuple[Path, ...]:
        """Runs that were stopped, the latest first."""
        from napari_cvdm.training.fine_tuning import unfinished_runs

        return unfinished_runs(own_models() / RUNS)

    def start(self) -> None:
        """Train with the settings as they are now."""
        if self.training:
            return
        try:
            asked = self.form.value()
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return
        self._begin(asked)

    def _ask_resume(self) -> None:
        names = [run.name for run in self.unfinished()]
        name, chosen = QInputDialog.getItem(
            self, "Go on with a training", "Unfinished run:", names, 0, False
        )
        if chosen:
            self.resume(own_models() / RUNS / name)

    def resume(self, run: Path) -> None:
        """Go on with a run that was stopped.

        Parameters
        ----------
        run : Path
            Its folder.
        """
        from napari_cvdm.training.fine_tuning import RECIPE

        if not self.training:
            device = self.form.words["device"].currentText()
            self._begin(
                TrainRequest(recipe=str(run / RECIPE), out=str(run), resume=True, device=device)
            )

    def _begin(self, asked: "FineTuning | TrainRequest") -> None:
        self._former, self.run = self.run, TrainRun(asked, own_models(), owner=self)
        run = self.run
        run.progressed.connect(self.panel.show_progress)
        run.stepped.connect(self.progress.on_step)
        run.previewed.connect(self.progress.on_preview)
        run.refused.connect(self.progress.lights.add)
        run.succeeded.connect(self._on_end)
        run.failed.connect(self._on_failed)
        run.ended.connect(self._on_ended)
        self.progress.begin(run.control)
        self.result.forget()
        self.form.setEnabled(False)
        self.panel.show_busy()
        self.tabs.setCurrentIndex(PROGRESS)
        run.start()

    def _on_pause(self, pausing: bool) -> None:
        if self.run is not None:
            (self.run.control.pause if pausing else self.run.control.go_on)()

    def _on_finish(self) -> None:
        if self.run is not None:
            self.run.control.finish()

    def _on_stop(self) -> None:
        if self.run is not None:
            self.run.control.stop()

    def _on_end(self, end: TrainingEnd) -> None:
        self.result.show_end(end)
        if end.trained is None:
            self.panel.message.say(
                INFORMATION, f"Stopped, and saved in {end.run}. Resume goes on from there."
            )
            return
        self.progress.on_trained(end.trained)
        kept = (
            f"It is in the list of Reconstruct as {end.trained.card.name}."
            if end.model
            else f"It was kept apart, in {end.run}."
        )
        self.panel.message.say(
            INFORMATION if end.model else WARNING, f"Done. {end.trained.verdict} {kept}"
        )

    def _on_failed(self, message: str) -> None:
        from napari.utils.notifications import show_error

        self.panel.message.say(ERROR, message)
        show_error(message)

    def _on_ended(self) -> None:
        self.form.setEnabled(True)
        self.form.model.refresh()
        self.form.propose_name()
        self._former, self.run = self.run, None
        self.progress.end()
        self.panel.show_idle(ready=not self.form.missing(), resumable=bool(self.unfinished()))
