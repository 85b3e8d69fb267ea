"""One door for every image file: read whole, or opened and read part by part."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_cvdm.core.request import ImageStack, MeasuredPsf, RequestError
from napari_cvdm.io import vendor
from napari_cvdm.io.axes import UNNAMED_AXES, ordered_axes, usable_dtype
from napari_cvdm.io.errors import ImageFileError, import_zarr, one_line
from napari_cvdm.io.limits import check_npy
from napari_cvdm.io.tiff import read_tiff
from napari_cvdm.io.vendor import read_mrc

TIFF_SUFFIXES = (".tif", ".tiff", ".stk", ".lsm", ".btf", ".tf8")


def _read_npy(path: Path) -> ImageStack:
    source = path.name
    try:
        with path.open("rb") as file:
            check_npy(file, path.stat().st_size)
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy lets through whatever a damaged header makes happen
        raise ImageFileError(
            f"{source}: cannot be read as NPY ({one_line(error)}). Save one numeric array with "
            "numpy.save."
        ) from error
    leading = max(array.ndim - 2, 0)
    if leading > len(UNNAMED_AXES):
        raise ImageFileError(
            f"{source}: an array of {array.ndim} dimensions is no image; at most six are read."
        )
    axes = UNNAMED_AXES[:leading] + "YX"[-array.ndim :] if array.ndim else ""
    array, axes = ordered_axes(usable_dtype(array, source), axes, source)
    return ImageStack(array=array, axes=axes, source=source, files=(os.path.realpath(path),))


_READERS: dict[str, Callable[[Path], ImageStack]] = {
    **dict.fromkeys(TIFF_SUFFIXES, read_tiff),
    ".mrc": read_mrc,
    ".dv": read_mrc,
    ".r3d": read_mrc,
    ".npy": _read_npy,
}
_READERS |= dict.fromkeys(vendor.SUFFIXES, vendor.read_vendor_file)
SUFFIXES = tuple(_READERS)


def read_image(path: str | Path, *, series: int | None = None, alone: bool = False) -> ImageStack:
    """Read an image with its axes, its pixel size and the optics that the file names.

    Parameters
    ----------
    path : str or Path
        TIFF, OME-TIFF, ImageJ TIFF (``.tif``, ``.tiff``, ``.btf``, ``.tf8``), MetaMorph
        (``.stk``), Zeiss (``.lsm``), MRC (``.mrc``), DeltaVision (``.dv``, ``.r3d``), NumPy
        (``.npy``) or, with the extra `bioio`, the files of Zeiss (``.czi``), Leica (``.lif``) and
        Nikon (``.nd2``).
    series : int, optional
        Which of several images in the file, counted from 1. Without it, the first one is read, and
        a warning lists them.
    alone : bool
        Whether pixels of companion files are left out, because each file is one of the planes.

    Returns
    -------
    ImageStack
        Axes among T, C, Z, S and YX. Axes of length 1 are dropped, colour becomes C, and axes
        without a name become S, then T, Z, C. ``pixel_um`` is None if the file does not state it,
        or states exactly 1.0, pixels or a printer's resolution.

    Raises
    ------
    ImageFileError
        The file is missing, unreadable, cut short, empty or not an image, or its pixels are not
        real numbers or not square.
    """
    path = Path(path)
    if not path.exists():
        raise ImageFileError(f"{path}: there is no such file; check the name.")
    if path.is_dir() and path.suffix.lower() == ".zarr":
        raise ImageFileError(
            f"{path}: an OME-Zarr is reconstructed block by block: choose a name with --out that "
            "ends in .ome.zarr."
        )
    if path.is_dir():
        raise ImageFileError(f"{path}: is a folder; give one image file ({', '.join(SUFFIXES)}).")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        ending = path.suffix or "nothing"
        raise ImageFileError(
            f"{path}: files ending in {ending} are not read; allowed are {', '.join(SUFFIXES)}. "
            "Save it as OME-TIFF from Fiji."
        )
    if not path.is_file():  # a pipe would be waited for without end
        raise ImageFileError(
            f"{path}: is no file but a device or a pipe; give one image file "
            f"({', '.join(SUFFIXES)})."
        )
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise ImageFileError(f"{path}: the file is empty (0 bytes); copy it again.")
    except OSError as error:
        raise ImageFileError(
            f"{path}: cannot be opened ({error.strerror}); check that you may read it."
        ) from error
    if reader is read_tiff:
        return read_tiff(path, series=series, alone=alone)
    if reader is vendor.read_vendor_file:
        return vendor.read_vendor_file(path, series)
    if series not in (None, 1):
        raise ImageFileError(f"{path}: has one image, so there is no series {series}.")
    return reader(path)


def open_image(path: str | Path, *, series: int | None = None, alone: bool = False) -> ImageStack:
    """Open an image whose pixels, a dask array, are read when they are asked for, part by part.

    It is OME-Zarr 0.4 or 0.5 (a folder; of a pyramid the finest level), or TIFF. Another format is
    read whole. Parameters and errors are those of `read_image`; OME-Zarr needs the extra zarr.
    """
    path = Path(path)
    if path.is_dir():
        import_zarr(path)
        from napari_cvdm.io.zarr_read import open_ngff

        return open_ngff(path, series)
    if path.suffix.lower() in TIFF_SUFFIXES and path.is_file():
        return read_tiff(path, lazily=True, series=series, alone=alone)
    return read_image(path, series=series, alone=alone)


def read_images(
    paths: Sequence[str | Path], series: int | None = None, *, lazily: bool = False
) -> list[ImageStack]:
    """Read or open the files of one image: one file, or one for each of its planes.

    A file of several gives its own pixels only, though it may name the others as companions.
    Parameters and errors are those of `read_image`.
    """
    read = open_image if lazily else read_image
    return [
        replace(read(path, series=series, alone=len(paths) > 1), series=series) for path in paths
    ]


def window_of(stack: ImageStack, frame: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
    """A part of one frame, shape (P, y, x), P of length 1 where there is no such axis.

    Raises ImageFileError for pixels that cannot be read.
    """
    try:
        index: Any = (*frame, ..., rows, columns)
        part: Any = stack.array[index]
        if hasattr(part, "compute"):
            # In this process: on a worker, dask would send each piece to the scheduler and back.
            part = part.compute(scheduler="threads")
        part = np.asarray(part)
    except Exception as error:
        # Every codec has errors of its own. A chunk with a wrong header gives a MemoryError.
        where = f"rows {rows.start} to {rows.stop}, columns {columns.start} to {columns.stop}"
        advice = (
            "Free some memory, or copy the file again: it may be damaged"
            if isinstance(error, MemoryError)
            else "Copy the file again"
        )
        raise ImageFileError(
            f"{stack.source}: {where} cannot be read ({one_line(error)}). {advice}."
        ) from error
    return part.reshape(-1, *part.shape[-2:])


def read_psf(path: str | Path) -> MeasuredPsf:
    """The focal plane of a PSF file: of several planes, the one with the sharpest peak.

    Raises ImageFileError or RequestError for a file that cannot be read, has more than three axes,
    or does not say its pixel size.
    """
    from scipy.ndimage import gaussian_filter

    stack = read_image(path)
    planes = np.asarray(stack.array, np.float64)
    if planes.ndim > 3:
        raise RequestError(
            f"{path}: the PSF has axes {stack.axes}; give one plane (YX), or one stack of planes."
        )
    if stack.pixel_um is None:
        raise RequestError(
            f"{path}: the PSF does not say its pixel size; save it as OME-TIFF with one."
        )
    planes = planes.reshape(-1, *planes.shape[-2:])
    # Blurred: a hot pixel is no focus.
    sharpest = int(np.argmax([gaussian_filter(plane, 1.0).max() for plane in planes]))
    return MeasuredPsf(array=planes[sharpest], pixel_um=stack.pixel_um, source=str(path))
