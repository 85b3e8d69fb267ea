"""The physical check of a restoration while it runs: every sample and every mean imaged again, and what came of it in numbers and words."""

from collections.abc import Callable, Mapping
from math import ceil, sqrt

import numpy as np

from napari_cvdm.microscope import Microscope, OpticsError
from napari_cvdm.model.checkpoint import ModelCard
from napari_cvdm.request import RestoreRequest
from napari_cvdm.result import LEAST_CHI2, ForwardCheck
from napari_cvdm.simulate.widefield import RESOLUTION_SIGMA_PX
from napari_cvdm.tasks import TASKS, Conditioned
from napari_cvdm.tasks.conditioned import BORDER_PX, interior
from napari_cvdm.tasks.phase import RisingPlanes
from napari_cvdm.tasks.phase_channels import fresnel_parameter, phase_optics
from napari_cvdm.tasks.widefield import above_dark
from napari_cvdm.trust.camera_noise import photon_transfer
from napari_cvdm.trust.imaging import Comparison, Imaging, PhaseImaging, WidefieldImaging
from napari_cvdm.trust.same_grid_imaging import SameGridImaging
from napari_cvdm.trust.squirrel import squirrel

FAILURES = (ValueError, RuntimeError, MemoryError, ArithmeticError)
LEAST_STRUCTURE = 0.1  # of chi-squared, above the noise: less is no structure to explain
LIMIT = 1.5  # of chi-squared, for models whose card does not say it: half as much unexplained as there is noise
OPTICS_OF_WIDEFIELD = ("pixel_um", "wavelength_um", "na")
OIL_INDEX = 1.518
WATER_INDEX = 1.333


def widefield_microscope(request: RestoreRequest) -> Microscope:
    """The objective of a request; OpticsError names what is missing. Without an index, the smallest usual one that the NA allows is taken."""
    missing = [name for name in OPTICS_OF_WIDEFIELD if request.known_optics(name) is None]
    if missing:
        raise OpticsError(f"{' and '.join(missing)} not known; give {' and '.join('--' + name.replace('_', '-') for name in missing)}")
    na, index = request.optics_value("na"), request.known_optics("medium_index")
    if index is None:
        index = next((usual for usual in (1.0, WATER_INDEX, OIL_INDEX) if na < usual), na)
    return Microscope(pixel_um=request.optics_value("pixel_um"), wavelength_um=request.optics_value("wavelength_um"), medium_index=index, na=na)


def part_of(pixels: np.ndarray, request: RestoreRequest) -> np.ndarray:
    """The region of the measured pixels (..., Y, X) that was asked for."""
    top, bottom, left, right = request.region or (0, pixels.shape[-2], 0, pixels.shape[-1])
    return pixels[..., top:bottom, left:right]


def imaging_of(pixels: np.ndarray, prepared: Conditioned, request: RestoreRequest, card: ModelCard) -> Imaging:
    """How one frame was imaged.

    Parameters
    ----------
    pixels : ndarray of shape (P, Y, X)
        The whole frame, as measured.
    prepared : Conditioned
    request : RestoreRequest
    card : ModelCard

    Returns
    -------
    Imaging
        Of the region that was asked for.

    Raises
    ------
    OpticsError
        What is not known, or a field without a pixel far enough from its border.
    """
    upsampling = TASKS[card.task].upsampling
    fine = prepared.kept(np.kron(prepared.valid, np.ones((upsampling, upsampling), dtype=bool)))
    valid = fine[::upsampling, ::upsampling]
    how = IMAGING[card.task](pixels, valid, request, card)
    if not how.valid.any():
        raise OpticsError("no pixel is far enough from the border; give a larger image")
    if not how.noisy:
        raise OpticsError("the image has no noise to compare with; give it as the camera measured it")
    return how


def _phase_imaging(pixels: np.ndarray, valid: np.ndarray, request: RestoreRequest, card: ModelCard) -> PhaseImaging:
    microscope, defocus_um = phase_optics(request)
    rising = RisingPlanes.of(pixels, defocus_um, request.background)
    in_order = rising.aligned(microscope).planes if request.align == "auto" else rising.ratio  # as the model saw them
    planes = part_of(in_order if defocus_um[0] < defocus_um[1] else in_order[::-1], request)
    zone = ceil(sqrt(max(abs(fresnel_parameter(z, microscope)) for z in defocus_um)))  # where light from beyond the border ends up
    valid = valid & interior(valid.shape, BORDER_PX + zone)
    noise = tuple(photon_transfer(plane, valid) for plane in planes)
    return PhaseImaging(measured=planes, noise=noise, valid=valid, microscope=microscope, defocus_um=defocus_um)


def _counts_and_valid(pixels: np.ndarray, valid: np.ndarray, request: RestoreRequest) -> tuple[np.ndarray, np.ndarray]:
    """The part of a fluorescence image that was asked for, and what counts of it."""
    raw, level = above_dark(pixels[0], request.background)
    counts = part_of(raw - level, request)  # a camera's offset has no photon noise, so the line of the noise would not fit with it left in
    return counts, valid & interior(valid.shape, BORDER_PX)


def _same_grid_imaging(pixels: np.ndarray, valid: np.ndarray, request: RestoreRequest, card: ModelCard) -> SameGridImaging:
    counts, valid = _counts_and_valid(pixels, valid, request)
    return SameGridImaging(measured=counts, noise=photon_transfer(counts, valid), valid=valid)


def _widefield_imaging(pixels: np.ndarray, valid: np.ndarray, request: RestoreRequest, card: ModelCard) -> WidefieldImaging:
    microscope = widefield_microscope(request)
    counts, valid = _counts_and_valid(pixels, valid, request)
    simulated: Mapping[str, tuple[float, float]] = card.training.get("simulation") or {}
    return WidefieldImaging(
        measured=counts,
        noise=photon_transfer(counts, valid),
        valid=valid,
        microscope=microscope,
        upsampling=TASKS[card.task].upsampling,
        own_sigma_px=RESOLUTION_SIGMA_PX if simulated else 0.0,  # truths of other kinds have a width that nobody knows
        extra_sigma_px=simulated.get("blur_px", (0.0, 1.0))[1],
    )


IMAGING: Mapping[str, Callable[[np.ndarray, np.ndarray, RestoreRequest, ModelCard], Imaging]] = {
    "phase-2shot": _phase_imaging,
    "widefield-x2": _widefield_imaging,
    "denoise": _same_grid_imaging,
}
"""How what a task reconstructs was imaged: (frame, valid pixels of the part that was asked for, request, card) -> Imaging."""


class ForwardRecord:
    """Takes up a restoration frame by frame and sample by sample, and checks it.

    Parameters
    ----------
    request : RestoreRequest
    card : ModelCard
    frames : tuple of int
        Sizes of the axes that are looped over.
    earlier : ForwardCheck, optional
        Of the result that this one goes on from.
    counts : ndarray of shape `frames`
        Samples behind `earlier`.
    """

    def __init__(self, request: RestoreRequest, card: ModelCard, frames: tuple[int, ...], earlier: ForwardCheck | None, counts: np.ndarray) -> None:
        self._request, self._card, self._loops = request, card, frames
        self._chi2, self._sample_chi2, self._gain, self._rsp, self._rse = (np.full(frames, np.nan) for _ in range(5))
        self._empty_chi2 = np.full(frames, np.nan)
        self._residual: np.ndarray | None = None
        self._local_chi2: np.ndarray | None = None
        self._reason = ""
        self._how: Imaging | None = None
        self._fitted: float | np.ndarray | None = None
        self._seen = np.zeros(frames, dtype=int)
        if earlier is not None and earlier.sample_chi2.shape == frames and np.isfinite(earlier.sample_chi2).any():
            self._sample_chi2, self._seen = earlier.sample_chi2.copy(), np.array(counts)
        self._reference: np.ndarray | None = None

    def begin(self, index: tuple[int, ...], pixels: np.ndarray, prepared: Conditioned) -> None:
        """A frame is prepared."""
        self._index, self._how, self._fitted = index, None, None
        try:
            self._how = imaging_of(pixels, prepared, self._request, self._card)
        except ValueError as error:
            self._reason = str(error)
        self._reference = None if self._card.unit == "rad" else prepared.kept(prepared.baseline.numpy() * prepared.gain)

    def see(self, sample: np.ndarray) -> None:
        """One posterior sample of the frame (uY, uX). A check that fails costs nobody the result: it is given up, with the reason."""
        if self._how is None:
            return
        try:
            comparison = self._compared(self._how, sample)
        except FAILURES as error:
            self._how, self._reason = None, f"the check failed ({error})"
            return
        before, known = int(self._seen[self._index]), np.nan_to_num(self._sample_chi2[self._index])
        self._seen[self._index] = before + 1
        self._sample_chi2[self._index] = known + (comparison.chi2(self._how.valid) - known) / (before + 1)

    def end(self, mean: np.ndarray) -> None:
        """The mean of the frame's samples (uY, uX)."""
        if self._reference is not None:
            found = squirrel(mean, self._reference, mean.shape[-1] // part_of(self._request.image.array, self._request).shape[-1])
            self._rsp[self._index], self._rse[self._index] = found.rsp, found.rse
        if self._how is not None:
            self._end_compared(self._how, mean)

    def _end_compared(self, how: Imaging, mean: np.ndarray) -> None:
        fitted = None if self._card.unit == "rad" else self._fitted  # a transmission follows from the phase, a blur does not
        try:
            comparison, empty = how.compare(mean, fitted), how.compare(np.zeros_like(mean), fitted)
        except FAILURES as error:
            self._reason = f"the check failed ({error})"
            return
        self._keep(how, comparison, empty)

    def _compared(self, how: Imaging, image: np.ndarray) -> Comparison:
        comparison = how.compare(image, self._fitted)
        self._fitted = comparison.fitted  # all images of a frame came through the same sample
        return comparison

    def _keep(self, how: Imaging, comparison: Comparison, empty: Comparison) -> None:
        if self._residual is None or self._local_chi2 is None:
            self._residual = np.zeros((*self._loops, *comparison.residual.shape), np.float32)
            self._local_chi2 = np.zeros((*self._loops, *how.valid.shape), np.float32)
        self._residual[self._index], self._local_chi2[self._index] = comparison.residual, comparison.local_chi2(how.valid)
        self._chi2[self._index], self._gain[self._index] = comparison.chi2(how.valid), comparison.gain
        self._empty_chi2[self._index] = empty.chi2(how.valid)
        if self._card.unit == "rad":
            measured, predicted = how.measured[..., how.valid].ravel(), comparison.predicted[..., how.valid].ravel()
            flat = measured.std() == 0 or predicted.std() == 0
            self._rsp[self._index] = 0.0 if flat else np.corrcoef(measured, predicted)[0, 1]
            self._rse[self._index] = np.sqrt(np.mean((measured - predicted) ** 2))

    def result(self) -> ForwardCheck:
        """What was found."""
        axes = "".join(axis for axis in self._request.image.axes if axis not in "PYX")
        chi2, empty, limit = _average(self._chi2), _average(self._empty_chi2), LIMIT
        unexplained = None if chi2 is None or empty is None or empty - 1 < LEAST_STRUCTURE else max(0.0, (chi2 - 1) / (empty - 1))
        return ForwardCheck(
            residual=self._residual,
            local_chi2=self._local_chi2,
            axes="" if self._residual is None else axes + ("PYX" if self._card.unit == "rad" else "YX"),
            chi2=chi2,
            unexplained=unexplained,
            frame_chi2=self._chi2,
            sample_chi2=self._sample_chi2,
            gain=None if np.isnan(self._gain).all() else float(np.nanmedian(self._gain)),
            rsp=_average(self._rsp),
            rse=_average(self._rse),
            limit=limit,
            verdict=verdict(chi2, limit, unexplained, self._reason),
        )


def _average(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def verdict(chi2: float | None, limit: float, unexplained: float | None, reason: str) -> str:
    """The outcome in a sentence.

    Parameters
    ----------
    chi2 : float or None
        Reduced chi-squared; None where there is none.
    limit : float
    unexplained : float or None
        See `ForwardCheck`.
    reason : str
        Why there is none.
    """
    if chi2 is None:
        return f"Not checked against the measured image: {reason or 'no frame was finished, or this is a preview'}."
    if chi2 < LEAST_CHI2:
        return f"Imaged again, it repeats the noise of the measured image (chi-squared {chi2:.2g}, 1 expected): what is called its structure is noise, too."
    if chi2 <= limit:
        return f"Imaged again, it explains the measured image up to the noise (chi-squared {chi2:.2f}, 1 expected)."
    share = "" if unexplained is None else f"; {min(unexplained, 9.99):.1%} of the structure is left over"
    return f"Imaged again, it misses the measured image by more than noise (chi-squared {chi2:.3g}, 1 expected{share}): see the local chi-squared."
