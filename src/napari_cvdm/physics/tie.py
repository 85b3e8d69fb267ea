"""Linear phase retrieval: the transport of intensity, and the weak-object transfer function.

The equation of the transport is -k dI/dz = div(I grad phi), with k = 2 pi n / lambda0. The
universal solution (US-TIE; Zhang, Chen, Sun, Tian, Zuo, Opt. Lett. 45, 3649 (2020), arXiv
1912.07371) solves Poisson's equation with the largest intensity in place of I. It feeds the
residual of the full equation back until this residual is small. phi is in radians for the vacuum
wavelength and has no mean.

A weak object 1 + a + i phi has a small log-amplitude a and a small phase phi. After the distance z,
its contrast is

    I / I_background - 1 = F^-1{2 cos(chi) F{a} + 2 sin(chi) F{phi}}

with chi = pi lambda0 z f^2 / n (Guigay, Optik 49, 121 (1977)). An open condenser multiplies both
transfer functions by that of its disc, see `forward_model`. Jenkins and Gaylord, Appl. Opt. 54,
8566 (2015), treat the general case. The sign is that of `fresnel`.
"""

from collections.abc import Generator, Sequence
from math import pi

import torch
from torch import Tensor

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.result import finished
from napari_cvdm.physics.forward_model import PhaseForwardModel
from napari_cvdm.physics.fresnel import frequencies, squared_radius

AUTHORS_REGULARISATION = 5e-9  # for experiments; half amplitude at a period of 747 px
STOP_RESIDUAL = 1e-3  # of the first, as in the authors' code, but as an L2 norm
STOP_GROWTH = 1.05  # over the last residual: the feedback diverges


def laplacian_symbol(shape: tuple[int, int], pixel_um: float, like: Tensor) -> Tensor:
    """L = -4 pi^2 f^2, the Laplacian in Fourier space, shape (Y, X) [1/um^2]."""
    return -4 * pi**2 * squared_radius(shape, pixel_um, like)


def high_pass(
    shape: tuple[int, int], pixel_um: float, regularisation: float, like: Tensor
) -> Tensor:
    """Share of each frequency that a Tikhonov parameter r leaves, shape (Y, X).

    It is L^2 / (L^2 + r / px^4), and 0 at f = 0. Half amplitude is at the period 2 pi px / r^(1/4):
    353 px for 1e-7, 112 px for 1e-5, 35 px for 1e-3.
    """
    squared = laplacian_symbol(shape, pixel_um, like).square()
    floor = torch.finfo(squared.dtype).tiny ** 0.5  # against 0 / 0 at f = 0, as r may be 0
    return squared / (squared + regularisation / pixel_um**4 + floor)


def inverse_laplacian(density: Tensor, pixel_um: float, regularisation: float) -> Tensor:
    """Solution F^-1{F{density} L / (L^2 + r/px^4)} of laplace(u) = density, (..., Y, X)."""
    shape = (density.shape[-2], density.shape[-1])
    symbol = laplacian_symbol(shape, pixel_um, density)
    # high_pass is 0 at f = 0, so the mean is 0 whatever divides it.
    inverse = high_pass(shape, pixel_um, regularisation, density) / symbol.where(
        symbol < 0, torch.ones_like(symbol)
    )
    return torch.fft.ifft2(torch.fft.fft2(density) * inverse).real


def divergence_of_flux(intensity: Tensor, phase: Tensor, pixel_um: float) -> Tensor:
    """div(I grad phi) by Fourier derivatives, shape (..., Y, X) [intensity/um^2]."""
    fy, fx = frequencies((phase.shape[-2], phase.shape[-1]), pixel_um, phase)
    spectrum = torch.fft.fft2(phase)
    total = torch.zeros_like(spectrum)
    for frequency in (fy, fx):
        slope = torch.fft.ifft2(2j * pi * frequency * spectrum).real
        total = total + 2j * pi * frequency * torch.fft.fft2(intensity * slope)
    return torch.fft.ifft2(total).real


def solvable(density: Tensor) -> Tensor:
    """A density (..., Y, X) without the parts that no flux can make.

    These are its mean, and the Nyquist frequency of an even size. A real derivative of the latter
    is zero, so that the feedback would add it again in every round.
    """
    spectrum = torch.fft.fft2(density)
    spectrum[..., 0, 0] = 0
    rows, columns = density.shape[-2:]
    if rows % 2 == 0:
        spectrum[..., rows // 2, :] = 0
    if columns % 2 == 0:
        spectrum[..., :, columns // 2] = 0
    return torch.fft.ifft2(spectrum).real


def solve_us_tie(
    intensity: Tensor,
    axial_derivative: Tensor,
    microscope: Microscope,
    regularisation: float = AUTHORS_REGULARISATION,
    iterations: int = 25,
) -> Tensor:
    """Phase (Y, X) [rad] of zero mean from the in-focus intensity and its axial derivative.

    Parameters
    ----------
    intensity : Tensor of shape (Y, X), real
        Intensity at the plane of the phase, any positive scale.
    axial_derivative : Tensor of shape (Y, X), real
        dI/dz [same scale / um].
    regularisation : float
        Dimensionless r of `high_pass`, >= 0. The authors used 5e-9 for experiments.
    iterations : int
        Largest number of rounds of feedback. Fewer are made when the residual is below 1e-3 of the
        start or grows.
    """
    return finished(
        iterate_us_tie(intensity, axial_derivative, microscope, regularisation, iterations)
    )


def iterate_us_tie(
    intensity: Tensor,
    axial_derivative: Tensor,
    microscope: Microscope,
    regularisation: float,
    iterations: int,
) -> Generator[str, None, Tensor]:
    """`solve_us_tie`, which yields before each round of feedback."""
    k = 2 * pi * microscope.medium_index / microscope.wavelength_um
    # Not the maximum: the error shrinks by 1 - I / I_max, slowly under a hot pixel.
    brightest = torch.quantile(
        intensity.flatten()[:: max(1, intensity.numel() // 1_000_000)], 0.999
    )
    phase, residual = torch.zeros_like(intensity), solvable(axial_derivative)
    first = last = residual.norm()
    for number in range(iterations):
        yield f"round {number + 1} of at most {iterations}"
        correction = inverse_laplacian(
            -k * residual / brightest, microscope.pixel_um, regularisation
        )
        remaining = solvable(
            residual + divergence_of_flux(intensity, correction, microscope.pixel_um) / k
        )
        if remaining.norm() > STOP_GROWTH * last:
            break
        phase, residual, last = phase + correction, remaining, remaining.norm()
        if last <= STOP_RESIDUAL * first:
            break
    return phase


def axial_difference(planes: Tensor, defocus_um: Sequence[float]) -> Tensor:
    """dI/dz (Y, X), the slope of a line through planes (P, Y, X) at signed positions [um]."""
    if len(defocus_um) == 2:
        return (planes[1] - planes[0]) / (defocus_um[1] - defocus_um[0])
    middle = sum(defocus_um) / len(defocus_um)
    offsets = torch.tensor(
        [z - middle for z in defocus_um], dtype=planes.dtype, device=planes.device
    )
    return torch.tensordot(offsets / offsets.square().sum(), planes, dims=1)


def measure_transport(planes: Tensor, defocus_um: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Intensity and its axial derivative (Y, X): mean of planes (P, Y, X), and slope along z."""
    return planes.mean(dim=0), axial_difference(planes, defocus_um)


def us_tie_of(
    planes: Tensor,
    defocus_um: Sequence[float],
    microscope: Microscope,
    regularisation: float = AUTHORS_REGULARISATION,
) -> Tensor:
    """`solve_us_tie` [rad] of planes over background (P, Y, X) at signed positions [um]: (Y, X)."""
    intensity, slope = measure_transport(planes, defocus_um)
    return solve_us_tie(intensity, slope, microscope, regularisation)


def solve_wotf(
    contrast: Tensor,
    defocus_um: Sequence[float],
    microscope: Microscope,
    regularisation: float,
    condenser_na: float = 0.0,
) -> Tensor:
    """Phase (Y, X) [rad] of a weak object, zero mean, apart from its absorption (Tikhonov).

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
    regularisation : float
        Dimensionless r > 0. It removes low spatial frequencies. For planes at +-z, half the
        amplitude is left where 8 sin(chi)^2 = r.
    condenser_na : float
        Numerical aperture of the illumination; 0 is coherent light.
    """
    shape = contrast.shape[-2], contrast.shape[-1]
    amplitude, phase = PhaseForwardModel.create(
        shape, defocus_um, microscope, condenser_na=condenser_na, like=contrast
    ).weak_transfer()
    spectra = torch.fft.rfft2(contrast)
    of_amplitude, of_phase = (amplitude * spectra).sum(dim=0), (phase * spectra).sum(dim=0)
    own = amplitude.square().sum(dim=0) + regularisation
    mixed = (amplitude * phase).sum(dim=0)
    # At least r^2 (Cauchy-Schwarz), so no frequency divides by zero.
    determinant = own * (phase.square().sum(dim=0) + regularisation) - mixed.square()
    return torch.fft.irfft2((own * of_phase - mixed * of_amplitude) / determinant, s=shape)
