"""The schedule made lazily is the model's, costs one slice a time, and obeys its equation."""

import tracemalloc

import dask.array as da
import numpy as np
import pytest
import torch

from napari_cvdm.analysis.regions import (
    BACKGROUND,
    STRUCTURE,
    regions_on_grid,
    structure_and_background,
)
from napari_cvdm.analysis.schedule_maps import (
    pixel_curves,
    region_curves,
    schedule_maps,
    shown_ranges,
)
from napari_cvdm.core.result import finished as drained
from napari_cvdm.diffusion.process import half_log_snr
from napari_cvdm.models.schedule import Clock, clock_curve, gamma_and_beta


@pytest.fixture
def clock():
    """A clock that is no special case."""
    made, generator = Clock().double(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        made.weights.copy_(torch.randn(8, generator=generator))
    return made


def rates(shape):
    return np.random.default_rng(0).uniform(7, 40, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(6, 5), (3, 6, 5), (2, 1, 6, 5)])
def test_lazy_maps_are_those_of_the_model(clock, shape):
    rate, curve = rates(shape), clock_curve(clock, 20)
    maps = schedule_maps(rate, curve)
    exact = torch.from_numpy(rate).double()
    gamma, beta = gamma_and_beta(exact.numpy(), curve)
    for number, time in enumerate(curve.times):
        with torch.inference_mode():
            level = half_log_snr(exact * clock(torch.tensor(time).double())[0])
        np.testing.assert_allclose(maps.gamma[number], gamma[number], rtol=0, atol=1e-6)
        np.testing.assert_allclose(maps.beta[number], beta[number], rtol=1e-6)
        np.testing.assert_allclose(maps.half_log_snr[number], level, rtol=1e-6, atol=1e-6)


def test_maps_have_one_chunk_for_each_time_and_frame(clock):
    for rate in (rates((3, 6, 5)), da.from_array(rates((3, 6, 5)), chunks=2)):
        maps = schedule_maps(rate, clock_curve(clock, 20))
        for one in (maps.gamma, maps.beta, maps.half_log_snr):
            assert (one.shape, one.dtype, one.chunksize) == (
                (20, 3, 6, 5),
                np.float32,
                (1, 1, 6, 5),
            )


@pytest.mark.parametrize("name", ["gamma", "beta", "half_log_snr"])
def test_one_slice_costs_the_memory_of_one_slice(clock, name):
    rate = rates((700, 800))
    one = getattr(schedule_maps(rate, clock_curve(clock, 100)), name)
    tracemalloc.start()
    try:
        np.asarray(one[50])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3.2 * rate.nbytes


def test_gamma_falls_by_beta(clock):
    curve = clock_curve(clock, 2000)
    for one in (pixel_curves(rate, curve) for rate in (7.0, 15.0, 40.0)):
        slope = np.gradient(one.gamma, one.times, edge_order=2)
        early = one.times < 0.9
        np.testing.assert_allclose(
            slope[early], (-one.beta * one.gamma)[early], atol=2e-4 * np.abs(slope).max()
        )
        np.testing.assert_allclose(
            one.half_log_snr, 0.5 * np.log(one.gamma / -np.expm1(np.log(one.gamma))), rtol=1e-9
        )


def test_the_log_snr_survives_what_gamma_does_not(clock):
    curve = clock_curve(clock, 10)
    huge, tiny = pixel_curves(1e4, curve), pixel_curves(1e-12, curve)
    np.testing.assert_allclose(huge.half_log_snr, -0.5e4 * np.array(curve.values), rtol=1e-6)
    np.testing.assert_allclose(
        tiny.half_log_snr, -0.5 * np.log(1e-12 * np.array(curve.values)), rtol=1e-9
    )


def test_a_region_has_the_mean_of_its_pixels_schedules(clock):
    rate, curve = rates((4, 5)), clock_curve(clock, 10)
    labels = np.zeros((4, 5), int)
    labels[1, :3], labels[3, 2] = 4, 7
    found = drained(region_curves(rate, labels, curve)).curves
    assert {number: one.pixels for number, one in found.items()} == {4: 3, 7: 1}
    alone = [pixel_curves(rate[1, column], curve) for column in range(3)]
    for name in ("gamma", "beta", "half_log_snr"):
        np.testing.assert_allclose(
            getattr(found[4], name),
            np.mean([getattr(one, name) for one in alone], axis=0),
            rtol=1e-9,
        )
        np.testing.assert_allclose(
            getattr(found[7], name), getattr(pixel_curves(rate[3, 2], curve), name), rtol=1e-9
        )


def test_many_regions_are_counted_and_the_first_are_averaged(clock):
    labels = np.arange(20).reshape(4, 5)
    found = drained(region_curves(rates((4, 5)), labels, clock_curve(clock, 10), most=3))
    assert (list(found.curves), found.found) == ([1, 2, 3], 19)


def test_regions_of_another_shape_are_refused(clock):
    with pytest.raises(ValueError, match="grid of the rate map"):
        drained(region_curves(rates((4, 5)), np.zeros((5, 4), int), clock_curve(clock, 3)))


def test_shown_ranges_hold_the_maps_between_the_ends(clock):
    rate, curve = rates((6, 5)), clock_curve(clock, 100)
    maps, ranges = schedule_maps(rate, curve), shown_ranges(rate, curve)
    inside = slice(4, 95)
    for name, (low, high) in ranges.items():
        values = np.asarray(getattr(maps, name)[inside])
        assert low - 1e-5 <= values.min() <= values.max() <= high + 1e-5, name
    assert all(
        low < high
        for low, high in shown_ranges(np.full((2, 2), 9.0), clock_curve(clock, 1)).values()
    )


def test_structure_and_background_are_told_apart():
    mean = np.random.default_rng(0).normal(size=(20, 20))
    mean[5:10] += 30
    valid = np.ones(mean.shape, bool)
    valid[:, 0] = False
    labels = structure_and_background(mean, valid)
    assert (labels[5:10, 1:] == STRUCTURE).all()
    assert (labels[12:, 1:] == BACKGROUND).all()
    assert not labels[:, 0].any()
    assert not structure_and_background(np.ones((3, 3)), np.ones((3, 3), bool)).any()


def test_labels_are_read_on_a_finer_grid():
    labels = np.arange(12).reshape(3, 4)
    matrix = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]])
    np.testing.assert_array_equal(
        regions_on_grid(labels, matrix[:2, :2], matrix[:2, 2], (6, 8)),
        np.kron(labels, np.ones((2, 2), int)),
    )


def test_frames_without_a_rate_set_no_range(clock):
    """Of a run that was stopped: they are zero, and their log-SNR is infinite."""
    rate, curve = rates((2, 6, 5)), clock_curve(clock, 20)
    rate[1] = 0
    assert shown_ranges(rate, curve) == shown_ranges(rate[0], curve)
    assert np.isfinite(list(shown_ranges(rate[1], curve).values())).all()
    assert np.isposinf(schedule_maps(rate, curve).half_log_snr[3, 1].compute()).all()
