"""Fine-tuning: from a model, measured pairs and a time to a recipe and a new model."""

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_cvdm.core.request import ImageStack, RequestError, TrainRequest
from napari_cvdm.core.result import Progress
from napari_cvdm.models.checkpoint import CARD, ModelCard
from napari_cvdm.simulate.ranges import PhaseRanges, WidefieldRanges
from napari_cvdm.training.pace import Pace, looked_at, measured_pace, timed
from napari_cvdm.training.pair_files import Arrays, BioSR, Folders
from napari_cvdm.training.pair_saving import save_pairs
from napari_cvdm.training.plan import InitialModel, Plan
from napari_cvdm.training.recipe import Recipe
from napari_cvdm.training.recipe_writing import write_recipe
from napari_cvdm.training.sources import CleanImages
from napari_cvdm.training.state import STATE
from napari_cvdm.training.validation import Validation

RECIPE = "recipe.toml"
PAIRS = "pairs"
PRESETS_MIN = {"minutes (10 min)": 10.0, "an hour": 60.0, "overnight (8 h)": 480.0}
# Factor for the learning rate that the model was made with. Its weights should be adapted, not
# replaced.
LOWERED = 0.25
SOLVED_PLAN = {
    "pool_fields": 24,
    "fields_per_step": 0.1,
}  # a simulated field is deconvolved or inverted, which takes longer than a step
FALLBACK_PLAN = {"batch": 5, "patch_px": 72, "learning_rate": 8e-4}
PATIENCE = 6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerPairs:
    """Measured images and their truths in memory; they are saved beside the recipe before training.

    Parameters
    ----------
    measured, truth : ImageStack
        See `save_pairs`.
    """

    measured: ImageStack
    truth: ImageStack


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """A described microscope, looking at simulated objects or at clean images.

    Parameters
    ----------
    ranges : PhaseRanges or WidefieldRanges
    clean : CleanImages, optional
    """

    ranges: PhaseRanges | WidefieldRanges
    clean: CleanImages | None = None


Source = Folders | BioSR | Arrays | Simulated


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
    device : str
    """

    recipe: Recipe
    folder: Path
    minutes: float | None = None
    layers: LayerPairs | None = field(default=None, repr=False)
    device: str = "auto"


def plan_of(card: ModelCard) -> dict[str, Any]:
    """Batch, patch, pool and weight of L_gamma of a model's own training, with a lower rate."""
    made = {**FALLBACK_PLAN, **card.training.get("plan", {})}
    kept = {
        name: made[name] for name in ("batch", "patch_px", "alpha", "pool_fields") if name in made
    }
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

    Parameters
    ----------
    name : str
        Of the new model.
    start : InitialModel
    card : ModelCard
        Of the model to start from.
    source : Folders, BioSR, Arrays or Simulated
    validation : Validation, optional
    seed : int
    **plan
        Entries of `Plan`; numbers of steps may be left out where a time is to decide them.

    Raises
    ------
    RequestError
        Values that are not allowed.
    """
    simulated = isinstance(source, Simulated)
    solved = simulated and card.task in (PhaseRanges.task, WidefieldRanges.task)
    data = (
        {"simulation": source.ranges, "clean": source.clean}
        if isinstance(source, Simulated)
        else {"pairs": source}
    )
    return Recipe(
        name=name,
        title=f"{card.title}; fine-tuned from {card.name}",
        task=card.task,
        resolution=card.resolution if simulated else "as the pairs that it was fine-tuned with",
        licence=card.licence,
        limits=(
            *card.limits,
            (
                f"Fine-tuned from {card.name}: outside the images that it was tuned for, "
                "use that model."
            ),
        ),
        network=card.config(),
        start=start,
        plan=Plan(
            **{
                "mean_steps": 0,
                "diffusion_steps": 1,
                **plan_of(card),
                **(SOLVED_PLAN if solved else {}),
                **plan,
            }
        ),
        validation=validation or Validation(every=1, patience=PATIENCE),
        seed=seed,
        **data,
    )


def prepare(asked: FineTuning) -> Generator[Progress, None, tuple[TrainRequest, Pace]]:
    """Save the pairs, measure the pace, write the recipe.

    Parameters
    ----------
    asked : FineTuning

    Yields
    ------
    Progress

    Returns
    -------
    tuple of (TrainRequest, Pace)
        What `train` takes; the same recipe on a cluster gives the same model.

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
    pace = yield from measured_pace(recipe, asked.device)
    recipe = (
        looked_at(recipe, pace) if asked.minutes is None else timed(recipe, pace, asked.minutes)
    )
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
