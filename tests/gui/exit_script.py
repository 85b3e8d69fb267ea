"""A napari of its own that is left at a given moment: python exit_script.py MOMENT LOOP MODEL."""

import sys
import time
from collections.abc import Callable

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_cvdm.training.fine_tuning import SOLVED_PLAN
from napari_cvdm.widgets.live.live_widget import LiveWidget
from napari_cvdm.widgets.reconstruct.reconstruct_widget import ReconstructWidget
from napari_cvdm.widgets.train.pair_source import MICROSCOPE
from napari_cvdm.widgets.train.train_widget import TrainWidget

POLL_MS = 5


def main(moment: str, loop: str, model: str) -> None:
    """Open a dock, begin an action, close the viewer in the middle of it, end the program."""
    viewer = napari.Viewer()
    side = 256 if moment == "measuring" else 64  # the shipped model is busy for a while
    viewer.add_image(
        np.random.default_rng(0).poisson(100.0, (side, side)).astype(np.uint16),
        name="cell",
        scale=(0.065, 0.065),
        units=("um", "um"),
    )
    dock = {"following": LiveWidget, "training": TrainWidget}.get(moment, ReconstructWidget)(viewer)
    viewer.window.add_dock_widget(dock)
    dock.form.model.set_value(model)
    if "steps" in dock.form.counts:
        dock.form.counts["steps"].setValue(1000)
    dock.form.words["device"].setCurrentText("cpu")
    LOOPS[loop](MOMENTS[moment](dock), viewer.close)
    print(f"left while {moment}")


def running(dock: ReconstructWidget) -> Callable[[], bool]:
    """A run."""
    dock.start()
    return lambda: dock.panel.bar.value() > 2


def measuring(dock: ReconstructWidget) -> Callable[[], bool]:
    """The measurement of what a run will cost."""
    return lambda: dock.cost._measuring


def following(dock: LiveWidget) -> Callable[[], bool]:
    """A layer that changes no more."""
    dock.start()
    return lambda: "latency" in dock.status.text()


def training(dock: TrainWidget) -> Callable[[], bool]:
    """A training of overnight, in the user's own folder."""
    SOLVED_PLAN["pool_fields"] = 2  # each is deconvolved before the first step
    dock.form.source.kind.setCurrentText(MICROSCOPE)
    dock.form.time.setCurrentIndex(2)
    dock.form.counts["patch_px"].setValue(32)
    dock.form.counts["held-out fields"].setValue(1)
    dock.start()
    return lambda: dock.panel.stage.text().startswith("mean")


def napari_loop(reached: Callable[[], bool], leave: Callable[[], None]) -> None:
    """napari's own event loop, which ends with its last window."""

    def look() -> None:
        if reached():
            timer.stop()
            leave()

    timer = QTimer()
    timer.timeout.connect(look)
    timer.start(POLL_MS)
    napari.run()


def script(reached: Callable[[], bool], leave: Callable[[], None]) -> None:
    """A script that draws the window now and then, and runs no event loop."""
    while not reached():
        QApplication.processEvents()
        time.sleep(POLL_MS / 1000)
    leave()


MOMENTS = {"running": running, "measuring": measuring, "following": following, "training": training}
LOOPS = {"napari": napari_loop, "script": script}

if __name__ == "__main__":
    main(*sys.argv[1:])
