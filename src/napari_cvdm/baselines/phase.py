"""Phase from two defocused planes without a network: the transport of intensity, and the weak-object transfer function."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.baselines.method import Answer, Baseline, Solving
from napari_cvdm.microscope import Microscope
from napari_cvdm.physics.tie import AUTHORS_REGULARISATION, us_tie_of
from napari_cvdm.physics.wotf import solve_wotf
from napari_cvdm.request import RequestError, RestoreRequest
from napari_cvdm.tasks.phase import RisingPlanes
from napari_cvdm.tasks.phase_channels import phase_optics, usable_pixels

WOTF_REGULARISATION = 1e-5  # the best power of ten on the measured HL60 cell, see benchmarks.classical
LARGEST_REGULARISATION = 10.0
MOST_ROUNDS = 1000


@dataclass(frozen=True, kw_only=True)
class _TwoPlanes(Baseline):
    task: ClassVar[str] = "phase-2shot"
    needed_optics: ClassVar[tuple[str, ...]] = ("pixel_um", "wavelength_um", "medium_index", "defocus_um")
    parameter: ClassVar[str] = "regularisation"
    regularisation: float

    def __post_init__(self) -> None:
        if not 0 < self.regularisation <= LARGEST_REGULARISATION:
            raise RequestError(
                f"the regularisation of {self.name} is {self.regularisation:g}; allowed is above 0 up to {LARGEST_REGULARISATION:g}. "
                f"Leave it out for the default, or try {self.name}:1e-5."
            )

    @abstractmethod
    def phase_of(self, ratio: Tensor, defocus_um: tuple[float, float], microscope: Microscope) -> Tensor:
        """Phase [rad] of two planes over their background (2, Y, X)."""

    def solve(self, frame: np.ndarray, request: RestoreRequest) -> Solving:
        """Phase [rad] of one frame of two planes, aligned as for the models, zero mean over the field."""
        microscope, defocus_um = phase_optics(request)
        rising = RisingPlanes.of(frame, defocus_um, request.background)
        estimated: dict[str, Any] = {"background": rising.levels if defocus_um[0] < defocus_um[1] else rising.levels[::-1]}
        planes, margin_px = rising.ratio, 0
        if request.align == "auto":
            yield "looking for differences between the planes"
            checked = rising.aligned(microscope)
            planes, margin_px = checked.planes, checked.margin_px
            estimated |= {} if checked.checks is None else {"planes": checked.checks.as_mapping()}
        yield "solving"
        phase = self.phase_of(torch.from_numpy(np.ascontiguousarray(planes)), rising.defocus_um, microscope)
        return Answer(image=phase.numpy().astype(np.float32), valid=usable_pixels(rising.frame, planes, margin_px), estimated=estimated)


@dataclass(frozen=True, kw_only=True)
class UsTie(_TwoPlanes):
    """Universal solution of the transport-of-intensity equation, see `napari_cvdm.physics.tie.solve_us_tie`.

    Parameters
    ----------
    regularisation : float
        r of `high_pass`, above 0 up to 10: half amplitude at the period 2 pi px / r^(1/4) after one round, longer after more.
    iterations : int
        Most rounds of feedback, 1 to 1000.
    """

    name: ClassVar[str] = "us-tie"
    title: ClassVar[str] = "Phase by the universal solution of the transport-of-intensity equation"
    source: ClassVar[str] = "Zhang, Chen, Sun, Tian, Zuo, Opt. Lett. 45, 3649 (2020)"
    resolution: ClassVar[str] = "up to half a turn of pi lambda z f^2 / n; finer detail comes out too weak"
    limits: ClassVar[tuple[str, ...]] = ("Slow waves drown in photon noise, the more so the longer they are.", "Needs nearly coherent light.")
    regularisation: float = AUTHORS_REGULARISATION
    iterations: int = 25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.iterations <= MOST_ROUNDS:
            raise RequestError(f"the iterations of {self.name} are {self.iterations}; allowed is 1 to {MOST_ROUNDS}. Leave them out for the default.")

    def phase_of(self, ratio: Tensor, defocus_um: tuple[float, float], microscope: Microscope) -> Tensor:
        """US-TIE with the mean of both planes as intensity."""
        return us_tie_of(ratio, defocus_um, microscope, self.regularisation, self.iterations)


@dataclass(frozen=True, kw_only=True)
class Wotf(_TwoPlanes):
    """Weak-object transfer function for coherent light with a Tikhonov term, see `solve_wotf`.

    Parameters
    ----------
    regularisation : float
        r of `solve_wotf`, above 0 up to 10.
    """

    name: ClassVar[str] = "wotf"
    title: ClassVar[str] = "Phase by the weak-object transfer function of coherent light"
    source: ClassVar[str] = "Guigay, Optik 49, 121 (1977); Jenkins and Gaylord, Appl. Opt. 54, 8566 (2015)"
    resolution: ClassVar[str] = "that of the objective, but for the waves that no plane shows"
    limits: ClassVar[tuple[str, ...]] = ("For weak objects: phases well below 1 rad.", "The regularisation takes slow waves away.")
    regularisation: float = WOTF_REGULARISATION

    def phase_of(self, ratio: Tensor, defocus_um: tuple[float, float], microscope: Microscope) -> Tensor:
        """Least squares over both planes, absorption told from phase."""
        return solve_wotf(ratio - 1, defocus_um, microscope, self.regularisation)
