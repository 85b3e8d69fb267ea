"""Phase from defocused planes without a network.

The methods use the transport of intensity or the weak-object transfer function.
"""

from abc import abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.baselines.method import Answer, Baseline, Solving
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import name_stages
from napari_cvdm.core.statistics import interior
from napari_cvdm.physics.tie import (
    AUTHORS_REGULARISATION,
    iterate_us_tie,
    measure_transport,
    solve_wotf,
)
from napari_cvdm.tasks.defocused_planes import SortedPlanes, check_planes, usable_planes
from napari_cvdm.tasks.phase import PhaseTwoShot
from napari_cvdm.tasks.phase_posterior import PhasePosterior
from napari_cvdm.tasks.task import BORDER_PX

WOTF_REGULARISATION = 1e-5  # the best power of ten on the measured HL60 cell, see paper.classical
LARGEST_REGULARISATION = 10.0
MOST_ROUNDS = 1000


@dataclass(frozen=True, kw_only=True)
class _PhaseMethod(Baseline):
    task: ClassVar[str] = "phase-2shot"
    parameter: ClassVar[str] = "regularisation"
    regularisation: float

    def __post_init__(self) -> None:
        if not 0 < self.regularisation <= LARGEST_REGULARISATION:
            raise RequestError(
                f"the regularisation of {self.name} is {self.regularisation:g}; "
                f"allowed is above 0 up to {LARGEST_REGULARISATION:g}. "
                f"Leave it out for the default, or try {self.name}:1e-5."
            )

    @abstractmethod
    def phase_of(
        self,
        ratio: Tensor,
        defocus_um: Sequence[float],
        microscope: Microscope,
        condenser_na: float,
    ) -> Generator[str, None, Tensor]:
        """Phase [rad] of planes over their background (P, Y, X)."""

    def solve(self, frame: np.ndarray, plan: Plan) -> Solving:
        """Phase [rad] of one frame, zero mean over the field."""
        planes = SortedPlanes.sort(frame, plan.positions_um, plan.background)
        phase = yield from name_stages(
            "solving",
            self.phase_of(
                # A Fourier transform needs a number at every pixel: the blank field where none is.
                torch.from_numpy(np.ascontiguousarray(planes.known)),
                planes.defocus_um,
                plan.microscope,
                plan.condenser_na,
            ),
        )
        checks = check_planes(
            planes.frame, planes.known, planes.levels, phase.numpy(), register=plan.register
        )
        # These methods have no weights: a pixel lost in one plane is lost.
        usable = usable_planes(planes.frame, planes.ratio).all(axis=0)
        return Answer(
            image=phase.numpy().astype(np.float32),
            valid=usable & interior((frame.shape[1], frame.shape[2]), BORDER_PX),
            estimated={
                "background": planes.levels_as_given,
                "unmeasured_share": planes.unmeasured_share,
                "planes": checks.as_mapping(),
            },
        )


@dataclass(frozen=True, kw_only=True)
class UsTie(_PhaseMethod):
    """Universal solution of the transport-of-intensity equation.

    See `napari_cvdm.physics.tie.solve_us_tie`.

    Parameters
    ----------
    regularisation : float
        r of `high_pass`, above 0 up to 10. After one round, half amplitude is at the period 2 pi px
        / r^(1/4). The period is longer after more rounds.
    iterations : int
        Largest number of rounds of feedback, 1 to 1000.
    """

    name: ClassVar[str] = "us-tie"
    title: ClassVar[str] = "Phase by the universal solution of the transport-of-intensity equation"
    source: ClassVar[str] = "Zhang, Chen, Sun, Tian, Zuo, Opt. Lett. 45, 3649 (2020)"
    resolution: ClassVar[str] = (
        "up to half a turn of pi lambda z f^2 / n; finer detail comes out too weak"
    )
    limits: ClassVar[tuple[str, ...]] = (
        "Photon noise hides low spatial frequencies, the lower the more.",
        "Needs nearly coherent light.",
    )
    regularisation: float = AUTHORS_REGULARISATION
    iterations: int = 25

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count("iterations", 1, MOST_ROUNDS)

    def warnings(self, plan: Plan) -> tuple[str, ...]:
        """Warn if the condenser is open: US-TIE assumes coherent light."""
        if not plan.condenser_na:
            return ()
        return (
            f"{self.name} assumes coherent light, so condenser_na {plan.condenser_na:g} "
            "was not used. An open condenser blurs the planes, and fine structures come out too "
            f"weak. Use {Wotf.name} or phase-physics, which take it into account.",
        )

    def phase_of(
        self,
        ratio: Tensor,
        defocus_um: Sequence[float],
        microscope: Microscope,
        condenser_na: float,
    ) -> Generator[str, None, Tensor]:
        """US-TIE of the mean of all planes and the slope of a line through them, coherent."""
        intensity, slope = measure_transport(ratio, defocus_um)
        return iterate_us_tie(intensity, slope, microscope, self.regularisation, self.iterations)


@dataclass(frozen=True, kw_only=True)
class Wotf(_PhaseMethod):
    """Weak-object transfer function with a Tikhonov term, see `solve_wotf`.

    Parameters
    ----------
    regularisation : float
        r of `solve_wotf`, above 0 up to 10.
    """

    name: ClassVar[str] = "wotf"
    title: ClassVar[str] = "Phase by the weak-object transfer function"
    source: ClassVar[str] = (
        "Guigay, Optik 49, 121 (1977); Jenkins and Gaylord, Appl. Opt. 54, 8566 (2015)"
    )
    resolution: ClassVar[str] = "that of the objective, except frequencies that no plane shows"
    limits: ClassVar[tuple[str, ...]] = (
        "For weak objects: phases well below 1 rad.",
        "The regularisation removes low spatial frequencies.",
    )
    regularisation: float = WOTF_REGULARISATION

    def phase_of(
        self,
        ratio: Tensor,
        defocus_um: Sequence[float],
        microscope: Microscope,
        condenser_na: float,
    ) -> Generator[str, None, Tensor]:
        """Least squares over all planes, absorption told from phase; one step."""
        yield ""  # one step, which needs no name of its own
        return solve_wotf(ratio - 1, defocus_um, microscope, self.regularisation, condenser_na)


MOST_DRAWS = 64


@dataclass(frozen=True, kw_only=True)
class PhasePhysics(Baseline):
    """Most probable phase under the full image formation and a Gaussian prior.

    The spread is that of draws about this phase.

    Parameters
    ----------
    draws : int
        Number of posterior draws for the spread, 2 to 64.
    """

    name: ClassVar[str] = "phase-physics"
    title: ClassVar[str] = "Phase by inverting the whole image formation"
    task: ClassVar[str] = "phase-2shot"
    parameter: ClassVar[str] = "draws"
    source: ClassVar[str] = "Gauss-Newton with conjugate gradients, see docs/symbols.md"
    resolution: ClassVar[str] = "that of the objective, as far as the photons carry"
    limits: ClassVar[tuple[str, ...]] = (
        "It does not know what cells look like; low spatial frequencies are its least certain.",
        "Its spread is that of a Gaussian model of the object.",
    )
    draws: int = 8

    def __post_init__(self) -> None:
        self.check_count("draws", 2, MOST_DRAWS)

    def solve(self, frame: np.ndarray, plan: Plan) -> Solving:
        """Invert one frame of any number of planes.

        Where there is cell-free background, its phase is zero.
        """
        prepared = yield from PhaseTwoShot().prepare(frame, plan)
        posterior = prepared.posterior
        assert isinstance(posterior, PhasePosterior)  # a phase always has one
        spread = yield from posterior.draw_phases(self.draws)
        return Answer(
            image=prepared.estimate,
            valid=prepared.kept(prepared.valid),
            # Independent draws, unlike the opposite pairs of samples of a network.
            variance=spread.var(axis=0, ddof=1).astype(np.float32),
            estimated=prepared.estimated,
        )
