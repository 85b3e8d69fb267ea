"""The Train dock.

It takes pairs, a model to start from, and a time. During the training it shows curves, health
lights and previews. At the end it offers a model.
"""

import shlex
from collections.abc import Callable, Generator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.viewer import Viewer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QInputDialog,
    QProgressBar,
    QStyle,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_cvdm.core.request import TrainRequest
from napari_cvdm.core.result import Progress
from napari_cvdm.widgets.common.fields import (
    Dock,
    explain_control,
    fill_layout,
    make_button,
    scrolled,
    wrapped_label,
)
from napari_cvdm.widgets.common.menu_actions import open_reconstruct
from napari_cvdm.widgets.common.preferences import own_models
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, WARNING, MessageLine
from napari_cvdm.widgets.common.worker import LatestWork
from napari_cvdm.widgets.layers.reconstruction import engine_problem
from napari_cvdm.widgets.train.train_form import RUNS, TrainForm
from napari_cvdm.widgets.train.train_progress import TrainProgress
from napari_cvdm.widgets.train.train_run import TrainingControl, TrainingEnd, TrainRun

if TYPE_CHECKING:
    from napari_cvdm.training.fine_tuning import FineTuning

BUNDLE, ZOO = "Model bundle (*.zip)", "BioImage Model Zoo, a folder with two packages (*)"
PAUSE, GO_ON = "Pa&use", "Go &on"


class TrainWidget(Dock):
    """Plugins > CVDM reconstruction > Train.

    The training continues when the dock is hidden. When the dock goes with its viewer, the training
    is stopped and saved.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.run: TrainRun | None = None
        self._former: TrainRun | None = None  # it may be emitting yet
        layout = QVBoxLayout(self)
        if problem := engine_problem():
            fill_layout(layout, wrapped_label(problem))
            return
        self.form, self.progress = TrainForm(napari_viewer), TrainProgress(napari_viewer)
        self.panel = TrainPanel(start=self.start, resume=self._ask_resume)
        self.result = TrainedModel(napari_viewer, self.form.source.optics)
        self.tabs = QTabWidget()
        self.tabs.addTab(scrolled(self.form), "Settin&gs")
        self.tabs.addTab(self.progress, "P&rogress")
        fill_layout(layout, (self.tabs, 1), self.panel, self.result)
        self.form.changed.connect(self._on_changed)
        for refused in (self.form.model.refused, self.form.source.presets.refused):
            refused.connect(partial(self.panel.message.say, ERROR))
        self.result.said.connect(self.panel.message.say)
        self._on_changed()

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
        else:
            self._begin(asked)

    def _ask_resume(self) -> None:
        names = [run.name for run in self.unfinished()]
        name, chosen = QInputDialog.getItem(
            self, "Go on with a training", "Unfinished run:", names, 0, False
        )
        if chosen:
            self.resume(own_models() / RUNS / name)

    def resume(self, run: Path) -> None:
        """Go on with a run that was stopped, by its folder."""
        from napari_cvdm.training.fine_tuning import RECIPE

        if not self.training:
            device = self.form.words["device"].currentText()
            self._begin(
                TrainRequest(recipe=str(run / RECIPE), out=str(run), resume=True, device=device)
            )

    def _begin(self, asked: "FineTuning | TrainRequest") -> None:
        self._former, self.run = self.run, TrainRun(asked, own_models(), owner=self)
        run = self.run  # connected before it starts, so that nothing it says is lost
        run.progressed.connect(self.panel.show_progress)
        run.stepped.connect(self.progress.on_step)
        run.previewed.connect(self.progress.on_preview)
        run.refused.connect(self.progress.lights.add)
        run.succeeded.connect(self._on_end)
        run.failed.connect(self._on_failed)
        run.ended.connect(self._on_ended)
        self.progress.begin(run.control)
        self.result.forget()
        self.form.setEnabled(False)  # it shows the settings of the training under way
        self.panel.show_busy(run.control)
        self.tabs.setCurrentWidget(self.progress)
        run.start()

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
        self.form.model.refresh()  # the new model may be started from
        self.form.propose_name()  # the name of this run is taken now
        self._former, self.run = self.run, None
        self.progress.end()
        self.panel.show_idle(ready=not self.form.missing(), resumable=bool(self.unfinished()))


class TrainPanel(QWidget):
    """Start, Pause, Finish, Stop, Resume; a bar; a message line.

    `start` and `resume` are called by their buttons; the others act on the training under way.
    """

    def __init__(self, *, start: Callable[[], None], resume: Callable[[], None]) -> None:
        super().__init__()
        self._control = TrainingControl()  # nobody reads it before a training begins
        self.start = make_button(
            "&Train",
            "Train with the settings above. napari stays free; the dock may be closed meanwhile.",
            start,
        )
        self.resume = make_button(
            "R&esume…",
            "Go on with a training that was stopped: choose one of the unfinished runs.",
            resume,
        )
        self.pause = make_button(PAUSE, "", self._on_pause)
        self.finish = make_button(
            "Finish &now",
            "End the training where it is, and make a model of the best weights so far.",
            self._on_finish,
        )
        self.stop = make_button(
            "&Stop",
            "Save the training and end it. Resume goes on from there, to the same weights.",
            self._on_stop,
        )
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.stage, self.message = wrapped_label(), MessageLine()
        buttons = QGridLayout()
        for column, button in enumerate(
            (self.start, self.resume, self.pause, self.finish, self.stop)
        ):
            buttons.addWidget(button, 0, column)
        fill_layout(
            QVBoxLayout(self), buttons, self.bar, self.stage, self.message, margins=(4, 4, 4, 4)
        )
        self.show_idle()

    def show_idle(self, *, ready: bool = False, resumable: bool = False) -> None:
        """No training: it may be started, or one gone on with."""
        self.start.setEnabled(ready)
        self.resume.setEnabled(resumable)
        self._show_running(False)

    def show_busy(self, control: TrainingControl) -> None:
        """A training has begun, which the buttons control."""
        self.message.clear()
        self.bar.setRange(0, 0)  # which Qt shows as busy, as long as no total is known
        self.stage.setText("starting")
        self._control = control
        self._show_running(True)

    def _show_running(self, running: bool) -> None:
        self._show_paused(False)
        for button in (self.start, self.resume):
            button.setVisible(not running)
        for widget in (self.pause, self.finish, self.stop, self.bar, self.stage):
            widget.setVisible(running)
            widget.setEnabled(True)

    def _show_paused(self, paused: bool) -> None:
        self.pause.setText(GO_ON if paused else PAUSE)
        # Its tooltip names the key, which changes with the text.
        explain_control(
            self.pause,
            "Go on after the pause."
            if paused
            else "Wait after the step that it is in, to lend the computer to something else.",
        )

    def show_progress(self, progress: Progress) -> None:
        """How far it is, and the time left."""
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)
        if self.stop.isEnabled():  # else it says that the training ends
            self.stage.setText(progress.stage)

    def _on_pause(self) -> None:
        pausing = self.pause.text() == PAUSE
        self._show_paused(pausing)
        (self._control.pausing.set if pausing else self._control.pausing.clear)()

    def _on_finish(self) -> None:
        self._show_ending("finishing: scoring the new model")
        self._control.finishing.set()

    def _on_stop(self) -> None:
        self._show_ending("stopping: saving the training")
        self._control.stopped.set()

    def _show_ending(self, stage: str) -> None:
        self.stage.setText(stage)
        for button in (self.pause, self.finish, self.stop):
            button.setEnabled(False)


def export_bundle(folder: Path, path: Path) -> Generator[Progress, None, Path]:
    """Put a model into one file, for a worker's thread."""
    from napari_cvdm.models.bundle import write_bundle

    yield Progress(stage="exporting", done=0, total=1)
    return write_bundle(folder, path, overwrite=True)  # the dialog has asked


def export_packages(
    folder: Path, path: Path, optics: Mapping[str, Any]
) -> Generator[Progress, None, Path]:
    """Write two packages of the BioImage Model Zoo into a folder, in a worker's thread."""
    from napari_cvdm.export.sampler import PackageSettings
    from napari_cvdm.export.zoo import write_bioimageio

    yield Progress(stage="exporting, and testing the packages", done=0, total=1)
    write_bioimageio(folder, path, PackageSettings.of(optics))
    return path


class TrainedModel(QWidget):
    """Buttons for the model of the run that ended last; without one, they take no room.

    `optics` gives by name what a package of the BioImage Model Zoo fixes.
    """

    said = Signal(QStyle.StandardPixmap, str)

    def __init__(self, viewer: Viewer, optics: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__()
        self._viewer, self._optics = viewer, optics
        self._end: TrainingEnd | None = None
        self.use = make_button(
            "Use &in Reconstruct", "Open the Reconstruct dock with this model chosen.", self._on_use
        )
        self.export = make_button(
            "E&xport…",
            "Save the model as one file, to be added elsewhere with napari-cvdm models add,\n"
            "or as packages of the BioImage Model Zoo for other programs, with the optics of the "
            "settings.",
            self._on_export,
        )
        self.command = make_button(
            "&Copy command",
            "Copy the command that makes this model again, for example on a cluster: its recipe "
            "and pairs lie in the run's folder.",
            self._on_command,
        )
        self._work = LatestWork(self, "Exporting a model")
        self._work.succeeded.connect(
            lambda path: self.said.emit(INFORMATION, f"Exported to {path}.")
        )
        self._work.failed.connect(partial(self.said.emit, ERROR))
        fill_layout(QHBoxLayout(self), self.use, self.export, self.command, margins=(4, 0, 4, 4))
        self.forget()

    def forget(self) -> None:
        """Offer nothing."""
        self._end = None
        self.hide()

    def show_end(self, end: TrainingEnd) -> None:
        """Offer the model of a training: for use if it is better, for export in any case."""
        self._end = end
        self.use.setEnabled(end.model is not None)
        self.export.setEnabled(end.trained is not None)
        self.show()

    def _on_use(self) -> None:
        if self._end is not None and self._end.model is not None:
            model = str(self._end.model)
            open_reconstruct(self._viewer, lambda dock: dock.form.model.set_value(model))

    def _on_export(self) -> None:
        if self._end is None:
            return
        proposed = str(Path.home() / f"{self._end.run.name}.zip")
        path, kind = QFileDialog.getSaveFileName(
            self, "Export the model", proposed, f"{BUNDLE};;{ZOO}"
        )
        if not path:
            return
        try:
            self._work.start(
                # The proposed name ends in .zip, but these packages are a folder.
                export_packages(self._end.run, Path(path.removesuffix(".zip")), self._optics())
                if kind == ZOO
                else export_bundle(self._end.run, Path(path))
            )
        except ValueError as error:  # a number that is none
            self.said.emit(ERROR, str(error))

    def _on_command(self) -> None:
        if self._end is not None:
            run = self._end.run
            # The model of the run again, beside it.
            command = shlex.join(
                ["napari-cvdm", "train", str(run / "recipe.toml"), "--out", f"{run}-again"]
            )
            QApplication.clipboard().setText(command)
            self.said.emit(INFORMATION, f"Copied: {command}")
