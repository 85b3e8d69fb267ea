"""Spatial frequencies of a pixel grid, and free-space propagation in the Fresnel approximation.

The sign is H = exp(-i pi lambda z f^2), with the time convention exp(+ikz). A phase delay is then
positive, and +z points away from the source (Goodman, Introduction to Fourier Optics, eq. 4-21).
The carrier exp(ikz) is left out.
"""

from math import pi

import torch
from torch import Tensor

from napari_cvdm.core.microscope import Microscope


def frequencies(shape: tuple[int, int], pixel_um: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """fy (Y, 1) and fx (1, X) of an unshifted FFT [cycles/um], for any size and parity.

    `like` gives device and real dtype, here and below.
    """
    real = like.real.dtype
    fy = torch.fft.fftfreq(shape[0], pixel_um, dtype=real, device=like.device)
    fx = torch.fft.fftfreq(shape[1], pixel_um, dtype=real, device=like.device)
    return fy[:, None], fx[None, :]


def squared_radius(shape: tuple[int, int], pixel_um: float, like: Tensor) -> Tensor:
    """f^2 = fx^2 + fy^2 on the unshifted grid, shape (Y, X) [cycles^2/um^2]."""
    fy, fx = frequencies(shape, pixel_um, like)
    return fy**2 + fx**2


def half_spectrum_counts(width: int, like: Tensor) -> Tensor:
    """Number of full-spectrum columns for each real-FFT column, 1 or 2: (X // 2 + 1,)."""
    counts = torch.full((width // 2 + 1,), 2.0, dtype=like.real.dtype, device=like.device)
    # The mean, and the Nyquist frequency of an even width, have no mirror image.
    counts[0] = 1
    if width % 2 == 0:
        counts[-1] = 1
    return counts


def circular_pupil(
    shape: tuple[int, int], pixel_um: float, cutoff_per_um: float, like: Tensor
) -> Tensor:
    """1 where f <= cutoff [cycles/um], else 0; real, shape (Y, X)."""
    return (squared_radius(shape, pixel_um, like) <= cutoff_per_um**2).to(like.real.dtype)


def fresnel_transfer(
    shape: tuple[int, int], defocus_um: float, microscope: Microscope, like: Tensor
) -> Tensor:
    """Paraxial transfer function exp(-i pi lambda0 z f^2 / n), complex, shape (Y, X)."""
    wavelength_in_medium = microscope.wavelength_um / microscope.medium_index
    angle = (
        -pi * wavelength_in_medium * defocus_um * squared_radius(shape, microscope.pixel_um, like)
    )
    return torch.polar(torch.ones_like(angle), angle)  # of modulus 1: no light is lost


def propagate(field: Tensor, transfer: Tensor) -> Tensor:
    """Apply a transfer function (..., Y, X) on the unshifted FFT grid to a field (..., Y, X)."""
    return torch.fft.ifft2(torch.fft.fft2(field) * transfer)
