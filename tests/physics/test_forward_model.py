"""Laws of the image formation of defocused brightfield: adjoint, derivative, energy, limits."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.physics import forward_model
from napari_cvdm.physics.forward_model import PhaseForwardModel, PhaseObject, canvas_shape
from napari_cvdm.physics.fresnel import circular_pupil, fresnel_transfer, propagate, squared_radius
from napari_cvdm.simulate.scenes import defocus_pair_of

AIR = Microscope(pixel_um=0.21, wavelength_um=0.521)
OIL_AND_PUPIL = Microscope(pixel_um=0.3, wavelength_um=0.6, medium_index=1.5, na=0.6)
DOUBLE = torch.zeros(1, dtype=torch.float64)
PAIR, STACK = (-1.0, 1.0), (-2.0, 0.0, 0.7, 3.0)

# frame, canvas, positions, microscope, condenser NA, batch
SETTINGS = {
    "coherent": ((16, 16), None, PAIR, AIR, 0.0, ()),
    "margin": ((12, 15), (20, 24), PAIR, AIR, 0.0, ()),
    "uneven margin": ((11, 14), (18, 23), STACK, AIR, 0.0, (2,)),
    "condenser": ((17, 12), None, PAIR, AIR, 0.3, ()),
    "pupil": ((15, 21), None, STACK, OIL_AND_PUPIL, 0.0, (3,)),
    "all": ((13, 10), (21, 17), STACK, OIL_AND_PUPIL, 0.25, (2, 2)),
}


def model_of(name: str, like: torch.Tensor = DOUBLE) -> tuple[PhaseForwardModel, tuple[int, ...]]:
    frame, canvas, positions, microscope, condenser_na, batch = SETTINGS[name]
    return PhaseForwardModel.create(
        frame, positions, microscope, canvas_shape=canvas, condenser_na=condenser_na, like=like
    ), batch


def random_object(model: PhaseForwardModel, batch: tuple[int, ...], seed: int, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    empty, draw = model.zero(batch), partial(torch.randn, generator=generator, dtype=torch.float64)
    light = size * draw(empty.illumination.shape)
    return PhaseObject(maps=size * draw(empty.maps.shape), illumination=light)


def object_of(model: PhaseForwardModel, mu: torch.Tensor, phi: torch.Tensor) -> PhaseObject:
    return replace(model.zero(), maps=torch.stack([mu, phi]))


def smooth_maps(shape: tuple[int, int], seed: int = 0, highest: float = 0.1) -> torch.Tensor:
    """Two periodic maps of unit deviation without frequencies above `highest` [cycles/px]."""
    generator = torch.Generator().manual_seed(seed)
    fy, fx = (torch.fft.fftfreq(size, dtype=torch.float64) for size in shape)
    inside = (fy[:, None].square() + fx.square() <= highest**2).double()
    noise = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    maps = torch.fft.ifft2(torch.fft.fft2(noise) * inside).real
    maps = maps - maps.mean(dim=(-2, -1), keepdim=True)
    return maps / maps.std(dim=(-2, -1), keepdim=True)


@pytest.mark.parametrize("name", SETTINGS)
def test_adjoint_is_the_transpose_of_the_derivative(name):
    """<J v, y> = <v, J^T y>, with maps and illumination together and each alone."""
    model, batch = model_of(name)
    at = model.linearise(random_object(model, batch, 0, 0.3))
    change = random_object(model, batch, 1)
    generator = torch.Generator().manual_seed(2)
    planes = torch.randn(at.expected.shape, generator=generator, dtype=torch.float64)
    back = model.adjoint(at, planes)
    empty = model.zero(batch)
    only_light = replace(change, maps=empty.maps)
    only_maps = replace(change, illumination=empty.illumination)
    for part in (change, only_light, only_maps):
        forward = (model.derivative(at, part) * planes).sum(dim=(-3, -2, -1))
        assert forward.shape == batch
        torch.testing.assert_close(forward, part.dot(back), rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("name", SETTINGS)
def test_derivative_is_the_limit_of_central_differences(name):
    """The error of (I(x + h v) - I(x - h v)) / 2h falls as h^2."""
    model, batch = model_of(name)
    sample, change = random_object(model, batch, 3, 0.3), random_object(model, batch, 4, 0.3)
    exact = model.derivative(model.linearise(sample), change)

    def error(h: float) -> float:
        above, below = (model.apply(sample.add(change, step)) for step in (h, -h))
        return float(((above - below) / (2 * h) - exact).norm() / exact.norm())

    coarse, medium, fine = (error(h) for h in (4e-2, 2e-2, 1e-2))
    assert fine < 1e-3
    assert 3.8 < coarse / medium < 4.2 and 3.8 < medium / fine < 4.2


def test_derivative_is_linear_and_each_member_of_a_batch_has_its_own():
    model, batch = model_of("all")
    sample, first = random_object(model, batch, 5, 0.3), random_object(model, batch, 6)
    second = random_object(model, batch, 7)
    at = model.linearise(sample)
    factors = torch.tensor([[1.0, -2.0], [0.5, 0.0]], dtype=torch.float64)
    of_first, of_second = model.derivative(at, first), model.derivative(at, second)
    expected = of_first + factors[..., None, None, None] * of_second
    torch.testing.assert_close(model.derivative(at, first.add(second, factors)), expected)
    for i, j in np.ndindex(batch):
        alone, change = (
            PhaseObject(maps=part.maps[i, j], illumination=part.illumination[i, j])
            for part in (sample, first)
        )
        seen = model.linearise(alone)
        torch.testing.assert_close(seen.expected, at.expected[i, j])
        torch.testing.assert_close(model.derivative(seen, change), of_first[i, j])


@pytest.mark.parametrize("shape", [(48, 48), (45, 64)])
def test_condenser_is_a_sum_over_tilted_plane_waves(shape):
    """Every source point sends a plane wave; their intensities add up."""
    positions, condenser_na, index = (-2.5, 1.5), 0.3, 1.33
    microscope = Microscope(pixel_um=0.25, wavelength_um=0.5, medium_index=index)
    mu, phi = smooth_maps(shape)
    field = torch.polar((0.1 * mu).exp(), phi)
    fy, fx = (torch.fft.fftfreq(size, 0.25, dtype=torch.float64) for size in shape)
    y, x = (0.25 * torch.arange(size, dtype=torch.float64) for size in shape)
    inside = fy[:, None].square() + fx.square() <= (condenser_na / 0.5) ** 2
    rows, columns = inside.nonzero().T
    assert len(rows) > 100
    transfer = torch.stack([fresnel_transfer(shape, z, microscope, field) for z in positions])
    total = torch.zeros(2, *shape, dtype=torch.float64)
    for row, column in zip(rows, columns, strict=True):
        angle = 2 * torch.pi * (fy[row] * y[:, None] + fx[column] * x[None, :])
        wave = torch.polar(torch.ones_like(angle), angle) * field
        total += propagate(wave, transfer).abs().square() / len(rows)
    create = PhaseForwardModel.create
    model = create(shape, positions, microscope, condenser_na=condenser_na, like=DOUBLE)
    seen = model.apply(object_of(model, 0.1 * mu, phi))
    coherent = propagate(field, transfer).abs().square()
    assert (seen - total).norm() < 0.02 * (seen - coherent).norm()


def test_condenser_does_not_blur_the_plane_in_focus_and_keeps_the_light():
    mu, phi = smooth_maps((32, 40), 1)
    coherent, open_condenser = (
        PhaseForwardModel.create((32, 40), (0.0, 3.0), AIR, condenser_na=na, like=DOUBLE)
        for na in (0.0, 0.4)
    )
    sample = object_of(coherent, 0.2 * mu, phi)
    sharp, blurred = coherent.apply(sample), open_condenser.apply(sample)
    torch.testing.assert_close(blurred[0], sharp[0])
    torch.testing.assert_close(blurred.mean(dim=(-2, -1)), sharp.mean(dim=(-2, -1)))
    assert blurred[1].std() < 0.8 * sharp[1].std()


@pytest.mark.parametrize("shape", [(64, 65), (41, 40)])
def test_disc_is_the_transform_of_a_uniform_disc(shape):
    radius, step = 2.0, 0.004
    u = torch.arange(-radius, radius + step / 2, step, dtype=torch.float64)
    height = 2 * (radius**2 - u.square()).clamp(min=0).sqrt()  # of the disc, seen from its side
    transfer = forward_model.disc_transfer(shape, radius, 0.3)
    assert transfer.shape == (shape[0], shape[1] // 2 + 1)
    for column in (0, 1, 5, 15):
        frequency = column / (shape[1] * 0.3)
        side = (height * torch.cos(2 * torch.pi * frequency * u)).sum() * step
        assert abs(float(transfer[0, column] - side / (torch.pi * radius**2))) < 1e-4


@pytest.mark.parametrize("shape", [(32, 32), (31, 40), (7, 9)])
def test_energy_is_kept_without_a_pupil(shape):
    model = PhaseForwardModel.create(shape, STACK, AIR, like=DOUBLE)
    sample = replace(random_object(model, (2,), 8, 0.5), illumination=model.zero((2,)).illumination)
    light = (2 * sample.maps[:, 0]).exp().mean(dim=(-2, -1))
    means = model.apply(sample).mean(dim=(-2, -1))
    torch.testing.assert_close(means, light[:, None].expand(2, 4))


@pytest.mark.parametrize("shape", [(32, 32), (31, 40)])
def test_there_and_back_is_the_identity(shape):
    model = PhaseForwardModel.create(shape, (1.7, -1.7), AIR, like=DOUBLE)
    at = model.linearise(random_object(model, (), 9, 0.5))
    back = propagate(at.waves[0], model.transfer[1])
    torch.testing.assert_close(back, at.wave[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_empty_field_is_evenly_bright(name):
    model, batch = model_of(name)
    expected = model.apply(model.zero(batch))
    torch.testing.assert_close(expected, torch.ones_like(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["coherent", "condenser", "pupil"])
def test_weak_objects_follow_their_transfer_functions(name):
    """What `weak_transfer` leaves out falls with the square of the strength."""
    model, _ = model_of(name)
    maps = smooth_maps(model.canvas_shape, 2, highest=0.3)
    of_mu, of_phi = model.weak_transfer()

    def error(strength: float) -> float:
        sample = replace(model.zero(), maps=strength * maps)
        mu, phi = torch.fft.rfft2(sample.maps)
        linear = torch.fft.irfft2(of_mu * mu + of_phi * phi, s=model.canvas_shape)
        return float((model.apply(sample) - 1 - linear).norm())

    strong, weak, weaker = (error(strength) for strength in (4e-3, 2e-3, 1e-3))
    assert 3.8 < strong / weak < 4.2 and 3.8 < weak / weaker < 4.2


@pytest.mark.parametrize("shape", [(32, 32), (31, 40), (15, 17)])
@pytest.mark.parametrize("microscope", [AIR, OIL_AND_PUPIL])
@pytest.mark.parametrize("condenser_na", [0.0, 0.4])
def test_weak_transfer_is_that_of_weak_object_theory(shape, microscope, condenser_na):
    model = PhaseForwardModel.create(
        shape, STACK, microscope, condenser_na=condenser_na, like=DOUBLE
    )
    squared = squared_radius(shape, microscope.pixel_um, DOUBLE)
    angle = (
        torch.pi
        * microscope.wavelength_um
        / microscope.medium_index
        * torch.tensor(STACK, dtype=torch.float64)[:, None, None]
        * squared
    )
    passed = torch.ones_like(squared)
    if microscope.na is not None:
        passed = circular_pupil(
            shape, microscope.pixel_um, microscope.na / microscope.wavelength_um, DOUBLE
        )
    half = shape[1] // 2 + 1
    disc = 1.0
    if condenser_na:
        radii = [abs(z) * condenser_na / microscope.medium_index for z in STACK]
        disc = torch.stack(
            [forward_model.disc_transfer(shape, radius, microscope.pixel_um) for radius in radii]
        )
    theory = ((2 * wave(angle) * passed)[..., :half] * disc for wave in (torch.cos, torch.sin))
    for found, expected in zip(model.weak_transfer(), theory, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SETTINGS)
def test_single_precision_is_close_to_double(name):
    (model, batch), (single_model, _) = model_of(name), model_of(name, DOUBLE.float())
    sample = random_object(model, batch, 10, 0.3)
    single = PhaseObject(maps=sample.maps.float(), illumination=sample.illumination.float())
    exact, rounded = model.apply(sample), single_model.apply(single)
    torch.testing.assert_close(rounded.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("like", "real", "waves"),
    [
        (None, torch.float32, torch.complex64),
        (torch.zeros(1), torch.float32, torch.complex64),
        (DOUBLE, torch.float64, torch.complex128),
        (torch.zeros(1, device="meta"), torch.float32, torch.complex64),
    ],
)
def test_device_and_dtype_follow_like(like, real, waves):
    model = PhaseForwardModel.create((8, 9), PAIR, AIR, condenser_na=0.2, like=like)
    device = torch.device("cpu") if like is None else like.device
    at = model.linearise(model.zero((2,)))
    back = model.adjoint(at, model.derivative(at, model.zero((2,))))
    for values in (model.condenser, model.terms, at.expected, at.light, back.maps):
        assert (values.dtype, values.device) == (real, device)
    for values in (model.transfer, at.wave, at.waves):
        assert (values.dtype, values.device) == (waves, device)


def test_what_lies_far_outside_the_frame_is_not_seen_and_what_lies_near_is():
    canvas, frame = (96, 96), (32, 32)
    model = PhaseForwardModel.create(frame, PAIR, AIR, canvas_shape=canvas, like=DOUBLE)
    places = torch.arange(96, dtype=torch.float64)

    def brightest(place: float) -> torch.Tensor:
        squares = (places[:, None] - place).square() + (places - place).square()
        phi = torch.exp(-squares / (2 * 3**2))
        return (model.apply(object_of(model, torch.zeros_like(phi), phi)) - 1).abs().max()

    assert brightest(6) < 1e-3
    assert brightest(28) > 0.02


def test_a_frame_is_a_part_of_its_canvas():
    maps = smooth_maps((30, 37), 3)
    whole = PhaseForwardModel.create((30, 37), STACK, AIR, condenser_na=0.2, like=DOUBLE)
    part = PhaseForwardModel.create(
        (15, 20), STACK, AIR, canvas_shape=(30, 37), condenser_na=0.2, like=DOUBLE
    )
    everything, seen = (model.apply(replace(model.zero(), maps=maps)) for model in (whole, part))
    torch.testing.assert_close(seen, everything[..., part.frame[0], part.frame[1]])


@pytest.mark.parametrize("shape", [(1, 1), (40, 61), (128, 128)])
@pytest.mark.parametrize("defocus_um", [(0.0, 0.1), (-2.0, 2.0), (-200.0, 0.0)])
def test_canvas_has_a_margin_on_every_side(shape, defocus_um):
    canvas = canvas_shape(shape, defocus_um, AIR)
    for whole, frame in zip(canvas, shape, strict=True):
        assert whole >= frame + 2 * forward_model.SMALLEST_MARGIN_PX
        assert whole <= 1.25 * (frame + 2 * forward_model.LARGEST_MARGIN_PX)


def test_illumination_multiplies_the_image_by_polynomials():
    model, _ = model_of("margin")
    dark = random_object(model, (), 11, 0.2)
    plain = replace(dark, illumination=torch.zeros_like(dark.illumination))
    y, x = (torch.linspace(-1, 1, size, dtype=torch.float64) for size in (12, 15))
    y, x = torch.meshgrid(y, x, indexing="ij")
    bowls = 1.5 * y**2 - 0.5, y * x, 1.5 * x**2 - 0.5
    terms = torch.stack([torch.ones_like(y), y, x, *bowls])
    torch.testing.assert_close(forward_model.legendre_terms((12, 15)), terms)
    light = 1 + torch.tensordot(dark.illumination, terms, dims=1)
    torch.testing.assert_close(model.apply(dark), light * model.apply(plain))


@pytest.mark.parametrize("microscope", [AIR, OIL_AND_PUPIL])
def test_simulation_uses_this_image_formation(microscope):
    mu, phi = smooth_maps((33, 40), 4)
    absorbance = 0.1 * (mu - mu.min())
    pair = defocus_pair_of(phi.numpy(), absorbance.numpy(), microscope, STACK)
    model = PhaseForwardModel.create((33, 40), STACK, microscope, like=DOUBLE)
    planes = model.apply(object_of(model, -absorbance / 2, phi))
    np.testing.assert_allclose(pair, planes.numpy(), rtol=1e-6, atol=1e-6)
