"""One figure for a test.

A line for each case with the input, the mean, the spread, the truth and the difference.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from paper.reviewer.bench import Case
from paper.reviewer.measures import difference

COLUMNS = ("input", "mean", "truth", "difference", "spread")
PANEL_INCHES = 2.5
PERCENTILES = (0.5, 99.5)


def drawn(title: str, cases: Sequence[Case]) -> Figure:
    """A line for each case, with one scale for mean and truth and one for all spreads.

    Of two planes the second is shown.

    Parameters
    ----------
    title : str
    cases : sequence of Case
        1 or more.

    Returns
    -------
    Figure
    """
    figure = Figure(
        figsize=(PANEL_INCHES * len(COLUMNS) + 1, PANEL_INCHES * len(cases) + 0.5),
        layout="constrained",
    )
    panels = figure.subplots(len(cases), len(COLUMNS), squeeze=False)
    loudest = max(float(np.percentile(case.result.std, PERCENTILES[1])) for case in cases) or 1.0
    for line, case in zip(panels, cases, strict=True):
        _line(line, case, loudest)
    for panel, name in zip(panels[0], COLUMNS, strict=True):
        panel.set_title(name)
    figure.suptitle(title)
    return figure


def _line(line: np.ndarray, case: Case, loudest: float) -> None:
    result, truth = case.result, case.scene.truth
    piston = result.mean.mean() - truth.mean() if result.unit == "rad" else 0.0
    low, high = _scale(np.concatenate([truth.ravel(), (result.mean - piston).ravel()]))
    far = max(float(np.percentile(np.abs(difference(case)), PERCENTILES[1])), 1e-9)
    seen = case.scene.array.reshape(-1, *case.scene.array.shape[-2:])[-1]
    _show(line[0], seen, "gray", _scale(seen))
    _show(line[1], result.mean - piston, "magma", (low, high))
    for panel, image, colours, limits in (
        (line[2], truth, "magma", (low, high)),
        (line[3], difference(case), "RdBu_r", (-far, far)),
        (line[4], result.std, "viridis", (0.0, loudest)),
    ):
        bar = panel.figure.colorbar(
            _show(panel, image, colours, limits), ax=panel, shrink=0.8, pad=0.02
        )
        bar.ax.tick_params(labelsize=7)
    line[0].set_ylabel(case.name.replace(", ", ",\n"), fontsize=9)


def _scale(image: np.ndarray) -> tuple[float, float]:
    low, high = (float(np.percentile(image, percentile)) for percentile in PERCENTILES)
    return (low, high) if high > low else (low - 1, high + 1)


def _show(panel: Axes, image: np.ndarray, colours: str, limits: tuple[float, float]) -> AxesImage:
    panel.set(xticks=[], yticks=[])
    return panel.imshow(
        image, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest"
    )
