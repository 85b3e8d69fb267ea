"""A job that is reconstructed block by block, from files or an image to an OME-Zarr."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_cvdm.core.request import ReconstructionRequest, RequestError
from napari_cvdm.core.tiling import BLOCK_PX, HALO_PX, BlockPlan
from napari_cvdm.io.folders import check_no_overlap, growing_path
from napari_cvdm.io.read import read_image, read_images, read_psf
from napari_cvdm.io.result_folder import check_measured
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.plan import with_planes

SUFFIX = ".ome.zarr"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockJob:
    """A reconstruction from files to an OME-Zarr that is written block by block.

    Parameters
    ----------
    request : ReconstructionRequest
        Its image may be lazy, and is never whole in memory. No `region`, no `schedule_points`.
    out : str
        Folder to make, ending in ``.ome.zarr``.
    block, halo : int
        Side of what one job writes, and pixels around it that the networks see [px of the input];
        multiples of 64.
    overwrite : bool
        Whether an older result may be replaced, once the new one is complete.
    files : mapping, optional
        Arguments of `open_job`, as JSON holds them, with which another process opens the same job.
        None for an image that is only in memory.
    inputs : tuple of str
        Files and folders that are read, and must not change meanwhile.

    Raises
    ------
    RequestError
        Options that do not go together.
    ImageFileError
        The result would replace an input.
    """

    request: ReconstructionRequest
    out: str
    block: int = BLOCK_PX
    halo: int = HALO_PX
    overwrite: bool = False
    files: Mapping[str, Any] | None = field(default=None, repr=False)
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not str(self.out).lower().endswith(SUFFIX):
            raise RequestError(
                f"out is {self.out}; a result that is written block by block is an OME-Zarr: "
                f"choose a name that ends in {SUFFIX}."
            )
        for name in ("region", "schedule_points"):
            if getattr(self.request, name):
                raise RequestError(
                    f"{name} is {getattr(self.request, name)}; it cannot be had block by block. "
                    "Leave it out, or give a folder with --out."
                )
        # Nor may an input be the folder in which the result grows.
        for out in (self.out, growing_path(self.out)):
            check_no_overlap(out, self.inputs)
        # A block of a wrong size is said before the image is read.
        try:
            self.layout()
        except ValueError as error:
            raise RequestError(str(error)) from None

    def state_of_inputs(self) -> str:
        """Fingerprint of size and time of change of every input; pixels are not read."""
        # It is asked for before and after every block.
        found = []
        for path in map(Path, self.inputs):
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                entry = file.stat() if file.exists() else None  # a missing one is a change, too
                found.append((str(file), entry and (entry.st_size, entry.st_mtime_ns)))
        return hashlib.sha256(repr(found).encode("utf-8", "surrogateescape")).hexdigest()

    def layout(self, context_px: int = 0) -> BlockPlan:
        """The blocks of the job.

        Preparing a part reads `context_px` around it, a multiple of 64.
        """
        image = self.request.image
        return BlockPlan(
            loops=image.loop_shape,
            shape=(image.array.shape[-2], image.array.shape[-1]),
            block=self.block,
            halo=max(self.halo, context_px),
        )


def open_job(
    images: Sequence[str],
    model: str,
    out: str,
    background: str = "auto",
    options: Mapping[str, Any] | None = None,
    block: int = BLOCK_PX,
    halo: int = HALO_PX,
    overwrite: bool = False,
    series: int | None = None,
) -> tuple[BlockJob, Checkpoint]:
    """A job by the names of its files: the images, not yet read, and the model.

    Parameters
    ----------
    images : sequence of str
        One path, or one for each plane where each lies in a file of its own.
    model : str
        A shipped name, or the path of a checkpoint folder.
    background : str
        ``auto``, ``none`` or a path.
    options : mapping, optional
        Further fields of `ReconstructionRequest`, as JSON holds them; ``psf`` is a path.
    series : int, optional
        Which image of a file with several, see `read_image`.

    Raises
    ------
    RequestError, OpticsError, ImageFileError, CheckpointError
        What is wrong with the files or the options.
    """
    opened, options = load_model(model), dict(options or {})
    psf, has_blank = options.get("psf"), background not in ("auto", "none")
    files: dict[str, Any] = {
        # A worker may run in another folder.
        "images": [_absolute(path) for path in images],
        "model": _absolute(model) if Path(model).is_dir() else model,
        "out": _absolute(out),
        "background": _absolute(background) if has_blank else background,
        "options": {**options, "psf": _absolute(psf)} if psf else options,
        "block": block,
        "halo": halo,
        "overwrite": overwrite,
        "series": series,
    }
    named = [files["options"]["psf"]] if psf else []
    named += [files["background"]] if has_blank else []
    check_no_overlap(out, [files["model"]] if overwrite else [])
    # JSON has lists where a request has tuples.
    known: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    if psf:
        known["psf"] = read_psf(psf)
    check_measured(images, series)
    stacks = read_images(images, series, lazily=True)
    blank: Any = read_image(background).array if has_blank else background
    request = ReconstructionRequest(
        **known,
        background=blank,
        image=with_planes(stacks, opened.card, known.get("defocus_um")),
        model=model,
    )
    job = BlockJob(
        request=request,
        out=out,
        block=block,
        halo=halo,
        overwrite=overwrite,
        files=files,
        inputs=(*files["images"], *named),
    )
    return job, opened


def _absolute(path: str) -> str:
    return str(Path(path).resolve())
