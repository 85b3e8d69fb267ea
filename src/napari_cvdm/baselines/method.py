"""What every classical method says of itself, and its answer for one frame."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np

from napari_cvdm.core.plan import Plan
from napari_cvdm.core.request import RequestError
from napari_cvdm.models.checkpoint import ModelCard
from napari_cvdm.tasks import TASKS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """One frame, solved.

    Parameters
    ----------
    image : ndarray of shape (uY, uX), float32
        In the unit of the task.
    valid : ndarray of shape (Y, X), bool
        False in the border band and where the camera says nothing, as the task makes it.
    estimated : mapping
        What was estimated from the frame.
    variance : ndarray of shape (uY, uX), float32, optional
        Of the posterior, by methods that have one.
    """

    image: np.ndarray = field(repr=False)
    valid: np.ndarray = field(repr=False)
    estimated: Mapping[str, Any]
    variance: np.ndarray | None = field(default=None, repr=False)


Solving = Generator[str, None, Answer]
"""Yields what is being done, in words, before each part of the work."""


@dataclass(frozen=True, kw_only=True)
class Baseline(ABC):
    """A classical method, whose fields are its parameters.

    The first parameter may be given after a colon, as in ``us-tie:1e-5``.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    task: ClassVar[str]
    parameter: ClassVar[str]
    source: ClassVar[str]
    resolution: ClassVar[str]
    limits: ClassVar[tuple[str, ...]]

    @abstractmethod
    def solve(self, frame: np.ndarray, plan: Plan) -> Solving:
        """Solve one frame of shape (P, Y, X) with the optics of a plan."""

    def warnings(self, plan: Plan) -> tuple[str, ...]:
        """One sentence for each setting of a request that the method cannot use."""
        return ()

    def check_count(self, counted: str, low: int, high: int) -> None:
        """RequestError where a parameter that counts something is out of its range."""
        count = getattr(self, counted)
        if not low <= count <= high:
            raise RequestError(
                f"the {counted} of {self.name} are {count}; allowed is {low} to {high}. "
                "Leave them out for the default."
            )

    @property
    def needed_optics(self) -> tuple[str, ...]:
        """Request fields without which a frame cannot be solved, those of the task."""
        return TASKS[self.task].needed_optics

    @property
    def card(self) -> ModelCard:
        """The card, as a model has one; without a network, and for any optics."""
        task = TASKS[self.task]
        return ModelCard(
            name=self.name,
            title=self.title,
            task=self.task,
            network={},
            channels=(),
            inputs=task.inputs,
            unit=task.unit,
            optics={},
            intensity="as measured",
            resolution=self.resolution,
            licence="BSD-3-Clause",
            training={"none": self.source, "parameters": asdict(self)},
            limits=self.limits,
        )

    @property
    def entry(self) -> dict[str, object]:
        """The method, its parameters and a fingerprint of both, for the record of a result."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "task": self.task,
            "kind": "baseline",
            "parameters": asdict(self),
            "training": {},
        }

    @property
    def sha256(self) -> str:
        """A fingerprint of the method's name and parameters."""
        # In the place of a model's weights: same fingerprint, same numbers.
        return hashlib.sha256(
            json.dumps([self.name, asdict(self)], sort_keys=True).encode()
        ).hexdigest()
