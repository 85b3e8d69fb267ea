"""One frame: prepared once, then as many posterior samples as are wanted."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.core.device import autocast
from napari_cvdm.core.noise import FRAME_SEED_STRIDE
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.result import FrameView, Progress, Stop
from napari_cvdm.core.statistics import RunningMoments
from napari_cvdm.diffusion.sampler import SAMPLERS, Sampling, clock_grid, uniform_time_grid
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.models.tiled import TiledModel
from napari_cvdm.tasks import NetworkInput
from napari_cvdm.tasks.task import refine_mask

SAMPLES_TOGETHER = 4
PIXELS_TOGETHER = 1 << 20  # no step of several samples takes longer than one of a 1024 x 1024 image
Result = TypeVar("Result")
Sampled = Generator[Progress, Stop | None, tuple[list[np.ndarray], Stop | None]]


def samples_together(pixels: int) -> int:
    """How many samples of an image of so many (output) pixels go through the sampler together.

    They share schedule and noise level.
    """
    return max(1, min(SAMPLES_TOGETHER, PIXELS_TOGETHER // pixels))


def sample_groups(first: int, samples: int, together: int) -> Iterator[range]:
    """Samples `first`, ..., `samples` - 1, so many of them together."""
    return (
        range(start, min(samples, start + together)) for start in range(first, samples, together)
    )


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


def follow_stages(
    work: Generator[str, None, Result], place: FrameIndex, prefix: str = "", steps: int = 1
) -> Generator[Progress, Stop | None, tuple[Result, Stop | None]]:
    """Turn the stages of work on one frame, named in words, into progress of `steps` a frame.

    Returns
    -------
    result
        Of the work.
    stop : Stop, optional
        What was sent on the way.
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
            )
        ) or stop


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
    ) -> "FrameSampler":
        """Evaluate what does not depend on the sample.

        Without a `grid_rate`, it is the median of the frame's own rate.
        """
        device = network.residual_scale.device
        tiled = TiledModel(network, prepared.valid.shape, plan.tile)
        condition = tiled.padded_condition(prepared.channels[None].to(device))
        with autocast(device, plan.precision):
            mean_residual = tiled.mean_residual(condition)
            features = network.features(condition, mean_residual)
            std = tiled.residual_std(features)
        rate, (height, width) = tiled.rate(features), prepared.initial_estimate.shape
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
            grid_rate=float(rate[0, 0, :height, :width].median())
            if grid_rate is None
            else grid_rate,
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
        return self.place.number * FRAME_SEED_STRIDE + sample

    def _noise(self, samples: range, step: int) -> Tensor:
        shape, seed, origin = (
            (self.rate.shape[-2], self.rate.shape[-1]),
            self.plan.seed,
            self.prepared.origin,
        )
        return self.tiled.network.noise(
            shape, [self._stream(sample) for sample in samples], step, seed, origin
        )

    def clock_values(self) -> tuple[float, ...]:
        """Falling clock values T at which the denoiser is evaluated."""
        if self.plan.sampler == "ancestral":
            return uniform_time_grid(self.tiled.network.clock, self.plan.steps, self.rate.device)
        return clock_grid(self.grid_rate, self.plan.steps)

    @torch.inference_mode()
    def start(self) -> Tensor | None:
        """The clean estimate (1, 1, uY, uX) at T = 1, the same for all samples.

        None where each sample needs its own.

        A sample starts from pure noise, so the denoiser can only return the regression mean. It is
        evaluated once, with the noise of the first sample. For a denoiser that predicts eps, this
        estimate is its error over a = exp(-lambda / 2), which differs between samples.
        """
        if not self.tiled.network.prediction.bounded:
            return None
        return self._clean(self._noise(range(1), 0), self.rate * self.clock_values()[0])

    def steps(self, samples: range, start: Tensor | None) -> Sampling:
        """The clean estimates of a group of posterior samples, (S, 1, uY, uX), step by step.

        `start` is the first of them, where it is known.
        """
        first = None if start is None else start.expand(len(samples), -1, -1, -1)
        return SAMPLERS[self.plan.sampler](
            self._clean, self.rate, self.clock_values(), partial(self._noise, samples), first
        )

    def _clean(self, noisy: Tensor, neg_log_gamma: Tensor) -> Tensor:
        with autocast(noisy.device, self.plan.precision):
            return self.tiled.clean(noisy, neg_log_gamma, self.first_layer_features)

    def groups(self, first: int) -> Iterator[range]:
        """The samples from `first` on, in groups.

        The very first sample is alone, so that a result can be shown and kept soon.
        """
        alone = int(first == 0 and self.place.number == 0)
        yield from (range(1),) * alone
        yield from sample_groups(
            first + alone, self.plan.samples, samples_together(self.rate.numel())
        )

    @torch.inference_mode()
    def image(self, clean: Tensor, sample: int) -> np.ndarray:
        """A clean estimate (1, 1, uY, uX) in output units: float32 (Y, X).

        What the physics leaves open is drawn into it.

        A preview of one step is a regression: nothing is drawn.
        """
        decoded = self.tiled.network.decode(
            clean, self.initial_estimate, self.mean_residual, self.std
        )
        image = (self._cropped(decoded) * self.prepared.gain).float().cpu().numpy()
        posterior = self.prepared.posterior
        if posterior is not None:
            image = (
                posterior.refine(image, self._stream(sample))
                if self.plan.steps > 1
                else posterior.blend(image)
            )
        return self.prepared.kept(image)

    def stage(self, samples: range) -> str:
        """What is being done, in words."""
        which = (
            f"sample {samples.stop}"
            if len(samples) == 1
            else f"samples {samples.start + 1} to {samples.stop}"
        )
        return f"{which} of {self.plan.samples}{self.place.suffix}"

    def first_view(self) -> FrameView:
        """The physical estimate, before there is a sample."""
        estimate = self.prepared.estimate
        return FrameView(
            index=self.place.index,
            samples=0,
            mean=estimate,
            variance=np.zeros_like(estimate),
            rate=self.rate_map,
            valid=self.valid,
        )

    def view(self, moments: RunningMoments, clean: Tensor, sample: int) -> FrameView:
        """What there is to see: the finished samples, or the first one in the making."""
        mean = moments.mean if moments.count else self.image(clean, sample)
        return FrameView(
            index=self.place.index,
            samples=moments.count,
            mean=mean,
            variance=moments.variance,
            rate=self.rate_map,
            valid=self.valid,
        )


@torch.inference_mode()
def sample_frame(
    frame: FrameSampler,
    moments: RunningMoments,
    see: Callable[[np.ndarray], None] = lambda image: None,
    stop: Stop | None = None,
) -> Sampled:
    """Draw the samples that a frame still lacks.

    Parameters
    ----------
    moments : RunningMoments
        Of the samples that are there already; the new ones are counted in.
    see : callable
        Is shown every new sample (Y, X).
    stop : Stop, optional
        What was sent while the frame was prepared.

    Yields
    ------
    Progress
        After every step of the sampler, which may be one of several samples together. Sent
        `Stop.KEEP`, no further sample is begun, and unfinished ones are dropped unless one is the
        first of all.

    Returns
    -------
    samples : list of ndarray
        The new ones, if the plan keeps them.
    stop : Stop, optional
        What was sent, so that no further frame is begun, either.
    """
    plan = frame.plan
    kept: list[np.ndarray] = []
    total = frame.place.frames * plan.samples * plan.steps
    if (
        moments.count < plan.samples and frame.prepared.posterior is not None
    ):  # the physics is something to see
        stop = (
            yield Progress(
                stage="the first image",
                done=frame.place.number * plan.samples * plan.steps,
                total=total,
                view=frame.first_view,
            )
        ) or stop
    start = frame.start() if moments.count < plan.samples else None
    for group in frame.groups(moments.count):
        done = (frame.place.number * plan.samples + group.start) * plan.steps
        for step, clean in enumerate(frame.steps(group, start), start=1):
            last = step == plan.steps
            for sample, one in zip(group, clean.split(1), strict=True) if last else ():
                image = frame.image(one, sample)
                moments.add(image)
                see(image)
                kept += [image] if plan.keep_samples else []
            view = partial(frame.view, moments, clean[:1], group.start)
            now = Progress(
                stage=frame.stage(group),
                done=done + step * len(group),
                total=total,
                view=view,
                frame_done=last and moments.count == plan.samples,
            )
            stop = (yield now) or stop
            if stop is Stop.KEEP and (moments.count or frame.place.number):
                return kept, stop
    return kept, stop
