"""TIFF in its dialects, read through tifffile: OME, ImageJ, those of microscope makers, plain."""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from threading import get_ident
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import tifffile

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io.axes import measured_values, ordered_axes, usable_dtype
from napari_cvdm.io.errors import (
    ImageFileError,
    choose_series,
    import_zarr,
    incomplete_error,
    one_line,
)
from napari_cvdm.io.limits import (
    check_chain,
    check_expansion,
    check_micromanager,
    check_ome,
    check_segments,
    check_xml,
    fill_byte_counts,
    parse_json_object,
)
from napari_cvdm.io.metadata import (
    MAKERS,
    find_maker,
    maker_stated,
    metamorph_axis,
    read_imagej,
    read_ome,
    tiff_stated,
)

PIECE_PX = 1024  # side of the pieces in which a memory-mapped image is read
_FIRST_PRIVATE_TAG = 32768  # tags from here on are those of programs
_TAG = re.compile(r"<tifffile\.TiffTag (\d+) ")
_LARGEST_COMPANION = 1 << 26  # bytes of an XML file
# What tifffile says of ImageJ's header where the file has other pages; each page was looked at.
_OTHER_COUNT = "ImageJ series metadata invalid"
# Kinds of series that tifffile makes of pages alone, or by its own header.
_PLAIN = ("generic", "uniform", "shaped")
_PLANES_TAG = 33629  # of a MetaMorph stack
_POSITIONS = "MPR"  # tifffile's letters for places of the stage
_OME_ROOT = re.compile(r"<(\w{1,40}:)?OME[\s>]")  # its namespace may have a prefix
# What is read without them is compared with the file.
_NO_BYTE_COUNTS = re.compile("missing data ByteCounts tag|incorrect StripByteCounts count")


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What tifffile logs as an error: it goes on with fewer pages where it should stop."""
    messages: list[str] = []
    thread, logger = get_ident(), logging.getLogger("tifffile")

    def keep(record: logging.LogRecord) -> bool:
        if record.thread == thread:  # others read other files meanwhile
            messages.append(record.getMessage())
        return False

    handler = logging.Handler(logging.ERROR)
    handler.addFilter(keep)
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ome:
    """OME-XML of a file or of the companion that it names, and what is wrong with it."""

    root: Element | None = None
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def image_of(self, image: "_TiffImage") -> int | None:
        """Number of the XML's image that a series is, from 0; None where that is not clear.

        tifffile leaves out images without pages, so the numbers of its series may be others.
        """
        images = [] if self.root is None else self.root.findall("{*}Image")
        if not images:
            return None
        file = Path(image.page.parent.filename).name
        named = [
            number
            for number, one in enumerate(images)
            if any(uuid.get("FileName") == file for uuid in one.iterfind(".//{*}UUID"))
        ]
        if len(named) == 1:
            return named[0]
        parent: Any = image.series[0].parent
        if len(images) in (1, len(parent.series)) or image.series[0].kind in _PLAIN:
            return min(image.number, len(images) - 1)
        alike = [n for n, one in enumerate(images) if one.get("Name") == image.series[0].name]
        return alike[0] if len(alike) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _TiffImage:
    """One image of a file: its series, or several equal ones as a stack."""

    series: tuple[tifffile.TiffPageSeries, ...]
    axes: str  # of the pixels that are taken
    shape: tuple[int, ...]  # of all pixels of the series
    number: int  # of the image in the file, or of the stage position, from 0
    taken: tuple[Any, ...]  # index into all pixels
    is_position: bool = False

    @property
    def page(self) -> Any:
        """The first page that is there."""
        return next(page for one in self.series for page in one.pages if page is not None)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that has pixels of the image."""
        there = (page for page in self.pages().ravel() if page is not None)
        return tuple(dict.fromkeys(page.parent.filehandle.path for page in there))

    @property
    def leading(self) -> int:
        """How many axes lie before those of a page."""
        count = sum(len(one.pages) for one in self.series)
        return next(
            (place for place in range(len(self.shape)) if prod(self.shape[:place]) >= count), 0
        )

    def pages(self) -> np.ndarray:
        """Pages that are taken, an array; one page may stand for contiguous pixels."""
        every = [page for one in self.series for page in one.pages]
        table = np.empty(len(every), dtype=object)
        table[:] = every
        return table.reshape(self.shape[: self.leading])[(*self.taken[: self.leading], ...)]

    def pixels(self, path: Path, lazily: bool, opened_as: Mapping[str, Any]) -> Any:
        """All that is taken."""
        if lazily:
            import dask.array as da  # half a second that only this needs

            parts = [_lazy_pixels(path, one, opened_as) for one in self.series]
            stacked = parts[0] if len(parts) == 1 else da.stack(parts)
        else:
            arrays = [_whole_pixels(one) for one in self.series]
            stacked = arrays[0] if len(arrays) == 1 else np.stack(arrays)
        return stacked.reshape(self.shape)[self.taken]


def read_tiff(
    path: Path, *, lazily: bool = False, series: int | None = None, alone: bool = False
) -> ImageStack:
    """Read one image of a TIFF file.

    It is read at full resolution, with pixel size and optics where the file says them. `lazily`
    gives a dask array whose pixels are read on demand: memory-mapped if they are contiguous, else
    tile by tile. `series` and `alone` are those of `read_image`.

    Raises ImageFileError where the file is no TIFF, is cut short, has no such series, has pages
    that cannot be read, or pixels that are no measured values.
    """
    source = path.name
    try:
        # Distances between planes may be 0 / 0 in a header.
        with (
            np.errstate(all="ignore"),
            _complaints() as complaints,
            _opened(path, alone) as (tiff, ome, opened_as),
        ):
            image, listed = _choose_image(tiff, series, source)
            # Last: the position that a file was written for goes before a number in its XML.
            image = _own_position(_with_ome_axes(image, ome), tiff)
            image, missing = _written_frames(image, source)
            noticed = [*ome.warnings, *listed, *missing]
            noticed += _check_complete(tiff, image, complaints)
            pixels, axes, meaning = measured_values(
                image.pixels(path, lazily, opened_as),
                image.axes,
                image.page,
                read_imagej(tiff),
                source,
            )
            array, axes = ordered_axes(usable_dtype(pixels, source), axes, source)
            number = image.number if image.is_position else ome.image_of(image)
            stated = tiff_stated(tiff, image.page, ome.root, number, source)
            if image.is_position:
                place = {**stated.place, "position": float(image.number)}
                stated = replace(stated, place=place)
            noticed += [*meaning, *stated.warnings]
            warnings = tuple(f"{source}: {sentence}" for sentence in noticed)
            files = (str(path), *ome.files, *image.files)
            return ImageStack(
                array=array,
                axes=axes,
                source=source,
                files=tuple(dict.fromkeys(os.path.realpath(file) for file in files)),
                **replace(stated, warnings=warnings).for_stack(),
            )
    except ImageFileError:
        raise
    except Exception as error:  # tifffile lets through whatever a damaged file makes happen
        raise ImageFileError(
            f"{source}: its compression needs a further package ({one_line(error)}): pip install "
            "imagecodecs, or save the file uncompressed."
            if "imagecodecs" in str(error)
            else f"{source}: cannot be read as TIFF, it may be cut short ({one_line(error)}). Copy "
            "it again, or save it again from Fiji."
        ) from error


def read_annotation(path: Path, key: str) -> dict[str, Any]:
    """A JSON object in the map annotation of an OME-TIFF; empty where there is none."""
    try:
        # The XML is that of the first page, so the others are not looked at.
        with _complaints(), tifffile.TiffFile(path, is_ndtiff=False) as tiff:
            root = _read_ome(tiff, path).root
        entries = [] if root is None else root.iterfind(".//{*}MapAnnotation//{*}M")
        found = next((entry.text for entry in entries if entry.get("K") == key), None)
        return parse_json_object(found) if found else {}
    except Exception:  # who reads the pixels says what is wrong with the file
        return {}


@contextmanager
def _opened(path: Path, alone: bool) -> Iterator[tuple[tifffile.TiffFile, _Ome, Mapping[str, Any]]]:
    """The file, its OME-XML, and how it was opened: without the XML where that is not sound."""
    # The index of an NDTiff names files in any folder, and any number of planes.
    opened_as: dict[str, Any] = {"is_ndtiff": False}
    if alone:
        opened_as["_multifile"] = False
    with tifffile.TiffFile(path, **opened_as) as tiff:
        # Before tifffile counts the pages: it would not come back, or fill the memory.
        check_chain(tiff, path.name)
        check_micromanager(tiff, path.name)
        fill_byte_counts(tiff)
        ome = _read_ome(tiff, path)
        if ome.root is not None and not ome.warnings:
            ome = replace(ome, warnings=_useless_counts(tiff, ome.root))
        unread = _unread_kind(tiff)
        unsound = bool(ome.warnings or ome.files)
        if not unsound and not unread:
            yield tiff, ome, opened_as
            return
    if unread:
        sentence = f"its {MAKERS[unread]} header cannot be read, so what it states is not known."
        ome = replace(ome, warnings=(*ome.warnings, sentence))
        opened_as[f"is_{unread}"] = False
    if unsound:
        opened_as["is_ome"] = False
    with tifffile.TiffFile(path, **opened_as) as tiff:
        fill_byte_counts(tiff)
        yield tiff, ome, opened_as


def _useless_counts(tiff: tifffile.TiffFile, root: Element) -> tuple[str, ...]:
    """A sentence where sizes or orders in OME-XML are none, so that pages are counted without."""
    try:
        for pixels in root.iterfind("{*}Image/{*}Pixels"):
            order = pixels.get("DimensionOrder", "XYCZT")
            if order[:2] != "XY" or sorted(order) != sorted("XYCZT"):
                raise ValueError(f"DimensionOrder {order:.20}")
        return () if tiff.series else ("its OME-XML names no image.",)
    except Exception as error:  # tifffile lets through whatever such values make happen
        return (f"its OME-XML does not say how its pages are ordered ({one_line(error)}).",)


def _unread_kind(tiff: tifffile.TiffFile) -> str:
    """The maker whose tags cannot be read; "" where all can.

    Raises ImageFileError for MetaMorph: without its tags nobody knows how many planes there are.
    """
    kind = find_maker(tiff)
    try:
        if kind:
            if kind == "stk" and _PLANES_TAG not in tiff.pages.first.tags:
                raise ValueError(f"tag {_PLANES_TAG} is missing or leads out of the file")
            maker_stated(kind, getattr(tiff, f"{kind}_metadata"), "")
            # tifffile looks for the images then, by what the tags say.
            if not tiff.series:
                raise ValueError("no image")
        return ""
    except Exception as error:  # tifffile lets through whatever damaged tags make happen
        if kind == "stk":
            raise ImageFileError(
                f"{Path(tiff.filename).name}: its MetaMorph tags are damaged, and only they tell "
                f"how many planes there are ({one_line(error)}). Copy it again, or save it as "
                "OME-TIFF from Fiji."
            ) from error
        return kind


def _read_ome(tiff: tifffile.TiffFile, path: Path) -> _Ome:
    """The OME-XML of a file; where it only names another file, the XML of that one."""
    description = tiff.pages.first.description
    if not tiff.is_ome and not _OME_ROOT.search(description):
        return _Ome()
    check_ome(tiff, path.name)
    root, warnings = read_ome(description)
    named = None if root is None else root.find("{*}BinaryOnly")
    if named is None:
        return _Ome(root=root, warnings=warnings)
    name = Path(named.get("MetadataFile", "")).name
    companion = path.with_name(name) if name else path
    if companion == path or not companion.is_file():
        return _Ome(
            warnings=(f"its metadata are in {name or 'another file'}, which is not beside it.",)
        )
    if companion.suffix.lower() in (".tif", ".tiff"):
        with tifffile.TiffFile(companion) as other:
            check_ome(other, companion.name)
            text = other.pages.first.description
    else:
        with companion.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_LARGEST_COMPANION)
        check_xml(text, companion.name)
    root, warnings = read_ome(text)
    return _Ome(root=root, warnings=warnings, files=(str(companion),))


def _choose_image(
    tiff: tifffile.TiffFile, wanted: int | None, source: str
) -> tuple[_TiffImage, list[str]]:
    """The image of that number, and a sentence where there are others.

    A reduced page is a preview of another image, and no image. Equal pages of a file that says
    nothing of them are one stack.
    """
    found = [
        (number, one)
        for number, one in enumerate(tiff.series)
        if not getattr(one.pages[0], "is_reduced", False)
    ] or list(enumerate(tiff.series))
    if len(found) == 1 and found[0][1].kind in MAKERS:
        return _image_of_maker(tiff, wanted, source)
    alike = {(one.shape, one.dtype, one.axes) for _, one in found}
    equal = len(found) > 1 and len(alike) == 1 and all(one.kind in _PLAIN for _, one in found)
    if equal and wanted is None:
        return _whole_image([one for _, one in found], 0), []
    names = [f"{one.axes} {' x '.join(map(str, one.shape))}" for _, one in found]
    place, others = choose_series(names, wanted, source)
    number, one = found[place]
    # Of Micro-Manager's stack, a file gives the position that it was written for.
    return _whole_image([one], number), [] if one.kind == "mmstack" else others


def _whole_image(series: Sequence[tifffile.TiffPageSeries], number: int) -> _TiffImage:
    """All pixels of a series, or of several equal ones along an axis without a meaning."""
    axes, shape = series[0].axes, tuple(series[0].shape)
    if len(series) > 1:
        axes, shape = f"Q{axes}", (len(series), *shape)
    taken = (slice(None),) * len(shape)
    return _TiffImage(series=tuple(series), axes=axes, shape=shape, number=number, taken=taken)


def _image_of_maker(
    tiff: tifffile.TiffFile, wanted: int | None, source: str
) -> tuple[_TiffImage, list[str]]:
    """The image of a maker's file, at one place of the stage, and sentences about it.

    A run that was stopped early promises more than it wrote.
    """
    one, noticed = _series_of(tiff, 0), []
    promised = tiff.series[0].shape
    if one.shape != promised:
        noticed.append(
            f"{one.shape[0]} of {promised[0]} frames along {one.axes[0]} were written; only these "
            "are used."
        )
    axes = one.axes
    if one.kind == "stk" and axes != one.keyframe.axes:
        axes = metamorph_axis(tiff.stk_metadata or {}) + axes[1:]
    # Each place of the stage is an image of its own.
    taken: list[Any] = [slice(None)] * len(one.shape)
    places = [place for place, letter in enumerate(one.axes) if letter in _POSITIONS]
    sizes = [one.shape[place] for place in places]
    chosen = 1 if wanted is None else wanted
    if not 1 <= chosen <= prod(sizes):
        raise ImageFileError(f"{source}: has no series {chosen}; there are 1 to {prod(sizes)}.")
    if wanted is None and prod(sizes) > 1:
        noticed.append(
            f"has {prod(sizes)} positions of the stage. 1 was read; choose with --series N."
        )
    for place, index in zip(places, np.unravel_index(chosen - 1, sizes or [1]), strict=False):
        taken[place] = int(index)
    return _TiffImage(
        series=(one,),
        axes="".join(letter for place, letter in enumerate(axes) if place not in places),
        shape=tuple(one.shape),
        number=chosen - 1,
        taken=tuple(taken),
        is_position=prod(sizes) > 1,
    ), noticed


def _series_of(tiff: tifffile.TiffFile, number: int) -> tifffile.TiffPageSeries:
    """A series; of a maker's file only the frames along its first axis that are whole."""
    one = tiff.series[number]
    shape, pages = one.shape, list(one.pages)
    within = prod(shape[1:]) // max(1, one.keyframe.size)
    whole = len(pages) // max(1, within)
    # One page stands for all planes of a MetaMorph file.
    if one.kind not in MAKERS or one.kind == "stk" or not within or not 0 < whole < shape[0]:
        return one
    return tifffile.TiffPageSeries(
        pages[: whole * within], (whole, *shape[1:]), one.dtype, one.axes, kind=one.kind
    )


def _with_ome_axes(image: _TiffImage, ome: _Ome) -> _TiffImage:
    """Pages that tifffile found no axes for, with those of the XML where the count agrees."""
    if ome.root is None or image.series[0].kind not in _PLAIN:
        return image
    number = ome.image_of(image)
    pixels = None if number is None else ome.root.findall("{*}Image")[number].find("{*}Pixels")
    if number is None or pixels is None:
        return image
    try:
        sizes = {letter: int(pixels.get(f"Size{letter}", "1")) for letter in "CTZ"}
    except ValueError:
        return replace(image, number=number)
    letters = pixels.get("DimensionOrder", "XYCZT")[:1:-1]
    pages, inner = image.shape[: image.leading], image.shape[image.leading :]
    if sorted(letters) != ["C", "T", "Z"] or prod(sizes.values()) != prod(pages):
        return replace(image, number=number)
    shape = (*(sizes[letter] for letter in letters), *inner)
    return replace(
        image,
        number=number,
        axes=letters + image.axes[image.leading :],
        shape=shape,
        taken=(slice(None),) * len(shape),
    )


def _own_position(image: _TiffImage, tiff: tifffile.TiffFile) -> _TiffImage:
    """Of a Micro-Manager acquisition, the stage position that this very file was written for."""
    index = (tiff.micromanager_metadata or {}).get("IndexMap") if tiff.is_micromanager else None
    if index is None or not len(index):
        return image
    number = int(index[0][3])
    if image.series[0].kind != "mmstack" or "R" not in image.axes:
        return replace(image, number=number, is_position=True)
    place = image.axes.index("R")
    taken = (*image.taken[:place], number, *image.taken[place + 1 :])
    axes = image.axes.replace("R", "")
    return replace(image, number=number, taken=taken, axes=axes, is_position=True)


def _written_frames(image: _TiffImage, source: str) -> tuple[_TiffImage, list[str]]:
    """Only the frames that are in the file, and how many of them there are.

    A run that was stopped early promises more than it wrote.
    """
    there = np.vectorize(_is_written, otypes=[bool])(image.pages())
    if there.all():
        return image, []
    whole = there.reshape(len(there), -1).all(axis=1) if there.ndim else there
    if not whole.any():
        raise incomplete_error(source)
    place = next(place for place, part in enumerate(image.taken) if isinstance(part, slice))
    taken = (*image.taken[:place], np.flatnonzero(whole), *image.taken[place + 1 :])
    return replace(image, taken=taken), [
        f"{int(whole.sum())} of {whole.size} frames along {image.axes[0]} were written; only these "
        "are used. Files that belong to it must be in the same folder."
    ]


def _is_written(page: Any) -> bool:
    return page is not None and page.dtype is not None and any(page.databytecounts)


def _mapped(series: tifffile.TiffPageSeries) -> np.memmap:
    """Contiguous pixels, where they lie in their file, which may be a companion."""
    page: Any = series.pages[0]
    stored = np.dtype(series.dtype).newbyteorder(page.parent.byteorder)
    start, shape = series.dataoffset or 0, tuple(series.shape)
    return np.memmap(page.parent.filehandle.path, stored, mode="r", offset=start, shape=shape)


def _whole_pixels(series: tifffile.TiffPageSeries) -> np.ndarray:
    """All pixels of a series. tifffile looks for contiguous ones in the file that it opened."""
    opened: Any = series.parent
    page: Any = series.pages[0]
    if series.dataoffset is None or page.parent.filehandle.name == opened.filehandle.name:
        return np.asarray(series.asarray())
    return np.array(_mapped(series))


def _lazy_pixels(path: Path, series: tifffile.TiffPageSeries, opened_as: Mapping[str, Any]) -> Any:
    import dask.array as da  # half a second that only this needs

    shape = tuple(series.shape)
    chunks = tuple(
        min(PIECE_PX, size) if letter in "YX" else 1
        for size, letter in zip(shape, series.axes, strict=True)
    )
    if series.transform is not None:  # stored numbers are not the values
        return da.from_array(np.asarray(series.asarray()), chunks=chunks)
    if series.dataoffset is None:
        parent: Any = series.parent
        listed = (place for place, one in enumerate(parent.series) if one is series)
        number = next(listed, 0)  # a maker's shortened one is the first
        tiles = _Tiles(path, shape, series.dtype, number, opened_as)
        return da.from_array(tiles, chunks=chunks, name=False)
    return da.from_array(_mapped(series), chunks=chunks, name=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Tiles:
    """Pixels of a compressed or tiled TIFF, read in parts; the file is open only during a read."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    number: int
    opened_as: Mapping[str, Any]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        with _complaints(), tifffile.TiffFile(self.path, **self.opened_as) as tiff:
            fill_byte_counts(tiff)
            store = _series_of(tiff, self.number).aszarr(level=0)
            return np.asarray(import_zarr(self.path).open_array(store, mode="r")[index])


def _check_complete(tiff: tifffile.TiffFile, image: _TiffImage, complaints: list[str]) -> list[str]:
    """Every byte of every page is there; sentences about tags that cannot be read."""
    source = Path(tiff.filename).name
    start = image.series[0].dataoffset
    if start is not None and start + image.series[0].nbytes > tiff.filehandle.size:
        raise incomplete_error(source)
    stored = check_segments(image.pages().ravel(), source)
    # Else the pixels were found to be there, one after another, behind a single page.
    if start is None:
        check_expansion(sum(one.nbytes for one in image.series), stored, source)
    # The chain of pages is followed to its end. An error there means that pages after this image
    # may be part of it.
    unnamed = _unnamed_pages(tiff, image, len(tiff.pages))
    tags = {text: _TAG.search(text) for text in complaints}
    private = [int(tag[1]) for tag in tags.values() if tag and int(tag[1]) >= _FIRST_PRIVATE_TAG]
    serious = [
        text
        for text, tag in tags.items()
        if (int(tag[1]) < _FIRST_PRIVATE_TAG if tag else not _NO_BYTE_COUNTS.search(text))
    ]
    promised = read_imagej(tiff).get("images")
    if len(serious) == 1 and _OTHER_COUNT in serious[0] and isinstance(promised, int):
        unnamed = [f"{len(tiff.pages)} of {promised} frames were written; only these are used."]
    elif serious:
        raise ImageFileError(
            f"{source}: the file is damaged or cut short ({one_line(serious[0])}). Copy it "
            "again, or save it again from Fiji."
        )
    return unnamed + [f"its private tag {tag} cannot be read." for tag in dict.fromkeys(private)]


def _unnamed_pages(tiff: tifffile.TiffFile, image: _TiffImage, pages: int) -> list[str]:
    """A sentence where a header names fewer pages of this kind than the file has."""
    named = sum(one.size // max(1, one.keyframe.size) for one in tiff.series)
    if image.series[0].kind not in ("ome", "imagej") or pages <= named:
        return []
    every = (tiff.pages.get(number, aspage=True) for number in range(pages))
    alike = sum(page.shape == image.page.shape for page in every)
    sentence = f"its header names {named} of {alike} pages; the others were not read."
    return [sentence] if alike > named else []
