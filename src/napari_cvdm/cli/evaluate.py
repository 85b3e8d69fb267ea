"""``napari-cvdm evaluate``: a model on a set of pairs -> metrics.json, table.md and figures."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from napari_cvdm.baselines import Baseline
from napari_cvdm.cli import check_inputs_stay, say_done
from napari_cvdm.cli.evaluation_figures import draw_figures
from napari_cvdm.cli.evaluation_table import tables
from napari_cvdm.cli.pairs import pairs_card, sampling_of, set_of
from napari_cvdm.cli.progress import with_bar
from napari_cvdm.evaluation.evaluate import evaluate
from napari_cvdm.evaluation.pair_sets import EVALUATION_SEED, SIMULATION
from napari_cvdm.evaluation.resolution import two_point_resolution
from napari_cvdm.evaluation.summary import summary
from napari_cvdm.io import output_folder
from napari_cvdm.reconstruction.methods import load_method

METRICS, TABLE = "metrics.json", "table.md"
POINTS_FOR = "widefield-x2"


def run(arguments: Namespace) -> None:
    """Carry out ``napari-cvdm evaluate``.

    Parameters
    ----------
    arguments : Namespace

    Raises
    ------
    ValueError, OSError
        Bad input, in words; the output folder is not made then.
    """
    check_inputs_stay(arguments, [arguments.model, arguments.set])
    with output_folder(arguments.out, arguments.overwrite, sign=METRICS) as folder:
        values, names = evaluate_into(folder, arguments, arguments.model, arguments.set)
    say_done(f"{arguments.out}: {', '.join(names)}")
    say_done(headline(values))


def evaluate_into(
    folder: Path, arguments: Namespace, model_name: str, set_name: str
) -> tuple[dict[str, Any], list[str]]:
    """Evaluate a model on a set, and write the files into an existing folder.

    Returns the summary and the names of the files.
    """
    model = load_method(model_name)
    pairs = set_of(arguments, set_name, pairs_card(model), EVALUATION_SEED)
    found = with_bar(evaluate(pairs, model, sampling_of(arguments)), f"evaluating {model_name}")
    values = summary(found)
    if set_name == SIMULATION and model.card.task == POINTS_FOR and not isinstance(model, Baseline):
        seen = with_bar(
            two_point_resolution(model, sampling_of(arguments)), "looking at point pairs"
        )
        values["two_points"] = {
            "separation_nm": [round(1000 * one) for one in seen.separation_um],
            "pairs": seen.pairs,
            "apart": dict(seen.apart),
        }
    figures = draw_figures(folder, found, values)
    (folder / TABLE).write_text(tables(values), encoding="utf-8")
    (folder / METRICS).write_text(
        json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return values, [METRICS, TABLE, *figures]


def headline(values: dict[str, Any]) -> str:
    """The most important figures in one line."""
    count, last = list(values["uncertainty"].items())[-1]
    mean, sample = (values["accuracy"][name]["rmse"]["mean"] for name in ("mean", "one sample"))
    calibrated = values["calibrated"]
    interval = (
        "not calibrated"
        if calibrated is None
        else f"the calibrated interval covers {calibrated['coverage']['mean']:.1%}"
    )
    return (
        f"RMSE {mean:.3g} (one sample {sample:.3g}) {values['unit']}; of {count} samples the 90% "
        f"interval covers {last['coverage']['0.9']['mean']:.1%}, "
        f"spread/skill {last['spread_skill']:.2f}; {interval}."
    )
