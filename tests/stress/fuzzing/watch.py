"""What a reader may do while it looks at a file that nobody trusts.

It may write into one folder, use little memory, and end in words.
"""

import os
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from napari_cvdm.io.atomic import LEFTOVERS

LARGEST_BYTES = (
    64 << 20
)  # every specimen is far below 1 MB, and a reader may hold it in several copies
LONGEST_MESSAGE = 700
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PLACES = {
    "os.mkdir": 1,
    "os.rename": 2,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.symlink": 2,
    "os.link": 2,
    "os.truncate": 1,
    "shutil.rmtree": 1,
}
_NEVER = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "pickle.find_class",
    "urllib.Request",
    "ctypes.dlopen",
)


_OWN_PICKLES = (
    "dask",
    "tokenize.py",
)  # it names an array by the pickles of what made it, and unpickles those that it has just made


class Escape(Exception):
    """A reader did what no file may make it do."""


class _Guard:
    """Python's audit events of all threads, while one folder is watched.

    An audit hook stays for the life of the process.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.seen: list[str] = []
        self._asking = threading.local()
        sys.addaudithook(self._event)

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or getattr(self._asking, "now", False):
            return
        self._asking.now = True  # to resolve a path raises events, too
        try:
            self._judge(event, arguments)
        finally:
            self._asking.now = False

    def _judge(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "pickle.find_class" and _asked_by(_OWN_PICKLES):
            return
        if event.startswith(_NEVER):
            self.seen.append(f"{event} {arguments!r:.80}")
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            # The event of a new file in an open folder does not say which folder. That of the
            # name that it gets does.
            if not Path(os.fsdecode(arguments[0])).match(LEFTOVERS):
                self._outside(event, arguments[:1])
        elif event in ("os.remove", "os.rmdir") and arguments[1] not in (None, -1):
            return  # shutil.rmtree, from within a folder: its own event said which
        elif event in _PLACES:
            self._outside(event, _whole(event, arguments))

    def _outside(self, event: str, places: tuple[Any, ...]) -> None:
        assert self.folder is not None
        for place in places:
            if isinstance(place, str | bytes | os.PathLike) and not Path(
                os.path.realpath(os.fsdecode(place))
            ).is_relative_to(self.folder):
                self.seen.append(f"{event} {os.fsdecode(place)!r:.120}")


def _whole(event: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Places of an event; names in an open folder with that folder, as Linux tells it."""
    places, folders = arguments[: _PLACES[event]], arguments[-_PLACES[event] :]
    if event not in ("os.mkdir", "os.rename") or sys.platform != "linux":
        return places
    return tuple(
        place
        if folder in (None, -1)
        else Path(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(place))
        for place, folder in zip(places, folders, strict=True)
    )


def _asked_by(ending: tuple[str, ...]) -> bool:
    """Whether a file of this name is among those that are running."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and Path(frame.f_code.co_filename).parts[-len(ending) :] != ending:
        frame = frame.f_back
    return frame is not None


_GUARD: list[_Guard] = []


@contextmanager
def confined(folder: Path) -> Iterator[None]:
    """Watch a block that may write into `folder` only.

    The block must ask no network, start no program and unpickle nothing.

    Python reports what Python does; what a library does in its own machine code is seen in `folder`
    only.

    Raises
    ------
    Escape
        One of these happened.
    """
    if not _GUARD:
        _GUARD.append(_Guard())
    guard = _GUARD[0]
    guard.seen, guard.folder = [], Path(os.path.realpath(folder))
    try:
        yield
    finally:
        guard.folder = None
        if guard.seen:
            raise Escape(f"outside its folder: {guard.seen[0]}")


@contextmanager
def frugal(limit: int = LARGEST_BYTES) -> Iterator[None]:
    """In the block, Python and NumPy ask for at most `limit` bytes at a time.

    Raises
    ------
    Escape
        They were.
    """
    running = tracemalloc.is_tracing()
    if not running:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1] - before
        if not running:
            tracemalloc.stop()
        if peak > limit:
            raise Escape(
                f"memory: more than {(1 << peak.bit_length() - 1) >> 20} MiB for a small file"
            )


def outcome(act: Callable[[], object], allowed: tuple[type[BaseException], ...]) -> str:
    """What came of one input: ``read``, or the name of the project's own error.

    Parameters
    ----------
    act : callable
        Reads the input.
    allowed : tuple of type
        The project's own errors.

    Raises
    ------
    Escape
        Another error, or a message that is no single line of readable length.
    """
    try:
        act()
    except allowed as error:
        said = str(error)
        if "\n" in said or not said or len(said) > LONGEST_MESSAGE:
            raise Escape(
                f"unclear: {type(error).__name__} of {len(said)} characters, "
                f"{said.count(chr(10))} line breaks: {said!r:.90}"
            ) from error
        return type(error).__name__
    except Escape:
        raise
    except Exception as error:
        raise Escape(f"{type(error).__name__}: {str(error)!r:.110} at {_place(error)}") from error
    return "read"


def _place(error: BaseException) -> str:
    """The last line of this project that an error went through."""
    found, step = "", error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        found = f"{Path(name).name}:{step.tb_lineno}" if "napari_cvdm" in name else found
        step = step.tb_next
    return found
