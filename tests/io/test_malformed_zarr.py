"""OME-Zarr folders with false metadata or chunks.

`python -m tests.stress.fuzz --only ngff` found each of them, or looks for such ones. Bombs, pipes
and devices were made by hand.
"""

import bz2
import json
import lzma
import os
import pickle
import struct
import zlib
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("zarr", reason="zarr is not installed: pip install 'napari-cvdm[zarr]'")

import numcodecs
import zarr
from numcodecs.checksum32 import CRC32C
from small_images import spots
from tests.stress.fuzzing.watch import confined, frugal
from zarr_results import ngff_image

from napari_cvdm.io import ImageFileError
from napari_cvdm.io.limits import METADATA, UNPACKERS, codec_names
from napari_cvdm.io.read import open_image, window_of

RAN = "NAPARI_CVDM_TEST_RAN"


@pytest.fixture(params=["0.4", "0.5"])
def store(request, tmp_path):
    """A valid image of 2 x 2 chunks."""
    return ngff_image(tmp_path / "in.ome.zarr", spots((90, 100)), request.param)


def said_otherwise(store: Path, change) -> None:
    """Change the metadata of the array; the second argument of `change` is the Zarr format."""
    old = (store / "0" / ".zarray").exists()
    path = store / "0" / (".zarray" if old else "zarr.json")
    said = json.loads(path.read_text())
    change(said, old)
    path.write_text(json.dumps(said))


def refused(store: Path, words: str) -> None:
    """The image is refused in one line, at the latest when a part is read.

    The reader asks for hardly any memory.
    """
    with confined(store.parent), frugal(), pytest.raises(ImageFileError, match=words) as refusal:
        stack = open_image(store)
        window_of(stack, (), slice(0, 20), slice(0, 20))
    assert "\n" not in str(refusal.value)


def test_a_valid_one_is_read(store):
    with confined(store.parent):
        assert np.array_equal(
            window_of(open_image(store), (), slice(40, 60), slice(0, 100))[0],
            spots((90, 100)).array[40:60],
        )


@pytest.mark.parametrize("side", [10**7, 2**40])
def test_chunks_without_end_are_refused(store, side):
    said_otherwise(store, lambda said, _: said.update(shape=[side, side]))
    refused(store, "promise .* chunks")


def test_chunks_that_nothing_stored_can_unpack_to_are_refused(store):
    def change(said, old):
        size = [2**15, 2**15]
        said.update(
            {"chunks": size}
            if old
            else {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": size}}}
        )

    said_otherwise(store, change)
    refused(store, "no file in it is large enough")


class Spy:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return os.putenv, (RAN, "1")


@pytest.mark.parametrize("codec", ["pickle", "msgpack2", "json2", "vlen-utf8"])
def test_a_codec_that_is_not_for_numbers_is_refused_and_nothing_is_executed(store, codec):
    said_otherwise(
        store,
        lambda said, old: said.update(
            {"compressor": {"id": codec}}
            if old
            else {"codecs": [{"name": codec, "configuration": {}}]}
        ),
    )
    for chunk in (path for path in (store / "0").rglob("0*") if path.is_file()):
        chunk.write_bytes(pickle.dumps(Spy()))
    refused(store, "in.ome.zarr")


def test_the_codecs_are_looked_at_also_where_zarr_lets_them_pass(store, monkeypatch):
    from napari_cvdm.io import limits

    monkeypatch.setattr(limits, "UNPACKERS", {})
    refused(store, "is packed by|are packed by")


@pytest.mark.parametrize(
    "compressors", [zarr.codecs.ZstdCodec(), zarr.codecs.GzipCodec(), zarr.codecs.BloscCodec()]
)
def test_a_chunk_that_is_no_packed_chunk_is_refused_when_it_is_read(tmp_path, compressors):
    store = ngff_image(tmp_path / "in.ome.zarr", spots((90, 100)), "0.5")
    zarr.open_group(str(store), mode="r+").create_array(
        "0", data=spots((90, 100)).array, chunks=(48, 56), compressors=compressors, overwrite=True
    )
    (store / "0" / "c" / "0" / "0").write_bytes(b"\x28\xb5\x2f\xfd" + b"no chunk at all" * 9)
    refused(store, "rows 0 to 20, columns 0 to 20 cannot be read")


def test_a_zlib_chunk_that_is_none_is_refused_when_it_is_read(tmp_path):
    from numcodecs import Zlib

    store = ngff_image(tmp_path / "in.ome.zarr", spots((90, 100)), "0.4")
    zarr.open_group(str(store), mode="r+").create_array(
        "0", data=spots((90, 100)).array, chunks=(48, 56), compressors=Zlib(), overwrite=True
    )
    (store / "0" / "0.0").write_bytes(b"no chunk at all")
    refused(store, "incorrect header check")


def test_a_chunk_that_promises_more_than_there_is_memory_is_refused(tmp_path):
    store = ngff_image(tmp_path / "in.ome.zarr", spots((90, 100)), "0.5")
    (store / "0" / "c" / "0" / "0").write_bytes(
        b"\x28\xb5\x2f\xfd\xe0" + (2**60).to_bytes(8, "little") + bytes(40)
    )  # the head of a frame of Zstandard
    refused(store, "cannot be read")


def heads() -> dict[str, tuple[str, object, bytes]]:
    """For each packer the version of the format, the codec, and a lying head.

    The head asks for a gibibyte of a chunk of a few kilobytes.
    """
    import numcodecs

    gibibyte = (2**30).to_bytes(4, "little")
    zstd, blosc = b"\x28\xb5\x2f\xfd\xa0" + gibibyte, b"\x02\x01\x01\x02" + gibibyte
    return {
        "lz4": ("0.4", numcodecs.LZ4(), gibibyte),
        "blosc": ("0.4", numcodecs.Blosc(), blosc),
        "zstd": ("0.4", numcodecs.Zstd(), zstd),
        "zstd, 0.5": ("0.5", zarr.codecs.ZstdCodec(), zstd),
        "blosc, 0.5": ("0.5", zarr.codecs.BloscCodec(), blosc),
    }


@pytest.mark.parametrize(
    ("packer", "shards"),
    [*((packer, None) for packer in heads()), ("zstd, 0.5", (96, 112)), ("blosc, 0.5", (48, 56))],
)
def test_a_chunk_whose_head_asks_for_a_gibibyte_is_refused_before_it_is_unpacked(
    tmp_path, packer, shards
):
    version, codec, head = heads()[packer]
    image, store = spots((90, 100)), ngff_image(tmp_path / "in.ome.zarr", spots((90, 100)), version)
    kept = {} if shards is None else {"shards": shards}
    zarr.open_group(str(store), mode="r+").create_array(
        "0", data=image.array, chunks=(48, 56), compressors=codec, overwrite=True, **kept
    )
    assert np.array_equal(
        window_of(open_image(store), (), slice(0, 90), slice(0, 100))[0], image.array
    )
    for chunk in (path for path in (store / "0").rglob("0*") if path.is_file()):
        content = bytearray(chunk.read_bytes())
        content[: len(head)] = head
        chunk.write_bytes(content)
    refused(store, r"declares 1.074e\+09 bytes|ZSTD|buffer is too small")


NAMES = {"zlib": "Zlib", "bz2": "BZ2", "lzma": "LZMA"}
ENTRY = struct.Struct("<QQ")  # offset and length of a chunk in a shard
UNPACKED = 160 << 20


def zeros_packed_by(make) -> bytes:
    packer = make()
    return b"".join([packer.compress(bytes(UNPACKED)), packer.flush()])


@cache
def bombs() -> dict[str, bytes]:
    """Zeros, packed so that no head says how many."""
    whole, last = ((1 << 20 | 2 | end).to_bytes(3, "little") + b"\x00" for end in (0, 1))
    return {
        "zlib": zeros_packed_by(zlib.compressobj),
        "gzip": zeros_packed_by(partial(zlib.compressobj, wbits=31)),
        "bz2": zeros_packed_by(bz2.BZ2Compressor),
        "lzma": zeros_packed_by(partial(lzma.LZMACompressor, preset=0)),
        # Blocks of one repeated byte (RFC 8878, section 3.1.1.2).
        "zstd": b"\x28\xb5\x2f\xfd\x00\x58" + whole * (UNPACKED >> 17) + last,
    }


def with_bomb(folder: Path, kind: str, bomb: bytes, **settings) -> Path:
    """An image of one chunk or shard, whose packed bytes are a bomb."""
    store = ngff_image(folder / "in.ome.zarr", spots((96, 112)), "0.4" if kind == "2" else "0.5")
    settings = {"chunks": (96, 112), **settings}
    zarr.open_group(str(store), mode="r+").create_array(
        "0", data=spots((96, 112)).array, overwrite=True, **settings
    )
    (chunk,) = (path for path in (store / "0").rglob("0*") if path.is_file())
    if "shards" in settings:
        index = ENTRY.pack(0, len(bomb)) * 4
        bomb += bytes(CRC32C().encode(index))  # the checksum behind it
    chunk.write_bytes(bomb)
    return store


@pytest.mark.parametrize("kind", ["2", "3", "3 twice", "shards"])
@pytest.mark.parametrize("packer", ["zlib", "gzip", "bz2", "lzma", "zstd"])
@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
def test_unpacking_stops_at_the_bytes_of_a_chunk(packer, kind, tmp_path):
    own = {"gzip": zarr.codecs.GzipCodec, "zstd": zarr.codecs.ZstdCodec}
    codec = numcodecs.get_codec({"id": packer})
    if kind != "2":
        codec = own[packer]() if packer in own else getattr(zarr.codecs.numcodecs, NAMES[packer])()
    settings = {"compressors": [codec, codec] if kind == "3 twice" else codec}
    settings |= {"chunks": (48, 56), "shards": (96, 112)} if kind == "shards" else {}
    store = with_bomb(tmp_path, kind, bombs()[packer], **settings)
    with confined(tmp_path), frugal(), pytest.raises(ImageFileError, match="cannot be read"):
        window_of(open_image(store), (), slice(0, 96), slice(0, 112))


@pytest.mark.parametrize("packer", ["zlib", "gzip", "bz2", "lzma", "zstd"])
def test_what_is_packed_honestly_is_unpacked_up_to_its_last_byte(packer):
    pixels = spots((96, 112)).array.tobytes()
    packed = bytes(numcodecs.get_codec({"id": packer}).encode(pixels))
    assert UNPACKERS[packer](packed, len(pixels)) == pixels
    assert UNPACKERS[packer](packed * 2, 2 * len(pixels)) == 2 * pixels  # as two members
    for given, most in ((packed, len(pixels) - 1), (packed[:-9], len(pixels))):
        with pytest.raises((ValueError, RuntimeError)):
            UNPACKERS[packer](given, most)


def test_a_stream_of_lzma_that_needs_gigabytes_to_unpack_is_refused():
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    packed = bytearray(lzma.compress(b"0" * 99, filters=[{**filters[0], "dict_size": 4096}]))
    place = packed.index(bytes((lzma.FILTER_LZMA2, 1, 0)))  # the dictionary of the block
    packed[place + 2] = 36  # a gibibyte
    packed[20:24] = zlib.crc32(packed[12:20]).to_bytes(4, "little")
    with pytest.raises(lzma.LZMAError, match="Memory"):
        UNPACKERS["lzma"](bytes(packed), 99)


def test_shards_within_shards_are_looked_into(tmp_path):
    inner = {"name": "sharding_indexed", "configuration": {"codecs": [{"name": "bytes"}]}}
    inner["configuration"]["index_codecs"] = [{"name": "pickle"}]
    outer = {"codecs": [inner], "index_codecs": [{"name": "crc32c"}]}
    assert codec_names({"codecs": [{"name": "sharding_indexed", "configuration": outer}]}) == [
        "sharding_indexed",
        "sharding_indexed",
        "bytes",
        "pickle",
        "crc32c",
    ]


def test_a_large_image_in_chunks_of_single_pixels_is_refused(store):
    def change(said, old):
        said.update(shape=[3000, 3000])
        said.update(
            {"chunks": [1, 1]}
            if old
            else {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 1]}}}
        )

    said_otherwise(store, change)
    refused(store, "its chunks have 1 pixels")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are Unix's")
@pytest.mark.parametrize(
    "make", [getattr(os, "mkfifo", None), lambda path: path.symlink_to("/dev/zero")]
)
@pytest.mark.parametrize("name", ["group", "array", "chunk"])
def test_a_pipe_or_a_device_in_the_folder_is_not_waited_for(store, name, make):
    said = [path for path in store.rglob("*") if path.name in METADATA]
    path = {
        "group": next(path for path in said if path.parent == store),
        "array": next(path for path in said if path.parent == store / "0"),
        "chunk": next(path for path in sorted((store / "0").rglob("0*")) if path.is_file()),
    }[name]
    path.unlink()
    make(path)
    refused(store, "is no regular file")


@pytest.mark.parametrize("nested", [False, True])
def test_metadata_without_end_are_not_parsed(store, nested):
    path = store / (".zattrs" if (store / ".zattrs").exists() else "zarr.json")
    said = "[" * 900 + "]" * 900 if nested else "[" + "[]," * 4_000_000 + "[]]"
    path.write_text(path.read_text().replace('"multiscales"', f'"more": {said}, "multiscales"', 1))
    refused(store, "nested deeper" if nested else "is larger than 10,000,000")


@pytest.mark.parametrize("shards", [(48, 56), (96, 112)])
def test_shards_whose_index_looks_like_a_head_are_read(tmp_path, shards):
    store, pixels = (
        ngff_image(tmp_path / "in.ome.zarr", spots((90, 100)), "0.5"),
        np.zeros((90, 100), np.uint16),
    )
    pixels[50:, 60:] = spots((90, 100)).array[
        50:, 60:
    ]  # empty chunks are not stored, and their place in the index is nothing but ones
    group = zarr.open_group(str(store), mode="r+")
    group.create_array(
        "0",
        data=pixels,
        chunks=(48, 56),
        shards=shards,
        compressors=zarr.codecs.BloscCodec(),
        overwrite=True,
    )
    assert np.array_equal(window_of(open_image(store), (), slice(0, 90), slice(0, 100))[0], pixels)


def test_pixels_outside_the_folder_are_not_read(store):
    beside = ngff_image(store.with_name("beside.ome.zarr"), spots((90, 100)), "0.5")
    path = store / (".zattrs" if (store / ".zattrs").exists() else "zarr.json")
    path.write_text(path.read_text().replace('"path": "0"', f'"path": "../{beside.name}/0"'))
    refused(store, "cannot be read as OME-Zarr")
