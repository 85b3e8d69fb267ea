"""Trainings that are over within seconds: denoising, whose fields need no deconvolution."""

from pathlib import Path

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
