"""What is fitted into a model's card on fields whose truth is known, or whose recipe is.

The factor of the spread is split-conformal: a stated share of the errors lies below factor x
spread. The scale of a sampler's fresh noise has the least CRPS. The training distribution says what
training fields look like.
"""

from collections.abc import Generator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

import numpy as np

from napari_cvdm.analysis.correlations import ResultFrame
from napari_cvdm.checks.out_of_distribution import (
    TrainingDistribution,
    channel_vectors,
    image_names,
    vectors_of,
)
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import Progress
from napari_cvdm.core.statistics import conformal_scores
from napari_cvdm.evaluation.metrics import SpreadScore, mean_score, spread_score
from napari_cvdm.evaluation.pair_sets import (
    PairSet,
    ReconstructedPair,
    Sampling,
    Simulation,
    reconstruct_pairs,
    resize_fields,
    trained_ranges,
)
from napari_cvdm.models.checkpoint import Checkpoint, CheckpointError, ModelCard
from napari_cvdm.simulate.ranges import PhaseRanges
from napari_cvdm.simulate.scenes import simulate_fluorescence
from napari_cvdm.tasks import Denoise
from napari_cvdm.tasks.phase_input import FieldNumbers, inner_frame, network_channels
from napari_cvdm.training.sources import solve_field

LEVEL = 0.9
FLOOR = 0.0  # the quantile of the scores is finite without it: a spread of zero counts as wrong
BLOCK_PX = 32
STOCHASTIC = ("sde-2m", "ancestral")  # the samplers that add fresh noise
DISTRIBUTION_SEED = 5_000_000  # the shipped models were trained on other fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a card says about its intervals.

    Parameters
    ----------
    factor : float
        `level` of the errors are below `factor` times max(spread, `floor`).
    level : float
        In (0, 1).
    floor : float
        Least spread that counts, in the unit of the result.
    samples, steps, sampler
        With which it was fitted. It holds for this sampler. It is also used for more steps and for
        other numbers of samples.
    set, fields
        The pairs that it was fitted on, and how many of them had pixels that could be trusted.
    date : str
        ISO 8601.
    """

    factor: float
    level: float
    floor: float
    samples: int
    steps: int
    sampler: str
    set: str
    fields: int
    date: str

    def values(self) -> dict[str, Any]:
        """As plain values for the card."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """Errors over spread of the fields of a set, which `set` describes.

    `fields` has abs(error) / max(spread, floor) of each field's pixels that can be trusted, shape
    (n,). `left_out` fields have no such pixel.
    """

    set: str
    fields: tuple[np.ndarray, ...] = field(repr=False)
    sampling: Sampling
    left_out: int = 0


def scores_of(
    pairs: PairSet, model: Checkpoint, sampling: Sampling
) -> Generator[Progress, None, Scores]:
    """Reconstruct every pair of a set, and keep error over spread.

    RequestError for one sample only, or where a pair is wrong.
    """
    sampling.check_spread()
    found = []
    for step in reconstruct_pairs(pairs, model, sampling):
        if isinstance(step, Progress):
            yield step
            continue
        where = step.pixels()
        found.append(conformal_scores(step.error[where], step.reconstruction.std[where], FLOOR))
    kept = tuple(scores for scores in found if scores.size)
    left_out = len(found) - len(kept)
    return Scores(set=pairs.description, fields=kept, sampling=sampling, left_out=left_out)


def conformal_factor(fields: Sequence[np.ndarray], level: float = LEVEL) -> float:
    r"""The quantile of scores that makes intervals valid for a random pixel of a new field.

    .. math::

        q = Q_{level}\Big(\sum_k \frac{1}{K+1} \frac{1}{n_k} \sum_i \delta_{s_{ki}}
        + \frac{1}{K+1} \delta_\infty\Big)

    Pixels of one field are not independent, but fields are. So each field has the same weight, and
    one more, unknown field counts as wrong everywhere.

    Parameters
    ----------
    fields : sequence of ndarray of shape (n_k,)
        Scores of K exchangeable fields, none of them empty.
    level : float
        In (0, 1).

    Raises
    ------
    RequestError
        A level outside (0, 1), or too few fields for it.

    References
    ----------
    Lee, Barber and Willett, arXiv 2306.06342 (2023), eq. 8; Angelopoulos et al., ICML 2022
    (im2im-uq), for scores over a heuristic spread.
    """
    _check_level(level, len(fields))
    scores, _, weights = _pooled(fields)
    # What the weights lack to 1 is that of the unknown field, whose scores are infinite.
    return _quantile(scores, weights / (len(fields) + 1), level)


def _check_level(level: float, count: int) -> None:
    if not 0 < level < 1:
        raise RequestError(f"level is {level:g}; allowed is between 0 and 1. 0.9 is usual.")
    # Else the quantile is the infinite score of the unknown field.
    if level * (count + 1) > count:
        raise RequestError(
            f"{count} fields cannot be calibrated for a level of {level:g}: at least "
            f"{least_fields(level)} are needed."
        )


def least_fields(level: float) -> int:
    """The fewest fields that a level can be calibrated with."""
    return int(np.ceil(level / (1 - level) - 1e-9))  # 0.9 / (1 - 0.9) is above 9 in floats


def _pooled(fields: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All scores, rising, with the field number of each, and one over the size of that field."""
    scores, sizes = np.concatenate(fields), np.array([len(one) for one in fields])
    order = np.argsort(scores)
    owners = np.repeat(np.arange(len(fields)), sizes)[order]
    return scores[order], owners, 1 / sizes[owners]


def _quantile(scores: np.ndarray, weights: np.ndarray, level: float) -> float:
    """The first of rising scores up to which the weights sum to the level."""
    # The sum of many weights misses the level by rounding.
    place = int(np.searchsorted(np.cumsum(weights), level - 1e-12))
    return float(scores[min(place, len(scores) - 1)])


def fitted(scores: Scores, level: float = LEVEL) -> Calibration:
    """The calibration of the fields of a set.

    RequestError for too few fields, or more than the allowed share of errors without any spread.
    """
    factor = conformal_factor(scores.fields, level)
    # Scores are infinite where no spread is, and 0 where no error is.
    if not np.isfinite(factor) or factor <= 0:
        raise RequestError(
            "the spread is zero where the error is not, or the error is zero everywhere (factor "
            f"{factor:g}): {scores.set} cannot calibrate it."
        )
    sampling = scores.sampling
    return Calibration(
        factor=round(factor, 4),
        level=level,
        floor=FLOOR,
        samples=sampling.samples,
        steps=sampling.steps,
        sampler=sampling.sampler,
        set=scores.set,
        fields=len(scores.fields),
        date=datetime.now(UTC).date().isoformat(),
    )


def covered(fields: Sequence[np.ndarray], factor: float) -> np.ndarray:
    """Share of each field's pixels whose error is at most factor times the spread, shape (K,)."""
    return np.array([np.mean(scores <= factor) for scores in fields])


def left_out_coverage(fields: Sequence[np.ndarray], level: float = LEVEL) -> np.ndarray:
    """Share covered in each field by the factor of all other fields, shape (K,).

    It is the expected coverage where no field can be held out. RequestError for too few fields to
    leave one out.
    """
    _check_level(level, len(fields) - 1)
    scores, owners, weights = _pooled(fields)
    # K - 1 other fields and the unknown one: each has the weight 1 / K.
    factors = [
        _quantile(scores, np.where(owners == number, 0.0, weights) / len(fields), level)
        for number in range(len(fields))
    ]
    return np.array([np.mean(one <= factor) for one, factor in zip(fields, factors, strict=True)])


def calibrate_frame(
    frame: ResultFrame, truth: np.ndarray, settings: Mapping[str, Any], name: str, *, phase: bool
) -> Generator[Progress, None, Calibration]:
    """A calibration from one result whose truth is known.

    Blocks of the image stand for fields, so the calibration holds for images like this one.

    Parameters
    ----------
    truth : ndarray of shape (Y, X)
    settings : mapping
        Of the result's provenance: samples, steps, sampler.
    name : str
        Of the truth.
    phase : bool
        Whether the constant of the error is left out.

    Raises
    ------
    RequestError
        A truth of another shape, one sample, or an image that is too small.
    """
    yield Progress(stage="comparing spread and error", done=0, total=1)
    if truth.shape != frame.mean.shape:
        raise RequestError(
            f"the truth has {truth.shape} pixels, the result {frame.mean.shape}; give a truth on "
            "the grid of the result."
        )
    if not {"samples", "steps", "sampler"} <= set(settings):
        raise RequestError(
            "the result does not say how it was sampled; reconstruct again with this version."
        )
    sampling = Sampling(
        samples=int(settings["samples"]), steps=int(settings["steps"]), sampler=settings["sampler"]
    )
    if sampling.samples < 2:
        raise RequestError("the result has one sample, and so no spread; add samples first.")
    error, spread = frame.mean.astype(np.float64) - truth, frame.spread
    # A pixel of unknown truth would count as one without an error.
    valid = frame.valid & np.isfinite(error)
    if phase and valid.any():
        error -= error[valid].mean()  # planes determine no absolute phase
    sides = ([slice(at, at + BLOCK_PX) for at in range(0, size, BLOCK_PX)] for size in error.shape)
    blocks = tuple(
        conformal_scores(error[place][valid[place]], spread[place][valid[place]], FLOOR)
        for place in product(*sides)
        if valid[place].any()
    )
    yield Progress(stage="comparing spread and error", done=1, total=1)
    return fitted(Scores(set=f"blocks of {name}", fields=blocks, sampling=sampling))


def with_noise_scale(model: Checkpoint, scale: float) -> Checkpoint:
    """The same model with another scale of the sampler's fresh noise; the weights are shared.

    ValueError for a scale that is not allowed, see `CVDMConfig`.
    """
    # Shallow: the config alone is replaced.
    network = copy(model.network)
    network.config = replace(model.network.config, noise_scale=scale)
    card = replace(model.card, network={**model.card.network, "noise_scale": scale})
    return replace(model, network=network, card=card)


def scores_by_scale(
    pairs: PairSet, model: Checkpoint, sampling: Sampling, scales: Sequence[float]
) -> Generator[Progress, None, Mapping[float, SpreadScore]]:
    """Reconstruct every pair of a set with each scale of the fresh noise.

    The result is the mean over the fields, each in its unit; the best scale has the least `crps`.

    Raises
    ------
    RequestError
        One sample only, a sampler that adds no noise, or no pixel in any field that can be trusted.
    ValueError
        A scale that is not allowed.
    """
    sampling.check_spread()
    if sampling.sampler not in STOCHASTIC:
        raise RequestError(
            f"sampler is {sampling.sampler}, which adds no fresh noise; a noise scale is for "
            f"{' and '.join(STOCHASTIC)}."
        )
    # All at once, so that a wrong scale is refused before any work.
    scaled, found = {scale: with_noise_scale(model, scale) for scale in scales}, {}
    for number, (scale, one) in enumerate(scaled.items()):
        scores = []
        for step in reconstruct_pairs(pairs, one, sampling):
            if isinstance(step, Progress):
                done, total = step.done + number * len(pairs), len(scaled) * len(pairs)
                stage = f"noise scale {scale:g}: {step.stage}"
                yield replace(step, stage=stage, done=done, total=total)
            elif (score := _field_score(step)) is not None:
                scores.append(score)
        if not scores:
            raise RequestError(
                f"{pairs.name}: no pixel of its fields can be trusted; give larger or better pairs."
            )
        found[scale] = mean_score(scores)
    return found


def _field_score(found: ReconstructedPair) -> SpreadScore | None:
    where, samples = found.pixels(), found.reconstruction.samples
    # Over the unit, as fields of more light would else outweigh the others.
    if samples is None or not where[0].size:
        return None
    return spread_score(samples[:, *where] / found.unit, found.truth[where] / found.unit)


def fit_distribution(
    card: ModelCard,
    fields: int,
    held_out: int,
    first_seed: int = DISTRIBUTION_SEED,
    field_px: int | None = None,
) -> Generator[Progress, None, TrainingDistribution]:
    """What a model's simulated training fields look like, prepared as for training.

    Parameters
    ----------
    fields, held_out : int
        Fields that are described, and further ones that the threshold is taken from.
    first_seed : int
        Of the first field, one more for each next.
    field_px : int, optional
        Their side [px]; as in training unless given.

    Raises
    ------
    RequestError, CheckpointError, ValueError
        A size or number of fields that is not allowed, a card without a simulation, or too few
        fields for their statistics.
    """
    if min(fields, held_out) < 1:
        raise RequestError(
            f"fields is {fields} and held-out is {held_out}; at least 1 of each is needed. 600 and "
            "400 are a good start."
        )
    if not card.training.get("simulation"):
        raise CheckpointError(
            f"{card.name}: its card has no simulation, so no training fields can be made; it keeps "
            "its card."
        )
    ranges = resize_fields(trained_ranges(card), field_px)
    vectors = []
    for number in range(fields + held_out):
        yield Progress(stage="simulated fields", done=number, total=fields + held_out)
        vectors.append(_training_vectors(ranges, first_seed + number, card.unit))
    return TrainingDistribution.fit(vectors[:fields], vectors[fields:], image_names(card.unit))


def _training_vectors(ranges: Simulation, seed: int, unit: str) -> np.ndarray:
    if isinstance(ranges, PhaseRanges):
        maps = solve_field(seed, ranges).maps
        channels = network_channels(maps, FieldNumbers.measure(maps))
        # Without what the network sees around the frame, as an image is judged.
        return channel_vectors(channels[:, *inner_frame(maps)].numpy(), unit)
    # The signal of this task is that of every fluorescence task.
    return vectors_of(
        Denoise().condition(simulate_fluorescence(seed, ranges).counts[None], "auto"), unit
    )
