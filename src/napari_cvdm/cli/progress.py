"""Progress with time left, on stderr: a bar on a terminal, a line now and then in a log."""

import sys
from collections.abc import Generator
from contextlib import closing
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from napari_cvdm.core.result import Progress, finished, map_steps

Result = TypeVar("Result")
LOG_INTERVAL_S = 10.0


class Lines:
    """A stream that turns a bar, which is redrawn in its place, into lines of a log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write a line, unless there is nothing but white space (which clears a bar)."""
        if line := text.strip():
            self._stream.write(line + "\n")

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()


def bar(title: str, total: int | None = None, initial: int = 0) -> Any:
    """A progress bar, a `tqdm`, that is gone when it is closed.

    If stderr is no terminal, it writes nothing in the first ten seconds, and at most once in ten
    seconds. `initial` steps were done before.
    """
    pace: dict[str, Any] = {"file": sys.stderr, "dynamic_ncols": True}
    if not sys.stderr.isatty():
        # Short work leaves no line in a log.
        pace = dict.fromkeys(("mininterval", "maxinterval", "delay"), LOG_INTERVAL_S)
        pace |= {"file": Lines(sys.stderr), "ascii": True}
    return tqdm(desc=title, total=total, initial=initial, leave=False, **pace)


def with_bar(work: Generator[Progress, None, Result], title: str) -> Result:
    """Carry long work out under a bar, and return what it returns.

    The work is closed when this is left, by an interruption, too.
    """
    with closing(work), bar(title) as shown:

        def show(progress: Progress) -> None:
            # Nobody knows the total before the first step.
            shown.total = progress.total
            shown.set_postfix_str(progress.stage, refresh=False)
            # Finished tiles are fractions of a step.
            shown.update(int(progress.done) - shown.n)

        return finished(map_steps(work, show))
