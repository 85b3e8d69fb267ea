"""Two-point resolution of a super-resolution model.

It is the distance at which two simulated points are resolved, beside that of truth and input.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from skimage.transform import resize
from torch import Tensor

from napari_cvdm.core.result import Progress, Reconstruction
from napari_cvdm.evaluation.pair_sets import (
    EVALUATION_SEED,
    PairSet,
    TestPair,
    trained_ranges,
    widefield_request,
)
from napari_cvdm.evaluation.reconstructed_pair import ReconstructedPair, Sampling, reconstruct_pairs
from napari_cvdm.evaluation.resolution import resolves_pair
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.simulate.ranges import WidefieldRanges
from napari_cvdm.simulate.scenes import MARGIN_PX, UPSAMPLING, simulate_widefield
from napari_cvdm.simulate.structures import splat

SEPARATIONS_UM = (0.06, 0.08, 0.10, 0.12, 0.14, 0.16, 0.18, 0.20, 0.22, 0.24)
PER_FIELD = 5  # separations, one for each row of pairs
SPACING_UM = 1.0
FIELD_PX = 96
PHOTONS = 1000.0
ZERO = (0.0, 0.0)
OIL_OBJECTIVE = {"na": 1.4, "wavelength_um": 0.52, "cutoff_px": 3.0}
MOST_SAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TwoPoints:
    """Share of the pairs that are seen as two.

    Parameters
    ----------
    separation_um : tuple of float
    apart : mapping of str to tuple of float
        For each separation, in ``truth``, ``mean``, ``one sample`` and ``input, cubic``.
    pairs : int
        For each separation.
    """

    separation_um: tuple[float, ...]
    apart: Mapping[str, tuple[float, ...]] = field(repr=False)
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PointField:
    """A field of point pairs.

    Parameters
    ----------
    pair : TestPair
    first, second : ndarray of shape (PER_FIELD, P, 2)
        Places (y, x) in pixels of the truth, a row for each separation.
    """

    pair: TestPair = field(repr=False)
    first: np.ndarray = field(repr=False)
    second: np.ndarray = field(repr=False)


def point_field(
    seed: int, ranges: WidefieldRanges, separations_um: tuple[float, ...]
) -> PointField:
    """Point pairs at every separation, at random angles, in focus, without haze, at 1000 photons.

    The objective is an oil objective, or the nearest that is allowed.

    Parameters
    ----------
    seed : int
    ranges : WidefieldRanges
        Cameras are drawn from these.
    separations_um : tuple of float
        Distances [um], at most PER_FIELD.
    """
    usual: Any = {
        name: nearest(getattr(ranges, name), value) for name, value in OIL_OBJECTIVE.items()
    }
    clear = replace(
        ranges,
        field_px=FIELD_PX,
        photons=(PHOTONS, PHOTONS),
        haze=ZERO,
        defocus=ZERO,
        blur_periods=ZERO,
        frames=(1, 1),
        stretched=0.0,
        correlated=0.0,
        **usual,
    )
    places: list[np.ndarray] = []

    def draw(rng: np.random.Generator, side: int, pixel_um: float) -> Tensor:
        points = _points_um(rng, side * pixel_um, separations_um)
        places.append(points / pixel_um - 0.5 - UPSAMPLING * MARGIN_PX)
        return splat((points.reshape(-1, 2), np.ones(points.size // 2)), (side, side), pixel_um)

    made = simulate_widefield(seed, clear, draw)
    pair = TestPair(
        request=widefield_request(made), truth=made.truth, tags={"structure": "point pairs"}
    )
    return PointField(pair=pair, first=places[0][0], second=places[0][1])


def nearest(allowed: tuple[float, float], value: float) -> tuple[float, float]:
    """A range of one value, the one in `allowed` that is nearest."""
    inside = float(np.clip(value, *allowed))
    return (inside, inside)


def _points_um(
    rng: np.random.Generator, side_um: float, separations_um: tuple[float, ...]
) -> np.ndarray:
    """Positions (2, R, P, 2) of both points of every pair [um].

    The rows of pairs lie about the middle of the field.
    """
    steps = (np.arange(PER_FIELD) - (PER_FIELD - 1) / 2) * SPACING_UM + side_um / 2
    rows = steps[: len(separations_um)]
    centres = np.stack(np.meshgrid(rows, steps, indexing="ij"), axis=-1) + rng.uniform(
        -0.05, 0.05, (len(rows), PER_FIELD, 2)
    )
    angle = rng.uniform(0, np.pi, (len(rows), PER_FIELD))
    half = (
        0.5
        * np.array(separations_um)[:, None, None]
        * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    )
    return np.stack([centres - half, centres + half])


def two_point_resolution(
    model: Checkpoint, sampling: Sampling, fields: int = 1
) -> Generator[Progress, None, TwoPoints]:
    """Reconstruct fields of point pairs, and look which are seen as two.

    Parameters
    ----------
    model : Checkpoint
        For super-resolution.
    sampling : Sampling
        At most MOST_SAMPLES are drawn.
    fields : int
        For each five separations; five pairs in each.

    Yields
    ------
    Progress

    Returns
    -------
    TwoPoints
    """
    ranges = trained_ranges(model.card)
    if not isinstance(ranges, WidefieldRanges):
        raise TypeError("point pairs are for super-resolution")
    parts = [
        SEPARATIONS_UM[start : start + PER_FIELD]
        for start in range(0, len(SEPARATIONS_UM), PER_FIELD)
    ]
    made = [
        [
            point_field(EVALUATION_SEED + 100 * number + repeat, ranges, part)
            for repeat in range(fields)
        ]
        for number, part in enumerate(parts)
    ]
    points = [one for part in made for one in part]
    pairs = PairSet(
        name="point pairs",
        said="point pairs",
        pairs=tuple(partial(getattr, one, "pair") for one in points),
    )
    found: dict[str, list[np.ndarray]] = {}
    fewer = replace(sampling, samples=min(MOST_SAMPLES, sampling.samples))
    for step in reconstruct_pairs(pairs, model, fewer):
        if isinstance(step, ReconstructedPair):
            where = points[len(found.get("truth", ()))]
            for name, image in _seen(step).items():
                found.setdefault(name, []).append(_shares(image, where))
        else:
            yield step
    shares = {
        name: tuple(np.reshape(each, (len(parts), fields, -1)).mean(axis=1).ravel().tolist())
        for name, each in found.items()
    }
    return TwoPoints(separation_um=SEPARATIONS_UM, apart=shares, pairs=fields * PER_FIELD)


def _shares(image: np.ndarray, where: PointField) -> np.ndarray:
    """Share of the pairs of each row that are apart, shape (R,)."""
    return np.array(
        [
            resolves_pair(image, first, second).mean()
            for first, second in zip(where.first, where.second, strict=True)
        ]
    )


def _seen(judged: ReconstructedPair) -> dict[str, np.ndarray]:
    result: Reconstruction = judged.reconstruction
    counts = np.asarray(judged.pair.request.image.array, np.float64)
    cubic = resize(
        counts - np.median(counts),
        judged.pair.truth.shape,
        order=3,
        mode="edge",
        anti_aliasing=False,
    )
    sample = result.mean if result.samples is None else result.samples[0]
    return {
        "truth": judged.pair.truth,
        "mean": result.mean,
        "one sample": sample,
        "input, cubic": cubic,
    }
