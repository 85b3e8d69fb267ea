"""The training stages: first the regression mean, then the denoiser with its schedule around it.

The objective of a stage is a module whose forward pass is the whole loss. One wrapper around it
(mixed precision, several processes) therefore covers everything that needs a gradient. A `StageRun`
has the optimiser, the averaged weights, the best weights so far, and counters.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_cvdm.diffusion.loss import cvdm_loss, stratified_times
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.training.parallel import Processes, Routes, Terms
from napari_cvdm.training.pool import Batch
from napari_cvdm.training.recipe import Plan
from napari_cvdm.training.state import TrainingState

LARGEST_TARGET = 5.0  # residual scales: a hopeless field must not fill the gradient
STEP_SEED_STRIDE = 7_919
LARGEST_GRADIENT = 1.0
WARM_UP = 0.05
EXPLODED = 100.0  # times the usual length of the gradient: a step that would undo many
USUAL_AFTER = 20  # steps that must have been seen before any is called unusual
USUAL_DECAY = 0.98
MOST_SKIPPED = 10  # one after the other
DIFFUSION_TERMS = ("network", "noise", "prior", "smoothness", "boundary", "schedule")


class TrainingDiverged(ValueError):
    """Gradients were not finite or far too large many times in a row; the last state is good."""


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
        before = batch.initial_estimate - batch.truth
        error = batch.initial_estimate + self.network.mean_residual(batch.channels) - batch.truth
        return {
            name: torch.log1p((batch.weight * one.square()).mean(dim=(1, 2, 3))).mean()
            for name, one in (("mean", error), ("baseline", before))
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
            mean_residual = network.mean_residual(batch.channels)
            features = network.features(batch.channels, mean_residual)
        # Nothing is learned where the truth is not known.
        std, known = network.residual_std(features), batch.weight > 0
        target = network.encode(batch.truth, batch.initial_estimate, mean_residual, std) * known
        logarithms = known * (torch.log(std / network.residual_scale) + target.square() / 2)
        likelihood = logarithms.sum() / known.sum().clamp(min=1)
        first_layer = network.first_layer_features(features)
        losses = cvdm_loss(
            lambda noisy, neg_log_gamma: network.output(noisy, neg_log_gamma, first_layer),
            network.prediction,
            network.rate(features),
            network.clock,
            target.detach().clamp(-LARGEST_TARGET, LARGEST_TARGET),
            draw.times,
            draw.noise,
            self.alpha,
        )
        terms = {name: getattr(losses, name) for name in DIFFUSION_TERMS}
        return terms if network.std_network is None else {**terms, "likelihood": likelihood}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """What differs between the stages "mean" and "diffusion".

    The objective is (batch, draw) -> terms. The routes say which term gives which parameters their
    gradient.
    """

    name: str
    steps: int
    objective: MeanObjective | DiffusionObjective
    routes: Routes

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything that this stage trains."""
        return [parameter for _, parameters in self.routes for parameter in parameters]


def stages_of(network: CVDM, plan: Plan, part: str) -> tuple[Stage, ...]:
    """The stages of a training, without those that have no steps left.

    The denoiser learns from its own squared error with the schedule held fixed. sigma(x) learns
    from its likelihood. The schedule learns from the paper's losses with the denoiser held fixed.
    This takes one forward pass and two backward passes. `plan.joint` gives denoiser and schedule
    one loss, as published. `part` is one of `PARTS`; all but "all" leave the mean as it is.
    """
    denoiser = [] if network.denoiser is None else list(network.denoiser.parameters())
    schedule = network.schedule_parameters()
    std = [] if network.std_network is None else list(network.std_network.parameters())
    mean = list(network.mean.parameters()) if network.mean is not None and part == "all" else []
    routes: list[tuple[str, list[nn.Parameter]]]
    if part == "all" and plan.joint:
        routes = [("schedule", [*denoiser, *schedule]), ("likelihood", std)]
    else:
        routes = [("network", denoiser), ("schedule", schedule), ("likelihood", std)]
    fixed = {"denoiser": ("schedule",), "schedule": ("network", "likelihood")}.get(part, ())
    routes = [route for route in routes if route[1] and route[0] not in fixed]
    regression, denoising = MeanObjective(network), DiffusionObjective(network, plan.alpha)
    first = plan.mean_steps if mean else 0
    then = plan.diffusion_steps if network.config.diffused else 0
    stages = (
        Stage(name="mean", steps=first, objective=regression, routes=[("mean", mean)]),
        Stage(name="diffusion", steps=then, objective=denoising, routes=routes),
    )
    return tuple(stage for stage in stages if stage.steps)


@torch.no_grad()
def measure_residual_scale(network: CVDM, batches: Iterable[Batch]) -> Tensor:
    """The stored constant, measured on batches.

    It is the median over patches of the target's root mean square around its centre.
    """
    sizes = []
    for batch in batches:
        mean_residual = network.mean_residual(batch.channels)
        residual = batch.truth - network.centre(batch.initial_estimate, mean_residual)
        known = (batch.weight > 0).float()
        pixels = known.sum(dim=(1, 2, 3)).clamp(min=1)
        sizes.append(((residual.square() * known).sum(dim=(1, 2, 3)) / pixels).sqrt())
    return torch.cat(sizes).median().clamp(min=1e-6)


@dataclass(slots=True, kw_only=True)
class StageCounters:
    """Values of a stage that are neither weights nor functions of its step.

    They are saved with the state, so that a resumed run continues identically.

    Parameters
    ----------
    sums : dict of str to float
        Of the loss terms since the last line of the log.
    logged : int
        Step of that line.
    usual_gradient : float
        Running mean of the gradient's length.
    skipped, skipped_in_a_row : int
        Steps whose gradient could not be used.
    best : float
        Lowest score on held-out fields.
    """

    sums: dict[str, float] = field(default_factory=dict)
    logged: int = 0
    usual_gradient: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float | None = None
    best_step: int = 0
    looks_since_best: int = 0


class StageRun:
    """A stage and how far it is; `resumed` is what to go on from."""

    def __init__(
        self,
        stage: Stage,
        network: CVDM,
        plan: Plan,
        processes: Processes,
        resumed: TrainingState | None = None,
    ) -> None:
        # With several processes, each waits for every gradient that may come: only this stage's.
        stage.objective.requires_grad_(False)
        for parameter in stage.parameters:
            parameter.requires_grad_(True)
        self.stage, self.network, self._processes = stage, network, processes
        self._accelerator = processes.accelerator
        self._optimiser = torch.optim.AdamW(
            stage.parameters, lr=plan.learning_rate, weight_decay=1e-4, betas=(0.9, 0.99)
        )
        self._decay = self._one_cycle(plan.learning_rate, 0)
        self._average = AveragedModel(
            network, multi_avg_fn=get_ema_multi_avg_fn(plan.ema_decay), use_buffers=False
        )
        self._best: dict[str, Tensor] = {}
        self.counts = StageCounters()
        self.done = 0
        self.latest: Batch | None = None  # that was learned from
        if resumed is not None:
            self.done = resumed.restore(network, self._average, self._optimiser)
            self._decay = self._one_cycle(plan.learning_rate, self.done)
            self._best = resumed.part("best.")
            self.counts = StageCounters(**resumed.progress["counts"])
        # Its gradients are those of all processes.
        self._wrapped = self._accelerator.prepare_model(stage.objective, device_placement=False)

    def _one_cycle(self, peak: float, done: int) -> OneCycleLR:
        """Warm-up and cosine decay; the rate is a function of the step alone."""
        return OneCycleLR(
            self._optimiser,
            max_lr=peak,
            total_steps=self.stage.steps + 1,
            pct_start=WARM_UP,
            last_epoch=done - 1 if done else -1,
        )

    def step(self, parts: Iterable[tuple[Batch, NoiseDraw]]) -> None:
        """One step of the optimiser on all parts of this process's batch.

        Raise TrainingDiverged after too many unusable gradients in a row.
        """
        lines = self.accumulate(parts)
        # Over all processes, before it is cut.
        length = float(self._accelerator.clip_grad_norm_(self.stage.parameters, LARGEST_GRADIENT))
        counts = self.counts
        usual = self.done < USUAL_AFTER or length <= EXPLODED * counts.usual_gradient
        if isfinite(length) and usual:
            terms = {
                name: float(sum(line[name] for line in lines)) / len(lines) for name in lines[0]
            }
            terms["gradient"] = length
            decay = USUAL_DECAY if counts.usual_gradient else 0.0
            counts.usual_gradient = decay * counts.usual_gradient + (1 - decay) * length
            for name, value in terms.items():
                counts.sums[name] = counts.sums.get(name, 0.0) + value
            counts.skipped_in_a_row = 0
        else:
            self._skip(length)
        self._optimiser.step()
        self._decay.step()
        self._average.update_parameters(self.network)
        self.done += 1

    def accumulate(self, parts: Iterable[tuple[Batch, NoiseDraw]]) -> list[Terms]:
        """Leave the gradient of the whole batch on the parameters; the loss terms of each part."""
        self._optimiser.zero_grad(set_to_none=True)
        lines = []
        for batch, draw in parts:
            # Gradients are exchanged with the last part.
            with self._accelerator.accumulate(self._wrapped):
                terms: Terms = self._wrapped(batch, draw)
                lines.append(self._processes.backward(terms, self.stage.routes))
            self.latest = batch
        return lines

    def _skip(self, length: float) -> None:
        # Without gradients the optimiser leaves everything as it is.
        self._optimiser.zero_grad(set_to_none=True)
        self.counts.skipped += 1
        self.counts.skipped_in_a_row += 1
        if self.counts.skipped_in_a_row >= MOST_SKIPPED:
            raise TrainingDiverged(
                f"the gradient of the {self.stage.name} stage could not be used {MOST_SKIPPED} "
                f"times in a row (its length is {length:.3g}), step {self.done}; "
                "what was saved before is good. Try a smaller learning_rate, or precision fp32."
            )

    def line(self) -> dict[str, float]:
        """Mean loss terms since the last line, over all processes, and the learning rate.

        It starts a new line.
        """
        counts, count = self.counts, max(1, self.done - self.counts.logged)
        names = tuple(counts.sums)
        means: list[float] = []
        if names:
            own = torch.tensor([counts.sums[name] / count for name in names], dtype=torch.float64)
            means = self._accelerator.reduce(own, "mean").tolist()
        counts.sums, counts.logged = {}, self.done
        rate = float(self._decay.get_last_lr()[0])  # of the next step
        return {"learning_rate": rate, **dict(zip(names, means, strict=True))}

    def averaged(self) -> CVDM:
        """The averaged weights, with the network's own buffers.

        The residual scale, one of the buffers, is measured and not trained.
        """
        kept = self._average.module
        if not isinstance(kept, CVDM):
            raise TypeError(f"averaged {type(kept).__name__}, not a CVDM")
        kept.residual_scale.copy_(self.network.residual_scale)
        return kept

    def look(self, score: float) -> None:
        """Remember the averaged weights if no earlier ones scored as low."""
        counts = self.counts
        if score < (inf if counts.best is None else counts.best):
            counts.best, counts.best_step, counts.looks_since_best = score, self.done, 0
            weights = self.averaged().state_dict()
            self._best = {name: tensor.detach().clone() for name, tensor in weights.items()}
        else:
            counts.looks_since_best += 1

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, by name."""
        named = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        named |= {f"average.{name}": tensor for name, tensor in self._average.state_dict().items()}
        named |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        for index, entry in self._optimiser.state_dict()["state"].items():
            named |= {f"optimiser.{index}.{name}": value for name, value in entry.items()}
        return named

    def progress(self) -> dict[str, Any]:
        """The rest of it, as plain values."""
        return {"stage": self.stage.name, "step": self.done, "counts": asdict(self.counts)}

    def finish(self) -> None:
        """Leave the best weights in the network, or the averaged ones where nobody looked."""
        self.network.load_state_dict(self._best or self.averaged().state_dict())
