"""Statistics of a whole image that are needed before a part of it is reconstructed.

The image is read once, band by band, and never kept.
"""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_cvdm.core.intensity import is_far_from_zero, measured_box, unclipped_mean, without_edge
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.request import ImageStack
from napari_cvdm.core.result import name_stages
from napari_cvdm.core.tiling import Block, BlockPlan
from napari_cvdm.io import Fingerprint, ImageFileError
from napari_cvdm.io.limits import open_arrays
from napari_cvdm.io.read import window_of
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.reconstruction.sampling import FrameIndex, FrameSampler
from napari_cvdm.tasks import (
    Background,
    GlobalStatistics,
    NetworkInput,
    SampledPlane,
    Task,
    sampled_lines,
)
from napari_cvdm.tasks.task import LARGEST_SAMPLE_PX, fitting

BAND_PX = 1 << 23  # 32 MiB of float32
BOXES = "measured"  # beside the names of a task's own numbers
Box = tuple[slice, slice]
SURVEYED_BLOCKS = 16


def bands(shape: tuple[int, int], chunk: int) -> Iterator[slice]:
    """Rows to read together: whole chunks, about BAND_PX pixels."""
    rows = max(1, BAND_PX // (shape[1] * chunk)) * chunk
    return (slice(top, min(shape[0], top + rows)) for top in range(0, shape[0], rows))


def sample_plane(
    plan: Plan, task: Task, frame: tuple[int, ...], plane: int, fingerprint: Fingerprint
) -> tuple[SampledPlane, Box]:
    """Read a plane once, in C order: its sample, its mean, and its bytes for the fingerprint.

    With it comes what was measured of it, which is all but a border of zeros, see
    `measured_pixels`. ImageFileError where measured pixels are all alike, or there are none.
    """
    image, background = plan.image, plan.background
    shape = (image.array.shape[-2], image.array.shape[-1])
    rows, columns = sampled_lines(shape[0], shape[1]), sampled_lines(shape[1], shape[0])
    kept, known, total, count, low, high = [], [], 0.0, 0, np.inf, -np.inf
    seen_rows, seen_columns, not_zero = [], np.zeros(shape[1], bool), 0
    # Whole chunks, so that none is read and unpacked twice.
    chunks = getattr(image.array, "chunksize", None)
    for band in bands(shape, int(chunks[-2]) if chunks else 1):
        pixels = window_of(_one_plane(image, plane), frame, band, slice(0, shape[1]))[0]
        fingerprint.add(pixels)
        measured = np.isfinite(pixels)
        seen = pixels[measured]
        if seen.size:
            low, high = min(low, seen.min()), max(high, seen.max())
            # In float64: a plane has too many counts for the digits of float32.
            total, count = total + float(seen.sum(dtype=np.float64)), count + seen.size
        has_light = pixels != 0
        seen_rows.append(has_light.any(axis=1))
        seen_columns |= has_light.any(axis=0)
        not_zero += int(np.count_nonzero(has_light))
        chosen = rows[(rows >= band.start) & (rows < band.stop)]
        place = np.ix_(chosen - band.start, columns)
        kept.append(pixels[place])
        known.append(measured[place])
    if not low < high:
        raise ImageFileError(
            f"{image.source}: plane {plane + 1} of frame {frame} is constant (every measured pixel "
            f"is {low:g}); give an image with something in it."
        )
    # The border is known only now, so the sample was taken with it.
    sample, where = np.concatenate(kept), np.concatenate(known)
    whole = len(rows) == shape[0] and len(columns) == shape[1]
    box: Box = (slice(0, shape[0]), slice(0, shape[1]))
    border = measured_box(np.concatenate(seen_rows), seen_columns, not_zero)
    if border is not None:
        inner = without_edge(border, shape)
        within = where & in_box(inner, rows, columns)
        rest = SampledPlane(pixels=np.where(within, sample, np.nan), whole=whole, mean=0.0)
        if is_far_from_zero(rest.pixels, rest.noise_sigma()):
            box, where = inner, within
            # Zeros of the border were counted, and added nothing to the total.
            count -= shape[0] * shape[1] - math.prod(one.stop - one.start for one in border)
    drawn = np.where(where, sample, np.nan).astype(np.float64)
    if not isinstance(background, str):
        blank = background if background.ndim == 2 else background[plane]
        drawn = task.without(drawn, blank[np.ix_(rows, columns)].astype(np.float64))
    mean = unclipped_mean(sample[where], total / count)
    return SampledPlane(pixels=drawn, whole=whole, mean=mean), box


def in_box(box: Box, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Which pixels of these rows and columns lie in a box, bool of shape (rows, columns)."""
    inside = [
        (one.start <= lines) & (lines < one.stop)
        for one, lines in zip(box, (rows, columns), strict=True)
    ]
    return np.logical_and.outer(*inside)


def without_border(pixels: np.ndarray, boxes: Sequence[Box], first: tuple[int, int]) -> np.ndarray:
    """A part (P, y, x) whose first pixel is `first`, NaN outside of the box of each plane."""
    rows, columns = (
        start + np.arange(size) for start, size in zip(first, pixels.shape[1:], strict=True)
    )
    inside = np.stack([in_box(box, rows, columns) for box in boxes])
    # Most parts touch no border, and are not copied.
    return pixels if inside.all() else np.where(inside, pixels, np.nan)


def _one_plane(image: ImageStack, plane: int) -> ImageStack:
    if "P" not in image.axes:
        return image
    return ImageStack(
        array=image.array[..., plane, :, :], axes=image.axes.replace("P", ""), source=image.source
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockReader:
    """Reads one frame of a request part by part; see `tasks.FrameReader`."""

    plan: Plan
    layout: BlockPlan
    frame_number: int
    boxes: Sequence[Box]

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X) of the frame."""
        return self.layout.shape

    def part(self, rows: slice, columns: slice) -> tuple[np.ndarray, Background]:
        """Pixels (P, y, x), and the same part of the background image where there is one."""
        background = self.plan.background
        if not isinstance(background, str):
            background = background[..., rows, columns].astype(np.float64)
        pixels = window_of(self.plan.image, self.layout.frames[self.frame_number], rows, columns)
        return without_border(pixels, self.boxes, (rows.start, columns.start)), background

    def bands(self, multiple: int) -> Iterator[tuple[np.ndarray, Background]]:
        """Parts of shape (P, rows, X) from top to bottom."""
        return (self.part(rows, slice(0, self.shape[1])) for rows in bands(self.shape, multiple))

    def windows(
        self, count: int
    ) -> Iterator[tuple[np.ndarray, Background, tuple[int, int], tuple[slice, slice]]]:
        """At most `count` windows, evenly drawn."""
        for block in surveyed_blocks(self.layout, self.frame_number, count):
            yield (
                *self.part(*block.window),
                (block.rows.read_start, block.columns.read_start),
                (block.rows.inner(), block.columns.inner()),
            )


def measure_frame_statistics(
    plan: Plan, task: Task, layout: BlockPlan, frame_number: int, fingerprint: Fingerprint
) -> "Generator[str, None, BorderedBlocks]":
    """The numbers of one frame that must be global, but for the rate of the networks."""
    if not isinstance(plan.background, str):
        # Its shape and pixels are checked against a view of one zero, which needs no memory.
        shape = (plan.image.planes or 1, *layout.shape)
        fitting(plan.background, np.broadcast_to(np.float32(0), shape))
    frame = layout.frames[frame_number]
    found = []
    for plane in range(plan.image.planes or 1):
        yield f"plane {plane + 1}"
        found.append(sample_plane(plan, task, frame, plane, fingerprint))
    planes, boxes = zip(*found, strict=True)
    reader = BlockReader(plan=plan, layout=layout, frame_number=frame_number, boxes=boxes)
    blocks = yield from task.measure_statistics(planes, plan, reader)
    return BorderedBlocks(blocks=blocks, boxes=boxes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BorderedBlocks:
    """Global statistics of a frame whose planes may have a border that nobody measured."""

    blocks: GlobalStatistics
    boxes: Sequence[Box]

    @classmethod
    def of_numbers(cls, numbers: Mapping[str, np.ndarray], task: Task) -> "BorderedBlocks":
        """What was kept in a file."""
        known = dict(numbers)
        boxes = tuple(
            (slice(top, bottom), slice(left, right))
            for top, bottom, left, right in known.pop(BOXES).tolist()
        )
        return cls(blocks=task.blocks(known), boxes=boxes)

    def prepare(
        self, frame: np.ndarray, background: Background, first: tuple[int, int]
    ) -> Generator[str, None, NetworkInput]:
        """Prepare a part, see `GlobalStatistics`."""
        measured = without_border(frame, self.boxes, first)
        return (yield from self.blocks.prepare(measured, background, first))

    @property
    def level(self) -> float:
        """Level of the output [its unit] over the whole frame."""
        return self.blocks.level

    def numbers(self) -> dict[str, np.ndarray]:
        """All of it, for a file."""
        sides = [[rows.start, rows.stop, cols.start, cols.stop] for rows, cols in self.boxes]
        return {**self.blocks.numbers(), BOXES: np.array(sides, int)}


def surveyed_blocks(
    layout: BlockPlan, frame_number: int, count: int = SURVEYED_BLOCKS
) -> list[Block]:
    """At most `count` blocks of a frame, evenly drawn."""
    per_frame = layout.count // len(layout.frames)
    drawn = np.linspace(0, per_frame - 1, min(per_frame, count)).round().astype(int)
    numbers = set((frame_number * per_frame + drawn).tolist())
    return [block for block in layout.blocks() if block.number in numbers]


def median_rate(
    frames: Iterator[Generator[str, None, FrameSampler]], count: int
) -> Generator[str, None, float]:
    """Median of lambda(x) over `count` parts, of at most LARGEST_SAMPLE_PX pixels in all.

    It sets the sampler's grid for all parts alike. Each part is prepared when its turn comes.
    """
    pooled = []
    for number, beginning in enumerate(frames, start=1):
        frame = yield from name_stages(f"part {number} of {count}", beginning)
        rate = frame.rate_map
        step = int(np.ceil(np.sqrt(rate.size * count / LARGEST_SAMPLE_PX)))
        pooled.append(rate[::step, ::step].ravel())
    return float(torch.from_numpy(np.concatenate(pooled)).median())


def begin_block(
    plan: Plan,
    network: CVDM,
    blocks: GlobalStatistics,
    block: Block,
    surroundings: int,
    grid_rate: float | None,
) -> Generator[str, None, FrameSampler]:
    """Read one part with what lies around it, and prepare it with the numbers of the whole."""
    pixels, background = window_of(plan.image, block.frame, *block.window), plan.background
    if not isinstance(background, str):
        background = background[(..., *block.window)]
    first = block.rows.read_start, block.columns.read_start
    prepared = yield from blocks.prepare(pixels, background, first)
    # A part begins on the network's own grid, or the pixels would depend on the blocks.
    step = network.config.condition_fold * network.config.alignment
    prepared = prepared.within(block.core, step, surroundings)
    place = FrameIndex(block.frame, block.frame_number, block.frame_number + 1)
    return (yield from FrameSampler.begin(plan, network, prepared, place, grid_rate))


def pack_numbers(blocks: GlobalStatistics, grid_rate: float) -> bytes:
    """Global statistics, arrays only, as the content of an NPZ file."""
    file = BytesIO()
    arrays: dict[str, Any] = {"grid_rate": np.asarray(grid_rate), **blocks.numbers()}
    np.savez(file, **arrays)
    return file.getvalue()


def unpack_numbers(content: bytes, task: Task) -> GlobalStatistics:
    """What this process packed with `pack_numbers`."""
    with np.load(BytesIO(content), allow_pickle=False) as arrays:
        return BorderedBlocks.of_numbers(arrays, task)


def load_numbers(path: Path, task: Task) -> tuple[GlobalStatistics, float]:
    """Global statistics that were kept, and the rate of the sampler's grid."""
    with open_arrays(path) as kept:
        return BorderedBlocks.of_numbers(kept, task), float(kept["grid_rate"])
