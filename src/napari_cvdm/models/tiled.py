"""A model evaluated tile by tile on one image; the answer depends on the tiles only by rounding."""

from collections.abc import Callable, Generator, Sequence
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn import functional

from napari_cvdm.core.device import autocast, out_of_memory, release_memory
from napari_cvdm.core.tiling import TilePlan, aligned_size, plan_tiles
from napari_cvdm.models.cvdm import CVDM

SMALLEST_TILE = 16
Tile = tuple[int, int]
"""Number of the tile that comes next, from 1, and number of all tiles."""
Tiling = Generator[Tile, None, Tensor]


def map_tiles(
    function: Callable[..., Tensor], images: Sequence[Tensor], plan: TilePlan, *, factor_out: int
) -> Tiling:
    """Apply a local function tile by tile: (B, C', factor_out Y, factor_out X).

    The function makes a tensor (B, C', factor_out y, factor_out x) of parts of `images`, each of
    which is on a grid that is a whole multiple of the plan's canvas. Each tile is yielded before it
    is computed; to cancel is to stop iterating.
    """
    count = len(plan.tiles)
    if count == 1:
        yield 1, 1
        return function(*images)
    factors = [image.shape[-2] // plan.canvas[0] for image in images]
    result: Tensor | None = None
    for number, (rows, columns) in enumerate(plan.tiles, start=1):
        yield number, count
        part = function(
            *(
                image[..., rows.read(factor), columns.read(factor)]
                for image, factor in zip(images, factors, strict=True)
            )
        )
        if result is None:  # only a part tells how many channels there are
            height, width = (size * factor_out for size in plan.canvas)
            result = part.new_empty(*part.shape[:-2], height, width)
        inner = part[..., rows.inner(factor_out), columns.inner(factor_out)]
        result[..., rows.write(factor_out), columns.write(factor_out)] = inner
    if result is None:
        raise ValueError("the plan has no tiles; the image is empty.")
    return result


def tile_words(tile: Tile) -> str:
    """A tile in words; empty where there is only one."""
    return "tile {} of {}".format(*tile) if tile[1] > 1 else ""


def pad_to_canvas(image: Tensor, plan: TilePlan, factor: int = 1) -> Tensor:
    """Repeat the last row and column of (B, C, Y, X) to fill the plan's canvas (times `factor`)."""
    missing_rows, missing_columns = (
        extent * factor - size for extent, size in zip(plan.canvas, image.shape[-2:], strict=True)
    )
    return functional.pad(image, (0, missing_columns, 0, missing_rows), mode="replicate")


class TiledModel:
    """The networks of a `CVDM` on one image of any size.

    Every evaluation is a generator that yields before each tile, so that it can be cancelled there.
    If a tile does not fit into memory, it is halved and tried again. `tile` is the size that was
    used in the end.

    Parameters
    ----------
    shape : tuple of int
        (Y, X) of the condition.
    tile : int
        Side of a tile on the condition's grid.
    precision : {"fp32", "bf16"}
        Of the arithmetic.
    """

    def __init__(
        self, network: CVDM, shape: tuple[int, int], tile: int, precision: str = "fp32"
    ) -> None:
        self.network, self.shape = network, shape
        self.tile, self.precision = tile, precision

    def plan(self, radius: int = 0) -> TilePlan:
        """Tiles on the working grid, for the present tile size and a network's receptive radius."""
        config = self.network.config
        folded = tuple(-(-size // config.condition_fold) for size in self.shape)
        side = max(1, self.tile // config.condition_fold)
        return plan_tiles(
            (folded[0], folded[1]),
            tile=side,
            halo=aligned_size(radius, config.alignment),
            alignment=config.alignment,
        )

    def padded_condition(self, condition: Tensor) -> Tensor:
        """(B, C, Y, X) with its last row and column repeated up to the canvas."""
        return pad_to_canvas(condition, self.plan(), self.network.config.condition_fold)

    def padded_target(self, image: Tensor) -> Tensor:
        """(B, 1, uY, uX) with its last row and column repeated up to the canvas."""
        return pad_to_canvas(image, self.plan(), self.network.config.fold)

    def mean_residual(self, condition: Tensor) -> Tiling:
        """`CVDM.mean_residual` of a padded condition."""
        return self._evaluate(
            self.network.mean_residual, [condition], self.network.config.mean.receptive_radius
        )

    def rate(self, features: Tensor) -> Tiling:
        """`CVDM.rate` of the whole image's features."""
        return self._evaluate(
            self.network.rate, [features], self.network.rate_network.receptive_radius
        )

    def residual_std(self, features: Tensor) -> Tiling:
        """`CVDM.residual_std` of the whole image's features."""
        config = self.network.config.residual_std
        return self._evaluate(
            self.network.residual_std, [features], 0 if config is None else config.receptive_radius
        )

    def clean(self, noisy: Tensor, neg_log_gamma: Tensor, first_layer_features: Tensor) -> Tiling:
        """`CVDM.clean` of the whole canvas."""
        return self._evaluate(
            self.network.clean,
            [noisy, neg_log_gamma, first_layer_features],
            self.network.config.denoiser.receptive_radius,
        )

    def _evaluate(
        self, function: Callable[..., Tensor], images: Sequence[Tensor], radius: int
    ) -> Tiling:
        def evaluate(*parts: Tensor) -> Tensor:
            # Around each tile: whoever iterates must not get it along with the tile.
            with autocast(parts[0].device, self.precision):
                return function(*parts)

        while True:
            try:
                return (
                    yield from map_tiles(
                        evaluate, images, self.plan(radius), factor_out=self.network.config.fold
                    )
                )
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or self.tile <= SMALLEST_TILE:
                    raise
            # After the except block: the error's traceback holds the tensors of the tile.
            self.tile = max(SMALLEST_TILE, min(self.tile, *self.shape) // 2)
            release_memory(images[0].device)


def channels_last(network: CVDM, device: torch.device) -> CVDM:
    """The network on a device, in the memory layout that convolutions like."""
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs do not know it


def network_on(network: CVDM, device: torch.device) -> CVDM:
    """The network on a device, in the memory layout that is fast for convolutions.

    This is the network itself if it already is there and has this layout (as `load_model` returns
    it), else a copy.
    """
    # Only convolutions have a memory layout to choose.
    weights = [parameter for parameter in network.parameters() if parameter.ndim == 4]
    there = network.residual_scale.device == device and all(
        weight.is_contiguous(memory_format=torch.channels_last) for weight in weights
    )
    return network if there else channels_last(deepcopy(network), device)
