"""Images that are larger than the memory, reconstructed block by block from file to file.

Each block is computed once, and a killed job continues where it stopped.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar
from zipfile import is_zipfile

import numpy as np
import torch

from napari_cvdm import __version__
from napari_cvdm.checks.forward_check import LIMIT
from napari_cvdm.checks.plane_warnings import plane_warnings
from napari_cvdm.checks.run_checks import (
    contradicted,
    estimated_optics,
    guessed,
    quality_flag,
    with_quality_flag,
)
from napari_cvdm.checks.training_range import (
    axes_warnings,
    beyond_trained_range,
    beyond_warning,
    far_from_training,
    lens_warnings,
    optics_warnings,
)
from napari_cvdm.core.plan import Plan, file_warnings, z_step_warning
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import ForwardCheck, Progress, map_steps, name_stages
from napari_cvdm.core.statistics import RunningMoments
from napari_cvdm.core.tiling import Block, BlockPlan
from napari_cvdm.io import Fingerprint, ImageFileError
from napari_cvdm.io.atomic import write_file
from napari_cvdm.io.folders import JobFolder, begin_job, finish_job, growing_folder
from napari_cvdm.io.result_folder import PROVENANCE
from napari_cvdm.io.zarr_write import (
    Grid,
    GridImage,
    build_pyramid,
    create_images,
    open_level,
    sample_axis,
)
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.schedule import clock_curve
from napari_cvdm.models.tiled import channels_last
from napari_cvdm.out_of_core.global_statistics import (
    begin_block,
    load_numbers,
    measure_frame_statistics,
    median_rate,
    pack_numbers,
    surveyed_blocks,
    unpack_numbers,
)
from napari_cvdm.out_of_core.job import BlockJob
from napari_cvdm.reconstruction.plan import resolve, settings_of, task_of
from napari_cvdm.reconstruction.provenance import NO_UNIT, make_provenance, provenance_record
from napari_cvdm.reconstruction.reconstruct import CLOCK_POINTS, single_answer
from napari_cvdm.reconstruction.sampling import FrameIndex, follow_stages, sample_frame
from napari_cvdm.tasks import GlobalStatistics, Task

Result = TypeVar("Result")
FREE_TO_CHANGE = ("device", "tile")  # they change the cost, and no pixel beyond rounding
_ORDER = "TCZ"
NOT_CHECKED = "the result was made block by block and not checked against the measured image."
NOT_ALIGNED = (
    "a shift between the planes is not looked for block by block; reconstruct a --region into a "
    "folder to see whether they fit."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockResult:
    """The OME-Zarr that was made and its groups.

    `earlier` of its blocks were done by an earlier run.
    """

    path: Path
    images: tuple[str, ...]
    blocks: int
    earlier: int
    warnings: tuple[str, ...] = field(default=())


class BlockReconstructor:
    """Reconstructs and writes single blocks of one job; one for each process.

    The job grows in the folder `path`. `begun` has the settings of the same job that was begun
    before. `inputs` is the state of the inputs when it was planned, else that of now.
    """

    def __init__(
        self,
        job: BlockJob,
        model: Checkpoint,
        path: Path,
        begun: Mapping[str, Any] | None = None,
        inputs: str | None = None,
    ) -> None:
        self.job, self.model, self.folder = job, model, JobFolder(path)
        self.inputs = inputs or job.state_of_inputs()
        self.task = task_of(model.card)
        self.plan = resolve(job.request, self.task, begun)
        self.layout = job.layout(self.task.context_px)
        # A copy: a model that was loaded once stays on the CPU, for others.
        self._network = channels_last(deepcopy(model.network), torch.device(self.plan.device))
        self._usable = not far_from_training(self.plan, model.card)
        self._surveys: dict[int, tuple[GlobalStatistics, float]] = {}

    def numbers_path(self, frame_number: int) -> Path:
        """Where the global statistics of a frame are kept."""
        return self.folder.notes / "frames" / f"{frame_number}.npz"

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read the image; ImageFileError if an input changes before the block ends.

        It is looked at first, too: a mapped file that became shorter must not be touched.
        """
        self._check_inputs()
        try:
            yield
        finally:
            self._check_inputs()

    def _check_inputs(self) -> None:
        if self.job.state_of_inputs() != self.inputs:
            raise ImageFileError(
                f"{', '.join(self.job.inputs)}: changed while the blocks were computed; leave the "
                "files as they are, and start the job again."
            )

    def measure_statistics(
        self, frame_number: int, fingerprint: Fingerprint
    ) -> Generator[str, None, GlobalStatistics]:
        """What must be global of one frame, but for the rate: the image is read once."""
        with self.reading():
            return (
                yield from measure_frame_statistics(
                    self.plan, self.task, self.layout, frame_number, fingerprint
                )
            )

    def keep_statistics(
        self, blocks: GlobalStatistics, frame_number: int
    ) -> Generator[str, None, None]:
        """Find the rate that sets the sampler's grid, and keep the statistics for every process."""
        chosen = surveyed_blocks(self.layout, frame_number)
        parts = (
            begin_block(self.plan, self._network, blocks, block, self.job.halo, None)
            for block in chosen
        )
        with self.reading():
            rate = yield from median_rate(parts, len(chosen))
        path = self.numbers_path(frame_number)
        write_file(path, pack_numbers(blocks, rate), within=self.folder.path)

    def run_block(self, block: Block) -> Generator[Progress, None, dict[str, Any]]:
        """Reconstruct a block, write it, and mark it as done; the result is what the marker says.

        Yields Progress before every tile, and before every step of what prepares the block.
        """
        blocks, grid_rate = self._survey_of(block.frame_number)
        with self.reading():
            frame, _ = yield from follow_stages(
                begin_block(self.plan, self._network, blocks, block, self.job.halo, grid_rate),
                FrameIndex(block.frame, block.frame_number, block.frame_number + 1),
                steps=self.plan.samples * self.plan.steps,
            )
        shape = frame.valid.shape
        moments = RunningMoments(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        samples, _ = yield from sample_frame(frame, moments)
        beyond = beyond_trained_range(moments.mean, self.model.card, blocks.level)
        images = {"mean": moments.mean, "std": np.sqrt(moments.variance), "rate": frame.rate_map}
        images["valid"] = (frame.valid & ~beyond.mask & self._usable).astype(np.uint8)
        for name, pixels in images.items():
            self._write(name, block.frame, block, pixels)
        place = sample_axis(self.plan.image.loop_axes)
        for number, sample in enumerate(samples):
            index = (*block.frame[:place], number, *block.frame[place:])
            self._write("samples", index, block, sample)
        said = {
            "tile": frame.tiled.tile,
            "beyond": int(beyond.mask.sum()),
            "usable": int(images["valid"].sum()),
            "frame": block.frame_number,
            "estimated": dict(frame.prepared.estimated),
        }
        # Last: a marker on the disk says that the chunks are there, too.
        self.folder.mark(block.name, said)
        return said

    def _survey_of(self, frame_number: int) -> tuple[GlobalStatistics, float]:
        if frame_number not in self._surveys:
            # One frame is kept: blocks come frame by frame.
            self._surveys = {frame_number: load_numbers(self.numbers_path(frame_number), self.task)}
        return self._surveys[frame_number]

    def _write(self, name: str, index: tuple[int, ...], block: Block, pixels: np.ndarray) -> None:
        open_level(self.folder.path, name)[(*index, *block.written(self.task.upsampling))] = pixels


# Carries out the blocks that are left, here or on a cluster; counts network evaluations.
Executor = Callable[[BlockReconstructor, Sequence[Block]], Generator[Progress, None, None]]


def run_serial(
    reconstructor: BlockReconstructor, left: Sequence[Block]
) -> Generator[Progress, None, None]:
    """In this process."""
    each = reconstructor.plan.samples * reconstructor.plan.steps
    for number, block in enumerate(left):
        for step in reconstructor.run_block(block):
            yield Progress(
                stage=f"block {number + 1} of {len(left)}, {step.stage}",
                # A block counts the frames before its own as done.
                done=number * each + step.done - block.frame_number * each,
                total=len(left) * each,
            )


def reconstruct_by_blocks(
    job: BlockJob, model: Checkpoint, executor: Executor = run_serial
) -> Generator[Progress, None, BlockResult]:
    """Reconstruct an image that does not fit the memory.

    The image is read twice. The first pass finds what must be global: dark level or background,
    intensity, noise, the fingerprint. The second reconstructs it block by block with a halo. Noise
    belongs to absolute pixels, so the pixels depend neither on the order of the blocks nor on the
    executor. Blocks of an earlier run with the same plan are not computed again.

    Raises
    ------
    RequestError, OpticsError, DeviceError, ImageFileError
        What is wrong with the request, the image or the folder.
    """
    started = time.perf_counter()
    task = task_of(model.card)
    resolve(job.request, task)  # what is wrong with the request is said before a folder is made
    folder = growing_folder(job.out, job.overwrite)
    reconstructor = BlockReconstructor(job, model, folder.path, _begun_settings(job, model, folder))
    yield from _prepare(reconstructor, folder)
    plan, layout = reconstructor.plan, reconstructor.layout
    done = folder.marks()
    left = [block for block in layout.blocks() if block.name not in done]
    yield from executor(reconstructor, left)
    images, grid = images_of(plan, task), grid_of(plan, task, layout)
    # Now only: a block is a part of a coarse chunk, and a chunk has one writer.
    for image in images:
        build_pyramid(folder.path, image, grid)
    record = provenance_of(plan, model, folder, job, layout, time.perf_counter() - started)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    folder.write(PROVENANCE, text.encode("utf-8", "replace"))  # a name of a file need not be text
    finish_job(folder, job.out, job.overwrite)
    earlier, names = layout.count - len(left), tuple(image.name for image in images)
    return BlockResult(
        path=Path(job.out),
        images=names,
        blocks=layout.count,
        earlier=earlier,
        warnings=tuple(record["warnings"]),
    )


def _prepare(
    reconstructor: BlockReconstructor, folder: JobFolder
) -> Generator[Progress, None, None]:
    """Read the image once, compare the plan with what was begun, and keep what must be global."""
    job, plan, layout = reconstructor.job, reconstructor.plan, reconstructor.layout
    task, frames = reconstructor.task, len(layout.frames)
    done = folder.marks()
    left = sum(block.name not in done for block in layout.blocks())
    total = max(1, left * plan.samples * plan.steps)
    fingerprint = Fingerprint(plan.image.array)
    # The plan is known only when every frame was read, and many surveys are too much to hold. A
    # file without a name is gone after a kill.
    with TemporaryFile() as file:
        ends = [0]
        for number in range(frames):
            reading = f"reading frame {number + 1} of {frames}"
            yield Progress(stage=reading, done=0, total=total)
            work = reconstructor.measure_statistics(number, fingerprint)
            measured = yield from _as_progress(reading, work, total)
            file.write(pack_numbers(measured, np.nan))
            ends.append(file.tell())
        begun = planned(job, plan.settings, reconstructor.model, fingerprint.value)
        begin_job(folder, begun, overwrite=job.overwrite)
        images, grid = images_of(plan, task), grid_of(plan, task, layout)
        create_images(folder.path, images, grid, {"version": __version__})
        for number, (begin, end) in enumerate(pairwise(ends)):
            if not is_zipfile(reconstructor.numbers_path(number)):  # missing, or cut short
                file.seek(begin)
                kept = unpack_numbers(file.read(end - begin), task)
                surveying = f"surveying frame {number + 1} of {frames}"
                survey = reconstructor.keep_statistics(kept, number)
                yield from _as_progress(surveying, survey, total)


def _as_progress(
    name: str, work: Generator[str, None, Result], total: int
) -> Generator[Progress, None, Result]:
    """The stages of some work before the first of `total` evaluations; each begins with `name`."""
    stages = name_stages(name, work)
    return map_steps(stages, lambda stage: Progress(stage=stage, done=0, total=total))


def _begun_settings(
    job: BlockJob, model: Checkpoint, folder: JobFolder
) -> Mapping[str, Any] | None:
    """Settings of the same job that was begun before, whatever its precision.

    None where there is no job, or another one.
    """
    before = folder.plan()
    settings = before.get("settings")
    if not isinstance(settings, dict):
        return None
    now = json.loads(json.dumps(planned(job, settings_of(job.request), model, "")))
    # Whether it is the same is known only when all of it was read.
    now["image"] = before.get("image")
    now["settings"]["precision"] = settings.get("precision")
    return settings if before == now else None


def planned(
    job: BlockJob, settings: Mapping[str, Any], model: Checkpoint, pixels_sha256: str
) -> dict[str, Any]:
    """All that the pixels depend on."""
    image = job.request.image
    return {
        "version": __version__,
        "image": {
            "shape": list(image.array.shape),
            "axes": image.axes,
            "dtype": str(image.array.dtype),
            "sha256": pixels_sha256,
        },
        "model": {
            "name": model.card.name,
            "sha256": model.sha256,
            "noise_scale": model.network.config.noise_scale,
        },
        "settings": {name: value for name, value in settings.items() if name not in FREE_TO_CHANGE},
        "block": job.block,
        "halo": job.halo,
    }


def images_of(plan: Plan, task: Task) -> tuple[GridImage, ...]:
    """Mean, std, rate and valid, and the samples where they are kept.

    RequestError for axes that NGFF cannot hold.
    """
    image, letters = plan.image, list(plan.image.loop_axes)
    # NGFF has one axis that is neither time nor space, and samples take it.
    others = [axis for axis in letters if axis not in "TZ"]
    if (
        len(others) > 1
        or (others and plan.keep_samples)
        or letters != sorted(letters, key="TCSZ".index)
    ):
        raise RequestError(
            f"{image.source}: axes {image.axes} do not fit OME-Zarr; give T, one of C or S, and Z "
            "in that order, and no C with --keep-samples."
        )
    leading = tuple(
        (axis.lower() if axis in _ORDER else "other", size)
        for axis, size in zip(letters, image.loop_shape, strict=True)
    )
    units = {"mean": task.unit, "std": task.unit, "rate": NO_UNIT}
    images = [
        GridImage(name=name, dtype="float32", unit=unit, leading=leading)
        for name, unit in units.items()
    ]
    images.append(GridImage(name="valid", dtype="uint8", unit=NO_UNIT, leading=leading))
    if plan.keep_samples:
        place = sample_axis(image.loop_axes)
        leading = (*leading[:place], ("sample", plan.samples), *leading[place:])
        sampled = GridImage(name="samples", dtype="float32", unit=task.unit, leading=leading)
        images.append(sampled)
    return tuple(images)


def grid_of(plan: Plan, task: Task, layout: BlockPlan) -> Grid:
    """Size, chunks and place of the output: a finer grid starts half a pixel before the input's."""
    pixel_um, place = plan.pixel_um / task.upsampling, plan.image.place
    shift = (task.upsampling - 1) / 2 * pixel_um
    return Grid(
        shape=(layout.shape[0] * task.upsampling, layout.shape[1] * task.upsampling),
        chunk=layout.chunk(task.upsampling),
        pixel_um=pixel_um,
        first_um=(place.get("y_um", 0.0) - shift, place.get("x_um", 0.0) - shift),
        place=place,
        channels=plan.image.channels,
    )


def provenance_of(
    plan: Plan,
    model: Checkpoint,
    folder: JobFolder,
    job: BlockJob,
    layout: BlockPlan,
    seconds: float,
) -> dict[str, Any]:
    """Everything needed to make the same pixels again, and reasons to doubt them.

    The blocks are not checked against the measured image.
    """
    marks = folder.marks()
    # The blocks of a frame share the numbers.
    estimated = {said["frame"]: said["estimated"] for said in marks.values()}
    frames = [estimated[number] for number in sorted(estimated)]
    warnings = _warnings(plan, model, marks, layout, frames)
    provenance = make_provenance(
        plan,
        model,
        folder.plan()["image"]["sha256"],
        frames,
        min(said["tile"] for said in marks.values()),
        np.array(plan.samples),
        warnings,
        seconds,
    )
    task = task_of(model.card)
    # Each reason once, the gravest first.
    grave = (*optics_warnings(plan, model.card), *contradicted(plan))
    guesses = guessed(plan, task.unit, frames)
    flag = quality_flag(
        grave,
        guesses,
        [one for one in provenance.warnings if one not in (*grave, *guesses)],
        ForwardCheck(limit=LIMIT, verdict=NOT_CHECKED),
    )
    output = {
        "unit": task.unit,
        "axes": plan.image.loop_axes + "YX",
        "pixel_um": plan.pixel_um / task.upsampling,
        "clock": asdict(clock_curve(model.network.clock, CLOCK_POINTS)),
        "blocks": {"block": job.block, "halo": job.halo},
    }
    return provenance_record(with_quality_flag(provenance, flag), output, None, plan.device)


def _warnings(
    plan: Plan,
    model: Checkpoint,
    marks: Mapping[str, Mapping[str, Any]],
    layout: BlockPlan,
    frames: list[Mapping[str, Any]],
) -> tuple[str, ...]:
    warnings = [
        *file_warnings(plan),
        *axes_warnings(plan.image),
        *optics_warnings(plan, model.card),
        *z_step_warning(plan),
        *single_answer(plan, model),
    ]
    beyond, usable = (sum(said[name] for said in marks.values()) for name in ("beyond", "usable"))
    pixels = layout.shape[0] * layout.shape[1] * model.card.config().upsampling ** 2
    warnings += [*estimated_optics(frames), *lens_warnings(frames, model.card)]
    warnings += plane_warnings(frames)
    if beyond:
        share = beyond / (len(layout.frames) * pixels)
        warnings.append(beyond_warning(share, model.card))
    if not usable:
        warnings.append(
            "no pixel can be trusted: each is saturated, dark, near the edge, or the optics are "
            "far from the training."
        )
    warnings += [NOT_ALIGNED] if "P" in plan.image.axes and plan.register else []
    return tuple(warnings)
