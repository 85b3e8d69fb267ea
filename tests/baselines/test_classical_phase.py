"""Phase without a network, frame by frame.

The weak-object transfer function and US-TIE each solve the case they are made for.
"""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from cut_planes import OPTICS as CUT_OPTICS
from cut_planes import take_planes
from scipy.ndimage import gaussian_filter
from small_images import OPTICS, phase_request, planes

from napari_cvdm.baselines import BASELINES
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import ImageStack, RequestError
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.core.result import finished as drained
from napari_cvdm.physics.tie import axial_difference, solve_us_tie, solve_wotf
from napari_cvdm.reconstruction.methods import load_method
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.simulate.scenes import defocus_pair_of

pytestmark = pytest.mark.usefixtures("remembered_inversions")
MICROSCOPE = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.33)
WEAK_RAD = 0.02
PHASE_METHODS = ("us-tie", "wotf")


def run(request) -> Reconstruction:
    return drained(reconstruct(request, load_method(request.model)))


def weak_phase(shape=(96, 80), seed=0, sigma_px=3.0) -> np.ndarray:
    """A random smooth phase of standard deviation WEAK_RAD and zero mean [rad]."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma_px, mode="wrap")
    field -= field.mean()
    return WEAK_RAD * field / field.std()


def contrast_of(
    phase: np.ndarray, defocus_um, log_amplitude: np.ndarray | float = 0.0
) -> torch.Tensor:
    """I - 1 of planes of a periodic object in light of intensity 1."""
    absorbance = -2 * log_amplitude * np.ones_like(phase)
    return torch.from_numpy(defocus_pair_of(phase, absorbance, MICROSCOPE, defocus_um)).double() - 1


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


def planes_in_open_light(
    condenser_na: float, defocus_um=(-2.0, 0.0, 2.0)
) -> tuple[ImageStack, np.ndarray]:
    """Three planes under an open condenser, and their phase [rad]."""
    truth = weak_phase()
    light = defocus_pair_of(truth, 0 * truth, MICROSCOPE, defocus_um, condenser_na)
    return ImageStack(array=1000 * light, axes="PYX", pixel_um=0.2), truth


def test_wotf_takes_the_condenser_into_account() -> None:
    image, truth = planes_in_open_light(0.5)
    asked = {"model": "wotf:1e-9", "defocus_um": (-2.0, 0.0, 2.0), "background": "none"}
    known, unknown = (
        run(phase_request(replace(image, array=image.array / 1000), condenser_na=na, **asked))
        for na in (0.5, None)
    )
    assert rmse(known.mean, truth) < 0.05 * WEAK_RAD
    assert rmse(unknown.mean, truth) > 4 * rmse(known.mean, truth)
    assert not any("condenser" in warning for warning in known.provenance.warnings)


def test_us_tie_says_that_it_does_not_use_the_condenser() -> None:
    image, _ = planes_in_open_light(0.5)
    said, silent = (
        run(phase_request(image, model="us-tie", defocus_um=(-2.0, 0.0, 2.0), condenser_na=na))
        for na in (0.5, 0.0)
    )
    np.testing.assert_array_equal(said.mean, silent.mean)
    assert [
        warning
        for warning in said.provenance.warnings
        if "condenser_na 0.5 was not used" in warning
    ]
    assert not any("condenser" in warning for warning in silent.provenance.warnings)


def test_wotf_is_linear_in_the_contrast() -> None:
    contrast = contrast_of(weak_phase(), (-1.0, 1.0))
    once, twice = (
        solve_wotf(factor * contrast, (-1.0, 1.0), MICROSCOPE, 1e-5) for factor in (1, 2)
    )
    np.testing.assert_allclose(twice, 2 * once, atol=1e-12)


def test_wotf_and_us_tie_agree_on_slow_waves() -> None:
    truth, defocus_um = weak_phase(sigma_px=9.0), (-1.0, 1.0)
    contrast = contrast_of(truth, defocus_um)
    wotf = solve_wotf(contrast, defocus_um, MICROSCOPE, 1e-9)
    us_tie = solve_us_tie(
        1 + contrast.mean(dim=0), axial_difference(contrast, defocus_um), MICROSCOPE, 1e-12
    )
    assert rmse(wotf, us_tie.numpy()) < 0.01 * WEAK_RAD


def test_more_regularisation_leaves_less_of_the_slow_waves() -> None:
    contrast = contrast_of(weak_phase(sigma_px=9.0), (-1.0, 1.0))
    left = [
        float(solve_wotf(contrast, (-1.0, 1.0), MICROSCOPE, regularisation).std())
        for regularisation in (1e-9, 1e-5, 1e-3, 1e-1)
    ]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.1 * left[0]


@pytest.mark.parametrize("name", PHASE_METHODS)
def test_a_phase_method_gives_a_result_like_a_model_s(name) -> None:
    truth = 20 * weak_phase((64, 72))
    pair = 1000 * (1 + contrast_of(truth, OPTICS["defocus_um"]).numpy())
    result = run(
        phase_request(
            ImageStack(array=pair, axes="PYX", pixel_um=0.2),
            model=name,
            samples=8,
            keep_samples=True,
        )
    )
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


@pytest.mark.usefixtures("few_solver_steps")
@pytest.mark.parametrize("name", [*PHASE_METHODS, "phase-physics"])
def test_frames_regions_and_the_order_of_planes_do_not_matter(name) -> None:
    one, other = planes((48, 64)), planes((48, 64), seed=1)
    both = ImageStack(array=np.stack([one.array, other.array]), axes="TPYX", pixel_um=0.2)
    series = run(phase_request(both, model=name))
    alone = run(phase_request(other, model=name))
    assert np.array_equal(series.mean[1], alone.mean)
    swapped = ImageStack(array=other.array[::-1].copy(), axes="PYX", pixel_um=0.2)
    np.testing.assert_allclose(
        run(phase_request(swapped, model=name, defocus_um=(1.0, -1.0))).mean, alone.mean, atol=1e-5
    )
    part = run(phase_request(other, model=name, region=(8, 40, 16, 48)))
    assert np.array_equal(part.mean, alone.mean[8:40, 16:48])
    assert np.array_equal(part.valid, alone.valid[8:40, 16:48])
    assert np.array_equal(part.variance, alone.variance[8:40, 16:48])


def dome(shape=(72, 66)) -> tuple[np.ndarray, np.ndarray]:
    """Noisy planes [counts] of one cell in an empty field, and its phase [rad]."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    phase = 1.5 * (1 - ((y - 34) ** 2 + (x - 30) ** 2) / 14**2).clip(min=0)
    phase = gaussian_filter(phase, 1.5)
    contrast = contrast_of(phase, (-2.0, 2.0)).numpy()
    return np.random.default_rng(0).poisson(20_000 * (1 + contrast)).astype(float), phase


def physics_of(planes: np.ndarray, **changes) -> Reconstruction:
    image = ImageStack(array=planes, axes="PYX", pixel_um=0.2)
    asked = {"model": "phase-physics", "defocus_um": (-2.0, 2.0), **changes}
    return run(phase_request(image, **asked))


def test_phase_physics_is_zero_in_the_background() -> None:
    planes_of_dome, phase = dome()
    result = physics_of(planes_of_dome)
    assert abs(result.mean[phase < 1e-3].mean()) < 0.02
    assert np.std(result.mean - phase) < 0.05 * np.ptp(phase)
    assert result.valid.all()


def test_phase_physics_has_a_spread_that_its_seed_decides() -> None:
    planes_of_dome, phase = dome()
    one, again, other = (physics_of(planes_of_dome, seed=seed) for seed in (3, 3, 4))
    assert (one.variance > 0).all()
    assert np.array_equal(one.variance, again.variance)
    assert not np.array_equal(one.variance, other.variance)
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-6)
    error = np.sqrt(np.mean((one.mean - phase) ** 2))
    assert 0.2 < error / np.sqrt(one.variance.mean()) < 4
    assert not any("no spread" in warning for warning in one.provenance.warnings)


@pytest.mark.usefixtures("few_solver_steps")
def test_phase_physics_with_a_number_of_draws_of_its_own() -> None:
    planes_of_dome, _ = dome()
    few, many = (physics_of(planes_of_dome, model=f"phase-physics:{draws}") for draws in (4, 8))
    assert few.provenance.model["parameters"] == {"draws": 4}
    np.testing.assert_allclose(few.mean, many.mean, atol=1e-6)
    assert not np.array_equal(few.variance, many.variance)
    for draws in (1, 65):
        with pytest.raises(RequestError, match="allowed is 2 to 64"):
            load_method(f"phase-physics:{draws}")


@pytest.mark.parametrize("optics", ["symmetric", "three planes"])
def test_phase_physics_is_better_than_us_tie_on_cells_that_the_frame_cuts(optics) -> None:
    cut = take_planes(CUT_OPTICS[optics], shape=(72, 64))
    found, tie = (run(cut.request(model=name)) for name in ("phase-physics", "us-tie"))
    assert rmse(found.mean, cut.phase) < 0.5 * rmse(tie.mean, cut.phase)
    frame = found.provenance.estimated["frames"][0]
    assert not frame["periodic"]
    assert len(frame["background"]) == len(CUT_OPTICS[optics].defocus_um)
