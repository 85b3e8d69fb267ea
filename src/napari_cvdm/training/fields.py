"""One field for training: a measured image, conditioned as in use, and its truth in the same units."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.microscope import Microscope
from napari_cvdm.tasks import Fluorescence, PhaseTwoShot

ERROR_FLOOR_PHASE = 0.005
ERROR_FLOOR_SIGNAL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingField:
    """One conditioned field and its truth, in network units.

    Parameters
    ----------
    channels : Tensor of shape (C, Y, X)
    baseline, truth : Tensor of shape (uY, uX)
    weight : float
        Weight of its squared error: one over the squared error of the baseline (plus a floor), so that weak and strong
        fields count alike.
    pixel_um : float, optional
        Pixel size of the measured image, where it is known.
    """

    channels: Tensor = field(repr=False)
    baseline: Tensor = field(repr=False)
    truth: Tensor = field(repr=False)
    weight: float
    pixel_um: float | None = None


def phase_field(planes: np.ndarray, phase: np.ndarray, microscope: Microscope, defocus_um: tuple[float, float]) -> TrainingField:
    """Two planes (2, Y, X) and their phase (Y, X) [rad]; US-TIE is solved on the whole field."""
    prepared = PhaseTwoShot().condition(planes, microscope, defocus_um, "auto")
    truth = torch.from_numpy(phase) / prepared.gain
    weight = _weight(truth, prepared.baseline, ERROR_FLOOR_PHASE)
    return TrainingField(channels=prepared.channels, baseline=prepared.baseline, truth=truth, weight=weight, pixel_um=microscope.pixel_um)


def fluorescence_field(task: Fluorescence, counts: np.ndarray, truth_counts: np.ndarray, pixel_um: float | None = None) -> TrainingField:
    """A fluorescence image (Y, X) and what a task ought to make of it (uY, uX), in counts of a camera pixel above the dark level."""
    prepared = task.condition(counts[None], "auto")
    truth = torch.from_numpy(truth_counts) / prepared.gain
    weight = _weight(truth, prepared.baseline, ERROR_FLOOR_SIGNAL)
    return TrainingField(channels=prepared.channels, baseline=prepared.baseline, truth=truth, weight=weight, pixel_um=pixel_um)


def _weight(truth: Tensor, baseline: Tensor, floor: float) -> float:
    return 1 / (float((truth - baseline).square().mean()) + floor**2)
