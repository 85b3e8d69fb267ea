"""Checks of how two planes of focus were taken, and corrections before the phase is computed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil, isfinite
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_fill_holes, gaussian_filter
from skimage.filters import difference_of_gaussians, threshold_otsu
from torch import Tensor

from napari_cvdm.core.intensity import MAD_TO_SIGMA, clipping_level
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.physics.tie import us_tie_of
from napari_cvdm.tasks.illumination import TERMS, LampDrift, divide_illumination, lamp_drift
from napari_cvdm.tasks.phase_channels import equalised_levels
from napari_cvdm.tasks.plane_record import PlaneChecks
from napari_cvdm.tasks.registration import (
    COARSE_PX,
    FINE_PX,
    LARGEST_MAGNIFICATION,
    Registration,
    register_planes,
    warp_to_reference,
)

SIGNIFICANCE = (
    4.0  # standard errors; on simulated pairs without a mistake, nothing that mattered was above
)
SMALLEST_SHIFT_PX = 0.1
LARGEST_SHIFT_PX = 16.0
SMALLEST_MAGNIFICATION = 0.001
SMALLEST_LIGHT = 0.0005
LARGEST_LIGHT = 0.3
CLEAR_SIGN = 3.0  # medians of structures and of medium apart, in standard deviations of the medium
FLATNESS_RAD = 0.01
SMALLEST_OUTSIDE = 0.05
AROUND_PX = 8
NOT_LOOKED_FOR = ("not looked for: shift, magnification, ramp and quadratic; align auto does.",)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckedPlanes:
    """Two planes, put right where that was safe.

    Parameters
    ----------
    planes : ndarray of shape (2, Y, X), float64
        Over background; the very same array where nothing was corrected.
    margin_px : int
        Width of the border band into which nothing was measured by both planes.
    checks : PlaneChecks, optional
        None where nobody looked.
    """

    planes: np.ndarray = field(repr=False)
    margin_px: int
    checks: PlaneChecks | None


def phase_of(planes: np.ndarray, defocus_um: tuple[float, float], microscope: Microscope) -> Tensor:
    """US-TIE [rad] of two planes (2, Y, X) over background in an array."""
    return us_tie_of(torch.from_numpy(np.ascontiguousarray(planes)), defocus_um, microscope)


def unchecked(planes: np.ndarray) -> CheckedPlanes:
    """Planes (P, Y, X) over background as they are."""
    return CheckedPlanes(planes=planes, margin_px=0, checks=None)


def check_planes(
    planes: np.ndarray,
    frame: np.ndarray,
    levels: list[float],
    sigma: float,
    defocus_um: tuple[float, float],
    microscope: Microscope,
) -> CheckedPlanes:
    """Estimate and correct differences between two planes other than the focus.

    Only what is significant and safe is corrected.

    Parameters
    ----------
    planes : ndarray of shape (2, Y, X)
        Over background, in rising order of `defocus_um`.
    frame : ndarray of shape (2, Y, X)
        The same as the camera gave them.
    levels : list of float
        Blank-field intensity that each was divided by.
    sigma : float
        Standard deviation of the noise of their difference.
    defocus_um : tuple of float
    microscope : Microscope

    Returns
    -------
    CheckedPlanes
    """
    place = register_planes(planes, SIGNIFICANCE)
    shift, magnification = safe_movement(place)
    aligned = planes
    if place is not None and (any(shift) or magnification):
        aligned = np.stack(
            [planes[0], warp_to_reference(planes[1], shift, magnification, place.centre_px)]
        )
    phase = phase_of(aligned, defocus_um, microscope)
    light = lamp_drift(
        phase, aligned, sigma / (defocus_um[1] - defocus_um[0]), defocus_um, microscope
    )
    terms, ratio = safe_terms(light), safe_ratio(planes)
    if any(terms) or ratio != 1:
        aligned = divide_illumination(aligned, terms, ratio)
        phase = phase_of(aligned, defocus_um, microscope)
    applied = {
        "shift_px": any(shift),
        "magnification": bool(magnification),
        "ramp": any(terms[:2]),
        "quadratic": any(terms[2:]),
        "brightness": ratio != 1,
    }
    corrected = tuple(name for name, is_applied in applied.items() if is_applied)
    checks = _checks(
        frame,
        place,
        light,
        brightness_of(planes, levels),
        sign_of_structures(phase.numpy(), aligned),
        corrected,
    )
    reach = max(abs(part) for part in shift) + abs(magnification) * max(planes.shape[1:])
    return CheckedPlanes(planes=aligned, margin_px=ceil(reach), checks=checks)


def _checks(
    frame: np.ndarray,
    place: Registration | None,
    light: LampDrift | None,
    brightness: float,
    sign: tuple[int, float | None],
    corrected: tuple[str, ...],
) -> PlaneChecks:
    return PlaneChecks(
        **_place_numbers(place),
        **_light_numbers(light),
        brightness=brightness,
        sign=sign[0],
        sign_rad=sign[1],
        clipped=tuple(clipped_share(plane) for plane in frame),
        same_pixels=any(
            np.array_equal(lower, upper) and np.ptp(lower) > 0 for lower, upper in pairwise(frame)
        ),
        corrected=corrected,
        notes=_notes(place, light, sign[0]),
    )


def seen_as_they_are(
    frame: np.ndarray, planes: np.ndarray, levels: Sequence[float], phase: np.ndarray
) -> PlaneChecks:
    """Checks of planes that need no registration.

    They are exposure, sign, saturation, and whether two planes are one image.

    Parameters
    ----------
    frame : ndarray of shape (P, Y, X)
        As the camera gave them, in rising order of their positions.
    planes : ndarray of shape (P, Y, X)
        The same over background.
    levels : sequence of float
        Blank-field intensity of each.
    phase : ndarray of shape (Y, X)
        Their phase [rad].

    Returns
    -------
    PlaneChecks
        Nothing in it is determined that `check_planes` would correct.
    """
    brightness = brightness_of(planes, levels)
    checks = _checks(frame, None, None, brightness, sign_of_structures(phase, planes), ())
    return replace(checks, notes=NOT_LOOKED_FOR)


def brightness_of(planes: np.ndarray, levels: Sequence[float]) -> float:
    """Share by which the uppermost plane is brighter than the lowest.

    It is computed from planes over background and what they were divided by.
    """
    lower, upper = (levels[place] * float(planes[place].mean()) for place in (0, -1))
    return upper / lower - 1 if lower else 0.0


def safe_movement(place: Registration | None) -> tuple[tuple[float, float], float]:
    """Shift and magnification to correct.

    Each is corrected only where it is significant, matters, and is small enough to be plausible.
    """
    if place is None:
        return (0.0, 0.0), 0.0
    moves = (
        max(SIGNIFICANCE * place.shift_error_px, SMALLEST_SHIFT_PX)
        < place.distance_px
        <= LARGEST_SHIFT_PX
    )
    grows = (
        max(SIGNIFICANCE * place.magnification_error, SMALLEST_MAGNIFICATION)
        < abs(place.magnification)
        <= LARGEST_MAGNIFICATION
    )
    return place.shift_px if moves else (0.0, 0.0), place.magnification if grows else 0.0


def safe_terms(light: LampDrift | None) -> tuple[float, ...]:
    """Terms of the light to divide out, by `illumination.TERMS`.

    All are 0 where one is too large to be plausible.
    """
    found = (
        (0.0,) * len(TERMS) if light is None else light.significant(SIGNIFICANCE, SMALLEST_LIGHT)
    )
    return found if max(abs(term) for term in found) <= LARGEST_LIGHT else (0.0,) * len(TERMS)


def safe_ratio(planes: np.ndarray) -> float:
    """Ratio of the mean light of both planes over background.

    It is 1 where `equalised_levels` leaves them as they are.
    """
    lower, upper = equalised_levels(1.0, planes.mean(axis=(1, 2)))
    return float(upper / lower)


def sign_of_structures(phase: np.ndarray, planes: np.ndarray) -> tuple[int, float | None]:
    """Sign of the phase of structures, and its median above that of the surroundings [rad].

    The sign says whether structures are denser than their surroundings. Structures are where the
    planes show contrast, which does not depend on the sign of defocus.

    Parameters
    ----------
    phase : ndarray of shape (Y, X)
        [rad].
    planes : ndarray of shape (P, Y, X)
        Over background.

    Returns
    -------
    sign : int
        1, -1, or 0 where it is not clear.
    above_rad : float or None
        None where structures or surroundings are missing.
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
    level = clipping_level(plane)
    return 0.0 if level is None else float((plane >= level).mean())


def _place_numbers(place: Registration | None) -> dict[str, Any]:
    if place is None:
        return dict.fromkeys(("shift_px", "shift_error_px", "magnification", "magnification_error"))
    error = place.magnification_error
    return {
        "shift_px": place.shift_px,
        "shift_error_px": place.shift_error_px,
        "magnification": place.magnification,
        "magnification_error": error if isfinite(error) else None,
    }


def _light_numbers(light: LampDrift | None) -> dict[str, Any]:
    if light is None:
        return dict.fromkeys(("ramp", "quadratic", "light_errors"))
    return {"ramp": light.terms[:2], "quadratic": light.terms[2:], "light_errors": light.errors}


def _notes(place: Registration | None, light: LampDrift | None, sign: int) -> tuple[str, ...]:
    """What could not be determined, and why."""
    undetermined = {
        (
            "shift and magnification: too little contrast that both planes have in common "
            "(one may be in focus)"
        ): place is None,
        "magnification: too few structures to tell it from defocus": place is not None
        and not isfinite(place.magnification_error),
        "ramp and quadratic: no empty medium to see them by": light is None,
        "sign: structures do not stand clear of what lies around them": sign == 0,
    }
    return tuple(
        f"not determined: {what}" for what, is_missing in undetermined.items() if is_missing
    )
