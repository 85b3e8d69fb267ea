"""Conditioning: physical scales survive, what is arbitrary does not matter."""

import numpy as np
import pytest
import torch
from cut_planes import OPTICS, take_planes
from small_images import phase_request

from napari_cvdm.core.intensity import grouped_median, noise_sigma
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import ImageStack, RequestError
from napari_cvdm.io import Fingerprint
from napari_cvdm.out_of_core.global_statistics import sample_plane
from napari_cvdm.physics.forward_model import fresnel_number
from napari_cvdm.reconstruction.plan import prepare_frame, resolve
from napari_cvdm.simulate.scenes import defocus_pair_of
from napari_cvdm.tasks import TASKS, PhaseTwoShot, WidefieldX2
from napari_cvdm.tasks.defocused_planes import over_background
from napari_cvdm.tasks.phase_blocks import blank_levels
from napari_cvdm.tasks.phase_input import CHANNELS, SURROUNDINGS_PX
from napari_cvdm.tasks.phase_inversion import LEAST_BACKGROUND, NOISE_ORIGIN, find_background

pytestmark = pytest.mark.usefixtures("remembered_inversions")
MICROSCOPE = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.33)
DEFOCUS = (-1.0, 1.0)


def bump(strength, shape=(80, 72)):
    """A smooth phase object with no mean."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    phase = strength * np.exp(-8 * (y**2 + x**2))
    return phase - phase.mean()


def planes(phase, photons=0, seed=0):
    """Two planes over background, noisy if photons are given."""
    clean = defocus_pair_of(phase, np.zeros_like(phase), MICROSCOPE, DEFOCUS).astype(np.float64)
    return np.random.default_rng(seed).poisson(clean * photons) / photons if photons else clean


def phase_of(prepared):
    """The estimate within the frame [rad], without its mean."""
    estimate = prepared.estimate.astype(float)
    return estimate - estimate.mean()


@pytest.mark.parametrize("strength", [0.05, 0.5, 2.0])
def test_the_baseline_is_the_phase_in_radians(strength):
    """As near as bright light allows."""
    phase = bump(strength)
    prepared = PhaseTwoShot().condition(planes(phase, 1e6), MICROSCOPE, DEFOCUS, "none")
    allowed = max(0.02 * strength, 2 * prepared.estimated["noise_rad"])
    assert np.sqrt(np.mean((phase_of(prepared) - phase) ** 2)) < allowed


@pytest.mark.usefixtures("few_solver_steps")
def test_twice_the_defocus_in_twice_the_index_is_the_same_image():
    """Only lambda z / (n px^2) can matter."""
    dense = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.0)
    pair = planes(bump(0.5), photons=10_000)
    one = PhaseTwoShot().condition(pair, MICROSCOPE, DEFOCUS, "none")
    other = PhaseTwoShot().condition(pair, dense, tuple(z / 1.33 for z in DEFOCUS), "none")
    torch.testing.assert_close(one.channels, other.channels, rtol=1e-4, atol=1e-4)
    assert fresnel_number(1.0, MICROSCOPE) == pytest.approx(fresnel_number(1 / 1.33, dense))


@pytest.mark.usefixtures("few_solver_steps")
def test_a_lamp_that_flickers_between_the_planes_does_not_matter():
    pair = planes(bump(0.5), photons=10_000)
    one = PhaseTwoShot().condition(pair, MICROSCOPE, DEFOCUS, "auto")
    other = PhaseTwoShot().condition(
        pair * np.array([1.0, 1.05])[:, None, None], MICROSCOPE, DEFOCUS, "auto"
    )
    np.testing.assert_allclose(phase_of(one), phase_of(other), atol=1e-3)


def test_a_field_diaphragm_in_view_does_not_bend_the_phase():
    """Dark pixels do not count, and means, not the median, tie the planes."""
    phase = np.pad(bump(1.0), 12)
    absorbed = np.pad(np.zeros((80, 72)), 12, constant_values=12.0)
    pair = defocus_pair_of(phase, absorbed, MICROSCOPE, DEFOCUS).astype(np.float64)
    pair = np.random.default_rng(0).poisson(pair * 1e5) / 1e5
    pair[1] *= 1.03
    prepared = PhaseTwoShot().condition(pair, MICROSCOPE, DEFOCUS, "auto")
    found, true = phase_of(prepared)[32:-32, 32:-32], phase[32:-32, 32:-32]
    assert not prepared.kept(prepared.valid)[:8].any()
    assert np.corrcoef(found.ravel(), true.ravel())[0, 1] > 0.95


def test_more_light_means_less_expected_noise():
    levels = []
    for photons in (3000, 30_000, 300_000):
        cut = take_planes(OPTICS["symmetric"], shape=(48, 40), photons=photons)
        levels.append(
            prepare_frame(cut.counts, cut.request(), PhaseTwoShot()).estimated["noise_rad"]
        )
    assert levels[0] > levels[1] > levels[2]


def test_expected_noise_is_about_the_noise_there_is():
    """Pooled over fields of cells that the frame cuts."""
    actual, expected = [], []
    for seed in range(4):
        cut = take_planes(OPTICS["symmetric"], seed=seed, shape=(56, 48))
        prepared = prepare_frame(cut.counts, cut.request(), PhaseTwoShot())
        actual.append(np.var(prepared.estimate - cut.phase))
        expected.append(prepared.estimated["noise_rad"] ** 2)
    assert 0.5 < np.sqrt(np.mean(actual) / np.mean(expected)) < 2


@pytest.mark.usefixtures("few_solver_steps")
def test_every_channel_has_a_name_and_is_finite():
    phase_channels = (
        PhaseTwoShot().condition(planes(bump(0.5), 1000), MICROSCOPE, DEFOCUS, "auto").channels
    )
    signal_channels = (
        WidefieldX2().condition(np.random.default_rng(0).poisson(20, (1, 40, 44)), "auto").channels
    )
    for task, channels in (("phase-2shot", phase_channels), ("widefield-x2", signal_channels)):
        assert len(channels) == len(TASKS[task].channels)
        assert channels.isfinite().all()
        assert channels.dtype == torch.float32


@pytest.mark.parametrize(
    "background", [np.zeros((80, 72)), np.full((80, 72), np.nan), np.ones((5, 5))]
)
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
    baseline = WidefieldX2().condition(counts, "none").initial_estimate.numpy().clip(min=0)
    y, x = np.mgrid[0:64, 0:64]
    centre = [(axis * baseline).sum() / baseline.sum() for axis in (y, x)]
    assert centre == pytest.approx([2 * 10 + 0.5, 2 * 20 + 0.5], abs=0.05)


def test_a_field_with_background_is_zero_there():
    """The phase of a single object in an empty field, whatever its height."""
    phase = bump(2.0) - bump(2.0)[0, 0]
    prepared = PhaseTwoShot().condition(planes(phase, 100_000), MICROSCOPE, DEFOCUS, "none")
    assert prepared.estimated["background_share"] > 0.3
    assert abs(np.mean(prepared.estimate[np.abs(phase) < 0.01])) < 0.02
    np.testing.assert_allclose(prepared.estimate, phase, atol=0.1)


def test_a_field_without_background_has_mean_zero():
    phase = 3 * np.add.outer(np.sin(np.arange(96) / 6.0), np.cos(np.arange(80) / 5.0))
    level, background, share = find_background(phase)
    assert background.all()
    assert level == pytest.approx(phase.mean())
    assert 0 < share < LEAST_BACKGROUND


def cut_cells():
    """Cells that the frame cuts, prepared."""
    cut = take_planes(OPTICS["symmetric"], shape=(64, 72))
    return prepare_frame(cut.counts, cut.request(), PhaseTwoShot())


def test_the_networks_see_the_frame_and_a_little_around_it():
    """Channels, estimate and valid share a grid, and noise keeps its absolute pixel."""
    prepared = cut_cells()
    assert not prepared.estimated["periodic"]
    assert prepared.channels.shape[-2:] == prepared.initial_estimate.shape == prepared.valid.shape
    assert prepared.valid.shape == (64 + 2 * SURROUNDINGS_PX, 72 + 2 * SURROUNDINGS_PX)
    assert prepared.estimate.shape == (64, 72)
    assert prepared.kept(prepared.valid).all()
    assert prepared.valid.sum() == 64 * 72
    assert prepared.origin == (NOISE_ORIGIN - SURROUNDINGS_PX,) * 2
    inside = prepared.channels[CHANNELS.index("frame")]
    assert bool(inside[prepared.frame].all()) and float(inside.sum()) == 64 * 72


def test_a_part_of_a_frame_keeps_its_pixels():
    prepared = cut_cells()
    part = prepared.within((20, 50, 30, 64), 8, 16)
    np.testing.assert_array_equal(part.estimate, prepared.estimate[20:50, 30:64])
    for axis, first in enumerate((20, 30)):
        assert part.origin[axis] + part.region[axis].start == NOISE_ORIGIN + first
        assert (part.origin[axis] - prepared.origin[axis]) % 8 == 0
    assert part.posterior.window == tuple(
        slice(whole.start + start - begin, whole.start + start - begin + size)
        for whole, start, begin, size in zip(
            prepared.posterior.window, part.origin, prepared.origin, part.valid.shape, strict=True
        )
    )


@pytest.mark.usefixtures("few_solver_steps")
def test_planes_that_the_camera_cut_off_are_not_valid_and_do_not_count():
    """One saturated plane is enough; the phase there follows from the other plane and the prior."""
    pair = planes(bump(1.0), 2000)
    counts = np.round(40_000 * pair).clip(max=65_534).astype(np.uint16)
    bright = pair[1] > np.percentile(pair[1], 99)
    cut = np.stack([counts[0], np.where(bright, 65_535, counts[1])]).astype(np.uint16)
    prepared = PhaseTwoShot().condition(cut, MICROSCOPE, DEFOCUS, "auto")
    np.testing.assert_array_equal(prepared.kept(prepared.valid), ~bright)
    whole = PhaseTwoShot().condition(counts, MICROSCOPE, DEFOCUS, "auto")
    assert np.std(prepared.estimate - whole.estimate) < 0.1 * np.std(whole.estimate)


def test_three_planes_in_any_order_are_one_field():
    phase, positions = bump(1.0), (-2.0, 0.5, 3.0)
    clean = defocus_pair_of(phase, np.zeros_like(phase), MICROSCOPE, positions).astype(float)
    noisy = np.random.default_rng(0).poisson(clean * 10_000) / 10_000
    one = PhaseTwoShot().condition(noisy, MICROSCOPE, positions, "none")
    order = [2, 0, 1]
    other = PhaseTwoShot().condition(
        noisy[order], MICROSCOPE, [positions[i] for i in order], "none"
    )
    assert torch.equal(one.channels, other.channels)
    assert np.std(one.estimate - phase) < 0.2 * np.std(phase)


@pytest.mark.usefixtures("few_solver_steps")
def test_preparing_says_what_it_does_and_ends_where_prepare_frame_does():
    array = (1000 * planes(bump(1.0), 1000)).astype(np.float32)
    request = phase_request(ImageStack(array=array, axes="PYX", pixel_um=0.2))
    steps, said = PhaseTwoShot().prepare(array, resolve(request, PhaseTwoShot())), []
    while True:
        try:
            said.append(next(steps))
        except StopIteration as end:
            prepared = end.value
            break
    assert len(said) > 2 and all(said)
    assert torch.equal(prepared.channels, prepare_frame(array, request, PhaseTwoShot()).channels)


@pytest.mark.parametrize(("ratio", "equalised"), [(1.005, False), (1.04, True)])
def test_only_a_large_difference_of_means_is_the_lamps(ratio: float, equalised: bool):
    """A small one may be light that crosses the border of the frame."""
    pair = planes(bump(0.5), 10_000) * np.array([1.0, ratio])[:, None, None]
    levels = over_background(pair, "auto")[1]
    assert (levels[1] / levels[0] == pytest.approx(ratio, rel=2e-3)) is equalised
    assert (levels[0] == levels[1]) is not equalised


def test_the_means_of_a_plane_in_parts_leave_out_what_was_cut_off_too():
    pair = np.round(1000 * planes(bump(0.5), 10_000)).astype(np.uint16)
    pair[1, 20:40, 30:60] = 4095
    image = ImageStack(array=pair, axes="PYX", pixel_um=0.2)
    sampled = [
        sample_plane(phase_request(image), PhaseTwoShot(), (), plane, Fingerprint(pair))[0]
        for plane in range(2)
    ]
    np.testing.assert_allclose(
        blank_levels(sampled, "auto", pair.shape[1:]), over_background(pair, "auto")[1], rtol=1e-12
    )


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
def test_pixels_that_a_camera_cut_off_are_not_trusted_whatever_the_file_could_hold(
    top: int, dtype: type
):
    light = np.random.default_rng(0).poisson(
        np.linspace(0.3, 1.3, 96) * min(top, 4095) * np.ones((80, 1))
    ) * (top / min(top, 4095))
    cut = light.clip(max=top).astype(dtype)[None]
    valid = WidefieldX2().condition(cut, "auto").valid
    np.testing.assert_array_equal(valid[8:-8, 8:-8], (light < top)[8:-8, 8:-8])
    assert WidefieldX2().condition((light / 2).astype(dtype)[None], "auto").valid[8:-8, 8:-8].all()
