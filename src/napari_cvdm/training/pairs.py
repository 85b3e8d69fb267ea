"""Pairs in files: two folders, the published data as downloaded, or arrays of the official code.

Images in memory are saved as such pairs, so that a training can be repeated from its folder.
"""

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from napari_cvdm.core.microscope import check_condenser, check_defocus
from napari_cvdm.core.plan import count_planes
from napari_cvdm.core.request import ImageStack, RequestError
from napari_cvdm.core.result import Progress
from napari_cvdm.io import SUFFIXES, combine_planes, read_image, write_image
from napari_cvdm.io.errors import one_line
from napari_cvdm.io.limits import check_npy, open_arrays, open_regular
from napari_cvdm.tasks import TASKS

OPEN_FILES = 8
PIXEL_TOLERANCE = 0.01
OPTICS = ("pixel_um", "wavelength_um", "medium_index", "na", "defocus_um", "condenser_na")
SIM_FRAMES = "RawSIMData_level_"
SIM_TRUTHS = ("SIM_gt.mrc", "SIM_gt_a.mrc")  # nonlinear SIM has a and b, of which b is gamma 0.6
OFFICIAL_LARGEST = 1.0
FIELD_AXES = "TS"  # along these, every frame counts as a field of view of its own
# Types that are saved as they are; others become float32.
UNTOUCHED = (np.uint8, np.uint16, np.uint32, np.float32, np.float64)


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

    Pairs of one field of view, as the frames of a file, stay together when fields are held out.
    """

    view: str
    load: Callable[[], Pair] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """``[folders]``: measured images and their truths, matched by file name.

    Parameters
    ----------
    measured, truth : str
        Folders. A stack (time, z) holds several fields of one field of view.
    register : bool
        Move a truth that lies beside its image onto it.
    pixel_um, wavelength_um, medium_index, na : float, optional
        Of the measured images, where their files do not say.
    defocus_um : tuple of float, optional
        Position of each plane [um], two or more. A stack of planes must have as many.
    condenser_na : float, optional
        Numerical aperture of the illumination; coherent light, if None.
    """

    measured: str
    truth: str
    register: bool = False
    pixel_um: float | None = None
    wavelength_um: float | None = None
    medium_index: float | None = None
    na: float | None = None
    defocus_um: tuple[float, ...] | None = None
    condenser_na: float | None = None

    def __post_init__(self) -> None:
        _check_optics(self)

    @property
    def description(self) -> str:
        """For the card."""
        return f"pairs of files in {self.measured} and {self.truth}"

    def entries(self, task: str) -> list[PairEntry]:
        """Every frame of every matched file."""
        measured, truth = _images_in(self.measured), _images_in(self.truth)
        unmatched = sorted(measured.keys() ^ truth.keys())
        if unmatched:
            raise RequestError(
                f"{', '.join(unmatched[:5])}: in one folder only; each image in {self.measured} "
                f"needs a truth of the same name in {self.truth}."
            )
        return [
            entry
            for name in sorted(measured)
            for entry in self._frames(name, measured[name], truth[name], task)
        ]

    def _frames(self, name: str, measured: Path, truth: Path, task: str) -> Iterator[PairEntry]:
        frames, others = (stack.loop_shape for stack in self._open(measured, truth, task))
        if frames != others:
            raise RequestError(
                f"{name}: the measured file has frames {frames} and the truth {others}; each "
                "frame needs its truth."
            )
        for index in product(*map(range, frames)):
            # Frames of one file look alike: held out apart, the score would be too good.
            yield PairEntry(view=name, load=partial(self._load, name, measured, truth, index, task))

    def _open(self, measured: Path, truth: Path, task: str) -> tuple[ImageStack, ImageStack]:
        planes = count_planes(TASKS[task].planes, self.defocus_um)
        return _read_stack(measured, planes), _read_stack(truth, 1)

    def _load(
        self, name: str, measured: Path, truth: Path, index: tuple[int, ...], task: str
    ) -> Pair:
        image, sharp = self._open(measured, truth, task)
        optics = {key: getattr(self, key) for key in OPTICS}
        optics |= {key: image.states(key) for key in OPTICS if optics[key] is None}
        pixel_um, fine_um, factor = optics["pixel_um"], sharp.pixel_um, TASKS[task].upsampling
        if pixel_um and fine_um and abs(fine_um * factor / pixel_um - 1) > PIXEL_TOLERANCE:
            raise RequestError(
                f"{name}: pixels are {pixel_um:g} um, and those of the truth {fine_um:g} um; "
                f"{pixel_um / factor:g} um is needed for the truth."
            )
        return Pair(
            name=f"{name}, frame {index}" if index else name,
            measured=image.frame(index),
            truth=sharp.frame(index)[0],
            optics=optics,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BioSR:
    """``[biosr]``: the folders of BioSR as they are downloaded.

    Each cell has raw SIM frames at rising levels of signal, and the SIM reconstruction.

    Parameters
    ----------
    folder : str
        Holds the folders of the cells, at any depth.
    levels : tuple of int
        First and last level of signal.
    """

    folder: str
    levels: tuple[int, int] = (1, 12)
    register: bool = True  # a SIM reconstruction lies half a fine pixel beside its widefield image

    @property
    def description(self) -> str:
        """For the card."""
        first, last = self.levels
        return f"BioSR (Qiao et al., Nat. Methods 18, 194, 2021), levels {first} to {last}"

    def entries(self, task: str) -> list[PairEntry]:
        """Every level of every cell."""
        if task != "widefield-x2":
            raise RequestError(f"[biosr] is for widefield-x2, and the recipe for {task}.")
        found = []
        for raw in sorted(Path(self.folder).rglob(f"{SIM_FRAMES}*.mrc")):
            level = raw.stem.removeprefix(SIM_FRAMES)
            truths = [
                path
                for name in (f"GTSIM_level_{level}.mrc", *SIM_TRUTHS)
                for path in (raw.with_name(name), raw.parent.parent / "GTSIM" / name)
                if path.exists()
            ]
            if truths and level.isdigit() and self.levels[0] <= int(level) <= self.levels[1]:
                load = partial(_load_biosr, raw, truths[0])
                found.append(PairEntry(view=str(raw.parent), load=load))
        if not found:
            raise RequestError(
                f"{self.folder}: no {SIM_FRAMES}NN.mrc of levels {self.levels} with its SIM "
                "reconstruction in it; give the folder of a structure of BioSR."
            )
        return found


def _load_biosr(raw: Path, truth: Path) -> Pair:
    """The widefield image is the mean of the raw frames, whose stripes cancel."""
    frames, sharp = read_image(raw), read_image(truth)
    image = np.asarray(frames.array, np.float32).reshape(-1, *frames.array.shape[-2:]).mean(axis=0)
    return Pair(
        name=f"{raw.parent.name}/{raw.name}",
        measured=image[None],
        truth=np.asarray(sharp.array).reshape(-1, *sharp.array.shape[-2:])[0],
        optics={"pixel_um": frames.pixel_um},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """``[arrays]``: the arrays of the official code, x and y.

    They have the shape (N, Y, X, C) and values in [-1, 1].

    Parameters
    ----------
    x, y : str
        Two .npy files, or one .npz file (twice) with arrays x and y.
    phase_range_rad : float
        Phase [rad] that y = 1 stands for, where y = -1 is zero: 3.5 in the official code.
    defocus_um : tuple of float, optional
        Position of each plane [um], one for each channel of x.
    condenser_na : float, optional
        Numerical aperture of the illumination; coherent light, if None.
    """

    x: str
    y: str
    phase_range_rad: float = 3.5
    register: bool = False
    pixel_um: float | None = None
    wavelength_um: float | None = None
    medium_index: float | None = None
    defocus_um: tuple[float, ...] | None = None
    condenser_na: float | None = None

    def __post_init__(self) -> None:
        _check_optics(self)

    @property
    def description(self) -> str:
        """For the card."""
        return f"arrays {self.x} and {self.y}"

    def entries(self, task: str) -> list[PairEntry]:
        """Every item."""
        first, second = _array(self.x, "x"), _array(self.y, "y")
        if first.ndim != 4 or second.ndim != 4 or len(first) != len(second):
            raise RequestError(
                f"{self.x}, {self.y}: shapes are {first.shape} and {second.shape}; both must be "
                "(N, Y, X, C) with the same N."
            )
        return [
            PairEntry(view=str(number), load=partial(self._load, number, task))
            for number in range(len(first))
        ]

    def _load(self, number: int, task: str) -> Pair:
        planes: np.ndarray = np.moveaxis(np.asarray(_array(self.x, "x")[number], np.float32), -1, 0)
        truth: np.ndarray = np.asarray(_array(self.y, "y")[number, ..., 0], np.float32)
        if task == "phase-2shot":
            # The official code scales both defocused planes together to [-1, 1].
            planes, truth = (planes + 1) / 2, (truth + OFFICIAL_LARGEST) / 2 * self.phase_range_rad
        elif TASKS[task].upsampling == 2 and truth.shape == planes.shape[-2:]:
            # x was interpolated onto y's grid: take that back.
            height, width = truth.shape
            blocks = planes.reshape(len(planes), height // 2, 2, width // 2, 2)
            planes = blocks.mean(axis=(2, 4))
        return Pair(
            name=f"{Path(self.x).name}[{number}]",
            measured=planes,
            truth=truth,
            optics={name: getattr(self, name, None) for name in OPTICS},
        )


MeasuredPairs = Folders | BioSR | Arrays


def _check_optics(pairs: Folders | Arrays) -> None:
    """Raise OpticsError if the defocus positions or the condenser of a recipe are not allowed."""
    if pairs.defocus_um is not None:
        check_defocus(pairs.defocus_um)
    if pairs.condenser_na is not None:
        check_condenser(pairs.condenser_na, pairs.medium_index)


@lru_cache(maxsize=OPEN_FILES)
def _array(path: str, name: str) -> np.ndarray:
    try:
        with open_regular(path) as stream:
            packed = stream.read(2) == b"PK"  # an NPZ is a ZIP archive, whatever its name
            stream.seek(0)
            # NumPy would allocate what a header declares.
            if not packed:
                check_npy(stream, os.fstat(stream.fileno()).st_size)
        if packed:
            with open_arrays(path) as arrays:
                return arrays[name]
        # A pickle could run any program.
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy and zipfile let through whatever a damaged file makes happen
        raise RequestError(
            f"{path} cannot be read ({one_line(error)}); a .npy file, or a .npz file with arrays x "
            "and y is needed."
        ) from None


@lru_cache(maxsize=OPEN_FILES)
def _read_stack(path: Path, planes: int) -> ImageStack:
    stack = read_image(path)
    return combine_planes(stack, count=planes) if planes > 1 else stack


def _images_in(folder: str) -> dict[str, Path]:
    """Image files by their names without endings."""
    if not Path(folder).is_dir():
        raise RequestError(f"{folder}: there is no such folder; give one with images.")
    found = {
        path.name.split(".")[0]: path
        for path in sorted(Path(folder).iterdir())
        if path.suffix.lower() in SUFFIXES
    }
    if not found:
        raise RequestError(
            f"{folder}: no image in it; files ending in {', '.join(SUFFIXES)} are read."
        )
    return found


def save_pairs(
    measured: ImageStack, truth: ImageStack, task: str, folder: str | Path
) -> Generator[Progress, None, tuple[Path, Path]]:
    """Write each field of view into a file of its own, as ``[folders]`` of a recipe wants them.

    Parameters
    ----------
    measured : ImageStack
        Axes (..., Y, X), for phase (..., P, Y, X). Frames along T (or an axis without a name) and S
        are fields of view; frames along Z and C belong to one.
    truth : ImageStack
        The same axes and frames without P, on a grid that is as much finer as the task says.
    folder : path
        Gets the folders ``measured`` and ``truth``, which are returned.

    Yields
    ------
    Progress
        Before every field of view.

    Raises
    ------
    RequestError
        The axes or the numbers of frames differ.
    ImageFileError
        The disk is full or may not be written to.
    """
    frames = [
        dict(zip(stack.loop_axes, stack.loop_shape, strict=True)) for stack in (measured, truth)
    ]
    if frames[0] != frames[1]:
        said = [
            " ".join(f"{letter} {size}" for letter, size in one.items()) or "no frames"
            for one in frames
        ]
        raise RequestError(
            f"{measured.source} has {said[0]}, and {truth.source} {said[1]}; each frame needs its "
            "truth, so both need the same axes before Y and X."
        )
    folders = Path(folder) / "measured", Path(folder) / "truth"
    for one in folders:
        one.mkdir(parents=True, exist_ok=True)
    counts = (size for letter, size in frames[0].items() if letter in FIELD_AXES)
    views = list(product(*map(range, counts)))
    for number, view in enumerate(views):
        yield Progress(stage="saving the pairs", done=number, total=len(views))
        name = f"field-{number + 1:04d}.ome.tif"
        _write_view(measured, view, folders[0] / name, "counts")
        _write_view(truth, view, folders[1] / name, TASKS[task].unit)
    return folders


def _write_view(stack: ImageStack, view: tuple[int, ...], path: Path, unit: str) -> None:
    places = iter(view)
    index = tuple(next(places) if letter in FIELD_AXES else slice(None) for letter in stack.axes)
    axes = "".join(letter for letter in stack.axes if letter not in FIELD_AXES)
    pixels = np.asarray(stack.array[index])
    dtype = pixels.dtype if pixels.dtype in UNTOUCHED else np.dtype(np.float32)
    write_image(
        path, pixels, axes=axes, pixel_um=stack.pixel_um, unit=unit, name=stack.source, dtype=dtype
    )
