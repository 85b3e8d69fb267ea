"""The forward check of a reconstruction while it runs.

Samples and means are imaged again and compared with the measured image. The outcome is given in
numbers and in words.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.ndimage import zoom
from scipy.optimize import minimize_scalar

from napari_cvdm.checks.check_model import (
    Comparison,
    Fitted,
    ForwardCheckModel,
    SameGridCheckModel,
    WidefieldCheckModel,
    in_steps,
    middle_slices,
)
from napari_cvdm.checks.phase_check import LEAST_FREEDOM, PhaseCheckModel
from napari_cvdm.core.microscope import OpticsError
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.result import LEAST_CHI2, ForwardCheck, Reconstruction, compute_half_width
from napari_cvdm.core.statistics import RunningMoments, carried_calibration, interior
from napari_cvdm.models.checkpoint import ModelCard
from napari_cvdm.physics.widefield import gaussian_transfer
from napari_cvdm.tasks import NetworkInput
from napari_cvdm.tasks.phase_posterior import PhasePosterior
from napari_cvdm.tasks.task import BORDER_PX, refine_mask

# A check that fails or has no memory costs nobody the result.
FAILURES = (ValueError, RuntimeError, MemoryError, ArithmeticError)
LEAST_STRUCTURE = 0.1  # of chi-squared, above the noise: less is no structure to explain
# Of chi-squared, for models whose card gives no limit. The unexplained part is then half as large
# as the noise.
LIMIT = 1.5
# Samples of a frame. Their chi-squared is an average over many pixels, and each costs some fits.
PHASES_IMAGED = 2


def forward_model_for(
    prepared: NetworkInput, plan: Plan, card: ModelCard
) -> Generator[str, None, ForwardCheckModel]:
    """How one frame, or the region of it that was asked for, was imaged.

    Yields before each solver step.

    Raises
    ------
    OpticsError
        What is not known, or a field without a pixel far enough from its border.
    """
    if card.task not in CHECK_MODELS:
        raise OpticsError(f"the image formation of the task {card.task} is not known")
    how = yield from in_steps(CHECK_MODELS[card.task](prepared, plan, card))
    if not how.noisy:
        raise OpticsError(
            "the image has no noise to compare with; give it as the camera measured it"
        )
    if not how.valid.any():
        raise OpticsError("no pixel is far enough from the border; give a larger image")
    return how


def _phase_imaging(
    prepared: NetworkInput, plan: Plan, card: ModelCard
) -> Generator[str, None, PhaseCheckModel]:
    if not isinstance(prepared.posterior, PhasePosterior):
        raise OpticsError("the planes were not fitted as a whole")
    return PhaseCheckModel.create(prepared.posterior.fit, plan.positions_um, plan.region)


def _measured(prepared: NetworkInput) -> dict[str, Any]:
    """The counts that were asked for, their noise, and which of them count."""
    assert prepared.counts is not None and prepared.noise is not None  # as all fluorescence
    valid = prepared.kept_input(prepared.valid)
    return {
        "measured": prepared.kept_input(prepared.counts),
        "noise": prepared.noise,
        "valid": valid & interior((valid.shape[0], valid.shape[1]), BORDER_PX),
    }


def _widefield_imaging(prepared: NetworkInput, plan: Plan, card: ModelCard) -> WidefieldCheckModel:
    lens = prepared.lens
    if lens is None or lens.source == "assumed":
        raise OpticsError(
            "na and wavelength_um not known, and the image does not show its cut-off; give --na "
            "and --wavelength-um, or --psf"
        )
    simulated: Mapping[str, Any] = card.training.get("simulation") or {}
    extra_sigma_px = 1.0
    if "blur_periods" in simulated:
        extra_sigma_px = simulated["blur_periods"][1] * lens.cutoff_px
    # Truths of other kinds have an unknown width, which counts as none.
    own_sigma_px = simulated.get("target_sigma_periods", 0.0) * lens.cutoff_px
    return WidefieldCheckModel(
        **_measured(prepared),
        lens=lens,
        upsampling=prepared.upsampling,
        own_sigma_px=own_sigma_px,
        extra_sigma_px=extra_sigma_px,
    )


Made = ForwardCheckModel | Generator[str, None, ForwardCheckModel]
MakeCheckModel = Callable[[NetworkInput, Plan, ModelCard], Made]
CHECK_MODELS: dict[str, MakeCheckModel] = {
    "phase-2shot": _phase_imaging,
    "widefield-x2": _widefield_imaging,
    "denoise": lambda prepared, plan, card: SameGridCheckModel(**_measured(prepared)),
}
"""Image formation of each task."""


class ForwardCheckAccumulator:
    """Takes up a reconstruction frame by frame and sample by sample, and checks it.

    `earlier` is the result that this one goes on from.
    """

    def __init__(self, plan: Plan, card: ModelCard, earlier: Reconstruction | None) -> None:
        frames = plan.image.loop_shape
        self._plan, self._card, self._loops = plan, card, frames
        self._chi2, self._sample_chi2, self._gain, self._rsp, self._rse = (
            np.full(frames, np.nan) for _ in range(5)
        )
        self._empty_chi2, self._estimate_chi2, self._estimate_outside = (
            np.full(frames, np.nan) for _ in range(3)
        )
        self._estimate: np.ndarray | None = None
        self._residual: np.ndarray | None = None
        self._local_chi2: np.ndarray | None = None
        self._reason = ""
        self._how: ForwardCheckModel | None = None
        self._fitted: Fitted | None = None
        self._seen = np.zeros(frames, dtype=int)
        # Samples that were drawn before are checked already.
        before = None if earlier is None else earlier.forward
        if (
            earlier is not None
            and before is not None
            and before.sample_chi2.shape == frames
            and np.isfinite(before.sample_chi2).any()
        ):
            self._sample_chi2, self._seen = before.sample_chi2.copy(), earlier.counts.copy()
        self._reference: np.ndarray | None = None

    def begin(self, index: tuple[int, ...], prepared: NetworkInput) -> Generator[str, None, None]:
        """A frame is prepared. Yields before each solver step, as do `see` and `end`."""
        self._index, self._how, self._fitted, self._estimate = index, None, None, None
        try:
            self._how = yield from forward_model_for(prepared, self._plan, self._card)
        except ValueError as error:
            self._reason = str(error)
        self._reference = None if prepared.counts is None else prepared.kept_input(prepared.counts)
        if isinstance(self._how, WidefieldCheckModel):
            self._estimate = prepared.estimate
            with suppress(*FAILURES):  # of the result itself it is said
                comparison = replace(self._how, own_sigma_px=0.0).compare(self._estimate)
                self._estimate_chi2[index] = comparison.chi2(self._how.valid)

    def see(self, sample: np.ndarray) -> Generator[str, None, None]:
        """Check one posterior sample of the frame (uY, uX).

        A check that fails is given up with its reason. The result itself stays.
        """
        if self._how is None or (
            self._card.unit == "rad" and self._seen[self._index] >= PHASES_IMAGED
        ):
            return
        try:
            comparison = yield from self._compare(self._how, sample)
        except FAILURES as error:
            self._how, self._reason = None, f"the check failed ({error})"
            return
        index = self._index
        self._seen[index] += 1
        known = np.nan_to_num(self._sample_chi2[index])
        more = (comparison.chi2(self._how.valid) - known) / int(self._seen[index])
        self._sample_chi2[index] = known + more

    def end(self, moments: RunningMoments) -> Generator[str, None, None]:
        """The frame's samples (uY, uX) are all drawn."""
        mean, index = moments.mean, self._index
        if self._reference is not None:
            times = mean.shape[-1] // self._reference.shape[-1]
            # grid_mode: the edges of the pixels lie on each other, not their centres.
            fine = zoom(self._reference, times, order=3, mode="nearest", grid_mode=True)
            found = squirrel(mean, fine, times)
            self._rsp[index], self._rse[index] = found.rsp, found.rse
        if self._how is not None:
            yield from self._end_compared(self._how, mean)
        if isinstance(self._how, WidefieldCheckModel) and self._estimate is not None:
            calibration = carried_calibration(
                self._card.calibration, moments.count, self._plan.steps, self._plan.sampler
            )
            if calibration:
                half_width = compute_half_width(calibration, np.sqrt(moments.variance))
                outside = np.abs(mean - self._estimate) > half_width
                inner = refine_mask(self._how.valid, self._how.upsampling)
                self._estimate_outside[index] = outside[inner].mean()

    def _end_compared(self, how: ForwardCheckModel, mean: np.ndarray) -> Generator[str, None, None]:
        try:
            comparison = yield from self._compare(how, mean)
            # What an empty image leaves is the structure that there is to explain.
            empty = yield from in_steps(how.compare(np.zeros_like(mean), comparison.fitted))
        except FAILURES as error:
            self._reason = f"the check failed ({error})"
            return
        self._keep(how, self._free_of_fit(how, comparison), empty)

    def _compare(
        self, how: ForwardCheckModel, image: np.ndarray
    ) -> Generator[str, None, Comparison]:
        """Compare an image with what was measured.

        All fluorescence images of a frame came through the same blur. Absorption and surroundings
        belong to each phase.
        """
        fitted = None if self._card.unit == "rad" else self._fitted
        comparison = yield from in_steps(how.compare(image, fitted))
        self._fitted = comparison.fitted
        return comparison

    def _free_of_fit(self, how: ForwardCheckModel, comparison: Comparison) -> Comparison:
        """The comparison of a mean, with the degrees of freedom that it has.

        The mean of samples is fitted to the noise. A sample is not, since the draw scatters again
        what the mean gains. So the mean has lost as many degrees of freedom as its chi-squared is
        below that of a sample. The loss is at most what the data determine.
        """
        gained = float(self._sample_chi2[self._index]) - comparison.chi2(how.valid)
        fitted = min(max(0.0, float(np.nan_to_num(gained))), how.most_fitted)
        return replace(comparison, freedom=comparison.freedom * max(LEAST_FREEDOM, 1 - fitted))

    def _keep(self, how: ForwardCheckModel, comparison: Comparison, empty: Comparison) -> None:
        index, counted = self._index, comparison.counted
        if self._residual is None or self._local_chi2 is None:
            self._residual = np.zeros((*self._loops, *comparison.residual.shape), np.float32)
            self._local_chi2 = np.zeros((*self._loops, *how.valid.shape), np.float32)
        self._residual[index] = comparison.residual
        self._local_chi2[index] = comparison.local_chi2(how.valid)
        self._chi2[index], self._gain[index] = comparison.chi2(how.valid), comparison.gain
        self._empty_chi2[index] = empty.chi2(how.valid)
        if counted is not None:
            measured, predicted = how.measured[counted], comparison.predicted[counted]
            flat = measured.std() == 0 or predicted.std() == 0  # without a correlation
            self._rsp[index] = 0.0 if flat else np.corrcoef(measured, predicted)[0, 1]
            self._rse[index] = np.sqrt(np.mean((measured - predicted) ** 2))

    def result(self) -> ForwardCheck:
        """What was found."""
        axes = self._plan.image.loop_axes
        chi2, empty = _average(self._chi2), _average(self._empty_chi2)
        estimate_chi2, outside = _average(self._estimate_chi2), _average(self._estimate_outside)
        unexplained, said = None, ""
        if chi2 is not None:
            said = describe_estimate(estimate_chi2, outside)
            if empty is not None and empty - 1 >= LEAST_STRUCTURE:
                unexplained = max(0.0, (chi2 - 1) / (empty - 1))
        axes += "PYX" if self._card.unit == "rad" else "YX"
        return ForwardCheck(
            residual=self._residual,
            local_chi2=self._local_chi2,
            axes="" if self._residual is None else axes,
            chi2=chi2,
            unexplained=unexplained,
            frame_chi2=self._chi2,
            sample_chi2=self._sample_chi2,
            gain=None if np.isnan(self._gain).all() else float(np.nanmedian(self._gain)),
            rsp=_average(self._rsp),
            rse=_average(self._rse),
            limit=LIMIT,
            estimate_chi2=estimate_chi2,
            estimate_outside=outside,
            verdict=verdict(chi2, LIMIT, unexplained, self._reason) + said,
        )


def _average(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def describe_estimate(chi2: float | None, outside: float | None) -> str:
    """How well the deconvolution alone explains the image; empty where that is not known.

    The sentence also says how often the deconvolution lies outside the interval of the result.
    """
    if chi2 is None:
        return ""
    share = ""
    if outside is not None:
        share = f", and lies outside the calibrated interval in {outside:.0%} of the pixels"
    return f" The deconvolution alone has chi-squared {chi2:.2f}{share}."


def verdict(chi2: float | None, limit: float, unexplained: float | None, reason: str) -> str:
    """The outcome in a sentence, with `unexplained` of `ForwardCheck`.

    `reason` says why there is no reduced chi-squared.
    """
    if chi2 is None:
        return (
            "Not checked against the measured image: "
            f"{reason or 'no frame was finished, or this is a preview'}."
        )
    if chi2 < LEAST_CHI2:
        return (
            f"Imaged again, it repeats the noise of the measured image (chi-squared {chi2:.2g}, 1 "
            "expected): what is called its structure is noise, too."
        )
    if chi2 <= limit:
        return (
            "Imaged again, it explains the measured image up to the noise (chi-squared "
            f"{chi2:.2f}, 1 expected)."
        )
    share = ""
    if unexplained is not None:
        share = f"; {min(unexplained, 9.99):.1%} of the structure is left over"
    return (
        f"Imaged again, it misses the measured image by more than noise (chi-squared {chi2:.3g}, 1 "
        f"expected{share}): see the local chi-squared."
    )


WIDEST_FWHM_PX = 4.0  # of the blur, in camera pixels
LARGEST_PX = 2048  # of a side; of larger images the middle is taken
FWHM_TO_SIGMA = 2.35482


@dataclass(frozen=True, slots=True, kw_only=True)
class Squirrel:
    """Resolution-scaled Pearson correlation (RSP), resolution-scaled error (RSE), fitted blur.

    The RSE is in units of the reference, the blur in pixels of the fine grid.
    """

    rsp: float
    rse: float
    sigma_px: float


def squirrel(image: np.ndarray, reference: np.ndarray, upsampling: int) -> Squirrel:
    """RSP and RSE of a super-resolved image.

    For a blur G the best linear scaling leaves RSE(G) = sd(reference) sqrt(1 - RSP(G)^2), so the
    blur of least error is that of largest correlation. By Parseval's theorem all correlations
    follow from one transform of each image. RSP is 0, and RSE the contrast of the reference, where
    either image is flat.

    Parameters
    ----------
    image : ndarray of shape (Y, X)
        Super-resolved.
    reference : ndarray of shape (Y, X)
        The measured image, upsampled to the same grid.
    upsampling : int
        Fine pixels for one camera pixel along an axis.
    """
    middle = middle_slices(image.shape, LARGEST_PX)
    image, reference = image[middle], reference[middle]
    own, other = (
        torch.fft.fft2(torch.from_numpy(np.asarray(values, np.float64) - float(np.mean(values))))
        for values in (image, reference)
    )
    contrast, shape, like = float(np.std(reference)), (image.shape[0], image.shape[1]), own.real
    cross, power = (own * other.conj()).real, own.abs().square()
    norm = float(other.abs().square().sum())

    def correlation(sigma: float) -> float:
        transfer = gaussian_transfer(shape, sigma, like)
        size = float((power * transfer.square()).sum()) * norm
        return float((cross * transfer).sum()) / size**0.5 if size > 0 else 0.0

    found = minimize_scalar(
        lambda sigma: -correlation(sigma),
        bounds=(0, WIDEST_FWHM_PX / FWHM_TO_SIGMA * upsampling),
        method="bounded",
        options={"xatol": 0.02},
    )
    rsp = correlation(float(found.x))
    return Squirrel(rsp=rsp, rse=contrast * max(0.0, 1 - rsp**2) ** 0.5, sigma_px=float(found.x))
