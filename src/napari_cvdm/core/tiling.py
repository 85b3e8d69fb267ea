"""Tiles of an image for a network, and blocks of an image that is larger than the memory.

Both are integers and slices: a cheap plan that the expensive step only follows. This module does
not import torch, so that a form can ask for the largest block without loading it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

# Of noise blocks and of every network's grid: origins at multiples of it meet both.
BLOCK_STEP_PX = 64
LARGEST_CHUNK_PX = 1024
BLOCK_PX = 1024
HALO_PX = 128


@dataclass(frozen=True, slots=True)
class Span:
    """Range that one tile reads and writes along one axis, in pixels of the canvas.

    read_start <= start < stop <= read_stop.
    """

    read_start: int
    start: int
    stop: int
    read_stop: int

    def read(self, factor: int = 1) -> slice:
        """What is read, on a grid `factor` times finer."""
        return slice(self.read_start * factor, self.read_stop * factor)

    def write(self, factor: int = 1) -> slice:
        """What is written."""
        return slice(self.start * factor, self.stop * factor)

    def inner(self, factor: int = 1) -> slice:
        """What is written, within what was read."""
        return slice(
            (self.start - self.read_start) * factor, (self.stop - self.read_start) * factor
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePlan:
    """All tiles of one canvas.

    Parameters
    ----------
    canvas : tuple of int
        (Y, X) of the image, padded to the alignment.
    tiles : tuple of (Span, Span)
        Rows and columns of each tile; the written parts cover the canvas once.
    """

    canvas: tuple[int, int]
    tiles: tuple[tuple[Span, Span], ...]


def aligned_size(size: int, alignment: int) -> int:
    """The smallest multiple of `alignment` that is not below `size`."""
    return -(-size // alignment) * alignment


def plan_tiles(shape: tuple[int, int], *, tile: int, halo: int, alignment: int) -> TilePlan:
    """Cut an image into square tiles.

    Parameters
    ----------
    shape : tuple of int
        (Y, X) of the image, any size.
    tile : int
        Side of the part that a tile writes, rounded up to the alignment.
    halo : int
        Pixels read around it, a multiple of the alignment and at least the receptive field.
    alignment : int
        Tile origins are multiples of this, so that every tile meets the network's own grid.

    Raises
    ------
    ValueError
        The halo is not a multiple of the alignment.
    """
    if halo % alignment:
        raise ValueError(f"halo is {halo}; it must be a multiple of the alignment, {alignment}.")
    height, width = (aligned_size(size, alignment) for size in shape)
    side = aligned_size(tile, alignment)

    def spans(size: int) -> list[Span]:
        edges = [*range(0, size, side), size]
        return [
            Span(max(0, start - halo), start, stop, min(size, stop + halo))
            for start, stop in pairwise(edges)
        ]

    return TilePlan(canvas=(height, width), tiles=tuple(product(spans(height), spans(width))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One job of a large image.

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
    """All blocks of one image, each computed by itself and written in whole chunks.

    Parameters
    ----------
    loops : tuple of int
        Sizes of the axes that are looped over.
    shape : tuple of int
        (Y, X) of a frame.
    block, halo : int
        Side of what one job writes and pixels read around it [px of the input], multiples of
        BLOCK_STEP_PX.

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
        off_grid = self.block % BLOCK_STEP_PX or self.halo % BLOCK_STEP_PX
        if self.block < BLOCK_STEP_PX or self.halo < 0 or off_grid:
            raise ValueError(
                f"block is {self.block} px and halo {self.halo} px; both must be multiples of "
                f"{BLOCK_STEP_PX}, as 1024 and 192 are."
            )

    def reach(self, axis: int) -> int:
        """Extent of every window along an axis: block, halos and remainder, or the whole image."""
        size = self.shape[axis]
        # The remainder lets the last window, moved inward, start on the grid, too.
        return min(size, self.block + 2 * self.halo + size % BLOCK_STEP_PX)

    def spans(self, axis: int) -> tuple[Span, ...]:
        """Reads and writes along one axis, in equal windows, moved inward at the image's edges."""
        size, reach = self.shape[axis], self.reach(axis)
        starts = range(0, size, self.block)
        firsts = [max(0, min(start - self.halo, size - reach)) for start in starts]
        return tuple(
            Span(first, start, min(size, start + self.block), first + reach)
            for first, start in zip(firsts, starts, strict=True)
        )

    @property
    def frames(self) -> tuple[tuple[int, ...], ...]:
        """Index of every frame."""
        return tuple(product(*map(range, self.loops)))

    @property
    def count(self) -> int:
        """Number of blocks in all frames."""
        return len(self.frames) * len(self.spans(0)) * len(self.spans(1))

    def blocks(self) -> Iterator[Block]:
        """Every block in order."""
        places = product(enumerate(self.frames), self.spans(0), self.spans(1))
        for number, ((frame_number, frame), rows, columns) in enumerate(places):
            yield Block(
                number=number, frame=frame, frame_number=frame_number, rows=rows, columns=columns
            )

    def chunk(self, factor: int) -> int:
        """Side of a chunk of an output `factor` times finer; a job writes whole chunks."""
        side = self.block * factor
        # A chunk that divides the block is written by one job alone.
        return next(
            side // parts
            for parts in range(1, side + 1)
            if side % parts == 0 and side // parts <= LARGEST_CHUNK_PX
        )
