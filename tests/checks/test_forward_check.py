"""Imaged again, the truth leaves only the camera's noise; a false result leaves more."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_cvdm.checks.check_model import LOCAL_PX, Comparison, WidefieldCheckModel, by_blocks
from napari_cvdm.checks.forward_check import forward_model_for, squirrel
from napari_cvdm.core.intensity import dark_level
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import finished
from napari_cvdm.core.statistics import interior
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.physics.camera import photon_transfer
from napari_cvdm.reconstruction.plan import prepare_frame, resolve
from napari_cvdm.simulate.ranges import WidefieldRanges
from napari_cvdm.simulate.scenes import UPSAMPLING, simulate_widefield
from napari_cvdm.tasks import WidefieldX2
from napari_cvdm.tasks.deconvolved import lens_of_microscope

BRIGHT = WidefieldRanges(
    haze=(0, 0),
    defocus=(0, 0),
    blur_periods=(0, 0),
    photons=(500, 1500),
    background=(0.05, 0.3),
    correlated=0.0,
    field_px=96,
)

OIL_OBJECTIVE = Microscope(pixel_um=0.065, wavelength_um=0.52, medium_index=1.515, na=1.4)


@pytest.fixture(scope="module", params=[0, 5])
def field(request):
    """A simulated widefield field and how it was imaged."""
    pair = simulate_widefield(request.param, BRIGHT)
    counts = pair.counts.astype(np.float64) - dark_level(pair.counts)
    valid = interior(counts.shape, 12)
    noise = photon_transfer(counts, valid)
    lens = lens_of_microscope(pair.microscope, UPSAMPLING)
    return pair, WidefieldCheckModel(
        measured=counts, noise=noise, valid=valid, lens=lens, own_sigma_px=own_sigma_px(lens)
    )


def own_sigma_px(lens):
    """Of a truth, in fine pixels."""
    return BRIGHT.target_sigma_periods * lens.cutoff_px


def chi2(how, image):
    return how.compare(image).chi2(how.valid)


def test_the_truth_leaves_noise_alone(field):
    """The mean of N squared unit normals is 1 +- sqrt(2 / N).

    The noise itself is known to some per cent.
    """
    pair, how = field
    seen = how.compare(pair.truth)
    assert seen.chi2(how.valid) == pytest.approx(1.0, abs=0.08)
    assert seen.gain == pytest.approx(1.0, abs=0.02)
    assert abs(seen.residual[how.valid].mean()) < 0.1


def test_light_that_is_lost_is_missed(field):
    pair, how = field
    assert chi2(how, 0.9 * pair.truth) > 1.2 * chi2(how, pair.truth)
    assert how.compare(0.9 * pair.truth).gain == pytest.approx(1 / 0.9, rel=0.03)
    assert chi2(how, pair.truth - 0.05 * np.ptp(pair.truth)) > 1.2 * chi2(how, pair.truth)


def test_planted_structure_missing_structure_and_a_wrong_pixel_size_raise_it(field):
    pair, how = field
    truth = chi2(how, pair.truth)
    bright = np.percentile(pair.truth, 99)
    planted, missing = pair.truth.copy(), pair.truth.copy()
    planted[90:94, 60:130] += bright
    missing[:, 96:] = 0
    assert chi2(how, planted) > 1.5 * truth
    assert chi2(how, missing) > 1.2 * truth
    for factor in (0.5, 2.0):
        wrong = replace(
            how,
            lens=lens_of_microscope(
                replace(pair.microscope, pixel_um=factor * pair.microscope.pixel_um), UPSAMPLING
            ),
        )
        assert chi2(wrong, pair.truth) > 1.3 * truth


def test_the_largest_residual_is_where_the_false_structure_is(field):
    pair, how = field
    planted = pair.truth.copy()
    planted[60:66, 60:66] += 0.7 * np.percentile(pair.truth, 99)
    worst = np.unravel_index(
        np.abs(how.compare(planted).residual * how.valid).argmax(), how.valid.shape
    )
    assert np.abs(np.array(worst) - 31).max() <= 4


def test_local_chi2_is_largest_where_the_fault_is_and_noise_elsewhere(field):
    pair, how = field
    planted = pair.truth.copy()
    planted[60:66, 60:66] += 0.7 * np.percentile(pair.truth, 99)
    found = how.compare(planted).local_chi2(how.valid)
    worst = np.unravel_index(found.argmax(), found.shape)
    assert np.abs(np.array(worst) - 31).max() <= 4
    assert found.max() > 2
    away = how.valid & (np.hypot(*(np.indices(found.shape) - 31)) > 20)
    assert np.median(found[away]) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("planes", [(), (2,)])
def test_local_chi2_of_noise_is_one_on_average_with_the_scatter_that_is_promised(planes):
    valid = interior((200, 190), 8)
    valid[60:70, 80:90] = False
    noise = np.random.default_rng(0).normal(size=(*planes, 200, 190)).astype(np.float32)
    noise[..., ~valid] = np.inf  # what does not count has no say
    found = Comparison(residual=noise, predicted=noise, gain=1.0).local_chi2(valid)
    deep = interior(valid.shape, 24)
    deep[40:90, 60:110] = False
    assert found.dtype == np.float32
    assert found[valid].mean() == pytest.approx(1.0, abs=0.02)
    assert found[deep].std() == pytest.approx(
        1 / (LOCAL_PX * np.sqrt(2 * np.pi * (planes or (1,))[0])), rel=0.15
    )
    assert not found[~valid].any()


def test_local_chi2_needs_no_more_than_some_images_of_memory():
    residual, valid = np.ones((2, 512, 480), np.float32), np.ones((512, 480), bool)
    comparison = Comparison(residual=residual, predicted=residual, gain=1.0)
    tracemalloc.start()
    comparison.local_chi2(valid)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5 * residual.nbytes


def test_flux_is_kept_and_its_error_is_the_gain(field):
    pair, how = field
    seen = how.seen(pair.truth, 0.0)
    inner = (slice(16, -16),) * 2
    assert seen.sum() == pytest.approx(pair.truth.sum() / 4, rel=0.02)
    assert how.compare(2 * pair.truth).gain == pytest.approx(
        how.compare(pair.truth).gain / 2, rel=1e-3
    )
    np.testing.assert_allclose(how.seen(np.ones((192, 192)), 0.0)[inner], 1.0, rtol=1e-3)


def test_blur_by_the_sample_is_fitted_within_bounds():
    pair = simulate_widefield(0, replace(BRIGHT, blur_periods=(0.15, 0.15)))
    counts = pair.counts.astype(np.float64) - dark_level(pair.counts)
    valid = interior(counts.shape, 12)
    noise = photon_transfer(counts, valid)
    lens = lens_of_microscope(pair.microscope, UPSAMPLING)
    strict, period_px = (
        WidefieldCheckModel(
            measured=counts, noise=noise, valid=valid, lens=lens, own_sigma_px=own_sigma_px(lens)
        ),
        lens.cutoff_px,
    )
    fitted = replace(strict, extra_sigma_px=0.2 * period_px)
    assert fitted.compare(pair.truth).fitted ** 0.5 == pytest.approx(
        0.15 * UPSAMPLING * period_px, rel=0.15
    )
    assert chi2(fitted, pair.truth) < chi2(strict, pair.truth)
    assert chi2(fitted, pair.truth) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("shape", [(33, 47), (17, 90)])
def test_blocks_do_not_choose_the_image(shape, monkeypatch):
    how = WidefieldCheckModel(
        measured=np.ones(shape),
        noise=photon_transfer(np.ones(shape), np.ones(shape, bool)),
        valid=interior(shape, 2),
        lens=lens_of_microscope(OIL_OBJECTIVE, UPSAMPLING),
    )
    image = np.random.default_rng(0).random((2 * shape[0], 2 * shape[1]))
    whole = how.seen(image, 0.5)
    assert whole.shape == shape
    monkeypatch.setattr("napari_cvdm.checks.check_model.BLOCK_PX", 16)
    np.testing.assert_allclose(how.seen(image, 0.5), whole, atol=2e-3)
    assert by_blocks(lambda block: block[4:-4, 4:-4], image, 4) == pytest.approx(image)


@pytest.mark.parametrize(("gain", "read"), [(2.0, 3.0), (0.5, 8.0), (0.0, 2.0)])
def test_the_photon_transfer_line_is_that_of_the_camera(gain, read):
    rng = np.random.default_rng(0)
    signal = 200 * (
        1 + np.sin(np.linspace(0, 12, 300))[:, None] * np.cos(np.linspace(0, 9, 280))[None, :]
    )
    counts = (gain * rng.poisson(signal / gain) if gain else signal) + rng.normal(
        0, read, signal.shape
    )
    found = photon_transfer(counts, np.ones(signal.shape, bool))
    assert found.gain == pytest.approx(gain, abs=0.08 * max(gain, 0.1))
    assert np.median(np.abs(found.variance(signal) / (gain * signal + read**2) - 1)) < 0.05


def test_squirrel_does_not_care_for_gain_and_offset_and_finds_the_blur(field):
    pair, how = field
    reference = functional.interpolate(
        torch.from_numpy(how.measured)[None, None], scale_factor=2, mode="bicubic"
    )[0, 0].numpy()
    one, other = squirrel(pair.truth, reference, 2), squirrel(3 * pair.truth + 70, reference, 2)
    assert (other.rsp, other.rse) == pytest.approx((one.rsp, one.rse), rel=1e-5)
    assert squirrel(pair.truth, 5 * reference - 8, 2).rse == pytest.approx(5 * one.rse, rel=1e-5)
    assert 0.9 < one.rsp < 1
    assert squirrel(reference, reference, 2).rsp == pytest.approx(1.0, abs=1e-6)
    assert squirrel(np.ones((20, 21)), reference[:20, :21], 2).rsp == 0


def test_squirrel_is_blind_below_the_optical_limit(field):
    """Two lines in place of one, three fine pixels apart: less than a camera pixel and a half."""
    pair, how = field
    how = replace(how, lens=lens_of_microscope(OIL_OBJECTIVE, UPSAMPLING), own_sigma_px=1.4)
    one, two = np.zeros_like(pair.truth), np.zeros_like(pair.truth)
    one[90:92, 30:160] = 1000.0
    two[89], two[92] = one[90], one[91]
    seen = how.seen(one, 0.0)
    reference = functional.interpolate(
        torch.from_numpy(seen)[None, None], scale_factor=2, mode="bicubic"
    )[0, 0].numpy()
    assert abs(squirrel(one, reference, 2).rsp - squirrel(two, reference, 2).rsp) < 0.01


def test_the_offset_of_the_camera_has_no_say_in_the_noise(tiny_widefield_model):
    """Another offset changes no check, whether it is guessed or measured."""
    pair, card = simulate_widefield(0, BRIGHT), load_checkpoint(tiny_widefield_model).card
    optics = {
        name: getattr(pair.microscope, name)
        for name in ("pixel_um", "wavelength_um", "medium_index", "na")
    }
    found = []
    for offset, background in (
        (0.0, "auto"),
        (3000.0, "auto"),
        (3000.0, np.full(pair.counts.shape, 3000.0)),
    ):
        image = ImageStack(array=pair.counts - pair.camera.offset_counts + offset, axes="YX")
        request = ReconstructionRequest(image=image, model="tiny", background=background, **optics)
        prepared = prepare_frame(request.image.frame(()), request, WidefieldX2())
        how = finished(forward_model_for(prepared, resolve(request, WidefieldX2()), card))
        above = 0.0 if isinstance(background, str) else dark_level(image.array) - offset
        found.append(how.compare(pair.truth + above).chi2(how.valid))
    assert found[1:] == pytest.approx(found[:1] * 2, rel=3e-3)
