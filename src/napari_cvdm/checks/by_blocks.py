"""Local functions of images, computed block by block to avoid a transform of a large image."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

BLOCK_PX = 1024


def by_blocks(function: Callable[[Tensor], Tensor], image: np.ndarray, margin: int) -> np.ndarray:
    """Apply a local function to images (..., Y, X), block by block.

    So a large image needs no transform of its own size.

    Parameters
    ----------
    function : callable
        Takes a block with its margin (mirrored at the image's border), float32, and returns the
        (..., y, x) inside the margin.
    image : ndarray of shape (..., Y, X)
    margin : int
        As far as the function looks [px].

    Returns
    -------
    ndarray of shape (..., y, x), float64
    """
    around = [(0, 0)] * (image.ndim - 2) + [(margin, margin)] * 2
    padded = torch.from_numpy(np.pad(np.asarray(image, dtype=np.float32), around, mode="symmetric"))
    rows, columns = (
        [(start, min(start + BLOCK_PX, size)) for start in range(0, size, BLOCK_PX)]
        for size in image.shape[-2:]
    )
    blocks = [
        [
            function(padded[..., top : bottom + 2 * margin, left : right + 2 * margin])
            for left, right in columns
        ]
        for top, bottom in rows
    ]
    return torch.cat([torch.cat(row, dim=-1) for row in blocks], dim=-2).double().numpy()


def inside(image: Tensor, margin: int) -> Tensor:
    """(..., Y, X) without a margin all around [px]."""
    return image[..., margin : image.shape[-2] - margin, margin : image.shape[-1] - margin]
