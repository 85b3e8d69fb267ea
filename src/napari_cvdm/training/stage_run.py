"""One running stage: its optimiser, averaged weights, best weights so far, and counters."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.training.parallel import Processes
from napari_cvdm.training.plan import Plan
from napari_cvdm.training.pool import Batch
from napari_cvdm.training.stages import NoiseDraw, Stage, Terms
from napari_cvdm.training.state import TrainingState

LARGEST_GRADIENT = 1.0
WARM_UP = 0.05
EXPLODED = 100.0  # times the usual length of the gradient: a step that would undo many
USUAL_AFTER = 20  # steps that must have been seen before any is called unusual
USUAL_DECAY = 0.98
MOST_SKIPPED = 10  # one after the other


class TrainingDiverged(ValueError):
    """Gradients were not finite or far too large many times in a row; the last state is good."""


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
    best_step, looks_since_best : int
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
    """A stage and how far it is.

    Parameters
    ----------
    stage : Stage
    network : CVDM
    plan : Plan
    processes : Processes
    resumed : TrainingState, optional
        What to go on from.
    """

    def __init__(
        self,
        stage: Stage,
        network: CVDM,
        plan: Plan,
        processes: Processes,
        resumed: TrainingState | None = None,
    ) -> None:
        stage.begin()
        self.stage, self.network, self._processes = stage, network, processes
        self._optimiser = torch.optim.AdamW(
            stage.parameters, lr=plan.learning_rate, weight_decay=1e-4, betas=(0.9, 0.99)
        )
        self._decay = one_cycle(self._optimiser, plan.learning_rate, stage.steps, 0)
        self._average = AveragedModel(
            network, multi_avg_fn=get_ema_multi_avg_fn(plan.ema_decay), use_buffers=False
        )
        self._best: dict[str, Tensor] = {}
        self.counts = StageCounters()
        self.done = 0
        self.latest: Batch | None = None  # that was learned from
        if resumed is not None:
            self.done = resumed.restore(network, self._average, self._optimiser)
            self._decay = one_cycle(self._optimiser, plan.learning_rate, stage.steps, self.done)
            self._best, self.counts = (
                resumed.part("best."),
                StageCounters(**resumed.progress["counts"]),
            )
        self._wrapped = processes.wrap(stage.objective)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self._decay.get_last_lr()[0])

    def step(self, parts: Iterable[tuple[Batch, NoiseDraw]]) -> None:
        """One step of the optimiser on all parts of this process's batch.

        Raise TrainingDiverged after too many unusable gradients in a row.
        """
        lines = self.accumulate(parts)
        length = self._processes.clipped(self.stage, LARGEST_GRADIENT)
        if self._usable(length):
            self._count(
                {
                    **{
                        name: float(sum(line[name] for line in lines)) / len(lines)
                        for name in lines[0]
                    },
                    "gradient": length,
                }
            )
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
            with self._processes.accumulating(self._wrapped):
                lines.append(self._processes.backward(self._wrapped, self.stage, batch, draw))
            self.latest = batch
        return lines

    def _usable(self, length: float) -> bool:
        return isfinite(length) and (
            self.done < USUAL_AFTER or length <= EXPLODED * self.counts.usual_gradient
        )

    def _count(self, terms: dict[str, float]) -> None:
        counts = self.counts
        usual = USUAL_DECAY if counts.usual_gradient else 0.0
        counts.usual_gradient = usual * counts.usual_gradient + (1 - usual) * terms["gradient"]
        counts.sums = {name: counts.sums.get(name, 0.0) + value for name, value in terms.items()}
        counts.skipped_in_a_row = 0

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
        means = (
            self._processes.mean(
                torch.tensor([counts.sums[name] / count for name in names], dtype=torch.float64)
            ).tolist()
            if names
            else []
        )
        counts.sums, counts.logged = {}, self.done
        return {"learning_rate": self.learning_rate, **dict(zip(names, means, strict=True))}

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
            self._best = {
                name: tensor.detach().clone()
                for name, tensor in self.averaged().state_dict().items()
            }
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


def one_cycle(optimiser: Optimizer, peak: float, steps: int, done: int) -> OneCycleLR:
    """Warm-up and cosine decay over `steps`, of which `done` are behind.

    The rate is a function of the step alone.
    """
    return OneCycleLR(
        optimiser,
        max_lr=peak,
        total_steps=steps + 1,
        pct_start=WARM_UP,
        last_epoch=done - 1 if done else -1,
    )
