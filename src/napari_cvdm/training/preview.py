"""Preview of a training: the reconstruction of a held-out field, and the current schedule."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from napari_cvdm.core.result import ClockCurve
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.models.schedule import clock_curve
from napari_cvdm.training.fields import TrainingField
from napari_cvdm.training.validation import Validation, cut_to_centre, posterior_samples

CLOCK_POINTS = 100
RATE_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleNow:
    """The schedule on the patches that were just learned from.

    Parameters
    ----------
    rates : tuple of float
        lambda of the pixels at 5, 50 and 95 %, rising.
    clock : ClockCurve
        gamma(t) = exp(-lambda T(t)) of each of them.
    """

    rates: tuple[float, float, float]
    clock: ClockCurve = field(repr=False)


@torch.no_grad()
def schedule_now(rate: Tensor, clock: nn.Module) -> ScheduleNow:
    """Where a schedule is, from the rates of some pixels."""
    low, middle, high = torch.quantile(
        rate.float().flatten(), torch.tensor(RATE_QUANTILES, device=rate.device)
    ).tolist()
    return ScheduleNow(rates=(low, middle, high), clock=clock_curve(clock, CLOCK_POINTS))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preview:
    """A held-out field as the network sees it now, in network units.

    Parameters
    ----------
    measured : ndarray of shape (Y, X), float32
        First channel of the condition.
    baseline, truth, mean, spread, rate : ndarray of shape (uY, uX), float32
        Physical estimate, truth, mean and standard deviation of the posterior samples, lambda(x).
    clock : ClockCurve
        With `rate` it gives gamma and beta at any time.
    pixel_um : float, optional
        Pixel size of `measured`, where it is known.
    """

    measured: np.ndarray = field(repr=False)
    baseline: np.ndarray = field(repr=False)
    truth: np.ndarray = field(repr=False)
    mean: np.ndarray = field(repr=False)
    spread: np.ndarray = field(repr=False)
    rate: np.ndarray = field(repr=False)
    clock: ClockCurve = field(repr=False)
    pixel_um: float | None = None


@torch.inference_mode()
def previewed(network: CVDM, entry: TrainingField, plan: Validation) -> Preview:
    """Reconstruct the middle of a field.

    Parameters
    ----------
    network : CVDM
    entry : TrainingField
    plan : Validation
        Says how many samples and evaluations, and how large a field.
    """
    device, unit = (
        network.residual_scale.device,
        network.config.alignment * network.config.condition_fold,
    )
    channels, baseline, truth, _ = (
        image.to(device) for image in cut_to_centre(entry, plan.largest_px, unit)
    )
    samples, _ = posterior_samples(network, channels, baseline, plan, seed=0)
    rate = network.rate(network.features(channels, network.mean_residual(channels)))
    images = {
        "baseline": baseline[0],
        "truth": truth[0],
        "mean": samples.mean(dim=0),
        "spread": samples.std(dim=0),
        "rate": rate[0],
    }
    shown = {name: image[0].float().cpu().numpy() for name, image in images.items()}
    measured = channels[0, 0].cpu().numpy()
    return Preview(
        measured=measured,
        clock=clock_curve(network.clock, CLOCK_POINTS),
        pixel_um=entry.pixel_um,
        **shown,
    )
