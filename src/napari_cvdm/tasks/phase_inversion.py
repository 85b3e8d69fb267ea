"""Inversion of the physics of a phase field.

The results are the border that explains the planes, the estimate, its posterior width and the
misfit. Two hypotheses about the surroundings of the frame are fitted: unknown surroundings on a
larger canvas, and a field that repeats (as an isolated object in a flat background does). The
better one is taken. A cell-free background in it is made flat, and its prior follows its edges.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.noise import noise_field
from napari_cvdm.core.result import name_stages
from napari_cvdm.inversion import (
    Fit,
    Solving,
    draw_around,
    fit_local_prior,
    fit_object,
    flatten_background,
    log_evidence,
    misfit_and_penalty,
)
from napari_cvdm.inversion.background import densest_value
from napari_cvdm.inversion.gauss_newton import weighted_squares
from napari_cvdm.physics.forward_model import PhaseForwardModel, PhaseObject, canvas_shape

EQUAL_GAIN = -0.003  # of a measured value: the smaller canvas is taken where the gain is nothing
# More than evidence counts it, since a prior that is too wide makes the complexity too large
# (`python -m paper.phase_inversion`).
COST_SHARE = 0.5
# Of a measured value after a first look. Costs fall by less than this afterwards, and evidence is
# against such fields, too (`python -m paper.phase_inversion borders`).
HOPELESS_COST = 0.1
FIRST_LOOK, LAST_ROUNDS = ((2.0, 2, 10),), ((1.0, 5, 12),)
# Noise belongs to absolute pixels, and a canvas begins before the first of the frame.
NOISE_ORIGIN = 1 << 20
DATA_STEP, PRIOR_STEP = 1 << 16, 1 << 17  # of `noise_field`: beyond the steps of a sampler


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhaseEstimate:
    """One field after the inversion.

    Parameters
    ----------
    fit : Fit
        Without batch dimension.
    other : Tensor of shape (h, w)
        Phase [rad] under the hypothesis about the border that was not taken.
    periodic : bool
        Whether the field was taken for one that repeats.
    """

    fit: Fit
    other: Tensor = field(repr=False)
    periodic: bool


Inverting = Generator[str, None, PhaseEstimate]


def invert_planes(
    planes: Tensor,
    weight: Tensor,
    defocus_um: Sequence[float],
    microscope: Microscope,
    condenser_na: float = 0.0,
) -> Inverting:
    """Fit the whole image formation to the planes of one field, step by step.

    `planes` (P, h, w) are intensities over the blank field, at signed positions [um]. `weight` (P,
    h, w) is one over the variance of each pixel, 0 where nothing was measured.
    """
    surrounded = yield from fit_surrounded(planes, weight, defocus_um, microscope, condenser_na)
    repeating = yield from fit_periodic(
        planes, weight, defocus_um, microscope, condenser_na, surrounded
    )
    periodic = (
        is_worth_a_fit(repeating, surrounded)
        and (yield from name_stages("borders", border_gain(repeating, surrounded))) > EQUAL_GAIN
    )
    taken, other = (repeating, surrounded) if periodic else (surrounded, repeating)
    yield "flat background"
    flat = yield from name_stages("flat background", flatten_background(taken))
    fit = yield from fit_local_prior(flat)
    return PhaseEstimate(fit=fit, other=other.phase, periodic=periodic)


def fit_surrounded(
    planes: Tensor,
    weight: Tensor,
    defocus_um: Sequence[float],
    microscope: Microscope,
    condenser_na: float,
) -> Solving:
    """Fit with unknown surroundings alone; parameters as of `invert_planes`."""
    frame = (planes.shape[-2], planes.shape[-1])
    canvas = canvas_shape(frame, defocus_um, microscope)
    model = PhaseForwardModel.create(
        frame, defocus_um, microscope, canvas_shape=canvas, condenser_na=condenser_na, like=planes
    )
    return (yield from fit_object(model, planes, weight))


def fit_periodic(
    planes: Tensor,
    weight: Tensor,
    defocus_um: Sequence[float],
    microscope: Microscope,
    condenser_na: float,
    surrounded: Fit,
) -> Solving:
    """Fit a field that repeats, from a fit with unknown surroundings, unless it is hopeless."""
    frame = (planes.shape[-2], planes.shape[-1])
    model = PhaseForwardModel.create(
        frame, defocus_um, microscope, condenser_na=condenser_na, like=planes
    )
    rows, columns = surrounded.model.frame
    inner = replace(
        surrounded.estimate, maps=surrounded.estimate.maps[..., rows, columns].contiguous()
    )
    fit = yield from fit_object(model, planes, weight, (inner, surrounded.laws), FIRST_LOOK)
    if not is_worth_a_fit(fit, surrounded):
        return fit
    return (yield from fit_object(model, planes, weight, (fit.estimate, fit.laws), LAST_ROUNDS))


def is_worth_a_fit(repeating: Fit, surrounded: Fit) -> bool:
    """Whether a periodic field after its first look costs little more than unknown surroundings."""
    return float(misfit_and_penalty(repeating) - misfit_and_penalty(surrounded)) < HOPELESS_COST


def border_gain(repeating: Fit, surrounded: Fit) -> Generator[str, None, float]:
    """How much better a field that repeats explains the planes, per measured value; step by step.

    It is the difference in log-evidence, with more weight on misfit and penalty.
    """
    cost = float(misfit_and_penalty(repeating) - misfit_and_penalty(surrounded))
    of_repeating = yield from log_evidence(repeating)
    of_surrounded = yield from log_evidence(surrounded)
    return float(of_repeating - of_surrounded) - COST_SHARE * cost


def invert_surrounded(
    planes: Tensor,
    weight: Tensor,
    defocus_um: Sequence[float],
    microscope: Microscope,
    condenser_na: float,
) -> Inverting:
    """The estimate of a part, whose border never repeats; parameters as of `invert_planes`."""
    surrounded = yield from fit_surrounded(planes, weight, defocus_um, microscope, condenser_na)
    fit = yield from fit_local_prior(surrounded)
    return PhaseEstimate(fit=fit, other=fit.phase, periodic=False)


def white_noise(
    model: PhaseForwardModel, seed: int, streams: Sequence[int], first: tuple[int, int] = (0, 0)
) -> tuple[Tensor, PhaseObject, Tensor]:
    """White noise for `draw_around`, one draw for each stream.

    It is the same at the same absolute pixel. `first` is the absolute position of the frame's first
    pixel.
    """
    like, (rows, columns) = model.terms, model.frame
    inside = NOISE_ORIGIN + first[0], NOISE_ORIGIN + first[1]
    start = inside[0] - rows.start, inside[1] - columns.start

    def draw(shape: tuple[int, int], step: int, count: int, origin: tuple[int, int]) -> Tensor:
        fields = [
            noise_field(shape, seed=seed, sample=stream, step=step + number, origin=origin)
            for stream, number in product(streams, range(count))
        ]
        return torch.from_numpy(np.stack(fields)).unflatten(0, (len(streams), count)).to(like)

    maps = draw(model.canvas_shape, PRIOR_STEP, 2, start)
    coefficients = draw((model.planes, len(like)), PRIOR_STEP + 2, 1, (0, 0))[:, 0]
    data = draw((like.shape[-2], like.shape[-1]), DATA_STEP, model.planes, inside)
    pixels = draw(model.canvas_shape, PRIOR_STEP + 3, 4, start)
    return data, PhaseObject(maps=maps, illumination=coefficients), pixels


def draw_phases(
    fit: Fit, seed: int, streams: Sequence[int], first: tuple[int, int] = (0, 0)
) -> Generator[str, None, Tensor]:
    """Draws about the estimate, less it, on the canvas (S, H, W) [rad]; solved step by step."""
    drawn = yield from draw_around(fit, *white_noise(fit.model, seed, streams, first))
    return drawn.maps[:, 1]


WIDTH_DRAWS = 4
WIDTH_PX, MISFIT_PX = 4.0, 3.0
LEAST_SEEN = 0.05  # of a neighbourhood, to say how well it is explained


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhaseMaps:
    """Maps of the inversion of one field, on the canvas (H, W).

    For a training field, these are the maps that are kept on disk.

    Parameters
    ----------
    phase : ndarray [rad]
        The estimate.
    absorption : ndarray
        Log-amplitude.
    width : ndarray [rad]
        Standard deviation of the posterior of the physics, without that of the mean over the frame.
    pull : ndarray [1/rad]
        J^T W r of the phase, the pull of the data against the prior.
    pull_absorption : ndarray
        The same of the log-amplitude.
    border_difference : ndarray [rad]
        Estimate under the other hypothesis about the border, less this one; 0 outside the frame.
    misfit : ndarray
        Squared residual in noise variances, averaged over planes and a neighbourhood; 1 where
        nothing was measured.
    frame : tuple of slice
        The part of the canvas that the camera saw.
    fresnel : float
        Largest |lambda z| / (n px^2) of the planes.
    noise : float
        Standard deviation of the noise over the blank field.
    """

    phase: np.ndarray = field(repr=False)
    absorption: np.ndarray = field(repr=False)
    width: np.ndarray = field(repr=False)
    pull: np.ndarray = field(repr=False)
    pull_absorption: np.ndarray = field(repr=False)
    border_difference: np.ndarray = field(repr=False)
    misfit: np.ndarray = field(repr=False)
    frame: tuple[slice, slice]
    fresnel: float
    noise: float


def phase_maps(estimate: PhaseEstimate, fresnel: float, draws: np.ndarray) -> PhaseMaps:
    """The maps of an estimate; the width is a local average over draws (S, H, W) [rad]."""
    fit, (rows, columns) = estimate.fit, estimate.fit.model.frame
    draws = draws - draws[:, rows, columns].mean(axis=(-2, -1), keepdims=True)
    width = np.sqrt(gaussian_filter(np.square(draws).mean(axis=0), WIDTH_PX, mode="wrap"))
    pull = fit.model.adjoint(fit.linearisation, fit.weight * fit.residual).maps.cpu().numpy()
    squares, seen, difference = (np.zeros(fit.model.canvas_shape, np.float32) for _ in range(3))
    squares[rows, columns] = weighted_squares(fit.weight, fit.residual).mean(dim=0).cpu().numpy()
    seen[rows, columns] = (fit.weight > 0).cpu().numpy().mean(axis=0)
    share = gaussian_filter(seen, MISFIT_PX)
    misfit = np.where(
        share > LEAST_SEEN, gaussian_filter(squares, MISFIT_PX) / np.maximum(share, LEAST_SEEN), 1.0
    )
    gap = (estimate.other - fit.phase).cpu().numpy()
    difference[rows, columns] = gap - gap.mean()
    known = fit.weight[fit.weight > 0]
    return PhaseMaps(
        phase=fit.estimate.maps[1].cpu().numpy(),
        absorption=fit.estimate.maps[0].cpu().numpy(),
        width=width,
        pull=pull[1],
        pull_absorption=pull[0],
        border_difference=difference,
        misfit=misfit.astype(np.float32),
        frame=fit.model.frame,
        fresnel=fresnel,
        noise=float(known.mean()) ** -0.5,
    )


FLATNESS_RAD = 0.05  # what real medium and glass still vary by
LEAST_BACKGROUND = 0.1  # of the frame at the commonest phase: less is no background


def find_background(phase: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Mean of the cell-free background of a phase (Y, X) [rad], where it is, and its share.

    It is the whole field where there is none. The share is that of the field within `FLATNESS_RAD`
    of its commonest phase.
    """
    flat = np.abs(phase - densest_value(phase)) < FLATNESS_RAD
    share = float(flat.mean())
    background = flat if share >= LEAST_BACKGROUND else np.ones(phase.shape, dtype=bool)
    return float(phase[background].mean()), background, share
