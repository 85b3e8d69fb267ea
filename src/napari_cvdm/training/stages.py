"""The training stages: first the regression mean, then the denoiser with its schedule around it.

Each stage is a module whose forward pass is the whole loss. One wrapper around it (mixed precision,
several processes) therefore covers everything that needs a gradient.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from napari_cvdm.diffusion.loss import cvdm_loss, stratified_times
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.training.plan import Plan
from napari_cvdm.training.pool import Batch

LARGEST_TARGET = 5.0  # residual scales: a hopeless field must not fill the gradient
STEP_SEED_STRIDE = 7_919

Terms = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NoiseDraw:
    """Times (B, 1, 1, 1) and noise (B, 1, uY, uX) of a batch.

    They are a function of (seed, step) and do not depend on the process.
    """

    times: Tensor = field(repr=False)
    noise: Tensor = field(repr=False)

    @classmethod
    def of_step(cls, shape: Sequence[int], seed: int, step: int) -> "NoiseDraw":
        """Stratified times and normal noise for targets of a whole batch's shape."""
        generator = torch.Generator().manual_seed(seed * STEP_SEED_STRIDE + step)
        return cls(
            times=stratified_times(shape[0], generator),
            noise=torch.randn(tuple(shape), generator=generator),
        )

    def part(self, kept: slice, device: torch.device) -> "NoiseDraw":
        """What belongs to some patches of the batch, on their device."""
        return NoiseDraw(times=self.times[kept].to(device), noise=self.noise[kept].to(device))


class MeanObjective(nn.Module):
    """Regression loss: log(1 + weighted mean square error) of each patch.

    The error is that of initial estimate + mean residual against the truth. The logarithm bounds
    the effect of one bad patch on a step, and gives every patch a relative improvement as its goal.
    """

    def __init__(self, network: CVDM) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch, draw: NoiseDraw) -> Terms:
        """Loss terms of some patches; the draw is not needed."""
        error = batch.initial_estimate + self.network.mean_residual(batch.channels) - batch.truth
        return {
            "mean": torch.log1p(mean_square(error, batch.weight)).mean(),
            "baseline": torch.log1p(
                mean_square(batch.initial_estimate - batch.truth, batch.weight)
            ).mean(),
        }


class DiffusionObjective(nn.Module):
    """The losses of CVDM around a frozen mean, with closed-form derivatives of the schedule.

    sigma(x) is learned from the negative log-likelihood of a normal residual,
    log sigma + r^2 / (2 sigma^2) (Nix & Weigend 1994).
    """

    def __init__(self, network: CVDM, alpha: float) -> None:
        super().__init__()
        self.network, self.alpha = network, alpha

    def forward(self, batch: Batch, draw: NoiseDraw) -> Terms:
        """Loss terms of some patches; `schedule` is the paper's weighted sum."""
        network = self.network
        with torch.no_grad():
            correction = network.mean_residual(batch.channels)
            features = network.features(batch.channels, correction)
        # Nothing is learned where the truth is not known.
        std, known = (network.residual_std(features), batch.weight > 0)
        target = network.encode(batch.truth, batch.initial_estimate, correction, std) * known
        likelihood = (
            known * (torch.log(std / network.residual_scale) + target.square() / 2)
        ).sum() / known.sum().clamp(min=1)
        target = target.detach().clamp(-LARGEST_TARGET, LARGEST_TARGET)
        entered = network.first_layer_features(features)
        terms = cvdm_loss(
            lambda noisy, exponent: network.output(noisy, exponent, entered),
            network.prediction,
            network.rate(features),
            network.clock,
            target,
            draw.times,
            draw.noise,
            self.alpha,
        )
        named = {
            name: getattr(terms, name)
            for name in ("network", "noise", "prior", "smoothness", "boundary")
        }
        learned = {} if network.std_network is None else {"likelihood": likelihood}
        return {**named, "schedule": terms.schedule, **learned}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """What differs between the stages.

    Parameters
    ----------
    name : {"mean", "diffusion"}
    steps : int
    objective : Module
        (batch, draw) -> terms.
    routes : tuple of (str, list of Parameter)
        Which term gives which parameters their gradient.
    """

    name: str
    steps: int
    objective: MeanObjective | DiffusionObjective
    routes: tuple[tuple[str, list[nn.Parameter]], ...]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything that this stage trains."""
        return [parameter for _, parameters in self.routes for parameter in parameters]

    def begin(self) -> None:
        """Enable gradients for this stage's parameters only.

        With several processes, each waits for every gradient that may come.
        """
        for parameter in self.objective.parameters():
            parameter.requires_grad_(False)
        for parameter in self.parameters:
            parameter.requires_grad_(True)


def stages_of(network: CVDM, plan: Plan, part: str) -> tuple[Stage, ...]:
    """The stages of a training, without those that have no steps left.

    The denoiser learns from its own squared error with the schedule held fixed. sigma(x) learns
    from its likelihood. The schedule learns from the paper's losses with the denoiser held fixed.
    This takes one forward pass and two backward passes. `joint` gives denoiser and schedule one
    loss, as published.

    Parameters
    ----------
    network : CVDM
    plan : Plan
    part : {"all", "denoiser", "schedule"}
        What is trained; all but `all` leave the mean as it is.
    """
    denoiser = [] if network.denoiser is None else list(network.denoiser.parameters())
    schedule = network.schedule_parameters()
    std = [] if network.std_network is None else list(network.std_network.parameters())
    routes = {
        "all": (
            (("schedule", [*denoiser, *schedule]),)
            if plan.joint
            else (("network", denoiser), ("schedule", schedule))
        )
        + (("likelihood", std),),
        "denoiser": (("network", denoiser), ("likelihood", std)),
        "schedule": (("schedule", schedule),),
    }[part]
    mean = list(network.mean.parameters()) if network.mean is not None and part == "all" else []
    stages = (
        Stage(
            name="mean",
            steps=plan.mean_steps if mean else 0,
            objective=MeanObjective(network),
            routes=(("mean", mean),),
        ),
        Stage(
            name="diffusion",
            steps=plan.diffusion_steps if network.config.diffused else 0,
            objective=DiffusionObjective(network, plan.alpha),
            routes=tuple((term, parameters) for term, parameters in routes if parameters),
        ),
    )
    return tuple(stage for stage in stages if stage.steps)


def mean_square(error: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean square of each patch, shape (B,)."""
    return (weight * error.square()).mean(dim=(1, 2, 3))


@torch.no_grad()
def measured_residual_scale(network: CVDM, batches: Iterable[Batch]) -> Tensor:
    """The stored constant, measured on batches.

    It is the median over patches of the target's root mean square around its centre.
    """
    sizes = []
    for batch in batches:
        residual = batch.truth - network.target.centre(
            batch.initial_estimate, network.mean_residual(batch.channels)
        )
        known = (batch.weight > 0).float()
        sizes.append(
            (
                (residual.square() * known).sum(dim=(1, 2, 3))
                / known.sum(dim=(1, 2, 3)).clamp(min=1)
            ).sqrt()
        )
    return torch.cat(sizes).median().clamp(min=1e-6)
