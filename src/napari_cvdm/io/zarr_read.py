"""OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3) in: the finest level, with axes, pixel size and place."""

import os
from asyncio import to_thread
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import inf, nan, prod
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr
from numcodecs.compat import ensure_bytes  # type: ignore[import-untyped]
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import ShardingCodec
from zarr.storage import LocalStore, WrapperStore

from napari_cvdm.core.intensity import is_far_from_zero
from napari_cvdm.core.request import ImageStack
from napari_cvdm.io.axes import UNNAMED_AXES, ordered_axes, usable_dtype
from napari_cvdm.io.errors import ImageFileError, choose_series, one_line
from napari_cvdm.io.limits import (
    METADATA,
    UNPACKERS,
    check_declared_sizes,
    open_regular,
    parse_json_object,
    read_bounded,
)
from napari_cvdm.io.metadata import length_um, position_um, square_pixel, time_s
from napari_cvdm.io.zarr_write import NOTES_KEY, PlacedImage

LAYOUT_KEY = "bioformats2raw.layout"
UNLISTED_AXES = "tczyx"
KNOWN_VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5")
LARGEST_METADATA, LARGEST_CHUNK = 10_000_000, 1 << 30  # in a file
CHECKSUM_BYTES = 16  # that a checksum may add to a chunk
MOST_COUNTED = 100_000  # chunks; to count more of them takes longer than to read
WIDEST_STORED = 8  # a filter may keep numbers of one byte as numbers of eight


def open_ngff(path: Path, series: int | None = None) -> ImageStack:
    """The first image of an OME-Zarr folder, its pixels still on disk.

    The folder is that of an image, or of a collection (``bioformats2raw.layout``). Axes are among
    T, C, Z, S and YX. The dask array has the file's chunks. `series` is that of `read_image`.

    Raises ImageFileError where the folder is no OME-Zarr, the axes lack y or x, or the metadata
    declare more than the folder can hold.

    References
    ----------
    .. [1] Next-generation file format 0.4 and 0.5, https://ngff.openmicroscopy.org
    """
    try:
        group, ome, noticed = _choose_image(_root_of(path), path, series)
        multiscale = ome["multiscales"][0]
        dataset, stored = _finest(group, multiscale["datasets"], path)
        stored, renamed = _as_chunks_are_named(stored)
        # 0.1 and 0.2 have five axes without a name.
        listed = multiscale.get("axes") or UNLISTED_AXES[-stored.ndim :]
        axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in listed]
        names, free = [str(axis["name"]).upper() for axis in axes], iter(UNNAMED_AXES)
        pixels, lost = _without_lost_chunks(da.from_zarr(_bounded(stored)), stored, path)
        array, letters = ordered_axes(
            usable_dtype(pixels, path.name),
            "".join(name if name in ("T", "C", "Z", "Y", "X") else next(free) for name in names),
            path.name,
        )
        scale, translation, short = _placed(dataset, multiscale, len(axes))
        noticed += [*renamed, *short, *lost]
        return ImageStack(
            array=array,
            axes=letters,
            source=path.name,
            files=(os.path.realpath(path),),
            channels=_channel_names(ome, group.attrs.get(NOTES_KEY) or {}),
            warnings=tuple(f"{path.name}: {sentence}" for sentence in noticed),
            **_lengths(axes, scale, translation, path.name),
        )
    except ImageFileError:
        raise
    except Exception as error:  # zarr lets through whatever damaged metadata make happen
        raise ImageFileError(
            f"{path}: cannot be read as OME-Zarr 0.4 or 0.5 ({one_line(error)}). {_advice(path)}"
        ) from error


def open_all(path: Path) -> list[PlacedImage]:
    """Every image that `write_ngff` wrote into a folder, its pixels still on disk.

    The axes are in the order of NGFF. Errors are those of `open_ngff`.
    """
    try:
        root, images = _root_of(path), []
        names = _ome_of(root["OME"])["series"] if "OME" in root else [path.name]
        for number in range(1, len(names) + 1):
            group, ome, _ = _choose_image(root, path, number)
            multiscale = ome["multiscales"][0]
            axes = multiscale["axes"]
            dataset, stored = _finest(group, multiscale["datasets"], path)
            scale, translation, _ = _placed(dataset, multiscale, len(axes))
            images.append(
                PlacedImage(
                    array=da.from_zarr(_bounded(stored)),
                    labels=tuple(str(axis["name"]) for axis in axes),
                    scale=tuple(scale),
                    translation=tuple(translation),
                    units=tuple(str(axis.get("unit", "")) for axis in axes),
                    name=str(multiscale.get("name", "")),
                    notes=dict(group.attrs.get(NOTES_KEY) or {}),
                )
            )
        return images
    except ImageFileError:
        raise
    except Exception as error:  # zarr lets through whatever damaged metadata make happen
        raise ImageFileError(
            f"{path}: cannot be read as OME-Zarr 0.5 ({one_line(error)}). Copy it again."
        ) from error


def _root_of(path: Path) -> Any:
    return zarr.open_group(RegularFileStore(LocalStore(path, read_only=True)), mode="r")


def _advice(path: Path) -> str:
    """What to try where a folder is no OME-Zarr."""
    names = {one.name for one in path.glob("*")}
    if ".zattrs" in names and not names & {".zgroup", ".zarray"}:
        return 'It lacks the file .zgroup; copy it again, or write {"zarr_format": 2} into one.'
    if names & set(METADATA):
        return "It needs 'multiscales' with the axes; save it as OME-Zarr, or as OME-TIFF."
    inside = [
        str(one.parent) for name in (".zgroup", "zarr.json") for one in path.glob(f"*/{name}")
    ]
    example = f", for example {min(inside)}" if inside else ""
    return f"Give the folder that ends in .ome.zarr{example}."


def _finest(
    group: Any, datasets: Sequence[Mapping[str, Any]], path: Path
) -> tuple[Mapping[str, Any], Any]:
    """The largest level, and its array, whose declared sizes are checked."""
    # It should be the first level. Some files turn the order round.
    ends = [
        one for one in (datasets[0], datasets[-1]) if one is datasets[0] or one["path"] in group
    ]
    finest = max(ends, key=lambda one: prod(group[one["path"]].shape))
    stored = group[finest["path"]]
    check_declared_sizes(stored, path)
    return finest, stored


def _as_chunks_are_named(stored: zarr.Array[Any]) -> tuple[zarr.Array[Any], list[str]]:
    """The array with the other separator in the names of its chunks, if only that finds any.

    Some programs write one separator and state the other one, or none, which is a dot.
    """
    metadata = copy(stored.metadata)
    if metadata.zarr_format != 2 or stored.nchunks > MOST_COUNTED or stored.nchunks_initialized:
        return stored, []
    stated = metadata.dimension_separator
    object.__setattr__(metadata, "dimension_separator", "./".replace(stated, ""))
    other = zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=stored.store_path))
    if not other.nchunks_initialized:
        return stored, []
    return other, [
        f"its chunks are named with {metadata.dimension_separator!r}, not with {stated!r} as it "
        "says; they were read."
    ]


def _choose_image(
    group: Any, path: Path, series: int | None
) -> tuple[Any, Mapping[str, Any], list[str]]:
    """The group of an image, its metadata, and a sentence where there are others.

    Raises ImageFileError for a plate or a well, a later version, or no such image.
    """
    found = _ome_of(group)
    _check_kind(found, group, path)
    if "multiscales" in found:
        if series not in (None, 1):
            raise ImageFileError(f"{path}: has one image, so there is no series {series}.")
        return group, found, []
    if not isinstance(group, zarr.Group) or not ("OME" in group or LAYOUT_KEY in found):
        raise ValueError("it is Zarr without multiscales")
    names = _ome_of(group["OME"]).get("series", ["0"]) if "OME" in group else ["0"]
    number, others = choose_series(names, series, path)
    inner, ome, _ = _choose_image(group[names[number]], path, None)
    return inner, ome, others


def _check_kind(ome: Mapping[str, Any], group: Any, path: Path) -> None:
    """Refuse what is no single image, with a path that would do."""
    inside = f"{path}/{group.path}" if group.path else str(path)
    plate, well = ome.get("plate"), ome.get("well")
    if plate is not None:
        wells = [str(one.get("path", "")) for one in plate.get("wells", ())]
        if not wells or wells[0] not in group:
            raise ImageFileError(
                f"{path}: is a plate that names {len(wells)} wells, and its first one is not "
                "there. Copy it again, or give the folder of one field."
            )
        field = _ome_of(group[wells[0]]).get("well", {}).get("images", ())
        first = "/".join([inside, wells[0], *(str(one.get("path", "")) for one in field[:1])])
        raise ImageFileError(
            f"{path}: is a plate of {len(wells)} wells, and one image is needed. Give the folder "
            f"of one field, for example {first}."
        )
    if well is not None:
        names = [str(one.get("path", "")) for one in well.get("images", ())]
        raise ImageFileError(
            f"{path}: is a well of {len(names)} fields, and one image is needed. Give the folder "
            f"of one field, for example {'/'.join([inside, *names[:1]])}."
        )
    version = str(ome.get("version") or (ome.get("multiscales") or [{}])[0].get("version") or "")
    if version and version not in KNOWN_VERSIONS:
        raise ImageFileError(
            f"{path}: is OME-Zarr {version}; this version of napari-cvdm reads "
            f"{' and '.join(KNOWN_VERSIONS[-2:])}. Update napari-cvdm, or save as OME-Zarr 0.5."
        )


def _without_lost_chunks(pixels: Any, stored: Any, path: Path) -> tuple[Any, list[str]]:
    """Pixels that are NaN in chunks that were lost, and a sentence about them.

    Zarr reads its fill value in a chunk that is not there. Writers leave out chunks of nothing
    else, so chunks are lost only if most are there, and those lie far from zero. Above
    `MOST_COUNTED` chunks nothing is looked for.
    """
    sides = stored.shards or stored.chunks
    grid = [-(-size // side) for size, side in zip(stored.shape, sides, strict=True)]
    if prod(grid) > MOST_COUNTED:
        return pixels, []
    folder, name_of = path / stored.path, stored.metadata.encode_chunk_key
    there = {index: (folder / name_of(index)).exists() for index in product(*map(range, grid))}
    lost = {index for index, found in there.items() if not found}
    if not 0 < 2 * len(lost) < len(there):
        return pixels, []
    # One plane of one chunk tells how far from zero the values lie.
    index = next(index for index, found in there.items() if found)
    corner = tuple(place * side for place, side in zip(index, sides, strict=True))
    ends = zip(corner[-2:], sides[-2:], strict=True)
    window = tuple(slice(start, start + side) for start, side in ends)
    sentence = f"{len(lost)} of {len(there)} chunks are not there"
    if not is_far_from_zero(np.asarray(pixels[(*corner[:-2], *window)])):
        return pixels, [f"{sentence}, and read as {stored.fill_value}."]
    dtype = np.result_type(pixels.dtype, np.float32)

    def blank(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        starts = [first for first, _ in block_info[0]["array-location"]]
        index = tuple(start // side for start, side in zip(starts, sides, strict=True))
        return np.full(block.shape, np.nan, dtype) if index in lost else block.astype(dtype)

    return pixels.map_blocks(blank, dtype=dtype, meta=np.empty((0,) * pixels.ndim, dtype)), [
        f"{sentence}, so their pixels are not known. Copy it again if they were written."
    ]


def _channel_names(ome: Mapping[str, Any], notes: Mapping[str, Any]) -> tuple[str, ...]:
    found = (ome.get("omero") or {}).get("channels") or ()
    names = tuple(str(channel.get("label") or "") for channel in found)
    return names if any(names) else tuple(map(str, notes.get("channels", ())))


def _ome_of(group: Any) -> Any:
    """Metadata of a group: under ``ome`` in 0.5, at the top in 0.4."""
    return group.attrs.get("ome", dict(group.attrs))


def _placed(
    dataset: Mapping[str, Any], multiscale: Mapping[str, Any], dimensions: int
) -> tuple[list[float], list[float], list[str]]:
    """Scale and translation of all transformations, applied in turn.

    The scale is not a number where none is stated. A transformation of fewer numbers than axes is
    that of the last axes, and there is a sentence.
    """
    # Those of a level come before those of all levels (NGFF 0.4, multiscales).
    transformations = [
        step for of in (dataset, multiscale) for step in of.get("coordinateTransformations") or ()
    ]
    scale, translation, short = [1.0] * dimensions, [0.0] * dimensions, []
    for step in transformations:
        kind = step["type"]
        if kind not in ("scale", "translation"):
            continue
        found = step[kind]
        if len(found) < dimensions:
            short.append(
                f"its {kind} has {len(found)} numbers for {dimensions} axes; they were taken for "
                "the last ones."
            )
            found = [*[float(kind == "scale")] * (dimensions - len(found)), *found]
        if kind == "scale":
            scale, translation = (
                [one * factor for one, factor in zip(values, found, strict=True)]
                for values in (scale, translation)
            )
        else:
            translation = [one + shift for one, shift in zip(translation, found, strict=True)]
    if not any(step["type"] == "scale" for step in transformations):
        scale = [nan] * dimensions
    return scale, translation, list(dict.fromkeys(short))


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
        unit, step, start = by_name["z"]
        place |= {"z_step_um": position_um(step, unit), "z_um": position_um(start, unit)}
    if "t" in by_name:
        unit, step, start = by_name["t"]
        place |= {"frame_interval_s": time_s(step, unit), "t_s": time_s(start, unit)}
    where = f"the metadata of {source}"
    pixel_um, origins = square_pixel(length_um(size_x, unit_x), length_um(size_y, unit_y), where)
    return {
        "pixel_um": pixel_um,
        "origins": origins,
        "place": {name: value for name, value in place.items() if value is not None},
    }


def _bounded(stored: zarr.Array[Any]) -> zarr.Array[Any]:
    """The same array, whose chunks unpack to no more bytes than a chunk can have.

    Its codecs passed `check_declared_sizes`.
    """
    metadata = copy(stored.metadata)
    if metadata.zarr_format == 3:
        changed: dict[str, Any] = {"codecs": tuple(map(_bounded_codec, metadata.codecs))}
    else:
        compressor, *filters = (
            BoundedCompressor(one.codec_id, largest_stored(stored.chunks))
            if one is not None and one.codec_id in UNPACKERS
            else one
            for one in (metadata.compressor, *(metadata.filters or ()))
        )
        changed = {"compressor": compressor, "filters": tuple(filters) or None}
    for name, value in changed.items():
        object.__setattr__(metadata, name, value)  # it is frozen
    return zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=stored.store_path))


def largest_stored(shape: tuple[int, ...]) -> int:
    """Bytes that a chunk of a shape has at most, unpacked."""
    return WIDEST_STORED * prod(shape) + CHECKSUM_BYTES


def _bounded_codec(codec: Any) -> Any:
    if isinstance(codec, ShardingCodec):
        inner: dict[str, Any] = {
            name: tuple(map(_bounded_codec, getattr(codec, name)))
            for name in ("codecs", "index_codecs")
        }
        return replace(codec, **inner)
    name = codec.to_dict()["name"].removeprefix("numcodecs.")
    return BoundedCodec(name) if name in UNPACKERS else codec


@dataclass(frozen=True)
class BoundedCompressor:
    """A codec of Zarr 2 that unpacks to at most `most` bytes; `codec_id` is of `UNPACKERS`."""

    codec_id: str
    most: int

    def decode(self, buf: Any) -> bytes:
        """As of numcodecs; ValueError where there is more."""
        return UNPACKERS[self.codec_id](ensure_bytes(buf), self.most)


@dataclass(frozen=True)
class BoundedCodec(BytesBytesCodec):
    """A codec of Zarr 3 that unpacks to no more than a chunk; `name` is of `UNPACKERS`."""

    name: str
    is_fixed_size = False  # a field of zarr

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        most = largest_stored(chunk_spec.shape)
        unpack = partial(UNPACKERS[self.name], chunk_bytes.to_bytes(), most)
        # As zarr's own codecs do it: chunks are unpacked side by side.
        return chunk_spec.prototype.buffer.from_bytes(await to_thread(unpack))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Not known before; only fixed sizes are asked for."""
        raise NotImplementedError


class RegularFileStore(WrapperStore[Any]):
    """A store that reads regular files only, and metadata of bounded size and depth."""

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """As of zarr's stores; ValueError for a pipe or a device, or for too much metadata."""
        path = Path(self._store.root) / key
        if path.is_dir() or not path.exists():
            return None
        if key.endswith(METADATA):
            parse_json_object(read_bounded(path, LARGEST_METADATA))
        else:
            # Of a shard, which may be larger, only parts are read.
            open_regular(path, LARGEST_CHUNK if byte_range is None else inf).close()
        return await super().get(key, prototype, byte_range)
