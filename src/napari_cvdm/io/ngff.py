"""Write images as OME-Zarr (NGFF 0.5, Zarr 3), plane by plane.

Every axis has its scale, position and unit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from napari_cvdm.io.errors import ImageFileError
from napari_cvdm.io.folder import output_folder

VERSION = "0.5"
SUFFIXES = (".ome.zarr", ".zarr")
NOTES_KEY = "napari-cvdm"
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
    zarr = zarr_library(path)
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


def zarr_library(path: Path) -> Any:
    """zarr, or ImageFileError where the extra is not installed."""
    try:
        import zarr
    except ImportError as error:
        raise ImageFileError(
            f"{path}: OME-Zarr needs the extra zarr: pip install 'napari-cvdm[zarr]', or save as "
            "OME-TIFF."
        ) from error
    return zarr


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
