"""Reconstruction: tiles and devices do not choose the pixels, seeds do; every frame, every size."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_images import phase_request, planes, spots, widefield_request

from napari_cvdm.core.microscope import OpticsError
from napari_cvdm.core.request import ImageStack, RequestError
from napari_cvdm.core.result import finished as drained
from napari_cvdm.core.statistics import RunningMoments
from napari_cvdm.io import combine_planes
from napari_cvdm.models.registry import load_model
from napari_cvdm.models.schedule import RATE_MAX, RATE_MIN, gamma_and_beta
from napari_cvdm.reconstruction.reconstruct import reconstruct

pytestmark = pytest.mark.usefixtures("few_solver_steps", "remembered_inversions")


def run(request, model, check=True):
    """Drain a reconstruction and return it with its progress."""
    steps, seen = reconstruct(request, load_model(str(model)), check=check), []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return end.value, seen


def output_range(values, name):
    """Range of an output.

    The range of the rate is its whole interval, since an untrained map is nearly flat.
    """
    return RATE_MAX - RATE_MIN if name == "rate" else np.ptp(values)


@pytest.mark.parametrize("shape", [(96, 96), (101, 75)])
def test_tiled_equals_whole_for_phase(tiny_phase_model, shape):
    whole, _ = run(phase_request(planes(shape), tile=512), tiny_phase_model, check=False)
    for tile in (16, 40, 64, 97):
        tiled, _ = run(phase_request(planes(shape), tile=tile), tiny_phase_model, check=False)
        for name in ("mean", "variance", "rate"):
            one, other = getattr(whole, name), getattr(tiled, name)
            assert np.abs(one - other).max() <= 1e-5 * output_range(one, name), (tile, name)


def test_tiled_equals_whole_for_super_resolution(tiny_widefield_model):
    whole, _ = run(widefield_request(spots((83, 70)), tile=512), tiny_widefield_model)
    for tile in (16, 50):
        tiled, _ = run(widefield_request(spots((83, 70)), tile=tile), tiny_widefield_model)
        for name in ("mean", "variance", "rate"):
            one, other = getattr(whole, name), getattr(tiled, name)
            assert np.abs(one - other).max() <= 1e-5 * output_range(one, name), (tile, name)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tiny_phase_model):
    first, second, other = (
        run(phase_request(planes((64, 64)), seed=seed), tiny_phase_model)[0] for seed in (5, 5, 6)
    )
    assert first.mean.tobytes() == second.mean.tobytes()
    assert first.variance.tobytes() == second.variance.tobytes()
    assert first.mean.tobytes() != other.mean.tobytes()


def test_the_order_of_the_planes_does_not_matter(tiny_phase_model):
    image = planes((64, 72))
    swapped = ImageStack(array=image.array[::-1], axes="PYX", pixel_um=0.2)
    one, _ = run(phase_request(image), tiny_phase_model)
    other, _ = run(phase_request(swapped, defocus_um=(1.0, -1.0)), tiny_phase_model)
    assert np.array_equal(one.mean, other.mean)


def test_brightness_of_the_lamp_does_not_matter(tiny_phase_model):
    image = planes((64, 64))
    brighter = ImageStack(array=image.array * 4, axes="PYX", pixel_um=0.2)
    one, _ = run(phase_request(image), tiny_phase_model)
    other, _ = run(phase_request(brighter), tiny_phase_model)
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-4)


def test_doubling_the_exposure_doubles_the_counts(tiny_widefield_model):
    image = spots((48, 48))
    doubled = ImageStack(array=image.array.astype(np.float64) * 2, axes="YX", pixel_um=0.065)
    one, _ = run(widefield_request(image), tiny_widefield_model)
    other, _ = run(widefield_request(doubled), tiny_widefield_model)
    np.testing.assert_allclose(other.mean, 2 * one.mean, rtol=1e-3, atol=1e-2)


def test_an_offset_of_the_camera_does_not_matter(tiny_widefield_model):
    image = spots((48, 48))
    lifted = ImageStack(array=image.array + np.uint16(200), axes="YX", pixel_um=0.065)
    one, _ = run(widefield_request(image), tiny_widefield_model)
    other, _ = run(widefield_request(lifted), tiny_widefield_model)
    np.testing.assert_allclose(other.mean, one.mean, atol=1e-2)


def test_super_resolution_doubles_the_grid_and_halves_the_pixel(tiny_widefield_model):
    result, _ = run(widefield_request(spots((33, 47))), tiny_widefield_model)
    assert result.mean.shape == result.valid.shape == result.rate.shape == (66, 94)
    assert result.pixel_um == pytest.approx(0.0325)


def test_frames_are_looped_and_the_first_is_as_if_alone(tiny_widefield_model):
    movie = spots((3, 2, 40, 36), axes="TCYX")
    result, seen = run(widefield_request(movie), tiny_widefield_model)
    alone, _ = run(
        widefield_request(ImageStack(array=movie.array[0, 0], axes="YX", pixel_um=0.065)),
        tiny_widefield_model,
    )
    assert result.mean.shape == (3, 2, 80, 72)
    assert result.axes == "TCYX"
    assert np.array_equal(result.mean[0, 0], alone.mean)
    sampled = [step for step in seen if step.stage.startswith("sample")]
    done = [step.done for step in sampled if step.view is not None]
    assert done == sorted(set(done))
    assert done[-1] == seen[-1].total == 3 * 2 * 2 * 3


def test_mean_and_variance_are_those_of_the_samples(tiny_phase_model):
    result, _ = run(phase_request(planes((40, 40)), samples=4, keep_samples=True), tiny_phase_model)
    assert result.samples.shape == (4, 40, 40)
    np.testing.assert_allclose(result.mean, result.samples.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(result.variance, result.samples.var(axis=0, ddof=1), atol=1e-6)
    np.testing.assert_allclose(result.std**2, result.variance, rtol=1e-5)


def test_more_samples_begin_with_the_same_ones(tiny_phase_model):
    few, _ = run(phase_request(planes((40, 40)), samples=2, keep_samples=True), tiny_phase_model)
    many, _ = run(phase_request(planes((40, 40)), samples=3, keep_samples=True), tiny_phase_model)
    assert np.array_equal(few.samples, many.samples[:2])


@pytest.mark.parametrize("sampler", ["sde-2m", "ode-2m", "ddim", "ancestral"])
def test_every_sampler_restores(tiny_phase_model, sampler):
    result, seen = run(phase_request(planes((40, 40)), sampler=sampler, steps=4), tiny_phase_model)
    assert np.isfinite(result.mean).all()
    # the inversion comes before the first evaluation
    assert sum(step.done > 0 and step.view is not None for step in seen) == 8


def test_one_sample_has_no_spread(tiny_phase_model):
    result, _ = run(phase_request(planes((40, 40)), samples=1), tiny_phase_model)
    assert (result.variance == 0).all()


def test_schedule_maps_fall_and_are_tied(tiny_phase_model):
    result, _ = run(phase_request(planes((40, 48)), schedule_points=11), tiny_phase_model)
    gamma, beta = gamma_and_beta(result.rate, result.schedule_clock)
    assert gamma.shape == beta.shape == (11, 40, 48)
    assert result.schedule_clock.times == tuple((index + 1) / 11 for index in range(11))
    assert ((gamma > 0) & (gamma < 1)).all()
    assert (np.diff(gamma, axis=0) < 0).all()
    assert (beta > 0).all()


@pytest.mark.parametrize("shape", [(1, 64), (5, 7), (17, 300)])
def test_thin_and_tiny_images_work(tiny_phase_model, tiny_widefield_model, shape):
    phase, _ = run(phase_request(planes(shape)), tiny_phase_model)
    assert phase.mean.shape == shape
    if min(shape) > 1:
        fluorescence, _ = run(widefield_request(spots(shape)), tiny_widefield_model)
        assert fluorescence.mean.shape == (2 * shape[0], 2 * shape[1])


def test_an_image_of_the_blank_field_is_divided_out(tiny_phase_model):
    image = planes((48, 48))
    shade = 1 + 0.3 * np.linspace(-1, 1, 48)[None, :] * np.ones((48, 1))
    shaded = ImageStack(array=image.array / 1000 * shade, axes="PYX", pixel_um=0.2)
    clean, _ = run(
        phase_request(
            ImageStack(array=image.array / 1000, axes="PYX", pixel_um=0.2), background="none"
        ),
        tiny_phase_model,
    )
    corrected, _ = run(phase_request(shaded, background=shade), tiny_phase_model)
    np.testing.assert_allclose(corrected.mean, clean.mean, atol=1e-4)


def test_saturated_pixels_of_a_phase_are_not_valid_and_its_border_is(tiny_phase_model):
    counts = (planes((64, 64)).array / 8).clip(0, 254).astype(np.uint8)
    counts[0, 30, 30] = 255
    result, _ = run(
        phase_request(ImageStack(array=counts, axes="PYX", pixel_um=0.2)), tiny_phase_model
    )
    assert not result.valid[30, 30]
    assert result.valid[0].all()
    assert result.valid[32, 20]


@pytest.mark.parametrize(("shape", "said"), [((16, 40), True), ((17, 40), False)])
def test_an_image_that_is_all_border_is_said_to_be_of_no_use(shape, said, tiny_widefield_model):
    result, _ = run(widefield_request(spots(shape)), tiny_widefield_model)
    assert result.valid.any() != said
    assert (
        any("no pixel can be trusted" in warning for warning in result.provenance.warnings) == said
    )


def test_optics_beyond_the_card_are_said_in_words(tiny_phase_model):
    result, _ = run(phase_request(planes((40, 40)), pixel_um=5.0), tiny_phase_model)
    assert any("pixel_um is 5" in warning for warning in result.provenance.warnings)


def test_provenance_is_plain_and_complete(tiny_phase_model):
    result, _ = run(phase_request(planes((40, 40))), tiny_phase_model)
    provenance = result.provenance
    assert json.dumps(dict(provenance.settings))
    assert provenance.settings["pixel_um"] == 0.2
    assert provenance.estimated["frames"][0]["background"][0] > 0
    assert set(provenance.versions) >= {"napari-cvdm", "torch", "numpy"}
    assert len(next(iter(provenance.inputs.values()))) == 64


def test_what_is_missing_is_named(tiny_phase_model, tiny_widefield_model):
    with pytest.raises(OpticsError, match="--wavelength-um"):
        run(phase_request(planes((40, 40)), wavelength_um=None), tiny_phase_model)
    with pytest.raises(RequestError, match="--defocus-um"):
        run(phase_request(planes((40, 40)), defocus_um=None), tiny_phase_model)
    with pytest.raises(RequestError, match="needs 2"):
        run(phase_request(spots((40, 40))), tiny_phase_model)
    with pytest.raises(OpticsError, match="--pixel-um"):
        run(widefield_request(ImageStack(array=np.ones((40, 40)), axes="YX")), tiny_widefield_model)


def test_cancelling_is_to_stop_iterating(tiny_phase_model):
    steps = reconstruct(phase_request(planes((40, 40))), load_model(str(tiny_phase_model)))
    first = next(steps)
    steps.close()
    assert first.done == 0  # the first round of the inversion
    with pytest.raises(StopIteration):
        next(steps)


def test_too_little_memory_halves_the_tile_and_gives_the_same_pixels(tiny_phase_model, monkeypatch):
    from napari_cvdm.models import tiled

    whole, _ = run(phase_request(planes((96, 96))), tiny_phase_model)
    really = tiled.map_tiles

    def small_memory(function, images, plan, *, factor_out):
        if len(plan.tiles) < 4:
            raise MemoryError
        return really(function, images, plan, factor_out=factor_out)

    monkeypatch.setattr(tiled, "map_tiles", small_memory)
    result, _ = run(phase_request(planes((96, 96))), tiny_phase_model)
    assert result.provenance.estimated["tile_used"] == 48
    np.testing.assert_allclose(result.mean, whole.mean, atol=1e-5 * np.ptp(whole.mean))


def test_running_moments_are_those_of_numpy():
    images = np.random.default_rng(0).normal(5, 2, (7, 3, 4))
    moments = RunningMoments(np.zeros((3, 4)), np.zeros((3, 4)))
    for image in images:
        moments.add(image)
    np.testing.assert_allclose(moments.mean, images.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(moments.variance, images.var(axis=0, ddof=1), rtol=1e-6)


def test_a_request_far_from_the_training_has_no_valid_pixel(tiny_phase_model):
    """The card says 4 to 300, the request has forty times as much.

    The pixels are 0.2 um wide; the planes are 200 um apart.
    """
    card = replace(load_model(str(tiny_phase_model)).card, optics={"fresnel": (4.0, 300.0)})
    model = replace(load_model(str(tiny_phase_model)), card=card)
    near, far = (
        drained(reconstruct(phase_request(planes((48, 48)), defocus_um=pair), model))
        for pair in ((-1.0, 1.0), (-100.0, 200.0))
    )
    assert near.valid.any()
    assert not far.valid.any()
    assert any("defocus_um" in warning for warning in far.provenance.warnings)


@pytest.mark.parametrize(("letter", "words"), [("T", "time points"), ("C", "channels"), ("Z", "")])
def test_frames_taken_for_planes_are_named(tiny_phase_model, letter, words):
    both = combine_planes(replace(planes((48, 48)), axes=f"{letter}YX"))
    result, _ = run(phase_request(both), tiny_phase_model)
    assert [words in warning for warning in result.provenance.warnings] == ([True] if words else [])


def test_planes_must_stand_before_the_pixels(tiny_phase_model):
    image = ImageStack(array=np.ones((2, 3, 32, 32), np.float32), axes="PTYX", pixel_um=0.2)
    with pytest.raises(RequestError, match="moveaxis"):
        run(phase_request(image), tiny_phase_model)


def test_restoring_leaves_the_loaded_model_alone(tiny_phase_model):
    """Another reconstruction may use it at the same time, on another device."""
    model = load_model(str(tiny_phase_model))
    before = [
        (tensor.device, tensor.stride(), tensor.clone())
        for tensor in model.network.state_dict().values()
    ]
    run(phase_request(planes((48, 48))), tiny_phase_model)
    for (device, stride, values), tensor in zip(
        before, model.network.state_dict().values(), strict=True
    ):
        assert (tensor.device, tensor.stride()) == (device, stride)
        assert torch.equal(tensor, values)
