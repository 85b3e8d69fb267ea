"""A measured point spread function from a file."""

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_cvdm.core.request import MeasuredPsf, RequestError
from napari_cvdm.io.read import read_image


def read_psf(path: str | Path) -> MeasuredPsf:
    """The focal plane of a PSF file: of several planes, the one with the sharpest peak.

    Parameters
    ----------
    path : str or Path
        Image file with axes YX, or one more axis of planes, that says its pixel size.

    Returns
    -------
    MeasuredPsf

    Raises
    ------
    ImageFileError, RequestError
        A file that cannot be read, has more than three axes, or does not say its pixel size.
    """
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
