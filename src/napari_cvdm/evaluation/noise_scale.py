"""The scale of a sampler's fresh noise, chosen so that the spread matches the error.

It has the least CRPS on fields whose truth is known.
"""

from collections.abc import Generator, Mapping, Sequence
from copy import copy
from dataclasses import replace

import numpy as np

from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import Progress
from napari_cvdm.evaluation.coverage import SpreadScore, spread_score
from napari_cvdm.evaluation.pair_sets import PairSet
from napari_cvdm.evaluation.reconstructed_pair import (
    ReconstructedPair,
    Sampling,
    check_spread,
    reconstruct_pairs,
)
from napari_cvdm.models.checkpoint import Checkpoint

STOCHASTIC = ("sde-2m", "ancestral")


def with_noise_scale(model: Checkpoint, scale: float) -> Checkpoint:
    """The same model with another scale of the sampler's fresh noise; the weights are shared.

    Raises
    ------
    ValueError
        A scale that is not allowed, see `CVDMConfig`.
    """
    network = copy(model.network)
    network.config = replace(model.network.config, noise_scale=scale)
    return replace(
        model,
        network=network,
        card=replace(model.card, network={**model.card.network, "noise_scale": scale}),
    )


def scores_by_scale(
    pairs: PairSet, model: Checkpoint, sampling: Sampling, scales: Sequence[float]
) -> Generator[Progress, None, Mapping[float, SpreadScore]]:
    """Reconstruct every pair of a set with each scale of the fresh noise.

    Parameters
    ----------
    pairs : PairSet
    model : Checkpoint
    sampling : Sampling
        With at least two samples, of a sampler that adds noise.
    scales : sequence of float
        See `CVDMConfig.noise_scale`.

    Yields
    ------
    Progress

    Returns
    -------
    mapping of float to SpreadScore
        The mean over the fields; the best scale has the least `crps`.

    Raises
    ------
    RequestError
        A sampler that adds no noise, or no pixel in any field that can be trusted.
    ValueError
        A scale that is not allowed.
    """
    check_spread(sampling)
    if sampling.sampler not in STOCHASTIC:
        raise RequestError(
            f"sampler is {sampling.sampler}, which adds no fresh noise; a noise scale is for "
            f"{' and '.join(STOCHASTIC)}."
        )
    scaled, found = {scale: with_noise_scale(model, scale) for scale in scales}, {}
    for number, (scale, one) in enumerate(scaled.items()):
        scores = []
        for step in reconstruct_pairs(pairs, one, sampling):
            if isinstance(step, Progress):
                yield replace(
                    step,
                    stage=f"noise scale {scale:g}: {step.stage}",
                    done=step.done + number * len(pairs),
                    total=len(scaled) * len(pairs),
                )
            elif (score := field_score(step)) is not None:
                scores.append(score)
        if not scores:
            raise RequestError(
                f"{pairs.name}: no pixel of its fields can be trusted; give larger or better pairs."
            )
        found[scale] = mean_score(scores)
    return found


def field_score(judged: ReconstructedPair) -> SpreadScore | None:
    """The score of one field's samples, in the field's unit; None if no pixel can be trusted."""
    where = judged.pixels()
    if judged.reconstruction.samples is None or not where[0].size:
        return None
    return spread_score(
        judged.reconstruction.samples[:, *where] / judged.unit, judged.truth[where] / judged.unit
    )


def mean_score(scores: Sequence[SpreadScore]) -> SpreadScore:
    """The mean of every figure over fields; all of the same number of samples."""
    numbers = {
        name: float(np.nanmean([getattr(score, name) for score in scores]))
        for name in ("error", "variance", "crps", "ause", "auroc")
    }
    coverage = {
        level: float(np.mean([score.coverage[level] for score in scores]))
        for level in scores[0].coverage
    }
    return SpreadScore(samples=scores[0].samples, coverage=coverage, **numbers)
