"""Checkpoints: a folder with ``model.safetensors`` and ``card.json``.

Nothing from a file is ever executed.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from napari_cvdm.io.atomic import write_file
from napari_cvdm.io.errors import ImageFileError, one_line
from napari_cvdm.io.folders import renew_manifest
from napari_cvdm.io.limits import parse_json_object, read_bounded
from napari_cvdm.models.cvdm import CVDM, CVDMConfig
from napari_cvdm.models.networks import DFCANConfig, UNetConfig
from napari_cvdm.models.schedule import DILATIONS

FORMAT = 1
MAPPINGS = ("network", "schedule", "training", "metrics", "calibration", "training_distribution")
WORDS = ("name", "title", "task", "inputs", "unit", "intensity", "resolution", "licence")
LISTS = ("channels", "limits")
LARGEST_CARD = 10_000_000
HEADER_BYTES = 10_000_000  # more than the names of all tensors take
LARGEST_NUMBER = 1e30
# Numbers of a calibration, and parts of a simulation that are ranges.
CALIBRATION = {
    "factor": (0.0, LARGEST_NUMBER),
    "floor": (0.0, LARGEST_NUMBER),
    "level": (1e-6, 1 - 1e-6),
    "samples": (2, 1_000_000),
    "steps": (1, 1_000_000),
    "fields": (1, LARGEST_NUMBER),
}
RANGES = ("strength_rad", "blur_periods")
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
WEIGHTS = "model.safetensors"
CARD = "card.json"
# What values of any kind raise where those of a card are expected.
FOREIGN = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, and why."""


def network_shape(values: Mapping[str, Any]) -> UNetConfig | DFCANConfig:
    """The shape that plain values describe; only DFCAN has groups."""
    if "groups" in values:
        return DFCANConfig(**values)
    return UNetConfig(
        widths=tuple(values["widths"]),
        blocks=tuple(values["blocks"]),
        level_channels=values["level_channels"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What a model is for, how it was made and where it stops.

    Parameters
    ----------
    name, title, task, licence : str
        `task` names the conditioning in `napari_cvdm.tasks`.
    network : mapping
        `CVDMConfig` as plain values.
    channels : tuple of str
        Meaning of each condition channel.
    inputs : str
        What the user gives, in words.
    unit : str
        Unit of the output.
    optics : mapping
        Trained range (low, high) by request name: pixel_um, wavelength_um, na, ...
    intensity : str
        How intensities are scaled, in words.
    resolution : str
        Resolution of the output, in words and nm.
    schedule : mapping
        Summary of the learned schedule.
    training : mapping
        Data, recipe, commit, steps, seed, date.
    metrics : mapping
        Measured figures with the command that prints them.
    calibration : mapping
        How the spread is scaled to an interval: factor, level, floor, samples, steps, sampler, set,
        fields, date. See `napari_cvdm.evaluation.calibration`. Empty if it was not fitted.
    training_distribution : mapping
        Statistics of the training fields, see `napari_cvdm.checks.out_of_distribution`. Empty if
        they were not computed.
    limits : tuple of str
        What the model must not be used for.
    format : int
        Version of this layout.
    """

    name: str
    title: str
    task: str
    network: Mapping[str, Any]
    channels: tuple[str, ...]
    inputs: str
    unit: str
    optics: Mapping[str, tuple[float, float]]
    intensity: str
    resolution: str
    licence: str
    schedule: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    training_distribution: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    format: int = FORMAT

    @property
    def noise_scale(self) -> float:
        """See `CVDMConfig`; 1 for what has no network."""
        return float(self.network.get("noise_scale", 1.0))

    def config(self) -> CVDMConfig:
        """The networks' shape."""
        values = dict(self.network)
        for part in ("denoiser", "mean"):
            values[part] = network_shape(values[part])
        if values.get("residual_std") is not None:
            values["residual_std"] = network_shape(values["residual_std"])
        # A card may name neither this nor a residual_std, which have defaults.
        values["rate_dilations"] = tuple(values.get("rate_dilations", DILATIONS))
        return CVDMConfig(**values)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A model that is ready to use.

    Parameters
    ----------
    network : CVDM
        In evaluation mode, float32, on the CPU.
    card : ModelCard
    sha256 : str
        Of the weights file.
    """

    network: CVDM = field(repr=False)
    card: ModelCard
    sha256: str


def card_of(values: Mapping[str, Any]) -> ModelCard:
    """A card from plain values, as JSON or YAML holds them.

    Raise ValueError, TypeError, KeyError, AttributeError or ArithmeticError where they are no valid
    card.
    """
    # Texts are shown wherever a model is chosen.
    said = {name: [values[name]] for name in WORDS} | {name: values[name] for name in LISTS}
    wrong = [
        name
        for name, texts in said.items()
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts)
    ]
    if wrong:
        raise ValueError(f"its {', '.join(wrong)} should be text")
    optics = {key: (float(low), float(high)) for key, (low, high) in values["optics"].items()}
    if not all(
        low <= high and math.isfinite(low) and math.isfinite(high) for low, high in optics.values()
    ):
        raise ValueError("its optics are no ranges from a low to a high number")
    mappings = {name: dict(values.get(name, {})) for name in MAPPINGS}
    _check_numbers(mappings)
    lists = {name: tuple(values[name]) for name in LISTS}
    return ModelCard(**{**values, **mappings, **lists, "optics": optics})


def _check_numbers(parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError, TypeError or KeyError if numbers that are computed with are no numbers."""
    fit, learned, made = (
        parts[name] for name in ("calibration", "training_distribution", "training")
    )
    simulated, plan = (dict(made.get(name) or {}) for name in ("simulation", "plan"))
    wrong = [
        *(name for name in CALIBRATION if fit and not _is_number(fit[name], *CALIBRATION[name])),
        *(name for name in RANGES if name in simulated and not _are_numbers(simulated[name], 2)),
        *(name for name, value in {**plan, **simulated}.items() if not _is_plain(value)),
    ]
    if learned:
        mean, rows = learned["mean"], learned["covariance"]
        if (
            not _is_number(learned["threshold"])
            or not _are_numbers(mean, len(mean))
            or len(rows) != len(mean)
            or not all(_are_numbers(row, len(mean)) for row in rows)
        ):
            wrong.append("training_distribution")
    if wrong:
        raise ValueError(f"its {', '.join(wrong)} should be numbers in their usual range")


def _is_number(value: Any, low: float = -LARGEST_NUMBER, high: float = LARGEST_NUMBER) -> bool:
    return isinstance(value, int | float) and low <= value <= high


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list | tuple) and len(values) == count and all(map(_is_number, values))
    )


def _is_plain(value: Any) -> bool:
    """Whether this is text, a finite number or a list of these."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str) or _is_number(value)


def read_card(folder: str | Path) -> ModelCard:
    """The card alone, without loading weights; CheckpointError where there is no readable one."""
    path = Path(folder) / CARD
    try:
        values = parse_json_object(read_bounded(path, LARGEST_CARD))
        if values.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} has format {values.get('format')!r:.40}; this version reads format "
                f"{FORMAT}. Update napari-cvdm or train the model again."
            )
        card = card_of(values)
        card.config()
    except CheckpointError:
        raise
    except FOREIGN as error:
        raise CheckpointError(
            f"{path} is not a model card ({one_line(error)}); a checkpoint is a folder with "
            f"{WEIGHTS} and {CARD}."
        ) from None
    return card


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder: ``model.safetensors`` (float16 or float32) and ``card.json``.

    CheckpointError where they are missing, corrupted or foreign.
    """
    card, weights = read_card(folder), Path(folder) / WEIGHTS
    try:
        wanted = _described_tensors(card.config())
        # Eight bytes a number, as of float64, which is refused in words of its own.
        most = HEADER_BYTES + sum(8 * shape.numel() for shape in wanted.values())
        content = read_bounded(weights, most)
        # load_file of safetensors 0.8.0 leaves two small objects behind for every tensor.
        tensors = load(content)
        _check_fit(wanted, tensors)
        network = CVDM(card.config())
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        # Of the bytes that were loaded: the file may have changed since.
        digest = hashlib.sha256(content).hexdigest()
    except (*FOREIGN, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{weights} cannot be loaded ({one_line(error)}); copy the model again, or choose one "
            "of `napari-cvdm models`."
        ) from None
    return Checkpoint(network=network.eval(), card=card, sha256=digest)


def _described_tensors(config: CVDMConfig) -> dict[str, torch.Size]:
    """Shapes of the tensors of a network, which takes no memory for them."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in CVDM(config).state_dict().items()}


def _check_fit(wanted: Mapping[str, torch.Size], tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the file has the tensors of the network that the card describes."""
    given = {name: tensor.shape for name, tensor in tensors.items()}
    wrong = sorted(
        name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name)
    )
    if wrong:
        raise ValueError(
            f"{len(wrong)} of its tensors are not those of the network in its card, {wrong[0]} "
            "first"
        )
    kinds = {str(tensor.dtype) for tensor in tensors.values() if tensor.dtype not in DTYPES}
    if kinds:
        raise ValueError(
            f"its tensors are {', '.join(sorted(kinds))}; numbers of 16 or 32 bits with a point "
            "are needed"
        )
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise ValueError(f"{len(bad)} of its tensors hold NaN or infinity, {bad[0]} first")


def save_checkpoint(
    folder: str | Path, network: CVDM, card: ModelCard, within: Path | None = None
) -> None:
    """Write weights (float16) and card; each file is complete before it takes its name.

    The folder is made if it is missing. The `network` entry of the card must describe `network`.
    No link below `within` is followed, see `complete_file`.
    """
    folder = Path(folder)
    if within is None:
        folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        # Half the size of the file; a reader makes float32 of it again.
        name: tensor.detach().to("cpu", torch.float16).contiguous()
        for name, tensor in network.state_dict().items()
    }
    replace_file(folder / WEIGHTS, save(tensors), within)
    write_card(folder, card, within)


def write_card(folder: str | Path, card: ModelCard, within: Path | None = None) -> None:
    """Write the card alone, beside weights that stay as they are."""
    text = json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n"
    replace_file(Path(folder) / CARD, text.encode(), within)
    renew_manifest(Path(folder) / CARD)


def replace_file(path: Path, content: bytes, within: Path | None = None) -> None:
    """Write a file as `complete_file` does.

    CheckpointError where it cannot be written; an older file stays as it was.
    """
    try:
        write_file(path, content, within)
    except ImageFileError as error:
        raise CheckpointError(str(error)) from error


def config_values(config: CVDMConfig) -> dict[str, Any]:
    """A config as plain values for the card."""
    return asdict(config)
