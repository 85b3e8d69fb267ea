"""The training loop: a page that reads aloud.

Two stages share one loop: first the regression mean, then, around it, the denoiser with its schedule. Each is a generator
of `TrainStep`; stopping to iterate stops the training, and the last checkpoint in the folder resumes it.
"""

import csv
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_cvdm.device import autocast, pick_device
from napari_cvdm.diffusion.loss import LossTerms, cvdm_loss, stratified_times
from napari_cvdm.model.checkpoint import ModelCard, save_checkpoint
from napari_cvdm.model.cvdm import CVDM
from napari_cvdm.model.tiled import channels_last
from napari_cvdm.request import TrainRequest
from napari_cvdm.training.card import make_card
from napari_cvdm.training.pairs import Batch, FieldPool, field_source
from napari_cvdm.training.recipe import Recipe, read_recipe
from napari_cvdm.training.state import load_state, save_state

LARGEST_GRADIENT = 1.0
WARM_UP = 0.05
SCALE_BATCHES = 24
LARGEST_TARGET = 5.0  # residual scales: a hopeless field must not fill the gradient
STEP_SEED_STRIDE = 7_919


class TrainingDiverged(ValueError):
    """A loss that is no number any more; the last checkpoint is still good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStep:
    """One line of the log.

    Parameters
    ----------
    stage : {"mean", "diffusion"}
    step, total : int
        Steps done in this stage, and its steps.
    terms : mapping of str to float
        Loss terms, averaged since the last line.
    """

    stage: str
    step: int
    total: int
    terms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """What differs between the two stages.

    Parameters
    ----------
    name : str
    steps : int
    parameters : list of Parameter
        What this stage trains.
    backward : callable
        (batch, step) -> terms; leaves gradients on `parameters`.
    """

    name: str
    steps: int
    parameters: list[nn.Parameter]
    backward: Callable[[Batch, int], dict[str, float]]


def mean_stage(network: CVDM, recipe: Recipe) -> Stage:
    """Regression: baseline + correction against the truth, log(1 + weighted mean square) of each patch.

    The logarithm bounds what one hopeless patch can do to a step, and makes every patch ask for relative improvement.
    """

    def backward(batch: Batch, step: int) -> dict[str, float]:
        error = batch.baseline + network.correction(batch.channels) - batch.truth
        loss = torch.log1p(mean_square(error, batch.weight)).mean()
        loss.backward()
        start = torch.log1p(mean_square(batch.baseline - batch.truth, batch.weight)).mean()
        return {"mean": loss.item(), "baseline": start.item()}

    parameters = list(network.mean.parameters()) if network.mean is not None else []
    return Stage(name="mean", steps=recipe.plan.mean_steps if parameters else 0, parameters=parameters, backward=backward)


def mean_square(error: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean square of each patch, shape (B,)."""
    return (weight * error.square()).mean(dim=(1, 2, 3))


def diffusion_stage(network: CVDM, recipe: Recipe) -> Stage:
    """CVDM around the (now frozen) mean.

    The denoiser learns from its own squared error with the schedule held fixed, the schedule from the paper's losses with
    the denoiser held fixed: one forward pass, two backward passes. `joint` gives both one loss, as published.
    """
    denoiser, schedule = list(network.denoiser.parameters()), network.schedule_parameters()

    def backward(batch: Batch, step: int) -> dict[str, float]:
        terms = diffusion_terms(network, batch, recipe, step)
        if recipe.plan.joint:
            terms.schedule.backward()
        else:
            terms.network.backward(inputs=denoiser, retain_graph=True)
            terms.schedule.backward(inputs=schedule)
        return {name: getattr(terms, name).item() for name in ("network", "noise", "prior", "smoothness", "boundary")}

    return Stage(name="diffusion", steps=recipe.plan.diffusion_steps, parameters=[*denoiser, *schedule], backward=backward)


def diffusion_terms(network: CVDM, batch: Batch, recipe: Recipe, step: int) -> LossTerms:
    """All loss terms of one batch; times and noise are a function of (seed, step)."""
    generator = torch.Generator().manual_seed(recipe.seed * STEP_SEED_STRIDE + step)
    with torch.no_grad():
        correction = network.correction(batch.channels)
        target = network.encode(batch.truth, batch.baseline, correction).clamp(-LARGEST_TARGET, LARGEST_TARGET)
    features = network.features(batch.channels, correction)
    times = stratified_times(len(target), generator).to(target.device)
    noise = torch.randn(target.shape, generator=generator).to(target.device)
    return cvdm_loss(
        lambda noisy, exponent: network.output(noisy, exponent, features),
        network.prediction,
        network.rate(features),
        network.clock,
        target,
        times,
        noise,
        recipe.plan.alpha,
    )


@torch.no_grad()
def measured_residual_scale(network: CVDM, batches: Iterable[Batch]) -> Tensor:
    """The stored constant: the median over patches of the target's root mean square around its centre."""
    sizes = []
    for batch in batches:
        residual = batch.truth - network.target.centre(batch.baseline, network.correction(batch.channels))
        sizes.append(residual.square().mean(dim=(1, 2, 3)).sqrt())
    return torch.cat(sizes).median().clamp(min=1e-6)


def train(request: TrainRequest) -> Generator[TrainStep, None, ModelCard]:
    """Train the model of a recipe.

    Parameters
    ----------
    request : TrainRequest

    Yields
    ------
    TrainStep
        Every `log_every` steps; also written to ``log.csv``.

    Returns
    -------
    ModelCard
        Of the checkpoint in the request's folder.
    """
    recipe, out, device = read_recipe(request.recipe), Path(request.out), pick_device(request.device)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network = channels_last(CVDM(recipe.network), device)
    plan = recipe.plan
    pool = FieldPool(field_source(recipe.simulation, recipe.seed), plan.pool_fields, plan.fields_per_step, recipe.seed)
    resume = load_state(out, recipe.fingerprint) if request.resume else None
    if resume is not None:
        _forget_lines_after(out / "log.csv", resume.stage, resume.step)
    offset = 0
    for make_stage in (mean_stage, diffusion_stage):
        stage = make_stage(network, recipe)
        if make_stage is diffusion_stage and (resume is None or resume.stage != "diffusion"):
            network.residual_scale.copy_(measured_residual_scale(network, (_batch(pool, offset + index, plan, device) for index in range(SCALE_BATCHES))))
        if stage.steps and (resume is None or resume.stage == stage.name):
            yield from _run_stage(stage, network, recipe, pool, offset, out, resume)
            resume = None
        offset += stage.steps
    card = make_card(recipe, network, request.recipe)
    save_checkpoint(out, network.cpu(), card)
    return card


def _batch(pool: FieldPool, step: int, plan: Any, device: torch.device) -> Batch:
    batch = pool.batch(step, plan.batch, plan.patch_px)
    return Batch(**{name: getattr(batch, name).to(device) for name in Batch.__slots__})


def _run_stage(stage: Stage, network: CVDM, recipe: Recipe, pool: FieldPool, offset: int, out: Path, resume: Any) -> Generator[TrainStep, None, None]:
    plan, device = recipe.plan, stage.parameters[0].device
    optimiser = torch.optim.AdamW(stage.parameters, lr=plan.learning_rate, weight_decay=1e-4, betas=(0.9, 0.99))
    decay = one_cycle(optimiser, plan.learning_rate, stage.steps, 0)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(plan.ema_decay), use_buffers=False)
    first = resume.restore(network, average, optimiser) if resume is not None else 0
    if first:
        decay = one_cycle(optimiser, plan.learning_rate, stage.steps, first)
    sums: dict[str, float] = {}
    logged = first
    for step in range(first, stage.steps):
        optimiser.zero_grad(set_to_none=True)
        batch = _batch(pool, offset + step, plan, device)
        with autocast(device, plan.precision):
            terms = stage.backward(batch, step)
        _check_finite(terms, stage.name, step)
        nn.utils.clip_grad_norm_(stage.parameters, LARGEST_GRADIENT)
        optimiser.step()
        decay.step()
        average.update_parameters(network)
        sums = {name: sums.get(name, 0.0) + value for name, value in terms.items()}
        done = step + 1
        if done % plan.log_every == 0 or done == stage.steps:
            line = TrainStep(stage=stage.name, step=done, total=stage.steps, terms=_averaged(sums, done - logged))
            _log(out / "log.csv", line, float(decay.get_last_lr()[0]))
            sums, logged = {}, done
            yield line
        if done % plan.save_every == 0:
            save_state(out, recipe.fingerprint, stage.name, done, network, average, optimiser)
            save_checkpoint(out / "so-far", _averaged_network(network, average), make_card(recipe, network, ""))
    network.load_state_dict(_averaged_network(network, average).state_dict())


def _check_finite(terms: dict[str, float], stage: str, step: int) -> None:
    bad = [name for name, value in terms.items() if not isfinite(value)]
    if bad:
        raise TrainingDiverged(f"{', '.join(bad)} of the {stage} stage became NaN or infinite at step {step}; try a smaller learning_rate, or precision fp32.")


def one_cycle(optimiser: Optimizer, peak: float, steps: int, done: int) -> OneCycleLR:
    """Warm-up and cosine decay over `steps`, with `done` of them behind; the rate is a function of the step alone."""
    return OneCycleLR(optimiser, max_lr=peak, total_steps=steps + 1, pct_start=WARM_UP, last_epoch=done - 1 if done else -1)


def _averaged(sums: dict[str, float], count: int) -> dict[str, float]:
    return {name: value / count for name, value in sums.items()}


def _averaged_network(network: CVDM, average: AveragedModel) -> CVDM:
    """The averaged weights with the network's own buffers (the residual scale is measured, not trained)."""
    kept = average.module
    if not isinstance(kept, CVDM):
        raise TypeError(f"averaged {type(kept).__name__}, not a CVDM")
    kept.residual_scale.copy_(network.residual_scale)
    return kept


def _forget_lines_after(path: Path, stage: str, step: int) -> None:
    """Lines of steps that are about to be made again would stand in the log twice."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        earlier = {"mean"} if stage == "diffusion" else set()
        rows = zip(lines[1:], csv.DictReader(lines), strict=True)
        kept = [line for line, row in rows if row["stage"] in earlier or (row["stage"] == stage and int(row["step"]) <= step)]
        path.write_text("".join([*lines[:1], *kept]), encoding="utf-8", newline="")


def _log(path: Path, line: TrainStep, learning_rate: float) -> None:
    columns = ("stage", "step", "learning_rate", "baseline", "mean", "network", "noise", "prior", "smoothness", "boundary")
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        if new:
            writer.writeheader()
        rounded = {name: f"{value:.6g}" for name, value in line.terms.items()}
        writer.writerow({"stage": line.stage, "step": line.step, "learning_rate": f"{learning_rate:.4g}", **rounded})
