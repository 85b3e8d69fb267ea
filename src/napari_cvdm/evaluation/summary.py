"""The figures of all fields of an evaluation, as plain values for ``metrics.json``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np

from napari_cvdm.analysis.correlations import Interval, over_fields
from napari_cvdm.evaluation.evaluate import Evaluation, FieldReport
from napari_cvdm.evaluation.metrics import LEVELS, SpreadScore, path_nm, spread_skill

GROUPS = 3
FIGURES = ("rmse", "mae", "psnr", "ssim", "ms_ssim")
UNIT_OF_COUNTS = "parts of each field's intensity scale"


def summary(found: Evaluation) -> dict[str, Any]:
    """Everything as plain values, for ``json.dumps``; None where a figure has no meaning."""
    fields, phase = found.fields, found.model["unit"] == "rad"
    calibrated = [one.calibrated for one in fields if one.calibrated is not None]
    level = found.model["calibration"].get("level")
    # The time includes fields that were left out.
    seconds = found.seconds / (len(fields) + found.left_out)
    steps = found.sampling.samples * found.sampling.steps
    tags = dict.fromkeys(tag for one in fields for tag in one.tags)
    # Names and their order are those of the file, which the benchmark reads again.
    values = {
        "model": dict(found.model),
        "set": {
            "name": found.set,
            "said": found.description,
            "fields": len(fields),
            "left_out": found.left_out,
        },
        "sampling": asdict(found.sampling),
        "unit": "rad" if phase else UNIT_OF_COUNTS,
        "valid_share": over_fields([one.valid_share for one in fields]),
        "accuracy": {name: _accuracy(fields, name, phase) for name in fields[0].accuracy},
        "groups": {tag: _group(fields, tag) for tag in tags},
        "resolution_nm": {
            name: over_fields([1000 * one.resolution_um[name] for one in fields])
            for name in fields[0].resolution_um
        },
        "uncertainty": {
            str(one.samples): _uncertainty(fields, place)
            for place, one in enumerate(fields[0].spread)
        },
        "calibrated": {"level": level, "coverage": over_fields(calibrated)} if calibrated else None,
        "ranks": {
            name: over_fields([one.ranks[name] for one in fields]) for name in fields[0].ranks
        },
        "cost": {
            "seconds_per_field": seconds,
            "steps_per_field": steps,
            "seconds_per_step": seconds / steps,
            "peak_memory_mb": found.peak_memory_mb,
        },
    }
    return plain(values)


def plain(value: Any) -> Any:
    """Intervals as mappings, NaN as None, NumPy numbers as Python's."""
    if isinstance(value, Interval):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(value) if isfinite(value) else None  # JSON has no NaN
    return value


def _accuracy(fields: Sequence[FieldReport], name: str, phase: bool) -> dict[str, Any]:
    found = {}
    for figure in FIGURES:
        values = [getattr(one.accuracy[name], figure) for one in fields]
        found[figure] = over_fields([value for value in values if value is not None])
    # Field by field: simulated fields have different wavelengths.
    for figure in ("rmse", "mae") if phase else ():
        paths_nm = [
            path_nm(getattr(one.accuracy[name], figure), one.wavelength_um)
            for one in fields
            if one.wavelength_um is not None
        ]
        found[f"{figure}_nm"] = over_fields(paths_nm)
    return found


def grouped(values: Sequence[Any]) -> dict[str, list[int]]:
    """Indices of equal words, or of numbers in three groups of equal size, by group name.

    None belongs to no group.
    """
    known = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in known):
        return {
            str(name): [place for place, value in enumerate(values) if value == name]
            for name in sorted(set(known))
        }
    places = [place for place, value in enumerate(values) if value is not None]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, GROUPS + 1)))
    if len(edges) < 2:
        return {f"{edges[0]:.3g}": places}
    # Half-open, but for the last group, which holds the largest value.
    return {
        f"{low:.3g} to {high:.3g}": [
            n for n in places if low <= values[n] and (values[n] < high or high == edges[-1])
        ]
        for low, high in pairwise(edges.tolist())
    }


def _group(fields: Sequence[FieldReport], tag: str) -> dict[str, Any]:
    places = grouped([one.tags.get(tag) for one in fields])
    return {
        name: _figures_of_group([fields[place] for place in chosen])
        for name, chosen in places.items()
        if chosen
    }


def _figures_of_group(fields: Sequence[FieldReport]) -> dict[str, Any]:
    last = [one.spread[-1] for one in fields]
    return {
        "fields": len(fields),
        "rmse": _mean_of([one.accuracy["mean"].rmse for one in fields]),
        "ssim": _mean_of([one.accuracy["mean"].ssim for one in fields]),
        "coverage_90": _mean_of([one.coverage["0.9"] for one in last]),
        "calibrated": _mean_of([one.calibrated for one in fields]),
        "spread_skill": _spread_skill(last),
        "auroc": _mean_of([one.auroc for one in last]),
    }


def _mean_of(figures: Sequence[float | None]) -> float | None:
    known = [value for value in figures if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None


def _spread_skill(scores: Sequence[SpreadScore]) -> float:
    # Of the sums over all fields: a mean of ratios would be ruled by fields of small error.
    variances, errors = (
        np.array([getattr(one, name) for one in scores]) for name in ("variance", "error")
    )
    return spread_skill(variances, errors, scores[0].samples)


def _uncertainty(fields: Sequence[FieldReport], place: int) -> dict[str, Any]:
    scores = [one.spread[place] for one in fields]
    levels = [f"{level:g}" for level in LEVELS]
    found: dict[str, Any] = {
        "coverage": {
            level: over_fields([one.coverage[level] for one in scores]) for level in levels
        },
        "spread_skill": _spread_skill(scores),
        "spread_skill_of_fields": None,
    }
    if any(one.error for one in scores):  # else all are NaN, of which nanmedian warns
        found["spread_skill_of_fields"] = np.nanmedian([one.ratio for one in scores])
    for name in ("crps", "ause", "auroc"):
        found[name] = over_fields([getattr(one, name) for one in scores])
    return found
