"""A tiny model, its bundle, a training's state, a result folder and a recipe.

They are as this program writes them.
"""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tests.stress.fuzzing.specimens import pixels

from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import finished
from napari_cvdm.models.checkpoint import (
    CARD,
    WEIGHTS,
    Checkpoint,
    ModelCard,
    config_values,
    load_checkpoint,
    save_checkpoint,
)
from napari_cvdm.models.cvdm import CVDM, CVDMConfig
from napari_cvdm.models.networks import UNetConfig
from napari_cvdm.reconstruction.provenance import write_images, write_provenance
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.tasks import TASKS
from napari_cvdm.training.state import STATE, save_state

RECIPE = Path(__file__).parents[3] / "recipes" / "smoke.toml"
FINGERPRINT = "0" * 64
Files = dict[str, bytes]


def tiny_model(folder: Path, task_name: str = "widefield-x2") -> Path:
    """A checkpoint of a small network with random weights, written into a folder."""
    task = TASKS[task_name]
    small, smaller = (
        UNetConfig(widths=(4, 8), blocks=(1, 1), level_channels=4),
        UNetConfig(widths=(4, 8), blocks=(1, 1), level_channels=0),
    )
    config = CVDMConfig(
        condition_channels=len(task.channels),
        upsampling=task.upsampling,
        denoiser=small,
        mean=smaller,
    )
    torch.manual_seed(0)
    card = ModelCard(
        name=f"tiny-{task_name}",
        title="A tiny model with random weights",
        task=task_name,
        network=config_values(config),
        channels=task.channels,
        inputs=task.inputs,
        unit=task.unit,
        optics={"pixel_um": (0.05, 0.5)},
        intensity="as in use",
        resolution="none",
        licence="BSD-3-Clause",
        training={"simulation": {"strength_rad": (0.05, 6.0)}},
        limits=("Random weights.",),
    )
    save_checkpoint(folder, CVDM(config), card)
    return folder


@cache
def model() -> Files:
    """Card and weights."""
    with TemporaryDirectory() as name:
        return {path.name: path.read_bytes() for path in tiny_model(Path(name)).iterdir()}


@cache
def loaded() -> Checkpoint:
    """The model, ready to use."""
    with TemporaryDirectory() as name:
        return load_checkpoint(tiny_model(Path(name)))


def small_request(checkpoint_name: str = "tiny", **settings: Any) -> ReconstructionRequest:
    """A small image, the quickest way through a model, on the CPU."""
    image = ImageStack(array=pixels(20, 24), axes="YX", pixel_um=0.1)
    return ReconstructionRequest(
        image=image,
        model=checkpoint_name,
        **{"samples": 1, "steps": 1, "device": "cpu", "tile": 64, **settings},
    )


@cache
def result() -> Files:
    """A result folder with samples and schedule."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        done = finished(
            reconstruct(small_request(samples=2, keep_samples=True, schedule_points=2), loaded())
        )
        write_images(folder, done, {"y_um": 1.0, "x_um": 2.0})
        write_provenance(
            folder, done, {}, {"image": {"path": "a.tif", "sha256": "0"}}, {"total": 1.0}, "cpu"
        )
        return {path.name: path.read_bytes() for path in folder.iterdir()}


@cache
def state() -> bytes:
    """An unfinished training."""
    with TemporaryDirectory() as name:
        tensors = {f"network.{key}": value for key, value in loaded().network.state_dict().items()}
        save_state(
            Path(name), FINGERPRINT, {"stage": "mean", "step": 3, "counts": {"fields": 8}}, tensors
        )
        return (Path(name) / STATE).read_bytes()


def safetensors_parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def card_values() -> dict[str, Any]:
    """The card as plain values."""
    return json.loads(model()[CARD])


def weights() -> bytes:
    """The weights file."""
    return model()[WEIGHTS]


def lost(checkpoint: Checkpoint, value: float = np.nan) -> Files:
    """The model with one weight that is no number."""
    with TemporaryDirectory() as name:
        network = CVDM(checkpoint.card.config())
        with torch.no_grad():
            next(network.parameters()).view(-1)[0] = value
        save_checkpoint(Path(name), network, checkpoint.card)
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}
