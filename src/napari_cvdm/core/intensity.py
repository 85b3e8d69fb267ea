"""Intensity scales that can be inverted.

Counts become dimensionless numbers for the network, and these become counts again.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import (
    binary_dilation,
    binary_erosion,
    binary_opening,
    distance_transform_edt,
    find_objects,
    label,
)

BRIGHT_PERCENTILE = 99.8  # not the maximum, which one hot pixel decides
FEWEST_CLIPPED = 20  # pixels at the top value: fewer may have it by chance
PILE = 4  # times as many pixels at the top value as one below
BRIGHT = 1.1  # times the median: an even field piles up at its own level, uncut
CAMERA_TOPS = (255, 65535)  # of 8 and 16 bits: floats no longer tell which they were
DARK_PERCENTILE = 1.0
NOISE_FLOOR = 12.0
LARGEST_SUBSET = 4_000_000
MAD_TO_SIGMA = 1.4826  # of a normal distribution: 1 / Phi^-1(3/4)
# Zeros that nobody measured lie far below the darkest pixels that were measured. They are a border
# with straight edges, as of an image that was moved, or rectangles.
BLOCK_PX, EDGE_PX, STRAIGHT_PX = 5, 2, 3
FAR_FROM_ZERO, FAR_IN_NOISE = 8.0, 4.0
FEW_BETWEEN = 1e-3
MOST_CORNERS, LEAST_INSIDE, FULL_BOX = 8, 0.25, 0.95


def measured_pixels(plane: np.ndarray) -> np.ndarray:
    """Where a camera measured a plane (Y, X), bool.

    Nothing was measured where pixels are not finite. Nor are zeros a measurement that form the
    border of a registered image, or a rectangle such as a lost chunk, if the darkest other pixels
    lie far from zero. Of a plane of zeros alone this cannot be told, so it counts as measured.
    """
    measured = np.isfinite(plane)
    zero = plane == 0
    if not zero.any() or zero.all():
        return measured
    box = measured_box((~zero).any(axis=1), (~zero).any(axis=0), zero.size - int(zero.sum()))
    if box is not None and not zero[box].any():  # the common case, without a hull
        near = np.ones(zero.shape, bool)
        near[without_edge(box, zero.shape)] = False
    else:
        rectangles = _empty_rectangles(zero)
        block = _empty_border(zero, rectangles) | rectangles
        if not block.any():
            return measured
        near = binary_dilation(block, iterations=EDGE_PX)
    rest = np.where(measured & ~near, plane, np.nan).astype(np.float64, copy=False)
    return measured & ~near if is_far_from_zero(rest) else measured


def measured_box(rows: np.ndarray, columns: np.ndarray, count: int) -> tuple[slice, slice] | None:
    """Rows and columns of a plane that hold all but a border of zeros; None without a border.

    `rows` and `columns` say which of them hold a pixel that is not zero. `count` is the number of
    such pixels in the plane: hardly any zero may lie between them.
    """
    (seen_rows,), (seen_columns,) = rows.nonzero(), columns.nonzero()
    if not count or count < LEAST_INSIDE * len(rows) * len(columns):
        return None
    box = (
        slice(int(seen_rows[0]), int(seen_rows[-1]) + 1),
        slice(int(seen_columns[0]), int(seen_columns[-1]) + 1),
    )
    sides = tuple(one.stop - one.start for one in box)
    area = sides[0] * sides[1]
    is_border = sides != (len(rows), len(columns)) and area - count < FEW_BETWEEN * area
    return box if is_border else None


def without_edge(box: tuple[slice, slice], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The box without the pixels beside its border, which mix zero and image where it was moved."""
    rows, columns = (
        slice(
            one.start + EDGE_PX * (one.start > 0),
            max(one.start + EDGE_PX, one.stop - EDGE_PX * (one.stop < size)),
        )
        for one, size in zip(box, shape, strict=True)
    )
    return rows, columns


def is_far_from_zero(plane: np.ndarray, noise: float | None = None) -> bool:
    """Whether the darkest pixels of a plane (Y, X) have an offset, so that none is near zero.

    Pixels that are NaN do not count. `noise` is `noise_sigma` of the plane where it is known.
    """
    known = plane[np.isfinite(plane)].astype(np.float64, copy=False)
    if not known.size:
        return False
    darkest, whole = float(np.percentile(known, DARK_PERCENTILE)), (known == np.round(known)).all()
    if noise is None:
        noise = noise_sigma(plane.astype(np.float64, copy=False))
    if darkest <= FAR_IN_NOISE * noise:
        return False
    is_dark = whole and darkest <= FAR_FROM_ZERO
    return not is_dark and float((known < darkest / 2).mean()) < FEW_BETWEEN


def _empty_border(zero: np.ndarray, rectangles: np.ndarray) -> np.ndarray:
    """Zeros outside a convex polygon of few corners that holds all else but rectangles."""
    from skimage.measure import approximate_polygon, find_contours
    from skimage.morphology import convex_hull_image

    seen = ~zero
    none = np.zeros(zero.shape, bool)
    edges = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]])
    if edges.all() or seen.mean() < LEAST_INSIDE:
        return none
    hull = convex_hull_image(seen)
    (outline, *_) = find_contours(np.pad(hull, 1).astype(float), 0.5)
    corners = len(approximate_polygon(outline, STRAIGHT_PX)) - 1
    inner = binary_erosion(hull, iterations=STRAIGHT_PX, border_value=1)
    inside = (zero & inner & ~rectangles).sum() / hull.sum()
    return ~hull if corners <= MOST_CORNERS and inside < FEW_BETWEEN else none


def _empty_rectangles(zero: np.ndarray) -> np.ndarray:
    """Blocks of zeros that fill the rectangle about them."""
    labels, _ = label(binary_opening(zero, np.ones((BLOCK_PX, BLOCK_PX), bool)))
    found = np.zeros(zero.shape, bool)
    for number, box in enumerate(find_objects(labels), start=1):
        full = labels[box] == number
        if full.mean() > FULL_BOX:
            found[box] |= full
    return found


def fill_unmeasured(image: np.ndarray) -> np.ndarray:
    """An image (Y, X) with the nearest known value for NaN; zero where no pixel is known."""
    unknown = ~np.isfinite(image)
    if unknown.all():
        return np.zeros_like(image)
    if not unknown.any():
        return image
    rows, columns = distance_transform_edt(unknown, return_distances=False, return_indices=True)
    return np.asarray(image[rows, columns])


def noise_sigma(image: np.ndarray) -> float:
    """Standard deviation of the pixel noise.

    The estimate is the median of a 2 x 2 checkerboard difference (Immerkaer-like) of an image
    (Y, X), in its units. Smooth structure cancels to second order. It is zero for an image of a
    single row or column. Pixels that are NaN do not count.
    """
    if min(image.shape) < 2:
        return 0.0
    return checkerboard_sigma(image[:-1, :-1], image[1:, :-1], image[:-1, 1:], image[1:, 1:])


def checkerboard_sigma(
    top_left: np.ndarray, bottom_left: np.ndarray, top_right: np.ndarray, bottom_right: np.ndarray
) -> float:
    """Standard deviation of the noise, MAD(a - b - c + d) / 2 of the corners of 2 x 2 patches."""
    sizes = np.abs(top_left - bottom_left - top_right + bottom_right)
    known = sizes[np.isfinite(sizes)]
    # Four independent pixels give the difference twice the deviation of one.
    return MAD_TO_SIGMA * grouped_median(known) / 2 if known.size else 0.0


def grouped_median(sizes: np.ndarray) -> float:
    """Median of values >= 0 that may be rounded.

    Equal values count as spread evenly over their rounding step. Whole counts have few different
    values, and their plain median jumps. Where no values are equal, the result is the plain median.
    """
    levels, counts = np.unique(sizes, return_counts=True)
    below = np.cumsum(counts) - counts
    index = int(np.searchsorted(below + counts, sizes.size / 2))
    if counts[index] == 1 or len(levels) == 1:
        return float(np.median(sizes))
    # Counts over a gain are multiples of it, so the step need not be 1.
    step = float(np.diff(levels).min())
    low, high = max(0.0, levels[index] - step / 2), levels[index] + step / 2
    return float(low + (high - low) * (sizes.size / 2 - below[index]) / counts[index])


def clipping_level(plane: np.ndarray) -> int | None:
    """Value at which a camera's plane (Y, X) was clipped.

    It is the top of the integer type, or a largest value at which pixels pile up (12 bits in 16).
    None where no pixel was clipped, and for numbers that are not integers. Integers of which some
    were not measured are stored as floats with NaN, and count as integers.
    """
    known = plane
    tops: tuple[int, ...] = CAMERA_TOPS
    if plane.dtype.kind == "f":
        known = plane[np.isfinite(plane)]
        if known.size in (0, plane.size) or (known != np.round(known)).any():
            return None
    elif plane.dtype.kind in "ui":
        tops = (np.iinfo(plane.dtype).max,)
    else:
        return None
    top = int(known.max())
    at_top, below = int((known == top).sum()), int((known == top - 1).sum())
    piled = at_top >= max(FEWEST_CLIPPED, PILE * below) and top > BRIGHT * float(np.median(known))
    return top if piled or top in tops else None


def unclipped_mean(sample: np.ndarray, mean: float) -> float:
    """Mean of the pixels of a plane that were not cut off; of all pixels, if all were.

    `sample` (Y, X) is the plane, or evenly drawn parts of it, as measured. It shows at which value
    the plane was clipped, and how often. `mean` is that of all pixels of the plane.
    """
    top = clipping_level(sample)
    clipped = 0.0 if top is None else float((sample >= top).mean())
    return mean if top is None or clipped == 1 else (mean - clipped * top) / (1 - clipped)


def dark_level(counts: np.ndarray) -> float:
    """First percentile of an image [counts], the level where it has no structure; without NaN."""
    known = counts[np.isfinite(counts)]
    return float(np.percentile(known, DARK_PERCENTILE)) if known.size else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IntensityScale:
    """x = (counts - offset) / scale.

    Parameters
    ----------
    offset : float
        Dark level [counts].
    scale : float
        Counts for one unit of the network, > 0.
    """

    offset: float
    scale: float

    @classmethod
    def fit(cls, image: np.ndarray, offset: float) -> "IntensityScale":
        """Fit the scale of a whole fluorescence image.

        The scale is the robust brightest signal, but at least 12 standard deviations of the noise.
        This floor keeps a blank field blank. Without it, noise would be stretched to look like
        structure. `image` (Y, X) and the dark level `offset` are in counts; NaN does not count.
        """
        pixels = image[np.isfinite(image)]
        if not pixels.size:
            return cls(offset=offset, scale=1.0)
        pixels = pixels[:: max(1, pixels.size // LARGEST_SUBSET)]
        return cls.of_statistics(
            float(np.percentile(pixels, BRIGHT_PERCENTILE)), noise_sigma(image), offset
        )

    @classmethod
    def of_statistics(cls, bright: float, noise: float, offset: float) -> "IntensityScale":
        """Scale from the bright percentile, the deviation of the noise and the offset [counts]."""
        scale = max(bright - offset, NOISE_FLOOR * noise)
        return cls(offset=offset, scale=scale if scale > 0 else 1.0)

    def apply(self, counts: np.ndarray) -> np.ndarray:
        """Counts to network units, float32."""
        return ((counts - self.offset) / self.scale).astype(np.float32)
