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

NETWORK_ERROR = 0.1  # error of the network's slow waves, as a share of their amplitude (best of 0 to 1 on simulated fields and HL60)
LINEAR_ANGLE = 0.6  # rad of pi lambda z f^2 / n: beyond it the transport of intensity is no longer linear in z


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anchor:
    """Two Gaussian estimates of each frequency become one.

    phi = phi_s + G (phi_TIE + n - phi_s), G = V / (V + N) T: N is the power of photon noise in US-TIE, V that of the
    network's error, T closes where US-TIE is not linear, and n is a fresh draw of the noise, so that samples keep spread.

    Parameters
    ----------
    phase : Tensor of shape (Y, X)
        US-TIE [rad].
    gain : Tensor of shape (Y, X)
        G, 0 to 1, on the unshifted FFT grid.
    noise_amplitude : Tensor of shape (Y, X)
        sqrt(N) for white noise of unit variance, on the same grid.
    levelling : Levelling, optional
        Takes out what drifts over empty medium, the drift of n included.
    """

    phase: Tensor = field(repr=False)
    gain: Tensor = field(repr=False)
    noise_amplitude: Tensor = field(repr=False)
    levelling: Levelling | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X) of the field."""
        return self.phase.shape[-2], self.phase.shape[-1]

    def within(self, window: tuple[slice, slice]) -> "AnchorWithin":
        """The same for a part of the field."""
        return AnchorWithin(whole=self, window=window)

    def apply(self, sample: np.ndarray, white: np.ndarray) -> np.ndarray:
        """Tie one posterior sample.

        Parameters
        ----------
        sample : ndarray of shape (Y, X)
            Phase [rad].
        white : ndarray of shape (Y, X)
            Standard normal noise, another one for each sample.

        Returns
        -------
        ndarray of shape (Y, X), float32
        """
        own = torch.fft.fft2(torch.from_numpy(sample).double())
        noise = torch.fft.fft2(torch.from_numpy(white.copy()).double()) * self.noise_amplitude
        tied = own + self.gain * (torch.fft.fft2(self.phase) + noise - own)
        image = torch.fft.ifft2(tied).real.numpy()
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

    def apply(self, sample: np.ndarray, white: np.ndarray) -> np.ndarray:
        """Tie a sample of the part; see `Anchor.apply`."""
        field = self.whole.phase.numpy().copy()
        level = float(np.mean(field[self.window]) - np.mean(sample))
        field[self.window] = sample + level
        return self.whole.apply(field, white)[self.window]


def light_anchor(phase: Tensor, derivative_sigma: float, defocus_um: tuple[float, float], microscope: Microscope) -> Anchor:
    """The anchor of one field.

    Parameters
    ----------
    phase : Tensor of shape (Y, X)
        US-TIE [rad].
    derivative_sigma : float
        Standard deviation of the noise of dI/dz [1/um], intensity over background.
    defocus_um : tuple of float
    microscope : Microscope

    Returns
    -------
    Anchor
    """
    shape = (phase.shape[-2], phase.shape[-1])
    noise = expected_noise_power(shape, derivative_sigma, microscope, phase)
    error = NETWORK_ERROR**2 * ring_average(torch.fft.fft2(phase).abs().square())
    farthest = max(abs(z) for z in defocus_um)
    angle = pi * microscope.wavelength_um / microscope.medium_index * farthest * squared_radius(shape, microscope.pixel_um, phase)
    linear = torch.exp(-(angle / LINEAR_ANGLE).square())
    gain = linear * error / (error + noise).clamp(min=torch.finfo(phase.dtype).tiny)
    gain[0, 0] = 1  # zero mean, and no noise there
    levelling = level_by_medium(phase.numpy(), derivative_sigma, microscope)
    return Anchor(phase=phase, gain=gain, noise_amplitude=(noise / phase.numel()).sqrt(), levelling=levelling)
