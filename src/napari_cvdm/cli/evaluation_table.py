"""The summary of an evaluation as Markdown tables, with the numbers of ``metrics.json`` only."""

from collections.abc import Mapping, Sequence
from typing import Any

ACCURACY = {
    "rmse": "RMSE",
    "mae": "MAE",
    "rmse_nm": "RMSE [nm]",
    "mae_nm": "MAE [nm]",
    "psnr": "PSNR [dB]",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
}
LEVELS = ("0.5", "0.8", "0.9", "0.95")
GROUP = {
    "fields": "fields",
    "rmse": "RMSE",
    "ssim": "SSIM",
    "coverage_90": "90 % interval covers",
    "calibrated": "calibrated covers",
    "spread_skill": "spread/skill",
    "auroc": "AUROC",
}
INTRODUCTION = (
    "{model} on {said}. {fields} fields{left_out}; {samples} samples, {steps} steps, {sampler}.\n"
    "Over the {valid} of the pixels that can be trusted. Means over fields, with 95 % bootstrap "
    "intervals over fields where they are given. Unit: {unit}. Images are\n"
    "compared as they are; the range of PSNR and SSIM is that of the truth (0.1 to 99.9 "
    "percentile). {piston}\n"
)
PISTON = (
    "The constant of a phase, which the planes do not tell, is taken out, but for the row that "
    "says so."
)
FITTED = "The row *fitted* is after one least-squares gain and offset for each field."
SPREAD_NOTE = (
    "Intervals are those of a normal distribution, with Student's t and sqrt(1 + 1/N) "
    "for N samples.\n"
    "AUROC: how well the spread finds the tenth of the pixels with the largest errors; "
    "0.5 is chance.\n"
)


def tables(found: Mapping[str, Any]) -> str:
    """All tables.

    Parameters
    ----------
    found : mapping
        See `napari_cvdm.evaluation.summary.summary`.

    Returns
    -------
    str
        Markdown.
    """
    parts = [
        f"# {found['model']['name']} on {found['set']['name']}\n",
        _introduction(found),
        _accuracy(found),
        _uncertainty(found),
        _calibrated(found),
    ]
    parts += [
        _ranks(found),
        _resolution(found),
        *(_group(tag, groups) for tag, groups in found["groups"].items()),
        _cost(found),
    ]
    return "\n".join(part for part in parts if part)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)) + "\n"


def shown(value: Any, digits: int = 3) -> str:
    """A number, or a mean with its interval, in few digits; – for None."""
    if isinstance(value, Mapping):
        if value.get("low") is None or value["low"] == value["high"]:
            return shown(value["mean"], digits)
        return (
            f"{shown(value['mean'], digits)} ({shown(value['low'], digits)} to "
            f"{shown(value['high'], digits)})"
        )
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.{digits}g}"


def _introduction(found: Mapping[str, Any]) -> str:
    pairs, sampling = found["set"], found["sampling"]
    left_out = (
        f" ({pairs['left_out']} more had no pixel that can be trusted)" if pairs["left_out"] else ""
    )
    text = {name: sampling[name] for name in ("samples", "steps", "sampler")} | {
        "model": found["model"]["name"],
        "said": pairs["said"],
        "left_out": left_out,
    }
    piston = PISTON if found["unit"] == "rad" else FITTED
    return INTRODUCTION.format(
        **text,
        fields=pairs["fields"],
        valid=f"{found['valid_share']['mean']:.0%}",
        unit=found["unit"],
        piston=piston,
    )


def _accuracy(found: Mapping[str, Any]) -> str:
    columns = {
        name: head
        for name, head in ACCURACY.items()
        if any(name in one for one in found["accuracy"].values())
    }
    rows = [
        [name, *(shown(one.get(column)) for column in columns)]
        for name, one in found["accuracy"].items()
    ]
    return "## Accuracy\n\n" + markdown(["", *columns.values()], rows)


def _uncertainty(found: Mapping[str, Any]) -> str:
    head = [
        "samples",
        *(f"{float(level):.0%} interval covers" for level in LEVELS),
        "spread/skill, pooled",
        "of a median field",
        "CRPS",
        "AUSE",
        "AUROC",
    ]
    rows = [
        [
            count,
            *(shown(one["coverage"][level]) for level in LEVELS),
            *(
                shown(one[name])
                for name in ("spread_skill", "spread_skill_of_fields", "crps", "ause", "auroc")
            ),
        ]
        for count, one in found["uncertainty"].items()
    ]
    note = (
        "Intervals are those of a normal distribution, with Student's t and sqrt(1 + 1/N) for N "
        "samples. AUROC: the spread finds the tenth of largest errors.\n"
    )
    return "## Spread\n\n" + note + "\n" + markdown(head, rows)


def _calibrated(found: Mapping[str, Any]) -> str:
    one, said = found["calibrated"], found["model"]["calibration"]
    if one is None:
        return "## Calibration\n\nThe model is not calibrated for these steps and this sampler.\n"
    made = f"factor {said['factor']:g} at {said['samples']} samples, fitted on {said['set']}"
    return (
        f"## Calibration\n\nThe calibrated interval ({made}), made for {one['level']:.0%} of the "
        f"errors, covers {shown(one['coverage'])} of them.\n"
    )


def _ranks(found: Mapping[str, Any]) -> str:
    rows = [[name, shown(value, 2)] for name, value in found["ranks"].items()]
    return "## Rate map, spread and error (Spearman)\n\n" + markdown(["", "ρ"], rows)


def _resolution(found: Mapping[str, Any]) -> str:
    rows = [[name, shown(value)] for name, value in found["resolution_nm"].items()]
    note = (
        "Decorrelation analysis (Descloux 2019) needs no truth and rewards invented sharpness as "
        "much as true sharpness.\n"
    )
    return (
        "## Resolution [nm]\n\n"
        + note
        + "\n"
        + markdown(["", "2 px / cut-off"], rows)
        + _two_points(found)
    )


def _two_points(found: Mapping[str, Any]) -> str:
    points = found.get("two_points")
    if not points:
        return ""
    heads = [f"{nm:.0f} nm" for nm in points["separation_nm"]]
    rows = [
        [name, *(f"{share:.0%}" for share in shares)] for name, shares in points["apart"].items()
    ]
    note = (
        f"Share of {points['pairs']} simulated point pairs that are seen as two (a dip to 0.81), "
        "by their distance."
    )
    return f"\n{note}\n\n" + markdown(["", *heads], rows)


def _group(tag: str, groups: Mapping[str, Any]) -> str:
    rows = [[name, *(shown(one[figure]) for figure in GROUP)] for name, one in groups.items()]
    return f"## By {tag}\n\n" + markdown([tag, *GROUP.values()], rows)


def _cost(found: Mapping[str, Any]) -> str:
    cost = found["cost"]
    seconds = (
        f"{cost['seconds_per_field']:.3g} s and {cost['steps_per_field']} steps of the sampler for "
        f"a field ({cost['seconds_per_step']:.3g} s each)"
    )
    memory = (
        ""
        if cost["peak_memory_mb"] is None
        else f"; the process had at most {cost['peak_memory_mb']:.0f} MB"
    )
    return f"## Cost\n\n{seconds}{memory}.\n"
