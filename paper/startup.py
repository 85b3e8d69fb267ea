"""How soon the program answers, each in a fresh process.

`xvfb-run -a -s "-screen 0 1280x800x24" python -m paper.startup`

The import of the package; the help of the command line; the Reconstruct dock in an open napari; the
first image of a reconstruction after the click, with no model loaded before. Medians and ranges of
several processes, in wall time and in the processor time of all threads, which is what counts on a
shared machine. What a process reads is in the machine's file cache from the second one on.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paper.measure import Row, print_rows

ROUNDS = 5
PATIENCE_S = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Wall and processor seconds until something was there."""

    wall: float
    processor: float


def help_answer() -> Answer:
    """The whole process of `napari-cvdm --help`."""
    return process_answer("-m", "napari_cvdm.cli", "--help")


def import_answer() -> Answer:
    """`import napari_cvdm`: the process, less that of an interpreter that imports nothing."""
    whole, bare = process_answer("-c", "import napari_cvdm"), process_answer("-c", "")
    return Answer(wall=whole.wall - bare.wall, processor=whole.processor - bare.processor)


def process_answer(*words: str) -> Answer:
    """A whole process of Python."""
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Answer(
        wall=time.perf_counter() - began,
        processor=spent.ru_utime + spent.ru_stime - used.ru_utime - used.ru_stime,
    )


def window_answer(what: str) -> Answer:
    """What `in_window` says in a process of its own."""
    command = [sys.executable, "-m", "paper.startup", "--inside", what]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    return Answer(**json.loads(done.stdout.splitlines()[-1]))


def in_window(what: str) -> None:
    """Open napari, then measure, and print JSON.

    `dock` measures until the dock is drawn, `first` from the click until there is an image.
    """
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(show=True)
    QApplication.processEvents()
    began, used = time.perf_counter(), time.process_time()
    _, opened = viewer.window.add_plugin_dock_widget("napari-cvdm", "Reconstruct")
    _settled(lambda: opened.content is not None, QApplication)
    dock = opened.content
    dock.repaint()
    QApplication.processEvents()
    if what == "first":
        viewer.open_sample("napari-cvdm", SAMPLE)
        layers, began, used = len(viewer.layers), time.perf_counter(), time.process_time()
        dock.start()
        _settled(lambda: len(viewer.layers) > layers, QApplication)
    print(
        json.dumps({"wall": time.perf_counter() - began, "processor": time.process_time() - used}),
        flush=True,
    )
    os._exit(0)  # a run goes on; nobody waits for it


def _settled(there: Callable[[], bool], application: type) -> None:
    limit = time.perf_counter() + PATIENCE_S
    while not there():
        if time.perf_counter() > limit:
            raise TimeoutError(f"nothing after {PATIENCE_S} s")
        application.processEvents()  # type: ignore[attr-defined]
        time.sleep(0.005)


def row(what: str, bar: float, answers: Sequence[Answer]) -> Row:
    """Medians and ranges."""
    parts = []
    for name in ("processor", "wall"):
        values = [getattr(answer, name) for answer in answers]
        parts.append(
            f"{statistics.median(values):.2f} s {name} ({min(values):.2f} to {max(values):.2f})"
        )
    met = statistics.median(answer.processor for answer in answers) < bar
    return Row(what=what, value=", ".join(parts), bar=f"< {bar:g} s", met=met)


SAMPLE = "two_planes"
MEASURED: dict[str, tuple[str, float, Callable[[], Answer]]] = {
    "import": ("import napari_cvdm", 0.1, import_answer),
    "help": ("napari-cvdm --help", 0.2, help_answer),
    "dock": ("opening the dock in an open napari", 2.0, lambda: window_answer("dock")),
    "first": (
        "from the click to the first image, no model loaded before",
        2.0,
        lambda: window_answer("first"),
    ),
}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=MEASURED)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--inside", choices=("dock", "first"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        in_window(given.inside)
    chosen = [MEASURED[name] for name in given.only or MEASURED]
    print_rows(
        "Start-up",
        [row(what, bar, [measure() for _ in range(given.rounds)]) for what, bar, measure in chosen],
    )


if __name__ == "__main__":
    main()
