"""How close an image is to its truth, and whether its spread is as large as its error.

Images are compared as they are, in the unit of the result: neither prediction nor truth is rescaled
by its own minimum and maximum. PSNR and SSIM use the range L of the truth. Gain and offset of a
truth in counts are often not known. So the figures after one least-squares line (gain, offset) are
also given, marked ``fitted``.

The measures of the spread are coverage, spread-skill ratio, sparsification, ranking and CRPS. They
take the pixels of one field as flat arrays. The caller averages over fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log10, pi, sqrt

import numpy as np
from scipy import ndimage, stats
from scoringrules import crps_ensemble
from skimage.metrics import structural_similarity

from napari_cvdm.core.statistics import normal_factor

RANGE_PERCENTILES = (0.1, 99.9)  # else single pixels would set the range
SSIM_SIGMA_PX = 1.5
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001)  # the first three of Wang 2003: five scales need 161 px
MS_SSIM_SIDE_PX = 41  # a window of 11 px fits the third scale: 4 * (11 - 1) + 1
LEVELS = (0.5, 0.8, 0.9, 0.95)
REMOVED = np.linspace(0, 0.95, 20)
LARGE_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """One image beside its truth; None where a figure has no meaning.

    Parameters
    ----------
    rmse, mae : float
        In the unit of the result.
    psnr : float or None
        [dB]; None where the truth is constant, or met exactly.
    ssim, ms_ssim : float or None
        The latter also None without torchmetrics, or in a field under 41 px.
    """

    rmse: float
    mae: float
    psnr: float | None
    ssim: float | None
    ms_ssim: float | None
    pixels: int


def accuracy(found: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> Accuracy:
    """Figures over the valid pixels, at least one, of images (Y, X)."""
    # In float64: squares of counts lose digits in float32.
    error = (found.astype(np.float64) - truth)[valid]
    low, high = np.percentile(truth[valid], RANGE_PERCENTILES)
    span, square = float(high - low), float(np.mean(error**2))
    similar = multiscale = None
    if span != 0:
        # SSIM of Wang 2004 (11 px Gaussian window) at every pixel.
        _, map_of_ssim = structural_similarity(
            found.astype(np.float64),
            truth.astype(np.float64),
            data_range=span,
            gaussian_weights=True,
            sigma=SSIM_SIGMA_PX,
            use_sample_covariance=False,
            full=True,
        )
        similar = float(np.asarray(map_of_ssim)[valid].mean())
        # MS-SSIM knows no masks: it takes the smallest rectangle that holds all valid pixels.
        box = ndimage.find_objects(valid.astype(int))[0]
        multiscale = ms_ssim(found[box], truth[box], span)
    return Accuracy(
        rmse=sqrt(square),
        mae=float(np.abs(error).mean()),
        psnr=None if span == 0 or square == 0 else 10 * log10(span**2 / square),
        ssim=similar,
        ms_ssim=multiscale,
        pixels=int(valid.sum()),
    )


def ms_ssim(found: np.ndarray, truth: np.ndarray, span: float) -> float | None:
    """MS-SSIM over three scales (Wang 2003, torchmetrics), or None where it cannot be computed.

    The images are (Y, X); `span` is L.
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
    # relu: a negative similarity has no power that is a fraction.
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpreadScore:
    """What the first N samples of a field say about its error.

    Parameters
    ----------
    samples : int
        N.
    coverage : mapping of str to float
        Share of the pixels within mean +- normal_factor(N, level) * spread, by level.
    error, variance : float
        Mean squared error of the mean, mean unbiased variance.
    crps : float
        Fair estimate (Ferro 2014), in the unit of the samples.
    ause, auroc : float
        See `ause` and `auroc`; NaN where the error is zero everywhere.
    """

    samples: int
    coverage: dict[str, float] = field(repr=False)
    error: float
    variance: float
    crps: float
    ause: float
    auroc: float

    @property
    def ratio(self) -> float:
        """The spread-skill ratio of this field."""
        return spread_skill(np.array([self.variance]), np.array([self.error]), self.samples)


def spread_score(samples: np.ndarray, truth: np.ndarray) -> SpreadScore:
    """Score the samples (N, n) of one field, at least two, at its n pixels; the truth is (n,)."""
    drawn, known = samples.astype(np.float64), truth.astype(np.float64)
    error, spread = drawn.mean(axis=0) - known, drawn.std(axis=0, ddof=1)
    return SpreadScore(
        samples=len(drawn),
        coverage={f"{level:g}": coverage(error, spread, len(drawn), level) for level in LEVELS},
        error=float(np.mean(error**2)),
        variance=float(np.mean(spread**2)),
        crps=float(np.mean(crps_ensemble(known, drawn.T, estimator="fair"))),
        ause=ause(spread, np.abs(error)),
        auroc=auroc(spread, np.abs(error)),
    )


def mean_score(scores: Sequence[SpreadScore]) -> SpreadScore:
    """The mean of every figure over fields; all of the same number of samples."""
    # NaN: a field without an error has no ranking.
    numbers = {
        name: float(np.nanmean([getattr(score, name) for score in scores]))
        for name in ("error", "variance", "crps", "ause", "auroc")
    }
    shares = {
        level: float(np.mean([score.coverage[level] for score in scores]))
        for level in scores[0].coverage
    }
    return SpreadScore(samples=scores[0].samples, coverage=shares, **numbers)


def coverage(error: np.ndarray, spread: np.ndarray, samples: int, level: float) -> float:
    """Share of pixels whose error is within the central credible interval of N samples.

    The interval assumes a normal distribution, with Student's t and sqrt(1 + 1/N), see
    `normal_factor`. `spread` is the unbiased standard deviation of the samples. The share ought to
    be the level, in (0, 1).
    """
    return float(np.mean(np.abs(error) <= normal_factor(samples, level) * spread))


def spread_skill(variances: np.ndarray, errors: np.ndarray, samples: int) -> float:
    """sqrt((1 + 1/N) <variance> / <squared error>) (Fortin 2014), over K fields.

    It is 1 where the spread is as large as the error.
    """
    error, variance = float(np.mean(errors)), float(np.mean(variances))
    # 1 + 1/N: the mean of N samples scatters about that of the posterior.
    return sqrt((1 + 1 / samples) * variance / error) if error > 0 else float("nan")


def sparsification(
    spread: np.ndarray, error: np.ndarray, removed: Sequence[float] | np.ndarray = REMOVED
) -> np.ndarray:
    """Relative error of the pixels that remain when those of largest spread are removed.

    It is their root mean square error over that of all pixels, one value for each share removed:
    1 for none. `error` is abs(mean - truth); shares are in [0, 1).
    """
    squares = np.square(error[np.argsort(spread, kind="stable")].astype(np.float64))
    # The sums up to each count are those of the pixels that remain.
    kept = np.maximum(1, np.round((1 - np.asarray(removed)) * len(squares)).astype(int))
    curve = np.sqrt(np.cumsum(squares)[kept - 1] / kept)
    return curve / np.sqrt(squares.mean()) if squares.any() else np.zeros(len(kept))


def ause(spread: np.ndarray, error: np.ndarray) -> float:
    """Area between the sparsification curves of the spread and of the error (Ilg 2018).

    It is 0 for a spread that ranks the pixels as the error does.
    """
    above = sparsification(spread, error) - sparsification(error, error)
    return float(np.trapezoid(above, REMOVED))


def auroc(spread: np.ndarray, error: np.ndarray, share: float = LARGE_SHARE) -> float:
    """Probability that a pixel of large error has a larger spread than another (Mann-Whitney).

    It is 0.5 for chance. A share of the pixels, a tenth, counts as those of large error.
    """
    large = error > np.quantile(error, 1 - share)
    count = int(large.sum())
    if count in (0, large.size):
        return float("nan")
    # U / (n1 n2), with U from the sum of ranks; ties count half.
    ranks = stats.rankdata(spread)
    return float((ranks[large].sum() - count * (count + 1) / 2) / (count * (large.size - count)))
