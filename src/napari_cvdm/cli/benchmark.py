"""``napari-cvdm benchmark``: evaluate all models on all sets, and write one table.

Each result has its own folder. Existing results are not computed again.
"""

import json
import re
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_cvdm.cli import say_done
from napari_cvdm.cli.evaluate import METRICS, TABLE, evaluate_into
from napari_cvdm.cli.evaluation_table import markdown, shown
from napari_cvdm.cli.pairs import pairs_card, sampling_of, set_of
from napari_cvdm.core.request import RequestError
from napari_cvdm.evaluation.pair_sets import EVALUATION_SEED
from napari_cvdm.evaluation.summary import plain
from napari_cvdm.io import output_folder
from napari_cvdm.models.registry import shipped_models
from napari_cvdm.reconstruction.methods import load_method

HEAD = (
    "model",
    "set",
    "fields",
    "RMSE",
    "RMSE, one sample",
    "SSIM",
    "CRPS",
    "90 % interval covers",
    "calibrated covers",
    "spread/skill",
    "AUSE",
    "AUROC",
    "λ and error",
    "spread and error",
    "s per field",
)


def run(arguments: Namespace) -> None:
    """Carry out ``napari-cvdm benchmark``.

    Parameters
    ----------
    arguments : Namespace

    Raises
    ------
    ValueError, OSError
        Bad input, in words. What is complete stays, and is not computed again by the same command.
    """
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file; choose the name of a folder.")
    found = []
    for model_name in arguments.models or [name for name, _ in shipped_models()]:
        for set_name in arguments.sets:
            found.append(
                result_of(arguments, out / folder_name(model_name, set_name), model_name, set_name)
            )
    (out / TABLE).write_text(table(found), encoding="utf-8")
    say_done(f"{out / TABLE}: {len(found)} results")


def folder_name(model_name: str, set_name: str) -> str:
    """A name for the folder of one result, of letters that any disk takes."""
    return "-on-".join(re.sub(r"[^\w.-]+", "_", name).strip("_") for name in (model_name, set_name))


def result_of(arguments: Namespace, folder: Path, model_name: str, set_name: str) -> dict[str, Any]:
    """Summary of a model on a set.

    An existing one is used if it has the same weights, card, pairs and sampling; else a new one is
    made.
    """
    model = load_method(model_name)
    pairs = set_of(arguments, set_name, pairs_card(model), EVALUATION_SEED)
    wanted = {
        "model": {
            "sha256": model.sha256,
            "noise_scale": model.card.noise_scale,
            "calibration": dict(model.card.calibration),
        },
        "set": {"said": pairs.said},
        "sampling": asdict(sampling_of(arguments)),
    }
    earlier = read_result(folder)
    if earlier is not None and agrees(earlier, plain(wanted)):
        print(f"napari-cvdm: {folder} is there already", file=sys.stderr)
        return earlier
    with output_folder(folder, overwrite=True, sign=METRICS) as work:
        values, _ = evaluate_into(work, arguments, model_name, set_name)
    return values


def read_result(folder: Path) -> dict[str, Any] | None:
    """The summary in a folder; None where there is none that can be read."""
    try:
        return dict(json.loads((folder / METRICS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def agrees(found: Any, wanted: Any) -> bool:
    """Whether a mapping has all entries of another one, at any depth."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping) and wanted:
        return all(name in found and agrees(found[name], value) for name, value in wanted.items())
    return bool(found == wanted)


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """One row for each result."""
    return "# Benchmark\n\n" + markdown(HEAD, [row(one) for one in found])


def row(values: Mapping[str, Any]) -> list[str]:
    """The most important figures of one result."""
    spread = list(values["uncertainty"].values())[-1]
    mean, sample = values["accuracy"]["mean"], values["accuracy"]["one sample"]
    unit = "rad" if values["unit"] == "rad" else "of the intensity scale"
    calibrated = None if values["calibrated"] is None else values["calibrated"]["coverage"]
    figures = [
        mean["rmse"],
        sample["rmse"],
        mean["ssim"],
        spread["crps"],
        spread["coverage"]["0.9"],
        calibrated,
        spread["spread_skill"],
    ]
    figures += [
        spread["ause"],
        spread["auroc"],
        values["ranks"]["rate-error"],
        values["ranks"]["spread-error"],
        values["cost"]["seconds_per_field"],
    ]
    return [
        f"{values['model']['name']} [{unit}]",
        values["set"]["name"],
        str(values["set"]["fields"]),
        *(shown(figure) for figure in figures),
    ]
