"""A napari that is left in the middle: python exit_script.py MOMENT+MOMENT LOOP MODEL."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_cvdm.widgets.live.live_widget import LiveWidget
from napari_cvdm.widgets.reconstruct.reconstruct_widget import ReconstructWidget
from napari_cvdm.widgets.train.pair_source import MICROSCOPE
from napari_cvdm.widgets.train.train_widget import TrainWidget

sys.path.append(str(Path(__file__).parents[1]))
from short_trainings import PATCH_PX, few_small_fields

POLL_MS = 5


def main(moments: str, loop: str, model: str) -> None:
    """Begin these, close the viewer in the middle of all of them, end the program."""
    viewer = napari.Viewer()
    for side in (256, 64):
        viewer.add_image(
            np.random.default_rng(0).poisson(100.0, (side, side)).astype(np.uint16),
            name=f"{side} px",
            scale=(0.065, 0.065),
            units=("um", "um"),
        )
    begun: list[Action] = []
    waiting = [MOMENTS[moment] for moment in moments.split("+")]

    def reached() -> bool:
        """Each begins in the middle of those before it."""
        if begun and not begun[-1].reached():
            return False
        if not waiting:
            return True
        begun.append(waiting.pop(0)(viewer, model))
        return False

    def leave() -> None:
        middle.extend(action.name for action in begun if action.under_way())
        viewer.close()

    middle: list[str] = []
    LOOPS[loop](reached, leave)
    print("left while", *middle)


@dataclass
class Action:
    """What a dock does: whether it is in the middle of it, and whether it still does it."""

    name: str
    reached: Callable[[], bool]
    under_way: Callable[[], bool]


def opened(viewer: napari.Viewer, kind: Callable[[napari.Viewer], Any], model: str) -> Any:
    """A dock for the small image."""
    dock = kind(viewer)
    viewer.window.add_dock_widget(dock)
    dock.form.model.set_value(model)
    dock.form.words["device"].setCurrentText("cpu")
    return dock


def running(viewer: napari.Viewer, model: str) -> Action:
    """A run."""
    dock = opened(viewer, ReconstructWidget, model)
    dock.form.image.set_value(viewer.layers["64 px"])
    for name in ("steps", "samples"):
        dock.form.counts[name].setValue(1000)
    dock.start()
    return Action("running", lambda: dock.panel.bar.value() > 2, lambda: dock.panel.busy)


def measuring(viewer: napari.Viewer, model: str) -> Action:
    """The measurement of what a run will cost, of a model that is busy for a while."""
    dock = opened(viewer, ReconstructWidget, "widefield-x2")
    dock.form.image.set_value(viewer.layers["256 px"])
    return Action("measuring", lambda: dock.cost._measuring, lambda: dock.cost._measuring)


def following(viewer: napari.Viewer, model: str) -> Action:
    """A layer that changes no more."""
    dock = opened(viewer, LiveWidget, model)
    dock.form.image.set_value(viewer.layers["64 px"])
    dock.start()
    return Action("following", lambda: "latency" in dock.status.text(), lambda: dock.following)


def training(viewer: napari.Viewer, model: str) -> Action:
    """A training of overnight, in the user's own folder."""
    dock = opened(viewer, TrainWidget, model)
    dock.form.source.kind.setCurrentText(MICROSCOPE)
    dock.form.time.setCurrentIndex(2)
    for name, count in {"patch_px": PATCH_PX, "held-out fields": 1}.items():
        dock.form.counts[name].setValue(count)
    dock.start()
    return Action(
        "training",
        lambda: dock.panel.stage.text().startswith("mean"),
        lambda: dock.training,
    )


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
    with few_small_fields():
        main(*sys.argv[1:])
