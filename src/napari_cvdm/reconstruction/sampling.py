"""One frame: prepared once, then as many posterior samples as are wanted."""

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.core.noise import FRAME_SEED_STRIDE
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.result import FrameView, Progress, Stop, finished, map_steps, name_stages
from napari_cvdm.core.statistics import RunningMoments
from napari_cvdm.diffusion.sampler import (
    QUERIES,
    Queries,
    clock_grid,
    next_query,
    uniform_time_grid,
)
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.models.tiled import Tile, TiledModel, Tiling, tile_words
from napari_cvdm.tasks import NetworkInput
from napari_cvdm.tasks.task import refine_mask

SAMPLES_TOGETHER = 4
PIXELS_TOGETHER = 1 << 20  # no step of several samples takes longer than one of a 1024 x 1024 image
Item = TypeVar("Item")
Result = TypeVar("Result")
Sampled = Generator[Progress, Stop | None, tuple[list[np.ndarray], Stop | None]]


def samples_together(pixels: int) -> int:
    """How many samples of an image of so many (output) pixels go through the sampler together.

    They share schedule and noise level.
    """
    return max(1, min(SAMPLES_TOGETHER, PIXELS_TOGETHER // pixels))


def sample_groups(first: int, samples: int, together: int) -> Iterator[range]:
    """Samples `first`, ..., `samples` - 1, so many of them together."""
    starts = range(first, samples, together)
    return (range(start, min(samples, start + together)) for start in starts)


def evaluations(network: CVDM, samples: int, steps: int) -> int:
    """Evaluations of the denoiser for one frame: see `FrameSampler.start`."""
    return 1 + samples * (steps - 1) if network.prediction.bounded else samples * steps


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """Which frame of a run: its index along the looped axes, its number, and how many there are."""

    index: tuple[int, ...]
    number: int
    frames: int

    @property
    def suffix(self) -> str:
        """The same in words; empty for a single frame."""
        return f", frame {self.number + 1} of {self.frames}" if self.frames > 1 else ""


class FinishedFramesKept(Exception):
    """The run was asked to keep what is finished while a later frame was prepared."""


def follow_stages(
    work: Generator[str, None, Result],
    place: FrameIndex,
    prefix: str = "",
    steps: int = 1,
    offer: Callable[[], Callable[[], FrameView] | None] = lambda: None,
) -> Generator[Progress, Stop | None, tuple[Result, Stop | None]]:
    """Turn the stages of work on one frame, named in words, into progress of `steps` a frame.

    `offer` gives what there is to see meanwhile. The work's result is returned with what was sent
    on the way. FinishedFramesKept is raised where `Stop.KEEP` was sent and frames before this one
    are finished.
    """
    stop = None
    while True:
        try:
            stage = next(work)
        except StopIteration as end:
            return end.value, stop
        stop = (
            yield Progress(
                stage=f"{prefix}{stage}{place.suffix}",
                done=place.number * steps,
                total=place.frames * steps,
                view=offer(),
            )
        ) or stop
        # Nothing of a first frame is finished, so it goes on to its first sample.
        if stop is Stop.KEEP and place.number:
            work.close()
            raise FinishedFramesKept


def say_tiles(work: Tiling) -> Generator[str, None, Tensor]:
    """The same evaluation, with its tiles in words."""
    return map_steps(work, tile_words)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameSampler:
    """A frame on a device, with all that is computed once for all its samples.

    Parameters
    ----------
    initial_estimate, mean_residual, first_layer_features, rate, std : Tensor
        On the padded canvas.
    grid_rate : float
        The rate that sets the sampler's grid.
    """

    plan: Plan
    prepared: NetworkInput
    place: FrameIndex
    tiled: TiledModel
    initial_estimate: Tensor = field(repr=False)
    mean_residual: Tensor = field(repr=False)
    first_layer_features: Tensor = field(repr=False)
    rate: Tensor = field(repr=False)
    std: Tensor = field(repr=False)
    grid_rate: float

    @classmethod
    @torch.inference_mode()
    def begin(
        cls,
        plan: Plan,
        network: CVDM,
        prepared: NetworkInput,
        place: FrameIndex,
        grid_rate: float | None = None,
    ) -> Generator[str, None, "FrameSampler"]:
        """Evaluate what does not depend on the sample.

        Without a `grid_rate`, it is the median of the frame's own rate. It yields what is done, in
        words, before each tile.
        """
        device = network.residual_scale.device
        tiled = TiledModel(network, prepared.valid.shape, plan.tile, plan.precision)
        condition = tiled.padded_condition(prepared.channels[None].to(device))
        mean_residual = yield from name_stages("mean", say_tiles(tiled.mean_residual(condition)))
        features = network.features(condition, mean_residual)
        std = yield from name_stages("expected error", say_tiles(tiled.residual_std(features)))
        rate = yield from name_stages("noise-rate map", say_tiles(tiled.rate(features)))
        height, width = prepared.initial_estimate.shape
        if grid_rate is None:
            grid_rate = float(rate[0, 0, :height, :width].median())
        return cls(
            plan=plan,
            prepared=prepared,
            place=place,
            tiled=tiled,
            initial_estimate=tiled.padded_target(prepared.initial_estimate[None, None].to(device)),
            mean_residual=mean_residual,
            first_layer_features=network.first_layer_features(features),
            rate=rate,
            std=std,
            grid_rate=grid_rate,
        )

    @property
    def rate_map(self) -> np.ndarray:
        """lambda(x) of shape (Y, X)."""
        return self.prepared.kept(self._cropped(self.rate).cpu().numpy())

    @property
    def valid(self) -> np.ndarray:
        """Where the frame can be trusted, bool (Y, X) on the output's grid."""
        upsampling = self.tiled.network.config.upsampling
        return self.prepared.kept(refine_mask(self.prepared.valid, upsampling))

    def _cropped(self, canvas: Tensor) -> Tensor:
        height, width = self.prepared.initial_estimate.shape
        return canvas[0, 0, :height, :width]

    def _stream(self, sample: int) -> int:
        # Frames never share noise: the stride is more than the most samples of a frame.
        return self.place.number * FRAME_SEED_STRIDE + sample

    def _noise(self, samples: range, step: int) -> Tensor:
        shape = self.rate.shape[-2], self.rate.shape[-1]
        streams = [self._stream(sample) for sample in samples]
        return self.tiled.network.noise(shape, streams, step, self.plan.seed, self.prepared.origin)

    def clock_values(self) -> tuple[float, ...]:
        """Falling clock values T at which the denoiser is evaluated."""
        # The published sampler has the published grid: even in time, not in log-SNR.
        if self.plan.sampler == "ancestral":
            return uniform_time_grid(self.tiled.network.clock, self.plan.steps, self.rate.device)
        return clock_grid(self.grid_rate, self.plan.steps)

    def start(self) -> tuple[Tensor, Tensor] | None:
        """What the denoiser takes at T = 1, where its clean estimate is the same for all samples.

        None where each sample needs its own.

        A sample starts from pure noise, so the denoiser can only return the regression mean. It is
        evaluated once, with the noise of the first sample. For a denoiser that predicts eps, this
        estimate is its error over a = exp(-lambda / 2), which differs between samples.
        """
        if not self.tiled.network.prediction.bounded:
            return None
        return self._noise(range(1), 0), self.rate * self.clock_values()[0]

    def queries(self, samples: range) -> Queries:
        """What the denoiser takes for a group of posterior samples, step by step."""
        return QUERIES[self.plan.sampler](
            self.rate, self.clock_values(), partial(self._noise, samples)
        )

    def clean(self, noisy: Tensor, neg_log_gamma: Tensor) -> Tiling:
        """The clean estimates (S, 1, uY, uX), tile by tile."""
        return self.tiled.clean(noisy, neg_log_gamma, self.first_layer_features)

    def groups(self, first: int) -> Iterator[range]:
        """The samples from `first` on, in groups; the very first alone, to be shown soon."""
        alone = int(first == 0 and self.place.number == 0)
        yield from (range(1),) * alone
        together = samples_together(self.rate.numel())
        yield from sample_groups(first + alone, self.plan.samples, together)

    @torch.inference_mode()
    def image(self, clean: Tensor, sample: int) -> Generator[str, None, np.ndarray]:
        """A clean estimate (1, 1, uY, uX) in output units: float32 (Y, X).

        What the physics leaves open is drawn into it.

        A preview of one step is a regression: nothing is drawn.
        """
        decoded = self.tiled.network.decode(
            clean, self.initial_estimate, self.mean_residual, self.std
        )
        image = (self._cropped(decoded) * self.prepared.gain).float().cpu().numpy()
        posterior = self.prepared.posterior
        if posterior is not None and self.plan.steps > 1:
            image = yield from posterior.refine(image, self._stream(sample))
        elif posterior is not None:
            image = posterior.blend(image)
        return self.prepared.kept(image)

    def stage(self, samples: range, *doing: str) -> str:
        """What is being done, in words."""
        alone = len(samples) == 1
        which = f" {samples.stop}" if alone else f"s {samples.start + 1} to {samples.stop}"
        parts = (f"sample{which} of {self.plan.samples}", *doing)
        return ", ".join(part for part in parts if part) + self.place.suffix

    def first_view(self) -> FrameView:
        """The physical estimate, before there is a sample."""
        estimate = self.prepared.estimate
        return self._view(0, estimate, np.zeros_like(estimate))

    def view(self, moments: RunningMoments, clean: Tensor, sample: int) -> FrameView:
        """What there is to see: the finished samples, or the first one in the making."""
        # Finished samples are less noisy than one in the making.
        mean = moments.mean if moments.count else finished(self.image(clean, sample))
        return self._view(moments.count, mean, moments.variance)

    def _view(self, samples: int, mean: np.ndarray, variance: np.ndarray) -> FrameView:
        return FrameView(
            index=self.place.index,
            samples=samples,
            mean=mean,
            variance=variance,
            rate=self.rate_map,
            valid=self.valid,
        )


@torch.inference_mode()
def sample_frame(
    frame: FrameSampler,
    moments: RunningMoments,
    see: Callable[[np.ndarray], Iterable[str]] = lambda image: (),
    stop: Stop | None = None,
) -> Sampled:
    """Draw the samples that a frame still lacks.

    It returns the new ones, if the plan keeps them, and what was sent, so that no further frame is
    begun, either.

    Parameters
    ----------
    moments : RunningMoments
        Of the samples that are there already; the new ones are counted in.
    see : callable
        Is shown every new sample (Y, X). Yields before each of its steps.
    stop : Stop, optional
        What was sent while the frame was prepared.

    Yields
    ------
    Progress
        Before every tile, and after every step of the sampler, which may be one of several samples
        together. Sent `Stop.KEEP`, no further sample is begun, and unfinished ones are dropped
        unless one is the first of all.
    """
    # torch's decorator sets the mode at every resumption, and leaves it at every yield.
    drawing = _SampleDrawer(frame, moments, see, stop)
    if moments.count < frame.plan.samples:
        yield from drawing.draw()
    return drawing.kept, drawing.stop


class _SampleDrawer:
    """Draws the samples of one frame, and counts the evaluations that are finished."""

    def __init__(
        self,
        frame: FrameSampler,
        moments: RunningMoments,
        see: Callable[[np.ndarray], Iterable[str]],
        stop: Stop | None,
    ) -> None:
        self._frame, self._moments, self._see, self.stop = frame, moments, see, stop
        self._steps = frame.plan.steps
        self._total = frame.place.frames * frame.plan.samples * self._steps
        self._done = float(self._finished_before(range(moments.count, 0)))
        self.kept: list[np.ndarray] = []

    @property
    def _ended(self) -> bool:
        """Whether nothing more is wanted, and something is there to keep."""
        return self.stop is Stop.KEEP and bool(self._moments.count or self._frame.place.number)

    def _finished_before(self, group: range) -> int:
        return (self._frame.place.number * self._frame.plan.samples + group.start) * self._steps

    def _say(
        self,
        stage: str,
        done: float,
        view: Callable[[], FrameView] | None = None,
        *,
        frame_done: bool = False,
    ) -> Generator[Progress, Stop | None, None]:
        # A tile that is halved for want of memory is begun again.
        self._done = max(self._done, done)
        progress = Progress(
            stage=stage, done=self._done, total=self._total, view=view, frame_done=frame_done
        )
        self.stop = (yield progress) or self.stop

    def draw(self) -> Generator[Progress, Stop | None, None]:
        """Draw group after group, until all are there or the run is stopped."""
        frame = self._frame
        # The physics alone is something to see.
        yield from self._say("the first image", self._done, frame.first_view)
        start: Tensor | None = None
        query = frame.start()
        for group in frame.groups(self._moments.count):
            if self._ended:
                return
            if query is not None and start is None:
                start = yield from self._evaluate(*query, group, 1)
                if start is None:
                    return
            yield from self._draw_group(group, start)

    def _draw_group(
        self, group: range, start: Tensor | None
    ) -> Generator[Progress, Stop | None, None]:
        frame, before = self._frame, self._finished_before(group)
        queries = frame.queries(group)
        query: tuple[Tensor, Tensor] | None = next(queries)
        for step in range(1, self._steps + 1):
            assert query is not None  # one for each step
            clean = (
                start.expand(len(group), -1, -1, -1)
                if step == 1 and start is not None
                else (yield from self._evaluate(*query, group, step))
            )
            if clean is None:
                return
            if step == self._steps:
                for number, (sample, one) in enumerate(zip(group, clean.split(1), strict=True)):
                    done = before + (step - 1) * len(group) + number
                    yield from self._finish_sample(one, sample, done)
                    if self._ended:
                        break
                return
            yield from self._say(
                frame.stage(group, f"step {step} of {self._steps}"),
                before + step * len(group),
                partial(frame.view, self._moments, clean[:1], group.start),
            )
            if self._ended:
                return
            query = None  # not kept beside the next one
            query = next_query(queries, clean)

    def _evaluate(
        self, noisy: Tensor, neg_log_gamma: Tensor, group: range, step: int
    ) -> Generator[Progress, Stop | None, Tensor | None]:
        """The clean estimates of one step; None where the run was stopped."""
        before = self._finished_before(group) + (step - 1) * len(group)

        def said(tile: Tile) -> tuple[str, float]:
            words = self._frame.stage(group, tile_words(tile), f"step {step} of {self._steps}")
            # A finished tile is a fraction of an evaluation.
            return words, before + len(group) * (tile[0] - 1) / tile[1]

        return (yield from self._follow(self._frame.clean(noisy, neg_log_gamma), said))

    def _follow(
        self, work: Generator[Item, None, Result], said: Callable[[Item], tuple[str, float]]
    ) -> Generator[Progress, Stop | None, Result | None]:
        """What comes of some work; None where the run was stopped.

        `said` makes stage and evaluations done of what the work yields.
        """
        while True:
            try:
                item = next(work)
            except StopIteration as end:
                found: Result = end.value
                return found
            yield from self._say(*said(item))
            if self._ended:
                work.close()
                return None

    def _finish_sample(
        self, clean: Tensor, sample: int, done: float
    ) -> Generator[Progress, Stop | None, None]:
        """Make the image of a last clean estimate, and count it."""
        frame, moments, alone = self._frame, self._moments, range(sample, sample + 1)
        image = yield from self._follow(
            frame.image(clean, sample), lambda stage: (frame.stage(alone, stage), done)
        )
        if image is None:
            return
        moments.add(image)
        for stage in self._see(image):  # a sample that is kept is checked to the end
            yield from self._say(frame.stage(alone, f"the check, {stage}"), done)
        self.kept += [image] if frame.plan.keep_samples else []
        yield from self._say(
            frame.stage(alone),
            done + 1,
            partial(frame.view, moments, clean, sample),
            frame_done=moments.count == frame.plan.samples,
        )
