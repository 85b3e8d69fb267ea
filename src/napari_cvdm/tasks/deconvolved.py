"""Deconvolution of a fluorescence image with the PSF of its own microscope.

The deconvolved images bring the optics into the network's input.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
from scipy.ndimage import center_of_mass, gaussian_filter, map_coordinates
from torch import Tensor
from torch.nn import functional

from napari_cvdm.core.intensity import MAD_TO_SIGMA, fill_unmeasured
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.request import MeasuredPsf, RequestError
from napari_cvdm.physics.camera import CameraNoise
from napari_cvdm.physics.widefield import (
    USUAL_PERIOD_PX,
    WidefieldForwardModel,
    cutoff_period_um,
    estimate_cutoff,
    usual_index,
    widefield_psf,
)

LEAST_SEEN = 1e-5  # of the light of a pixel: what the frame sees less of stays dark
ITERATIONS = (8, 30, 100)
BASELINE_STRENGTH = 1  # the place of the estimate that the diffusion is centred on
PSF_SIZE = 81
MARGIN_PX = 40  # of the canvas around the frame, fine pixels
LARGEST_MISFIT = 6.0
LEAST_DEVIATION = 1e-6  # of the brightest pixel: an image without noise is still exact to so much
USUAL_OPTICS = {"wavelength_um": 0.52, "na": 1.4}  # scaled to the cut-off period of an image
LARGEST_ESTIMATED_PX = 512
# For a pixel of the fine canvas while it is deconvolved: estimates, ratio, two spectra.
DECONVOLVED_BYTES = 48
NOISE_SIGMAS = 3.0  # above the border of a measured PSF: of less the mean of its ring is taken
CENTRE_UM = 0.3  # about the peak of a measured PSF, in which its centre is looked for
# Objectives of NA 0.8 to 1.4 show so much of the contrast at such a share of their cut-off
# frequency.
LOW_CONTRAST, LOW_CONTRAST_SHARE = 0.1, 0.75
STRENGTHS = tuple(f"deconvolved, {count} steps" for count in ITERATIONS)
DECONVOLVED_CHANNELS = tuple(
    f"{name}, pixel {row} {column} of 4"
    for name in STRENGTHS
    for row in (0, 1)
    for column in (0, 1)
)


def deconvolve(
    counts: Tensor, model: WidefieldForwardModel, dark_counts: float, weight: Tensor | None = None
) -> Iterator[Tensor]:
    """Richardson-Lucy steps x <- x A^T(w (d + v) / (A x + v)) / A^T w.

    They follow Richardson (1972) and Lucy (1974), with v of Snyder et al., J. Opt. Soc. Am. A 10,
    1014 (1993). The start, A^T w d / A^T w, is local, so that a part of an image is deconvolved as
    it is in the whole. Read noise of variance r^2 acts like v = r^2 / slope more Poisson counts in
    data and model. The slope is the variance of a count of light.

    `counts` (Y, X) above the dark level are d, `dark_counts` >= 0 are v, and `weight` (Y, X) is w,
    0 where nothing was measured and else 1. Each x >= 0 [counts] on the canvas is yielded, without
    end.
    """
    weight = torch.ones_like(counts) if weight is None else weight
    seen = model.adjoint(weight).clamp(min=LEAST_SEEN)
    data, smallest = (counts + dark_counts).clamp(min=0), torch.finfo(counts.dtype).tiny ** 0.5
    # Noise about zero averages out before it is cut off.
    estimate = (model.adjoint(weight * counts) / seen).clamp(min=smallest)
    while True:
        expected = (model.apply(estimate) + dark_counts).clamp(min=smallest)
        estimate = estimate * model.adjoint(weight * data / expected).clamp(min=0) / seen
        yield estimate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lens:
    """What is known of the objective.

    Parameters
    ----------
    psf : ndarray of shape (S, S)
        On the fine grid, sum 1.
    cutoff_px : float
        Period of its cut-off frequency in camera pixels.
    source : {"stated", "measured", "estimated", "assumed"}
        Its origin: NA and wavelength, a measured PSF, the spectrum of the image, or none.
    """

    psf: np.ndarray = field(repr=False)
    cutoff_px: float
    source: str


@lru_cache(maxsize=16)
def _psf_of(microscope: Microscope) -> np.ndarray:
    return widefield_psf(microscope, PSF_SIZE).numpy()


def lens_of_microscope(microscope: Microscope, upsampling: int) -> Lens:
    """The lens of stated optics; the pixel is the camera's."""
    fine = replace(microscope, pixel_um=microscope.pixel_um / upsampling)
    return Lens(
        psf=_psf_of(fine),
        cutoff_px=cutoff_period_um(microscope) / microscope.pixel_um,
        source="stated",
    )


def lens_of_optics(
    pixel_um: float,
    wavelength_um: float | None,
    na: float | None,
    medium_index: float | None,
    upsampling: int,
) -> Lens | None:
    """The lens of stated optics, in the usual medium of its NA; None without NA or wavelength."""
    if na is None or wavelength_um is None:
        return None
    index = usual_index(na) if medium_index is None else medium_index
    return lens_of_microscope(
        Microscope(pixel_um=pixel_um, wavelength_um=wavelength_um, medium_index=index, na=na),
        upsampling,
    )


def find_lens(plan: Plan, upsampling: int) -> Lens | None:
    """The lens of a plan: of its measured PSF, else of its stated optics, else None."""
    if plan.psf is not None:
        return lens_of_psf(plan.psf, plan.pixel_um, upsampling)
    return lens_of_optics(plan.pixel_um, plan.wavelength_um, plan.na, plan.medium_index, upsampling)


def lens_of_psf(measured: MeasuredPsf, pixel_um: float, upsampling: int) -> Lens:
    """The lens of a measured PSF, less background and centred, on the fine grid of an image."""
    border = np.concatenate(
        [measured.array[0], measured.array[-1], measured.array[:, 0], measured.array[:, -1]]
    ).astype(np.float64)
    level = float(np.median(border))
    noise = MAD_TO_SIGMA * float(np.median(np.abs(border - level)))
    image = measured.array - level
    peak = np.unravel_index(int(gaussian_filter(image, 1.0).argmax()), image.shape)
    reach = max(2, round(CENTRE_UM / measured.pixel_um))
    near = np.zeros_like(image)
    part = tuple(slice(max(0, int(place) - reach), int(place) + reach + 1) for place in peak)
    near[part] = np.where(image[part] > NOISE_SIGMAS * noise, image[part], 0.0)
    if not near.any():
        raise RequestError(
            f"{measured.source}: the PSF has no peak above its border; "
            "give the image of a bright bead on a dark background."
        )
    centre, step = np.array(center_of_mass(near)), pixel_um / upsampling / measured.pixel_um
    offsets = (np.arange(PSF_SIZE) - PSF_SIZE // 2) * step
    places = np.meshgrid(*(offsets + place for place in centre), indexing="ij")
    smooth = gaussian_filter(image, 0.5 * step) if step > 1 else image
    psf = map_coordinates(smooth, places, order=1)
    psf = np.where(psf > NOISE_SIGMAS * noise, psf, ring_means(psf)).clip(min=0)
    psf /= psf.sum()
    return Lens(
        psf=psf.astype(np.float32),
        cutoff_px=low_contrast_period(psf) * LOW_CONTRAST_SHARE / upsampling,
        source="measured",
    )


def ring_means(image: np.ndarray) -> np.ndarray:
    """Mean of a square image (S, S) on the ring of each pixel, against noise in a PSF's wings."""
    place = np.arange(image.shape[0]) - image.shape[0] // 2
    ring = np.rint(np.hypot(place[:, None], place[None, :])).astype(int)
    means: np.ndarray = np.bincount(ring.ravel(), image.ravel()) / np.bincount(ring.ravel())
    return means[ring]


def low_contrast_period(psf: np.ndarray) -> float:
    """Period [px] with a tenth of the contrast of a PSF (S, S), averaged over directions."""
    size = 8 * psf.shape[0]
    contrast = np.abs(np.fft.rfft2(psf, (size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    ring = (frequency * size).astype(int)
    mean = np.bincount(ring.ravel(), contrast.ravel()) / np.bincount(ring.ravel())
    return size / max(1.0, float(np.argmax(mean < LOW_CONTRAST * mean[0])) + 0.5)


def estimate_lens(parts: Sequence[np.ndarray], upsampling: int) -> Lens:
    """The lens by the spectra of parts (Y, X) of an image; a usual one where they tell nothing.

    It is an oil objective on a camera whose pixels give the median cut-off period of the parts.
    """
    found = [estimate_cutoff(_middle(part)) for part in parts]
    periods = [period for period in found if period is not None]
    cutoff_px = float(np.median(periods)) if periods else USUAL_PERIOD_PX
    pixel_um = USUAL_OPTICS["wavelength_um"] / (2 * USUAL_OPTICS["na"]) / cutoff_px
    index = usual_index(USUAL_OPTICS["na"])
    usual = Microscope(pixel_um=pixel_um, medium_index=index, **USUAL_OPTICS)
    source = "estimated" if periods else "assumed"
    return replace(lens_of_microscope(usual, upsampling), source=source)


def _middle(image: np.ndarray) -> np.ndarray:
    rows, columns = (
        slice(max(0, (size - LARGEST_ESTIMATED_PX) // 2), (size + LARGEST_ESTIMATED_PX) // 2)
        for size in image.shape
    )
    return image[rows, columns]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deconvolution:
    """One frame to deconvolve; the light from outside it is among the unknowns.

    Parameters
    ----------
    data : Tensor of shape (Y, X)
        Counts above the dark level. Saturated pixels are taken as they are, since there is at least
        so much light.
    brightest : float
        Brightest value of the whole image [counts]. Read noise counts as no more light than that.
    weight : Tensor of shape (Y, X)
        0 where nothing was measured, else 1.
    """

    data: Tensor = field(repr=False)
    model: WidefieldForwardModel
    noise: CameraNoise
    brightest: float
    weight: Tensor = field(repr=False)

    @classmethod
    def of_frame(
        cls, counts: np.ndarray, lens: Lens, noise: CameraNoise, brightest: float, upsampling: int
    ) -> "Deconvolution":
        """From counts (Y, X) above the dark level, NaN where nothing was measured."""
        model = WidefieldForwardModel.on_canvas(
            torch.from_numpy(lens.psf), (counts.shape[0], counts.shape[1]), MARGIN_PX, upsampling
        )
        return cls(
            data=torch.from_numpy(fill_unmeasured(counts)).float(),
            model=model,
            noise=noise,
            brightest=brightest,
            weight=torch.from_numpy(np.isfinite(counts)).float(),
        )

    @property
    def dark_counts(self) -> float:
        """Read noise as counts of light, but never above the brightest."""
        return min(self.noise.dark_signal, max(self.brightest, 0.0))

    def steps(self) -> Iterator[tuple[int, Tensor]]:
        """Number of each Richardson-Lucy step from 1 on, and the canvas after it, without end."""
        steps = deconvolve(self.data, self.model, self.dark_counts, self.weight)
        return enumerate(steps, start=1)

    def in_frame(self, canvas: Tensor) -> Tensor:
        """What lies in the frame, on the fine grid (uY, uX)."""
        return canvas[self.model.frame].clone()

    def compare(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        """Misfit (d - A x) / sd of each pixel (Y, X), and the standard deviation sd [counts].

        The misfit is 0 where nothing was measured. sd is that of the noise at the level of A x.
        """
        expected = self.model.apply(canvas)
        least = max(LEAST_DEVIATION * float(self.data.abs().max()), torch.finfo(torch.float32).tiny)
        deviation = torch.from_numpy(np.sqrt(self.noise.variance(expected.numpy())))
        deviation = deviation.float().clamp(min=least)
        return self.weight * (self.data - expected) / deviation, deviation


def chi_squared(misfit: Tensor, valid: np.ndarray) -> float:
    """Mean squared misfit where `valid` (Y, X) holds: 1 if only noise is left, 0 if nowhere."""
    kept = misfit.numpy()[valid]
    return float(np.mean(np.square(kept, dtype=np.float64))) if kept.size else 0.0


def deconvolve_channels(
    problem: Deconvolution, unit: float, cutoff_px: float
) -> Generator[str, None, tuple[Tensor, Tensor]]:
    """What the network is given of a deconvolution, in units of `unit` counts; step by step.

    Returns
    -------
    channels : Tensor of shape (3 + 3 u^2, Y, X)
        Noise, misfit and cut-off period, then each strength as u^2 channels.
    initial_estimate : Tensor of shape (uY, uX)
        The estimate of `BASELINE_STRENGTH`.
    """
    canvases, most = [], max(ITERATIONS)
    yield f"deconvolving, step 1 of {most}"
    for step, canvas in islice(problem.steps(), most):
        if step in ITERATIONS:
            canvases.append(canvas)
        if step < most:
            yield f"deconvolving, step {step + 1} of {most}"
    misfit, deviation = problem.compare(canvases[BASELINE_STRENGTH])
    fine = torch.stack([problem.in_frame(canvas) for canvas in canvases]) / unit
    local = torch.stack(
        [
            deviation / unit,
            misfit.clamp(-LARGEST_MISFIT, LARGEST_MISFIT) / LARGEST_MISFIT,
            torch.full_like(misfit, float(np.log2(cutoff_px / USUAL_PERIOD_PX))),
        ]
    )
    channels = torch.cat([local, functional.pixel_unshuffle(fine, problem.model.upsampling)])
    return channels, fine[BASELINE_STRENGTH].clone()
