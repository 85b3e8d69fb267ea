"""A folder of results that is either complete or not there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from napari_cvdm.io.errors import FULL_DISK, ImageFileError, one_line, writing_error


@contextmanager
def output_folder(
    path: str | Path, overwrite: bool, sign: str = "provenance.json"
) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well.

    Parameters
    ----------
    path : str or Path
        The folder to make; parents are made too.
    overwrite : bool
        Whether an older result may be replaced. It stays until the new one is complete.
    sign : str
        A file that marks an older folder as such a result. A folder that has other content and not
        this file is never replaced.

    Yields
    ------
    Path
        A new empty folder on the same disk, to write into.

    Raises
    ------
    ImageFileError
        The folder exists and may not be replaced, cannot be made, or the disk is full. Any
        exception in the block (KeyboardInterrupt, too) removes the temporary folder and leaves an
        older result as it was.
    """
    target = _resolved(path)
    beside = _check_target(target, overwrite, sign)
    work = beside / f".{target.name}.{uuid4().hex[:8]}.part"
    try:
        work.mkdir()
    except OSError as error:
        raise writing_error(target, error) from error
    try:
        yield work
        move_into_place(work, target, overwrite)
    except ImageFileError as error:
        raise ImageFileError(str(error).replace(str(work), str(target))) from error
    except OSError as error:
        if error.errno in FULL_DISK:
            raise writing_error(target, error) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def target_folder(path: str | Path, overwrite: bool, sign: str) -> Path:
    """Resolved path of a folder to make.

    Raises ImageFileError where `output_folder` would raise it.
    """
    target = _resolved(path)
    _check_target(target, overwrite, sign)
    return target


def _resolved(path: str | Path) -> Path:
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
        raise ImageFileError(
            f"{path}: cannot be followed ({one_line(error)}); choose another folder."
        ) from error


def _check_target(target: Path, overwrite: bool, sign: str) -> Path:
    """The folder that exists already and will hold `target`, after a look at what is there."""
    beside = _existing_parent(target)
    if not beside.is_dir():
        raise ImageFileError(f"{target}: {beside} is a file, not a folder; choose another name.")
    if not target.exists():
        return beside
    if not target.is_dir():
        raise ImageFileError(f"{target}: is a file; choose the name of a folder.")
    if not overwrite:
        raise ImageFileError(f"{target}: exists already; choose another folder or say --overwrite.")
    if target in (Path(os.path.expanduser("~")), Path.cwd(), *Path.cwd().parents) or (
        any(target.iterdir()) and not (target / sign).exists()
    ):
        raise ImageFileError(
            f"{target}: is not a result (it has no {sign}) and is never overwritten; choose "
            "another folder."
        )
    return beside


def _existing_parent(target: Path) -> Path:
    try:
        beside = next((parent for parent in target.parents if parent.exists()), None)
    except OSError as error:
        raise writing_error(target, error) from error
    if beside is None:
        raise ImageFileError(
            f"{target}: is the root of a disk, or on a disk that is not there; choose a folder on "
            "one that is."
        )
    return beside


def move_into_place(work: Path, target: Path, overwrite: bool) -> None:
    """Give a complete folder its name; an older one there goes only then."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if overwrite and target.exists():
            _replace(work, target)
        else:
            os.rename(work, target)
    except OSError as error:
        raise writing_error(target, error) from error


def _replace(work: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.{uuid4().hex[:8]}.old")
    os.rename(target, old)
    try:
        os.rename(work, target)
    except BaseException:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
