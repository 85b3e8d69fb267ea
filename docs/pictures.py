"""Photograph the running program for this documentation, so that its pictures never go stale.

Usage: xvfb-run -a -s "-screen 0 1600x1000x24" python docs/pictures.py [OUT]
       docs/pictures by default
       A window of 1280 x 800, the shipped models and samples, few samples and steps: about four
       minutes on two cores.
       xvfb-run -a -s "-screen 0 2000x1200x24" python docs/pictures.py OUT --docks
       Instead, every dock with a result, in both themes and two sizes of the window.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import napari
import numpy as np
from qtpy.QtCore import QElapsedTimer
from qtpy.QtWidgets import QApplication, QScrollArea, QWidget

from napari_cvdm.simulate.samples import reticulum_pair
from napari_cvdm.widgets.common import preferences
from napari_cvdm.widgets.inspect.further_tabs import NEW_LINE
from napari_cvdm.widgets.inspect.inspect_widget import InspectWidget
from napari_cvdm.widgets.layers.contributions import (
    measured_cell,
    two_defocused_planes,
    widefield_network,
)
from napari_cvdm.widgets.layers.layer_data import plugin_metadata
from napari_cvdm.widgets.layers.result_layers import CHI2_ROLE, groups_of
from napari_cvdm.widgets.layers.shown_layers import leave_grid, show_stored
from napari_cvdm.widgets.live.live_widget import LiveWidget
from napari_cvdm.widgets.measure.measure_widget import MeasureWidget
from napari_cvdm.widgets.reconstruct.block_runs import PROCESSES
from napari_cvdm.widgets.reconstruct.reconstruct_widget import ReconstructWidget
from napari_cvdm.widgets.train.pair_source import MICROSCOPE
from napari_cvdm.widgets.train.train_form import OWN_STEPS
from napari_cvdm.widgets.train.train_widget import TrainWidget

WINDOW, LARGE_WINDOW = (1280, 800), (1920, 1080)
LONGEST_MS = 300_000  # a training on a busy machine
SETTLED_MS = 400
SHORT = {"samples": 4, "steps": 6}
AIR_OBJECTIVE = {
    "pixel_um": 0.108,
    "wavelength_um": 0.6,
    "medium_index": 1.0,
    "na": 0.8,
    "photons": 200.0,
}


class Studio:
    """A napari window to be photographed.

    Parameters
    ----------
    out : Path
    theme : {"dark", "light"}
    """

    def __init__(self, out: Path, theme: str) -> None:
        self._out = out
        self.viewer = napari.Viewer(show=True)
        self.viewer.theme = theme
        self.viewer.window.resize(*WINDOW)

    def open_sample(self, sample: Callable[[], list[Any]]) -> None:
        """What the menu's sample data do."""
        for data, keywords, kind in sample():
            self.viewer.add_layer(napari.layers.Layer.create(data, keywords, kind))

    def open_dock(self, kind: type, name: str) -> Any:
        """A dock at the right."""
        dock = kind(self.viewer)
        self.viewer.window.add_dock_widget(
            dock, name=f"{name} (CVDM reconstruction)", area="right", tabify=True
        )
        return dock

    def wait(self, until: Callable[[], bool] = lambda: True) -> None:
        """Let the window draw for a moment, and on until something is so."""
        timer = QElapsedTimer()
        timer.start()
        while timer.elapsed() < SETTLED_MS or not until():
            QApplication.processEvents()
            if timer.elapsed() > LONGEST_MS:
                raise TimeoutError("the window did not come to rest")

    def photograph(self, name: str, part: QWidget | None = None) -> None:
        """The window, or a part of it, as a PNG."""
        self.wait()
        path = str(self._out / f"{name}.png")
        if part is None:
            self.viewer.window.screenshot(path, canvas_only=False, flash=False)
        else:
            part.grab().save(path)
        print(path, flush=True)

    def photograph_all(self, name: str) -> None:
        """The window in both themes and in two sizes."""
        for size in (WINDOW, LARGE_WINDOW):
            self.viewer.window.resize(*size)
            for theme in ("dark", "light"):
                self.viewer.theme = theme
                self.photograph(f"{name}-{theme}-{size[0]}")
        self.viewer.window.resize(*WINDOW)

    def show_only(self, *roles: str) -> None:
        """Show the layers of these roles alone; a result is asked for those that it has."""
        for group in groups_of(self.viewer.layers):
            for role in roles:
                show_stored(self.viewer, group, role)
        for layer in self.viewer.layers:
            layer.visible = plugin_metadata(layer).get("role") in roles
        if not any(layer.visible for layer in self.viewer.layers):
            raise ValueError(f"no layer is {' or '.join(roles)}: the picture would be empty")
        self.viewer.reset_view()

    def close(self) -> None:
        """Close the window."""
        self.viewer.close()


def quiet(dock: ReconstructWidget) -> bool:
    """Whether a Reconstruct dock has nothing to do."""
    return not (dock.panel.busy or dock.cost.waiting or dock.queue.running)


def set_short(dock: ReconstructWidget) -> None:
    """Few samples and steps."""
    for name, count in SHORT.items():
        dock.form.counts[name].setValue(count)


def super_resolution(out: Path, theme: str) -> None:
    """The first five minutes: sample, form, preview, run, result, spread."""
    studio = Studio(out, theme)
    studio.open_sample(widefield_network)
    dock = studio.open_dock(ReconstructWidget, "Reconstruct")
    dock.form.model.set_value("widefield-x2")
    set_short(dock)
    studio.wait(lambda: quiet(dock))
    studio.photograph("first-form")
    dock.preview.click()
    studio.wait(lambda: quiet(dock))
    studio.photograph("first-preview")
    dock.panel.run.click()
    studio.wait(
        lambda: dock.panel.bar.value() > dock.panel.bar.maximum() / 2 or not dock.panel.busy
    )
    studio.photograph("first-running")
    studio.wait(lambda: quiet(dock))
    studio.viewer.layers["preview of widefield network [counts]"].visible = False
    studio.photograph("first-result")
    studio.show_only("uncertainty")
    studio.photograph("first-spread")
    studio.photograph("results-panel", dock.results)
    studio.show_only("residual")
    studio.photograph("check-light")
    studio.close()


def checked(out: Path, theme: str) -> None:
    """A result with a camera's dark image as a layer; its quality flag is green.

    Nothing was guessed for it.
    """
    studio = Studio(out, theme)
    studio.open_sample(widefield_network)
    measured, offset = (
        studio.viewer.layers["widefield network"],
        reticulum_pair().camera.offset_counts,
    )
    place = {"scale": measured.scale, "units": measured.units, "contrast_limits": (0, 2 * offset)}
    dark = studio.viewer.add_image(
        np.full(measured.data.shape, offset, np.float32), name="dark image", **place
    )
    dark.visible = False
    dock = studio.open_dock(ReconstructWidget, "Reconstruct")
    dock.form.model.set_value("widefield-x2")
    dock.form.image.set_value(measured)
    dock.form.background.set_value(dark)
    set_short(dock)
    studio.wait(lambda: quiet(dock))
    dock.panel.run.click()
    studio.wait(lambda: quiet(dock))
    studio.show_only(CHI2_ROLE)
    studio.photograph("check-green")
    studio.close()


def phase(out: Path, theme: str) -> None:
    """Phase of cells, the inspector on it, its objects measured."""
    studio = Studio(out, theme)
    studio.open_sample(two_defocused_planes)
    dock = studio.open_dock(ReconstructWidget, "Reconstruct")
    dock.form.model.set_value("phase-2shot")
    set_short(dock)
    dock.form.keep_samples.setChecked(True)
    studio.wait(lambda: quiet(dock))
    studio.photograph("phase-form")
    dock.panel.run.click()
    studio.wait(lambda: quiet(dock))
    studio.show_only("reconstruction")
    studio.photograph("phase-result")
    studio.show_only(CHI2_ROLE)
    studio.photograph("check-chi2")
    studio.show_only("reconstruction")
    dock.results.compare.click()
    studio.wait(lambda: quiet(dock))
    studio.photograph("phase-compared")
    leave_grid(studio.viewer)
    for name in ("phase-physics", "us-tie", "wotf"):
        studio.viewer.layers.remove(f"{name} of two defocused planes [rad]")
    inspector = studio.open_dock(InspectWidget, "Inspect")
    mean = next(
        layer
        for layer in studio.viewer.layers
        if plugin_metadata(layer).get("role") == "reconstruction"
    )
    studio.viewer.cursor.position = mean.data_to_world((128, 160))
    for callback in studio.viewer.mouse_move_callbacks:
        callback(studio.viewer, SimpleNamespace(type="mouse_move"))
    studio.wait(lambda: not inspector.pixel.work.busy)
    studio.photograph("inspect-pixel")
    inspector.tabs.setCurrentIndex(1)
    studio.wait(lambda: not inspector.agreement.work.busy)
    studio.photograph("inspect-agreement")
    inspector.tabs.setCurrentWidget(inspector.profile)
    inspector.profile.draw.click()
    studio.wait(lambda: not inspector.profile.work.busy)
    studio.photograph("inspect-profile")
    inspector.tabs.setCurrentWidget(inspector.next_image)
    inspector.next_image.estimate.click()
    studio.wait(lambda: not inspector.next_image.work.busy)
    studio.photograph("inspect-next")
    studio.viewer.layers.remove(NEW_LINE)
    measure = studio.open_dock(MeasureWidget, "Measure")
    measure.suggest.click()
    studio.wait(lambda: not measure.panel.busy)
    measure.panel.run.click()
    studio.wait(lambda: not measure.panel.busy)
    measure.table.selectRow(0)
    studio.photograph("measure")
    studio.close()


def live(out: Path, theme: str) -> None:
    """A layer that is followed."""
    studio = Studio(out, theme)
    studio.open_sample(measured_cell)
    dock = studio.open_dock(LiveWidget, "Live")
    dock.form.model.set_value("phase-2shot")
    studio.wait()
    dock.start_button.click()
    studio.wait(
        lambda: any(
            plugin_metadata(layer).get("role") == "reconstruction" for layer in studio.viewer.layers
        )
    )
    studio.photograph("live")
    dock.stop_button.click()
    studio.wait(lambda: not dock.following)
    studio.close()


def queue(out: Path, theme: str) -> None:
    """Files that were dropped, one of them no image."""
    import tifffile
    from dropping import drop  # of the tests: what Qt does with a drop

    folder = out / "dropped"
    folder.mkdir(exist_ok=True)
    image = next(
        data for data, keywords, _ in widefield_network() if "true" not in keywords["name"]
    )
    paths = [folder / f"field {number}.tif" for number in (1, 2)]
    for number, path in enumerate(paths):
        tifffile.imwrite(
            path,
            image[96 * number : 96 * number + 160, :160],
            imagej=True,
            resolution=(1 / 0.0626, 1 / 0.0626),
            metadata={"unit": "um"},
        )
    notes = folder / "notes.txt"
    notes.write_text("stray")
    studio = Studio(out, theme)
    dock = studio.open_dock(ReconstructWidget, "Reconstruct")
    dock.form.model.set_value("widefield-x2")
    set_short(dock)
    studio.wait()
    drop(dock, *paths, notes)
    dock.queue.view.start.click()
    studio.wait(lambda: quiet(dock) and len(studio.viewer.layers) > len(paths))
    studio.photograph("queue")
    studio.close()


def large(out: Path, theme: str) -> None:
    """A file that two processes work at, block by block, and its result."""
    import tifffile

    image = next(
        data for data, keywords, _ in widefield_network() if "true" not in keywords["name"]
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        tifffile.imwrite(path, image)
        studio = Studio(out, theme)
        (layer,) = studio.viewer.open(str(path), plugin="napari")
        layer.scale, layer.units = (0.0626, 0.0626), ("um", "um")
        dock = studio.open_dock(ReconstructWidget, "Reconstruct")
        dock.form.model.set_value("widefield-x2")
        for name in SHORT:
            dock.form.counts[name].setValue(2)
        dock.blocks.where.setCurrentText(PROCESSES)
        dock.blocks.block.setValue(128)
        dock.form.more.expand()
        studio.wait(lambda: quiet(dock))
        studio.viewer.reset_view()
        dock.panel.run.click()
        studio.wait(lambda: dock.panel.bar.value() > 0 or not dock.panel.busy)
        dock.findChild(QScrollArea).ensureWidgetVisible(dock.blocks.overwrite)
        studio.photograph("large-running")
        studio.wait(lambda: quiet(dock))
        studio.photograph("large-result")
        studio.close()


def train(out: Path, theme: str) -> None:
    """A fine-tuning for a described microscope: its settings, and the middle of it."""
    studio = Studio(out, theme)
    with TemporaryDirectory() as own, patch.object(preferences, "OWN_MODELS", Path(own)):
        dock = studio.open_dock(TrainWidget, "Train")
        dock.form.model.set_value("widefield-x2")
        dock.form.source.kind.setCurrentText(MICROSCOPE)
        for name, value in AIR_OBJECTIVE.items():
            dock.form.source.numbers[name].set_value(value)
        studio.wait()
        studio.photograph("train-form")
        dock.form.time.setCurrentText(OWN_STEPS)
        for name, count in {
            "mean_steps": 4,
            "diffusion_steps": 60,
            "batch": 1,
            "patch_px": 48,
            "held-out fields": 1,
        }.items():
            dock.form.counts[name].setValue(count)
        dock.panel.start.click()
        studio.wait(lambda: len(dock.progress.plots.schedule.seen) > 2 or not dock.training)
        dock.progress.now.click()
        studio.wait(lambda: bool(dock.progress.preview.layers()) or not dock.training)
        studio.viewer.reset_view()
        studio.photograph("train-running")
        dock.panel.finish.click()
        studio.wait(lambda: not dock.training)
        studio.photograph("train-done")
        studio.close()


def docks(out: Path) -> None:
    """Every dock with a result, to look for clipped labels and unreadable contrast."""
    studio = Studio(out, "dark")
    studio.open_sample(two_defocused_planes)
    dock = studio.open_dock(ReconstructWidget, "Reconstruct")
    dock.form.model.set_value("phase-2shot")
    for name, count in {"samples": 2, "steps": 2}.items():
        dock.form.counts[name].setValue(count)
    dock.form.keep_samples.setChecked(True)
    studio.wait(lambda: quiet(dock))
    dock.panel.run.click()
    studio.wait(lambda: quiet(dock))
    studio.photograph_all("reconstruct")
    dock.results.turn.click()
    studio.photograph_all("uncertainty")
    dock.results.schedule.click()
    studio.wait(lambda: not dock.results.drawing.busy)
    studio.photograph_all("schedule")
    dock.results.schedule.click()
    dock.results.compare.click()
    studio.wait(lambda: quiet(dock))
    studio.photograph_all("compare")
    leave_grid(studio.viewer)
    measure = studio.open_dock(MeasureWidget, "Measure")
    measure.suggest.click()
    studio.wait(lambda: not measure.panel.busy)
    measure.panel.run.click()
    studio.wait(lambda: not measure.panel.busy)
    studio.photograph_all("measure")
    inspector = studio.open_dock(InspectWidget, "Inspect")
    inspector.profile.draw.click()
    inspector.next_image.estimate.click()
    for number, tab in enumerate(
        (inspector.pixel, inspector.agreement, inspector.profile, inspector.next_image)
    ):
        inspector.tabs.setCurrentWidget(tab)
        studio.wait(lambda tab=tab: not tab.work.busy)
        studio.photograph_all(f"inspect-{number + 1}")
    follower = studio.open_dock(LiveWidget, "Live")
    follower.form.model.set_value("phase-2shot")
    studio.wait()
    follower.start_button.click()
    studio.wait(lambda: any("live" in layer.name for layer in studio.viewer.layers))
    studio.photograph_all("live")
    follower.stop_button.click()
    studio.wait(lambda: not follower.following)
    with TemporaryDirectory() as own, patch.object(preferences, "OWN_MODELS", Path(own)):
        trainer = studio.open_dock(TrainWidget, "Train")
        trainer.form.model.set_value("widefield-x2")
        studio.photograph_all("train")
        studio.close()


def main() -> None:
    """Take every picture."""
    given = [argument for argument in sys.argv[1:] if argument != "--docks"]
    out = Path(given[0]) if given else Path(__file__).with_name("pictures")
    out.mkdir(parents=True, exist_ok=True)
    if "--docks" in sys.argv:
        docks(out)
        return
    super_resolution(out, "dark")
    checked(out, "dark")
    phase(out, "light")
    live(out, "dark")
    queue(out, "light")
    large(out, "dark")
    train(out, "dark")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    main()
