"""What a trained model is worth, and what its schedule looks like, on held-out fields."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.stats import spearmanr

from napari_cvdm.analysis.schedule_maps import pixel_curves
from napari_cvdm.diffusion.loss import gamma_second_derivative
from napari_cvdm.evaluation.metrics import coverage
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.training.health import schedule_findings, spread_findings
from napari_cvdm.training.pool import TrainingField
from napari_cvdm.training.validation import Preview, Score, Validation, make_preview, score_network
from paper.reviewer.measures import false_structure_area

RATE_PERCENTILES = (5.0, 50.0, 95.0)
CURVE_POINTS = 400
INTERVAL = 0.9
FALSE_STRUCTURE = 0.1  # of the brightest signal, which is one network unit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measures:
    """One model on the held-out fields.

    Parameters
    ----------
    score : Score
        Lengths in network units.
    half_time : float
        t at which gamma of the median pixel is 1/2.
    bend : float
        Root mean square over t of d2 gamma/dt2 at the median pixel; 0 for gamma = 1 - t.
    last_gamma : float
        The largest gamma(1, x).
    contrast : float
        Standard deviation of lambda(x) over its mean.
    with_error, with_spread : float
        Spearman's correlation of lambda(x) with the absolute error of the posterior mean, and with
        the spread: inside each field, then averaged over fields. NaN where the rate is the same
        everywhere.
    coverage : float
        Share of the pixels within the 90 % interval of so many samples of a normal distribution:
        0.9 of an honest spread.
    false_area : float
        Share of the empty pixels that stand out by more than a tenth of the brightest signal,
        averaged over fields; 0 where none is empty.
    lights : tuple of str
        Failures of the method that the loop would name.
    times, gammas : ndarray of shape (K,), (3, K)
        gamma(t) of the pixels at the 5, 50 and 95 % of lambda.
    """

    score: Score
    half_time: float
    bend: float
    last_gamma: float
    contrast: float
    with_error: float
    with_spread: float
    coverage: float
    false_area: float
    lights: tuple[str, ...]
    times: np.ndarray = field(repr=False)
    gammas: np.ndarray = field(repr=False)


def measured(network: CVDM, fields: Sequence[TrainingField], plan: Validation) -> Measures:
    """Score a model and describe its schedule.

    Parameters
    ----------
    network : CVDM
    fields : sequence of TrainingField
        Held out.
    plan : Validation
        Samples and evaluations.
    """
    score, views = (
        score_network(network, fields, plan),
        [make_preview(network, entry, plan) for entry in fields],
    )
    rate = np.concatenate([view.rate.ravel() for view in views])
    config = network.config
    learned = schedule_findings(
        torch.from_numpy(rate),
        network.clock.cpu(),
        pixel_wise=config.schedule == "pixel-wise",
        share_done=1.0,
    )
    findings = learned if config.learned_schedule else ()
    times, value, speed, acceleration = _clock(network)
    median = float(np.median(rate))
    clock = views[0].clock
    return Measures(
        score=score,
        half_time=float(np.interp(np.log(2) / median, value, times)),
        bend=float(
            gamma_second_derivative(
                *(torch.as_tensor(part) for part in (median, value, speed, acceleration))
            )
            .square()
            .mean()
            .sqrt()
        ),
        last_gamma=float(np.exp(-rate.min())),
        contrast=float(rate.std() / rate.mean()),
        with_error=correlation(views, lambda view: np.abs(view.mean - view.truth)),
        with_spread=correlation(views, lambda view: view.spread),
        coverage=float(
            np.mean(
                [
                    coverage(
                        (view.mean - view.truth).ravel(),
                        view.spread.ravel(),
                        plan.samples,
                        INTERVAL,
                    )
                    for view in views
                ]
            )
        ),
        false_area=float(
            np.mean(
                [false_structure_area(view.mean, view.truth, FALSE_STRUCTURE) for view in views]
            )
        ),
        lights=tuple(finding.name for finding in (*findings, *spread_findings(score))),
        times=np.array(clock.times),
        gammas=np.stack(
            [
                pixel_curves(float(level), clock).gamma
                for level in np.percentile(rate, RATE_PERCENTILES)
            ]
        ),
    )


def _clock(network: CVDM) -> tuple[np.ndarray, ...]:
    times = torch.arange(1, CURVE_POINTS + 1) / CURVE_POINTS
    with torch.no_grad():
        return tuple(part.numpy() for part in (times, *network.clock(times)))


def correlation(views: Sequence[Preview], other: Callable[[Preview], np.ndarray]) -> float:
    """Mean over fields of Spearman's correlation of lambda(x) with another image.

    NaN where a rate is the same everywhere.
    """
    if any(np.ptp(view.rate) == 0 for view in views):
        return float("nan")
    return float(
        np.mean([spearmanr(view.rate.ravel(), other(view).ravel()).statistic for view in views])
    )
