"""Phase of a weak object from defocused planes, by its transfer functions.

A field 1 + a + i phi has a small log-amplitude a and a small phase phi. After the distance z, its
contrast is

    I / I_background - 1 = F^-1{2 cos(chi) F{a} + 2 sin(chi) F{phi}}

with chi = pi lambda0 z f^2 / n (Guigay, Optik 49, 121 (1977)). An open condenser multiplies both
transfer functions by that of its disc, see `forward_model`. Jenkins and Gaylord, Appl. Opt. 54,
8566 (2015), treat the general case. The sign is that of `fresnel`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.physics.forward_model import PhaseForwardModel


def solve_wotf(
    contrast: Tensor,
    defocus_um: Sequence[float],
    microscope: Microscope,
    regularisation: float,
    condenser_na: float = 0.0,
) -> Tensor:
    """Phase of a weak object, separated from its absorption by Tikhonov least squares.

    At every frequency, sum_z |C_z - A_z F{a} - H_z F{phi}|^2 + r (|F{a}|^2 + |F{phi}|^2) is minimal
    for

        F{phi} = ((S_AA + r) S_HC - S_AH S_AC) / ((S_AA + r) (S_HH + r) - S_AH^2)

    with S_AH = sum_z A_z H_z and so on.

    Parameters
    ----------
    contrast : Tensor of shape (P, Y, X), real
        I / I_background - 1 of at least two planes.
    defocus_um : sequence of float
        Signed position of each plane [um].
    microscope : Microscope
    regularisation : float
        Dimensionless r > 0. It removes low spatial frequencies. For planes at +-z, half the
        amplitude is left where 8 sin(chi)^2 = r.
    condenser_na : float
        Numerical aperture of the illumination; 0 is coherent light.

    Returns
    -------
    Tensor of shape (Y, X), real
        Phase [rad], zero mean.
    """
    shape = contrast.shape[-2], contrast.shape[-1]
    amplitude, phase = PhaseForwardModel.create(
        shape, defocus_um, microscope, condenser_na=condenser_na, like=contrast
    ).weak_transfer()
    spectra = torch.fft.rfft2(contrast)
    of_amplitude, of_phase = (amplitude * spectra).sum(dim=0), (phase * spectra).sum(dim=0)
    own = amplitude.square().sum(dim=0) + regularisation
    mixed = (amplitude * phase).sum(dim=0)
    determinant = own * (phase.square().sum(dim=0) + regularisation) - mixed.square()
    return torch.fft.irfft2((own * of_phase - mixed * of_amplitude) / determinant, s=shape)
