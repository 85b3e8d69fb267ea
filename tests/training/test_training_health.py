"""Each planted failure of a training is found and named with advice.

A healthy training gets no warning.
"""

import pytest
import torch

from napari_cvdm.models.registry import load_model, shipped_models
from napari_cvdm.models.schedule import Clock
from napari_cvdm.training.health import (
    gradient_findings,
    overfitting_findings,
    schedule_findings,
    spread_findings,
)
from napari_cvdm.training.validation import Score


def clock_of(term: int) -> Clock:
    """The clock of one of its terms alone."""
    clock = Clock()
    with torch.no_grad():
        clock.weights.zero_()
        clock.weights[term] = 40
    return clock


def rate_of(level: float, contrast: float = 0.1) -> torch.Tensor:
    """A rate map around a level."""
    return level * (
        1 + contrast * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    )


HEALTHY = Score(rmse=1.0, centre_rmse=1.0, baseline_rmse=2.0, crps=0.5, spread_ratio=0.9)


@pytest.mark.parametrize(
    ("name", "clock", "rate"),
    [
        ("degenerate schedule", clock_of(3), rate_of(40.0)),  # falls at once
        ("degenerate schedule", clock_of(4), rate_of(7.0, 0)),  # hardly falls
        ("prior not reached", clock_of(1), rate_of(5.0)),
        ("schedule too sharp", clock_of(0), rate_of(7.0)),
        ("schedule too smooth", clock_of(1), rate_of(12.0, 0.0)),
    ],
)
def test_a_planted_schedule_is_found(name, clock, rate):
    found = {
        finding.name: finding
        for finding in schedule_findings(rate, clock, pixel_wise=True, share_done=1.0)
    }
    assert name in found
    assert found[name].advice.endswith(".")


def test_the_schedule_that_a_training_begins_with_is_healthy():
    assert schedule_findings(rate_of(8.5, 0.0), Clock(), pixel_wise=True, share_done=0.0) == ()


def test_a_global_rate_need_not_follow_anything():
    assert (
        schedule_findings(rate_of(12.0, 0.0), clock_of(1), pixel_wise=False, share_done=1.0) == ()
    )


@pytest.mark.parametrize("name", [name for name, _ in shipped_models()])
def test_the_clocks_of_the_shipped_models_are_healthy(name):
    clock = load_model(name).network.clock
    assert schedule_findings(rate_of(15.0), clock, pixel_wise=True, share_done=1.0) == ()


def test_skipped_steps_are_found_when_they_are_many():
    assert gradient_findings(1, 1000) == ()
    assert gradient_findings(20, 1000)[0].name == "exploding gradients"


def test_overfitting_is_found_when_the_score_rises_above_its_best():
    assert overfitting_findings(1.01, 1.0, 400) == ()
    assert overfitting_findings(0.9, None, 0) == ()
    assert "step 400" in overfitting_findings(1.1, 1.0, 400)[0].advice


@pytest.mark.parametrize(
    ("ratio", "names"), [(0.1, ["posterior collapse"]), (0.9, []), (3.0, ["posterior too wide"])]
)
def test_a_spread_that_does_not_fit_the_error_is_found(ratio, names):
    score = Score(rmse=1.0, centre_rmse=1.0, baseline_rmse=2.0, crps=0.5, spread_ratio=ratio)
    assert [finding.name for finding in spread_findings(score)] == names


def test_a_healthy_score_has_no_findings():
    assert spread_findings(HEALTHY) + overfitting_findings(HEALTHY.crps, HEALTHY.crps, 0) == ()
