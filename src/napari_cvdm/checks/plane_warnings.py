"""Warnings about mistakes in the acquisition of defocused planes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.checks.phase_check import LEAST_FREEDOM, count_fitted
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.result import finished
from napari_cvdm.inversion import Fit, log_evidence
from napari_cvdm.inversion.gauss_newton import weighted_squares
from napari_cvdm.tasks.phase_inversion import fit_surrounded

OTHER_EXPOSURE = 0.2
# What a window knows the sentences by, to offer the other positions.
SWAPPED, FLIPPED = "the planes may be swapped", "the sign of dz may be flipped"
FEW_CLIPPED = 1e-4
MOST_ELECTRONS = 1e6  # the deepest wells hold a third of it
Found = Mapping[str, Any]
"""A `PlaneChecks` by name, as in the record of a result."""


def plane_warnings(frames: Sequence[Found]) -> tuple[str, ...]:
    """One sentence for each kind of difference between the planes.

    It describes the first frame that has the difference. Frames without ``planes`` were not looked
    at.
    """
    looked = [frame["planes"] for frame in frames if "planes" in frame]
    return tuple(
        warning
        for sentence in SENTENCES
        for warning in count_frames([sentence(planes) for planes in looked])
    )


def count_frames(sentences: Sequence[str]) -> tuple[str, ...]:
    """The first sentence that is not empty, from one sentence a frame.

    With several frames, it also says how many frames have one.
    """
    said = [(number, text) for number, text in enumerate(sentences) if text]
    if not said:
        return ()
    first, text = said[0]
    if len(sentences) > 1:
        text = f"in {len(said)} of {len(sentences)} frames, the first of them {first}: {text}"
    return (text,)


def shift_sentence(found: Found) -> str:
    """About a shift between the planes."""
    if found["shift_px"] is None:
        return ""
    down, right = found["shift_px"]
    return (
        f"the uppermost plane lies {down:+.1f} px down and {right:+.1f} px right of the lowest. "
        "Register the planes and crop them to the same field."
    )


def brightness_sentence(found: Found) -> str:
    """About planes of different exposure."""
    if abs(found["brightness"]) < OTHER_EXPOSURE:
        return ""
    return (
        f"the uppermost plane is {found['brightness']:+.1%} brighter than the lowest. Use one "
        "exposure for all."
    )


def sign_sentence(found: Found) -> str:
    """About structures that come out thinner than what lies around them."""
    if found["sign"] >= 0:
        return ""
    return (
        f"structures come out {-found['sign_rad']:.2g} rad below their surroundings, but cells are "
        f"denser than their medium: {FLIPPED}. If it is, reverse the sign of "
        "all positions in defocus_um."
    )


def clipped_sentence(found: Found) -> str:
    """About saturated planes."""
    if max(found["clipped"]) < FEW_CLIPPED:
        return ""
    shares = ", ".join(f"{share:.2%}" for share in found["clipped"])
    return (
        f"pixels are saturated ({shares} of the planes from the lowest up); the phase is uncertain "
        "there. Expose less."
    )


def same_pixels_sentence(found: Found) -> str:
    """About the same image given twice."""
    if not found["same_pixels"]:
        return ""
    return "planes have the same pixels; give images at different focus."


def pedestal_sentence(found: Found) -> str:
    """About counts that are no light: with them, a pixel seems to hold more than a camera can."""
    electrons = found.get("electrons") or 0.0
    if electrons < MOST_ELECTRONS:
        return ""
    return (
        f"the planes have so little noise for their level that a pixel would hold {electrons:.2g} "
        "electrons, more than cameras do. If a pedestal was added to the counts, the phase reads "
        "low: subtract it from every plane. Averaged frames look alike."
    )


SENTENCES: tuple[Callable[[Found], str], ...] = (
    same_pixels_sentence,
    shift_sentence,
    brightness_sentence,
    sign_sentence,
    clipped_sentence,
    pedestal_sentence,
)


TRIED_PX = 128
SYMMETRY = 0.02  # of the largest distance from focus
# The trial is worth its time for a fit with a larger chi-squared, or one that needs more power of
# absorption; see `PowerLaws.absorption`.
POOR_CHI2 = 1.2
MUCH_ABSORPTION = 1e-6
# Of one measured value. On simulated fields it is at least 0.07 in the wrong order and at most
# -0.07 in the right one.
CLEAR_EVIDENCE = 0.02


def order_sentence(fit: Fit, plan: Plan) -> str:
    """One sentence if the planes fit the positions in reversed order clearly better.

    It is empty if the given order is as good, or if the order cannot be told. `fit` is that of the
    whole frame, as it was given.
    """
    positions = np.sort(plan.positions_um)
    asymmetry = np.abs(positions + positions[::-1]).max()
    if asymmetry <= SYMMETRY * np.abs(positions).max() or not is_doubtful(fit):
        return ""
    both, weights = (torch.stack([images, images.flip(0)]) for images in most_contrast(fit))
    rising_um = tuple(positions.tolist())
    solver = fit_surrounded(both, weights, rising_um, plan.microscope, plan.condenser_na)
    as_given, reversed_order = finished(log_evidence(finished(solver))).tolist()
    if reversed_order - as_given < CLEAR_EVIDENCE:
        return ""
    return (
        "the planes fit the positions in reversed order better (log-evidence "
        f"{reversed_order - as_given:+.2g} for each pixel): {SWAPPED}. Try "
        f"--defocus-um {' '.join(f'{z:g}' for z in reverse_positions(plan.positions_um))}."
    )


def is_doubtful(fit: Fit) -> bool:
    """Whether a fit misses the planes, or explains them by much absorption."""
    # A fit leaves only as much of the noise as it has degrees of freedom.
    poor_chi2 = POOR_CHI2 * max(LEAST_FREEDOM, 1 - count_fitted(fit))
    return float(fit.chi2) > poor_chi2 or float(fit.laws.absorption) > MUCH_ABSORPTION


def reverse_positions(given: Sequence[float]) -> tuple[float, ...]:
    """The highest position for the plane that had the lowest, and so on."""
    rank = np.argsort(np.argsort(given))
    return tuple(np.sort(given)[::-1][rank].tolist())


def corrected_positions(reasons: Iterable[str], given: Sequence[float]) -> tuple[float, ...] | None:
    """The positions [um] that reasons for a flag propose; None without such a reason."""
    said = " ".join(reasons)
    if SWAPPED in said:
        return reverse_positions(given)
    return tuple(-position for position in given) if FLIPPED in said else None


def most_contrast(fit: Fit) -> tuple[Tensor, Tensor]:
    """The part of `TRIED_PX` with the most contrast: planes (P, y, x), and their initial weight."""
    planes, weight = fit.linearisation.expected + fit.residual, fit.weight * fit.laws.noise
    height, width = planes.shape[-2:]
    corners = [
        (slice(top, top + TRIED_PX), slice(left, left + TRIED_PX))
        for top in range(0, max(1, height - TRIED_PX + 1), TRIED_PX)
        for left in range(0, max(1, width - TRIED_PX + 1), TRIED_PX)
    ]

    def contrast(part: tuple[slice, slice]) -> float:
        return float(weighted_squares(weight[:, *part], planes[:, *part] - 1).sum())

    best = max(corners, key=contrast)
    return planes[:, *best].contiguous(), weight[:, *best].contiguous()
