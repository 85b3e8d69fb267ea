"""Regions of a result: structure against background, and regions drawn on another grid."""

import numpy as np
from scipy import ndimage

STRUCTURE, BACKGROUND = 1, 2


def structure_and_background(mean: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Pixels above and below Otsu's threshold of a reconstruction (Otsu 1979).

    Parameters
    ----------
    mean : ndarray of shape (Y, X)
    valid : ndarray of shape (Y, X), bool

    Returns
    -------
    ndarray of shape (Y, X), uint8
        1 structure, 2 background, 0 where it is not valid or not finite; all 0 for a constant image.
    """
    from skimage.filters import threshold_otsu

    usable = valid & np.isfinite(mean)
    labels = np.zeros(mean.shape, np.uint8)
    if np.unique(mean[usable]).size > 1:
        above = mean > threshold_otsu(mean[usable])
        labels[usable] = np.where(above, STRUCTURE, BACKGROUND)[usable]
    return labels


def on_grid(labels: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Labels read at the pixels of another grid, each at its nearest pixel.

    Parameters
    ----------
    labels : ndarray of shape (Y', X'), integer
    matrix : ndarray of shape (3, 3)
        Takes (y, x, 1) of the grid to (y', x', 1) of the labels.
    shape : (Y, X)

    Returns
    -------
    ndarray of shape (Y, X)
        0 outside the labels.
    """
    return ndimage.affine_transform(labels, matrix, output_shape=shape, order=0, mode="grid-constant", cval=0, prefilter=False)
