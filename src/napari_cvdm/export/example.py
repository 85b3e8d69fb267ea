"""The simulated image with which a package tests itself; it has the optics of the package."""

import numpy as np

from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.reconstruction.plan import resolve
from napari_cvdm.simulate.samples import CELL_COUNTS, cell_phase, reticulum
from napari_cvdm.simulate.scenes import defocus_pair_of
from napari_cvdm.tasks import TASKS

SHAPE = (96, 128)
CORNER = (80, 96)  # of the sample images; both show something there


def example_planes(request: ReconstructionRequest, planes: int) -> np.ndarray:
    """A measured image as the package takes it.

    Parameters
    ----------
    request : ReconstructionRequest
        Gives the optics.
    planes : int
        Fewest planes of the model: 1 for a fluorescence image. A phase image has one plane for each
        position of the request.

    Returns
    -------
    ndarray of shape (P, 96, 128), float32
        Whole counts.

    Raises
    ------
    OpticsError, RequestError
        Optics that the model needs and that are not given.
    """
    window = tuple(slice(start, start + size) for start, size in zip(CORNER, SHAPE, strict=True))
    if planes == 1:
        request.optics_value("pixel_um")  # a missing one is named before anything is written
        return reticulum().array[window].astype(np.float32)[None]
    plan = resolve(request, TASKS["phase-2shot"])
    phase = cell_phase()
    light = defocus_pair_of(
        phase, np.zeros_like(phase), plan.microscope, plan.positions_um, plan.condenser_na
    )[:, *window]
    return np.random.default_rng(0).poisson(CELL_COUNTS * light.clip(min=0)).astype(np.float32)
