"""From a request and a method to a reconstruction. Read this page first."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from typing import Any

import numpy as np
import torch

from napari_cvdm.baselines import FIRST_LOOKS, Baseline
from napari_cvdm.checks.forward_check import ForwardCheckAccumulator
from napari_cvdm.checks.plane_warnings import plane_warnings
from napari_cvdm.checks.run_checks import RunChecks, with_quality_flag
from napari_cvdm.checks.training_range import (
    axes_warnings,
    beyond_trained_range,
    far_from_training,
    lens_warnings,
    optics_warnings,
)
from napari_cvdm.core.plan import Plan, file_warnings, z_step_warning
from napari_cvdm.core.request import ReconstructionRequest, RequestError
from napari_cvdm.core.result import (
    NO_CLOCK,
    ClockCurve,
    FrameView,
    Progress,
    Reconstruction,
    Stop,
    finished,
)
from napari_cvdm.core.statistics import RunningMoments
from napari_cvdm.io import ImageFileError
from napari_cvdm.io.axes import read_frame
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.schedule import clock_curve
from napari_cvdm.models.tiled import network_on
from napari_cvdm.reconstruction.methods import load_method
from napari_cvdm.reconstruction.plan import resolve, task_of
from napari_cvdm.reconstruction.provenance import ProvenanceRecorder, check_continues
from napari_cvdm.reconstruction.sampling import (
    FinishedFramesKept,
    FrameIndex,
    FrameSampler,
    follow_stages,
    sample_frame,
)
from napari_cvdm.tasks import Task
from napari_cvdm.tasks.task import BORDER_PX, refine_mask

CLOCK_POINTS = 100
# How the warning of a result begins whose frames have different numbers of samples.
STOPPED_UNEVENLY = "stopped:"
SINGLE_ANSWER = "a single answer: it has no spread."
ReconstructionRun = Generator[Progress, Stop | None, Reconstruction]


def reconstruct(
    request: ReconstructionRequest,
    method: Checkpoint | Baseline | None = None,
    earlier: Reconstruction | None = None,
    *,
    check: bool = True,
) -> ReconstructionRun:
    """Reconstruct every frame of an image with a model or with a classical method.

    Parameters
    ----------
    method : Checkpoint or Baseline, optional
        What `load_method` gives for the model of the request, which is loaded where it is left out.
        Its card names the task.
    earlier : Reconstruction, optional
        A result of the same request with fewer samples. Its samples are counted in, and only the
        missing ones are drawn. The result is to the byte that of one longer run.
    check : bool
        Whether samples and mean of a model are imaged again and compared with the measured image. A
        live image has no time for it.

    Yields
    ------
    Progress
        Before every tile, and before every step of what prepares a frame. Stop iterating to cancel:
        nothing more is computed. Sent `Stop.KEEP`, it returns what is finished.

    Returns
    -------
    Reconstruction
        Of a classical method: one sample, rate zero, no schedule.

    Raises
    ------
    RequestError, OpticsError, DeviceError
        What is wrong with the request, before any long work. What is wrong with a later frame is
        raised when its turn comes.
    CheckpointError
        A model that does not fit its task.
    """
    started = time.perf_counter()
    method = load_method(request.model) if method is None else method
    task = task_of(method.card)
    solver: FrameSolver
    if isinstance(method, Baseline):
        if earlier is not None:
            raise RequestError(
                f"{method.name} gives a single answer, so no samples can be added. Use a model for "
                "a spread."
            )
        # No network, no choice of precision.
        plan = resolve(replace(request, precision="fp32"), task)
        plan = replace(plan, samples=1, schedule_points=0)  # one answer, and no schedule
        checks, solver = None, ClassicalSolver(plan, method)
    else:
        plan = resolve(request, task, None if earlier is None else earlier.provenance.settings)
        if earlier is not None:
            check_continues(plan, method, earlier)
        checks = RunChecks(plan, method.card, earlier, check=check)
        solver = NetworkSolver(plan, task, method, checks)
    record, arrays = ProvenanceRecorder(plan, method), ResultArrays(plan, task, earlier)
    skipped = yield from _solve_frames(plan, solver, record, arrays)
    # A skipped frame has no samples, but nobody stopped it.
    tried = np.array(
        [count for index, count in np.ndenumerate(arrays.counts) if index not in skipped]
    )
    beyond = beyond_trained_range(arrays.mean, method.card)
    unusable = unusable_warning(arrays.valid, arrays.counts)
    warnings = (
        *file_warnings(plan),
        *axes_warnings(plan.image),
        *optics_warnings(plan, method.card),
        *z_step_warning(plan),
        *plane_warnings(record.estimated),
        *((beyond.reason,) if beyond.reason else ()),
        *solver.warnings(),
        *lens_warnings(record.estimated, method.card),
        *stopped_warning(tried, plan.samples),
        *unmeasured_warning(record.estimated),
        *(f"{reason} The frame was skipped." for reason in skipped.values()),
        *unusable,
    )
    provenance = record.provenance(warnings, time.perf_counter() - started, tried)
    points, forward = plan.schedule_points, None
    if checks is not None:
        forward = checks.forward()
        # After all warnings, since the flag weighs them.
        flag = checks.flag(forward, warnings, unusable, record.estimated)
        provenance = with_quality_flag(provenance, flag)
    return Reconstruction(
        mean=arrays.mean,
        variance=arrays.variance,
        rate=arrays.rate,
        axes=plan.image.loop_axes + "YX",
        unit=task.unit,
        pixel_um=plan.pixel_um / task.upsampling,
        upsampling=task.upsampling,
        valid=arrays.valid & ~beyond.mask & (not far_from_training(plan, method.card)),
        provenance=provenance,
        clock=solver.clock(CLOCK_POINTS),
        # The times as they are written, not as the clock takes them, in float32.
        schedule_clock=replace(
            solver.clock(points), times=tuple((number + 1) / points for number in range(points))
        ),
        samples=arrays.kept_samples(),
        counts=arrays.counts,
        region=plan.region,
        forward=forward,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Answers of several methods to one request.

    Parameters
    ----------
    answers : tuple of Reconstruction
        Each with its forward check.
    refused : mapping of str to str
        Why a method could not be used, by its name.
    """

    answers: tuple[Reconstruction, ...]
    refused: Mapping[str, str]


def compare_methods(
    request: ReconstructionRequest, names: Sequence[str]
) -> Generator[Progress, Stop | None, Comparison]:
    """Reconstruct an image with several methods, one after the other, and image each answer again.

    The model of the request says how the image was formed. `names` are models and classical methods
    of the same task.
    """
    card = load_method(request.model).card
    task, answers = task_of(card), list[Reconstruction]()
    refused: dict[str, str] = {}
    for name in names:
        asked = replace(request, model=name, keep_samples=False, schedule_points=0)
        try:
            method = load_method(name)
            if isinstance(method, Baseline):
                asked = replace(asked, samples=1)
            answers.append((yield from reconstruct(asked, method)))
        except ValueError as error:  # of one method, which costs no other
            refused[name] = str(error)
    plan = resolve(request, task)
    checks = [ForwardCheckAccumulator(plan, card, None) for _ in answers]
    shape = plan.image.loop_shape
    for number, index in enumerate(np.ndindex(shape) if answers else ()):
        place, pixels = FrameIndex(index, number, prod(shape)), read_frame(plan.image, index)
        prepared, _ = yield from follow_stages(task.prepare(pixels, plan), place, "the check: ")
        if plan.region is not None:
            prepared = prepared.within(plan.region, 1)  # no network, so no grid to meet
        for check, answer in zip(checks, answers, strict=True):
            moments = RunningMoments(answer.mean[index], answer.variance[index], 1)
            for steps in (check.begin(index, prepared), check.end(moments)):
                yield from follow_stages(steps, place, "the check: ")
    pairs = zip(answers, checks, strict=True)
    return Comparison(
        answers=tuple(replace(answer, forward=check.result()) for answer, check in pairs),
        refused=refused,
    )


def _solve_frames(
    plan: Plan, solver: "FrameSolver", record: ProvenanceRecorder, arrays: "ResultArrays"
) -> Generator[Progress, Stop | None, dict[tuple[int, ...], Exception]]:
    """Solve frame after frame; the faults of those that were skipped, by their index.

    One bad frame of a movie costs no other. Where all are bad, so is the request.
    """
    indices = list(product(*(range(size) for size in plan.image.loop_shape)))
    skipped: dict[tuple[int, ...], Exception] = {}
    for number, index in enumerate(indices):
        moments = arrays.moments(index)
        try:
            solved, stop = yield from solver.solve(
                record.read(index), FrameIndex(index, number, len(indices)), moments
            )
        except FinishedFramesKept:
            break
        except (RequestError, ImageFileError) as error:
            skipped[index] = error
            # What a first frame shows of the request holds for all frames.
            bad_request = number == 0 and isinstance(error, RequestError)
            if bad_request or len(skipped) == len(indices):
                raise skipped[indices[0]] from None
            record.skip(str(error))
            continue
        arrays.fill(index, moments, solved)
        record.finish(solved.estimated, solved.tile)
        if stop is Stop.KEEP:  # what was not begun stays as it is
            break
    return skipped


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SolvedFrame:
    """One frame, solved; its moments were updated in place.

    Parameters
    ----------
    valid : ndarray of shape (uY, uX), bool
    rate : ndarray of shape (uY, uX), optional
        None without a schedule.
    samples : list of ndarray
        New posterior samples, where they are kept.
    estimated : mapping
        What was estimated from the frame.
    tile : int
        Side of the tiles that were used [px].
    """

    valid: np.ndarray = field(repr=False)
    rate: np.ndarray | None = field(default=None, repr=False)
    samples: list[np.ndarray] = field(default_factory=list, repr=False)
    estimated: dict[str, object]
    tile: int


Solving = Generator[Progress, Stop | None, tuple[SolvedFrame, Stop | None]]


class FirstLook:
    """What a fast classical method makes of a frame, to be seen once while the frame is inverted.

    Nothing is computed unless somebody looks.
    """

    def __init__(self, plan: Plan, task: Task, pixels: np.ndarray, place: FrameIndex) -> None:
        self._plan, self._task, self._pixels, self._place = plan, task, pixels, place
        self._method = FIRST_LOOKS.get(task.name)

    def offer(self) -> Callable[[], FrameView] | None:
        """`view`, until it was called."""
        return None if self._method is None else self.view

    def view(self) -> FrameView:
        """The frame, solved; without samples, schedule and valid pixels."""
        method, self._method = self._method, None
        shape = [(part.stop - part.start) * self._task.upsampling for part in self._plan.window]
        empty = np.zeros(shape, np.float32)
        moments = RunningMoments(empty, empty)
        if method is not None:
            with suppress(ValueError):  # the inversion will say what is wrong
                finished(
                    ClassicalSolver(self._plan, method).solve(self._pixels, self._place, moments)
                )
        return FrameView(
            index=self._place.index,
            samples=0,
            mean=moments.mean,
            variance=empty,
            rate=empty,
            valid=empty.astype(bool),
        )


class NetworkSolver:
    """Draws posterior samples with a model, and checks them."""

    def __init__(self, plan: Plan, task: Task, model: Checkpoint, checks: RunChecks) -> None:
        self._plan, self._task, self._model, self._checks = plan, task, model, checks
        # The checkpoint stays on the CPU, for others to use.
        self._network = network_on(model.network, torch.device(plan.device))

    def clock(self, points: int) -> ClockCurve:
        """The clock of the model at so many times."""
        return clock_curve(self._model.network.clock, points)

    def solve(self, pixels: np.ndarray, place: FrameIndex, moments: RunningMoments) -> Solving:
        """Prepare one frame (P, Y, X) once, then draw all its samples, and count them in."""
        plan, config = self._plan, self._network.config
        steps = plan.samples * plan.steps
        preparing = self._task.prepare(pixels, plan)
        look = FirstLook(plan, self._task, pixels, place)
        # Later frames have those before them to be seen, and more samples the earlier ones.
        first = place.number == 0 and not moments.count
        prepared, stop = yield from follow_stages(
            preparing, place, steps=steps, offer=look.offer if first else lambda: None
        )
        self._checks.prepared(prepared)
        if plan.region is not None:
            prepared = prepared.within(plan.region, config.condition_fold * config.alignment)
        beginning = self._checks.begin(place.index, prepared)
        _, checked = yield from follow_stages(beginning, place, "the check, ", steps)
        sampler = FrameSampler.begin(plan, self._network, prepared, place)
        frame, begun = yield from follow_stages(sampler, place, steps=steps)
        stop = begun or checked or stop  # sent in any of the stages
        samples, stop = yield from sample_frame(frame, moments, self._checks.see, stop)
        for stage in self._checks.end(moments) if moments.count else ():
            stop = (
                yield Progress(
                    stage=f"the check, {stage}{place.suffix}",
                    done=(place.number + 1) * steps,
                    total=place.frames * steps,
                )
            ) or stop
        return SolvedFrame(
            valid=frame.valid,
            rate=frame.rate_map,
            samples=samples,
            estimated=dict(prepared.estimated),
            tile=frame.tiled.tile,
        ), stop

    def warnings(self) -> tuple[str, ...]:
        """Samples that are alike, and what the checks found before sampling."""
        return (*single_answer(self._plan, self._model), *self._checks.warnings())


class ClassicalSolver:
    """Solves frames with a method that has no network."""

    def __init__(self, plan: Plan, method: Baseline) -> None:
        self._plan, self._method, self._has_spread = plan, method, False

    def clock(self, points: int) -> ClockCurve:
        """There is none."""
        return NO_CLOCK

    def solve(self, pixels: np.ndarray, place: FrameIndex, moments: RunningMoments) -> Solving:
        """One answer; the part of it that was asked for is kept."""
        answer, stop = yield from follow_stages(
            self._method.solve(pixels, self._plan), place, prefix=f"{self._method.name}: "
        )
        fine = answer.image.shape[-1] // answer.valid.shape[-1]
        rows, columns = (slice(fine * part.start, fine * part.stop) for part in self._plan.window)
        moments.count, moments.mean = 1, answer.image[rows, columns]
        if answer.variance is not None:
            moments.variance, self._has_spread = answer.variance[rows, columns], True
        return SolvedFrame(
            valid=refine_mask(answer.valid, fine)[rows, columns],
            samples=[moments.mean] if self._plan.keep_samples else [],
            estimated=dict(answer.estimated),
            tile=self._plan.tile,
        ), stop

    def warnings(self) -> tuple[str, ...]:
        """What the method cannot use of the plan, and that it has no spread."""
        alone = () if self._has_spread else (f"{self._method.name} is {SINGLE_ANSWER}",)
        return (*alone, *self._method.warnings(self._plan))


FrameSolver = NetworkSolver | ClassicalSolver
"""Reconstructs the frames of a plan one by one."""


class ResultArrays:
    """The images of a result, filled frame by frame.

    Frames that were not begun are those of the earlier result, else zero and not trusted.
    """

    def __init__(self, plan: Plan, task: Task, earlier: Reconstruction | None) -> None:
        loops = plan.image.loop_shape
        shape = (*loops, *((part.stop - part.start) * task.upsampling for part in plan.window))
        self.mean, self.variance, self.rate = (np.zeros(shape, np.float32) for _ in range(3))
        self.valid = np.zeros(shape, dtype=bool)
        self.counts = np.zeros(loops, dtype=int)
        self._samples = np.zeros((plan.samples, *shape), np.float32) if plan.keep_samples else None
        if earlier is not None:
            for name in ("mean", "variance", "rate", "valid", "counts"):
                getattr(self, name)[...] = getattr(earlier, name)
            if self._samples is not None and earlier.samples is not None:
                self._samples[: len(earlier.samples)] = earlier.samples

    def moments(self, index: tuple[int, ...]) -> RunningMoments:
        """Of one frame, as they are now."""
        return RunningMoments(self.mean[index], self.variance[index], int(self.counts[index]))

    def fill(self, index: tuple[int, ...], moments: RunningMoments, solved: SolvedFrame) -> None:
        """Put one frame in; without a single sample it stays empty."""
        before = int(self.counts[index])  # new samples are numbered from here on
        self.counts[index] = moments.count
        if moments.count:
            self.mean[index], self.variance[index] = moments.mean, moments.variance
            self.valid[index] = solved.valid
            if solved.rate is not None:
                self.rate[index] = solved.rate
        if self._samples is not None:
            for number, sample in enumerate(solved.samples, start=before):
                self._samples[(number, *index)] = sample

    def kept_samples(self) -> np.ndarray | None:
        """As many samples as the frame with the most has; None where they are not kept."""
        return None if self._samples is None else self._samples[: int(self.counts.max(initial=0))]


def single_answer(plan: Plan, model: Checkpoint) -> tuple[str, ...]:
    """One sentence where no sample can differ from another.

    This is so for a regression, and for several samples of one step, the regression mean.
    """
    if not model.network.config.diffused:
        return (SINGLE_ANSWER,)
    if plan.steps > 1 or plan.samples == 1 or not model.network.prediction.bounded:
        return ()
    return (
        f"all {plan.samples} samples are alike: one step gives the mean, without a spread; "
        "ask for 2 steps or more.",
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


def unmeasured_warning(frames: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """One sentence where pixels were never measured: NaN, or blocks of zeros."""
    share = max((float(frame.get("unmeasured_share", 0.0)) for frame in frames), default=0.0)
    if not share:
        return ()
    return (
        f"{share:.1%} of the pixels were never measured (NaN, or blocks of zeros); they have no "
        "weight, and nothing about them can be trusted.",
    )


def unusable_warning(valid: np.ndarray, counts: np.ndarray) -> tuple[str, ...]:
    """One sentence where frames were reconstructed and not one of their pixels can be used."""
    if valid.any() or not counts.any():
        return ()
    return (
        f"no pixel can be trusted: each is saturated, dark, or within {BORDER_PX} px of the "
        "frame; give a larger or better exposed image.",
    )
