"""Laws of image formation: inverses, conservation, known limits, on rectangular and odd grids."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_cvdm.core.microscope import Camera, Microscope, OpticsError
from napari_cvdm.physics.camera import expose
from napari_cvdm.physics.forward_model import PhaseForwardModel
from napari_cvdm.physics.fresnel import circular_pupil, fresnel_transfer, propagate, squared_radius
from napari_cvdm.physics.tie import (
    axial_difference,
    divergence_of_flux,
    high_pass,
    inverse_laplacian,
    solvable,
    solve_us_tie,
)
from napari_cvdm.physics.widefield import (
    bin_pixels,
    blur,
    gaussian_transfer,
    optical_transfer,
    widefield_psf,
)

SHAPES = [(64, 64), (65, 64), (31, 50), (7, 9)]
BRIGHTFIELD = Microscope(pixel_um=0.21, wavelength_um=0.521, medium_index=1.0)


def random_field(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.complex128)


def smooth_phase(shape: tuple[int, int], strength: float) -> torch.Tensor:
    y = torch.linspace(-1, 1, shape[0] + 1, dtype=torch.float64)[:-1, None]
    x = torch.linspace(-1, 1, shape[1] + 1, dtype=torch.float64)[None, :-1]
    phase = strength * torch.exp(
        -12 * ((y - 0.1) ** 2 + (x + 0.1) ** 2)
    ) + 0.3 * strength * torch.exp(-30 * ((y + 0.3) ** 2 + (x - 0.3) ** 2))
    return phase - phase.mean()


def planes_of(
    field: torch.Tensor, defocus_um: Sequence[float], microscope: Microscope
) -> torch.Tensor:
    """Intensities (..., P, Y, X) of a periodic field (..., Y, X)."""
    model = PhaseForwardModel.create(field.shape[-2:], defocus_um, microscope, like=field.real)
    return model.apply(
        replace(
            model.zero(field.shape[:-2]),
            maps=torch.stack([field.abs().log(), field.angle()], dim=-3),
        )
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_fresnel_there_and_back_is_the_identity(shape):
    field = random_field(shape)
    there = propagate(field, fresnel_transfer(shape, 3.7, BRIGHTFIELD, field))
    back = propagate(there, fresnel_transfer(shape, -3.7, BRIGHTFIELD, field))
    torch.testing.assert_close(back, field, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_propagation_keeps_the_energy(shape):
    field = random_field(shape)
    there = propagate(field, fresnel_transfer(shape, 5.0, BRIGHTFIELD, field))
    torch.testing.assert_close(there.abs().square().sum(), field.abs().square().sum())


def test_two_short_ways_are_one_long_way():
    field = random_field((33, 40))
    halves = propagate(
        propagate(field, fresnel_transfer((33, 40), 1.0, BRIGHTFIELD, field)),
        fresnel_transfer((33, 40), 1.5, BRIGHTFIELD, field),
    )
    torch.testing.assert_close(
        halves,
        propagate(field, fresnel_transfer((33, 40), 2.5, BRIGHTFIELD, field)),
        rtol=0,
        atol=1e-12,
    )


def test_fresnel_is_the_angular_spectrum_at_small_angles():
    """exp(i 2 pi z (sqrt(1/lambda^2 - f^2) - 1/lambda))."""
    coarse = Microscope(pixel_um=5.0, wavelength_um=0.5, medium_index=1.33)
    field, inverse_wavelength = random_field((48, 40)), 1.33 / 0.5
    axial = (
        inverse_wavelength**2 - squared_radius((48, 40), 5.0, field)
    ).sqrt() - inverse_wavelength
    exact = torch.polar(torch.ones_like(axial), 2 * torch.pi * 20.0 * axial)
    torch.testing.assert_close(
        exact, fresnel_transfer((48, 40), 20.0, coarse, field), rtol=0, atol=2e-3
    )


def test_a_converging_lens_brightens_toward_the_objective():
    """A positive phase bump focuses light at +z: the sign convention of the whole project."""
    phase = smooth_phase((128, 128), 1.0)
    field = torch.polar(torch.ones_like(phase), phase)
    peak = divmod(int(phase.argmax()), 128)
    above, below = planes_of(field, (2.0, -2.0), BRIGHTFIELD)[:, *peak]
    assert above > 1.0 > below


def test_a_pupil_removes_what_it_does_not_pass():
    with_pupil = Microscope(pixel_um=0.1, wavelength_um=0.5, na=0.4)
    y = torch.arange(64, dtype=torch.float64)[:, None].expand(64, 64)
    grating = torch.polar(
        torch.ones_like(y), 0.1 * torch.sin(2 * torch.pi * y / 4)
    )  # 2.5 cycles/um against a cutoff of 0.8
    torch.testing.assert_close(
        planes_of(grating, (1.0,), with_pupil).std(),
        torch.zeros((), dtype=torch.float64),
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_each_plane_is_the_light_that_went_there_alone(shape):
    microscope, defocus_um = Microscope(pixel_um=0.2, wavelength_um=0.5, na=0.4), (-1.0, 0.0, 2.5)
    fields = torch.stack([random_field(shape, seed) for seed in (0, 1)])
    planes = planes_of(fields, defocus_um, microscope)
    pupil = circular_pupil(shape, 0.2, 0.4 / 0.5, fields)
    assert planes.shape == (2, 3, *shape)
    for index, z in enumerate(defocus_um):
        alone = torch.stack(
            [
                propagate(field, pupil * fresnel_transfer(shape, z, microscope, field))
                .abs()
                .square()
                for field in fields
            ]
        )
        torch.testing.assert_close(planes[:, index], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(96, 96), (97, 120)])
def test_us_tie_recovers_a_known_phase(shape):
    phase = smooth_phase(shape, 1.1)
    field = torch.polar(torch.ones_like(phase), phase)
    planes = planes_of(field, (-1.0, 1.0), BRIGHTFIELD)
    found = solve_us_tie(
        planes.mean(dim=0), axial_difference(planes, (-1.0, 1.0)), BRIGHTFIELD, regularisation=1e-12
    )
    assert (found - phase).square().mean().sqrt() < 0.01


def test_noise_at_half_the_sampling_rate_is_not_fed_back():
    """Even sizes have a wave without a derivative: it must not grow with the rounds of feedback."""
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.01, (64, 48)))
    spectrum = torch.fft.fft2(solve_us_tie(1 + 0.1 * noise, noise, BRIGHTFIELD)).abs()
    assert spectrum[32].mean() < 2 * spectrum[31].mean()
    assert spectrum[:, 24].mean() < 2 * spectrum[:, 23].mean()


def test_what_no_flux_can_make_is_left_out_once():
    density = torch.from_numpy(np.random.default_rng(1).normal(1, 1, (12, 9)))
    kept = solvable(density)
    assert abs(kept.mean()) < 1e-12
    torch.testing.assert_close(solvable(kept), kept)
    smooth = torch.sin(2 * torch.pi * torch.arange(12, dtype=torch.float64) / 4)[:, None].expand(
        12, 9
    )
    torch.testing.assert_close(solvable(smooth), smooth)


def test_us_tie_recovers_a_phase_under_absorption():
    phase = smooth_phase((96, 110), 1.0)
    absorbed = 0.5 + 0.5 * torch.exp(-smooth_phase((96, 110), 1.0).square())
    field = torch.polar(absorbed.sqrt(), phase)
    planes = planes_of(field, (-0.5, 0.5), BRIGHTFIELD)
    found = solve_us_tie(
        planes_of(field, (0.0,), BRIGHTFIELD)[0],
        axial_difference(planes, (-0.5, 0.5)),
        BRIGHTFIELD,
        regularisation=1e-12,
    )
    assert (found - phase).square().mean().sqrt() < 0.01


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_phase_does_not_depend_on_the_unit_of_length(scale):
    """lambda, z and pixel scaled together leave the images, and so the phase, unchanged."""
    phase = smooth_phase((64, 64), 0.8)
    scaled = Microscope(
        pixel_um=BRIGHTFIELD.pixel_um * scale, wavelength_um=BRIGHTFIELD.wavelength_um * scale
    )
    field = torch.polar(torch.ones_like(phase), phase)
    results = []
    for microscope, z in ((BRIGHTFIELD, 1.0), (scaled, scale)):
        planes = planes_of(field, (-z, z), microscope)
        results.append(
            solve_us_tie(planes.mean(dim=0), axial_difference(planes, (-z, z)), microscope)
        )
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-9)


def test_inverse_laplacian_inverts_the_divergence_of_uniform_light():
    phase = smooth_phase((45, 64), 1.0)
    density = divergence_of_flux(torch.ones_like(phase), phase, 0.2)
    torch.testing.assert_close(inverse_laplacian(density, 0.2, 0.0), phase, rtol=0, atol=1e-4)


def test_high_pass_is_one_half_at_its_stated_period():
    r, size = 1e-5, 1120
    period = 2 * np.pi / r**0.25
    gain = high_pass((size, 1), 0.3, r, torch.zeros(1, dtype=torch.float64))[
        round(size / period), 0
    ]
    assert abs(float(gain) - 0.5) < 0.02
    assert float(high_pass((8, 8), 1.0, r, torch.zeros(1, dtype=torch.float64))[0, 0]) == 0


@pytest.mark.parametrize(("na", "index"), [(0.8, 1.0), (1.2, 1.33), (1.4, 1.518)])
def test_psf_width_follows_wavelength_over_na(na, index):
    psf = widefield_psf(
        Microscope(pixel_um=0.02, wavelength_um=0.52, medium_index=index, na=na), 101
    )
    profile = psf[50] / psf[50, 50]
    width = 0.02 * float((profile > 0.5).sum())
    assert (
        abs(width / (0.51 * 0.52 / na) - 1) < 0.25
    )  # the scalar rule; vectorial light is a little wider
    torch.testing.assert_close(psf, psf.T)
    torch.testing.assert_close(psf.sum(), torch.tensor(1.0))


def test_psf_spreads_out_of_focus():
    microscope = Microscope(pixel_um=0.05, wavelength_um=0.52, medium_index=1.518, na=1.4)
    assert widefield_psf(microscope, 61, 0.8).max() < 0.4 * widefield_psf(microscope, 61).max()


def test_psf_asks_for_what_it_needs():
    with pytest.raises(OpticsError, match="na"):
        widefield_psf(Microscope(pixel_um=0.05, wavelength_um=0.52), 31)


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_keeps_flux_and_binning_keeps_photons(shape):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    kernel = torch.ones(5, 5, dtype=torch.float64) / 25
    torch.testing.assert_close(blur(image, optical_transfer(kernel, shape)).sum(), image.sum())
    torch.testing.assert_close(
        blur(image, gaussian_transfer(shape, 1.3, image)).mean(), image.mean()
    )
    even = image[: shape[0] // 2 * 2, : shape[1] // 2 * 2]
    torch.testing.assert_close(bin_pixels(even, 2).sum(), even.sum())


def test_optical_transfer_of_a_point_changes_nothing():
    point = torch.zeros(5, 5, dtype=torch.float64)
    point[2, 2] = 1
    image = torch.rand(17, 23, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(blur(image, optical_transfer(point, (17, 23))), image)


def test_camera_is_linear_on_average_and_noisy_as_stated():
    camera = Camera(read_noise_e=2.0, gain_e_per_count=0.5, offset_counts=100, bit_depth=16)
    photons = torch.full((400, 400), 50.0)
    counts = expose(photons, camera, torch.Generator().manual_seed(0))
    electrons = (counts - camera.offset_counts) * camera.gain_e_per_count
    assert abs(electrons.mean().item() - 50) < 0.2
    quantisation = camera.gain_e_per_count**2 / 12
    assert abs(electrons.var().item() / (50 + 4 + quantisation) - 1) < 0.03


def test_camera_saturates_at_its_bit_depth():
    counts = expose(torch.full((8, 8), 1e6), Camera(bit_depth=12), torch.Generator().manual_seed(0))
    assert counts.max() == 4095


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"pixel_um": 65.0, "wavelength_um": 0.5}, "pixel_um is 65"),
        ({"pixel_um": 0.1, "wavelength_um": 520.0}, "520 nm is 0.52"),
        ({"pixel_um": 0.1, "wavelength_um": 0.5, "na": 1.4}, "NA cannot exceed"),
        ({"pixel_um": -0.1, "wavelength_um": 0.5}, "pixel_um is -0.1"),
        ({"pixel_um": float("nan"), "wavelength_um": 0.5}, "pixel_um is nan"),
        ({"pixel_um": 0.1, "wavelength_um": 0.5, "medium_index": 0.9}, "medium_index is 0.9"),
    ],
)
def test_absurd_optics_are_refused_with_advice(values, words):
    with pytest.raises(OpticsError, match=words):
        Microscope(**values)
