"""Phase from defocused planes by inverting the whole image formation, without a network."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from napari_cvdm.baselines.method import Answer, Baseline, Solving
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.request import RequestError
from napari_cvdm.tasks.phase import PhaseTwoShot
from napari_cvdm.tasks.phase_posterior import PhasePosterior

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
    needed_optics: ClassVar[tuple[str, ...]] = (
        "pixel_um",
        "wavelength_um",
        "medium_index",
        "defocus_um",
    )
    parameter: ClassVar[str] = "draws"
    source: ClassVar[str] = "Gauss-Newton with conjugate gradients, see docs/symbols.md"
    resolution: ClassVar[str] = "that of the objective, as far as the photons carry"
    limits: ClassVar[tuple[str, ...]] = (
        "It does not know what cells look like; low spatial frequencies are its least certain.",
        "Its spread is that of a Gaussian model of the object.",
    )
    draws: int = 8

    def __post_init__(self) -> None:
        if not 2 <= self.draws <= MOST_DRAWS:
            raise RequestError(
                f"the draws of {self.name} are {self.draws}; allowed is 2 to {MOST_DRAWS}. "
                "Leave them out for the default."
            )

    def solve(self, frame: np.ndarray, plan: Plan) -> Solving:
        """Invert one frame of any number of planes.

        Where there is cell-free background, its phase is zero.
        """
        prepared = yield from PhaseTwoShot().prepare(frame, plan)
        posterior = prepared.posterior
        assert isinstance(posterior, PhasePosterior)  # a phase always has one
        yield "drawing from the posterior"
        spread = posterior.draw_phases(self.draws)
        return Answer(
            image=prepared.estimate,
            valid=prepared.kept(prepared.valid),
            variance=spread.var(axis=0, ddof=1).astype(np.float32),
            estimated=prepared.estimated,
        )
