"""Files that are either complete or not there: on the disk before they get their name.

Nothing is written through a link. Temporary names are random, and are locked while they are used.
"""

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from napari_cvdm.io.errors import ImageFileError, writing_error

if sys.platform != "win32":
    import fcntl

LEFTOVERS = ".napari-cvdm-*.part"
LEFTOVERS_BELOW = f"**/{LEFTOVERS}"
# Whether names can be looked up in an open folder, which stays that one if its path is changed.
HAS_HANDLES = os.open in os.supports_dir_fd and os.rename in os.supports_dir_fd
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
# What file systems answer that cannot sync.
_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})


def temporary_name() -> str:
    """A random name that `clear_leftovers` knows."""
    return LEFTOVERS.replace("*", token_hex(8))


def _sync(descriptor: int) -> None:
    """Wait until a file or folder is on the disk, where the file system can tell."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def sync_path(path: Path) -> None:
    """Wait until a file or a folder is on the disk; its entries, not what is below."""
    if path.is_dir() and not HAS_HANDLES:  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if HAS_HANDLES else os.O_RDWR)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def refuse_link(path: Path) -> None:
    """Raise ImageFileError where a file or folder to write to is a link."""
    if path.is_symlink():
        raise ImageFileError(
            f"{path}: is a link, and nothing is written through links; remove it, or choose "
            "another folder."
        )


def _open_below(folder: Path, within: Path) -> int | None:
    """Make a folder below `within`, and open it without following a link below `within`.

    The result is None where the platform opens no folders.
    """
    handle = os.open(within, FOLDER) if HAS_HANDLES else None
    place = within
    try:
        for name in folder.relative_to(within).parts:
            place /= name
            refuse_link(place)
            step = name if handle is not None else place
            # Another process may have made it, and it is opened as a folder in any case.
            with suppress(FileExistsError):
                os.mkdir(step, dir_fd=handle)
                if handle is not None:
                    _sync(handle)
            if handle is not None:
                deeper = os.open(step, FOLDER | NO_LINK, dir_fd=handle)
                os.close(handle)
                handle = deeper
    except BaseException:
        if handle is not None:
            os.close(handle)
        raise
    return handle


@contextmanager
def complete_file(path: Path, within: Path | None = None) -> Iterator[BinaryIO]:
    """A new file that takes the name `path` when the block ends well, else is removed.

    Its content is on the disk before it gets the name. An older file or link of that name is
    replaced, and what a link points to stays as it was. Below `within`, an existing folder that is
    the file's own if left out, missing folders are made, and no link is followed.

    Raises ImageFileError where the disk is full, the folder may not be written to, or a folder
    below `within` is a link.
    """
    handle: int | None = None
    try:
        handle = _open_below(path.parent, within or path.parent)
        name = path if handle is None else Path(path.name)
        descriptor, part = _open_temporary(name, handle)
        try:
            # Some libraries want a file that has a name.
            with open(path, "r+b", opener=lambda name, flags: descriptor) as file:
                yield file
                file.flush()
                _sync(descriptor)
                if handle is not None:
                    os.replace(part, name, src_dir_fd=handle, dst_dir_fd=handle)
            if handle is None:  # Windows renames no open file
                os.replace(part, name)
        except BaseException:
            with suppress(OSError):
                os.unlink(part, dir_fd=handle)
            raise
        if handle is not None:
            _sync(handle)  # the name is an entry of the folder
    except OSError as error:
        raise writing_error(path, error) from error
    finally:
        if handle is not None:
            os.close(handle)


def _open_temporary(beside: Path, handle: int | None) -> tuple[int, Path]:
    """Open a new file that nobody else has, and lock it, so that nobody takes it for a leftover."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINK | getattr(os, "O_BINARY", 0)
    while True:
        part = beside.with_name(temporary_name())
        descriptor = os.open(part, flags, 0o666, dir_fd=handle)
        with suppress(FileNotFoundError):
            if lock(descriptor):
                os.stat(part, dir_fd=handle)
                return descriptor, part
        os.close(descriptor)  # a run that clears leftovers came first


def write_file(path: Path, content: bytes, within: Path | None = None) -> None:
    """Write a file at once; see `complete_file`."""
    with complete_file(path, within) as file:
        file.write(content)


def append_text(path: Path, text: str) -> None:
    """Add text to the end of a file, on the disk when this returns; a link is refused.

    ImageFileError where it cannot be written.
    """
    refuse_link(path)
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_LINK | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags, 0o666), "ab") as file:
            file.write(text.encode())
            file.flush()
            _sync(file.fileno())
    except OSError as error:
        raise writing_error(path, error) from error


def lock(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed; False where another process has it."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Lock a folder; ImageFileError where another process writes to it under this lock.

    Windows and some file systems have no such locks.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, FOLDER)
    try:
        if not lock(descriptor):
            raise ImageFileError(
                f"{folder}: another napari-cvdm writes to it now; wait until it ends, or work on "
                "a copy."
            )
        yield
    finally:
        os.close(descriptor)


def clear_leftovers(folder: Path, pattern: str = LEFTOVERS) -> None:
    """Remove temporary files and folders of killed runs; those of living ones are locked.

    Windows does not remove a file that is open. Folders stay there, because they have no locks.
    """
    for path in list(folder.glob(pattern)):
        with suppress(OSError):
            if path.is_symlink() or sys.platform == "win32":
                path.unlink()
                continue
            # A named pipe of that name would wait for somebody who writes.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | NO_LINK)
            try:
                # Not `lock`: without locks nothing tells whose file it is, so it stays.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)
