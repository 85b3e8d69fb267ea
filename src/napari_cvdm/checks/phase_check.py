"""A phase imaged once more, by the very image formation that was fitted to the planes.

The phase of the fit is replaced by the phase of the result. Log-amplitude, illumination and the
phase around the result are unknown. They are fitted again by conjugate gradients, with the phase of
the result held fixed.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.checks.check_model import Comparison, Fitted
from napari_cvdm.core.statistics import interior
from napari_cvdm.inversion import Fit
from napari_cvdm.inversion.gauss_newton import conjugate_gradients
from napari_cvdm.inversion.priors import weak_normal
from napari_cvdm.physics.camera import LEAST_DEVIATION
from napari_cvdm.physics.forward_model import PhaseLinearisation, PhaseObject

MOST_STEPS = 40  # of conjugate gradients
SMALLEST_GAIN = 0.005  # of chi-squared: the solution is good enough
REACH_PX = 32  # how far a difference from the fit goes on outside the result
RING_PX = 2
LEAST_FREEDOM = 0.1  # share of the degrees of freedom that a fit to the noise leaves at least


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhaseCheckModel:
    """Defocused planes of a phase.

    Parameters
    ----------
    fit : Fit
        Of the whole frame, without batch dimension.
    order : tuple of int
        Place in the fit of each plane of the request.
    part : tuple of slice
        Rows and columns of the canvas that the result covers.
    freedom : float
        Degrees of freedom of one measured value for a given phase: all else is fitted to the noise.
    most_fitted : float
        Share of these degrees of freedom that a phase can be fitted to at most.
    """

    fit: Fit = field(repr=False)
    order: tuple[int, ...]
    part: tuple[slice, slice]
    freedom: float
    most_fitted: float

    @classmethod
    def create(
        cls, fit: Fit, defocus_um: Sequence[float], region: tuple[int, int, int, int] | None = None
    ) -> "Generator[str, None, PhaseCheckModel]":
        """Image formation of a frame, or of a region of it. Yields before each solver step.

        The positions are in the order of the request; the fit has them in rising order. A region
        is (top, bottom, left, right) in pixels of the frame.
        """
        rows, columns = fit.model.frame
        if region is not None:
            top, bottom, left, right = region
            rows = slice(rows.start + top, rows.start + bottom)
            columns = slice(columns.start + left, columns.start + right)
        # The rank of each position: the fit has the planes in rising order.
        order = tuple(int(place) for place in np.argsort(np.argsort(defocus_um)))
        plain = cls(fit=fit, order=order, part=(rows, columns), freedom=1.0, most_fitted=0.0)
        freedom = 1 - (yield from plain.measure_fitted())
        phase_alone = count_fitted(fit) - (1 - freedom)
        return replace(
            plain, freedom=freedom, most_fitted=min(1.0, max(0.0, phase_alone / freedom))
        )

    @property
    def inner(self) -> tuple[slice, slice]:
        """Rows and columns of the frame that the result covers."""
        (rows, columns), frame = self.part, self.fit.model.frame
        top, left = frame[0].start, frame[1].start
        return (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )

    @property
    def measured(self) -> np.ndarray:
        """Planes over the blank field, (P, Y, X), in the order of the request."""
        return self._cut(self.fit.linearisation.expected + self.fit.residual)

    @property
    def counted(self) -> np.ndarray:
        """Pixels of each plane that were measured, bool (P, Y, X)."""
        return self._cut(self.fit.weight > 0)

    @property
    def valid(self) -> np.ndarray:
        """Pixels that any plane measured, bool (Y, X)."""
        return np.asarray(self.counted.any(axis=0))

    @property
    def noisy(self) -> bool:
        """Whether there is noise to compare with."""
        weight = self.fit.weight
        # Without noise, an image has the weight of the least deviation of a plane.
        is_finite = bool(torch.isfinite(weight).all())
        return is_finite and float(weight.max()) < 0.99 / LEAST_DEVIATION**2

    def compare(
        self, image: np.ndarray, fitted: Fitted | None = None
    ) -> Generator[str, None, Comparison]:
        """Image a phase (Y, X) [rad] again, and compare. Yields before each solver step.

        `fitted` is the `PhaseObject` that was fitted beside another phase. It is fitted anew if
        None.
        """
        start = self.place(image)
        change = fitted if isinstance(fitted, PhaseObject) else (yield from self.refit(start))
        seen = self.fit.model.linearise(start.add(change))
        residual = (
            self.fit.linearisation.expected + self.fit.residual - seen.expected
        ) * self.fit.weight.sqrt()
        return Comparison(
            residual=self._cut(residual).astype(np.float32),
            predicted=self._cut(seen.expected),
            gain=float(seen.light.median()),
            fitted=change,
            counted=self.counted,
            freedom=self.freedom,
        )

    def place(self, image: np.ndarray) -> PhaseObject:
        """The object of the fit with another phase within the part.

        The level of the image follows from the ring along its border. Outside the part, the
        difference from the fit is mirrored and fades.
        """
        phase = self.fit.estimate.maps[1].clone()
        difference = np.asarray(image, dtype=np.float64) - phase[self.part].double().cpu().numpy()
        # No plane shows a constant, so the level may be chosen freely.
        ring = ~interior((difference.shape[0], difference.shape[1]), RING_PX)
        difference -= difference[ring].mean()
        grown, extended = _extend(difference, self.part, self.fit.model.canvas_shape)
        phase[grown] += torch.from_numpy(extended).to(phase)
        return replace(self.fit.estimate, maps=torch.stack([self.fit.estimate.maps[0], phase]))

    def refit(self, start: PhaseObject) -> Generator[str, None, PhaseObject]:
        """The change of all but the given phase that explains the planes best, to first order."""
        fit, model = self.fit, self.fit.model
        seen = model.linearise(start)
        missing = fit.linearisation.expected + fit.residual - seen.expected
        right = model.adjoint(seen, fit.weight * missing).add(fit.prior.precision(start), -1.0)
        change = yield from self._solve_around(seen, right)
        after, root = missing + seen.expected - model.apply(start.add(change)), fit.weight.sqrt()
        before, now = (float((root * left).square().sum()) for left in (missing, after))
        # A step of first order may be too long for a strong phase.
        return change if now < before else model.zero()

    def measure_fitted(self) -> Generator[str, None, float]:
        """Share of the measured values of the part that `refit` fits.

        e^T W^1/2 J v for one draw of white noise e, v what `refit` makes of that noise
        (Hutchinson, Commun. Stat. Simul. Comput. 19, 433 (1990)).
        """
        fit, seen, inner = self.fit, self.fit.linearisation, self.inner
        # One seed, on the CPU: a check has the same numbers on every device.
        generator = torch.Generator().manual_seed(0)
        white = torch.randn(fit.weight.shape, generator=generator, dtype=fit.weight.dtype)
        white = white.to(fit.weight)
        start = fit.model.adjoint(seen, fit.weight.sqrt() * white)
        change = yield from self._solve_around(seen, start)
        explained = white * fit.weight.sqrt() * fit.model.derivative(seen, change)
        measured = int((fit.weight[..., *inner] > 0).sum())
        share = float(explained[..., *inner].sum()) / max(1, measured)
        # An estimate from one draw may be out of range.
        return min(1 - LEAST_FREEDOM, max(0.0, share))

    def _solve_around(
        self, seen: PhaseLinearisation, right: PhaseObject
    ) -> Generator[str, None, PhaseObject]:
        """P (J^T W J + C^-1) P v = P b, where P sets the phase within the part to zero."""
        fit, model = self.fit, self.fit.model
        free = torch.ones_like(right.maps)
        free[(1, *self.part)] = 0

        def project(change: PhaseObject) -> PhaseObject:
            return replace(change, maps=change.maps * free)

        def normal(change: PhaseObject) -> PhaseObject:
            back = model.adjoint(seen, fit.weight * model.derivative(seen, change))
            return project(back.add(fit.prior.precision(change)))

        # As if the object were weak: then the matrix is nearly diagonal in Fourier space.
        of_mu, _, of_phi = weak_normal(fit.weight, model)
        of_mu, of_phi = of_mu + fit.prior.spectrum[0], of_phi + fit.prior.phase_precision()
        maps_inverse = 1 / torch.stack([of_mu, of_phi])
        lit = torch.einsum("phw,khw->pk", fit.weight * seen.unlit.square(), model.terms.square())
        light_inverse = 1 / (lit + fit.prior.illumination)

        def precondition(change: PhaseObject) -> PhaseObject:
            spectrum = torch.fft.rfft2(change.maps) * maps_inverse
            maps = torch.fft.irfft2(spectrum, s=model.canvas_shape)
            return project(PhaseObject(maps=maps, illumination=light_inverse * change.illumination))

        least_gain = SMALLEST_GAIN * int((fit.weight > 0).sum()) / 2
        return conjugate_gradients(normal, precondition, project(right), MOST_STEPS, least_gain)

    def _cut(self, planes: Tensor) -> np.ndarray:
        """The part of planes (P, h, w) of the frame, in the order of the request."""
        return np.asarray(planes[list(self.order), *self.inner].cpu().numpy())


def count_fitted(fit: Fit) -> float:
    """Numbers of the object that a fit determines, as a share of the measured values.

    See `PowerLaws.fitted_numbers`.
    """
    measured = max(1, int((fit.weight > 0).sum()))
    return float(fit.laws.fitted_numbers(fit.model, fit.weight)) / measured


def _extend(
    difference: np.ndarray, part: tuple[slice, slice], shape: tuple[int, int]
) -> tuple[tuple[slice, slice], np.ndarray]:
    """A difference mirrored at its border and fading, and where on the canvas it is."""
    pads, fades, grown = [], [], []
    for inner, size in zip(part, shape, strict=True):
        before, after = min(REACH_PX, inner.start), min(REACH_PX, size - inner.stop)
        pads.append((before, after))
        grown.append(slice(inner.start - before, inner.stop + after))
        fades.append(
            np.concatenate([_rise(before), np.ones(inner.stop - inner.start), _rise(after)[::-1]])
        )
    return (grown[0], grown[1]), np.pad(difference, pads, mode="symmetric") * np.outer(*fades)


def _rise(count: int) -> np.ndarray:
    return np.sin((np.arange(count) + 0.5) / max(count, 1) * np.pi / 2) ** 2
