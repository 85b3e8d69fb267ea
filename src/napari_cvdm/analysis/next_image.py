"""Plan the next image: what the expected error would be with more photons or other planes.

The posterior of the present image is linearised about a weak object. At each spatial frequency its
variance is

    1 / (1 / S(f) + sum over planes |H_z(f)|^2 / noise variance)

S is the power of the object under the prior that was fitted to this image, H the transfer function
(2 x 2 for phase and absorption, which the planes mix). So the error holds what noise and lost
frequencies leave open. It holds no error of the model, and no network is part of it.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import torch
from scipy.optimize import minimize

from napari_cvdm.core.microscope import DEFOCUS_LIMIT_UM, SMALLEST_DISTANCE_UM, Microscope
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import Progress, map_steps
from napari_cvdm.inversion import Fit
from napari_cvdm.inversion.gauss_newton import SPECTRUM_SHARE
from napari_cvdm.inversion.priors import LocalPrecision, weak_normal
from napari_cvdm.physics.camera import CameraNoise
from napari_cvdm.physics.forward_model import PhaseForwardModel
from napari_cvdm.tasks import TASKS
from napari_cvdm.tasks.phase_posterior import PhasePosterior

LARGEST_PX = 192  # the middle of a larger image stands for it
FARTHEST = 4.0  # times the present distance of the planes, and its inverse
CURVE_POINTS = 17
EXPOSURES = tuple(2.0**power for power in np.linspace(-2, 3, 11))
TWICE = 2.0
NEAR_BEST = 1.02  # of the least error: distances this close to it are as good
NO_LENS = (
    "not available: the run has no transfer function of the objective. Give NA and wavelength, and "
    "choose a model that deconvolves."
)
ONE_PLANE = "Another plane or another focus: not available for one fluorescence plane in focus."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outlook:
    """Expected errors of the next image.

    Parameters
    ----------
    unit : str
        Of every error: ``rad`` or ``counts`` at the present exposure.
    now, twice : float
        RMS error as the image is, and with twice the photons.
    plane_um, plane_error : float, optional
        Best position of one more plane with the same exposure, and the error with it.
    best_um : tuple of float, optional
        Positions of as many planes as now, with the least error.
    best_error : float, optional
    curve : ndarray of shape (K,)
        Half distance of the outermost planes [um], or the exposure in units of the present one.
    errors : ndarray of shape (K,)
    present : float
        Where on the curve the image is.
    """

    unit: str
    now: float
    twice: float
    plane_um: float | None = None
    plane_error: float | None = None
    best_um: tuple[float, ...] | None = None
    best_error: float | None = None
    curve: np.ndarray = field(repr=False)
    errors: np.ndarray = field(repr=False)
    present: float

    @property
    def of_planes(self) -> bool:
        """Whether the curve is over the distance of defocused planes."""
        return self.best_um is not None


Planning = Generator[Progress, None, Outlook]


def plan_next_image(frame: np.ndarray, plan: Plan, task: str) -> Planning:
    """Expected errors of the next image, from one frame (P, Y, X) of this one, as measured.

    `task` is a name of `TASKS`. RequestError if there is nothing to derive the errors from.
    """
    part, background = middle_of(frame.shape[-2:], plan), plan.background
    if not isinstance(background, str):
        background = background[..., *part]
    plan = replace(plan, region=None, background=background)
    number = count(1)
    prepared = yield from map_steps(
        TASKS[task].prepare(frame[..., *part], plan),
        lambda stage: Progress(stage=stage, done=next(number), total=0),
    )
    if plan.defocus_um is not None and isinstance(prepared.posterior, PhasePosterior):
        known = PhaseInformation.of_fit(prepared.posterior.fit, plan)
        return plan_planes(known, plan.positions_um)
    counts, noise, lens = prepared.counts, prepared.noise, prepared.lens
    if lens is None or counts is None or noise is None:
        raise RequestError(NO_LENS)
    transfer = camera_transfer(lens.psf, counts.shape, prepared.upsampling)
    return plan_exposure(counts, transfer, noise)


def middle_of(shape: tuple[int, ...], plan: Plan) -> tuple[slice, slice]:
    """Rows and columns of the middle of what a plan asks for, at most `LARGEST_PX` a side."""
    top, bottom, left, right = plan.region or (0, shape[0], 0, shape[1])

    def middle(first: int, last: int) -> slice:
        start = max(first, (first + last - LARGEST_PX) // 2)
        return slice(start, start + min(LARGEST_PX, last - first))

    return middle(top, bottom), middle(left, right)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhaseInformation:
    """Prior and noise of a phase image, for the error with other planes.

    Parameters
    ----------
    shape : tuple of int
        (Y, X) of the frame, which is taken for periodic.
    precision : Tensor of shape (2, Y, X // 2 + 1)
        One over the prior power of log-amplitude and phase.
    weight : float
        One over the variance of a pixel over the blank field.
    """

    shape: tuple[int, int]
    precision: torch.Tensor = field(repr=False)
    weight: float
    microscope: Microscope
    condenser_na: float = 0.0

    @classmethod
    def of_fit(cls, fit: Fit, plan: Plan) -> "PhaseInformation":
        """Of a fit of this image, with its own prior, averaged over the frame."""
        shape = (fit.residual.shape[-2], fit.residual.shape[-1])
        model = PhaseForwardModel.create(
            shape, plan.positions_um, plan.microscope, like=fit.model.terms
        )
        own, frame = fit.laws.prior(model), fit.model.frame
        if (flat := fit.prior.flat) is not None:
            own = replace(own, flat=flat[frame])
        if (local := fit.prior.local) is not None:
            # As the fit does: the local prior takes the place of most of the spectrum.
            spectrum = torch.stack([own.spectrum[0], SPECTRUM_SHARE * own.spectrum[1]])
            gradient, curvature = local.gradient[frame], local.curvature[frame]
            inside = LocalPrecision(gradient=gradient, curvature=curvature)
            own = replace(own, spectrum=spectrum, local=inside)
        return cls(
            shape=shape,
            precision=torch.stack([own.spectrum[0], own.phase_precision()]).double().cpu(),
            weight=float(fit.weight[fit.weight > 0].mean()),
            microscope=plan.microscope,
            condenser_na=plan.condenser_na,
        )

    def error(self, positions_um: Sequence[float], exposure: float = 1.0) -> float:
        """Expected RMS error of the phase less its mean [rad], with planes at these positions [um].

        `exposure` is the photons of each plane, in units of the present ones, whose noise counts.
        """
        like = torch.zeros(1, dtype=torch.float64)
        model = PhaseForwardModel.create(
            self.shape, positions_um, self.microscope, condenser_na=self.condenser_na, like=like
        )
        weight = like.new_full((len(positions_um), *self.shape), self.weight * exposure)
        of_mu, mixed, of_phi = weak_normal(weight, model)
        of_mu, of_phi = of_mu + self.precision[0], of_phi + self.precision[1]
        # The phase in the inverse of the 2 x 2 matrix of each frequency.
        variance = of_mu / (of_mu * of_phi - mixed.square())
        return mean_of_spectrum(variance.numpy(), self.shape[1]) ** 0.5


def mean_of_spectrum(power: np.ndarray, width: int) -> float:
    """Mean over all frequencies but zero, of a power on a real-FFT grid (Y, X // 2 + 1).

    It is the variance of a pixel about the mean.
    """
    columns = np.full(power.shape[1], 2.0)
    # Columns of a real FFT count twice, except the first and an even last.
    columns[0] = 1.0
    if width % 2 == 0:
        columns[-1] = 1.0
    counts = np.broadcast_to(columns, power.shape).copy()
    counts[0, 0] = 0.0
    return float((power * counts).sum() / (power.shape[0] * width))


def plan_planes(known: PhaseInformation, positions_um: Sequence[float]) -> Outlook:
    """Expected errors with more photons, one more plane, or other distances.

    Distances are those of the present planes times a quarter to four.
    """
    positions = np.sort(np.asarray(positions_um, np.float64))
    centre = (positions[0] + positions[-1]) / 2
    half = (positions[-1] - positions[0]) / 2
    most = min(FARTHEST, (DEFOCUS_LIMIT_UM - abs(centre)) / half)
    factors = np.geomspace(1 / FARTHEST, max(most, 1.0), CURVE_POINTS)
    sets = [tuple(float(z) for z in centre + factor * (positions - centre)) for factor in factors]
    errors = np.array([known.error(planes) for planes in sets])
    # Errors are flat about the least one: the distance nearest to the present one is named.
    good = np.flatnonzero(errors <= NEAR_BEST * errors.min())
    best = int(good[np.argmin(np.abs(np.log(factors[good])))])
    more = [
        float(z)
        for z in centre + half * np.linspace(-most, most, 2 * CURVE_POINTS - 1)
        if np.abs(z - positions).min() > max(SMALLEST_DISTANCE_UM, 0.05 * half)
    ]
    # None where the planes lie so close that no place between them is left.
    with_one = [(known.error((*positions.tolist(), z)), z) for z in more]
    plane_error, plane_um = min(with_one, default=(None, None))
    return Outlook(
        unit="rad",
        now=known.error(positions.tolist()),
        twice=known.error(positions.tolist(), TWICE),
        plane_um=plane_um,
        plane_error=plane_error,
        best_um=sets[best],
        best_error=float(errors[best]),
        curve=half * factors,
        errors=errors,
        present=float(half),
    )


def camera_transfer(psf: np.ndarray, shape: tuple[int, ...], upsampling: int) -> np.ndarray:
    """Transfer function of PSF and camera pixel, on the real-FFT grid of an image (Y, X).

    The PSF (S, S) has the sum 1, on a grid `upsampling` times as fine.
    """
    height, width = shape[0], shape[1]
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    place = np.arange(psf.shape[0]) - psf.shape[0] // 2
    down = np.exp(-2j * np.pi * y * place / upsampling)  # (Y, S)
    right = np.exp(-2j * np.pi * place[:, None] * x / upsampling)  # (S, X // 2 + 1)
    # The sum of u fine pixels, sin(pi f) / (u sin(pi f / u)).
    pixel = np.sinc(y) * np.sinc(x) / (np.sinc(y / upsampling) * np.sinc(x / upsampling))
    return np.asarray(np.abs(down @ psf @ right) * np.abs(pixel))


def fit_power(image: np.ndarray, transfer: np.ndarray, noise: float) -> tuple[float, float]:
    """Amplitude A and exponent a of the power A f^-a of an object, by maximum likelihood.

    The power of the image (Y, X) at frequency f [cycles/px] is A f^-a |H|^2 + noise (Whittle), with
    the transfer H (Y, X // 2 + 1) and the variance of a pixel. Frequency zero is left out.
    """
    window = np.outer(np.hanning(image.shape[0]), np.hanning(image.shape[1]))
    window /= np.sqrt(np.square(window).mean())  # keeps the power of noise
    spectrum = np.fft.rfft2((image - image.mean()) * window)
    power = np.abs(spectrum).ravel()[1:] ** 2 / image.size
    log_f, passed = np.log(frequencies(image.shape)).ravel()[1:], transfer.ravel()[1:] ** 2

    def cost(parameters: np.ndarray) -> float:
        expected = np.exp(parameters[0] - parameters[1] * log_f) * passed + noise
        return float(np.mean(np.log(expected) + power / expected))

    start = np.array([np.log(max(float(np.median(power)) * 1e-2, 1e-12)), 2.0])
    found = minimize(cost, start, method="Nelder-Mead", options={"maxiter": 400})
    return float(np.exp(found.x[0])), float(found.x[1])


def frequencies(shape: tuple[int, ...]) -> np.ndarray:
    """Size of each frequency [cycles/px] on a real-FFT grid; at zero that of half a wave."""
    size = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    # Finite, since a negative power of it is taken.
    size[0, 0] = 0.5 / max(shape)
    return np.asarray(size)


def plan_exposure(counts: np.ndarray, transfer: np.ndarray, noise: CameraNoise) -> Outlook:
    """Expected errors of a linear deconvolution of a fluorescence image, with other exposures.

    The error is that of the light on the camera's grid, in counts at the present exposure. Counts
    (Y, X) are above the dark level; the transfer has the shape (Y, X // 2 + 1).

    Raises
    ------
    RequestError
        The image has no noise.
    """
    mean = max(float(counts.mean()), 0.0)
    if noise.none:
        raise RequestError(
            "not available: this image has no noise, so more photons change nothing."
        )

    def variance(exposure: float) -> float:
        return noise.gain * mean / exposure + noise.read_variance / exposure**2

    amplitude, exponent = fit_power(counts, transfer, variance(1.0))
    prior = amplitude * frequencies(counts.shape) ** -exponent

    def error(exposure: float) -> float:
        posterior = 1 / (1 / prior + transfer**2 / variance(exposure))
        return mean_of_spectrum(posterior, counts.shape[1]) ** 0.5

    return Outlook(
        unit="counts",
        now=error(1.0),
        twice=error(TWICE),
        curve=np.array(EXPOSURES),
        errors=np.array([error(exposure) for exposure in EXPOSURES]),
        present=1.0,
    )


def describe_outlook(outlook: Outlook) -> str:
    """One sentence for each thing that can be changed."""
    unit, now = outlook.unit, outlook.now
    text = f"Twice the light: error {now:.2g} → {outlook.twice:.2g} {unit}"
    if outlook.best_um is None or outlook.best_error is None:
        return f"{text}. {ONE_PLANE}"
    if outlook.plane_um is not None:
        text += f"; one more plane at {outlook.plane_um:+.3g} µm: {outlook.plane_error:.2g} {unit}"
    planes = " ".join(f"{z:+.3g}" for z in outlook.best_um)
    half = (outlook.best_um[-1] - outlook.best_um[0]) / 2
    if abs(half / outlook.present - 1) < 0.01:
        return f"{text}; other distances of the planes: no better."
    at_end = ", the farthest that was tried" if half >= 0.99 * outlook.curve[-1] else ""
    return f"{text}; planes at {planes} µm{at_end}: {outlook.best_error:.2g} {unit}."
