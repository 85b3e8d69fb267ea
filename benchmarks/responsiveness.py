"""How quickly the window answers while a reconstruction runs, and what drawing costs the worker.

Usage: xvfb-run -a -s "-screen 0 1280x800x24" python -m benchmarks.responsiveness [--rounds N]
       256 x 256 pixels, both shipped models. Prints the lag of a 10 ms timer (median, 95th percentile) during a run, and the
       time of a run with layers that refresh over that of one without, of one with napari's sign of activity as fast as it
       was made over one with the sign slowed, and of one in the window over one without a window; medians of several.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from types import ModuleType

import napari
import numpy as np
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QApplication

from benchmarks.measure import Row, print_rows
from napari_cvdm.core.request import STEPS
from napari_cvdm.core.result import finished
from napari_cvdm.reconstruct.choice import load_method, reconstruct
from napari_cvdm.widgets import activity_sign, worker
from napari_cvdm.widgets.restore_widget import RestoreWidget
from napari_cvdm.widgets.sample_data import two_defocused_planes, widefield_network

PERIOD_MS = 10
LIMIT_MS = 50
MOST_SLOWER = 1.10
ROUNDS = 5
SIDE = 256
SAMPLES = {"phase-2shot": two_defocused_planes, "widefield-x2": widefield_network}
NEVER_S = 1e9


class Lag:
    """Lateness of a timer in the window's own thread [ms]."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setInterval(PERIOD_MS)
        self._timer.timeout.connect(self._tick)

    def start(self) -> None:
        """Begin to look."""
        self._last = time.perf_counter()
        self._timer.start()

    def stop(self) -> None:
        """Look no more."""
        self._timer.stop()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.found.append(max(0.0, 1000 * (now - self._last) - PERIOD_MS))
        self._last = now


def run(dock: RestoreWidget) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    dock.start()
    wait(lambda: not dock.panel.busy)
    took = time.perf_counter() - started
    wait(lambda: not dock.cost.waiting)
    return took


def wait(until: Callable[[], bool]) -> None:
    """Let the window live, as its own loop would: asleep between two events."""
    while not until():
        QApplication.processEvents(
            QEventLoop.ProcessEventsFlag.AllEvents | QEventLoop.ProcessEventsFlag.WaitForMoreEvents
        )


def open_dock(model: str) -> tuple[napari.Viewer, RestoreWidget]:
    """A window with a sample, 256 x 256 pixels of it."""
    viewer = napari.Viewer(show=True)
    data, keywords, _ = SAMPLES[model]()[-1]
    viewer.add_image(np.tile(data, (2, 2))[..., :SIDE, :SIDE], **keywords)
    dock = RestoreWidget(viewer)
    viewer.window.add_dock_widget(dock, name="Reconstruct")
    dock.form.model.set_value(model)
    return viewer, dock


def without_window(dock: RestoreWidget) -> float:
    """Seconds of the same run while the window has nothing to do."""
    request = dock.form.value()
    started = time.perf_counter()
    finished(reconstruct(request, load_method(request.model)))
    return time.perf_counter() - started


def with_setting(place: ModuleType, name: str, value: float, dock: RestoreWidget) -> float:
    """Seconds of a run for which one constant of the program is another."""
    usual = getattr(place, name)
    setattr(place, name, value)
    try:
        return run(dock)
    finally:
        setattr(place, name, usual)


def measure(model: str, rounds: int) -> list[Row]:
    """Lag and slow-down of one model."""
    viewer, dock = open_dock(model)
    run(dock)
    lag = Lag()
    shown, hidden, turning, bare = [], [], [], []
    for _ in range(rounds):  # by turns: what else the machine does falls on all
        lag.start()
        shown.append(run(dock))
        lag.stop()
        hidden.append(with_setting(worker, "VIEW_INTERVAL_S", NEVER_S, dock))
        turning.append(
            with_setting(activity_sign, "SLOW_PERCENT", activity_sign.AS_MADE_PERCENT, dock)
        )
        bare.append(without_window(dock))
    viewer.close()
    middle, late = np.percentile(lag.found, (50, 95))
    ratio, sign, window = (
        median(shown) / median(hidden),
        median(turning) / median(shown),
        median(shown) / median(bare),
    )
    return [
        Row(
            what=f"{model}: lag of the window, median / 95th percentile [ms]",
            value=f"{middle:.0f} / {late:.0f}",
            bar="<= 50",
            met=late <= LIMIT_MS,
        ),
        Row(
            what=f"{model}: time of a run that is shown over one that is not",
            value=f"{ratio:.2f}",
            bar="<= 1.10",
            met=ratio <= MOST_SLOWER,
        ),
        Row(
            what=f"{model}: time of a run with napari's sign of activity as it was made over one with it slowed",
            value=f"{sign:.2f}",
        ),
        Row(
            what=f"{model}: time of a run in the window over one without",
            value=f"{window:.2f} ({median(shown):.1f} s / {median(bare):.1f} s)",
        ),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    for model in SAMPLES:
        print_rows(
            f"A window with a reconstruction of 256 x 256 pixels, 8 samples of {STEPS} steps",
            measure(model, asked.rounds),
        )
