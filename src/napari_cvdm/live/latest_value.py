"""Room for one item; a newer item replaces one that was not taken."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Condition
from typing import Generic, Protocol, TypeVar

from napari_cvdm.core.request import ImageStack

Content = TypeVar("Content")
ReadFrame = Callable[[], ImageStack]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Item(Generic[Content]):
    """What was posted, and when.

    Parameters
    ----------
    number : int
        Counts what was posted, from 1.
    content : object
    posted_s : float
        Time of ``time.monotonic`` [s].
    """

    number: int
    content: Content = field(repr=False)
    posted_s: float


class FrameSource(Protocol):
    """Where frames come from: a `LatestValue` that is posted into, or a `FolderWatch`."""

    def take(self, patience_s: float) -> Item[ReadFrame] | None:
        """The newest frame, still to be read.

        None when there was none for `patience_s` [s], or after `stop`.
        """

    def drop(self) -> None:
        """Count a frame that was taken and given up."""

    def stop(self) -> None:
        """Give out nothing more."""

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""

    @property
    def dropped(self) -> int:
        """Number of frames that were not reconstructed.

        A newer frame came, or the following was stopped.
        """


class LatestValue(Generic[Content]):
    """Holds the newest of what any thread posts; posting never waits for the one who takes.

    As soon as the box is empty or stopped, what was posted is what was used and what was dropped.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._waiting: Item[Content] | None = None
        self._posted = 0
        self._dropped = 0
        self._stopped = False

    def put(self, content: Content) -> None:
        """Put something in, in place of what still lies there.

        After `stop` nothing is taken in or counted.
        """
        with self._changed:
            if self._stopped:
                return
            self._dropped += self._waiting is not None
            self._posted += 1
            self._waiting = Item(number=self._posted, content=content, posted_s=time.monotonic())
            self._changed.notify()

    def take(self, patience_s: float = 0.0) -> Item[Content] | None:
        """The newest letter, once; None when none came within `patience_s` [s], or after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._stopped, patience_s)
            letter, self._waiting = self._waiting, None
            return letter

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
