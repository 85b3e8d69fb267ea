"""Small simulated fields where a benchmark measures real images.

They show that it runs, and nothing about a model.
"""

import numpy as np
import torch

from napari_cvdm.physics.tie import us_tie_of
from napari_cvdm.simulate.ranges import WidefieldRanges
from napari_cvdm.simulate.samples import cell_phase
from napari_cvdm.simulate.scenes import simulate_widefield
from paper import hl60, tsim_er
from paper.classical import OIL_OBJECTIVE
from paper.super_resolution import RealField

SIDE = 64
SEED = 7_000_000


def microlens() -> tuple[np.ndarray, np.ndarray]:
    """Two planes of a cell with some background, and their US-TIE.

    They stand for the lens array and the authors' result.
    """
    planes = hl60.measured_planes(cell_phase()[40 : 40 + SIDE, 40 : 40 + SIDE], 0)
    return planes, us_tie_of(torch.from_numpy(planes), hl60.DEFOCUS_UM, hl60.MICROSCOPE).numpy()


def reticulum() -> tsim_er.Fields:
    """A simulated widefield image and its truth, in place of T-SIM."""
    pair = simulate_widefield(SEED, WidefieldRanges(field_px=SIDE))
    return {1: (pair.counts.astype(np.float64), pair.truth.astype(np.float64))}


def real_field() -> RealField:
    """The same image with the optics that are assumed for T-SIM."""
    (image, truth) = reticulum()[1]
    return RealField(
        name="reticulum",
        image=image,
        truth=truth,
        pixel_um=tsim_er.ASSUMED_PIXEL_UM,
        optics=OIL_OBJECTIVE,
    )
