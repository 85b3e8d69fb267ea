"""Defocused planes of objects that the frame cuts.

They have absorption, uneven light and several optics.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.physics.forward_model import PhaseForwardModel, PhaseObject, canvas_shape

SHAPE = (88, 80)
WATER = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.33)


@dataclass(frozen=True, kw_only=True)
class Optics:
    """How planes are taken."""

    defocus_um: tuple[float, ...]
    microscope: Microscope = WATER
    condenser_na: float = 0.0


OPTICS = {
    "symmetric": Optics(defocus_um=(-2.5, 2.5)),
    "near": Optics(
        defocus_um=(-1.0, 1.0),
        microscope=Microscope(pixel_um=0.107, wavelength_um=0.647, medium_index=1.335),
    ),
    "in focus": Optics(
        defocus_um=(0.0, 4.0),
        microscope=Microscope(pixel_um=0.25, wavelength_um=0.5, medium_index=1.0, na=0.5),
    ),
    "three planes": Optics(defocus_um=(-3.0, 0.0, 3.0), condenser_na=0.2),
    "upper plane first": Optics(defocus_um=(3.0, -3.0), condenser_na=0.3),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class CutPlanes:
    """Photons of each plane (P, Y, X), and the phase within the frame [rad]."""

    counts: np.ndarray = field(repr=False)
    phase: np.ndarray = field(repr=False)
    optics: Optics

    def request(self, **changes) -> ReconstructionRequest:
        """As a user would ask for their phase."""
        optics, seen = self.optics, self.optics.microscope
        known = {
            "wavelength_um": seen.wavelength_um,
            "medium_index": seen.medium_index,
            "na": seen.na,
        }
        image = ImageStack(array=self.counts, axes="PYX", pixel_um=seen.pixel_um)
        asked = {
            "model": "tiny",
            "samples": 2,
            "steps": 2,
            "device": "cpu",
            "defocus_um": optics.defocus_um,
        }
        asked |= {"condenser_na": optics.condenser_na or None}
        return ReconstructionRequest(image=image, **{**known, **asked, **changes})


def domes(shape: tuple[int, int], rng: np.random.Generator, strength: float) -> np.ndarray:
    """Cells of many sizes, some of them cut by the border: phase [rad]."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    phase = np.zeros(shape)
    for _ in range(14):
        down, right, (high, wide) = (
            rng.uniform(0, shape[0]),
            rng.uniform(0, shape[1]),
            rng.uniform(8, 16, 2),
        )
        dome = (1 - ((y - down) / high) ** 2 - ((x - right) / wide) ** 2).clip(min=0)
        phase = np.maximum(phase, strength * rng.uniform(0.5, 1) * dome)
    return gaussian_filter(phase, 1.5)


def take_planes(
    optics: Optics,
    *,
    strength: float = 2.0,
    absorbance: float = 0.0,
    ramp: float = 0.0,
    photons: float = 1e4,
    seed: int = 0,
    shape: tuple[int, int] = SHAPE,
) -> CutPlanes:
    """Simulate planes of cells that go on beyond the frame."""
    rng, positions = np.random.default_rng(seed), optics.defocus_um
    canvas = canvas_shape(shape, positions, optics.microscope)
    model = PhaseForwardModel.create(
        shape,
        positions,
        optics.microscope,
        canvas_shape=canvas,
        condenser_na=optics.condenser_na,
        like=torch.zeros(1, dtype=torch.float64),
    )
    phase = domes(canvas, rng, strength)
    stain = np.abs(gaussian_filter(rng.normal(size=canvas), 3))
    light = torch.zeros(len(positions), len(model.terms), dtype=torch.float64)
    light[:, 1:3] = torch.from_numpy(ramp * rng.normal(size=(len(positions), 2)))
    maps = torch.from_numpy(np.stack([-absorbance / 2 * stain / stain.max(), phase]))
    expected = model.apply(PhaseObject(maps=maps, illumination=light)).numpy()
    return CutPlanes(
        counts=rng.poisson(photons * expected).astype(float),
        phase=phase[model.frame],
        optics=optics,
    )
