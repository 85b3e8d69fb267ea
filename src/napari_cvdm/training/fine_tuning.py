"""Fine-tuning: from a model, measured pairs and a time to a recipe and a new model.

The pace is measured by a few real steps, so that as many steps are planned as fit into the time.
"""

import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

import torch

from napari_cvdm.core.request import ImageStack, RequestError, TrainRequest
from napari_cvdm.core.result import Progress
from napari_cvdm.models.checkpoint import CARD, ModelCard
from napari_cvdm.simulate.ranges import PhaseRanges, Ranges, WidefieldRanges
from napari_cvdm.training.pairs import Folders, MeasuredPairs, save_pairs
from napari_cvdm.training.parallel import Processes
from napari_cvdm.training.pool import Batch
from napari_cvdm.training.recipe import InitialModel, Plan, Recipe, write_recipe
from napari_cvdm.training.session import first_network
from napari_cvdm.training.sources import CleanImages
from napari_cvdm.training.stages import NoiseDraw, StageRun, stages_of
from napari_cvdm.training.state import STATE
from napari_cvdm.training.validation import Validation

RECIPE = "recipe.toml"
PAIRS = "pairs"
PRESETS_MIN = {
    "ten minutes": 10.0,
    "a first look (two minutes)": 2.0,
    "an hour": 60.0,
    "overnight (8 h)": 480.0,
}
# Factor for the learning rate that the model was made with. Its weights should be adapted, not
# replaced.
LOWERED = 0.25
# A simulated field is deconvolved or inverted, which takes longer than a step.
SOLVED_PLAN = {"pool_fields": 24, "fields_per_step": 0.1}
FALLBACK_PLAN = {"batch": 5, "patch_px": 72, "learning_rate": 8e-4}
PATIENCE = 6
MEASURED_STEPS = 3
# Share of the time. The mean accounts for the larger part of the error, but its steps are cheaper.
MEAN_SHARE = 0.4
LOOKS = 12  # at held-out fields, in a stage
LOOKING_SHARE = 0.15  # of the time, at most
FORWARD_SHARE = 1 / 3  # of a step: the backward pass takes twice as long
EMA_STEPS = 0.1  # of a stage: what the averaged weights remember
EMA_BOUNDS = (0.9, 0.999)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerPairs:
    """Measured images and their truths in memory, see `save_pairs`.

    They are saved beside the recipe before training.
    """

    measured: ImageStack
    truth: ImageStack


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """A described microscope, looking at simulated objects or at clean images."""

    ranges: Ranges
    clean: CleanImages | None = None


Source = MeasuredPairs | Simulated


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FineTuning:
    """One fine-tuning.

    Parameters
    ----------
    recipe : Recipe
        With a start.
    folder : Path
        Of the run: recipe, saved pairs, log, state and model.
    minutes : float, optional
        How long to train [min]. If None, the recipe's own numbers of steps count. In both cases the
        evaluations on held-out fields are rare enough to take little of the time.
    layers : LayerPairs, optional
        Where the pairs of the recipe are not in files yet.
    """

    recipe: Recipe
    folder: Path
    minutes: float | None = None
    layers: LayerPairs | None = field(default=None, repr=False)
    device: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds for a step of each stage that is trained, by its name."""

    step_s: dict[str, float]


def plan_of(card: ModelCard) -> dict[str, Any]:
    """Batch, patch, pool and weight of L_gamma of a model's own training, with a lower rate."""
    made = {**FALLBACK_PLAN, **card.training.get("plan", {})}
    names = ("batch", "patch_px", "alpha", "pool_fields")
    kept = {name: made[name] for name in names if name in made}
    return {**kept, "learning_rate": LOWERED * made["learning_rate"]}


def fine_tuning_recipe(
    *,
    name: str,
    start: InitialModel,
    card: ModelCard,
    source: Source,
    validation: Validation | None = None,
    seed: int = 0,
    **plan: Any,
) -> Recipe:
    """The recipe of a fine-tuning; what is not said is as the model was made.

    `name` is that of the new model, `card` that of the model to start from. `plan` are entries of
    `Plan`; numbers of steps may be left out where a time is to decide them.

    Raises
    ------
    RequestError
        Values that are not allowed.
    """
    entries: dict[str, Any] = {"mean_steps": 0, "diffusion_steps": 1, **plan_of(card)}
    if isinstance(source, Simulated):
        data: dict[str, Any] = {"simulation": source.ranges, "clean": source.clean}
        resolution = card.resolution
        if card.task in (PhaseRanges.task, WidefieldRanges.task):
            entries |= SOLVED_PLAN
    else:
        data, resolution = {"pairs": source}, "as the pairs that it was fine-tuned with"
    limit = (
        f"Fine-tuned from {card.name}: outside the images that it was tuned for, use that model."
    )
    return Recipe(
        name=name,
        title=f"{card.title}; fine-tuned from {card.name}",
        task=card.task,
        resolution=resolution,
        licence=card.licence,
        limits=(*card.limits, limit),
        network=card.config(),
        start=start,
        plan=Plan(**{**entries, **plan}),
        validation=validation or Validation(every=1, patience=PATIENCE),
        seed=seed,
        **data,
    )


def prepare(asked: FineTuning) -> Generator[Progress, None, tuple[TrainRequest, Pace]]:
    """Save the pairs, measure the pace, write the recipe.

    The request is what `train` takes; the same recipe on a cluster gives the same model.

    Raises
    ------
    RequestError, ImageFileError
        The folder is taken, or the pairs cannot be used.
    """
    if asked.folder.exists() and any(asked.folder.iterdir()):
        raise RequestError(
            f"{asked.folder} holds a run already; choose another name, or go on with that one."
        )
    recipe = asked.recipe
    if asked.layers is not None:
        measured, truth = yield from save_pairs(
            asked.layers.measured, asked.layers.truth, recipe.task, asked.folder / PAIRS
        )
        if not isinstance(recipe.pairs, Folders):
            raise RequestError("layers become [folders] of the recipe; it names another source.")
        recipe = replace(
            recipe, pairs=replace(recipe.pairs, measured=str(measured), truth=str(truth))
        )
    pace = yield from measure_pace(recipe, asked.device)
    minutes = asked.minutes
    recipe = fit_looks(recipe, pace) if minutes is None else fit_steps(recipe, pace, minutes)
    path = write_recipe(recipe, asked.folder / RECIPE)
    return TrainRequest(recipe=str(path), out=str(asked.folder), device=asked.device), pace


def unfinished_runs(folder: Path) -> tuple[Path, ...]:
    """Folders of runs that can be gone on with, the newest first."""
    found = [
        state.parent
        for state in folder.glob(f"*/{STATE}")
        if not (state.parent / CARD).exists() and (state.parent / RECIPE).exists()
    ]
    return tuple(sorted(found, key=lambda run: (run / STATE).stat().st_mtime, reverse=True))


def measure_pace(recipe: Recipe, device: str) -> Generator[Progress, None, Pace]:
    """Do a few steps of each stage on a network that is thrown away, with patches of noise."""
    plan = replace(recipe.plan, mean_steps=MEASURED_STEPS + 1, diffusion_steps=MEASURED_STEPS + 1)
    processes = Processes(device, plan.precision, plan.accumulate, plan.batch)
    network = first_network(recipe).to(processes.device)
    side = plan.patch_px * network.config.upsampling
    fine, generator = (plan.batch, 1, side, side), torch.Generator().manual_seed(0)
    coarse = (plan.batch, network.config.condition_channels, plan.patch_px, plan.patch_px)
    batch = Batch(
        channels=torch.randn(coarse, generator=generator),
        initial_estimate=torch.randn(fine, generator=generator),
        truth=torch.randn(fine, generator=generator),
        weight=torch.ones(plan.batch, 1, 1, 1),
    ).to(processes.device)
    draw = NoiseDraw.of_step(fine, recipe.seed, 0).part(slice(None), processes.device)
    found: dict[str, float] = {}
    stages = stages_of(network, plan, "all" if recipe.start is None else recipe.start.part)
    for number, stage in enumerate(stages):
        run = StageRun(stage, network, plan, processes)
        run.step([(batch, draw)])  # the first step allocates, and is no measure
        started = time.perf_counter()
        for step in range(MEASURED_STEPS):
            yield Progress(
                stage="measuring how long a step takes",
                done=number * MEASURED_STEPS + step,
                total=len(stages) * MEASURED_STEPS,
            )
            run.step([(batch, draw)])
        found[stage.name] = (time.perf_counter() - started) / MEASURED_STEPS
    return Pace(step_s=found)


def fit_steps(recipe: Recipe, pace: Pace, minutes: float) -> Recipe:
    """The recipe with as many steps and looks at held-out fields as fit into a time.

    Its averaged weights remember a tenth of a stage.
    """
    shares = {"diffusion": 1.0}
    if "mean" in pace.step_s:
        shares = {"mean": MEAN_SHARE, "diffusion": 1 - MEAN_SHARE}
    steps = {
        name: max(1, int(60 * minutes * share * (1 - LOOKING_SHARE) / pace.step_s[name]))
        for name, share in shares.items()
    }
    ema = min(max(1 - 1 / (EMA_STEPS * min(steps.values())), EMA_BOUNDS[0]), EMA_BOUNDS[1])
    mean, diffusion = steps.get("mean", 0), steps["diffusion"]
    plan = replace(recipe.plan, mean_steps=mean, diffusion_steps=diffusion, ema_decay=ema)
    return fit_looks(replace(recipe, plan=plan), pace)


def fit_looks(recipe: Recipe, pace: Pace) -> Recipe:
    """The recipe with an adapted number of steps between two looks at held-out fields.

    There are enough looks, and they do not take more than their share of the time.
    """
    looked, plan = recipe.validation, recipe.plan
    patch_s = FORWARD_SHARE * pace.step_s["diffusion"] / plan.batch
    evaluation_s = patch_s * (looked.largest_px / plan.patch_px) ** 2
    look_s = looked.fields * looked.samples * looked.evaluations * evaluation_s
    often = ceil(look_s * (1 - LOOKING_SHARE) / (LOOKING_SHARE * min(pace.step_s.values())))
    every = max(1, max(plan.mean_steps, plan.diffusion_steps) // LOOKS, often)
    return replace(recipe, validation=replace(looked, every=every))


class TimeLeft:
    """Estimate the seconds until a training ends.

    The estimate uses the duration of the steps so far and, for later stages, the measured pace. A
    stage without a measured pace takes as long for a step as the one before it.
    """

    def __init__(self, plan: Plan, pace: Pace) -> None:
        self._total = {"mean": plan.mean_steps, "diffusion": plan.diffusion_steps}
        self._pace = dict(pace.step_s)
        self._stage, self._first, self._since = "", 0, 0.0

    def begin_again(self) -> None:
        """Time that went by in a pause does not count."""
        self._stage = ""

    def after(self, stage: str, step: int) -> float:
        """Seconds left when this step of a stage is done [s]."""
        if stage != self._stage:
            self._stage, self._first, self._since = stage, step, time.monotonic()
        elif step > self._first:
            self._pace[stage] = (time.monotonic() - self._since) / (step - self._first)
        own = self._pace.get(stage, 0.0)
        left = (self._total[stage] - step) * own
        if stage == "mean":
            left += self._total["diffusion"] * self._pace.get("diffusion", own)
        return left
