"""Free-space propagation of a coherent field in the Fresnel approximation.

The sign is H = exp(-i pi lambda z f^2), with the time convention exp(+ikz). A phase delay is then
positive, and +z points away from the source (Goodman, Introduction to Fourier Optics, eq. 4-21).
The carrier exp(ikz) is left out.
"""

from math import pi

import torch
from torch import Tensor

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.physics.grids import squared_radius


def fresnel_transfer(
    shape: tuple[int, int], defocus_um: float, microscope: Microscope, like: Tensor
) -> Tensor:
    """Paraxial transfer function exp(-i pi lambda0 z f^2 / n), complex, shape (Y, X)."""
    wavelength_in_medium = microscope.wavelength_um / microscope.medium_index
    angle = (
        -pi * wavelength_in_medium * defocus_um * squared_radius(shape, microscope.pixel_um, like)
    )
    return torch.polar(torch.ones_like(angle), angle)


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
