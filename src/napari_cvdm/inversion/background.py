"""Cell-free background, found in a fit and made part of its prior.

The phase of the background is one constant. The data leave low spatial frequencies undetermined,
and a bend of the background continues into the cells. Pixels are candidates where the estimate is
as smooth as noise alone makes it. Candidates near one level are kept, while a weak-object model on
a coarse grid removes the bend (Tukey's biweight with a shrinking width). The background is accepted
where flattening it costs about as much penalty and misfit as noise explains.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import binary_erosion, gaussian_filter
from torch import Tensor
from torch.nn import functional

from napari_cvdm.core.result import finished
from napari_cvdm.inversion.gauss_newton import (
    Changing,
    Fit,
    Solving,
    conjugate_gradients,
    solve_normal,
    weighted_squares,
)
from napari_cvdm.inversion.priors import about_mean, filter_maps, weak_normal
from napari_cvdm.physics.forward_model import PhaseObject

ROUGHNESS_PX = 3.0
MOST_ROUGHNESS = 1.2  # of what the posterior's own noise would show
EROSION_PX = 2  # distance of background from all else
COARSE_PX = 4
WHOLE_BLOCK = 0.9  # of a coarse pixel that must be a candidate
LEAST_SHARE = 0.05  # of the frame, or of the canvas around it
DENSEST_SHARE = 0.15
FIRST_WIDTH_RAD, LAST_WIDTH_RAD, ROUNDS = 0.15, 0.05, 5
TUKEY = 3.0  # widths from the level, beyond which a pixel does not count
LEAST_WEIGHT = 0.3
# Of a pixel, about the constant: what is tested, and what the prior says.
TESTED_STD_RAD, PRIOR_STD_RAD = (0.05, 0.2)
# Over what noise explains: cells in medium stay below, tissue and most photographs do not.
MOST_COST, MOST_PRODUCT = (0.8, 2.1)
COARSE_STEPS, FLAT_STEPS = 40, 40


def flatten_background(fit: Fit) -> Solving:
    """The fit (without batch dimension) with a flat background in its prior; step by step.

    `prior.flat` says where the background is. The fit is as it was where none is seen.
    """
    background = find_background(fit)
    if background is None:
        return fit
    tested = background / TESTED_STD_RAD**2
    change = yield from flat_change(fit, tested)
    expected = expected_costs(fit, tested)
    if not min(expected) > 0:  # planes without noise decide everything
        return fit
    cost, misfit = penalty_of(fit, change) / expected[0], misfit_of(fit, change) / expected[1]
    if cost > MOST_COST or cost * misfit > MOST_PRODUCT:
        return fit
    flat = background / PRIOR_STD_RAD**2
    estimate = fit.estimate.add((yield from flat_change(fit, flat)))
    seen = fit.model.linearise(estimate)
    prior, steps = replace(fit.prior, flat=flat), fit.inner_steps + 2 * FLAT_STEPS
    return replace(
        fit,
        estimate=estimate,
        linearisation=seen,
        residual=fit.data - seen.expected,
        prior=prior,
        inner_steps=steps,
    )


def flat_change(fit: Fit, flat: Tensor) -> Changing:
    """Change of the estimate when the background is made flat; solved step by step.

    It is -(J^T W J + C^-1 + M)^-1 M x, with M about the mean of the background. `fit` has no flat
    background. `flat` (H, W) is one over the variance [1/rad^2] of each background pixel about one
    constant, 0 elsewhere.
    """
    pull = torch.zeros_like(fit.estimate.maps)
    pull[1] = -about_mean(flat, fit.estimate.maps[1])
    right = PhaseObject(maps=pull, illumination=torch.zeros_like(fit.estimate.illumination))
    return solve_normal(
        fit.model, fit.linearisation, fit.weight, replace(fit.prior, flat=flat), right, FLAT_STEPS
    )


def penalty_of(fit: Fit, change: PhaseObject) -> float:
    """v^T (J^T W J + C^-1) v of a change v of the most probable object: twice what it costs."""
    data = fit.model.derivative(fit.linearisation, change)
    return float((fit.weight * data.square()).sum() + 2 * fit.prior.penalty(change))


def misfit_of(fit: Fit, change: PhaseObject) -> float:
    """By how much a change raises the sum of squared residuals, in variances of the noise."""
    residual = fit.data - fit.model.linearise(fit.estimate.add(change)).expected
    return float(
        (weighted_squares(fit.weight, residual) - weighted_squares(fit.weight, fit.residual)).sum()
    )


def expected_costs(fit: Fit, flat: Tensor) -> tuple[float, float]:
    """Expected `penalty_of` a `flat_change` of a flat background, and its part J^T W J.

    The estimate differs from the flat background by posterior noise. For a weak object with A and N
    = A - C^-1 in Fourier space, the values are tr (M (A + M)^-1)^2 and tr (M (A + M)^-1)^2 N A^-1,
    over the background.
    """
    precision, strength = _phase_precision(fit), float(flat.max())
    share = (strength / (precision + strength)).square()
    of_data = share * (1 - fit.prior.spectrum[1] / precision)
    pixels = float((flat > 0).sum())
    penalty, misfit = (
        float(torch.fft.irfft2(one, s=flat.shape)[0, 0]) * pixels for one in (share, of_data)
    )
    return penalty, misfit


def find_background(fit: Fit) -> Tensor | None:
    """Pixels of the canvas (H, W) that are flat and near one level, 1 or 0; None if too few."""
    shape, (rows, columns) = fit.model.canvas_shape, fit.model.frame
    precision = _phase_precision(fit)
    smooth = _smooth_pixels(fit.phase.cpu().numpy(), precision, shape)
    if smooth.mean() < LEAST_SHARE:
        return None
    canvas = torch.zeros(shape).to(precision)
    canvas[rows, columns] = torch.from_numpy(smooth).to(canvas)
    coarse = (-(-shape[0] // COARSE_PX), -(-shape[1] // COARSE_PX))
    area = shape[0] * shape[1] / (coarse[0] * coarse[1])
    candidates = (_binned(canvas, coarse) > WHOLE_BLOCK).to(canvas)
    # The low frequencies of the real-FFT grid that the coarser grid has.
    rows_kept = torch.fft.fftfreq(coarse[0], 1 / coarse[0]).round().long() % shape[0]
    lowest = precision[rows_kept][:, : coarse[1] // 2 + 1]
    phase = _binned(fit.estimate.maps[1], coarse)
    near = _near_one_level(phase, candidates, area * lowest, area)
    if near is None:
        return None
    found = canvas * (functional.interpolate(near[None, None], size=shape)[0, 0] > LEAST_WEIGHT)
    return found if float(found.mean()) >= LEAST_SHARE else None


def _smooth_pixels(phase: np.ndarray, precision: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """Where the high spatial frequencies of a phase (h, w) are no larger than posterior noise."""
    response = np.zeros(shape)
    response[0, 0] = 1
    high = response - gaussian_filter(response, ROUGHNESS_PX, mode="wrap")
    passed = np.abs(np.fft.rfft2(high)) ** 2
    noise = torch.fft.irfft2(torch.from_numpy(passed).to(precision) / precision, s=shape)[0, 0]
    rough = gaussian_filter(np.square(phase - gaussian_filter(phase, ROUGHNESS_PX)), ROUGHNESS_PX)
    smooth = rough < MOST_ROUGHNESS**2 * float(noise)
    return np.asarray(binary_erosion(smooth, iterations=EROSION_PX, border_value=1))


def _near_one_level(
    phase: Tensor, candidates: Tensor, precision: Tensor, area: float
) -> Tensor | None:
    """Weights, 0 to 1, of the candidates near one level of a coarse phase (h, w).

    The bend of the phase is removed first. None where hardly any candidate is near the level.
    """
    flattened, width = phase, FIRST_WIDTH_RAD
    if float(candidates.mean()) < LEAST_SHARE / 2:
        return None
    for number in range(ROUNDS):
        level = densest_value(flattened[candidates > 0].cpu().numpy())
        distance = (flattened - level) / (TUKEY * width)
        weight = candidates * (1 - distance.square()).clamp(min=0).square()
        if float((weight > 0).float().mean()) < LEAST_SHARE / 2:
            return None
        if number < ROUNDS - 1:
            flattened = phase + _coarse_change(phase, weight * area / LAST_WIDTH_RAD**2, precision)
            width = max(width / 2, LAST_WIDTH_RAD)
    return weight


def _coarse_change(phase: Tensor, flat: Tensor, precision: Tensor) -> Tensor:
    """`flat_change` of a coarse weak object."""
    empty = phase.new_zeros(1, 1)

    def wrap(image: Tensor) -> PhaseObject:
        return PhaseObject(maps=image[None], illumination=empty)

    def normal(change: PhaseObject) -> PhaseObject:
        return wrap(filter_maps(change.maps[0], precision) + about_mean(flat, change.maps[0]))

    def precondition(change: PhaseObject) -> PhaseObject:
        return wrap(filter_maps(change.maps[0], 1 / (precision + flat.mean())))

    change = conjugate_gradients(normal, precondition, wrap(-about_mean(flat, phase)), COARSE_STEPS)
    return finished(change).maps[0]


def densest_value(values: np.ndarray) -> float:
    """Middle of the narrowest interval that holds `DENSEST_SHARE` of the values."""
    ordered = np.sort(values, axis=None)
    count = min(ordered.size, max(2, int(DENSEST_SHARE * ordered.size)))
    start = int(np.argmin(ordered[count - 1 :] - ordered[: ordered.size - count + 1]))
    return float(np.median(ordered[start : start + count]))


def _phase_precision(fit: Fit) -> Tensor:
    """Precision of a weak object's phase, whatever its absorption (Schur): (H, W // 2 + 1)."""
    of_mu, mixed, of_phi = weak_normal(fit.weight, fit.model)
    return of_phi + fit.prior.spectrum[1] - mixed.square() / (of_mu + fit.prior.spectrum[0])


def _binned(image: Tensor, shape: tuple[int, int]) -> Tensor:
    return functional.adaptive_avg_pool2d(image[None, None], shape)[0, 0]
