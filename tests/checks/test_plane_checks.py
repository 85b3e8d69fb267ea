"""Laws of what is looked for in defocused planes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from defocus_pairs import DEFOCUS_UM, MICROSCOPE, domes, moved, pair
from numpy.testing import assert_allclose, assert_array_equal

from napari_cvdm.checks.plane_warnings import pedestal_sentence, plane_warnings
from napari_cvdm.checks.training_range import field_text
from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.core.result import finished as drained
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.reconstruction.plan import prepare_frame
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.simulate.scenes import defocus_pair_of
from napari_cvdm.tasks import NetworkInput, PhaseTwoShot
from napari_cvdm.tasks.defocused_planes import (
    PlaneChecks,
    clipped_share,
    count_electrons,
    estimate_shift,
)

pytestmark = pytest.mark.usefixtures("remembered_inversions")
SHAPES = [(161, 210), (208, 175)]
SMALL = [(80, 66), (66, 112)]  # what is inverted
# Shift, brightness and saturation are those of the planes, however well they are inverted.
few_steps = pytest.mark.usefixtures("few_solver_steps")


def conditioned(
    planes: np.ndarray, align: str = "auto", defocus_um: tuple[float, float] = DEFOCUS_UM
) -> NetworkInput:
    return PhaseTwoShot().condition(
        planes, MICROSCOPE, defocus_um, "auto", register=align == "auto"
    )


def checks_of(planes: np.ndarray, defocus_um: tuple[float, float] = DEFOCUS_UM) -> PlaneChecks:
    return PlaneChecks(**conditioned(planes, defocus_um=defocus_um).estimated["planes"])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shift", [(2.0, -1.3), (-1.5, 0.25), (6.3, -4.8)])
@pytest.mark.parametrize("spots", [0.0, 0.5])
def test_planted_shifts_are_found_though_the_contrast_is_reversed(
    shape: tuple[int, int], shift: tuple[float, float], spots: float
):
    found = estimate_shift(*moved(pair(shape, spots=spots), *shift))
    assert found is not None
    assert_allclose(found, shift, atol=0.35)


@few_steps
@pytest.mark.parametrize("order", [1, -1])
def test_the_shift_is_that_of_the_upper_plane_whichever_is_given_first(order: int):
    planes = moved(pair(SMALL[0]), 2.8, -1.6)
    found = checks_of(planes[::order], DEFOCUS_UM[::order])
    assert_allclose(found.shift_px, (2.8, -1.6), atol=0.35)
    (said,) = plane_warnings([{"planes": found.as_mapping()}])
    assert "+2." in said and "Register the planes" in said


@few_steps
@pytest.mark.parametrize(
    ("shape", "defocus_um", "photons"),
    [
        (SMALL[0], (-1.0, 1.0), 1e3),
        (SMALL[0], (0.0, 2.0), 1e5),
        (SMALL[1], (-1.0, 1.0), 1e5),
        (SMALL[1], (0.0, 2.0), 1e3),
    ],
)
def test_a_pair_without_mistakes_has_no_warning(
    shape: tuple[int, int], defocus_um: tuple[float, float], photons: float
):
    assert plane_warnings([conditioned(pair(shape, defocus_um, photons), "auto").estimated]) == ()


def test_an_empty_field_has_no_shift():
    planes = np.random.default_rng(0).poisson(np.full((2, 128, 96), 1000.0)) / 1000
    assert estimate_shift(*planes) is None
    assert estimate_shift(*np.ones((2, 128, 96))) is None


@few_steps
def test_looking_for_a_shift_moves_nothing():
    planes = moved(pair(SMALL[0]), 3.0, -2.0)
    off, auto = conditioned(planes, "off"), conditioned(planes, "auto")
    assert off.estimated["planes"]["shift_px"] is None
    assert auto.estimated["planes"]["shift_px"] is not None
    assert_array_equal(off.channels, auto.channels)
    assert_array_equal(off.valid, auto.valid)


@pytest.mark.parametrize("flipped", [False, True])
def test_a_flipped_sign_is_named_and_not_flipped_back(flipped: bool):
    positions = DEFOCUS_UM[::-1] if flipped else DEFOCUS_UM
    found = checks_of(pair(SMALL[0]), positions)
    assert found.sign == (-1 if flipped else 1)
    said = " ".join(plane_warnings([{"planes": found.as_mapping()}]))
    assert ("dz may be flipped" in said) is flipped
    assert flipped or not said


@few_steps
def test_brightness_is_reported():
    planes = pair(SMALL[0])
    brighter = planes * np.array([1.0, 1.3])[:, None, None]
    assert_allclose(checks_of(brighter).brightness, 0.3, atol=2e-3)
    assert "30.0% brighter" in " ".join(plane_warnings([conditioned(brighter).estimated]))


@pytest.mark.parametrize(("top", "dtype"), [(255, np.uint8), (4095, np.uint16)])
def test_saturation_is_seen_below_the_top_of_the_type_too(top: int, dtype: type):
    light = np.random.default_rng(0).poisson(np.linspace(0.5, 1.2, 100) * top * np.ones((80, 1)))
    assert clipped_share(light.clip(max=top).astype(dtype)) == pytest.approx((light >= top).mean())
    assert clipped_share((light / 2).astype(dtype)) == 0
    assert clipped_share(light / 2) == 0


@few_steps
def test_the_same_plane_twice_is_said():
    planes = pair(SMALL[0])[[0, 0]]
    assert any(
        "same pixels" in warning for warning in plane_warnings([conditioned(planes).estimated])
    )


@few_steps
def test_frames_are_counted_and_those_nobody_looked_at_are_left_out():
    good, bad = (
        checks_of(planes).as_mapping()
        for planes in (pair(SMALL[0]), moved(pair(SMALL[0]), 3.0, 0.0))
    )
    said = plane_warnings([{"planes": good}, {"planes": bad}, {"planes": bad}])
    assert len(said) == 1
    assert said[0].startswith("in 2 of 3 frames, the first of them 1: the uppermost plane lies +")
    assert plane_warnings([{"noise_sigma": 1.0}]) == ()


@few_steps
def test_what_was_estimated_is_kept_with_the_result(tiny_phase_model):
    planes = moved(pair(SMALL[0]), 3.0, -2.0).astype(np.float32)
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
    assert_allclose(kept["shift_px"], (3.0, -2.0), atol=0.35)
    assert any("Register the planes" in warning for warning in results["auto"].warnings)
    assert results["auto"].settings["align"] == "auto"
    assert results["off"].estimated["frames"][0]["planes"]["shift_px"] is None


@few_steps
@pytest.mark.parametrize("flipped", [False, True])
def test_what_needs_no_registration_is_looked_at_with_align_off_too(flipped: bool):
    counts = (8000 * pair(SMALL[1])).clip(max=8820).round().astype(np.uint16)
    first, second = DEFOCUS_UM if not flipped else DEFOCUS_UM[::-1]
    image = ImageStack(array=counts, axes="PYX", pixel_um=MICROSCOPE.pixel_um)
    known = {"wavelength_um": MICROSCOPE.wavelength_um, "medium_index": MICROSCOPE.medium_index}
    request = ReconstructionRequest(image=image, model="tiny", defocus_um=(first, second), **known)
    said = plane_warnings([prepare_frame(counts, request, PhaseTwoShot()).estimated])
    assert any("sign of dz" in warning for warning in said) is flipped
    assert any("are saturated" in warning for warning in said)
    assert len(said) == 1 + flipped
    twice = plane_warnings([prepare_frame(counts[[0, 0]], request, PhaseTwoShot()).estimated])
    assert any("same pixels" in warning for warning in twice)


def test_another_word_for_align_is_refused():
    with pytest.raises(RequestError, match=r"align is 'on'; allowed are off, auto\."):
        ReconstructionRequest(
            image=ImageStack(array=np.ones((2, 20, 20)), axes="PYX"), model="m", align="on"
        )


def test_the_size_of_the_field_is_width_times_height():
    assert field_text((3, 100, 200), 0.5) == "the field is 100 x 50 um (200 x 100 px of 0.5 um)"


@few_steps
def test_reversed_signs_of_three_positions_put_a_flipped_sign_right() -> None:
    right, wrong, shape = (-1.0, 0.0, 1.5), (1.0, 0.0, -1.5), (96, 110)
    planes = defocus_pair_of(domes(shape), np.zeros(shape), MICROSCOPE, right)
    advised, silent = (
        plane_warnings([conditioned(planes, "off", positions).estimated])
        for positions in (wrong, right)
    )
    assert any("reverse the sign of all positions in defocus_um" in warning for warning in advised)
    assert silent == ()


@few_steps
@pytest.mark.parametrize("align", ["off", "auto"])
def test_a_flipped_sign_is_seen_through_dust_that_a_blank_field_takes_away(align: str):
    y, x = np.mgrid[: SMALL[0][0], : SMALL[0][1]]
    blank = (
        4000
        * (1 - 0.3 * ((y / y.max() - 0.5) ** 2 + (x / x.max() - 0.5) ** 2))
        * (1 - 0.5 * (np.hypot(y % 40 - 20, x % 40 - 20) < 4))
    )
    image = ImageStack(array=pair(SMALL[0]) * blank, axes="PYX", pixel_um=MICROSCOPE.pixel_um)
    known = {
        "wavelength_um": MICROSCOPE.wavelength_um,
        "medium_index": MICROSCOPE.medium_index,
        "background": blank,
        "align": align,
    }
    request = ReconstructionRequest(image=image, model="tiny", defocus_um=DEFOCUS_UM[::-1], **known)
    said = plane_warnings([prepare_frame(image.array, request, PhaseTwoShot()).estimated])
    assert any("sign of dz" in warning for warning in said)


def test_a_pedestal_contradicts_the_noise() -> None:
    counts = np.random.default_rng(0).poisson(2000.0, (2, 64, 64)).astype(np.uint16)
    assert count_electrons(counts) == pytest.approx(2000, rel=0.1)
    with_pedestal = counts + np.uint16(62000)
    found = {"electrons": count_electrons(with_pedestal)}
    assert "pedestal" in pedestal_sentence(found)
    assert pedestal_sentence({"electrons": count_electrons(counts)}) == ""
    assert count_electrons(np.full((2, 64, 64), 9, np.uint16)) is None
    assert count_electrons(counts.astype(float)) is None
