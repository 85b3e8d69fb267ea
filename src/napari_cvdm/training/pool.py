"""Training fields, and patches that are cut from a rolling pool of them.

A field is a measured or simulated image, conditioned as in use, and its truth in the same units.
The pool is a pure function of (seed, step): nothing about it has to be saved to resume.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_cvdm.core.intensity import dark_level
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import RequestError
from napari_cvdm.simulate.scenes import WidefieldPair
from napari_cvdm.tasks import Background, Fluorescence, PhaseTwoShot
from napari_cvdm.tasks.deconvolved import Lens, lens_of_microscope
from napari_cvdm.tasks.phase_input import (
    FieldNumbers,
    inner_frame,
    network_channels,
    network_window,
)
from napari_cvdm.tasks.phase_inversion import PhaseMaps

# Without a floor, a field that is inverted perfectly would weigh without bound.
ERROR_FLOOR_PHASE = 0.05
ERROR_FLOOR_SIGNAL = 0.02
KNOWN_DARK_SHARE, KNOWN_OPTICS_SHARE = 0.5, 0.75  # of the simulated images
NA_ERROR = 0.03  # of a stated NA, in its logarithm
CANDIDATES = 8  # places of which a foreground patch takes the one with the most in it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingField:
    """One conditioned field and its truth, in network units.

    Parameters
    ----------
    channels : Tensor of shape (C, Y, X)
    initial_estimate, truth : Tensor of shape (uY, uX)
    weight : float
        Weight of the squared error: 1 / (squared error of the initial estimate + a floor), so that
        weak and strong fields count alike.
    pixel_um : float, optional
        Pixel size of the measured image, where it is known.
    known : Tensor of shape (uY, uX), optional
        1 where the truth is known, else 0; known everywhere, if None.
    fine_channels : int
        Of the channels, the last so many are fine pixels: u^2 channels to each fine image.
    """

    channels: Tensor = field(repr=False)
    initial_estimate: Tensor = field(repr=False)
    truth: Tensor = field(repr=False)
    weight: float
    pixel_um: float | None = None
    known: Tensor | None = field(default=None, repr=False)
    fine_channels: int = 0

    @property
    def weights(self) -> Tensor:
        """Weight of the squared error of each pixel, (uY, uX)."""
        if self.known is None:
            return torch.full_like(self.truth, self.weight)
        return self.weight * self.known


def solved_field(maps: PhaseMaps, phase: np.ndarray) -> TrainingField:
    """An inverted field and its phase within the frame (h, w) [rad]."""
    numbers = FieldNumbers.measure(maps)
    estimate = (maps.phase[network_window(maps)] - numbers.level) / numbers.unit
    return _phase_field_of(
        network_channels(maps, numbers),
        torch.from_numpy(estimate).float(),
        inner_frame(maps),
        phase / numbers.unit,
    )


def phase_field(
    planes: np.ndarray,
    phase: np.ndarray,
    microscope: Microscope,
    defocus_um: Sequence[float],
    condenser_na: float = 0.0,
) -> TrainingField:
    """Measured planes (P, Y, X), inverted as a user's are, and their phase (Y, X) [rad]."""
    prepared = PhaseTwoShot().condition(
        planes, microscope, defocus_um, "auto", condenser_na=condenser_na
    )
    assert prepared.frame is not None  # a whole phase field has one
    made = _phase_field_of(
        prepared.channels, prepared.initial_estimate, prepared.frame, phase / prepared.gain
    )
    return replace(made, pixel_um=microscope.pixel_um)


def _phase_field_of(
    channels: Tensor, initial_estimate: Tensor, frame: tuple[slice, slice], phase: np.ndarray
) -> TrainingField:
    truth, known = initial_estimate.clone(), torch.zeros_like(initial_estimate)
    # The planes do not determine the mean of the phase, so it is that of the initial estimate.
    mean = initial_estimate[frame].mean()
    truth[frame] = torch.from_numpy(phase - phase.mean()).float() + mean
    known[frame] = 1
    return TrainingField(
        channels=channels,
        initial_estimate=initial_estimate,
        truth=truth,
        weight=_weight(truth[frame], initial_estimate[frame], ERROR_FLOOR_PHASE),
        known=known,
    )


def fluorescence_field(
    task: Fluorescence,
    counts: np.ndarray,
    truth_counts: np.ndarray,
    background: Background = "auto",
    lens: Lens | None = None,
    pixel_um: float | None = None,
) -> TrainingField:
    """A training field from a fluorescence image (Y, X) and its truth (uY, uX).

    Both are in counts of a camera pixel, above the level that the task subtracts from the image.
    """
    prepared = task.condition(counts[None], background, lens)
    truth = torch.from_numpy(truth_counts) / prepared.gain
    return TrainingField(
        channels=prepared.channels,
        initial_estimate=prepared.initial_estimate,
        truth=truth,
        weight=_weight(truth, prepared.initial_estimate, ERROR_FLOOR_SIGNAL),
        pixel_um=pixel_um,
        fine_channels=task.fine_channels,
    )


def _weight(truth: Tensor, initial_estimate: Tensor, floor: float) -> float:
    return 1 / (float((truth - initial_estimate).square().mean()) + floor**2)


def simulated_fluorescence(task: Fluorescence, pair: WidefieldPair, seed: int) -> TrainingField:
    """A training field from a simulated pair, as a user would give it.

    It has its dark level or not. Its optics are nearly right, or not known.
    """
    rng = np.random.default_rng((seed, 2))
    counts, truth = pair.counts, pair.truth
    background: Background = "auto"
    if rng.uniform() < KNOWN_DARK_SHARE:
        background = np.full(counts.shape, pair.camera.offset_counts)
        # The truth lies above the level that is taken off the image.
        truth = truth + np.float32(dark_level(counts) - pair.camera.offset_counts)
    lens = None
    if task.fine_channels and rng.uniform() < KNOWN_OPTICS_SHARE:
        na = (pair.microscope.na or 1.0) * np.exp(rng.normal(0, NA_ERROR))
        lens = lens_of_microscope(
            replace(pair.microscope, na=min(na, pair.microscope.medium_index)), task.upsampling
        )
    return fluorescence_field(task, counts, truth, background, lens, pair.microscope.pixel_um)


class FieldSource(Protocol):
    """Fields to learn from."""

    @property
    def count(self) -> int | None:
        """How many there are; None for no end."""

    def field(self, index: int) -> TrainingField:
        """One of them; of a finite source, each comes once before any comes again."""

    def blank(self, index: int) -> TrainingField:
        """The same field with nothing in it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Patches: channels (B, C, Y, X), and three maps (B, 1, uY, uX).

    The maps are the initial estimate, the truth and the weight of the squared error.
    """

    channels: Tensor = field(repr=False)
    initial_estimate: Tensor = field(repr=False)
    truth: Tensor = field(repr=False)
    weight: Tensor = field(repr=False)

    def to(self, device: torch.device) -> "Batch":
        """The same patches on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in self.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchLocation:
    """Where a patch is cut and how it is laid: top, left, quarter turns, mirrored or not.

    Rotations by 90 degrees and mirroring are valid for the physics of all tasks. Pixels are square,
    and neither propagation nor a round pupil has a preferred direction.
    """

    top: int
    left: int
    turns: int
    mirror: bool

    def cut(self, image: Tensor, side: int, factor: int) -> Tensor:
        """The patch of an image whose pixels are `factor` times finer than those of the place."""
        rows, columns = (
            slice(start * factor, (start + side) * factor) for start in (self.top, self.left)
        )
        part = torch.rot90(image[..., rows, columns], self.turns, (-2, -1))
        return part.flip(-1) if self.mirror else part

    def cut_with_fine(self, channels: Tensor, side: int, fine: int, factor: int) -> Tensor:
        """The patch of channels (C, Y, X), with fine channels.

        The last `fine` channels are the pixels of finer images, `factor` by `factor`. These pixels
        are turned and mirrored on the fine grid.
        """
        plain = self.cut(channels[: len(channels) - fine], side, 1)
        if not fine:
            return plain
        finer = self.cut(functional.pixel_shuffle(channels[-fine:], factor), side, factor)
        return torch.cat([plain, functional.pixel_unshuffle(finer, factor)])


class FieldPool:
    """A rolling pool of fields; step s holds the `size` newest of size + floor(s * rate) fields.

    Parameters
    ----------
    source : FieldSource
        Fields are made when a patch of them is first needed. With several processes, each makes
        only the fields that it needs.
    size : int
        A source with fewer fields is held whole, and nothing of it is replaced.
    rate : float
        New fields in a step.
    seed : int
        Chooses patches.
    foreground : float
        Share of patches that lie where there is something.
    blank : float
        Share of patches that are cut from an empty field.
    """

    def __init__(
        self,
        source: FieldSource,
        size: int,
        rate: float,
        seed: int,
        *,
        foreground: float = 0.0,
        blank: float = 0.0,
    ) -> None:
        few = source.count is not None and source.count <= size
        self._size, self._rate = (source.count or size, 0.0) if few else (size, rate)
        self._source, self._seed, self._foreground, self._blank = source, seed, foreground, blank
        self._fields: dict[tuple[int, bool], TrainingField] = {}
        self._one_at_a_time = Lock()  # the next batch is made while one is learned from

    def batch(self, step: int, count: int, side: int, part: slice = slice(None)) -> Batch:
        """Random patches for one step, turned and mirrored, with a side in input pixels.

        `part` is a slice of the `count` patches. The others are chosen, but neither made nor cut.
        """
        oldest = int(step * self._rate)
        rng = np.random.default_rng((self._seed, step))
        # Drawn for all patches, so that a part equals that part of the batch.
        chosen = rng.integers(self._size, size=count) + oldest
        blank = rng.uniform(size=count) < self._blank if self._blank else np.zeros(count, bool)
        seeds = rng.integers(2**32, size=count)
        with self._one_at_a_time:
            self._fields = {key: entry for key, entry in self._fields.items() if key[0] >= oldest}
            fields = [
                self._field(int(index), bool(empty))
                for index, empty in zip(chosen[part], blank[part], strict=True)
            ]
        cut = [
            self._patch(entry, side, np.random.default_rng(int(one)))
            for entry, one in zip(fields, seeds[part], strict=True)
        ]
        channels, initial_estimate, truth, weight = (
            torch.stack(parts) for parts in zip(*cut, strict=True)
        )
        return Batch(
            channels=channels, initial_estimate=initial_estimate, truth=truth, weight=weight
        )

    def _field(self, index: int, empty: bool) -> TrainingField:
        if (index, empty) not in self._fields:
            make = self._source.blank if empty else self._source.field
            self._fields[index, empty] = make(index)
        return self._fields[index, empty]

    def _patch(
        self, entry: TrainingField, side: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        height, width = entry.channels.shape[-2:]
        if min(height, width) < side:
            raise RequestError(
                f"[plan] patch_px is {side}, and one of the images has {height} x {width} px; "
                "choose a patch that fits into every image."
            )
        places = [
            PatchLocation(
                top=int(rng.integers(height - side + 1)),
                left=int(rng.integers(width - side + 1)),
                turns=int(rng.integers(4)),
                mirror=bool(rng.integers(2)),
            )
            for _ in range(CANDIDATES if rng.uniform() < self._foreground else 1)
        ]
        factor = entry.truth.shape[-2] // height

        def signal(place: PatchLocation) -> float:
            return float(place.cut(entry.truth, side, factor).abs().mean())

        place = max(places, key=signal) if len(places) > 1 else places[0]
        maps = (entry.initial_estimate, entry.truth, entry.weights)
        initial_estimate, truth, weights = (place.cut(image[None], side, factor) for image in maps)
        channels = place.cut_with_fine(entry.channels, side, entry.fine_channels, factor)
        return channels, initial_estimate, truth, weights
