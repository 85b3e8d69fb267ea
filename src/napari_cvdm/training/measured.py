"""Pairs that somebody measured: opened once, checked, conditioned as in use."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_cvdm.core.intensity import dark_level, noise_sigma
from napari_cvdm.core.microscope import Microscope, check_condenser, check_defocus
from napari_cvdm.core.request import RequestError
from napari_cvdm.tasks import FLUORESCENCE, TASKS, Fluorescence, PhaseTwoShot, Task
from napari_cvdm.tasks.deconvolved import lens_of_optics
from napari_cvdm.training.fields import TrainingField, fluorescence_field, phase_field
from napari_cvdm.training.pair_checks import (
    BORDER_PX,
    PairError,
    check_agreement,
    check_saturation,
    compared_phase,
    compared_widefield,
    moved_truth,
)

NEEDED_FOR_PHASE = ("pixel_um", "wavelength_um", "medium_index", "defocus_um")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """One field of a measured image and its truth, as they are in their files.

    Parameters
    ----------
    name : str
        For messages.
    measured : ndarray of shape (P, Y, X)
    truth : ndarray of shape (uY, uX)
        Fluorescence in any unit, phase in radians.
    optics : mapping
        `pixel_um` and, for phase, `wavelength_um`, `medium_index` and `defocus_um`, and
        `condenser_na` if the condenser is open.
    """

    name: str
    measured: np.ndarray = field(repr=False)
    truth: np.ndarray = field(repr=False)
    optics: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairEntry:
    """A pair that is still in its files.

    Parameters
    ----------
    view : str
        The field of view of the pair. Frames of one file stay together when fields are held out.
    load : callable
        () -> Pair.
    """

    view: str
    load: Callable[[], Pair] = field(repr=False)


class MeasuredFields:
    """A finite source of fields.

    Parameters
    ----------
    entries : sequence of PairEntry
    task : str
        Name of the task.
    register : bool
        Whether a truth that lies beside its image is moved onto it.
    seed : int
        Chooses the order of each pass, and the noise of blank fields.
    """

    def __init__(
        self, entries: Sequence[PairEntry], task: str, *, register: bool, seed: int
    ) -> None:
        self._entries, self._task, self._register, self._seed = (
            tuple(entries),
            TASKS[task],
            register,
            seed,
        )
        self.count = len(self._entries)

    def field(self, index: int) -> TrainingField:
        """One of the fields, in an order of its own on every pass."""
        order = np.random.default_rng((self._seed, index // self.count)).permutation(self.count)
        return self.exactly(int(order[index % self.count]))

    def exactly(self, number: int) -> TrainingField:
        """The field of one entry; PairError where it must not be learned from."""
        pair = self._entries[number].load()
        measured, truth = aligned(pair, self._task.name, register=self._register)
        if isinstance(self._task, Fluorescence):
            return self._fluorescence(
                pair, measured[0].astype(np.float32), truth.astype(np.float32)
            )
        return phase_field(measured, truth, *_phase_optics(pair))

    def blank(self, index: int) -> TrainingField:
        """An empty field with the level and the noise of one of the fields."""
        order = np.random.default_rng((self._seed, index // self.count)).permutation(self.count)
        pair = self._entries[int(order[index % self.count])].load()
        rng = np.random.default_rng((self._seed, index, 1))
        if isinstance(self._task, Fluorescence):
            level = dark_level(pair.measured[0])
            empty = _empty(pair.measured[0], level, rng)
            expected = level - dark_level(empty)
            return self._fluorescence(pair, empty, np.full(pair.truth.shape, expected, np.float32))
        planes = np.stack([_empty(plane, float(np.median(plane)), rng) for plane in pair.measured])
        return phase_field(planes, np.zeros(pair.truth.shape), *_phase_optics(pair))

    def _fluorescence(self, pair: Pair, counts: np.ndarray, truth: np.ndarray) -> TrainingField:
        """With the lens of the optics that the pair says, as in use."""
        assert isinstance(self._task, Fluorescence)
        pixel_um, wavelength_um, na, index = (
            pair.optics.get(name) for name in ("pixel_um", "wavelength_um", "na", "medium_index")
        )
        lens = (
            lens_of_optics(pixel_um, wavelength_um, na, index, self._task.upsampling)
            if self._task.fine_channels and pixel_um
            else None
        )
        return fluorescence_field(self._task, counts, truth, lens=lens, pixel_um=pixel_um)


def aligned(pair: Pair, task: str, *, register: bool) -> tuple[np.ndarray, np.ndarray]:
    """A measured image and its truth, registered, with the unit and grid of a model's result.

    Parameters
    ----------
    pair : Pair
    task : str
        Name of the task.
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
        A pair that must not be learned from, nor be judged by.
    """
    check_saturation(pair.name, pair.measured)
    _check_shape(pair, TASKS[task])
    return (
        _aligned_fluorescence(pair, FLUORESCENCE[task], register)
        if task in FLUORESCENCE
        else _aligned_phase(pair, register)
    )


def _check_shape(pair: Pair, task: Task) -> None:
    wanted = tuple(task.upsampling * size for size in pair.measured.shape[-2:])
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


def _aligned_fluorescence(
    pair: Pair, task: Fluorescence, register: bool
) -> tuple[np.ndarray, np.ndarray]:
    factor = task.upsampling
    found = compared_widefield(pair.measured[0].astype(np.float64), pair.truth, factor)
    check_agreement(pair.name, found, register=register, signed=False)
    truth = (
        moved_truth(pair.truth, found.shift_px, factor)
        if register
        else pair.truth.astype(np.float64)
    )
    inner = _inner(found.distance_px if register else 0, pair.measured.shape[-2:])
    kept = pair.measured[(slice(None), *inner)]
    # The unit of a truth is arbitrary. The blurred truth must match the measured signal: counts of
    # a camera pixel above the dark level.
    zero = (dark_level(kept[0]) - found.offset) / found.gain
    return kept, found.gain * (truth - zero)[_finer(inner, factor)]


def _aligned_phase(pair: Pair, register: bool) -> tuple[np.ndarray, np.ndarray]:
    microscope, defocus_um, condenser_na = _phase_optics(pair)
    prepared = PhaseTwoShot().condition(
        pair.measured, microscope, defocus_um, "auto", condenser_na=condenser_na
    )
    found = compared_phase(
        prepared.kept(prepared.initial_estimate.numpy()) * prepared.gain, pair.truth
    )
    check_agreement(pair.name, found, register=register, signed=True)
    truth = (
        moved_truth(pair.truth, found.shift_px, 1) if register else pair.truth.astype(np.float64)
    )
    inner = _inner(found.distance_px if register else 0, pair.truth.shape)
    kept = truth[inner]
    return pair.measured[(slice(None), *inner)], kept - kept.mean()


def _empty(plane: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """A level with the noise of a plane, float32 (Y, X)."""
    return (
        level + noise_sigma(plane.astype(np.float64)) * rng.standard_normal(plane.shape)
    ).astype(np.float32)


def _inner(distance_px: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The area without the edge that a shift fills, in whole pixels of the measured image."""
    margin = int(np.ceil(distance_px)) + (BORDER_PX if distance_px else 0)
    return slice(margin, shape[0] - margin), slice(margin, shape[1] - margin)


def _finer(inner: tuple[slice, slice], factor: int) -> tuple[slice, slice]:
    rows, columns = (slice(part.start * factor, part.stop * factor) for part in inner)
    return rows, columns


def _phase_optics(pair: Pair) -> tuple[Microscope, tuple[float, ...], float]:
    """Microscope, position of each plane [um] and NA of the condenser (0 for coherent light)."""
    missing = [name for name in NEEDED_FOR_PHASE if pair.optics.get(name) is None]
    if missing:
        raise RequestError(
            f"{pair.name}: {', '.join(missing)} not known; give them beside the folders in the "
            "recipe."
        )
    values = {name: float(pair.optics[name]) for name in NEEDED_FOR_PHASE[:3]}
    defocus_um, condenser_na = (
        check_defocus(pair.optics["defocus_um"]),
        float(pair.optics.get("condenser_na") or 0.0),
    )
    if len(defocus_um) != len(pair.measured):
        raise RequestError(
            f"{pair.name}: has {len(pair.measured)} planes, but defocus_um has {len(defocus_um)} "
            "positions; give one position for each plane, in their order."
        )
    check_condenser(condenser_na, values["medium_index"])
    return Microscope(**values, na=pair.optics.get("na")), defocus_um, condenser_na
