"""What a run is said to cost follows from one tile by arithmetic that can be checked."""

import gc
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_images import phase_request, planes, spots, widefield_request

from napari_cvdm.core.device import peak_memory
from napari_cvdm.core.result import finished as drained
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction import cost as module
from napari_cvdm.reconstruction.sampling import SAMPLES_TOGETHER


def estimate(request, model):
    """What the measurement returns."""
    return drained(module.estimate(request, model))


@pytest.fixture
def clock(monkeypatch):
    """Everything takes one second."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(ticks)))


@pytest.mark.parametrize("frames", [1, 3])
def test_seconds_are_those_of_one_tile_times_what_is_asked_for(clock, tiny_widefield_model, frames):
    image = spots((frames, 40, 36), axes="TYX")
    found = estimate(
        widefield_request(image, samples=5, steps=7), load_model(str(tiny_widefield_model))
    )
    assert found.tiles == 1
    assert found.seconds == frames * (
        1 + 1 + (1 + 5 * 6) / SAMPLES_TOGETHER
    )  # a step of so many took the second, and the first step is one for all


def test_more_tiles_read_more_pixels(clock, tiny_widefield_model):
    request, model = (
        widefield_request(spots((128, 128)), samples=1, steps=1),
        load_model(str(tiny_widefield_model)),
    )
    whole, tiled = estimate(request, model), estimate(replace(request, tile=64), model)
    assert (whole.tiles, tiled.tiles) == (1, 4)
    assert tiled.seconds > whole.seconds


def test_a_smaller_tile_needs_less_memory_and_kept_samples_need_more(tiny_widefield_model):
    request, model = (
        widefield_request(spots((160, 160)), samples=6),
        load_model(str(tiny_widefield_model)),
    )
    whole, tiled, keeping = (
        estimate(replace(request, **change), model).memory_bytes
        for change in ({}, {"tile": 32}, {"keep_samples": True})
    )
    assert tiled < whole
    assert keeping - whole == 6 * 320 * 320 * 4


def test_the_inversion_of_a_phase_decides_its_memory(tiny_phase_model):
    request, model = phase_request(planes((160, 160)), samples=6), load_model(str(tiny_phase_model))
    whole, tiled, keeping = (
        estimate(replace(request, **change), model).memory_bytes
        for change in ({}, {"tile": 32}, {"keep_samples": True})
    )
    assert keeping == tiled == whole


def test_a_region_costs_less_than_the_image(clock, tiny_widefield_model):
    request, model = (
        widefield_request(spots((600, 500)), tile=1024),
        load_model(str(tiny_widefield_model)),
    )
    whole, part = estimate(request, model), estimate(replace(request, region=(0, 40, 0, 40)), model)
    assert part.memory_bytes < whole.memory_bytes / 3


def test_a_measurement_can_be_stopped_before_each_evaluation(tiny_widefield_model, monkeypatch):
    model, evaluated = load_model(str(tiny_widefield_model)), []
    monkeypatch.setattr(
        module.TiledModel, "clean", lambda tiled, rate, *_: evaluated.append("clean") or rate
    )
    steps = module.estimate(widefield_request(spots((40, 36))), model)
    counts = [len(evaluated) for _ in steps]
    assert counts == sorted(counts) and counts[-4:] == [0, 1, 1, 1]
    assert len(evaluated) == 2


def test_measuring_memory_does_not_load_torch_s_compiler():
    code = (
        "import sys, torch; from napari_cvdm.core.device import peak_memory; "
        "peak_memory(torch.device('cpu'), lambda: torch.ones(2) + 1); print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "napari_cvdm.core.device" in loaded
    assert "torch._dynamo" not in loaded


def test_peak_memory_counts_what_is_alive_at_once():
    def work():
        first = torch.ones(1000, dtype=torch.float32)
        second = first + 1
        del first
        third = second * 2
        return third.sum()

    assert 8000 <= peak_memory(torch.device("cpu"), work) <= 8100
    assert np.isfinite(peak_memory(torch.device("cpu"), lambda: None))


def test_peak_memory_counts_no_weights_and_leaves_nothing_with_them():
    """A slice of a weight is no new memory.

    Every estimate once left a listener for the slice's end on the weight.
    """
    weight = torch.ones(1000, dtype=torch.float32)
    assert 2000 <= peak_memory(torch.device("cpu"), lambda: weight[:500] + 1) <= 2100
    gc.collect()
    assert not [
        kept for kept in gc.get_objects() if type(kept).__module__ == peak_memory.__module__
    ]
