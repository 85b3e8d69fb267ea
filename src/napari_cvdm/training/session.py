"""Everything that a training works with: network, data, held-out fields, log and folder."""

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_cvdm.core.request import TrainRequest
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
from napari_cvdm.training.parallel import Processes
from napari_cvdm.training.pool import Batch, FieldPool
from napari_cvdm.training.preview import Preview, ScheduleNow, previewed, schedule_now
from napari_cvdm.training.recipe import Recipe
from napari_cvdm.training.run_log import RunLog
from napari_cvdm.training.stage_run import StageRun
from napari_cvdm.training.stages import NoiseDraw, Stage, measured_residual_scale, stages_of
from napari_cvdm.training.state import TrainingState, save_state
from napari_cvdm.training.validation import Score, scored

SCALE_BATCHES = 24
SO_FAR = "so-far"

Parts = list[tuple[Batch, NoiseDraw]]


class Session:
    """One training, in one of its processes.

    Parameters
    ----------
    request : TrainRequest
    recipe : Recipe
    resumed : TrainingState, optional

    Attributes
    ----------
    offset : int
        Steps of the stages before: data go on from stage to stage, they do not begin anew.
    start : Score or None
        Of the model that a fine-tuning begins with.
    """

    def __init__(
        self, request: TrainRequest, recipe: Recipe, resumed: TrainingState | None
    ) -> None:
        plan = recipe.plan
        self.recipe, self._recipe_path, self._out = recipe, request.recipe, Path(request.out)
        self._processes = Processes(request.device, plan.precision, plan.accumulate, plan.batch)
        self.network = channels_last(first_network(recipe), self._processes.device)
        self.stages = stages_of(
            self.network, plan, "all" if recipe.start is None else recipe.start.part
        )
        split = recipe.split()
        self._pool = FieldPool(
            split.training,
            plan.pool_fields,
            plan.fields_per_step,
            recipe.seed,
            foreground=plan.foreground,
            blank=plan.blank,
        )
        self._held_out = [make() for make in split.held_out] if recipe.validation.every else []
        self.offset = 0
        self.start = self._score_of_start(resumed)
        self._out.mkdir(parents=True, exist_ok=True)
        self._log = (
            RunLog(self._out, None if resumed is None else (resumed.stage, resumed.step))
            if self._processes.first
            else None
        )

    def _score_of_start(self, resumed: TrainingState | None) -> Score | None:
        if self.recipe.start is None or not self._held_out:
            return None
        return (
            scored(self.network, self._held_out, self.recipe.validation)
            if resumed is None
            else Score(**resumed.progress["start"])
        )

    def begin(self, stage: Stage, resumed: TrainingState | None) -> StageRun:
        """A stage, from its beginning or from where it was left."""
        learns_mean = self.recipe.start is None or self.recipe.start.part == "all"
        if (
            stage.name == "diffusion" and resumed is None and learns_mean
        ):  # the target is what the mean leaves
            batches = (
                self._batch(self.offset + step, slice(None)) for step in range(SCALE_BATCHES)
            )
            self.network.residual_scale.copy_(measured_residual_scale(self.network, batches))
        run = StageRun(stage, self.network, self.recipe.plan, self._processes, resumed)
        if resumed is None and self.start is not None:
            self.look(run)  # the first weights may be the best
        return run

    def batches(self, first: int, steps: int) -> Generator[Parts, None, None]:
        """The parts of each step's batch for this process; the next ones are made in advance."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="training data") as ahead:
            coming = self._begun(ahead, first, steps)
            for step in range(first, steps):
                parts = coming.result() if coming is not None else self._parts(step)
                coming = self._begun(ahead, step + 1, steps)
                yield parts

    def _begun(self, ahead: ThreadPoolExecutor, step: int, steps: int) -> "Future[Parts] | None":
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
        plan, upsampling = self.recipe.plan, self.network.config.upsampling
        side = plan.patch_px * upsampling
        draw = NoiseDraw.of_step((plan.batch, 1, side, side), self.recipe.seed, step)
        return [
            (self._batch(self.offset + step, part), draw.part(part, self._processes.device))
            for part in self._processes.parts()
        ]

    def _batch(self, step: int, part: slice) -> Batch:
        batch = self._pool.batch(step, self.recipe.plan.batch, self.recipe.plan.patch_px, part)
        return replace(
            batch,
            **{name: getattr(batch, name).to(self._processes.device) for name in Batch.__slots__},
        )

    def is_time_to_look(self, run: StageRun) -> bool:
        """Whether a look at the held-out fields is due."""
        every = self.recipe.validation.every
        return every > 0 and (run.done % every == 0 or run.done == run.stage.steps)

    def look(self, run: StageRun) -> Score:
        """The score of the averaged weights, remembered if it is the best of the stage.

        The mean is judged by its error alone, denoiser and schedule by error and spread together.
        """
        score = scored(run.averaged(), self._held_out, self.recipe.validation)
        run.look(self._judged(run, score))
        return score

    def _judged(self, run: StageRun, score: Score) -> float:
        return score.centre_rmse if run.stage.name == "mean" else score.crps

    def findings(self, run: StageRun, score: Score | None) -> tuple[Finding, ...]:
        """What is wrong with the training, with the score of the last look if there is one."""
        found = gradient_findings(run.counts.skipped, run.done)
        if score is not None:
            judged = self._judged(run, score)
            found += overfitting_findings(judged, run.counts.best, run.counts.best_step)
        rate = self._rate(run)
        if rate is not None:
            pixel_wise, share = (
                self.network.config.schedule == "pixel-wise",
                run.done / run.stage.steps,
            )
            found += schedule_findings(
                rate, self.network.clock, pixel_wise=pixel_wise, share_done=share
            )
        if run.stage.name == "diffusion" and score is not None:
            found += spread_findings(score)
        return found

    def schedule(self, run: StageRun) -> ScheduleNow | None:
        """Where the schedule is; None while it does not move."""
        rate = self._rate(run)
        return None if rate is None else schedule_now(rate, self.network.clock)

    @torch.no_grad()
    def _rate(self, run: StageRun) -> Tensor | None:
        """lambda of the patches that were just learned from; None in the stage of the mean."""
        batch, network = run.latest, self.network
        if batch is None or run.stage.name != "diffusion" or not network.config.learned_schedule:
            return None
        return network.rate(network.features(batch.channels, network.mean_residual(batch.channels)))

    def preview(self, run: StageRun, number: int = 0) -> Preview | None:
        """Reconstruction of a held-out field by the averaged weights; None if none is held out."""
        fields = self._held_out
        return (
            previewed(run.averaged(), fields[number % len(fields)], self.recipe.validation)
            if fields
            else None
        )

    def is_out_of_patience(self, run: StageRun) -> bool:
        """Whether too many looks have gone by without a better score."""
        patience = self.recipe.validation.patience
        return patience > 0 and run.counts.looks_since_best >= patience

    def write(self, run: StageRun, terms: dict[str, float], score: Score | None) -> None:
        """A line of the log, if there is something to write."""
        looked = (
            {}
            if score is None
            else {f"held_out_{name}": value for name, value in asdict(score).items()}
        )
        if self._log is not None and (terms or looked):
            self._log.add(run.stage.name, run.done, {**terms, **looked})

    def save(self, run: StageRun) -> None:
        """The state to resume from, and the model so far."""
        if self._processes.first:
            start = None if self.start is None else asdict(self.start)
            save_state(
                self._out,
                self.recipe.fingerprint,
                {**run.progress(), "start": start},
                run.tensors(),
            )
            save_checkpoint(
                self._out / SO_FAR, run.averaged(), make_card(self.recipe, self.network, "")
            )

    def finish(self) -> tuple[ModelCard, Score | None]:
        """Save the model; its card tells how it scored beside the one that it began with."""
        score = (
            scored(self.network, self._held_out, self.recipe.validation) if self._held_out else None
        )
        card = make_card(self.recipe, self.network, self._recipe_path)
        if score is not None:
            found: dict[str, Any] = {"fields": len(self._held_out), "new": asdict(score)}
            card = replace(
                card,
                metrics={
                    **card.metrics,
                    "held_out": found
                    if self.start is None
                    else {**found, "start": asdict(self.start)},
                },
            )
        if self._processes.first:
            save_checkpoint(self._out, self.network.cpu(), card)
        self._processes.wait()
        return card, score

    def close(self) -> None:
        """Finish the log, and leave the other processes."""
        if self._log is not None:
            self._log.close()
        self._processes.close()


def first_network(recipe: Recipe) -> CVDM:
    """The network at the start: that of the initial model, or one with seeded random weights."""
    if recipe.start is not None:
        return deepcopy(load_model(recipe.start.model).network).train()
    torch.manual_seed(recipe.seed)
    return CVDM(recipe.network)
