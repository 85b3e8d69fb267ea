"""Label images of regions, moved onto the grid of a result or suggested by a threshold."""

import numpy as np
from scipy import ndimage

from napari_cvdm.core.request import RequestError

SMOOTHING_PX = 1.0
SMALLEST_UM2 = 5.0
REACH_PX = 10  # farther than a threshold moves an outline from sample to sample
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
    same = np.allclose(matrix, np.eye(2), atol=1e-6) and np.allclose(offset, 0, atol=1e-3)
    if labels.shape == shape and same:
        return labels
    # Labels are names: no value between two of them means anything.
    return np.asarray(
        ndimage.affine_transform(
            labels, matrix, offset, output_shape=shape, order=0, mode="grid-constant"
        )
    )


def suggest_regions(
    image: np.ndarray, pixel_um: float, trusted: np.ndarray | None = None
) -> np.ndarray:
    """Regions brighter than the background, by the triangle threshold, numbered from 1; int32.

    In a field that is mostly background, the triangle method cuts where the peak of the background
    ends. So the thin edge of a cell stays inside. Otsu's method cuts half-way up and would leave
    out a tenth of the mass. Regions of less than `SMALLEST_UM2` are left out.

    Parameters
    ----------
    image : ndarray of shape (Y, X)
        Phase [rad] or counts.
    pixel_um : float
        [um].
    trusted : ndarray of shape (Y, X), bool, optional
        Other pixels do not count for the threshold. They belong to a region only if it encloses
        them.

    Raises
    ------
    RequestError
        Nothing stands out.

    References
    ----------
    Zack, Rogers and Latt, Journal of Histochemistry and Cytochemistry 25, 741 (1977).
    """
    trusted = np.ones(image.shape, bool) if trusted is None else trusted
    above = pixels_above(image, triangle_threshold(image, trusted), trusted)
    pieces, _ = ndimage.label(above)
    kept = np.bincount(pieces.ravel()) * pixel_um**2 >= SMALLEST_UM2
    kept[0] = False  # the background is no region
    if not kept.any():
        raise RequestError(
            f"nothing of {SMALLEST_UM2:g} um^2 or more stands out from the background. Draw a "
            "mask in a Labels or Shapes layer."
        )
    return np.asarray(ndimage.label(kept[pieces])[0], np.int32)


def triangle_threshold(image: np.ndarray, trusted: np.ndarray) -> float:
    """The threshold of `suggest_regions`, with its RequestError, of a smoothed image."""
    from skimage.filters import threshold_triangle

    smooth = ndimage.gaussian_filter(image.astype(float), SMOOTHING_PX)
    if not trusted.any() or np.ptp(smooth[trusted]) == 0:
        raise RequestError(
            "nothing stands out from the background, so there is no mask to suggest. Draw one in a "
            "Labels or Shapes layer."
        )
    return float(threshold_triangle(smooth[trusted]))


def pixels_above(image: np.ndarray, threshold: float, trusted: np.ndarray) -> np.ndarray:
    """Trusted pixels of the smoothed image above a threshold, with holes filled: (Y, X), bool."""
    smooth = ndimage.gaussian_filter(image.astype(float), SMOOTHING_PX)
    return np.asarray(ndimage.binary_fill_holes((smooth > threshold) & trusted))


class SampledOutlines:
    """The outlines of regions, found anew in every sample by the threshold they came from.

    A pixel above the threshold belongs to the nearest region, if it is connected with it and not
    farther than `REACH_PX`. What was corrected by hand stays: pixels that were added are in every
    outline, pixels that were erased in none. The threshold, in the unit of the image, made the
    regions in the image. All arrays are (Y, X).
    """

    def __init__(
        self, regions: np.ndarray, image: np.ndarray, threshold: float, trusted: np.ndarray
    ) -> None:
        from skimage.segmentation import expand_labels

        self._regions, self._trusted = regions, trusted
        self._nearest = expand_labels(regions, REACH_PX)
        found = self._connected(image, threshold)
        # What differs from the outline of the threshold was drawn by hand.
        self._added, self._erased = (regions > 0) & ~found, found & (regions == 0)

    def _connected(self, image: np.ndarray, threshold: float) -> np.ndarray:
        near = pixels_above(image, threshold, self._trusted) & (self._nearest > 0)
        return np.asarray(ndimage.binary_propagation(near & (self._regions > 0), mask=near))

    def find(self, image: np.ndarray, threshold: float) -> np.ndarray:
        """The regions in one sample (Y, X), with the threshold at its level."""
        inside = (self._connected(image, threshold) | self._added) & ~self._erased
        return np.where(inside, self._nearest, 0)


def structure_and_background(mean: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Pixels above and below Otsu's threshold of a reconstruction (Otsu 1979).

    They are 1 for structure, 2 for background, 0 where not valid or not finite; uint8. A constant
    image gives 0 everywhere.
    """
    from skimage.filters import threshold_otsu

    usable = valid & np.isfinite(mean)
    labels = np.zeros(mean.shape, np.uint8)
    if np.unique(mean[usable]).size > 1:  # a constant is neither
        above = mean > threshold_otsu(mean[usable])
        labels[usable] = np.where(above, STRUCTURE, BACKGROUND)[usable]
    return labels
