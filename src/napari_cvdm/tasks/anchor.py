"""What the light decides is not left to the network: slow waves of the phase are tied to US-TIE as tightly as photons allow."""

from dataclasses import dataclass, field
from math import pi

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.microscope import Microscope
from napari_cvdm.physics.grids import squared_radius
from napari_cvdm.physics.tie import expected_noise_power, ring_average
from napari_cvdm.tasks.levelling import Levelling, level_by_medium
from napari_cvdm.tasks.surroundings import CROSSING_SHARE, Surroundings

NETWORK_ERROR = 0.1  # error of the network's slow waves, as a share of their amplitude (best of 0 to 1 on simulated fields and HL60)
UNDECIDED_SHARE = 0.7  # of US-TIE's noise stays in waves that the light does not decide: there the network's guess is hardly better than US-TIE's
LINEAR_ANGLE = 0.6  # rad of pi lambda z f^2 / n: beyond it the transport of intensity is no longer linear in z


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anchor:
    """Two Gaussian estimates of each frequency become one.

    phi = phi_s + G (phi_TIE - phi_s) + n, G = V / (V + N) T: N is the power of photon noise in US-TIE, V that of the
    network's error, T closes where US-TIE is not linear, and n is a fresh draw of what the light leaves open, so that
    samples keep spread.

    Parameters
    ----------
    phase : Tensor of shape (Y, X)
        US-TIE [rad].
    gain : Tensor of shape (Y, X)
        G, 0 to 1, on the unshifted FFT grid; even, as all that depends on the frequency's size is.
    noise_amplitude : Tensor of shape (Y, X)
        That of n for white noise of unit variance, on the same grid; see `drawn_amplitude`.
    levelling : Levelling, optional
        Takes out what drifts over empty medium, the drift of n included.
    surroundings : Surroundings, optional
        Draws what objects beyond the frame do to US-TIE.
    """

    phase: Tensor = field(repr=False)
    gain: Tensor = field(repr=False)
    noise_amplitude: Tensor = field(repr=False)
    levelling: Levelling | None = None
    surroundings: Surroundings | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X) of the field."""
        return self.phase.shape[-2], self.phase.shape[-1]

    def within(self, window: tuple[slice, slice]) -> "AnchorWithin":
        """The same for a part of the field."""
        return AnchorWithin(whole=self, window=window)

    def drift(self, seed: int, sample: int) -> np.ndarray | float:
        """What objects beyond the frame add to one posterior sample [rad]: (Y, X), or 0 where nobody drew it."""
        return 0.0 if self.surroundings is None else self.surroundings.drift(seed, sample)

    def apply(self, sample: np.ndarray, white: np.ndarray, drift: np.ndarray | float = 0.0) -> np.ndarray:
        """Tie one posterior sample.

        Parameters
        ----------
        sample : ndarray of shape (Y, X)
            Phase [rad].
        white : ndarray of shape (Y, X)
            Standard normal noise, another one for each sample.
        drift : ndarray of shape (Y, X) or float
            Of the sample, see `drift`.

        Returns
        -------
        ndarray of shape (Y, X), float32
        """
        lacking = torch.fft.rfft2(self.phase - torch.from_numpy(sample).double())
        noise = torch.fft.rfft2(torch.from_numpy(white.copy()).double())
        half = (..., slice(lacking.shape[-1]))
        drawn = torch.fft.irfft2(self.gain[half] * lacking + self.noise_amplitude[half] * noise, s=self.shape)
        image = sample + drawn.numpy() + drift
        return (image if self.levelling is None else self.levelling.apply(image)).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnchorWithin:
    """An anchor for a part of the field, where US-TIE stands in for the rest: slow waves do not end at the part's border.

    Parameters
    ----------
    whole : Anchor
    window : tuple of slice
        The part.
    """

    whole: Anchor
    window: tuple[slice, slice]

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X) of the white noise that `apply` takes: that of the whole field."""
        return self.whole.shape

    def drift(self, seed: int, sample: int) -> np.ndarray | float:
        """That of the whole field."""
        return self.whole.drift(seed, sample)

    def apply(self, sample: np.ndarray, white: np.ndarray, drift: np.ndarray | float = 0.0) -> np.ndarray:
        """Tie a sample of the part; see `Anchor.apply`."""
        field = self.whole.phase.numpy().copy()
        level = float(np.mean(field[self.window]) - np.mean(sample))
        field[self.window] = sample + level
        return self.whole.apply(field, white, drift)[self.window]


def linear_range(shape: tuple[int, int], defocus_um: tuple[float, float], microscope: Microscope, like: Tensor) -> Tensor:
    """T = exp(-(pi lambda z f^2 / (0.6 n))^2): 1 where US-TIE is linear in z, 0 where it is not; (Y, X)."""
    farthest = max(abs(z) for z in defocus_um)
    angle = pi * microscope.wavelength_um / microscope.medium_index * farthest * squared_radius(shape, microscope.pixel_um, like)
    return torch.exp(-(angle / LINEAR_ANGLE).square())


def tie_gain(error: Tensor, noise: Tensor, linear: Tensor) -> Tensor:
    """G = V / (V + N) T, 1 at f = 0: zero mean, and no noise there; (Y, X)."""
    gain = linear * error / (error + noise).clamp(min=torch.finfo(noise.dtype).tiny)
    gain[0, 0] = 1
    return gain


def drawn_amplitude(gain: Tensor, wiener: Tensor, noise: Tensor, linear: Tensor) -> Tensor:
    """sqrt(N) max(G, 0.7 T sqrt(W)): the noise that US-TIE brings in, or what W, its share above the noise, leaves undecided; (Y, X)."""
    left = torch.maximum(gain, UNDECIDED_SHARE * linear * wiener.sqrt())
    return left * (noise / noise.numel()).sqrt()


def light_anchor(phase: Tensor, wiener: Tensor, derivative_sigma: float, defocus_um: tuple[float, float], microscope: Microscope, crossing: float) -> Anchor:
    """The anchor of one field.

    Parameters
    ----------
    phase : Tensor of shape (Y, X)
        US-TIE [rad] without what noise explains.
    wiener : Tensor of shape (Y, X)
        What that kept of each frequency, 0 to 1.
    derivative_sigma : float
        Standard deviation of the noise of dI/dz [1/um], intensity over background.
    defocus_um : tuple of float
    microscope : Microscope
    crossing : float
        How much of the objects crosses the frame, see `crossing_share`.

    Returns
    -------
    Anchor
    """
    shape = (phase.shape[-2], phase.shape[-1])
    noise = expected_noise_power(shape, derivative_sigma, microscope, phase)
    error = NETWORK_ERROR**2 * ring_average(torch.fft.fft2(phase).abs().square())
    linear = linear_range(shape, defocus_um, microscope, phase)
    gain = tie_gain(error, noise, linear)
    return Anchor(
        phase=phase,
        gain=gain,
        noise_amplitude=drawn_amplitude(gain, wiener, noise, linear),
        levelling=level_by_medium(phase.numpy(), derivative_sigma, microscope),
        surroundings=Surroundings(phase=phase, share=CROSSING_SHARE * crossing),
    )
