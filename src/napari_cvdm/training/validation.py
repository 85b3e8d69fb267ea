"""How good a network is on fields that it never learns from, and what it makes of them.

A preview shows one of these fields and the current schedule while a training runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import sqrt
from typing import Any

import numpy as np
import torch
from scoringrules import crps_ensemble
from torch import Tensor, nn

from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import ClockCurve
from napari_cvdm.diffusion.sampler import SAMPLERS, clock_grid
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.models.schedule import clock_curve
from napari_cvdm.training.pool import TrainingField

SAMPLER = "sde-2m"
CLOCK_POINTS = 100
RATE_QUANTILES = (0.05, 0.5, 0.95)
# Smallest numbers that a recipe may give; one sample has no variance.
SMALLEST = dict(fields=1, every=0, samples=2, evaluations=1, patience=0, largest_px=16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """When and how to look at held-out fields.

    Parameters
    ----------
    fields : int
        Held-out fields of an endless source; a finite one holds out `share` of its fields.
    share : float
        In (0, 1), see `fields`; at least one field is held out.
    every : int
        Steps between two looks; 0 for none.
    samples, evaluations : int
        Posterior samples of each field, at least 2, and evaluations of the network for each.
    patience : int
        Looks without a better score after which a stage ends; 0 for never.
    largest_px : int
        A larger field is cut to its centre.
    """

    fields: int = 4
    share: float = 0.2
    every: int = 0
    samples: int = 4
    evaluations: int = 6
    patience: int = 0
    largest_px: int = 128

    def __post_init__(self) -> None:
        for name, low in SMALLEST.items():
            value: Any = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise RequestError(
                    f"[validation] {name} is {value!r}; a whole number of at least {low} is needed."
                )
        if not isinstance(self.share, float) or not 0 < self.share < 1:
            raise RequestError(
                f"[validation] share is {self.share!r}; a number between 0 and 1 is needed, such "
                "as 0.2."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Scores on held-out fields.

    Errors are in network units of each field, pooled over all pixels of all fields.

    Parameters
    ----------
    rmse, centre_rmse, baseline_rmse : float
        Root mean square error of the posterior mean, of the image around which the samples scatter,
        and of the initial estimate.
    crps : float
        Continuous ranked probability score, as the fair estimate for few samples (Ferro 2014). It
        measures error and spread in one number; lower is better.
    spread_ratio : float
        sqrt(1 + 1/S) times the root mean variance of S samples, divided by `rmse`. It is 1 where
        the spread is as large as the error (Fortin 2014).
    """

    rmse: float
    centre_rmse: float
    baseline_rmse: float
    crps: float
    spread_ratio: float


def cut_to_centre(
    entry: TrainingField, largest: int, network: CVDM
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Channels, initial estimate, truth and weights of the middle of a field.

    Each has a shape like (1, C, Y, X), in sizes that the network takes, on its device.
    """
    device = network.residual_scale.device
    unit = network.config.alignment * network.config.condition_fold
    height, width = entry.channels.shape[-2:]
    factor = entry.truth.shape[-1] // width
    sides = [min(size, largest) // unit * unit for size in (height, width)]
    corner = [(size - side) // 2 for size, side in zip((height, width), sides, strict=True)]

    def cut(image: Tensor, scale: int) -> Tensor:
        rows, columns = (
            slice(start * scale, (start + side) * scale)
            for start, side in zip(corner, sides, strict=True)
        )
        return image[..., rows, columns].to(device)

    initial_estimate, truth, weights = (
        cut(image, factor)[None, None]
        for image in (entry.initial_estimate, entry.truth, entry.weights)
    )
    return cut(entry.channels, 1)[None], initial_estimate, truth, weights


@torch.inference_mode()
def posterior_samples(
    network: CVDM, channels: Tensor, initial_estimate: Tensor, plan: Validation, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Samples of one field, (S, 1, uY, uX), the image around which they scatter, and lambda(x).

    Samples and image are in network units. The noise depends only on the seed.
    """
    mean_residual = network.mean_residual(channels)
    features = network.features(channels, mean_residual)
    rate, std = network.rate(features), network.residual_std(features)
    first_layer = network.first_layer_features(features)
    shape = (rate.shape[-2], rate.shape[-1])
    grid = clock_grid(float(rate.median()), plan.evaluations)

    def noise(sample: int, step: int) -> Tensor:
        return network.noise(shape, [sample], step, seed)

    def clean(noisy: Tensor, neg_log_gamma: Tensor) -> Tensor:
        return network.clean(noisy, neg_log_gamma, first_layer)

    # See `FrameSampler.start`.
    first = clean(noise(0, 0), rate * grid[0]) if network.prediction.bounded else None
    drawn = []
    for sample in range(plan.samples):
        *_, last = SAMPLERS[SAMPLER](clean, rate, grid, partial(noise, sample), first)
        drawn.append(network.decode(last, initial_estimate, mean_residual, std))
    return torch.cat(drawn), network.centre(initial_estimate, mean_residual), rate


def score_network(network: CVDM, fields: Sequence[TrainingField], plan: Validation) -> Score:
    """The score of a network on held-out fields."""
    sums = np.zeros(6)
    for number, entry in enumerate(fields):
        channels, initial_estimate, truth, weights = cut_to_centre(entry, plan.largest_px, network)
        # A field has the same noise at each look: scores differ by the weights alone.
        samples, centre, _ = posterior_samples(network, channels, initial_estimate, plan, number)
        # Outside the frame of a phase, no truth is known.
        known = (weights > 0)[0, 0]
        images = (samples, centre, initial_estimate, truth)
        sums += sum_errors(*(image[..., known] for image in images))
    return pool_errors(sums, plan.samples)


def sum_errors(
    samples: Tensor, centre: Tensor, initial_estimate: Tensor, truth: Tensor
) -> np.ndarray:
    """Sums over the pixels of one field.

    They are the squared errors of mean, centre and initial estimate, the CRPS, the variance and the
    number of pixels.
    """
    centres = (samples.mean(dim=0, keepdim=True), centre, initial_estimate)
    errors = [float((image - truth).square().sum()) for image in centres]
    true, drawn = truth.double().flatten(), samples.double().flatten(1).T
    crps = crps_ensemble(true.cpu().numpy(), drawn.cpu().numpy(), estimator="fair")
    return np.array([*errors, float(np.sum(crps)), float(samples.var(dim=0).sum()), truth.numel()])


def pool_errors(sums: np.ndarray, samples: int) -> Score:
    """The score of all fields, from their sums."""
    *squares, crps, variance = (float(value) for value in sums[:5] / sums[5])
    # The mean of S samples is off by another 1 / S of their variance.
    ratio = sqrt((1 + 1 / samples) * variance / squares[0]) if squares[0] else 1.0
    rmse, centre, baseline = map(sqrt, squares)
    return Score(
        rmse=rmse, centre_rmse=centre, baseline_rmse=baseline, crps=crps, spread_ratio=ratio
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleNow:
    """The schedule on the patches that were just learned from.

    The rates are lambda of the pixels at 5, 50 and 95 %, each with gamma(t) = exp(-lambda T(t)).
    """

    rates: tuple[float, float, float]
    clock: ClockCurve = field(repr=False)


@torch.no_grad()
def schedule_now(rate: Tensor, clock: nn.Module) -> ScheduleNow:
    """Where a schedule is, from the rates of some pixels."""
    shares = torch.tensor(RATE_QUANTILES, device=rate.device)
    low, middle, high = torch.quantile(rate.float().flatten(), shares).tolist()
    return ScheduleNow(rates=(low, middle, high), clock=clock_curve(clock, CLOCK_POINTS))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preview:
    """A held-out field as the network sees it now, in network units.

    Parameters
    ----------
    measured : ndarray of shape (Y, X), float32
        First channel of the condition.
    initial_estimate, truth, mean, spread, rate : ndarray of shape (uY, uX), float32
        Physical estimate, truth, mean and standard deviation of the posterior samples, lambda(x).
    clock : ClockCurve
        With `rate` it gives gamma and beta at any time.
    pixel_um : float, optional
        Pixel size of `measured`, where it is known.
    """

    measured: np.ndarray = field(repr=False)
    initial_estimate: np.ndarray = field(repr=False)
    truth: np.ndarray = field(repr=False)
    mean: np.ndarray = field(repr=False)
    spread: np.ndarray = field(repr=False)
    rate: np.ndarray = field(repr=False)
    clock: ClockCurve = field(repr=False)
    pixel_um: float | None = None


@torch.inference_mode()
def make_preview(network: CVDM, entry: TrainingField, plan: Validation) -> Preview:
    """Reconstruct the middle of a field, with the samples and evaluations of a look."""
    channels, initial_estimate, truth, _ = cut_to_centre(entry, plan.largest_px, network)
    samples, _, rate = posterior_samples(network, channels, initial_estimate, plan, seed=0)
    images = {
        "initial_estimate": initial_estimate[0],
        "truth": truth[0],
        "mean": samples.mean(dim=0),
        "spread": samples.std(dim=0),
        "rate": rate[0],
    }
    return Preview(
        measured=channels[0, 0].cpu().numpy(),
        clock=clock_curve(network.clock, CLOCK_POINTS),
        pixel_um=entry.pixel_um,
        **{name: image[0].float().cpu().numpy() for name, image in images.items()},
    )
