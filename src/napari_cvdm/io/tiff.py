"""TIFF in its dialects, read through tifffile: OME, ImageJ, plain."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from threading import get_ident
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
import tifffile

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io.errors import ImageFileError, one_line
from napari_cvdm.io.limits import check_chain, check_expansion, check_ome
from napari_cvdm.io.ngff import zarr_library
from napari_cvdm.io.ome_metadata import ome_optics, ome_pixel, ome_place
from napari_cvdm.io.pixel_size import (
    length_from_print_resolution,
    length_um,
    position_um,
    square_pixel,
)
from napari_cvdm.io.pixels import ordered_axes, usable_dtype

PIECE_PX = 1024  # side of the pieces in which a memory-mapped image is read
_TIFF_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "um"}
_PRINT_UNITS = ("inch", "in", "cm")


class _Complaints(logging.Handler):
    """Keeps what tifffile logs as an error: it goes on with fewer pages where it should stop."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []
        self._thread = get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.messages.append(record.getMessage())


@contextmanager
def _complaints() -> Iterator[list[str]]:
    handler, logger = _Complaints(), logging.getLogger("tifffile")
    logger.addHandler(handler)
    try:
        yield handler.messages
    finally:
        logger.removeHandler(handler)


def read_tiff(path: Path, *, lazily: bool = False) -> ImageStack:
    """Read the first image of a TIFF file.

    Parameters
    ----------
    path : Path
        A TIFF, OME-TIFF or ImageJ TIFF file.
    lazily : bool
        Give a dask array whose pixels are read on demand. They are memory-mapped if they are
        contiguous, else read tile by tile.

    Returns
    -------
    ImageStack
        At full resolution, with pixel size and optics where the file says them.

    Raises
    ------
    ImageFileError
        The file is no TIFF, is cut short, has pages that cannot be read, or has pixels that are not
        square.
    """
    source = path.name
    try:
        with _complaints() as complaints, tifffile.TiffFile(path) as tiff:
            check_chain(tiff, source)
            if tiff.is_ome:
                check_ome(tiff, source)
            series = tiff.series[0]
            _check_complete(tiff, series, complaints)
            array, axes = ordered_axes(
                usable_dtype(_lazy_pixels(path, series) if lazily else series.asarray(), source),
                series.axes,
                source,
            )
            pixel_um = square_pixel(*_pixel(tiff), source)
            return ImageStack(
                array=array,
                axes=axes,
                pixel_um=pixel_um,
                source=source,
                metadata=_optics(tiff),
                place=_place(tiff),
            )
    except ImageFileError:
        raise
    except Exception as error:  # tifffile lets through whatever a damaged file makes happen
        raise ImageFileError(_unreadable(source, error)) from error


def _lazy_pixels(path: Path, series: tifffile.TiffPageSeries) -> Any:
    import dask.array as da  # half a second that only this needs

    shape = tuple(series.shape)
    chunks = tuple(
        min(PIECE_PX, size) if letter in "YX" else 1
        for size, letter in zip(shape, series.axes, strict=True)
    )
    if series.dataoffset is None:
        return da.from_array(_Tiles(path, shape, series.dtype), chunks=chunks, name=False)
    stored: Any = series.dtype.newbyteorder(series.pages[0].parent.byteorder)  # type: ignore[union-attr]
    return da.from_array(
        np.memmap(path, mode="r", dtype=stored, shape=shape, offset=series.dataoffset),
        chunks=chunks,
        name=False,
    )


class _Tiles:
    """Pixels of a compressed or tiled TIFF, read in parts; the file is open only during a read."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any) -> None:
        self.path, self.shape, self.dtype, self.ndim = path, shape, np.dtype(dtype), len(shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        with tifffile.TiffFile(self.path) as tiff:
            store = tiff.series[0].aszarr(level=0)
            return np.asarray(zarr_library(self.path).open_array(store, mode="r")[index])


def _unreadable(source: str, error: Exception) -> str:
    if "imagecodecs" in str(error):
        return (
            f"{source}: its compression needs a further package ({one_line(error)}): pip install "
            "imagecodecs, or save the file uncompressed."
        )
    return (
        f"{source}: cannot be read as TIFF, it may be cut short ({one_line(error)}). Copy it "
        "again, or save it again from Fiji."
    )


def _check_complete(
    tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, complaints: list[str]
) -> None:
    """Every page is there, and every byte of every page."""
    source = Path(tiff.filename).name
    incomplete = ImageFileError(
        f"{source}: the file is cut short or has missing pages. Copy it again; companion files "
        "belong in the same folder."
    )
    start = series.dataoffset
    if start is not None and start + series.nbytes > tiff.filehandle.size:
        raise incomplete
    stored: dict[
        tuple[str, int], int
    ] = {}  # by where it lies: the same bytes, named twice, are no more bytes
    for page in series.pages:
        if page is None or page.dtype is None:
            raise incomplete
        file = page.parent.filehandle
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        if len(segments) < max(1, prod(page.chunked)) or any(
            count <= 0 or offset + count > file.size for offset, count in segments
        ):
            raise incomplete
        check_expansion(
            prod(page.chunks) * page.dtype.itemsize, max(count for _, count in segments), source
        )
        stored.update(((file.name, offset), count) for offset, count in segments)
    if (
        start is None
    ):  # else the pixels were found to be there, one after another, behind a single page
        check_expansion(series.nbytes, sum(stored.values()), source)
    # The chain of pages is followed to its end. An error there means that pages after this image
    # may be part of it.
    len(tiff.pages)
    if complaints:
        raise ImageFileError(
            f"{source}: the file is damaged or cut short ({one_line(complaints[0])}). Copy it "
            "again, or save it again from Fiji."
        )


def _pixel(tiff: tifffile.TiffFile) -> tuple[float | None, float | None]:
    if tiff.is_ome and tiff.ome_metadata:
        return ome_pixel(tiff.ome_metadata)
    page = tiff.pages.first
    if tiff.is_imagej and tiff.imagej_metadata:
        unit = str(tiff.imagej_metadata.get("unit", ""))
        units = (unit, str(tiff.imagej_metadata.get("yunit", unit)))
    else:
        unit = _TIFF_UNITS.get(int(page.resolutionunit), "")
        units = (unit, unit)
    x, y = (
        _from_resolution(float(pixels), unit, tiff.is_imagej)
        for pixels, unit in zip(page.get_resolution(), units, strict=True)
    )
    return x, y


def _from_resolution(pixels: float, unit: str, said_on_purpose: bool) -> float | None:
    if said_on_purpose and unit.lower() not in _PRINT_UNITS:
        return length_um(1.0 / pixels if pixels > 0 else None, unit)
    return length_from_print_resolution(pixels, unit)


def _place(tiff: tifffile.TiffFile) -> dict[str, float]:
    try:
        if tiff.is_ome and tiff.ome_metadata:
            return ome_place(tiff.ome_metadata)
    except ParseError:
        return {}
    said = (tiff.imagej_metadata or {}) if tiff.is_imagej else {}
    step = said.get("spacing")
    z_step_um = (
        position_um(float(step), str(said.get("unit", "")))
        if isinstance(step, int | float)
        else None
    )
    return {} if z_step_um is None else {"z_step_um": z_step_um}


def _optics(tiff: tifffile.TiffFile) -> dict[str, float]:
    try:
        return ome_optics(tiff.ome_metadata) if tiff.is_ome and tiff.ome_metadata else {}
    except ParseError:
        return {}
