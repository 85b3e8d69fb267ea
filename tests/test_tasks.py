"""Conditioning: physical scales survive, what is arbitrary does not matter."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_cvdm.intensity import grouped_median, noise_sigma
from napari_cvdm.microscope import Microscope
from napari_cvdm.request import RequestError
from napari_cvdm.simulate.phase import defocus_pair_of
from napari_cvdm.tasks import TASKS, PhaseTwoShot, WidefieldX2
from napari_cvdm.tasks.phase_channels import fresnel_parameter, over_background

MICROSCOPE = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.33)
DEFOCUS = (-1.0, 1.0)


def bump(strength, shape=(96, 80)):
    """A smooth phase object with no mean."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    phase = strength * np.exp(-8 * (y**2 + x**2))
    return phase - phase.mean()


def planes(phase, photons=0, seed=0):
    """Two planes over background, noisy if photons are given."""
    clean = defocus_pair_of(phase, np.zeros_like(phase), MICROSCOPE, DEFOCUS).astype(np.float64)
    return np.random.default_rng(seed).poisson(clean * photons) / photons if photons else clean


def phase_of(prepared):
    """The baseline in radians."""
    return prepared.baseline.double().numpy() * prepared.gain


@pytest.mark.parametrize("strength", [0.05, 0.5, 2.0])
def test_the_baseline_is_the_phase_in_radians(strength):
    phase = bump(strength)
    prepared = PhaseTwoShot().condition(planes(phase), MICROSCOPE, DEFOCUS, "none")
    assert np.sqrt(np.mean((phase_of(prepared) - phase) ** 2)) < 0.02 * strength


def test_twice_the_defocus_in_twice_the_index_is_the_same_image():
    """Only lambda z / (n px^2) can matter."""
    dense = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.0)
    pair = planes(bump(0.5), photons=10_000)
    one = PhaseTwoShot().condition(pair, MICROSCOPE, DEFOCUS, "none")
    other = PhaseTwoShot().condition(pair, dense, tuple(z / 1.33 for z in DEFOCUS), "none")
    torch.testing.assert_close(one.channels, other.channels, rtol=1e-4, atol=1e-4)
    assert fresnel_parameter(1.0, MICROSCOPE) == pytest.approx(fresnel_parameter(1 / 1.33, dense))


def test_a_lamp_that_flickers_between_the_planes_does_not_matter():
    pair = planes(bump(0.5), photons=10_000)
    one = PhaseTwoShot().condition(pair, MICROSCOPE, DEFOCUS, "auto")
    other = PhaseTwoShot().condition(pair * np.array([1.0, 1.05])[:, None, None], MICROSCOPE, DEFOCUS, "auto")
    np.testing.assert_allclose(phase_of(one), phase_of(other), atol=1e-3)


def test_a_field_diaphragm_in_view_does_not_bend_the_phase():
    """The light that a lens moves stays inside the diaphragm: energy, not the median, ties the planes."""
    phase = np.pad(bump(1.0), 40)
    absorbed = np.pad(np.zeros((96, 80)), 40, constant_values=12.0)
    pair = defocus_pair_of(phase, absorbed, MICROSCOPE, DEFOCUS).astype(np.float64)
    pair[1] *= 1.03
    found = phase_of(PhaseTwoShot().condition(pair, MICROSCOPE, DEFOCUS, "auto"))[60:-60, 60:-60]
    true = phase[60:-60, 60:-60]
    assert np.corrcoef(found.ravel(), true.ravel())[0, 1] > 0.95


def test_more_light_means_less_expected_noise():
    levels = [PhaseTwoShot().condition(planes(bump(0.5), photons), MICROSCOPE, DEFOCUS, "none").estimated["noise_rad"] for photons in (3000, 30_000, 300_000)]
    assert levels[0] > levels[1] > levels[2]


def test_expected_noise_is_about_the_noise_there_is():
    phase = bump(1.0, (128, 128))
    prepared = PhaseTwoShot().condition(planes(phase, 10_000), MICROSCOPE, DEFOCUS, "none")
    actual = np.sqrt(np.mean((phase_of(prepared) - phase) ** 2))
    assert 0.4 < actual / prepared.estimated["noise_rad"] < 2.5


def test_every_channel_has_a_name_and_is_finite():
    phase_channels = PhaseTwoShot().condition(planes(bump(0.5), 1000), MICROSCOPE, DEFOCUS, "auto").channels
    signal_channels = WidefieldX2().condition(np.random.default_rng(0).poisson(20, (1, 40, 44)), "auto").channels
    for task, channels in (("phase-2shot", phase_channels), ("widefield-x2", signal_channels)):
        assert len(channels) == len(TASKS[task].channels)
        assert channels.isfinite().all()
        assert channels.dtype == torch.float32


@pytest.mark.parametrize("background", [np.zeros((96, 80)), np.full((96, 80), np.nan), np.ones((5, 5))])
def test_an_impossible_background_is_refused(background):
    with pytest.raises(RequestError, match="background"):
        over_background(planes(bump(0.5)), background)


def test_noise_of_a_blank_field_stays_small_in_network_units():
    counts = np.random.default_rng(0).poisson(100, (1, 128, 128)).astype(np.float64)
    prepared = WidefieldX2().condition(counts, "auto")
    assert prepared.channels[0].std() < 0.12
    assert prepared.gain >= 11 * counts.std()


def test_the_scale_is_the_signals_where_there_is_one():
    counts = np.random.default_rng(0).poisson(20, (1, 128, 128)).astype(np.float64)
    counts[0, 40:60, 40:60] += 2000
    prepared = WidefieldX2().condition(counts, "auto")
    assert prepared.gain == pytest.approx(2010, rel=0.02)


def test_upsampling_keeps_the_place_of_pixels():
    counts = np.zeros((1, 32, 32))
    counts[0, 10, 20] = 100
    baseline = WidefieldX2().condition(counts, "none").baseline.numpy().clip(min=0)
    y, x = np.mgrid[0:64, 0:64]
    centre = [(axis * baseline).sum() / baseline.sum() for axis in (y, x)]
    assert centre == pytest.approx([2 * 10 + 0.5, 2 * 20 + 0.5], abs=0.05)


def slow_wave(shape=(96, 80), strength=1.0):
    """One period over the field."""
    return strength * np.cos(2 * np.pi * np.arange(shape[0]) / shape[0])[:, None] * np.ones(shape)


def test_slow_waves_that_the_light_decides_are_not_left_to_the_network():
    phase = bump(2.0)
    anchor = PhaseTwoShot().condition(planes(phase, 100_000), MICROSCOPE, DEFOCUS, "none").anchor
    silent = np.zeros_like(phase)
    wrong = phase + slow_wave(strength=0.3)
    tied = anchor.apply(wrong, silent)
    assert np.std(tied - phase) < 0.2 * np.std(wrong - phase)


def test_fine_detail_is_left_to_the_network():
    phase = bump(2.0)
    anchor = PhaseTwoShot().condition(planes(phase, 100_000), MICROSCOPE, DEFOCUS, "none").anchor
    detail = 0.1 * (-1.0) ** np.arange(80)[None, :] * np.ones((96, 1))
    kept = anchor.apply(phase + detail, np.zeros_like(phase)) - anchor.apply(phase, np.zeros_like(phase))
    np.testing.assert_allclose(kept, detail, atol=1e-3)


def test_a_blank_field_is_left_to_the_network():
    """Where nothing stands above the noise, US-TIE has nothing to say."""
    blank = planes(np.zeros((96, 80)), 1000)
    anchor = PhaseTwoShot().condition(blank, MICROSCOPE, DEFOCUS, "none").anchor
    assert np.std(anchor.apply(np.zeros((96, 80)), np.zeros((96, 80)))) < 0.2 * float(PhaseTwoShot().condition(blank, MICROSCOPE, DEFOCUS, "none").gain)


def test_tied_samples_keep_the_spread_of_the_photon_noise():
    """Over many draws the tied waves scatter as US-TIE itself does from image to image, before empty medium says more."""
    phase, light = bump(2.0), 100_000  # enough for US-TIE to decide the slowest waves
    anchor = replace(PhaseTwoShot().condition(planes(phase, light), MICROSCOPE, DEFOCUS, "none").anchor, levelling=None)
    draws = [anchor.apply(phase, np.random.default_rng(seed).standard_normal(phase.shape)) for seed in range(60)]
    images = [phase_of(PhaseTwoShot().condition(planes(phase, light, seed), MICROSCOPE, DEFOCUS, "none")) for seed in range(60)]
    drawn, imaged = (np.std([np.fft.fft2(image)[1, 0] for image in pictures]) for pictures in (draws, images))
    assert 0.6 < drawn / imaged < 1.6


@pytest.mark.parametrize("deviation", [0.3, 0.5, 1.0, 3.0, 40.0])
def test_the_noise_of_whole_counts_is_found_without_jumps(deviation):
    """Rounding adds its own noise; few levels must not make the estimate jump between them."""
    image = np.round(np.random.default_rng(0).normal(100, deviation, (200, 160)))
    assert noise_sigma(image) == pytest.approx(image.std(), rel=0.2)


def test_a_grouped_median_is_the_plain_one_where_no_values_are_equal():
    values = np.random.default_rng(0).random((31, 21))
    assert grouped_median(values) == np.median(values)
    assert grouped_median(np.array([0.0, 0.0, 0.0])) == 0.0


@pytest.mark.parametrize(("top", "dtype"), [(255, np.uint8), (4095, np.uint16), (65535, np.uint16)])
def test_pixels_that_a_camera_cut_off_are_not_trusted_whatever_the_file_could_hold(top: int, dtype: type):
    light = np.random.default_rng(0).poisson(np.linspace(0.3, 1.3, 96) * min(top, 4095) * np.ones((80, 1))) * (top / min(top, 4095))
    cut = light.clip(max=top).astype(dtype)[None]
    valid = WidefieldX2().condition(cut, "auto").valid
    np.testing.assert_array_equal(valid[8:-8, 8:-8], (light < top)[8:-8, 8:-8])
    assert WidefieldX2().condition((light / 2).astype(dtype)[None], "auto").valid[8:-8, 8:-8].all()
