"""The card of a model that a recipe made."""

import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from napari_cvdm.models.checkpoint import ModelCard, config_values
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.models.schedule import Clock
from napari_cvdm.tasks import FLUORESCENCE, TASKS
from napari_cvdm.training.recipe import Recipe

SIGNAL = "(counts - dark level) / robust brightest signal, at least 12 noise deviations"
RANGED_OPTICS = ("pixel_um", "wavelength_um", "medium_index", "na", "fresnel", "cutoff_px")
INTENSITIES = {"phase-2shot": "I / I_background - 1", **dict.fromkeys(FLUORESCENCE, SIGNAL)}


def make_card(recipe: Recipe, network: CVDM, recipe_path: str) -> ModelCard:
    """The card of a model made by a recipe; metrics are added by `paper/`."""
    task = TASKS[recipe.task]
    simulation = {} if recipe.simulation is None else asdict(recipe.simulation)
    known = simulation if recipe.pairs is None else asdict(recipe.pairs)
    optics: dict[str, tuple[float, float]] = {}
    for name in RANGED_OPTICS:
        if (value := known.get(name)) is not None:
            low, high = value if isinstance(value, tuple) else (value, value)
            # A number that is known is a range of no width.
            optics[name] = (low, high)
    return ModelCard(
        name=recipe.name,
        title=recipe.title,
        task=task.name,
        network=config_values(recipe.network),
        channels=task.channels,
        inputs=task.inputs,
        unit=task.unit,
        optics=optics,
        intensity=INTENSITIES[task.name],
        resolution=recipe.resolution,
        licence=recipe.licence,
        schedule=_schedule_entry(network),
        training={
            # Only its name: the card travels with the model to other machines.
            "recipe": Path(recipe_path).name,
            "data": recipe.data,
            "simulation": simulation,
            "start": None if recipe.start is None else asdict(recipe.start),
            "plan": asdict(recipe.plan),
            "seed": recipe.seed,
            "commit": _commit(),
            "date": datetime.now(UTC).date().isoformat(),
            "torch": torch.__version__,
        },
        limits=recipe.limits,
    )


def _schedule_entry(network: CVDM) -> dict[str, Any]:
    """What there is to say of a schedule."""
    if not network.config.diffused:
        return {"kind": "none"}
    found = {"residual_scale": float(network.residual_scale), "kind": network.config.schedule}
    if not isinstance(network.clock, Clock):
        return found
    mix = torch.softmax(network.clock.weights.detach().cpu(), 0)
    return {"clock_weights": [round(float(value), 4) for value in mix], **found}


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        )
    # An installed package has no repository, and a machine may have no git.
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
