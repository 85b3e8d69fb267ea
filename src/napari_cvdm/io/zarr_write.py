"""Write OME-Zarr (NGFF 0.5, Zarr 3): layers plane by plane, and results block by block.

The images of a result lie side by side. Each chunk has one writer. The pyramid is built at the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from napari_cvdm.io.atomic import output_folder
from napari_cvdm.io.errors import ImageFileError, import_zarr

VERSION = "0.5"
SUFFIXES = (".ome.zarr", ".zarr")
NOTES_KEY = "napari-cvdm"
SMALLEST_LEVEL_PX = 512
_SIGN = "zarr.json"
_LARGEST_CHUNK = 1024
_KINDS = {
    "t": "time",
    "time": "time",
    "c": "channel",
    "channel": "channel",
    "z": "space",
    "y": "space",
    "x": "space",
}
_ORDER = ("time", "channel", "", "space")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedImage:
    """An image and where it lies.

    Parameters
    ----------
    array : array of shape (..., Y, X)
        NumPy, dask, zarr: it is read plane by plane.
    labels : tuple of str
        Name of each axis, the last two ``y`` and ``x``. Other programs know ``t``, ``c`` and ``z``.
    scale, translation : tuple of float
        Size of a pixel, and the centre of the first one, along each axis.
    units : tuple of str
        UDUNITS names such as ``micrometer``; "" where there is none.
    name : str
    notes : mapping
        Anything that JSON holds; kept under ``napari-cvdm``.
    """

    array: Any = field(repr=False)
    labels: tuple[str, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    units: tuple[str, ...]
    name: str
    notes: Mapping[str, Any] = field(default_factory=dict, repr=False)


def write_ngff(path: str | Path, images: Sequence[PlacedImage]) -> None:
    """Write images as one OME-Zarr folder; it appears when it is complete.

    Parameters
    ----------
    path : str or Path
        A folder ending in ``.zarr``; an older OME-Zarr there is replaced, another folder never.
    images : sequence of PlacedImage
        One becomes an image. Several become a collection (``bioformats2raw.layout`` 3) of images
        ``0``, ``1``, ...

    Raises
    ------
    ImageFileError
        zarr is not installed, NGFF does not allow the axes, or the folder cannot be written.
        Nothing is left then.

    References
    ----------
    .. [1] Next-generation file format 0.5, https://ngff.openmicroscopy.org/0.5/
    """
    path = Path(path)
    if not path.name.lower().endswith(SUFFIXES):
        raise ImageFileError(f"{path}: choose a name that ends in .ome.zarr.")
    zarr = import_zarr(path)
    orders = [_ngff_order(image, path) for image in images]
    with output_folder(path, overwrite=True, sign=_SIGN) as folder:
        root = zarr.open_group(str(folder), mode="w", zarr_format=3)
        if len(images) == 1:
            _write_image(root, images[0], orders[0])
            return
        root.attrs["ome"] = {"version": VERSION, "bioformats2raw.layout": 3}
        series = [str(number) for number in range(len(images))]
        root.create_group("OME").attrs["ome"] = {"version": VERSION, "series": series}
        for number, image, order in zip(series, images, orders, strict=True):
            _write_image(root.create_group(number), image, order)


def _kind(label: str) -> str:
    return _KINDS.get(label.lower(), "")


def _ngff_order(image: PlacedImage, path: Path) -> list[int]:
    """Axes in NGFF's order: time, then one of channel or another, then two or three of space."""
    kinds = [*map(_kind, image.labels[:-2]), "space", "space"]
    others = [
        label for label, kind in zip(image.labels, kinds, strict=True) if kind in ("channel", "")
    ]
    if len(others) > 1 or kinds.count("time") > 1 or kinds.count("space") > 3:
        raise ImageFileError(
            f"{path}: OME-Zarr holds time, one of channel or sample, and z, y, x; {image.name} has "
            f"{', '.join(image.labels)}. Save one at a time."
        )
    if getattr(image.array, "size", 1) == 0 or np.dtype(image.array.dtype).kind not in "buif":
        raise ImageFileError(
            f"{path}: {image.name} of shape {image.array.shape} and type {image.array.dtype} "
            "cannot be written; real pixels are needed."
        )
    return sorted(range(len(kinds)), key=lambda axis: (_ORDER.index(kinds[axis]), axis))


def _write_image(group: Any, image: PlacedImage, order: list[int]) -> None:
    axes: list[dict[str, str]] = []
    for axis in order:
        said = {
            "name": image.labels[axis],
            "type": "space" if axis >= len(order) - 2 else _kind(image.labels[axis]),
            "unit": image.units[axis],
        }
        axes.append({key: value for key, value in said.items() if value})
    places = [
        {"type": "scale", "scale": [float(image.scale[axis]) for axis in order]},
        {"type": "translation", "translation": [float(image.translation[axis]) for axis in order]},
    ]
    multiscales = [
        {
            "name": image.name,
            "axes": axes,
            "datasets": [{"path": "0", "coordinateTransformations": places}],
        }
    ]
    group.attrs.update(
        {"ome": {"version": VERSION, "multiscales": multiscales}, NOTES_KEY: dict(image.notes)}
    )
    _write_pixels(group, image, order)


def _write_pixels(group: Any, image: PlacedImage, order: list[int]) -> None:
    shape = tuple(image.array.shape[axis] for axis in order)
    dtype = np.dtype(image.array.dtype)
    stored = group.create_array(
        "0",
        shape=shape,
        chunks=(1,) * (len(shape) - 2) + tuple(min(size, _LARGEST_CHUNK) for size in shape[-2:]),
        dtype=np.uint8 if dtype.kind == "b" else dtype.newbyteorder("="),
        dimension_names=[image.labels[axis] for axis in order],
    )
    for index in product(*map(range, shape[:-2])):
        taken = dict(zip(order, index, strict=False))
        stored[index] = np.asarray(image.array[tuple(taken[axis] for axis in range(len(index)))])


@dataclass(frozen=True, slots=True, kw_only=True)
class GridImage:
    """One image of a result that is written in chunks.

    Parameters
    ----------
    name : str
        Of its group: mean, std, rate, valid.
    dtype : str
    unit : str
        Of the values.
    leading : tuple of (str, int)
        Name and size of every axis before Y and X.
    """

    name: str
    dtype: str
    unit: str
    leading: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What all images of a result share.

    Parameters
    ----------
    shape : tuple of int
        (Y, X) of the output.
    chunk : int
        Side of a chunk.
    pixel_um : float
    first_um : tuple of float
        Position (y, x) of the centre of the first pixel.
    z_step_um : float, optional
    """

    shape: tuple[int, int]
    chunk: int
    pixel_um: float
    first_um: tuple[float, float] = (0.0, 0.0)
    z_step_um: float | None = None

    def levels(self) -> int:
        """Levels of the pyramid: until the longer side is at most SMALLEST_LEVEL_PX."""
        side, levels = max(self.shape), 1
        while side > SMALLEST_LEVEL_PX and min(self.shape) >> levels:
            side, levels = side // 2, levels + 1
        return levels


def create_images(
    path: Path, images: Sequence[GridImage], grid: Grid, notes: Mapping[str, Any]
) -> None:
    """Make an OME-Zarr collection of empty images.

    A reader can open every image at any time, and sees what is filled so far.

    Parameters
    ----------
    path : Path
        Folder to make, or to fill.
    images : sequence of GridImage
    grid : Grid
    notes : mapping
        Anything that JSON holds, kept under ``napari-cvdm``.

    References
    ----------
    .. [1] Next-generation file format 0.5, https://ngff.openmicroscopy.org/0.5/
    """
    root = import_zarr(path).open_group(str(path), mode="a", zarr_format=3)
    root.attrs.update(
        {"ome": {"version": VERSION, "bioformats2raw.layout": 3}, NOTES_KEY: dict(notes)}
    )
    root.require_group("OME").attrs["ome"] = {
        "version": VERSION,
        "series": [image.name for image in images],
    }
    for image in images:
        group = root.require_group(image.name)
        group.attrs.update(
            {"ome": _multiscales(image, grid, levels=1), NOTES_KEY: {"value_unit": image.unit}}
        )
        if "0" not in group:  # else the job is taken up again
            _create_level(group, "0", image, grid.shape, grid.chunk)


def _create_level(
    group: Any, name: str, image: GridImage, shape: tuple[int, int], chunk: int
) -> Any:
    leading = tuple(size for _, size in image.leading)
    chunks = (1,) * len(leading) + tuple(min(size, chunk) for size in shape)
    names = [*(label for label, _ in image.leading), "y", "x"]
    return group.create_array(
        name,
        shape=(*leading, *shape),
        chunks=chunks,
        dtype=image.dtype,
        dimension_names=names,
        overwrite=True,
    )


def _multiscales(image: GridImage, grid: Grid, levels: int) -> dict[str, Any]:
    axes: list[dict[str, str]] = [
        {"name": label, **({"type": _KINDS[label]} if label in _KINDS else {})}
        for label, _ in image.leading
    ]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    if "z" in dict(image.leading) and grid.z_step_um:
        next(axis for axis in axes if axis["name"] == "z")["unit"] = "micrometer"
    datasets = [
        {"path": str(level), "coordinateTransformations": _places(image, grid, 2**level)}
        for level in range(levels)
    ]
    return {
        "version": VERSION,
        "multiscales": [{"name": image.name, "axes": axes, "datasets": datasets}],
    }


def _places(image: GridImage, grid: Grid, factor: int) -> list[dict[str, Any]]:
    """A coarse pixel is `factor` wide, and its centre that of the fine pixels in it."""
    before = [grid.z_step_um or 1.0 if label == "z" else 1.0 for label, _ in image.leading]
    shift = (factor - 1) / 2 * grid.pixel_um
    return [
        {"type": "scale", "scale": [*before, grid.pixel_um * factor, grid.pixel_um * factor]},
        {
            "type": "translation",
            "translation": [*(0.0 for _ in before), *(first + shift for first in grid.first_um)],
        },
    ]


def open_level(path: Path, name: str, level: int = 0) -> Any:
    """The array of one image of a collection, to read and to write parts of."""
    return import_zarr(path).open_array(str(path / name / str(level)), mode="r+")


def open_pyramid(path: Path, name: str) -> list[Any]:
    """All levels of one image of a collection as dask arrays, finest first; pixels stay on disk."""
    import dask.array as da

    group = import_zarr(path).open_group(str(path / name), mode="r")
    return [da.from_zarr(group[level]) for level in sorted(group.array_keys(), key=int)]


def build_pyramid(path: Path, image: GridImage, grid: Grid) -> None:
    """Write the coarser levels of an image, chunk by chunk, and name them.

    Each pixel is the mean of 2 x 2 finer pixels (the minimum, for a mask).

    Parameters
    ----------
    path : Path
        The collection, its finest level complete.
    image : GridImage
    grid : Grid
    """
    group = import_zarr(path).open_group(str(path / image.name), mode="r+")
    finer, levels = group["0"], grid.levels()
    for level in range(1, levels):
        shape = (finer.shape[-2] // 2, finer.shape[-1] // 2)
        coarser = _create_level(group, str(level), image, shape, grid.chunk)
        _halve(finer, coarser)
        finer = coarser
    group.attrs["ome"] = _multiscales(image, grid, levels)


def _halve(finer: Any, coarser: Any) -> None:
    side = coarser.chunks[-1]
    leading = np.ndindex(*finer.shape[:-2])
    for index in leading:
        for top in range(0, coarser.shape[-2], coarser.chunks[-2]):
            for left in range(0, coarser.shape[-1], side):
                rows = slice(top, min(coarser.shape[-2], top + coarser.chunks[-2]))
                columns = slice(left, min(coarser.shape[-1], left + side))
                fine = np.asarray(
                    finer[
                        (
                            *index,
                            slice(2 * rows.start, 2 * rows.stop),
                            slice(2 * columns.start, 2 * columns.stop),
                        )
                    ]
                )
                coarser[(*index, rows, columns)] = _coarse(fine)


def _coarse(fine: np.ndarray) -> np.ndarray:
    squares = fine.reshape(fine.shape[0] // 2, 2, fine.shape[1] // 2, 2)
    return (
        squares.min(axis=(1, 3))
        if fine.dtype.kind == "u"
        else squares.mean(axis=(1, 3), dtype=np.float64).astype(fine.dtype)
    )
