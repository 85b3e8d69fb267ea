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
    """What had to be guessed, in words.

    Parameters
    ----------
    unit : {"rad", "counts"}
    estimated : sequence of mapping
        What was estimated from each frame.
    """
    if unit != "rad":
        dark = isinstance(plan.background, str) and plan.background == "auto"
        level = (
            (
                "the dark level was guessed from the image; give a dark image, or background "
                "none, to compare counts.",
            )
            if dark
            else ()
        )
        return (*level, *estimated_optics(estimated))
    if not isinstance(plan.background, str) or plan.background != "auto":
        return ()
    if all(frame.get("background_share", 0.0) >= LEAST_BACKGROUND for frame in estimated):
        return ()
    return (
        "the blank-field intensity was guessed, since no cell-free background was found; give a "
        "blank-field image as background.",
    )


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

    Parameters
    ----------
    grave : sequence of str
        Reasons that forbid quantification.
    guesses : sequence of str
        What had to be guessed. It forbids quantification, but it does not change the colour.
    warnings : sequence of str
        Other reasons to doubt.

    Returns
    -------
    QualityFlag
        Red with a grave reason. Else amber with a warning, or a check that failed or was not
        possible. Else green.
    """
    grave = [*grave, *unexplained(check)]
    checked = [] if check.explained else [check.verdict]
    checked += [BEATEN.format(check.chi2, check.estimate_chi2)] if check.beaten else []
    doubts = [*warnings, *checked]
    guessed_values = tuple(UNQUANTIFIED + guess for guess in guesses)
    good = [check.verdict] if check.explained else []  # said last, whatever else was found
    because = (*grave, *guesses)
    if grave:
        return QualityFlag(
            colour="red",
            reasons=(*(UNQUANTIFIED + one for one in grave), *doubts, *guessed_values, *good),
            not_quantitative_because=because,
        )
    if doubts:
        return QualityFlag(
            colour="amber",
            reasons=(*doubts, *guessed_values, *good),
            not_quantitative_because=because,
        )
    return QualityFlag(
        colour="green",
        reasons=(NOTHING_FOUND, *guessed_values, check.verdict),
        not_quantitative_because=because,
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
