"""A recipe: everything that makes a model, in one TOML file."""

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

import tomli_w

from napari_cvdm.core.request import RequestError
from napari_cvdm.io.atomic import write_file
from napari_cvdm.io.errors import one_line
from napari_cvdm.io.limits import check_depth, read_bounded
from napari_cvdm.models.checkpoint import read_card
from napari_cvdm.models.cvdm import CVDMConfig
from napari_cvdm.models.networks import DFCANConfig, UNetConfig
from napari_cvdm.models.registry import model_folder
from napari_cvdm.simulate.ranges import RANGES, Ranges
from napari_cvdm.tasks import TASKS, find_task
from napari_cvdm.training.pairs import Arrays, BioSR, Folders, MeasuredPairs
from napari_cvdm.training.sources import (
    CleanImages,
    SolvedFields,
    Split,
    split_measured,
    split_simulation,
    split_solved,
)
from napari_cvdm.training.validation import Validation

PARTS = ("all", "denoiser", "schedule")
SMALLEST = {
    "patch_px": 8,
    **dict.fromkeys(("diffusion_steps", "batch", "pool_fields", "accumulate"), 1),
    **dict.fromkeys(("log_every", "save_every"), 1),
    **dict.fromkeys(("mean_steps", "learning_rate", "ema_decay", "fields_per_step"), 0),
    **dict.fromkeys(("fields", "foreground", "blank", "alpha"), 0),
}
"""Of the numbers of a plan."""

PAIRS: dict[str, type[MeasuredPairs]] = {"folders": Folders, "biosr": BioSR, "arrays": Arrays}
LARGEST_RECIPE = 100_000  # bytes
MOST_DOTS = 200  # in a line: tomllib takes the square of the parts of a dotted key
PATHS = ("measured", "truth", "folder", "photographs", "x", "y")
FINGERPRINT = (
    *("task", "seed", "network", "simulation", "clean", "solved", "pairs"),
    *("plan", "validation", "start"),
)
SECTIONS = ("start", "simulation", "clean", "solved", "plan", "validation")
OF_THE_TASK = ("condition_channels", "upsampling")  # of the network: the task says them


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
        Peak of the one-cycle schedule: a short warm-up, then a cosine to zero, in each of the two
        stages.
    ema_decay : float
        Of the averaged weights that are kept.
    pool_fields : int
        Simulated fields held at a time; patches are cut from them.
    fields_per_step : float
        Fields that a step replaces by new ones.
    fields : int
        Different fields of a simulation, learned from again and again; 0 for new ones without end.
    foreground, blank : float
        Shares of the patches that are cut where there is signal, and from empty fields. A
        simulation makes its own empty fields.
    alpha : float
        Weight of L_gamma (1e-3 in the paper).
    joint : bool
        True trains denoiser and schedule with one loss, as published. False trains the denoiser
        with its own squared error.
    precision : {"fp32", "bf16"}
        Of the convolutions during training. bf16 halves the time of a step where the processor
        supports it.
    accumulate : int
        Number of equal parts in which a batch is evaluated, one after the other, where memory is
        short. The gradients are the same.
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
    fields: int = 0
    foreground: float = 0.0
    blank: float = 0.0
    alpha: float = 1e-3
    joint: bool = False
    precision: str = "fp32"
    accumulate: int = 1
    log_every: int = 50
    save_every: int = 500

    def __post_init__(self) -> None:
        for name, low in SMALLEST.items():
            value = getattr(self, name)
            # True is an int, too.
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not isfinite(value) or value < low:
                raise RequestError(
                    f"[plan] {name} is {value!r}; a number of at least {low:g} is needed."
                )
        if not self.learning_rate > 0 or not self.ema_decay < 1:
            raise RequestError(
                f"[plan] learning_rate is {self.learning_rate} and ema_decay {self.ema_decay}; "
                "above 0 and below 1 are needed, such as 1e-3 and 0.999."
            )
        if self.foreground > 1 or self.blank > 1:
            raise RequestError(
                f"[plan] foreground is {self.foreground} and blank {self.blank}; shares from 0 to "
                "1 are needed."
            )
        if self.precision not in ("fp32", "bf16"):
            raise RequestError(
                f"[plan] precision is {self.precision!r}; allowed are fp32 and bf16."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialModel:
    """The model that a fine-tuning begins with: a shipped name, or the folder of a checkpoint.

    `part` is what is trained, one of `PARTS`. All but "all" leave the regression mean as it is.
    """

    model: str
    part: str = "all"

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise RequestError(f"[start] part is {self.part!r}; allowed are {', '.join(PARTS)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One model to be made.

    Parameters
    ----------
    name, title, task, resolution, licence : str
        For the card; `task` is a name of `napari_cvdm.tasks.TASKS`.
    seed : int
        Chooses initial weights, data and noise.
    simulation : PhaseRanges or WidefieldRanges, optional
        The microscope; None where pairs were measured.
    clean : CleanImages, optional
        What the simulated microscope looks at, in place of simulated objects.
    solved : SolvedFields, optional
        Fields of the simulation that were inverted before; each is made when it is needed, if None.
    pairs : Folders, BioSR or Arrays, optional
        Measured pairs.
    start : InitialModel, optional
        The network is then that of the model.
    limits : tuple of str
        For the card.
    """

    name: str
    title: str
    task: str
    resolution: str
    network: CVDMConfig
    plan: Plan
    simulation: Ranges | None = None
    clean: CleanImages | None = None
    solved: SolvedFields | None = None
    pairs: MeasuredPairs | None = None
    validation: Validation = field(default_factory=Validation)
    start: InitialModel | None = None
    seed: int = 0
    licence: str = "BSD-3-Clause"
    limits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unit, side = self.network.alignment * self.network.condition_fold, self.plan.patch_px
        smallest = side if self.simulation is None else self.simulation.smallest_px
        if side % unit or side > smallest:
            raise RequestError(
                f"[plan] patch_px is {side}; a multiple of {unit} is needed that the smallest "
                f"simulated field ({smallest} px) holds."
            )

    def split(self) -> Split:
        """Fields to learn from and fields that are held out.

        Raises
        ------
        RequestError, ImageFileError
            There are too few fields, or their files cannot be read.
        """
        looked = self.validation
        if self.pairs is not None:
            entries, register = self.pairs.entries(self.task), self.pairs.register
            return split_measured(entries, self.task, self.seed, looked.share, register=register)
        if self.simulation is None:
            raise RequestError(
                "the recipe names neither pairs nor a simulation; recipes/smoke.toml is an example."
            )
        # Without looks, every field may be learned from.
        held_out = looked.fields if looked.every else 0
        if self.solved is not None:
            return split_solved(self.solved, self.simulation, self.seed, held_out)
        return split_simulation(
            self.simulation,
            self.seed,
            held_out,
            clean=self.clean,
            share=looked.share,
            fields=self.plan.fields or None,
        )

    @property
    def data(self) -> str:
        """What is learned from, in words."""
        if self.pairs is not None:
            return self.pairs.description
        if self.solved is not None:
            return "simulated, and inverted before the training"
        if self.clean is not None:
            return f"images of {self.clean.folder}, degraded on the fly"
        return "simulated on the fly"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the weights."""
        values = asdict(self)
        kept = {name: values[name] for name in FINGERPRINT}
        # Two kinds of pairs may have the same entries.
        kept["kind"] = type(self.pairs).__name__
        # How often something is written decides no weight.
        for name in ("log_every", "save_every"):
            del kept["plan"][name]
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def read_recipe(path: str | Path) -> Recipe:
    """Read a TOML recipe.

    Parameters
    ----------
    path : path
        Sections ``[network]``, ``[simulation]``, ``[plan]`` beside the top-level entries of
        `Recipe`. Folders and files that it names are relative to its own folder.

    Raises
    ------
    RequestError
        The file is missing, not TOML, or names something unknown.
    """
    path = Path(path)
    try:
        text = read_bounded(path, LARGEST_RECIPE).decode("utf-8")
        if any(line.count(".") > MOST_DOTS for line in text.split("\n")):
            raise ValueError(f"a line of it has more than {MOST_DOTS} dots")
        values = tomllib.loads(text)
        check_depth(values)
    except (OSError, ValueError, RecursionError) as error:
        # What is no TOML and no UTF-8 is a ValueError.
        raise RequestError(
            f"the recipe {path} cannot be read ({one_line(error)}); recipes/smoke.toml is an "
            "example."
        ) from None
    try:
        task, folder = values.get("task"), path.parent
        if not isinstance(task, str) or find_task(task) is None:
            raise RequestError(f"task is {task!r}; allowed are {', '.join(TASKS)}.")
        start = None
        if "start" in values:
            start = _make(InitialModel, values.pop("start"), "start", folder)
        parts: dict[str, Any] = {
            "start": start,
            "network": _read_network(values, start, task, folder),
            "validation": _make(Validation, values.pop("validation", {}), "validation", folder),
            **_read_data(values, task, folder),
            "plan": _make(Plan, values.pop("plan", {}), "plan", folder),
        }
        recipe: Recipe = _make(Recipe, values, "top level", folder, **parts)
        return recipe
    except RequestError as error:  # the checks of the parts do not know the file
        raise RequestError(f"{path}: {error}") from None
    # What a wrong type makes happen in any of the dataclasses.
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise RequestError(
            f"{path}: {one_line(error)}; recipes/smoke.toml is an example."
        ) from None


def _make(kind: type, values: dict[str, Any], section: str, folder: Path, **parts: Any) -> Any:
    """A `kind` of the values of a section and further parts; RequestError for unknown values.

    Files and folders that a recipe names are beside it, unless their paths are absolute.
    """
    if not isinstance(values, dict):
        raise RequestError(
            f"{section} is {one_line(repr(values), 80)}; a section [{section}] is needed."
        )
    allowed = {entry.name for entry in fields(kind)}
    unknown = sorted(set(values) - allowed)
    if unknown:
        raise RequestError(
            f"[{section}] has {one_line(', '.join(unknown))}; allowed are "
            f"{', '.join(sorted(allowed))}."
        )
    found: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    for name in PATHS:
        if isinstance(found.get(name), str) and found[name]:
            found[name] = str(folder / found[name])
    return kind(**found, **parts)


def _read_network(
    values: dict[str, Any], start: InitialModel | None, task: str, folder: Path
) -> CVDMConfig:
    """The network of the recipe, or that of the model to start from."""
    if start is not None:
        if "network" in values:
            raise RequestError(
                f"[network] and [start] are both given; the network is that of {start.model}, so "
                "leave [network] out."
            )
        card = read_card(model_folder(start.model))
        if card.task != task:
            raise RequestError(
                f"[start] model {start.model} is for {card.task}, and the recipe for {task}; "
                "choose another model."
            )
        return card.config()
    section, parts = values.pop("network", {}), {}
    for part in ("denoiser", "mean", "residual_std"):
        if part in section:
            shape = section.pop(part)
            kind = DFCANConfig if "groups" in shape else UNetConfig
            parts[part] = _make(kind, shape, f"network.{part}", folder)
    parts |= {"condition_channels": len(TASKS[task].channels), "upsampling": TASKS[task].upsampling}
    config: CVDMConfig = _make(CVDMConfig, section, "network", folder, **parts)
    return config


def _read_data(values: dict[str, Any], task: str, folder: Path) -> dict[str, Any]:
    """The source of pairs: one section of measured pairs, or a simulation with optional images."""
    named = [name for name in (*PAIRS, "simulation") if name in values]
    if len(named) > 1 or ("clean" in values and set(named) & set(PAIRS)):
        raise RequestError(
            f"{' and '.join(f'[{name}]' for name in named)} are both given; one says where pairs "
            "come from."
        )
    if named and named[0] in PAIRS:
        return {"pairs": _make(PAIRS[named[0]], values.pop(named[0]), named[0], folder)}
    kind, section = RANGES[task], values.pop("simulation", {})
    drawn = {entry.name for entry in fields(kind) if isinstance(entry.default, tuple)}
    for name, value in section.items():
        if name in drawn and isinstance(value, float):
            section[name] = [value, value]  # a number that is known is a range of no width
    found = {"simulation": _make(kind, section, "simulation", folder)}
    for name, other in (("clean", CleanImages), ("solved", SolvedFields)):
        if name in values:
            found[name] = _make(other, values.pop(name), name, folder)
    return found


def write_recipe(recipe: Recipe, path: str | Path) -> Path:
    """Write a complete recipe, of which `read_recipe` makes the same one; its folder is made.

    Defaults are written too, so that later versions keep them. Paths inside the folder are written
    relative to it, so that both can be moved together.
    """
    path = Path(path)
    values = _without_none(asdict(recipe))
    network, pairs = values.pop("network"), values.pop("pairs", None)
    sections: dict[str, Any] = {name: values.pop(name) for name in SECTIONS if name in values}
    if recipe.start is None:
        sections["network"] = {
            name: value for name, value in network.items() if name not in OF_THE_TASK
        }
    if recipe.pairs is not None:
        sections[next(name for name, kind in PAIRS.items() if type(recipe.pairs) is kind)] = pairs
    for section in sections.values():
        _write_paths(section, path.parent.absolute())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, tomli_w.dumps({**values, **sections}).encode())
    return path


def _write_paths(values: dict[str, Any], folder: Path) -> None:
    """Files and folders inside the folder by their way from there, others by their whole path."""
    for name in PATHS:
        if values.get(name):
            whole = Path(values[name]).absolute()
            beside = whole.relative_to(folder) if whole.is_relative_to(folder) else whole
            values[name] = beside.as_posix()


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    """TOML has no word for nothing: what is None is left out."""
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }
