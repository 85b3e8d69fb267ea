"""Limits on untrusted files, checked before memory is allocated.

What a header declares is compared with what the file can hold.
"""

import bz2
import json
import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from math import ceil, inf, prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, BinaryIO, Literal
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import tifffile

from napari_cvdm.io.errors import ImageFileError, incomplete_error, one_line

LARGEST_RECORD = 20_000_000
DEEPEST = 50  # brackets within brackets
# Deflate packs at most 1032 bytes into one, LZW 1365. A small image may be only background, which
# newer methods pack further.
LARGEST_EXPANSION = 1400
ALWAYS_ALLOWED_BYTES = 16 << 20
# No measured image of this size is that empty.
LARGE_BYTES, LARGE_EXPANSION = 512 << 20, 100
LARGEST_DIRECTORY = 100_000  # bytes of the list of an archive's members
NPZ_PACKING = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
LARGEST_NPY_HEADER = 1 << 16  # NumPy itself reads no more than 10,000 bytes
# By the number of a compression in a TIFF.
IMAGE_DECODERS = {
    **dict.fromkeys((6, 7, 33007, 34892), "jpeg8"),
    **dict.fromkeys((33003, 33004, 33005, 34712), "jpeg2k"),
    **dict.fromkeys((22610, 34934), "jpegxr"),
    **dict.fromkeys((50002, 52546), "jpegxl"),
    34887: "lerc",
    34933: "png",
    50001: "webp",
}
SHAPE_FOUND = re.compile(r" shape=\((\d[\d, ]*)\)")
J2K_SIZE = re.compile(rb"\xff\x4f\xff\x51....(.{8})", re.DOTALL)
LARGEST_PLANES = 1_000_000
LARGEST_XML = {"<": 2_000_000, "=": 8_000_000}
LARGEST_CHUNKS = 10_000_000
# Blocks of a large image in chunks of single pixels would take minutes.
FEW_CHUNKS, SMALLEST_CHUNK = 10_000, 256
LZMA_MEMORY = 256 << 20
# Zarr 2 lets metadata name any installed codec. One of them, pickle, executes what it unpacks. The
# codecs here only turn numbers into numbers.
CHANGING = tuple(
    "astype bitround bytes delta endian fixedscaleoffset packbits quantize sharding_indexed "
    "shuffle transpose".split()
)
CHECKING = ("adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3")
METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


def read_bounded(path: Path, largest: int = LARGEST_RECORD) -> bytes:
    """All bytes of a regular file; the limit and the errors are those of `open_regular`."""
    with open_regular(path, largest) as file:
        return file.read(largest)


def open_regular(path: str | Path, largest: float = inf) -> BinaryIO:
    """Open a file for reading, without waiting.

    Raises ValueError for a pipe or a device, which could be read without end, and for a file of
    more than `largest` bytes; OSError where the file cannot be opened.
    """
    # A named pipe would wait for somebody who writes.
    waiting = getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    file = os.fdopen(os.open(path, os.O_RDONLY | waiting), "rb")
    found, name = os.fstat(file.fileno()), Path(path).name
    if stat.S_ISREG(found.st_mode) and found.st_size <= largest:
        return file
    file.close()
    raise ValueError(
        f"{name} is larger than {largest:,} bytes, and none of this program is"
        if stat.S_ISREG(found.st_mode)
        else f"{name} is no regular file"
    )


@contextmanager
def open_arrays(path: str | Path) -> Iterator[Mapping[str, Any]]:
    """The arrays of an NPZ file, each read when it is asked for.

    Raises ImageFileError for a pipe or a device, a damaged file, one without the arrays that are
    asked for, and members that NumPy does not pack so, or that unpack to too much.
    """
    try:
        with open_regular(path) as file:
            check_directory(file)
            with zipfile.ZipFile(file) as archive:
                for member in _checked_members(archive, os.fstat(file.fileno()).st_size):
                    with archive.open(member) as stream:
                        check_npy(stream, member.file_size)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                yield arrays
    except Exception as error:  # NumPy and zipfile let through whatever a damaged file makes happen
        raise ImageFileError(
            f"{path}: its arrays cannot be read ({one_line(error)}); make or copy it again."
        ) from error


def check_directory(file: IO[bytes]) -> None:
    """ValueError where the list of members of an archive is longer than LARGEST_DIRECTORY bytes.

    zipfile would make an object of each.
    """
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # as zipfile itself finds it
    if end and end[zipfile._ECD_SIZE] > LARGEST_DIRECTORY:  # type: ignore[attr-defined]
        raise ValueError(f"its list of members has {end[zipfile._ECD_SIZE]:,} bytes")  # type: ignore[attr-defined]


def _checked_members(archive: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    """Members of an archive of `size` bytes; ValueError if they unpack to too much."""
    members = archive.infolist()
    stored = min(size, sum(member.compress_size for member in members))
    wanted = sum(member.file_size for member in members)  # zipfile stops there
    if wanted > largest_unpacked(stored):
        raise ValueError(f"they would unpack to {wanted:.4g} bytes")
    if any(one.compress_type not in NPZ_PACKING for one in members):
        raise ValueError("they are packed as numpy.savez_compressed packs none")
    return members


def check_npy(file: IO[bytes], size: int) -> None:
    """Raise ValueError if `size` bytes of a file are fewer than its NPY header declares.

    NumPy would allocate the memory first.
    """
    readers = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    head = BytesIO(file.read(LARGEST_NPY_HEADER))
    major, _ = np.lib.format.read_magic(head)
    shape, _, dtype = readers[min(major, 2)](head)
    wanted, held = prod(shape) * dtype.itemsize, size - head.tell()
    if wanted > held:
        raise ValueError(f"its header promises {wanted:.4g} bytes of pixels, and it holds {held}")


def parse_json_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object that every reader can use.

    Raises ValueError where it is none, is nested too deep, or has a whole number beyond 64 bits.
    """
    try:
        value = json.loads(text, parse_int=_read_whole)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    check_depth(value)
    return value


def _read_whole(digits: str) -> int:
    value = int(digits)
    if not -(1 << 63) <= value < 1 << 64:
        raise ValueError(f"{digits[:20]}... is too large a number")
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


def largest_unpacked(stored: int) -> int:
    """Bytes that `stored` bytes may unpack to."""
    usual = min(LARGEST_EXPANSION * stored, max(LARGE_BYTES, LARGE_EXPANSION * stored))
    return max(ALWAYS_ALLOWED_BYTES, usual)


def check_expansion(wanted: int, stored: int, source: str) -> None:
    """ImageFileError where `stored` bytes cannot unpack to an image of `wanted` bytes."""
    if wanted > largest_unpacked(stored):
        raise ImageFileError(
            f"{source}: its header promises {wanted:.4g} bytes of pixels, and it holds {stored:,}; "
            "it is damaged or cut short. Copy it again."
        )


def check_segments(pages: Iterable[Any], source: str) -> int:
    """Count the bytes of TIFF pages, where all their strips and tiles are there.

    Raises ImageFileError where one is missing, ends behind the file, or cannot unpack to its size.
    """
    # By where it lies: the same bytes, named twice, are no more bytes.
    stored: dict[tuple[str, int], int] = {}
    for page in pages:
        file = page.parent.filehandle
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        if len(segments) < max(1, prod(page.chunked)) or any(
            count <= 0 or offset + count > file.size for offset, count in segments
        ):
            raise incomplete_error(source)
        largest = max(count for _, count in segments)
        check_expansion(prod(page.chunks) * page.dtype.itemsize, largest, source)
        _check_image_segments(page, source)
        stored.update(((file.name, offset), count) for offset, count in segments)
    return sum(stored.values())


def fill_byte_counts(tiff: tifffile.TiffFile) -> None:
    """Put in the sizes of strips where a program left them out, or wrote 0 or too much."""
    if _strip_sizes(tiff.pages.first, tiff.filehandle.size) is None:
        return
    for page in tiff.pages:
        page.databytecounts = _strip_sizes(page, tiff.filehandle.size) or page.databytecounts


def _strip_sizes(page: Any, end: int) -> tuple[int, ...] | None:
    """Bytes of the strips of a page, which follow from its shape if it is not compressed.

    None where the stated ones are inside a file of `end` bytes.
    """
    rows, length, offsets = page.rowsperstrip, page.imagelength, page.dataoffsets
    if page.compression != 1 or page.planarconfig != 1 or page.is_tiled or page.bitspersample % 8:
        return None
    if not page.nbytes or rows < 1 or len(offsets) != ceil(length / rows):
        return None
    stated = [*page.databytecounts, *[0] * len(offsets)]
    if all(0 < count <= end - offset for offset, count in zip(offsets, stated, strict=False)):
        return None
    return tuple(min(rows, length - top) * page.nbytes // length for top in range(0, length, rows))


def _check_image_segments(page: Any, source: str) -> None:
    """Raise ImageFileError if a segment is a larger image than its strip or tile.

    JPEG and its kin have heads of their own, and their decoders ask for the memory of these.
    """
    decode = IMAGE_DECODERS.get(int(page.compression))
    if decode is None:
        return
    most, file = prod(page.chunks), page.parent.filehandle
    tables = {"tables": page.jpegtables} if decode == "jpeg8" else {}
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        file.seek(offset)
        side = declared_image(decode, file.read(count), **tables)
        if prod(side) > most:
            raise ImageFileError(
                f"{source}: the file is damaged, one of its tiles is an image of "
                f"{' x '.join(map(str, side))} pixels. Copy it again, or save it from Fiji."
            )


def declared_image(decode: str, packed: bytes, **tables: Any) -> tuple[int, ...]:
    """Shape of an image that a decoder of imagecodecs would make; () if it cannot tell."""
    if decode == "jpeg2k":
        # It asks for memory before it compares. All heads count (ISO/IEC 15444-1, A.5.1).
        found = (struct.unpack(">II", one[1]) for one in J2K_SIZE.finditer(packed))
        return max(found, key=prod, default=())
    for dtype in (np.uint8, np.uint16, np.float32):
        try:
            # No image has this shape: the decoder says which one it found.
            out: np.ndarray = np.empty((1, 1, 1, 1, 1), dtype)
            getattr(imagecodecs, f"{decode}_decode")(packed, out=out, **tables)
        except Exception as error:  # each decoder has its own
            if found_shape := SHAPE_FOUND.search(str(error)):
                return tuple(int(number) for number in re.findall(r"\d+", found_shape[1]))
    return ()


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
    xml = tiff.ome_metadata or ""
    check_xml(xml, source)
    try:
        elements = list(ElementTree.fromstring(xml).iter())
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
        if name:
            _check_companion(Path(tiff.filehandle.dirname) / name, source)


def check_xml(text: str, source: str) -> None:
    """Raise ImageFileError if XML has so many elements or attributes that a tree fills memory."""
    for mark, most in LARGEST_XML.items():
        if text.count(mark) > most:
            raise ImageFileError(
                f"{source}: its OME header has {text.count(mark):,} times {mark!r}; at most "
                f"{most:,} are read. Split the file."
            )


def check_micromanager(tiff: tifffile.TiffFile, source: str) -> None:
    """Raise ImageFileError if Micro-Manager's metadata name too many planes, or pipes.

    tifffile makes a list of all planes, and opens each file of the stack.
    """
    said = (tiff.micromanager_metadata or {}) if tiff.is_micromanager else {}
    index, summary = said.get("IndexMap"), said.get("Summary") or {}
    if index is None:
        return
    counts = (int(summary.get(name, 1)) for name in ("Channels", "Slices", "Frames", "Positions"))
    last = index[:, :4].max(axis=0).tolist()
    planes = prod(max(count, 1 + number) for count, number in zip(counts, last, strict=True))
    if planes > LARGEST_PLANES:
        raise ImageFileError(
            f"{source}: its metadata name {planes:.4g} planes; at most {LARGEST_PLANES:,} are "
            "read. Copy it again, or split it."
        )
    for path in Path(tiff.filehandle.dirname).glob("*_MMStack*.tif"):
        _check_companion(path, source)


def _check_companion(path: Path, source: str) -> None:
    if path.exists() and not path.is_file():
        raise ImageFileError(
            f"{source}: its companion {path.name:.80} is no file but a device or a pipe; copy both "
            "again."
        )


def _number(element: ElementTree.Element, name: str) -> float:
    try:
        return float(element.get(name, "1"))
    except ValueError:
        return 1.0


def check_declared_sizes(stored: Any, path: Path) -> None:
    """Refuse an array of an OME-Zarr that would cost memory, or execute something, when it is read.

    Its metadata were read, its chunks were not. Raises ImageFileError for codecs that are not for
    numbers, more chunks than LARGEST_CHUNKS, or chunks that no stored bytes can unpack to.
    """
    unknown = sorted(
        set(codec_names(stored.metadata.to_dict())) - {*UNPACKERS, *CHANGING, *CHECKING}
    )
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
    if chunks > FEW_CHUNKS and prod(stored.chunks) < SMALLEST_CHUNK:
        raise ImageFileError(
            f"{path}: its chunks have {prod(stored.chunks)} pixels; at least {SMALLEST_CHUNK} are "
            "needed in a large image. Write larger chunks."
        )
    wanted = prod(stored.chunks) * stored.dtype.itemsize
    if wanted > ALWAYS_ALLOWED_BYTES and not any(
        largest_unpacked(file.stat().st_size) >= wanted
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
    found = []
    for codec in metadata["codecs"]:
        found.append(str(codec["name"]).removeprefix("numcodecs."))
        if found[-1] == "sharding_indexed":
            inner = codec["configuration"]
            found += codec_names(inner) + codec_names({"codecs": inner["index_codecs"]})
    return found


def _unpack_stream(make: Callable[[], Any]) -> Callable[[bytes, int], bytes]:
    """A function that unpacks the members of a stream, and stops at a number of bytes."""

    def unpack(packed: bytes, most: int) -> bytes:
        pieces, left = [], most
        while packed:
            member = make()
            pieces.append(member.decompress(packed, left + 1))
            left -= len(pieces[-1])
            if left < 0:
                raise ValueError(f"it unpacks to more than {most:,} bytes")
            if not member.eof:
                raise ValueError("it ends too early")
            packed = member.unused_data
        return b"".join(pieces)

    return unpack


def _unpack_declared(name: str, head: str, place: int) -> Callable[[bytes, int], bytes]:
    """A function that unpacks what declares its size at a place of its head."""

    def unpack(packed: bytes, most: int) -> bytes:
        from numcodecs import get_codec  # type: ignore[import-untyped]

        (declared,) = struct.unpack_from(head, packed, place)
        if not 0 <= declared <= most:
            raise ValueError(f"it declares {declared:.4g} bytes, and has at most {most:,}")
        return bytes(get_codec({"id": name}).decode(packed))

    return unpack


# Each takes packed bytes and the most bytes that they may unpack to, and stops there. LZMA uses
# the memory that its stream asks for.
UNPACKERS: dict[str, Callable[[bytes, int], bytes]] = {
    "blosc": _unpack_declared("blosc", "<I", 4),  # c-blosc, README_CHUNK_FORMAT
    "bz2": _unpack_stream(bz2.BZ2Decompressor),
    "gzip": _unpack_stream(partial(zlib.decompressobj, 31)),
    "lz4": _unpack_declared("lz4", "<i", 0),  # numcodecs writes the size before the block
    "lzma": _unpack_stream(partial(lzma.LZMADecompressor, memlimit=LZMA_MEMORY)),
    "zlib": _unpack_stream(zlib.decompressobj),
    "zstd": lambda packed, most: bytes(imagecodecs.zstd_decode(packed, out=most)),
}
