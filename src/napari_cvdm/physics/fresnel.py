"""Free-space propagation of a coherent field, Fresnel and angular spectrum.

Sign: H = exp(-i pi lambda z f^2) with the time convention exp(+ikz), so that a phase delay is positive and +z points
away from the source (Goodman, Introduction to Fourier Optics, eq. 4-21). The carrier exp(ikz) is left out.
"""

from collections.abc import Sequence
from math import pi

import torch
from torch import Tensor

from napari_cvdm.microscope import Microscope
from napari_cvdm.physics.grids import circular_pupil, squared_radius


def fresnel_transfer(shape: tuple[int, int], defocus_um: float, microscope: Microscope, like: Tensor) -> Tensor:
    """Paraxial transfer function exp(-i pi lambda0 z f^2 / n), complex, shape (Y, X)."""
    wavelength_in_medium = microscope.wavelength_um / microscope.medium_index
    angle = -pi * wavelength_in_medium * defocus_um * squared_radius(shape, microscope.pixel_um, like)
    return torch.polar(torch.ones_like(angle), angle)


def angular_spectrum_transfer(shape: tuple[int, int], defocus_um: float, microscope: Microscope, like: Tensor) -> Tensor:
    """Exact scalar transfer function exp(i 2 pi z (sqrt(1/lambda^2 - f^2) - 1/lambda)), evanescent waves set to 0."""
    inverse_wavelength = microscope.medium_index / microscope.wavelength_um
    axial_squared = inverse_wavelength**2 - squared_radius(shape, microscope.pixel_um, like)
    angle = 2 * pi * defocus_um * (axial_squared.clamp(min=0).sqrt() - inverse_wavelength)
    return torch.polar((axial_squared > 0).to(angle.dtype), angle)


def propagate(field: Tensor, transfer: Tensor) -> Tensor:
    """Apply a transfer function to a field.

    Parameters
    ----------
    field : Tensor of shape (..., Y, X), complex
    transfer : Tensor of shape (Y, X), or (..., Y, X) for several of them, complex or real
        On the unshifted FFT grid.

    Returns
    -------
    Tensor of shape (..., Y, X), complex
    """
    return torch.fft.ifft2(torch.fft.fft2(field) * transfer)


def defocused_planes(field: Tensor, defocus_um: Sequence[float], microscope: Microscope) -> Tensor:
    """Intensities |P_z field|^2 of a coherent field at some planes, through the pupil where the microscope has an NA.

    Parameters
    ----------
    field : Tensor of shape (..., Y, X), complex
        The object's field sqrt(I) exp(i phi) at z = 0.
    defocus_um : sequence of float
        Signed positions of P planes [um].
    microscope : Microscope

    Returns
    -------
    Tensor of shape (..., P, Y, X), real, >= 0
    """
    shape = (field.shape[-2], field.shape[-1])
    transfer = torch.stack([fresnel_transfer(shape, z, microscope, field) for z in defocus_um])
    if microscope.na is not None:
        transfer = transfer * circular_pupil(shape, microscope.pixel_um, microscope.na / microscope.wavelength_um, field)
    seen = propagate(field[..., None, :, :], transfer)
    return seen.real.square() + seen.imag.square()
