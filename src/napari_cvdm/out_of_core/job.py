"""A job from files to an OME-Zarr that is written block by block.

It exists as a Python object, and as plain values that any machine can open.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_cvdm.core.request import ReconstructionRequest, RequestError
from napari_cvdm.core.tiling import BLOCK_PX, HALO_PX, BlockPlan
from napari_cvdm.io.read import open_image, read_image, read_psf
from napari_cvdm.models.checkpoint import Checkpoint, ModelCard
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.plan import with_planes

SUFFIX = ".ome.zarr"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TiledRequest:
    """A reconstruction from files to an OME-Zarr that is written block by block.

    Parameters
    ----------
    request : ReconstructionRequest
        Its image may be lazy, and is never whole in memory. No `region`, no `schedule_points`.
    out : str
        Folder to make, ending in ``.ome.zarr``.
    block : int
        Side of what one job writes [px of the input], a multiple of 64.
    halo : int
        Pixels around it that the networks see, a multiple of 64.
    overwrite : bool
        Whether an older result may be replaced, once the new one is complete.

    Raises
    ------
    RequestError
        Options that do not go together.
    """

    request: ReconstructionRequest
    out: str
    block: int = BLOCK_PX
    halo: int = HALO_PX
    overwrite: bool = False

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
        try:
            self.layout()
        except ValueError as error:
            raise RequestError(str(error)) from None

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TiledFiles:
    """The same job by the names of its files: what travels to another process.

    Parameters
    ----------
    images : tuple of str
        One path, or one for each plane where each lies in a file of its own.
    model : str
        A shipped name, or the path of a checkpoint folder.
    background : str
        ``auto``, ``none`` or a path.
    options : mapping
        Further fields of `ReconstructionRequest`, as JSON holds them; ``psf`` is a path.
    """

    images: tuple[str, ...]
    model: str
    out: str
    background: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    block: int = BLOCK_PX
    halo: int = HALO_PX
    overwrite: bool = False

    def absolute(self) -> "TiledFiles":
        """With absolute paths: a worker may run in another folder."""
        background = (
            self.background
            if self.background in ("auto", "none")
            else str(Path(self.background).resolve())
        )
        model = str(Path(self.model).resolve()) if Path(self.model).is_dir() else self.model
        images = tuple(str(Path(path).resolve()) for path in self.images)
        options = (
            {**self.options, "psf": str(Path(self.options["psf"]).resolve())}
            if self.options.get("psf")
            else self.options
        )
        return replace(
            self,
            images=images,
            model=model,
            out=str(Path(self.out).resolve()),
            background=background,
            options=options,
        )

    def open(self) -> tuple[TiledRequest, Checkpoint]:
        """The images, not yet read, and the model.

        Raises
        ------
        RequestError, OpticsError, ImageFileError, CheckpointError
            What is wrong with the files or the options.
        """
        model = load_model(self.model)
        request = self._request(model.card)
        return TiledRequest(
            request=request,
            out=self.out,
            block=self.block,
            halo=self.halo,
            overwrite=self.overwrite,
        ), model

    def _request(self, card: ModelCard) -> ReconstructionRequest:
        image = with_planes(
            [open_image(path) for path in self.images], card, self.options.get("defocus_um")
        )
        background: Any = (
            self.background
            if self.background in ("auto", "none")
            else read_image(self.background).array
        )
        options: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list | tuple) else value
            for name, value in self.options.items()
        }
        options["background"] = background
        if options.get("psf"):
            options["psf"] = read_psf(options["psf"])
        return ReconstructionRequest(**options, image=image, model=self.model)
