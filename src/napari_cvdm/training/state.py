"""The state of an unfinished training, as tensors and JSON: nothing is pickled, each file is complete before it has its name."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from napari_cvdm.model.checkpoint import replace_file
from napari_cvdm.model.cvdm import CVDM
from napari_cvdm.request import RequestError

STATE = "training.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingState:
    """A saved moment: the stage, the steps done in it, and every tensor.

    Parameters
    ----------
    stage : str
    step : int
    tensors : dict of str to Tensor
        Prefixed ``network.``, ``average.`` and ``optimiser.<index>.``.
    """

    stage: str
    step: int
    tensors: dict[str, Tensor] = field(repr=False)

    def _part(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}

    def restore(self, network: CVDM, average: AveragedModel, optimiser: Optimizer) -> int:
        """Put network, averaged weights and the optimiser's moments back; returns the steps done."""
        network.load_state_dict(self._part("network."))
        average.load_state_dict(self._part("average."))
        saved = optimiser.state_dict()
        saved["state"] = {index: self._part(f"optimiser.{index}.") for index in range(len(saved["param_groups"][0]["params"]))}
        optimiser.load_state_dict(saved)
        return self.step


def save_state(folder: Path, fingerprint: str, stage: str, step: int, network: CVDM, average: AveragedModel, optimiser: Optimizer) -> None:
    """Write the state of a training into a folder, replacing an older one; `fingerprint` is that of its recipe.

    Raises
    ------
    CheckpointError
        It cannot be written; an older state stays as it was.
    """
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    for index, entry in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in entry.items()}
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    progress = json.dumps({"stage": stage, "step": step, "recipe": fingerprint})
    replace_file(folder / STATE, save(contiguous, metadata={"progress": progress}))


def load_state(folder: Path, fingerprint: str) -> TrainingState:
    """Read the state that `save_state` left.

    Raises
    ------
    RequestError
        There is none, it is damaged, or it belongs to a recipe with another fingerprint.
    """
    path = folder / STATE
    if not path.exists():
        raise RequestError(f"{folder} has no {STATE} to resume from; leave out --resume to start anew.")
    try:
        with safe_open(path, framework="pt") as stream:
            progress = json.loads(stream.metadata()["progress"])
            tensors: dict[str, Tensor] = {name: stream.get_tensor(name) for name in stream.keys()}
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise RequestError(f"{path} cannot be resumed from ({error}); train anew in another folder.") from None
    if progress.get("recipe") != fingerprint:
        raise RequestError(f"{path} was made by another recipe; give the same one to --resume, or train anew in another folder.")
    return TrainingState(stage=progress["stage"], step=progress["step"], tensors=tensors)
