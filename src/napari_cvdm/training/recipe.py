"""A recipe: everything that makes a model, in one TOML file."""

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from napari_cvdm.core.request import RequestError
from napari_cvdm.io.errors import one_line
from napari_cvdm.io.limits import check_depth, read_bounded
from napari_cvdm.models.checkpoint import read_card
from napari_cvdm.models.cvdm import CVDMConfig
from napari_cvdm.models.dfcan import DFCANConfig
from napari_cvdm.models.registry import model_folder
from napari_cvdm.models.unet import UNetConfig
from napari_cvdm.simulate.ranges import RANGES, PhaseRanges, WidefieldRanges
from napari_cvdm.tasks import TASKS
from napari_cvdm.training.pair_files import Arrays, BioSR, Folders
from napari_cvdm.training.plan import InitialModel, Plan
from napari_cvdm.training.sources import (
    CleanImages,
    SolvedFields,
    Split,
    split_measured,
    split_simulation,
    split_solved,
)
from napari_cvdm.training.validation import Validation

MeasuredPairs = Folders | BioSR | Arrays
PAIRS: dict[str, type[Folders] | type[BioSR] | type[Arrays]] = {
    "folders": Folders,
    "biosr": BioSR,
    "arrays": Arrays,
}
LARGEST_RECIPE = 1_000_000
PATHS = ("measured", "truth", "folder", "photographs", "x", "y")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One model to be made.

    Parameters
    ----------
    name, title, task, resolution, licence : str
        For the card; `task` is a name of `napari_cvdm.tasks.TASKS`.
    seed : int
        Chooses initial weights, data and noise.
    network : CVDMConfig
    simulation : PhaseRanges or WidefieldRanges, optional
        The microscope; None where pairs were measured.
    clean : CleanImages, optional
        What the simulated microscope looks at, in place of simulated objects.
    solved : SolvedFields, optional
        Fields of the simulation that were inverted before; each is made when it is needed, if None.
    pairs : Folders, BioSR or Arrays, optional
        Measured pairs.
    plan : Plan
    validation : Validation
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
    simulation: PhaseRanges | WidefieldRanges | None = None
    clean: CleanImages | None = None
    solved: SolvedFields | None = None
    pairs: MeasuredPairs | None = None
    validation: Validation = field(default_factory=Validation)
    start: InitialModel | None = None
    seed: int = 0
    licence: str = "BSD-3-Clause"
    limits: tuple[str, ...] = field(default=())

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
            return split_measured(
                self.pairs.entries(self.task),
                self.task,
                self.seed,
                looked.share,
                register=self.pairs.register,
            )
        if self.simulation is None:
            raise RequestError(
                "the recipe names neither pairs nor a simulation; recipes/smoke.toml is an example."
            )
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
        return (
            "simulated on the fly"
            if self.clean is None
            else f"images of {self.clean.folder}, degraded on the fly"
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the weights."""
        values = asdict(self)
        kept = {
            name: values[name]
            for name in (
                "task",
                "seed",
                "network",
                "simulation",
                "clean",
                "solved",
                "pairs",
                "plan",
                "validation",
                "start",
            )
        }
        kept["kind"] = type(self.pairs).__name__
        kept["plan"] = {
            name: value
            for name, value in kept["plan"].items()
            if name not in ("log_every", "save_every")
        }
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _known(kind: type, values: dict[str, Any], section: str, path: Path) -> dict[str, Any]:
    allowed = {entry.name for entry in fields(kind)}
    unknown = sorted(set(values) - allowed)
    if unknown:
        raise RequestError(
            f"{path}: [{section}] has {', '.join(unknown)}; allowed are "
            f"{', '.join(sorted(allowed))}."
        )
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }


def _shape(values: dict[str, Any], section: str, path: Path) -> UNetConfig | DFCANConfig:
    kind = DFCANConfig if "groups" in values else UNetConfig
    return kind(**_known(kind, values, section, path))


def _network(values: dict[str, Any], task: str, path: Path) -> CVDMConfig:
    parts: dict[str, Any] = {
        part: _shape(values.pop(part), f"network.{part}", path)
        for part in ("denoiser", "mean", "residual_std")
        if part in values
    }
    job = TASKS[task]
    known: dict[str, Any] = {**_known(CVDMConfig, values, "network", path), **parts}
    return CVDMConfig(**known, condition_channels=len(job.channels), upsampling=job.upsampling)


def _network_of(start: InitialModel, task: str, values: dict[str, Any], path: Path) -> CVDMConfig:
    """The network of the model to start from."""
    if "network" in values:
        raise RequestError(
            f"{path}: [network] and [start] are both given; the network is that of {start.model}, "
            "so leave [network] out."
        )
    card = read_card(model_folder(start.model))
    if card.task != task:
        raise RequestError(
            f"{path}: [start] model {start.model} is for {card.task}, and the recipe for {task}; "
            "choose another model."
        )
    return card.config()


def _data(task: str, values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The source of pairs: one section of measured pairs, or a simulation with optional images."""
    named = [name for name in (*PAIRS, "simulation") if name in values]
    if len(named) > 1 or ("clean" in values and set(named) & set(PAIRS)):
        raise RequestError(
            f"{path}: {' and '.join(f'[{name}]' for name in named)} are both given; one says where "
            "pairs come from."
        )
    if named and named[0] in PAIRS:
        kind = PAIRS[named[0]]
        return {"pairs": kind(**_found(_known(kind, values.pop(named[0]), named[0], path), path))}
    drawn = {entry.name for entry in fields(RANGES[task]) if isinstance(entry.default, tuple)}
    ranges = _found(
        {
            name: _range(value) if name in drawn else value
            for name, value in values.pop("simulation", {}).items()
        },
        path,
    )
    clean = (
        CleanImages(**_found(_known(CleanImages, values.pop("clean"), "clean", path), path))
        if "clean" in values
        else None
    )
    solved = (
        SolvedFields(**_found(_known(SolvedFields, values.pop("solved"), "solved", path), path))
        if "solved" in values
        else None
    )
    return {
        "simulation": RANGES[task](**_known(RANGES[task], ranges, "simulation", path)),
        "clean": clean,
        "solved": solved,
    }


def _found(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """Files and folders that a recipe names are beside it, unless their paths are absolute."""
    return {
        name: str(path.parent / value)
        if name in PATHS and isinstance(value, str) and value
        else value
        for name, value in values.items()
    }


def _range(value: Any) -> Any:
    """A number that is known is a range of no width; the side of a field is a number."""
    return [value, value] if isinstance(value, float) else value


def read_recipe(path: str | Path) -> Recipe:
    """Read a TOML recipe.

    Parameters
    ----------
    path : path
        Sections ``[network]``, ``[simulation]``, ``[plan]`` beside the top-level entries of
        `Recipe`. Folders and files that it names are relative to its own folder.

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
        values = tomllib.loads(read_bounded(path, LARGEST_RECIPE).decode("utf-8"))
        check_depth(values)
    except (
        OSError,
        ValueError,
        RecursionError,
    ) as error:  # what is no TOML and no UTF-8 is a ValueError
        raise RequestError(
            f"the recipe {path} cannot be read ({one_line(error)}); recipes/smoke.toml is an "
            "example."
        ) from None
    try:
        task = values.get("task")
        if task not in TASKS:
            raise RequestError(f"{path}: task is {task!r}; allowed are {', '.join(TASKS)}.")
        start = (
            InitialModel(**_known(InitialModel, values.pop("start"), "start", path))
            if "start" in values
            else None
        )
        network = (
            _network(values.pop("network", {}), task, path)
            if start is None
            else _network_of(start, task, values, path)
        )
        validation = Validation(
            **_known(Validation, values.pop("validation", {}), "validation", path)
        )
        data = _data(task, values, path)
        plan = Plan(**_known(Plan, values.pop("plan", {}), "plan", path))
        parts: dict[str, Any] = {
            "network": network,
            "plan": plan,
            "validation": validation,
            "start": start,
            **data,
        }
        return Recipe(**_known(Recipe, values, "top level", path), **parts)
    except RequestError as error:
        raise RequestError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise RequestError(
            f"{path}: {one_line(error)}; recipes/smoke.toml is an example."
        ) from None
