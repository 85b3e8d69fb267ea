"""What a header promises, against what the file can hold: looked at before memory is asked for."""

from collections.abc import Iterator
from math import prod
from pathlib import PurePosixPath, PureWindowsPath
from typing import Literal
from xml.etree import ElementTree

import tifffile

from napari_cvdm.io.errors import ImageFileError

# Deflate packs at most 1032 bytes into one, LZW 1365. A small image may be only background, which
# newer methods pack further.
LARGEST_EXPANSION = 1400
ALWAYS_ALLOWED_BYTES = 16 << 20
LARGEST_PLANES = 1_000_000


def check_expansion(wanted: int, stored: int, source: str) -> None:
    """ImageFileError where so few bytes cannot unpack to an image so large.

    Parameters
    ----------
    wanted, stored : int
        Size of the image in memory, and of its packed pixels in the file [bytes].
    source : str
        Name for messages.
    """
    if wanted > max(ALWAYS_ALLOWED_BYTES, LARGEST_EXPANSION * stored):
        raise ImageFileError(
            f"{source}: its header promises {wanted:.4g} bytes of pixels, and it holds {stored:,}; "
            "it is damaged or cut short. Copy it again."
        )


def check_chain(tiff: tifffile.TiffFile, source: str) -> None:
    """Raise ImageFileError if the chain of pages is a loop, which tifffile would follow forever."""
    met: set[int] = set()
    for offset in _chain(tiff):
        if offset in met:
            raise ImageFileError(
                f"{source}: the file is damaged, its pages lead back to the one at byte {offset}. "
                "Copy it again, or save it again from Fiji."
            )
        met.add(offset)


def _chain(tiff: tifffile.TiffFile) -> Iterator[int]:
    """Offset of each page, as long as there is a next one.

    A page has a count, entries of one size, and the offset of the next (TIFF 6.0, section 2).
    """
    layout, file = tiff.tiff, tiff.filehandle
    order: Literal["little", "big"] = "little" if tiff.byteorder == "<" else "big"
    offset = tiff.pages.first.offset
    while offset:
        yield offset
        file.seek(offset)
        tags = int.from_bytes(file.read(layout.tagnosize), order)
        file.seek(min(offset + layout.tagnosize + tags * layout.tagsize, file.size))
        following = file.read(layout.offsetsize)
        offset = int.from_bytes(following, order) if len(following) == layout.offsetsize else 0
        offset = offset if offset < file.size else 0


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
        planes = max(
            _planes(element, page),
            _number(element, "PlaneCount"),
            _number(element, "NumPlanes"),
            _labels(element),
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


def _planes(element: ElementTree.Element, page: int) -> float:
    """Planes of the size of a page, of an element that says the lengths of axes."""
    return prod(_number(element, f"Size{letter}") for letter in "TCZYX") / page


def _labels(element: ElementTree.Element) -> float:
    """Length of an axis that is given by its start, end and step."""
    step = _number(element, "Step")
    return (_number(element, "End") - _number(element, "Start")) / step if step else 1.0
