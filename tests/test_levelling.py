"""Laws of the cell-free background of a phase, and of the waves that noise lets it drift by."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from napari_cvdm.inversion.background import densest_value
from napari_cvdm.tasks.cell_free_background import (
    FLATNESS_RAD,
    MOST_WAVES,
    block_means,
    find_background,
    wave_numbers,
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


def test_block_means_leave_out_what_fills_no_block():
    image = np.arange(7 * 10, dtype=float).reshape(7, 10)
    means = block_means(image, 4)
    assert means.shape == (1, 2)
    assert means[0, 1] == image[:4, 4:8].mean()


def test_one_of_each_pair_of_waves_is_kept():
    numbers = {tuple(int(k) for k in pair) for pair in wave_numbers()}
    assert (0, 0) not in numbers
    assert not any((-ky, -kx) in numbers for ky, kx in numbers)
    assert (MOST_WAVES, 0) in numbers
    assert (0, MOST_WAVES) in numbers


def test_the_background_is_the_commonest_phase():
    phase = 0.7 + cell(SHAPE)
    level, background, share = find_background(phase)
    assert level == pytest.approx(phase[background].mean())
    assert_array_equal(background, np.abs(phase - 0.7) < FLATNESS_RAD)
    assert share == pytest.approx(background.mean())
