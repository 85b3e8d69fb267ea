"""A prior from the estimate itself, tight where a phase is smooth and wide at its edges.

Edges have few pixels, and the data determine them well. A phase that may be steep and bent only
there has little freedom left at the low spatial frequencies that the data leave undetermined. The
variances of gradient and Laplacian at each pixel are those of the estimate around it. Estimate and
variances are updated in turn. This is close to iteratively reweighted least squares for the
logarithmic penalty sum s log(v + <|D phi|^2>) / 2 of first and second differences (Daubechies et
al., Commun. Pure Appl. Math. 63, 1 (2010); both orders as in Bredies, Kunisch, Pock, SIAM J.
Imaging Sci. 3, 492 (2010)).
"""

from dataclasses import replace

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from napari_cvdm.inversion.gauss_newton import Fit, Solving, solve_round
from napari_cvdm.inversion.priors import LocalPrecision, gradients, laplacian

SPECTRUM_SHARE = 0.3  # of the stationary prior of the phase; the local one takes its place
GRADIENT_SHARE, CURVATURE_SHARE = 0.03, 0.5  # s: neighbouring differences are not independent
# Roots of v [rad/px, rad/px^2]: what noise leaves of smooth places.
LEAST_GRADIENT, LEAST_CURVATURE = 0.05, 0.05
NEIGHBOURHOOD_PX = 2.0
ROUNDS, INNER_STEPS = 8, 25


def fit_local_prior(fit: Fit) -> Solving:
    """The fit of one field with a prior that follows its edges.

    Parameters
    ----------
    fit : Fit
        Without batch dimension.

    Yields
    ------
    str
        What was done, after every round.

    Returns
    -------
    Fit
        Its `prior.local` says how smooth each pixel is.
    """
    spectrum = torch.stack([fit.prior.spectrum[0], SPECTRUM_SHARE * fit.prior.spectrum[1]])
    prior = replace(fit.prior, spectrum=spectrum)
    for number in range(ROUNDS):
        fit = solve_round(
            replace(fit, prior=replace(prior, local=measure_local_precision(fit))), INNER_STEPS
        )
        yield f"edges, round {number + 1}"
    return fit


def measure_local_precision(fit: Fit) -> LocalPrecision:
    """s / (v + <|D phi|^2>) of the estimate at each pixel.

    Outside the frame, where no data show an edge, it is the harmonic mean over the frame.
    """
    phase = fit.estimate.maps[1]
    steepness, bend = gradients(phase).square().sum(dim=0), laplacian(phase).square()
    return LocalPrecision(
        gradient=_invert(steepness, GRADIENT_SHARE, LEAST_GRADIENT, fit.model.frame),
        curvature=_invert(bend, CURVATURE_SHARE, LEAST_CURVATURE, fit.model.frame),
    )


def _invert(squares: Tensor, share: float, least: float, frame: tuple[slice, slice]) -> Tensor:
    variance = (
        torch.from_numpy(gaussian_filter(squares.cpu().numpy(), NEIGHBOURHOOD_PX, mode="wrap")).to(
            squares
        )
        + least**2
    )
    everywhere = variance[frame].mean().expand_as(variance).clone()
    everywhere[frame] = variance[frame]
    return share / everywhere
