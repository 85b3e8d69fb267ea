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
    """One measured image: one file, or one for each plane, in their order."""

    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The names of the files, without their folder."""
        return " + ".join(path.name for path in self.files)


@dataclass(frozen=True, slots=True)
class UnmatchedFile:
    """A path that is no image: its name, why it is left out, and what would be taken."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """What was among many paths: images in natural order, and strays."""

    entries: tuple[ImageEntry, ...]
    strays: tuple[UnmatchedFile, ...]


def sort_paths(paths: Iterable[str | Path], planes: int, *, by_name: bool = False) -> Sorted:
    """Find the images among files and folders.

    Of a folder, the files directly in it are taken, except those with a name that begins with a
    dot. If an image has two planes or more, files are put together by `PLANES_RULE`; one without a
    partner stands alone, since it may hold all planes. `by_name` puts files together for their
    names only, and not because there are as many as planes.
    """
    found = list(chain.from_iterable(_inside(Path(path)) for path in dict.fromkeys(paths)))
    files = _natural(dict.fromkeys(path for path in found if isinstance(path, Path)))
    images = _images(files, planes, by_name) if planes > 1 else [(file,) for file in files]
    return Sorted(
        entries=tuple(ImageEntry(files=image) for image in images),
        strays=tuple(dict.fromkeys(one for one in found if isinstance(one, UnmatchedFile))),
    )


def _inside(path: Path) -> Iterator[Path | UnmatchedFile]:
    """The images that a path stands for, or why there is none."""
    if not path.is_dir():
        yield _file(path)
        return
    if path.suffix.lower() == ".zarr":
        reason = "OME-Zarr folders are not read here; open it in napari, and reconstruct the layer."
        yield UnmatchedFile(path.name, reason)
        return
    try:
        inside = [inner for inner in path.iterdir() if not inner.name.startswith(".")]
    except OSError as error:
        reason = f"the folder cannot be read ({error.strerror}); check that you may open it."
        yield UnmatchedFile(path.name, reason)
        return
    if not inside:
        reason = f"the folder is empty; give one with images ({', '.join(SUFFIXES)}) in it."
        yield UnmatchedFile(path.name, reason)
    for inner in _natural(inside):
        if inner.is_dir():
            reason = "a folder within a folder is not searched; drop it by itself."
            yield UnmatchedFile(inner.name, reason)
        else:
            yield _file(inner)


def _file(path: Path) -> Path | UnmatchedFile:
    if path.suffix.lower() in SUFFIXES:
        return path
    ending = f"files ending in {path.suffix}" if path.suffix else "files without an ending"
    reason = f"not an image: {ending} are not read; allowed are {', '.join(SUFFIXES)}."
    return UnmatchedFile(path.name, reason)


def _natural(paths: Iterable[Path]) -> list[Path]:
    return [Path(text) for text in tifffile.natural_sorted([str(path) for path in paths])]


def _images(files: Sequence[Path], planes: int, by_name: bool) -> Iterable[tuple[Path, ...]]:
    """The planes of one image where the first of its files stands, the other files alone."""
    groups: dict[tuple[Path, str, str], dict[str, Path]] = {}
    for file in files:
        match = _NAME.fullmatch(file.stem.removesuffix(".ome"))
        if match is not None:
            shared, ending = match.groups()
            alike = file.parent, shared.lower(), file.suffix.lower()
            # Leading zeros do not make another plane.
            number = str(int(ending)) if ending.isdigit() else ending.lower()
            groups.setdefault(alike, {})[number] = file
    # Programs count planes from 0 or from 1.
    numbers = [tuple(str(number) for number in range(first, first + planes)) for first in (0, 1)]
    partners = {}
    for group in groups.values():
        for endings in (*_WORDS, *numbers):
            if len(endings) == planes and set(group) == set(endings):
                image = tuple(group[ending] for ending in endings)
                partners.update(dict.fromkeys(image, image))
    if len(files) == planes and not partners and not by_name:
        return [tuple(files)]
    # As keys: an image stands where its first file stands, and once.
    return dict.fromkeys(partners.get(file, (file,)) for file in files)
