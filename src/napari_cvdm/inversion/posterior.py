"""What is probable about a fit: draws from the Gaussian around it, and the evidence of the data.

With white e_1 and e_2, the draw

    x + (J^T W J + C^-1)^-1 (J^T W^1/2 e_1 + C^-1/2 e_2)

has the covariance (J^T W J + C^-1)^-1 (Papandreou and Yuille, NIPS 2010; Orieux, Feron,
Giovannelli, IEEE Signal Process. Lett. 19, 251 (2012)). The evidence decides between two image
formations.
"""

from collections.abc import Generator

import torch
from torch import Tensor

from napari_cvdm.inversion.gauss_newton import Changing, Fit, solve_normal, weighted_squares
from napari_cvdm.inversion.priors import filter_maps
from napari_cvdm.physics.forward_model import PhaseObject

SOLVE_STEPS = 25
LANCZOS_STEPS = 25


def draw_around(
    fit: Fit, data_noise: torch.Tensor, prior_noise: PhaseObject, pixel_noise: torch.Tensor
) -> Changing:
    """Differences from the estimate, one for each draw of noise; solved step by step.

    All noise is white: `data_noise` (S, P, h, w), maps (S, 2, H, W) and illumination (S, P, K) of
    `prior_noise`, and `pixel_noise` (S, 4, H, W) for a flat background and a local prior. The fit
    is that of one field, or of S of them.
    """
    right = fit.model.adjoint(fit.linearisation, fit.weight.sqrt() * data_noise).add(
        fit.prior.precision_root(prior_noise, pixel_noise)
    )
    return solve_normal(fit.model, fit.linearisation, fit.weight, fit.prior, right, SOLVE_STEPS)


def log_evidence(fit: Fit) -> Generator[str, None, Tensor]:
    """Log-probability per measured value by Laplace's method, shape (...); step by step.

    It holds up to a constant of the data and is

        -(r^T W r / 2 + x^T C^-1 x / 2 + log det (1 + W^1/2 J C J^T W^1/2) / 2) / n - log(noise) / 2

    (MacKay, Neural Comput. 4, 415 (1992)).
    """
    return -misfit_and_penalty(fit) - (yield from log_determinant(fit)) / 2


def misfit_and_penalty(fit: Fit) -> Tensor:
    """What is minimised, for a measured value, and the logarithm of the noise; shape (...)."""
    squares = weighted_squares(fit.weight, fit.residual).sum(dim=(-3, -2, -1))
    cost = squares / 2 + fit.prior.penalty(fit.estimate)
    return cost / _measured(fit) + fit.laws.noise.log() / 2


def log_determinant(fit: Fit, steps: int = LANCZOS_STEPS) -> Generator[str, None, Tensor]:
    """log det (1 + W^1/2 J C J^T W^1/2) per measured value, shape (...); step by step.

    The method uses one random vector of signs and `steps` steps of Lanczos in double precision
    (Ubaru, Chen, Saad, SIAM J. Matrix Anal. Appl. 38, 1075 (2017)). The vector is the same for
    every fit with the same number of pixels.
    """
    root, model = fit.weight.double().sqrt(), fit.model.double()
    spectrum = fit.prior.spectrum.double()
    maps, illumination = fit.estimate.maps.double(), fit.estimate.illumination.double()
    at = model.linearise(PhaseObject(maps=maps, illumination=illumination))

    def apply(data: Tensor) -> Tensor:
        back = model.adjoint(at, root * data)
        likely = PhaseObject(
            maps=filter_maps(back.maps, 1 / spectrum),
            illumination=back.illumination / fit.prior.illumination,
        )
        return data + root * model.derivative(at, likely)

    signs = torch.randint(2, fit.weight.shape[-3:], generator=torch.Generator().manual_seed(0)).to(
        root
    )
    # Of length 1, so that the quadrature gives the trace per measured value.
    vectors = [(2 * signs - 1) * (fit.weight > 0) / _measured(fit).sqrt()[..., None, None, None]]
    diagonal, beside = [], []
    for number in range(steps):
        yield f"step {number + 1} of {steps}"
        image = apply(vectors[-1])
        diagonal.append((image * vectors[-1]).sum(dim=(-3, -2, -1)))
        # With the last two alone, the result would depend on the order of summation.
        for vector in vectors:
            image = image - (image * vector).sum(dim=(-3, -2, -1), keepdim=True) * vector
        size = image.square().sum(dim=(-3, -2, -1), keepdim=True).sqrt()
        beside.append(size[..., 0, 0, 0])
        vectors.append(image / size.clamp(min=torch.finfo(size.dtype).tiny))
    off = torch.diag_embed(torch.stack(beside[:-1], dim=-1), offset=1)
    values, shares = torch.linalg.eigh(
        torch.diag_embed(torch.stack(diagonal, dim=-1)) + off + off.mT
    )
    # Gauss quadrature; no eigenvalue of 1 + W^1/2 J C J^T W^1/2 is below 1.
    return (shares[..., 0, :].square() * values.clamp(min=1).log()).sum(dim=-1)


def _measured(fit: Fit) -> Tensor:
    return (fit.weight > 0).sum(dim=(-3, -2, -1)).clamp(min=1)
