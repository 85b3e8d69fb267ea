"""Guidance draws a result toward the measured image, stops at the noise, and is off unless it is asked for."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_cvdm.microscope import Microscope, OpticsError
from napari_cvdm.model.checkpoint import load_checkpoint
from napari_cvdm.request import ImageStack, RequestError, RestoreRequest
from napari_cvdm.restore import restore
from napari_cvdm.result import finished as drained
from napari_cvdm.simulate.phase import defocus_pair_of
from napari_cvdm.tiled_job import TiledRequest
from napari_cvdm.trust.camera_noise import CameraNoise
from napari_cvdm.trust.guidance import Guide
from napari_cvdm.trust.imaging import PhaseImaging, WidefieldImaging

FLUORESCENCE = Microscope(pixel_um=0.065, wavelength_um=0.52, medium_index=1.518, na=1.4)
BRIGHTFIELD = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.33)
DEFOCUS_UM = (-1.0, 1.0)


def beads(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng, image = np.random.default_rng(seed), np.zeros(shape)
    image[rng.integers(8, shape[0] - 8, 12), rng.integers(8, shape[1] - 8, 12)] = 20_000.0
    return image


def widefield_imaging(image: np.ndarray, seed: int | None) -> WidefieldImaging:
    shape = (image.shape[0] // 2, image.shape[1] // 2)
    blank = WidefieldImaging(
        measured=np.zeros(shape), noise=CameraNoise(gain=1.0, read_variance=1.0), valid=np.ones(shape, dtype=bool), microscope=FLUORESCENCE
    )
    seen = blank.seen(image, 0.0)
    noisy = seen if seed is None else np.random.default_rng(seed).poisson(seen.clip(min=0)) + np.random.default_rng(seed).normal(size=shape)
    return replace(blank, measured=noisy)


def dome(shape: tuple[int, int], height: float) -> np.ndarray:
    y, x = (np.arange(size) - size / 2 for size in shape)
    return height * np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / 50.0)


def phase_imaging(phase: np.ndarray, photons: float, seed: int = 0) -> PhaseImaging:
    planes = defocus_pair_of(phase, np.zeros_like(phase), BRIGHTFIELD, DEFOCUS_UM).clip(min=0)
    measured = np.random.default_rng(seed).poisson(planes * photons) / photons
    noise = (CameraNoise(gain=1 / photons, read_variance=0.0),) * 2
    return PhaseImaging(measured=measured, noise=noise, valid=np.ones(phase.shape, dtype=bool), microscope=BRIGHTFIELD, defocus_um=DEFOCUS_UM)


def test_a_blurred_reconstruction_is_drawn_to_the_measured_image_and_keeps_its_flux():
    truth = beads((96, 88))
    imaging = widefield_imaging(truth, seed=1)
    blurred = gaussian_filter(truth, 3.0)
    guided = Guide(imaging, 5)(blurred)
    assert imaging.compare(guided, 0.0).chi2(imaging.valid) < 0.7 * imaging.compare(blurred, 0.0).chi2(imaging.valid)
    assert guided.min() >= 0
    assert guided.sum() == pytest.approx(blurred.sum(), rel=1e-6)
    assert np.abs(guided - truth).sum() < np.abs(blurred - truth).sum()


def test_a_phase_that_is_too_flat_is_drawn_to_both_planes():
    truth = dome((96, 80), 0.6)
    imaging = phase_imaging(truth, photons=20_000)
    flat = 0.5 * truth
    guided = Guide(imaging, 3)(flat)
    assert imaging.compare(guided).chi2(imaging.valid) - 1 < 0.5 * (imaging.compare(flat).chi2(imaging.valid) - 1)
    assert np.std(guided - truth) < np.std(flat - truth)


def test_what_agrees_with_the_measured_image_to_the_noise_stays_as_it_is():
    truth = dome((96, 80), 0.6)
    imaging = phase_imaging(truth, photons=2_000)
    explained = imaging.compare(truth).chi2(imaging.valid)
    quieter = replace(imaging, noise=(CameraNoise(gain=2 * explained / 2_000, read_variance=0.0),) * 2)  # the noise is known to be more than what is left over
    np.testing.assert_array_equal(Guide(quieter, 5)(truth), truth)


@pytest.fixture
def phase_request() -> RestoreRequest:
    planes = np.random.default_rng(0).poisson(4000 * defocus_pair_of(dome((64, 72), 1.0), np.zeros((64, 72)), BRIGHTFIELD, DEFOCUS_UM))
    known = {"wavelength_um": BRIGHTFIELD.wavelength_um, "medium_index": BRIGHTFIELD.medium_index, "defocus_um": DEFOCUS_UM}
    image = ImageStack(array=planes.astype(np.uint16), axes="PYX", pixel_um=BRIGHTFIELD.pixel_um)
    return RestoreRequest(image=image, model="tiny", samples=2, steps=2, device="cpu", **known)


def test_a_guided_run_is_repeatable_leaves_less_over_and_takes_regions(phase_request, tiny_phase_model):
    model = load_checkpoint(tiny_phase_model)
    plain, once, again = (drained(restore(replace(phase_request, guidance=steps), model)) for steps in (0, 1, 1))
    np.testing.assert_array_equal(once.mean, again.mean)
    assert once.forward.chi2 < plain.forward.chi2
    assert once.provenance.settings["guidance"] == 1
    part = drained(restore(replace(phase_request, guidance=1, region=(8, 56, 8, 56)), model))
    assert part.mean.shape == (48, 48) and np.isfinite(part.mean).all()


def test_guidance_needs_optics_whole_images_and_a_small_number(phase_request, tiny_phase_model, tiny_widefield_model, tmp_path):
    counts = ImageStack(array=np.random.default_rng(0).poisson(50, (40, 48)).astype(np.uint16), axes="YX", pixel_um=0.065)
    with pytest.raises(OpticsError, match="wavelength_um and na not known"):
        drained(restore(RestoreRequest(image=counts, model="tiny", samples=1, steps=2, guidance=1), load_checkpoint(tiny_widefield_model)))
    with pytest.raises(RequestError, match="guidance is 11"):
        replace(phase_request, guidance=11)
    with pytest.raises(RequestError, match="cannot be had block by block"):
        TiledRequest(request=replace(phase_request, guidance=1), out=str(tmp_path / "out.ome.zarr"))


@pytest.mark.parametrize("guidance", [0, 1])
def test_guided_samples_that_are_added_later_are_those_of_one_run(guidance: int, phase_request, tiny_phase_model):
    model, request = load_checkpoint(tiny_phase_model), replace(phase_request, guidance=guidance)
    earlier = drained(restore(request, model))
    later, at_once = drained(restore(replace(request, samples=4), model, earlier)), drained(restore(replace(request, samples=4), model))
    np.testing.assert_array_equal(later.mean, at_once.mean)
    np.testing.assert_array_equal(later.variance, at_once.variance)


def test_a_frame_that_cannot_be_compared_is_not_guided_and_does_not_end_the_run(phase_request, tiny_phase_model):
    good = phase_request.image.array
    empty = np.full_like(good, 4000)  # no noise at all
    movie = replace(phase_request.image, array=np.stack([good, empty]), axes="TPYX")
    result = drained(restore(replace(phase_request, image=movie, guidance=1, background="auto"), load_checkpoint(tiny_phase_model)))
    assert result.counts.tolist() == [2, 2]
