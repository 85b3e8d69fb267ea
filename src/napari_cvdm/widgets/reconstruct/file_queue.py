"""Files: one is opened and chosen in the form, several wait in a list until Start is pressed.

Those of the list are reconstructed one after another, all with the same settings. Each file has its
own optics where it states them. A failure of one file does not stop the next.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import QObject, Signal

from napari_cvdm.core.plan import count_planes
from napari_cvdm.core.request import (
    OPTICS,
    ImageStack,
    ReconstructionRequest,
    RequestError,
    roles_of_images,
)
from napari_cvdm.core.result import Progress, Reconstruction
from napari_cvdm.io import check_pixels, combine_planes, read_image
from napari_cvdm.io.pairing import ImageEntry, Sorted, sort_paths
from napari_cvdm.io.result_folder import check_measured
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, WARNING, RunPanel
from napari_cvdm.widgets.layers.contributions import image_layer
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.reconstruction import Run
from napari_cvdm.widgets.layers.shown_layers import remove_layers
from napari_cvdm.widgets.reconstruct.queue_panel import QueuePanel, Row, State

if TYPE_CHECKING:
    from napari_cvdm.tasks import Task
    from napari_cvdm.widgets.common.reconstruct_form import ReconstructForm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadEntry:
    """An entry that was read: a stack of each file, to be shown, and the request of them all."""

    entry: ImageEntry
    stacks: tuple[ImageStack, ...] = field(repr=False)
    request: ReconstructionRequest

    def run(self, places: Sequence[Placement], task: "Task") -> Run:
        """The run of this entry, whose files are the layers that lie at `places`."""
        paths = [str(path) for path in self.entry.files]
        files = dict(zip(roles_of_images(len(paths)), paths, strict=True))
        files |= {"psf": self.request.psf.source} if self.request.psf is not None else {}
        image = replace(self.request.image, source=" + ".join(place.name for place in places))
        place = replace(places[0], files=files, planes=image.planes or 1)
        return Run(
            request=replace(self.request, image=image),
            place=place,
            unit=task.unit,
            upsampling=task.upsampling,
        )


def read_entry(entry: ImageEntry) -> Generator[Progress, None, tuple[ImageStack, ...]]:
    """Read the files of an entry, in a worker's thread; ImageFileError if one is no image."""
    stacks = []
    for number, path in enumerate(entry.files):
        yield Progress(stage=f"reading {path.name}", done=number, total=len(entry.files))
        check_measured([path])
        stacks.append(read_image(path, alone=len(entry.files) > 1))
    # So that a cancel during the last file is heeded.
    yield Progress(stage="reading", done=len(stacks), total=len(stacks))
    return tuple(stacks)


def split_whole_stacks(
    entry: ImageEntry, stacks: Sequence[ImageStack], planes: int
) -> tuple[ImageEntry, ...]:
    """The files of an entry as images of their own, if each holds all planes; else nothing."""
    if len(stacks) < 2 or any(planes not in stack.array.shape[:-2] for stack in stacks):
        return ()
    return tuple(ImageEntry(files=(path,)) for path in entry.files)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """What all files of a queue have in common."""

    # By request name, without the image; optics that are None must be said by the files.
    settings: Mapping[str, Any] = field(repr=False)
    task: "Task"

    @property
    def planes(self) -> int:
        """How many planes one image has."""
        return count_planes(self.task.planes, self.settings.get("defocus_um"))

    def missing(self) -> tuple[str, ...]:
        """Settings that no file can say."""
        return tuple(
            name
            for name in self.task.needed_optics
            if name not in OPTICS and self.settings[name] is None
        )

    def read(
        self, entry: ImageEntry
    ) -> Generator[Progress, None, ReadEntry | tuple[ImageEntry, ...]]:
        """Read the files of an entry and make its request; for the worker's thread.

        Files that were taken for planes of one image, but hold all planes each, are returned as
        images of their own. ImageFileError, RequestError and OpticsError say what is wrong with the
        files, or what they do not say.
        """
        stacks = yield from read_entry(entry)
        if alone := split_whole_stacks(entry, stacks, max(self.planes, 2)):
            return alone
        if len(stacks) > self.planes:
            raise RequestError(
                f"{entry.name}: these {len(stacks)} files were taken for planes of one image, but "
                f"the model takes {self.task.inputs}. Remove them, and drop them again."
            )
        image = combine_planes(*stacks, count=self.planes) if self.planes > 1 else stacks[0]
        check_pixels(image)
        return ReadEntry(entry=entry, stacks=stacks, request=self.request_of(image))

    def request_of(self, image: ImageStack) -> ReconstructionRequest:
        """The request for an image; what its file says of optics goes before the settings.

        RequestError or OpticsError for optics that neither says, or that are not allowed.
        """
        said = [name for name in OPTICS if image.states(name) is not None]
        request = ReconstructionRequest(image=image, **{**self.settings, **dict.fromkeys(said)})
        unknown = [
            name
            for name in self.task.needed_optics
            if name in OPTICS and request.known_optics(name) is None
        ]
        if unknown:
            raise RequestError(
                f"{image.source}: the file does not say {', '.join(unknown)}; type it in above "
                "(what came from another layer does not count), and press Start."
            )
        return request


class FileQueue(QObject):
    """Processes a list of files, one job at a time.

    The queue takes the settings from the form when it starts, so all files are reconstructed alike.
    A file without a result leaves no layer behind. `panel` runs the jobs, those of others, too.

    `run_asked` (Run) asks the dock to start a run with the callbacks `on_result`, `on_failure` and
    `on_end` of this queue. `opened` tells that a single image was opened and chosen in the form.
    """

    run_asked = Signal(object)
    opened = Signal()

    def __init__(self, viewer: Viewer, form: "ReconstructForm", panel: RunPanel) -> None:
        super().__init__(panel)
        self.view = QueuePanel(start=self.restart, cancel=self.cancel)
        self._viewer, self._form, self._panel = viewer, form, panel
        self._batch: Batch | None = None
        self._grouped_for: set[int] = set()  # numbers of planes for which files were put together
        self._row: Row | None = None
        self._outcome = State.CANCELLED, ""
        self._layers: list[Image] = []  # of the file at work
        self._run: Run | None = None
        self._opened = False
        self.view.added.connect(self.add)
        panel.cancel.clicked.connect(self._on_panel_cancel)
        panel.progressed.connect(self._on_progress)
        panel.idle.connect(self.go_on)

    @property
    def running(self) -> bool:
        """Whether there is work to come, or under way."""
        return self._batch is not None

    def add(self, paths: Sequence[str]) -> None:
        """Open a single image and choose it in the form; put several into the list, to wait."""
        found = sort_paths(paths, self._expected_planes())
        pair = sort_paths(paths, 2, by_name=True)
        if not self._form.model.by_hand and len(pair.entries) == 1:
            found = pair  # two planes by their names: the form then chooses a model for planes
        single = len(found.entries) == 1 and not self.running and self.view.next() is None
        if not single or self._panel.busy:
            self.append(paths)
            self._say_waiting()
            return
        self.view.add_sorted(replace(found, entries=()))
        (entry,) = found.entries
        self._panel.start(
            read_entry(entry),
            title="",
            total=len(entry.files),
            on_result=partial(self._open, entry),
            on_end=self._on_open_end,
        )

    def _on_open_end(self) -> None:
        opened, self._opened = self._opened, False
        if opened:
            self.opened.emit()
        else:
            self._say_waiting()

    def append(self, paths: Sequence[str]) -> None:
        """Put files and folders into the list."""
        planes = self._expected_planes()
        self._grouped_for.add(planes)
        self.view.add_sorted(sort_paths(paths, planes))

    def _say_waiting(self) -> None:
        waiting = len(self.view.waiting())
        if waiting and not self.running and not self._panel.busy:
            images = "1 image waits" if waiting == 1 else f"{waiting} images wait"
            self._panel.message.say(
                INFORMATION, f"{images} in the list. Check the settings, then press Start below."
            )

    def _open(self, entry: ImageEntry, stacks: tuple[ImageStack, ...]) -> None:
        """Show an image that was read, and choose it in the form."""
        from napari_cvdm.reconstruction.plan import task_of

        files = entry.files
        if alone := split_whole_stacks(entry, stacks, len(stacks)):
            self.view.add_sorted(Sorted(entries=alone, strays=()))
            return
        if len(stacks) > 2:  # the form takes more planes than two in one layer
            stacks, files = (combine_planes(*stacks, count=len(stacks)),), files[:1]
        whole = len(files) == len(entry.files)  # else no single file holds the pixels
        layers = [
            self._add_layer(stack, path, path if whole else None)
            for stack, path in zip(stacks, files, strict=True)
        ]
        self._form.image.set_value(layers[0])
        self._form.second.set_value(layers[1] if len(layers) > 1 else None)
        if len(files) < len(entry.files) or len(layers) > 1:
            self._form.model.suggest(lambda card: task_of(card).planes > 1)
        self._opened = True

    def _add_layer(self, stack: ImageStack, path: Path, file: Path | None) -> Image:
        """A layer with the name of a path, and the file that holds its pixels, if one does."""
        data, keywords, _ = image_layer(stack, path.stem.removesuffix(".ome"))
        if file is not None:
            keywords["metadata"][METADATA_KEY]["file"] = str(file)
        layer = Image(data, **keywords)
        self._viewer.add_layer(layer)
        return layer

    def _expected_planes(self) -> int:
        """How many planes one image has, as far as the running batch or the form says it."""
        task = self._form.task
        if self._batch is not None:
            return self._batch.planes
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
        if self._batch is not None and self._grouped_for != {self._batch.planes}:
            # Some of the waiting files were grouped for another number of planes.
            self._grouped_for.add(self._batch.planes)
            waiting = self.view.waiting()
            files = [file for row in waiting if row.entry is not None for file in row.entry.files]
            self.view.replace(waiting, sort_paths(files, self._batch.planes).entries)
        self.go_on()

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
            all_done = all(row.state is State.DONE for row in self.view.rows)
            kind = INFORMATION if all_done else WARNING
            self._panel.message.say(kind, f"The queue has ended: {self.view.summary()}.")
            return
        # A job that is cancelled tells neither a result nor a failure.
        self._row, self._outcome = row, (State.CANCELLED, "")
        self.view.show_state(row, State.READING)
        self._panel.start(
            self._batch.read(row.entry),
            title="",
            total=len(row.entry.files),
            on_result=self._on_read,
            on_failure=self.on_failure,
            on_end=self._on_read_end,
        )

    def _on_read(self, read: ReadEntry | tuple[ImageEntry, ...]) -> None:
        if self._batch is None or self._row is None:  # cancelled when the last byte was read
            return
        if isinstance(read, tuple):
            self.view.replace([self._row], read)
            self._row = None
            return
        # What the form says counts where the file says nothing, also for the layer's scale.
        pixel_um = read.request.known_optics("pixel_um")
        for path, stack in zip(read.entry.files, read.stacks, strict=True):
            layer = self._add_layer(replace(stack, pixel_um=pixel_um), path, path)
            self._layers.append(layer)
        self._run = read.run([Placement.of(layer) for layer in self._layers], self._batch.task)

    def _on_read_end(self) -> None:
        run, self._run = self._run, None
        if run is None or self._row is None:
            self.on_end()
            return
        self.view.show_state(self._row, State.RUNNING)
        self.run_asked.emit(run)

    def _on_progress(self, progress: Progress) -> None:
        if self._row is not None and self._row.state is State.RUNNING and progress.total:
            self._row.set_percent(int(100 * progress.done / progress.total))

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
            state, detail = self._outcome
            self.view.show_state(row, state, detail)
            if state is not State.DONE:  # a file without a result leaves no layer
                remove_layers(self._viewer, layers)
            if state is State.CANCELLED:
                self._leave_the_rest()
            if self._batch is None:
                stopped = f"The queue was stopped: {self.view.summary()}."
                self._panel.message.say(INFORMATION, f"{stopped} Start goes on with what is left.")
        self.go_on()
