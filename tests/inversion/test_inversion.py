"""Laws of the inversion: it solves the equations it states, its draws have their covariance."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.result import finished
from napari_cvdm.inversion import Fit, PowerLaws, draw_around, fit_object, gauss_newton, posterior
from napari_cvdm.inversion.gauss_newton import solve_normal
from napari_cvdm.inversion.posterior import SOLVE_STEPS, log_determinant
from napari_cvdm.inversion.priors import LocalPrecision, filter_maps
from napari_cvdm.physics.forward_model import PhaseForwardModel, PhaseObject
from napari_cvdm.physics.tie import us_tie_of
from napari_cvdm.simulate.phase_objects import dead_leaves
from napari_cvdm.tasks.phase_inversion import (
    draw_phases,
    fit_periodic,
    fit_surrounded,
    invert_planes,
    white_noise,
)

AIR = Microscope(pixel_um=0.21, wavelength_um=0.521)
DOUBLE = torch.zeros(1, dtype=torch.float64)
SIDE, PAIR = 64, (-2.0, 2.0)


def model_of(positions=PAIR, frame=(SIDE, SIDE), canvas=None, like=DOUBLE, **light):
    return PhaseForwardModel.create(frame, positions, AIR, canvas_shape=canvas, like=like, **light)


def leaves(seed: int, strength: float, side: int = SIDE) -> torch.Tensor:
    """A repeating phase with edges, of that height [rad]."""
    image = dead_leaves(np.random.default_rng(seed), (side, side)).astype(float)
    image = gaussian_filter(image, 1.0, mode="wrap")
    return torch.from_numpy(strength * (image - image.min()) / np.ptp(image))


def cell(column: float, side: int) -> torch.Tensor:
    """A dome of 3 rad on cell-free background, in the middle row."""
    y, x = np.arange(side)[:, None] - side / 2, np.arange(side)[None, :] - column
    dome = np.sqrt((1 - (y**2 + x**2) / 18**2).clip(min=0))
    return torch.from_numpy(gaussian_filter(3 * dome * (1 + 0.2 * np.sin(y / 2 + x)), 1.0))


def expose(model: PhaseForwardModel, phi, photons: float, mu=None):
    """Noisy planes and their weights; each plane has its own noise, whatever planes follow."""
    maps = torch.stack([torch.zeros_like(phi) if mu is None else mu, phi], dim=-3)
    empty = model.zero(phi.shape[:-2])
    expected = model.apply(replace(empty, maps=maps.to(empty.maps)))
    shape, generator = expected[..., 0, :, :].shape, torch.Generator().manual_seed(0)
    draws = [torch.randn(shape, generator=generator) for _ in range(model.planes)]
    weight = photons / expected.clamp(min=0.01)
    return expected + torch.stack(draws, dim=-3).to(weight) / weight.sqrt(), weight


def deviation(values: torch.Tensor) -> float:
    """Root mean square about the mean of each field."""
    return float((values - values.mean(dim=(-2, -1), keepdim=True)).square().mean().sqrt())


def flat(sample: PhaseObject) -> torch.Tensor:
    return torch.cat([sample.maps.flatten(-3), sample.illumination.flatten(-2)], dim=-1)


def white_object(model: PhaseForwardModel, batch, generator: torch.Generator) -> PhaseObject:
    empty, draw = model.zero(batch), partial(torch.randn, generator=generator, dtype=torch.float64)
    return PhaseObject(maps=draw(empty.maps.shape), illumination=draw(empty.illumination.shape))


def unit_objects(model: PhaseForwardModel) -> PhaseObject:
    height, width = model.canvas_shape
    numbers, terms = 2 * height * width, model.planes * len(model.terms)
    units = torch.eye(numbers + terms, dtype=torch.float64)
    return PhaseObject(
        maps=units[:, :numbers].reshape(-1, 2, height, width),
        illumination=units[:, numbers:].reshape(-1, model.planes, len(model.terms)),
    )


@pytest.fixture(
    params=[(0.0, ""), (0.2, ""), (0.0, "flat"), (0.0, "local")],
    ids=["coherent", "condenser", "flat background", "local"],
)
def tiny(request) -> tuple[Fit, torch.Tensor]:
    """A field of 8 px with a frame of 6 x 5 about any object, and its dense normal matrix."""
    condenser_na, part = request.param
    model = model_of((-1.0, 0.4), (6, 5), (8, 8), condenser_na=condenser_na)
    generator = torch.Generator().manual_seed(0)
    at = model.zero().add(white_object(model, (), generator), 0.3)
    seen, laws = model.linearise(at), PowerLaws.start((), DOUBLE)
    weight = 1e3 * (0.5 + torch.rand(seen.expected.shape, generator=generator).double())
    weight[:, 2, 1:3] = 0
    prior, units = laws.prior(model), unit_objects(model)
    if part == "flat":
        prior = replace(
            prior,
            flat=400.0
            * (torch.rand(model.canvas_shape, generator=generator).double() - 0.3).clamp(min=0),
        )
    if part == "local":
        gradient, curvature = (
            100.0 * torch.rand((2, *model.canvas_shape), generator=generator).double()
        )
        prior = replace(prior, local=LocalPrecision(gradient=gradient, curvature=curvature))
    columns = model.derivative(seen, units).flatten(1)
    normal = (columns * weight.flatten()) @ columns.T + flat(prior.precision(units))
    fitted = {"estimate": at, "linearisation": seen, "prior": prior, "laws": laws}
    residual = torch.zeros_like(weight)
    return Fit(model=model, weight=weight, residual=residual, inner_steps=0, **fitted), normal


def test_prior_is_a_covariance(tiny):
    """Symmetric and positive; its root times the root's transpose is the whole."""
    prior, units = tiny[0].prior, unit_objects(tiny[0].model)
    precision = flat(prior.precision(units))
    torch.testing.assert_close(precision, precision.T)
    assert torch.linalg.eigvalsh(precision).min() > 0
    nothing, white = (
        torch.zeros(len(flat(units)), 4, 8, 8).double(),
        torch.eye(256, dtype=torch.float64).reshape(-1, 4, 8, 8),
    )
    of_pixels = prior.precision_root(tiny[0].model.zero((256,)), white).maps[:, 1].flatten(1)
    root = flat(prior.precision_root(units, nothing))
    total = root @ root.T
    total[64:128, 64:128] += of_pixels.T @ of_pixels
    torch.testing.assert_close(total, precision)
    torch.testing.assert_close(2 * prior.penalty(units), precision.diag())


def test_conjugate_gradients_solve_the_normal_equations(tiny):
    fit, normal = tiny
    right = white_object(fit.model, (2,), torch.Generator().manual_seed(1))
    found = flat(
        finished(solve_normal(fit.model, fit.linearisation, fit.weight, fit.prior, right, 300))
    )
    exact = torch.linalg.solve(normal, flat(right).T).T
    assert (found - exact).norm() < 1e-6 * exact.norm()


@pytest.mark.parametrize(("steps", "tolerance"), [(80, 0.03), (SOLVE_STEPS, 0.06)])
def test_draws_have_the_covariance_of_the_posterior(tiny, monkeypatch, steps, tolerance):
    """Draws, times the root of the normal matrix, are white; after few steps nearly so."""
    monkeypatch.setattr(posterior, "SOLVE_STEPS", steps)
    fit, normal = tiny
    draws, generator = 800, torch.Generator().manual_seed(2)
    data = torch.randn(draws, *fit.weight.shape, generator=generator, dtype=torch.float64)
    pixels = torch.randn(
        draws, 4, *fit.model.canvas_shape, generator=generator, dtype=torch.float64
    )
    found = finished(draw_around(fit, data, white_object(fit.model, (draws,), generator), pixels))
    white = flat(found) @ torch.linalg.cholesky(normal)
    covariance = white.T @ white / draws
    assert (covariance.diag() - 1).mean().abs() < 0.02
    across = covariance - torch.diag(covariance.diag())
    sampled = (across.square().sum() / (len(across) ** 2 - len(across)) * draws).sqrt()
    assert abs(sampled - 1) < tolerance
    assert white.mean(dim=0).abs().max() < 5 / draws**0.5


def test_a_draw_depends_on_its_stream_alone():
    model = model_of(frame=(32, 40), canvas=(64, 64))
    fit = finished(fit_object(model, *expose(model, leaves(0, 1.0), 1e3)))
    together, alone = finished(draw_phases(fit, 7, [3, 0, 11])), finished(draw_phases(fit, 7, [11]))
    torch.testing.assert_close(alone[0], together[2], rtol=0, atol=1e-9)


def test_noise_belongs_to_pixels_of_the_frame_whatever_the_canvas():
    bare, wide = model_of(frame=(20, 30)), model_of(frame=(20, 30), canvas=(54, 65))
    (data, small, pixels), (same, large, wider) = (
        white_noise(model, 5, [0, 2]) for model in (bare, wide)
    )
    assert torch.equal(data, same)
    assert torch.equal(large.maps[..., wide.frame[0], wide.frame[1]], small.maps)
    assert torch.equal(wider[..., wide.frame[0], wide.frame[1]], pixels)


def test_cost_never_rises(monkeypatch):
    """Of every member of a batch in every round, while noise and prior stay what they are."""
    model, costs, step = model_of(), [], gauss_newton._Problem.step

    def cost(data, weight, prior, at):
        squares = (weight * (data - model.apply(at)).square()).sum(dim=(-3, -2, -1))
        return (squares + at.dot(prior.precision(at))) / 2

    def recorded(problem, at, change, before):
        there, seen, after = step(problem, at, change, before)
        known = problem.data, problem.weight, problem.prior
        costs.append((cost(*known, at), cost(*known, there)))
        torch.testing.assert_close(costs[-1][1], after)
        return there, seen, after

    monkeypatch.setattr(gauss_newton._Problem, "step", recorded)
    phi = torch.stack([leaves(1, 5.0), leaves(2, 0.1), torch.zeros(SIDE, SIDE).double()])
    finished(fit_object(model, *expose(model, phi, 1e4)))
    before, after = (torch.stack(values) for values in zip(*costs, strict=True))
    assert (after <= before).all()
    assert (after[0] < 0.999 * before[0]).all()


def test_a_step_uphill_is_not_taken():
    model = model_of()
    data, weight = expose(model, torch.stack([leaves(1, 1.0), leaves(2, 1.0)]), 1e3)
    at, laws = model.zero((2,)), PowerLaws.start((2,), data)
    seen, prior = model.linearise(at), laws.prior(model)
    problem = gauss_newton._Problem(model=model, data=data, weight=weight, prior=prior)
    change = finished(solve_normal(model, seen, weight, prior, problem.descent(at, seen), 8))
    one_way = change.add(change, torch.tensor([0.0, -2.0]))  # the second member goes backwards
    before = problem.cost(at, seen)
    there, _, after = problem.step(at, one_way, before)
    assert after[0] < before[0] and after[1] == before[1]
    assert there.maps[0].abs().max() > 0 and not there.maps[1].any()


@pytest.mark.parametrize("photons", [1e3, 1e4, 1e5])
def test_weak_objects_are_recovered(photons):
    phi, model = leaves(3, 0.3), model_of((-3.0, 3.0))
    fit = finished(fit_object(model, *expose(model, phi, photons)))
    assert deviation(fit.phase - phi) < {1e3: 0.5, 1e4: 0.25, 1e5: 0.15}[photons] * deviation(phi)


@pytest.mark.parametrize(("seed", "strength"), [(3, 3.0), (4, 3.0), (3, 4.0)])
def test_strong_objects_are_recovered_where_us_tie_errs(seed, strength):
    """The more light, the better, and what is left over is noise."""
    phi, model, errors = leaves(seed, strength), model_of((-1.0, 1.0), like=torch.zeros(1)), []
    for photons in (1e3, 1e4, 1e5):
        data, weight = expose(model, phi, photons)
        fit = finished(fit_object(model, data, weight))
        rivals = [us_tie_of(data, (-1.0, 1.0), AIR, r) - phi for r in (5e-9, 1e-7, 1e-5, 1e-3)]
        errors.append(deviation(fit.phase - phi))
        assert errors[-1] < min(map(deviation, rivals)) / 3
        assert fit.chi2 < 1.2
    assert errors[2] < errors[1] < errors[0]


def test_pixels_of_weight_zero_may_hold_anything():
    model, phi = model_of(like=torch.zeros(1)), leaves(3, 1.0)
    data, weight = expose(model, phi, 1e4)
    weight[:, 10:14, 20:30] = 0
    weight[0, 3] = 0
    fit = finished(fit_object(model, data, weight))
    assert deviation(fit.phase - phi) < 0.1 * deviation(phi)
    for anything in (0.0, -7.0, 65535.0, 3e38):
        changed = torch.where(weight == 0, torch.tensor(anything), data)
        other = finished(fit_object(model, changed, weight))
        assert torch.equal(other.estimate.maps, fit.estimate.maps)
        assert torch.equal(other.chi2, fit.chi2)


def test_the_order_of_the_planes_does_not_matter():
    positions, order = (-2.0, 0.5, 3.0), [2, 0, 1]
    model, other = model_of(positions), model_of([positions[place] for place in order])
    data, weight = expose(model, leaves(4, 1.0), 1e4)
    fit = finished(fit_object(model, data, weight))
    same = finished(fit_object(other, data[order], weight[order]))
    torch.testing.assert_close(same.phase, fit.phase, rtol=0, atol=1e-6)


@pytest.mark.parametrize("canvas", [None, (92, 92)])
def test_a_turned_image_has_a_turned_phase(canvas):
    model = model_of(canvas=canvas)
    data, weight = expose(model, leaves(4, 1.0, 92 if canvas else SIDE), 1e4)
    turned = [torch.rot90(values, 1, (-2, -1)).contiguous() for values in (data, weight)]
    fit, other = finished(fit_object(model, data, weight)), finished(fit_object(model, *turned))
    difference = torch.rot90(other.phase, -1, (-2, -1)) - fit.phase
    assert difference.abs().max() < 1e-6 * deviation(fit.phase)


@pytest.mark.parametrize("positions", [PAIR, (0.0, 2.0), (-1.0, 0.5, 3.0)])
def test_a_wrong_sign_of_all_positions_turns_the_phase_over(positions):
    """I(z; mu, phi) = I(-z; mu, -phi) exactly: no residual can tell the sign."""
    model, mirror = (model_of([sign * z for z in positions]) for sign in (1, -1))
    data, weight = expose(model, leaves(5, 2.0), 1e3)
    fit, other = (finished(fit_object(m, data, weight)) for m in (model, mirror))
    torch.testing.assert_close(other.phase, -fit.phase, rtol=0, atol=1e-5)
    torch.testing.assert_close(other.chi2, fit.chi2)


@pytest.mark.parametrize("positions", [(0.0, 2.0), (-1.0, 2.0), (1.0, 3.0)])
def test_planes_taken_for_each_other_make_absorption_out_of_nothing(positions):
    """Two planes determine two maps: chi2 alone does not show it, the absorption does."""
    model, swapped = model_of(positions), model_of(positions[::-1])
    data, weight = expose(model, leaves(3, 2.0), 1e3)
    fit, other = (finished(fit_object(m, data, weight)) for m in (model, swapped))
    assert other.laws.absorption > 20 * fit.laws.absorption
    assert deviation(other.estimate.maps[0]) > 20 * deviation(fit.estimate.maps[0])


@pytest.mark.parametrize("repeats", [True, False])
def test_the_border_with_more_evidence_is_taken(repeats):
    phi, model = (
        leaves(4, 1.0, SIDE if repeats else 92),
        model_of(canvas=None if repeats else (92, 92)),
    )
    planes, weight = (values.float() for values in expose(model, phi, 1e4))
    estimate = finished(invert_planes(planes, weight, PAIR, AIR))
    truth = phi[model.frame]
    assert estimate.periodic == repeats
    taken, other = (deviation(p - truth) for p in (estimate.fit.phase, estimate.other))
    assert taken < 0.7 * other


@pytest.mark.parametrize("column", [64, 48], ids=["whole", "cut"])
def test_a_cell_comes_back_wherever_the_frame_ends(column):
    phi, model = cell(column, 128), model_of(canvas=(128, 128))
    planes, weight = (values.float() for values in expose(model, phi, 1e4))
    truth = phi[model.frame]
    surrounded = finished(fit_surrounded(planes, weight, PAIR, AIR, 0.0))
    periodic = finished(fit_periodic(planes, weight, PAIR, AIR, 0.0, surrounded))
    taken, other = (deviation(fit.phase - truth) for fit in (surrounded, periodic))
    assert taken < 0.06 * deviation(truth)
    assert column == 64 or taken < other / 5
    estimate = finished(invert_planes(planes, weight, PAIR, AIR))
    assert not (estimate.periodic and column == 48)
    assert deviation(estimate.fit.phase - truth) < 0.1 * deviation(truth)


def test_the_log_determinant_is_that_of_the_whole_matrix():
    """On a small field, where the matrix can be built column by column."""
    model = model_of(frame=(12, 12), canvas=(20, 20))
    data, weight = expose(model, leaves(2, 1.0, 20), 1e3)
    fit = finished(fit_object(model, data, weight))
    root, columns = fit.weight.sqrt(), []
    for unit in torch.eye(data.numel(), dtype=data.dtype).reshape(-1, *data.shape):
        back = model.adjoint(fit.linearisation, root * unit)
        likely = PhaseObject(
            maps=filter_maps(back.maps, 1 / fit.prior.spectrum),
            illumination=back.illumination / fit.prior.illumination,
        )
        columns.append((unit + root * model.derivative(fit.linearisation, likely)).ravel())
    expected = torch.linalg.slogdet(torch.stack(columns)).logabsdet / data.numel()
    torch.testing.assert_close(finished(log_determinant(fit)), expected, rtol=0.1, atol=0)


@pytest.mark.parametrize("photons", [1e3, 1e4])
def test_variances_that_are_too_large_are_put_right(photons):
    model = model_of(like=torch.zeros(1))
    data, weight = expose(model, leaves(3, 1.0), photons)
    fit, right = (finished(fit_object(model, data, w)) for w in (weight / 4, weight))
    assert 0.2 < fit.laws.noise < 0.32
    assert 0.8 < right.laws.noise <= 1


def test_a_third_plane_makes_the_error_smaller():
    """On the average over a batch; the planes of the pair have the same noise in both."""
    phi = torch.stack([leaves(seed, 1.5) for seed in range(6)])
    two, three = model_of(like=torch.zeros(1)), model_of((*PAIR, 1.0), like=torch.zeros(1))
    pair, stack = (finished(fit_object(model, *expose(model, phi, 1e3))) for model in (two, three))
    assert deviation(stack.phase - phi) < 0.9 * deviation(pair.phase - phi)


@pytest.mark.parametrize("positions", [(0.0, 1.5), (1.0, 3.0)])
def test_absorption_is_told_from_the_phase(positions, monkeypatch):
    """The phase under 5 % absorbance errs half as much again where absorption is held at zero."""
    phi, mu, refine = leaves(3, 1.5), -0.5 * leaves(13, 0.05), PowerLaws.refine
    model = model_of(positions)
    data, weight = expose(model, phi, 1e4, mu)
    fit = finished(fit_object(model, data, weight))

    def hold(laws, *rest):
        return replace(refine(laws, *rest), absorption=laws.absorption)

    monkeypatch.setattr(PowerLaws, "refine", hold)
    monkeypatch.setattr("napari_cvdm.inversion.priors.MEAN_ABSORPTION", 1e-9)
    without = replace(PowerLaws.start((), data), absorption=torch.tensor(1e-12).double())
    other = finished(fit_object(model, data, weight, (model.zero(), without)))
    assert 1.5 * deviation(fit.phase - phi) < deviation(other.phase - phi)
    assert fit.chi2 < 1 < other.chi2
