"""Label images of regions, moved onto the grid of a result or suggested by a threshold."""

import numpy as np
from scipy import ndimage

from napari_cvdm.core.request import RequestError

SMOOTHING_PX = 1.0
SMALLEST_UM2 = 5.0
STRUCTURE, BACKGROUND = 1, 2


def regions_on_grid(
    labels: np.ndarray, matrix: np.ndarray, offset: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """A label image on another grid: each pixel takes the label that lies under its centre.

    Parameters
    ----------
    labels : ndarray of shape (V, U), int
    matrix : ndarray of shape (2, 2)
    offset : ndarray of shape (2,)
        Pixel p of the new grid lies at ``matrix @ p + offset`` in pixels of `labels`. Pixel centres
        lie at whole numbers.
    shape : tuple of int
        Of the new grid (Y, X); it is 0 outside `labels`.
    """
    if (
        labels.shape == shape
        and np.allclose(matrix, np.eye(2), atol=1e-6)
        and np.allclose(offset, 0, atol=1e-3)
    ):
        return labels
    return np.asarray(
        ndimage.affine_transform(
            labels, matrix, offset, output_shape=shape, order=0, mode="grid-constant"
        )
    )


def suggest_regions(
    phase: np.ndarray,
    pixel_um: float,
    trusted: np.ndarray | None = None,
    smallest_um2: float = SMALLEST_UM2,
) -> np.ndarray:
    """Regions of more phase than the medium, by the triangle threshold, numbered from 1; int32.

    In a field that is mostly medium, the triangle method cuts where the peak of the medium ends. So
    the thin edge of a cell stays inside. Otsu's method cuts half-way up and would leave out a tenth
    of the mass.

    Parameters
    ----------
    phase : ndarray of shape (Y, X)
        [rad].
    pixel_um : float
        [um].
    trusted : ndarray of shape (Y, X), bool, optional
        Other pixels do not count for the threshold. They belong to a region only if it encloses
        them.
    smallest_um2 : float
        Smaller regions are left out [um^2].

    Raises
    ------
    RequestError
        Nothing stands out.

    References
    ----------
    Zack, Rogers and Latt, Journal of Histochemistry and Cytochemistry 25, 741 (1977).
    """
    from skimage.filters import threshold_triangle

    trusted = np.ones(phase.shape, bool) if trusted is None else trusted
    smooth = ndimage.gaussian_filter(phase.astype(float), SMOOTHING_PX)
    if not trusted.any() or np.ptp(smooth[trusted]) == 0:
        raise RequestError(
            "no phase stands out from the medium, so there is no mask to suggest. Draw one in a "
            "Labels or Shapes layer."
        )
    pieces, _ = ndimage.label(
        ndimage.binary_fill_holes((smooth > threshold_triangle(smooth[trusted])) & trusted)
    )
    kept = np.bincount(pieces.ravel()) * pixel_um**2 >= smallest_um2
    kept[0] = False
    if not kept.any():
        raise RequestError(
            f"nothing of {smallest_um2:g} um^2 or more stands out from the medium. Draw a mask in "
            "a Labels or Shapes layer."
        )
    return np.asarray(ndimage.label(kept[pieces])[0], np.int32)


def structure_and_background(mean: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Pixels above and below Otsu's threshold of a reconstruction (Otsu 1979).

    They are 1 for structure, 2 for background, 0 where not valid or not finite; uint8. A constant
    image gives 0 everywhere.
    """
    from skimage.filters import threshold_otsu

    usable = valid & np.isfinite(mean)
    labels = np.zeros(mean.shape, np.uint8)
    if np.unique(mean[usable]).size > 1:
        above = mean > threshold_otsu(mean[usable])
        labels[usable] = np.where(above, STRUCTURE, BACKGROUND)[usable]
    return labels
