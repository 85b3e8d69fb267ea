"""How many evaluations of the network a sample needs: `python -m paper.evaluations --out DIR`.

Both shipped models on simulated fields that they never saw (the held-out fields of their recipes),
every sampler at every number of evaluations. Printed: CRPS, spread over error, RMSE of the mean,
and for each sampler the smallest number within 2 % of the best CRPS of all. What DIR holds already
is not measured again.
"""

import argparse
import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from napari_cvdm.diffusion.process import noise_level, signal_level
from napari_cvdm.diffusion.sampler import SAMPLERS, clock_grid, uniform_time_grid
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.models.registry import load_model
from napari_cvdm.models.tiled import channels_last
from napari_cvdm.training.pool import TrainingField
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.sources import split_simulation
from napari_cvdm.training.validation import cut_to_centre, pool_errors, sum_errors

RECIPES = Path(__file__).parents[1] / "recipes"
MODELS = ("phase-2shot", "widefield-x2")
WARM, ALONE = "ode-2m, warm", "sde-2m, no first shared"
METHODS = ("sde-2m", ALONE, "ode-2m", WARM, "ddim", "ancestral")
COUNTS = (2, 4, 6, 8, 10, 20, 50, 200)  # the last is the published number
TOLERANCE = 0.02  # of the best CRPS
SEED = 77


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """One sampler at one number of evaluations; lengths in network units, pooled over all fields.

    Parameters
    ----------
    model, method : str
    evaluations : int
        Of the denoiser for one sample, all counted, also the first, which is one for all samples.
    crps, rmse, spread_ratio : float
        As in `napari_cvdm.training.validation.Score`.
    """

    model: str
    method: str
    evaluations: int
    crps: float
    rmse: float
    spread_ratio: float


@torch.inference_mode()
def posterior(
    network: CVDM,
    channels: Tensor,
    initial_estimate: Tensor,
    method: str,
    evaluations: int,
    samples: int,
) -> Tensor:
    """Samples of one field, (S, 1, uY, uX), all with the same noise whatever the method.

    Parameters
    ----------
    network : CVDM
    channels, initial_estimate : Tensor of shape (1, C, Y, X), (1, 1, uY, uX)
    method : str
        One of `METHODS`.
    evaluations, samples : int
    """
    mean_residual = network.mean_residual(channels)
    features = network.features(channels, mean_residual)
    rate, first_layer_features, std = (
        network.rate(features),
        network.first_layer_features(features),
        network.residual_std(features),
    )
    shape = (rate.shape[-2], rate.shape[-1])

    def denoise(noisy: Tensor, neg_log_gamma: Tensor) -> Tensor:
        return network.clean(noisy, neg_log_gamma, first_layer_features)

    def noise(sample: int, step: int) -> Tensor:
        return network.noise(shape, [sample], step, SEED)

    first = (
        None if method in (WARM, ALONE) else denoise(noise(0, 0), rate)
    )  # see `napari_cvdm.reconstruction.sampling.FrameSampler.start`

    def one(sample: int) -> Tensor:
        own = partial(noise, sample)
        source, left = (
            (warmed(denoise, rate, own), evaluations - 1) if method == WARM else (own, evaluations)
        )
        *_, clean = SAMPLERS[method.split(",")[0]](
            denoise, rate, grid(network, method, rate, left), source, first
        )
        return network.decode(clean, initial_estimate, mean_residual, std)

    return torch.cat([one(sample) for sample in range(samples)])


def warmed(
    denoise: Callable[[Tensor, Tensor], Tensor], rate: Tensor, noise: Callable[[int], Tensor]
) -> Callable[[int], Tensor]:
    """A start with the little signal that T = 1 leaves: a x(1) + s xi.

    It costs one more evaluation. An ODE never forgets its start.
    """

    def source(step: int) -> Tensor:
        fresh = noise(step)
        return (
            fresh if step else signal_level(rate) * denoise(fresh, rate) + noise_level(rate) * fresh
        )

    return source


def grid(network: CVDM, method: str, rate: Tensor, evaluations: int) -> tuple[float, ...]:
    """Clock values as they are in use.

    They are uniform in t for the published sampler. For the others they are uniform in the half
    log-SNR of the median rate.
    """
    if method == "ancestral":
        return uniform_time_grid(network.clock, evaluations, rate.device)
    return clock_grid(float(rate.median()), evaluations)


def fields_of(model: str, count: int) -> list[TrainingField]:
    """Fields from the simulation of the model's recipe, with the seeds that training holds out."""
    recipe = read_recipe(RECIPES / f"{model}.toml")
    if recipe.simulation is None:
        raise ValueError(
            f"the recipe of {model} has no simulation; the quality is measured on simulated fields."
        )
    return [make() for make in split_simulation(recipe.simulation, recipe.seed, count).held_out]


def measured(
    model: str,
    fields: Sequence[TrainingField],
    method: str,
    evaluations: int,
    samples: int,
    side: int,
) -> Quality:
    """The quality of one method on all fields."""
    network = channels_last(load_model(model).network, torch.device("cpu"))
    sums = np.zeros(6)
    for entry in fields:
        channels, baseline, truth, _ = cut_to_centre(entry, side, network)
        drawn = posterior(network, channels, baseline, method, evaluations, samples)
        sums += sum_errors(drawn, baseline, baseline, truth)
    score = pool_errors(sums, samples)
    return Quality(
        model=model,
        method=method,
        evaluations=evaluations,
        crps=score.crps,
        rmse=score.rmse,
        spread_ratio=score.spread_ratio,
    )


def smallest_within(
    rows: Iterable[Quality], best: float, tolerance: float = TOLERANCE
) -> Quality | None:
    """The row with the fewest evaluations whose CRPS is at most (1 + tolerance) times the best.

    None if there is none.
    """
    return min(
        (row for row in rows if row.crps <= (1 + tolerance) * best),
        key=lambda row: row.evaluations,
        default=None,
    )


def read_rows(path: Path) -> list[Quality]:
    """Rows that were measured before."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Quality(**{name: _typed(name, text) for name, text in row.items()})
            for row in csv.DictReader(file)
        ]  # type: ignore[arg-type]


def _typed(name: str, text: str) -> str | int | float:
    return (
        text if name in ("model", "method") else int(text) if name == "evaluations" else float(text)
    )


def append_row(path: Path, row: Quality) -> None:
    """Write one more row down at once."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(row)))
        if new:
            writer.writeheader()
        writer.writerow(asdict(row))


def print_model(model: str, rows: list[Quality]) -> None:
    """A table of Markdown, and the smallest count of each method."""
    best = min(row.crps for row in rows)
    print(
        f"\n{model}\n\n| sampler | evaluations | CRPS / best | spread / error | RMSE / best "
        "|\n|---|---|---|---|---|"
    )
    sharpest = min(row.rmse for row in rows)
    ordered = sorted(rows, key=lambda row: (METHODS.index(row.method), row.evaluations))
    for row in ordered:
        print(
            f"| {row.method} | {row.evaluations} | {row.crps / best:.3f} | {row.spread_ratio:.2f} "
            f"| {row.rmse / sharpest:.3f} |"
        )
    print()
    for method in METHODS:
        few = smallest_within((row for row in rows if row.method == method), best)
        if any(row.method == method for row in rows):
            print(
                f"{model}, {method}: within {TOLERANCE:.0%} of the best CRPS "
                + (f"from {few.evaluations} evaluations on" if few else "at no number measured")
            )


def draw(rows: list[Quality], path: Path) -> None:
    """CRPS and spread over error against evaluations, one column for each model."""
    models = [model for model in MODELS if any(row.model == model for row in rows)]
    figure = Figure(figsize=(4.2 * len(models), 6.0), layout="constrained")
    axes = figure.subplots(2, len(models), squeeze=False, sharex=True)
    for column, model in enumerate(models):
        best = min(row.crps for row in rows if row.model == model)
        for method in METHODS:
            line = sorted(
                (row for row in rows if (row.model, row.method) == (model, method)),
                key=lambda row: row.evaluations,
            )
            counts = [row.evaluations for row in line]
            axes[0, column].plot(counts, [row.crps / best for row in line], ".-", label=method)
            axes[1, column].plot(counts, [row.spread_ratio for row in line], ".-")
        axes[0, column].axhline(1 + TOLERANCE, color="gray", lw=0.8)
        axes[1, column].axhline(1, color="gray", lw=0.8)
        axes[0, column].set(title=model, ylabel="CRPS / best", ylim=(0.98, 1.3), xscale="log")
        axes[1, column].set(xlabel="evaluations of the network", ylabel="spread / error")
        axes[1, column].set_xticks(COUNTS, [str(count) for count in COUNTS])
        axes[1, column].set_xticks([], minor=True)
    axes[0, 0].legend()
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, print and draw what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="for evaluations.csv and evaluations.png",
    )
    parser.add_argument("--model", action="append", choices=MODELS)
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--count", action="append", type=int, help="evaluations")
    parser.add_argument("--fields", type=int, default=3)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--side", type=int, default=96, help="of a field, in pixels of the input")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    rows = read_rows(given.out / "evaluations.csv")
    for model in given.model or MODELS:
        fields = fields_of(model, given.fields)
        for method in given.method or METHODS:
            for count in given.count or COUNTS:
                if not any(
                    (row.model, row.method, row.evaluations) == (model, method, count)
                    for row in rows
                ):
                    rows.append(measured(model, fields, method, count, given.samples, given.side))
                    append_row(given.out / "evaluations.csv", rows[-1])
        print_model(model, [row for row in rows if row.model == model])
    draw(rows, given.out / "evaluations.png")


if __name__ == "__main__":
    main()
