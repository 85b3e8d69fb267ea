"""The optical setting of the CVDM paper: fields to learn from, and scores on photographs.

`python -m paper.paper_setting fields --photographs DIR --out OUT` makes the fields once,
`python -m paper.experiments recipes/experiments/paper-setting.toml --out OUT` trains, and
`python -m paper.paper_setting table --out OUT` prints the table of the models that are complete.

Every field has the phase of a photograph, 0 to 3.5 rad, two planes at -1 and +1 um and normal noise
of 0.05. A network sees the planes alone and predicts the phase, or sees the inversion of the planes
too and predicts what it lacks. The first fields are photographs of scikit-image. They are only
scored on. With `--recipe recipes/experiments/paper-setting-widefield.toml`, `fields` makes those of
super-resolution, and `paper.experiments` prints its table.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from scoringrules import crps_ensemble

from napari_cvdm.analysis.correlations import partial_correlation, spearman
from napari_cvdm.cli.progress import bar
from napari_cvdm.core.result import finished
from napari_cvdm.evaluation.metrics import coverage, spread_skill
from napari_cvdm.models.checkpoint import CARD, load_checkpoint
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.physics.forward_model import fresnel_number
from napari_cvdm.simulate.phase_objects import photograph
from napari_cvdm.simulate.ranges import RANGES, PhaseRanges, Range
from napari_cvdm.simulate.scenes import defocus_pair_of
from napari_cvdm.tasks import TASKS, NetworkInput, PhaseTwoShot
from napari_cvdm.tasks.phase_input import CHANNELS
from napari_cvdm.tasks.phase_posterior import PhasePosterior
from napari_cvdm.training.card import INTENSITIES
from napari_cvdm.training.pool import ERROR_FLOOR_PHASE, TrainingField
from napari_cvdm.training.sources import FIELDS, load_training_field, solve_missing
from napari_cvdm.training.validation import Validation, cut_to_centre, posterior_samples
from paper.experiment import (
    Experiment,
    Run,
    read_experiment,
    register_counts_only,
    runs_of,
)
from paper.phase_accuracy import best_us_tie, mean_error
from paper.phase_fields import (
    LARGEST_RAD,
    NOISE,
    OFFICIAL,
    OFFICIAL_DEFOCUS_UM,
    PHOTOGRAPHS,
    JudgedField,
    photograph_fields,
)

RECIPE = Path(__file__).parents[1] / "recipes/experiments/paper-setting.toml"
ALONE = PhaseTwoShot(name="phase-planes", channels=("first plane", "second plane"))
AROUND = PhaseTwoShot(
    name="phase-planes-and-physics", channels=("first plane", "second plane", *CHANNELS)
)
LEAST_CONTRAST = 0.2  # of a part of a photograph: the noise of a sky is no object
INTERVAL = 0.9
PAGE_PX = 176  # the last photograph is small
LOOK = Validation(fields=len(PHOTOGRAPHS), samples=8, evaluations=20, largest_px=256)
PUBLISHED = "The paper says: CVDM 50.6 % below US-TIE, and 83.6 % below CDDPM."


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRanges(PhaseRanges):
    """The optics of the paper, for a network that sees the planes alone."""

    task: ClassVar[str] = ALONE.name
    wavelength_um: Range = (OFFICIAL.wavelength_um, OFFICIAL.wavelength_um)
    pixel_um: Range = (OFFICIAL.pixel_um, OFFICIAL.pixel_um)
    medium_index: Range = (OFFICIAL.medium_index, OFFICIAL.medium_index)
    fresnel: Range = (fresnel_number(2.0, OFFICIAL), fresnel_number(2.0, OFFICIAL))
    strength_rad: Range = (LARGEST_RAD, LARGEST_RAD)
    photons: Range = (NOISE**-2, NOISE**-2)
    field_px: tuple[int, int] = (128, 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class AroundRanges(SettingRanges):
    """The same for a network that sees the inversion, too."""

    task: ClassVar[str] = AROUND.name


def register_setting() -> None:
    """Make both tasks known to recipes of this process."""
    for task, kind in ((ALONE, SettingRanges), (AROUND, AroundRanges)):
        TASKS[task.name], RANGES[task.name], FIELDS[task.name] = task, kind, make_field
        INTENSITIES[task.name] = INTENSITIES[PhaseRanges.task]


@cache
def scored_fields() -> list[JudgedField]:
    """The photographs of scikit-image, 256 pixels wide, in sizes that the networks take."""
    *large, page = PHOTOGRAPHS
    return [
        *photograph_fields(LOOK.largest_px, names=large),
        *photograph_fields(PAGE_PX, names=[page]),
    ]


def draw_setting(number: int, ranges: PhaseRanges) -> JudgedField:
    """The field of a number: a photograph of scikit-image, then parts of the folder's."""
    if number < len(PHOTOGRAPHS):
        return scored_fields()[number]
    rng, part = np.random.default_rng(number), np.zeros(())
    while np.ptp(part) < LEAST_CONTRAST:
        part = photograph(rng, (ranges.field_px[0],) * 2, ranges.photographs).astype(np.float64)
    phase = LARGEST_RAD * (part - part.min()) / np.ptp(part)
    planes = defocus_pair_of(phase, np.zeros_like(phase), OFFICIAL, OFFICIAL_DEFOCUS_UM)
    return JudgedField(
        name=str(number),
        planes=planes + rng.normal(0, NOISE, planes.shape),
        phase=phase,
        microscope=OFFICIAL,
        defocus_um=OFFICIAL_DEFOCUS_UM,
    )


def invert(one: JudgedField) -> NetworkInput:
    """The inversion of a field, its blank-field intensity known."""
    planes = one.planes.astype(np.float32)
    return PhaseTwoShot().condition(planes, one.microscope, one.defocus_um, "none")


def make_field(ranges: PhaseRanges, number: int, draw: object = None) -> TrainingField:
    """One field in radians, each image with zero mean; `FIELDS` has the parameters."""
    one = draw_setting(number, ranges)
    channels = torch.from_numpy(one.planes - 1).float()
    truth = torch.from_numpy(one.phase - one.phase.mean()).float()
    estimate = torch.zeros_like(truth)
    if ranges.task == AROUND.name:
        solved = invert(one)
        seen = (slice(None), *(solved.frame or ()))
        channels = torch.cat([channels, solved.channels[seen]])
        estimate = torch.from_numpy(solved.estimate)
        estimate = estimate - estimate.mean()
    error = float((truth - estimate).square().mean())
    return TrainingField(
        channels=channels,
        initial_estimate=estimate,
        truth=truth,
        weight=1 / (error + ERROR_FLOOR_PHASE**2),
        pixel_um=one.microscope.pixel_um,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotographScore:
    """One method on one photograph, in radians; every image has zero mean.

    Parameters
    ----------
    rmse, crps : float
    mean_error : float
        Mean absolute error without a border band; the median difference is removed.
    spread_ratio, covered : float
        Spread over error, and share of pixels within the 90 % interval; NaN for a single answer.
    rate_error, rate_error_given_brightness, spread_error : float
        Spearman's correlations of the rate and of the spread with the absolute error. The second
        leaves out the mean intensity of the planes. NaN where one of them is constant.
    """

    rmse: float
    mean_error: float
    crps: float
    spread_ratio: float
    covered: float
    rate_error: float
    rate_error_given_brightness: float
    spread_error: float


def score_phase(
    samples: np.ndarray,
    one: JudgedField,
    mean: np.ndarray | None = None,
    rate: np.ndarray | None = None,
) -> PhotographScore:
    """Score samples (S, Y, X) [rad]; their mean and a rate (Y, X) where there is one."""
    count, truth = len(samples), one.phase - one.phase.mean()
    levelled = samples.astype(np.float64) - samples.mean(axis=(-2, -1), keepdims=True)
    found = levelled.mean(axis=0) if mean is None else mean.astype(np.float64) - mean.mean()
    spread = levelled.std(axis=0, ddof=1) if count > 1 else np.zeros_like(found)
    error, varied = found - truth, bool(spread.any())
    absolute, brightness = np.abs(error).ravel(), one.planes.mean(axis=0).ravel()
    crps = crps_ensemble(truth.ravel(), levelled.reshape(count, -1).T, estimator="fair")
    rates = np.zeros_like(absolute) if rate is None else rate.ravel()
    return PhotographScore(
        rmse=float(np.sqrt(np.square(error).mean())),
        mean_error=mean_error(found, truth),
        crps=float(np.mean(crps)) if varied else float(absolute.mean()),
        spread_ratio=(
            spread_skill(np.square(spread), np.square(error), count) if varied else float("nan")
        ),
        covered=coverage(error, spread, count, INTERVAL) if varied else float("nan"),
        rate_error=spearman(rates, absolute),
        rate_error_given_brightness=partial_correlation(rates, absolute, brightness),
        spread_error=spearman(spread.ravel(), absolute),
    )


def score_model(network: CVDM, folder: Path) -> list[PhotographScore]:
    """A model on every photograph; `folder` holds the fields of its task."""
    scores = []
    for number, one in enumerate(scored_fields()):
        entry = load_training_field(folder / f"{number:06d}.npz")
        channels, estimate, *_ = cut_to_centre(entry, LOOK.largest_px, network)
        samples, _, rate = posterior_samples(network, channels, estimate, LOOK, seed=number)
        scores.append(score_phase(samples[:, 0].numpy(), one, rate=rate[0, 0].numpy()))
    return scores


def score_physics() -> list[PhotographScore]:
    """The inversion alone, its spread that of posterior draws."""
    scores = []
    for one in scored_fields():
        solved = invert(one)
        assert isinstance(solved.posterior, PhasePosterior)  # a phase always has one
        draws = finished(solved.posterior.draw_phases(2 * LOOK.samples))
        scores.append(score_phase(draws, one, mean=solved.estimate))
    return scores


def score_us_tie() -> list[PhotographScore]:
    """US-TIE; the truth chooses its regularisation, for each measure and photograph."""
    none = float("nan")
    blank = {entry.name: none for entry in fields(PhotographScore)}
    return [
        PhotographScore(
            **blank
            | {
                "rmse": best_us_tie(one, lambda found, truth: float(np.std(found - truth))),
                "mean_error": best_us_tie(one, mean_error),
            }
        )
        for one in scored_fields()
    ]


def kept_scores(path: Path, make: Any) -> list[PhotographScore]:
    """Scores of a file, which is made where it is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps([asdict(score) for score in make()], indent=1)
        partial = path.with_suffix(".part")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    return [PhotographScore(**values) for values in json.loads(path.read_text(encoding="utf-8"))]


def is_complete(run: Run) -> bool:
    """Whether its training has ended."""
    return (run.folder / CARD).exists()


def collect(experiment: Experiment, out: Path, runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """Scores of every method that is complete: (seeds, photographs, measures)."""
    folder = out / experiment.name / "scores"
    found = {
        "US-TIE, best regularisation": [kept_scores(folder / "us-tie.json", score_us_tie)],
        "phase-physics": [kept_scores(folder / "phase-physics.json", score_physics)],
    }
    for run in filter(is_complete, runs):
        assert run.recipe.solved is not None  # the recipe names the fields

        def make(run: Run = run, fields: str = run.recipe.solved.folder) -> list[PhotographScore]:
            return score_model(load_checkpoint(run.folder).network, Path(fields))

        found.setdefault(run.variant, []).append(
            kept_scores(folder / f"{run.folder.name}.json", make)
        )
    return {
        name: np.array([[list(asdict(one).values()) for one in seed] for seed in seeds])
        for name, seeds in found.items()
    }


def write_cell(values: np.ndarray) -> str:
    """Mean of (seeds, photographs), its range over photographs, and over seeds if several."""
    if np.isnan(values).all():
        return "none"
    each, seeds = values.mean(axis=0), values.mean(axis=1)
    text = f"{values.mean():.3g} ({each.min():.3g} to {each.max():.3g})"
    return text + (f"; seeds {seeds.min():.3g} to {seeds.max():.3g}" if len(seeds) > 1 else "")


def write_table(experiment: Experiment, runs: Sequence[Run], found: dict[str, np.ndarray]) -> str:
    """The table in Markdown, comparisons as the paper makes them, and what is missing."""
    names = [entry.name for entry in fields(PhotographScore)]
    lines = [
        f"{experiment.question}\n",
        "| method | seeds | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|---" * (len(names) + 2) + "|",
    ]
    for method, values in found.items():
        cells = [write_cell(values[..., place]) for place in range(len(names))]
        lines.append(f"| {method} | {len(values)} | " + " | ".join(cells) + " |")
    lines.append(
        f"\nMean over {len(PHOTOGRAPHS)} photographs [rad], and in brackets from the lowest "
        "photograph to the highest. The constant is left out.\n"
    )
    errors = {name: values[..., names.index("mean_error")].mean() for name, values in found.items()}
    lines.append(PUBLISHED)
    for kind in ("planes alone", "with physics"):
        ours = errors.get(f"CVDM, {kind}")
        others = ("US-TIE, best regularisation", f"CDDPM linear, {kind}", f"CDDPM cosine, {kind}")
        for other in others:
            if ours is not None and other in errors:
                lines.append(
                    f"CVDM, {kind}: mean error {1 - ours / errors[other]:+.1%} below {other}."
                )
    missing = [f"{run.variant}, seed {run.recipe.seed}" for run in runs if not is_complete(run)]
    if missing:
        lines.append(f"\nNot trained yet: {'; '.join(missing)}.")
    return "\n".join(lines) + "\n"


def make_fields(experiment: Experiment, out: Path, count: int, photographs: str) -> None:
    """Make every field of every task that is missing; `count` of them to learn from."""
    made = {run.recipe.task: run.recipe for run in runs_of(experiment, out)}
    for task, recipe in made.items():
        assert recipe.solved is not None and recipe.simulation is not None
        ranges = replace(recipe.simulation, photographs=photographs)
        numbers = range(recipe.validation.fields + count)
        with bar(task, total=len(numbers)) as shown:
            for _ in solve_missing(Path(recipe.solved.folder), ranges, 0, numbers):
                shown.update(1)


def main(words: Sequence[str] | None = None) -> None:
    """Make the fields, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("fields", "table"))
    parser.add_argument("--out", type=Path, required=True, help="folder for fields and models")
    parser.add_argument("--photographs", default="", help="folder of photographs to learn from")
    parser.add_argument("--count", type=int, default=108, help="fields to learn from")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--steps-factor", type=float, default=1.0)
    options = parser.parse_args(words)
    register_setting()
    register_counts_only()
    experiment = read_experiment(options.recipe)
    if options.what == "fields":
        if experiment.base["task"] == ALONE.name and not options.photographs:
            parser.error("--photographs is missing; name a folder of photographs")
        make_fields(experiment, options.out, options.count, options.photographs)
        return
    runs = runs_of(experiment, options.out, options.steps_factor)
    text = write_table(experiment, runs, collect(experiment, options.out, runs))
    (options.out / experiment.name / "photographs.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
