"""A model under test: reconstructs scenes, and keeps its result of the unchanged one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from matplotlib.figure import Figure

from napari_cvdm.core.request import STEPS, ImageStack, ReconstructionRequest
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.models.checkpoint import Checkpoint
from paper.measure import Row, finish
from paper.reviewer.scene import Scene, phase_scene, widefield_scene

UNTOUCHED = "untouched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How large the fields are and how long is sampled.

    Parameters
    ----------
    samples, steps : int
    sides_px : mapping of str to int
        Side of the input by task.
    """

    samples: int = 8
    steps: int = STEPS
    sides_px: dict[str, int] = field(
        default_factory=lambda: {"widefield-x2": 64, "phase-2shot": 144}
    )


SMALL = Plan(samples=2, steps=2, sides_px={"widefield-x2": 32, "phase-2shot": 48})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One scene and what the model made of it."""

    name: str
    scene: Scene = field(repr=False)
    result: Reconstruction = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finding:
    """What one test says.

    Parameters
    ----------
    rows : list of Row
    figure : Figure
    cases : sequence of Case
        What the figure shows, line by line.
    ratios : mapping of str to tuple of float
        By case: error and mean spread, over those of the untouched image.
    """

    rows: list[Row]
    figure: Figure = field(repr=False)
    cases: Sequence[Case] = field(default=(), repr=False)
    ratios: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """One model with the plan of the measurement."""

    model: Checkpoint
    plan: Plan = field(default_factory=Plan)

    @property
    def task(self) -> str:
        """Of the model."""
        return self.model.card.task

    @property
    def side(self) -> int:
        """Of the input [px]."""
        return self.plan.sides_px[self.task]

    @property
    def is_phase(self) -> bool:
        """Whether the output is in radians."""
        return self.model.card.unit == "rad"

    @cached_property
    def scene(self) -> Scene:
        """What nothing was done to: cells, or a reticulum."""
        return phase_scene(self.side) if self.is_phase else widefield_scene(self.side)

    @cached_property
    def untouched(self) -> Case:
        """The same, reconstructed once."""
        return self.case(UNTOUCHED, self.scene)

    def reconstructed(self, scene: Scene, seed: int = 0) -> Reconstruction:
        """The posterior of one scene."""
        image = ImageStack(
            array=np.ascontiguousarray(scene.array),
            axes="PYX" if self.is_phase else "YX",
            source="scene",
        )
        told = dict(scene.told)
        return finish(
            ReconstructionRequest(
                image=image,
                model=self.model.card.name,
                samples=self.plan.samples,
                steps=self.plan.steps,
                seed=seed,
                **told,
            ),
            self.model,
        )

    def case(self, name: str, scene: Scene) -> Case:
        """A scene, reconstructed."""
        return Case(name=name, scene=scene, result=self.reconstructed(scene))
