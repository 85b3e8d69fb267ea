"""Intervals of quantities and of profiles along a line hold what they say."""

import numpy as np
import pytest

from napari_cvdm.analysis.intervals import (
    Estimate,
    estimate_from_samples,
    peak_distance,
    peak_width,
    points_along,
    profile_along,
    values_along,
)
from napari_cvdm.core.request import RequestError

FWHM = 2 * np.sqrt(2 * np.log(2))
ACROSS = np.array([[20.0, 2.0], [20.0, 77.0]])


def bump(x, centre, sigma, height=1.0):
    return height * np.exp(-((x - centre) ** 2) / (2 * sigma**2))


def ridges(centres, sigma=3.0, shape=(40, 80)):
    """Straight ridges along y, with a Gaussian profile."""
    x = np.arange(shape[1])
    return np.broadcast_to(sum(bump(x, centre, sigma) for centre in centres), shape)


def test_the_profile_of_a_plane_is_a_straight_line():
    y, x = np.mgrid[:40, :80]
    plane = 3.0 * y - 2.0 * x + 5
    found = profile_along(np.array([[3.0, 4.0], [33.0, 44.0]]), plane, 0.1)
    slope = (3.0 * 30 - 2.0 * 40) / 50  # for each pixel along the line
    np.testing.assert_allclose(found.mean, 3 * 3 - 2 * 4 + 5 + slope * found.distance_um / 0.1)
    assert found.distance_um[-1] == pytest.approx(5.0)
    assert found.low is None
    assert np.isnan(found.fwhm_um.value)


def test_points_lie_on_the_path_at_even_distances():
    points, lengths = points_along(np.array([[0, 0], [0, 3], [4, 3]]))
    np.testing.assert_allclose(np.diff(lengths), lengths[1])
    assert lengths[-1] == 7
    np.testing.assert_allclose(points[-1], (4, 3))
    assert all(row == 0 or column == 3 for row, column in points)


@pytest.mark.parametrize("line", [[[5, 5]], [[5, 5], [5, 5]]])
def test_a_line_without_length_is_answered_in_words(line):
    with pytest.raises(RequestError, match="no length"):
        points_along(np.array(line))


def test_a_line_beside_the_result_is_answered_in_words():
    with pytest.raises(RequestError, match="misses the result"):
        profile_along(np.array([[200.0, 0.0], [200.0, 50.0]]), np.ones((40, 80)), 0.1)


def test_what_lies_outside_is_no_number():
    found = values_along(np.ones((4, 4)), np.array([[0, 0], [-1, 0], [3, 3], [3, 3.5]]))
    np.testing.assert_array_equal(np.isnan(found), [False, True, False, True])


@pytest.mark.parametrize("sigma", [2.0, 4.0])
@pytest.mark.parametrize("angle", [0.0, 0.6])
def test_the_width_of_a_gaussian_is_known(sigma, angle):
    """At an angle to the ridge, the line crosses more of it."""
    middle, along = np.array([20.0, 39.5]), np.array([np.sin(angle), np.cos(angle)])
    line = np.stack([middle - 22 * along, middle + 22 * along])
    found = profile_along(line, ridges([39.5], sigma), 0.1)
    assert found.fwhm_um.value == pytest.approx(0.1 * FWHM * sigma / np.cos(angle), rel=0.03)
    assert found.fwhm_um.low is None


@pytest.mark.parametrize("distance", [14.0, 20.3])
def test_the_distance_of_two_gaussians_is_known(distance):
    found = profile_along(ACROSS, ridges([30.0, 30.0 + distance]), 0.2)
    assert found.peaks_um.value == pytest.approx(0.2 * distance, abs=0.05)  # a quarter pixel


def test_a_low_bump_beside_a_peak_is_no_second_peak():
    x = np.arange(100.0)
    assert np.isnan(peak_distance(bump(x, 40, 4) + bump(x, 70, 4, 0.1), 1.0))
    assert peak_distance(bump(x, 40, 4) + bump(x, 70, 4, 0.4), 1.0) == pytest.approx(30, abs=0.1)
    assert np.isnan(peak_width(x, 1.0))


@pytest.mark.parametrize("name", ["fwhm_um", "peaks_um"])
def test_nine_of_ten_intervals_hold_the_truth(name):
    """Sigma and centre of the ridges have a posterior; truth and samples are draws of it."""
    rng, inside, tries = np.random.default_rng(0), 0, 150

    def draw():
        sigma, move = 3 + 0.2 * rng.normal(), 0.7 * rng.normal()
        return ridges([30.0, 50.0 + move], sigma, (3, 80))

    line = np.array([[1.0, 2.0], [1.0, 77.0]])
    for _ in range(tries):
        samples = np.stack([draw() for _ in range(8)])
        truth = getattr(profile_along(line, draw(), 0.1), name).value
        found = getattr(profile_along(line, samples.mean(axis=0), 0.1, samples=samples), name)
        inside += found.low <= truth <= found.high
    assert inside / tries == pytest.approx(0.9, abs=0.07)


def test_the_band_holds_nine_of_ten_pixels():
    rng = np.random.default_rng(1)
    truth, samples = rng.normal(size=(3, 400)), rng.normal(size=(8, 3, 400))
    line = np.array([[1.0, 0.0], [1.0, 399.0]])
    found = profile_along(line, samples.mean(axis=0), 0.1, samples=samples)
    true = values_along(truth, points_along(line)[0])
    assert ((found.low <= true) & (true <= found.high)).mean() == pytest.approx(0.9, abs=0.05)
    alone = profile_along(line, 0 * truth, 0.1, spread=np.ones(truth.shape))
    np.testing.assert_allclose(alone.high, 1.645, atol=1e-3)
    assert not alone.calibrated


def test_a_calibration_scales_the_band_and_has_a_floor():
    calibration = {"factor": 2.0, "level": 0.8, "floor": 0.5}
    spread = np.where(np.arange(80) < 40, 0.1, 3.0) * np.ones((40, 1))
    found = profile_along(ACROSS, ridges([40.0]), 0.1, spread=spread, calibration=calibration)
    half = found.high - found.mean
    assert (half[0], half[-1]) == (pytest.approx(1.0), pytest.approx(6.0))
    assert found.calibrated
    assert found.level == 0.8


def test_what_few_samples_show_has_no_interval():
    assert estimate_from_samples(np.array([1.0, 1.2, np.nan])).low is not None
    assert estimate_from_samples(np.array([1.0, np.nan, np.nan])).low is None
    assert estimate_from_samples(np.array([1.0])) == Estimate(value=1.0)
    assert np.isnan(estimate_from_samples(np.array([np.nan, np.nan])).value)
