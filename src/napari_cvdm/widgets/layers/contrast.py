"""Contrast limits that leave out the rarest pixels, and the colours of a phase."""

from typing import Any

import numpy as np

SHOWN_PERCENTILE = 99.9


def phase_colormap() -> Any:
    """Blue for negative, black for zero, orange for positive: an empty field is dark."""
    from napari.utils import Colormap

    colors = [
        (0.70, 0.87, 1.0),
        (0.18, 0.48, 0.80),
        (0.04, 0.05, 0.07),
        (0.80, 0.38, 0.10),
        (1.0, 0.88, 0.62),
    ]
    return Colormap(colors=colors, name="phase", display_name="phase (blue 0 orange)")


def chi2_colormap() -> Any:
    """Colour map for chi-squared from 0 to 5.

    Gray means that nothing was compared, blue is below noise, black is noise alone (1), and orange
    is structure that is left over.
    """
    from napari.utils import Colormap

    colors = [
        (0.35, 0.35, 0.35),
        (0.10, 0.28, 0.48),
        (0.04, 0.05, 0.07),
        (0.80, 0.38, 0.10),
        (1.0, 0.88, 0.62),
    ]
    return Colormap(
        colors=colors,
        controls=[0.0, 0.02, 0.2, 0.6, 1.0],
        name="chi-squared",
        display_name="chi-squared (black 1)",
    )


def symmetric_limits(values: np.ndarray) -> tuple[float, float]:
    """As far below zero as above it, for a diverging colour map."""
    largest = float(np.percentile(np.abs(values), SHOWN_PERCENTILE)) or 1.0
    return -largest, largest


def limits_from_zero(values: np.ndarray) -> tuple[float, float]:
    """From zero, for what is never negative."""
    return 0.0, float(np.percentile(values, SHOWN_PERCENTILE)) or 1.0


def inner_limits(values: np.ndarray) -> tuple[float, float]:
    """Without the rarest pixels at either end."""
    low, high = (
        float(value) for value in np.percentile(values, (100 - SHOWN_PERCENTILE, SHOWN_PERCENTILE))
    )
    return (low, high) if low < high else (low, low + 1.0)
