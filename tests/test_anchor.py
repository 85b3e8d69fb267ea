"""A sample that is tied to US-TIE: the equation on the whole spectrum, for every parity of the image's sides."""

import numpy as np
import pytest
import torch

from napari_cvdm.microscope import Microscope
from napari_cvdm.request import ImageStack, RestoreRequest
from napari_cvdm.simulate.phase import defocus_pair_of
from napari_cvdm.simulate.phase_objects import power_law_field
from napari_cvdm.tasks import TASKS
from napari_cvdm.tasks.anchor import Anchor

MICROSCOPE = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.33)


def anchor_of(shape: tuple[int, int]) -> Anchor:
    """Of two noisy planes."""
    rng = np.random.default_rng(0)
    phase = power_law_field(rng, shape)
    planes = rng.poisson(3000 * defocus_pair_of(phase, 0 * phase, MICROSCOPE, (-1.0, 1.0))).astype(np.float32)
    image = ImageStack(array=planes, axes="PYX", pixel_um=0.2)
    request = RestoreRequest(image=image, model="phase-2shot", wavelength_um=0.55, medium_index=1.33, defocus_um=(-1.0, 1.0))
    anchor = TASKS["phase-2shot"].from_request(planes, request).anchor
    assert isinstance(anchor, Anchor)
    return anchor


@pytest.mark.parametrize("shape", [(64, 64), (65, 64), (64, 81), (45, 63)])
def test_half_a_spectrum_ties_as_the_whole_one(shape: tuple[int, int]) -> None:
    anchor, rng = anchor_of(shape), np.random.default_rng(1)
    sample, white = rng.standard_normal(shape).astype(np.float32), rng.standard_normal(shape).astype(np.float32)
    own, noise = (torch.fft.fft2(torch.from_numpy(image).double()) for image in (sample, white))
    tied = own + anchor.gain * (torch.fft.fft2(anchor.phase) - own) + anchor.noise_amplitude * noise
    whole = torch.fft.ifft2(tied)
    assert whole.imag.abs().max() < 1e-12, "filters that are not even give complex images"
    expected = whole.real.numpy() if anchor.levelling is None else anchor.levelling.apply(whole.real.numpy())
    np.testing.assert_allclose(anchor.apply(sample, white), expected, atol=1e-5)
