"""Draws from the Gaussian about a fit, by perturb and solve.

With white e_1 and e_2, the draw

    x + (J^T W J + C^-1)^-1 (J^T W^1/2 e_1 + C^-1/2 e_2)

has the covariance (J^T W J + C^-1)^-1 (Papandreou and Yuille, NIPS 2010; Orieux, Feron,
Giovannelli, IEEE Signal Process. Lett. 19, 251 (2012)).
"""

import torch

from napari_cvdm.inversion.gauss_newton import Fit, solve_normal
from napari_cvdm.physics.forward_model import PhaseObject

SOLVE_STEPS = 25


def draw_around(
    fit: Fit, data_noise: torch.Tensor, prior_noise: PhaseObject, pixel_noise: torch.Tensor
) -> PhaseObject:
    """Differences from the estimate, one for each draw of noise.

    Parameters
    ----------
    fit : Fit
        Of one field, or of as many as there is noise.
    data_noise : Tensor of shape (S, P, h, w)
        White.
    prior_noise : PhaseObject
        White, maps (S, 2, H, W) and illumination (S, P, K).
    pixel_noise : Tensor of shape (S, 4, H, W)
        White; for a flat background and a local prior.

    Returns
    -------
    PhaseObject
        With leading dimension S.
    """
    right = fit.model.adjoint(fit.linearisation, fit.weight.sqrt() * data_noise).add(
        fit.prior.precision_root(prior_noise, pixel_noise)
    )
    return solve_normal(fit.model, fit.linearisation, fit.weight, fit.prior, right, SOLVE_STEPS)
