"""Phase of a weak object from defocused planes, by the transfer functions of coherent light along the axis.

A field 1 + a + i phi (log-amplitude a, phase phi, both small) that has travelled z has the contrast
I / I_background - 1 = F^-1{2 cos(chi) F{a} + 2 sin(chi) F{phi}}, chi = pi lambda0 z f^2 / n (Guigay, Optik 49, 121 (1977);
Jenkins and Gaylord, Appl. Opt. 54, 8566 (2015) for a condenser that is not closed). The sign is that of `fresnel`.
"""

from collections.abc import Sequence
from math import pi

import torch
from torch import Tensor

from napari_cvdm.microscope import Microscope
from napari_cvdm.physics.grids import circular_pupil, squared_radius


def weak_object_transfer(shape: tuple[int, int], defocus_um: Sequence[float], microscope: Microscope, like: Tensor) -> tuple[Tensor, Tensor]:
    """Transfer of log-amplitude, 2 cos(chi), and of phase, 2 sin(chi), to the contrast of each plane.

    Parameters
    ----------
    shape : tuple of int
        (Y, X) of the image.
    defocus_um : sequence of float
        Signed position of each plane [um].
    microscope : Microscope
        With an NA, nothing beyond NA / lambda0 is transferred.
    like : Tensor
        Gives device and real dtype.

    Returns
    -------
    amplitude, phase : Tensor of shape (P, Y, X), real
        On the unshifted FFT grid.
    """
    squared = squared_radius(shape, microscope.pixel_um, like)
    positions = torch.tensor(list(defocus_um), dtype=squared.dtype, device=squared.device)[:, None, None]
    angle = pi * microscope.wavelength_um / microscope.medium_index * positions * squared
    pupil = torch.ones_like(squared) if microscope.na is None else circular_pupil(shape, microscope.pixel_um, microscope.na / microscope.wavelength_um, like)
    return 2 * torch.cos(angle) * pupil, 2 * torch.sin(angle) * pupil


def solve_wotf(contrast: Tensor, defocus_um: Sequence[float], microscope: Microscope, regularisation: float) -> Tensor:
    """Phase of a weak object, its absorption told from it, by least squares with a Tikhonov term at every frequency.

    minimise sum_z |C_z - A_z F{a} - H_z F{phi}|^2 + r (|F{a}|^2 + |F{phi}|^2), so that
    F{phi} = ((S_AA + r) S_HC - S_AH S_AC) / ((S_AA + r) (S_HH + r) - S_AH^2), S_AH = sum_z A_z H_z and so on.

    Parameters
    ----------
    contrast : Tensor of shape (P, Y, X), real
        I / I_background - 1 of at least two planes.
    defocus_um : sequence of float
        Signed position of each plane [um].
    microscope : Microscope
    regularisation : float
        Dimensionless r > 0. It takes slow waves away: of planes at +-z half the amplitude where 8 sin(chi)^2 = r.

    Returns
    -------
    Tensor of shape (Y, X), real
        Phase [rad], zero mean.
    """
    amplitude, phase = weak_object_transfer((contrast.shape[-2], contrast.shape[-1]), defocus_um, microscope, contrast)
    spectra = torch.fft.fft2(contrast)
    of_amplitude, of_phase = (amplitude * spectra).sum(dim=0), (phase * spectra).sum(dim=0)
    own = amplitude.square().sum(dim=0) + regularisation
    mixed = (amplitude * phase).sum(dim=0)
    determinant = own * (phase.square().sum(dim=0) + regularisation) - mixed.square()
    return torch.fft.ifft2((own * of_phase - mixed * of_amplitude) / determinant).real
