"""A result is judged by what was found, and the light says why."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import few_steps
from small_images import phase_request, planes, spots, widefield_request

from napari_cvdm.checks.check_model import WidefieldCheckModel
from napari_cvdm.checks.out_of_distribution import (
    PHASE_IMAGES,
    STATISTICS,
    TrainingDistribution,
    channel_vectors,
    distribution_warnings,
    image_names,
    statistics,
    vectors_of,
)
from napari_cvdm.checks.run_checks import NOTHING_FOUND, contradicted, guessed, quality_flag
from napari_cvdm.core.request import ImageStack
from napari_cvdm.core.result import ForwardCheck
from napari_cvdm.core.result import finished as drained
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.plan import prepare_frame
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.simulate.ranges import PhaseRanges
from napari_cvdm.tasks import PhaseTwoShot, WidefieldX2
from napari_cvdm.tasks.phase_input import FieldNumbers, inner_frame, network_channels
from napari_cvdm.training.sources import solve_field

GOOD = ForwardCheck(chi2=1.02, limit=1.5, unexplained=0.0, verdict="explained")
OBJECTIVE = {"na": 1.4, "wavelength_um": 0.52, "medium_index": 1.515}


def run(request, model, **options):
    return drained(reconstruct(request, load_model(str(model)), **options))


@pytest.mark.parametrize(
    ("grave", "guesses", "warnings", "check", "colour", "quantitative"),
    [
        ((), (), (), GOOD, "green", True),
        ((), ("guess",), (), GOOD, "green", False),
        ((), ("guess",), ("doubt",), GOOD, "amber", False),
        ((), (), ("doubt",), GOOD, "amber", True),
        ((), (), (), replace(GOOD, chi2=1.4, estimate_chi2=1.05), "amber", True),
        ((), (), (), replace(GOOD, chi2=1.2, estimate_chi2=1.1), "green", True),
        ((), (), (), replace(GOOD, chi2=3.0, unexplained=0.01), "amber", True),
        ((), (), (), ForwardCheck(limit=1.5, verdict="na not known"), "amber", True),
        ((), (), (), replace(GOOD, chi2=3.0, unexplained=0.5), "red", False),
        (("far",), ("guess",), ("doubt",), GOOD, "red", False),
    ],
)
def test_the_gravest_finding_sets_the_colour_and_every_one_is_named(
    grave, guesses, warnings, check, colour, quantitative
):
    light = quality_flag(grave, guesses, warnings, check)
    assert (light.colour, not light.not_quantitative_because) == (colour, quantitative)
    said = " ".join(light.reasons)
    assert all(reason in said for reason in (*grave, *guesses, *warnings))
    assert check.verdict in said or check.explained
    assert ("Not for quantification" in said) == (not quantitative)
    if grave:
        assert light.reasons[0] == f"Not for quantification: {grave[0]}"
    if colour == "green":
        assert light.reasons[0] == NOTHING_FOUND


def test_what_was_guessed_is_named():
    request = widefield_request(spots((40, 40)))
    assert "dark level" in guessed(request, "counts", [])[0]
    assert guessed(replace(request, background="none"), "counts", [{"optics": "stated"}]) == ()
    known = replace(request, background="none")
    assert "3.2 px" in guessed(known, "counts", [{"optics": "estimated", "cutoff_px": 3.2}])[0]
    assert "not known" in guessed(known, "counts", [{"optics": "assumed", "cutoff_px": 3.3}])[0]
    phase = phase_request(planes((40, 40)))
    assert guessed(phase, "rad", [{"background_share": 0.4}]) == ()
    assert (
        "blank-field"
        in guessed(phase, "rad", [{"background_share": 0.4}, {"background_share": 0.1}])[0]
    )
    assert "blank-field" in guessed(phase, "rad", [{}])[0]
    assert guessed(replace(phase, background="none"), "rad", [{}]) == ()
    assert contradicted(request) == ()
    assert "0.13" in contradicted(replace(request, pixel_um=0.13))[0]


def test_a_run_is_judged_and_says_it_in_its_provenance(tiny_phase_model):
    result = run(phase_request(planes((64, 72)), samples=3, keep_samples=True), tiny_phase_model)
    check, provenance = result.forward, result.provenance
    assert check.residual.shape == (2, 64, 72) and check.axes == "PYX"
    assert check.local_chi2.shape == (64, 72)
    assert check.local_chi2[check.local_chi2 > 0].mean() == pytest.approx(check.chi2, rel=0.1)
    assert check.sample_chi2 >= check.frame_chi2 > 0
    assert check.chi2 == pytest.approx(float(check.frame_chi2))
    assert 0.8 < check.chi2 < 1.2
    assert provenance.quality_flag == "green" and provenance.quality_reasons
    assert provenance.quantitative == (not provenance.not_quantitative_because)
    with few_steps():
        far = run(phase_request(planes((48, 48)), pixel_um=5.0), tiny_phase_model).provenance
    assert (
        far.quality_flag == "red"
        and not far.quantitative
        and "pixel_um" in far.not_quantitative_because[0]
    )


def test_without_optics_a_widefield_result_says_that_it_was_not_checked(tiny_widefield_model):
    check = run(widefield_request(spots((40, 44))), tiny_widefield_model).forward
    assert (
        not check.possible
        and check.residual is None
        and check.local_chi2 is None
        and check.chi2 is None
    )
    assert "--na" in check.verdict and "--wavelength-um" in check.verdict
    assert -1 <= check.rsp <= 1 and check.rse > 0


@pytest.mark.parametrize("axes", ["TYX", "CYX"])
def test_every_frame_is_checked_as_if_alone(tiny_widefield_model, axes):
    movie = spots((2, 41, 38), axes=axes)
    result = run(widefield_request(movie, **OBJECTIVE), tiny_widefield_model)
    alone = run(
        widefield_request(replace(movie, array=movie.array[0], axes="YX"), **OBJECTIVE),
        tiny_widefield_model,
    )
    assert (result.forward.axes, result.forward.residual.shape) == (axes, (2, 41, 38))
    np.testing.assert_allclose(result.forward.local_chi2[0], alone.forward.local_chi2, rtol=1e-3)
    np.testing.assert_allclose(result.forward.residual[0], alone.forward.residual, atol=1e-4)
    assert result.forward.frame_chi2[0] == pytest.approx(float(alone.forward.frame_chi2), rel=1e-5)
    assert result.forward.chi2 == pytest.approx(result.forward.frame_chi2.mean())


@pytest.mark.parametrize(("factor", "outside"), [(0.0, 1.0), (1e6, 0.0)])
def test_the_deconvolution_is_set_beside_the_interval_of_the_result(
    tiny_widefield_model, factor, outside
):
    model = load_model(str(tiny_widefield_model))
    calibration = {
        "level": 0.9,
        "samples": 2,
        "steps": 2,
        "sampler": "sde-2m",
        "factor": factor,
        "floor": 1e-3,
    }
    calibrated = replace(model, card=replace(model.card, calibration=calibration))
    check = drained(
        reconstruct(widefield_request(spots((40, 44)), **OBJECTIVE), calibrated)
    ).forward
    assert check.estimate_outside == pytest.approx(outside, abs=0.01)
    assert (
        f"has chi-squared {check.estimate_chi2:.2f}, and lies outside the calibrated interval in "
        f"{outside:.0%}" in check.verdict
    )
    alone = drained(
        reconstruct(widefield_request(spots((40, 44)), samples=1, **OBJECTIVE), calibrated)
    ).forward
    assert (
        alone.estimate_outside is None and "outside" not in alone.verdict
    )  # one sample has no interval


def test_added_samples_are_counted_in(tiny_widefield_model):
    request = widefield_request(spots((40, 36)), **OBJECTIVE)
    model = load_model(str(tiny_widefield_model))
    whole = run(replace(request, samples=3), tiny_widefield_model)
    more = run(
        replace(request, samples=3),
        tiny_widefield_model,
        earlier=run(request, tiny_widefield_model),
    )
    assert more.forward.chi2 == pytest.approx(whole.forward.chi2, rel=0.05)
    assert float(more.forward.sample_chi2) == pytest.approx(
        float(whole.forward.sample_chi2), rel=0.05
    )
    assert model.card.training_distribution == {}


def test_a_region_is_checked_on_its_own_pixels(tiny_widefield_model):
    request = widefield_request(spots((64, 60)), region=(10, 50, 6, 46), **OBJECTIVE)
    assert run(request, tiny_widefield_model).forward.residual.shape == (40, 40)


@pytest.mark.parametrize("shape", [(12, 40), (17, 33)])
def test_an_image_that_is_all_border_is_not_checked(tiny_widefield_model, shape):
    check = run(widefield_request(spots(shape), **OBJECTIVE), tiny_widefield_model).forward
    assert check.possible == (min(shape) > 16)
    assert check.possible or "border" in check.verdict


def test_previews_and_live_images_have_no_time_for_it(tiny_widefield_model):
    assert not run(
        widefield_request(spots((40, 40)), steps=1, **OBJECTIVE), tiny_widefield_model
    ).forward.possible
    assert not run(
        widefield_request(spots((40, 40)), **OBJECTIVE), tiny_widefield_model, check=False
    ).forward.possible


def test_a_check_that_fails_costs_nobody_the_result(tiny_widefield_model, monkeypatch):
    def fail(*_):
        raise MemoryError("too large")

    monkeypatch.setattr(WidefieldCheckModel, "compare", fail)
    result = run(widefield_request(spots((40, 40)), **OBJECTIVE), tiny_widefield_model)
    assert np.isfinite(result.mean).all()
    assert "too large" in result.forward.verdict and not result.forward.possible


def texture(rng, sigma, noise, side=96):
    """A random image of a given grain and noise."""
    from scipy.ndimage import gaussian_filter

    image = gaussian_filter(rng.normal(size=(side, side)), sigma)
    return image / image.std() + noise * rng.normal(size=image.shape)


def test_what_is_like_the_training_data_is_familiar_and_what_is_not_is_named():
    rng = np.random.default_rng(0)
    fields = [
        statistics(texture(rng, rng.uniform(1.5, 4), rng.uniform(0.05, 0.3)))[None]
        for _ in range(150)
    ]
    found = TrainingDistribution.fit(fields[:100], fields[100:])
    again = [
        statistics(texture(rng, rng.uniform(1.5, 4), rng.uniform(0.05, 0.3)))[None]
        for _ in range(40)
    ]
    assert np.mean([found.distance(one) > found.threshold for one in again]) < 0.15
    odd = [
        statistics(texture(rng, 12, 0.001))[None],
        statistics(texture(rng, 3, 3.0))[None],
        statistics(texture(rng, 0.1, 0.0))[None],
    ]
    assert [distribution_warnings([one], found, "tiny") == () for one in odd] == [False] * 3
    assert any(name in distribution_warnings([odd[1]], found, "tiny")[0] for name in STATISTICS)
    assert "1 of 2 frames" in distribution_warnings([fields[0], odd[0]], found, "tiny")[0]
    back = TrainingDistribution.from_card(found.plain())
    assert back.distance(odd[0]) == pytest.approx(found.distance(odd[0]), rel=0.05)
    assert TrainingDistribution.from_card({}) is None
    with pytest.raises(ValueError, match="300 fields"):
        TrainingDistribution.fit(fields[:5], fields[5:])


@pytest.mark.usefixtures("few_solver_steps")
def test_a_phase_is_described_by_what_its_inversion_says_of_the_object():
    request = phase_request(planes((64, 72)))
    prepared = prepare_frame(request.image.array, request, PhaseTwoShot())
    found = vectors_of(prepared, "rad")
    assert found.shape == (1, len(PHASE_IMAGES) * len(STATISTICS)) and np.isfinite(found).all()
    maps = solve_field(0, PhaseRanges(field_px=(64, 64))).maps
    channels = network_channels(maps, FieldNumbers.measure(maps))[:, *inner_frame(maps)]
    assert channel_vectors(channels.numpy(), "rad").shape == found.shape


def test_statistics_of_other_images_are_not_compared():
    rng = np.random.default_rng(0)
    fields = [
        np.concatenate([statistics(texture(rng, 2, 0.1)) for _ in PHASE_IMAGES])[None]
        for _ in range(60)
    ]
    card = TrainingDistribution.fit(fields[:55], fields[55:], image_names("rad")).plain()
    back = TrainingDistribution.from_card(card, "rad")
    assert back is not None and back.images == PHASE_IMAGES
    odd = np.concatenate(
        [statistics(texture(rng, 2, 0.1)) for _ in PHASE_IMAGES[1:]]
        + [statistics(texture(rng, 12, 3.0))]
    )
    assert PHASE_IMAGES[-1] in distribution_warnings([odd[None]], back, "tiny")[0]
    assert TrainingDistribution.from_card(card) is None
    earlier = {name: value for name, value in card.items() if name != "images"}
    assert TrainingDistribution.from_card(earlier, "rad") is None


def test_statistics_do_not_care_which_way_up_the_image_is():
    image = texture(np.random.default_rng(1), 2, 0.1)
    np.testing.assert_allclose(statistics(np.rot90(image)), statistics(image), atol=1e-6)
    np.testing.assert_allclose(statistics(image[::-1]), statistics(image), atol=0.05)


def test_exposure_and_offset_do_not_change_the_statistics_and_small_images_have_none():
    counts = (
        np.random.default_rng(0)
        .poisson(20 + 200 * (texture(np.random.default_rng(2), 2, 0) > 1.0))
        .astype(np.float64)
    )
    one, other = (
        vectors_of(WidefieldX2().condition(values[None], "auto"), "counts")
        for values in (counts, 3 * counts + 70)
    )
    np.testing.assert_allclose(one, other, atol=1e-3)
    assert vectors_of(WidefieldX2().condition(counts[None, :20, :90], "auto"), "counts").shape == (
        0,
        len(STATISTICS),
    )


def test_a_constant_image_has_finite_numbers(tiny_widefield_model):
    flat = ImageStack(array=np.full((40, 40), 7, np.uint16), axes="YX", pixel_um=0.065)
    check = run(widefield_request(flat, **OBJECTIVE), tiny_widefield_model).forward
    assert not check.possible and "no noise" in check.verdict
    assert np.isfinite(statistics(np.zeros((40, 40)))).all()
