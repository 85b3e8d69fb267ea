"""A model on a set of pairs: every figure of every field, as it comes."""

import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_cvdm.analysis.correlations import rank_correlations, structure_of
from napari_cvdm.baselines import Baseline
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import Progress
from napari_cvdm.evaluation.metrics import (
    Accuracy,
    SpreadScore,
    accuracy,
    fitted_line,
    sparsification,
    spread_score,
)
from napari_cvdm.evaluation.pair_sets import (
    PairSet,
    ReconstructedPair,
    Sampling,
    Tag,
    reconstruct_pairs,
)
from napari_cvdm.evaluation.resolution import decorrelation
from napari_cvdm.models.checkpoint import Checkpoint

ENSEMBLES = (4, 8, 16, 32)
POOLED_PIXELS = 2_000  # of a field: all fields are drawn into one figure


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FieldReport:
    """Everything that is measured on one field.

    Lengths are in the unit of `ReconstructedPair.unit`.

    Parameters
    ----------
    tags : mapping
        Of the pair.
    valid_share : float
        Of the pixels that could be trusted; all figures are over these.
    accuracy : mapping of str to Accuracy
        Of ``mean`` and ``one sample``, without piston; ``mean, with piston`` for phase,
        ``mean, fitted`` for counts.
    spread : tuple of SpreadScore
        For 4, 8, 16, 32 samples, as far as there are.
    ranks : mapping of str to float
        See `napari_cvdm.analysis.correlations.rank_correlations`.
    calibrated : float or None
        Share of the errors within the calibrated interval.
    resolution_um : mapping of str to float
        By decorrelation analysis, of mean, one sample and truth.
    pooled : ndarray of shape (2, n)
        Spread and abs(error) of some pixels, for curves over all fields.
    removal : ndarray
        Sparsification by the spread and by the error, shape (2, 20).
    """

    tags: Mapping[str, Tag]
    valid_share: float
    accuracy: Mapping[str, Accuracy]
    spread: tuple[SpreadScore, ...] = field(repr=False)
    ranks: Mapping[str, float] = field(repr=False)
    calibrated: float | None
    resolution_um: Mapping[str, float] = field(repr=False)
    pooled: np.ndarray = field(repr=False)
    removal: np.ndarray = field(repr=False)
    wavelength_um: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """A model on a set.

    Parameters
    ----------
    model : mapping
        Name, SHA-256, task, unit, noise scale and calibration.
    set, description
        Name of the set, and what it is.
    left_out : int
        Fields without a pixel that could be trusted.
    seconds : float
        For all fields, without the making of pairs and figures.
    peak_memory_mb : float or None
        Most memory that the process has had so far [MB]; None where the system does not tell.
    example : ReconstructedPair
        The first field, to be drawn.
    """

    model: Mapping[str, Any]
    set: str
    description: str
    sampling: Sampling
    fields: tuple[FieldReport, ...] = field(repr=False)
    left_out: int
    seconds: float
    peak_memory_mb: float | None
    example: ReconstructedPair = field(repr=False)


def evaluate(
    pairs: PairSet, model: Checkpoint | Baseline, sampling: Sampling
) -> Generator[Progress, None, Evaluation]:
    """Reconstruct every pair of a set with at least 4 samples, and measure; 32 give all figures.

    RequestError for too few samples, no pixel that can be trusted in any field, or a wrong pair.
    """
    if sampling.samples < ENSEMBLES[0]:
        raise RequestError(
            f"samples is {sampling.samples}; at least {ENSEMBLES[0]} are needed to judge a spread. "
            "32 give all figures."
        )
    # A field is measured as it comes: the samples of many would fill the memory.
    reports, example, left_out, seconds = [], None, 0, 0.0
    for step in reconstruct_pairs(pairs, model, sampling):
        if isinstance(step, Progress):
            yield step
            continue
        # By the run itself, which does not know how long a pair takes to make.
        seconds += float(step.reconstruction.provenance.timings_s["total"])
        if (report := field_report(step)) is None:
            left_out += 1
            continue
        reports.append(report)
        example = example or step
    if example is None:
        raise RequestError(
            f"{pairs.name}: no pixel of its {left_out} fields can be trusted; give larger or "
            "better pairs."
        )
    card = model.card
    return Evaluation(
        model={
            "name": card.name,
            "sha256": model.sha256,
            "task": card.task,
            "unit": card.unit,
            "noise_scale": card.noise_scale,
            "calibration": dict(card.calibration),
        },
        set=pairs.name,
        description=pairs.description,
        sampling=sampling,
        fields=tuple(reports),
        left_out=left_out,
        seconds=seconds,
        peak_memory_mb=_peak_memory_mb(),
        example=example,
    )


def field_report(found: ReconstructedPair) -> FieldReport | None:
    """Measure one field; None where no pixel can be trusted."""
    result, unit, where = found.reconstruction, found.unit, found.pixels()
    if not result.valid.any() or result.samples is None:
        return None
    size = np.abs(found.error[where])
    truth, samples = found.truth[where] / unit, result.samples[:, *where] / unit
    spread, error = result.std[where] / unit, size / unit
    structure = structure_of(result.mean)[where]
    calibrated = None
    if result.interval is not None:
        calibrated = float(np.mean(size <= result.interval[where]))
    images = {"mean": result.mean, "one sample": found.one_sample, "truth": found.pair.truth}
    return FieldReport(
        tags=found.pair.tags,
        valid_share=float(result.valid.mean()),
        accuracy=_accuracies(found),
        spread=tuple(
            spread_score(samples[:count], truth) for count in ENSEMBLES if count <= len(samples)
        ),
        ranks=rank_correlations(result.rate[where], spread, error, result.mean[where], structure),
        calibrated=calibrated,
        resolution_um={
            name: decorrelation(image).resolution_um(result.pixel_um)
            for name, image in images.items()
        },
        # Evenly drawn: pixels of a small field come row by row.
        pooled=np.stack([spread, error])[:, :: -(-spread.size // POOLED_PIXELS)],
        removal=np.stack([sparsification(spread, error), sparsification(error, error)]),
        wavelength_um=found.pair.request.known_optics("wavelength_um"),
    )


def _accuracies(found: ReconstructedPair) -> dict[str, Accuracy]:
    valid, unit, truth = found.reconstruction.valid, found.unit, found.truth / found.unit
    mean = found.reconstruction.mean / unit
    figures = {
        "mean": accuracy(mean, truth, valid),
        "one sample": accuracy(found.one_sample / unit, truth, valid),
    }
    # What the result cannot know, a constant or the scale of the truth, is named apart.
    if found.reconstruction.unit == "rad":
        figures["mean, with piston"] = accuracy(mean, found.pair.truth / unit, valid)
    else:
        figures["mean, fitted"] = accuracy(fitted_line(mean, truth, valid), truth, valid)
    return figures


def _peak_memory_mb() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kB elsewhere
