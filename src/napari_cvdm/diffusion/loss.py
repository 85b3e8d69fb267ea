"""The losses of CVDM (arXiv 2312.02246, section 3), in closed form for a tied, separable schedule.

gamma = exp(-lambda T), so d gamma/dt = -beta gamma holds identically. The paper's L_beta is
therefore zero except for its terms at the ends.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_cvdm.diffusion.process import Prediction, add_noise

PRIOR_WEIGHT = 2.0
SMOOTHNESS_WEIGHT = 2.0

Network = Callable[[Tensor, Tensor], Tensor]
"""(noisy, neg_log_gamma) -> output, all of shape (B, C, Y, X)."""

Clock = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""t of any shape -> T, dT/dt, d2T/dt2 of that shape."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossTerms:
    """The terms of one batch, scalars.

    Parameters
    ----------
    network : Tensor
        Squared error of the network's output: what trains the denoiser.
    noise : Tensor
        The paper's noise loss |eps_hat - eps|^2: what trains the schedule, with the two below.
    prior : Tensor
        KL(q(z_1 | y) || N(0, I)).
    smoothness : Tensor
        L_gamma: mean of alpha (gamma'')^2.
    boundary : Tensor
        What is left of L_beta in a tied schedule, gamma(1)^2; a diagnostic, part of no loss.
    """

    network: Tensor
    noise: Tensor
    prior: Tensor
    smoothness: Tensor
    boundary: Tensor

    @property
    def schedule(self) -> Tensor:
        """Loss of the schedule: noise + 2 prior + 2 smoothness (the paper's weights)."""
        # Without L_gamma, gamma would fall at once: pure noise is easiest to predict.
        return self.noise + PRIOR_WEIGHT * self.prior + SMOOTHNESS_WEIGHT * self.smoothness


def prior_divergence(target: Tensor, neg_log_gamma_at_end: Tensor) -> Tensor:
    """KL(N(a y, s^2) || N(0, 1)) = 1/2 mean(gamma y^2 - gamma - log(1 - gamma)), gamma at t = 1."""
    # The official code has the two distributions the other way round.
    gamma = torch.exp(-neg_log_gamma_at_end)
    return (gamma * target.square() - gamma - torch.log1p(-gamma)).mean() / 2


def gamma_second_derivative(
    rate: Tensor, clock: Tensor, clock_speed: Tensor, clock_acceleration: Tensor
) -> Tensor:
    """d2 gamma/dt2 = (lambda^2 T'^2 - lambda T'') gamma."""
    return (rate.square() * clock_speed.square() - rate * clock_acceleration) * torch.exp(
        -rate * clock
    )


def cvdm_loss(
    network: Network,
    prediction: Prediction,
    rate: Tensor,
    clock: Clock,
    target: Tensor,
    times: Tensor,
    noise: Tensor,
    alpha: float,
) -> LossTerms:
    """All loss terms of one batch.

    `rate` is lambda(x), `target` is centred and scaled, and `noise` is standard normal, all (B, 1,
    Y, X). `times` (B, 1, 1, 1) lie in (0, 1). `alpha` is the weight of L_gamma (1e-3 in the paper).
    """
    value, speed, acceleration = clock(times)
    neg_log_gamma = rate * value
    output = network(add_noise(target, neg_log_gamma, noise), neg_log_gamma)
    error = output - prediction.wanted(target, neg_log_gamma, noise)
    bend = gamma_second_derivative(rate, value, speed, acceleration)
    return LossTerms(
        network=error.square().mean(),
        noise=prediction.noise_error(error, neg_log_gamma).square().mean(),
        prior=prior_divergence(target, rate),
        smoothness=alpha * bend.square().mean(),
        boundary=torch.exp(-2 * rate).mean(),
    )


def stratified_times(batch: int, generator: torch.Generator) -> Tensor:
    """One time t per patch, each in one of B equal strata of (0, 1), shape (B, 1, 1, 1).

    Stratified times have less variance than independent draws.
    """
    offsets = torch.rand(batch, generator=generator)
    times = (torch.arange(batch) + offsets) / batch
    # At t = 0 there is no noise, and log(a / s) is infinite.
    return times.clamp(1e-5, 1 - 1e-5)[:, None, None, None]
