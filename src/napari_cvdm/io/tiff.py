"""TIFF in its dialects, read through tifffile: OME, ImageJ, those of microscope makers, plain."""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil, prod
from pathlib import Path
from threading import get_ident
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import tifffile

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io.axes import measured_values, ordered_axes, usable_dtype
from napari_cvdm.io.errors import ImageFileError, import_zarr, one_line
from napari_cvdm.io.limits import (
    check_chain,
    check_expansion,
    check_image_segments,
    check_micromanager,
    check_ome,
    check_xml,
    parse_json_object,
)
from napari_cvdm.io.metadata import (
    MAKERS,
    Stated,
    maker_stated,
    metamorph_axis,
    micromanager_stated,
    ome_stated,
    read_ome,
    tags_stated,
)

PIECE_PX = 1024  # side of the pieces in which a memory-mapped image is read
_FIRST_PRIVATE_TAG = 32768
_TAG = re.compile(r"<tifffile\.TiffTag (\d+) ")
_LARGEST_COMPANION = 1 << 26  # bytes of an XML file
# What tifffile says of ImageJ's header where the file has other pages; each page was looked at.
_OTHER_COUNT = "ImageJ series metadata invalid"
_PLAIN = ("generic", "uniform", "shaped")
# Kinds of files with tags that nobody reads here.
_NOT_READ = frozenset(
    {"andor", "avs", "bif", "fei", "indica", "mdgel", "mediacy", "ndpi", "nih", "nuvu", "philips"}
    | {"qpi", "scanimage", "scn", "sem", "streak", "svs", "tvips", "vista"}
)
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
        if record.thread == thread:
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
            return min(image.number, len(images) - 1) if images else None
        alike = [n for n, one in enumerate(images) if one.get("Name") == image.series[0].name]
        return alike[0] if len(alike) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _TiffImage:
    """One image of a file: its series, or several equal ones as a stack.

    Parameters
    ----------
    series : tuple of TiffPageSeries
    axes, shape
        Of all pixels.
    number : int
        Of the image in the file, from 0.
    taken : tuple
        Index into the pixels: what of them is this image.
    opened_as : mapping
        How the file was opened.
    is_position : bool
        Whether the number is that of a stage position.
    """

    series: tuple[tifffile.TiffPageSeries, ...]
    axes: str
    shape: tuple[int, ...]
    number: int
    taken: tuple[Any, ...]
    opened_as: Mapping[str, Any]
    is_position: bool = False

    @property
    def page(self) -> Any:
        """The first page that is there."""
        return next(page for one in self.series for page in one.pages if page is not None)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that has pixels of the image."""
        parents = (page.parent.filehandle for page in self.pages().ravel() if page is not None)
        return tuple(dict.fromkeys(str(Path(one.dirname) / one.name) for one in parents))

    @property
    def leading(self) -> int:
        """How many axes lie before those of a page."""
        count = self._pages_count
        return next(
            (place for place in range(len(self.shape)) if prod(self.shape[:place]) >= count), 0
        )

    @property
    def _pages_count(self) -> int:
        return sum(len(one.pages) for one in self.series)

    def pages(self) -> np.ndarray:
        """Pages that are taken, an array; one page may stand for contiguous pixels."""
        table = np.empty(self._pages_count, dtype=object)
        table[:] = [page for one in self.series for page in one.pages]
        return table.reshape(self.shape[: self.leading])[(*self.taken[: self.leading], ...)]

    def pixels(self, path: Path, lazily: bool) -> Any:
        """All that is taken."""
        if lazily:
            import dask.array as da  # half a second that only this needs

            parts = [_lazy_pixels(path, one, self.opened_as) for one in self.series]
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
    tile by tile.

    Parameters
    ----------
    series : int, optional
        Which of several images, counted from 1. Without it, the first one is read, and a warning
        lists them.
    alone : bool
        Whether only pages of this very file are read, though it may name companions.

    Raises
    ------
    ImageFileError
        The file is no TIFF, is cut short, has no such series, has pages that cannot be read, or
        pixels that are no measured values.
    """
    source = path.name
    try:
        # Distances between planes may be 0 / 0 in a header.
        with (
            np.errstate(all="ignore"),
            _complaints() as complaints,
            _opened(path, alone) as (tiff, ome, opened_as),
        ):
            check_chain(tiff, source)
            check_micromanager(tiff, source)
            image, listed = _choose_image(tiff, series, opened_as, source)
            image = _own_position(_with_ome_axes(image, ome), tiff)
            image, missing = _written_frames(image, source)
            noticed = [*ome.warnings, *listed, *missing]
            noticed += _check_complete(tiff, image, complaints)
            pixels, axes, meaning = measured_values(
                image.pixels(path, lazily), image.axes, image.page, _imagej(tiff), source
            )
            array, axes = ordered_axes(usable_dtype(pixels, source), axes, source)
            stated = _stated(tiff, ome, image, source)
            noticed += [*meaning, *stated.warnings]
            return ImageStack(
                array=array,
                axes=axes,
                source=source,
                files=tuple(
                    dict.fromkeys(
                        os.path.realpath(str(file)) for file in (path, *ome.files, *image.files)
                    )
                ),
                **replace(
                    stated, warnings=tuple(f"{source}: {sentence}" for sentence in noticed)
                ).for_stack(),
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
        with _complaints(), _opened(path, True) as (_, ome, _):
            entries = [] if ome.root is None else ome.root.iterfind(".//{*}MapAnnotation//{*}M")
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
    ome = _Ome()
    with tifffile.TiffFile(path, **opened_as) as tiff:
        _fill_byte_counts(tiff)
        description = tiff.pages.first.description
        if tiff.is_ome or _OME_ROOT.search(description):
            check_ome(tiff, path.name)
            ome = _read_ome(description, path)
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
        _fill_byte_counts(tiff)
        yield tiff, ome, opened_as


def _useless_counts(tiff: tifffile.TiffFile, root: Element) -> tuple[str, ...]:
    """A sentence where sizes or orders in OME-XML are none, so that pages are counted without."""
    try:
        for pixels in root.iterfind("{*}Image/{*}Pixels"):
            order = pixels.get("DimensionOrder", "XYCZT")
            if order[:2] != "XY" or sorted(order) != sorted("XYCZT"):
                raise ValueError(f"DimensionOrder {order:.20}")
        check_chain(tiff, tiff.filename)
        check_micromanager(tiff, tiff.filename)
        return () if tiff.series else ("its OME-XML names no image.",)
    except ImageFileError:
        raise
    except Exception as error:  # tifffile lets through whatever such values make happen
        return (f"its OME-XML does not say how its pages are ordered ({one_line(error)}).",)


def _kind_of_maker(tiff: tifffile.TiffFile) -> str:
    """Whose private tags a file has, of `MAKERS`; "" for nobody's."""
    return next((kind for kind in MAKERS if getattr(tiff, f"is_{kind}")), "")


def _unread_kind(tiff: tifffile.TiffFile) -> str:
    """The maker whose tags cannot be read; "" where all can.

    Raises
    ------
    ImageFileError
        Tags of MetaMorph: without them nobody knows how many planes there are.
    """
    kind = _kind_of_maker(tiff)
    try:
        if kind:
            check_chain(tiff, tiff.filename)
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


def _fill_byte_counts(tiff: tifffile.TiffFile) -> None:
    """Put in the sizes of strips where a program left them out, or wrote 0 or too much."""
    if _strip_sizes(tiff.pages.first, tiff.filehandle.size) is None:
        return
    check_chain(tiff, tiff.filename)
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


def _read_ome(xml: str, path: Path) -> _Ome:
    """The OME-XML of a file; where it only names another file, the XML of that one."""
    root, warnings = read_ome(xml)
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
        with tifffile.TiffFile(companion) as tiff:
            check_ome(tiff, companion.name)
            text = tiff.pages.first.description
    else:
        with companion.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_LARGEST_COMPANION)
        check_xml(text, companion.name)
    root, warnings = read_ome(text)
    return _Ome(root=root, warnings=warnings, files=(str(companion),))


def _choose_image(
    tiff: tifffile.TiffFile, wanted: int | None, opened_as: Mapping[str, Any], source: str
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
        return _image_of_maker(tiff, wanted, opened_as, source)
    alike = {(one.shape, one.dtype, one.axes) for _, one in found}
    equal = len(found) > 1 and len(alike) == 1 and all(one.kind in _PLAIN for _, one in found)
    if equal and wanted is None:
        series = tuple(one for _, one in found)
        shape = (len(series), *series[0].shape)
        return _TiffImage(
            series=series,
            axes="Q" + series[0].axes,
            shape=shape,
            number=0,
            taken=(slice(None),) * len(shape),
            opened_as=opened_as,
        ), []
    chosen = 1 if wanted is None else wanted
    listed = ", ".join(
        f"{place} ({one.axes} {' x '.join(map(str, one.shape))})"
        for place, (_, one) in enumerate(found, start=1)
    )
    if not 1 <= chosen <= len(found):
        raise ImageFileError(f"{source}: has no series {chosen}; there are {listed}.")
    number, one = found[chosen - 1]
    several = wanted is None and len(found) > 1 and one.kind != "mmstack"
    return _TiffImage(
        series=(one,),
        axes=one.axes,
        shape=tuple(one.shape),
        number=number,
        taken=(slice(None),) * len(one.shape),
        opened_as=opened_as,
    ), [f"has several images: {listed}. 1 was read; choose with --series N."] if several else []


def _image_of_maker(
    tiff: tifffile.TiffFile, wanted: int | None, opened_as: Mapping[str, Any], source: str
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
        opened_as=opened_as,
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
        raise ImageFileError(
            f"{source}: the file is cut short or has missing pages. Copy it again; companion files "
            "belong in the same folder."
        )
    place = next(place for place, part in enumerate(image.taken) if isinstance(part, slice))
    taken = (*image.taken[:place], np.flatnonzero(whole), *image.taken[place + 1 :])
    return replace(image, taken=taken), [
        f"{int(whole.sum())} of {whole.size} frames along {image.axes[0]} were written; only these "
        "are used. Files that belong to it must be in the same folder."
    ]


def _is_written(page: Any) -> bool:
    return page is not None and page.dtype is not None and any(page.databytecounts)


def _file_of(series: tifffile.TiffPageSeries) -> Path:
    """The file that holds the pages of a series, which may be a companion."""
    handle = next(page for page in series.pages if page is not None).parent.filehandle
    return Path(handle.dirname) / handle.name


def _mapped(series: tifffile.TiffPageSeries) -> np.memmap:
    """Contiguous pixels, where they lie in their file."""
    page: Any = series.pages[0]
    stored = np.dtype(series.dtype).newbyteorder(page.parent.byteorder)
    shape = tuple(series.shape)
    return np.memmap(_file_of(series), stored, mode="r", offset=series.dataoffset or 0, shape=shape)


def _whole_pixels(series: tifffile.TiffPageSeries) -> np.ndarray:
    """All pixels of a series. tifffile looks for contiguous ones in the file that it opened."""
    parent: Any = series.parent
    if series.dataoffset is None or _file_of(series).name == parent.filehandle.name:
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


class _Tiles:
    """Pixels of a compressed or tiled TIFF, read in parts; the file is open only during a read."""

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        dtype: Any,
        number: int,
        opened_as: Mapping[str, Any],
    ) -> None:
        self.path, self.shape, self.dtype, self.ndim = path, shape, np.dtype(dtype), len(shape)
        self.number, self.opened_as = number, dict(opened_as)

    def __getitem__(self, index: Any) -> np.ndarray:
        with _complaints(), tifffile.TiffFile(self.path, **self.opened_as) as tiff:
            _fill_byte_counts(tiff)
            store = _series_of(tiff, self.number).aszarr(level=0)
            return np.asarray(import_zarr(self.path).open_array(store, mode="r")[index])


def _check_complete(tiff: tifffile.TiffFile, image: _TiffImage, complaints: list[str]) -> list[str]:
    """Every byte of every page is there; sentences about tags that cannot be read."""
    source = Path(tiff.filename).name
    incomplete = ImageFileError(
        f"{source}: the file is cut short or has missing pages. Copy it again; companion files "
        "belong in the same folder."
    )
    start = image.series[0].dataoffset
    if start is not None and start + image.series[0].nbytes > tiff.filehandle.size:
        raise incomplete
    # By where it lies: the same bytes, named twice, are no more bytes.
    stored: dict[tuple[str, int], int] = {}
    for page in image.pages().ravel():
        file = page.parent.filehandle
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        if len(segments) < max(1, prod(page.chunked)) or any(
            count <= 0 or offset + count > file.size for offset, count in segments
        ):
            raise incomplete
        largest = max(count for _, count in segments)
        check_expansion(prod(page.chunks) * page.dtype.itemsize, largest, source)
        check_image_segments(page, source)
        stored.update(((file.name, offset), count) for offset, count in segments)
    # Else the pixels were found to be there, one after another, behind a single page.
    if start is None:
        check_expansion(sum(one.nbytes for one in image.series), sum(stored.values()), source)
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
    promised = _imagej(tiff).get("images")
    if serious and len(serious) == 1 and _OTHER_COUNT in serious[0] and isinstance(promised, int):
        serious = []
        unnamed = [f"{len(tiff.pages)} of {promised} frames were written; only these are used."]
    if serious:
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
    return (
        [f"its header names {named} of {alike} pages; the others were not read."]
        if alike > named
        else []
    )


def _imagej(tiff: tifffile.TiffFile) -> Mapping[str, Any]:
    return (tiff.imagej_metadata or {}) if tiff.is_imagej else {}


def _stated(tiff: tifffile.TiffFile, ome: _Ome, image: _TiffImage, source: str) -> Stated:
    """What the file states, by the first of its dialects."""
    summary = (tiff.micromanager_metadata or {}).get("Summary") if tiff.is_micromanager else None
    if ome.root is not None and ome.root.find("{*}Image") is not None:
        number = image.number if image.is_position else ome.image_of(image)
        if number is None:
            sentence = "which image of its OME-XML it is, is not clear, so nothing of it is used."
            said = Stated(warnings=(sentence,))
        else:
            said = ome_stated(ome.root, number, source)
    elif isinstance(summary, Mapping):
        said = micromanager_stated(summary, source)
    else:
        said = tags_stated(image.page, _imagej(tiff), _shaped(tiff), source)
        kind = _kind_of_maker(tiff)
        if kind:
            made = maker_stated(kind, getattr(tiff, f"{kind}_metadata"), source)
            usual = {} if "pixel_um" in made.origins else said.origins
            said = replace(
                made,
                pixel_um=made.pixel_um if "pixel_um" in made.origins else said.pixel_um,
                origins={**usual, **made.origins},
            )
        other = sorted(kind for kind in _NOT_READ if getattr(tiff, f"is_{kind}"))
        if other and said.pixel_um is None:
            sentence = f"its private tags ({', '.join(other)}) are not read. Type the pixel size."
            said = replace(said, warnings=(sentence,))
    if image.is_position:
        said = replace(said, place={**said.place, "position": float(image.number)})
    return said


def _shaped(tiff: tifffile.TiffFile) -> Mapping[str, Any]:
    return next(iter(tiff.shaped_metadata or ()), {})
