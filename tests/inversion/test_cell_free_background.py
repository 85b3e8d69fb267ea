"""Laws of the cell-free background of a phase."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from napari_cvdm.inversion.background import densest_value
from napari_cvdm.tasks.phase_inversion import (
    FLATNESS_RAD,
    find_background,
)

SHAPE = (150, 205)


def cell(shape: tuple[int, int], height: float = 2.0) -> np.ndarray:
    """One dome in the middle of cell-free background."""
    y, x = np.arange(shape[0])[:, None] - shape[0] / 2, np.arange(shape[1])[None, :] - shape[1] / 2
    return height * (1 - (y**2 + x**2) / (0.25 * min(shape)) ** 2).clip(min=0)


def test_the_densest_value_is_the_commonest_and_no_average():
    values = np.concatenate([np.full(300, 0.5), np.linspace(1, 9, 700)])
    assert densest_value(
        np.random.default_rng(0).permutation(values).reshape(20, 50)
    ) == pytest.approx(0.5)


def test_the_background_is_the_commonest_phase():
    phase = 0.7 + cell(SHAPE)
    level, background, share = find_background(phase)
    assert level == pytest.approx(phase[background].mean())
    assert_array_equal(background, np.abs(phase - 0.7) < FLATNESS_RAD)
    assert share == pytest.approx(background.mean())
