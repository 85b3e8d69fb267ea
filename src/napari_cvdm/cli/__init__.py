"""The command line: ``napari-cvdm restore | models | demo | train | simulate``.

This module and `options` import nothing heavy, so that ``--help`` and a mistyped option are answered at once; the module of a
command is imported when it is run.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from napari_cvdm.cli.options import build_parser

PROGRAM = "napari-cvdm"
BAD_INPUT = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; those of the process when left out.

    Returns
    -------
    int
        0 on success; 2 on bad input, with one line on stderr that says what was given, what is allowed and what to try; 130 when
        interrupted. With 2 and 130 no result is left behind.
    """
    try:
        arguments = build_parser().parse_args(argv)
        import_module(f"napari_cvdm.cli.{arguments.command}").run(arguments)
    except KeyboardInterrupt as stop:
        _say("stopped", str(stop) or "no result was left behind.")
        return INTERRUPTED
    except (ValueError, OSError) as error:
        _say("error", str(error))
        return BAD_INPUT
    except (RuntimeError, MemoryError) as error:
        from napari_cvdm.device import out_of_memory

        if not out_of_memory(error):
            raise
        _say("error", "the memory does not hold this image; crop it, give fewer frames at a time, or use --device cpu on a larger machine.")
        return BAD_INPUT
    return 0


def _say(kind: str, message: str) -> None:
    print(f"{PROGRAM}: {kind}:", *message.split(), file=sys.stderr)
