"""What a screen of many images costs: laws of the plan, and its measurement with a network of almost no cost."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from benchmarks.measure import finish, tiny_model
from benchmarks.scale import made, request_for
from benchmarks.screen import Costs, measured_costs, most_workers, screen_of, written

from napari_cvdm.models.checkpoint import load_checkpoint

COSTS = Costs(
    image=0.5,
    megapixel=40.0,
    load=2.0,
    task=0.002,
    encoded_mb=0.001,
    written_mb=0.003,
    megabytes=80.0,
)


def test_twice_the_workers_halve_the_computing_and_leave_scheduler_and_disk_alone():
    one, two = (screen_of(COSTS, 1000, 4.0, workers) for workers in (10, 20))
    assert one.computing - COSTS.load == pytest.approx(2 * (two.computing - COSTS.load))
    assert (one.scheduling, one.writing) == (two.scheduling, two.writing)


def test_a_screen_is_linear_in_its_images():
    one, ten = (screen_of(COSTS, images, 4.0, 1) for images in (100, 1000))
    assert ten.scheduling == pytest.approx(10 * one.scheduling) and ten.writing == pytest.approx(
        10 * one.writing
    )
    assert ten.computing - COSTS.load == pytest.approx(10 * (one.computing - COSTS.load))


def test_beyond_the_most_workers_another_part_sets_the_time():
    most = most_workers(COSTS, 100_000, 4.0, 1.0)
    assert screen_of(COSTS, 100_000, 4.0, int(0.9 * most)).bends == "computing"
    assert screen_of(COSTS, 100_000, 4.0, int(1.1 * most)).bends == "writing"
    assert screen_of(replace(COSTS, task=1.0), 100_000, 4.0, 100_000).bends == "scheduling"


def test_what_is_written_is_as_large_as_the_images():
    model = tiny_model()
    result = finish(request_for(model, made(model, 48), 2, 2), model)
    seconds, megabytes = written(result)
    assert seconds > 0
    assert megabytes * 1e6 > 3 * result.mean.nbytes  # mean, spread and rate at least


def test_every_cost_is_measured(tiny_widefield_model):
    costs = measured_costs(
        load_checkpoint(tiny_widefield_model),
        tiny_widefield_model,
        1,
        1,
        sides=(32, 48, 64),
        tasks=5,
    )
    assert all(np.isfinite(value) and value >= 0 for value in astuple(costs))
    assert min(costs.load, costs.task, costs.encoded_mb, costs.written_mb, costs.megabytes) > 0
