"""OME-Zarr folders with false metadata or chunks.

`python -m tests.stress.fuzz --only ngff` found each of them, or looks for such ones.
"""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("zarr", reason="zarr is not installed: pip install 'napari-cvdm[zarr]'")

import zarr
from small_images import spots
from tests.stress.fuzzing.watch import confined, frugal
from zarr_results import ngff_image

from napari_cvdm.io import ImageFileError
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

    monkeypatch.setattr(limits, "PACKING", ())
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
    refused(store, "promises 1.074e\\+09 bytes")


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
