"""What lies beyond the frame: laws of the error that a field makes which does not repeat."""

import numpy as np
import pytest
import torch

from napari_cvdm.microscope import Microscope
from napari_cvdm.model.checkpoint import load_checkpoint
from napari_cvdm.physics.tie import us_tie_of
from napari_cvdm.request import ImageStack, RestoreRequest
from napari_cvdm.restore import restore
from napari_cvdm.result import finished
from napari_cvdm.simulate.phase import defocus_pair_of
from napari_cvdm.simulate.phase_objects import power_law_field
from napari_cvdm.tasks.surroundings import SMALLEST_CROSSING, Surroundings, crossing_share, error_of_repeating
from napari_cvdm.trust.validity import crossing_warnings

MICROSCOPE = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.33)
SHAPES = [(40, 48), (41, 33)]


def noise(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_field_that_repeats_has_no_error(shape: tuple[int, int]):
    field = noise(shape)
    around = torch.from_numpy(np.pad(field.numpy(), 1, mode="wrap"))
    torch.testing.assert_close(error_of_repeating(around), torch.zeros(shape, dtype=torch.float64), atol=1e-10, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_has_no_laplacian_but_a_constant(shape: tuple[int, int]):
    error = error_of_repeating(noise((shape[0] + 2, shape[1] + 2))).numpy()
    inside = error[2:, 1:-1] + error[:-2, 1:-1] + error[1:-1, 2:] + error[1:-1, :-2] - 4 * error[1:-1, 1:-1]
    np.testing.assert_allclose(inside, inside.mean(), atol=1e-9)
    assert error.std() > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_draws_cancel_in_pairs_and_do_not_depend_on_the_order(shape: tuple[int, int]):
    surroundings = Surroundings(phase=noise(shape), share=1.0)
    first, opposite, other = (surroundings.drift(7, sample) for sample in (0, 1, 2))
    np.testing.assert_array_equal(first, -opposite)
    assert not np.allclose(np.abs(first), np.abs(other))
    np.testing.assert_array_equal(first, surroundings.drift(7, 0))
    assert not np.allclose(first, surroundings.drift(8, 0))
    np.testing.assert_allclose(first.mean(), 0, atol=1e-12)


def test_draws_are_as_large_as_the_error_of_fields_that_the_frame_cuts():
    """Over many fields: US-TIE of the middle of a larger field, against draws that see the middle only."""
    actual, drawn = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        phase = power_law_field(rng, (120, 120))
        planes = defocus_pair_of(phase, np.zeros_like(phase), MICROSCOPE, (-0.3, 0.3))[:, 20:100, 20:100]
        solved = us_tie_of(torch.from_numpy(planes).double(), (-0.3, 0.3), MICROSCOPE)
        actual.append(np.var(solved.numpy() - phase[20:100, 20:100]))
        surroundings = Surroundings(phase=solved, share=1.0)
        drawn.append(np.mean([np.var(surroundings.drift(seed, 2 * number)) for number in range(8)]))
    assert 0.5 < np.sqrt(np.mean(drawn) / np.mean(actual)) < 2


def test_the_share_tells_objects_in_the_middle_from_objects_that_cross():
    y, x = np.mgrid[:96, :80]
    radius2 = ((y - 48) ** 2 + (x - 40) ** 2) / 50.0
    middle = (1 - radius2) * np.exp(-radius2)  # light that moves about within the object, and is not lost
    everywhere = np.sin(y / 3.0) * np.sin(x / 2.0)
    for brightness in (1e-3, 1.0, 1e3):
        assert crossing_share(brightness * middle, 0.0) == pytest.approx(SMALLEST_CROSSING**0.5)
        assert crossing_share(brightness * everywhere, 0.0) > 0.8
    for seed in range(20):
        assert crossing_share(np.random.default_rng(seed).standard_normal((96, 80)), 1.0) < 0.7  # noise is no object
    assert crossing_share(np.zeros((96, 80)), 0.0) == pytest.approx(SMALLEST_CROSSING**0.5)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_preview_draws_nothing_and_a_sample_does(steps: int, tiny_phase_model, monkeypatch):
    drawn = []
    monkeypatch.setattr(Surroundings, "drift", lambda self, seed, sample: drawn.append(sample) or 0.0)
    planes = defocus_pair_of(power_law_field(np.random.default_rng(0), (48, 48)), np.zeros((48, 48)), MICROSCOPE, (-0.3, 0.3))
    image = ImageStack(array=planes, axes="PYX", pixel_um=MICROSCOPE.pixel_um)
    known = {"wavelength_um": MICROSCOPE.wavelength_um, "medium_index": MICROSCOPE.medium_index, "defocus_um": (-0.3, 0.3)}
    request = RestoreRequest(image=image, model="tiny", samples=2, steps=steps, device="cpu", background="none", **known)
    result = finished(restore(request, load_checkpoint(tiny_phase_model)))
    assert np.isfinite(result.mean).all()
    assert (set(drawn) == {0, 1}) is (steps > 1)


def test_objects_at_the_edge_are_warned_of_once():
    much, little, other = {"crossing_share": 0.9}, {"crossing_share": 0.3}, {"dark_level": 100.0}
    assert crossing_warnings([little, other]) == ()
    assert crossing_warnings([much])[0].startswith("objects reach the edge of the image: ")
    assert crossing_warnings([little, much, much])[0].startswith("objects reach the edge of the image in 2 of 3 frames: ")
