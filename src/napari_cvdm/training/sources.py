"""Sources of fields, as pure functions of an index, and the choice of held-out fields.

Simulated fields may be inverted or deconvolved before a training, once, and kept on disk. Each is
one NPZ file, named by its number. A file is written completely before it gets its name, so that a
killed run resumes where it stopped. A record beside the files stores the seed, the ranges and the
version, so that a folder never holds fields of two kinds.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from torch import Tensor

from napari_cvdm import __version__
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import finished
from napari_cvdm.io import SUFFIXES, read_image
from napari_cvdm.io.atomic import clear_leftovers, complete_file, write_file
from napari_cvdm.io.limits import open_arrays, parse_json_object, read_bounded
from napari_cvdm.physics.camera import inverse_variance
from napari_cvdm.physics.forward_model import fresnel_number
from napari_cvdm.simulate.ranges import PhaseRanges, Ranges, WidefieldRanges
from napari_cvdm.simulate.scenes import (
    DrawPhase,
    DrawStructure,
    draw_phase,
    phase_of_image,
    simulate_fluorescence,
    simulate_phase,
    structure_of_image,
)
from napari_cvdm.tasks import FLUORESCENCE
from napari_cvdm.tasks.phase_inversion import PhaseMaps, invert_planes, phase_maps
from napari_cvdm.tasks.phase_posterior import PosteriorDraws
from napari_cvdm.training.measured import MeasuredFields, shuffled_number
from napari_cvdm.training.pairs import PairEntry
from napari_cvdm.training.pool import (
    FieldSource,
    TrainingField,
    simulated_fluorescence,
    solved_field,
)

SEED_STRIDE = 1_000_003  # fields of one seed: the next seed begins after them
HELD_OUT_SEED = 500_000  # added to the seed: no training reaches these
RECORD = "fields.json"
EDITION = 4  # raised where a seed comes to another field: inversion, deconvolution, stored names
# Kept as float16; pulls are too large for it.
COARSE = ("width", "border_difference", "misfit", "absorption")
READY = ("channels", "initial_estimate", "truth")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SimulatedFields:
    """Fields of a simulation; index i is that of the seed `seed * SEED_STRIDE + i`.

    `draws` put something into the fields, by turns; without any, random objects do. `count` fields
    are learned from again and again; None is for new ones without end.
    """

    ranges: Ranges
    seed: int
    draws: Sequence[DrawPhase | DrawStructure] = ()
    count: int | None = None

    def field(self, index: int) -> TrainingField:
        """Make one."""
        number = index if self.count is None else index % self.count
        draw = self.draws[number % len(self.draws)] if self.draws else None
        return FIELDS[self.ranges.task](self.ranges, self.seed * SEED_STRIDE + number, draw)

    def blank(self, index: int) -> TrainingField:
        """Make one with nothing in it."""
        return FIELDS[self.ranges.task](self.ranges, self.seed * SEED_STRIDE + index, _draw_nothing)


def _phase_field(ranges: PhaseRanges, seed: int, draw: DrawPhase | None) -> TrainingField:
    solved = solve_field(seed, ranges, draw or draw_phase)
    return solved_field(solved.maps, solved.truth)


def _fluorescence_field(
    ranges: WidefieldRanges, seed: int, draw: DrawStructure | None
) -> TrainingField:
    pair = simulate_fluorescence(seed, ranges, draw)
    return simulated_fluorescence(FLUORESCENCE[ranges.task], pair, seed)


MakeField = Callable[[Any, int, Any], TrainingField]
FIELDS: dict[str, MakeField] = {
    PhaseRanges.task: _phase_field,
    **dict.fromkeys(FLUORESCENCE, _fluorescence_field),
}
"""How each task makes a field: (ranges, seed, what draws the object or None) -> field."""


def _draw_nothing(rng: np.random.Generator, size: Any, *optics: Any) -> np.ndarray | Tensor:
    """An empty phase of a shape, or no emitters on a square of a side."""
    return np.zeros(size) if isinstance(size, tuple) else torch.zeros(size, size)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SolvedField:
    """The maps of one field and its truth within the frame (h, w) [rad]."""

    maps: PhaseMaps
    truth: np.ndarray


def solve_field(seed: int, ranges: PhaseRanges, draw: DrawPhase = draw_phase) -> SolvedField:
    """Simulate one field and invert it as a user's image; parameters as of `simulate_phase`."""
    pair = simulate_phase(seed, ranges, draw)
    planes = torch.from_numpy(pair.planes)
    weight = torch.from_numpy(inverse_variance(pair.planes)).float()
    estimate = finished(
        invert_planes(planes, weight, pair.defocus_um, pair.microscope, pair.condenser_na)
    )
    fresnel = max(fresnel_number(z, pair.microscope) for z in pair.defocus_um)
    maps = phase_maps(estimate, fresnel, finished(PosteriorDraws(estimate.fit, seed).first()))
    return SolvedField(maps=maps, truth=pair.phase)


def save_field(path: Path, solved: SolvedField) -> None:
    """Write one field."""
    maps = {entry.name: getattr(solved.maps, entry.name) for entry in fields(PhaseMaps)}
    rows, columns = maps.pop("frame")
    # float16 ends at 65504.
    maps |= {name: np.clip(maps[name], -6e4, 6e4).astype(np.float16) for name in COARSE}
    frame = [rows.start, rows.stop, columns.start, columns.stop]
    _save_arrays(path, truth=solved.truth, frame=frame, **maps)


def save_training_field(path: Path, solved: TrainingField) -> None:
    """Write a field that is ready for training, in half precision."""
    images = {name: getattr(solved, name).numpy().astype(np.float16) for name in READY}
    pixel_um = solved.pixel_um or 0.0
    _save_arrays(
        path, weight=solved.weight, pixel_um=pixel_um, fine_channels=solved.fine_channels, **images
    )


def _save_arrays(path: Path, **arrays: Any) -> None:
    with complete_file(path) as file:
        np.savez_compressed(file, **arrays)


def load_field(path: Path) -> SolvedField:
    """Read one field back."""
    with open_arrays(path) as kept:
        values = {name: kept[name].astype(np.float32) for name in kept}
    top, bottom, left, right = values.pop("frame").astype(int).tolist()
    truth = values.pop("truth")
    fresnel, noise = (float(values.pop(name)) for name in ("fresnel", "noise"))
    maps = PhaseMaps(
        frame=(slice(top, bottom), slice(left, right)), fresnel=fresnel, noise=noise, **values
    )
    return SolvedField(maps=maps, truth=truth)


def load_training_field(path: Path) -> TrainingField:
    """Read a field of either kind, ready for training."""
    with open_arrays(path) as kept:
        if "channels" in kept:
            images = {name: torch.from_numpy(kept[name].astype(np.float32)) for name in READY}
            return TrainingField(
                weight=float(kept["weight"]),
                pixel_um=float(kept["pixel_um"]) or None,
                fine_channels=int(kept["fine_channels"]),
                **images,
            )
    solved = load_field(path)
    return solved_field(solved.maps, solved.truth)


def solve_missing(folder: Path, ranges: Ranges, seed: int, numbers: range) -> Iterator[int]:
    """Solve and save every missing field of these numbers, one at a time.

    Yields
    ------
    int
        The number of each field, when it is saved.

    Raises
    ------
    RequestError
        A folder with fields of another seed, other ranges or another version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made_of = {"version": __version__, "edition": EDITION, "seed": seed, **_ranges_entry(ranges)}
    # Before anything is written into the folder of another training.
    _check_record(folder, made_of)
    clear_leftovers(folder)
    write_file(folder / RECORD, (json.dumps(made_of, indent=2) + "\n").encode())
    for number in numbers:
        path = folder / f"{number:06d}.npz"
        if is_zipfile(path):  # else it is missing, or was cut short
            pass
        elif type(ranges) is PhaseRanges:  # other tasks may keep more than the maps
            save_field(path, solve_field(seed + number, ranges))
        else:
            save_training_field(path, FIELDS[ranges.task](ranges, seed + number, None))
        yield number


def _ranges_entry(ranges: Ranges) -> dict[str, Any]:
    """Ranges as a record has them: wherever the folder of photographs lies."""
    return {"ranges": asdict(ranges) | {"photographs": Path(ranges.photographs).name}}


def _check_record(folder: Path, made_of: dict[str, Any]) -> None:
    """Raise RequestError if the record beside the fields exists and differs from `made_of`."""
    path = folder / RECORD
    if not path.exists():
        return
    # Through JSON, which makes tuples lists.
    kept, wanted = parse_json_object(read_bounded(path)), json.loads(json.dumps(made_of))
    different = sorted(name for name in wanted if kept.get(name) != wanted[name])
    if different:
        raise RequestError(
            f"{path}: the fields in this folder have other {', '.join(different)}; name another "
            "folder, or delete this one."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvedFields:
    """``[solved]``: a folder of fields that were simulated and inverted before.

    Each is one NPZ file, as ``napari-cvdm simulate --solved`` writes them.
    """

    folder: str

    def paths(self) -> list[Path]:
        """The files that are there now, in order; RequestError where there is none."""
        paths = sorted(Path(self.folder).glob("*.npz"))
        if not paths:
            raise RequestError(
                f"{self.folder}: no solved field in it; make them with napari-cvdm simulate phase "
                f"--solved --out {self.folder}, or with widefield in place of phase."
            )
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
        return load_training_field(self.paths[shuffled_number(index, self.count, self.seed)])

    def blank(self, index: int) -> TrainingField:
        """The same as `field`: empty fields are among them."""
        return self.field(index)


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanImages:
    """``[clean]``: sharp fluorescence images, or phase maps [rad].

    The microscope of ``[simulation]`` degrades them. `pixel_um` is for files that do not say it.
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

    def _draw(self, path: Path, ranges: Ranges) -> DrawPhase | DrawStructure:
        stack = read_image(path)
        pixel_um = self.pixel_um or stack.pixel_um
        if pixel_um is None:
            raise RequestError(f"{path}: its pixel size is not known; give pixel_um under [clean].")
        if stack.axes != "YX":
            raise RequestError(
                f"{path}: has axes {stack.axes}; one image (Y, X) for each file is needed."
            )
        image = np.asarray(stack.array)
        if isinstance(ranges, PhaseRanges):
            return phase_of_image(image, pixel_um)
        return structure_of_image(image, pixel_um)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Fields to learn from, and functions () -> field of those that are never learned from."""

    training: FieldSource
    held_out: tuple[Callable[[], TrainingField], ...]


def held_out_views(views: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """Fields of view to hold out: a share in (0, 1), at least one, never all, chosen by the seed.

    `views` has the view of each field; fields of one view stay together.

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
    # Other seeds are not enough: a held-out field would show a learned image.
    kept = held_out_views(list(draws), share, seed) if draws else frozenset[str]()
    learned = tuple(draw for name, draw in draws.items() if name not in kept)
    unseen = tuple(draw for name, draw in draws.items() if name in kept)
    training = SimulatedFields(ranges=ranges, seed=seed, draws=learned, count=fields)
    reserved = SimulatedFields(ranges=ranges, seed=seed + HELD_OUT_SEED, draws=unseen)
    kept_fields = tuple(partial(reserved.field, index) for index in range(held_out))
    return Split(training=training, held_out=kept_fields)


def split_solved(fields: SolvedFields, ranges: Ranges, seed: int, held_out: int) -> Split:
    """Solved fields of these ranges; the first ones are held out.

    Files that are added later are therefore used for training.
    """
    paths = fields.paths()
    _check_record(Path(fields.folder), _ranges_entry(ranges))
    if len(paths) <= held_out:
        raise RequestError(
            f"{fields.folder}: {len(paths)} solved fields, and {held_out} are to be held out; make "
            "more."
        )
    return Split(
        training=SolvedSource(paths=paths[held_out:], seed=seed),
        held_out=tuple(partial(load_training_field, path) for path in paths[:held_out]),
    )


def split_measured(
    entries: Sequence[PairEntry], task: str, seed: int, share: float, *, register: bool
) -> Split:
    """Measured pairs, split by field of view."""
    kept = held_out_views([entry.view for entry in entries], share, seed)
    learned = [entry for entry in entries if entry.view not in kept]
    unseen = [entry for entry in entries if entry.view in kept]
    training, reserved = (
        MeasuredFields(some, task, register=register, seed=seed) for some in (learned, unseen)
    )
    held_out = tuple(partial(reserved.exactly, number) for number in range(reserved.count))
    return Split(training=training, held_out=held_out)
