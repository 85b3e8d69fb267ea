"""One training field: a measured image, conditioned as in use, and its truth in the same units."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.core.intensity import dark_level
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.simulate.scenes import WidefieldPair
from napari_cvdm.tasks import Background, Fluorescence, PhaseTwoShot
from napari_cvdm.tasks.deconvolved import Lens, lens_of_microscope
from napari_cvdm.tasks.phase_input import (
    FieldNumbers,
    inner_frame,
    network_channels,
    network_window,
)
from napari_cvdm.tasks.phase_inversion import PhaseMaps

ERROR_FLOOR_PHASE = 0.05
ERROR_FLOOR_SIGNAL = 0.02
KNOWN_DARK_SHARE, KNOWN_OPTICS_SHARE = 0.5, 0.75  # of the simulated images
NA_ERROR = 0.03  # of a stated NA, in its logarithm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingField:
    """One conditioned field and its truth, in network units.

    Parameters
    ----------
    channels : Tensor of shape (C, Y, X)
    initial_estimate, truth : Tensor of shape (uY, uX)
    weight : float
        Weight of the squared error: 1 / (squared error of the initial estimate + a floor), so that
        weak and strong fields count alike.
    pixel_um : float, optional
        Pixel size of the measured image, where it is known.
    known : Tensor of shape (uY, uX), optional
        1 where the truth is known, else 0; known everywhere, if None.
    fine_channels : int
        Of the channels, the last so many are fine pixels: u^2 channels to each fine image.
    """

    channels: Tensor = field(repr=False)
    initial_estimate: Tensor = field(repr=False)
    truth: Tensor = field(repr=False)
    weight: float
    pixel_um: float | None = None
    known: Tensor | None = field(default=None, repr=False)
    fine_channels: int = 0

    @property
    def weights(self) -> Tensor:
        """Weight of the squared error of each pixel, (uY, uX)."""
        return (
            torch.full_like(self.truth, self.weight)
            if self.known is None
            else self.weight * self.known
        )


def solved_field(maps: PhaseMaps, phase: np.ndarray) -> TrainingField:
    """An inverted field and its phase within the frame (h, w) [rad]."""
    numbers = FieldNumbers.measure(maps)
    baseline = torch.from_numpy(
        (maps.phase[network_window(maps)] - numbers.level) / numbers.unit
    ).float()
    return _with_truth(
        network_channels(maps, numbers), baseline, inner_frame(maps), phase / numbers.unit
    )


def phase_field(
    planes: np.ndarray,
    phase: np.ndarray,
    microscope: Microscope,
    defocus_um: Sequence[float],
    condenser_na: float = 0.0,
) -> TrainingField:
    """Measured planes (P, Y, X), inverted as a user's are, and their phase (Y, X) [rad]."""
    prepared = PhaseTwoShot().condition(
        planes, microscope, defocus_um, "auto", condenser_na=condenser_na
    )
    assert prepared.frame is not None  # a whole phase field has one
    return replace(
        _with_truth(
            prepared.channels, prepared.initial_estimate, prepared.frame, phase / prepared.gain
        ),
        pixel_um=microscope.pixel_um,
    )


def _with_truth(
    channels: Tensor, baseline: Tensor, frame: tuple[slice, slice], phase: np.ndarray
) -> TrainingField:
    """A field whose truth gets the mean of the initial estimate over the frame.

    The planes do not determine this mean.
    """
    truth, known = baseline.clone(), torch.zeros_like(baseline)
    truth[frame] = torch.from_numpy(phase - phase.mean()).float() + baseline[frame].mean()
    known[frame] = 1
    weight = _weight(truth[frame], baseline[frame], ERROR_FLOOR_PHASE)
    return TrainingField(
        channels=channels, initial_estimate=baseline, truth=truth, weight=weight, known=known
    )


def fluorescence_field(
    task: Fluorescence,
    counts: np.ndarray,
    truth_counts: np.ndarray,
    background: Background = "auto",
    lens: Lens | None = None,
    pixel_um: float | None = None,
) -> TrainingField:
    """A training field from a fluorescence image (Y, X) and its truth (uY, uX).

    Both are in counts of a camera pixel, above the level that the task subtracts from the image.
    """
    prepared = task.condition(counts[None], background, lens)
    truth = torch.from_numpy(truth_counts) / prepared.gain
    weight = _weight(truth, prepared.initial_estimate, ERROR_FLOOR_SIGNAL)
    return TrainingField(
        channels=prepared.channels,
        initial_estimate=prepared.initial_estimate,
        truth=truth,
        weight=weight,
        pixel_um=pixel_um,
        fine_channels=task.fine_channels,
    )


def simulated_fluorescence(task: Fluorescence, pair: WidefieldPair, seed: int) -> TrainingField:
    """A training field from a simulated pair, as a user would give it.

    It has its dark level or not. Its optics are nearly right, or not known.
    """
    rng = np.random.default_rng((seed, 2))
    counts, truth = pair.counts, pair.truth
    background: Background = "auto"
    if rng.uniform() < KNOWN_DARK_SHARE:
        background = np.full(counts.shape, pair.camera.offset_counts)
        truth = truth + np.float32(dark_level(counts) - pair.camera.offset_counts)
    lens = None
    if task.fine_channels and rng.uniform() < KNOWN_OPTICS_SHARE:
        na = (pair.microscope.na or 1.0) * np.exp(rng.normal(0, NA_ERROR))
        lens = lens_of_microscope(
            replace(pair.microscope, na=min(na, pair.microscope.medium_index)), task.upsampling
        )
    return fluorescence_field(task, counts, truth, background, lens, pair.microscope.pixel_um)


def _weight(truth: Tensor, baseline: Tensor, floor: float) -> float:
    return 1 / (float((truth - baseline).square().mean()) + floor**2)
