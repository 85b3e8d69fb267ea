"""Resolution: from one image alone (decorrelation analysis), and against a truth (two points).

The first rewards sharpness, whether true or invented. Never read it without the second, or without
the errors. The second is the distance at which two simulated points are resolved, beside that of
truth and input.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.signal.windows import tukey
from skimage.transform import resize
from torch import Tensor

from napari_cvdm.core.result import Progress
from napari_cvdm.evaluation.pair_sets import (
    EVALUATION_SEED,
    PairSet,
    ReconstructedPair,
    Sampling,
    Tag,
    TestPair,
    reconstruct_pairs,
    trained_ranges,
    widefield_request,
)
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.simulate.ranges import WidefieldRanges
from napari_cvdm.simulate.scenes import MARGIN_PX, UPSAMPLING, simulate_widefield
from napari_cvdm.simulate.structures import splat

RADII, FILTERS, APODISED_PX = 50, 10, 20  # as in casus/pyres, a port to Python
LEAST_PEAK = 1e-3  # maxima that stand out by less are those of noise
DIP = 0.81  # Rayleigh's: the middle of two points that are just apart is at 0.81 of them
SEPARATIONS_UM = (0.06, 0.08, 0.10, 0.12, 0.14, 0.16, 0.18, 0.20, 0.22, 0.24)
PER_FIELD = 5  # separations, one for each row of pairs
SPACING_UM = 1.0
FIELD_PX = 96
PHOTONS = 1000.0
ZERO = (0.0, 0.0)
OIL_OBJECTIVE = {"na": 1.4, "wavelength_um": 0.52, "cutoff_px": 3.0}
MOST_SAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decorrelation:
    """What decorrelation analysis found.

    `cutoff` is the highest frequency with structure above noise, in parts of the Nyquist frequency,
    0 to 1; 0 where there is none. `radii` and `curve`, of shape (R,), are r and d(r) of the image
    without a filter.
    """

    cutoff: float
    radii: np.ndarray = field(repr=False)
    curve: np.ndarray = field(repr=False)

    def resolution_um(self, pixel_um: float) -> float:
        """2 px / cutoff [um]; NaN where nothing was found."""
        return 2 * pixel_um / self.cutoff if self.cutoff > 0 else float("nan")


def decorrelation(image: np.ndarray) -> Decorrelation:
    """Cut-off frequency of one image (Y, X), without parameters.

    References
    ----------
    Descloux, Grussmayer and Radenovic, Nature Methods 16, 918 (2019): the highest peak position
    over a series of high-pass filters.
    """
    # Faded at its frame, which would be an edge; frequencies are over Nyquist's.
    fade = np.outer(*(tukey(size, min(1.0, 2 * APODISED_PX / size)) for size in image.shape))
    spectrum = np.fft.fft2((image - image.mean(dtype=np.float64)) * fade)
    y, x = (2 * np.fft.fftfreq(size) for size in image.shape)
    radius, radii = np.hypot(y[:, None], x[None, :]), np.linspace(0, 1, RADII + 1)[1:]
    plain = decorrelation_curve(spectrum, radius, radii)
    if not np.isfinite(plain).all():
        return Decorrelation(cutoff=0.0, radii=radii, curve=np.zeros(RADII))
    # Low frequencies outweigh the faint high ones, so they are filtered away step by step.
    curves = [plain]
    for sigma in np.geomspace(2 / max(image.shape) * 4, 0.5, FILTERS):
        filtered = spectrum * (1 - np.exp(-2 * (radius / (2 * sigma)) ** 2))
        curves.append(decorrelation_curve(filtered, radius, radii))
    cutoff = max(peak_position(curve, radii) for curve in curves)
    return Decorrelation(cutoff=cutoff, radii=radii, curve=plain)


def decorrelation_curve(spectrum: np.ndarray, radius: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Correlation of a spectrum (Y, X) with its own phases, cut at each r of `radii`.

    d(r) = sum_{k<r} |I| / sqrt(sum_k |I|^2 sum_{k<r} 1), over frequencies in the Nyquist circle. It
    has a peak where signal ends and noise begins, and is NaN for an empty image.
    """
    amplitude = np.abs(spectrum)
    # One pass for all radii: sums of rings, then sums of sums.
    inside = (radius > 0) & (radius <= 1)
    places = np.searchsorted(radii, radius[inside])
    sums, counts = (
        np.cumsum(np.bincount(places, weights, minlength=len(radii)))[: len(radii)]
        for weights in (amplitude[inside], None)
    )
    energy = float(np.sum(amplitude[inside] ** 2))
    if energy == 0:
        return np.full(len(radii), np.nan)
    return sums / np.sqrt(energy * np.maximum(counts, 1))


def peak_position(curve: np.ndarray, radii: np.ndarray) -> float:
    """Radius r of the last local maximum of d(r) that stands above what follows.

    It is 0 where d(r) only rises or falls.
    """
    position = len(curve) - 1
    while position > 0:
        # A curve that rises to its end has no maximum there: look before it.
        position = int(np.argmax(curve[: position + 1]))
        if position < len(curve) - 1 and curve[position] - curve[position:].min() > LEAST_PEAK:
            return float(radii[position]) if position > 0 else 0.0
        position -= 1
    return 0.0


def resolves_pair(image: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether two points are resolved: the middle is at most 0.81 of the fainter one.

    `image` (Y, X) is above its background. `first` and `second` are the places (y, x) of the two
    points of each pair [px of the image], shape (P, 2).
    """
    pixels, middles = image.astype(np.float64), (first + second) / 2
    one, middle, other = (
        map_coordinates(pixels, place.T, order=1) for place in (first, middles, second)
    )
    # Where one of them is missing, nothing is resolved.
    fainter = np.minimum(one, other)
    return (fainter > 0) & (middle <= DIP * fainter)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TwoPoints:
    """Share of the pairs that are seen as two, of `pairs` pairs for each separation.

    `apart` has a share for each, in ``truth``, ``mean``, ``one sample`` and ``input, cubic``.
    """

    separation_um: tuple[float, ...]
    apart: Mapping[str, tuple[float, ...]] = field(repr=False)
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PointField:
    """A field of point pairs.

    `first` and `second` are places (y, x) in pixels of the truth, a row for each separation:
    shape (PER_FIELD, P, 2).
    """

    pair: TestPair = field(repr=False)
    first: np.ndarray = field(repr=False)
    second: np.ndarray = field(repr=False)


def point_field(
    seed: int, ranges: WidefieldRanges, separations_um: tuple[float, ...]
) -> PointField:
    """Point pairs at every separation, at random angles, in focus, without haze, at 1000 photons.

    The objective is an oil objective, or the nearest that is allowed. Cameras are drawn from the
    ranges. There are at most PER_FIELD separations.
    """
    # A range of one value, the one in the trained range that is nearest.
    usual: Any = {
        name: (float(np.clip(value, *getattr(ranges, name))),) * 2
        for name, value in OIL_OBJECTIVE.items()
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
        # A pixel's centre is half a pixel from its edge; the truth is cut out of a margin.
        places.append(points / pixel_um - 0.5 - UPSAMPLING * MARGIN_PX)
        return splat((points.reshape(-1, 2), np.ones(points.size // 2)), (side, side), pixel_um)

    made = simulate_widefield(seed, clear, draw)
    tags: dict[str, Tag] = {"structure": "point pairs"}
    pair = TestPair(request=widefield_request(made), truth=made.truth, tags=tags)
    return PointField(pair=pair, first=places[0][0], second=places[0][1])


def _points_um(
    rng: np.random.Generator, side_um: float, separations_um: tuple[float, ...]
) -> np.ndarray:
    """Positions (2, R, P, 2) of both points of every pair [um].

    The rows of pairs lie about the middle of the field.
    """
    steps = (np.arange(PER_FIELD) - (PER_FIELD - 1) / 2) * SPACING_UM + side_um / 2
    rows = steps[: len(separations_um)]
    jitter = rng.uniform(-0.05, 0.05, (len(rows), PER_FIELD, 2))
    centres = np.stack(np.meshgrid(rows, steps, indexing="ij"), axis=-1) + jitter
    angle = rng.uniform(0, np.pi, (len(rows), PER_FIELD))
    direction = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    half = 0.5 * np.array(separations_um)[:, None, None] * direction
    return np.stack([centres - half, centres + half])


def two_point_resolution(
    model: Checkpoint, sampling: Sampling, fields: int = 1
) -> Generator[Progress, None, TwoPoints]:
    """Reconstruct fields of point pairs, and look which are seen as two.

    For each five separations there are so many `fields`, with five pairs of each. At most
    MOST_SAMPLES are drawn.
    """
    ranges = trained_ranges(model.card)
    if not isinstance(ranges, WidefieldRanges):
        raise TypeError("point pairs are for super-resolution")
    starts = range(0, len(SEPARATIONS_UM), PER_FIELD)
    points = [
        point_field(
            EVALUATION_SEED + 100 * number + repeat,
            ranges,
            SEPARATIONS_UM[start : start + PER_FIELD],
        )
        for number, start in enumerate(starts)
        for repeat in range(fields)
    ]
    loads = tuple(partial(getattr, one, "pair") for one in points)
    pairs = PairSet(name="point pairs", description="point pairs", pairs=loads)
    shares: dict[str, list[np.ndarray]] = {}
    fewer = replace(sampling, samples=min(MOST_SAMPLES, sampling.samples))
    for step in reconstruct_pairs(pairs, model, fewer):
        if isinstance(step, Progress):
            yield step
            continue
        where = points[len(shares.get("truth", ()))]
        for name, image in _compared_images(step).items():
            rows = zip(where.first, where.second, strict=True)
            share = np.array([resolves_pair(image, *row).mean() for row in rows])
            shares.setdefault(name, []).append(share)
    return TwoPoints(
        separation_um=SEPARATIONS_UM,
        apart={
            name: tuple(np.reshape(each, (len(starts), fields, -1)).mean(axis=1).ravel().tolist())
            for name, each in shares.items()
        },
        pairs=fields * PER_FIELD,
    )


def _compared_images(found: ReconstructedPair) -> dict[str, np.ndarray]:
    counts, truth = np.asarray(found.pair.request.image.array, np.float64), found.pair.truth
    # Points are few, so the median is the background.
    above = counts - np.median(counts)
    cubic = resize(above, truth.shape, order=3, mode="edge", anti_aliasing=False)
    return {
        "truth": truth,
        "mean": found.reconstruction.mean,
        "one sample": found.one_sample,
        "input, cubic": cubic,
    }
