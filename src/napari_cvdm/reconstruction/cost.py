"""What a run will cost, measured on one tile before it starts."""

import time
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from math import ceil, prod

import torch
from torch import Tensor

from napari_cvdm.core.device import multiplies_bf16, prefers_sequential, seconds_of
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.core.result import Progress, finished
from napari_cvdm.core.tiling import aligned_size
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.models.tiled import TiledModel, network_on
from napari_cvdm.reconstruction.plan import resolve, task_of
from napari_cvdm.reconstruction.sampling import (
    FrameIndex,
    evaluations,
    follow_stages,
    samples_together,
)
from napari_cvdm.tasks.deconvolved import DECONVOLVED_BYTES

FLOAT_BYTES = 4
MIDDLE_NEG_LOG_GAMMA = 5.0
RESULT_BYTES = 3 * FLOAT_BYTES + 1  # mean, variance and rate, and the mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Cost of a run.

    Parameters
    ----------
    seconds : float
        Until the last sample of the last frame.
    memory_bytes : int
        At the peak: the network's tensors for one tile (`tile_bytes`), the tensors of the whole
        frame, and the result; or the memory of the inversion, where it is more.
    tiles : int
        In one frame.
    """

    seconds: float
    memory_bytes: int
    tiles: int


def estimate(
    request: ReconstructionRequest, model: Checkpoint
) -> Generator[Progress, None, Estimate]:
    """Evaluate the networks on the largest tile with its halo, and scale by the areas of all tiles.

    Preparing the frames is measured on the first one. Progress comes before each evaluation; to
    cancel is to stop iterating. Errors are those of `reconstruct`.
    """
    task = task_of(model.card)
    plan = resolve(request, task)
    device = torch.device(plan.device)
    network = network_on(model.network, device)
    loops = plan.image.loop_shape
    frames, first = prod(loops), (0,) * len(loops)
    started = time.perf_counter()
    prepared, _ = yield from follow_stages(
        task.prepare(plan.image.frame(first), plan), FrameIndex(first, 0, 1)
    )
    if plan.region is not None:
        prepared = prepared.within(
            plan.region, network.config.condition_fold * network.config.alignment
        )
    preparing = time.perf_counter() - started
    tiled = TiledModel(network, prepared.valid.shape, plan.tile)
    tiles = tiled.plan(network.config.denoiser.receptive_radius).tiles
    fold = network.config.condition_fold
    areas = [(rows.read(fold), columns.read(fold)) for rows, columns in tiles]
    sides = [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in areas]
    largest = max(sides, key=lambda side: side[0] * side[1])
    fine = prepared.valid.size * network.config.upsampling**2
    together = min(plan.samples, samples_together(fine))
    once, step = yield from _one_tile(network, largest, device, together, plan.precision)
    # Those at the edges read less.
    whole_tiles = sum(height * width for height, width in sides) / (largest[0] * largest[1])
    drawing = evaluations(network, plan.samples, plan.steps)
    seconds = frames * (preparing + whole_tiles * (once + drawing * step))
    memory = tile_bytes(network, largest, together, plan.precision, device)
    memory += _bytes_of(plan, network, prepared.valid.shape, frames, together)
    # The inversion ends before the networks begin, so only the larger counts.
    before = 0
    if prepared.posterior is not None:
        before = prepared.posterior.memory_bytes
    elif prepared.lens is not None:
        before = DECONVOLVED_BYTES * fine
    return Estimate(seconds=seconds, memory_bytes=max(memory, before), tiles=len(tiles))


def _one_tile(
    network: CVDM, shape: tuple[int, int], device: torch.device, together: int, precision: str
) -> Generator[Progress, None, tuple[float, float]]:
    """Seconds of what is done once, and of one sample's step when several run together."""

    def measuring(done: int) -> Progress:
        return Progress(stage="measuring one tile", done=done, total=4)

    yield measuring(0)
    tile = BenchmarkTile(network, shape, together)
    step = partial(tile.step, precision)
    yield measuring(1)
    step()  # the first is slower: kernels are chosen and built
    yield measuring(2)
    once = seconds_of(device, partial(tile.rate, precision))
    yield measuring(3)
    return once, seconds_of(device, step) / together


def tile_bytes(
    network: CVDM, shape: tuple[int, int], together: int, precision: str, device: torch.device
) -> int:
    """Bytes of the tensors that the networks need for one tile, at the peak.

    It is a closed form of the networks' widths. The weights and the workspace of a convolution are
    not part of it. `shape` (Y, X) is that of the tile with its halo, on the condition's grid, and
    `together` is the number of samples that go through the sampler together.
    """
    config = network.config
    inputs, pixels = config.condition_channels * config.condition_fold**2, config.fold**2
    one_by_one = together > 1 and prefers_sequential(device)
    unfolds = device.type == "cpu" and not multiplies_bf16(device)
    steps = 0.0
    if network.denoiser is not None:
        # Each image is there noisy, folded and clean; one by one, the clean ones are collected.
        images = 3 + together if one_by_one else 3 * together
        network_bytes = config.denoiser.live_bytes(
            precision, together, one_by_one=one_by_one, unfolds=unfolds
        )
        steps = network_bytes + FLOAT_BYTES * images * pixels
    regressions = [
        part.live_bytes(precision) + FLOAT_BYTES * (inputs + 4 * pixels)
        for part, there in ((config.mean, network.mean), (config.residual_std, network.std_network))
        if part is not None and there is not None
    ]
    area = prod(aligned_size(-(-side // config.condition_fold), config.alignment) for side in shape)
    return ceil(area * max(steps, *regressions, 0.0))


def _bytes_of(plan: Plan, network: CVDM, shape: tuple[int, int], frames: int, together: int) -> int:
    """Bytes of what does not depend on the tile: a frame's maps, the result and the weights."""
    config = network.config
    pixels = shape[0] * shape[1]
    fine = pixels * config.upsampling**2
    first_layer_features = config.denoiser.widths[0] * fine // config.fold**2
    # Of each sample: noisy, clean, the clean one before, and noise.
    frame = FLOAT_BYTES * (
        2 * config.condition_channels * pixels + first_layer_features + (4 + 4 * together) * fine
    )
    result = fine * frames * (RESULT_BYTES + FLOAT_BYTES * plan.samples * plan.keep_samples)
    weights = sum(parameter.numel() for parameter in network.parameters()) * FLOAT_BYTES
    return frame + result + weights


class BenchmarkTile:
    """A tile of zeros on the network's device, halfway through the sampler.

    `shape` (Y, X) is on the condition's grid; `together` samples go through the sampler together.
    """

    @torch.inference_mode()
    def __init__(self, network: CVDM, shape: tuple[int, int], together: int = 1) -> None:
        self._network, self._tiled = network, TiledModel(network, shape, max(shape))
        condition = torch.zeros(
            1, network.config.condition_channels, *shape, device=network.residual_scale.device
        )
        self._condition = self._tiled.padded_condition(condition)
        features = network.features(self._condition, self.mean_residual("fp32"))
        rate = finished(self._tiled.rate(features))
        self._entered = network.first_layer_features(features)
        self._exponent = torch.full_like(rate, MIDDLE_NEG_LOG_GAMMA)
        self._noisy = rate.expand(together, -1, -1, -1)

    @torch.inference_mode()
    def mean_residual(self, precision: str) -> Tensor:
        """The mean network, (1, 1, uY, uX)."""
        self._tiled.precision = precision
        return finished(self._tiled.mean_residual(self._condition))

    @torch.inference_mode()
    def rate(self, precision: str) -> Tensor:
        """All that is evaluated once for an image, mean network and rate map: (1, 1, uY, uX)."""
        return finished(
            self._tiled.rate(self._network.features(self._condition, self.mean_residual(precision)))
        )

    @torch.inference_mode()
    def step(self, precision: str) -> Tensor:
        """One evaluation of the denoiser for all samples that go together, (S, 1, uY, uX)."""
        self._tiled.precision = precision
        return finished(self._tiled.clean(self._noisy, self._exponent, self._entered))
