"""Files with false headers.

`python -m tests.stress.fuzz` found each of them, or looks for such ones.
"""

import io
import json
import os
import struct
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imagecodecs
import mrcfile
import numpy as np
import pytest
import tifffile
from tests.stress.fuzzing.watch import Escape, confined, frugal, outcome

from napari_cvdm.core.request import RequestError
from napari_cvdm.io import ImageFileError, read_image
from napari_cvdm.io.limits import (
    ALWAYS_ALLOWED_BYTES,
    DEEPEST,
    LARGE_BYTES,
    LARGEST_EXPANSION,
    LARGEST_XML,
    check_expansion,
    check_micromanager,
    check_xml,
    largest_unpacked,
    open_arrays,
    parse_json_object,
    read_bounded,
)
from napari_cvdm.io.read import open_image, read_psf
from napari_cvdm.io.result_folder import PROVENANCE, is_result_folder, read_result_folder
from napari_cvdm.models.bundle import add_model
from napari_cvdm.simulate.ranges import PhaseRanges
from napari_cvdm.training.pairs import Arrays
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.sources import RECORD, load_field, load_training_field, solve_missing
from napari_cvdm.training.state import STATE, load_state

PIXELS = np.random.default_rng(0).poisson(90, (24, 20)).astype(np.uint16)
UNIX = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are Unix's")
ENDLESS = (getattr(os, "mkfifo", None), lambda path: path.symlink_to("/dev/zero"))
WIDTH, LENGTH, STRIP_ROWS, STRIP_BYTES, DESCRIPTION = 256, 257, 278, 279, 270


def refused(path: Path, words: str = "cut short|damaged|missing") -> None:
    """The file is refused in one line, and hardly any memory was asked for."""
    with frugal(), pytest.raises(ImageFileError, match=words) as refusal:
        read_image(path)
    assert "\n" not in str(refusal.value)


def tiff(path: Path, array: np.ndarray = PIXELS, **settings: object) -> Path:
    tifffile.imwrite(path, array, **settings)
    return path


def with_tag(path: Path, code: int, value: object) -> Path:
    """The first page says something else."""
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags[code].overwrite(value)
    return path


@pytest.mark.parametrize("compression", [None, "zlib", "zstd", "lzw"])
@pytest.mark.parametrize("side", [10**6, 2**31 - 1])
def test_a_tiff_of_a_million_million_pixels_asks_for_no_memory(
    compression: str | None, side: int, tmp_path: Path
) -> None:
    path = tiff(tmp_path / "image.tif", compression=compression, rowsperstrip=24)
    for code in (WIDTH, LENGTH, STRIP_ROWS):
        with_tag(path, code, side)
    refused(path)


def test_a_tiff_with_fewer_strips_than_rows_is_cut_short(tmp_path: Path) -> None:
    path = tiff(tmp_path / "image.tif", rowsperstrip=8)
    refused(with_tag(path, LENGTH, 240), "missing|cut short")


def test_pages_that_lead_back_to_an_earlier_page_do_not_go_on_for_ever(tmp_path: Path) -> None:
    path = tiff(
        tmp_path / "image.tif", np.stack([PIXELS] * 3), photometric="minisblack", metadata=None
    )
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0].offset, file.pages[2]
        place = last.offset + 2 + 12 * len(last.tags)
    content = bytearray(path.read_bytes())
    content[place : place + 4] = struct.pack("<I", first)
    path.write_bytes(content)
    refused(path, "lead back")


def test_a_ring_of_pages_that_is_longer_than_tifffile_looks(tmp_path: Path) -> None:
    path = tmp_path / "ring.tif"
    pages = [
        8 + 6 * number for number in range(150)
    ]  # without an entry: two bytes of count, four of the next
    path.write_bytes(
        b"II*\x00"
        + struct.pack("<I", 8)
        + b"".join(struct.pack("<HI", 0, following) for following in [*pages[1:], pages[3]])
    )
    refused(path)


@pytest.mark.parametrize(
    ("said", "lie"),
    [
        ('SizeT="2"', 'SizeT="2000000000"'),
        ('SizeX="20"', 'SizeX="20000000000000"'),
        ('PlaneCount="2"', 'PlaneCount="9000000000"'),
    ],
)
def test_ome_planes_without_end_are_not_counted_out(said: str, lie: str, tmp_path: Path) -> None:
    path = tiff(
        tmp_path / "image.ome.tif", np.stack([PIXELS] * 2), ome=True, metadata={"axes": "TYX"}
    )
    with tifffile.TiffFile(path) as file:
        xml = file.ome_metadata or ""
    assert said in xml
    refused(with_tag(path, DESCRIPTION, xml.replace(said, lie)), "promises")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.ome.tif",
        "/etc/secret.ome.tif",
        "C:\\secret.ome.tif",
        "\\\\host\\share\\secret.ome.tif",
    ],
)
def test_ome_companions_are_taken_from_the_same_folder_only(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = tiff(
        inside / "image.ome.tif", np.stack([PIXELS] * 2), ome=True, metadata={"axes": "TYX"}
    )
    with tifffile.TiffFile(path) as file:
        xml = file.ome_metadata or ""
    elsewhere = f'<UUID FileName="{name}">urn:uuid:2</UUID></TiffData>'
    head, tail = xml.split("<TiffData", 1)
    attributes = tail.split(">", 1)[0].rstrip("/")
    with_tag(path, DESCRIPTION, f"{head}<TiffData{attributes}>{elsewhere}</Pixels></Image></OME>")
    refused(path, "companion file in another folder")


def with_companion(folder: Path, name: str) -> Path:
    """An OME-TIFF whose second plane is in another file of its folder."""
    path = tiff(
        folder / "image.ome.tif", np.stack([PIXELS] * 2), ome=True, metadata={"axes": "TYX"}
    )
    with tifffile.TiffFile(path) as file:
        xml = file.ome_metadata or ""
    head, tail = xml.split("<TiffData", 1)
    planes = f"<TiffData{tail.split('>', 1)[0].rstrip('/')}>"
    uuid = f'<UUID FileName="{name}">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>'
    return with_tag(path, DESCRIPTION, head + planes + uuid)


@UNIX
@pytest.mark.parametrize("make", ENDLESS)
def test_a_companion_that_is_a_pipe_or_a_device_is_not_waited_for(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "second.ome.tif")
    refused(with_companion(tmp_path, "second.ome.tif"), "no file but a device or a pipe")
    make(tmp_path / "S_MMStack_1.ome.tif")
    with pytest.raises(ImageFileError, match="no file but a device or a pipe"):
        check_micromanager(micromanager(tmp_path), "S_MMStack.ome.tif")


def micromanager(folder: Path, **summary: object) -> Any:
    """What tifffile says of a stack of Micro-Manager of two planes."""
    index = np.array([[0, 0, 0, 0, 900], [0, 0, 1, 0, 1900]])
    return SimpleNamespace(
        is_micromanager=True,
        micromanager_metadata={"Summary": summary, "IndexMap": index},
        filehandle=SimpleNamespace(dirname=str(folder)),
    )


def test_planes_of_micro_manager_are_counted_before_they_are_listed(tmp_path: Path) -> None:
    check_micromanager(micromanager(tmp_path, Frames=1000, Slices="1000"), "image.tif")
    for counts in ({"Frames": 10**9}, {"Frames": 10**5, "Slices": 11}):
        with pytest.raises(ImageFileError, match="at most 1,000,000 are read"):
            check_micromanager(micromanager(tmp_path, **counts), "image.tif")


@pytest.mark.parametrize("piece", ["<a/>", 'a{n}="" '])
def test_xml_that_fills_the_memory_as_a_tree_is_not_parsed(piece: str) -> None:
    check_xml("".join(piece.format(n=n) for n in range(100)), "image")
    with pytest.raises(ImageFileError, match=r"at most .* are read"):
        check_xml(piece * (1 + max(LARGEST_XML.values())), "image")
    assert min(LARGEST_XML.values()) >= 10 * 100_000  # ten for each of so many planes


def test_entities_within_entities_are_not_unfolded(tmp_path: Path) -> None:
    laughs = "".join(
        f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "ha" * 100}">' for n in range(9)
    )
    xml = (
        f'<?xml version="1.0"?><!DOCTYPE OME [{laughs}]><OME '
        'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image Name="&e8;"/></OME>'
    )
    path = tiff(tmp_path / "image.ome.tif", description=xml, metadata=None)
    with frugal():
        assert outcome(lambda: read_image(path), (ImageFileError,)) in ("read", "ImageFileError")


def test_a_stack_of_many_planes_behind_one_page_is_no_lie(tmp_path: Path) -> None:
    stack = np.zeros((LARGEST_EXPANSION + 100, 128, 128), np.uint8)
    stack[:, 5, 5] = 9
    np.testing.assert_array_equal(
        read_image(tiff(tmp_path / "stack.tif", stack, imagej=True)).array, stack
    )


def test_a_dark_image_that_packs_well_is_no_lie(tmp_path: Path) -> None:
    dark = np.zeros((2048, 2048), np.uint16)
    dark[7, 9] = 1
    np.testing.assert_array_equal(
        read_image(tiff(tmp_path / "dark.tif", dark, compression="zstd")).array, dark
    )


@pytest.mark.parametrize("stored", [0, 1, 10**4, 5 * 10**5])
def test_what_deflate_can_do_is_allowed(stored: int) -> None:
    check_expansion(max(ALWAYS_ALLOWED_BYTES, 1032 * stored), stored, "image")


@pytest.mark.parametrize("stored", [0, 1, 10**4, 10**6, 10**7, 10**9])
def test_a_large_image_may_unpack_a_hundredfold_only(stored: int) -> None:
    most = largest_unpacked(stored)
    check_expansion(most, stored, "image")
    assert most <= max(ALWAYS_ALLOWED_BYTES, LARGEST_EXPANSION * stored)
    assert most <= max(LARGE_BYTES, 100 * stored)
    with pytest.raises(ImageFileError, match="promises"):
        check_expansion(most + 1, stored, "image")


LARGE = {
    "jpeg": (7000, 7000),
    "jpeg2000": (5000, 5000),
    "jpegxl": (12000, 12000),
    "jpegxr": (9000, 9000),
    "png": (12000, 12000),
    "webp": (7000, 7000, 3),
    "lerc": (12000, 12000),
}


@cache
def encoded(compression: str) -> bytes:
    """A large image of zeros, which takes hundreds of bytes and seconds."""
    encode = getattr(imagecodecs, {"jpeg2000": "jpeg2k"}.get(compression, compression) + "_encode")
    effort = {"effort": 1} if compression == "jpegxl" else {}
    return bytes(encode(np.zeros(LARGE[compression], np.uint8), **effort))


@pytest.mark.parametrize("lazily", [False, True])
@pytest.mark.parametrize("compression", LARGE)
def test_a_tile_that_is_a_larger_image_is_not_decoded(
    compression: str, lazily: bool, tmp_path: Path
) -> None:
    shape, packed = LARGE[compression], encoded(compression)
    small = np.random.default_rng(0).integers(0, 200, (64, 64, *shape[2:])).astype(np.uint8)
    path = tiff(tmp_path / "image.tif", small, compression=compression, tile=(64, 64))
    (open_image if lazily else read_image)(path)  # an honest one is read
    with tifffile.TiffFile(path, mode="r+") as file, path.open("ab") as end:
        tags, place = file.pages.first.tags, end.tell()
        end.write(packed)
        tags[324].overwrite(place)
        tags[325].overwrite(len(packed), dtype="I")
    refused(path, "one of its tiles is an image of")


def mrc(path: Path) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(PIXELS)
    return path


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 10**6), (4, 2**31 - 1), (8, 10**6), (92, 2**31 - 1), (92, -1), (92, 960), (0, -24)],
)
def test_an_mrc_header_that_lies_asks_for_no_memory(place: int, value: int, tmp_path: Path) -> None:
    path = mrc(tmp_path / "image.mrc")
    content = bytearray(path.read_bytes())
    struct.pack_into("<i", content, place, value)
    path.write_bytes(content)
    refused(path, "MRC")


@pytest.mark.parametrize("magic", [b"\x1f\x8b", b"BZ"])
def test_a_packed_mrc_is_not_unpacked(magic: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image.mrc"
    path.write_bytes(magic + bytes(2000))
    refused(path, "MRC|empty")


@pytest.mark.parametrize("shape", [(10**6, 10**6), (2**40,), (1, 2**62, 2), (-1, -(2**40))])
def test_an_npy_header_that_lies_asks_for_no_memory(shape: tuple[int, ...], tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<u2", "fortran_order": False, "shape": shape}
    )
    path = tmp_path / "image.npy"
    path.write_bytes(stream.getvalue() + bytes(960))
    refused(path, "NPY")


def test_an_npy_with_a_header_of_two_gigabytes_asks_for_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "image.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{" * 900)
    refused(path, "NPY")


@UNIX
@pytest.mark.parametrize("make", ENDLESS)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("image.tif", read_image),
        ("image.tif", open_image),
        ("image.npy", read_image),
        ("image.mrc", open_image),
        ("psf.tif", read_psf),
        ("card.json", read_bounded),
        ("recipe.toml", read_recipe),
    ],
)
def test_a_pipe_or_a_device_is_not_waited_for(
    name: str, read: Callable[[Path], object], make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(ValueError, match=r"no file but|no regular file"):
        read(tmp_path / name)


@pytest.mark.parametrize("depth", [DEEPEST + 1, 900, 100_000])
def test_brackets_within_brackets_are_refused_in_words(depth: int, tmp_path: Path) -> None:
    deep = "[" * depth + "]" * depth
    with pytest.raises(ValueError, match="nested"):
        parse_json_object(f'{{"a": {deep}}}')
    (tmp_path / PROVENANCE).write_text(f'{{"versions": {deep}}}')
    with pytest.raises(ImageFileError):
        read_result_folder(tmp_path)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"a = {deep}")
    with pytest.raises(RequestError, match=r"nested|recursion|larger"):
        read_recipe(recipe)


@pytest.mark.parametrize("versions", [True, 1, None, "napari-cvdm", ["napari-cvdm"]])
def test_a_record_of_another_program_is_no_result(versions: object, tmp_path: Path) -> None:
    (tmp_path / PROVENANCE).write_text(json.dumps({"versions": versions}))
    assert not is_result_folder(tmp_path)


def test_what_this_program_writes_is_nested_far_less() -> None:
    record = {"a": [{"b": [1, {"c": 2}]}], "d": None}
    assert parse_json_object(json.dumps(record)) == record


def test_a_larger_file_than_agreed_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(b" " * 1000)
    assert len(read_bounded(path, 1000)) == 1000
    with pytest.raises(ValueError, match="larger"):
        read_bounded(path, 999)


@pytest.mark.parametrize(
    "entry",
    [
        "network = 5",
        'network = "wide"',
        "plan = [1]",
        'plan = "line\\nbreak"',
        '[plan]\n"line\\nbreak" = 1',
        "simulation = 1",
        "start = true",
        'clean = "x"',
        "validation = 0.5",
    ],
)
def test_a_recipe_with_a_word_for_a_section_is_refused(entry: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f'task = "widefield-x2"\n{entry}\n')
    with pytest.raises(RequestError, match=r"recipe\.toml") as refusal:
        read_recipe(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00", b"\x80\x04pickle"]
)
def test_damaged_arrays_for_training_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pairs.npz"
    path.write_bytes(content)
    with pytest.raises(RequestError, match="cannot be read"):
        Arrays(x=str(path), y=str(path)).entries("phase-2shot")


def npz(path: Path, head: bytes, zeros: int, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """An array x, with a header of one's own and zeros behind it."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", head + bytes(zeros))
    return path


def npy_head(*shape: int) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


READERS = (load_training_field, load_field, lambda path: Arrays(x=path, y=path).entries("denoise"))


@pytest.mark.parametrize(
    ("shape", "zeros", "method", "words"),
    [
        ((1, 2**30, 1, 1), 40 << 20, zipfile.ZIP_DEFLATED, "promises"),
        ((1, 600 << 20, 1, 1), 600 << 20, zipfile.ZIP_DEFLATED, "would unpack to"),
        ((2**40, 2**40, 2**40, 1), 9, zipfile.ZIP_STORED, "promises"),
        ((1, 9, 1, 1), 9, zipfile.ZIP_BZIP2, "packed as"),
        ((1, 9, 1, 1), 9, zipfile.ZIP_LZMA, "packed as"),
    ],
)
def test_arrays_of_an_npz_are_bounded_before_they_are_unpacked(
    shape: tuple[int, ...], zeros: int, method: int, words: str, tmp_path: Path
) -> None:
    path = npz(tmp_path / "x.npz", npy_head(*shape), zeros, method)
    for read in READERS:
        with frugal(), pytest.raises(ValueError, match=words) as refusal:
            read(str(path))
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("read", [*READERS, lambda path: add_model(path, f"{path}.mine")])
def test_a_list_of_members_without_end_is_not_read(
    read: Callable[[str], object], tmp_path: Path
) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(2500):
            archive.writestr(f"{number}.npy", b"")
    with pytest.raises(ValueError, match="its list of members has"):
        read(str(path))


@UNIX
@pytest.mark.parametrize("make", ENDLESS)
def test_the_state_of_a_training_is_a_regular_file(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / STATE)
    with pytest.raises(RequestError, match="no regular file"):
        load_state(tmp_path, "0")


def test_an_npz_unpacks_no_further_than_it_declares(tmp_path: Path) -> None:
    zeros, head = 300 << 20, npy_head(1, 9, 1, 1)
    path = npz(tmp_path / "x.npz", head, zeros)
    size = struct.Struct("<I").pack
    path.write_bytes(path.read_bytes().replace(size(len(head) + zeros), size(len(head) + 9)))
    with frugal(), pytest.raises(ImageFileError, match="cannot be read"), open_arrays(path) as kept:
        assert kept["x"].size <= 9
        raise ValueError("read")


@UNIX
@pytest.mark.parametrize("make", ENDLESS)
@pytest.mark.parametrize("read", READERS)
def test_an_npz_that_is_a_pipe_or_a_device_is_not_waited_for(
    read: Callable[[str], object], make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="no regular file"):
        read(str(tmp_path / "x.npz"))


@pytest.mark.parametrize("key", ["a." * 40_000 + "a=1", "[" + "a." * 400 + "a]\na=1"])
def test_a_key_of_many_parts_does_not_stop_the_reader_of_recipes(key: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(key)
    with pytest.raises(RequestError, match="more than 200 dots"):
        read_recipe(tmp_path / "recipe.toml")


def test_a_large_recipe_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("#" * 100_001)
    with pytest.raises(RequestError, match="larger than 100,000 bytes"):
        read_recipe(tmp_path / "recipe.toml")


@UNIX
@pytest.mark.parametrize("make", [*ENDLESS, lambda path: path.write_text("[" * 10**5)])
def test_the_record_of_solved_fields_is_read_as_other_records(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    make(tmp_path / RECORD)
    with pytest.raises(ValueError, match=r"no regular file|nested too deep"):
        next(solve_missing(tmp_path, PhaseRanges(), 0, range(1)))


def test_the_watch_sees_what_it_is_for(tmp_path: Path) -> None:
    """Planted faults: without them, a run without an escape would say nothing."""
    inside = tmp_path / "inside"
    inside.mkdir()
    with confined(inside):
        (inside / "mine").write_text("allowed")
    for wrong in (
        (tmp_path / "out").touch,
        (tmp_path / "folder").mkdir,
        lambda: os.system(""),
        lambda: (inside / ".." / "x").write_text(""),
    ):
        with pytest.raises(Escape, match="outside its folder"), confined(inside):
            wrong()
    with pytest.raises(Escape, match="memory"), frugal(1 << 20):
        bytes(2 << 20)
    for act in (
        lambda: 1 / 0,
        lambda: (_ for _ in ()).throw(ImageFileError("two\nlines")),
        lambda: (_ for _ in ()).throw(ImageFileError("")),
    ):
        with pytest.raises(Escape):
            outcome(act, (ImageFileError,))
    assert outcome(lambda: sys.version, ()) == "read"
