"""Optics, background and usable pixels of brightfield planes, before anything is solved."""

import numpy as np

from napari_cvdm.core.intensity import clipping_level, unclipped_mean
from napari_cvdm.core.request import RequestError
from napari_cvdm.tasks.conditioned import Background, fitting

# Of the mean light. A larger difference is the lamp's, a smaller one may be light that crosses the
# border.
FLICKER = 0.02
DARK_FRACTION = 0.1
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
    level : list of float
        Blank-field intensity of each plane (its median, where an image was given).

    Raises
    ------
    RequestError
        A background that is not positive or of another shape, or planes that ``none`` cannot be
        true of.
    """
    planes = frame.astype(np.float64)
    if isinstance(background, str) and background == "none":
        check_divided(planes)
    if isinstance(background, str):
        levels = _estimated_levels(frame) if background == "auto" else np.ones((len(planes), 1, 1))
    else:
        levels = np.broadcast_to(fitting(background, planes), planes.shape)
    if not (np.isfinite(levels) & (levels > 0)).all():
        raise RequestError(
            "the background intensity is not positive everywhere; "
            "give a blank-field image with --background FILE, "
            "or none for planes already divided by it."
        )
    return planes / levels, [float(np.median(level)) for level in levels]


def check_divided(planes: np.ndarray) -> None:
    """RequestError unless pixels are about 1, as those of planes over their background."""
    middle = float(np.median(planes))
    if not DIVIDED_MEDIANS[0] < middle < DIVIDED_MEDIANS[1]:
        raise RequestError(
            f"background none says that the planes are divided by the blank field, "
            f"but their median is {middle:.4g}, not about 1; use auto, or give a blank-field image."
        )


def _estimated_levels(frame: np.ndarray) -> np.ndarray:
    """Levels (P, 1, 1) from the pixels that were not cut off.

    A bright spot of a single plane is not light of the lamp.
    """
    means = np.array(
        [unclipped_mean(plane, float(plane.mean(dtype=np.float64))) for plane in frame]
    )
    return equalised_levels(float(np.median(frame)), means)[:, None, None]


def equalised_levels(median: float, means: np.ndarray) -> np.ndarray:
    """The median of all planes, in proportion to their means.

    The means count only where they differ by more than `FLICKER`.
    """
    shares = means / means.mean() if means.mean() else means
    return median * (shares if np.ptp(shares) > FLICKER else np.ones_like(shares))


def usable_planes(frame: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Which pixels of each plane the camera measured.

    Parameters
    ----------
    frame, ratio : ndarray of shape (P, Y, X)
        Planes as measured, and over background.

    Returns
    -------
    ndarray of shape (P, Y, X), bool
        False where a plane is saturated, dark or not finite.
    """
    levels = [clipping_level(plane) for plane in frame]
    clipped = np.stack(
        [
            np.zeros(plane.shape, bool) if level is None else plane >= level
            for plane, level in zip(frame, levels, strict=True)
        ]
    )
    return np.asarray(~clipped & np.isfinite(ratio) & (ratio > DARK_FRACTION))
