"""The benchmarks of speed measure what they say; none of these laws has a clock in it."""

import pytest
import torch
from benchmarks.published import NOISE_PARAMETERS, SCHEDULE_PARAMETERS, Published, parameter_count, published_sample


@pytest.fixture(scope="module")
def published() -> Published:
    """The published networks with random weights."""
    return Published.build()


def test_the_published_networks_have_the_published_size(published: Published) -> None:
    assert parameter_count([published.noise]) == pytest.approx(NOISE_PARAMETERS, rel=0.01)
    assert parameter_count([published.rate, published.tau, published.tau]) == pytest.approx(SCHEDULE_PARAMETERS, rel=0.01)


def test_the_published_procedure_evaluates_the_schedule_at_every_step(published: Published) -> None:
    calls = {"schedule": 0, "noise": 0}

    def count(name: str) -> object:
        def hook(*_: object) -> None:
            calls[name] += 1

        return hook

    hooks = [published.rate.register_forward_hook(count("schedule")), published.noise.register_forward_hook(count("noise"))]
    images = list(published_sample(published, torch.zeros(1, 2, 32, 16), steps=3))
    for hook in hooks:
        hook.remove()
    assert calls == {"schedule": 3, "noise": 3}
    assert all(image.shape == (1, 1, 32, 16) and bool(image.isfinite().all()) for image in images)
