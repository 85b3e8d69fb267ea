"""Settings of packages, an image for them, and what napari-cvdm itself makes of it."""

from pathlib import Path

import numpy as np

from napari_cvdm.core.result import Reconstruction
from napari_cvdm.core.result import finished as drained
from napari_cvdm.export.sampler import PackageSettings
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.reconstruction.reconstruct import reconstruct

PHASE = PackageSettings(
    samples=3,
    steps=2,
    seed=7,
    pixel_um=0.2,
    wavelength_um=0.55,
    medium_index=1.337,
    defocus_um=(-2.5, 2.5),
)
WIDEFIELD = PackageSettings(samples=3, steps=2, seed=7, pixel_um=0.0626)


def reconstructed(model: Path, planes: np.ndarray, settings: PackageSettings) -> Reconstruction:
    return drained(reconstruct(settings.request(planes, str(model)), load_checkpoint(model)))


def measured(planes: int, shape: tuple[int, int] = (45, 61), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    blobs = np.exp(
        -((np.mgrid[: shape[0], : shape[1]] - np.array([[[20]], [[30]]])) ** 2).sum(axis=0) / 60
    )
    return np.stack(
        [rng.poisson(200 + 100 * (1 + plane) * blobs) for plane in range(planes)]
    ).astype(np.float32)
