"""What a run is said to cost follows from one tile by arithmetic that can be checked."""

import json
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from small_images import phase_request, planes, spots, widefield_request

from napari_cvdm.core.result import finished as drained
from napari_cvdm.models import cvdm
from napari_cvdm.models.cvdm import CVDM, CVDMConfig
from napari_cvdm.models.networks import UNetConfig
from napari_cvdm.models.registry import load_model
from napari_cvdm.models.tiled import network_on
from napari_cvdm.reconstruction import cost as module
from napari_cvdm.reconstruction.sampling import SAMPLES_TOGETHER

pytestmark = pytest.mark.usefixtures("few_solver_steps", "remembered_inversions")


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
        widefield_request(spots((320, 260)), tile=1024),
        load_model(str(tiny_widefield_model)),
    )
    whole, part = estimate(request, model), estimate(replace(request, region=(0, 40, 0, 40)), model)
    assert part.memory_bytes < whole.memory_bytes / 3


def test_a_measurement_can_be_stopped_before_each_evaluation(tiny_widefield_model, monkeypatch):
    model, evaluated = load_model(str(tiny_widefield_model)), []

    def clean(tiled, rate, *_):
        yield 1, 1
        evaluated.append("clean")
        return rate

    monkeypatch.setattr(module.TiledModel, "clean", clean)
    steps = module.estimate(widefield_request(spots((40, 36))), model)
    counts = [len(evaluated) for _ in steps]
    assert counts == sorted(counts) and counts[-4:] == [0, 0, 1, 1]
    assert len(evaluated) == 2


def profiled_bytes(work, folder):
    """What torch allocates at the peak of some work, over what was there before."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        work()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    memory = [event["args"] for event in events if event["name"] == "[memory]"]
    before = memory[0]["Total Allocated"] - memory[0]["Bytes"]
    return max(one["Total Allocated"] for one in memory) - before


TILE = (48, 64)
WIDTHS = {
    "shipped": UNetConfig(widths=(32, 64, 96), blocks=(1, 1, 2)),
    "wide": UNetConfig(widths=(64, 64, 64, 64), blocks=(2, 2, 2, 2)),
}


@cache
def network_of(size: str) -> CVDM:
    """A network with random weights."""
    mean = replace(WIDTHS[size], level_channels=0)
    config = CVDMConfig(condition_channels=3, denoiser=WIDTHS[size], mean=mean)
    return network_on(CVDM(config).eval(), torch.device("cpu"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("size", WIDTHS)
def test_the_memory_of_a_tile_is_what_the_profiler_sees_or_up_to_half_more(
    size, one_by_one, samples, precision, monkeypatch, tmp_path
):
    for place in (cvdm, module):
        monkeypatch.setattr(place, "prefers_sequential", lambda device: one_by_one)
    network = network_of(size)
    tile = module.BenchmarkTile(network, TILE, samples)
    tile.step(precision)
    seen = max(
        profiled_bytes(partial(work, precision), tmp_path)
        for work in (tile.step, tile.mean_residual)
    )
    said = module.tile_bytes(network, TILE, samples, precision, torch.device("cpu"))
    print(f"{size}, {samples} samples, one by one {one_by_one}, {precision}: {said / seen:.2f}")
    assert seen <= said <= 1.5 * seen
