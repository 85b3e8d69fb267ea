"""From a request and a model to a reconstruction with its posterior spread."""

import time
from collections.abc import Generator, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_cvdm import __version__
from napari_cvdm.device import pick_device
from napari_cvdm.diffusion.sampler import SAMPLERS, clock_grid, uniform_time_grid
from napari_cvdm.image_files import sha256_of
from napari_cvdm.model.checkpoint import Checkpoint, CheckpointError, ModelCard
from napari_cvdm.model.schedule import clock_curve, gamma_and_beta
from napari_cvdm.model.tiled import TiledModel, channels_last
from napari_cvdm.noise import noise_field
from napari_cvdm.request import OPTICS, ImageStack, RequestError, RestoreRequest
from napari_cvdm.result import Progress, Provenance, Restoration
from napari_cvdm.tasks import TASKS, Conditioned, Task
from napari_cvdm.trust.validity import axes_warnings, beyond_trained_range, far_from_training, optics_warnings

FRAME_SEED_STRIDE = 1 << 11  # more than the largest number of samples, so frames never share noise
CLOCK_POINTS = 100
FrameWork = Generator[Progress, None, "FrameResult"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameResult:
    """One frame's outcome in output units, arrays of shape (uY, uX); samples (N, uY, uX) or None."""

    mean: np.ndarray = field(repr=False)
    variance: np.ndarray = field(repr=False)
    rate: np.ndarray = field(repr=False)
    valid: np.ndarray = field(repr=False)
    samples: np.ndarray | None = field(repr=False)
    estimated: Mapping[str, Any]
    tile: int


def frame_indices(image: ImageStack) -> Iterator[tuple[int, ...]]:
    """Index of every frame: all combinations of the axes that are not P, Y or X."""
    return product(*(range(size) for size, axis in zip(image.array.shape, image.axes, strict=True) if axis not in "PYX"))


def frame_axes(image: ImageStack) -> str:
    """The axes that are looped over."""
    return "".join(axis for axis in image.axes if axis not in "PYX")


def check_planes(image: ImageStack, task: Task) -> None:
    """RequestError unless the image has as many defocus planes as the task needs, just before YX."""
    if "P" in image.axes and not image.axes.endswith("PYX"):
        raise RequestError(f"{image.source}: axes {image.axes}; the plane axis P must stand just before YX. Move it there with numpy.moveaxis.")
    planes = image.array.shape[image.axes.index("P")] if "P" in image.axes else 1
    if planes != task.planes:
        raise RequestError(f"{image.source}: {planes} plane(s) of axes {image.axes}; {task.name} needs {task.planes}: {task.inputs}.")


def task_of(card: ModelCard) -> Task:
    """The task of a model.

    Raises
    ------
    CheckpointError
        A task that this version does not know, or a network of another shape than the task's.
    """
    task = TASKS.get(card.task)
    if task is None:
        raise CheckpointError(f"{card.name}: task {card.task!r} is not known to this version; known are {', '.join(TASKS)}. Update napari-cvdm.")
    config = card.config()
    if (config.condition_channels, config.upsampling) != (len(task.channels), task.upsampling):
        raise CheckpointError(f"{card.name}: its network does not fit the task {task.name}; the card belongs to another model. Copy the model again.")
    return task


def restore(request: RestoreRequest, model: Checkpoint) -> Generator[Progress, None, Restoration]:
    """Sample the posterior of every frame of an image.

    Parameters
    ----------
    request : RestoreRequest
    model : Checkpoint
        Its card names the task.

    Yields
    ------
    Progress
        After every evaluation of the network; stop iterating to cancel.

    Returns
    -------
    Restoration

    Raises
    ------
    RequestError, OpticsError, DeviceError
        What is wrong with the request, before any long work; what is wrong with a later frame, when its turn comes.
    CheckpointError
        A model that does not fit its task.
    """
    started = time.perf_counter()
    task, device = task_of(model.card), pick_device(request.device)
    check_planes(request.image, task)
    network = channels_last(deepcopy(model.network), device)  # the checkpoint stays on the CPU, for others to use
    frames = list(frame_indices(request.image))
    results = []
    for number, index in enumerate(frames):
        prepared = task.from_request(request.image.array[index].reshape(task.planes, *request.image.array.shape[-2:]), request)
        results.append((yield from _restore_frame(request, network, prepared, number, len(frames))))
    return _assembled(request, model, task, results, time.perf_counter() - started)


@torch.inference_mode()
def _restore_frame(request: RestoreRequest, network: Any, prepared: Conditioned, number: int, frames: int) -> FrameWork:
    device = network.residual_scale.device
    tiled = TiledModel(network, prepared.valid.shape, request.tile)
    condition = tiled.padded_condition(prepared.channels[None].to(device))
    baseline = tiled.padded_target(prepared.baseline[None, None].to(device))
    correction = tiled.correction(condition)
    features = network.features(condition, correction)
    rate = tiled.rate(features)
    height, width = prepared.baseline.shape
    clocks = _clock_values(request, network, rate[..., :height, :width])
    moments = RunningMoments((height, width))
    kept = []
    for sample in range(request.samples):
        source = _noise_source(rate, request.seed, number * FRAME_SEED_STRIDE + sample)
        steps = SAMPLERS[request.sampler](lambda noisy, exponent: tiled.clean(noisy, exponent, features), rate, clocks, source)
        done = (number * request.samples + sample) * request.steps
        clean = rate
        for step, clean in enumerate(steps, start=1):  # noqa: B007 - the last one is the sample
            yield Progress(stage=f"sample {sample + 1} of {request.samples}", done=done + step, total=frames * request.samples * request.steps)
        image = (network.decode(clean, baseline, correction)[0, 0, :height, :width] * prepared.gain).float().cpu().numpy()
        if prepared.anchor is not None:
            white = noise_field((height, width), seed=request.seed, sample=number * FRAME_SEED_STRIDE + sample, step=request.steps)
            image = prepared.anchor.apply(image, white)
        moments.add(image)
        kept += [image] if request.keep_samples else []
    return FrameResult(
        mean=moments.mean.astype(np.float32),
        variance=moments.variance.astype(np.float32),
        rate=rate[0, 0, :height, :width].cpu().numpy(),
        valid=np.kron(prepared.valid, np.ones((network.config.upsampling,) * 2, dtype=bool)),
        samples=np.stack(kept) if kept else None,
        estimated=prepared.estimated,
        tile=tiled.tile,
    )


def _clock_values(request: RestoreRequest, network: Any, rate: Tensor) -> tuple[float, ...]:
    if request.sampler == "ancestral":
        return uniform_time_grid(network.clock, request.steps, rate.device)
    return clock_grid(float(rate.median()), request.steps)


def _noise_source(like: Tensor, seed: int, sample: int) -> Any:
    shape = (like.shape[-2], like.shape[-1])
    return lambda step: torch.from_numpy(noise_field(shape, seed=seed, sample=sample, step=step)).to(like.device)[None, None]


class RunningMoments:
    """Mean and unbiased variance of images that come one by one (Welford 1962); float64 inside.

    Parameters
    ----------
    shape : tuple of int
        Of one image.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self.mean = np.zeros(shape)
        self._squares = np.zeros(shape)

    def add(self, image: np.ndarray) -> None:
        """Count one more image in."""
        self.count += 1
        difference = image - self.mean
        self.mean += difference / self.count
        self._squares += difference * (image - self.mean)

    @property
    def variance(self) -> np.ndarray:
        """Sum of squares over count - 1; zero for a single image."""
        return self._squares / max(1, self.count - 1)


def _stacked(arrays: list[np.ndarray], image: ImageStack) -> np.ndarray:
    loops = tuple(size for size, axis in zip(image.array.shape, image.axes, strict=True) if axis not in "PYX")
    return np.stack(arrays).reshape(*loops, *arrays[0].shape[-2:])


def _assembled(request: RestoreRequest, model: Checkpoint, task: Task, results: list[FrameResult], seconds: float) -> Restoration:
    image = request.image
    rate = _stacked([result.rate for result in results], image)
    mean = _stacked([result.mean for result in results], image)
    gamma, beta, times = schedule_maps(model, rate, request.schedule_points)
    samples = None
    if request.keep_samples:
        samples = np.stack([_stacked([result.samples[index] for result in results if result.samples is not None], image) for index in range(request.samples)])
    beyond = beyond_trained_range(mean, model.card)
    warnings = (*axes_warnings(image), *optics_warnings(request, model.card), *((beyond.reason,) if beyond.reason else ()))
    usable = not far_from_training(request, model.card)
    return Restoration(
        mean=mean,
        variance=_stacked([result.variance for result in results], image),
        rate=rate,
        axes=frame_axes(image) + "YX",
        unit=task.unit,
        pixel_um=request.optics_value("pixel_um") / task.upsampling,
        upsampling=task.upsampling,
        valid=_stacked([result.valid for result in results], image) & ~beyond.mask & usable,
        provenance=_provenance(request, model, results, seconds, warnings),
        clock=clock_curve(model.network.clock, CLOCK_POINTS),
        gamma=gamma,
        beta=beta,
        times=times,
        samples=samples,
    )


def schedule_maps(model: Checkpoint, rate: np.ndarray, points: int) -> tuple[np.ndarray | None, np.ndarray | None, tuple[float, ...]]:
    """gamma and beta of shape (K, ..., Y, X) at K times 1/K, 2/K, ..., 1; None without points."""
    if not points:
        return None, None, ()
    times = tuple((index + 1) / points for index in range(points))
    clock = model.network.clock
    device = clock.weights.device
    with torch.inference_mode():
        maps = [gamma_and_beta(torch.from_numpy(rate).to(device), clock, moment) for moment in times]
    gamma, beta = (np.stack([pair[part].cpu().numpy() for pair in maps]) for part in (0, 1))
    return gamma, beta, times


def _settings(request: RestoreRequest, card: ModelCard) -> dict[str, Any]:
    settings = {entry.name: getattr(request, entry.name) for entry in fields(request) if entry.name != "image"}
    settings |= {name: request.known_optics(name) for name in OPTICS}
    if not isinstance(request.background, str):
        settings["background"] = f"image sha256:{sha256_of(request.background)}"
    return settings


def _provenance(request: RestoreRequest, model: Checkpoint, results: list[FrameResult], seconds: float, warnings: tuple[str, ...]) -> Provenance:
    card = model.card
    return Provenance(
        inputs={request.image.source: sha256_of(request.image.array)},
        model={"name": card.name, "sha256": model.sha256, "task": card.task, "training": dict(card.training)},
        settings=_settings(request, card),
        estimated={"frames": [dict(result.estimated) for result in results], "tile_used": min(result.tile for result in results)},
        versions={"napari-cvdm": __version__, **{name: version(name) for name in ("torch", "numpy", "scipy", "tifffile")}},
        timings_s={"total": round(seconds, 3)},
        warnings=warnings,
    )
