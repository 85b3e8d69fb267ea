"""Gaussian priors of phase, absorption and illumination, with amplitudes from the image.

The power of the phase is A f^-2 + B f^-4, with f in cycles/px and |F|^2 over the number of pixels.
A f^-2 is that of natural images (Field, J. Opt. Soc. Am. A 4, 2379 (1987)). B f^-4 allows smooth
objects to be high. The power of the log-amplitude is C f^-2, and its mean is free. A and C follow
from each image by expectation maximisation (Dempster, Laird, Rubin, J. R. Stat. Soc. B 39, 1
(1977)). The second moment of a spectrum is that of the estimate plus the posterior variance.
Without this variance, frequencies that the data leave undetermined would look empty. A power law
with a fitted exponent was tried, too, and is not robust.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from napari_cvdm.physics.forward_model import PhaseForwardModel, PhaseObject
from napari_cvdm.physics.fresnel import half_spectrum_counts, squared_radius

START_PHASE = 2e-3
START_ABSORPTION = 3e-7
SMOOTH_PHASE = 3e-8
SMOOTH_SHARE = 5e-8  # of the variance of the phase over the frame: B of lenses and thick cells
# Standard deviation of the mean log-amplitude, for an object that absorbs or a blank field that was
# guessed.
MEAN_ABSORPTION = 0.05
WIDER = 2.0  # times the estimated A, since a tight prior does harm and a wide one hardly any
HIGHEST_FREQUENCY = 0.35  # cycles/px: beyond it camera and pupil decide, not the object
# cycles/px: lower frequencies show how smooth an object is, and a smooth object has no higher ones.
SMOOTH_FREQUENCY = 0.04
EM_ROUNDS = 20
# Of the variance of the camera's estimate, since planes without any noise would leave none.
LEAST_NOISE = 0.01
SETTLED = 0.1  # relative change of an amplitude from round to round
# Constant, ramps, bowls of `legendre_terms`.
ILLUMINATION_DEVIATIONS = (1e-4, 2e-3, 2e-3, 2e-5, 2e-5, 2e-5)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LocalPrecision:
    """Inverse variances of the differences of a phase at each pixel.

    They form D^T G D + L K L, with the gradient D and the Laplacian L.

    Parameters
    ----------
    gradient : Tensor of shape (H, W)
        G, one over the variance of a pixel's forward differences, both together [px^2/rad^2].
    curvature : Tensor of shape (H, W)
        K, one over the variance of the Laplacian of five pixels [px^4/rad^2].
    """

    gradient: Tensor = field(repr=False)
    curvature: Tensor = field(repr=False)

    def apply(self, phase: Tensor) -> Tensor:
        """(D^T G D + L K L) phase, (..., H, W)."""
        slopes = gradients(phase)
        bend = self.curvature * divergence(slopes)  # -K L phase, and L = -D^T D
        return divergence(self.gradient * slopes + gradients(bend))

    def apply_root(self, white: Tensor) -> Tensor:
        """Noise whose covariance is that operator, from white noise (..., 3, H, W): (..., H, W)."""
        along = divergence(self.gradient.sqrt() * white[..., :2, :, :].movedim(-3, 0))
        return along + laplacian(self.curvature.sqrt() * white[..., 2, :, :])

    def spectrum(self) -> Tensor:
        """Spectrum of the operator with median weights, on the real-FFT grid (H, W // 2 + 1)."""
        impulse = torch.zeros_like(self.gradient)
        impulse[0, 0] = 1
        steepness = torch.fft.rfft2(-laplacian(impulse)).real
        return self.gradient.median() * steepness + self.curvature.median() * steepness.square()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhasePrior:
    """Inverse variances, for the two maps diagonal in Fourier space.

    Parameters
    ----------
    spectrum : Tensor of shape (..., 2, H, W // 2 + 1)
        One over the power of log-amplitude and phase on the real-FFT grid of the canvas.
    illumination : Tensor of shape (P, K)
        One over the variance of each coefficient.
    flat : Tensor of shape (H, W), optional
        One over the variance [1/rad^2] of each pixel of the cell-free background about one unknown
        constant, 0 elsewhere.
    local : LocalPrecision, optional
        Inverse variances of each pixel's differences, added to the others.
    """

    spectrum: Tensor = field(repr=False)
    illumination: Tensor = field(repr=False)
    flat: Tensor | None = field(default=None, repr=False)
    local: LocalPrecision | None = None

    def precision(self, change: PhaseObject) -> PhaseObject:
        """C^-1 v."""
        maps, phase = filter_maps(change.maps, self.spectrum), change.maps[..., 1, :, :]
        if self.flat is not None:
            maps = add_to_phase(maps, about_mean(self.flat, phase))
        if self.local is not None:
            maps = add_to_phase(maps, self.local.apply(phase))
        return PhaseObject(maps=maps, illumination=change.illumination * self.illumination)

    def precision_root(self, white: PhaseObject, white_pixels: Tensor) -> PhaseObject:
        """Noise of covariance C^-1 from white noise.

        `white_pixels` (..., 4, H, W) is for the flat background, the two differences and the
        Laplacian.
        """
        maps = filter_maps(white.maps, self.spectrum.sqrt())
        if self.flat is not None:
            root = self.flat.sqrt() * white_pixels[..., 0, :, :]
            maps = add_to_phase(
                maps, root - self.flat * root.sum(dim=(-2, -1), keepdim=True) / self.flat.sum()
            )
        if self.local is not None:
            maps = add_to_phase(maps, self.local.apply_root(white_pixels[..., 1:, :, :]))
        return PhaseObject(maps=maps, illumination=white.illumination * self.illumination.sqrt())

    def phase_precision(self) -> Tensor:
        """About C^-1 of the phase at each frequency, for a preconditioner: (..., H, W // 2 + 1)."""
        precision = self.spectrum[..., 1, :, :]
        if self.flat is not None:
            precision = precision + self.flat.mean()
        return precision if self.local is None else precision + self.local.spectrum()

    def penalty(self, sample: PhaseObject) -> Tensor:
        """v^T C^-1 v / 2, shape (...)."""
        return sample.dot(self.precision(sample)) / 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PowerLaws:
    """Amplitudes of the power spectra of a batch of fields.

    Parameters
    ----------
    phase : Tensor of shape (...)
        A.
    absorption : Tensor of shape (...)
        C.
    noise : Tensor of shape (...)
        Factor on the variance of the data. It is at most 1, since texture makes the camera's
        estimate too large and never too small.
    smooth : Tensor of shape (...)
        B, at most `SMOOTH_PHASE`, or more for strong objects. Without a bound, low spatial
        frequencies that the data leave undetermined would count as real ones.
    """

    phase: Tensor
    absorption: Tensor
    noise: Tensor
    smooth: Tensor

    @classmethod
    def start(cls, batch: tuple[int, ...], like: Tensor) -> "PowerLaws":
        """Before anything is known of the image."""
        return cls(
            phase=like.new_full(batch, START_PHASE),
            absorption=like.new_full(batch, START_ABSORPTION),
            noise=like.new_ones(batch),
            smooth=like.new_full(batch, SMOOTH_PHASE),
        )

    def prior(self, model: PhaseForwardModel) -> PhasePrior:
        """The prior of fields on the canvas of a model."""
        shapes = _shapes(model, self.phase)
        power = torch.stack(self._powers(shapes), dim=-3)
        deviations = torch.tensor(ILLUMINATION_DEVIATIONS).to(self.phase)
        illumination = deviations.pow(-2).expand(model.planes, -1)
        return PhasePrior(spectrum=1 / power, illumination=illumination)

    def _powers(self, shapes: "_Shapes") -> tuple[Tensor, Tensor]:
        """Prior power of log-amplitude, whose mean is free, and of phase."""
        absorption = self.absorption[..., None, None] * shapes.natural
        absorption[..., 0, 0] = shapes.mean_absorption
        natural = WIDER * self.phase[..., None, None] * shapes.natural
        return absorption, natural + self.smooth[..., None, None] * shapes.smooth

    def agrees_with(self, other: "PowerLaws") -> bool:
        """Whether no amplitude of the phase or of the noise differs by more than `SETTLED`."""
        pairs = ((self.phase, other.phase), (self.noise, other.noise))
        return all(bool(((one - two).abs() <= SETTLED * two).all()) for one, two in pairs)

    def refine(
        self,
        maps: Tensor,
        residual: Tensor,
        weight: Tensor,
        factor: float,
        model: PhaseForwardModel,
    ) -> "PowerLaws":
        """Amplitudes by expectation maximisation.

        The method uses estimated `maps` (..., 2, H, W) and the posterior variance of the
        weak-object problem. `residual` and `weight` (..., P, h, w) are the data less expected
        intensity, and one over the variance of the data before the factor `noise`. `factor`
        multiplied the standard deviation of the noise when this estimate was made.
        """
        power = torch.fft.rfft2(maps).abs().square() / (maps.shape[-2] * maps.shape[-1])
        exaggerated = self.noise * factor**2
        normal = weak_normal(weight / exaggerated[..., None, None, None], model)
        shapes, laws = _shapes(model, power), self
        phase = maps[..., 1, model.frame[0], model.frame[1]]
        most_smooth = (SMOOTH_SHARE * phase.var(dim=(-2, -1))).clamp(min=SMOOTH_PHASE)
        # Only these frequencies determine the amplitudes.
        power, seen = power[..., shapes.inside], shapes.determining()
        normal_seen = tuple(part[..., shapes.inside] for part in normal)
        for _ in range(EM_ROUNDS):
            laws = laws._refined_once(power, seen, normal_seen, most_smooth)
        squares = (weight * residual * residual).sum(dim=(-3, -2, -1))
        fitted = self.fitted_numbers(model, weight / exaggerated[..., None, None, None])
        found = (squares + exaggerated * fitted) / (weight > 0).sum(dim=(-3, -2, -1)).clamp(min=1)
        return replace(laws, noise=torch.minimum(self.noise, found.clamp(min=LEAST_NOISE)))

    def fitted_numbers(self, model: PhaseForwardModel, weight: Tensor) -> Tensor:
        """tr (N + C^-1)^-1 N: how many numbers of a weak object the data determine, shape (...).

        `weight` (..., P, h, w) is one over the variance of the data.
        """
        height, width = model.canvas_shape
        # The data are spread over no more than that.
        frame = weight.shape[-2] * weight.shape[-1] / (height * width)
        of_mu, mixed, of_phi = (part / frame for part in weak_normal(weight, model))
        shapes = _shapes(model, self.phase)
        absorption, phase = self._powers(shapes)
        own_mu, own_phi = of_mu + 1 / absorption, of_phi + 1 / phase
        share = own_phi * of_mu + own_mu * of_phi - 2 * mixed.square()
        share = share / (own_mu * own_phi - mixed.square())
        within = (share * shapes.count).sum(dim=(-2, -1))
        # Some of the surroundings is determined, too: so many by draws of the posterior.
        return frame**0.5 * within

    def _refined_once(
        self, power: Tensor, shapes: "_Shapes", normal: tuple[Tensor, ...], most_smooth: Tensor
    ) -> "PowerLaws":
        """One round; `power` (..., 2, N) and `normal` (..., N) are of N frequencies in a row."""
        absorption = self.absorption[..., None] * shapes.natural
        natural = self.phase[..., None] * shapes.natural
        smooth = self.smooth[..., None] * shapes.smooth
        phase = natural + smooth
        own_mu, mixed, own_phi = normal[0] + 1 / absorption, normal[1], normal[2] + 1 / phase
        determinant = own_mu * own_phi - mixed.square()
        second_mu = power[..., 0, :] + own_phi / determinant
        second_phi = power[..., 1, :] + own_mu / determinant
        # What the natural part has of the phase at each frequency, as a linear estimate.
        share = natural / phase
        second_natural = share.square() * second_phi + share * smooth
        second_smooth = (1 - share).square() * second_phi + share * smooth

        def average(power: Tensor, counts: Tensor) -> Tensor:
            return (power * counts).sum(dim=-1) / counts.sum(dim=-1)

        return PowerLaws(
            phase=average(second_natural / shapes.natural, shapes.count),
            absorption=average(second_mu / shapes.natural, shapes.count),
            noise=self.noise,
            smooth=average(
                second_smooth / shapes.smooth, (1 - share) * shapes.count * shapes.lowest
            ).minimum(most_smooth),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shapes:
    """Power spectra of amplitude 1 on the real-FFT grid, and frequencies that determine A and B.

    It also holds how many frequencies of the whole spectrum each one stands for.
    """

    natural: Tensor
    smooth: Tensor
    mean_absorption: float
    inside: Tensor
    lowest: Tensor
    count: Tensor

    def determining(self) -> "_Shapes":
        """The same of the frequencies that determine A and B alone, in a row."""
        names = ("natural", "smooth", "inside", "lowest", "count")
        return replace(self, **{name: getattr(self, name)[self.inside] for name in names})


def _shapes(model: PhaseForwardModel, like: Tensor) -> _Shapes:
    height, width = model.canvas_shape
    squared = squared_radius((height, width), 1.0, like)[:, : width // 2 + 1]
    inside = squared < HIGHEST_FREQUENCY**2
    inside[0, 0] = False
    # The mean has no frequency: as of a wave twice as long as the field.
    squared[0, 0] = (0.5 / max(height, width)) ** 2
    return _Shapes(
        natural=1 / squared,
        smooth=1 / squared.square(),
        mean_absorption=height * width * MEAN_ABSORPTION**2,
        inside=inside,
        lowest=inside & (squared < max(SMOOTH_FREQUENCY, 1.5 / min(height, width)) ** 2),
        count=half_spectrum_counts(width, squared).expand_as(squared),
    )


def about_mean(weight: Tensor, image: Tensor) -> Tensor:
    """w (v - mean v) of images v (..., H, W): gradient of weighted squares about their mean."""
    mean = (weight * image).sum(dim=(-2, -1), keepdim=True) / weight.sum()
    return weight * (image - mean)


def gradients(image: Tensor) -> Tensor:
    """Forward differences along x and y of periodic images (..., H, W): (2, ..., H, W)."""
    return torch.stack([image.roll(-1, -1) - image, image.roll(-1, -2) - image])


def divergence(flow: Tensor) -> Tensor:
    """The adjoint of `gradients`: (2, ..., H, W) to (..., H, W)."""
    return flow[0].roll(1, -1) - flow[0] + flow[1].roll(1, -2) - flow[1]


def laplacian(image: Tensor) -> Tensor:
    """Of five pixels, of periodic images (..., H, W)."""
    return -divergence(gradients(image))


def add_to_phase(maps: Tensor, phase: Tensor) -> Tensor:
    """Maps (..., 2, H, W) with something added to their phase."""
    return torch.stack([maps[..., 0, :, :], maps[..., 1, :, :] + phase], dim=-3)


def filter_maps(maps: Tensor, transfer: Tensor) -> Tensor:
    """Multiply the real-FFT spectra of real maps (..., H, W) by a real transfer function."""
    return torch.fft.irfft2(torch.fft.rfft2(maps) * transfer, s=(maps.shape[-2], maps.shape[-1]))


def weak_normal(weight: Tensor, model: PhaseForwardModel) -> tuple[Tensor, Tensor, Tensor]:
    """J^T W J of a weak object at each frequency, with W averaged over the canvas.

    The entries are mu mu, mu phi and phi phi, each (..., H, W // 2 + 1). The weight has the shape
    (..., P, h, w).
    """
    height, width = model.canvas_shape
    mean = (weight.sum(dim=(-2, -1)) / (height * width))[..., None, None]
    of_mu, of_phi = model.weak_transfer()
    return (
        (mean * of_mu.square()).sum(dim=-3),
        (mean * of_mu * of_phi).sum(dim=-3),
        (mean * of_phi.square()).sum(dim=-3),
    )
