"""Clean images in place of simulated objects.

The result is what a described microscope would have shown of them.
"""

import numpy as np
import torch
from skimage.transform import rescale
from torch import Tensor

from napari_cvdm.simulate.phase import LARGEST_SLOPE, DrawPhase, PhaseRanges, steepest
from napari_cvdm.simulate.widefield import DrawStructure

DARK_PERCENTILE = 5.0


def _cropped(rng: np.random.Generator, image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A random part of that shape; a smaller image is continued by its mirror image."""
    lacking = [max(0, wanted - size) for wanted, size in zip(shape, image.shape, strict=True)]
    padded = (
        np.pad(image, [(0, lack) for lack in lacking], mode="symmetric") if any(lacking) else image
    )
    top, left = (
        int(rng.integers(size - wanted + 1))
        for size, wanted in zip(padded.shape, shape, strict=True)
    )
    return padded[top : top + shape[0], left : left + shape[1]]


def _rescaled(image: np.ndarray, factor: float) -> np.ndarray:
    return (
        image
        if abs(factor - 1) < 1e-3
        else rescale(image, factor, order=1, mode="reflect", anti_aliasing=factor < 1)
    )


def structure_of_image(image: np.ndarray, pixel_um: float) -> DrawStructure:
    """Emitters that a sharp fluorescence image shows.

    Parameters
    ----------
    image : ndarray of shape (Y, X)
        Any unit; its dark level (5th percentile) counts as nothing.
    pixel_um : float
        Its pixel size in the sample.
    """
    clean = np.clip(image.astype(np.float32) - np.percentile(image, DARK_PERCENTILE), 0, None)

    def draw(rng: np.random.Generator, side: int, fine_um: float) -> Tensor:
        return torch.from_numpy(
            np.ascontiguousarray(_cropped(rng, _rescaled(clean, pixel_um / fine_um), (side, side)))
        ).float()

    return draw


def phase_of_image(phase: np.ndarray, pixel_um: float) -> DrawPhase:
    """A phase map [rad] as the object.

    It is made weaker where its slopes would be steeper than a camera can follow.

    Parameters
    ----------
    phase : ndarray of shape (Y, X)
        [rad].
    pixel_um : float
        Its pixel size in the sample.
    """
    clean = phase.astype(np.float64) - np.median(phase)

    def draw(
        rng: np.random.Generator, shape: tuple[int, int], ranges: PhaseRanges, seen_um: float
    ) -> np.ndarray:
        part = _cropped(rng, _rescaled(clean, pixel_um / seen_um), shape)
        return part * min(1.0, LARGEST_SLOPE / max(steepest(part), 1e-9))

    return draw
