"""Image formation of defocused brightfield, from an object to the intensity of each plane.

The object is a log-amplitude mu and a phase phi on a canvas.

    U_z = P_z exp(mu + i phi)
    I_z = L_z * (|U_z|^2 (x) disc(|z| NA_c / n))

P_z is exp(-i pi lambda0 z f^2 / n) and the pupil f <= NA / lambda0. L_z is 1 + sum_k c_zk T_k, with
Legendre polynomials T_k over the frame.

A source point of a condenser at angle theta shifts the image at z by z theta. In the Fresnel
approximation, partial coherence is therefore one convolution of each plane, jinc(2 pi |z| NA_c f /
n) in Fourier space (Hopkins, Proc. R. Soc. A 217, 408 (1953)). The canvas is larger than the frame
where light may come from outside it. Simulation, inversion, the check of a result and evaluation
use this one object.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import torch
from scipy.fft import next_fast_len
from scipy.special import j1
from torch import Tensor

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.physics.fresnel import circular_pupil, fresnel_transfer, propagate, squared_radius

SMALLEST_MARGIN_PX, LARGEST_MARGIN_PX = 16, 96


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhaseObject:
    """What a phase image is made of, or a change of it; leading dimensions are a batch.

    Parameters
    ----------
    maps : Tensor of shape (..., 2, H, W), real
        Log-amplitude mu and phase phi [rad] on the canvas.
    illumination : Tensor of shape (..., P, K), real
        Coefficients c_zk of each plane.
    """

    maps: Tensor = field(repr=False)
    illumination: Tensor = field(repr=False)

    def add(self, other: "PhaseObject", factor: Tensor | float = 1.0) -> "PhaseObject":
        """self + factor * other, with one factor for each member of a batch."""
        scale = torch.as_tensor(factor, dtype=self.maps.dtype, device=self.maps.device)
        return PhaseObject(
            maps=self.maps + scale[..., None, None, None] * other.maps,
            illumination=self.illumination + scale[..., None, None] * other.illumination,
        )

    def dot(self, other: "PhaseObject") -> Tensor:
        """Inner product of each member of a batch, shape (...)."""
        return (self.maps * other.maps).sum(dim=(-3, -2, -1)) + (
            self.illumination * other.illumination
        ).sum(dim=(-2, -1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhaseLinearisation:
    """The image of one object, and what the derivative about it needs.

    Parameters
    ----------
    expected : Tensor of shape (..., P, h, w), real
        Intensity of each plane within the frame, over the blank field.
    unlit : Tensor of shape (..., P, h, w), real
        The same before the illumination.
    light : Tensor of shape (..., P, h, w), real
        L_z.
    wave : Tensor of shape (..., 1, H, W), complex
        exp(mu + i phi).
    waves : Tensor of shape (..., P, H, W), complex
        U_z.
    """

    expected: Tensor = field(repr=False)
    unlit: Tensor = field(repr=False)
    light: Tensor = field(repr=False)
    wave: Tensor = field(repr=False)
    waves: Tensor = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhaseForwardModel:
    """Defocused brightfield planes of an object on a canvas.

    Parameters
    ----------
    transfer : Tensor of shape (P, H, W), complex
        P_z on the unshifted FFT grid of the canvas.
    condenser : Tensor of shape (P, H, W // 2 + 1), real, optional
        Transfer function of the condenser's disc; None for coherent light.
    frame : tuple of slice
        Rows and columns of the canvas that the camera sees.
    terms : Tensor of shape (K, h, w), real
        Polynomials of the illumination over the frame.
    """

    transfer: Tensor = field(repr=False)
    condenser: Tensor | None = field(repr=False)
    frame: tuple[slice, slice]
    terms: Tensor = field(repr=False)

    @classmethod
    def create(
        cls,
        frame_shape: tuple[int, int],
        defocus_um: Sequence[float],
        microscope: Microscope,
        *,
        canvas_shape: tuple[int, int] | None = None,
        condenser_na: float = 0.0,
        like: Tensor | None = None,
    ) -> "PhaseForwardModel":
        """The model of a frame in the middle of a canvas.

        Parameters
        ----------
        frame_shape : tuple of int
            (h, w) of the image.
        defocus_um : sequence of float
            Signed position of each plane [um], any number.
        microscope : Microscope
            Pixel, wavelength and index; with an NA, nothing beyond NA / lambda0 is transferred.
        canvas_shape : tuple of int, optional
            (H, W), at least the frame; the frame alone, which then repeats periodically, if None.
        condenser_na : float
            Numerical aperture of the illumination; 0 is coherent light.
        like : Tensor, optional
            Gives device and real dtype; float32 on the CPU if None.
        """
        like = torch.zeros(1) if like is None else like
        canvas = frame_shape if canvas_shape is None else canvas_shape
        top, left = (canvas[0] - frame_shape[0]) // 2, (canvas[1] - frame_shape[1]) // 2
        double = torch.zeros(1, dtype=torch.float64)  # phases of hundreds of radians need it
        transfer = torch.stack(
            [fresnel_transfer(canvas, z, microscope, double) for z in defocus_um]
        )
        if microscope.na is not None:
            transfer = transfer * circular_pupil(
                canvas, microscope.pixel_um, microscope.na / microscope.wavelength_um, double
            )
        disc = None
        if condenser_na > 0:
            radii = [abs(z) * condenser_na / microscope.medium_index for z in defocus_um]
            disc = torch.stack(
                [disc_transfer(canvas, radius, microscope.pixel_um) for radius in radii]
            ).to(like)
        return cls(
            transfer=transfer.to(
                device=like.device,
                dtype=torch.complex128 if like.dtype == torch.float64 else torch.complex64,
            ),
            condenser=disc,
            frame=(slice(top, top + frame_shape[0]), slice(left, left + frame_shape[1])),
            terms=legendre_terms(frame_shape).to(like),
        )

    def double(self) -> "PhaseForwardModel":
        """The same in double precision."""
        transfer, terms = self.transfer.to(torch.complex128), self.terms.double()
        disc = None if self.condenser is None else self.condenser.double()
        return replace(self, transfer=transfer, condenser=disc, terms=terms)

    @property
    def canvas_shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.transfer.shape[-2], self.transfer.shape[-1]

    @property
    def planes(self) -> int:
        """How many planes there are."""
        return self.transfer.shape[0]

    def zero(self, batch: Sequence[int] = ()) -> PhaseObject:
        """An empty field under even light."""
        shape = (*batch, 2, *self.canvas_shape)
        return PhaseObject(
            maps=self.terms.new_zeros(shape),
            illumination=self.terms.new_zeros((*batch, self.planes, len(self.terms))),
        )

    def apply(self, sample: PhaseObject) -> Tensor:
        """Expected intensity of each plane over the blank field: (..., P, h, w)."""
        return self.linearise(sample).expected

    def linearise(self, sample: PhaseObject) -> PhaseLinearisation:
        """The image of an object, and what `derivative` and `adjoint` about it need."""
        mu, phi = sample.maps.unbind(dim=-3)
        wave = torch.polar(mu.exp(), phi)[..., None, :, :]
        waves = propagate(wave, self.transfer)
        unlit = self._interfere(waves, waves)
        light = 1 + torch.einsum("...pk,khw->...phw", sample.illumination, self.terms)
        return PhaseLinearisation(
            expected=light * unlit, unlit=unlit, light=light, wave=wave, waves=waves
        )

    def derivative(self, at: PhaseLinearisation, change: PhaseObject) -> Tensor:
        """J v of shape (..., P, h, w).

        It is L (2 Re(conj(U) P(e (v_mu + i v_phi))) (x) disc) + I_0 sum_k v_k T_k.
        """
        mu, phi = change.maps.unbind(dim=-3)
        waves = propagate(at.wave * torch.complex(mu, phi)[..., None, :, :], self.transfer)
        seen = 2 * self._interfere(at.waves, waves)
        return at.light * seen + at.unlit * torch.einsum(
            "...pk,khw->...phw", change.illumination, self.terms
        )

    def adjoint(self, at: PhaseLinearisation, planes: Tensor) -> PhaseObject:
        """J^T y of images (..., P, h, w)."""
        # The adjoint of a periodic convolution has the conjugate spectrum.
        beams = self._modulate(at.waves, 2 * at.light * planes)
        spectra = torch.fft.fft2(beams) * self.transfer.conj()
        # One inverse transform serves all planes, since it is linear.
        spectrum = spectra.sum(dim=-3, keepdim=True)
        back = (at.wave.conj() * torch.fft.ifft2(spectrum))[..., 0, :, :]
        return PhaseObject(
            maps=torch.stack([back.real, back.imag], dim=-3),
            illumination=torch.einsum("...phw,khw->...pk", at.unlit * planes, self.terms),
        )

    def weak_transfer(self) -> tuple[Tensor, Tensor]:
        """2 cos and 2 sin, from a weak mu and phi to each plane: real, (P, H, W // 2 + 1)."""
        # P_z = exp(-i chi) has the real part cos(chi) and the imaginary part -sin(chi).
        half = self.transfer[..., : self.canvas_shape[1] // 2 + 1]
        disc = 1.0 if self.condenser is None else self.condenser
        return 2 * half.real * disc, -2 * half.imag * disc

    def _interfere(self, one: Tensor, other: Tensor) -> Tensor:
        """Re(conj(u) v) (x) disc within the frame, of waves on the canvas."""
        frame = (..., *self.frame)
        if self.condenser is None:  # the frame alone is cheaper
            return (one[frame].conj() * other[frame]).real
        return self._blur((one.conj() * other).real)[frame]

    def _modulate(self, waves: Tensor, planes: Tensor) -> Tensor:
        """Waves on the canvas times images of the frame: the adjoint of `_interfere`.

        Around the frame nothing was measured. There the product is zero, or the disc's.
        """
        frame = (..., *self.frame)
        if self.condenser is None:
            within = waves[frame] * planes
            beams = within.new_zeros((*within.shape[:-2], *self.canvas_shape))
            beams[frame] = within
            return beams
        canvas = planes.new_zeros((*planes.shape[:-2], *self.canvas_shape))
        canvas[frame] = planes
        return waves * self._blur(canvas)  # its own adjoint, since a disc is symmetric

    def _blur(self, canvas: Tensor) -> Tensor:
        if self.condenser is None:
            return canvas
        return torch.fft.irfft2(torch.fft.rfft2(canvas) * self.condenser, s=self.canvas_shape)


def fresnel_number(defocus_um: float, microscope: Microscope) -> float:
    """|lambda z| / (n px^2)."""
    area = microscope.medium_index * microscope.pixel_um**2
    return microscope.wavelength_um * abs(defocus_um) / area


def canvas_shape(
    shape: tuple[int, int], defocus_um: Sequence[float], microscope: Microscope
) -> tuple[int, int]:
    """Size of a canvas with all surroundings whose light may reach the frame, fast to transform."""
    # Light of frequency f [cycles/px] goes F f pixels aside.
    reach = max(fresnel_number(z, microscope) for z in defocus_um) / 3
    margin = min(LARGEST_MARGIN_PX, ceil(SMALLEST_MARGIN_PX + reach))
    height, width = (next_fast_len(size + 2 * margin, real=True) for size in shape)
    return height, width


def disc_transfer(shape: tuple[int, int], radius_um: float, pixel_um: float) -> Tensor:
    """Transfer function of a uniform disc of sum 1.

    It is 2 J1(x) / x with x = 2 pi f radius, on the real-FFT grid (Y, X // 2 + 1), float64.
    """
    squared = squared_radius(shape, pixel_um, torch.zeros(1, dtype=torch.float64))
    argument = 2 * torch.pi * radius_um * squared.sqrt()[:, : shape[1] // 2 + 1]
    safe = argument.clamp(min=1e-9)  # 2 J1(x) / x tends to 1 at 0, where the division fails
    return torch.from_numpy(2 * j1(safe.numpy())) / safe


def legendre_terms(shape: tuple[int, int]) -> Tensor:
    """Legendre terms over a frame, y and x from -1 to 1: (6, Y, X), float64.

    They are 1, y, x, (3 y^2 - 1) / 2, y x and (3 x^2 - 1) / 2.
    """
    y, x = (torch.linspace(-1, 1, size, dtype=torch.float64) for size in shape)
    rows, columns = (torch.stack([torch.ones_like(u), u, (3 * u**2 - 1) / 2]) for u in (y, x))
    orders = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
    return torch.stack([rows[i][:, None] * columns[j][None, :] for i, j in orders])
