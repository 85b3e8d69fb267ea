"""A large reconstruction: where it is computed, and the job that writes it block by block.

The choices are this window, block by block, several processes, or a scheduler elsewhere. All but
the first write an OME-Zarr.
"""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.viewer import Viewer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QLineEdit, QVBoxLayout, QWidget

from napari_cvdm.core.request import ImageStack, RequestError
from napari_cvdm.core.result import Progress
from napari_cvdm.core.tiling import BLOCK_PX, BLOCK_STEP_PX
from napari_cvdm.io.zarr_write import SUFFIXES
from napari_cvdm.widgets.common.fields import (
    NARROWEST_PX,
    LabelledRows,
    PathField,
    fill_layout,
    whole_number,
    word_choice,
)
from napari_cvdm.widgets.common.run_panel import INFORMATION, RunPanel
from napari_cvdm.widgets.layers.layer_data import LayerData
from napari_cvdm.widgets.layers.reconstruction import Run
from napari_cvdm.widgets.layers.result_layers import disk_layer_data
from napari_cvdm.widgets.layers.shown_layers import show_in_turn

if TYPE_CHECKING:
    from napari_cvdm.models.checkpoint import Checkpoint
    from napari_cvdm.out_of_core.job import BlockJob
    from napari_cvdm.out_of_core.run import BlockResult, Executor
    from napari_cvdm.tasks.task import Background

IN_MEMORY, IN_BLOCKS, PROCESSES, SCHEDULER = (
    "this computer, in memory",
    "this computer, block by block",
    "local processes",
    "a scheduler",
)
MOST_BLOCK_PX = 16384
MOST_PROCESSES = 64
COMPARED_PX = 64  # side of what tells a file from a layer without reading either in full
ROLES = ("image", "image2")
HELP = {
    "run on": (
        "In memory is right for images of a few thousand pixels: the result is layers of this "
        "window.\n"
        "Block by block, local processes and a scheduler make an OME-Zarr folder of any size; a "
        "job that is cancelled goes on when it is started again."
    ),
    "processes": "How many at a time, each with the model in its memory.",
    "scheduler": (
        "Address of a dask scheduler, tcp://host:port. Its workers must see the image and the "
        "result under the same paths,\n"
        "and have this version of napari-cvdm."
    ),
    "block": (
        "Side of what is computed and written at once [px of the image]; smaller needs less "
        "memory. A multiple of 64."
    ),
    "out": (
        "The OME-Zarr to make, NAME.ome.zarr. Empty: beside the image, named after the image and "
        "the model."
    ),
    "overwrite": (
        "Replace an older result of this name, and begin anew where a job with other settings was "
        "begun."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfCoreOptions:
    """How a reconstruction is carried out block by block."""

    scheduler: str  # ``local:N``, an address, or "" for this process
    out: str  # folder to make, ending in ``.ome.zarr``
    block: int  # side of a block [px of the image]
    overwrite: bool


class BlockForm(QWidget):
    """Asks where to run; `changed` tells when another place was chosen."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.where = word_choice((IN_MEMORY, IN_BLOCKS, PROCESSES, SCHEDULER))
        self.processes = whole_number(1, MOST_PROCESSES)
        self.scheduler = QLineEdit()
        self.scheduler.setPlaceholderText("tcp://host:8786")
        self.scheduler.setMinimumWidth(NARROWEST_PX)
        self.block = whole_number(BLOCK_STEP_PX, MOST_BLOCK_PX)
        self.block.setSingleStep(BLOCK_STEP_PX)
        self.out = PathField("Name the OME-Zarr to make", f"OME-Zarr (*{SUFFIXES[0]})", new=True)
        self.out.line.setPlaceholderText("beside the image")
        self.overwrite = QCheckBox()
        self.processes.setValue(2)
        self.block.setValue(BLOCK_PX)
        rows: dict[str, QWidget] = {
            "run on": self.where,
            "processes": self.processes,
            "scheduler": self.scheduler,
            "block": self.block,
            "out": self.out,
            "overwrite": self.overwrite,
        }
        self._rows = LabelledRows(rows, HELP)
        fill_layout(QVBoxLayout(self), self._rows)
        self.where.currentIndexChanged.connect(self._on_where)
        self._on_where()

    def _on_where(self) -> None:
        where = self.where.currentText()
        self._rows.show_row("processes", where == PROCESSES)
        self._rows.show_row("scheduler", where == SCHEDULER)
        for name in ("block", "out", "overwrite"):
            self._rows.show_row(name, where != IN_MEMORY)
        self.changed.emit()

    @property
    def in_memory(self) -> bool:
        """Whether the result is to be layers of this window."""
        return self.where.currentText() == IN_MEMORY

    def value(self, layer: str, files: Mapping[str, str], model: str) -> OutOfCoreOptions | None:
        """What was asked for; None in memory. RequestError if a file or a name is missing.

        `layer` and `model` are names. `files` are those that the layer was opened from, as
        `ReconstructForm.files` knows them; there may be none.
        """
        where = self.where.currentText()
        if where == IN_MEMORY:
            return None
        # A lazy layer can be read here, but other processes know files alone.
        if where != IN_BLOCKS and not files:
            raise RequestError(
                f"{layer} was not opened from a file, or another layer of this run was not, and "
                f"{where} read them from files. Save the layer (File > Save Selected Layers, as "
                f".ome.zarr or .tif), open that file and choose it here; or run on: {IN_BLOCKS}."
            )
        scheduler = {
            IN_BLOCKS: "",
            PROCESSES: f"local:{self.processes.value()}",
            SCHEDULER: self.scheduler.text().strip(),
        }[where]
        if where == SCHEDULER and not scheduler:
            raise RequestError(
                "scheduler is empty; give the address of a dask scheduler, for example "
                "tcp://host:8786, or run on local processes."
            )
        return OutOfCoreOptions(
            scheduler=scheduler,
            out=self._out(layer, files, model),
            block=self.block.value(),
            overwrite=self.overwrite.isChecked(),
        )

    def _out(self, layer: str, files: Mapping[str, str], model: str) -> str:
        named = self.out.value()
        if named is not None:
            return str(named)
        if not files:
            raise RequestError(
                f"out is empty, and {layer} was not opened from a file beside which the result "
                "could lie; name the OME-Zarr to make."
            )
        image = Path(files["image"])
        # cell.ome.tif becomes cell-MODEL.ome.zarr
        return str(image.with_name(f"{image.stem.removesuffix('.ome')}-{model}{SUFFIXES[0]}"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LargeImageRun:
    """A run, whose image may be lazy, that is carried out block by block."""

    run: Run
    how: OutOfCoreOptions
    # The form's, by request name: what travels to other processes.
    settings: Mapping[str, Any] = field(repr=False)

    def work(self) -> "Generator[Progress, None, tuple[BlockResult, list[LayerData]]]":
        """Carry it out, and open the result without reading it; for the worker's thread.

        Returns what the job made, and the layers that show it. After a ClusterError, RequestError,
        ImageFileError, OpticsError or CheckpointError, blocks that are done stay done.
        """
        from napari_cvdm.out_of_core.run import reconstruct_by_blocks

        scheduler = self.how.scheduler
        stage = f"looking for {scheduler}" if scheduler else "loading the model"
        yield Progress(stage=stage, done=0, total=0)
        request, model, executor = self._opened()
        made = yield from reconstruct_by_blocks(request, model, executor)
        yield Progress(stage="opening the result", done=1, total=1)
        return made, disk_layer_data(made.path, made.images, self.run)

    def _opened(self) -> "tuple[BlockJob, Checkpoint, Executor]":
        from napari_cvdm.models.registry import load_model
        from napari_cvdm.out_of_core.job import BlockJob
        from napari_cvdm.out_of_core.run import run_serial

        how = self.how
        if not how.scheduler:
            job = BlockJob(
                request=self.run.request,
                out=how.out,
                block=how.block,
                overwrite=how.overwrite,
                inputs=tuple(self.run.place.files.values()),
            )
            return job, load_model(self.run.request.model), run_serial
        from napari_cvdm.out_of_core.dask import check_scheduler, on_cluster

        check_scheduler(how.scheduler)  # before an image is read
        job, model = self.open_files()
        check_same_pixels(job.request.image, self.run.request.image)
        check_same_background(job.request.background, self.run.request.background)
        return job, model, on_cluster(how.scheduler)

    def open_files(self) -> "tuple[BlockJob, Checkpoint]":
        """The job by the names of its files."""
        from napari_cvdm.out_of_core.job import open_job

        files, word = self.run.place.files, self.settings["background"]
        # Other processes get paths instead of pixels, which they open themselves.
        options = {
            name: value
            for name, value in self.settings.items()
            if name not in ("model", "background", "psf")
        }
        options |= {"psf": files["psf"]} if "psf" in files else {}
        return open_job(
            images=[files[role] for role in ROLES if role in files],
            model=self.run.request.model,
            out=self.how.out,
            background=word if isinstance(word, str) else files["background"],
            options=options,
            block=self.how.block,
            overwrite=self.how.overwrite,
        )


def check_same_pixels(file: ImageStack, layer: ImageStack) -> None:
    """Raise RequestError if a file is not what a layer shows.

    Shape, type and the middle of the first and the last frame are compared. A layer may be one
    channel of a file, or may have changed after it was opened. The file would then give other
    pixels.
    """
    one, other = file.array.squeeze(), layer.array.squeeze()
    # The order of bytes in a file changes no pixel.
    if (
        one.shape == other.shape
        and one.dtype.newbyteorder("=") == other.dtype
        and np.array_equal(_middles(one), _middles(other))
    ):
        return
    given = (
        f"{file.axes} {file.array.shape} {file.array.dtype} against {layer.axes} "
        f"{layer.array.shape} {layer.array.dtype}"
    )
    raise RequestError(
        f"{file.source} holds other pixels than the layer {layer.source} ({given}). Save the "
        "layer, open that file, and choose it."
    )


def check_same_background(file: "Background", layer: "Background") -> None:
    """RequestError where the file of a background is not what its layer shows."""
    if not isinstance(layer, str) and not np.array_equal(np.squeeze(file), np.squeeze(layer)):
        raise RequestError(
            "the file of the background holds other pixels than its layer. Save the layer, open "
            "that file, and choose it as background."
        )


def _middles(array: Any) -> np.ndarray:
    """The middle of the first and of the last frame, shape (2, y, x)."""
    rows, columns = (
        slice(max(0, size // 2 - COMPARED_PX // 2), size // 2 + COMPARED_PX // 2)
        for size in array.shape[-2:]
    )
    return np.stack(
        [np.asarray(array[(*(end,) * (array.ndim - 2), rows, columns)]) for end in (0, -1)]
    )


def start_job(viewer: Viewer, panel: RunPanel, job: LargeImageRun) -> None:
    """Begin, or go on where an earlier job with the same settings was stopped; show its result."""
    ended: list[str] = []  # stays empty where the job was cancelled

    def show(made: "tuple[BlockResult, list[LayerData]]") -> Iterator[None]:
        ended.append("with a result")
        done, layers = made
        yield from show_in_turn(viewer, layers)
        earlier = f", {done.earlier} of them by an earlier run" if done.earlier else ""
        panel.message.report(f"Done: {done.path} ({done.blocks} blocks{earlier}).", done.warnings)

    def fail(reason: str) -> None:
        ended.append("with a reason")
        panel.fail(reason)

    def say_cancelled() -> None:
        if not ended:
            panel.message.say(
                INFORMATION,
                f"Cancelled. Blocks of {job.how.out} that are done are kept: start it again with "
                "the same settings, and it goes on.",
            )

    panel.start(
        job.work(),
        title=f"Reconstructing {job.run.place.name} into {Path(job.how.out).name}",
        total=0,
        on_result=show,
        on_failure=fail,
        on_end=say_cancelled,
    )
