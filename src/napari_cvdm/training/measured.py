"""Fields from measured pairs: each pair is checked, registered and conditioned as in use.

Measured image and truth must agree in field, place and scale, without saturation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, shift
from scipy.signal.windows import tukey
from skimage.registration import phase_cross_correlation

from napari_cvdm.core.intensity import dark_level, noise_sigma
from napari_cvdm.core.microscope import Microscope, check_condenser, check_defocus
from napari_cvdm.core.request import RequestError
from napari_cvdm.tasks import FLUORESCENCE, TASKS, Fluorescence, PhaseTwoShot
from napari_cvdm.tasks.deconvolved import lens_of_optics
from napari_cvdm.training.pairs import Pair, PairEntry
from napari_cvdm.training.pool import TrainingField, fluorescence_field, phase_field

NEEDED_FOR_PHASE = ("pixel_um", "wavelength_um", "medium_index", "defocus_um")
# Of the measured image: half of what blurs a truth by a tenth of its resolution.
LARGEST_SHIFT_PX = 0.3
SHIFT_PRECISION = 50  # parts of a pixel
LEAST_CORRELATION = 0.5
MOST_SATURATED = 0.01
# Of a widefield image beside its truth, in its own pixels.
BLURS_PX = (0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
BORDER_PX = 8
# Share of each side over which an image fades to zero, so that its frame is not registered.
FADED = 0.5
REFINEMENTS = 3


class PairError(RequestError):
    """A pair that cannot be used: shifted, of another field or scale, inverted or saturated."""


class MeasuredFields:
    """A finite source of fields.

    With `register`, a truth that lies beside its image is moved onto it. The seed chooses the order
    of each pass, and the noise of blank fields.
    """

    def __init__(
        self, entries: Sequence[PairEntry], task: str, *, register: bool, seed: int
    ) -> None:
        self._entries, self._task = tuple(entries), TASKS[task]
        self._register, self._seed = register, seed
        self.count = len(self._entries)

    def field(self, index: int) -> TrainingField:
        """One of the fields, in an order of its own on every pass."""
        return self.exactly(shuffled_number(index, self.count, self._seed))

    def exactly(self, number: int) -> TrainingField:
        """The field of one entry; PairError where it must not be learned from."""
        pair = self._entries[number].load()
        measured, truth = align_pair(pair, self._task.name, register=self._register)
        if isinstance(self._task, Fluorescence):
            counts, truth = measured[0].astype(np.float32), truth.astype(np.float32)
            return _fluorescence_field_of(self._task, pair, counts, truth)
        return phase_field(measured, truth, *_phase_optics(pair))

    def blank(self, index: int) -> TrainingField:
        """An empty field with the level and the noise of one of the fields."""
        pair = self._entries[shuffled_number(index, self.count, self._seed)].load()
        rng = np.random.default_rng((self._seed, index, 1))
        if isinstance(self._task, Fluorescence):
            level = dark_level(pair.measured[0])
            empty = _empty_plane(pair.measured[0], level, rng)
            truth = np.full(pair.truth.shape, level - dark_level(empty), np.float32)
            return _fluorescence_field_of(self._task, pair, empty, truth)
        planes = [_empty_plane(plane, float(np.median(plane)), rng) for plane in pair.measured]
        return phase_field(np.stack(planes), np.zeros(pair.truth.shape), *_phase_optics(pair))


def shuffled_number(index: int, count: int, seed: int) -> int:
    """Which of `count` fields comes at an index: each pass has an order of its own."""
    order = np.random.default_rng((seed, index // count)).permutation(count)
    return int(order[index % count])


def _fluorescence_field_of(
    task: Fluorescence, pair: Pair, counts: np.ndarray, truth: np.ndarray
) -> TrainingField:
    """With the lens of the optics that the pair says, as in use."""
    pixel_um, wavelength_um, na, index = (
        pair.optics.get(name) for name in ("pixel_um", "wavelength_um", "na", "medium_index")
    )
    lens = None
    if task.fine_channels and pixel_um:
        lens = lens_of_optics(pixel_um, wavelength_um, na, index, task.upsampling)
    return fluorescence_field(task, counts, truth, lens=lens, pixel_um=pixel_um)


def _empty_plane(plane: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """A level with the noise of a plane, float32 (Y, X)."""
    noise = noise_sigma(plane.astype(np.float64)) * rng.standard_normal(plane.shape)
    return (level + noise).astype(np.float32)


def _phase_optics(pair: Pair) -> tuple[Microscope, tuple[float, ...], float]:
    """Microscope, position of each plane [um] and NA of the condenser (0 for coherent light)."""
    missing = [name for name in NEEDED_FOR_PHASE if pair.optics.get(name) is None]
    if missing:
        raise RequestError(
            f"{pair.name}: {', '.join(missing)} not known; give them beside the folders in the "
            "recipe."
        )
    values = {name: float(pair.optics[name]) for name in NEEDED_FOR_PHASE[:3]}
    defocus_um = check_defocus(pair.optics["defocus_um"])
    condenser_na = float(pair.optics.get("condenser_na") or 0.0)
    if len(defocus_um) != len(pair.measured):
        raise RequestError(
            f"{pair.name}: has {len(pair.measured)} planes, but defocus_um has {len(defocus_um)} "
            "positions; give one position for each plane, in their order."
        )
    check_condenser(condenser_na, values["medium_index"])
    return Microscope(**values, na=pair.optics.get("na")), defocus_um, condenser_na


def align_pair(pair: Pair, task: str, *, register: bool) -> tuple[np.ndarray, np.ndarray]:
    """A measured image and its truth, registered, with the unit and grid of a model's result.

    Parameters
    ----------
    register : bool
        Whether a shifted truth is moved onto its image. The edge that the shift fills is cut off.

    Returns
    -------
    measured : ndarray of shape (P, Y, X)
    truth : ndarray of shape (uY, uX), float64
        Phase [rad] without its mean, or counts of a camera pixel above the dark level of the
        measured image.

    Raises
    ------
    PairError
        A pair that must not be learned from, nor be compared with a result.
    """
    _check_saturation(pair)
    _check_shape(pair, task)
    factor = TASKS[task].upsampling
    if task in FLUORESCENCE:
        found = compare_widefield(pair.measured[0].astype(np.float64), pair.truth, factor)
    else:
        microscope, defocus_um, condenser_na = _phase_optics(pair)
        prepared = PhaseTwoShot().condition(
            pair.measured, microscope, defocus_um, "auto", condenser_na=condenser_na
        )
        phase = prepared.kept(prepared.initial_estimate.numpy()) * prepared.gain
        found = compare_phase(phase, pair.truth)
    _check_agreement(pair.name, found, register=register, signed=task not in FLUORESCENCE)
    truth, margin = pair.truth.astype(np.float64), 0
    if register:
        # The edge values fill the border that the shift leaves empty.
        truth = shift(truth, [factor * one for one in found.shift_px], order=3, mode="nearest")
        margin = int(np.ceil(found.distance_px)) + (BORDER_PX if found.distance_px else 0)
    height, width = pair.measured.shape[-2:]
    kept = pair.measured[:, margin : height - margin, margin : width - margin]
    inner = tuple(slice(margin * factor, (size - margin) * factor) for size in (height, width))
    if task not in FLUORESCENCE:
        return kept, truth[inner] - truth[inner].mean()
    # The unit of a truth is arbitrary. The blurred truth must match the measured signal: counts of
    # a camera pixel above the dark level.
    zero = (dark_level(kept[0]) - found.offset) / found.gain
    return kept, found.gain * (truth - zero)[inner]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How a measured image and its truth compare.

    Parameters
    ----------
    correlation : float
        Pearson's, after the truth was made comparable.
    shift_px : tuple of float
        (y, x) by which the truth must be moved to lie on the measured image, in pixels of that
        image.
    gain : float
        Units of the measured image for one unit of the truth (1 for phase).
    offset : float
        What the measured image shows where the truth is zero (0 for phase).
    """

    correlation: float
    shift_px: tuple[float, float]
    gain: float
    offset: float = 0.0

    @property
    def distance_px(self) -> float:
        """Length of the shift."""
        return float(np.hypot(*self.shift_px))


def bin_means(image: np.ndarray, factor: int) -> np.ndarray:
    """Means of factor x factor pixels."""
    height, width = (size // factor for size in image.shape)
    whole = image[: height * factor, : width * factor]
    return whole.reshape(height, factor, width, factor).mean(axis=(1, 3))


def compare_widefield(measured: np.ndarray, truth: np.ndarray, factor: int) -> Agreement:
    """Compare a fluorescence image (Y, X) with a truth that is `factor` times finer.

    The truth is blurred until it is most similar, then registered, then fitted.
    """
    coarse = bin_means(truth.astype(np.float64), factor)
    blurred = max(
        (gaussian_filter(coarse, sigma) for sigma in BLURS_PX),
        key=lambda image: _correlation(image, measured),
    )
    moved = _find_shift(measured, blurred)
    laid = shift(blurred, moved, order=1, mode="nearest")
    if min(measured.shape) > 4 * BORDER_PX:
        inner = (slice(BORDER_PX, -BORDER_PX),) * 2
        laid, measured = laid[inner], measured[inner]
    # A constant truth says nothing of the unit.
    gain, offset = 0.0, 0.0
    if laid.std() > 0:
        gain, offset = np.polyfit(laid.ravel(), measured.astype(np.float64).ravel(), 1)
    correlation = _correlation(laid, measured)
    return Agreement(
        correlation=correlation, shift_px=moved, gain=float(gain), offset=float(offset)
    )


def compare_phase(initial_estimate: np.ndarray, truth: np.ndarray) -> Agreement:
    """Compare the inverted phase with a true phase on the same grid.

    Both are compared without low spatial frequencies, because defocused planes measure these badly.
    """
    slow = max(4.0, min(truth.shape) / 16)
    first, second = (
        image - gaussian_filter(image, slow)
        for image in (initial_estimate.astype(np.float64), truth.astype(np.float64))
    )
    moved = _find_shift(first, second)
    laid = shift(second, moved, order=1, mode="nearest")
    return Agreement(correlation=_correlation(laid, first), shift_px=moved, gain=1.0)


def _find_shift(reference: np.ndarray, moving: np.ndarray) -> tuple[float, float]:
    """The shift that registers one image to the other.

    It is refined on the remaining shift, because the frame biases each estimate towards zero.
    """
    fade = np.outer(*(tukey(size, FADED) for size in reference.shape))
    total = np.zeros(2)
    for _ in range(REFINEMENTS):
        laid = shift(moving, total, order=3, mode="nearest")
        # Around zero, so that fading adds no edge.
        first, second = (fade * (image - np.median(image)) for image in (reference, laid))
        found, _, _ = phase_cross_correlation(
            first, second, upsample_factor=SHIFT_PRECISION, normalization=None
        )
        total = total + found
    return float(total[0]), float(total[1])


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.std() == 0 or second.std() == 0:  # a constant correlates with nothing
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def _check_saturation(pair: Pair) -> None:
    """PairError where much of an integer image is at the top of its range."""
    if pair.measured.dtype.kind not in "ui":
        return
    share = float((pair.measured >= np.iinfo(pair.measured.dtype).max).mean())
    if share > MOST_SATURATED:
        raise PairError(
            f"{pair.name}: {share:.0%} of its pixels are saturated (at most {MOST_SATURATED:.0%} "
            "are allowed); leave this pair out."
        )


def _check_shape(pair: Pair, name: str) -> None:
    task = TASKS[name]
    wanted = tuple(task.upsampling * size for size in pair.measured.shape[-2:])
    # A phase may have more planes than it needs.
    if len(pair.measured) < task.planes or (task.planes == 1 and len(pair.measured) > 1):
        raise PairError(
            f"{pair.name}: has {len(pair.measured)} plane(s); {task.name} takes {task.inputs}."
        )
    if pair.truth.shape != wanted:
        raise PairError(
            f"{pair.name}: the truth has {pair.truth.shape} pixels and the measured image "
            f"{pair.measured.shape[-2:]}; "
            f"{task.name} needs a truth of {wanted} pixels. Crop or resample it."
        )


def _check_agreement(name: str, found: Agreement, *, register: bool, signed: bool) -> None:
    """PairError where a pair must not be learned from.

    For phase, the sign of the truth is meaningful (`signed`): an opposite sign means that the signs
    of the positions are wrong.
    """
    if signed and found.correlation < -LEAST_CORRELATION:
        raise PairError(
            f"{name}: the truth has the opposite sign of what the planes say; reverse the sign of "
            "all positions in defocus_um, or the order of the planes."
        )
    if found.correlation < LEAST_CORRELATION:
        raise PairError(
            f"{name}: measured image and truth have a correlation of {found.correlation:.2f} (at "
            f"least {LEAST_CORRELATION} is needed); "
            "are they of the same field, and is the truth the sharper one?"
        )
    if found.distance_px > LARGEST_SHIFT_PX and not register:
        down, right = found.shift_px
        raise PairError(
            f"{name}: the truth lies {-down:+.2f} px down and {-right:+.2f} px right of the "
            f"measured image (at most {LARGEST_SHIFT_PX} px is allowed); "
            "say register = true to have it moved, or register the pair."
        )
