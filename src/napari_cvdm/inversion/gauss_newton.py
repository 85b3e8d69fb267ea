"""The most probable object under a nonlinear image formation, by Gauss-Newton.

The cost is sum W (d - I(x))^2 / 2 + x^T C^-1 x / 2. It is minimised first with the noise taken for
as large as the contrast, then for half of that, and so on. Without this continuation, strong phases
end in a local minimum. Every round solves (J^T W J + C^-1) v = J^T W r - C^-1 x to a few digits by
preconditioned conjugate gradients (Nocedal and Wright, Numerical Optimization, 7.1 and 10.3). The
amplitudes of the prior follow the estimate.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, log2

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from napari_cvdm.core.result import name_stages
from napari_cvdm.inversion.priors import (
    LocalPrecision,
    PhasePrior,
    PowerLaws,
    gradients,
    laplacian,
    weak_normal,
)
from napari_cvdm.physics.forward_model import PhaseForwardModel, PhaseLinearisation, PhaseObject

Stage = tuple[float, int, int]
Linear = Callable[[PhaseObject], PhaseObject]
SMALLEST_GAIN = 1e-3  # of the cost: a round that gains less is the last at its noise
HALVINGS = 5
LOOK_BACK = 4  # steps of conjugate gradients
# Of the local prior.
SPECTRUM_SHARE = 0.3  # of the stationary prior of the phase; the local one takes its place
GRADIENT_SHARE, CURVATURE_SHARE = 0.03, 0.5  # s: neighbouring differences are not independent
# Roots of v [rad/px, rad/px^2]: what noise leaves of smooth places.
LEAST_GRADIENT, LEAST_CURVATURE = 0.05, 0.05
NEIGHBOURHOOD_PX = 2.0
# Of the local prior: as few steps as parts under uneven light allow (`test_phase_blocks`).
ROUNDS, INNER_STEPS = 8, 18


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """The estimate of a batch of objects, with what draws around it and checks of it need.

    Parameters
    ----------
    linearisation : PhaseLinearisation
        About the estimate.
    weight : Tensor of shape (..., P, h, w)
        One over the variance of the data, 0 where nothing was measured.
    residual : Tensor of shape (..., P, h, w)
        Data less expected intensity.
    laws : PowerLaws
        What was found of object and noise.
    inner_steps : int
        Conjugate-gradient steps in all.
    """

    model: PhaseForwardModel
    estimate: PhaseObject
    linearisation: PhaseLinearisation
    prior: PhasePrior
    weight: Tensor = field(repr=False)
    residual: Tensor = field(repr=False)
    laws: PowerLaws
    inner_steps: int

    @property
    def data(self) -> Tensor:
        """Intensity over the blank field, (..., P, h, w)."""
        return self.residual + self.linearisation.expected

    @property
    def chi2(self) -> Tensor:
        """Mean square of the weighted residual over what was measured, shape (...)."""
        measured = (self.weight > 0).sum(dim=(-3, -2, -1)).clamp(min=1)
        return weighted_squares(self.weight, self.residual).sum(dim=(-3, -2, -1)) / measured

    @property
    def phase(self) -> Tensor:
        """Phase within the frame [rad], (..., h, w)."""
        return self.estimate.maps[..., 1, self.model.frame[0], self.model.frame[1]]


Solving = Generator[str, None, Fit]
Changing = Generator[str, None, PhaseObject]


def fit_object(
    model: PhaseForwardModel,
    data: Tensor,
    weight: Tensor,
    start: tuple[PhaseObject, PowerLaws] | None = None,
    stages: Sequence[Stage] | None = None,
) -> Solving:
    """Fit objects to their planes; says what is done before every step of the solver.

    Parameters
    ----------
    data : Tensor of shape (..., P, h, w), real
        Intensity over the blank field; finite everywhere, also where the weight is zero.
    weight : Tensor of shape (..., P, h, w), real
        One over the variance of each pixel; 0 where it was saturated, dark or never measured.
    start : tuple of PhaseObject and PowerLaws, optional
        An empty field of unknown kind, if None.
    stages : sequence of (float, int, int), optional
        Factor of the noise, largest number of rounds at it, and conjugate-gradient steps in each
        round. They are those of `continuation`, if None.
    """
    batch = tuple(data.shape[:-3])
    stages = continuation(data, weight) if stages is None else stages
    at, laws = (model.zero(batch), PowerLaws.start(batch, data)) if start is None else start
    steps, seen = 0, model.linearise(at)
    prior = laws.prior(model)
    for factor, rounds, inner in stages:
        for number in range(rounds):
            noisier = weight / (factor**2 * laws.noise[..., None, None, None])
            problem = _Problem(model=model, data=data, weight=noisier, prior=prior)
            at, seen, before, after = yield from name_stages(
                f"noise x {factor:g}, round {number + 1}", problem.solve_round(at, seen, inner)
            )
            steps += inner
            last, laws = laws, laws.refine(at.maps, data - seen.expected, weight, factor, model)
            prior = laws.prior(model)
            # A prior that still changes lowers the cost of another round.
            if float(((before - after) / before).max()) < SMALLEST_GAIN and laws.agrees_with(last):
                break
    weight = weight / laws.noise[..., None, None, None]
    return Fit(
        model=model,
        estimate=at,
        linearisation=seen,
        prior=prior,
        weight=weight,
        residual=data - seen.expected,
        laws=laws,
        inner_steps=steps,
    )


def solve_round(fit: Fit, inner: int) -> Solving:
    """One more round, with the prior that a fit has; `inner` conjugate-gradient steps."""
    data = fit.data
    problem = _Problem(model=fit.model, data=data, weight=fit.weight, prior=fit.prior)
    at, seen, _, _ = yield from problem.solve_round(fit.estimate, fit.linearisation, inner)
    return replace(
        fit,
        estimate=at,
        linearisation=seen,
        residual=data - seen.expected,
        inner_steps=fit.inner_steps + inner,
    )


def continuation(data: Tensor, weight: Tensor) -> tuple[Stage, ...]:
    """Stages from noise as large as the contrast of the planes down to what it is."""
    measured = (weight > 0).sum(dim=(-3, -2, -1)).clamp(min=1)
    contrast = (
        float((weighted_squares(weight, data - 1).sum(dim=(-3, -2, -1)) / measured).max()) ** 0.5
    )
    first = max(0, ceil(log2(max(contrast, 1.0))))
    return (*((2.0**power, 2, 10) for power in range(first, 0, -1)), (1.0, 6, 12))


def weighted_squares(weight: Tensor, residual: Tensor) -> Tensor:
    """w r^2, and 0 without weight: in this order, since r^2 alone could be infinite."""
    return weight * residual * residual


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Problem:
    """What one round makes smaller, with its noise and its prior."""

    model: PhaseForwardModel
    data: Tensor
    weight: Tensor
    prior: PhasePrior

    def cost(self, at: PhaseObject, seen: PhaseLinearisation) -> Tensor:
        squares = weighted_squares(self.weight, self.data - seen.expected).sum(dim=(-3, -2, -1))
        return squares / 2 + self.prior.penalty(at)

    def descent(self, at: PhaseObject, seen: PhaseLinearisation) -> PhaseObject:
        pull = self.model.adjoint(seen, self.weight * (self.data - seen.expected))
        return pull.add(self.prior.precision(at), -1.0)

    def solve_round(
        self, at: PhaseObject, seen: PhaseLinearisation, inner: int
    ) -> Generator[str, None, tuple[PhaseObject, PhaseLinearisation, Tensor, Tensor]]:
        """The object after a round, its linearisation, and the costs before and after."""
        before, right = self.cost(at, seen), self.descent(at, seen)
        change = yield from solve_normal(self.model, seen, self.weight, self.prior, right, inner)
        at, seen, after = self.step(at, change, before)
        return at, seen, before, after

    def step(
        self, at: PhaseObject, change: PhaseObject, before: Tensor
    ) -> tuple[PhaseObject, PhaseLinearisation, Tensor]:
        """Backtrack until every member's cost falls; one whose cost never does is not changed."""
        size = torch.ones_like(before)
        for _ in range(HALVINGS):
            there = at.add(change, size)
            seen = self.model.linearise(there)
            cost = self.cost(there, seen)
            rising = ~(cost <= before)  # so that NaN counts as rising, too
            if not bool(rising.any()):
                return there, seen, cost
            size = torch.where(rising, size / 3, size)
        there = at.add(change, torch.where(rising, 0.0, size))
        return there, self.model.linearise(there), torch.where(rising, before, cost)


def solve_normal(
    model: PhaseForwardModel,
    seen: PhaseLinearisation,
    weight: Tensor,
    prior: PhasePrior,
    right: PhaseObject,
    steps: int,
) -> Changing:
    """(J^T W J + C^-1)^-1 b of a batch, by `steps` of preconditioned conjugate gradients."""

    def normal(change: PhaseObject) -> PhaseObject:
        return model.adjoint(seen, weight * model.derivative(seen, change)).add(
            prior.precision(change)
        )

    return conjugate_gradients(
        normal, weak_object_inverse(model, seen, weight, prior), right, steps
    )


def conjugate_gradients(
    normal: Linear, precondition: Linear, right: PhaseObject, steps: int, least_gain: float = 0.0
) -> Changing:
    """A^-1 b from zero by at most `steps` of preconditioned conjugate gradients.

    `normal` is A, and `precondition` something near its inverse; both are symmetric and positive.
    `right` is b. They end once `LOOK_BACK` steps lower the cost of every member of a batch by less
    than `least_gain`. The next step is yielded; to cancel is to stop iterating.
    """
    found = PhaseObject(
        maps=torch.zeros_like(right.maps), illumination=torch.zeros_like(right.illumination)
    )
    residual = right
    direction = towards = precondition(residual)
    size = residual.dot(towards)
    tiny, gains = torch.finfo(size.dtype).tiny, []
    for number in range(steps):
        yield f"step {number + 1} of {steps}"
        image = normal(direction)
        # A member of the batch that is solved would divide zero by zero.
        factor = size / direction.dot(image).clamp(min=tiny)
        found, residual = found.add(direction, factor), residual.add(image, -factor)
        if least_gain:
            gains.append(float((factor * size).max()) / 2)
            if len(gains) >= LOOK_BACK and sum(gains[-LOOK_BACK:]) <= least_gain:
                break
        towards = precondition(residual)
        size, last = residual.dot(towards), size
        direction = towards.add(direction, size / last.clamp(min=tiny))
    return found


def weak_object_inverse(
    model: PhaseForwardModel, seen: PhaseLinearisation, weight: Tensor, prior: PhasePrior
) -> Linear:
    """Inverse of the normal matrix of a weak object and of the illumination's diagonal.

    The normal matrix is 2 x 2 at each frequency.
    """
    own_mu, mixed, own_phi = weak_normal(weight, model)
    own_mu, own_phi = own_mu + prior.spectrum[..., 0, :, :], own_phi + prior.phase_precision()
    determinant = own_mu * own_phi - mixed.square()
    of_mu, across, of_phi = own_phi / determinant, -mixed / determinant, own_mu / determinant
    # Alone: its products with mu and phi are left to the conjugate gradients.
    illumination = 1 / (
        torch.einsum("...phw,khw->...pk", weight * seen.unlit.square(), model.terms.square())
        + prior.illumination
    )

    def apply(change: PhaseObject) -> PhaseObject:
        mu, phi = torch.fft.rfft2(change.maps).unbind(dim=-3)
        spectra = torch.stack([of_mu * mu + across * phi, across * mu + of_phi * phi], dim=-3)
        return PhaseObject(
            maps=torch.fft.irfft2(spectra, s=model.canvas_shape),
            illumination=illumination * change.illumination,
        )

    return apply


def fit_local_prior(fit: Fit) -> Solving:
    """The fit of one field with a prior from the estimate itself, tight but at its edges.

    Edges have few pixels, and the data determine them well. A phase that may be steep and bent only
    there has little freedom left at the low spatial frequencies that the data leave undetermined.
    The variances of gradient and Laplacian at each pixel are those of the estimate around it.
    Estimate and variances are updated in turn. This is close to iteratively reweighted least
    squares for the logarithmic penalty sum s log(v + <|D phi|^2>) / 2 of first and second
    differences (Daubechies et al., Commun. Pure Appl. Math. 63, 1 (2010); both orders as in
    Bredies, Kunisch, Pock, SIAM J. Imaging Sci. 3, 492 (2010)). `prior.local` of the result says
    how smooth each pixel is.
    """
    spectrum = torch.stack([fit.prior.spectrum[0], SPECTRUM_SHARE * fit.prior.spectrum[1]])
    prior = replace(fit.prior, spectrum=spectrum)
    for number in range(ROUNDS):
        sharper = replace(fit, prior=replace(prior, local=measure_local_precision(fit)))
        fit = yield from name_stages(
            f"edges, round {number + 1} of {ROUNDS}", solve_round(sharper, INNER_STEPS)
        )
    return fit


def measure_local_precision(fit: Fit) -> LocalPrecision:
    """s / (v + <|D phi|^2>) of the estimate at each pixel.

    Outside the frame, where no data show an edge, it is the harmonic mean over the frame.
    """
    frame, phase = fit.model.frame, fit.estimate.maps[1]

    def invert(squares: Tensor, share: float, least: float) -> Tensor:
        smooth = gaussian_filter(squares.cpu().numpy(), NEIGHBOURHOOD_PX, mode="wrap")
        variance = torch.from_numpy(smooth).to(squares) + least**2
        everywhere = variance[frame].mean().expand_as(variance).clone()
        everywhere[frame] = variance[frame]
        return share / everywhere

    steepness, bend = gradients(phase).square().sum(dim=0), laplacian(phase).square()
    return LocalPrecision(
        gradient=invert(steepness, GRADIENT_SHARE, LEAST_GRADIENT),
        curvature=invert(bend, CURVATURE_SHARE, LEAST_CURVATURE),
    )
