"""A result beside its truth: the evaluated pixels, the common unit of errors, and the piston."""

from collections.abc import Generator
from dataclasses import dataclass, field, replace

import numpy as np

from napari_cvdm.baselines import Baseline
from napari_cvdm.core.intensity import IntensityScale
from napari_cvdm.core.request import STEPS, ReconstructionRequest, RequestError, Sampler
from napari_cvdm.core.result import Progress, Reconstruction
from napari_cvdm.evaluation.pair_sets import PairSet, TestPair
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.tasks.fluorescence import above_dark

MOST_PIXELS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the posterior of every pair is sampled; see `ReconstructionRequest`."""

    samples: int = 16
    steps: int = STEPS
    seed: int = 0
    sampler: Sampler = "sde-2m"
    device: str = "auto"
    tile: int = 512

    def request(self, request: ReconstructionRequest) -> ReconstructionRequest:
        """The request, sampled in this way; its samples are kept."""
        same = {
            name: getattr(self, name)
            for name in ("samples", "steps", "seed", "sampler", "device", "tile")
        }
        return replace(request, keep_samples=True, **same)


def check_spread(sampling: Sampling) -> None:
    """RequestError where there are too few samples for a spread."""
    if sampling.samples < 2:
        raise RequestError(
            f"samples is {sampling.samples}; a spread needs at least 2. 16 is a good start."
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReconstructedPair:
    """One result beside its truth.

    Parameters
    ----------
    pair : TestPair
    reconstruction : Reconstruction
        Of one frame, with its samples.
    """

    pair: TestPair = field(repr=False)
    reconstruction: Reconstruction = field(repr=False)

    def __post_init__(self) -> None:
        found, wanted = self.reconstruction.mean.shape, self.pair.truth.shape
        if found != wanted:
            raise RequestError(
                f"{self.pair.request.image.source}: the truth has {wanted} pixels, the result "
                f"{found}; give a truth on the grid of the result."
            )

    @property
    def unit(self) -> float:
        """Errors of one field are divided by this before they are pooled with those of others.

        It is 1 rad, or the field's intensity scale [counts].
        """
        if self.reconstruction.unit == "rad":
            return 1.0
        request = self.pair.request
        counts, level = above_dark(request.image.frame(())[0], request.background)
        return IntensityScale.fit(
            counts, level
        ).scale  # of the image, whatever the method: errors of all methods have one unit

    @property
    def piston(self) -> float:
        """Constant of the error of a phase over the valid pixels [rad]; 0 for counts.

        No defocus pair determines it.
        """
        valid = self.reconstruction.valid
        if self.reconstruction.unit != "rad" or not valid.any():
            return 0.0
        return float((self.reconstruction.mean - self.pair.truth)[valid].mean(dtype=np.float64))

    @property
    def truth(self) -> np.ndarray:
        """The truth (Y, X), moved by the piston."""
        return self.pair.truth + np.float32(self.piston)

    @property
    def error(self) -> np.ndarray:
        """mean - truth (Y, X), without piston."""
        return self.reconstruction.mean - self.truth

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of at most MOST_PIXELS valid pixels, always the same.

        There are none where nothing can be trusted.
        """
        usable = np.flatnonzero(self.reconstruction.valid)
        if usable.size > MOST_PIXELS:
            usable = np.random.default_rng(0).choice(usable, MOST_PIXELS, replace=False)
        rows, columns = np.unravel_index(usable, self.pair.truth.shape)
        return rows, columns


def with_samples(result: Reconstruction, count: int) -> Reconstruction:
    """The result, with a single answer repeated `count` times.

    A method without a spread thereby states a spread of zero.
    """
    if result.samples is not None and len(result.samples) == count:
        return result
    return replace(result, samples=np.broadcast_to(result.mean, (count, *result.mean.shape)))


def reconstruct_pairs(
    pairs: PairSet, model: Checkpoint | Baseline, sampling: Sampling
) -> Generator[Progress | ReconstructedPair, None, None]:
    """Reconstruct every pair of a set.

    Parameters
    ----------
    pairs : PairSet
    model : Checkpoint or Baseline
        What has a single answer is taken for samples that are all alike.
    sampling : Sampling

    Yields
    ------
    Progress or ReconstructedPair
        Progress counts the pairs; after each pair comes its field.

    Raises
    ------
    RequestError
        What is wrong with a pair.
    """
    for number, load in enumerate(pairs.pairs):
        pair = load()
        steps = reconstruct(sampling.request(pair.request), model)
        while True:
            try:
                progress = next(steps)
            except StopIteration as end:
                result = with_samples(end.value, sampling.samples)
                break
            yield Progress(
                stage=f"{pairs.name}, field {number + 1} of {len(pairs)}: {progress.stage}",
                done=number,
                total=len(pairs),
            )
        yield ReconstructedPair(pair=pair, reconstruction=result)
    yield Progress(stage=pairs.name, done=len(pairs), total=len(pairs))
