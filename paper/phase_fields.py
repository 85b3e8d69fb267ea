"""Fields that no training showed, for the bars of the phase.

Photographs, a measured HL60 cell, simulated cells and tissue.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage import data
from skimage.color import rgb2gray
from skimage.util import img_as_float64

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.physics.forward_model import PhaseForwardModel, PhaseObject
from napari_cvdm.simulate.phase_objects import cells, tissue
from napari_cvdm.simulate.scenes import defocus_pair_of, steepest
from paper import hl60

OFFICIAL = Microscope(pixel_um=0.21, wavelength_um=0.521, medium_index=1.0)
OFFICIAL_DEFOCUS_UM = (-1.0, 1.0)
LARGEST_RAD, NOISE = 3.5, 0.05
PHOTOGRAPHS = (
    "camera", "coins", "cell", "brick", "gravel", "astronaut", "coffee",
    "cat", "grass", "moon", "rocket", "page",
)  # fmt: skip
CUT_PX = 24  # of the HL60 field along each border
PHOTONS = 1e4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgedField:
    """Planes (P, Y, X) over the blank field, the phase behind them (Y, X) [rad], and the optics."""

    name: str
    planes: np.ndarray = field(repr=False)
    phase: np.ndarray = field(repr=False)
    microscope: Microscope
    defocus_um: tuple[float, ...]
    condenser_na: float = 0.0


def photograph_phase(name: str, side: int) -> np.ndarray:
    """The middle of a photograph of scikit-image as a phase, 0 to 3.5 rad."""
    image = img_as_float64(getattr(data, name)())
    grey = rgb2gray(image[..., :3]) if image.ndim == 3 else image
    side = min(side, *grey.shape)
    top, left = ((size - side) // 2 for size in grey.shape)
    part = grey[top : top + side, left : left + side]
    return np.asarray(LARGEST_RAD * (part - part.min()) / np.ptp(part))


def photograph_fields(
    side: int = 256, margin: int = 0, names: Sequence[str] = PHOTOGRAPHS
) -> list[JudgedField]:
    """The official setting: periodic without a margin, else parts of larger photographs."""
    fields = []
    for seed, name in enumerate(names):
        whole = photograph_phase(name, side + 2 * margin)
        seen = (slice(margin, whole.shape[0] - margin), slice(margin, whole.shape[1] - margin))
        planes = defocus_pair_of(whole, np.zeros_like(whole), OFFICIAL, OFFICIAL_DEFOCUS_UM)[
            :, *seen
        ]
        noisy = planes + np.random.default_rng(seed).normal(0, NOISE, planes.shape)
        fields.append(
            JudgedField(
                name=name,
                planes=noisy,
                phase=whole[seen],
                microscope=OFFICIAL,
                defocus_um=OFFICIAL_DEFOCUS_UM,
            )
        )
    return fields


def hl60_fields(margin: int = 0) -> list[JudgedField]:
    """A measured HL60 cell, 1e4 photons; with a margin the frame cuts it."""
    fields = []
    for frame, phase in hl60.measured_phases().items():
        seen = (slice(margin, phase.shape[0] - margin), slice(margin, phase.shape[1] - margin))
        planes = hl60.measured_planes(phase, frame)[:, *seen]
        name = f"frame {frame}"
        fields.append(
            JudgedField(
                name=name,
                planes=planes,
                phase=phase[seen],
                microscope=hl60.MICROSCOPE,
                defocus_um=hl60.DEFOCUS_UM,
            )
        )
    return fields


def specimen_fields(
    count: int = 8,
    side: int = 192,
    *,
    absorption: float = 0.02,
    ramp: float = 0.005,
    condenser_na: float = 0.3,
    photons: float = PHOTONS,
) -> list[JudgedField]:
    """Simulated cells and tissue that the frame cuts, at +-2 um.

    They have absorption, ramps of the lamp and an open condenser.
    """
    fields, defocus_um, margin = [], (-2.0, 2.0), 40
    for number in range(count):
        rng = np.random.default_rng(100 + number)
        whole = side + 2 * margin
        image = gaussian_filter((cells if number % 2 == 0 else tissue)(rng, (whole, whole)), 1.2)
        image = image / np.ptp(image)
        phase = image * min(rng.uniform(1.5, 4.0), 1.2 / steepest(image))
        double = torch.zeros(1, dtype=torch.float64)
        model = PhaseForwardModel.create(
            (side, side),
            defocus_um,
            hl60.MICROSCOPE,
            canvas_shape=(whole, whole),
            condenser_na=condenser_na,
            like=double,
        )
        light = torch.zeros(2, len(model.terms), dtype=torch.float64)
        light[:, 1:3] = torch.from_numpy(rng.normal(size=(2, 2)) * ramp)
        sample = PhaseObject(
            maps=torch.from_numpy(np.stack([-absorption * image, phase])), illumination=light
        )
        planes = rng.poisson(model.apply(sample).numpy() * photons) / photons
        fields.append(
            JudgedField(
                name=f"{'cells' if number % 2 == 0 else 'tissue'} {number}",
                planes=planes,
                phase=phase[model.frame],
                microscope=hl60.MICROSCOPE,
                defocus_um=defocus_um,
                condenser_na=condenser_na,
            )
        )
    return fields
