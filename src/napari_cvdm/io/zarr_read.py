"""OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3) in: the finest level, with axes, pixel size and place."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import dask.array as da
import zarr
from zarr.storage import WrapperStore

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io.axes import UNNAMED_AXES, ordered_axes, usable_dtype
from napari_cvdm.io.errors import ImageFileError, one_line
from napari_cvdm.io.limits import (
    ALWAYS_ALLOWED_BYTES,
    DECLARED_SIZE,
    HEAD_BYTES,
    METADATA,
    PACKING,
    check_declared_sizes,
    codec_names,
)
from napari_cvdm.io.metadata import length_um, position_um, square_pixel

WIDEST_STORED = 8  # a filter may keep numbers of one byte as numbers of eight


def open_ngff(path: Path) -> ImageStack:
    """The first image of an OME-Zarr folder, its pixels still on disk.

    The folder is that of an image, or of a collection (``bioformats2raw.layout``), of which image
    ``0`` or the first one named is taken. Axes are among T, C, Z, S and YX. The dask array has the
    file's chunks.

    Raises
    ------
    ImageFileError
        The folder is no OME-Zarr, the axes lack y or x, or the metadata declare more than the
        folder can hold.

    References
    ----------
    .. [1] Next-generation file format 0.4 and 0.5, https://ngff.openmicroscopy.org
    """
    try:
        group, ome = _first_image(zarr.open_group(str(path), mode="r"))
        multiscale = ome["multiscales"][0]
        dataset = multiscale["datasets"][0]
        stored = group[dataset["path"]]
        check_declared_sizes(stored, path)
        axes = [
            axis if isinstance(axis, Mapping) else {"name": axis} for axis in multiscale["axes"]
        ]
        names, free = [str(axis["name"]).upper() for axis in axes], iter(UNNAMED_AXES)
        array, letters = ordered_axes(
            usable_dtype(da.from_zarr(_size_limited(stored)), path.name),
            "".join(name if name in ("T", "C", "Z", "Y", "X") else next(free) for name in names),
            path.name,
        )
        transformations = [
            *dataset["coordinateTransformations"],
            *multiscale.get("coordinateTransformations", ()),
        ]
        scale, translation = _placed(transformations, len(axes))
        return ImageStack(
            array=array,
            axes=letters,
            source=path.name,
            **_lengths(axes, scale, translation, path.name),
        )
    except ImageFileError:
        raise
    except Exception as error:  # zarr lets through whatever damaged metadata make happen
        raise ImageFileError(
            f"{path}: cannot be read as OME-Zarr 0.4 or 0.5 ({one_line(error)}). Give the folder "
            "that ends in .ome.zarr."
        ) from error


def _first_image(group: Any) -> tuple[Any, Mapping[str, Any]]:
    """The group of the first image, and its metadata."""
    found = _ome_of(group)
    if "multiscales" in found:
        return group, found
    series = _ome_of(group["OME"]).get("series", ["0"]) if "OME" in group else ["0"]
    return _first_image(group[series[0]])


def _ome_of(group: Any) -> Any:
    """Metadata of a group: under ``ome`` in 0.5, at the top in 0.4."""
    return group.attrs.get("ome", dict(group.attrs))


def _placed(
    transformations: Sequence[Mapping[str, Any]], dimensions: int
) -> tuple[list[float], list[float]]:
    """Scale and translation of all transformations, applied in turn."""
    scale, translation = [1.0] * dimensions, [0.0] * dimensions
    for step in transformations:
        if step["type"] == "scale":
            scale, translation = (
                [one * factor for one, factor in zip(values, step["scale"], strict=True)]
                for values in (scale, translation)
            )
        elif step["type"] == "translation":
            translation = [
                one + shift for one, shift in zip(translation, step["translation"], strict=True)
            ]
    return scale, translation


def _lengths(
    axes: Sequence[Mapping[str, Any]],
    scale: Sequence[float],
    translation: Sequence[float],
    source: str,
) -> dict[str, Any]:
    """Pixel size, and where the image lies, of axes that have a unit of length."""
    by_name = {
        str(axis["name"]).lower(): (axis.get("unit"), size, start)
        for axis, size, start in zip(axes, scale, translation, strict=True)
    }
    unit_y, size_y, _ = by_name["y"]
    unit_x, size_x, _ = by_name["x"]
    place = {f"{name}_um": position_um(by_name[name][2], by_name[name][0]) for name in "yx"}
    if "z" in by_name:
        place["z_step_um"] = position_um(by_name["z"][1], by_name["z"][0])
    pixel_um = square_pixel(length_um(size_x, unit_x), length_um(size_y, unit_y), source)
    return {
        "pixel_um": pixel_um,
        "place": {name: value for name, value in place.items() if value is not None},
    }


def _size_limited(stored: zarr.Array[Any]) -> Any:
    """The same array, whose chunks may declare no more bytes than a chunk can have.

    Its codecs passed `check_declared_sizes`.
    """
    packed = [name for name in codec_names(stored.metadata.to_dict()) if name in PACKING]
    if not packed or packed[-1] not in DECLARED_SIZE:  # the last one packs what is on the disk
        return stored
    most = max(ALWAYS_ALLOWED_BYTES, WIDEST_STORED * prod(stored.chunks) * stored.dtype.itemsize)
    store = SizeLimitedStore(stored.store, DECLARED_SIZE[packed[-1]], most)
    return zarr.open_array(store=store, path=stored.path, mode="r")


class SizeLimitedStore(WrapperStore[Any]):
    """A store that refuses chunks that declare to unpack to more than `most` bytes.

    Blosc, LZ4 and Zstandard ask for as much memory as a head says before they look at the rest.
    """

    def __init__(self, store: Any, declared_size: Callable[[bytes], int], most: int) -> None:
        super().__init__(store)
        self.declared_size, self.most = declared_size, most

    def _with_store(self, store: Any) -> "SizeLimitedStore":
        return type(self)(store, self.declared_size, self.most)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """As of zarr's stores; ValueError where the head of a chunk asks for too much."""
        found = await super().get(key, prototype, byte_range)
        if found is None or key.endswith(METADATA):
            return found
        declared = self.declared_size(found[:HEAD_BYTES].to_bytes())
        if declared > self.most:
            raise ValueError(
                f"chunk {key} promises {declared:.4g} bytes, and one has at most {self.most:,}"
            )
        return found
