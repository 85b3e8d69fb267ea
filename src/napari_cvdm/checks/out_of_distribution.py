"""Whether an image is out of distribution.

A few statistics of the condition are compared with those of simulated training fields. No network
takes part. The statistics are noise over signal, contrast, the spectrum in octaves and the spread
of local contrast. Each is a number that can be named when it is unusual. The distance is that of
Mahalanobis (1936), d^2 = (s - m)^T C^-1 (s - m). An image is unusual beyond the 99 % quantile of
fields that took no part in the fit. So one in a hundred ordinary images is called unusual.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.signal.windows import hann

from napari_cvdm.core.intensity import noise_sigma
from napari_cvdm.tasks import NetworkInput
from napari_cvdm.tasks.phase_input import CHANNELS

PHASE_IMAGES = (
    "phase over strength",
    "phase over width",
    "pull of the data on the phase",
    "misfit",
)
WINDOW_PX = 128  # a large image is looked at in windows of the size of a training field
MOST_WINDOWS = 32  # of one image, evenly spread: more say no more, and cost
SMALLEST_PX = 32
OCTAVES = ((1 / 64, 1 / 32), (1 / 32, 1 / 16), (1 / 16, 1 / 8), (1 / 8, 1 / 4), (1 / 4, 0.71))
LOCAL_PX = 9  # odd, so that a window has a centre
PERCENTILES = (10, 50, 90, 99)
QUANTILE = 0.99
TINY = 1e-6  # keeps logarithms of blank images finite
RIDGE = 1e-6  # a statistic that never varies must leave the covariance invertible
STATISTICS = (
    "noise over signal",
    "contrast",
    *(f"spectrum at periods of {1 / high:.0f} to {1 / low:.0f} px" for low, high in OCTAVES),
    *(f"local contrast, {percentile} %" for percentile in PERCENTILES),
    "bright against dark",
)


def image_names(unit: str) -> tuple[str, ...]:
    """Channels whose statistics are taken.

    They are the signal of a fluorescence image, or what describes the object of a phase.
    """
    return PHASE_IMAGES if unit == "rad" else ("signal",)


def statistics(image: np.ndarray) -> np.ndarray:
    """The numbers named in `STATISTICS` of one image (Y, X), on logarithmic scales."""
    spread = float(image.std()) + TINY
    variance = uniform_filter(image**2, LOCAL_PX) - uniform_filter(image, LOCAL_PX) ** 2
    # Rounding may make the variance of a constant negative.
    local = np.sqrt(np.clip(variance, 0, None)) / spread
    contrasts = np.log(np.percentile(local, PERCENTILES) + 1e-2)
    dark, middle, bright = (float(value) for value in np.percentile(image, (1, 50, 99)))
    asymmetry = (bright + dark - 2 * middle) / (bright - dark + TINY)
    noise = np.log(noise_sigma(image) / spread + TINY**0.5)
    return np.array([noise, np.log(spread), *octave_shares(image), *contrasts, asymmetry])


def octave_shares(image: np.ndarray) -> np.ndarray:
    """Logarithm of the share of the power in each of `OCTAVES` [cycles/px]; shape (5,).

    A window is applied, since images are not periodic.
    """
    window = np.outer(*(hann(size) for size in image.shape))
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    y, x = (np.fft.fftfreq(size) for size in image.shape)
    radius = np.hypot(y[:, None], x[None, :])
    total = float(power.sum()) + TINY**2
    shares = [power[(radius >= low) & (radius < high)].sum() / total for low, high in OCTAVES]
    return np.log(np.array(shares) + TINY)


def windows(images: np.ndarray) -> list[np.ndarray]:
    """Parts (I, y, x) of images (I, Y, X): the half of them with the larger contrast.

    A part is as large as a training field, or as the image if that is smaller.
    """
    sides = [min(WINDOW_PX, size) for size in images.shape[1:]]
    starts = [
        range(0, size - side + 1, side) for size, side in zip(images.shape[1:], sides, strict=True)
    ]
    parts = [
        images[:, top : top + sides[0], left : left + sides[1]] for top, left in product(*starts)
    ]
    parts = parts[:: max(1, len(parts) // MOST_WINDOWS)]
    contrast = np.array([part[0].std() for part in parts])
    return [part for part, size in zip(parts, contrast, strict=True) if size >= np.median(contrast)]


def vectors_of(prepared: NetworkInput, unit: str) -> np.ndarray:
    """Statistics of a prepared frame, without what lies around it; see `channel_vectors`."""
    channels = prepared.channels.numpy()
    if prepared.frame is not None:
        channels = channels[:, *prepared.frame]
    return channel_vectors(channels, unit)


def channel_vectors(channels: np.ndarray, unit: str) -> np.ndarray:
    """Statistics of the channels (C, Y, X) of a frame, window by window: (W, K).

    There are none where the frame is too small.
    """
    chosen = [CHANNELS.index(name) for name in PHASE_IMAGES] if unit == "rad" else [0]
    images = channels[chosen].astype(np.float64)
    if min(images.shape[1:]) < SMALLEST_PX:
        return np.zeros((0, len(images) * len(STATISTICS)))
    return np.stack(
        [np.concatenate([statistics(image) for image in part]) for part in windows(images)]
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingDistribution:
    """What training fields look like.

    Parameters
    ----------
    mean : ndarray of shape (K,)
    covariance : ndarray of shape (K, K)
    threshold : float
        Distance below which 99 % of held-out training fields lie.
    images : tuple of str
        Names of the images that the statistics belong to, K / 12 of them.
    """

    mean: np.ndarray = field(repr=False)
    covariance: np.ndarray = field(repr=False)
    threshold: float
    images: tuple[str, ...] = ("signal",)

    @classmethod
    def fit(
        cls,
        fields: Sequence[np.ndarray],
        held_out: Sequence[np.ndarray],
        images: tuple[str, ...] = ("signal",),
    ) -> "TrainingDistribution":
        """From the vectors (W, K) of fields, the threshold from others; ValueError for too few."""
        rows = np.concatenate(list(fields))
        if len(rows) <= rows.shape[1] or not held_out:
            raise ValueError(
                f"{len(rows)} vectors of {rows.shape[1]} statistics were given; give more than "
                "that, 300 fields are a good start."
            )
        covariance = np.cov(rows, rowvar=False) + RIDGE * np.eye(rows.shape[1])
        plain = cls(mean=rows.mean(axis=0), covariance=covariance, threshold=np.inf, images=images)
        # Fields that the fit has seen would lie too near.
        found = [plain.distance(vectors) for vectors in held_out]
        return replace(plain, threshold=float(np.quantile(found, QUANTILE)))

    @classmethod
    def from_card(
        cls, values: Mapping[str, Any], unit: str = "counts"
    ) -> "TrainingDistribution | None":
        """From `ModelCard.training_distribution`.

        None where the card has none, or one of other images or statistics.
        """
        images = tuple(values.get("images", ("signal",)))
        # Distances between other statistics mean nothing.
        if tuple(values.get("statistics", ())) != STATISTICS or images != image_names(unit):
            return None
        mean, covariance = np.array(values["mean"]), np.array(values["covariance"])
        threshold = float(values["threshold"])
        return cls(mean=mean, covariance=covariance, threshold=threshold, images=images)

    def plain(self) -> dict[str, Any]:
        """As the card holds it."""
        return {
            "images": list(self.images),
            "statistics": list(STATISTICS),
            "threshold": round(self.threshold, 4),
            "quantile": QUANTILE,
            "mean": np.round(self.mean, 6).tolist(),
            "covariance": np.round(self.covariance, 6).tolist(),
        }

    def distance(self, vectors: np.ndarray) -> float:
        """Mahalanobis distance of a field, the median over its windows (W, K); 0 for none."""
        if not len(vectors):
            return 0.0
        away = vectors - self.mean
        squares = np.einsum("wk,wk->w", away, np.linalg.solve(self.covariance, away.T).T)
        return float(np.median(np.sqrt(squares)))

    def oddest(self, vectors: np.ndarray) -> str:
        """Name the statistic that is farthest from its mean, in its own standard deviations."""
        scores = np.median((vectors - self.mean) / np.sqrt(np.diag(self.covariance)), axis=0)
        index = int(np.abs(scores).argmax())
        image, statistic = divmod(index, len(STATISTICS))
        which = f" of {self.images[image]}" if len(self.images) > 1 else ""
        return f"{STATISTICS[statistic]}{which} is {'high' if scores[index] > 0 else 'low'}"


def distribution_warnings(
    frames: Sequence[np.ndarray], training: TrainingDistribution | None, name: str
) -> tuple[str, ...]:
    """One sentence where frames, each with its vectors (W, K), are unlike the training data.

    `name` is that of the model.
    """
    if training is None:
        return ()
    distances = [training.distance(vectors) for vectors in frames]
    unusual = [number for number, distance in enumerate(distances) if distance > training.threshold]
    if not unusual:
        return ()
    worst = max(unusual, key=lambda number: distances[number])
    part = f"{len(unusual)} of {len(frames)} frames are" if len(frames) > 1 else "the image is"
    return (
        f"{part} unlike what {name} was trained on (distance {distances[worst]:.1f}, 99 % of its "
        f"fields are below {training.threshold:.1f}; {training.oddest(frames[worst])}).",
    )
