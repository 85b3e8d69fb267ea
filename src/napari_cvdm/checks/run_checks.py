"""Everything that is looked at while a reconstruction runs, to judge it at the end."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from napari_cvdm.checks.forward_check import ForwardCheckAccumulator
from napari_cvdm.checks.out_of_distribution import (
    TrainingDistribution,
    distribution_warnings,
    vectors_of,
)
from napari_cvdm.checks.plane_warnings import count_frames, order_sentence
from napari_cvdm.checks.quality_flag import QualityFlag, contradicted, guessed, quality_flag
from napari_cvdm.checks.training_range import optics_warnings
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.result import ForwardCheck, Reconstruction
from napari_cvdm.core.statistics import RunningMoments
from napari_cvdm.models.checkpoint import ModelCard
from napari_cvdm.tasks import NetworkInput
from napari_cvdm.tasks.phase_posterior import PhasePosterior


class RunChecks:
    """Takes frames, samples and means, and checks them, as `ForwardCheckAccumulator` does.

    It also checks whether the frames are out of distribution.

    Parameters
    ----------
    earlier : Reconstruction, optional
        What this one goes on from.
    check : bool
        Whether anything is compared with the measured image. A preview of one step is not compared,
        because its mean is a regression.
    """

    def __init__(
        self,
        plan: Plan,
        card: ModelCard,
        earlier: Reconstruction | None,
        *,
        check: bool = True,
    ) -> None:
        self._plan, self._card, self._checking = plan, card, check and plan.steps > 1
        self._forward = ForwardCheckAccumulator(plan, card, earlier)
        self._training = TrainingDistribution.from_card(card.familiarity, card.unit)
        self._vectors: list[np.ndarray] = []
        self._orders: list[str] = []

    def prepared(self, whole: NetworkInput) -> None:
        """A whole frame is prepared, before a region is taken out of it."""
        if not self._checking:
            return
        if self._training is not None:
            self._vectors.append(vectors_of(whole, self._card.unit))
        if isinstance(whole.posterior, PhasePosterior):
            self._orders.append(order_sentence(whole.posterior.fit, self._plan))

    def begin(self, index: tuple[int, ...], part: NetworkInput) -> None:
        """What is going to be sampled."""
        if self._checking:
            self._forward.begin(index, part)

    def see(self, sample: np.ndarray) -> None:
        """One posterior sample (uY, uX)."""
        if self._checking:
            self._forward.see(sample)

    def end(self, moments: RunningMoments) -> None:
        """The samples of a frame (uY, uX) are all drawn."""
        if self._checking:
            self._forward.end(moments)

    def forward(self) -> ForwardCheck:
        """The check against the measured image."""
        return self._forward.result()

    def warnings(self) -> tuple[str, ...]:
        """What was found before sampling: planes maybe swapped, frames out of distribution."""
        return (*count_frames(self._orders), *self.out_of_distribution())

    def out_of_distribution(self) -> tuple[str, ...]:
        """One sentence where frames are unlike the training data."""
        return distribution_warnings(self._vectors, self._training, self._card.name)

    def flag(
        self,
        check: ForwardCheck,
        warnings: Sequence[str],
        unusable: Sequence[str],
        estimated: Sequence[Mapping[str, Any]],
    ) -> QualityFlag:
        """The quality flag of the result.

        Parameters
        ----------
        warnings : sequence of str
            All reasons to doubt.
        unusable : sequence of str
            Those that leave no pixel.
        estimated : sequence of mapping
            What was estimated from each frame.
        """
        grave = (
            *optics_warnings(self._plan, self._card),
            *contradicted(self._plan),
            *unusable,
        )
        return quality_flag(
            grave,
            guessed(self._plan, self._card.unit, estimated),
            [one for one in warnings if one not in grave],
            check,
        )
