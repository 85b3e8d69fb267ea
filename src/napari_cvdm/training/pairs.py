"""Training pairs on the fly: whole simulated fields, conditioned as in use, from which patches are cut.

The pool is a pure function of (seed, step): nothing about it has to be saved to resume.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.simulate.phase import PhaseRanges, simulate_phase
from napari_cvdm.simulate.widefield import WidefieldRanges, simulate_widefield
from napari_cvdm.tasks import PhaseTwoShot, WidefieldX2

ERROR_FLOOR_PHASE = 0.005
ERROR_FLOOR_SIGNAL = 0.05
SEED_STRIDE = 1_000_003


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingField:
    """One conditioned field and its truth, in network units.

    Parameters
    ----------
    channels : Tensor of shape (C, Y, X)
    baseline, truth : Tensor of shape (uY, uX)
    weight : float
        Weight of its squared error: one over the squared error of the baseline (plus a floor), so that weak and strong
        fields count alike.
    """

    channels: Tensor = field(repr=False)
    baseline: Tensor = field(repr=False)
    truth: Tensor = field(repr=False)
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Patches: channels (B, C, Y, X), baseline and truth (B, 1, uY, uX), weight (B, 1, 1, 1)."""

    channels: Tensor = field(repr=False)
    baseline: Tensor = field(repr=False)
    truth: Tensor = field(repr=False)
    weight: Tensor = field(repr=False)


FieldSource = Callable[[int], TrainingField]


def phase_field(seed: int, ranges: PhaseRanges) -> TrainingField:
    """A simulated defocus pair, its US-TIE solved on the whole field."""
    pair = simulate_phase(seed, ranges)
    prepared = PhaseTwoShot().condition(pair.planes, pair.microscope, pair.defocus_um, "auto")
    truth = torch.from_numpy(pair.phase) / prepared.gain
    return TrainingField(channels=prepared.channels, baseline=prepared.baseline, truth=truth, weight=_weight(truth, prepared.baseline, ERROR_FLOOR_PHASE))


def widefield_field(seed: int, ranges: WidefieldRanges) -> TrainingField:
    """A simulated widefield image and its sharp truth, both over the image's intensity scale."""
    pair = simulate_widefield(seed, ranges)
    prepared = WidefieldX2().condition(pair.counts[None], "auto")
    truth = torch.from_numpy(pair.truth) / prepared.gain
    return TrainingField(channels=prepared.channels, baseline=prepared.baseline, truth=truth, weight=_weight(truth, prepared.baseline, ERROR_FLOOR_SIGNAL))


def _weight(truth: Tensor, baseline: Tensor, floor: float) -> float:
    return 1 / (float((truth - baseline).square().mean()) + floor**2)


def field_source(ranges: PhaseRanges | WidefieldRanges, seed: int) -> FieldSource:
    """index -> field, for the simulation that `ranges` belong to."""
    if isinstance(ranges, PhaseRanges):
        return lambda index: phase_field(seed * SEED_STRIDE + index, ranges)
    return lambda index: widefield_field(seed * SEED_STRIDE + index, ranges)


class FieldPool:
    """A rolling pool of fields; step s holds the `size` newest of size + floor(s * rate) fields.

    Parameters
    ----------
    source : callable
        index -> field, pure.
    size : int
    rate : float
        New fields in a step.
    seed : int
        Chooses patches.
    """

    def __init__(self, source: FieldSource, size: int, rate: float, seed: int) -> None:
        self._source, self._size, self._rate, self._seed = source, size, rate, seed
        self._fields: dict[int, TrainingField] = {}

    def _fill(self, step: int) -> None:
        newest = self._size + int(step * self._rate)
        wanted = range(newest - self._size, newest)
        self._fields = {index: self._fields[index] if index in self._fields else self._source(index) for index in wanted}

    def batch(self, step: int, count: int, side: int, part: slice = slice(None)) -> Batch:
        """Random patches of side `side` (input pixels), turned and mirrored, for one step; or a part of them."""
        self._fill(step)
        rng = np.random.default_rng((self._seed, step))
        fields = list(self._fields.values())
        chosen = [fields[int(index)] for index in rng.integers(len(fields), size=count)]
        cut = [_patch(entry, side, rng) for entry in chosen][part]
        channels, baseline, truth = (torch.stack(parts) for parts in zip(*cut, strict=True))
        weight = torch.tensor([entry.weight for entry in chosen[part]], dtype=torch.float32)[:, None, None, None]
        return Batch(channels=channels, baseline=baseline, truth=truth, weight=weight)


def _patch(entry: TrainingField, side: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    height, width = entry.channels.shape[-2:]
    factor = entry.truth.shape[-2] // height
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))

    def cut(image: Tensor, scale: int) -> Tensor:
        part = image[..., top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        part = torch.rot90(part, turns, (-2, -1))
        return part.flip(-1) if mirror else part

    return cut(entry.channels, 1), cut(entry.baseline[None], factor), cut(entry.truth[None], factor)
