"""The command line: ``napari-cvdm restore | measure | plan | models | demo | train | ...``.

This module and `options` import nothing heavy, so that ``--help`` and a mistyped option are
answered at once. The module of a command is imported when it is run.
"""

import io
import os
import signal
import sys
import unicodedata
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

from napari_cvdm.cli.options import build_parser

PROGRAM = "napari-cvdm"
BAD_INPUT = 2  # as argparse ends where words make no command
INTERRUPTED = 130  # 128 and the number of SIGINT, as a shell says it
# Commands whose module has another name.
MODULES = {"export": "models", "benchmark": "evaluate", "plan": "measure"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command by the words after the program's name, or by those of the process.

    The result is 0 on success. It is 2 on bad input, with one line on stderr that says what was
    given, what is allowed and what to try. It is 130 when interrupted. With 2 and 130, no result is
    left behind.
    """
    # Only as a program: a caller with arguments of its own keeps its streams.
    if argv is None:
        replace_streams()
    try:
        arguments = build_parser().parse_args(argv)
        name = arguments.command
        with handle_termination():
            getattr(import_module(f"{__name__}.{MODULES.get(name, name)}"), f"run_{name}")(
                arguments
            )
    except KeyboardInterrupt as stop:
        _say("stopped", str(stop) or "no result was left behind.")
        return INTERRUPTED
    except ValueError as error:
        _say("error", str(error))
        return BAD_INPUT
    except OSError as error:
        _say("error", describe_os_error(error))
        return BAD_INPUT
    except (RuntimeError, MemoryError) as error:
        # It brings torch, which reports a full memory as a RuntimeError.
        from napari_cvdm.core.device import out_of_memory

        if not out_of_memory(error):
            raise
        _say(
            "error",
            "the memory does not hold this image; crop it, give fewer frames at a time, choose "
            "--out NAME.ome.zarr, or use --device cpu on a larger machine.",
        )
        return BAD_INPUT
    return 0


class UnreadFile(io.FileIO):
    """A file that discards what nobody reads any more, or what the disk does not hold."""

    def write(self, data: Any) -> int:
        """Write bytes, or pass over them; their number."""
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)  # less, and the buffer above would try again


def replace_streams() -> None:
    """Make output to a stdout or stderr that is closed, now or later, vanish without an error."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It takes the lowest number. Else the next file would, and what is printed went there.
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        before = getattr(sys, name)
        stream = io.TextIOWrapper(
            io.BufferedWriter(UnreadFile(number, "w", closefd=False)),
            encoding=before.encoding if before else "utf-8",
            errors="backslashreplace",  # a file name may have no encoding
            line_buffering=number == 2 or os.isatty(number),  # as Python does it
        )
        setattr(sys, name, stream)


@contextmanager
def handle_termination() -> Iterator[None]:
    """A scheduler's SIGTERM and a closed terminal's SIGHUP clean up as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # Python allows handlers in the main thread only, and Windows has no SIGHUP.
    names = ("SIGTERM", "SIGHUP") if current_thread() is main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None of a handler that a program in C had set, which Python cannot set again.
            signal.signal(number, handler or signal.SIG_DFL)


def describe_os_error(error: OSError) -> str:
    """What the operating system refused, of which file, and what to try."""
    what = error.strerror or str(error)
    if error.filename is not None:
        what = f"{error.filename}: {error.strerror}"
    return (
        f"{what}. Check the name, the free space on that disk, and that you may read and write "
        "there."
    )


def check_inputs_stay(arguments: Namespace, paths: Iterable[str]) -> None:
    """Raise ValueError if --overwrite would replace an input file or model."""
    from napari_cvdm.io.folders import check_no_overlap

    # Names that do not exist are refused later, where they are read.
    if arguments.overwrite:
        check_no_overlap(arguments.out, filter(os.path.lexists, paths))


def say_done(message: str) -> None:
    """Print what was made; it is in place by then."""
    print(message, flush=True)


def _say(kind: str, message: str) -> None:
    # A name of a file may hold line breaks and escape codes; an error is one line.
    letters = (" " if unicodedata.category(letter) == "Cc" else letter for letter in message)
    print(f"{PROGRAM}: {kind}: {''.join(letters).strip()}", file=sys.stderr)
