"""Sources of fields, as pure functions of an index, and the choice of held-out fields."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.core.request import RequestError
from napari_cvdm.io import SUFFIXES, read_image
from napari_cvdm.simulate.ranges import PhaseRanges, WidefieldRanges
from napari_cvdm.simulate.scenes import (
    DrawPhase,
    DrawStructure,
    draw_phase,
    phase_of_image,
    simulate_fluorescence,
    structure_of_image,
)
from napari_cvdm.tasks import FLUORESCENCE
from napari_cvdm.training.fields import TrainingField, simulated_fluorescence, solved_field
from napari_cvdm.training.measured import MeasuredFields, PairEntry
from napari_cvdm.training.solved_fields import (
    check_record,
    load_training_field,
    ranges_entry,
    solve_field,
)

SEED_STRIDE = 1_000_003
HELD_OUT_SEED = 500_000  # added to the seed: no training reaches these
Ranges = PhaseRanges | WidefieldRanges


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
class SimulatedFields:
    """Fields of a simulation; index i is that of the seed `seed * SEED_STRIDE + i`.

    Parameters
    ----------
    ranges : PhaseRanges or WidefieldRanges
    seed : int
    draws : sequence of callable
        What is in the fields, by turns; random objects where there are none.
    count : int, optional
        Fields that are learned from again and again; None for new ones without end.
    """

    ranges: Ranges
    seed: int
    draws: Sequence[DrawPhase | DrawStructure] = ()
    count: int | None = None

    def field(self, index: int) -> TrainingField:
        """Make one."""
        number = index if self.count is None else index % self.count
        draw = self.draws[number % len(self.draws)] if self.draws else None
        return _simulated(self.ranges, self.seed * SEED_STRIDE + number, draw)

    def blank(self, index: int) -> TrainingField:
        """Make one with nothing in it."""
        return _simulated(
            self.ranges,
            self.seed * SEED_STRIDE + index,
            _no_phase if isinstance(self.ranges, PhaseRanges) else _no_structure,
        )


def _simulated(
    ranges: Ranges, seed: int, draw: "DrawPhase | DrawStructure | None"
) -> TrainingField:
    if isinstance(ranges, PhaseRanges):
        solved = solve_field(seed, ranges, draw or draw_phase)  # type: ignore[arg-type]  # draws are made for the ranges
        return solved_field(solved.maps, solved.truth)
    pair = simulate_fluorescence(seed, ranges, draw)  # type: ignore[arg-type]
    return simulated_fluorescence(FLUORESCENCE[ranges.task], pair, seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvedFields:
    """``[solved]``: fields that were simulated and inverted before, see `solved_fields`.

    Parameters
    ----------
    folder : str
        With one NPZ file for each field, as ``napari-cvdm simulate --solved`` writes them.
    """

    folder: str

    def paths(self) -> list[Path]:
        """The files that are there now, in order; RequestError where there is none."""
        paths = sorted(Path(self.folder).glob("*.npz"))
        if not paths:
            command = (
                f"napari-cvdm simulate phase --solved --out {self.folder}, "
                "or with widefield in place of phase"
            )
            raise RequestError(f"{self.folder}: no solved field in it; make them with {command}.")
        return paths


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SolvedSource:
    """Solved fields on disk, in an order of their own on every pass."""

    paths: Sequence[Path]
    seed: int

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.paths)

    def field(self, index: int) -> TrainingField:
        """Read one of them."""
        order = np.random.default_rng((self.seed, index // self.count)).permutation(self.count)
        return self.exactly(int(order[index % self.count]))

    def exactly(self, number: int) -> TrainingField:
        """Read the field of one file."""
        return load_training_field(self.paths[number])

    def blank(self, index: int) -> TrainingField:
        """The same as `field`: empty fields are among them."""
        return self.field(index)


def split_solved(fields: SolvedFields, ranges: Ranges, seed: int, held_out: int) -> "Split":
    """Solved fields of these ranges; the first ones are held out.

    Files that are added later are therefore used for training.
    """
    paths = fields.paths()
    check_record(Path(fields.folder), ranges_entry(ranges))
    if len(paths) <= held_out:
        raise RequestError(
            f"{fields.folder}: {len(paths)} solved fields, and {held_out} are to be held out; make "
            "more."
        )
    judged = SolvedSource(paths=paths[:held_out], seed=seed)
    return Split(
        training=SolvedSource(paths=paths[held_out:], seed=seed),
        held_out=tuple(partial(judged.exactly, number) for number in range(held_out)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanImages:
    """``[clean]``: sharp fluorescence images, or phase maps [rad].

    The microscope of ``[simulation]`` degrades them.

    Parameters
    ----------
    folder : str
    pixel_um : float, optional
        Where the files do not say.
    """

    folder: str
    pixel_um: float | None = None

    def draws(self, ranges: Ranges) -> dict[str, DrawPhase | DrawStructure]:
        """What each image puts into a field, by its name."""
        paths = [
            path for path in sorted(Path(self.folder).glob("*")) if path.suffix.lower() in SUFFIXES
        ]
        if not paths:
            raise RequestError(
                f"{self.folder}: no image in it; files ending in {', '.join(SUFFIXES)} are read."
            )
        return {path.name: self._draw(path, ranges) for path in paths}

    def _draw(self, path: Path, ranges: Ranges) -> "DrawPhase | DrawStructure":
        stack = read_image(path)
        pixel_um = self.pixel_um or stack.pixel_um
        if pixel_um is None:
            raise RequestError(f"{path}: its pixel size is not known; give pixel_um under [clean].")
        if stack.axes != "YX":
            raise RequestError(
                f"{path}: has axes {stack.axes}; one image (Y, X) for each file is needed."
            )
        of_image: Callable[[np.ndarray, float], DrawPhase | DrawStructure] = (
            phase_of_image if isinstance(ranges, PhaseRanges) else structure_of_image
        )
        return of_image(np.asarray(stack.array), pixel_um)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Fields to learn from, and fields that are never learned from.

    Parameters
    ----------
    training : FieldSource
    held_out : tuple of callable
        () -> field.
    """

    training: FieldSource
    held_out: tuple[Callable[[], TrainingField], ...]


def held_out_views(views: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """Fields of view to hold out: at least one, never all, chosen by the seed.

    Parameters
    ----------
    views : sequence of str
        One for each field; fields of one view stay together.
    share : float
        In (0, 1), of the views.
    seed : int

    Raises
    ------
    RequestError
        There are fewer than two views.
    """
    different = sorted(set(views))
    if len(different) < 2:
        raise RequestError(
            f"there is {len(different)} field of view; at least 2 are needed, so that one can be "
            "held out to judge the training."
        )
    count = min(len(different) - 1, max(1, round(share * len(different))))
    return frozenset(np.random.default_rng(seed).permutation(different)[:count].tolist())


def split_simulation(
    ranges: Ranges,
    seed: int,
    held_out: int,
    clean: CleanImages | None = None,
    share: float = 0.2,
    fields: int | None = None,
) -> Split:
    """A simulation, or clean images degraded by it; held-out fields have own seeds and images."""
    draws = clean.draws(ranges) if clean is not None else {}
    kept = held_out_views(list(draws), share, seed) if draws else frozenset[str]()
    learned = tuple(draw for name, draw in draws.items() if name not in kept)
    judged = SimulatedFields(
        ranges=ranges,
        seed=seed + HELD_OUT_SEED,
        draws=tuple(draw for name, draw in draws.items() if name in kept),
    )
    training = SimulatedFields(ranges=ranges, seed=seed, draws=learned, count=fields)
    return Split(
        training=training, held_out=tuple(partial(judged.field, index) for index in range(held_out))
    )


def split_measured(
    entries: Sequence[PairEntry], task: str, seed: int, share: float, *, register: bool
) -> Split:
    """Measured pairs, split by field of view."""
    kept = held_out_views([entry.view for entry in entries], share, seed)
    learned, judged = (
        MeasuredFields(
            [entry for entry in entries if (entry.view in kept) is chosen],
            task,
            register=register,
            seed=seed,
        )
        for chosen in (False, True)
    )
    return Split(
        training=learned,
        held_out=tuple(partial(judged.exactly, number) for number in range(judged.count)),
    )


def _no_phase(
    rng: np.random.Generator, shape: tuple[int, int], ranges: PhaseRanges, pixel_um: float
) -> np.ndarray:
    return np.zeros(shape)


def _no_structure(rng: np.random.Generator, side: int, pixel_um: float) -> Tensor:
    return torch.zeros(side, side)
