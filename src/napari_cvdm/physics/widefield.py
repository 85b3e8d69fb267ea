"""Widefield fluorescence: the point spread function of the objective and what it does to an image."""

import torch
from psf_generator.propagators import VectorialSphericalPropagator
from torch import Tensor

from napari_cvdm.microscope import Microscope, OpticsError

PUPIL_SAMPLES = 97  # odd, as Simpson's rule wants it
NM_PER_UM = 1000.0


def widefield_psf(microscope: Microscope, size: int, defocus_um: float = 0.0) -> Tensor:
    """Vectorial point spread function for unpolarised emission (Richards-Wolf integral, package psf-generator).

    Parameters
    ----------
    microscope : Microscope
        Pixel, emission wavelength, NA (needed) and immersion index.
    size : int
        Odd side of the square, in pixels.
    defocus_um : float
        Distance of the emitter from the focal plane [um].

    Returns
    -------
    Tensor of shape (size, size), float32
        Intensity, sum 1, centred.

    Raises
    ------
    OpticsError
        The microscope has no NA, or the size is even.
    """
    if microscope.na is None:
        raise OpticsError("na is not known; a widefield PSF needs it. Give it with --na, for example 1.4.")
    if size % 2 == 0:
        raise OpticsError(f"a PSF of {size} px has no centre pixel; give an odd size.")
    field = _focus_field(microscope, size, defocus_um)
    intensity = field.abs().square().sum(dim=(0, 1))
    intensity = intensity + intensity.T  # the other polarisation is the transpose
    return intensity / intensity.sum()


def _focus_field(microscope: Microscope, size: int, defocus_um: float) -> Tensor:
    # The package spreads size * pix_size over size - 1 intervals, and steps symmetrically about focus (in whole units,
    # hence nanometres): a first plane of one is at -step / 2.
    propagator = VectorialSphericalPropagator(
        n_pix_psf=size,
        n_pix_pupil=PUPIL_SAMPLES,
        wavelength=microscope.wavelength_um * NM_PER_UM,
        na=microscope.na,
        pix_size=microscope.pixel_um * NM_PER_UM * (size - 1) / size,
        n_i=microscope.medium_index,
        n_i0=microscope.medium_index,
        defocus_step=-2 * round(defocus_um * NM_PER_UM),
        n_defocus=1,
    )
    return propagator.compute_focus_field()


def optical_transfer(kernel: Tensor, shape: tuple[int, int]) -> Tensor:
    """Transfer function of a centred kernel on a periodic grid of `shape`, complex, shape (Y, X).

    The kernel is cropped about its centre where the grid is smaller than it.
    """
    grid = kernel.new_zeros(shape)
    rows, columns = (min(size, (extent - 1) // 2 * 2 + 1) for size, extent in zip(kernel.shape, shape, strict=True))
    top, left = (kernel.shape[0] - rows) // 2, (kernel.shape[1] - columns) // 2
    grid[:rows, :columns] = kernel[top : top + rows, left : left + columns]
    return torch.fft.fft2(torch.roll(grid, (-(rows // 2), -(columns // 2)), dims=(0, 1)))


def gaussian_transfer(shape: tuple[int, int], sigma_px: float, like: Tensor) -> Tensor:
    """exp(-2 pi^2 sigma^2 f^2) with f in cycles/px: a Gaussian blur of standard deviation sigma, real, shape (Y, X)."""
    fy = torch.fft.fftfreq(shape[0], dtype=like.dtype, device=like.device)[:, None]
    fx = torch.fft.fftfreq(shape[1], dtype=like.dtype, device=like.device)[None, :]
    return torch.exp(-2 * torch.pi**2 * sigma_px**2 * (fy**2 + fx**2))


def blur(image: Tensor, transfer: Tensor) -> Tensor:
    """Periodic convolution of a real image of shape (..., Y, X) with a transfer function of shape (Y, X)."""
    return torch.fft.ifft2(torch.fft.fft2(image) * transfer).real


def bin_pixels(image: Tensor, factor: int) -> Tensor:
    """Sum over factor x factor blocks: (..., Y, X) -> (..., Y // factor, X // factor)."""
    height, width = image.shape[-2] // factor, image.shape[-1] // factor
    blocks = image[..., : height * factor, : width * factor].unflatten(-2, (height, factor)).unflatten(-1, (width, factor))
    return blocks.sum(dim=(-3, -1))
