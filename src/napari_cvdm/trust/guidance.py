"""Guidance: while it is sampled, a reconstruction is drawn toward what was measured, as far as its residual is more than noise.

It makes a result agree with the measured image. That is not the same as with the truth: `python -m benchmarks.guidance` measures both.
"""

from contextlib import suppress
from functools import singledispatch

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.microscope import OpticsError
from napari_cvdm.model.checkpoint import ModelCard
from napari_cvdm.physics.widefield import blur, gaussian_transfer
from napari_cvdm.physics.wotf import solve_wotf
from napari_cvdm.request import RequestError, RestoreRequest
from napari_cvdm.tasks import Conditioned
from napari_cvdm.trust.by_blocks import by_blocks, inside
from napari_cvdm.trust.forward_check import imaging_of, widefield_microscope
from napari_cvdm.trust.imaging import MARGIN_PX, Comparison, Imaging, PhaseImaging, WidefieldImaging, sharp_to_seen

WOTF_REGULARISATION = 0.1  # a phase is weak only in steps: strong enough to leave slow waves to US-TIE
GUIDED = ("phase-2shot", "widefield-x2")
SHARES = (1.0, 0.5, 0.25)
LEAST_PREDICTED = 0.1  # of the mean of the measured image: no ratio is taken to less


class Guide:
    """Draws images of one frame toward what was measured.

    Parameters
    ----------
    imaging : Imaging
    steps : int
        For each image.
    """

    def __init__(self, imaging: Imaging, steps: int) -> None:
        self._imaging, self._steps = imaging, steps

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The image (uY, uX) after as many steps as asked for, as long as chi^2 is above 1 and each makes it smaller; in units of the output.

        What is fitted of the sample (a blur, a transmission) is fitted anew for each image: no image depends on those before it.
        """
        comparison = self._imaging.compare(image)
        for _ in range(self._steps):
            found = self._nearer(image, comparison)
            if found is None:
                break
            image, comparison = found
        return image

    def _nearer(self, image: np.ndarray, comparison: Comparison) -> tuple[np.ndarray, Comparison] | None:
        """x + s (1 - 1 / chi^2) step, with the first s of 1, 1/2, 1/4 that lessens chi^2: steps are for weak objects, images are not."""
        chi2 = comparison.chi2(self._imaging.valid)
        if not chi2 > 1:
            return None
        step = (1 - 1 / chi2) * step_toward(self._imaging, image, comparison)
        for share in SHARES:
            candidate = image + share * step
            after = self._imaging.compare(candidate, comparison.fitted)
            if after.chi2(self._imaging.valid) < chi2:
                return candidate, after
        return None


def check_guidance(request: RestoreRequest, card: ModelCard) -> None:
    """RequestError or OpticsError where a request asks for a guidance that cannot be given: before anything is computed."""
    if not request.guidance:
        return
    if card.task not in GUIDED:
        raise RequestError(f"guidance is {request.guidance}, but there is none for the task {card.task}; allowed are {', '.join(GUIDED)}. Leave it out.")
    if card.unit != "rad":
        widefield_microscope(request)


def guide_of(pixels: np.ndarray, prepared: Conditioned, request: RestoreRequest, card: ModelCard) -> Guide | None:
    """The guide of one frame; None where the request asks for none, and for a frame that cannot be compared (no noise, no pixel far enough from the border).

    Parameters
    ----------
    pixels : ndarray of shape (P, Y, X)
        The whole frame, as measured.
    prepared : Conditioned
    request : RestoreRequest
    card : ModelCard
    """
    if not request.guidance:
        return None
    with suppress(OpticsError):
        return Guide(imaging_of(pixels, prepared, request, card), request.guidance)
    return None


@singledispatch
def step_toward(imaging: Imaging, image: np.ndarray, comparison: Comparison) -> np.ndarray:
    """By how much an image (uY, uX) should change to lessen its residual, were there no noise; (uY, uX)."""
    raise TypeError(f"there is no guidance for {type(imaging).__name__}")


@step_toward.register
def _(imaging: WidefieldImaging, image: np.ndarray, comparison: Comparison) -> np.ndarray:
    """c x H^T (y / p) - x, a step of Richardson-Lucy (J. Opt. Soc. Am. 62, 55 (1972)); c keeps the flux, which the fitted background would take."""
    least = LEAST_PREDICTED * float(imaging.measured.mean())
    relative = np.where(imaging.valid, (imaging.measured - comparison.predicted) / np.maximum(comparison.predicted, max(least, np.finfo(float).tiny)), 0)
    extra = float(comparison.fitted)

    def back(block: Tensor) -> Tensor:
        transfer = sharp_to_seen((block.shape[0], block.shape[1]), imaging.fine, imaging.own_sigma_px)
        return inside(blur(block, (transfer * gaussian_transfer((block.shape[0], block.shape[1]), extra**0.5, block)).conj()), MARGIN_PX * imaging.upsampling)

    finer = np.kron(relative, np.ones((imaging.upsampling, imaging.upsampling)))
    drawn = image * (1 + by_blocks(back, finer, MARGIN_PX * imaging.upsampling))
    return drawn * (image.sum() / drawn.sum()) - image if drawn.sum() > 0 else np.zeros_like(drawn)


@step_toward.register
def _(imaging: PhaseImaging, image: np.ndarray, comparison: Comparison) -> np.ndarray:
    """The weak phase that explains y / p - 1 of both planes, see `solve_wotf`: a step of Gauss and Newton."""
    relative = (imaging.measured - comparison.predicted) / np.maximum(comparison.predicted, LEAST_PREDICTED)
    lacking = torch.from_numpy(np.where(imaging.valid, relative, 0))
    return np.asarray(solve_wotf(lacking, imaging.defocus_um, imaging.microscope, WOTF_REGULARISATION).numpy())
