"""Phase without a network: the weak-object transfer function and US-TIE solve the case they are made for, frame by frame."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from small_images import OPTICS, phase_request, planes

from napari_cvdm.baselines import BASELINES, load_method, reconstruct
from napari_cvdm.microscope import Microscope
from napari_cvdm.physics.fresnel import defocused_planes
from napari_cvdm.physics.tie import axial_difference, solve_us_tie
from napari_cvdm.physics.wotf import solve_wotf
from napari_cvdm.request import ImageStack
from napari_cvdm.result import Restoration
from napari_cvdm.result import finished as drained

MICROSCOPE = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.33)
WEAK_RAD = 0.02
PHASE_METHODS = ("us-tie", "wotf")


def run(request) -> Restoration:
    return drained(reconstruct(request, load_method(request.model)))


def weak_phase(shape=(96, 80), seed=0, sigma_px=3.0) -> np.ndarray:
    """A random smooth phase of standard deviation WEAK_RAD and zero mean [rad]."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma_px, mode="wrap")
    field -= field.mean()
    return WEAK_RAD * field / field.std()


def contrast_of(phase: np.ndarray, defocus_um, log_amplitude: np.ndarray | float = 0.0) -> torch.Tensor:
    """I - 1 of planes of a periodic object in light of intensity 1."""
    field = torch.from_numpy(np.exp(log_amplitude + 1j * phase))
    return defocused_planes(field, defocus_um, MICROSCOPE) - 1


def rmse(found, truth) -> float:
    difference = np.asarray(found) - truth
    return float(np.sqrt(np.mean((difference - difference.mean()) ** 2)))


@pytest.mark.parametrize("defocus_um", [(-1.0, 1.0), (0.0, 2.0), (1.5, -1.0)])
def test_wotf_recovers_a_weak_phase_and_its_sign(defocus_um) -> None:
    truth = weak_phase()
    found = solve_wotf(contrast_of(truth, defocus_um), defocus_um, MICROSCOPE, 1e-9)
    assert rmse(found, truth) < 0.02 * WEAK_RAD
    assert np.corrcoef(found.numpy().ravel(), truth.ravel())[0, 1] > 0.999


def test_wotf_tells_absorption_from_phase() -> None:
    truth, absorption = weak_phase(seed=1), weak_phase(seed=2)
    found = solve_wotf(contrast_of(truth, (-1.0, 1.5), absorption), (-1.0, 1.5), MICROSCOPE, 1e-9)
    assert rmse(found, truth) < 0.05 * WEAK_RAD


def test_wotf_is_linear_in_the_contrast() -> None:
    contrast = contrast_of(weak_phase(), (-1.0, 1.0))
    once, twice = (solve_wotf(factor * contrast, (-1.0, 1.0), MICROSCOPE, 1e-5) for factor in (1, 2))
    np.testing.assert_allclose(twice, 2 * once, atol=1e-12)


def test_wotf_and_us_tie_agree_on_slow_waves() -> None:
    truth, defocus_um = weak_phase(sigma_px=9.0), (-1.0, 1.0)
    contrast = contrast_of(truth, defocus_um)
    wotf = solve_wotf(contrast, defocus_um, MICROSCOPE, 1e-9)
    us_tie = solve_us_tie(1 + contrast.mean(dim=0), axial_difference(contrast, defocus_um), MICROSCOPE, 1e-12)
    assert rmse(wotf, us_tie.numpy()) < 0.01 * WEAK_RAD


def test_more_regularisation_leaves_less_of_the_slow_waves() -> None:
    contrast = contrast_of(weak_phase(sigma_px=9.0), (-1.0, 1.0))
    left = [float(solve_wotf(contrast, (-1.0, 1.0), MICROSCOPE, regularisation).std()) for regularisation in (1e-9, 1e-5, 1e-3, 1e-1)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.1 * left[0]


@pytest.mark.parametrize("name", PHASE_METHODS)
def test_a_phase_method_gives_a_result_like_a_model_s(name) -> None:
    truth = 20 * weak_phase((64, 72))
    pair = 1000 * (1 + contrast_of(truth, OPTICS["defocus_um"]).numpy())
    result = run(phase_request(ImageStack(array=pair, axes="PYX", pixel_um=0.2), model=name, samples=8, keep_samples=True))
    assert result.mean.shape == result.valid.shape == (64, 72)
    assert (result.unit, result.axes, result.pixel_um, result.upsampling) == ("rad", "YX", 0.2, 1)
    assert not result.variance.any()
    assert not result.rate.any()
    assert result.counts == 1
    assert result.samples.shape == (1, 64, 72)
    assert np.corrcoef(result.mean.ravel(), truth.ravel())[0, 1] > 0.95
    assert "a single answer: it has no spread" in " ".join(result.provenance.warnings)
    assert result.provenance.settings["samples"] == 1
    assert result.provenance.model["parameters"] == asdict(BASELINES[name])


@pytest.mark.parametrize("name", PHASE_METHODS)
def test_frames_regions_and_the_order_of_planes_do_not_matter(name) -> None:
    one, other = planes((48, 64)), planes((48, 64), seed=1)
    both = ImageStack(array=np.stack([one.array, other.array]), axes="TPYX", pixel_um=0.2)
    series = run(phase_request(both, model=name))
    alone = run(phase_request(other, model=name))
    assert np.array_equal(series.mean[1], alone.mean)
    swapped = ImageStack(array=other.array[::-1].copy(), axes="PYX", pixel_um=0.2)
    np.testing.assert_allclose(run(phase_request(swapped, model=name, defocus_um=(1.0, -1.0))).mean, alone.mean, atol=1e-5)
    part = run(phase_request(other, model=name, region=(8, 40, 16, 48)))
    assert np.array_equal(part.mean, alone.mean[8:40, 16:48])
    assert np.array_equal(part.valid, alone.valid[8:40, 16:48])
