"""The noise of a camera from one of its images: variance against level (Janesick, Photon Transfer, SPIE Press 2007)."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from napari_cvdm.intensity import MAD_TO_SIGMA, grouped_median

BINS = 16
SMALLEST_SHARE = 1e-6  # of the brightest level, as a standard deviation: an image without noise is still exact to so much


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotonTransfer:
    """variance = floor + slope * level: read noise, and counts per electron.

    Parameters
    ----------
    floor : float
        Variance without light [counts^2], > 0.
    slope : float
        Counts for one electron, >= 0.
    """

    floor: float
    slope: float

    def variance(self, level: np.ndarray) -> np.ndarray:
        """Variance of pixels whose expected signal above the dark level is `level` [counts]."""
        return self.floor + self.slope * np.clip(level, 0, None)


def photon_transfer(counts: np.ndarray) -> PhotonTransfer:
    """Fit the noise of an image from its 2 x 2 blocks: the checkerboard difference tells noise, the mean tells level.

    Blocks are put into bins of equal number by level; each gives one variance from the median of its differences, and both
    numbers follow by non-negative least squares with relative weights.

    Parameters
    ----------
    counts : ndarray of shape (Y, X)
        Counts above the dark level, sampled finely enough that structure cancels in the difference. A single row or column
        tells nothing: its noise counts as next to none.

    Returns
    -------
    PhotonTransfer
    """
    smallest = max((SMALLEST_SHARE * float(np.abs(counts).max())) ** 2, float(np.finfo(np.float32).tiny))
    if min(counts.shape) < 2:
        return PhotonTransfer(floor=smallest, slope=0.0)
    corners = counts[:-1, :-1], counts[1:, :-1], counts[:-1, 1:], counts[1:, 1:]
    differences = np.abs(corners[0] - corners[1] - corners[2] + corners[3]).ravel() / 2
    levels = np.mean(corners, axis=0).ravel()
    bins = np.array_split(np.argsort(levels, kind="stable"), min(BINS, levels.size))
    variances = np.array([(MAD_TO_SIGMA * grouped_median(differences[inside])) ** 2 for inside in bins])
    weights = 1 / np.maximum(variances, smallest)
    design = np.stack([np.ones(len(bins)), np.clip([levels[inside].mean() for inside in bins], 0, None)], axis=1)
    (floor, slope), _ = nnls(design * weights[:, None], variances * weights)
    return PhotonTransfer(floor=max(float(floor), smallest), slope=float(slope))
