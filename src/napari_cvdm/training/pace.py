"""How many steps fit into the time that a person has: the pace is measured, by a few real steps."""

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from math import ceil

import torch

from napari_cvdm.core.result import Progress
from napari_cvdm.training.parallel import Processes
from napari_cvdm.training.plan import Plan
from napari_cvdm.training.pool import Batch
from napari_cvdm.training.recipe import Recipe
from napari_cvdm.training.session import first_network
from napari_cvdm.training.stage_run import StageRun
from napari_cvdm.training.stages import NoiseDraw, Stage, stages_of

MEASURED_STEPS = 3
# Share of the time. The mean accounts for the larger part of the error, but its steps are cheaper.
MEAN_SHARE = 0.4
LOOKS = 12  # at held-out fields, in a stage
LOOKING_SHARE = 0.15  # of the time, at most
FORWARD_SHARE = 1 / 3  # of a step: the backward pass takes twice as long
EMA_STEPS = 0.1  # of a stage: what the averaged weights remember
EMA_BOUNDS = (0.9, 0.999)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds for a step of each stage that is trained, by its name."""

    step_s: dict[str, float]


class TimeLeft:
    """Estimate the seconds until a training ends.

    The estimate uses the duration of the steps so far and, for later stages, the measured pace.

    Parameters
    ----------
    plan : Plan
    pace : Pace
        A stage that it does not name takes as long for a step as the one before it.
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
        later = (
            self._total["diffusion"] * self._pace.get("diffusion", own) if stage == "mean" else 0.0
        )
        return (self._total[stage] - step) * own + later


def measured_pace(recipe: Recipe, device: str) -> Generator[Progress, None, Pace]:
    """Do a few steps of each stage on a network that is thrown away.

    Parameters
    ----------
    recipe : Recipe
        Its numbers of steps do not matter.
    device : str

    Yields
    ------
    Progress

    Returns
    -------
    Pace
    """
    plan = replace(recipe.plan, mean_steps=MEASURED_STEPS + 1, diffusion_steps=MEASURED_STEPS + 1)
    processes = Processes(device, plan.precision, plan.accumulate, plan.batch)
    network = first_network(recipe).to(processes.device)
    found: dict[str, float] = {}
    stages = stages_of(network, plan, "all" if recipe.start is None else recipe.start.part)
    for number, stage in enumerate(stages):
        run = StageRun(stage, network, plan, processes)
        parts = [(batch_like(recipe, run), _draw(recipe, stage, processes))]
        run.step(parts)  # the first step allocates, and is no measure
        started = time.perf_counter()
        for step in range(MEASURED_STEPS):
            yield Progress(
                stage="measuring how long a step takes",
                done=number * MEASURED_STEPS + step,
                total=len(stages) * MEASURED_STEPS,
            )
            run.step(parts)
        found[stage.name] = (time.perf_counter() - started) / MEASURED_STEPS
    return Pace(step_s=found)


def batch_like(recipe: Recipe, run: StageRun) -> Batch:
    """Patches of noise, of the recipe's size."""
    plan, config = recipe.plan, run.network.config
    device, generator = run.network.residual_scale.device, torch.Generator().manual_seed(0)
    fine = (plan.batch, 1, *(2 * [plan.patch_px * config.upsampling]))
    channels = torch.randn(
        plan.batch, config.condition_channels, plan.patch_px, plan.patch_px, generator=generator
    )
    baseline, truth = (torch.randn(fine, generator=generator) for _ in range(2))
    weight = torch.ones(plan.batch, 1, 1, 1)
    return Batch(
        channels=channels.to(device),
        initial_estimate=baseline.to(device),
        truth=truth.to(device),
        weight=weight.to(device),
    )


def _draw(recipe: Recipe, stage: Stage, processes: Processes) -> NoiseDraw:
    plan, side = recipe.plan, recipe.plan.patch_px * recipe.network.upsampling
    return NoiseDraw.of_step((plan.batch, 1, side, side), recipe.seed, 0).part(
        slice(None), processes.device
    )


def timed(recipe: Recipe, pace: Pace, minutes: float) -> Recipe:
    """The recipe with as many steps, and as many looks at held-out fields, as fit into a time.

    Parameters
    ----------
    recipe : Recipe
    pace : Pace
    minutes : float

    Returns
    -------
    Recipe
        Its averaged weights remember a tenth of a stage.
    """
    shares = (
        {"mean": MEAN_SHARE, "diffusion": 1 - MEAN_SHARE}
        if "mean" in pace.step_s
        else {"diffusion": 1.0}
    )
    steps = {
        name: max(1, int(60 * minutes * share * (1 - LOOKING_SHARE) / pace.step_s[name]))
        for name, share in shares.items()
    }
    ema = min(max(1 - 1 / (EMA_STEPS * min(steps.values())), EMA_BOUNDS[0]), EMA_BOUNDS[1])
    plan = replace(
        recipe.plan,
        mean_steps=steps.get("mean", 0),
        diffusion_steps=steps["diffusion"],
        ema_decay=ema,
    )
    return looked_at(replace(recipe, plan=plan), pace)


def looked_at(recipe: Recipe, pace: Pace) -> Recipe:
    """The recipe with an adapted number of steps between two looks at held-out fields.

    There are enough looks, and they do not take more than their share of the time.
    """
    looked, plan = recipe.validation, recipe.plan
    evaluation_s = (
        FORWARD_SHARE
        * pace.step_s["diffusion"]
        / plan.batch
        * (looked.largest_px / plan.patch_px) ** 2
    )
    look_s = looked.fields * looked.samples * looked.evaluations * evaluation_s
    often = ceil(look_s * (1 - LOOKING_SHARE) / (LOOKING_SHARE * min(pace.step_s.values())))
    return replace(
        recipe,
        validation=replace(
            looked, every=max(1, max(plan.mean_steps, plan.diffusion_steps) // LOOKS, often)
        ),
    )
