"""A model on a set of pairs: every figure of every field, as it comes."""

import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_cvdm.analysis.correlations import structure_of
from napari_cvdm.analysis.rank_correlations import rank_correlations
from napari_cvdm.baselines import Baseline
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import Progress
from napari_cvdm.evaluation.coverage import SpreadScore, sparsification, spread_score
from napari_cvdm.evaluation.metrics import Accuracy, accuracy, fitted_line
from napari_cvdm.evaluation.pair_sets import PairSet, Tag
from napari_cvdm.evaluation.reconstructed_pair import ReconstructedPair, Sampling, reconstruct_pairs
from napari_cvdm.evaluation.resolution import decorrelation
from napari_cvdm.models.checkpoint import Checkpoint

ENSEMBLES = (4, 8, 16, 32)
POOLED_PIXELS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FieldReport:
    """Everything that is measured on one field.

    Lengths are in the unit of `napari_cvdm.evaluation.reconstructed_pair.ReconstructedPair.unit`.

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
        See `napari_cvdm.analysis.rank_correlations.rank_correlations`.
    calibrated : float or None
        Share of the errors within the calibrated interval.
    resolution_um : mapping of str to float
        By decorrelation analysis, of mean, one sample and truth.
    pooled : ndarray of shape (2, n)
        Spread and abs(error) of some pixels, for curves over all fields.
    removal : ndarray
        Sparsification by the spread and by the error, shape (2, 20).
    wavelength_um : float or None
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
    set, said : str
        Name of the set, and what it is.
    sampling : Sampling
    fields : tuple of FieldReport
    left_out : int
        Fields without a pixel that could be trusted.
    seconds : float
        For all fields, without the making of pairs and figures.
    peak_memory_mb : float or None
        Most memory that the process has had so far [MB].
    example : ReconstructedPair
        The first field, to be drawn.
    """

    model: Mapping[str, Any]
    set: str
    said: str
    sampling: Sampling
    fields: tuple[FieldReport, ...] = field(repr=False)
    left_out: int
    seconds: float
    peak_memory_mb: float | None
    example: ReconstructedPair = field(repr=False)


def evaluate(
    pairs: PairSet, model: Checkpoint | Baseline, sampling: Sampling
) -> Generator[Progress, None, Evaluation]:
    """Reconstruct every pair of a set, and measure.

    Parameters
    ----------
    pairs : PairSet
    model : Checkpoint or Baseline
    sampling : Sampling
        At least 4 samples; 32 give all figures.

    Yields
    ------
    Progress

    Returns
    -------
    Evaluation

    Raises
    ------
    RequestError
        Too few samples, no pixel that can be trusted in any field, or what is wrong with a pair.
    """
    if sampling.samples < ENSEMBLES[0]:
        raise RequestError(
            f"samples is {sampling.samples}; at least {ENSEMBLES[0]} are needed to judge a spread. "
            "32 give all figures."
        )
    reports, example, left_out, seconds = [], None, 0, 0.0
    for step in reconstruct_pairs(pairs, model, sampling):
        if isinstance(step, Progress):
            yield step
            continue
        seconds += float(step.reconstruction.provenance.timings_s["total"])
        report = field_report(step)
        left_out += report is None
        reports += [] if report is None else [report]
        example = example or (None if report is None else step)
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
        said=pairs.said,
        sampling=sampling,
        fields=tuple(reports),
        left_out=left_out,
        seconds=seconds,
        peak_memory_mb=peak_memory_mb(),
        example=example,
    )


def field_report(judged: ReconstructedPair) -> FieldReport | None:
    """Measure one field; None where no pixel can be trusted."""
    valid, unit, result = judged.reconstruction.valid, judged.unit, judged.reconstruction
    if not valid.any() or result.samples is None:
        return None
    where = judged.pixels()
    truth, samples, spread = (
        judged.truth[where] / unit,
        result.samples[:, *where] / unit,
        result.std[where] / unit,
    )
    error = np.abs(judged.error[where]) / unit
    structure = structure_of(result.mean)[where]
    interval = result.interval
    return FieldReport(
        tags=judged.pair.tags,
        valid_share=float(valid.mean()),
        accuracy=_accuracies(judged),
        spread=tuple(
            spread_score(samples[:count], truth) for count in ENSEMBLES if count <= len(samples)
        ),
        ranks=rank_correlations(result.rate[where], spread, error, result.mean[where], structure),
        calibrated=None
        if interval is None
        else float(np.mean(np.abs(judged.error[where]) <= interval[where])),
        resolution_um={
            name: decorrelation(image).resolution_um(result.pixel_um)
            for name, image in _images(judged).items()
        },
        pooled=np.stack([spread, error])[:, :POOLED_PIXELS],
        removal=np.stack([sparsification(spread, error), sparsification(error, error)]),
        wavelength_um=judged.pair.request.known_optics("wavelength_um"),
    )


def _images(judged: ReconstructedPair) -> dict[str, np.ndarray]:
    """The mean, the first sample (no choice is made among them) and the truth."""
    samples = judged.reconstruction.samples
    first = {} if samples is None else {"one sample": samples[0]}
    return {"mean": judged.reconstruction.mean, **first, "truth": judged.pair.truth}


def _accuracies(judged: ReconstructedPair) -> dict[str, Accuracy]:
    valid, unit = judged.reconstruction.valid, judged.unit
    images = {name: image / unit for name, image in _images(judged).items() if name != "truth"}
    truth = judged.truth / unit
    found = {name: accuracy(image, truth, valid) for name, image in images.items()}
    if judged.reconstruction.unit == "rad":
        found["mean, with piston"] = accuracy(images["mean"], judged.pair.truth / unit, valid)
    else:
        found["mean, fitted"] = accuracy(fitted_line(images["mean"], truth, valid), truth, valid)
    return found


def peak_memory_mb() -> float | None:
    """The most memory that this process has had [MB]; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)
