"""Images opened without reading them: OME-Zarr, memory-mapped TIFF and NPY."""

from pathlib import Path
from typing import Any

import numpy as np

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io.errors import ImageFileError, one_line
from napari_cvdm.io.ngff_reading import open_ngff
from napari_cvdm.io.read import read_image
from napari_cvdm.io.tiff import read_tiff


def open_image(path: str | Path) -> ImageStack:
    """An image whose pixels are read when they are asked for, part by part.

    Parameters
    ----------
    path : str or Path
        OME-Zarr 0.4 or 0.5 (a folder; of a pyramid the finest level), TIFF or NPY. Another format
        is read whole.

    Returns
    -------
    ImageStack
        As `read_image` gives it, with a dask array.

    Raises
    ------
    ImageFileError
        As of `read_image`.
    """
    path = Path(path)
    if path.is_dir():
        return open_ngff(path)
    if path.suffix.lower() in (".tif", ".tiff") and path.exists():
        return read_tiff(path, lazily=True)
    return read_image(path)


def window_of(stack: ImageStack, frame: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
    """A part of one frame, shape (P, y, x), P of length 1 where there is no such axis.

    Raises
    ------
    ImageFileError
        Pixels that cannot be read.
    """
    try:
        index: Any = (*frame, ..., rows, columns)
        part = _read(stack.array[index])
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


def _read(array: Any) -> np.ndarray:
    """Pixels in this process: on a worker, dask would send each piece to the scheduler and back."""
    return np.asarray(array.compute(scheduler="threads") if hasattr(array, "compute") else array)
