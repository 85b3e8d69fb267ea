"""What goes wrong with files, in one line each."""

import errno
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

# numpy.tofile reports a short write without any errno, so None belongs to the full disk, too.
FULL_DISK = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


class ImageFileError(ValueError):
    """A file or an image that cannot be used: what was given, what is allowed, what to try."""


def one_line(error: BaseException | str, limit: int = 160) -> str:
    """The message of another library as one line of at most `limit` characters.

    It is the name of the exception where that has no message.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def writing_error(path: Path, error: OSError) -> ImageFileError:
    """The error to raise when `path` could not be written because of `error`."""
    if error.errno in FULL_DISK or error.errno is None:
        return ImageFileError(
            f"{path}: the disk is full, nothing was left there. Free some space or choose a folder "
            "on another disk."
        )
    return ImageFileError(
        f"{path}: cannot be written ({error.strerror or one_line(error)}). Choose a folder that "
        "you may write to."
    )


def incomplete_error(source: str) -> ImageFileError:
    """The error to raise when a file has fewer bytes or pages than it declares."""
    return ImageFileError(
        f"{source}: the file is cut short or has missing pages. Copy it again; companion files "
        "belong in the same folder."
    )


def choose_series(
    names: Sequence[str], wanted: int | None, source: object
) -> tuple[int, list[str]]:
    """Number, from 0, of the wanted image of a file, and a sentence where there are others.

    `wanted` counts from 1, and is the first image where it is None. ImageFileError where there is
    no such image.
    """
    listed = ", ".join(f"{place} ({name})" for place, name in enumerate(names, start=1))
    chosen = 1 if wanted is None else wanted
    if not 1 <= chosen <= len(names):
        raise ImageFileError(f"{source}: has no series {chosen}; there are {listed}.")
    # Who gives a number knows of the others.
    several = wanted is None and len(names) > 1
    sentence = f"has several images: {listed}. 1 was read; choose with --series N."
    return chosen - 1, [sentence] if several else []


def import_zarr(path: Path, module: str = "zarr") -> Any:
    """Import a module of the extra zarr; ImageFileError where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImageFileError(
            f"{path}: OME-Zarr needs the extra zarr: pip install 'napari-cvdm[zarr]', or save as "
            "OME-TIFF."
        ) from error
