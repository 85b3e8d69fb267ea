"""Frames of a camera that is followed, and what is shown of them."""

import numpy as np

from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import finished as drained
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.reconstruct import reconstruct

FRAMES = 12


def frame(number, shape=(40, 36)):
    rng = np.random.default_rng(number)
    return rng.poisson(100 + 50 * rng.random(shape)).astype(np.uint16)


def alone(array, model, **settings):
    """What restoring a frame directly, in one step, gives."""
    image = ImageStack(array=array, axes="YX", pixel_um=0.065, source="cell")
    return drained(
        reconstruct(
            ReconstructionRequest(
                image=image, model=str(model), samples=1, steps=1, tile=64, device="cpu", **settings
            ),
            load_model(str(model)),
        )
    ).mean


def shown(viewer):
    live = [one for one in viewer.layers if one.name.startswith("live reconstruction of cell [")]
    return live[0].data if live else np.zeros(0)
