"""Trainings that are over within seconds.

The recipe is of denoising, whose fields need no deconvolution. A dock simulates few small fields.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pytest import MonkeyPatch

from napari_cvdm.simulate import ranges, scenes
from napari_cvdm.training import session, validation
from napari_cvdm.training.fine_tuning import SOLVED_PLAN

FIELD_PX, PATCH_PX, PSF_PX = 48, 16, 31

RECIPE = """
name = "short"
title = "A tiny denoising model that only shows that training works"
task = "denoise"
resolution = "none worth stating"

[network]
target = "zero-mean"
denoiser = {{ widths = [8, 16], blocks = [1, 1], level_channels = 8 }}
mean = {{ widths = [8, 16], blocks = [1, 1], level_channels = 0 }}

[simulation]
field_px = 32

[plan]
mean_steps = {steps}
diffusion_steps = {steps}
learning_rate = 2e-3
ema_decay = 0.9
"""
PLAN = {
    "batch": 2,
    "patch_px": 16,
    "pool_fields": 2,
    "fields_per_step": 0.25,
    "log_every": 1,
    "save_every": 2,
}


def write_short_recipe(path: Path, steps: int, **changes: object) -> Path:
    """A recipe of so many steps in each of its two stages, with other entries in its plan."""
    plan = {**PLAN, **changes}
    lines = (f"{name} = {value}\n" for name, value in plan.items())
    path.write_text(RECIPE.format(steps=steps) + "".join(lines))
    return path


@contextmanager
def few_small_fields() -> Iterator[None]:
    """Simulate, deconvolve and score as little as shows that the training of a dock runs."""
    simulated = ranges.ranges_for

    def small_ranges(*given: Any, **named: Any) -> ranges.Ranges:
        found = simulated(*given, **named)
        side = (FIELD_PX, FIELD_PX) if isinstance(found, ranges.PhaseRanges) else FIELD_PX
        return replace(found, field_px=side)

    looks = partial(validation.Validation, samples=2, evaluations=2, largest_px=FIELD_PX)
    with MonkeyPatch.context() as patch:
        patch.setattr(ranges, "ranges_for", small_ranges)
        patch.setattr(validation, "Validation", looks)
        patch.setattr(scenes, "PSF_SIZE", PSF_PX)
        patch.setattr(session, "SCALE_BATCHES", 2)
        patch.setitem(SOLVED_PLAN, "pool_fields", 2)
        yield
