"""Statistics of rate, spread and error on planted truths."""

import numpy as np
import pytest
from scipy import stats

from napari_cvdm.analysis.correlations import (
    MOST_PIXELS,
    ResultFrame,
    correlate_maps,
    error_by_spread,
    spearman,
)
from napari_cvdm.analysis.intervals import pixel_interval, sample_histogram
from napari_cvdm.core.result import finished as drained
from napari_cvdm.core.statistics import spread_as


def planted(shape=(80, 90), honesty=1.0, seed=0):
    """A frame and its truth; the rate rises with the spread.

    The error is drawn with `honesty` times the spread.
    """
    rng = np.random.default_rng(seed)
    truth = np.sin(np.linspace(0, 9, shape[1])) * np.ones(shape)
    spread = rng.uniform(0.1, 1, shape)
    mean = truth + honesty * spread * rng.normal(size=shape)
    return ResultFrame(
        mean=mean, spread=spread, rate=7 + spread**3, valid=np.ones(shape, bool)
    ), truth


def test_planted_ranks_are_found():
    frame, truth = planted()
    found = drained(correlate_maps(frame, truth))
    assert found.rate_spread == pytest.approx(1)
    assert found.spread_error == pytest.approx(
        stats.spearmanr(frame.spread.ravel(), np.abs(frame.mean - truth).ravel()).statistic
    )
    assert found.spread_error > 0.3
    assert found.rate_error == pytest.approx(found.spread_error)
    assert found.used == found.usable == truth.size


def test_ranks_do_not_change_with_a_rising_scale():
    frame, truth = planted()
    other = ResultFrame(
        mean=frame.mean, spread=np.exp(frame.spread), rate=np.log(frame.rate), valid=frame.valid
    )
    first, second = drained(correlate_maps(frame, truth)), drained(correlate_maps(other, truth))
    assert first.spread_error == pytest.approx(second.spread_error)
    assert first.rate_error == pytest.approx(second.rate_error)


def test_shuffled_error_has_no_rank_in_common():
    frame, truth = planted()
    shuffled = np.random.default_rng(1).permutation(frame.spread.ravel()).reshape(truth.shape)
    assert abs(spearman(shuffled.ravel(), np.abs(frame.mean - truth).ravel())) < 0.05


@pytest.mark.parametrize("honesty", [0.5, 1.0, 3.0])
def test_error_against_spread_shows_how_honest_the_spread_is(honesty):
    frame, truth = planted((200, 200), honesty)
    found = drained(correlate_maps(frame, truth))
    np.testing.assert_allclose(found.by_spread.error / found.by_spread.spread, honesty, rtol=0.1)
    assert found.rmse / found.rms_spread == pytest.approx(honesty, rel=0.05)
    assert found.by_spread.pixels.sum() == truth.size
    assert (np.diff(found.by_spread.spread) > 0).all()


def test_untrusted_and_unknown_pixels_do_not_count():
    frame, truth = planted()
    clean = drained(correlate_maps(frame, truth))
    valid, mean, spoilt = frame.valid.copy(), frame.mean.copy(), truth.copy()
    valid[:4], mean[:4], spoilt[70:] = False, 1e9, np.nan
    found = drained(
        correlate_maps(
            ResultFrame(mean=mean, spread=frame.spread, rate=frame.rate, valid=valid), spoilt
        )
    )
    assert found.usable == clean.usable - 4 * 90 - 10 * 90
    assert found.spread_error == pytest.approx(clean.spread_error, abs=0.05)
    assert found.rmse < 2 * clean.rmse


def test_without_truth_there_is_no_error():
    found = drained(correlate_maps(planted()[0]))
    assert (
        found.rate_error,
        found.spread_error,
        found.structure_error,
        found.rmse,
        found.by_spread,
    ) == (None,) * 5
    assert found.rate_spread == pytest.approx(1)


def test_the_constant_of_a_phase_is_no_error():
    frame, truth = planted()
    first, moved = (
        drained(correlate_maps(frame, truth + offset, phase=True)) for offset in (0.0, 0.5)
    )
    assert moved.rmse == pytest.approx(first.rmse)
    assert moved.spread_error == pytest.approx(first.spread_error)
    counted = drained(correlate_maps(frame, truth + 0.5))
    assert counted.rmse > first.rmse + 0.1


def test_large_images_are_thinned_out_always_in_the_same_way():
    frame, truth = planted((400, 400))
    first, again = (drained(correlate_maps(frame, truth)) for _ in range(2))
    assert (first.used, first.usable) == (MOST_PIXELS, 160_000)
    assert first.spread_error == again.spread_error
    whole = stats.spearmanr(frame.spread.ravel(), np.abs(frame.mean - truth).ravel()).statistic
    assert first.spread_error == pytest.approx(whole, abs=0.01)


def test_a_constant_has_no_rank_and_one_bin():
    frame, truth = planted()
    flat = ResultFrame(
        mean=frame.mean, spread=np.zeros(truth.shape), rate=frame.rate, valid=frame.valid
    )
    found = drained(correlate_maps(flat, truth))
    assert np.isnan(found.rate_spread)
    assert found.by_spread.pixels.tolist() == [truth.size]
    assert error_by_spread(np.array([0.0, 0.0, 0.0, 1.0]), np.ones(4)).pixels.sum() == 4


def test_what_cannot_be_ranked_is_refused_in_words():
    frame, truth = planted()
    with pytest.raises(ValueError, match="on the grid of the result"):
        drained(correlate_maps(frame, truth[:-1]))
    with pytest.raises(ValueError, match="0 valid pixels"):
        drained(
            correlate_maps(
                ResultFrame(
                    mean=frame.mean, spread=frame.spread, rate=frame.rate, valid=~frame.valid
                ),
                truth,
            )
        )
    with pytest.raises(ValueError, match="'range'"):
        spread_as(truth, "range", "standard deviation")


def test_a_variance_and_its_root_are_the_same_spread():
    spread = np.random.default_rng(0).random((3, 4))
    np.testing.assert_allclose(spread_as(spread**2, "variance", "standard deviation"), spread)


def test_an_uncalibrated_claim_is_that_of_a_normal_distribution():
    claim = pixel_interval(2.0, 0.5, {"model": {"name": "tiny"}})
    inside = np.abs(np.random.default_rng(0).normal(2.0, 0.5, 100_000) - 2.0) <= claim.high - 2.0
    assert not claim.calibrated
    assert inside.mean() == pytest.approx(claim.level, abs=0.005)
    assert claim.high - 2.0 == pytest.approx(2.0 - claim.low)


def test_a_calibrated_claim_uses_the_models_factor():
    claim = pixel_interval(2.0, 0.5, {"model": {"calibration": {"factor": 3.0, "level": 0.8}}})
    assert (claim.low, claim.high, claim.level, claim.calibrated) == (0.5, 3.5, 0.8, True)


@pytest.mark.parametrize(
    "samples", [np.arange(16.0), np.ones(8), np.array([1.0, np.nan, 2.0]), np.array([np.nan])]
)
def test_every_finite_sample_is_in_the_histogram_once(samples):
    found = sample_histogram(samples)
    assert found.counts.sum() == np.isfinite(samples).sum()
    assert found.edges.size == found.counts.size + 1
