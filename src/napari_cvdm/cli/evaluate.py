"""``napari-cvdm evaluate`` and ``napari-cvdm benchmark``: models on sets of pairs.

A result is ``metrics.json``, ``table.md``, with the numbers of the former only, and figures. The
benchmark evaluates all models on all sets, and writes one table. Each result has its own folder.
Existing results are not computed again.
"""

import json
import re
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_cvdm.baselines import Baseline
from napari_cvdm.cli import check_inputs_stay, say_done
from napari_cvdm.cli.figures import draw_evaluation
from napari_cvdm.cli.progress import with_bar
from napari_cvdm.core.request import OPTICS, RequestError
from napari_cvdm.evaluation.evaluate import evaluate
from napari_cvdm.evaluation.metrics import LEVELS
from napari_cvdm.evaluation.pair_sets import (
    EVALUATION_SEED,
    SIMULATION,
    PairSelection,
    PairSet,
    Sampling,
    pair_set,
)
from napari_cvdm.evaluation.resolution import two_point_resolution
from napari_cvdm.evaluation.summary import plain, summary
from napari_cvdm.io import output_folder
from napari_cvdm.io.atomic import write_file
from napari_cvdm.io.limits import parse_json_object, read_bounded
from napari_cvdm.models.checkpoint import Checkpoint, ModelCard
from napari_cvdm.models.registry import shipped_models
from napari_cvdm.reconstruction.methods import load_method

METRICS, TABLE = "metrics.json", "table.md"
POINTS_FOR = "widefield-x2"  # which points can be told apart is a question to super-resolution
ACCURACY = {
    "rmse": "RMSE",
    "mae": "MAE",
    "rmse_nm": "RMSE [nm]",
    "mae_nm": "MAE [nm]",
    "psnr": "PSNR [dB]",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
}
SPREAD = {
    "spread_skill": "spread/skill, pooled",
    "spread_skill_of_fields": "of a median field",
    "crps": "CRPS",
    "ause": "AUSE",
    "auroc": "AUROC",
}
# Of `evaluation.summary`, for each group of fields.
GROUP = {
    "fields": "fields",
    "rmse": "RMSE",
    "ssim": "SSIM",
    "coverage_90": "90 % interval covers",
    "calibrated": "calibrated covers",
    "spread_skill": "spread/skill",
    "auroc": "AUROC",
}
# Where each figure lies in a summary; `spread` is that of the most samples.
BENCHMARK = {
    "RMSE": ("accuracy", "mean", "rmse"),
    "RMSE, one sample": ("accuracy", "one sample", "rmse"),
    "SSIM": ("accuracy", "mean", "ssim"),
    "CRPS": ("spread", "crps"),
    "90 % interval covers": ("spread", "coverage", "0.9"),
    "calibrated covers": ("calibrated", "coverage"),
    "spread/skill": ("spread", "spread_skill"),
    "AUSE": ("spread", "ause"),
    "AUROC": ("spread", "auroc"),
    "λ and error": ("ranks", "rate-error"),
    "spread and error": ("ranks", "spread-error"),
    "s per field": ("cost", "seconds_per_field"),
}
PISTON = (
    "The constant of a phase, which the planes do not tell, is taken out, but for the row that "
    "says so."
)
FITTED = "The row *fitted* is after one least-squares gain and offset for each field."


def run_evaluate(arguments: Namespace) -> None:
    """Carry out ``napari-cvdm evaluate``; the folder is not made where the input is bad."""
    check_inputs_stay(arguments, [arguments.model, arguments.set])
    with output_folder(arguments.out, arguments.overwrite, sign=METRICS) as folder:
        values, names = evaluate_into(folder, arguments, arguments.model, arguments.set)
    say_done(f"{arguments.out}: {', '.join(names)}")
    say_done(headline(values))


def run_benchmark(arguments: Namespace) -> None:
    """Carry out ``napari-cvdm benchmark``.

    What is complete stays on bad input, and is not computed again by the same command.
    """
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file; choose the name of a folder.")
    found = []
    for model_name in arguments.models or [name for name, _ in shipped_models()]:
        for set_name in arguments.sets:
            # Of letters that any disk takes.
            words = [re.sub(r"[^\w.-]+", "_", name).strip("_") for name in (model_name, set_name)]
            folder = out / "-on-".join(words)
            found.append(_result_of(arguments, folder, model_name, set_name))
    head = ["model", "set", "fields", *BENCHMARK]
    text = "# Benchmark\n\n" + markdown(head, [_benchmark_row(one) for one in found])
    write_file(out / TABLE, text.encode())
    say_done(f"{out / TABLE}: {len(found)} results")


def set_of(
    arguments: Namespace, name: str, card: ModelCard, first_seed: int, count: int | None = None
) -> PairSet:
    """A named set, or that of a folder; RequestError where there is no such set.

    `first_seed` is EVALUATION_SEED or CALIBRATION_SEED. `count` is a number of fields other than
    that of the arguments.
    """
    count = arguments.fields if count is None else count
    # Only what was given: what is absent comes from the files.
    optics = {
        option: tuple(value) if isinstance(value, list) else value
        for option, value in vars(arguments).items()
        if option in (*OPTICS, "defocus_um", "condenser_na")
    }
    choice = PairSelection(
        first_seed=first_seed + arguments.seed,
        field_px=arguments.field_px,
        optics=optics,
        register=arguments.register,
        **({} if count is None else {"fields": count}),
    )
    return pair_set(name, card, choice)


def sampling_of(arguments: Namespace) -> Sampling:
    """How every posterior is sampled."""
    return Sampling(
        samples=arguments.samples,
        steps=arguments.steps,
        sampler=arguments.sampler,
        device=arguments.device,
    )


def _evaluation_set(arguments: Namespace, method: Checkpoint | Baseline, set_name: str) -> PairSet:
    """The set that a method is evaluated on.

    A classical method has no training, and takes the card of the shipped model of its task.
    """
    card = method.card
    if isinstance(method, Baseline):
        card = next(card for _, card in shipped_models() if card.task == method.task)
    return set_of(arguments, set_name, card, EVALUATION_SEED)


def evaluate_into(
    folder: Path, arguments: Namespace, model_name: str, set_name: str
) -> tuple[dict[str, Any], list[str]]:
    """Evaluate a model on a set, and write the files into an existing folder.

    Returns the summary and the names of the files.
    """
    model, sampling = load_method(model_name), sampling_of(arguments)
    pairs = _evaluation_set(arguments, model, set_name)
    found = with_bar(evaluate(pairs, model, sampling), f"evaluating {model_name}")
    values = summary(found)
    # The points have the optics of a training, which a classical method lacks.
    if set_name == SIMULATION and model.card.task == POINTS_FOR and not isinstance(model, Baseline):
        seen = with_bar(two_point_resolution(model, sampling), "looking at point pairs")
        values["two_points"] = {
            "separation_nm": [round(1000 * one) for one in seen.separation_um],
            "pairs": seen.pairs,
            "apart": dict(seen.apart),
        }
    figures = draw_evaluation(folder, found, values)
    (folder / TABLE).write_text(tables(values), encoding="utf-8")
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    (folder / METRICS).write_text(text, encoding="utf-8")
    return values, [METRICS, TABLE, *figures]


def headline(values: Mapping[str, Any]) -> str:
    """The most important figures in one line."""
    # The largest number of samples comes last.
    count, last = list(values["uncertainty"].items())[-1]
    mean, sample = (values["accuracy"][name]["rmse"]["mean"] for name in ("mean", "one sample"))
    interval = "not calibrated"
    if values["calibrated"] is not None:
        share = values["calibrated"]["coverage"]["mean"]
        interval = f"the calibrated interval covers {share:.1%}"
    return (
        f"RMSE {mean:.3g} (one sample {sample:.3g}) {values['unit']}; of {count} samples the 90% "
        f"interval covers {last['coverage']['0.9']['mean']:.1%}, "
        f"spread/skill {last['spread_skill']:.2f}; {interval}."
    )


def _result_of(
    arguments: Namespace, folder: Path, model_name: str, set_name: str
) -> dict[str, Any]:
    """Summary of a model on a set: an existing one of the same pairs and sampling, or a new one."""
    model = load_method(model_name)
    wanted = {
        # A card may be calibrated anew beside the same weights.
        "model": {
            "sha256": model.sha256,
            "noise_scale": model.card.noise_scale,
            "calibration": dict(model.card.calibration),
        },
        "set": {"said": _evaluation_set(arguments, model, set_name).description},
        "sampling": asdict(sampling_of(arguments)),
    }
    try:
        earlier = parse_json_object(read_bounded(folder / METRICS))
    except (OSError, ValueError, TypeError):
        earlier = {}  # none, or one that a power cut emptied
    if agrees(earlier, plain(wanted)):
        print(f"napari-cvdm: {folder} is there already", file=sys.stderr)
        return earlier
    with output_folder(folder, overwrite=True, sign=METRICS) as work:
        values, _ = evaluate_into(work, arguments, model_name, set_name)
    return values


def agrees(found: Any, wanted: Any) -> bool:
    """Whether a mapping has all entries of another one, at any depth."""
    # An empty one must be equal: what has no calibration does not agree with any.
    if isinstance(wanted, Mapping) and isinstance(found, Mapping) and wanted:
        return all(name in found and agrees(found[name], value) for name, value in wanted.items())
    return bool(found == wanted)


def _benchmark_row(values: Mapping[str, Any]) -> list[str]:
    """The most important figures of one result."""
    unit = "rad" if values["unit"] == "rad" else "of the intensity scale"
    row = [f"{values['model']['name']} [{unit}]", values["set"]["name"]]
    row.append(str(values["set"]["fields"]))
    spread = list(values["uncertainty"].values())[-1]
    calibrated = values["calibrated"] or {"coverage": None}
    for path in BENCHMARK.values():
        figure: Any = {**values, "spread": spread, "calibrated": calibrated}
        for name in path:
            figure = figure[name]
        row.append(shown(figure))
    return row


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)) + "\n"


def shown(value: Any, digits: int = 3) -> str:
    """A number, or a mean with its interval, in few digits; – for None."""
    if isinstance(value, Mapping):
        mean, low, high = (shown(value.get(name), digits) for name in ("mean", "low", "high"))
        # One field has no interval.
        one_number = value.get("low") is None or value["low"] == value["high"]
        return mean if one_number else f"{mean} ({low} to {high})"
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.{digits}g}"


def tables(found: Mapping[str, Any]) -> str:
    """All tables of a summary (see `evaluation.summary`) as Markdown."""
    parts = [
        _introduction(found),
        _accuracy(found["accuracy"]),
        _uncertainty(found["uncertainty"]),
        _calibrated(found["calibrated"], found["model"]["calibration"]),
        "## Rate map, spread and error (Spearman)\n\n"
        + markdown(["", "ρ"], [[name, shown(value, 2)] for name, value in found["ranks"].items()]),
        _resolution(found["resolution_nm"], found.get("two_points")),
    ]
    for tag, groups in found["groups"].items():
        rows = [[name, *(shown(one[figure]) for figure in GROUP)] for name, one in groups.items()]
        parts.append(f"## By {tag}\n\n" + markdown([tag, *GROUP.values()], rows))
    return "\n".join([*parts, _cost(found["cost"])])


def _introduction(found: Mapping[str, Any]) -> str:
    pairs, sampling, name = found["set"], found["sampling"], found["model"]["name"]
    left_out = (
        f" ({pairs['left_out']} more had no pixel that can be trusted)" if pairs["left_out"] else ""
    )
    return (
        f"# {name} on {pairs['name']}\n\n"
        f"{name} on {pairs['said']}. {pairs['fields']} fields{left_out}; {sampling['samples']} "
        f"samples, {sampling['steps']} steps, {sampling['sampler']}.\n"
        f"Over the {found['valid_share']['mean']:.0%} of the pixels that can be trusted. Means "
        "over fields, with 95 % bootstrap intervals over fields where they are given. Unit: "
        f"{found['unit']}. Images are\n"
        "compared as they are; the range of PSNR and SSIM is that of the truth (0.1 to 99.9 "
        f"percentile). {PISTON if found['unit'] == 'rad' else FITTED}\n"
    )


def _accuracy(found: Mapping[str, Any]) -> str:
    columns = {
        name: head for name, head in ACCURACY.items() if any(name in one for one in found.values())
    }
    rows = [[name, *(shown(one.get(column)) for column in columns)] for name, one in found.items()]
    return "## Accuracy\n\n" + markdown(["", *columns.values()], rows)


def _uncertainty(found: Mapping[str, Any]) -> str:
    levels = [f"{level:.0%} interval covers" for level in LEVELS]
    rows = []
    for count, one in found.items():
        shares = [shown(one["coverage"][f"{level:g}"]) for level in LEVELS]
        rows.append([count, *shares, *(shown(one[name]) for name in SPREAD)])
    return (
        "## Spread\n\nIntervals are those of a normal distribution, with Student's t and "
        "sqrt(1 + 1/N) for N samples. AUROC: the spread finds the tenth of largest errors.\n\n"
        + markdown(["samples", *levels, *SPREAD.values()], rows)
    )


def _calibrated(one: Mapping[str, Any] | None, fit: Mapping[str, Any]) -> str:
    if one is None:
        return "## Calibration\n\nThe model is not calibrated for these steps and this sampler.\n"
    made = f"factor {fit['factor']:g} at {fit['samples']} samples, fitted on {fit['set']}"
    return (
        f"## Calibration\n\nThe calibrated interval ({made}), made for {one['level']:.0%} of the "
        f"errors, covers {shown(one['coverage'])} of them.\n"
    )


def _resolution(found: Mapping[str, Any], points: Mapping[str, Any] | None) -> str:
    rows = [[name, shown(value)] for name, value in found.items()]
    text = (
        "## Resolution [nm]\n\nDecorrelation analysis (Descloux 2019) needs no truth and rewards "
        "invented sharpness as much as true sharpness.\n\n" + markdown(["", "2 px / cut-off"], rows)
    )
    if not points:
        return text
    heads = [f"{nm:.0f} nm" for nm in points["separation_nm"]]
    rows = [
        [name, *(f"{share:.0%}" for share in shares)] for name, shares in points["apart"].items()
    ]
    return (
        f"{text}\nShare of {points['pairs']} simulated point pairs that are seen as two (a dip to "
        "0.81), by their distance.\n\n" + markdown(["", *heads], rows)
    )


def _cost(cost: Mapping[str, Any]) -> str:
    memory = ""
    if cost["peak_memory_mb"] is not None:
        memory = f"; the process had at most {cost['peak_memory_mb']:.0f} MB"
    return (
        f"## Cost\n\n{cost['seconds_per_field']:.3g} s and {cost['steps_per_field']} steps of the "
        f"sampler for a field ({cost['seconds_per_step']:.3g} s each){memory}.\n"
    )
