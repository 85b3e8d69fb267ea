"""Phase of an HL60 cell, measured by others, from defocused planes made of it.

`python -m paper.hl60`
"""

import argparse
from collections.abc import Mapping

import numpy as np
import torch

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from napari_cvdm.physics.tie import us_tie_of
from napari_cvdm.simulate.scenes import defocus_pair_of
from paper.measure import DATA, Row, finish, print_rows, rmse

FRAMES = (0, 35, 70, 105)
MICROSCOPE = Microscope(pixel_um=0.139, wavelength_um=0.647, medium_index=1.335)
DEFOCUS_UM = (-1.0, 1.0)
PHOTONS = 1e4
REGULARISATIONS = 10.0 ** np.arange(-10, 0.1, 0.5)


def measured_planes(phase: np.ndarray, seed: int) -> np.ndarray:
    """Two noisy planes over background, (2, Y, X)."""
    planes = defocus_pair_of(phase, np.zeros_like(phase), MICROSCOPE, DEFOCUS_UM)
    return np.random.default_rng(seed).poisson(planes * PHOTONS) / PHOTONS


def best_us_tie(planes: np.ndarray, phase: np.ndarray) -> float:
    """RMSE [rad] of US-TIE at the best regularisation, which is chosen with the truth."""
    light = torch.from_numpy(planes)
    return min(
        rmse(us_tie_of(light, DEFOCUS_UM, MICROSCOPE, r).numpy(), phase) for r in REGULARISATIONS
    )


def us_tie(planes: np.ndarray) -> np.ndarray:
    """US-TIE [rad] with the authors' regularisation."""
    return us_tie_of(torch.from_numpy(planes), DEFOCUS_UM, MICROSCOPE).numpy()


def longest_periods_share(planes: np.ndarray, phase: np.ndarray) -> float:
    """Share of US-TIE's squared error in the lowest ring of frequencies.

    Its period is that of the field. There photon noise decides.
    """
    error = us_tie(planes) - phase
    power = np.abs(np.fft.fft2(error - error.mean())) ** 2
    fy, fx = (np.fft.fftfreq(size) * size for size in phase.shape)
    ring = np.hypot(fy[:, None], fx[None, :]).round()
    return float(power[ring == 1].sum() / power.sum())


def measured_phases() -> dict[int, np.ndarray]:
    """Phases [rad] of the cell, by frame."""
    series = np.load(DATA / "qpi/phase_gt/hl60_qlsi_series/hl60_qlsi_140.npz")["phase"].astype(
        np.float64
    )
    return {frame: series[frame] for frame in FRAMES}


def measure(model: Checkpoint, phases: Mapping[int, np.ndarray], samples: int = 16) -> list[Row]:
    """One row for each phase (Y, X) [rad], and their mean ratio."""
    rows, ratios, shares = [], [], []
    for frame, phase in phases.items():
        planes = measured_planes(phase, frame)
        image = ImageStack(
            array=planes, axes="PYX", pixel_um=MICROSCOPE.pixel_um, source=f"HL60 frame {frame}"
        )
        request = ReconstructionRequest(
            image=image,
            model=model.card.name,
            samples=samples,
            wavelength_um=MICROSCOPE.wavelength_um,
            medium_index=MICROSCOPE.medium_index,
            defocus_um=DEFOCUS_UM,
        )
        ours, theirs = rmse(finish(request, model).mean, phase), best_us_tie(planes, phase)
        ratios.append(ours / theirs)
        shares.append(longest_periods_share(planes, phase))
        rows.append(
            Row(
                what=f"HL60 frame {frame}: RMSE, CVDM / best US-TIE [rad]",
                value=f"{ours:.4f} / {theirs:.4f} = {ratios[-1]:.2f}",
            )
        )
    mean = float(np.mean(ratios))
    return [
        *rows,
        Row(
            what="HL60: mean ratio of the RMSE", value=f"{mean:.2f}", bar="<= 0.50", met=mean <= 0.5
        ),
        Row(
            what="HL60: share of US-TIE's squared error in its 4 to 8 slowest waves",
            value=f"{np.mean(shares):.0%}",
        ),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="phase-2shot")
    parser.add_argument("--samples", type=int, default=16)
    options = parser.parse_args()
    print_rows(
        "HL60, +-1 um, 1e4 photons",
        measure(load_model(options.model), measured_phases(), options.samples),
    )
