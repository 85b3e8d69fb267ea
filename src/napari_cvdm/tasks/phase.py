"""Defocused brightfield planes to quantitative phase.

The physics is inverted first, and the network gets the result.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from napari_cvdm.core.device import pick_fourier_device
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.result import finished
from napari_cvdm.physics.camera import inverse_variance
from napari_cvdm.physics.forward_model import fresnel_number
from napari_cvdm.tasks.defocused_planes import SortedPlanes, check_planes, usable_planes
from napari_cvdm.tasks.phase_blocks import PhaseBlocks, measure_phase_statistics
from napari_cvdm.tasks.phase_input import CHANNELS, FieldNumbers, assemble_input, network_window
from napari_cvdm.tasks.phase_inversion import (
    PhaseEstimate,
    PhaseMaps,
    find_background,
    invert_planes,
    phase_maps,
)
from napari_cvdm.tasks.phase_posterior import PhasePosterior, PosteriorDraws
from napari_cvdm.tasks.task import Background, FrameReader, NetworkInput, SampledPlane

Preparing = Generator[str, None, NetworkInput]


@dataclass(frozen=True, slots=True)
class PhaseTwoShot:
    """Two or more defocused brightfield planes to phase in radians, on an absolute scale.

    The phase has zero mean over the field.
    """

    name: str = "phase-2shot"
    title: str = "Phase from defocused brightfield planes"
    inputs: str = "two or more brightfield planes at different focus (one may be in focus)"
    planes: int = 2
    upsampling: int = 1
    channels: tuple[str, ...] = CHANNELS
    unit: str = "rad"
    context_px: int = 128
    needed_optics: tuple[str, ...] = ("pixel_um", "wavelength_um", "medium_index", "defocus_um")

    def condition(
        self,
        frame: np.ndarray,
        microscope: Microscope,
        defocus_um: Sequence[float],
        background: Background,
        *,
        register: bool = False,
        condenser_na: float = 0.0,
    ) -> NetworkInput:
        """Invert one frame and make the network's channels of it, see `phase_input`.

        `frame` is (P, Y, X), with a signed position [um] of each plane, in any order. `register`
        looks for a shift between the outermost planes.
        """
        planes = SortedPlanes.sort(frame, defocus_um, background)
        return finished(self._prepare(planes, microscope, condenser_na, register))

    def prepare(self, frame: np.ndarray, plan: Plan) -> Preparing:
        """Invert one frame of a plan, step by step."""
        planes = SortedPlanes.sort(frame, plan.positions_um, plan.background)
        device = pick_fourier_device(plan.device)
        return self._prepare(
            planes, plan.microscope, plan.condenser_na, plan.register, plan.seed, device
        )

    def _prepare(
        self,
        planes: SortedPlanes,
        microscope: Microscope,
        condenser_na: float,
        register: bool,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> Preparing:
        usable = usable_planes(planes.frame, planes.ratio)
        # Without weight, but finite, since 0 times NaN is NaN.
        data = np.where(usable, planes.ratio, 1.0)
        light, weight = (
            torch.from_numpy(values).float().to(device)
            for values in (data, inverse_variance(data, usable))
        )
        estimate = yield from invert_planes(
            light, weight, planes.defocus_um, microscope, condenser_na
        )
        phase = estimate.fit.phase.cpu().numpy()
        draws = PosteriorDraws(estimate.fit, seed)
        first = yield from draws.first()  # for the width, and kept for the samples
        maps = phase_maps(
            estimate, max(fresnel_number(z, microscope) for z in planes.defocus_um), first
        )
        checks = check_planes(planes.frame, planes.known, planes.levels, phase, register=register)
        estimated = {
            "background": planes.levels_as_given,
            "planes": checks.as_mapping(),
            "unmeasured_share": planes.unmeasured_share,
        }
        return condition_maps(maps, estimate, draws, np.asarray(usable.all(axis=0)), estimated)

    def without(self, pixels: np.ndarray, background: np.ndarray) -> np.ndarray:
        """Pixels over the same part of the blank-field image."""
        return pixels / background

    def measure_statistics(
        self, planes: Sequence[SampledPlane], plan: Plan, reader: FrameReader
    ) -> Generator[str, None, PhaseBlocks]:
        """Background, noise and low spatial frequencies of the whole frame, step by step."""
        return measure_phase_statistics(planes, plan, reader)

    def blocks(self, numbers: Mapping[str, np.ndarray]) -> PhaseBlocks:
        """Global statistics that were kept in a file."""
        return PhaseBlocks.of_numbers(numbers)


def condition_maps(
    maps: PhaseMaps,
    estimate: PhaseEstimate,
    draws: PosteriorDraws,
    usable: np.ndarray,
    estimated: dict[str, Any],
) -> NetworkInput:
    """The frame for the networks, from its maps and the fit behind them."""
    numbers, window, fit = FieldNumbers.measure(maps), network_window(maps), estimate.fit
    zero, background, share = find_background(maps.phase[maps.frame])
    estimated |= {
        "noise_sigma": numbers.noise,
        "strength_rad": numbers.strength,
        "noise_rad": numbers.width,
        "periodic": estimate.periodic,
        "background_share": share,
        "flat_background": fit.prior.flat is not None,
        "chi2": float(fit.chi2),
        "illumination": fit.estimate.illumination.tolist(),
        "inner_steps": fit.inner_steps,
    }
    # The network has the median at zero, the result its cell-free background.
    posterior = PhasePosterior(
        fit=fit,
        window=window,
        estimate=(maps.phase[window] - numbers.level).astype(np.float32),
        result=maps.phase[window] - np.float32(zero),
        background=background,
        draws=draws,
    )
    return assemble_input(maps, numbers, posterior, usable, estimated)
