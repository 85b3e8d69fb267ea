"""A recipe: everything that makes a model, in one TOML file."""

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from napari_cvdm.model.checkpoint import read_card
from napari_cvdm.model.cvdm import CVDMConfig
from napari_cvdm.model.unet import UNetConfig
from napari_cvdm.model.zoo import model_folder
from napari_cvdm.request import RequestError
from napari_cvdm.simulate.phase import PhaseRanges
from napari_cvdm.simulate.widefield import WidefieldRanges
from napari_cvdm.tasks import TASKS
from napari_cvdm.training.plan import Plan, Start
from napari_cvdm.training.validation import Validation

RANGES: dict[str, type[PhaseRanges] | type[WidefieldRanges]] = {"phase-2shot": PhaseRanges, "widefield-x2": WidefieldRanges}


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
    validation : Validation
    start : Start, optional
        The network is then that of the model.
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
    validation: Validation = field(default_factory=Validation)
    start: Start | None = None
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
        kept = {name: values[name] for name in ("task", "seed", "network", "simulation", "plan", "validation", "start")}
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


def _network_of(start: Start, task: str, values: dict[str, Any], path: Path) -> CVDMConfig:
    """The network of the model to start from."""
    if "network" in values:
        raise RequestError(f"{path}: [network] and [start] are both given; the network is that of {start.model}, so leave [network] out.")
    card = read_card(model_folder(start.model))
    if card.task != task:
        raise RequestError(f"{path}: [start] model {start.model} is for {card.task}, and the recipe for {task}; choose another model.")
    return card.config()


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
        start = Start(**_known(Start, values.pop("start"), "start", path)) if "start" in values else None
        network = _network(values.pop("network", {}), task, path) if start is None else _network_of(start, task, values, path)
        validation = Validation(**_known(Validation, values.pop("validation", {}), "validation", path))
        simulation = RANGES[task](**_known(RANGES[task], values.pop("simulation", {}), "simulation", path))
        plan = Plan(**_known(Plan, values.pop("plan", {}), "plan", path))
        parts: dict[str, Any] = {"network": network, "simulation": simulation, "plan": plan, "validation": validation, "start": start}
        return Recipe(**_known(Recipe, values, "top level", path), **parts)
    except RequestError as error:
        raise RequestError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise RequestError(f"{path}: {error}; recipes/smoke.toml is an example.") from None
