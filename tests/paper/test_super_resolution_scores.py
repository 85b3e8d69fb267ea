"""The scores of super-resolution.

A registered image is judged by its light, a filtered one by its structure.
"""

import numpy as np
import pytest
from paper.super_resolution import filter_to_truth, score
from scipy.ndimage import gaussian_filter, shift

SHIFT_PX = (0.4, -0.7)


@pytest.fixture(scope="module")
def truth():
    """Smooth random structure within 0..1."""
    image = gaussian_filter(np.random.default_rng(0).normal(size=(96, 120)), 2.0, mode="wrap")
    return (image - image.min()) / np.ptp(image)


def test_place_gain_and_offset_cost_nothing(truth):
    moved = 30 * shift(truth, SHIFT_PX, order=3, mode="nearest") + 7
    psnr, ssim = score(moved, truth)
    assert psnr > 40 and ssim > 0.995


def test_the_filter_takes_a_blur_back_and_no_other_structure(truth):
    """A blur is a filter; noise of another structure is none."""
    blurred = gaussian_filter(truth, 1.0, mode="wrap")
    assert np.abs(filter_to_truth(blurred, truth) - truth).max() < 0.02
    other = truth[::-1, ::-1]
    left = filter_to_truth(0.5 * (truth + other), truth) - truth
    assert left.std() > 0.3 * truth.std()
