"""Deconvolution of a widefield image by Richardson-Lucy, stopped where the photons have nothing more to say."""

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from scipy.ndimage import convolve, zoom
from skimage.restoration import richardson_lucy

from napari_cvdm.baselines.method import Answer, Baseline, Solving
from napari_cvdm.baselines.photon_transfer import PhotonTransfer, photon_transfer
from napari_cvdm.intensity import dark_level
from napari_cvdm.microscope import Microscope
from napari_cvdm.physics.widefield import bin_pixels, blur, optical_transfer, widefield_psf
from napari_cvdm.request import RequestError, RestoreRequest
from napari_cvdm.tasks.widefield import WidefieldX2, above_dark

FINER = 2
PSF_SIZE = 61
MOST_ITERATIONS = 100
LARGEST_ITERATIONS = 1000
CHECKED_AFTER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 150, 220, 330, 500, 700)
SETTLED = 0.99  # chi^2 that falls by less than one percent has stopped falling
HALF_AND_HALF = np.array([0.25, 0.5, 0.25])  # the box of a camera pixel about the centre of a fine pixel of half its size


def through_camera_pixel(psf: np.ndarray) -> np.ndarray:
    """A PSF on the fine grid, and the box of a camera pixel after it: same shape, sum 1."""
    seen = convolve(psf, np.outer(HALF_AND_HALF, HALF_AND_HALF), mode="constant")
    return np.asarray(seen / seen.sum())


def finer(counts: np.ndarray) -> np.ndarray:
    """Counts (Y, X) on the grid twice as fine, by cubic splines, pixel edges on pixel edges: (2Y, 2X), in counts of a camera pixel."""
    return np.asarray(zoom(counts, FINER, order=3, mode="reflect", grid_mode=True))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deconvolution:
    """One frame to deconvolve, mirrored beyond its border as far as the PSF reaches.

    Parameters
    ----------
    counts : ndarray of shape (Y, X)
        Above the dark level.
    psf : ndarray of shape (S, S)
        Of the objective, on the fine grid, sum 1.
    noise : PhotonTransfer
        Of `counts`.
    pedestal : float
        Added to `counts` while they are deconvolved, to keep noise about zero above zero.
    valid : ndarray of shape (Y, X), bool
        Where chi^2 is taken.
    """

    counts: np.ndarray = field(repr=False)
    psf: np.ndarray = field(repr=False)
    noise: PhotonTransfer
    pedestal: float
    valid: np.ndarray = field(repr=False)

    @property
    def margin(self) -> int:
        """Fine pixels beyond the border: Richardson-Lucy sees darkness beyond them, and that comes no nearer than one PSF."""
        return self.psf.shape[0] - 1

    def estimate(self, iterations: int) -> np.ndarray:
        """What Richardson-Lucy makes of the frame: (2Y, 2X), counts of a camera pixel."""
        lifted = np.clip(finer(self.counts + self.pedestal), 0, None)
        padded = np.pad(lifted, self.margin, mode="symmetric").astype(np.float32)
        solved = richardson_lucy(padded, through_camera_pixel(self.psf).astype(np.float32), num_iter=iterations, clip=False)
        return np.asarray(solved[self.margin : -self.margin, self.margin : -self.margin] - self.pedestal)

    def chi_squared(self, estimate: np.ndarray) -> float:
        """Mean of (counts - blurred estimate)^2 over the camera's variance: 1 where only noise is left.

        Parameters
        ----------
        estimate : ndarray of shape (2Y, 2X)

        Returns
        -------
        float
            0 where no pixel is valid.
        """
        padded = torch.from_numpy(np.pad(estimate.astype(np.float64), self.margin, mode="symmetric"))
        blurred = blur(padded, optical_transfer(torch.from_numpy(self.psf.astype(np.float64)), (padded.shape[0], padded.shape[1])))
        seen = bin_pixels(blurred[self.margin : -self.margin, self.margin : -self.margin], FINER).numpy() / FINER**2
        deviation = (self.counts - seen)[self.valid]
        return float(np.mean(deviation**2 / self.noise.variance(seen)[self.valid])) if deviation.size else 0.0


@dataclass(frozen=True, kw_only=True)
class RichardsonLucy(Baseline):
    """Richardson-Lucy (Richardson 1972, Lucy 1974) of scikit-image, with the vectorial PSF of `widefield_psf`.

    It stops by the discrepancy: at the first of `CHECKED_AFTER` iterations where chi^2 is at most 1, or before the first where
    chi^2 falls by less than one percent. Each check starts anew, so the whole run costs about three times its last count.

    Parameters
    ----------
    iterations : int
        The most that are made, 1 to 1000.
    """

    name: ClassVar[str] = "richardson-lucy"
    title: ClassVar[str] = "Deconvolution of one widefield fluorescence image by Richardson-Lucy"
    task: ClassVar[str] = "widefield-x2"
    needed_optics: ClassVar[tuple[str, ...]] = ("pixel_um", "wavelength_um", "medium_index", "na")
    parameter: ClassVar[str] = "iterations"
    source: ClassVar[str] = "Richardson, J. Opt. Soc. Am. 62, 55 (1972); Lucy, Astron. J. 79, 745 (1974); scikit-image"
    resolution: ClassVar[str] = "as far as the photons carry; beyond the diffraction limit only for isolated points"
    limits: ClassVar[tuple[str, ...]] = ("Haze out of focus stays.", "Noise turns into grains when it runs for long.")
    iterations: int = MOST_ITERATIONS

    def __post_init__(self) -> None:
        if not 1 <= self.iterations <= LARGEST_ITERATIONS:
            raise RequestError(f"the iterations of {self.name} are {self.iterations}; allowed is 1 to {LARGEST_ITERATIONS}. Leave them out for the default.")

    def solve(self, frame: np.ndarray, request: RestoreRequest) -> Solving:
        """Deconvolve one frame (1, Y, X); OpticsError where the PSF is not known."""
        microscope = Microscope(**{name: request.optics_value(name) for name in self.needed_optics})
        yield "computing the PSF"
        problem, dark = _problem(frame, microscope, request)
        image, chi, used = yield from _until_only_noise_is_left(problem, self.iterations)
        noise = {"dark_level": dark, "variance_floor": problem.noise.floor, "counts_per_electron": problem.noise.slope}
        return Answer(image=image.astype(np.float32), valid=problem.valid, estimated={**noise, "iterations": used, "chi_squared": chi})


def _until_only_noise_is_left(problem: Deconvolution, most: int) -> Generator[str, None, tuple[np.ndarray, float, int]]:
    """The estimate, its chi^2, and how many iterations made it."""
    best: tuple[np.ndarray, float, int] | None = None
    for count in (*(count for count in CHECKED_AFTER if count < most), most):
        yield f"{count} iterations"
        image = problem.estimate(count)
        chi = problem.chi_squared(image)
        if best is not None and chi > SETTLED * best[1]:
            return best
        best = image, chi, count
        if chi <= 1:
            break
    assert best is not None  # the last count is always tried
    return best


def _problem(frame: np.ndarray, microscope: Microscope, request: RestoreRequest) -> tuple[Deconvolution, float]:
    """One frame above its dark level, and that level."""
    raw, level = above_dark(frame[0], request.background)
    dark = level if isinstance(request.background, str) else 0.0  # no background is taken off here but the one that was measured
    counts = raw - dark
    psf = widefield_psf(replace(microscope, pixel_um=microscope.pixel_um / FINER), PSF_SIZE).numpy()
    pedestal = max(0.0, -dark_level(counts))
    valid = WidefieldX2().from_request(frame, request).valid
    return Deconvolution(counts=counts, psf=psf, noise=photon_transfer(counts), pedestal=pedestal, valid=valid), dark
