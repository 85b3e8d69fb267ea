"""An experiment: a question, a recipe, and variants of it that differ in a few entries.

Each variant is trained with several seeds.
"""

import shutil
import tomllib
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import tomli_w

from napari_cvdm.cli.progress import bar
from napari_cvdm.core.request import RequestError, TrainRequest
from napari_cvdm.models.checkpoint import CARD
from napari_cvdm.simulate.ranges import RANGES, WidefieldRanges
from napari_cvdm.tasks import FLUORESCENCE, TASKS, Fluorescence
from napari_cvdm.training.card import INTENSITIES
from napari_cvdm.training.loop import train
from napari_cvdm.training.pool import TrainingField
from napari_cvdm.training.recipe import Recipe, read_recipe, write_recipe
from napari_cvdm.training.sources import FIELDS, SolvedFields
from napari_cvdm.training.state import STATE

FOLDER_LETTERS = 12  # of a fingerprint
COUNTS_ONLY = Fluorescence(
    name="widefield-x2-counts-only",
    title="Super-resolution of counts alone",
    inputs="one widefield fluorescence image",
    upsampling=2,
)


class CountsOnlyRanges(WidefieldRanges):
    """The same fields for a network that sees no deconvolution."""

    task: ClassVar[str] = COUNTS_ONLY.name


def register_counts_only() -> None:
    """Make the task known to recipes of this process."""
    RANGES[COUNTS_ONLY.name], INTENSITIES[COUNTS_ONLY.name] = (
        CountsOnlyRanges,
        INTENSITIES[WidefieldRanges.task],
    )
    TASKS[COUNTS_ONLY.name] = FLUORESCENCE[COUNTS_ONLY.name] = COUNTS_ONLY
    FIELDS[COUNTS_ONLY.name] = FIELDS[WidefieldRanges.task]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What is asked, and what is trained to answer it.

    Parameters
    ----------
    name, question : str
    seeds : tuple of int
        Each variant is trained with each: how far two of them differ is what chance does.
    base : dict
        Entries of a whole recipe.
    variants : dict of str to dict
        The entries that differ, by name of the variant.
    judged : dict of str to dict
        Where held-out fields differ from those of the base: entries of it, by the name of a set
        that every model is scored on.
    """

    name: str
    question: str
    seeds: tuple[int, ...]
    base: dict[str, Any] = field(repr=False)
    variants: dict[str, dict[str, Any]] = field(repr=False)
    judged: dict[str, dict[str, Any]] = field(default_factory=lambda: {"": {}}, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One variant with one seed.

    Parameters
    ----------
    variant : str
    recipe : Recipe
    path : Path
        The complete recipe; for ``napari-cvdm train``, too, where the task is one of the package.
    folder : Path
        Of the model: runs of several experiments that have the same recipe share it.
    """

    variant: str
    recipe: Recipe = field(repr=False)
    path: Path
    folder: Path


def read_experiment(path: str | Path) -> Experiment:
    """Read a TOML file of an experiment.

    It has ``question``, ``seeds``, ``[base]``, ``[variants.NAME]`` and, where there are several
    sets of fields, ``[judged.NAME]``.

    Raises
    ------
    RequestError
        It cannot be read, or lacks one of them.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        seeds = tuple(values.pop("seeds"))
        return Experiment(name=path.stem, seeds=seeds, **values)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise RequestError(
            f"the experiment {path} cannot be read ({error}); recipes/experiments/alpha.toml is "
            "an example."
        ) from None


def overlaid(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Entries of the base, those of the changes in their place, table by table."""
    merged = dict(base)
    for name, value in changes.items():
        merged[name] = overlaid(merged.get(name, {}), value) if isinstance(value, dict) else value
    return merged


def runs_of(experiment: Experiment, out: Path, steps_factor: float = 1.0) -> list[Run]:
    """Every variant with every seed.

    Complete recipes are written to ``OUT/EXPERIMENT/VARIANT-SEED.toml``.

    Parameters
    ----------
    experiment : Experiment
    out : Path
    steps_factor : float
        Times the steps of the recipe: below 1 for a trial, above for a GPU.
    """
    runs = []
    for variant, changes in experiment.variants.items():
        for seed in experiment.seeds:
            path = out / experiment.name / f"{variant}-{seed}.toml"
            values = {
                **overlaid(experiment.base, changes),
                "seed": seed,
                "name": f"{experiment.name}-{variant}-{seed}",
            }
            recipe = _complete(values, path, steps_factor)
            runs.append(
                Run(
                    variant=variant,
                    recipe=recipe,
                    path=path,
                    folder=out / "runs" / recipe.fingerprint[:FOLDER_LETTERS],
                )
            )
    return runs


def _complete(values: dict[str, Any], path: Path, steps_factor: float) -> Recipe:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    recipe = read_recipe(path)
    plan = recipe.plan
    longer = replace(
        plan,
        mean_steps=round(plan.mean_steps * steps_factor),
        diffusion_steps=max(1, round(plan.diffusion_steps * steps_factor)),
    )
    recipe = replace(recipe, plan=longer)
    write_recipe(recipe, path)
    return recipe


def carry_out(run: Run, device: str) -> None:
    """Train it, unless that is done already; what was interrupted goes on."""
    if (run.folder / CARD).exists():  # the last file that a training writes
        return
    resume = (run.folder / STATE).exists()
    if not resume:
        shutil.rmtree(run.folder, ignore_errors=True)
    request = TrainRequest(recipe=str(run.path), out=str(run.folder), resume=resume, device=device)
    plan = run.recipe.plan
    with (
        closing(train(request)) as steps,
        bar(run.recipe.name, total=plan.mean_steps + plan.diffusion_steps) as shown,
    ):
        for step in steps:
            shown.update(
                step.step + (plan.mean_steps if step.stage == "diffusion" else 0) - shown.n
            )


def held_out_fields(
    experiment: Experiment,
    out: Path,
    changes: dict[str, Any],
    task: str,
    solved: SolvedFields | None = None,
) -> list[TrainingField]:
    """The fields that every variant is scored on.

    The base recipe with some changes holds them out. No seed and no variant learns from them.

    They are prepared for the `task` of the variant. Fields that were solved before lie in the
    variant's own folder.
    """
    values = {**overlaid(experiment.base, changes), "name": experiment.name, "task": task}
    if solved is not None:
        values["solved"] = {"folder": str(Path(solved.folder).absolute())}
    base = _complete(
        values,
        out / experiment.name / "base.toml",
        1.0,
    )
    looked = replace(
        base, validation=replace(base.validation, every=1)
    )  # a recipe that never looks holds nothing out
    return [make() for make in looked.split().held_out]
