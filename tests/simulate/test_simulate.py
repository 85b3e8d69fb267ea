"""Laws of the simulations that the models learn from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.registration import phase_cross_correlation

from napari_cvdm.core.intensity import dark_level, noise_sigma
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import RequestError
from napari_cvdm.physics.forward_model import PhaseForwardModel, fresnel_number
from napari_cvdm.simulate import phase_objects, structures
from napari_cvdm.simulate.ranges import PhaseRanges, WidefieldRanges
from napari_cvdm.simulate.samples import (
    CELL_PHASE_RAD,
    cell_phase,
    cell_planes,
    reticulum,
    reticulum_pair,
)
from napari_cvdm.simulate.scenes import (
    CONDENSER_SHARE,
    LARGEST_SLOPE,
    LINE_SIGMAS,
    MOST_PLANES,
    STACK_SHARE,
    UPSAMPLING,
    defocus_pair_of,
    draw_absorbance,
    draw_brightfield_microscope,
    draw_defocus,
    draw_fluorescence_microscope,
    draw_phase,
    simulate_phase,
    simulate_widefield,
    steepest,
)
from napari_cvdm.simulate.structures import splat

SEEDS = range(12)
SMALL_PHASE = PhaseRanges(field_px=(64, 96))
SMALL_WIDEFIELD = WidefieldRanges(field_px=48)
OBJECTS = [draw for draw, _ in phase_objects.OBJECTS]
STRUCTURES = [draw for draw, _ in structures.STRUCTURES]


def inside(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]


def test_a_phase_field_is_a_function_of_its_seed():
    first, again, other = (
        simulate_phase(3, SMALL_PHASE),
        simulate_phase(3, SMALL_PHASE),
        simulate_phase(4, SMALL_PHASE),
    )
    assert_array_equal(first.planes, again.planes)
    assert_array_equal(first.phase, again.phase)
    assert (first.microscope, first.defocus_um) == (again.microscope, again.defocus_um)
    assert first.microscope != other.microscope


def test_fields_are_pairs_and_stacks_in_coherent_and_in_wider_light():
    """As often as stated; planes lie in rising order within the range of the defocus."""
    fields = [simulate_phase(seed, PhaseRanges(field_px=(32, 32))) for seed in range(150)]
    planes = [len(field.defocus_um) for field in fields]
    assert set(planes) == set(range(2, MOST_PLANES + 1))
    assert np.mean(np.array(planes) > 2) == pytest.approx(STACK_SHARE, abs=0.1)
    condensers = np.array([field.condenser_na for field in fields])
    assert np.mean(condensers > 0) == pytest.approx(CONDENSER_SHARE, abs=0.12)
    assert all(value == 0 or inside(value, PhaseRanges().condenser_na) for value in condensers)
    for field in fields:
        assert list(field.defocus_um) == sorted(set(field.defocus_um))
        distance = fresnel_number(field.defocus_um[-1] - field.defocus_um[0], field.microscope)
        assert inside(
            distance, (PhaseRanges().fresnel[0] * 0.999, PhaseRanges().fresnel[1] * 1.001)
        )


def test_a_known_condenser_is_that_of_every_field():
    assert {
        simulate_phase(seed, PhaseRanges(field_px=(32, 32), condenser_na=(0.2, 0.2))).condenser_na
        for seed in range(6)
    } == {0.2}


def test_planes_are_those_of_the_stated_optics():
    """A field that repeats, in bright light: the forward model with its optics gives its planes."""
    ranges = replace(SMALL_PHASE, photons=(1e7, 1e7), ramp=(1e-9, 1e-9), absorption=(1e-9, 1e-9))
    checked = 0
    for seed in range(30):
        pair = simulate_phase(seed, ranges)
        double = torch.zeros(1, dtype=torch.float64)
        model = PhaseForwardModel.create(
            pair.phase.shape,
            pair.defocus_um,
            pair.microscope,
            condenser_na=pair.condenser_na,
            like=double,
        )
        maps = torch.from_numpy(np.stack([np.zeros_like(pair.phase), pair.phase])).double()
        expected = model.apply(replace(model.zero(), maps=maps)).numpy()
        checked += int(np.abs(pair.planes - expected).max() < 5e-3 and pair.phase.std() > 0)
    assert checked >= 5  # the others are parts of larger fields


def test_photographs_of_a_folder_become_objects(tmp_path: Path):
    """A share of the objects, the same for the same seed; a folder without any is refused."""
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "one.png")
    Image.fromarray(image[..., 0]).save(tmp_path / "two.jpg")
    (tmp_path / "notes.txt").write_text("no photograph")
    assert len(phase_objects.read_photographs(str(tmp_path))) == 2
    part = phase_objects.photograph(np.random.default_rng(1), (96, 50), str(tmp_path))
    assert part.shape == (96, 50) and np.isfinite(part).all()
    with_photographs = replace(SMALL_PHASE, photographs=str(tmp_path))
    differ = [
        not np.array_equal(
            simulate_phase(seed, with_photographs).phase, simulate_phase(seed, SMALL_PHASE).phase
        )
        for seed in range(10)
    ]
    assert any(differ)
    assert_array_equal(
        simulate_phase(3, with_photographs).planes, simulate_phase(3, with_photographs).planes
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no photograph in it"):
        phase_objects.read_photographs(str(tmp_path / "empty"))


def test_a_widefield_field_is_a_function_of_its_seed():
    first, again, other = (simulate_widefield(seed, SMALL_WIDEFIELD) for seed in (3, 3, 4))
    assert_array_equal(first.counts, again.counts)
    assert_array_equal(first.truth, again.truth)
    assert first.microscope != other.microscope


@pytest.mark.parametrize("seed", SEEDS)
def test_a_phase_field_has_zero_mean_and_slopes_that_a_camera_can_follow(seed: int):
    pair = simulate_phase(seed, SMALL_PHASE)
    assert pair.planes.shape == (len(pair.defocus_um), *pair.phase.shape)
    assert abs(pair.phase.mean()) < 1e-5 * max(1.0, float(np.abs(pair.phase).max()))
    assert steepest(pair.phase) <= LARGEST_SLOPE * 1.001


@pytest.mark.parametrize("seed", SEEDS)
def test_defocus_moves_light_and_loses_none(seed: int):
    """All light passes an open pupil.

    Without absorption the mean of each plane is that of a blank field.
    """
    rng = np.random.default_rng(seed)
    phase = draw_phase(rng, (72, 56), SMALL_PHASE, 0.2)
    microscope = Microscope(pixel_um=0.3, wavelength_um=0.5, medium_index=1.33)
    planes = defocus_pair_of(
        phase, np.zeros_like(phase), microscope, draw_defocus(rng, microscope, SMALL_PHASE)
    )
    assert_allclose(planes.mean(axis=(1, 2)), 1.0, atol=1e-5)


def test_absorption_takes_light_away_and_never_adds_any():
    rng = np.random.default_rng(0)
    phase = draw_phase(rng, (64, 64), SMALL_PHASE, 0.2)
    drawn = [draw_absorbance(rng, phase, SMALL_PHASE) for _ in range(40)]
    assert all(0 <= image.min() and image.max() <= SMALL_PHASE.absorption[1] for image in drawn)
    strongest = max(drawn, key=np.mean)
    microscope = Microscope(pixel_um=0.3, wavelength_um=0.5, medium_index=1.33)
    planes = defocus_pair_of(phase, strongest, microscope, (-1.0, 1.0))
    assert_allclose(planes.mean(axis=(1, 2)), np.exp(-strongest).mean(), rtol=1e-5)


@pytest.mark.parametrize("seed", range(200, 240))
def test_optics_of_phase_fields_stay_in_their_ranges(seed: int):
    ranges, rng = PhaseRanges(), np.random.default_rng(seed)
    microscope = draw_brightfield_microscope(rng, ranges)
    low, high = draw_defocus(rng, microscope, ranges)
    assert inside(microscope.pixel_um, ranges.pixel_um)
    assert inside(microscope.wavelength_um, ranges.wavelength_um)
    assert inside(microscope.medium_index, ranges.medium_index)
    assert low < high
    distance = fresnel_number(high - low, microscope)
    assert inside(distance, (ranges.fresnel[0] * 0.999, ranges.fresnel[1] * 1.001))


@pytest.mark.parametrize("draw", OBJECTS, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("shape", [(48, 80), (65, 33)])
def test_phase_objects_fill_rectangular_fields_and_differ_between_draws(
    draw: phase_objects.Draw, shape: tuple[int, int]
):
    rng = np.random.default_rng(1)
    first, second = draw(rng, shape), draw(rng, shape)
    assert first.shape == shape
    assert np.isfinite(first).all()
    assert draw is phase_objects.blank or not np.array_equal(first, second)


@pytest.mark.parametrize("draw", STRUCTURES, ids=lambda draw: draw.__name__)
def test_structures_are_clouds_of_non_negative_emitters(draw: structures.Draw):
    positions, brightness = draw(np.random.default_rng(2), (3.0, 5.0))
    assert positions.shape == (len(brightness), 2)
    assert np.isfinite(positions).all()
    assert (brightness >= 0).all()


@pytest.mark.parametrize("draw", STRUCTURES, ids=lambda draw: draw.__name__)
def test_only_a_blank_structure_is_always_empty(draw: structures.Draw):
    filled = [len(draw(np.random.default_rng(seed), (3.0, 5.0))[1]) > 0 for seed in range(5)]
    assert any(filled) == (draw is not structures.nothing)


def test_emitters_on_a_grid_keep_their_flux_and_their_place():
    rng, pixel_um = np.random.default_rng(0), 0.05
    positions, brightness = rng.uniform(0.2, 1.2, (500, 2)), rng.gamma(1.0, 1.0, 500)
    image = splat((positions, brightness), (32, 40), pixel_um).double().numpy()
    assert_allclose(image.sum(), brightness.sum(), rtol=1e-6)
    centres = [(np.arange(size) + 0.5) * pixel_um for size in image.shape]
    found = (
        image.sum(axis=1) @ centres[0] / image.sum(),
        image.sum(axis=0) @ centres[1] / image.sum(),
    )
    assert_allclose(found, brightness @ positions / brightness.sum(), rtol=1e-6)


def test_emitters_outside_the_field_leave_it_empty():
    positions = np.array([[-1.0, 0.5], [0.5, 99.0]])
    assert not splat((positions, np.ones(2)), (20, 20), 0.05).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_widefield_truth_is_twice_as_fine_and_never_negative(seed: int):
    pair = simulate_widefield(seed, SMALL_WIDEFIELD)
    assert pair.truth.shape == tuple(UPSAMPLING * size for size in pair.counts.shape)
    assert pair.truth.min() >= pair.camera.offset_counts - dark_level(pair.counts) - 1e-3 * np.ptp(
        pair.truth
    )
    assert np.isfinite(pair.counts).all()


@pytest.mark.parametrize("seed", range(40))
def test_optics_of_widefield_fields_stay_in_their_ranges(seed: int):
    ranges = WidefieldRanges()
    microscope = draw_fluorescence_microscope(np.random.default_rng(seed), ranges)
    assert all(
        inside(float(getattr(microscope, name)), getattr(ranges, name))
        for name in ("na", "wavelength_um", "pixel_um", "medium_index")
    )


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    names=st.sets(st.sampled_from(structures.STRUCTURE_NAMES), min_size=1),
)
def test_what_is_left_out_is_never_drawn_and_the_rest_keeps_its_proportions(seed, names):
    drawn = np.concatenate(
        [
            structures.structure_kinds(rng, tuple(names))
            for rng in [np.random.default_rng(seed)]
            for _ in range(200)
        ]
    )
    shares = np.bincount(drawn, minlength=len(structures.STRUCTURES)) / len(drawn)
    wanted = np.array([weight * (draw.__name__ in names) for draw, weight in structures.STRUCTURES])
    assert not shares[wanted == 0].any()
    assert_allclose(shares, wanted / wanted.sum(), atol=0.15)


def test_all_structures_are_the_simulation_without_a_choice_and_one_is_a_choice():
    everything, chosen = (
        replace(SMALL_WIDEFIELD, structures=names)
        for names in (structures.STRUCTURE_NAMES, ("nothing",))
    )
    assert_array_equal(
        simulate_widefield(3, SMALL_WIDEFIELD).counts, simulate_widefield(3, everything).counts
    )
    assert all(
        np.ptp(one.truth) <= 1e-4 * np.ptp(one.counts)
        for one in (simulate_widefield(seed, replace(chosen, haze=(0.0, 0.0))) for seed in SEEDS)
    )


@pytest.mark.parametrize(("names", "said"), [(("fog",), "'fog'"), ((), "is empty")])
def test_a_structure_that_there_is_not_is_refused(names, said):
    with pytest.raises(RequestError, match=said):
        WidefieldRanges(structures=names)


def test_a_share_of_widefield_fields_is_blank_in_truth_but_not_in_counts(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(structures, "STRUCTURES", ((structures.nothing, 1.0),))
    pair = simulate_widefield(0, SMALL_WIDEFIELD)
    assert np.ptp(pair.truth) < 1e-3 * pair.counts.std()


QUIET = WidefieldRanges(
    correlated=0.0,
    photons=(3000, 3000),
    background=(1e-6, 1e-6),
    haze=(0, 0),
    defocus=(0, 0),
    blur_periods=(0, 0),
    read_noise_e=(0.5, 0.5),
    offset_counts=(0, 0),
    frames=(1, 1),
    field_px=64,
)


@pytest.mark.parametrize(
    "seed", [seed for seed in SEEDS if np.ptp(simulate_widefield(seed, QUIET).truth) > 100]
)
def test_a_sharp_truth_lies_where_the_image_does_and_counts_like_it(seed: int):
    """Fine pixels 2i and 2i + 1 are camera pixel i, and blur only moves light about."""
    pair = simulate_widefield(seed, QUIET)
    binned = pair.truth.reshape(64, UPSAMPLING, 64, UPSAMPLING).mean(axis=(1, 3))
    shift, *_ = phase_cross_correlation(
        gaussian_filter(binned, 1.5),
        gaussian_filter(pair.counts, 1.0),
        upsample_factor=20,
        normalization=None,
    )
    assert_allclose(shift, 0, atol=0.15)
    signal = pair.counts - dark_level(pair.counts)
    assert_allclose(
        binned.sum(), signal.sum(), rtol=0.05
    )  # some light comes and goes over the border


@pytest.mark.parametrize("seed", SEEDS)
def test_correlated_noise_is_smoothed_or_in_lines_and_the_light_stays(seed: int):
    """Lines differ from row to row only, by as much as the ranges say.

    Smoothing makes the differences between pixels smaller.
    """
    white, found = (
        simulate_widefield(seed, replace(SMALL_WIDEFIELD, correlated=share, stretched=0.0)).counts
        for share in (0.0, 1.0)
    )
    added = found - white
    assert_allclose(
        found.mean(), white.mean(), atol=3 * LINE_SIGMAS[1] * noise_sigma(white) / len(white) ** 0.5
    )
    if np.ptp(added, axis=1).max() < 1e-2 * noise_sigma(white):
        assert 0.5 * LINE_SIGMAS[0] < added[:, 0].std() / noise_sigma(white) < 1.5 * LINE_SIGMAS[1]
    else:
        assert np.diff(found).std() < np.diff(white).std()


def test_samples_are_always_the_same_and_say_their_optics():
    planes, fluorescence = cell_planes(), reticulum()
    assert_array_equal(planes.array, cell_planes().array)
    assert planes.array.shape == (2, *cell_phase().shape)
    assert 0.5 * CELL_PHASE_RAD < np.ptp(cell_phase()) <= CELL_PHASE_RAD * 1.001
    assert reticulum_pair().truth.shape == tuple(2 * size for size in fluorescence.array.shape)
    assert {"wavelength_um", "medium_index"} <= set(planes.metadata)
    assert {"wavelength_um", "medium_index", "na"} <= set(fluorescence.metadata)
