"""A reconstruction from the dock that is written block by block into an OME-Zarr.

This module has the job for the worker's thread and the messages that the window shows.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.core.request import ImageStack, RequestError
from napari_cvdm.core.result import Progress
from napari_cvdm.widgets.common.run_panel import INFORMATION, WARNING, RunPanel
from napari_cvdm.widgets.layers.layer_data import LayerData
from napari_cvdm.widgets.layers.reconstruction import Run
from napari_cvdm.widgets.layers.result_layers import disk_layer_data
from napari_cvdm.widgets.layers.shown_layers import show_layers
from napari_cvdm.widgets.reconstruct.block_form import OutOfCoreOptions

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_cvdm.models.checkpoint import Checkpoint
    from napari_cvdm.out_of_core.job import TiledFiles, TiledRequest
    from napari_cvdm.out_of_core.run import Executor, TiledReconstruction
    from napari_cvdm.tasks.task import Background

COMPARED_PX = 64
ROLES = ("image", "image2")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LargeImageResult:
    """What a job made, and the layers that show it."""

    reconstruction: "TiledReconstruction"
    layers: list[LayerData] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockJob:
    """A run that is carried out block by block.

    Parameters
    ----------
    run : Run
        Its image may be lazy.
    how : Blockwise
    settings : mapping
        The form's, by request name: what travels to other processes.
    """

    run: Run
    how: OutOfCoreOptions
    settings: Mapping[str, Any] = field(repr=False)

    def work(self) -> Generator[Progress, None, LargeImageResult]:
        """Carry it out, and open the result without reading it; for the worker's thread.

        Raises
        ------
        ClusterError, RequestError, ImageFileError, OpticsError, CheckpointError
            What is wrong, in words; blocks that are done stay done.
        """
        from napari_cvdm.out_of_core.run import reconstruct_by_blocks

        yield Progress(
            stage=f"looking for {self.how.scheduler}"
            if self.how.scheduler
            else "loading the model",
            done=0,
            total=0,
        )
        request, model, executor = self._opened()
        made = yield from reconstruct_by_blocks(request, model, executor)
        yield Progress(stage="opening the result", done=1, total=1)
        return LargeImageResult(
            reconstruction=made, layers=disk_layer_data(made.path, made.images, self.run)
        )

    def _opened(self) -> "tuple[TiledRequest, Checkpoint, Executor]":
        from napari_cvdm.models.registry import load_model
        from napari_cvdm.out_of_core.job import TiledRequest
        from napari_cvdm.out_of_core.run import run_serial

        if not self.how.scheduler:
            request = TiledRequest(
                request=self.run.request,
                out=self.how.out,
                block=self.how.block,
                overwrite=self.how.overwrite,
            )
            return request, load_model(self.run.request.model), run_serial
        from napari_cvdm.out_of_core.dask import check_scheduler, on_cluster

        check_scheduler(self.how.scheduler)
        files = self.files()
        request, model = files.open()
        check_same_pixels(request.request.image, self.run.request.image)
        check_same_background(request.request.background, self.run.request.background)
        return request, model, on_cluster(self.how.scheduler, files)

    def files(self) -> "TiledFiles":
        """The job by the names of its files."""
        from napari_cvdm.out_of_core.job import TiledFiles

        files, word = self.run.place.files, self.settings["background"]
        options = {
            name: value
            for name, value in self.settings.items()
            if name not in ("model", "background", "psf")
        }
        options |= {"psf": files["psf"]} if "psf" in files else {}
        return TiledFiles(
            images=tuple(files[role] for role in ROLES if role in files),
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


class BlockRuns:
    """Starts such jobs in a run panel, and shows what came of them.

    Parameters
    ----------
    viewer : Viewer
    panel : RunPanel
    """

    def __init__(self, viewer: "Viewer", panel: RunPanel) -> None:
        self._viewer, self._panel = viewer, panel

    def start(self, job: BlockJob) -> None:
        """Begin, or go on where an earlier job with the same settings was stopped."""
        ended: list[str] = []
        self._panel.start(
            job.work(),
            title=f"Reconstructing {job.run.place.name} into {Path(job.how.out).name}",
            total=0,
            on_result=self._told(ended, self._on_made),
            on_failure=self._told(ended, self._panel.fail),
            on_end=lambda: None if ended else self._on_cancelled(job),
        )

    def _told(self, ended: list[str], act: Callable[[Any], None]) -> Callable[[Any], None]:
        def told(what: Any) -> None:
            ended.append("with a result, or with a reason")
            act(what)

        return told

    def _on_made(self, made: LargeImageResult) -> None:
        show_layers(self._viewer, made.layers)
        done = made.reconstruction
        earlier = f", {done.earlier} of them by an earlier run" if done.earlier else ""
        self._panel.message.say(
            WARNING if done.warnings else INFORMATION,
            " ".join([f"Done: {done.path} ({done.blocks} blocks{earlier}).", *done.warnings]),
        )

    def _on_cancelled(self, job: BlockJob) -> None:
        self._panel.message.say(
            INFORMATION,
            f"Cancelled. Blocks of {job.how.out} that are done are kept: start it again with the "
            "same settings, and it goes on.",
        )
