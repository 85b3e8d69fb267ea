"""Photograph the dock and its layers, as a user sees them.

Usage: xvfb-run -a -s "-screen 0 1280x800x24" python -m benchmarks.screenshots OUT --phase MODEL --widefield MODEL
       MODEL is a shipped name or a checkpoint folder. Pictures before, during and after a run, and of a narrow dock, per task and theme.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import napari
from qtpy.QtCore import QElapsedTimer, Qt
from qtpy.QtWidgets import QApplication

from napari_cvdm.widgets.layers import METADATA_KEY
from napari_cvdm.widgets.restore_widget import RestoreWidget
from napari_cvdm.widgets.sample_data import two_defocused_planes, widefield_network

WINDOW = (1280, 760)
NARROW_PX = 250
LONGEST_S = 300
SAMPLES = {"phase": two_defocused_planes, "widefield": widefield_network}


def wait(until: Callable[[], bool] = lambda: True) -> None:
    """Let the window draw for a moment, and on until something is so."""
    timer = QElapsedTimer()
    timer.start()
    while timer.elapsed() < 600 or (not until() and timer.elapsed() < 1000 * LONGEST_S):
        QApplication.processEvents()


def photograph(viewer: napari.Viewer, path: Path) -> None:
    """The whole window as a PNG."""
    wait()
    viewer.window.screenshot(str(path), canvas_only=False, flash=False)
    print(path)


def show_only(viewer: napari.Viewer, role: str) -> None:
    """Show the result of one role alone."""
    for layer in viewer.layers:
        layer.visible = layer.metadata.get(METADATA_KEY, {}).get("role") == role


def session(task: str, model: str, theme: str, out: Path) -> None:
    """One user's session: sample, form, run, result, spread."""
    viewer = napari.Viewer(show=True)
    viewer.theme = theme
    viewer.window.resize(*WINDOW)
    for data, keywords, kind in SAMPLES[task]():
        viewer.add_layer(napari.layers.Layer.create(data, keywords, kind))
    dock = RestoreWidget(viewer)
    frame = viewer.window.add_dock_widget(dock, name="Reconstruct (napari-cvdm)", area="right")
    dock.form.model.set_value(model)
    photograph(viewer, out / f"{task}-{theme}-form.png")
    dock.start()
    wait(lambda: dock.panel.bar.value() > dock.panel.bar.maximum() / 3)
    photograph(viewer, out / f"{task}-{theme}-running.png")
    wait(lambda: not dock.panel.busy)
    photograph(viewer, out / f"{task}-{theme}-result.png")
    for role in ("uncertainty", "noise-rate map"):
        show_only(viewer, role)
        photograph(viewer, out / f"{task}-{theme}-{role.replace(' ', '-')}.png")
    frame.window().resizeDocks([frame], [NARROW_PX], Qt.Orientation.Horizontal)
    dock.form.optics["pixel_um"].set_value(None)
    photograph(viewer, out / f"{task}-{theme}-narrow.png")
    viewer.close()


def main() -> None:
    """Photograph every task in the dark and in the light theme."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for task in SAMPLES:
        parser.add_argument(f"--{task}", metavar="MODEL")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for task in SAMPLES:
        if getattr(given, task):
            for theme in ("dark", "light"):
                session(task, getattr(given, task), theme, given.out)


if __name__ == "__main__":
    main()
