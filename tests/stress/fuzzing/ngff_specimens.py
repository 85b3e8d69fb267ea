"""OME-Zarr folders, valid and small, and what can happen to one of their files."""

import bz2
import gzip
import json
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import zarr
from hypothesis import strategies as st
from numcodecs import LZ4, Zlib
from tests.stress.fuzzing.mutations import damaged, json_text
from tests.stress.fuzzing.specimens import pixels

from napari_cvdm.io.zarr_write import Grid, GridImage, build_pyramid, create_images, open_level

NAME = "image.ome.zarr"
Files = dict[str, bytes]
CODECS = (
    "pickle",
    "msgpack2",
    "json2",
    "vlen-utf8",
    "zlib",
    "blosc",
    "zstd",
    "lz4",
    "bz2",
    "lzma",
    "delta",
    "nothing",
    "sharding_indexed",
)
BOMB_BYTES = 80 << 20  # beyond what a reader may ask for
METADATA = ("zarr.json", ".zattrs", ".zgroup", ".zarray")


def _content(folder: Path) -> Files:
    return {
        str(path.relative_to(folder).as_posix()): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _image(folder: Path, version: str, letters: str, **settings: Any) -> None:
    group = zarr.open_group(str(folder / NAME), mode="w", zarr_format=2 if version == "0.4" else 3)
    shape = (2,) * (len(letters) - 2) + (40, 36)
    chunks = (1,) * (len(letters) - 2) + (16, 16)
    group.create_array("0", data=pixels(*shape), **{"chunks": chunks, **settings})
    axes = [{"name": letter, "type": "space", "unit": "micrometer"} for letter in letters]
    places = [
        {"type": "scale", "scale": [0.1] * len(letters)},
        {"type": "translation", "translation": [2.0] * len(letters)},
    ]
    multiscales = [
        {
            "version": version,
            "name": "i",
            "axes": axes,
            "datasets": [{"path": "0", "coordinateTransformations": places}],
        }
    ]
    group.attrs.update(
        {"multiscales": multiscales}
        if version == "0.4"
        else {"ome": {"version": version, "multiscales": multiscales}}
    )


def _own(folder: Path) -> None:
    """A result of this program: a collection with a pyramid."""
    path, image = (
        folder / NAME,
        GridImage(name="mean", dtype="float32", unit="counts", leading=(("t", 2),)),
    )
    grid = Grid(shape=(520, 12), chunk=256, pixel_um=0.1)
    create_images(path, [image], grid, {"version": "0"})
    open_level(path, "mean")[:] = pixels(2, 520, 12)
    build_pyramid(path, image, grid)


@cache
def bombs() -> tuple[bytes, ...]:
    """Few bytes that unpack to many zeros, for every packer whose head may say nothing of them."""
    zeros = bytes(BOMB_BYTES)
    block = (1 << 20 | 2).to_bytes(3, "little") + b"\x00"  # of Zstandard, 128 KiB of one byte
    zstd = b"\x28\xb5\x2f\xfd\x00\x58" + block * (BOMB_BYTES >> 17) + b"\x03\x00\x10\x00"
    return (zlib.compress(zeros), gzip.compress(zeros), bz2.compress(zeros), zstd)


@cache
def specimens() -> tuple[Files, ...]:
    """OME-Zarr 0.4 and 0.5 in several forms, and a result of this program.

    0.4 is plain, packed two ways, and with three axes. 0.5 is packed, plain, in shards, and with
    five axes.
    """
    makers = (
        lambda folder: _image(folder, "0.4", "yx", compressors=None),
        lambda folder: _image(folder, "0.4", "zyx", compressors=Zlib()),
        lambda folder: _image(folder, "0.4", "yx", compressors=LZ4()),
        lambda folder: _image(folder, "0.4", "yx"),
        lambda folder: _image(folder, "0.5", "yx"),
        lambda folder: _image(folder, "0.5", "zyx", compressors=None),
        lambda folder: _image(folder, "0.5", "yx", shards=(32, 32)),
        lambda folder: _image(folder, "0.5", "tczyx", compressors=zarr.codecs.BloscCodec()),
        _own,
    )
    return tuple(_made(maker) for maker in makers)


def _made(maker: Any) -> Files:
    with TemporaryDirectory() as name:
        maker(Path(name))
        return _content(Path(name))


def _parts(files: Files) -> Iterator[str]:
    """Names of the files, metadata more often: there are few of them among many chunks."""
    metadata = [name for name in files if name.endswith(METADATA)]
    yield from metadata * 4
    yield from files


@st.composite
def damaged_folders(draw: st.DrawFn) -> Files:
    """One of the folders, a few of its files changed, missing or in each other's place."""
    files = dict(draw(st.sampled_from(specimens())))
    for _ in range(draw(st.integers(1, 2))):
        names = list(_parts(files))
        name = draw(st.sampled_from(names))
        kind = draw(
            st.sampled_from(
                ("changed", "changed", "changed", "missing", "swapped", "codec", "bomb")
            )
        )
        if kind == "missing" and len(files) > 1:
            files.pop(name)
        elif kind == "swapped":
            files[name] = files[draw(st.sampled_from(names))]
        elif kind == "bomb" and not name.endswith(METADATA):
            files[name] = draw(st.sampled_from(bombs()))
        elif kind == "codec" and name.endswith((".zarray", "zarr.json")):
            files[name] = draw(_other_codec(files[name]))
        else:
            files[name] = draw(_changed(name, files[name]))
    return files


@st.composite
def _changed(draw: st.DrawFn, name: str, content: bytes) -> bytes:
    if not name.endswith(METADATA):
        return draw(damaged(content, ((0, 24),)))
    try:
        return draw(json_text(json.loads(content)))
    except (ValueError, RecursionError):  # changed before, perhaps into brackets in brackets
        return draw(damaged(content))


@st.composite
def _other_codec(draw: st.DrawFn, content: bytes) -> bytes:
    """Pixels whose metadata name another packer; some packers execute what they unpack."""
    name = draw(st.sampled_from(CODECS))
    try:
        said = json.loads(content)
        if "compressor" in said:
            said[draw(st.sampled_from(("compressor", "filters")))] = (
                {"id": name} if draw(st.booleans()) else [{"id": name}]
            )
        else:
            named = {
                "name": draw(st.sampled_from((name, f"numcodecs.{name}"))),
                "configuration": {},
            }
            said["codecs"] = [{"name": "bytes"}, named] if draw(st.booleans()) else [named]
    except (ValueError, TypeError, KeyError, RecursionError):
        return content
    return json.dumps(said).encode()
