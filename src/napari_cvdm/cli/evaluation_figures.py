"""Figures of an evaluation.

They show coverage, error against spread, sparsification, rank correlations and the first field.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from napari_cvdm.analysis.correlations import error_by_spread
from napari_cvdm.cli.pictures import DPI, Panel, draw
from napari_cvdm.evaluation.evaluate import Evaluation
from napari_cvdm.evaluation.metrics import REMOVED
from napari_cvdm.evaluation.pair_sets import ReconstructedPair

INCHES = 4.4
GUIDE: Mapping[str, Any] = {"color": "0.6", "linestyle": "--", "linewidth": 1}


def draw_figures(folder: Path, found: Evaluation, values: Mapping[str, Any]) -> list[str]:
    """Draw every figure as a PNG.

    Parameters
    ----------
    folder : Path
        An existing folder.
    found : Evaluation
    values : mapping
        Its summary.

    Returns
    -------
    list of str
        Names of the files.
    """
    figure = Figure(figsize=(2 * INCHES, 2 * INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    (first, second), (third, fourth) = figure.subplots(2, 2)
    draw_coverage(first, values)
    draw_error_by_spread(second, found, values["unit"])
    draw_sparsification(third, found)
    draw_ranks(fourth, values)
    figure.suptitle(
        f"{values['model']['name']} on {values['set']['name']}, {values['set']['fields']} fields",
        fontsize=12,
    )
    figure.savefig(folder / "uncertainty.png", dpi=DPI, facecolor="white")
    draw_example(folder / "example.png", found.example)
    return ["uncertainty.png", "example.png"]


def draw_coverage(axes: Axes, values: Mapping[str, Any]) -> None:
    """Share of the errors within intervals against their level, for every number of samples."""
    axes.plot([0.4, 1], [0.4, 1], **GUIDE)
    for count, one in values["uncertainty"].items():
        levels, shares = zip(
            *((float(level), share["mean"]) for level, share in one["coverage"].items()),
            strict=True,
        )
        axes.plot(levels, shares, marker="o", label=f"{count} samples")
    calibrated = values["calibrated"]
    if calibrated is not None:
        axes.plot(
            calibrated["level"],
            calibrated["coverage"]["mean"],
            "k*",
            markersize=12,
            label="calibrated",
        )
    axes.set(xlabel="level of the interval", ylabel="share of the errors within", title="Coverage")
    axes.legend(frameon=False, fontsize=8)


def draw_error_by_spread(axes: Axes, found: Evaluation, unit: str) -> None:
    """Root mean square error in bins of the spread that hold equally many pixels of all fields."""
    spread, error = np.concatenate([one.pooled for one in found.fields], axis=1)
    bins = error_by_spread(spread, error)
    axes.loglog(bins.spread, bins.error, marker="o")
    ends = [min(bins.spread.min(), bins.error.min()), max(bins.spread.max(), bins.error.max())]
    axes.plot(ends, ends, **GUIDE)
    axes.set(
        xlabel="RMS spread in a bin",
        ylabel="RMS error",
        title=f"Error against spread [{'rad' if unit == 'rad' else 'of the intensity scale'}]",
    )


def draw_sparsification(axes: Axes, found: Evaluation) -> None:
    """Error of what remains when the pixels of largest spread are removed, the mean over fields."""
    by_spread, by_error = np.mean([one.removal for one in found.fields], axis=0)
    axes.plot(REMOVED, by_spread, label="by spread")
    axes.plot(REMOVED, by_error, label="by the error itself")
    axes.axhline(1, label="at random", **GUIDE)
    axes.set(
        xlabel="share of pixels removed",
        ylabel="RMSE of the rest / RMSE of all",
        title="Sparsification",
        ylim=(0, 1.1),
    )
    axes.legend(frameon=False, fontsize=8)


def draw_ranks(axes: Axes, values: Mapping[str, Any]) -> None:
    """Rank correlations with their intervals."""
    for place, (name, one) in enumerate(reversed(values["ranks"].items())):
        if one["mean"] is None:
            continue
        axes.plot(one["mean"], place, "o", color="C0")
        if one["low"] is not None:
            axes.plot([one["low"], one["high"]], [place, place], color="C0")
        axes.annotate(name, (0.02, place + 0.18), xycoords=("axes fraction", "data"), fontsize=7)
    axes.axvline(0, **GUIDE)
    axes.set(
        xlabel="Spearman's ρ, mean over fields",
        title="Rate map, spread, error",
        yticks=[],
        xlim=(-1, 1),
        ylim=(-0.6, len(values["ranks"])),
    )


def draw_example(path: Path, judged: ReconstructedPair) -> None:
    """Mean, one sample, truth, error, spread and rate map of a field."""
    result = judged.reconstruction
    phase = result.unit == "rad"
    look = "gray"
    limits = tuple(float(value) for value in np.percentile(judged.truth, (0.2, 99.8)))
    low, high = (limits[0], limits[1]) if limits[0] < limits[1] else (limits[0], limits[0] + 1)
    worst = float(np.percentile(np.abs(judged.error), 99.5)) or 1.0
    sample = result.mean if result.samples is None else result.samples[0]
    shared = {"pixel_um": result.pixel_um, "unit": result.unit}
    panels = [
        Panel(title="mean", pixels=result.mean, colormap=look, limits=(low, high), **shared),  # type: ignore[arg-type]
        Panel(title="one sample", pixels=sample, colormap=look, limits=(low, high), **shared),  # type: ignore[arg-type]
        Panel(title="truth", pixels=judged.truth, colormap=look, limits=(low, high), **shared),  # type: ignore[arg-type]
        Panel(
            title="mean - truth" + (", without piston" if phase else ""),
            pixels=judged.error,
            colormap="RdBu_r",
            limits=(-worst, worst),
            **shared,  # type: ignore[arg-type]
        ),
        Panel(title="spread", pixels=result.std, colormap="magma", limits=(0, worst), **shared),  # type: ignore[arg-type]
        Panel(
            title="rate map λ",
            pixels=result.rate,
            colormap="viridis",
            pixel_um=result.pixel_um,
            unit="",
        ),
    ]
    draw(
        path, f"{judged.pair.request.image.source}: {judged.pair.tags.get('structure', '')}", panels
    )
