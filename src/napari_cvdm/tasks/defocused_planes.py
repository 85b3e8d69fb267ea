"""Optics, background and usable pixels of brightfield planes, before anything is solved."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation, binary_fill_holes, gaussian_filter
from scipy.signal.windows import tukey
from skimage.filters import difference_of_gaussians, threshold_otsu
from skimage.registration import phase_cross_correlation

from napari_cvdm.core.intensity import MAD_TO_SIGMA, measured_pixels, noise_sigma, unclipped_mean
from napari_cvdm.core.request import RequestError
from napari_cvdm.tasks.task import Background, clipped_pixels, fitting

# Of the mean light. A larger difference is the lamp's, a smaller one may be light that crosses the
# border.
FLICKER = 0.02
DARK_FRACTION = 0.1  # of the blank field: US-TIE's authors call the phase undefined below
DIVIDED_MEDIANS = (0.2, 5.0)


def over_background(frame: np.ndarray, background: Background) -> tuple[np.ndarray, list[float]]:
    """Brightfield planes over their blank-field intensity.

    Parameters
    ----------
    frame : ndarray of shape (P, Y, X)
    background : {"auto", "none"} or ndarray of shape (Y, X) or (P, Y, X)
        ``auto`` takes the median of all planes, and makes their means equal where they differ by
        more than `FLICKER`. Defocus moves light but loses hardly any, so a flickering lamp can be
        told from a phase.

    Returns
    -------
    ratio : ndarray of shape (P, Y, X), float64
        NaN where nothing was measured.
    level : list of float
        Blank-field intensity of each plane (its median, where an image was given).

    Raises
    ------
    RequestError
        A background that is not positive or of another shape, or planes that ``none`` cannot be
        true of.
    """
    measured = np.stack([measured_pixels(plane) for plane in frame])
    planes = np.where(measured, frame, np.nan).astype(np.float64)
    if not isinstance(background, str):
        levels = np.broadcast_to(fitting(background, planes), planes.shape)
    elif background == "auto":
        seen = [plane[where] for plane, where in zip(frame, measured, strict=True)]
        # Without cut-off pixels: a bright spot of one plane is no light of the lamp.
        means = [unclipped_mean(plane, float(plane.mean(dtype=np.float64))) for plane in seen]
        median = float(np.median(frame[measured]))
        levels = equalised_levels(median, np.array(means))[:, None, None]
    else:
        check_divided(planes)
        levels = np.ones((len(planes), 1, 1))
    check_positive(levels)
    return planes / levels, [float(np.median(level)) for level in levels]


def check_positive(levels: np.ndarray) -> None:
    """RequestError unless blank-field intensities, of any shape, can be divided by."""
    if not (np.isfinite(levels) & (levels > 0)).all():
        raise RequestError(
            "the background intensity is not positive everywhere; "
            "give a blank-field image with --background FILE, "
            "or none for planes already divided by it."
        )


def check_divided(planes: np.ndarray) -> None:
    """RequestError unless pixels are about 1, as those of planes over their background."""
    middle = float(np.nanmedian(planes))
    if not DIVIDED_MEDIANS[0] < middle < DIVIDED_MEDIANS[1]:
        raise RequestError(
            f"background none says that the planes are divided by the blank field, "
            f"but their median is {middle:.4g}, not about 1; use auto, or give a blank-field image."
        )


def equalised_levels(median: float, means: np.ndarray) -> np.ndarray:
    """The median in proportion to the planes' means, where these differ by over `FLICKER`."""
    shares = means / means.mean() if means.mean() else means
    return median * (shares if np.ptp(shares) > FLICKER else np.ones_like(shares))


def usable_planes(frame: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Which pixels of each plane the camera measured: (P, Y, X), bool.

    `frame` and `ratio` (P, Y, X) are the planes as measured, and over background. The result is
    False where a plane is saturated, dark or not finite.
    """
    clipped = np.stack([clipped_pixels(plane) for plane in frame])
    return np.asarray(~clipped & np.isfinite(ratio) & (ratio > DARK_FRACTION))


FINE_PX, COARSE_PX = 1.0, 10.0  # of the contrast of structures
CLEAR_SIGN = 3.0  # medians of structures and background apart, in deviations of the background
FLATNESS_RAD = 0.01  # so that planes without noise need a clear sign, too
SMALLEST_OUTSIDE = 0.05
AROUND_PX = 8
# Of a shift. On 40 fields of the training, 2 without a shift were reported to have one.
SHIFT_FINE_PX, SHIFT_COARSE_PX, SHIFT_BLUR_PX = 2.0, 16.0, 2.0
SMALLEST_SHIFT_PX, LARGEST_SHIFT_PX = 1.0, 16.0
LEAST_CORRELATION, LEAST_GAIN = 0.8, 0.01
TAPER = 0.3
LEAST_VARIANCE = 0.5  # counts^2: rounding alone gives 1/12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SortedPlanes:
    """Planes over their background, in rising order of their positions.

    Parameters
    ----------
    ratio : ndarray of shape (P, Y, X), float64
        Over background; NaN where nothing was measured.
    frame : ndarray of shape (P, Y, X)
        The same as the camera gave them.
    levels : list of float
        Blank-field intensity of each.
    defocus_um : tuple of float
        Rising.
    levels_as_given : list of float
        `levels` in the order that the planes were given in.
    """

    ratio: np.ndarray = field(repr=False)
    frame: np.ndarray = field(repr=False)
    levels: list[float]
    defocus_um: tuple[float, ...]
    levels_as_given: list[float]

    @classmethod
    def sort(
        cls, frame: np.ndarray, defocus_um: Sequence[float], background: Background
    ) -> "SortedPlanes":
        """From planes in any order; errors as of `over_background`."""
        ratio, levels = over_background(frame, background)
        order = np.argsort(defocus_um)
        ratio = ratio[order]
        return cls(
            ratio=ratio,
            frame=frame[order],
            levels=[levels[place] for place in order],
            defocus_um=tuple(float(defocus_um[place]) for place in order),
            levels_as_given=levels,
        )

    @property
    def known(self) -> np.ndarray:
        """`ratio` with the blank field where nothing was measured."""
        return np.where(np.isfinite(self.ratio), self.ratio, 1.0)

    @property
    def unmeasured_share(self) -> float:
        """Share of the pixels that were not measured in every plane."""
        return float((~np.isfinite(self.ratio)).any(axis=0).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneChecks:
    """What was found in the planes of one frame.

    Parameters
    ----------
    shift_px : tuple of float, optional
        (y, x) by which the uppermost plane lies away from the lowest [px]. None where it was not
        looked for, is not clear, or is below `SMALLEST_SHIFT_PX`.
    brightness : float
        The uppermost plane is brighter by this share.
    sign : int
        1: structures are denser than their surroundings; -1: thinner; 0: undetermined.
    sign_rad : float, optional
        By how much [rad].
    clipped : tuple of float
        Share of the pixels of each plane at the top of the camera's range, or piled up at their
        largest value.
    same_pixels : bool
        Two neighbouring planes are the same image, with something in it.
    electrons : float, optional
        Electrons in a pixel of the noisiest plane, as its noise tells. None where it does not.
    """

    shift_px: tuple[float, float] | None
    brightness: float
    sign: int
    sign_rad: float | None
    clipped: tuple[float, ...]
    same_pixels: bool
    electrons: float | None = None

    def as_mapping(self) -> Mapping[str, Any]:
        """The same for the provenance, by name."""
        return asdict(self)


def check_planes(
    frame: np.ndarray,
    planes: np.ndarray,
    levels: Sequence[float],
    phase: np.ndarray,
    *,
    register: bool = False,
) -> PlaneChecks:
    """Look for mistakes in the acquisition of defocused planes.

    `frame` (P, Y, X) is as the camera gave it, in rising order of positions, `planes` are the same
    over background, and `levels` the blank-field intensity of each. `phase` (Y, X) is theirs [rad].
    `register` looks for a shift, too.
    """
    lowest, uppermost = (levels[place] * float(planes[place].mean()) for place in (0, -1))
    sign, sign_rad = find_sign(phase, planes)
    return PlaneChecks(
        shift_px=estimate_shift(planes[0], planes[-1]) if register else None,
        brightness=uppermost / lowest - 1 if lowest else 0.0,
        sign=sign,
        sign_rad=sign_rad,
        clipped=tuple(clipped_share(plane) for plane in frame),
        same_pixels=any(
            np.array_equal(lower, upper) and np.ptp(lower) > 0 for lower, upper in pairwise(frame)
        ),
        electrons=count_electrons(frame),
    )


def count_electrons(frame: np.ndarray) -> float | None:
    """Electrons in a pixel of whole-numbered planes (P, Y, X), level^2 / variance at the least.

    Photon noise is sqrt(N). A pedestal makes the level larger than the light, and so the number
    larger than any camera holds. None where rounding hides the noise.
    """
    if frame.dtype.kind not in "ui":
        return None
    seen = [np.where(measured_pixels(plane), plane, np.nan).astype(np.float64) for plane in frame]
    variances = [noise_sigma(plane) ** 2 for plane in seen]
    if min(variances) < LEAST_VARIANCE:
        return None
    return min(
        float(np.nanmedian(plane)) ** 2 / variance
        for plane, variance in zip(seen, variances, strict=True)
    )


def estimate_shift(lower: np.ndarray, upper: np.ndarray) -> tuple[float, float] | None:
    """Shift (y, x) of the upper of two planes (Y, X) [px]; None where it is small or not clear.

    The absolute contrast of both is correlated, since its sign changes through focus (Guizar-
    Sicairos et al., Opt. Lett. 33, 156 (2008), for the part of a pixel).
    """
    taper = np.outer(*(tukey(size, TAPER) for size in lower.shape))
    first, second = (
        gaussian_filter(
            np.abs(difference_of_gaussians(plane, SHIFT_FINE_PX, SHIFT_COARSE_PX, mode="reflect")),
            SHIFT_BLUR_PX,
        )
        for plane in (lower, upper)
    )
    # Without a taper, the edges of the frame vote for no shift.
    first, second = (
        (contrast - np.average(contrast, weights=taper)) * taper for contrast in (first, second)
    )
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    if size == 0:
        return None
    back, _, _ = phase_cross_correlation(first, second, upsample_factor=20, normalization=None)
    moved = np.roll(second, tuple(np.round(back).astype(int)), axis=(0, 1))
    correlation, unmoved = (float((first * other).sum()) / size for other in (moved, second))
    seen = SMALLEST_SHIFT_PX < float(np.hypot(*back)) <= LARGEST_SHIFT_PX
    if not seen or correlation < LEAST_CORRELATION or correlation - unmoved < LEAST_GAIN:
        return None
    return -float(back[0]), -float(back[1])


def find_sign(phase: np.ndarray, planes: np.ndarray) -> tuple[int, float | None]:
    """Sign of the phase of structures, and its median above that of the surroundings [rad].

    The sign is 1 where structures are denser than their surroundings, -1 where they are thinner,
    and 0 where it is not clear. The median is None where structures or surroundings are missing.
    Structures are where the planes (P, Y, X) over background show contrast, which does not depend
    on the sign of defocus. `phase` (Y, X) is in radians.
    """
    contrast = [
        difference_of_gaussians(plane, FINE_PX, COARSE_PX, mode="reflect") for plane in planes
    ]
    activity = gaussian_filter(np.abs(contrast).sum(axis=0), COARSE_PX / 2)
    structures = binary_fill_holes(activity > threshold_otsu(activity))
    around = ~binary_dilation(structures, iterations=AROUND_PX)
    if not structures.any() or around.mean() < SMALLEST_OUTSIDE:
        return 0, None
    level = np.median(phase[around])
    spread = MAD_TO_SIGMA * float(np.median(np.abs(phase[around] - level))) + FLATNESS_RAD
    above = float(np.median(phase[structures]) - level)
    return (int(np.sign(above)) if abs(above) > CLEAR_SIGN * spread else 0), above


def clipped_share(plane: np.ndarray) -> float:
    """Share of a plane's pixels at which it was cut off, see `clipping_level`."""
    return float(clipped_pixels(plane).mean())
