"""A model and what it is compared with get the same aligned planes.

It is compared with the classical methods and checked against the measured image.
"""

import numpy as np
import pytest
from defocus_pairs import DEFOCUS_UM, MICROSCOPE, domes, lit, moved, pair

from napari_cvdm.checks.forward_check import forward_model_for
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.core.result import finished as drained
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.reconstruction.choice import load_method, reconstruct
from napari_cvdm.tasks import PhaseTwoShot
from napari_cvdm.tasks.conditioned import interior

SHAPE = (161, 210)
METHODS = ("us-tie", "wotf:1e-3")  # without low spatial frequencies, where noise is large
MISTAKES = {
    "moved": lambda planes: moved(planes, 1.4, -0.8),
    "lit": lambda planes: lit(planes, 0.02, -0.01, 0.0, 0.0, 0.0),
}


def request(
    planes: np.ndarray, model: str, align: str = "auto", order: int = 1
) -> ReconstructionRequest:
    optics = {
        "wavelength_um": MICROSCOPE.wavelength_um,
        "medium_index": MICROSCOPE.medium_index,
        "defocus_um": DEFOCUS_UM[::order],
    }
    image = ImageStack(
        array=np.ascontiguousarray(planes[::order]), axes="PYX", pixel_um=MICROSCOPE.pixel_um
    )
    return ReconstructionRequest(image=image, model=model, align=align, **optics)


def solved(planes: np.ndarray, model: str, align: str, order: int = 1) -> Reconstruction:
    return drained(reconstruct(request(planes, model, align, order), load_method(model)))


def away(one: Reconstruction, other: Reconstruction) -> float:
    kept = one.valid & other.valid
    return float(np.std((one.mean - other.mean)[kept]))


@pytest.mark.parametrize(("method", "order"), [("us-tie", 1), ("us-tie", -1), ("wotf:1e-3", 1)])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_classical_method_of_a_pair_put_right_is_near_that_of_the_pair_without_a_mistake(
    method: str, mistake: str, order: int
):
    good = pair(SHAPE)
    wrong = MISTAKES[mistake](good)
    best = solved(good, method, "off")
    off, auto = (solved(wrong, method, align, order) for align in ("off", "auto"))
    assert away(auto, best) < 0.35 * away(off, best)
    assert auto.provenance.estimated["frames"][0]["planes"]["corrected"]
    assert any("moved back" in said or "divided out" in said for said in auto.provenance.warnings)
    assert "planes" not in off.provenance.estimated["frames"][0]


@pytest.mark.parametrize("method", METHODS)
def test_a_pair_without_a_mistake_stays_as_it_is_to_the_bit(method: str):
    good = pair(SHAPE)
    np.testing.assert_array_equal(
        solved(good, method, "auto").mean, solved(good, method, "off").mean
    )


def test_pixels_that_only_one_plane_saw_are_trusted_as_little_as_a_model_s():
    wrong = moved(pair(SHAPE), 6.3, -4.8)
    model = PhaseTwoShot().condition(wrong, MICROSCOPE, DEFOCUS_UM, "auto", "auto")
    of_model, of_method = model.kept(model.valid), solved(wrong, "us-tie", "auto").valid
    assert not (of_method & ~of_model).any()
    inner = interior(SHAPE, 24)  # methods without surroundings do not trust the border
    np.testing.assert_array_equal(of_method[inner], of_model[inner])


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_truth_explains_a_pair_that_was_put_right(mistake: str, order: int, tiny_phase_model):
    good, card = pair(SHAPE), load_checkpoint(tiny_phase_model).card

    def chi2(planes: np.ndarray, align: str) -> float:
        given = request(planes, "tiny", align, order)
        pixels = given.image.frame(())
        how = forward_model_for(pixels, PhaseTwoShot().from_request(pixels, given), given, card)
        return how.compare(domes(SHAPE)).chi2(how.valid)

    wrong = MISTAKES[mistake](good)
    put_right = chi2(wrong, "auto")
    assert put_right < 1.2 * chi2(good, "off")
    assert (
        mistake == "lit" or chi2(wrong, "off") > 1.5 * put_right
    )  # light of second order is taken out by the check itself
