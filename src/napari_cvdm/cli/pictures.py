"""Images side by side with colour bars and scale bars, as a PNG."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar  # type: ignore[import-untyped]

COLUMNS = 3
PANEL_INCHES = 4.6
DPI = 120
SCALE_BARS_UM = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
SCALE_BAR_SHARE = 0.2
USUAL_PERCENTILES = (0.5, 99.8)
SMALLEST_SPAN = 0.01


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panel:
    """One image of a picture.

    Parameters
    ----------
    title : str
    pixels : ndarray of shape (Y, X)
    unit : str
        Written at the colour bar.
    pixel_um : float
        Pixel size [um], for the scale bar.
    colormap : str
        A colormap of matplotlib.
    limits : tuple of float, optional
        Values at the ends of the colour bar; the 0.5 and 99.8 percentiles unless given.
    """

    title: str
    pixels: np.ndarray = field(repr=False)
    unit: str
    pixel_um: float
    colormap: str
    limits: tuple[float, float] | None = None


def draw(path: Path, title: str, panels: Sequence[Panel]) -> None:
    """Draw panels in rows of three and write a PNG; no display is needed.

    Parameters
    ----------
    path : Path
        File to write.
    title : str
        Above all panels.
    panels : sequence of Panel
    """
    rows = -(-len(panels) // COLUMNS)
    height, width = panels[0].pixels.shape
    size = (COLUMNS * PANEL_INCHES, rows * (PANEL_INCHES * 0.78 * height / width + 0.4) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=17, fontweight="bold")
    for axes, panel in zip(figure.subplots(rows, COLUMNS, squeeze=False).flat, panels, strict=True):
        _draw_panel(figure, axes, panel)
    figure.savefig(path, dpi=DPI, facecolor="white")


def _draw_panel(figure: Figure, axes: Axes, panel: Panel) -> None:
    low, high = panel.limits or np.percentile(panel.pixels, USUAL_PERCENTILES)
    # Else rounding errors of a flat image are drawn in full colour.
    least = SMALLEST_SPAN * max(abs(low), abs(high), 1e-9)
    shown = axes.imshow(panel.pixels, cmap=panel.colormap, vmin=low, vmax=max(high, low + least))
    axes.set_title(panel.title, fontsize=12)
    axes.set_axis_off()
    axes.add_artist(scale_bar(axes, panel))
    bar = figure.colorbar(shown, cax=axes.inset_axes((1.03, 0.0, 0.04, 1.0)))
    bar.set_label(panel.unit)
    bar.ax.ticklabel_format(useOffset=False)
    bar.ax.spines["outline"].set_visible(False)


def scale_bar(axes: Axes, panel: Panel) -> Any:
    """A bar of a round length, about a fifth of the panel's width.

    Parameters
    ----------
    axes : Axes
    panel : Panel

    Returns
    -------
    AnchoredSizeBar
    """
    wanted = SCALE_BAR_SHARE * panel.pixels.shape[1] * panel.pixel_um
    thickness = panel.pixels.shape[0] / 120
    length = min(SCALE_BARS_UM, key=lambda one: abs(np.log(one / wanted)))
    bar = AnchoredSizeBar(
        axes.transData,
        length / panel.pixel_um,
        f"{length:g} µm",
        "lower right",
        color="white",
        pad=0.3,
        sep=3,
        size_vertical=thickness,
    )
    bar.patch.set(facecolor="black", edgecolor="none", alpha=0.45)
    return bar
