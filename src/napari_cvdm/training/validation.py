"""How good a network is on fields that it never learns from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any

import numpy as np
import torch
from scoringrules import crps_ensemble
from torch import Tensor

from napari_cvdm.core.request import RequestError
from napari_cvdm.diffusion.sampler import SAMPLERS, clock_grid
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.training.fields import TrainingField

SAMPLER = "sde-2m"


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
        smallest = {
            "fields": 1,
            "every": 0,
            "samples": 2,
            "evaluations": 1,
            "patience": 0,
            "largest_px": 16,
        }
        for name, low in smallest.items():
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
    entry: TrainingField, largest: int, unit: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Channels, initial estimate, truth and weights of the middle of a field.

    Each has a shape like (1, C, Y, X), in multiples of `unit` input pixels.
    """
    height, width = entry.channels.shape[-2:]
    factor = entry.truth.shape[-1] // width
    sides = [min(size, largest) // unit * unit for size in (height, width)]
    corner = [(size - side) // 2 for size, side in zip((height, width), sides, strict=True)]

    def cut(image: Tensor, scale: int) -> Tensor:
        rows, columns = (
            slice(start * scale, (start + side) * scale)
            for start, side in zip(corner, sides, strict=True)
        )
        return image[..., rows, columns]

    baseline, truth, weights = (
        cut(image, factor)[None, None]
        for image in (entry.initial_estimate, entry.truth, entry.weights)
    )
    return cut(entry.channels, 1)[None], baseline, truth, weights


@torch.inference_mode()
def posterior_samples(
    network: CVDM, channels: Tensor, baseline: Tensor, plan: Validation, seed: int
) -> tuple[Tensor, Tensor]:
    """Samples of one field, (S, 1, uY, uX), and the image around which they scatter.

    Both are in network units. The noise depends only on the seed.
    """
    correction = network.mean_residual(channels)
    features = network.features(channels, correction)
    rate, entered, std = (
        network.rate(features),
        network.first_layer_features(features),
        network.residual_std(features),
    )
    shape, grid = (
        (rate.shape[-2], rate.shape[-1]),
        clock_grid(float(rate.median()), plan.evaluations),
    )

    def noise(sample: int, step: int) -> Tensor:
        return network.noise(shape, [sample], step, seed)

    # See `FrameSampler.start`.
    first = (
        network.clean(noise(0, 0), rate * grid[0], entered) if network.prediction.bounded else None
    )
    drawn = []
    for sample in range(plan.samples):
        *_, clean = SAMPLERS[SAMPLER](
            lambda noisy, exponent: network.clean(noisy, exponent, entered),
            rate,
            grid,
            partial(noise, sample),
            first,
        )
        drawn.append(network.decode(clean, baseline, correction, std))
    return torch.cat(drawn), network.target.centre(baseline, correction)


def scored(network: CVDM, fields: Sequence[TrainingField], plan: Validation) -> Score:
    """The score of a network.

    Parameters
    ----------
    network : CVDM
        In evaluation mode or not: no layer of it knows the difference.
    fields : sequence of TrainingField
        Held out.
    plan : Validation
    """
    device, unit = (
        network.residual_scale.device,
        network.config.alignment * network.config.condition_fold,
    )
    sums = np.zeros(6)
    for number, entry in enumerate(fields):
        channels, baseline, truth, weights = (
            image.to(device) for image in cut_to_centre(entry, plan.largest_px, unit)
        )
        samples, centre = posterior_samples(network, channels, baseline, plan, seed=number)
        known = (weights > 0)[0, 0]
        sums += summed(
            samples[..., known], centre[..., known], baseline[..., known], truth[..., known]
        )
    return pooled(sums, plan.samples)


def summed(samples: Tensor, centre: Tensor, baseline: Tensor, truth: Tensor) -> np.ndarray:
    """Sums over the pixels of one field.

    They are the squared errors of mean, centre and initial estimate, the CRPS, the variance and the
    number of pixels.
    """
    errors = [
        float((image - truth).square().sum())
        for image in (samples.mean(dim=0, keepdim=True), centre, baseline)
    ]
    crps = crps_ensemble(
        truth.double().cpu().numpy().ravel(),
        samples.double().flatten(1).T.cpu().numpy(),
        estimator="fair",
    )
    return np.array([*errors, float(np.sum(crps)), float(samples.var(dim=0).sum()), truth.numel()])


def pooled(sums: np.ndarray, samples: int) -> Score:
    """The score of all fields, from their sums."""
    error, around, start, crps, variance = (float(value) for value in sums[:5] / sums[5])
    ratio = sqrt((1 + 1 / samples) * variance / error) if error else 1.0
    return Score(
        rmse=sqrt(error),
        centre_rmse=sqrt(around),
        baseline_rmse=sqrt(start),
        crps=crps,
        spread_ratio=ratio,
    )
