"""Test pairs for a model: requests whose truth is known, simulated or measured (from folders).

Here they are reconstructed, too, and laid beside their truth.
"""

from collections.abc import Callable, Generator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from napari_cvdm.baselines import Baseline
from napari_cvdm.core.intensity import IntensityScale
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import (
    OPTICS,
    STEPS,
    ImageStack,
    ReconstructionRequest,
    RequestError,
    Sampler,
)
from napari_cvdm.core.result import Progress, Reconstruction
from napari_cvdm.models.checkpoint import Checkpoint, ModelCard
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.simulate.phase_objects import OBJECTS, object_kinds
from napari_cvdm.simulate.ranges import RANGES, PhaseRanges, WidefieldRanges
from napari_cvdm.simulate.scenes import (
    WidefieldPair,
    draw_phase,
    simulate_fluorescence,
    simulate_phase,
)
from napari_cvdm.tasks.fluorescence import above_dark
from napari_cvdm.training.measured import align_pair
from napari_cvdm.training.pairs import Folders, PairEntry
from napari_cvdm.training.sources import SEED_STRIDE

SIMULATION, DIM, OTHER_OPTICS = "simulation", "dim", "other-optics"
NAMED = {
    SIMULATION: "drawn from the ranges of the training",
    DIM: "with down to a tenth of the least light of the training",
    OTHER_OPTICS: "with optics outside those of the training",
}
# In steps of 16, as a phase is inverted.
SMALLEST_FIELD_PX, FIELD_STEP_PX = 32, 16
# Added to the seed: neither training nor its validation reaches these.
EVALUATION_SEED, CALIBRATION_SEED = (600_000, 700_000)
MOST_PIXELS = 20_000  # of a field: ranks of all samples take time
Tag = str | float
Simulation = PhaseRanges | WidefieldRanges


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TestPair:
    """A request, and what its result ought to be.

    The request has the optics that are known; whoever evaluates replaces samples, steps and seed.
    The truth (uY, uX) has the grid and the unit of the result; a phase is without its mean. Results
    are grouped by tags: structure, photons, dz_um, na, ...
    """

    request: ReconstructionRequest
    truth: np.ndarray = field(repr=False)
    tags: Mapping[str, Tag]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairSet:
    """Pairs that are made, or read, when their turn comes.

    `name` is a word or a path, and `description` is for tables and cards. `pairs` are callables
    () -> TestPair.
    """

    name: str
    description: str
    pairs: tuple[Callable[[], TestPair], ...] = field(repr=False)

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSelection:
    """Which pairs of a set.

    The first three are of a simulation, see `simulated_pairs`; without `field_px`, fields are as
    large as in training. `optics` and `register` are of measured pairs, see `measured_pairs`.
    """

    fields: int = 32
    first_seed: int = EVALUATION_SEED
    field_px: int | None = None
    optics: Mapping[str, Any] = field(default_factory=dict)
    register: bool = False


def pair_set(name: str, card: ModelCard, choice: PairSelection) -> PairSet:
    """The set of a name, or of a folder; RequestError for neither, or a folder without pairs.

    ``simulation`` gives fresh fields of the ranges that the model was trained on. ``dim`` and
    ``other-optics`` give fields outside them. Any other name is a folder.
    """
    if name in NAMED:
        if choice.fields < 1:
            raise RequestError(
                f"fields is {choice.fields}; at least 1 is needed. 32 is a good start."
            )
        ranges = shift_ranges(name, resize_fields(trained_ranges(card), choice.field_px))
        return simulated_pairs(choice.fields, choice.first_seed, ranges, name)
    if not Path(name).is_dir():
        raise RequestError(
            f"set {name!r} is neither one of {', '.join(NAMED)} nor a folder; give a folder with "
            "the folders measured and truth."
        )
    return measured_pairs(name, card, choice.optics, register=choice.register)


def trained_ranges(card: ModelCard) -> Simulation:
    """The ranges that a model was trained on; those by default where its card does not say."""
    kind = RANGES[card.task]
    known, allowed = card.training.get("simulation") or {}, {entry.name for entry in fields(kind)}
    # JSON has lists, and a card may be of a version with other ranges.
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list | tuple) else value
        for name, value in known.items()
        if name in allowed
    }
    return kind(**values)


def resize_fields(ranges: Simulation, field_px: int | None) -> Simulation:
    """The same ranges with fields of another side [px of the measured image].

    RequestError for a side that is too small, or no multiple of 16.
    """
    if field_px is None:
        return ranges
    if field_px < SMALLEST_FIELD_PX or field_px % FIELD_STEP_PX:
        raise RequestError(
            f"field_px is {field_px}; allowed are multiples of {FIELD_STEP_PX} from "
            f"{SMALLEST_FIELD_PX}. 128 is a good start."
        )
    if isinstance(ranges, PhaseRanges):
        return replace(ranges, field_px=(field_px, field_px))
    return replace(ranges, field_px=field_px)


def shift_ranges(name: str, ranges: Simulation) -> Simulation:
    """The ranges of a set of `NAMED`, relative to those of the training.

    ``dim`` has down to a tenth of their least light. ``other-optics`` has planes up to three times
    farther apart, or objectives of up to a quarter less aperture.
    """
    # Neighbours of the trained ranges, which share no more than their ends.
    if name == DIM:
        return replace(ranges, photons=(ranges.photons[0] / 10, ranges.photons[0]))
    if name == OTHER_OPTICS and isinstance(ranges, PhaseRanges):
        return replace(ranges, fresnel=(ranges.fresnel[1], 3 * ranges.fresnel[1]))
    if name == OTHER_OPTICS and isinstance(ranges, WidefieldRanges):
        return replace(ranges, na=(0.75 * ranges.na[0], ranges.na[0]))
    return ranges


def simulated_pairs(
    count: int, first_seed: int, ranges: Simulation, name: str = SIMULATION
) -> PairSet:
    """Fresh fields of a simulation; RequestError for a task that is not of this package.

    `first_seed` is EVALUATION_SEED or CALIBRATION_SEED, plus a number of one's own. Fields of
    different seeds share nothing.
    """
    make: Callable[[int], TestPair]
    if isinstance(ranges, PhaseRanges):
        make = partial(_phase_pair, ranges)
        side = " to ".join(str(px) for px in dict.fromkeys(ranges.field_px))
    elif isinstance(ranges, WidefieldRanges):
        make, side = partial(_fluorescence_pair, ranges), str(ranges.field_px)
    else:
        raise RequestError(
            f"task {ranges.task!r} has no simulated pairs; phase-2shot, widefield-x2 and denoise "
            "have. Give a folder with the folders measured and truth."
        )
    # Numbered as the fields of a training, whose seeds stay below.
    return PairSet(
        name=name,
        description=f"{count} simulated fields of {side} px, {NAMED[name]}, seed {first_seed}",
        pairs=tuple(partial(make, first_seed * SEED_STRIDE + number) for number in range(count)),
    )


def _phase_pair(ranges: PhaseRanges, seed: int) -> TestPair:
    kinds: list[str] = []

    def draw(
        rng: np.random.Generator, shape: tuple[int, int], within: PhaseRanges, pixel_um: float
    ) -> np.ndarray:
        # Looked up with a copy, so that the field stays that of its seed.
        kinds.append(OBJECTS[object_kinds(deepcopy(rng))[0]][0].__name__)
        return draw_phase(rng, shape, within, pixel_um)

    pair = simulate_phase(seed, ranges, draw)
    request = ReconstructionRequest(
        image=_stack(pair.planes, "PYX", pair.microscope),
        model="",
        defocus_um=pair.defocus_um,
        condenser_na=pair.condenser_na or None,  # coherent light
    )
    dz_um = pair.defocus_um[-1] - pair.defocus_um[0]
    tags = _tags(kinds[0], pair.microscope, pair.photons, dz_um=dz_um)
    return TestPair(request=request, truth=pair.phase, tags=tags)


def _fluorescence_pair(ranges: WidefieldRanges, seed: int) -> TestPair:
    kinds: list[str] = []

    def draw(rng: np.random.Generator, side: int, pixel_um: float) -> Tensor:
        kinds.append(ranges.drawn_kind(rng))
        return ranges.draw(rng, side, pixel_um)

    pair = simulate_fluorescence(seed, ranges, draw)
    tags = _tags(kinds[0], pair.microscope, pair.photons)
    return TestPair(request=widefield_request(pair), truth=pair.truth, tags=tags)


def widefield_request(pair: WidefieldPair) -> ReconstructionRequest:
    """A request for the image of a simulated pair, with its optics."""
    return ReconstructionRequest(image=_stack(pair.counts, "YX", pair.microscope), model="")


def _stack(array: np.ndarray, axes: str, microscope: Microscope) -> ImageStack:
    known = {name: getattr(microscope, name) for name in ("wavelength_um", "medium_index", "na")}
    return ImageStack(
        array=array,
        axes=axes,
        pixel_um=microscope.pixel_um,
        source="simulated field",
        metadata={name: float(value) for name, value in known.items() if value is not None},
    )


def _tags(kind: str, microscope: Microscope, photons: float, **more: float) -> dict[str, Tag]:
    tags: dict[str, Tag] = {"structure": kind, **more, "photons": photons}
    tags["pixel_um"] = microscope.pixel_um
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
    card : ModelCard
        Says the task, and with it how truth and measured image go together.
    optics : mapping, optional
        `pixel_um`, `wavelength_um`, `medium_index`, `na`, `defocus_um`, `condenser_na`, where the
        files do not say.
    register : bool
        Move a truth that lies beside its image onto it.

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
    description = f"{len(pairs)} measured pairs of {folder}"
    return PairSet(name=str(folder), description=description, pairs=pairs)


def _measured_pair(entry: PairEntry, task: str, register: bool) -> TestPair:
    pair = entry.load()
    measured, truth = align_pair(pair, task, register=register)
    phase = RANGES[task] is PhaseRanges
    known = {name: pair.optics.get(name) for name in OPTICS}
    pixel_um = known.pop("pixel_um")
    # A phase has a stack of planes, fluorescence the one that there is.
    image = ImageStack(
        array=measured if phase else measured[0],
        axes="PYX" if phase else "YX",
        pixel_um=pixel_um,
        source=pair.name,
        metadata={name: float(value) for name, value in known.items() if value is not None},
    )
    planes: dict[str, Any] = (
        {name: pair.optics[name] for name in ("defocus_um", "condenser_na")} if phase else {}
    )
    request = ReconstructionRequest(image=image, model="", **planes)
    request.optics_value("pixel_um")  # an error where nobody states it
    return TestPair(request=request, truth=truth, tags={"structure": entry.view})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the posterior of every pair is sampled; see `ReconstructionRequest`."""

    samples: int = 16
    steps: int = STEPS
    seed: int = 0
    sampler: Sampler = "sde-2m"
    device: str = "auto"
    tile: int = 512

    def request(self, request: ReconstructionRequest) -> ReconstructionRequest:
        """The request, sampled in this way; its samples are kept."""
        return replace(request, keep_samples=True, **asdict(self))

    def check_spread(self) -> None:
        """RequestError where there are too few samples for a spread."""
        if self.samples < 2:
            raise RequestError(
                f"samples is {self.samples}; a spread needs at least 2. 16 is a good start."
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReconstructedPair:
    """One result of one frame, with its samples, beside its truth."""

    pair: TestPair = field(repr=False)
    reconstruction: Reconstruction = field(repr=False)

    def __post_init__(self) -> None:
        # Broadcasting would compare other shapes without an error.
        found, wanted = self.reconstruction.mean.shape, self.pair.truth.shape
        if found != wanted:
            raise RequestError(
                f"{self.pair.request.image.source}: the truth has {wanted} pixels, the result "
                f"{found}; give a truth on the grid of the result."
            )

    @property
    def unit(self) -> float:
        """Errors of one field are divided by this before they are pooled with those of others.

        It is 1 rad, or the intensity scale of the image [counts], which is the same for all
        methods.
        """
        if self.reconstruction.unit == "rad":
            return 1.0
        # From the image: a classical method estimates no scale.
        request = self.pair.request
        counts, level = above_dark(request.image.frame(())[0], request.background)
        return IntensityScale.fit(counts, level).scale

    @property
    def piston(self) -> float:
        """Constant of the error of a phase over the valid pixels [rad]; 0 for counts.

        No defocus pair determines it.
        """
        valid = self.reconstruction.valid
        if self.reconstruction.unit != "rad" or not valid.any():
            return 0.0
        return float((self.reconstruction.mean - self.pair.truth)[valid].mean(dtype=np.float64))

    @property
    def truth(self) -> np.ndarray:
        """The truth (Y, X), moved by the piston."""
        return self.pair.truth + np.float32(self.piston)

    @property
    def error(self) -> np.ndarray:
        """mean - truth (Y, X), without piston."""
        return self.reconstruction.mean - self.truth

    @property
    def one_sample(self) -> np.ndarray:
        """The first sample (Y, X): no choice is made among them. The mean where none was kept."""
        result = self.reconstruction
        return result.mean if result.samples is None else result.samples[0]

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of at most MOST_PIXELS valid pixels, always the same.

        There are none where nothing can be trusted.
        """
        usable = np.flatnonzero(self.reconstruction.valid)
        if usable.size > MOST_PIXELS:
            usable = np.random.default_rng(0).choice(usable, MOST_PIXELS, replace=False)
        rows, columns = np.unravel_index(usable, self.pair.truth.shape)
        return rows, columns


def reconstruct_pairs(
    pairs: PairSet, model: Checkpoint | Baseline, sampling: Sampling
) -> Generator[Progress | ReconstructedPair, None, None]:
    """Reconstruct every pair of a set; RequestError where one is wrong.

    Progress counts the pairs; after each pair comes its field. A single answer (of a method without
    a spread) is repeated, so it states a spread of zero.
    """
    for number, load in enumerate(pairs.pairs):
        pair = load()
        steps = reconstruct(sampling.request(pair.request), model)
        while True:
            try:
                progress = next(steps)
            except StopIteration as end:
                result: Reconstruction = end.value
                break
            yield Progress(
                stage=f"{pairs.name}, field {number + 1} of {len(pairs)}: {progress.stage}",
                done=number,
                total=len(pairs),
            )
        if result.samples is None or len(result.samples) != sampling.samples:
            repeated = np.broadcast_to(result.mean, (sampling.samples, *result.mean.shape))
            result = replace(result, samples=repeated)
        yield ReconstructedPair(pair=pair, reconstruction=result)
    yield Progress(stage=pairs.name, done=len(pairs), total=len(pairs))
