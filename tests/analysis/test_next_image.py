"""The plan of the next image: monotone, and near the error of actual inversions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from defocus_pairs import MICROSCOPE, domes

from napari_cvdm.analysis.next_image import (
    ONE_PLANE,
    PhaseInformation,
    camera_transfer,
    describe_outlook,
    fit_power,
    frequencies,
    mean_of_spectrum,
    middle_of,
    plan_exposure,
    plan_next_image,
    plan_planes,
)
from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.core.result import finished
from napari_cvdm.core.statistics import interior
from napari_cvdm.inversion.priors import PowerLaws
from napari_cvdm.physics.camera import CameraNoise
from napari_cvdm.physics.forward_model import PhaseForwardModel, PhaseObject
from napari_cvdm.reconstruction.plan import resolve
from napari_cvdm.tasks import TASKS
from napari_cvdm.tasks.task import BORDER_PX

SHAPE = (48, 64)
PHOTONS = 2000.0


@pytest.fixture
def known():
    """Prior of an image that nothing was learned of, and noise of `PHOTONS`."""
    model = PhaseForwardModel.create(SHAPE, (-1.0, 1.0), MICROSCOPE)
    precision = PowerLaws.start((), torch.zeros(1)).prior(model).spectrum.double()
    return PhaseInformation(shape=SHAPE, precision=precision, weight=PHOTONS, microscope=MICROSCOPE)


def test_the_error_falls_with_the_light_and_never_rises_with_planes(known):
    errors = [known.error((-1, 1), exposure) for exposure in (0.25, 0.5, 1, 2, 4, 1e6)]
    assert (np.diff(errors) < 0).all()
    pair = known.error((-1.0, 1.0))
    assert all(
        known.error((-1.0, 1.0, z)) <= pair * (1 + 1e-9) for z in (-6.0, -0.5, 0.0, 0.3, 9.0)
    )


def test_a_repeated_pair_is_a_pair_of_twice_the_light(known):
    assert known.error((-1, 1, -1, 1)) == pytest.approx(known.error((-1, 1), 2.0))


def test_without_light_the_error_is_the_prior(known):
    power = (1 / known.precision[1]).numpy()
    assert known.error((-1, 1), 1e-12) == pytest.approx(
        mean_of_spectrum(power, SHAPE[1]) ** 0.5, rel=1e-6
    )


@pytest.mark.parametrize("width", [16, 17])
def test_the_mean_of_a_spectrum_is_the_variance_of_a_pixel(width):
    image = np.random.default_rng(0).normal(size=(12, width))
    power = np.abs(np.fft.rfft2(image)) ** 2 / image.size
    assert mean_of_spectrum(power, width) == pytest.approx(image.var())


def test_the_plan_compares_what_can_be_changed(known):
    found = plan_planes(known, (-1.0, 1.0))
    assert found.twice < found.now == pytest.approx(known.error((-1.0, 1.0)))
    assert found.plane_error < found.now
    assert found.best_error <= found.now * (1 + 1e-9)
    assert found.best_error == pytest.approx(known.error(found.best_um))
    assert found.curve[0] < found.present < found.curve[-1]
    said = describe_outlook(found)
    assert "Twice the light: error" in said
    assert "rad" in said
    assert "one more plane at" in said
    tripled = plan_planes(known, (-1.0, 0.5, 1.0))
    assert len(tripled.best_um) == 3


def planes_of(phase, defocus_um, seed):
    """Planes of a phase alone, with noise."""
    model = PhaseForwardModel.create(phase.shape, defocus_um, MICROSCOPE)
    maps = torch.stack([torch.zeros(phase.shape), torch.from_numpy(phase).float()])
    expected = model.apply(PhaseObject(maps=maps, illumination=model.zero().illumination))
    return np.random.default_rng(seed).poisson(expected.numpy().clip(0) * PHOTONS) / PHOTONS


def resolved(planes, defocus_um):
    request = ReconstructionRequest(
        image=ImageStack(array=planes, axes="PYX", pixel_um=MICROSCOPE.pixel_um),
        model="phase-2shot",
        wavelength_um=MICROSCOPE.wavelength_um,
        medium_index=MICROSCOPE.medium_index,
        defocus_um=defocus_um,
        background="none",
        device="cpu",
    )
    return resolve(request, TASKS["phase-2shot"])


@pytest.mark.parametrize("half_um", [1.0])
def test_the_expected_error_is_that_of_inversions(half_um):
    """Within 30 %, of a weak phase object whose noise decides, over two draws of the noise.

    It inverts four times, which takes some seconds.
    """
    phase, positions = domes((72, 72), 0.3), (-half_um, half_um)
    inner = interior(phase.shape, BORDER_PX)
    squares, expected = [], []
    for seed in (0, 1):
        planes = planes_of(phase, positions, seed)
        plan = resolved(planes, positions)
        prepared = finished(TASKS["phase-2shot"].prepare(planes, plan))
        known = PhaseInformation.of_fit(prepared.posterior.fit, plan)
        expected.append(known.error(positions) ** 2)
        squares.append(np.var((prepared.estimate - phase)[inner]))
    ratio = (np.mean(expected) / np.mean(squares)) ** 0.5
    assert 0.7 < ratio < 1.3


@pytest.mark.usefixtures("remembered_inversions")
def test_an_image_is_planned_from_its_planes():
    planes = planes_of(domes((96, 96), 0.3), (-1.0, 1.0), 0)
    found = finished(plan_next_image(planes, resolved(planes, (-1.0, 1.0)), "phase-2shot"))
    assert found.of_planes
    assert found.unit == "rad"
    assert 0 < found.twice < found.now < 0.2


def random_light(shape, amplitude, exponent, seed):
    """A field of this power A f^-a about a mean of 500 counts."""
    white = np.fft.rfft2(np.random.default_rng(seed).normal(size=shape))
    power = amplitude * frequencies(shape) ** -exponent
    power[0, 0] = 0
    return 500 + np.fft.irfft2(white * np.sqrt(power), s=shape)


@pytest.fixture
def blur():
    """Transfer function of a Gaussian of 1.5 px."""
    return np.exp(-2 * (np.pi * 1.5 * frequencies((128, 128))) ** 2)


def test_the_power_of_an_object_is_found(blur):
    light = random_light((128, 128), 3.0, 2.4, 1)
    seen = np.fft.irfft2(np.fft.rfft2(light) * blur, s=light.shape)
    seen += np.random.default_rng(2).normal(scale=5, size=light.shape)
    amplitude, exponent = fit_power(seen, blur, 25.0)
    assert exponent == pytest.approx(2.4, abs=0.2)
    middle = 0.03
    assert amplitude * middle**-exponent == pytest.approx(3.0 * middle**-2.4, rel=0.3)


def test_the_expected_error_is_that_of_a_wiener_deconvolution(blur):
    """Within 30 %: the filter is that of the true power and noise."""
    light, gain = random_light((128, 128), 3.0, 2.4, 3), 0.5
    seen = np.fft.irfft2(np.fft.rfft2(light) * blur, s=light.shape)
    rng = np.random.default_rng(4)
    seen = rng.poisson(seen.clip(0) / gain) * gain
    power, noise = 3.0 * frequencies(light.shape) ** -2.4, gain * 500
    wiener = blur * power / (blur**2 * power + noise)
    wiener[0, 0] = 1
    error = (np.fft.irfft2(np.fft.rfft2(seen) * wiener, s=light.shape) - light).std()
    found = plan_exposure(seen, blur, CameraNoise(gain=gain, read_variance=0.0))
    assert found.now == pytest.approx(error, rel=0.3)
    assert found.twice < found.now
    assert (np.diff(found.errors) < 0).all()
    assert not found.of_planes
    assert ONE_PLANE in describe_outlook(found)


def test_an_image_without_noise_is_answered_in_words(blur):
    with pytest.raises(RequestError, match="no noise"):
        plan_exposure(np.ones((128, 128)), blur, CameraNoise(gain=0.0, read_variance=0.0))


def test_the_transfer_of_a_point_is_that_of_the_pixel():
    point = np.zeros((9, 9))
    point[4, 4] = 1
    np.testing.assert_allclose(camera_transfer(point, (16, 18), 1), 1)
    wide = camera_transfer(np.full((9, 9), 1 / 81), (16, 18), 2)
    assert wide[0, 0] == pytest.approx(1)
    assert (wide <= 1 + 1e-12).all()


def test_the_middle_stands_for_a_large_image():
    plan = resolved(np.ones((2, 96, 96)), (-1.0, 1.0))
    rows, columns = middle_of((1000, 150), plan)
    assert (rows, columns) == (slice(404, 596), slice(0, 150))
    part = middle_of((1000, 1000), replace(plan, region=(10, 60, 700, 1000)))
    assert part == (slice(10, 60), slice(754, 946))
