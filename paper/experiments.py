"""The paper's experiments.

`python -m paper.experiments recipes/experiments/alpha.toml --out DIR`

Trains every variant with every seed, scores all of them on the same held-out fields and describes
their schedules: table.md, table.csv and figure.png in DIR/EXPERIMENT. A command that was killed
goes on where it was; runs that are done are not made again. Several files may be named: what two
experiments have in common is trained once.
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from napari_cvdm.core.device import pick_device
from napari_cvdm.core.request import RequestError
from napari_cvdm.models.checkpoint import load_checkpoint
from paper.experiment import (
    Experiment,
    Run,
    carry_out,
    held_out_fields,
    read_experiment,
    register_counts_only,
    runs_of,
)
from paper.paper_setting import register_setting
from paper.schedule_measures import Measures, measured

Found = dict[tuple[str, str], list[Measures]]
"""By variant and set of held-out fields, one for each seed."""

COLUMNS: dict[str, Callable[[Measures], float]] = {
    "RMSE": lambda found: found.score.rmse,
    "CRPS": lambda found: found.score.crps,
    "spread": lambda found: found.score.rmse * found.score.spread_ratio,
    "spread / error": lambda found: found.score.spread_ratio,
    "90 % interval covers": lambda found: found.coverage,
    "false structure": lambda found: found.false_area,
    "t of gamma = 1/2": lambda found: found.half_time,
    "rms d2gamma/dt2": lambda found: found.bend,
    "largest gamma(1)": lambda found: found.last_gamma,
    "contrast of lambda": lambda found: found.contrast,
    "lambda with error": lambda found: found.with_error,
    "lambda with spread": lambda found: found.with_spread,
}
BARS = ("RMSE", "CRPS", "spread / error")


def done(
    experiment: Experiment, out: Path, device: str, steps_factor: float
) -> tuple[list[Run], Found]:
    """Train what is not trained yet, and measure every model on the same fields."""
    runs = runs_of(experiment, out, steps_factor)
    # The first seed of every variant comes first: a table of it is of use before the rest.
    for number, run in enumerate(sorted(runs, key=lambda run: run.recipe.seed), start=1):
        print(
            f"{experiment.name}: {run.variant}, seed {run.recipe.seed} ({number} of {len(runs)})",
            flush=True,
        )
        carry_out(run, device)
    networks = [load_checkpoint(run.folder).network.to(pick_device(device)) for run in runs]
    found: Found = {
        (variant, name): [] for variant in experiment.variants for name in experiment.judged
    }
    for name, changes in experiment.judged.items():
        fields = {
            task: held_out_fields(experiment, out, changes, task, solved)
            for task, solved in {run.recipe.task: run.recipe.solved for run in runs}.items()
        }
        for run, network in zip(runs, networks, strict=True):
            found[run.variant, name].append(
                measured(network, fields[run.recipe.task], run.recipe.validation)
            )
    return runs, found


def titled(variant: str, name: str) -> str:
    """A variant, and the set that it was scored on where there are several."""
    return f"{variant}, on {name}" if name else variant


def said(values: Sequence[float]) -> str:
    """Mean and range over the seeds."""
    low, mean, high = min(values), float(np.mean(values)), max(values)
    if np.isnan(mean):
        return "none"
    return (
        f"{mean:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{mean:.3g} ({low:.3g} to {high:.3g})"
    )


def table(experiment: Experiment, found: Found) -> str:
    """Mean and range of every column, in Markdown."""
    lines = [
        f"{experiment.question}\n",
        "| " + " | ".join(["variant", *COLUMNS, "failures named"]) + " |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for (variant, name), measures in found.items():
        lights = sorted({light for one in measures for light in one.lights}) or ["none"]
        cells = [said([column(one) for one in measures]) for column in COLUMNS.values()]
        lines.append("| " + " | ".join([titled(variant, name), *cells, ", ".join(lights)]) + " |")
    seeds = (
        f"{len(experiment.seeds)} seeds: mean (range)"
        if len(experiment.seeds) > 1
        else f"seed {experiment.seeds[0]}"
    )
    alone = {name: measures[0].score.baseline_rmse for (_, name), measures in found.items()}
    estimates = ", ".join(
        f"{error:.3g} on {name}" if name else f"{error:.3g}" for name, error in alone.items()
    )
    return "\n".join(lines) + f"\n\n{seeds}. RMSE of the physical estimate alone: {estimates}.\n"


def write_lines(path: Path, runs: Sequence[Run], found: Found) -> None:
    """One line of numbers for each run and set, with the folder of its model."""
    of_variant = {variant: [run for run in runs if run.variant == variant] for variant, _ in found}
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["variant", "seed", *COLUMNS, "failures named", "model"])
        for (variant, name), measures in found.items():
            for run, one in zip(of_variant[variant], measures, strict=True):
                numbers = [f"{column(one):.6g}" for column in COLUMNS.values()]
                writer.writerow(
                    [
                        titled(variant, name),
                        run.recipe.seed,
                        *numbers,
                        "; ".join(one.lights),
                        run.folder.relative_to(path.parents[1]).as_posix(),
                    ]
                )


def figure(experiment: Experiment, found: Found) -> Figure:
    """Draw the schedules of the first seed, then the scores with a dot for each seed.

    A schedule is gamma(t) of the median pixel, and between the 5 and 95 % pixels.
    """
    drawn = Figure(figsize=(4 + 3 * len(BARS), 4), layout="constrained")
    curves, *panels = drawn.subplots(1, 1 + len(BARS), width_ratios=[1.6, *[1] * len(BARS)])
    for (variant, name), measures in found.items():
        one = measures[0]
        (line,) = curves.plot(one.times, one.gammas[1], label=titled(variant, name))
        curves.fill_between(
            one.times, one.gammas[2], one.gammas[0], color=line.get_color(), alpha=0.25, linewidth=0
        )
    curves.set(xlabel="t", ylabel="gamma", xlim=(0, 1), ylim=(0, 1), title=experiment.name)
    curves.legend()
    for panel, bar in zip(panels, BARS, strict=True):
        for (variant, name), measures in found.items():
            panel.plot(
                [titled(variant, name)] * len(measures),
                [COLUMNS[bar](one) for one in measures],
                "o",
            )
        panel.set(title=bar)
        panel.tick_params(axis="x", rotation=45)
    return drawn


def report(experiment: Experiment, out: Path, runs: Sequence[Run], found: Found) -> str:
    """Write table.md, table.csv and figure.png; the table."""
    folder, text = out / experiment.name, table(experiment, found)
    (folder / "table.md").write_text(text, encoding="utf-8")
    write_lines(folder / "table.csv", runs, found)
    figure(experiment, found).savefig(folder / "figure.png", dpi=150)
    return text


def main(words: Sequence[str] | None = None) -> None:
    """Carry out every experiment that is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "experiment", nargs="+", type=Path, help="TOML files, as those of recipes/experiments"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for models and tables")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 or mps")
    parser.add_argument(
        "--steps-factor",
        type=float,
        default=1.0,
        help="times the steps of the recipes: 0.02 for a trial, 20 on a GPU",
    )
    options = parser.parse_args(words)
    register_counts_only()
    register_setting()
    try:
        for path in options.experiment:
            experiment = read_experiment(path)
            runs, found = done(experiment, options.out, options.device, options.steps_factor)
            print(report(experiment, options.out, runs, found), flush=True)
    except RequestError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
