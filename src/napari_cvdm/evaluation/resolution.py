"""Resolution: from one image alone (decorrelation analysis), and against a truth (two points).

The first rewards sharpness, whether true or invented. Never read it without the second, or without
the errors.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.signal.windows import tukey

RADII = 50
FILTERS = 10
APODISED_PX = 20
LEAST_PEAK = 1e-3
DIP = 0.81  # Rayleigh's: the middle of two points that are just apart is at 0.81 of them


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decorrelation:
    """What decorrelation analysis found.

    Parameters
    ----------
    cutoff : float
        Highest frequency with structure above noise, in parts of the Nyquist frequency, 0 to 1. It
        is 0 where there is none.
    radii, curve : ndarray of shape (R,)
        d(r) of the image without a filter.
    """

    cutoff: float
    radii: np.ndarray = field(repr=False)
    curve: np.ndarray = field(repr=False)

    def resolution_um(self, pixel_um: float) -> float:
        """2 px / cutoff [um]; NaN where nothing was found."""
        return 2 * pixel_um / self.cutoff if self.cutoff > 0 else float("nan")


def decorrelation(image: np.ndarray) -> Decorrelation:
    """Cut-off frequency of one image, without parameters.

    Parameters
    ----------
    image : ndarray of shape (Y, X)

    Returns
    -------
    Decorrelation

    References
    ----------
    Descloux, Grussmayer and Radenovic, Nature Methods 16, 918 (2019): the highest peak position
    over a series of high-pass filters.
    """
    spectrum, radius = _centred_spectrum(image)
    radii = np.linspace(0, 1, RADII + 1)[1:]
    plain = decorrelation_curve(spectrum, radius, radii)
    if not np.isfinite(plain).all():
        return Decorrelation(cutoff=0.0, radii=radii, curve=np.zeros(RADII))
    sigmas = np.geomspace(2 / max(image.shape) * 4, 0.5, FILTERS)
    curves = [
        plain,
        *(
            decorrelation_curve(
                spectrum * (1 - np.exp(-2 * (radius / (2 * sigma)) ** 2)), radius, radii
            )
            for sigma in sigmas
        ),
    ]
    return Decorrelation(
        cutoff=max(peak_position(curve, radii) for curve in curves), radii=radii, curve=plain
    )


def _centred_spectrum(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spectrum of the image without mean, faded at its frame, and the frequency over Nyquist's."""
    fade = np.outer(*(tukey(size, min(1.0, 2 * APODISED_PX / size)) for size in image.shape))
    centred = (image - image.mean(dtype=np.float64)) * fade
    y, x = (2 * np.fft.fftfreq(size) for size in image.shape)
    return np.fft.fft2(centred), np.hypot(y[:, None], x[None, :])


def decorrelation_curve(spectrum: np.ndarray, radius: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Correlation of a spectrum with its own phases, cut at r.

    It has a peak where signal ends and noise begins.

    d(r) = sum_{k<r} |I| / sqrt(sum_k |I|^2 sum_{k<r} 1), over frequencies in the Nyquist circle.

    Parameters
    ----------
    spectrum, radius : ndarray of shape (Y, X)
    radii : ndarray of shape (R,)

    Returns
    -------
    ndarray of shape (R,)
        NaN for an empty image.
    """
    amplitude = np.abs(spectrum)
    inside = (radius > 0) & (radius <= 1)
    places = np.searchsorted(radii, radius[inside])
    sums, counts = (
        np.cumsum(np.bincount(places, weights, minlength=len(radii)))[: len(radii)]
        for weights in (amplitude[inside], None)
    )
    energy = float(np.sum(amplitude[inside] ** 2))
    return (
        sums / np.sqrt(energy * np.maximum(counts, 1))
        if energy > 0
        else np.full(len(radii), np.nan)
    )


def peak_position(curve: np.ndarray, radii: np.ndarray) -> float:
    """Radius r of the last local maximum of d(r) that stands above what follows.

    It is 0 where d(r) only rises or falls.
    """
    position = len(curve) - 1
    while position > 0:
        position = int(np.argmax(curve[: position + 1]))
        if position < len(curve) - 1 and curve[position] - curve[position:].min() > LEAST_PEAK:
            return float(radii[position]) if position > 0 else 0.0
        position -= 1
    return 0.0


def resolves_pair(
    image: np.ndarray, first: np.ndarray, second: np.ndarray, smoothing_px: float = 0.0
) -> np.ndarray:
    """Whether two points are resolved.

    They are resolved where the middle between them is at most 0.81 of the fainter one.

    Parameters
    ----------
    image : ndarray of shape (Y, X)
        Above its background.
    first, second : ndarray of shape (P, 2)
        Places of the two points of each pair (y, x) [px of the image].
    smoothing_px : float
        Standard deviation of a Gaussian that is laid over the image first.

    Returns
    -------
    ndarray of shape (P,), bool
    """
    smooth = (
        gaussian_filter(image.astype(np.float64), smoothing_px)
        if smoothing_px
        else image.astype(np.float64)
    )
    one, middle, other = (
        map_coordinates(smooth, place.T, order=1) for place in (first, (first + second) / 2, second)
    )
    fainter = np.minimum(one, other)
    return (fainter > 0) & (middle <= DIP * fainter)
