"""Patches for training, cut from a rolling pool of whole fields.

The pool is a pure function of (seed, step): nothing about it has to be saved to resume.
"""

from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_cvdm.core.request import RequestError
from napari_cvdm.training.fields import TrainingField
from napari_cvdm.training.sources import FieldSource

CANDIDATES = 8  # places of which a foreground patch takes the one with the most in it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Patches: channels (B, C, Y, X), and three maps (B, 1, uY, uX).

    The maps are the initial estimate, the truth and the weight of the squared error.
    """

    channels: Tensor = field(repr=False)
    initial_estimate: Tensor = field(repr=False)
    truth: Tensor = field(repr=False)
    weight: Tensor = field(repr=False)


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

        The last `fine` channels are the `factor`^2 pixels of finer images. These pixels are turned
        and mirrored on the fine grid.
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
        """Random patches for one step, turned and mirrored, or a part of them.

        Parameters
        ----------
        step : int
        count, side : int
            Number of patches, and their side [input pixels].
        part : slice
            Of the `count` patches. The others are chosen, but neither made nor cut.
        """
        newest = self._size + int(step * self._rate)
        rng = np.random.default_rng((self._seed, step))
        chosen = rng.integers(self._size, size=count) + newest - self._size
        blank = rng.uniform(size=count) < self._blank if self._blank else np.zeros(count, bool)
        seeds = rng.integers(2**32, size=count)
        with self._one_at_a_time:
            self._forget_before(newest - self._size)
            fields = [
                self._field(int(index), bool(empty))
                for index, empty in zip(chosen[part], blank[part], strict=True)
            ]
        cut = [
            self._patch(entry, side, np.random.default_rng(int(one)))
            for entry, one in zip(fields, seeds[part], strict=True)
        ]
        channels, baseline, truth, weight = (torch.stack(parts) for parts in zip(*cut, strict=True))
        return Batch(channels=channels, initial_estimate=baseline, truth=truth, weight=weight)

    def _forget_before(self, oldest: int) -> None:
        self._fields = {key: entry for key, entry in self._fields.items() if key[0] >= oldest}

    def _field(self, index: int, empty: bool) -> TrainingField:
        if (index, empty) not in self._fields:
            self._fields[index, empty] = (
                self._source.blank(index) if empty else self._source.field(index)
            )
        return self._fields[index, empty]

    def _patch(
        self, entry: TrainingField, side: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if min(entry.channels.shape[-2:]) < side:
            held = " x ".join(str(size) for size in entry.channels.shape[-2:])
            raise RequestError(
                f"[plan] patch_px is {side}, and one of the images has {held} px; choose a patch "
                "that fits into every image."
            )
        places = [
            self._place(entry, side, rng)
            for _ in range(CANDIDATES if rng.uniform() < self._foreground else 1)
        ]
        factor = entry.truth.shape[-2] // entry.channels.shape[-2]
        place = (
            max(places, key=lambda one: float(one.cut(entry.truth, side, factor).abs().mean()))
            if len(places) > 1
            else places[0]
        )
        baseline, truth, weights = (
            place.cut(image[None], side, factor)
            for image in (entry.initial_estimate, entry.truth, entry.weights)
        )
        return (
            place.cut_with_fine(entry.channels, side, entry.fine_channels, factor),
            baseline,
            truth,
            weights,
        )

    def _place(self, entry: TrainingField, side: int, rng: np.random.Generator) -> PatchLocation:
        height, width = entry.channels.shape[-2:]
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        return PatchLocation(
            top=top, left=left, turns=int(rng.integers(4)), mirror=bool(rng.integers(2))
        )
