"""How a training of this method goes wrong: each failure with a name, a threshold and an advice.

The thresholds are far from the values of the shipped models, so that each finding is
meaningful. For the shipped models, the median gamma is 1/2 at t = 0.25 to 0.31. The root mean
square of d2 gamma/dt2 is 2.0 to 2.4. The rate varies by 7 to 23 %. The spread is 0.3 to 0.5 of the
error.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_cvdm.diffusion.loss import gamma_second_derivative
from napari_cvdm.training.measured import PairError
from napari_cvdm.training.validation import Score

EARLIEST_HALF, LATEST_HALF = 0.1, 0.75  # t where the median gamma is 1/2; 0.5 for gamma = 1 - t
LARGEST_LAST_GAMMA = 2e-3
# Root mean square of d2 gamma/dt2; 0 for gamma = 1 - t, about 3.5 for the cosine schedule.
SHARPEST = 60.0
LEAST_CONTRAST = 1e-3  # standard deviation over mean of the rate
SETTLED = 0.25  # share of the steps after which a pixel-wise rate must have left its start
OVERFITTED = 1.03  # times the best score
COLLAPSED, SCATTERED = 0.2, 2.5  # spread over error
MANY_SKIPPED = 0.01  # of the steps
CURVE_POINTS = 400
SCHEDULE_FAILURES = {
    "degenerate schedule": "schedule uses all times",
    "prior not reached": "prior reached",
    "schedule too sharp": "schedule not too sharp",
    "schedule too smooth": "schedule not too smooth",
}
SPREAD_FAILURES = {
    "posterior collapse": "no posterior collapse",
    "posterior too wide": "posterior not too wide",
}
FAILURES = {
    **SCHEDULE_FAILURES,
    "exploding gradients": "gradients stable",
    "overfitting": "no overfitting",
    **SPREAD_FAILURES,
    "data wrong": "data in order",
}
"""Every name that a finding may have, and what is so where it was looked for and not found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about a training that its user should know.

    It is the name of a failure, the value that was found, the threshold where the failure begins,
    and one sentence or two of what it means and what to try.
    """

    name: str
    value: float
    threshold: float
    advice: str


@torch.no_grad()
def schedule_findings(
    rate: Tensor, clock: nn.Module, *, pixel_wise: bool, share_done: float
) -> tuple[Finding, ...]:
    """Whether the schedule degenerates, does not reach the prior, or is too sharp or too smooth.

    `rate` is lambda(x) of some field, of any shape; it is `pixel_wise`, if it may differ from pixel
    to pixel. The clock is t -> T, T', T''. `share_done` of the stage's steps is in [0, 1].
    """
    times = torch.linspace(1 / CURVE_POINTS, 1, CURVE_POINTS, device=rate.device)
    value, speed, acceleration = clock(times)
    median = rate.median()
    gamma = torch.exp(-median * value)
    half = float(times[int((gamma > 0.5).sum().clamp(max=CURVE_POINTS - 1))])
    last = float(torch.exp(-rate.min()))
    bend = float(gamma_second_derivative(median, value, speed, acceleration).square().mean().sqrt())
    contrast = float(rate.std() / rate.mean())
    early = "gamma falls at once: nearly all times are noise. Raise alpha (1e-3)."
    late = "gamma hardly falls before the end. Raise alpha (1e-3)."
    unreached = "gamma(1, x) is too large somewhere: samples cannot begin from noise."
    sharp = "gamma has a step in it: few times teach anything. Move alpha towards 1e-3."
    flat = (
        "The rate is the same at every pixel: it does not follow the structure. "
        "Lower alpha, or train for longer."
    )
    is_flat = pixel_wise and share_done >= SETTLED and contrast < LEAST_CONTRAST
    return _findings(
        (half < EARLIEST_HALF, "degenerate schedule", half, EARLIEST_HALF, early),
        (half > LATEST_HALF, "degenerate schedule", half, LATEST_HALF, late),
        (last > LARGEST_LAST_GAMMA, "prior not reached", last, LARGEST_LAST_GAMMA, unreached),
        (bend > SHARPEST, "schedule too sharp", bend, SHARPEST, sharp),
        (is_flat, "schedule too smooth", contrast, LEAST_CONTRAST, flat),
    )


def gradient_findings(skipped: int, done: int) -> tuple[Finding, ...]:
    """Whether too many steps had a gradient that could not be used."""
    share = skipped / max(1, done)
    advice = (
        "Gradients exploded or were NaN; these steps were skipped. "
        "Lower the learning rate, or use precision fp32."
    )
    return _findings((share > MANY_SKIPPED, "exploding gradients", share, MANY_SKIPPED, advice))


def overfitting_findings(score: float, best: float | None, best_step: int) -> tuple[Finding, ...]:
    """Whether held-out fields are reconstructed worse than they once were."""
    above = score / best if best else 1.0
    advice = (
        f"Held-out fields were best at step {best_step}, whose weights are kept. "
        "Stop here, or give more fields."
    )
    return _findings((above > OVERFITTED, "overfitting", above, OVERFITTED, advice))


def spread_findings(score: Score) -> tuple[Finding, ...]:
    """Whether the samples agree where they are wrong, or scatter where they are right."""
    ratio = score.spread_ratio
    narrow = (
        "The samples agree more than they are right: the spread says too little. "
        "Train the denoiser for longer."
    )
    wide = (
        "The samples scatter more than they err: the spread says too much. "
        "Train the denoiser for longer."
    )
    return _findings(
        (ratio < COLLAPSED, "posterior collapse", ratio, COLLAPSED, narrow),
        (ratio > SCATTERED, "posterior too wide", ratio, SCATTERED, wide),
    )


def _findings(*cases: tuple[bool, str, float, float, str]) -> tuple[Finding, ...]:
    """Those that are so: (so, name, value, threshold, advice)."""
    return tuple(
        Finding(name=name, value=value, threshold=threshold, advice=advice)
        for so, name, value, threshold, advice in cases
        if so
    )


def data_finding(error: PairError) -> Finding:
    """A pair that was refused: nothing is learned from it, and the training ends there."""
    return Finding(name="data wrong", value=1.0, threshold=0.0, advice=str(error))
