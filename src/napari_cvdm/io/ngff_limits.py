"""Validate the metadata of an OME-Zarr before a chunk is read.

The metadata may come from an untrusted source.
"""

from math import ceil, prod
from pathlib import Path
from typing import Any

from napari_cvdm.io.errors import ImageFileError
from napari_cvdm.io.limits import ALWAYS_ALLOWED_BYTES, LARGEST_EXPANSION

LARGEST_CHUNKS = 10_000_000
WIDEST_STORED = 8  # a filter may keep numbers of one byte as numbers of eight
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


def check_declared_sizes(stored: Any, path: Path) -> None:
    """Refuse an array that would cost memory, or execute something, when it is read.

    Parameters
    ----------
    stored : zarr.Array
        Its metadata were read, its chunks were not.
    path : Path
        The folder that was opened.

    Raises
    ------
    ImageFileError
        Codecs that are not for numbers, more chunks than LARGEST_CHUNKS, or chunks that the stored
        bytes can never unpack to.
    """
    _check_codecs(stored, path)
    chunks = prod(ceil(size / side) for size, side in zip(stored.shape, stored.chunks, strict=True))
    if chunks > LARGEST_CHUNKS:
        raise ImageFileError(
            f"{path}: its metadata promise {chunks:.4g} chunks; at most {LARGEST_CHUNKS:,} are "
            "read. Copy it again, or write larger chunks."
        )
    wanted = prod(stored.chunks) * stored.dtype.itemsize
    if wanted > ALWAYS_ALLOWED_BYTES and not _holds(path / stored.path, wanted / LARGEST_EXPANSION):
        raise ImageFileError(
            f"{path}: its metadata promise chunks of {wanted:.4g} bytes, and no file in it is "
            "large enough for one. Copy it again."
        )


def size_limited(stored: Any) -> Any:
    """The same array, with a limit on the declared size of each chunk.

    A chunk is not unpacked if its head declares more bytes than a chunk can have.

    Parameters
    ----------
    stored : zarr.Array
        Its codecs passed `check_declared_sizes`.
    """
    import zarr

    from napari_cvdm.io.ngff_heads import PROMISES, SizeLimitedStore

    packed = [name for name in _codecs(stored.metadata.to_dict()) if name in PACKING]
    if not packed or packed[-1] not in PROMISES:  # the last one packs what is on the disk
        return stored
    most = max(ALWAYS_ALLOWED_BYTES, WIDEST_STORED * prod(stored.chunks) * stored.dtype.itemsize)
    return zarr.open_array(
        store=SizeLimitedStore(stored.store, PROMISES[packed[-1]], most), path=stored.path, mode="r"
    )


def _check_codecs(stored: Any, path: Path) -> None:
    unknown = sorted(set(_codecs(stored.metadata.to_dict())) - {*PACKING, *CHANGING, *CHECKING})
    if unknown:
        raise ImageFileError(
            f"{path}: its pixels are packed by {unknown[0]!r:.80}, which is not read here. Write "
            "it again with blosc, zstd or gzip."
        )


def _codecs(said: Any) -> list[str]:
    """Names of the codecs in the metadata.

    Zarr 2 has ``compressor`` and ``filters``. Zarr 3 has ``codecs``, nested in shards.
    """
    if "codecs" not in said:
        return [
            str(one.get("id"))
            for one in (said.get("compressor"), *(said.get("filters") or ()))
            if one
        ]
    inner = [one["configuration"] for one in said["codecs"] if one["name"] == "sharding_indexed"]
    parts = [said["codecs"], *(one[name] for one in inner for name in ("codecs", "index_codecs"))]
    return [str(codec["name"]).removeprefix("numcodecs.") for part in parts for codec in part]


def _holds(folder: Path, least: float) -> bool:
    """Whether a chunk of at least so many bytes is stored."""
    return any(
        file.stat().st_size >= least
        for file in folder.rglob("*")
        if file.name not in METADATA and file.is_file()
    )
