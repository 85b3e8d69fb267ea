"""Spatial frequencies of a rectangular pixel grid, and pupils on it."""

import torch
from torch import Tensor


def frequencies(shape: tuple[int, int], pixel_um: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Spatial frequencies of an unshifted FFT.

    Parameters
    ----------
    shape : tuple of int
        (Y, X) of the image, any size and parity.
    pixel_um : float
        Pixel size [um].
    like : Tensor
        Gives device and real dtype.

    Returns
    -------
    fy : Tensor of shape (Y, 1)
    fx : Tensor of shape (1, X)
        In cycles/um.
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
    counts[0] = 1
    if width % 2 == 0:
        counts[-1] = 1
    return counts


def circular_pupil(
    shape: tuple[int, int], pixel_um: float, cutoff_per_um: float, like: Tensor
) -> Tensor:
    """1 where f <= cutoff, else 0; real, shape (Y, X).

    The coherent cutoff is NA / wavelength [cycles/um].
    """
    return (squared_radius(shape, pixel_um, like) <= cutoff_per_um**2).to(like.real.dtype)
