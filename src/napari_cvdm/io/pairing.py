"""Sort paths into images to reconstruct, files that belong together, and strays.

No file is read here.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import tifffile

from napari_cvdm.io.read import SUFFIXES

PLANES_RULE = (
    "Files are the planes of one image when their names are the same but for the ending: _below "
    "and _above, _minus and _plus, _neg and _pos, or numbers "
    "that begin with _0 or _1 (also after z or plane, as in _z0 and _z1). There must be as many of "
    "them as defocus_um has positions (two if it is empty). "
    "Files are also the planes of one image when just that many are given."
)
_WORDS = (("below", "above"), ("minus", "plus"), ("neg", "pos"))
_NAME = re.compile(r"(.+[_\- ](?:z|plane)?)(below|above|minus|plus|neg|pos|\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEntry:
    """One measured image in files.

    Parameters
    ----------
    files : tuple of Path
        One file, or one for each plane, in their order.
    """

    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The names of the files, without their folder."""
        return " + ".join(path.name for path in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmatchedFile:
    """A path that is no image.

    Parameters
    ----------
    name : str
        Without its folder.
    reason : str
        Why it is left out, and what would be taken.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """What was among many paths: images in natural order, and strays."""

    entries: tuple[ImageEntry, ...]
    strays: tuple[UnmatchedFile, ...]


def sort_paths(paths: Iterable[str | Path], planes: int) -> Sorted:
    """Find the images among files and folders.

    Parameters
    ----------
    paths : iterable of str or Path
        Files or folders. Of a folder, the files directly in it are taken, except those with a name
        that begins with a dot.
    planes : int
        How many planes one image has. If two or more, files are put together by `PLANES_RULE`.

    Returns
    -------
    Sorted
        Each file once; a file without a partner stands alone, since it may hold all planes.
    """
    found = list(chain.from_iterable(_inside(Path(path)) for path in dict.fromkeys(paths)))
    files = _natural(dict.fromkeys(path for path in found if isinstance(path, Path)))
    strays = tuple(dict.fromkeys(stray for stray in found if isinstance(stray, UnmatchedFile)))
    return Sorted(
        entries=tuple(
            _grouped(files, planes) if planes > 1 else (ImageEntry(files=(file,)) for file in files)
        ),
        strays=strays,
    )


def _inside(path: Path) -> Iterator[Path | UnmatchedFile]:
    if not path.is_dir():
        yield _file(path)
    elif path.suffix.lower() == ".zarr":
        yield UnmatchedFile(
            name=path.name,
            reason=(
                "OME-Zarr folders are not read here; open it in napari, and reconstruct the layer."
            ),
        )
    else:
        yield from _folder(path)


def _file(path: Path) -> Path | UnmatchedFile:
    if path.suffix.lower() in SUFFIXES:
        return path
    ending = f"files ending in {path.suffix}" if path.suffix else "files without an ending"
    return UnmatchedFile(
        name=path.name,
        reason=f"not an image: {ending} are not read; allowed are {', '.join(SUFFIXES)}.",
    )


def _folder(folder: Path) -> Iterator[Path | UnmatchedFile]:
    try:
        inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        yield UnmatchedFile(
            name=folder.name,
            reason=f"the folder cannot be read ({error.strerror}); check that you may open it.",
        )
        return
    if not inside:
        yield UnmatchedFile(
            name=folder.name,
            reason=f"the folder is empty; give one with images ({', '.join(SUFFIXES)}) in it.",
        )
    for path in _natural(inside):
        yield (
            UnmatchedFile(
                name=path.name,
                reason="a folder within a folder is not searched; drop it by itself.",
            )
            if path.is_dir()
            else _file(path)
        )


def _natural(paths: Iterable[Path]) -> list[Path]:
    return [Path(text) for text in tifffile.natural_sorted([str(path) for path in paths])]


def _grouped(files: Sequence[Path], planes: int) -> Iterator[ImageEntry]:
    """The planes of one image where the first of its files stands, the other files alone."""
    partners = _partners(files, planes)
    if len(files) == planes and not partners:
        partners = dict.fromkeys(files, tuple(files))
    yield from dict.fromkeys(ImageEntry(files=partners.get(file, (file,))) for file in files)


def _partners(files: Iterable[Path], planes: int) -> dict[Path, tuple[Path, ...]]:
    """All planes of the image of every file that has partners by its name."""
    groups: dict[tuple[Path, str, str], dict[str, Path]] = {}
    for file in files:
        match = _NAME.fullmatch(file.stem.removesuffix(".ome"))
        if match is not None:
            shared, ending = match.groups()
            alike = file.parent, shared.lower(), file.suffix.lower()
            groups.setdefault(alike, {})[
                str(int(ending)) if ending.isdigit() else ending.lower()
            ] = file
    numbers = [tuple(str(number) for number in range(first, first + planes)) for first in (0, 1)]
    known = [endings for endings in (*_WORDS, *numbers) if len(endings) == planes]
    images = [
        tuple(group[ending] for ending in endings)
        for group in groups.values()
        for endings in known
        if set(group) == set(endings)
    ]
    return {file: image for image in images for file in image}
