"""Test pairs for a model: requests whose truth is known, simulated or measured (from folders)."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import OPTICS, ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.models.checkpoint import ModelCard
from napari_cvdm.simulate.phase_objects import OBJECTS, object_kinds
from napari_cvdm.simulate.ranges import RANGES, PhaseRanges, WidefieldRanges
from napari_cvdm.simulate.scenes import (
    WidefieldPair,
    draw_phase,
    simulate_fluorescence,
    simulate_phase,
)
from napari_cvdm.training.measured import align_pair
from napari_cvdm.training.pairs import Folders, PairEntry
from napari_cvdm.training.sources import SEED_STRIDE

SIMULATION, DIM, OTHER_OPTICS = "simulation", "dim", "other-optics"
SMALLEST_FIELD_PX, FIELD_STEP_PX = 32, 16
MEANING = {
    SIMULATION: "drawn from the ranges of the training",
    DIM: "with down to a tenth of the least light of the training",
    OTHER_OPTICS: "with optics outside those of the training",
}
# Added to the seed: neither training nor its validation reaches these.
EVALUATION_SEED, CALIBRATION_SEED = (600_000, 700_000)
Tag = str | float
Simulation = PhaseRanges | WidefieldRanges


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TestPair:
    """A request, and what its result ought to be.

    Parameters
    ----------
    request : ReconstructionRequest
        With the optics that are known; whoever evaluates replaces its samples, steps and seed.
    truth : ndarray of shape (uY, uX)
        On the grid of the result and in its unit; phase without its mean.
    tags : mapping of str to str or float
        What results are grouped by: structure, photons, dz_um, na, ...
    """

    request: ReconstructionRequest
    truth: np.ndarray = field(repr=False)
    tags: Mapping[str, Tag]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairSet:
    """Pairs that are made, or read, when their turn comes.

    Parameters
    ----------
    name : str
        In one word or a path.
    said : str
        What it is, for tables and cards.
    pairs : tuple of callable
        () -> TestPair.
    """

    name: str
    said: str
    pairs: tuple[Callable[[], TestPair], ...] = field(repr=False)

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.pairs)


def trained_ranges(card: ModelCard) -> Simulation:
    """The ranges that a model was trained on; those by default where its card does not say.

    Parameters
    ----------
    card : ModelCard

    Returns
    -------
    PhaseRanges or WidefieldRanges
    """
    kind = RANGES[card.task]
    known, allowed = card.training.get("simulation") or {}, {entry.name for entry in fields(kind)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list | tuple) else value
        for name, value in known.items()
        if name in allowed
    }
    return kind(**values)


def simulated_pairs(
    count: int, first_seed: int, ranges: Simulation, name: str = SIMULATION
) -> PairSet:
    """Fresh fields of a simulation.

    Parameters
    ----------
    count : int
        Fields.
    first_seed : int
        EVALUATION_SEED or CALIBRATION_SEED, plus a number of one's own. Fields of different seeds
        share nothing.
    ranges : PhaseRanges or WidefieldRanges
    name : str

    Returns
    -------
    PairSet
    """
    make = _phase_pair if isinstance(ranges, PhaseRanges) else _fluorescence_pair
    pairs = tuple(
        partial(make, first_seed * SEED_STRIDE + number, ranges)  # type: ignore[arg-type]
        for number in range(count)
    )
    side = (
        ranges.field_px
        if isinstance(ranges, WidefieldRanges)
        else " to ".join(str(px) for px in dict.fromkeys(ranges.field_px))
    )
    return PairSet(
        name=name,
        said=f"{count} simulated fields of {side} px, {MEANING[name]}, seed {first_seed}",
        pairs=pairs,
    )


def _dim(ranges: Simulation) -> Simulation:
    """A tenth of the least light of the training."""
    low = ranges.photons[0]
    return replace(ranges, photons=(low / 10, low))


def _other_optics(ranges: Simulation) -> Simulation:
    """Planes up to three times farther apart, or objectives of up to a quarter less aperture.

    Both are relative to the training.
    """
    if isinstance(ranges, PhaseRanges):
        return replace(ranges, fresnel=(ranges.fresnel[1], 3 * ranges.fresnel[1]))
    return replace(ranges, na=(0.75 * ranges.na[0], ranges.na[0]))


NAMED: Mapping[str, Callable[[Simulation], Simulation] | None] = {
    SIMULATION: None,
    DIM: _dim,
    OTHER_OPTICS: _other_optics,
}


def sized(ranges: Simulation, field_px: int | None) -> Simulation:
    """The same ranges with fields of another side [px of the measured image].

    Raises
    ------
    RequestError
        A side that is too small, or for phase no multiple of 16.
    """
    if field_px is None:
        return ranges
    if field_px < SMALLEST_FIELD_PX or field_px % FIELD_STEP_PX:
        raise RequestError(
            f"field_px is {field_px}; allowed are multiples of {FIELD_STEP_PX} from "
            f"{SMALLEST_FIELD_PX}. 128 is a good start."
        )
    return (
        replace(ranges, field_px=(field_px, field_px))
        if isinstance(ranges, PhaseRanges)
        else replace(ranges, field_px=field_px)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSelection:
    """Which pairs of a set.

    Parameters
    ----------
    fields : int
        How many of a simulation.
    first_seed : int
        Of a simulation, see `simulated_pairs`.
    field_px : int, optional
        Side of simulated fields; as in training unless given.
    optics : mapping
        Of measured pairs, where their files do not say; see `measured_pairs`.
    register : bool
        Move the truth of a measured pair onto its image.
    """

    fields: int = 32
    first_seed: int = EVALUATION_SEED
    field_px: int | None = None
    optics: Mapping[str, Any] = field(default_factory=dict)
    register: bool = False


def pair_set(name: str, card: ModelCard, choice: PairSelection) -> PairSet:
    """The set of a name, or of a folder.

    Parameters
    ----------
    name : str
        ``simulation`` gives fresh fields of the ranges that the model was trained on. ``dim`` and
        ``other-optics`` give fields outside them. Any other name is a folder.
    card : ModelCard
    choice : PairSelection

    Returns
    -------
    PairSet

    Raises
    ------
    RequestError
        Neither, or a folder without pairs.
    """
    if name in NAMED:
        if choice.fields < 1:
            raise RequestError(
                f"fields is {choice.fields}; at least 1 is needed. 32 is a good start."
            )
        trained = trained_ranges(card)
        drawn, shift = sized(trained, choice.field_px), NAMED[name]
        return simulated_pairs(
            choice.fields, choice.first_seed, drawn if shift is None else shift(drawn), name
        )
    if not Path(name).is_dir():
        raise RequestError(
            f"set {name!r} is neither one of {', '.join(NAMED)} nor a folder; give a folder with "
            "the folders measured and truth."
        )
    return measured_pairs(name, card, choice.optics, register=choice.register)


def _phase_pair(seed: int, ranges: PhaseRanges) -> TestPair:
    kinds: list[str] = []

    def draw(
        rng: np.random.Generator, shape: tuple[int, int], within: PhaseRanges, pixel_um: float
    ) -> np.ndarray:
        kinds.append(OBJECTS[object_kinds(deepcopy(rng))[0]][0].__name__)
        return draw_phase(rng, shape, within, pixel_um)

    pair = simulate_phase(seed, ranges, draw)
    image, condenser_na = _stack(pair.planes, "PYX", pair.microscope), pair.condenser_na or None
    request = ReconstructionRequest(
        image=image, model="", defocus_um=pair.defocus_um, condenser_na=condenser_na
    )
    distance_um = pair.defocus_um[-1] - pair.defocus_um[0]
    return TestPair(
        request=request,
        truth=pair.phase,
        tags={"structure": kinds[0], "dz_um": distance_um, **_tags(pair.microscope, pair.photons)},
    )


def _fluorescence_pair(seed: int, ranges: WidefieldRanges) -> TestPair:
    kinds: list[str] = []

    def draw(rng: np.random.Generator, side: int, pixel_um: float) -> Tensor:
        kinds.append(ranges.drawn_kind(rng))
        return ranges.draw(rng, side, pixel_um)

    pair = simulate_fluorescence(seed, ranges, draw)
    return TestPair(
        request=widefield_request(pair),
        truth=pair.truth,
        tags={"structure": kinds[0], **_tags(pair.microscope, pair.photons)},
    )


def widefield_request(pair: WidefieldPair) -> ReconstructionRequest:
    """A request for the image of a simulated pair, with its optics."""
    return ReconstructionRequest(image=_stack(pair.counts, "YX", pair.microscope), model="")


def _stack(array: np.ndarray, axes: str, microscope: Microscope) -> ImageStack:
    known = {
        "wavelength_um": microscope.wavelength_um,
        "medium_index": microscope.medium_index,
        "na": microscope.na,
    }
    metadata = {name: float(value) for name, value in known.items() if value is not None}
    return ImageStack(
        array=array,
        axes=axes,
        pixel_um=microscope.pixel_um,
        source="simulated field",
        metadata=metadata,
    )


def _tags(microscope: Microscope, photons: float) -> dict[str, Tag]:
    tags: dict[str, Tag] = {"photons": photons, "pixel_um": microscope.pixel_um}
    return tags if microscope.na is None else {**tags, "na": float(microscope.na)}


def measured_pairs(
    folder: str | Path,
    card: ModelCard,
    optics: Mapping[str, Any] | None = None,
    *,
    register: bool = False,
) -> PairSet:
    """Pairs of ``folder/measured`` and ``folder/truth``, matched by file name.

    Parameters
    ----------
    folder : path
    card : ModelCard
        Says the task, and with it how truth and measured image go together.
    optics : mapping, optional
        `pixel_um`, `wavelength_um`, `medium_index`, `na`, `defocus_um`, `condenser_na`, where the
        files do not say.
    register : bool
        Move a truth that lies beside its image onto it.

    Returns
    -------
    PairSet

    Raises
    ------
    RequestError
        A folder is missing or empty, or an image is in one of them only.
    """
    folders = Folders(
        measured=str(Path(folder) / "measured"), truth=str(Path(folder) / "truth"), **(optics or {})
    )
    entries = folders.entries(card.task)
    pairs = tuple(partial(_measured_pair, entry, card.task, register) for entry in entries)
    return PairSet(name=str(folder), said=f"{len(pairs)} measured pairs of {folder}", pairs=pairs)


def _measured_pair(entry: PairEntry, task: str, register: bool) -> TestPair:
    pair = entry.load()
    measured, truth = align_pair(pair, task, register=register)
    phase = RANGES[task] is PhaseRanges
    known = {name: pair.optics.get(name) for name in OPTICS}
    metadata = {
        name: float(value)
        for name, value in known.items()
        if value is not None and name != "pixel_um"
    }
    image = ImageStack(
        array=measured if phase else measured[0],
        axes="PYX" if phase else "YX",
        pixel_um=known["pixel_um"],
        source=pair.name,
        metadata=metadata,
    )
    planes: dict[str, Any] = (
        {name: pair.optics[name] for name in ("defocus_um", "condenser_na")} if phase else {}
    )
    request = ReconstructionRequest(image=image, model="", **planes)
    request.optics_value("pixel_um")
    return TestPair(request=request, truth=truth, tags={"structure": entry.view})
