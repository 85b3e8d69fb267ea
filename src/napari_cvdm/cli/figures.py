"""Figures: images side by side as a PNG, and those of an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar  # type: ignore[import-untyped]

from napari_cvdm.analysis.correlations import error_by_spread
from napari_cvdm.core.statistics import interior

if TYPE_CHECKING:
    from napari_cvdm.evaluation.evaluate import Evaluation
    from napari_cvdm.evaluation.pair_sets import ReconstructedPair

COLUMNS = 3
PANEL_INCHES = 4.6
DPI = 120
SCALE_BARS_UM = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
SCALE_BAR_SHARE = 0.2
USUAL_PERCENTILES, BORDER_PX = (0.5, 99.8), 8
SMALLEST_SPAN = 0.01
AXES_INCHES = 4.4
GUIDE: Mapping[str, Any] = {"color": "0.6", "linestyle": "--", "linewidth": 1}


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One image (Y, X) of a picture.

    `unit` is written at the colour bar, and `pixel_um` [um] is for the scale bar. `limits` are the
    ends of the colour bar; unless given, the 0.5 and 99.8 percentiles of all but the border.
    """

    title: str
    pixels: np.ndarray = field(repr=False)
    unit: str
    pixel_um: float
    colormap: str
    limits: tuple[float, float] | None = None


def draw_panels(path: Path, title: str, panels: Sequence[Panel]) -> None:
    """Draw panels in rows of three, with colour bars and scale bars, and write a PNG.

    No display is needed.
    """
    rows = -(-len(panels) // COLUMNS)
    height, width = panels[0].pixels.shape
    size = (COLUMNS * PANEL_INCHES, rows * (PANEL_INCHES * 0.78 * height / width + 0.4) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)  # not pyplot, which looks for a display
    figure.suptitle(title, fontsize=17, fontweight="bold")
    for axes, panel in zip(figure.subplots(rows, COLUMNS, squeeze=False).flat, panels, strict=True):
        # At the border of the image the noise-rate map differs so much that it would set the ends.
        # A quarter at most, so that a small image has an inside.
        shape = panel.pixels.shape[0], panel.pixels.shape[1]
        inner = panel.pixels[interior(shape, min(BORDER_PX, min(shape) // 4))]
        low, high = panel.limits or np.percentile(inner, USUAL_PERCENTILES)
        # Else rounding errors of a flat image are drawn in full colour.
        least = SMALLEST_SPAN * max(abs(low), abs(high), 1e-9)
        ends = {"vmin": low, "vmax": max(high, low + least)}
        shown = axes.imshow(panel.pixels, cmap=panel.colormap, **ends)
        axes.set_title(panel.title, fontsize=12)
        axes.set_axis_off()
        axes.add_artist(_scale_bar(axes, panel))
        bar = figure.colorbar(shown, cax=axes.inset_axes((1.03, 0.0, 0.04, 1.0)))
        bar.set_label(panel.unit)
        bar.ax.ticklabel_format(useOffset=False)
        bar.ax.spines["outline"].set_visible(False)
    figure.savefig(path, dpi=DPI, facecolor="white")


def _scale_bar(axes: Axes, panel: Panel) -> Any:
    """A bar of a round length, about a fifth of the panel's width."""
    wanted = SCALE_BAR_SHARE * panel.pixels.shape[1] * panel.pixel_um
    # Nearest by ratio: the lengths rise about twofold from one to the next.
    length = min(SCALE_BARS_UM, key=lambda one: abs(np.log(one / wanted)))
    bar = AnchoredSizeBar(
        axes.transData,
        length / panel.pixel_um,
        f"{length:g} µm",
        "lower right",
        color="white",
        pad=0.3,
        sep=3,
        size_vertical=panel.pixels.shape[0] / 120,
    )
    bar.patch.set(facecolor="black", edgecolor="none", alpha=0.45)
    return bar


def draw_evaluation(folder: Path, found: "Evaluation", values: Mapping[str, Any]) -> list[str]:
    """Draw the figures of an evaluation, whose summary is `values`; return the names of the PNGs.

    They show coverage, error against spread, sparsification, rank correlations and the first field.
    """
    figure = Figure(figsize=(2 * AXES_INCHES, 2 * AXES_INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    (first, second), (third, fourth) = figure.subplots(2, 2)
    _draw_coverage(first, values)
    _draw_error_by_spread(second, found, values["unit"])
    _draw_sparsification(third, found)
    _draw_ranks(fourth, values)
    figure.suptitle(
        f"{values['model']['name']} on {values['set']['name']}, {values['set']['fields']} fields",
        fontsize=12,
    )
    figure.savefig(folder / "uncertainty.png", dpi=DPI, facecolor="white")
    _draw_example(folder / "example.png", found.example)
    return ["uncertainty.png", "example.png"]


def _draw_coverage(axes: Axes, values: Mapping[str, Any]) -> None:
    """Share of the errors within intervals against their level, for every number of samples."""
    axes.plot([0.4, 1], [0.4, 1], **GUIDE)
    for count, one in values["uncertainty"].items():
        levels = [float(level) for level in one["coverage"]]
        shares = [share["mean"] for share in one["coverage"].values()]
        axes.plot(levels, shares, marker="o", label=f"{count} samples")
    calibrated = values["calibrated"]
    if calibrated is not None:
        mean = calibrated["coverage"]["mean"]
        axes.plot(calibrated["level"], mean, "k*", markersize=12, label="calibrated")
    axes.set(xlabel="level of the interval", ylabel="share of the errors within", title="Coverage")
    axes.legend(frameon=False, fontsize=8)


def _draw_error_by_spread(axes: Axes, found: "Evaluation", unit: str) -> None:
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


def _draw_sparsification(axes: Axes, found: "Evaluation") -> None:
    """Error of what remains when the pixels of largest spread are removed, the mean over fields."""
    # Its module brings scoringrules, for which the pictures of the demo need not wait.
    from napari_cvdm.evaluation.metrics import REMOVED

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


def _draw_ranks(axes: Axes, values: Mapping[str, Any]) -> None:
    """Rank correlations with their intervals."""
    # Reversed: the axis rises, and the first belongs on top.
    for place, (name, one) in enumerate(reversed(values["ranks"].items())):
        if one["mean"] is None:  # one of the two was constant in every field
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


def _draw_example(path: Path, found: "ReconstructedPair") -> None:
    """Mean, one sample, truth, error, spread and rate map of a field."""
    result = found.reconstruction
    # One range for all three, so that they can be compared by eye.
    low, high = (float(value) for value in np.percentile(found.truth, (0.2, 99.8)))
    grey = (low, high) if low < high else (low, low + 1)
    worst = float(np.percentile(np.abs(found.error), 99.5)) or 1.0  # a range has a width
    without_piston = ", without piston" if result.unit == "rad" else ""
    unit, um = result.unit, result.pixel_um
    panels = [
        Panel("mean", result.mean, unit, um, "gray", grey),
        Panel("one sample", found.one_sample, unit, um, "gray", grey),
        Panel("truth", found.truth, unit, um, "gray", grey),
        Panel(f"mean - truth{without_piston}", found.error, unit, um, "RdBu_r", (-worst, worst)),
        Panel("spread", result.std, unit, um, "magma", (0.0, worst)),
        Panel("rate map λ", result.rate, "", um, "viridis"),
    ]
    pair = found.pair
    title = f"{pair.request.image.source}: {pair.tags.get('structure', '')}"
    draw_panels(path, title, panels)
