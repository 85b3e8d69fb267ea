"""What a phase sample is made of: laws of `PhasePosterior`."""

from dataclasses import replace

import numpy as np
import pytest
from cut_planes import OPTICS, take_planes
from scipy.ndimage import gaussian_filter

from napari_cvdm.core.result import finished
from napari_cvdm.reconstruction.plan import prepare_frame
from napari_cvdm.tasks import NetworkInput, PhaseTwoShot
from napari_cvdm.tasks.phase_posterior import TRUST, PhasePosterior, PosteriorDraws

SHAPE = (72, 64)
BUMP_RAD = 0.6


@pytest.fixture(scope="module")
def prepared() -> NetworkInput:
    """Cells that the frame cuts, in bright light."""
    cut = take_planes(OPTICS["symmetric"], shape=SHAPE, strength=1.0, photons=2e4)
    conditioned = prepare_frame(cut.counts, cut.request(), PhaseTwoShot())
    assert not conditioned.estimated["periodic"]
    return conditioned


def posterior_of(prepared: NetworkInput) -> PhasePosterior:
    posterior = prepared.posterior
    assert isinstance(posterior, PhasePosterior)
    return posterior


def proposal_of(prepared: NetworkInput) -> np.ndarray:
    """The estimate as a network would give it: on its grid, without the level [rad]."""
    return prepared.initial_estimate.numpy() * prepared.gain


def bump(prepared: NetworkInput) -> np.ndarray:
    """A dot of a few pixels in the middle of the frame: the data decide such detail."""
    spot = np.zeros(prepared.initial_estimate.shape)
    spot[tuple((part.start + part.stop) // 2 for part in prepared.frame)] = 1
    spot = gaussian_filter(spot, 2.5)
    return (BUMP_RAD * spot / spot.max()).astype(np.float32)


def test_the_background_of_every_sample_is_zero(prepared):
    posterior, proposal = posterior_of(prepared), proposal_of(prepared)
    for stream in range(3):
        sample = finished(posterior.refine(proposal + np.float32(0.3 * stream), stream))
        assert sample.dtype == np.float32
        assert abs(prepared.kept(sample)[posterior.background].mean()) < 1e-5


def test_a_trusted_share_of_what_the_network_changes_is_kept(prepared):
    """With the same draw, so much is left of a planted bump."""
    posterior, proposal, planted = posterior_of(prepared), proposal_of(prepared), bump(prepared)
    left = posterior.blend(proposal + planted) - posterior.blend(proposal)
    np.testing.assert_allclose(left, TRUST * planted, atol=1e-5)
    np.testing.assert_allclose(
        prepared.kept(posterior.blend(proposal)), prepared.estimate, atol=1e-5
    )


def test_samples_in_turn_carry_opposite_draws(prepared):
    posterior, proposal = posterior_of(prepared), proposal_of(prepared)
    mean = (finished(posterior.refine(proposal, 4)) + finished(posterior.refine(proposal, 5))) / 2
    level = prepared.kept(posterior.blend(proposal))[posterior.background].mean()
    np.testing.assert_allclose(prepared.kept(mean), prepared.estimate - level, atol=1e-4)


def test_samples_of_the_estimate_scatter_as_the_posterior_does(prepared):
    posterior, proposal = posterior_of(prepared), proposal_of(prepared)
    samples = np.stack(
        [prepared.kept(finished(posterior.refine(proposal, stream))) for stream in range(12)]
    )
    width = np.sqrt(finished(posterior.draw_phases(12)).var(axis=0, ddof=1).mean())
    assert np.sqrt(np.mean((samples - prepared.estimate) ** 2)) == pytest.approx(width, rel=0.4)


def test_the_same_stream_gives_the_same_bytes_and_another_another(prepared):
    posterior, proposal = posterior_of(prepared), proposal_of(prepared)
    first = finished(posterior.refine(proposal, 2))
    assert first.tobytes() == finished(posterior.refine(proposal, 2)).tobytes()
    assert not np.array_equal(first, finished(posterior.refine(proposal, 3)))
    other = replace(posterior, draws=PosteriorDraws(posterior.fit, seed=1))
    assert not np.array_equal(first, finished(other.refine(proposal, 2)))


def test_a_part_is_that_part_of_the_whole(prepared):
    """Noise belongs to absolute pixels; only the level depends on the part's background."""
    part = prepared.within((8, 56, 8, 56), 8, 16)
    whole, posterior = posterior_of(prepared), posterior_of(part)
    planted = proposal_of(prepared) + bump(prepared)
    rows, columns = (
        slice(start - first, start - first + size)
        for start, first, size in zip(part.origin, prepared.origin, part.valid.shape, strict=True)
    )
    expected = finished(whole.refine(planted, 1))[rows, columns]
    difference = finished(posterior.refine(planted[rows, columns], 1)) - expected
    assert np.ptp(difference) < 1e-4
    np.testing.assert_array_equal(part.estimate, prepared.estimate[8:56, 8:56])


def test_draws_of_the_physics_are_levelled_and_lie_around_the_estimate(prepared):
    posterior = posterior_of(prepared)
    drawn = finished(posterior.draw_phases(16))
    assert drawn.shape == (16, *SHAPE)
    np.testing.assert_allclose(drawn[:, posterior.background].mean(axis=1), 0, atol=1e-5)
    np.testing.assert_array_equal(drawn[:3], finished(posterior.draw_phases(3)))
    error = drawn.mean(axis=0) - prepared.estimate
    assert np.std(error) < np.sqrt(drawn.var(axis=0, ddof=1).mean())
