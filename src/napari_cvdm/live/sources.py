"""Where frames come from: the newest value that a program puts in, or a folder that is written to.

No torch is loaded here.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Condition, Event
from typing import Generic, TypeVar

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io import SUFFIXES, ImageFileError, read_image
from napari_cvdm.io.result_folder import check_measured

POLL_S = 0.1
Content = TypeVar("Content")
ReadFrame = Callable[[], ImageStack]
State = tuple[int, int]  # size and time of change [ns] of a file


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Item(Generic[Content]):
    """What was put in, and when."""

    number: int  # counts what was put in, from 1
    content: Content = field(repr=False)
    posted_s: float  # of time.monotonic [s]


class LatestValue(Generic[Content]):
    """Holds the newest of what any thread puts in; putting never waits for the one who takes.

    As soon as it is empty or stopped, what was put in is what was used and what was dropped.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._waiting: Item[Content] | None = None
        self._posted = self._dropped = 0
        self._stopped = False

    def put(self, content: Content) -> None:
        """Put something in, in place of what still lies there; after `stop` it is ignored."""
        with self._changed:
            if self._stopped:
                return
            self._dropped += self._waiting is not None  # nobody took it, so it is passed over
            self._posted += 1
            self._waiting = Item(number=self._posted, content=content, posted_s=time.monotonic())
            self._changed.notify()

    def take(self, patience_s: float = 0.0) -> Item[Content] | None:
        """The newest item, once; None when none came within `patience_s` [s], or after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._stopped, patience_s)
            item, self._waiting = self._waiting, None
            return item

    def drop(self) -> None:
        """Count something that was taken and given up."""
        with self._changed:
            self._dropped += 1

    def stop(self) -> None:
        """Wake whoever waits; what still lies there counts as dropped."""
        with self._changed:
            self._dropped += self._waiting is not None
            self._waiting = None
            self._stopped = True
            self._changed.notify_all()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    @property
    def posted(self) -> int:
        """How many were posted."""
        return self._posted

    @property
    def dropped(self) -> int:
        """Number of items that were not used."""
        return self._dropped


class FolderWatch:
    """Hands out the newest image that was written into a folder, when it is complete.

    A file counts as complete when two polls, `poll_s` [s] apart, found the same size and the same
    time of change. Files that exist at the beginning are ignored until they change. Of several
    complete files the newest is handed out. The others are dropped and counted. ImageFileError
    where there is no such folder, or it may not be read.
    """

    def __init__(
        self, folder: str | Path, suffixes: tuple[str, ...] = SUFFIXES, poll_s: float = POLL_S
    ) -> None:
        self.folder = Path(folder)
        self._suffixes, self._poll_s = suffixes, poll_s
        self._stop = Event()
        self._handed_out = self._dropped = 0
        self._seen = self._look()
        # As they were when they counted last: handed out, dropped, or there at the beginning.
        self._settled = dict(self._seen)

    def _look(self) -> dict[str, State]:
        """State of every image file that is not empty."""
        states: dict[str, State] = {}
        try:
            with os.scandir(self.folder) as entries:
                images = [entry for entry in entries if entry.name.lower().endswith(self._suffixes)]
        except OSError as error:
            raise ImageFileError(
                f"{self.folder}: the folder cannot be read ({error.strerror}); check that it is "
                "there, and follow it again."
            ) from error
        for entry in images:
            with suppress(OSError):  # renamed or removed since the folder was listed
                # On Windows the entry's own numbers lag behind while the file is written.
                found = os.stat(entry.path)
                if found.st_size:  # made, but not written yet
                    states[entry.name] = (found.st_size, found.st_mtime_ns)
        return states

    def poll(self) -> Path | None:
        """Look once; the newest file that became complete since. ImageFileError without folder."""
        now = self._look()
        complete = [
            name
            for name, state in now.items()
            if self._seen.get(name) == state and self._settled.get(name) != state
        ]
        self._seen = now
        self._settled = {name: state for name, state in self._settled.items() if name in now} | {
            name: now[name] for name in complete
        }
        if not complete:
            return None
        self._handed_out += 1
        self._dropped += len(complete) - 1
        # Some disks count times in seconds, so names decide, too.
        return self.folder / max(complete, key=lambda name: (now[name][1], name))

    def take(self, patience_s: float) -> Item[ReadFrame] | None:
        """The newest complete file, still to be read.

        None when there was none for `patience_s` [s], or after `stop`. ImageFileError where the
        folder is gone.
        """
        until = time.monotonic() + patience_s
        while not self._stop.is_set():
            path = self.poll()
            if path is not None:
                return Item(
                    number=self._handed_out + self._dropped,
                    content=partial(_read_measured, path),
                    posted_s=time.monotonic(),
                )
            if time.monotonic() >= until:
                break
            self._stop.wait(self._poll_s)
        return None

    def drop(self) -> None:
        """Count a file that was taken and given up."""
        self._dropped += 1  # by the thread that takes, the only one that counts

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    @property
    def dropped(self) -> int:
        """Complete files that were not reconstructed."""
        return self._dropped


def _read_measured(path: Path) -> ImageStack:
    check_measured([path])
    return read_image(path)


FrameSource = LatestValue[ReadFrame] | FolderWatch
