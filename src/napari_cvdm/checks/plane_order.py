"""Whether the planes fit their positions in reversed order better, found by trying it.

Only the order can be tried. The sign of all positions cannot: U(-z; mu, -phi) is the complex
conjugate of U(z; mu, phi). So the image of an object at z is that of the opposite phase at -z,
whatever its strength and absorption. Where the positions lie symmetrically about focus, reversing
their order is this same change of sign. The only sign of it are structures that come out thinner
than what lies around them, see `plane_checks.sign_sentence`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.checks.phase_check import count_fitted
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.result import finished
from napari_cvdm.inversion import Fit, log_evidence
from napari_cvdm.inversion.gauss_newton import weighted_squares
from napari_cvdm.tasks.phase_inversion import fit_surrounded

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

    Parameters
    ----------
    fit : Fit
        Of the whole frame, as it was given.
    plan : Plan

    Returns
    -------
    str
        Empty if the given order is as good, or if the order cannot be told.
    """
    given = plan.positions_um
    positions = np.sort(given)
    if np.abs(positions + positions[::-1]).max() <= SYMMETRY * np.abs(
        positions
    ).max() or not is_doubtful(fit):
        return ""
    planes, weight = most_contrast(fit)
    both, both_weights = (torch.stack([images, images.flip(0)]) for images in (planes, weight))
    tried = finished(
        fit_surrounded(
            both, both_weights, tuple(positions.tolist()), plan.microscope, plan.condenser_na
        )
    )
    as_given, reversed_order = log_evidence(tried).tolist()
    if reversed_order - as_given < CLEAR_EVIDENCE:
        return ""
    return (
        "the planes fit the positions in reversed order better (log-evidence "
        f"{reversed_order - as_given:+.2g} for each pixel): the planes may be swapped. Try "
        f"--defocus-um {' '.join(f'{z:g}' for z in reverse_positions(given))}."
    )


def is_doubtful(fit: Fit) -> bool:
    """Whether a fit misses the planes, or explains them by much absorption."""
    return (
        float(fit.chi2) > POOR_CHI2 * max(0.1, 1 - count_fitted(fit))
        or float(fit.laws.absorption) > MUCH_ABSORPTION
    )


def reverse_positions(given: Sequence[float]) -> tuple[float, ...]:
    """The highest position for the plane that had the lowest, and so on."""
    rank = np.argsort(np.argsort(given))
    return tuple(np.sort(given)[::-1][rank].tolist())


def most_contrast(fit: Fit) -> tuple[Tensor, Tensor]:
    """The part of `TRIED_PX` with the most contrast: planes (P, y, x), and their initial weight."""
    planes, weight = fit.linearisation.expected + fit.residual, fit.weight * fit.laws.noise
    height, width = planes.shape[-2:]
    corners = [
        (slice(top, top + TRIED_PX), slice(left, left + TRIED_PX))
        for top in range(0, max(1, height - TRIED_PX + 1), TRIED_PX)
        for left in range(0, max(1, width - TRIED_PX + 1), TRIED_PX)
    ]
    rows, columns = max(
        corners,
        key=lambda part: float(weighted_squares(weight[:, *part], planes[:, *part] - 1).sum()),
    )
    return planes[:, rows, columns].contiguous(), weight[:, rows, columns].contiguous()
