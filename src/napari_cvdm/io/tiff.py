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

from napari_cvdm.core.microscope import PIXEL_RANGE_UM
from napari_cvdm.core.request import ImageStack
from napari_cvdm.io.axes import ordered_axes, usable_dtype
from napari_cvdm.io.errors import ImageFileError, import_zarr, one_line
from napari_cvdm.io.limits import check_chain, check_expansion, check_ome
from napari_cvdm.io.metadata import (
    UM_PER_INCH,
    length_um,
    ome_optics,
    ome_pixel,
    ome_place,
    position_um,
    square_pixel,
)

PIECE_PX = 1024  # side of the pieces in which a memory-mapped image is read
_TIFF_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "um"}
_PRINT_UNITS = ("inch", "in", "cm")
# Finer than 20 um for a pixel, yet printing and scanning, not microscopy.
_PRINT_DPI = (1440, 2400, 2540, 2880, 4000, 4800, 5760, 9600)


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


def read_tiff(path: Path, *, lazily: bool = False) -> ImageStack:
    """Read the first image of a TIFF file.

    It is read at full resolution, with pixel size and optics where the file says them. `lazily`
    gives a dask array whose pixels are read on demand: memory-mapped if they are contiguous, else
    tile by tile.

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
            return ImageStack(
                array=array,
                axes=axes,
                pixel_um=square_pixel(*_pixel(tiff), source),
                source=source,
                metadata=_optics(tiff),
                place=_place(tiff),
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
            return np.asarray(import_zarr(self.path).open_array(store, mode="r")[index])


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
    # By where it lies: the same bytes, named twice, are no more bytes.
    stored: dict[tuple[str, int], int] = {}
    for page in series.pages:
        if page is None or page.dtype is None:
            raise incomplete
        file = page.parent.filehandle
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        if len(segments) < max(1, prod(page.chunked)) or any(
            count <= 0 or offset + count > file.size for offset, count in segments
        ):
            raise incomplete
        largest = max(count for _, count in segments)
        check_expansion(prod(page.chunks) * page.dtype.itemsize, largest, source)
        stored.update(((file.name, offset), count) for offset, count in segments)
    # Else the pixels were found to be there, one after another, behind a single page.
    if start is None:
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
    """Pixel size along X and Y [um], None where the file does not really state it."""
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
    """Pixel size [um] from pixels in one `unit`, a resolution that could be meant for a printer.

    None if no microscope has such pixels, or if a printer has (72, 96, 300 or 2400 dpi).
    """
    size = length_um(1.0 / pixels if pixels > 0 else None, unit)
    if said_on_purpose and unit.lower() not in _PRINT_UNITS:
        return size
    if size is None or not PIXEL_RANGE_UM[0] <= size <= PIXEL_RANGE_UM[1]:
        return None
    dpi = UM_PER_INCH / size
    return None if any(abs(dpi - usual) < 0.01 * usual for usual in _PRINT_DPI) else size


def _place(tiff: tifffile.TiffFile) -> dict[str, float]:
    try:
        if tiff.is_ome and tiff.ome_metadata:
            return ome_place(tiff.ome_metadata)
    except ParseError:
        return {}
    said = (tiff.imagej_metadata or {}) if tiff.is_imagej else {}
    step = said.get("spacing")
    if not isinstance(step, int | float):
        return {}
    z_step_um = position_um(float(step), str(said.get("unit", "")))
    return {} if z_step_um is None else {"z_step_um": z_step_um}


def _optics(tiff: tifffile.TiffFile) -> dict[str, float]:
    try:
        return ome_optics(tiff.ome_metadata) if tiff.is_ome and tiff.ome_metadata else {}
    except ParseError:
        return {}
