"""How close an image is to its truth, under one intensity protocol.

Images are compared as they are, in the unit of the result: neither prediction nor truth is rescaled
by its own minimum and maximum. PSNR and SSIM use the range L of the truth. Gain and offset of a
truth in counts are often not known. So the figures after one least-squares line (gain, offset) are
also given, marked ``fitted``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log10, pi, sqrt

import numpy as np
from scipy import ndimage
from skimage.metrics import structural_similarity

RANGE_PERCENTILES = (0.1, 99.9)
SSIM_SIGMA_PX = 1.5
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001)  # the first three of Wang 2003: five scales need 161 px
MS_SSIM_SIDE_PX = 41


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """One image beside its truth; None where a figure has no meaning.

    Parameters
    ----------
    rmse, mae : float
        In the unit of the result.
    psnr : float or None
        [dB]; None where the truth is constant.
    ssim, ms_ssim : float or None
        The latter also None without torchmetrics, or in a field under 41 px.
    pixels : int
    """

    rmse: float
    mae: float
    psnr: float | None
    ssim: float | None
    ms_ssim: float | None
    pixels: int


def accuracy(found: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> Accuracy:
    """Figures over the valid pixels.

    Parameters
    ----------
    found, truth : ndarray of shape (Y, X)
    valid : ndarray of shape (Y, X), bool
        At least one True.
    """
    error = (found.astype(np.float64) - truth)[valid]
    span, square = truth_range(truth[valid]), float(np.mean(error**2))
    psnr = None if span == 0 or square == 0 else 10 * log10(span**2 / square)
    similar = None if span == 0 else float(_ssim_map(found, truth, span)[valid].mean())
    return Accuracy(
        rmse=sqrt(square),
        mae=float(np.abs(error).mean()),
        psnr=psnr,
        ssim=similar,
        ms_ssim=None if span == 0 else ms_ssim(found[_box(valid)], truth[_box(valid)], span),
        pixels=int(valid.sum()),
    )


def truth_range(truth: np.ndarray) -> float:
    """L: from the 0.1 to the 99.9 percentile of the truth."""
    low, high = np.percentile(truth, RANGE_PERCENTILES)
    return float(high - low)


def _ssim_map(found: np.ndarray, truth: np.ndarray, span: float) -> np.ndarray:
    """SSIM of Wang 2004 (11 px Gaussian window) at every pixel."""
    _, similar = structural_similarity(
        found.astype(np.float64),
        truth.astype(np.float64),
        data_range=span,
        gaussian_weights=True,
        sigma=SSIM_SIGMA_PX,
        use_sample_covariance=False,
        full=True,
    )
    return np.asarray(similar)


def _box(valid: np.ndarray) -> tuple[slice, ...]:
    """The smallest rectangle that holds all valid pixels: MS-SSIM knows no masks."""
    return ndimage.find_objects(valid.astype(int))[0]


def ms_ssim(found: np.ndarray, truth: np.ndarray, span: float) -> float | None:
    """MS-SSIM over three scales (Wang 2003, torchmetrics), or None where it cannot be computed.

    Parameters
    ----------
    found, truth : ndarray of shape (Y, X)
    span : float
        L.
    """
    if min(found.shape) < MS_SSIM_SIDE_PX:
        return None
    try:
        from torchmetrics.functional.image import (
            multiscale_structural_similarity_index_measure as measure,
        )
    except ImportError:
        return None
    import torch

    first, second = (
        torch.from_numpy(image.astype(np.float64))[None, None] for image in (found, truth)
    )
    return float(measure(first, second, data_range=span, betas=MS_SSIM_WEIGHTS, normalize="relu"))


def fitted_line(found: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """gain * found + offset with the least squared difference to the truth; (Y, X), float64.

    Only valid pixels count.
    """
    columns = np.stack([found[valid].astype(np.float64), np.ones(int(valid.sum()))], axis=1)
    (gain, offset), *_ = np.linalg.lstsq(columns, truth[valid].astype(np.float64), rcond=None)
    return found * gain + offset


def path_nm(phase_rad: float, wavelength_um: float) -> float:
    """Optical path [nm] of a phase [rad]: phi lambda0 / (2 pi)."""
    return phase_rad * wavelength_um * 1000 / (2 * pi)


def mean_of(figures: Mapping[int, float | None]) -> float | None:
    """Mean of the figures that there are; None without any."""
    known = [value for value in figures.values() if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None
