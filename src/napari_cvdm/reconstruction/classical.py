"""A classical method over all frames of an image, with the result that a model would give."""

import time
from collections.abc import Generator
from dataclasses import replace

import numpy as np

from napari_cvdm.baselines.method import Answer, Baseline
from napari_cvdm.checks.plane_warnings import plane_warnings
from napari_cvdm.checks.training_range import axes_warnings
from napari_cvdm.core.plane_positions import position_warnings
from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.core.result import ClockCurve, Progress, Reconstruction, Stop
from napari_cvdm.reconstruction.provenance import ProvenanceRecorder
from napari_cvdm.reconstruction.reconstruct import (
    SINGLE_ANSWER,
    ReconstructionRun,
    check_planes,
    check_psf,
    frame_axes,
    frame_indices,
    task_of,
    unusable_warning,
)
from napari_cvdm.tasks import Task
from napari_cvdm.tasks.conditioned import refine_mask

NO_CLOCK = ClockCurve(times=(), values=(), speeds=())


def reconstruct_classically(request: ReconstructionRequest, method: Baseline) -> ReconstructionRun:
    """Solve every frame of an image.

    Parameters
    ----------
    request : ReconstructionRequest
        Its image, optics, background, alignment and region are used. Settings of noise or of a
        network's cost are not.
    method : Baseline

    Yields
    ------
    Progress
        Before each part of the work; stop iterating to cancel. Sent `Stop.KEEP`, it returns the
        frames that are finished.

    Returns
    -------
    Reconstruction
        One sample without a spread: variance and rate are zero, and there is no schedule.

    Raises
    ------
    RequestError, OpticsError
        What is wrong with the request, before any long work.
    """
    started = time.perf_counter()
    # No network, no choice: the result says what it was.
    request = replace(request, precision="fp32")
    task = task_of(method.card)
    check_planes(request.image, task)
    check_psf(request, task)
    record, indices = ProvenanceRecorder(request, method.entry), list(frame_indices(request.image))
    arrays = _Arrays(request, task)
    for number, index in enumerate(indices):
        answer, stop = yield from _solved(request, method, record.read(index), number, len(indices))
        arrays.fill(index, answer)
        record.finish(answer.estimated, max(answer.valid.shape))
        if stop is Stop.KEEP:
            break
    before = (*axes_warnings(request.image), *position_warnings(request), *method.warnings(request))
    found = (
        *before,
        *plane_warnings(record.estimated),
        *unusable_warning(arrays.valid, arrays.counts),
    )
    warnings = found if arrays.has_spread else (f"{method.name} is {SINGLE_ANSWER}", *found)
    return _assembled(request, task, arrays, record, warnings, time.perf_counter() - started)


def _solved(
    request: ReconstructionRequest, method: Baseline, pixels: np.ndarray, number: int, frames: int
) -> Generator[Progress, Stop | None, tuple[Answer, Stop | None]]:
    """The answer for one frame, and what was sent on the way."""
    work, stop = method.solve(pixels, request), None
    suffix = f", frame {number + 1} of {frames}" if frames > 1 else ""
    while True:
        try:
            stage = next(work)
        except StopIteration as end:
            return end.value, stop
        stop = (
            yield Progress(stage=f"{method.name}: {stage}{suffix}", done=number, total=frames)
        ) or stop


class _Arrays:
    """The images of the result, filled frame by frame.

    Frames that were not begun are zero and not trusted.
    """

    def __init__(self, request: ReconstructionRequest, task: Task) -> None:
        image, self._fine = request.image, task.upsampling
        loops = tuple(
            size
            for size, axis in zip(image.array.shape, image.axes, strict=True)
            if axis not in "PYX"
        )
        region = request.region or (0, image.array.shape[-2], 0, image.array.shape[-1])
        top, bottom, left, right = (border * self._fine for border in region)
        self._window = slice(top, bottom), slice(left, right)
        shape = (*loops, bottom - top, right - left)
        self.mean, self.variance = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.valid, self.counts = np.zeros(shape, dtype=bool), np.zeros(loops, dtype=int)
        self.has_spread = False

    def fill(self, index: tuple[int, ...], answer: Answer) -> None:
        """Put one frame in, or the part of it that was asked for."""
        self.mean[index] = answer.image[self._window]
        if answer.variance is not None:
            self.variance[index], self.has_spread = answer.variance[self._window], True
        self.valid[index] = refine_mask(answer.valid, self._fine)[self._window]
        self.counts[index] = 1


def _assembled(
    request: ReconstructionRequest,
    task: Task,
    arrays: _Arrays,
    record: ProvenanceRecorder,
    warnings: tuple[str, ...],
    seconds: float,
) -> Reconstruction:
    return Reconstruction(
        mean=arrays.mean,
        variance=arrays.variance,
        rate=np.zeros_like(arrays.mean),
        axes=frame_axes(request.image) + "YX",
        unit=task.unit,
        pixel_um=request.optics_value("pixel_um") / task.upsampling,
        upsampling=task.upsampling,
        valid=arrays.valid,
        provenance=record.provenance(warnings, seconds, arrays.counts),
        clock=NO_CLOCK,
        samples=arrays.mean[None].copy() if request.keep_samples else None,
        counts=arrays.counts,
        region=request.region,
    )
