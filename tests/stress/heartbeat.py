"""Where the window stands still: the longest pauses of a heartbeat, for each thing a user does.

Usage: xvfb-run -a -s "-screen 0 1600x1000x24" python tests/stress/heartbeat.py
       Prints the longest pause of each action and what the window's thread was doing in it.
       Its own work is the processor time of that thread, which other programs do not lengthen.
       The first action adds a layer of napari's own, whose OpenGL is not ours.
"""

import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import napari
import numpy as np
from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QFileDialog

SAVE_FOLDER = "Result folder (*)"  # the first choice of the file dialog
BEAT_S, LOOK_S, PAUSE_S = 0.01, 0.02, 0.3
LONGEST_S = 300.0
SHOWN = 12  # calls of napari and of this package


class Heartbeat(QObject):
    """Beats in the window's thread; another thread looks what that thread does between beats."""

    def __init__(self) -> None:
        super().__init__()
        self._main = threading.get_ident()
        self._last = time.monotonic()
        self.longest_s, self.busy_s, self.total_s, self.where = 0.0, 0.0, 0.0, ""
        self._used = time.thread_time()
        self._looked = ""
        self._timer = QTimer(self)
        self._timer.setInterval(round(1000 * BEAT_S))
        self._timer.timeout.connect(self._beat)
        self._timer.start()
        threading.Thread(target=self._look, daemon=True).start()

    def begin(self) -> None:
        """Forget the pauses so far."""
        self._last = time.monotonic()
        self.longest_s, self.busy_s, self.total_s, self.where = 0.0, 0.0, 0.0, ""

    def _beat(self) -> None:
        now, used = time.monotonic(), time.thread_time()
        pause = now - self._last
        if pause > PAUSE_S:
            self.total_s += pause
        if pause > self.longest_s:
            self.longest_s, self.where = pause, self._looked
        self.busy_s = max(self.busy_s, used - self._used)
        self._last, self._used, self._looked = now, used, ""

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_S)
            if time.monotonic() - self._last > PAUSE_S / 2 and not self._looked:
                frames = traceback.extract_stack(sys._current_frames()[self._main])
                ours = [frame for frame in frames if "napari" in frame.filename][-SHOWN:]
                self._looked = " < ".join(
                    f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
                    for frame in (frames[-1], *reversed(ours))
                )


class Tour(QObject):
    """Does one thing after another in the running window, and prints its longest pause."""

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self.viewer, self.heart = viewer, Heartbeat()
        self._began = 0.0
        self._until: Callable[[], bool] = lambda: True
        self._acts = iter(
            (
                ("napari's own first layer", self.add_layer, lambda: True),
                ("the first sample", self.open_sample, self.has_sample),
                ("the Reconstruct dock", lambda: self.open_dock("Reconstruct"), self.has_form),
                ("another model", self.choose_model, self.is_quiet),
                ("Reconstruct", self.reconstruct, self.is_quiet),
                ("its uncertainty", self.look, lambda: True),
                ("its schedule", self.show_schedule, self.is_drawn),
                ("its schedule at another t", self.move_time, self.is_drawn),
                ("its schedule off", lambda: self.form.results.schedule.click(), self.is_drawn),
                ("the same again", self.reconstruct_again, self.is_quiet_again),
                ("the Measure dock", lambda: self.open_dock("Measure"), self.has_form),
                ("a mask and its measures", self.measure, self.has_rows),
                ("save", self.save, self.is_saved),
                ("reopen", self.reopen, lambda: True),
                ("the Train dock", lambda: self.open_dock("Train"), self.has_form),
                ("the Live dock", lambda: self.open_dock("Live"), self.has_form),
                ("the Inspect dock", lambda: self.open_dock("Inspect"), lambda: True),
            )
        )
        self._name = ""
        self._timer = QTimer(self)
        self._timer.setInterval(50)
        self._timer.timeout.connect(self._go_on)
        self._timer.start()

    def _go_on(self) -> None:
        now = time.monotonic()
        if now - self._began < 1.5 or not (self._until() or now - self._began > LONGEST_S):
            return
        if self._name:
            where = self.heart.where if self.heart.longest_s > PAUSE_S else ""
            print(
                f"{self._name}: longest pause {self.heart.longest_s:.2f} s, at most "
                f"{self.heart.busy_s:.2f} s of them its own work; all over {PAUSE_S} s together "
                f"{self.heart.total_s:.2f} s, {now - self._began:.1f} s",
                where,
                sep="\n    ",
                flush=True,
            )
        found = next(self._acts, None)
        if found is None:
            self.viewer.close()
            return
        self._name, act, self._until = found
        self._began = time.monotonic()
        self.heart.begin()
        act()

    def add_layer(self) -> None:
        """A layer of napari's own."""
        self.viewer.add_image(np.random.default_rng(0).random((64, 64)), name="own")

    def open_sample(self) -> None:
        """As from the menu."""
        self.viewer.open_sample("napari-cvdm", "network")

    def has_sample(self) -> bool:
        """Whether its layers are there."""
        return "widefield network" in self.viewer.layers

    def open_dock(self, name: str) -> None:
        """As from the menu."""
        _, self.opened = self.viewer.window.add_plugin_dock_widget("napari-cvdm", name)

    def has_form(self) -> bool:
        """Whether the dock has a form to fill in."""
        return self.opened.content is not None

    @property
    def dock(self) -> Any:
        """What is in the dock."""
        return self.opened.content

    def choose_model(self) -> None:
        """First the other one, then the one for the sample."""
        self.dock.form.model.set_value("phase-2shot")
        self.dock.form.model.set_value("widefield-x2")

    def reconstruct(self) -> None:
        """Few samples."""
        self.dock.form.image.set_value(self.viewer.layers["widefield network"])
        self.dock.form.counts["samples"].setValue(2)
        self.dock.panel.run.click()

    def is_quiet(self) -> bool:
        """Whether there is nothing at work."""
        return not (self.dock.panel.busy or self.dock.cost.waiting)

    def look(self) -> None:
        """The uncertainty in place of the reconstruction."""
        self.form = self.dock
        self.form.results.turn.click()

    def show_schedule(self) -> None:
        """As from its button."""
        self.form.results.schedule.click()

    def move_time(self) -> None:
        """As with the slider."""
        self.form.results.time.slider.setValue(0.2)

    def is_drawn(self) -> bool:
        """Whether the schedule is shown."""
        return not self.form.results.drawing.busy

    def reconstruct_again(self) -> None:
        """Another seed."""
        self.form.form.counts["seed"].setValue(1)
        self.form.panel.run.click()

    def is_quiet_again(self) -> bool:
        """Whether there is nothing at work in the Reconstruct dock."""
        return not (self.form.panel.busy or self.form.cost.waiting)

    def measure(self) -> None:
        """A suggested mask, and its table."""
        self.dock.suggest.click()
        QTimer.singleShot(1000, self.dock.panel.run.click)

    def has_rows(self) -> bool:
        """Whether the table is there."""
        return not self.dock.panel.busy and self.dock.table.rowCount() > 0

    def save(self) -> None:
        """The result as a folder."""
        self.place = str(Path(tempfile.mkdtemp()) / "saved")
        with patch.object(QFileDialog, "getSaveFileName", lambda *_: (self.place, SAVE_FOLDER)):
            self.form.results.save.click()

    def is_saved(self) -> bool:
        """Whether the folder is complete."""
        return not self.form.panel.busy and (Path(self.place) / "provenance.json").exists()

    def reopen(self) -> None:
        """What was saved, beside the other layers."""
        self.viewer.open(self.place, plugin="napari-cvdm")


def main() -> None:
    """Go through the first five minutes: open, reconstruct, look, measure, save, reopen."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1280, 800)
    tour = Tour(viewer)
    napari.run()
    del tour


if __name__ == "__main__":
    main()
