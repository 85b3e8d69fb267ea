"""Check that a measured image and its truth agree in field, place and scale, without saturation."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, shift
from scipy.signal.windows import tukey
from skimage.registration import phase_cross_correlation

from napari_cvdm.core.request import RequestError

LARGEST_SHIFT_PX = (
    0.3  # of the measured image: half of what blurs a truth by a tenth of its resolution
)
SHIFT_PRECISION = 50  # parts of a pixel
LEAST_CORRELATION = 0.5
MOST_SATURATED = 0.01
# Of a widefield image beside its truth, in its own pixels.
BLURS_PX = (0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
BORDER_PX = 8
# Share of each side over which an image fades to zero, so that its frame is not registered.
FADED = 0.5
REFINEMENTS = 3


class PairError(RequestError):
    """A pair that cannot be used: shifted, of another field or scale, inverted or saturated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How a measured image and its truth compare.

    Parameters
    ----------
    correlation : float
        Pearson's, after the truth was made comparable.
    shift_px : tuple of float
        (y, x) by which the truth must be moved to lie on the measured image, in pixels of that
        image.
    gain : float
        Units of the measured image for one unit of the truth (1 for phase).
    offset : float
        What the measured image shows where the truth is zero (0 for phase).
    """

    correlation: float
    shift_px: tuple[float, float]
    gain: float
    offset: float = 0.0

    @property
    def distance_px(self) -> float:
        """Length of the shift."""
        return float(np.hypot(*self.shift_px))


def binned(image: np.ndarray, factor: int) -> np.ndarray:
    """Means of factor x factor pixels."""
    height, width = (size // factor for size in image.shape)
    return (
        image[: height * factor, : width * factor]
        .reshape(height, factor, width, factor)
        .mean(axis=(1, 3))
    )


def compared_widefield(measured: np.ndarray, truth: np.ndarray, factor: int) -> Agreement:
    """Compare a fluorescence image (Y, X) with a truth that is `factor` times finer.

    The truth is blurred until it is most similar, then registered, then fitted.
    """
    coarse = binned(truth.astype(np.float64), factor)
    blurred = max(
        (gaussian_filter(coarse, sigma) for sigma in BLURS_PX),
        key=lambda image: _correlation(image, measured),
    )
    moved = _shift(measured, blurred)
    laid = shift(blurred, moved, order=1, mode="nearest")
    inner = (
        (slice(BORDER_PX, -BORDER_PX),) * 2
        if min(measured.shape) > 4 * BORDER_PX
        else (slice(None),) * 2
    )
    gain, offset = (
        np.polyfit(laid[inner].ravel(), measured[inner].astype(np.float64).ravel(), 1)
        if laid[inner].std() > 0
        else (0.0, 0.0)
    )
    return Agreement(
        correlation=_correlation(laid[inner], measured[inner]),
        shift_px=moved,
        gain=float(gain),
        offset=float(offset),
    )


def compared_phase(baseline: np.ndarray, truth: np.ndarray) -> Agreement:
    """Compare US-TIE's phase with a true phase on the same grid.

    Both are compared without low spatial frequencies, because defocused planes measure these badly.
    """
    slow = max(4.0, min(truth.shape) / 16)
    first, second = (
        image - gaussian_filter(image, slow)
        for image in (baseline.astype(np.float64), truth.astype(np.float64))
    )
    moved = _shift(first, second)
    return Agreement(
        correlation=_correlation(shift(second, moved, order=1, mode="nearest"), first),
        shift_px=moved,
        gain=1.0,
    )


def _shift(reference: np.ndarray, moving: np.ndarray) -> tuple[float, float]:
    """The shift that registers one image to the other.

    It is refined on the remaining shift, because the frame biases each estimate towards zero.
    """
    fade = np.outer(*(tukey(size, FADED) for size in reference.shape))
    total = np.zeros(2)
    for _ in range(REFINEMENTS):
        laid = shift(moving, total, order=3, mode="nearest")
        first, second = (fade * (image - np.median(image)) for image in (reference, laid))
        found, _, _ = phase_cross_correlation(
            first, second, upsample_factor=SHIFT_PRECISION, normalization=None
        )
        total = total + found
    return float(total[0]), float(total[1])


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def check_agreement(name: str, found: Agreement, *, register: bool, signed: bool) -> None:
    """PairError where a pair must not be learned from.

    Parameters
    ----------
    name : str
        Of the pair.
    found : Agreement
    register : bool
        Whether a shift will be taken out.
    signed : bool
        Whether the sign of the truth is meaningful. For phase, an opposite sign means that the
        signs of the positions are wrong.
    """
    if signed and found.correlation < -LEAST_CORRELATION:
        raise PairError(
            f"{name}: the truth has the opposite sign of what the planes say; reverse the sign of "
            "all positions in defocus_um, or the order of the planes."
        )
    if found.correlation < LEAST_CORRELATION:
        raise PairError(
            f"{name}: measured image and truth have a correlation of {found.correlation:.2f} (at "
            f"least {LEAST_CORRELATION} is needed); "
            "are they of the same field, and is the truth the sharper one?"
        )
    if found.distance_px > LARGEST_SHIFT_PX and not register:
        down, right = found.shift_px
        raise PairError(
            f"{name}: the truth lies {-down:+.2f} px down and {-right:+.2f} px right of the "
            f"measured image (at most {LARGEST_SHIFT_PX} px is allowed); "
            "say register = true to have it moved, or register the pair."
        )


def check_saturation(name: str, measured: np.ndarray) -> None:
    """PairError where much of an integer image is at the top of its range."""
    if measured.dtype.kind not in "ui":
        return
    share = float((measured >= np.iinfo(measured.dtype).max).mean())
    if share > MOST_SATURATED:
        raise PairError(
            f"{name}: {share:.0%} of its pixels are saturated (at most {MOST_SATURATED:.0%} are "
            "allowed); leave this pair out."
        )


def moved_truth(truth: np.ndarray, shift_px: tuple[float, float], factor: int) -> np.ndarray:
    """The truth, moved by a shift in measured pixels; the edge values fill the empty border."""
    return shift(
        truth.astype(np.float64), [factor * one for one in shift_px], order=3, mode="nearest"
    )
