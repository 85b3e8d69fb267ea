"""Where tiles are read and written: a cheap, pure plan that the expensive step only follows."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_cvdm.core.tiling.span import Span

Tile = tuple[Span, Span]


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
    tiles: tuple[Tile, ...]


def aligned_size(size: int, alignment: int) -> int:
    """The smallest multiple of `alignment` that is not below `size`."""
    return -(-size // alignment) * alignment


def _spans(size: int, tile: int, halo: int) -> tuple[Span, ...]:
    edges = [*range(0, size, tile), size]
    return tuple(
        Span(max(0, start - halo), start, stop, min(size, stop + halo))
        for start, stop in itertools.pairwise(edges)
    )


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

    Returns
    -------
    TilePlan

    Raises
    ------
    ValueError
        The halo is not a multiple of the alignment.
    """
    if halo % alignment:
        raise ValueError(f"halo is {halo}; it must be a multiple of the alignment, {alignment}.")
    height, width = (aligned_size(size, alignment) for size in shape)
    side = aligned_size(tile, alignment)
    return TilePlan(
        canvas=(height, width),
        tiles=tuple(
            (rows, columns)
            for rows in _spans(height, side, halo)
            for columns in _spans(width, side, halo)
        ),
    )


def map_tiles(
    function: Callable[..., Tensor], images: Sequence[Tensor], plan: TilePlan, *, factor_out: int
) -> Tensor:
    """Apply a local function tile by tile.

    Parameters
    ----------
    function : callable
        Tensors (B, C, factor y, factor x) -> tensor (B, C', factor_out y, factor_out x).
    images : sequence of Tensor
        Arguments, each on a grid that is a whole multiple of the plan's canvas.
    plan : TilePlan
    factor_out : int
        Output pixels to one canvas pixel.

    Returns
    -------
    Tensor of shape (B, C', factor_out Y, factor_out X)
    """
    if len(plan.tiles) == 1:
        return function(*images)
    result: Tensor | None = None
    for rows, columns in plan.tiles:
        parts = [
            image[..., rows.read(_factor(image, plan)), columns.read(_factor(image, plan))]
            for image in images
        ]
        part = function(*parts)
        if result is None:
            result = part.new_empty(
                *part.shape[:-2], plan.canvas[0] * factor_out, plan.canvas[1] * factor_out
            )
        result[..., rows.write(factor_out), columns.write(factor_out)] = part[
            ..., rows.inner(factor_out), columns.inner(factor_out)
        ]
    if result is None:
        raise ValueError("the plan has no tiles; the image is empty.")
    return result


def _factor(image: Tensor, plan: TilePlan) -> int:
    return image.shape[-2] // plan.canvas[0]


def pad_to_canvas(image: Tensor, plan: TilePlan, factor: int = 1) -> Tensor:
    """Repeat the last row and column of (B, C, Y, X) to fill the plan's canvas (times `factor`)."""
    missing_rows, missing_columns = (
        extent * factor - size for extent, size in zip(plan.canvas, image.shape[-2:], strict=True)
    )
    return torch.nn.functional.pad(image, (0, missing_columns, 0, missing_rows), mode="replicate")
