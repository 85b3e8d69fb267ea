"""Laws of what is measured between two planes of focus, and taken back."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from defocus_pairs import DEFOCUS_UM, MICROSCOPE, PHOTONS, domes, lit, moved, pair
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

from napari_cvdm.checks.plane_warnings import plane_warnings
from napari_cvdm.checks.training_range import field_text
from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.core.result import finished as drained
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.simulate.phase import defocus_pair_of
from napari_cvdm.tasks import NetworkInput, PhaseTwoShot
from napari_cvdm.tasks.illumination import divide_illumination
from napari_cvdm.tasks.plane_checks import clipped_share
from napari_cvdm.tasks.plane_record import PlaneChecks
from napari_cvdm.tasks.registration import (
    count_structures,
    register_planes,
    warp_to_reference,
    warped,
)

SHAPES = [(161, 210), (208, 175)]


def conditioned(
    planes: np.ndarray, align: str = "auto", defocus_um: tuple[float, float] = DEFOCUS_UM
) -> NetworkInput:
    return PhaseTwoShot().condition(planes, MICROSCOPE, defocus_um, "auto", align)


def checks_of(planes: np.ndarray, defocus_um: tuple[float, float] = DEFOCUS_UM) -> PlaneChecks:
    return PlaneChecks(**conditioned(planes, defocus_um=defocus_um).estimated["planes"])


def error_of(prepared: NetworkInput, truth: np.ndarray) -> float:
    return float(np.std((prepared.estimate - truth)[prepared.kept(prepared.valid)]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.37, -0.62), (-1.5, 0.25), (6.3, -4.8)])
@pytest.mark.parametrize("spots", [0.0, 0.5])
def test_planted_shifts_are_found_though_the_contrast_is_reversed(
    shape: tuple[int, int], shift: tuple[float, float], spots: float
):
    found = register_planes(moved(pair(shape, spots=spots), *shift), significance=4)
    assert found is not None
    assert_allclose(found.shift_px, shift, atol=0.05)


@pytest.mark.parametrize("order", [1, -1])
def test_the_lower_plane_stays_whichever_is_given_first(order: int):
    planes = moved(pair(SHAPES[0]), 0.8, -0.6)
    found = checks_of(planes[::order], DEFOCUS_UM[::order])
    assert_allclose(found.shift_px, (0.8, -0.6), atol=0.05)
    assert_array_equal(
        conditioned(planes[::order], defocus_um=DEFOCUS_UM[::order]).channels,
        conditioned(planes).channels,
    )


@pytest.mark.parametrize("magnification", [0.01, -0.02])
def test_a_planted_magnification_is_found(magnification: float):
    planes = pair(SHAPES[0])
    place = register_planes(planes, significance=4)
    found = checks_of(moved(planes, 0.5, -0.4, magnification, place.centre_px))
    assert_allclose(found.magnification, magnification, atol=0.002)
    assert_allclose(found.shift_px, (0.5, -0.4), atol=0.1)
    assert "magnification" in found.corrected


@pytest.mark.parametrize("beside", [0.0, 0.4])
def test_rings_of_one_cell_are_not_taken_for_magnification_or_a_shift(beside: float):
    y, x = np.mgrid[-1:1:150j, -1 - beside : 1 - beside : 150j]
    phase = 2 * np.exp(-8 * (y**2 + x**2))
    planes = defocus_pair_of(phase, 0 * phase, MICROSCOPE, (-3.0, 3.0))
    assert count_structures(planes) < 6
    found = checks_of(np.random.default_rng(0).poisson(planes * PHOTONS) / PHOTONS, (-3.0, 3.0))
    assert found.corrected == ()
    assert beside or (
        found.magnification_error is None
        and any("too few structures" in note for note in found.notes)
    )


def test_moving_and_putting_back_are_inverse():
    image = gaussian_filter(np.random.default_rng(0).normal(size=(81, 64)), 2)
    inner, corner = (slice(12, -12), slice(12, -12)), (0.0, 0.0)
    assert_allclose(
        warp_to_reference(warp_to_reference(image, (0.4, -1.3), 0, corner), (-0.4, 1.3), 0, corner)[
            inner
        ],
        image[inner],
        atol=1e-2,
    )
    assert_array_equal(
        warp_to_reference(image, (3, -2), 0, corner)[inner].round(9),
        np.roll(image, (-3, 2), (0, 1))[inner].round(9),
    )
    still, middle = np.zeros(2), np.array([30.0, 41.0])
    assert_allclose(
        warped(warped(image, still, 0.05, middle, 5), still, 1 / 1.05 - 1, middle, 5)[inner],
        image[inner],
        atol=1e-3,
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "terms",
    [(0.01, 0.0, 0.0, 0.0, 0.0), (-0.005, 0.02, 0.0, 0.0, 0.0), (0.0, 0.0, 0.03, -0.03, 0.0)],
)
def test_planted_light_is_found_and_taken_out(shape: tuple[int, int], terms: tuple[float, ...]):
    planes = pair(shape)
    wrong = lit(planes, *terms)
    found = checks_of(wrong)
    assert_allclose((*found.ramp, *found.quadratic), terms, atol=3e-3)
    assert_allclose(found.ramp, terms[:2], atol=1e-3)
    before, after, at_best = (
        error_of(conditioned(*given), domes(shape))
        for given in ((wrong, "off"), (wrong, "auto"), (planes, "off"))
    )
    assert after < 1.5 * at_best
    if any(terms[2:]):
        assert after < 0.25 * before
    else:  # the inversion knows ramps
        assert before < 1.6 * at_best


def test_light_and_its_correction_are_inverse():
    planes = pair(SHAPES[0])
    terms = (0.03, -0.02, 0.01, 0.02, -0.03)
    again = divide_illumination(
        divide_illumination(planes, terms, 1.1), tuple(-term for term in terms), 1 / 1.1
    )
    assert_allclose(again, planes, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("defocus_um", [(-1.0, 1.0), (0.0, 2.0)])
@pytest.mark.parametrize("photons", [1e3, 1e5])
def test_a_pair_without_mistakes_stays_as_it_is_to_the_bit(
    shape: tuple[int, int], defocus_um: tuple[float, float], photons: float
):
    planes = pair(shape, defocus_um, photons)
    plain, looked = conditioned(planes, "off", defocus_um), conditioned(planes, "auto", defocus_um)
    assert looked.estimated["planes"]["corrected"] == ()
    assert_array_equal(looked.channels, plain.channels)
    assert_array_equal(looked.valid, plain.valid)
    assert plane_warnings([looked.estimated]) == ()


def test_an_empty_field_stays_as_it_is():
    planes = np.random.default_rng(0).poisson(np.full((2, 128, 96), 1000.0)) / 1000
    assert_array_equal(conditioned(planes, "auto").channels, conditioned(planes, "off").channels)
    assert conditioned(planes).estimated["planes"]["shift_px"] is None


@pytest.mark.parametrize(
    "spoil",
    [lambda planes: moved(planes, 1.0, -1.0), lambda planes: lit(planes, 0.02, 0.0, 0.0, 0.0, 0.0)],
)
def test_off_means_off(spoil: Callable[[np.ndarray], np.ndarray]):
    planes = spoil(pair(SHAPES[0]))
    off, auto = conditioned(planes, "off"), conditioned(planes, "auto")
    assert (
        off.estimated["planes"]["shift_px"] is None and off.estimated["planes"]["corrected"] == ()
    )
    assert_array_equal(
        off.channels, PhaseTwoShot().condition(planes, MICROSCOPE, DEFOCUS_UM, "auto").channels
    )
    assert off.channels.shape != auto.channels.shape or not np.array_equal(
        off.channels, auto.channels
    )


def test_absorbing_specks_that_moved_leave_no_false_phase():
    shape = SHAPES[0]
    planes = moved(pair(shape, spots=0.5), 1.0, -1.0)
    assert error_of(conditioned(planes, "auto"), domes(shape)) < 0.8 * error_of(
        conditioned(planes, "off"), domes(shape)
    )


def test_what_only_one_plane_saw_is_not_valid():
    planes = moved(pair(SHAPES[0]), 6.3, -4.8)
    assert conditioned(planes, "auto").valid.sum() < conditioned(planes, "off").valid.sum()


@pytest.mark.parametrize("flipped", [False, True])
def test_a_flipped_sign_is_named_and_not_flipped_back(flipped: bool):
    positions = DEFOCUS_UM[::-1] if flipped else DEFOCUS_UM
    found = checks_of(pair(SHAPES[0]), positions)
    assert found.sign == (-1 if flipped else 1)
    assert found.corrected == ()
    said = " ".join(plane_warnings([{"planes": found.as_mapping()}]))
    assert ("dz may be flipped" in said) is flipped


def test_brightness_is_reported_and_made_equal():
    planes = pair(SHAPES[0])
    brighter = planes * np.array([1.0, 1.3])[:, None, None]
    assert_allclose(checks_of(brighter).brightness, 0.3, atol=2e-3)
    assert "30.0% brighter" in " ".join(plane_warnings([conditioned(brighter).estimated]))
    told = PhaseTwoShot().condition(brighter, MICROSCOPE, DEFOCUS_UM, "none", "auto")
    assert "brightness" in told.estimated["planes"]["corrected"]


@pytest.mark.parametrize(("top", "dtype"), [(255, np.uint8), (4095, np.uint16)])
def test_saturation_is_seen_below_the_top_of_the_type_too(top: int, dtype: type):
    light = np.random.default_rng(0).poisson(np.linspace(0.5, 1.2, 100) * top * np.ones((80, 1)))
    assert clipped_share(light.clip(max=top).astype(dtype)) == pytest.approx((light >= top).mean())
    assert clipped_share((light / 2).astype(dtype)) == 0
    assert clipped_share(light / 2) == 0


def test_the_same_plane_twice_is_said():
    planes = pair(SHAPES[0])[[0, 0]]
    assert any(
        "same pixels" in warning for warning in plane_warnings([conditioned(planes).estimated])
    )


def test_frames_are_counted_and_those_nobody_looked_at_are_left_out():
    good, bad = (
        checks_of(planes).as_mapping()
        for planes in (pair(SHAPES[0]), moved(pair(SHAPES[0]), 2.0, 0.0))
    )
    said = plane_warnings([{"planes": good}, {"planes": bad}, {"planes": bad}])
    assert len(said) == 1
    assert said[0].startswith("in 2 of 3 frames, the first of them 1: the upper plane lies +2.0")
    assert plane_warnings([{"noise_sigma": 1.0}]) == ()


def test_what_was_estimated_is_kept_with_the_result(tiny_phase_model):
    planes = lit(moved(pair(SHAPES[0]), 1.0, -1.0), 0.01, 0.0, 0.0, 0.0, 0.0).astype(np.float32)
    image = ImageStack(array=planes, axes="PYX", pixel_um=0.2)
    request = ReconstructionRequest(
        image=image,
        model="tiny",
        samples=1,
        steps=1,
        device="cpu",
        wavelength_um=0.55,
        medium_index=1.337,
        defocus_um=DEFOCUS_UM,
    )
    model = load_checkpoint(tiny_phase_model)
    results = {}
    for align in ("auto", "off"):
        results[align] = drained(reconstruct(replace(request, align=align), model)).provenance
    kept = json.loads(json.dumps(results["auto"].estimated["frames"][0]["planes"], allow_nan=False))
    assert kept["corrected"] == ["shift_px", "ramp"]
    assert (
        sum(
            "moved back" in warning or "divided out" in warning
            for warning in results["auto"].warnings
        )
        == 2
    )
    assert results["auto"].settings["align"] == "auto"
    assert results["off"].estimated["frames"][0]["planes"]["corrected"] == ()


@pytest.mark.parametrize("flipped", [False, True])
def test_what_needs_no_registration_is_looked_at_with_align_off_too(flipped: bool):
    counts = (8000 * pair(SHAPES[0])).clip(max=8850).round().astype(np.uint16)
    first, second = DEFOCUS_UM if not flipped else DEFOCUS_UM[::-1]
    image = ImageStack(array=counts, axes="PYX", pixel_um=MICROSCOPE.pixel_um)
    known = {"wavelength_um": MICROSCOPE.wavelength_um, "medium_index": MICROSCOPE.medium_index}
    request = ReconstructionRequest(image=image, model="tiny", defocus_um=(first, second), **known)
    said = plane_warnings([PhaseTwoShot().from_request(counts, request).estimated])
    assert any("sign of dz" in warning for warning in said) is flipped
    assert any("are saturated" in warning for warning in said)
    assert len(said) == 1 + flipped
    twice = plane_warnings([PhaseTwoShot().from_request(counts[[0, 0]], request).estimated])
    assert any("same pixels" in warning for warning in twice)


def test_another_word_for_align_is_refused():
    with pytest.raises(RequestError, match=r"align is 'on'; allowed are off, auto\."):
        ReconstructionRequest(
            image=ImageStack(array=np.ones((2, 20, 20)), axes="PYX"), model="m", align="on"
        )


def test_the_size_of_the_field_is_width_times_height():
    assert field_text((3, 100, 200), 0.5) == "the field is 100 x 50 um (200 x 100 px of 0.5 um)"


def test_reversed_signs_of_three_positions_put_a_flipped_sign_right() -> None:
    right, wrong, shape = (-1.0, 0.0, 1.5), (1.0, 0.0, -1.5), (96, 110)
    planes = defocus_pair_of(domes(shape), np.zeros(shape), MICROSCOPE, right)
    advised, silent = (
        plane_warnings([conditioned(planes, "off", positions).estimated])
        for positions in (wrong, right)
    )
    assert any("reverse the sign of all positions in defocus_um" in warning for warning in advised)
    assert silent == ()


@pytest.mark.parametrize("align", ["off", "auto"])
def test_a_flipped_sign_is_seen_through_dust_that_a_blank_field_takes_away(align: str):
    y, x = np.mgrid[: SHAPES[0][0], : SHAPES[0][1]]
    blank = (
        4000
        * (1 - 0.3 * ((y / y.max() - 0.5) ** 2 + (x / x.max() - 0.5) ** 2))
        * (1 - 0.5 * (np.hypot(y % 40 - 20, x % 40 - 20) < 4))
    )
    image = ImageStack(array=pair(SHAPES[0]) * blank, axes="PYX", pixel_um=MICROSCOPE.pixel_um)
    known = {
        "wavelength_um": MICROSCOPE.wavelength_um,
        "medium_index": MICROSCOPE.medium_index,
        "background": blank,
        "align": align,
    }
    request = ReconstructionRequest(image=image, model="tiny", defocus_um=DEFOCUS_UM[::-1], **known)
    said = plane_warnings([PhaseTwoShot().from_request(image.array, request).estimated])
    assert any("sign of dz" in warning for warning in said)
