"""Gaussian noise that depends on the absolute pixel, and not on the tiling.

The plane is cut into blocks of 64 x 64 pixels. Each block has its own counter-based Philox stream.
The seed is its key, and it starts at (sample, step, block row, block column) (Salmon et al., SC
2011).
"""

import numpy as np

BLOCK = 64
FRAME_SEED_STRIDE = 1 << 11  # more than the largest number of samples, so frames never share noise


def _block(seed: int, sample: int, step: int, row: int, column: int) -> np.ndarray:
    # Word 0 of the counter is left to the generator itself, so streams never meet.
    words = [0, (sample << 32) | (step & 0xFFFFFFFF), row & (2**64 - 1), column & (2**64 - 1)]
    philox = np.random.Philox(key=seed, counter=np.array(words, dtype=np.uint64))
    return np.random.Generator(philox).standard_normal((BLOCK, BLOCK), dtype=np.float32)


def noise_field(
    shape: tuple[int, int], *, seed: int, sample: int, step: int, origin: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Standard normal noise on a window (Y, X) of the plane, float32.

    `seed` is 0 to 2**63 - 1. `sample` and `step` of the sampler are 0 to 2**32 - 1. `origin` is the
    absolute row and column of the window's first pixel.
    """
    top, left = origin
    first_row, first_column = top // BLOCK, left // BLOCK
    rows = range(first_row, (top + shape[0] - 1) // BLOCK + 1)
    columns = range(first_column, (left + shape[1] - 1) // BLOCK + 1)
    plane = np.block(
        [[_block(seed, sample, step, row, column) for column in columns] for row in rows]
    )
    y, x = top - first_row * BLOCK, left - first_column * BLOCK
    return plane[y : y + shape[0], x : x + shape[1]]
