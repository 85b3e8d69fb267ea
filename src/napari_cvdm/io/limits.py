"""Limits on untrusted files, checked before memory is allocated.

What a header declares is compared with what the file can hold.
"""

import json
import os
import struct
from collections.abc import Callable, Mapping
from math import ceil, prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal
from xml.etree import ElementTree

import tifffile

from napari_cvdm.io.errors import ImageFileError

LARGEST_RECORD = 50_000_000
DEEPEST = 50
# Deflate packs at most 1032 bytes into one, LZW 1365. A small image may be only background, which
# newer methods pack further.
LARGEST_EXPANSION = 1400
ALWAYS_ALLOWED_BYTES = 16 << 20
LARGEST_PLANES = 1_000_000
LARGEST_CHUNKS = 10_000_000
# Zarr 2 lets metadata name any installed codec. One of them, pickle, executes what it unpacks. The
# codecs here only turn numbers into numbers.
PACKING = ("blosc", "bz2", "gzip", "lz4", "lzma", "pcodec", "zfpy", "zlib", "zstd")
CHANGING = (
    "astype",
    "bitround",
    "bytes",
    "delta",
    "endian",
    "fixedscaleoffset",
    "packbits",
    "quantize",
    "sharding_indexed",
    "shuffle",
    "transpose",
)
CHECKING = ("adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3")
METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup")


def read_bounded(path: Path, largest: int = LARGEST_RECORD) -> bytes:
    """The bytes of a regular file of at most `largest` bytes.

    Raises
    ------
    ValueError
        A pipe or a device, which could be read without end, or a larger file.
    OSError
        The file cannot be opened.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is no regular file")
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > largest:
            raise ValueError(
                f"{path.name} is larger than {largest:,} bytes, and none of this program is"
            )
        return file.read()


def parse_json_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object; ValueError where it is none, or nested so deep that no reader can use it."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    check_depth(value)
    return value


def check_depth(value: Any) -> None:
    """ValueError where mappings and lists are nested deeper than `DEEPEST`."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError(f"its entries are nested deeper than {DEEPEST}")


def check_expansion(wanted: int, stored: int, source: str) -> None:
    """ImageFileError where `stored` bytes cannot unpack to an image of `wanted` bytes."""
    if wanted > max(ALWAYS_ALLOWED_BYTES, LARGEST_EXPANSION * stored):
        raise ImageFileError(
            f"{source}: its header promises {wanted:.4g} bytes of pixels, and it holds {stored:,}; "
            "it is damaged or cut short. Copy it again."
        )


def check_chain(tiff: tifffile.TiffFile, source: str) -> None:
    """Raise ImageFileError if the chain of pages is a loop, which tifffile would follow forever."""
    layout, file = tiff.tiff, tiff.filehandle
    order: Literal["little", "big"] = "little" if tiff.byteorder == "<" else "big"
    offset, met = tiff.pages.first.offset, set[int]()
    while 0 < offset < file.size:
        if offset in met:
            raise ImageFileError(
                f"{source}: the file is damaged, its pages lead back to the one at byte {offset}. "
                "Copy it again, or save it again from Fiji."
            )
        met.add(offset)
        # A page has a count, entries of one size, and the offset of the next (TIFF 6.0, section 2).
        file.seek(offset)
        tags = int.from_bytes(file.read(layout.tagnosize), order)
        file.seek(min(offset + layout.tagnosize + tags * layout.tagsize, file.size))
        following = file.read(layout.offsetsize)
        offset = int.from_bytes(following, order) if len(following) == layout.offsetsize else 0


def check_ome(tiff: tifffile.TiffFile, source: str) -> None:
    """Raise ImageFileError if OME-XML names too many planes, or files in other folders.

    At most LARGEST_PLANES are allowed. What is not XML is left to tifffile.
    """
    try:
        elements = list(ElementTree.fromstring(tiff.ome_metadata or "").iter())
    except ElementTree.ParseError:
        return
    page = max(1, tiff.pages.first.size)
    for element in elements:
        step = _number(element, "Step")
        planes = max(
            prod(_number(element, f"Size{letter}") for letter in "TCZYX") / page,
            _number(element, "PlaneCount"),
            _number(element, "NumPlanes"),
            # An axis may be given by its start, end and step.
            (_number(element, "End") - _number(element, "Start")) / step if step else 1.0,
        )
        if planes > LARGEST_PLANES:
            raise ImageFileError(
                f"{source}: its OME header promises {planes:.4g} planes; at most "
                f"{LARGEST_PLANES:,} are read. Copy it again, or split it."
            )
        name = element.get("FileName", "")
        if name and not PurePosixPath(name).name == name == PureWindowsPath(name).name:
            raise ImageFileError(
                f"{source}: it names a companion file in another folder ({name!r:.80}), which is "
                "not opened; put both into one folder."
            )


def _number(element: ElementTree.Element, name: str) -> float:
    try:
        return float(element.get(name, "1"))
    except ValueError:
        return 1.0


def check_declared_sizes(stored: Any, path: Path) -> None:
    """Refuse an array of an OME-Zarr that would cost memory, or execute something, when it is read.

    Its metadata were read, its chunks were not.

    Raises
    ------
    ImageFileError
        Codecs that are not for numbers, more chunks than LARGEST_CHUNKS, or chunks that the stored
        bytes can never unpack to.
    """
    unknown = sorted(set(codec_names(stored.metadata.to_dict())) - {*PACKING, *CHANGING, *CHECKING})
    if unknown:
        raise ImageFileError(
            f"{path}: its pixels are packed by {unknown[0]!r:.80}, which is not read here. Write "
            "it again with blosc, zstd or gzip."
        )
    chunks = prod(ceil(size / side) for size, side in zip(stored.shape, stored.chunks, strict=True))
    if chunks > LARGEST_CHUNKS:
        raise ImageFileError(
            f"{path}: its metadata promise {chunks:.4g} chunks; at most {LARGEST_CHUNKS:,} are "
            "read. Copy it again, or write larger chunks."
        )
    wanted = prod(stored.chunks) * stored.dtype.itemsize
    if wanted > ALWAYS_ALLOWED_BYTES and not any(
        file.stat().st_size >= wanted / LARGEST_EXPANSION
        for file in (path / stored.path).rglob("*")
        if file.name not in METADATA and file.is_file()
    ):
        raise ImageFileError(
            f"{path}: its metadata promise chunks of {wanted:.4g} bytes, and no file in it is "
            "large enough for one. Copy it again."
        )


def codec_names(metadata: Mapping[str, Any]) -> list[str]:
    """Names of the codecs of a Zarr array.

    Zarr 2 has ``compressor`` and ``filters``. Zarr 3 has ``codecs``, nested in shards.
    """
    if "codecs" not in metadata:
        codecs = (metadata.get("compressor"), *(metadata.get("filters") or ()))
        return [str(codec.get("id")) for codec in codecs if codec]
    inner = [
        one["configuration"] for one in metadata["codecs"] if one["name"] == "sharding_indexed"
    ]
    parts = [metadata["codecs"], *(one[key] for one in inner for key in ("codecs", "index_codecs"))]
    return [str(codec["name"]).removeprefix("numcodecs.") for part in parts for codec in part]


HEAD_BYTES = 18


def _zstd_size(head: bytes) -> int:
    # A frame may leave its size out (RFC 8878, section 3.1.1).
    if head[:4] != b"\x28\xb5\x2f\xfd" or len(head) < HEAD_BYTES:
        return 0
    described = head[4]
    single, size = described >> 5 & 1, (described >> 5 & 1, 2, 4, 8)[described >> 6]
    start = 5 + (1 - single) + (0, 1, 2, 4)[described & 3]
    return int.from_bytes(head[start : start + size], "little")


def _blosc_size(head: bytes) -> int:
    # Blosc 1 and 2 (c-blosc, README_CHUNK_FORMAT).
    return int(struct.unpack_from("<I", head, 4)[0]) if len(head) >= 16 and head[0] in (1, 2) else 0


def _lz4_size(head: bytes) -> int:
    # numcodecs writes the size, signed, before the block.
    return max(0, int(struct.unpack_from("<i", head)[0])) if len(head) >= 4 else 0


# Bytes that a chunk declares to unpack to, from its first HEAD_BYTES; 0 where it declares nothing.
DECLARED_SIZE: dict[str, Callable[[bytes], int]] = {
    "blosc": _blosc_size,
    "lz4": _lz4_size,
    "zstd": _zstd_size,
}
