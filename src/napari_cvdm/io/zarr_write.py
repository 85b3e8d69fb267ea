"""Write OME-Zarr (NGFF 0.5, Zarr 3): layers plane by plane, and results block by block.

The images of a result lie side by side. Each chunk has one writer. The pyramid is built at the end.
yaozarrs makes the metadata, and checks them against the format.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.io.atomic import write_file
from napari_cvdm.io.errors import ImageFileError, import_zarr, one_line
from napari_cvdm.io.folders import output_folder

if TYPE_CHECKING:
    from yaozarrs.v05 import Bf2Raw, Image, Series

SUFFIXES = (".ome.zarr", ".zarr")
NOTES_KEY = "napari-cvdm"
SMALLEST_LEVEL_PX = 512
_SIGN = "zarr.json"
_LARGEST_CHUNK = 1024
_STEPS = {"z": ("z_step_um", "z_um", "micrometer"), "t": ("frame_interval_s", "t_s", "second")}
_ORDER = ("time", "channel", None, "space")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedImage:
    """An image (..., Y, X) of NumPy, dask or zarr, and where it lies along each of its axes.

    The last two labels are ``y`` and ``x``; of the others, programs know ``t``, ``c`` and ``z``.
    `notes` are anything that JSON holds.
    """

    array: Any = field(repr=False)  # read plane by plane
    labels: tuple[str, ...]
    scale: tuple[float, ...]  # size of a pixel
    translation: tuple[float, ...]  # centre of the first pixel
    units: tuple[str, ...]  # UDUNITS names such as micrometer; "" where there is none
    name: str
    notes: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridImage:
    """One image of a result that is written in chunks."""

    name: str  # of its group: mean, std, rate, valid
    dtype: str
    unit: str  # of the values
    leading: tuple[tuple[str, int], ...] = ()  # name and size of every axis before Y and X


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What all images of a result share."""

    shape: tuple[int, int]  # (Y, X) of the output
    chunk: int  # side of a chunk [px]
    pixel_um: float
    first_um: tuple[float, float] = (0.0, 0.0)  # (y, x) of the centre of the first pixel
    # Step and first position along z and t, see `ImageStack`.
    place: Mapping[str, float] = field(default_factory=dict)
    channels: tuple[str, ...] = ()  # names along c, where there is one for each

    def levels(self) -> int:
        """Levels of the pyramid: until the longer side is at most SMALLEST_LEVEL_PX."""
        side, levels = max(self.shape), 1
        while side > SMALLEST_LEVEL_PX and min(self.shape) >> levels:
            side, levels = side // 2, levels + 1
        return levels


def write_ngff(
    path: str | Path,
    images: Sequence[PlacedImage],
    beside: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write images as one OME-Zarr folder; it appears when it is complete.

    An older OME-Zarr there is replaced, another folder never. `beside` may write more into the
    folder, which readers of OME-Zarr do not see. One image becomes an image. Several
    become a collection (``bioformats2raw.layout`` 3) of images ``0``, ``1``, ...

    Raises ImageFileError where zarr is not installed, NGFF does not allow the axes, or the folder
    cannot be written. Nothing is left then.

    References
    ----------
    .. [1] Next-generation file format 0.5, https://ngff.openmicroscopy.org/0.5/
    """
    path = Path(path)
    if not path.name.lower().endswith(SUFFIXES):
        raise ImageFileError(f"{path}: choose a name that ends in .ome.zarr.")
    zarr = import_zarr(path)
    described = [(image, *_described(image, path)) for image in images]
    with output_folder(path, overwrite=True, sign=_SIGN) as folder:
        root = zarr.open_group(str(folder), mode="w", zarr_format=3)
        if len(images) > 1:
            _write_collection(root, path, [str(number) for number in range(len(images))])
        for number, (image, metadata, order) in enumerate(described):
            group = root.create_group(str(number)) if len(images) > 1 else root
            _write_metadata(group, metadata, image.notes)
            _write_pixels(group, image, order)
        beside(folder)


def _described(image: PlacedImage, path: Path) -> "tuple[Image, list[int]]":
    """Metadata of an image, and the order of its axes in NGFF.

    NGFF has time, then one of channel or another, then two or three of space.
    """
    yaozarrs = import_zarr(path, "yaozarrs")
    dimensions = [
        yaozarrs.DimSpec(
            name=label,
            type="space" if axis >= len(image.labels) - 2 else None,  # else as the name says
            unit=image.units[axis] or None,
            scale=float(image.scale[axis]),
            translation=float(image.translation[axis]),
        )
        for axis, label in enumerate(image.labels)
    ]
    kinds = [dimension.infer_type() for dimension in dimensions]
    others = kinds.count("channel") + kinds.count(None)
    if others > 1 or kinds.count("time") > 1 or kinds.count("space") > 3:
        raise ImageFileError(
            f"{path}: OME-Zarr holds time, one of channel or sample, and z, y, x; {image.name} has "
            f"{', '.join(image.labels)}. Save one at a time."
        )
    if getattr(image.array, "size", 1) == 0 or np.dtype(image.array.dtype).kind not in "buif":
        raise ImageFileError(
            f"{path}: {image.name} of shape {image.array.shape} and type {image.array.dtype} "
            "cannot be written; real pixels are needed."
        )
    order = sorted(range(len(kinds)), key=lambda axis: (_ORDER.index(kinds[axis]), axis))
    try:
        multiscale = yaozarrs.v05.Multiscale.from_dims(
            [dimensions[axis] for axis in order], name=image.name
        )
    except ValueError as error:
        raise ImageFileError(
            f"{path}: the axes {', '.join(image.labels)} of {image.name} do not fit OME-Zarr "
            f"({one_line(error)}). Give each axis another name."
        ) from error
    return yaozarrs.v05.Image(multiscales=[multiscale]), order


def _write_pixels(group: Any, image: PlacedImage, order: list[int]) -> None:
    dtype = np.dtype(image.array.dtype)
    shape = tuple(image.array.shape[axis] for axis in order)
    stored = _create_array(
        group,
        "0",
        dict(zip((image.labels[axis] for axis in order), shape, strict=True)),
        np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("="),
        _LARGEST_CHUNK,
    )
    for index in product(*map(range, shape[:-2])):
        taken = dict(zip(order, index, strict=False))
        stored[index] = np.asarray(image.array[tuple(taken[axis] for axis in range(len(index)))])


@lru_cache(maxsize=1)
def _store_class(local_store: Any) -> Any:
    """A store whose files are on the disk before they get their names; see `complete_file`."""

    # zarr is an extra, so its class is not there when this module is imported.
    class CompleteStore(local_store):  # type: ignore[misc]
        # zarr may call any of these three, so each ends in `write_file`.
        def set_sync(self, key: str, value: Any) -> None:
            self._check_writable()
            write_file(self.root / key, value.to_bytes(), within=self.root.parent)

        async def set(self, key: str, value: Any) -> None:
            await asyncio.to_thread(self.set_sync, key, value)

        async def set_if_not_exists(self, key: str, value: Any) -> None:
            if not await self.exists(key):
                await self.set(key, value)

    return CompleteStore


def _store_of(path: Path) -> Any:
    return _store_class(import_zarr(path, "zarr.storage").LocalStore)(path)


def sample_axis(loop_axes: str) -> int:
    """Place of the samples among the leading axes of their image: NGFF has time before them."""
    return int(loop_axes.startswith("T"))


def create_images(
    path: Path, images: Sequence[GridImage], grid: Grid, notes: Mapping[str, Any]
) -> None:
    """Make an OME-Zarr collection of empty images.

    A reader can open every image at any time, and sees what is filled so far. `notes`, anything
    that JSON holds, are kept under ``napari-cvdm``.
    """
    root = import_zarr(path).open_group(_store_of(path), mode="a", zarr_format=3)
    _write_collection(root, path, [image.name for image in images], notes)
    for image in images:
        group = root.require_group(image.name)
        # NGFF has names of channels only beside contrast limits, which nobody knows yet.
        named = dict(image.leading).get("c") == len(grid.channels)
        said = {"channels": list(grid.channels)} if named and grid.channels else {}
        metadata = _pyramid(path, image, grid, levels=1)
        _write_metadata(group, metadata, {"value_unit": image.unit, **said})
        if "0" not in group:  # else the job is taken up again
            _create_level(group, 0, image, grid.shape, grid.chunk)


def open_level(path: Path, name: str, level: int = 0) -> Any:
    """The array of one image of a collection, to read and to write parts of."""
    return import_zarr(path).open_array(_store_of(path), path=f"{name}/{level}", mode="r+")


def open_pyramid(path: Path, name: str) -> list[Any]:
    """All levels of one image of a collection as dask arrays, finest first; pixels stay on disk."""
    import dask.array as da

    group = import_zarr(path).open_group(str(path / name), mode="r")
    return [da.from_zarr(group[level]) for level in sorted(group.array_keys(), key=int)]


def build_pyramid(path: Path, image: GridImage, grid: Grid) -> None:
    """Write the coarser levels of an image, chunk by chunk, and name them.

    Each pixel is the mean of 2 x 2 finer pixels (the minimum, for a mask). The finest level is
    complete.
    """
    import dask.array as da

    group = import_zarr(path).open_group(_store_of(path), path=image.name, mode="r+")
    finer, levels = group["0"], grid.levels()
    # A coarse pixel of a mask is valid where all four finer ones are.
    coarsen = np.min if finer.dtype.kind == "u" else partial(np.mean, dtype=np.float64)
    for level in range(1, levels):
        rows, columns = (size // 2 for size in finer.shape[-2:])
        coarser = _create_level(group, level, image, (rows, columns), grid.chunk)
        *before, tall, wide = coarser.chunks
        # Each task reads what one chunk needs, and writes that chunk.
        fine = da.from_zarr(finer)[..., : 2 * rows, : 2 * columns]
        fine = fine.rechunk((*before, 2 * tall, 2 * wide))
        squares = {fine.ndim - 2: 2, fine.ndim - 1: 2}
        coarse = da.coarsen(coarsen, fine, squares).astype(coarser.dtype)
        da.store(coarse, coarser, lock=False, scheduler="synchronous")
        finer = coarser
    _write_metadata(group, _pyramid(path, image, grid, levels))


def _pyramid(path: Path, image: GridImage, grid: Grid, levels: int) -> "Image":
    """Metadata of so many levels of an image."""
    yaozarrs = import_zarr(path, "yaozarrs")
    dimensions = []
    for label, _ in image.leading:
        step, start, unit = _STEPS.get(label, ("", "", None))
        known = abs(grid.place.get(step, 0.0))
        dimensions.append(
            yaozarrs.DimSpec(
                name=label,
                unit=unit if known else None,
                scale=known or 1.0,
                # NGFF has no falling axis, so where Z falls its first position stays open.
                translation=grid.place.get(start, 0.0) if grid.place.get(step, 0.0) > 0 else 0.0,
                scale_factor=1.0,
            )
        )
    for label, first in zip("yx", grid.first_um, strict=True):
        dimensions.append(
            yaozarrs.DimSpec(name=label, unit="micrometer", scale=grid.pixel_um, translation=first)
        )
    multiscale = yaozarrs.v05.Multiscale.from_dims(dimensions, name=image.name, n_levels=levels)
    for level, dataset in enumerate(multiscale.datasets):
        # The centre of a coarse pixel is that of the fine pixels in it.
        shift = (2**level - 1) / 2 * grid.pixel_um
        dataset.translation_transform.translation[-2:] = [first + shift for first in grid.first_um]
    return yaozarrs.v05.Image(multiscales=[multiscale])


def _create_level(
    group: Any, level: int, image: GridImage, shape: tuple[int, int], chunk: int
) -> Any:
    sizes = dict((*image.leading, *zip("yx", shape, strict=True)))
    return _create_array(group, str(level), sizes, np.dtype(image.dtype), chunk)


def _create_array(
    group: Any, name: str, sizes: Mapping[str, int], dtype: np.dtype, chunk: int
) -> Any:
    """An empty array of named axes, in chunks of one plane."""
    shape = tuple(sizes.values())
    return group.create_array(
        name,
        shape=shape,
        chunks=(1,) * (len(shape) - 2) + tuple(min(size, chunk) for size in shape[-2:]),
        dtype=dtype,
        dimension_names=list(sizes),
        overwrite=True,
    )


def _write_collection(
    root: Any, path: Path, names: Sequence[str], notes: Mapping[str, Any] | None = None
) -> None:
    """Make a group the collection of the images in it."""
    v05 = import_zarr(path, "yaozarrs").v05
    _write_metadata(root, v05.Bf2Raw(bioformats2raw_layout=3), notes)
    _write_metadata(root.require_group("OME"), v05.Series(series=list(names)))


def _write_metadata(
    group: Any, metadata: "Image | Bf2Raw | Series", notes: Mapping[str, Any] | None = None
) -> None:
    attributes = {"ome": metadata.model_dump(mode="json", exclude_none=True)}
    group.attrs.update(attributes if notes is None else {**attributes, NOTES_KEY: dict(notes)})
