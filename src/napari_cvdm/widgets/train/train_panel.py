"""The buttons of a training, how far it is, and what there is to say."""

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGridLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_cvdm.core.result import Progress
from napari_cvdm.widgets.common.fields import explain_control, wrapped_label
from napari_cvdm.widgets.common.run_panel import MessageLine

PAUSE, GO_ON = "Pa&use", "Go &on"


class TrainPanel(QWidget):
    """Start, Pause, Finish, Stop, Resume; a bar; a message line."""

    start_asked = Signal()
    pause_asked = Signal(bool)
    finish_asked = Signal()
    stop_asked = Signal()
    resume_asked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.start, self.resume = QPushButton("&Train"), QPushButton("R&esume…")
        self.pause, self.finish, self.stop = (
            QPushButton(PAUSE),
            QPushButton("Finish &now"),
            QPushButton("&Stop"),
        )
        explain_control(
            self.start,
            "Train with the settings above. napari stays free; the dock may be closed meanwhile.",
        )
        explain_control(
            self.resume,
            "Go on with a training that was stopped: choose one of the unfinished runs.",
        )
        explain_control(
            self.finish,
            "End the training where it is, and make a model of the best weights so far.",
        )
        explain_control(
            self.stop,
            "Save the training and end it. Resume goes on from there, to the same weights.",
        )
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.stage, self.message = wrapped_label(), MessageLine()
        self._lay_out()
        self.start.clicked.connect(self.start_asked)
        self.resume.clicked.connect(self.resume_asked)
        self.finish.clicked.connect(self._on_finish)
        self.stop.clicked.connect(self._on_stop)
        self.pause.clicked.connect(self._on_pause)
        self.show_idle()

    def _lay_out(self) -> None:
        buttons = QGridLayout()
        for column, button in enumerate((self.start, self.resume)):
            buttons.addWidget(button, 0, column)
        for column, button in enumerate((self.pause, self.finish, self.stop)):
            buttons.addWidget(button, 0, column + 2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addLayout(buttons)
        for widget in (self.bar, self.stage, self.message):
            layout.addWidget(widget)

    def show_idle(self, *, ready: bool = False, resumable: bool = False) -> None:
        """No training: it may be started, or one gone on with."""
        self.start.setEnabled(ready)
        self.resume.setEnabled(resumable)
        self._show_running(False)

    def show_busy(self) -> None:
        """A training has begun."""
        self.message.clear()
        self.bar.setRange(0, 0)
        self.stage.setText("starting")
        self._show_running(True)

    def _show_running(self, running: bool) -> None:
        self.pause.setText(PAUSE)
        explain_control(
            self.pause, "Wait after the step that it is in, to lend the computer to something else."
        )
        for button in (self.start, self.resume):
            button.setVisible(not running)
        for widget in (self.pause, self.finish, self.stop, self.bar, self.stage):
            widget.setVisible(running)
            widget.setEnabled(True)

    def show_progress(self, progress: Progress) -> None:
        """How far it is, and the time left."""
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)
        if self.stop.isEnabled() and self.finish.isEnabled():
            self.stage.setText(progress.stage)

    def _on_pause(self) -> None:
        pausing = self.pause.text() == PAUSE
        self.pause.setText(GO_ON if pausing else PAUSE)
        explain_control(
            self.pause,
            "Go on after the pause."
            if pausing
            else "Wait after the step that it is in, to lend the computer to something else.",
        )
        self.pause_asked.emit(pausing)

    def _on_finish(self) -> None:
        self.stage.setText("finishing: scoring the new model")
        self._end(self.finish_asked)

    def _on_stop(self) -> None:
        self.stage.setText("stopping: saving the training")
        self._end(self.stop_asked)

    def _end(self, asked: Signal) -> None:
        for button in (self.pause, self.finish, self.stop):
            button.setEnabled(False)
        asked.emit()
