"""Dry mass and optical path of known bodies are correct.

Sampling, level and division into regions do not change them.
"""

import csv
import io

import numpy as np
import pytest

from napari_cvdm.analysis.measure import (
    ALPHA_UM3_PER_PG,
    NO_SAMPLES,
    ONE_SAMPLE,
    FrameMeasures,
    MaskFrame,
    MeasuredFrame,
    ResultField,
    find_medium,
    measure_frames,
    measure_objects,
    object_rows,
    optical_path_nm,
    reasons_not_to_quantify,
    suggest_frames,
    table_text,
)
from napari_cvdm.analysis.regions import regions_on_grid, suggest_regions, triangle_threshold
from napari_cvdm.core.microscope import OpticsError
from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.core.result import finished as drained

WAVELENGTH_UM = 0.55
RADIUS_UM = 5.0
SAME = {"matrix": np.eye(2), "offset": np.zeros(2)}


def field_of(phase, pixel_um=0.1, **more):
    return ResultField(image=phase, pixel_um=pixel_um, wavelength_um=WAVELENGTH_UM, **more)


def distance_um(pixel_um=0.1, side_um=16.0):
    count = round(side_um / pixel_um)
    y, x = (np.mgrid[:count, :count] + 0.5) * pixel_um - side_um / 2
    return np.hypot(y, x)


@pytest.fixture
def blobs():
    """Phase of two smooth blobs [rad], and a region around each."""
    y, x = np.mgrid[:60, :80]
    phase = 1.5 * np.exp(-((y - 30) ** 2 + (x - 22) ** 2) / 40) + 0.8 * np.exp(
        -((y - 30) ** 2 + (x - 58) ** 2) / 60
    )
    regions = np.zeros(phase.shape, int)
    regions[10:50, 5:40], regions[10:50, 42:75] = 1, 2
    return phase, regions


def test_one_wave_of_phase_is_one_wavelength_of_path():
    np.testing.assert_allclose(
        optical_path_nm(np.array([0.0, np.pi, 2 * np.pi]), 0.55), [0, 275, 550]
    )
    with pytest.raises(OpticsError):
        optical_path_nm(np.zeros(2), 550.0)


def test_a_disc_of_known_path_has_its_known_mass():
    """m = OPD A / alpha: 100 nm over a disc."""
    inside = distance_um(0.05) < RADIUS_UM
    (found,) = measure_objects(
        field_of(0.1 * 2 * np.pi / WAVELENGTH_UM * inside, 0.05), inside.astype(int)
    )
    assert found.area_um2.value == pytest.approx(np.pi * RADIUS_UM**2, rel=0.01)
    assert found.mass_pg.value == pytest.approx(0.1 * found.area_um2.value / ALPHA_UM3_PER_PG)
    assert found.opd_nm.value == pytest.approx(100)
    assert found.mean.value == pytest.approx(0.1 * 2 * np.pi / WAVELENGTH_UM)


@pytest.mark.parametrize("pixel_um", [0.2, 0.1, 0.05])
def test_a_sphere_has_its_known_mass_at_any_pixel_size(pixel_um):
    """m = 4/3 pi R^3 (n - n_medium) / alpha."""
    contrast, distance = 0.03, distance_um(pixel_um)
    thickness = 2 * np.sqrt(np.clip(RADIUS_UM**2 - distance**2, 0, None))
    (found,) = measure_objects(
        field_of(2 * np.pi / WAVELENGTH_UM * contrast * thickness, pixel_um),
        (distance < RADIUS_UM + 1).astype(int),
    )
    assert found.mass_pg.value == pytest.approx(
        4 / 3 * np.pi * RADIUS_UM**3 * contrast / ALPHA_UM3_PER_PG, rel=2e-3
    )


def test_finer_pixels_of_the_same_phase_change_nothing(blobs):
    phase, regions = blobs
    fine = [np.kron(array, np.ones((3, 3), array.dtype)) for array in blobs]
    coarse, refined = (
        measure_objects(field_of(phase, 0.3), regions),
        measure_objects(field_of(fine[0], 0.1), fine[1]),
    )
    np.testing.assert_allclose(
        [mass.mass_pg.value for mass in refined], [mass.mass_pg.value for mass in coarse]
    )
    np.testing.assert_allclose(
        [mass.area_um2.value for mass in refined], [mass.area_um2.value for mass in coarse]
    )


def test_a_piston_changes_nothing_not_even_one_of_each_sample(blobs):
    phase, regions = blobs
    rng = np.random.default_rng(0)
    samples = phase + 0.1 * rng.normal(size=(5, *phase.shape))
    pistons = rng.normal(size=(5, 1, 1))
    for first, second in zip(
        measure_objects(field_of(phase, samples=samples), regions),
        measure_objects(field_of(phase + 3, samples=samples + pistons), regions),
        strict=True,
    ):
        assert second.mass_pg.value == pytest.approx(first.mass_pg.value)
        assert second.mass_pg.deviation == pytest.approx(first.mass_pg.deviation)
        assert second.opd_nm.value == pytest.approx(first.opd_nm.value)


def test_masses_add_over_disjoint_regions(blobs):
    phase, regions = blobs
    parts = measure_objects(field_of(phase), regions)
    (whole,) = measure_objects(field_of(phase), (regions > 0).astype(int))
    assert sum(part.mass_pg.value for part in parts) == pytest.approx(whole.mass_pg.value)
    assert sum(part.area_um2.value for part in parts) == pytest.approx(whole.area_um2.value)


def test_mass_falls_as_alpha_grows(blobs):
    phase, regions = blobs
    usual, twice = (
        measure_objects(field_of(phase), regions, alpha)[0].mass_pg.value for alpha in (0.18, 0.36)
    )
    assert usual == pytest.approx(2 * twice)


def test_labels_need_not_be_consecutive(blobs):
    phase, regions = blobs
    renamed = np.array([0, 900, 7])[regions]
    first, second = measure_objects(field_of(phase), regions)
    seven, nine_hundred = measure_objects(field_of(phase), renamed)
    assert (seven.label, nine_hundred.label) == (7, 900)
    assert (seven.mass_pg.value, nine_hundred.mass_pg.value) == (
        second.mass_pg.value,
        first.mass_pg.value,
    )
    assert seven.area_um2.value == second.area_um2.value


def test_cells_without_a_region_do_not_move_the_zero(blobs):
    """A plateau does not change the level of the surroundings.

    It fills two fifths of them and would raise a plain median by one deviation of the noise.
    """
    regions = blobs[1]
    phase = np.array([0, 1.5, 0.8])[regions]
    samples = phase + 0.1 * np.random.default_rng(4).normal(size=(6, *phase.shape))
    for mass in measure_objects(field_of(phase, samples=samples), regions):
        (alone,) = measure_objects(
            field_of(phase, samples=samples), np.where(regions == mass.label, mass.label, 0)
        )
        assert alone.mass_pg.value == pytest.approx(mass.mass_pg.value, rel=0.005)


def test_the_error_is_the_spread_of_the_sums(blobs):
    phase, regions = blobs
    samples = phase + np.random.default_rng(1).normal(size=(9, *phase.shape))
    image = field_of(phase, samples=samples)
    medium = find_medium(image, regions)
    for mass in measure_objects(image, regions):
        sums = np.array(
            [
                (sample - np.median(sample[medium]))[regions == mass.label].sum()
                for sample in samples
            ]
        )
        direct = sums * WAVELENGTH_UM * 0.1**2 / (2 * np.pi * ALPHA_UM3_PER_PG)
        assert mass.mass_pg.value == pytest.approx(direct.mean())
        assert mass.mass_pg.deviation == pytest.approx(direct.std(ddof=1))
        assert mass.samples == 9


@pytest.mark.parametrize("together", [False, True])
def test_the_error_knows_whether_pixels_move_together(together):
    """Deviation s in n pixels gives sqrt(n) s if they are independent, n s if they move as one."""
    rng, regions = np.random.default_rng(2), np.zeros((40, 40), int)
    regions[10:30, 10:30] = 1
    noise = (
        rng.normal(size=(400, 1, 1)) * (regions > 0) if together else rng.normal(size=(400, 40, 40))
    )
    (found,) = measure_objects(field_of(np.zeros((40, 40)), samples=0.1 * noise), regions)
    expected = (
        0.1 * (400 if together else 20) * WAVELENGTH_UM * 0.01 / (2 * np.pi * ALPHA_UM3_PER_PG)
    )
    assert found.mass_pg.deviation == pytest.approx(expected, rel=0.3)


@pytest.mark.parametrize(("samples", "reason"), [(None, NO_SAMPLES), (1, ONE_SAMPLE)])
def test_without_a_spread_there_is_no_error_and_a_reason(blobs, samples, reason):
    phase, regions = blobs
    (first, _) = measure_objects(
        field_of(phase, samples=None if samples is None else phase[None]), regions
    )
    assert first.mass_pg.deviation is None
    assert first.why_no_interval == reason


def test_a_region_that_reaches_doubtful_pixels_says_so(blobs):
    phase, regions = blobs
    trusted = np.ones(phase.shape, bool)
    assert measure_objects(field_of(phase, trusted=trusted), regions)[0].remarks == ()
    trusted[:, :5] = False  # ends where region 1 begins
    first, second = measure_objects(field_of(phase, trusted=trusted), regions)
    assert first.remarks == (
        "touches untrusted pixels (0% of it): values and intervals may be far off",
    )
    assert second.remarks == ()
    cut = np.where(np.arange(80) > 60, 1, 0) * np.ones((60, 1), int)
    assert "cut off by the edge of the image" in measure_objects(field_of(phase), cut)[0].remarks


def test_a_swapped_pair_of_planes_is_asked_about(blobs):
    phase, regions = blobs
    assert any(
        "sign of the defocus" in remark
        for remark in measure_objects(field_of(-phase), regions)[0].remarks
    )


def test_untrusted_pixels_do_not_level_the_field(blobs):
    phase, regions = blobs
    doubtful = phase + np.where(np.arange(60) < 9, 5.0, 0.0)[:, None]
    plain = measure_objects(
        field_of(phase, trusted=np.arange(60)[:, None] + 0 * phase >= 9), regions
    )
    spoilt = measure_objects(
        field_of(doubtful, trusted=np.arange(60)[:, None] + 0 * phase >= 9), regions
    )
    assert [mass.mass_pg.value for mass in spoilt] == [mass.mass_pg.value for mass in plain]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda regions: regions * 0, "the mask is empty"),
        (lambda regions: regions * 0 + 1, "trusted medium outside all regions is 0.0%"),
        (lambda regions: regions[1:], "draw it on the result"),
    ],
)
def test_masks_that_cannot_be_used_are_answered_in_words(blobs, change, words):
    phase, regions = blobs
    with pytest.raises(RequestError, match=words):
        measure_objects(field_of(phase), change(regions))


def test_other_wrong_input_is_answered_in_words(blobs):
    phase, regions = blobs
    with pytest.raises(RequestError, match="alpha is 180"):
        measure_objects(field_of(phase), regions, 180.0)
    with pytest.raises(RequestError, match="no pixel of this result is trusted"):
        measure_objects(field_of(phase, trusted=np.zeros(phase.shape, bool)), regions)
    with pytest.raises(RequestError, match="no numbers"):
        field_of(np.full((4, 4), np.nan))
    with pytest.raises(RequestError, match="one image with axes Y and X"):
        field_of(phase[None])
    with pytest.raises(RequestError, match="samples has"):
        field_of(phase, samples=phase[None, 1:])


def test_a_mask_on_a_grid_of_its_own_lands_where_it_was_drawn():
    coarse = np.zeros((6, 8), int)
    coarse[1:3, 2:5] = 4
    fine = regions_on_grid(coarse, np.eye(2) / 2, np.full(2, -0.25), (12, 16))
    np.testing.assert_array_equal(fine, np.kron(coarse, np.ones((2, 2), int)))
    assert regions_on_grid(coarse, np.eye(2), np.zeros(2), (6, 8)) is coarse
    np.testing.assert_array_equal(
        regions_on_grid(coarse, np.eye(2), np.array([-1.0, 0.0]), (6, 8)),
        np.roll(coarse, 1, axis=0),
    )


def test_the_suggested_mask_holds_the_cells_and_not_the_medium(blobs):
    phase, _ = blobs
    noisy = phase + 0.02 * np.random.default_rng(3).normal(size=phase.shape)
    regions = suggest_regions(noisy, 0.3)
    assert set(np.unique(regions)) == {0, 1, 2}
    assert phase[regions > 0].sum() > 0.95 * phase.sum()
    assert (regions[phase < 0.01] == 0).all()
    np.testing.assert_array_equal(suggest_regions(noisy + 7, 0.3), regions)


def test_the_suggested_mask_keeps_off_untrusted_pixels(blobs):
    phase, _ = blobs
    trusted = np.arange(80)[None] + 0 * phase > 40
    regions = suggest_regions(phase, 0.3, trusted)
    assert regions.max() == 1
    assert not regions[~trusted].any()


def test_no_mask_is_suggested_where_nothing_stands_out():
    with pytest.raises(RequestError, match="Draw one"):
        suggest_regions(np.zeros((20, 20)), 0.1)
    with pytest.raises(RequestError, match="Draw a mask"):
        suggest_regions(np.eye(20), 0.1)


def frame(phase, **place):
    return MeasuredFrame(
        place=place,
        image=phase,
        untrusted=np.zeros(phase.shape),
        optics={"pixel_um": 0.1, "wavelength_um": WAVELENGTH_UM},
    )


def test_frames_are_weighed_one_by_one_and_empty_ones_left_out(blobs):
    phase, regions = blobs
    masks = [MaskFrame(labels=labels, **SAME) for labels in (regions, regions * 0, regions)]
    frames = [(frame((1 + number) * phase, t=number), mask) for number, mask in enumerate(masks)]
    first, third = drained(measure_frames(frames, 0.2))
    assert (first.place, third.place) == ({"t": 0}, {"t": 2})
    assert first.objects == measure_objects(frames[0][0].read(), regions, 0.2)
    assert third.objects[0].mass_pg.value == pytest.approx(3 * first.objects[0].mass_pg.value)
    with pytest.raises(RequestError, match="empty in all 2 frames"):
        drained(measure_frames([(one, masks[1]) for one, _ in frames[:2]], 0.2))
    with pytest.raises(RequestError, match=r"^t 1: trusted medium"):
        drained(measure_frames([(frames[1][0], MaskFrame(labels=regions * 0 + 1, **SAME))], 0.2))


def test_a_mask_is_suggested_for_every_frame(blobs):
    phase, _ = blobs
    masks, thresholds = drained(suggest_frames([frame(phase, t=0), frame(0 * phase, t=1)]))
    assert masks.shape == (2, *phase.shape)
    assert masks[0].any()
    assert not masks[1].any()
    assert 0 < thresholds[0] < phase.max()
    assert thresholds[1] is None
    with pytest.raises(RequestError, match="stands out"):
        drained(suggest_frames([frame(0 * phase, t=1)]))


def test_the_table_reads_back_as_the_same_numbers(blobs):
    phase, regions = blobs
    masses = measure_objects(field_of(phase, samples=np.stack([phase, 1.1 * phase])), regions)
    rows = object_rows(
        [FrameMeasures(place={"t": 4}, objects=masses)],
        {"alpha_um3_per_pg": 0.18, "group": 'cell, "left" by model'},
    )
    read = list(csv.DictReader(io.StringIO(table_text(rows))))
    assert [float(row["dry_mass_pg"]) for row in read] == [mass.mass_pg.value for mass in masses]
    assert [float(row["error_pg"]) for row in read] == [mass.mass_pg.deviation for mass in masses]
    assert [float(row["mean_opd_nm_high"]) for row in read] == [mass.opd_nm.high for mass in masses]
    assert {row["area_um2_low"] for row in read} == {""}
    assert {row["t"] for row in read} == {"4"}
    assert {row["group"] for row in read} == {'cell, "left" by model'}
    assert table_text(rows, "\t").splitlines()[0].split("\t") == list(rows[0])


def test_every_warning_about_optics_forbids_to_quantify(tiny_phase_model):
    from napari_cvdm.checks.training_range import optics_warnings
    from napari_cvdm.models.checkpoint import read_card

    request = ReconstructionRequest(
        image=ImageStack(array=np.zeros((1, 1)), axes="YX"),
        model="tiny",
        pixel_um=2.0,
        wavelength_um=0.9,
    )
    warnings = optics_warnings(request, read_card(tiny_phase_model))
    assert len(warnings) == 2
    assert (
        reasons_not_to_quantify([*warnings, "its two time points were taken for planes"])
        == warnings
    )


def counts_of(image, **more):
    return ResultField(image=image, pixel_um=0.1, unit="counts", **more)


def test_sums_over_objects_are_the_sum_of_the_masked_image():
    """Counts have a zero of their own; no medium is needed."""
    image = np.random.default_rng(5).random((30, 40))
    regions = np.random.default_rng(6).integers(0, 4, image.shape)
    found = measure_objects(counts_of(image), regions)
    assert [one.label for one in found] == [1, 2, 3]
    assert sum(one.total.value for one in found) == pytest.approx(image[regions > 0].sum())
    assert all(one.mass_pg is None and one.opd_nm is None for one in found)
    (whole,) = measure_objects(counts_of(image), np.ones(image.shape, int))
    assert whole.mean.value == pytest.approx(image.mean())


def test_counts_above_the_background_ignore_a_constant():
    regions = np.zeros((30, 40), int)
    regions[5:15, 5:15] = 3
    image = np.random.default_rng(5).random((30, 40)) + 4 * regions
    (first,), (second,) = (
        measure_objects(counts_of(image + more, above_background=True), regions)
        for more in (0, 1000)
    )
    assert second.total.value == pytest.approx(first.total.value)
    assert first.mean.value == pytest.approx(12, abs=0.2)


def test_units_scale_with_the_area_of_a_pixel(blobs):
    phase, regions = blobs
    for fine, coarse in zip(
        measure_objects(field_of(phase, 0.1), regions),
        measure_objects(field_of(phase, 0.3), regions),
        strict=True,
    ):
        assert coarse.area_um2.value == pytest.approx(9 * fine.area_um2.value)
        assert coarse.mass_pg.value == pytest.approx(9 * fine.mass_pg.value)
        assert coarse.opd_nm.value == pytest.approx(fine.opd_nm.value)
        assert coarse.total.value == pytest.approx(fine.total.value)


def test_the_interval_of_a_mean_of_independent_pixels_shrinks_with_their_root():
    rng, widths = np.random.default_rng(7), []
    for side in (10, 40):
        image = np.zeros((side, side))
        samples = rng.normal(size=(200, side, side))
        (one,) = measure_objects(counts_of(image, samples=samples), np.ones((side, side), int))
        widths.append(one.mean.high - one.mean.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize("samples", [4, 16])
def test_nine_of_ten_intervals_hold_the_truth(samples):
    """Truth and samples are draws of one posterior, in which neighbouring pixels move together."""
    rng, regions = np.random.default_rng(8), np.ones((6, 6), int)

    def draw(count):
        return rng.normal(size=(count, 1, 1)) + 0.5 * rng.normal(size=(count, 6, 6))

    inside = 0
    for _ in range(400):
        truth, drawn = draw(1)[0], draw(samples)
        field = counts_of(drawn.mean(axis=0), samples=drawn)
        (one,) = measure_objects(field, regions)
        inside += one.mean.low <= truth.mean() <= one.mean.high
    assert inside / 400 == pytest.approx(0.9, abs=0.05)


def test_a_calibration_scales_the_deviation():
    drawn = np.random.default_rng(9).normal(size=(8, 5, 5))
    regions = np.ones((5, 5), int)
    calibration = {"factor": 3.0, "level": 0.8}
    (one,) = measure_objects(counts_of(drawn[0], samples=drawn, calibration=calibration), regions)
    assert one.mean.calibrated
    assert one.mean.level == 0.8
    assert one.mean.high - one.mean.value == pytest.approx(3 * one.mean.deviation)


def discs(radii, height=1.0, shape=(80, 80)):
    """Smooth discs of these radii [px] in the middle."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot(y - shape[0] / 2, x - shape[1] / 2)
    return np.stack([height / (1 + np.exp(distance - radius)) for radius in radii])


def test_the_threshold_gives_every_sample_its_own_area():
    radii = np.array([14.0, 15.0, 16.0, 17.0, 18.0])
    samples = discs(radii)
    field = counts_of(discs([16.0])[0], samples=samples)
    regions = suggest_regions(field.image, 0.1)
    threshold = triangle_threshold(field.image, field.trusted_pixels())
    (fixed,) = measure_objects(field, regions)
    assert fixed.area_um2.low is None
    (found,) = measure_objects(field, regions, threshold=threshold)
    edge = np.sqrt(regions.sum() / np.pi) - 16.0
    areas = np.pi * (radii + edge) ** 2 * 0.01
    assert found.area_um2.value == pytest.approx(areas.mean(), rel=0.02)
    assert found.area_um2.deviation == pytest.approx(areas.std(ddof=1), rel=0.1)
    pistons = np.array([-0.3, 0.1, 0.2, 0.0, 0.4])[:, None, None]
    moved = field_of(field.image, samples=samples + pistons)  # a phase, whose level is free
    (levelled,) = measure_objects(moved, regions, threshold=threshold)
    assert levelled.area_um2.value == pytest.approx(found.area_um2.value, rel=0.01)


def test_what_was_corrected_by_hand_stays_in_every_sample():
    samples = discs([14.0, 16.0, 18.0])
    field = counts_of(samples[1], samples=samples)
    threshold = triangle_threshold(field.image, field.trusted_pixels())
    regions = suggest_regions(field.image, 0.1)
    corrected = np.where(np.arange(80) < 40, regions, 0)  # half of it erased
    corrected[2:6, 2:6] = 2  # and a region drawn where nothing stands out
    half, drawn = measure_objects(field, corrected, threshold=threshold)
    (whole,) = measure_objects(field, regions, threshold=threshold)
    assert drawn.area_um2.value == pytest.approx(0.16)
    assert drawn.area_um2.low is None
    assert 0.45 < half.area_um2.value / whole.area_um2.value < 0.55
    assert half.area_um2.low < half.area_um2.high


def test_an_object_that_a_sample_does_not_show_is_named():
    samples = discs([16.0] * 4) * np.array([1.0, 1.0, 1.0, 0.0])[:, None, None]
    field = counts_of(samples[0], samples=samples)
    threshold = triangle_threshold(field.image, field.trusted_pixels())
    (one,) = measure_objects(field, suggest_regions(field.image, 0.1), threshold=threshold)
    assert "below the threshold in 1 of 4 samples" in one.remarks
    assert one.area_um2.low < one.area_um2.value
