"""Defocused brightfield planes to quantitative phase.

The physics is inverted first, and the network gets the result.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from napari_cvdm.core.device import pick_fourier_device
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import Align, ReconstructionRequest
from napari_cvdm.core.result import finished
from napari_cvdm.physics.camera_noise import inverse_variance
from napari_cvdm.physics.forward_model import fresnel_number
from napari_cvdm.tasks.cell_free_background import find_background
from napari_cvdm.tasks.conditioned import Background, FrameReader, NetworkInput
from napari_cvdm.tasks.phase_blocks import PhaseBlocks, measure_phase_statistics
from napari_cvdm.tasks.phase_channels import over_background, phase_optics, usable_planes
from napari_cvdm.tasks.phase_input import (
    CHANNELS,
    FieldNumbers,
    inner_frame,
    network_channels,
    network_window,
)
from napari_cvdm.tasks.phase_inversion import (
    NOISE_ORIGIN,
    PhaseEstimate,
    PhaseMaps,
    invert_planes,
    phase_maps,
)
from napari_cvdm.tasks.phase_posterior import PhasePosterior, PosteriorDraws
from napari_cvdm.tasks.plane_checks import check_planes
from napari_cvdm.tasks.sampled import SampledPlane

Preparing = Generator[str, None, NetworkInput]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SortedPlanes:
    """Planes over their background, in rising order of their positions.

    Parameters
    ----------
    ratio : ndarray of shape (P, Y, X), float64
        Over background.
    frame : ndarray of shape (P, Y, X)
        The same as the camera gave them.
    levels : list of float
        Blank-field intensity of each.
    defocus_um : tuple of float
        Rising.
    """

    ratio: np.ndarray = field(repr=False)
    frame: np.ndarray = field(repr=False)
    levels: list[float]
    defocus_um: tuple[float, ...]

    @classmethod
    def sort(
        cls, frame: np.ndarray, defocus_um: Sequence[float], background: Background
    ) -> "SortedPlanes":
        """From planes in any order; errors as of `over_background`."""
        ratio, levels = over_background(frame, background)
        order = np.argsort(defocus_um)
        ratio = ratio[order]
        return cls(
            ratio=ratio,
            frame=frame[order],
            levels=[levels[place] for place in order],
            defocus_um=tuple(float(defocus_um[place]) for place in order),
        )

    def levels_as_given(self, defocus_um: Sequence[float]) -> list[float]:
        """`levels` in the order of these positions."""
        return [self.levels[place] for place in np.argsort(np.argsort(defocus_um))]


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
        align: Align = "off",
        *,
        condenser_na: float = 0.0,
    ) -> NetworkInput:
        """Invert one frame and make the network's channels of it, see `phase_input`.

        Parameters
        ----------
        frame : ndarray of shape (P, Y, X)
        microscope : Microscope
        defocus_um : sequence of float
            Signed position of each plane [um], in any order.
        background : {"auto", "none"} or ndarray
        align : {"off", "auto"}
            ``auto`` looks for a shift between the outermost planes.
        condenser_na : float

        Returns
        -------
        NetworkInput
        """
        sorted_planes = SortedPlanes.sort(frame, defocus_um, background)
        return finished(
            self._prepare(
                sorted_planes,
                microscope,
                align,
                condenser_na,
                {"background": sorted_planes.levels_as_given(defocus_um)},
            )
        )

    def prepare(self, frame: np.ndarray, request: ReconstructionRequest) -> Preparing:
        """Prepare one frame with the optics of a request, step by step.

        OpticsError where one is missing.
        """
        microscope, defocus_um = phase_optics(request)
        planes = SortedPlanes.sort(frame, defocus_um, request.background)
        estimated: dict[str, Any] = {"background": planes.levels_as_given(defocus_um)}
        device = pick_fourier_device(request.device)
        return self._prepare(
            planes,
            microscope,
            request.align,
            request.condenser_na or 0.0,
            estimated,
            request.seed,
            device,
        )

    def from_request(self, frame: np.ndarray, request: ReconstructionRequest) -> NetworkInput:
        """`prepare` to its end."""
        return finished(self.prepare(frame, request))

    def _prepare(
        self,
        planes: SortedPlanes,
        microscope: Microscope,
        align: Align,
        condenser_na: float,
        estimated: dict[str, Any],
        seed: int = 0,
        device: torch.device | None = None,
    ) -> Preparing:
        usable = usable_planes(planes.frame, planes.ratio)
        data = np.where(usable, planes.ratio, 1.0)
        light, weight = (
            torch.from_numpy(values).float().to(device)
            for values in (data, inverse_variance(data, usable))
        )
        estimate = yield from invert_planes(
            light, weight, planes.defocus_um, microscope, condenser_na
        )
        phase = estimate.fit.phase.cpu().numpy()
        yield "posterior width"
        draws = PosteriorDraws(estimate.fit, seed)
        maps = phase_maps(
            estimate, max(fresnel_number(z, microscope) for z in planes.defocus_um), draws.first()
        )
        estimated["planes"] = check_planes(
            planes.frame, planes.ratio, planes.levels, phase, register=align == "auto"
        ).as_mapping()
        return condition_maps(maps, estimate, draws, np.asarray(usable.all(axis=0)), estimated)

    def without(self, pixels: np.ndarray, background: np.ndarray) -> np.ndarray:
        """Pixels over the same part of the blank-field image."""
        return pixels / background

    def measure_statistics(
        self, planes: Sequence[SampledPlane], request: ReconstructionRequest, reader: FrameReader
    ) -> PhaseBlocks:
        """Global quantities of the whole frame.

        They are background, noise, and the low spatial frequencies of the phase from a coarse
        image.
        """
        return measure_phase_statistics(planes, request, reader)

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
    estimated |= {
        "noise_sigma": numbers.noise,
        "strength_rad": numbers.strength,
        "noise_rad": numbers.width,
        "periodic": estimate.periodic,
    }
    zero, background, share = find_background(maps.phase[maps.frame])
    estimated |= {"background_share": share, "flat_background": fit.prior.flat is not None}
    estimated |= {
        "chi2": float(fit.chi2),
        "illumination": fit.estimate.illumination.tolist(),
        "inner_steps": fit.inner_steps,
    }
    valid = np.zeros(maps.phase.shape, dtype=bool)
    valid[maps.frame] = usable
    corner = tuple(
        NOISE_ORIGIN + seen.start - part.start
        for seen, part in zip(window, maps.frame, strict=True)
    )
    level = (maps.phase[window] - numbers.level).astype(np.float32)
    return NetworkInput(
        channels=network_channels(maps, numbers),
        initial_estimate=torch.from_numpy(level / numbers.unit).float(),
        gain=numbers.unit,
        valid=valid[window],
        estimated=estimated,
        posterior=PhasePosterior(
            fit=fit,
            window=window,
            estimate=level,
            result=maps.phase[window] - np.float32(zero),
            background=background,
            draws=draws,
        ),
        origin=(corner[0], corner[1]),
        frame=inner_frame(maps),
    )
