"""Checks of a run, and the quality flag of its result with its reasons."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from napari_cvdm.checks.forward_check import ForwardCheckAccumulator
from napari_cvdm.checks.out_of_distribution import (
    TrainingDistribution,
    distribution_warnings,
    vectors_of,
)
from napari_cvdm.checks.plane_warnings import count_frames, order_sentence
from napari_cvdm.checks.training_range import optics_warnings
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.result import ForwardCheck, Provenance, Reconstruction
from napari_cvdm.core.statistics import RunningMoments
from napari_cvdm.models.checkpoint import ModelCard
from napari_cvdm.tasks import NetworkInput
from napari_cvdm.tasks.phase_posterior import PhasePosterior

Colour = Literal["green", "amber", "red"]
NOTHING_FOUND = "It explains the measured image, and nothing speaks against it."
# Share of the structure above noise that is left over. A good phase (0.026 of 2 rad wrong) leaves
# 0.38: fine detail counts most between two planes.
LARGEST_SHARE = 0.5
PIXEL_TOLERANCE = 0.01
BEATEN = (
    "The classical answer (deconvolution) explains the measured image better (chi-squared {1:.2f}, "
    "the result {0:.2f}): compare the two."
)
CLASSICAL = BEATEN.split(" (")[0]  # what a window knows the sentence by
UNQUANTIFIED = "Not for quantification: "
# Share of the frame within 0.05 rad of one phase. Simulated cells have 0.65, a texture of 1.5 rad
# has 0.13.
LEAST_BACKGROUND = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityFlag:
    """The colour, its reasons, and why the pixels must not be quantified (empty where they may)."""

    colour: Colour
    reasons: tuple[str, ...]
    not_quantitative_because: tuple[str, ...]


def guessed(plan: Plan, unit: str, estimated: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What had to be guessed, in words; `estimated` is what was estimated from each frame."""
    found = []
    if isinstance(plan.background, str) and plan.background == "auto":
        shares = [frame.get("background_share", 0.0) for frame in estimated]
        if unit != "rad":
            found.append(
                "the dark level was guessed from the image; give a dark image, or background "
                "none, to compare counts."
            )
        elif not all(share >= LEAST_BACKGROUND for share in shares):
            found.append(
                "the blank-field intensity was guessed, since no cell-free background was found; "
                "give a blank-field image as background."
            )
    return (*found, *(() if unit == "rad" else estimated_optics(estimated)))


def estimated_optics(estimated: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Where the lens was estimated from the image, or assumed because the image shows none."""
    sources = {frame.get("optics") for frame in estimated}
    periods = [frame["cutoff_px"] for frame in estimated if frame.get("optics") == "estimated"]
    if "assumed" in sources:
        return (
            "the optics are not known, and the image does not show them; give NA and wavelength, "
            "or a measured PSF.",
        )
    if periods:
        return (
            f"optics estimated from the image: its finest waves are {min(periods):.2g} px long; "
            "give NA and wavelength, or a measured PSF.",
        )
    return ()


def contradicted(plan: Plan) -> tuple[str, ...]:
    """Where the given pixel size is not the one that the image says."""
    given, said = plan.pixel_um, plan.image.pixel_um
    if given is None or said is None or abs(given / said - 1) <= PIXEL_TOLERANCE:
        return ()
    return (f"pixel_um was given as {given:.3g}, but the image says {said:.3g}.",)


def unexplained(check: ForwardCheck) -> tuple[str, ...]:
    """Where the measured image contradicts the reconstruction."""
    if check.explained or check.unexplained is None or check.unexplained < LARGEST_SHARE:
        return ()
    return (
        f"imaged again, {min(check.unexplained, 9.99):.0%} of the measured structure is left over.",
    )


def quality_flag(
    grave: Sequence[str], guesses: Sequence[str], warnings: Sequence[str], check: ForwardCheck
) -> QualityFlag:
    """The quality flag of a result.

    It is red with a grave reason, which forbids quantification. Else it is amber with a warning, or
    a check that failed or was not possible. Else it is green. Guesses forbid quantification, too,
    but they do not change the colour.
    """
    grave, doubts = [*grave, *unexplained(check)], [*warnings]
    if not check.explained:
        doubts.append(check.verdict)
    if check.beaten:
        doubts.append(BEATEN.format(check.chi2, check.estimate_chi2))
    reasons = [*(UNQUANTIFIED + one for one in grave), *doubts] or [NOTHING_FOUND]
    reasons += [UNQUANTIFIED + guess for guess in guesses]
    if check.explained:  # said last, whatever else was found
        reasons.append(check.verdict)
    return QualityFlag(
        colour="red" if grave else "amber" if doubts else "green",
        reasons=tuple(reasons),
        not_quantitative_because=(*grave, *guesses),
    )


def with_quality_flag(provenance: Provenance, flag: QualityFlag) -> Provenance:
    """The provenance with the quality flag in it."""
    return replace(
        provenance,
        quantitative=not flag.not_quantitative_because,
        not_quantitative_because=flag.not_quantitative_because,
        quality_flag=flag.colour,
        quality_reasons=flag.reasons,
    )


class RunChecks:
    """Takes frames, samples and means, and checks them, as `ForwardCheckAccumulator` does.

    It also checks whether the frames are out of distribution. `earlier` is what this one goes on
    from. Without `check` nothing is compared with the measured image. A preview of one step is not
    compared, because its mean is a regression.
    """

    def __init__(
        self, plan: Plan, card: ModelCard, earlier: Reconstruction | None, *, check: bool = True
    ) -> None:
        self._plan, self._card, self._checking = plan, card, check and plan.steps > 1
        self._forward = ForwardCheckAccumulator(plan, card, earlier)
        self._training = TrainingDistribution.from_card(card.training_distribution, card.unit)
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

    def begin(self, index: tuple[int, ...], part: NetworkInput) -> Generator[str, None, None]:
        """What is going to be sampled. Every step of a solver is said, here and in what follows."""
        if self._checking:
            yield from self._forward.begin(index, part)

    def see(self, sample: np.ndarray) -> Generator[str, None, None]:
        """One posterior sample (uY, uX)."""
        if self._checking:
            yield from self._forward.see(sample)

    def end(self, moments: RunningMoments) -> Generator[str, None, None]:
        """The samples of a frame (uY, uX) are all drawn."""
        if self._checking:
            yield from self._forward.end(moments)

    def forward(self) -> ForwardCheck:
        """The check against the measured image."""
        return self._forward.result()

    def warnings(self) -> tuple[str, ...]:
        """What was found before sampling: planes maybe swapped, frames out of distribution."""
        unlike = distribution_warnings(self._vectors, self._training, self._card.name)
        return (*count_frames(self._orders), *unlike)

    def flag(
        self,
        check: ForwardCheck,
        warnings: Sequence[str],
        unusable: Sequence[str],
        estimated: Sequence[Mapping[str, Any]],
    ) -> QualityFlag:
        """The quality flag of the result, from all reasons to doubt.

        `unusable` are those that leave no pixel. `estimated` was estimated from each frame.
        """
        grave = (*optics_warnings(self._plan, self._card), *contradicted(self._plan), *unusable)
        others = [one for one in warnings if one not in grave]
        return quality_flag(grave, guessed(self._plan, self._card.unit, estimated), others, check)
