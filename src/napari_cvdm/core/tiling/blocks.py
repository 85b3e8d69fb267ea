"""Blocks of an image that is larger than the memory.

Each block is computed by itself and written in whole chunks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from napari_cvdm.core.tiling.span import Span

BLOCK_STEP_PX = (
    64  # of noise blocks and of every network's grid: origins at multiples of it meet both
)
LARGEST_CHUNK_PX = 1024
BLOCK_PX = 1024
HALO_PX = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One job.

    Parameters
    ----------
    number : int
        Counted over all frames.
    frame : tuple of int
        Along the axes that are looped over.
    frame_number : int
    rows, columns : Span
        What is read and what is written, in pixels of the input.
    """

    number: int
    frame: tuple[int, ...]
    frame_number: int
    rows: Span
    columns: Span

    @property
    def name(self) -> str:
        """For people and for file names: frame and first pixel, such as ``f0-y1024-x2048``."""
        return f"f{self.frame_number}-y{self.rows.start}-x{self.columns.start}"

    @property
    def window(self) -> tuple[slice, slice]:
        """What is read."""
        return self.rows.read(), self.columns.read()

    @property
    def core(self) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) of what is written, within what is read."""
        rows, columns = self.rows.inner(), self.columns.inner()
        return rows.start, rows.stop, columns.start, columns.stop

    def written(self, factor: int) -> tuple[slice, slice]:
        """What is written, on a grid `factor` times finer."""
        return self.rows.write(factor), self.columns.write(factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlan:
    """All jobs of one image: a cheap description, from which every job follows.

    Parameters
    ----------
    loops : tuple of int
        Sizes of the axes that are looped over.
    shape : tuple of int
        (Y, X) of a frame.
    block : int
        Side of what one job writes [px of the input], a multiple of BLOCK_STEP_PX.
    halo : int
        Pixels read around it, a multiple of BLOCK_STEP_PX.

    Raises
    ------
    ValueError
        A block or a halo that is no multiple.
    """

    loops: tuple[int, ...]
    shape: tuple[int, int]
    block: int
    halo: int

    def __post_init__(self) -> None:
        if (
            self.block < BLOCK_STEP_PX
            or self.block % BLOCK_STEP_PX
            or self.halo < 0
            or self.halo % BLOCK_STEP_PX
        ):
            raise ValueError(
                f"block is {self.block} px and halo {self.halo} px; both must be multiples of "
                f"{BLOCK_STEP_PX}, as 1024 and 192 are."
            )

    def reach(self, axis: int) -> int:
        """Extent of every window along an axis.

        It is the image's extent, or block and halos and what the image has beyond a multiple of
        BLOCK_STEP_PX.
        """
        size = self.shape[axis]
        return min(size, self.block + 2 * self.halo + size % BLOCK_STEP_PX)

    def spans(self, axis: int) -> tuple[Span, ...]:
        """Reads and writes along one axis.

        All windows are equally wide. Those at the image's edges are moved inward.
        """
        size, reach = self.shape[axis], self.reach(axis)
        firsts = [
            max(0, min(start - self.halo, size - reach)) for start in range(0, size, self.block)
        ]
        return tuple(
            Span(first, start, min(size, start + self.block), first + reach)
            for first, start in zip(firsts, range(0, size, self.block), strict=True)
        )

    @property
    def frames(self) -> tuple[tuple[int, ...], ...]:
        """Index of every frame."""
        return tuple(product(*map(range, self.loops)))

    @property
    def count(self) -> int:
        """Jobs."""
        return len(self.frames) * len(self.spans(0)) * len(self.spans(1))

    def blocks(self) -> Iterator[Block]:
        """Every job in order."""
        spans = tuple(product(self.spans(0), self.spans(1)))
        for frame_number, frame in enumerate(self.frames):
            for number, (rows, columns) in enumerate(spans, start=frame_number * len(spans)):
                yield Block(
                    number=number,
                    frame=frame,
                    frame_number=frame_number,
                    rows=rows,
                    columns=columns,
                )

    def chunk(self, factor: int) -> int:
        """Side of a chunk of an output `factor` times finer; a job writes whole chunks."""
        side = self.block * factor
        return next(
            side // parts
            for parts in range(1, side + 1)
            if side % parts == 0 and side // parts <= LARGEST_CHUNK_PX
        )
