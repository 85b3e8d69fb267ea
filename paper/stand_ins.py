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

SIDE = 64
SEED = 7_000_000


def phases() -> dict[int, np.ndarray]:
    """Two phases [rad] in place of the HL60 cell, a cell with some medium."""
    return {
        number: cell_phase()[start : start + SIDE, start : start + SIDE]
        for number, start in enumerate((40, 96))
    }


def microlens() -> tuple[np.ndarray, np.ndarray]:
    """Two planes of such a phase and their US-TIE.

    They stand for the lens array and the authors' result.
    """
    planes = hl60.measured_planes(phases()[0], 0)
    return planes, us_tie_of(torch.from_numpy(planes), hl60.DEFOCUS_UM, hl60.MICROSCOPE).numpy()


def reticulum() -> tsim_er.Fields:
    """A simulated widefield image and its truth, in place of T-SIM."""
    pair = simulate_widefield(SEED, WidefieldRanges(field_px=SIDE))
    return {1: (pair.counts.astype(np.float64), pair.truth.astype(np.float64))}
