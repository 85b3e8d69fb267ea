"""Small measured images and requests that the tests share."""

import numpy as np

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.simulate.ranges import WidefieldRanges
from napari_cvdm.simulate.scenes import defocus_pair_of

CLEAR = WidefieldRanges(
    correlated=0.0,
    field_px=96,
    photons=(2000, 2000),
    background=(0.02, 0.02),
    haze=(0, 0),
    defocus=(0, 0),
    na=(1.4, 1.4),
    wavelength_um=(0.52, 0.52),
    pixel_um=(0.0626, 0.0626),
    structures=("reticulum", "microtubules", "actin"),
)
OPTICS = {"pixel_um": 0.2, "wavelength_um": 0.55, "medium_index": 1.33, "defocus_um": (-1.0, 1.0)}


def planes(shape, seed=0):
    """A noisy defocus pair of a smooth object."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    phase = np.exp(-6 * (y**2 + x**2))
    pair = defocus_pair_of(
        phase,
        0 * phase,
        Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.33),
        (-1.0, 1.0),
    )
    return ImageStack(
        array=(pair * 1000 + rng.normal(0, 5, pair.shape)).astype(np.float32),
        axes="PYX",
        pixel_um=0.2,
    )


def spots(shape, seed=0, axes="YX"):
    """A noisy fluorescence image."""
    rng = np.random.default_rng(seed)
    return ImageStack(
        array=rng.poisson(100 + 50 * rng.random(shape)).astype(np.uint16), axes=axes, pixel_um=0.065
    )


def phase_request(image, **changes):
    """A short phase run."""
    return ReconstructionRequest(
        **{
            "image": image,
            "model": "tiny",
            "samples": 2,
            "steps": 3,
            "device": "cpu",
            **OPTICS,
            **changes,
        }
    )


def widefield_request(image, **changes):
    """A short super-resolution run."""
    return ReconstructionRequest(
        **{"image": image, "model": "tiny", "samples": 2, "steps": 3, "device": "cpu", **changes}
    )
