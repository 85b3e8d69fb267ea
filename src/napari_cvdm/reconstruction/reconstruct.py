"""From a request and a model to a reconstruction with its posterior spread."""

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch

from napari_cvdm.checks.plane_warnings import plane_warnings
from napari_cvdm.checks.quality_flag import with_quality_flag
from napari_cvdm.checks.run_checks import RunChecks
from napari_cvdm.checks.training_range import (
    axes_warnings,
    beyond_trained_range,
    far_from_training,
    lens_warnings,
    optics_warnings,
)
from napari_cvdm.core.device import pick_device
from napari_cvdm.core.plane_positions import count_planes, z_step_warning
from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.core.result import Progress, Reconstruction, Stop
from napari_cvdm.core.statistics import RunningMoments
from napari_cvdm.io import combine_planes
from napari_cvdm.models.checkpoint import Checkpoint, CheckpointError, ModelCard
from napari_cvdm.models.schedule import clock_curve, clock_device, gamma_and_beta
from napari_cvdm.models.tiled import network_on
from napari_cvdm.reconstruction.precision import resolve_precision
from napari_cvdm.reconstruction.provenance import ProvenanceRecorder, check_continues, model_entry
from napari_cvdm.reconstruction.sampling import FrameSampler, sample_frame
from napari_cvdm.tasks import TASKS, NetworkInput, Task
from napari_cvdm.tasks.conditioned import BORDER_PX

CLOCK_POINTS = 100
STOPPED_UNEVENLY = (
    "stopped:"  # how the warning of a result begins whose frames have different numbers of samples
)
SINGLE_ANSWER = "a single answer: it has no spread."
_OME_AXES = "TZC"
ReconstructionRun = Generator[Progress, Stop | None, Reconstruction]


def frame_indices(image: ImageStack) -> Iterator[tuple[int, ...]]:
    """Index of every frame: all combinations of the axes that are not P, Y or X."""
    return product(
        *(
            range(size)
            for size, axis in zip(image.array.shape, image.axes, strict=True)
            if axis not in "PYX"
        )
    )


def frame_axes(image: ImageStack) -> str:
    """The axes that are looped over."""
    return "".join(axis for axis in image.axes if axis not in "PYX")


def check_planes(image: ImageStack, task: Task) -> None:
    """Check the plane axis of an image.

    Raises
    ------
    RequestError
        The plane axis is not just before YX, or the task takes another number of planes.
    """
    if "P" in image.axes and not image.axes.endswith("PYX"):
        raise RequestError(
            f"{image.source}: axes {image.axes}; the plane axis P must stand just before YX. Move "
            "it there with numpy.moveaxis."
        )
    planes = image.planes or 1
    more_are_allowed = task.planes > 1
    if planes < task.planes or (planes > task.planes and not more_are_allowed):
        needed = f"{task.planes} or more" if more_are_allowed else str(task.planes)
        raise RequestError(
            f"{image.source}: {planes} plane(s) of axes {image.axes}; {task.name} needs {needed}: "
            f"{task.inputs}."
        )


def check_psf(request: ReconstructionRequest, task: Task) -> None:
    """RequestError where a PSF is given to a task that deconvolves nothing."""
    if request.psf is not None and not getattr(task, "fine_channels", 0):
        raise RequestError(
            f"{request.psf.source}: {task.name} has no use for a measured PSF; leave --psf out, or "
            "choose widefield-x2 or richardson-lucy."
        )


def task_of(card: ModelCard) -> Task:
    """The task of a model, or of a method that has no network.

    Raises
    ------
    CheckpointError
        A task that this version does not know, or a network of another shape than the task's.
    """
    task = TASKS.get(card.task)
    if task is None:
        raise CheckpointError(
            f"{card.name}: task {card.task!r} is not known to this version; known are "
            f"{', '.join(TASKS)}. Update napari-cvdm."
        )
    if not card.network:
        return task
    config = card.config()
    if (config.condition_channels, config.upsampling) != (len(task.channels), task.upsampling):
        raise CheckpointError(
            f"{card.name}: its network does not fit the task {task.name}; the card belongs to "
            "another model. Copy the model again."
        )
    return task


def with_planes(
    stacks: Sequence[ImageStack], card: ModelCard, defocus_um: Sequence[float] | None = None
) -> ImageStack:
    """One image with all planes, its unnamed axis under a name that image files have.

    Parameters
    ----------
    stacks : sequence of ImageStack
        One stack, or one image for each plane.
    card : ModelCard
    defocus_um : sequence of float, optional
        The positions of the planes: a single stack must have an axis of as many planes.

    Raises
    ------
    RequestError, ImageFileError
        Too many or too few planes, or planes that do not fit together.
    """
    task = task_of(card)
    if task.planes > 1:
        image = combine_planes(*stacks, count=count_planes(task.planes, defocus_um))
    elif len(stacks) == 1:
        image = stacks[0]
    else:
        sources = " and ".join(stack.source for stack in stacks)
        raise RequestError(
            f"{len(stacks)} images were given ({sources}); {card.name} takes {task.inputs}. Give "
            "one image."
        )
    free = next((letter for letter in _OME_AXES if letter not in image.axes), "S")
    return replace(image, axes=image.axes.replace("S", free))


def reconstruct(
    request: ReconstructionRequest,
    model: Checkpoint,
    earlier: Reconstruction | None = None,
    *,
    check: bool = True,
) -> ReconstructionRun:
    """Sample the posterior of every frame of an image.

    Parameters
    ----------
    request : ReconstructionRequest
    model : Checkpoint
        Its card names the task.
    earlier : Reconstruction, optional
        A result of the same request with fewer samples. Its samples are counted in, and only the
        missing ones are drawn. The result is to the byte that of one longer run.
    check : bool
        Whether samples and mean are imaged again and compared with the measured image. A live image
        has no time for it.

    Yields
    ------
    Progress
        After every step of the sampler; stop iterating to cancel. Sent `Stop.KEEP`, it returns what
        is finished.

    Returns
    -------
    Reconstruction

    Raises
    ------
    RequestError, OpticsError, DeviceError
        What is wrong with the request, before any long work. What is wrong with a later frame is
        raised when its turn comes.
    CheckpointError
        A model that does not fit its task.
    """
    started = time.perf_counter()
    task, device = task_of(model.card), pick_device(request.device)
    image = request.image
    check_planes(image, task)
    check_psf(request, task)
    request = resolve_precision(request, None if earlier is None else earlier.provenance.settings)
    if earlier is not None:
        check_continues(request, model, earlier)
    # The checkpoint stays on the CPU, for others to use.
    network = network_on(model.network, device)
    record, indices = ProvenanceRecorder(request, model_entry(model)), list(frame_indices(image))
    arrays = _Arrays(request, task, earlier)
    findings = RunChecks(request, model.card, arrays.counts, earlier, check=check)
    for number, index in enumerate(indices):
        pixels = record.read(index)
        prepared, stop = yield from prepare_frame(
            task.prepare(pixels, request), request, number, len(indices)
        )
        findings.prepared(prepared)
        if request.region is not None:
            prepared = prepared.within(
                request.region, network.config.condition_fold * network.config.alignment
            )
        findings.begin(index, pixels, prepared)
        frame = FrameSampler.begin(request, network, prepared, index, number, len(indices))
        moments = arrays.moments(index)
        samples, stop = yield from sample_frame(frame, moments, findings.see, stop)
        arrays.fill(frame, moments, samples)
        if moments.count:
            findings.end(moments)
        record.finish(prepared.estimated, frame.tiled.tile)
        if stop is Stop.KEEP:  # what was not begun stays as it is
            break
    return _assembled(request, model, task, arrays, findings, record, time.perf_counter() - started)


def prepare_frame(
    steps: Generator[str, None, NetworkInput],
    request: ReconstructionRequest,
    number: int,
    frames: int,
) -> Generator[Progress, Stop | None, tuple[NetworkInput, Stop | None]]:
    """Prepare a frame, step by step; returns it and what was sent on the way."""
    stop, per_frame = None, request.samples * request.steps
    while True:
        try:
            stage = next(steps)
        except StopIteration as end:
            return end.value, stop
        which = f", frame {number + 1} of {frames}" if frames > 1 else ""
        stop = (
            yield Progress(
                stage=f"{stage}{which}", done=number * per_frame, total=frames * per_frame
            )
        ) or stop


class _Arrays:
    """The images of a result, filled frame by frame.

    Frames that were not begun are those of the earlier result, else zero and not trusted.
    """

    def __init__(
        self, request: ReconstructionRequest, task: Task, earlier: Reconstruction | None
    ) -> None:
        image = request.image
        loops = tuple(
            size
            for size, axis in zip(image.array.shape, image.axes, strict=True)
            if axis not in "PYX"
        )
        top, bottom, left, right = request.region or (
            0,
            image.array.shape[-2],
            0,
            image.array.shape[-1],
        )
        shape = (*loops, (bottom - top) * task.upsampling, (right - left) * task.upsampling)
        self.mean, self.variance, self.rate = (np.zeros(shape, np.float32) for _ in range(3))
        self.valid = np.zeros(shape, dtype=bool)
        self.counts = np.zeros(loops, dtype=int)
        self.samples = (
            np.zeros((request.samples, *shape), np.float32) if request.keep_samples else None
        )
        if earlier is not None:
            for name in ("mean", "variance", "rate", "valid", "counts"):
                getattr(self, name)[...] = getattr(earlier, name)
            if self.samples is not None and earlier.samples is not None:
                self.samples[: len(earlier.samples)] = earlier.samples

    def moments(self, index: tuple[int, ...]) -> RunningMoments:
        """Of one frame, as they are now."""
        return RunningMoments(self.mean[index], self.variance[index], int(self.counts[index]))

    def fill(self, frame: FrameSampler, moments: RunningMoments, samples: list[np.ndarray]) -> None:
        """Put one frame in; without a single sample it stays empty."""
        index, before = frame.index, int(self.counts[frame.index])
        self.counts[index] = moments.count
        if moments.count:
            self.mean[index], self.variance[index], self.rate[index], self.valid[index] = (
                moments.mean,
                moments.variance,
                frame.rate_map,
                frame.valid,
            )
        if self.samples is not None:
            for number, sample in enumerate(samples, start=before):
                self.samples[(number, *index)] = sample


def _assembled(
    request: ReconstructionRequest,
    model: Checkpoint,
    task: Task,
    arrays: _Arrays,
    findings: RunChecks,
    record: ProvenanceRecorder,
    seconds: float,
) -> Reconstruction:
    gamma, beta, times = schedule_maps(model, arrays.rate, request.schedule_points)
    beyond = beyond_trained_range(arrays.mean, model.card)
    said = (
        *axes_warnings(request.image),
        *optics_warnings(request, model.card),
        *z_step_warning(request),
        *plane_warnings(record.estimated),
    )
    unusable = unusable_warning(arrays.valid, arrays.counts)
    found = (
        *((beyond.reason,) if beyond.reason else ()),
        *single_answer(request, model),
        *findings.warnings(),
        *lens_warnings(record.estimated, model.card),
    )
    warnings = (*said, *found, *stopped_warning(arrays.counts, request.samples), *unusable)
    usable = not far_from_training(request, model.card)
    forward = findings.forward()
    light = findings.flag(forward, warnings, unusable, record.estimated)
    return Reconstruction(
        mean=arrays.mean,
        variance=arrays.variance,
        rate=arrays.rate,
        axes=frame_axes(request.image) + "YX",
        unit=task.unit,
        pixel_um=request.optics_value("pixel_um") / task.upsampling,
        upsampling=task.upsampling,
        valid=arrays.valid & ~beyond.mask & usable,
        provenance=with_quality_flag(record.provenance(warnings, seconds, arrays.counts), light),
        clock=clock_curve(model.network.clock, CLOCK_POINTS),
        gamma=gamma,
        beta=beta,
        times=times,
        samples=None
        if arrays.samples is None
        else arrays.samples[: int(arrays.counts.max(initial=0))],
        counts=arrays.counts,
        region=request.region,
        forward=forward,
    )


def single_answer(request: ReconstructionRequest, model: Checkpoint) -> tuple[str, ...]:
    """One sentence where no sample can differ from another.

    This is so for a regression, and for several samples of one step, the regression mean.
    """
    if not model.network.config.diffused:
        return (SINGLE_ANSWER,)
    alike = request.steps == 1 and request.samples > 1 and model.network.prediction.bounded
    return (
        (
            f"all {request.samples} samples are alike: one step gives the mean, without a spread; "
            "ask for 2 steps or more.",
        )
        if alike
        else ()
    )


def stopped_warning(counts: np.ndarray, asked: int) -> tuple[str, ...]:
    """One sentence where frames have fewer samples than were asked for."""
    if counts.min() >= asked:
        return ()
    if counts.min() == counts.max():
        return (f"stopped with {int(counts.max())} of {asked} samples.",)
    complete, empty = int((counts >= asked).sum()), int((counts == 0).sum())
    fewer = counts.size - complete - empty
    return (
        f"{STOPPED_UNEVENLY} of {counts.size} frames, {complete} with all {asked} samples, "
        f"{fewer} with fewer, and {empty} empty.",
    )


def unusable_warning(valid: np.ndarray, counts: np.ndarray) -> tuple[str, ...]:
    """One sentence where frames were reconstructed and not one of their pixels can be used."""
    if valid.any() or not counts.any():
        return ()
    return (
        f"no pixel can be trusted: each is saturated, dark, or within {BORDER_PX} px of the "
        "frame; give a larger or better exposed image.",
    )


def schedule_maps(
    model: Checkpoint, rate: np.ndarray, points: int
) -> tuple[np.ndarray | None, np.ndarray | None, tuple[float, ...]]:
    """gamma and beta of shape (K, ..., Y, X) at K times 1/K, 2/K, ..., 1; None without points."""
    if not points:
        return None, None, ()
    times = tuple((index + 1) / points for index in range(points))
    clock = model.network.clock
    device = clock_device(clock)
    with torch.inference_mode():
        maps = [
            gamma_and_beta(torch.from_numpy(rate).to(device), clock, moment) for moment in times
        ]
    gamma, beta = (np.stack([pair[part].cpu().numpy() for pair in maps]) for part in (0, 1))
    return gamma, beta, times
