"""A recipe: everything that makes a model, in one TOML file."""

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

from napari_cvdm.model.cvdm import CVDMConfig
from napari_cvdm.model.unet import UNetConfig
from napari_cvdm.request import RequestError
from napari_cvdm.simulate.phase import PhaseRanges
from napari_cvdm.simulate.widefield import WidefieldRanges
from napari_cvdm.tasks import TASKS

SMALLEST = {
    "mean_steps": 0,
    "diffusion_steps": 1,
    "batch": 1,
    "patch_px": 8,
    "learning_rate": 0.0,
    "ema_decay": 0.0,
    "pool_fields": 1,
    "fields_per_step": 0.0,
    "alpha": 0.0,
    "log_every": 1,
    "save_every": 1,
}
RANGES: dict[str, type[PhaseRanges] | type[WidefieldRanges]] = {"phase-2shot": PhaseRanges, "widefield-x2": WidefieldRanges}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how fast to train.

    Parameters
    ----------
    mean_steps, diffusion_steps : int
        Optimiser steps of the regression mean, then of denoiser and schedule.
    batch, patch_px : int
        Patches in a batch; their side on the input grid, a multiple of the network's alignment.
    learning_rate : float
        Peak of the one-cycle schedule: a short warm-up, then a cosine to zero, in each of the two stages.
    ema_decay : float
        Of the averaged weights that are kept.
    pool_fields : int
        Simulated fields held at a time; patches are cut from them.
    fields_per_step : float
        Fields that a step replaces by new ones.
    alpha : float
        Weight of L_gamma (1e-3 in the paper).
    joint : bool
        True gives one loss to denoiser and schedule, as published; False trains the denoiser with its own squared error.
    precision : {"fp32", "bf16"}
        Of the convolutions while training; bf16 halves the time of a step where the processor has it.
    log_every, save_every : int
        Steps between log lines and between checkpoints.
    """

    mean_steps: int
    diffusion_steps: int
    batch: int = 6
    patch_px: int = 128
    learning_rate: float = 1e-3
    ema_decay: float = 0.999
    pool_fields: int = 48
    fields_per_step: float = 0.5
    alpha: float = 1e-3
    joint: bool = False
    precision: str = "fp32"
    log_every: int = 50
    save_every: int = 500

    def __post_init__(self) -> None:
        for name, low in SMALLEST.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value) or value < low:
                raise RequestError(f"[plan] {name} is {value!r}; a number of at least {low:g} is needed.")
        if not self.learning_rate > 0 or not self.ema_decay < 1:
            raise RequestError(
                f"[plan] learning_rate is {self.learning_rate} and ema_decay {self.ema_decay}; above 0 and below 1 are needed, such as 1e-3 and 0.999."
            )
        if self.precision not in ("fp32", "bf16"):
            raise RequestError(f"[plan] precision is {self.precision!r}; allowed are fp32 and bf16.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One model to be made.

    Parameters
    ----------
    name, title, task, resolution, licence : str
        For the card; `task` is phase-2shot or widefield-x2.
    seed : int
        Chooses initial weights, data and noise.
    network : CVDMConfig
    simulation : PhaseRanges or WidefieldRanges
    plan : Plan
    limits : tuple of str
        For the card.
    """

    name: str
    title: str
    task: str
    resolution: str
    network: CVDMConfig
    simulation: PhaseRanges | WidefieldRanges
    plan: Plan
    seed: int = 0
    licence: str = "BSD-3-Clause"
    limits: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        smallest = self.simulation.field_px[0] if isinstance(self.simulation, PhaseRanges) else self.simulation.field_px
        unit, side = self.network.alignment * self.network.condition_fold, self.plan.patch_px
        if side % unit or side > smallest:
            raise RequestError(f"[plan] patch_px is {side}; a multiple of {unit} is needed that the smallest simulated field ({smallest} px) holds.")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the weights."""
        values = asdict(self)
        kept = {name: values[name] for name in ("task", "seed", "network", "simulation", "plan")}
        kept["plan"] = {name: value for name, value in kept["plan"].items() if name not in ("log_every", "save_every")}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _known(kind: type, values: dict[str, Any], section: str, path: Path) -> dict[str, Any]:
    allowed = {entry.name for entry in fields(kind)}
    unknown = sorted(set(values) - allowed)
    if unknown:
        raise RequestError(f"{path}: [{section}] has {', '.join(unknown)}; allowed are {', '.join(sorted(allowed))}.")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _network(values: dict[str, Any], task: str, path: Path) -> CVDMConfig:
    parts: dict[str, Any] = {
        part: UNetConfig(**_known(UNetConfig, values.pop(part), f"network.{part}", path)) for part in ("denoiser", "mean") if part in values
    }
    job = TASKS[task]
    known: dict[str, Any] = {**_known(CVDMConfig, values, "network", path), **parts}
    return CVDMConfig(**known, condition_channels=len(job.channels), upsampling=job.upsampling)


def read_recipe(path: str | Path) -> Recipe:
    """Read a TOML recipe.

    Parameters
    ----------
    path : path
        Sections ``[network]``, ``[simulation]``, ``[plan]`` beside the top-level entries of `Recipe`.

    Returns
    -------
    Recipe

    Raises
    ------
    RequestError
        The file is missing, not TOML, or names something unknown.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"the recipe {path} cannot be read ({error}); recipes/smoke.toml is an example.") from None
    try:
        task = values.get("task")
        if task not in TASKS:
            raise RequestError(f"{path}: task is {task!r}; allowed are {', '.join(TASKS)}.")
        network = _network(values.pop("network", {}), task, path)
        simulation = RANGES[task](**_known(RANGES[task], values.pop("simulation", {}), "simulation", path))
        plan = Plan(**_known(Plan, values.pop("plan", {}), "plan", path))
        return Recipe(**_known(Recipe, values, "top level", path), network=network, simulation=simulation, plan=plan)
    except RequestError as error:
        raise RequestError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise RequestError(f"{path}: {error}; recipes/smoke.toml is an example.") from None
