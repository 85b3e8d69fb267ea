"""Files that are opened and reconstructed one after another.

A failure of one file does not stop the next.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_cvdm.core.request import ImageStack, RequestError
from napari_cvdm.core.result import Progress, Reconstruction
from napari_cvdm.io.pairing import sort_paths
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, WARNING, RunPanel
from napari_cvdm.widgets.layers.contributions import image_layer
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.reconstruction import Run
from napari_cvdm.widgets.layers.shown_layers import remove_layers
from napari_cvdm.widgets.reconstruct.batch import Batch, ReadEntry, WholeStacks
from napari_cvdm.widgets.reconstruct.queue_panel import QueuePanel, Row, State

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_cvdm.widgets.common.reconstruct_form import ReconstructForm

PERCENT = 100


class FileQueue(QObject):
    """Processes a list of files, one job at a time.

    The queue takes the settings from the form when it starts, so all files are reconstructed alike.
    A file without a result leaves no layer behind.

    Parameters
    ----------
    viewer : Viewer
    form : ReconstructForm
    panel : RunPanel
        Runs the jobs, those of others, too.

    Notes
    -----
    `run_asked` (Run) asks the dock to start a run with the callbacks `on_result`, `on_failure` and
    `on_end` of this queue.
    """

    run_asked = Signal(object)

    def __init__(self, viewer: "Viewer", form: "ReconstructForm", panel: RunPanel) -> None:
        super().__init__(panel)
        self.view = QueuePanel()
        self._viewer, self._form, self._panel = viewer, form, panel
        self._batch: Batch | None = None
        self._grouped_for: set[int] = set()  # numbers of planes for which files were put together
        self._row: Row | None = None
        self._outcome = State.CANCELLED, ""
        self._layers: list[Image] = []
        self._run: Run | None = None
        self.view.added.connect(self.add)
        self.view.start_asked.connect(self.restart)
        self.view.cancel_asked.connect(self.cancel)
        panel.cancel.clicked.connect(self._on_panel_cancel)
        panel.progressed.connect(self._on_progress)
        panel.idle.connect(self.go_on)

    @property
    def running(self) -> bool:
        """Whether there is work to come, or under way."""
        return self._batch is not None

    def add(self, paths: Sequence[str]) -> None:
        """Append files and folders, and begin."""
        planes = self._expected_planes() if self._batch is None else self._batch.planes
        self._grouped_for.add(planes)
        self.view.add_sorted(sort_paths(paths, planes))
        self.start()

    def _expected_planes(self) -> int:
        """How many planes one image has, as far as the form says it."""
        task = self._form.task
        if task is None:
            return 1
        with suppress(RequestError):  # text that is not a number is refused when the queue starts
            return Batch(settings=self._form.typed_settings(), task=task).planes
        return task.planes

    def restart(self) -> None:
        """Begin, also with what failed or was cancelled before."""
        self.view.change((State.FAILED, State.CANCELLED), State.WAITING)
        self.start()

    def start(self) -> None:
        """Process the waiting files with the current form, unless the queue is running already."""
        if self.running or self.view.next() is None:
            return
        try:
            self._batch = self._form_batch()
        except ValueError as error:
            self._panel.message.say(ERROR, str(error))
        if self._batch is not None:
            self._regroup(self._batch.planes)
        self.go_on()

    def _regroup(self, planes: int) -> None:
        """Regroup the waiting files if some were grouped for another number of planes."""
        if self._grouped_for == {planes}:
            return
        self._grouped_for.add(planes)
        waiting = self.view.waiting()
        files = [file for row in waiting if row.entry is not None for file in row.entry.files]
        self.view.replace(waiting, sort_paths(files, planes).entries)

    def _form_batch(self) -> Batch | None:
        """The form's settings for every file, or None if some are missing.

        The message line then says what is missing.
        """
        task = self._form.task
        batch = None if task is None else Batch(settings=self._form.typed_settings(), task=task)
        missing = ("a model",) if batch is None else batch.missing()
        if missing:
            self._panel.message.say(
                INFORMATION,
                f"Needed before the files can be reconstructed: {', '.join(missing)}. Then press "
                "Start below.",
            )
            return None
        return batch

    def cancel(self) -> None:
        """Stop the file at work, and leave those that wait."""
        if self._row is None:
            self._leave_the_rest()
        else:
            self._panel.cancel.click()

    def _on_panel_cancel(self) -> None:
        if self._row is not None:
            self._leave_the_rest()

    def _leave_the_rest(self) -> None:
        self._batch = None
        self.view.change((State.WAITING,), State.CANCELLED)

    def go_on(self) -> None:
        """Take up the next file, if the run panel is free."""
        if self._batch is None or self._panel.busy:
            return
        row = self.view.next()
        if row is None or row.entry is None:
            self._batch = None
            kind = INFORMATION if self.view.all_done else WARNING
            self._panel.message.say(kind, f"The queue has ended: {self.view.summary()}.")
            return
        self._row, self._outcome = row, (State.CANCELLED, "")
        self.view.show_state(row, State.READING)
        steps, total = self._batch.read(row.entry), len(row.entry.files)
        self._panel.start(
            steps,
            title="",
            total=total,
            on_result=self._on_read,
            on_failure=self.on_failure,
            on_end=self._on_read_end,
        )

    def _on_read(self, read: ReadEntry | WholeStacks) -> None:
        if self._batch is None or self._row is None:  # cancelled when the last byte was read
            return
        if isinstance(read, WholeStacks):
            self.view.replace([self._row], read.files)
            self._row = None
            return
        for path, stack in zip(read.entry.files, read.stacks, strict=True):
            self._layers.append(
                self._add_layer(
                    path, replace(stack, pixel_um=read.request.known_optics("pixel_um"))
                )
            )
        self._run = read.run([Placement.of(layer) for layer in self._layers], self._batch.task)

    def _add_layer(self, path: Path, stack: ImageStack) -> "Image":
        from napari.layers import Image

        data, keywords, _ = image_layer(stack, path.stem.removesuffix(".ome"))
        keywords["metadata"][METADATA_KEY]["file"] = str(path)
        layer = Image(data, **keywords)
        self._viewer.add_layer(layer)
        return layer

    def _on_read_end(self) -> None:
        run, self._run = self._run, None
        if run is None or self._row is None:
            self.on_end()
            return
        self.view.show_state(self._row, State.RUNNING)
        self.run_asked.emit(run)

    def _on_progress(self, progress: Progress) -> None:
        if self._row is not None and self._row.state is State.RUNNING and progress.total:
            self._row.set_percent(PERCENT * progress.done // progress.total)

    def on_result(self, reconstruction: Reconstruction) -> None:
        """The file at work has its result."""
        self._outcome = State.DONE, " ".join(reconstruction.provenance.warnings)

    def on_failure(self, reason: str) -> None:
        """The file at work has failed."""
        self._outcome = State.FAILED, reason

    def on_end(self) -> None:
        """Settle the file, whatever came of it, and take up the next."""
        row, layers = self._row, self._layers
        self._row, self._layers = None, []
        if row is not None:
            self._settle(row, layers)
        if self._batch is not None:
            self.go_on()

    def _settle(self, row: Row, layers: "list[Image]") -> None:
        state, detail = self._outcome
        self.view.show_state(row, state, detail)
        if state is not State.DONE:
            remove_layers(self._viewer, layers)
        if state is State.CANCELLED:
            self._leave_the_rest()
        if self._batch is None:
            self._panel.message.say(
                INFORMATION,
                f"The queue was stopped: {self.view.summary()}. Start goes on with what is left.",
            )
