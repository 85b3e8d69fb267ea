"""What an unfinished training keeps in its folder: its state, as tensors and JSON, and its log.

Nothing is pickled. The state is written completely before it gets its name.
"""

import csv
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from napari_cvdm.core.request import RequestError
from napari_cvdm.io.atomic import LEFTOVERS, append_text, refuse_link, write_file
from napari_cvdm.io.errors import one_line
from napari_cvdm.io.limits import open_regular, parse_json_object
from napari_cvdm.models.checkpoint import CARD, WEIGHTS, replace_file
from napari_cvdm.models.cvdm import CVDM

STATE = "training.safetensors"
LOG = "log.csv"
SO_FAR = "so-far"
COLUMNS = (
    *("stage", "step", "learning_rate"),
    *("baseline", "mean"),
    *("network", "noise", "prior", "smoothness", "boundary", "schedule", "likelihood"),
    "gradient",
    *("held_out_rmse", "held_out_centre_rmse", "held_out_baseline_rmse", "held_out_crps"),
    "held_out_spread_ratio",
)
"""Of the log: loss terms of the mean and of the diffusion stage, and scores on held-out fields."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingState:
    """A saved moment.

    Its plain values are `stage`, `step` (done in it), `counts` of the stage, and what the training
    knows of its start. The tensors are ``network.``, ``average.``, ``best.`` and
    ``optimiser.<index>.``.
    """

    progress: dict[str, Any]
    tensors: dict[str, Tensor] = field(repr=False)

    @property
    def stage(self) -> str:
        """The stage under way."""
        return str(self.progress["stage"])

    @property
    def step(self) -> int:
        """Steps done in it."""
        return int(self.progress["step"])

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors under a prefix, without it."""
        named = [name for name in self.tensors if name.startswith(prefix)]
        return {name.removeprefix(prefix): self.tensors[name] for name in named}

    def restore(self, network: CVDM, average: AveragedModel, optimiser: Optimizer) -> int:
        """Restore network, averaged weights and the optimiser's moments; return the steps done."""
        network.load_state_dict(self.part("network."))
        average.load_state_dict(self.part("average."))
        saved = optimiser.state_dict()
        moments = {
            index: self.part(f"optimiser.{index}.")
            for index in range(len(saved["param_groups"][0]["params"]))
        }
        # Parameters that no step has reached have no moments.
        saved["state"] = {index: entry for index, entry in moments.items() if entry}
        optimiser.load_state_dict(saved)
        return self.step


@contextmanager
def kept_if_resumable(folder: Path) -> Iterator[None]:
    """Delete the folder of a training if an error leaves nothing to resume from.

    Only a folder that was empty or missing before is deleted.
    """
    empty = not (folder.exists() and any(folder.iterdir()))
    try:
        yield
    # Also where the user stops it, which is no Exception.
    except BaseException:
        if empty and not (folder / STATE).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def is_without_state(folder: Path) -> bool:
    """Whether a folder holds what a training leaves that ends before its first state.

    That is its log, the model so far and leftovers, and nothing else.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    log, so_far = folder / LOG, folder / SO_FAR
    below = list(so_far.iterdir()) if so_far.is_dir() and not so_far.is_symlink() else []
    for path in (*folder.iterdir(), *below):
        is_own = path in (log, so_far) or path.match(LEFTOVERS)
        # Somebody's own file here means that the folder must not be written over.
        if path.is_symlink() or not (is_own or (path in below and path.name in (CARD, WEIGHTS))):
            return False
    head = (",".join(COLUMNS) + "\n").encode()
    try:
        with open_regular(log) as file:
            return head.startswith(file.read(len(head)))  # a power cut may have left less
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False


def save_state(
    folder: Path, fingerprint: str, progress: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write the state of a training into a folder and replace an older one.

    `fingerprint` is that of its recipe.

    Raises
    ------
    CheckpointError
        It cannot be written; an older state stays as it was.
    """
    contiguous = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()
    }
    metadata = {"progress": json.dumps({**progress, "recipe": fingerprint})}
    replace_file(folder / STATE, save(contiguous, metadata=metadata))


def load_state(folder: Path, fingerprint: str) -> TrainingState | None:
    """Read the state that `save_state` left.

    None where nothing was done: the state is damaged, or the training ended before the first one.

    Raises
    ------
    RequestError
        There is none, it cannot be opened, or it belongs to a recipe with another fingerprint.
    """
    path = folder / STATE
    if not path.exists():
        if is_without_state(folder):
            return None
        raise RequestError(
            f"{folder} has no {STATE} to resume from; leave out --resume to start anew."
        )
    try:
        # A pipe would wait for somebody who writes.
        open_regular(path).close()
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{path} cannot be resumed from ({one_line(error)}); train anew in another folder."
        ) from None
    try:
        with safe_open(path, framework="pt") as stream:
            progress = parse_json_object((stream.metadata() or {})["progress"])
            tensors: dict[str, Tensor] = {name: stream.get_tensor(name) for name in stream.keys()}
        state = TrainingState(
            progress={"stage": progress["stage"], "step": progress["step"], **progress},
            tensors=tensors,
        )
    except OSError as error:
        raise RequestError(
            f"{path} cannot be resumed from ({one_line(error)}); train anew in another folder."
        ) from None
    # A power cut may leave half a state, which counts as none.
    except (SafetensorError, ValueError, TypeError, KeyError):
        return None
    if progress.get("recipe") != fingerprint:
        raise RequestError(
            f"{path} was made by another recipe; give the same one to --resume, or train anew in "
            "another folder."
        )
    return state


class RunLog:
    """Lines of numbers by stage and step, in ``log.csv``, and in ``tensorboard/`` where installed.

    Lines after the `state` that a training resumes from are removed, because these steps are done
    again. Without a state the log begins anew.
    """

    def __init__(self, folder: Path, state: TrainingState | None = None) -> None:
        self._path = folder / LOG
        if state is None:
            self._path.unlink(missing_ok=True)
        elif self._path.exists():
            self._forget_after(state)
        self._board: Any = None
        if find_spec("tensorboard") is not None:
            # TensorBoard would write to wherever a link leads.
            refuse_link(folder / "tensorboard")
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"))

    def add(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Write one line."""
        stream = StringIO()
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        if not self._path.exists() or not self._path.stat().st_size:
            writer.writeheader()
        texts = {name: f"{value:.6g}" for name, value in values.items()}
        writer.writerow({"stage": stage, "step": step, **texts})
        append_text(self._path, stream.getvalue())
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{stage}/{name}", value, step)
            self._board.flush()

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self._board is not None:
            self._board.close()

    def _forget_after(self, state: TrainingState) -> None:
        text = self._path.read_text(encoding="utf-8")
        # A kill may cut the last line.
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        earlier = {"mean"} if state.stage == "diffusion" else set()
        kept = [
            line
            for line, row in zip(lines[1:], csv.DictReader(lines), strict=True)
            if row["stage"] in earlier
            or (row["stage"] == state.stage and int(row["step"]) <= state.step)
        ]
        write_file(self._path, "".join([*lines[:1], *kept]).encode())
