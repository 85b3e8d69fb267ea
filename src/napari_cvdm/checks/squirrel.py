"""SQUIRREL's two numbers, for comparison with other publications.

Culley et al., Nature Methods 15, 263 (2018), as NanoPyx computes them. The super-resolved image is
blurred by the Gaussian that fits best, scaled linearly, and compared with the diffraction-limited
image on the same grid. RSP is their Pearson correlation, RSE the root mean square of their
difference. Both are insensitive below the optical limit: two lines in place of one, closer than the
width of the point spread function, change them in the third decimal.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from napari_cvdm.physics.widefield import gaussian_transfer

WIDEST_FWHM_PX = 4.0  # of the blur, in camera pixels
LARGEST_PX = 2048  # of a side; of larger images the middle is taken
FWHM_TO_SIGMA = 2.35482


@dataclass(frozen=True, slots=True, kw_only=True)
class Squirrel:
    """Resolution-scaled Pearson correlation (RSP), resolution-scaled error (RSE), fitted blur.

    The RSE is in units of the reference, the blur in pixels of the fine grid.
    """

    rsp: float
    rse: float
    sigma_px: float


def squirrel(image: np.ndarray, reference: np.ndarray, upsampling: int) -> Squirrel:
    """RSP and RSE of a super-resolved image.

    For a blur G the best linear scaling leaves RSE(G) = sd(reference) sqrt(1 - RSP(G)^2), so the
    blur of least error is that of largest correlation. By Parseval's theorem all correlations
    follow from one transform of each image.

    Parameters
    ----------
    image : ndarray of shape (Y, X)
        Super-resolved.
    reference : ndarray of shape (Y, X)
        The measured image, upsampled to the same grid.
    upsampling : int
        Fine pixels for one camera pixel along an axis.

    Returns
    -------
    Squirrel
        RSP is 0, and RSE the contrast of the reference, where either image is flat.
    """
    image, reference = (values[_middle(values.shape)] for values in (image, reference))
    own, other = (
        torch.fft.fft2(
            torch.from_numpy(np.asarray(values, dtype=np.float64) - float(np.mean(values)))
        )
        for values in (image, reference)
    )
    contrast, like = float(np.std(reference)), own.real
    cross, power, shape = (
        (own * other.conj()).real,
        own.abs().square(),
        (image.shape[0], image.shape[1]),
    )
    norm = float(other.abs().square().sum())

    def correlation(sigma: float) -> float:
        transfer = gaussian_transfer(shape, sigma, like)
        size = float((power * transfer.square()).sum()) * norm
        return float((cross * transfer).sum()) / size**0.5 if size > 0 else 0.0

    found = minimize_scalar(
        lambda sigma: -correlation(sigma),
        bounds=(0, WIDEST_FWHM_PX / FWHM_TO_SIGMA * upsampling),
        method="bounded",
        options={"xatol": 0.02},
    )
    rsp = correlation(float(found.x))
    return Squirrel(rsp=rsp, rse=contrast * max(0.0, 1 - rsp**2) ** 0.5, sigma_px=float(found.x))


def _middle(shape: tuple[int, ...]) -> tuple[slice, ...]:
    starts = [max(0, (size - LARGEST_PX) // 2) for size in shape]
    return tuple(slice(start, start + LARGEST_PX) for start in starts)
