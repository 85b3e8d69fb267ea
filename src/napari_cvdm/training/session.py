"""Everything that a training works with: network, data, held-out fields, log and folder."""

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_cvdm.core.request import TrainRequest
from napari_cvdm.core.result import Progress
from napari_cvdm.io.atomic import LEFTOVERS_BELOW, clear_leftovers, sole_writer
from napari_cvdm.models.checkpoint import ModelCard, save_checkpoint
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.models.registry import load_model
from napari_cvdm.models.tiled import channels_last
from napari_cvdm.training.card import make_card
from napari_cvdm.training.health import (
    Finding,
    gradient_findings,
    overfitting_findings,
    schedule_findings,
    spread_findings,
)
from napari_cvdm.training.parallel import Processes, is_first_process
from napari_cvdm.training.pool import Batch, FieldPool
from napari_cvdm.training.recipe import Recipe
from napari_cvdm.training.stages import (
    NoiseDraw,
    Stage,
    StageRun,
    measure_residual_scale,
    stages_of,
)
from napari_cvdm.training.state import SO_FAR, RunLog, TrainingState, save_state
from napari_cvdm.training.validation import Preview, Score, make_preview, score_network

SCALE_BATCHES = 24

Parts = list[tuple[Batch, NoiseDraw]]


class Session:
    """One training, in one of its processes.

    `start` is the score of the model that a fine-tuning begins with. `offset` is the number of
    steps of the stages before: data go on from stage to stage, they do not begin anew.
    """

    def __init__(
        self,
        request: TrainRequest,
        recipe: Recipe,
        resumed: TrainingState | None,
        said: Callable[[Progress], object] = lambda progress: None,
    ) -> None:
        plan, self._said = recipe.plan, said
        self.recipe, self._recipe_path, self._out = recipe, request.recipe, Path(request.out)
        self._processes = Processes(request.device, plan.precision, plan.accumulate, plan.batch)
        self.network = channels_last(first_network(recipe), self._processes.device)
        part = "all" if recipe.start is None else recipe.start.part
        self._learns_mean = part == "all"
        self.stages = stages_of(self.network, plan, part)
        split = recipe.split()
        self._pool = FieldPool(
            split.training,
            plan.pool_fields,
            plan.fields_per_step,
            recipe.seed,
            foreground=plan.foreground,
            blank=plan.blank,
        )
        held_out = split.held_out if recipe.validation.every else ()
        self._held_out = []
        for number, make in enumerate(held_out):
            said(Progress(stage="preparing held-out fields", done=number, total=len(held_out)))
            self._held_out.append(make())
        self.offset = 0
        self.start: Score | None = None
        if recipe.start is not None and self._held_out:
            said(Progress(stage="scoring the model to start from", done=0, total=0))
            known = None if resumed is None else Score(**resumed.progress["start"])
            self.start = known or self._score(self.network)
        self._out.mkdir(parents=True, exist_ok=True)
        self._closing = ExitStack()
        self._log: RunLog | None = None
        if is_first_process():
            # Two trainings in one folder would mix their states.
            self._closing.enter_context(sole_writer(self._out))
            clear_leftovers(self._out, LEFTOVERS_BELOW)
            self._log = RunLog(self._out, resumed)
            self._closing.callback(self._log.close)

    def _score(self, network: CVDM) -> Score:
        return score_network(network, self._held_out, self.recipe.validation)

    def begin(self, stage: Stage, resumed: TrainingState | None) -> StageRun:
        """A stage, from its beginning or from where it was left."""
        if stage.name == "diffusion" and resumed is None and self._learns_mean:
            # The target is what the mean leaves.
            self._said(Progress(stage="measuring what the mean leaves", done=0, total=0))
            steps = range(self.offset, self.offset + SCALE_BATCHES)
            batches = (self._batch(step, slice(None)) for step in steps)
            self.network.residual_scale.copy_(measure_residual_scale(self.network, batches))
        run = StageRun(stage, self.network, self.recipe.plan, self._processes, resumed)
        if resumed is None and self.start is not None:
            # The first weights may be the best. Those of the first stage have their score already.
            first = stage is self.stages[0]
            run.look(_criterion(run, self.start if first else self._score(run.averaged())))
        return run

    def batches(self, first: int, steps: int) -> Generator[Parts, None, None]:
        """The parts of each step's batch for this process; the next ones are made in advance."""
        # One thread: more would take the cores from the step.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="training data") as ahead:
            self._said(Progress(stage="preparing the first images", done=0, total=0))
            coming = self._begin_parts(ahead, first, steps)
            for step in range(first, steps):
                parts = coming.result() if coming is not None else self._parts(step)
                coming = self._begin_parts(ahead, step + 1, steps)
                yield parts

    def _begin_parts(
        self, ahead: ThreadPoolExecutor, step: int, steps: int
    ) -> "Future[Parts] | None":
        """Start to make the parts of a step; None after the last step or if no thread may start."""
        if step >= steps:
            return None
        try:
            return ahead.submit(self._parts, step)
        except RuntimeError:
            # The interpreter is shutting down. The training will be told to stop, and must continue
            # until then.
            return None

    def _parts(self, step: int) -> Parts:
        plan, device = self.recipe.plan, self._processes.device
        side = plan.patch_px * self.network.config.upsampling
        draw = NoiseDraw.of_step((plan.batch, 1, side, side), self.recipe.seed, step)
        return [
            (self._batch(self.offset + step, part), draw.part(part, device))
            for part in self._processes.parts()
        ]

    def _batch(self, step: int, part: slice) -> Batch:
        plan = self.recipe.plan
        return self._pool.batch(step, plan.batch, plan.patch_px, part).to(self._processes.device)

    def look(self, run: StageRun) -> Score:
        """The score of the averaged weights, remembered if it is the best of the stage."""
        score = self._score(run.averaged())
        run.look(_criterion(run, score))
        return score

    def findings(
        self, run: StageRun, score: Score | None, rate: Tensor | None
    ) -> tuple[Finding, ...]:
        """What is wrong with the training, with the score of a look and the rate if they exist."""
        counts, network = run.counts, self.network
        found = gradient_findings(counts.skipped, run.done)
        if score is not None:
            found += overfitting_findings(_criterion(run, score), counts.best, counts.best_step)
        if rate is not None:
            share, pixel_wise = run.done / run.stage.steps, network.config.schedule == "pixel-wise"
            found += schedule_findings(rate, network.clock, pixel_wise=pixel_wise, share_done=share)
        if run.stage.name == "diffusion" and score is not None:
            found += spread_findings(score)
        return found

    @torch.no_grad()
    def rate(self, run: StageRun) -> Tensor | None:
        """lambda of the patches that were just learned from; None in the stage of the mean."""
        batch, network = run.latest, self.network
        if batch is None or run.stage.name != "diffusion" or not network.config.learned_schedule:
            return None
        return network.rate(network.features(batch.channels, network.mean_residual(batch.channels)))

    def preview(self, run: StageRun, number: int) -> Preview | None:
        """Reconstruction of a held-out field by the averaged weights; None if none is held out."""
        if not self._held_out:
            return None
        entry = self._held_out[number % len(self._held_out)]
        return make_preview(run.averaged(), entry, self.recipe.validation)

    def write(self, run: StageRun, terms: dict[str, float], score: Score | None) -> None:
        """A line of the log, if there is something to write."""
        scores = {} if score is None else asdict(score)
        looked = {f"held_out_{name}": value for name, value in scores.items()}
        if self._log is not None and (terms or looked):
            self._log.add(run.stage.name, run.done, {**terms, **looked})

    def save(self, run: StageRun) -> None:
        """The model so far, and the state to resume from.

        The state comes last: who goes on from it makes the same model again.
        """
        if not is_first_process():
            return
        progress = {**run.progress(), "start": None if self.start is None else asdict(self.start)}
        card = make_card(self.recipe, self.network, "")
        save_checkpoint(self._out / SO_FAR, run.averaged(), card, within=self._out)
        save_state(self._out, self.recipe.fingerprint, progress, run.tensors())

    def finish(self) -> tuple[ModelCard, Score | None]:
        """Save the model; its card tells how it scored beside the one that it began with."""
        score = self._score(self.network) if self._held_out else None
        card = make_card(self.recipe, self.network, self._recipe_path)
        if score is not None:
            found: dict[str, Any] = {"fields": len(self._held_out), "new": asdict(score)}
            if self.start is not None:
                found["start"] = asdict(self.start)
            card = replace(card, metrics={**card.metrics, "held_out": found})
        if is_first_process():
            save_checkpoint(self._out, self.network.cpu(), card)
        # The others must not leave the group while the first one writes.
        self._processes.accelerator.wait_for_everyone()
        return card, score

    def close(self) -> None:
        """Finish the log, and leave the other processes."""
        self._closing.close()
        self._processes.close()


def first_network(recipe: Recipe) -> CVDM:
    """The network at the start: that of the initial model, or one with seeded random weights."""
    if recipe.start is not None:
        # A copy: the model itself may be in use for reconstructions.
        return deepcopy(load_model(recipe.start.model).network).train()
    torch.manual_seed(recipe.seed)
    return CVDM(recipe.network)


def _criterion(run: StageRun, score: Score) -> float:
    """The mean is compared by its error alone, denoiser and schedule by error and spread."""
    return score.centre_rmse if run.stage.name == "mean" else score.crps
