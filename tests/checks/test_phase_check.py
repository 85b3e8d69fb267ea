"""A phase imaged again by the fitted model.

The truth leaves noise, a false phase leaves more.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cut_planes import OPTICS, CutPlanes, Optics, take_planes

from napari_cvdm.checks.forward_check import ForwardCheckAccumulator, forward_model_for
from napari_cvdm.checks.phase_check import PhaseCheckModel
from napari_cvdm.checks.plane_warnings import order_sentence, reverse_positions
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import finished
from napari_cvdm.core.statistics import RunningMoments
from napari_cvdm.inversion import posterior
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.reconstruction.plan import prepare_frame, resolve
from napari_cvdm.simulate import samples
from napari_cvdm.tasks import PhaseTwoShot, phase
from napari_cvdm.tasks.phase_inversion import PhaseEstimate, draw_phases, fit_surrounded

pytestmark = pytest.mark.usefixtures("remembered_inversions")
SHAPE = (72, 64)
BUMP = (40, 34)
STAINED = {"absorbance": 0.02, "ramp": 0.005}  # and in uneven light


@pytest.fixture
def card(tiny_phase_model):
    return load_checkpoint(tiny_phase_model).card


def cells(optics: str | Optics, **changes) -> CutPlanes:
    """Planes of cells in a small frame."""
    taken = OPTICS[optics] if isinstance(optics, str) else optics
    return take_planes(taken, shape=SHAPE, **changes)


def imaging(request: ReconstructionRequest, card) -> PhaseCheckModel:
    """How planes of photons were imaged; their noise is known, so its estimate is not tested."""
    pixels = request.image.frame(())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(posterior, "SOLVE_STEPS", 1)  # of draws, which nobody looks at
        prepared = prepare_frame(pixels, request, PhaseTwoShot())
    how = finished(forward_model_for(prepared, resolve(request, PhaseTwoShot()), card))
    photons = torch.tensor(prepared.estimated["background"], dtype=torch.float32).mean()
    known = photons / how.fit.linearisation.expected.clamp(min=0.02)
    fit = replace(how.fit, weight=torch.where(how.fit.weight > 0, known, 0.0))
    return finished(PhaseCheckModel.create(fit, request.defocus_um, request.region))


def chi2(how: PhaseCheckModel, image: np.ndarray) -> float:
    return finished(how.compare(image)).chi2(how.valid)


def with_bump(phase: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: phase.shape[0], : phase.shape[1]]
    return phase + 0.3 * np.exp(-((y - BUMP[0]) ** 2 + (x - BUMP[1]) ** 2) / 32)


@pytest.mark.parametrize(
    ("optics", "seen"), [*((name, STAINED) for name in OPTICS), ("symmetric", {})]
)
def test_the_truth_leaves_noise_alone_and_another_phase_more_whatever_the_optics_and_the_light(
    optics, seen, card
):
    taken = cells(optics, **seen)
    how = imaging(taken.request(), card)
    truth = chi2(how, taken.phase)
    assert truth == pytest.approx(1.0, abs=0.1)
    assert chi2(how, taken.phase + 5.0) == pytest.approx(
        truth, rel=0.02
    )  # a constant phase changes no intensity
    assert how.measured.shape == (len(OPTICS[optics].defocus_um), *SHAPE)
    assert chi2(how, with_bump(taken.phase)) > 1.2 * truth
    assert chi2(how, -taken.phase) > 20 * truth
    assert chi2(how, taken.phase / 2) > 5 * truth


def test_optics_that_were_stated_wrongly_leave_more(card):
    taken = cells("upper plane first", **STAINED)
    positions, pixel_um = taken.optics.defocus_um, taken.optics.microscope.pixel_um
    truth = chi2(imaging(taken.request(), card), taken.phase)
    for wrong, least in (
        ({"pixel_um": 2 * pixel_um}, 5),
        ({"defocus_um": tuple(1.3 * z for z in positions)}, 1.5),
        ({"defocus_um": tuple(-z for z in positions)}, 20),
    ):
        assert chi2(imaging(taken.request(**wrong), card), taken.phase) > least * truth, wrong


def test_local_chi2_marks_the_place_of_a_bump_that_is_not_there(card):
    taken = cells("symmetric")
    how = imaging(taken.request(), card)
    comparison = finished(how.compare(with_bump(taken.phase)))
    found = comparison.local_chi2(how.valid)
    assert np.abs(np.array(np.unravel_index(found.argmax(), found.shape)) - BUMP).max() <= 3
    assert found.max() > 10
    assert np.median(found) == pytest.approx(1.0, abs=0.25)
    assert found.mean() == pytest.approx(comparison.chi2(how.valid), rel=0.05)


def test_pixels_that_were_not_measured_do_not_count(card):
    taken = cells("three planes")
    counts = taken.counts.copy()
    counts[1, 25:45, 15:40] = 65535
    counts[0, 56:66, 40:58] = 0
    blank = np.full(SHAPE, 1e4)
    how = imaging(replace(taken, counts=counts.astype(np.uint16)).request(background=blank), card)
    comparison = finished(how.compare(taken.phase))
    assert not how.counted[1, 25:45, 15:40].any() and not how.counted[0, 56:66, 40:58].any()
    assert how.valid.all()  # another plane has measured them
    assert not comparison.residual[~how.counted].any()
    assert comparison.chi2(how.valid) == pytest.approx(1.0, abs=0.1)
    assert comparison.local_chi2(how.valid)[30:40, 20:35].mean() == pytest.approx(1.0, abs=0.3)


def test_a_region_is_the_part_of_the_whole(card):
    taken, (top, bottom, left, right) = cells("symmetric"), (8, 64, 6, 58)
    whole, part = (
        imaging(taken.request(region=region), card) for region in (None, (top, bottom, left, right))
    )
    inner = (slice(top, bottom), slice(left, right))
    np.testing.assert_array_equal(part.measured, whole.measured[:, *inner])
    draw = (
        finished(draw_phases(whole.fit, 1, range(1)))[0][whole.fit.model.frame].numpy()
        + whole.fit.phase.numpy()
    )
    found, expected = finished(part.compare(draw[inner])), finished(whole.compare(draw))
    assert found.residual.shape == (2, bottom - top, right - left)
    core = (slice(None), slice(16, -16), slice(16, -16))
    assert np.std(found.residual[core] - expected.residual[:, *inner][core]) < 0.3
    assert chi2(part, taken.phase[inner]) == pytest.approx(1.0, abs=0.15)


def checked(request: ReconstructionRequest, card, count: int):
    """The check of draws of the posterior and their mean, as of a run."""
    pixels = request.image.frame(())
    prepared = prepare_frame(pixels, request, PhaseTwoShot())
    fit = prepared.posterior.fit
    drawn = (
        finished(draw_phases(fit, 1, range(count)))[:, *fit.model.frame].numpy() + fit.phase.numpy()
    )
    record = ForwardCheckAccumulator(resolve(request, PhaseTwoShot()), card, None)
    finished(record.begin((), prepared))
    for sample in drawn:
        finished(record.see(sample - sample.mean()))
    finished(record.end(RunningMoments(np.mean(drawn, axis=0), np.var(drawn, axis=0), count)))
    return record.result()


@pytest.mark.parametrize("sample", ["cell", "measured_cell"])
def test_samples_of_the_physics_explain_the_package_s_own_samples(sample, card):
    image, positions = {
        "cell": (samples.cell_planes, samples.CELL_DEFOCUS_UM),
        "measured_cell": (samples.measured_cell_planes, samples.MEASURED_DEFOCUS_UM),
    }[sample]
    whole = image()
    part = replace(whole, array=whole.array[:, :128, :128])
    found = checked(
        ReconstructionRequest(image=part, model="tiny", samples=4, steps=2, defocus_um=positions),
        card,
        4,
    )
    assert 0.7 < found.chi2 < 1.2  # bounded from below by how well the noise is known
    assert found.explained and found.unexplained == pytest.approx(0.0, abs=0.05)
    assert found.local_chi2.mean() == pytest.approx(found.chi2, rel=0.05)


def test_the_number_of_samples_does_not_choose_the_chi2_of_their_mean(card):
    for count in (1, 8):
        found = checked(cells("three planes", **STAINED).request(), card, count)
        assert found.chi2 == pytest.approx(1.0, abs=0.1)
        assert float(found.sample_chi2) == pytest.approx(1.0, abs=0.1)


def said(taken: CutPlanes, **changes) -> str:
    request = taken.request(**changes)
    prepared = prepare_frame(request.image.frame(()), request, PhaseTwoShot())
    return order_sentence(prepared.posterior.fit, resolve(request, PhaseTwoShot()))


@pytest.fixture
def surrounded_alone(monkeypatch):
    """The order is tried on planes of a fit before its edges and its border are looked at."""

    def inverted(*given):
        fit = yield from fit_surrounded(*given)
        return PhaseEstimate(fit=fit, other=fit.phase, periodic=False)

    monkeypatch.setattr(phase, "invert_planes", inverted)
    monkeypatch.setattr(posterior, "SOLVE_STEPS", 1)


@pytest.mark.usefixtures("surrounded_alone")
@pytest.mark.parametrize("positions", [(0.0, 4.0), (-3.0, 1.0), (-4.0, 0.0, 1.0)])
def test_planes_of_a_strong_object_in_the_wrong_order_are_found_by_trying(positions):
    taken = cells(Optics(defocus_um=positions), absorbance=0.01)
    assert said(taken) == ""
    assert f"--defocus-um {' '.join(f'{z:g}' for z in positions)}." in said(
        taken, defocus_um=positions[::-1]
    )


@pytest.mark.usefixtures("surrounded_alone")
def test_the_order_of_a_weak_object_is_not_said_to_be_wrong():
    taken = cells(Optics(defocus_um=(0.0, 4.0)), strength=0.03, photons=1e3)
    assert said(taken) == "" == said(taken, defocus_um=(4.0, 0.0))


def test_the_sign_of_all_positions_cannot_be_told_from_the_planes(card):
    """The opposite phase at the opposite positions fits equally well.

    The image at -z of the complex conjugate field is the image at z.
    """
    taken = cells("symmetric", **STAINED)
    fit, flipped = (
        imaging(taken.request(defocus_um=positions), card).fit
        for positions in ((-2.5, 2.5), (2.5, -2.5))
    )
    np.testing.assert_allclose(flipped.phase, -fit.phase, atol=0.02)
    assert float(flipped.chi2) == pytest.approx(float(fit.chi2), rel=1e-2)
    assert said(taken) == "" == said(taken, defocus_um=(2.5, -2.5))


def test_positions_are_reversed_plane_by_plane():
    assert reverse_positions((0.0, 2.0)) == (2.0, 0.0)
    assert reverse_positions((1.0, -3.0, 0.0)) == (-3.0, 1.0, 0.0)


def test_planes_without_noise_are_not_compared(card):
    constant = ImageStack(array=np.full((2, 64, 64), 1000.0), axes="PYX", pixel_um=0.2)
    request = replace(cells("symmetric").request(), image=constant)
    prepared = prepare_frame(constant.array, request, PhaseTwoShot())
    with pytest.raises(ValueError, match="no noise"):
        finished(forward_model_for(prepared, resolve(request, PhaseTwoShot()), card))
