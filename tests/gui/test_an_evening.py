"""One user's evening in a window that is shown.

Every step is done as a user does it; the layers are checked after it.
"""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from dropping import drop
from qtpy.QtGui import QAction
from qtpy.QtWidgets import QApplication

import napari_cvdm
from napari_cvdm.cli import main
from napari_cvdm.core.result import finished as drained
from napari_cvdm.io import read_image
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.widgets.layers.layer_data import plugin_metadata

MANIFEST = Path(napari_cvdm.__file__).with_name("napari.yaml")
SAMPLE = "Network, widefield fluorescence (simulated)"
ROLES = {"reconstruction", "uncertainty", "noise-rate map", "untrusted pixels", "gamma", "beta"}


@dataclass
class Evening:
    """The window, its dock and the one who waits."""

    viewer: Any
    qtbot: Any
    model: Path
    dock: Any = None

    def action(self, *path: str) -> QAction:
        """An entry of the menu bar, by the texts on the way to it."""
        menu = self.viewer.window._qt_window.menuBar()
        for text in path:
            (found,) = (
                action for action in menu.actions() if action.text().replace("&", "") == text
            )
            menu = found.menu()
            if menu is not None:
                menu.aboutToShow.emit()
        return found

    def settled(self) -> None:
        """Wait until the dock has nothing to do."""
        self.qtbot.waitUntil(
            lambda: not (self.dock.panel.busy or self.dock.cost.waiting), timeout=60_000
        )

    def layer(self, name: str) -> Any:
        """A layer by its name."""
        return self.viewer.layers[name]

    def result(self, source: str) -> dict[str, Any]:
        """Layers of the newest result of a measured layer, by role."""
        return {
            plugin_metadata(layer)["role"]: layer
            for layer in self.viewer.layers
            if plugin_metadata(layer).get("source") == source
        }

    def expected(self, **changes: Any) -> Any:
        """What the core makes of the dock's request."""
        return drained(
            reconstruct(
                replace(self.dock.form.value(), **changes), load_model(self.dock.form.model.value())
            )
        )


@pytest.fixture
def evening(make_napari_viewer, npe2pm, qtbot, tiny_widefield_model):
    """A window on the screen, with the plugin installed."""
    with npe2pm.tmp_plugin(package="napari"), npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        yield Evening(viewer=make_napari_viewer(show=True), qtbot=qtbot, model=tiny_widefield_model)


def test_an_evening_at_the_microscope(evening, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_a_sample_by_the_menu(evening)
    open_the_dock_by_the_menu(evening)
    preview(evening)
    cancel(evening)
    run(evening)
    add_samples(evening)
    inspect_a_pixel(evening)
    drop_two_files(evening, tmp_path)
    save_and_reopen(evening, tmp_path)
    repeat(evening)
    run_the_copied_command(evening, tmp_path)


def open_a_sample_by_the_menu(evening: Evening) -> None:
    """File > Open Sample > CVDM reconstruction > ..."""
    evening.action("File", "Open Sample", "CVDM reconstruction", SAMPLE).trigger()
    truth, measured = sorted(
        evening.viewer.layers, key=lambda layer: plugin_metadata(layer).get("role") != "truth"
    )
    assert plugin_metadata(truth)["role"] == "truth"
    assert measured.units == truth.units
    measured.data = measured.data[:56, :48]  # less to wait for
    measured.name = "network"


def open_the_dock_by_the_menu(evening: Evening) -> None:
    """Plugins > CVDM reconstruction > Reconstruct; a small model and few samples."""
    evening.action("Plugins", "CVDM reconstruction", "Reconstruct (CVDM reconstruction)").trigger()
    (evening.dock,) = evening.viewer.window.dock_widgets.values()
    form = evening.dock.form
    form.model.set_value(str(evening.model))
    assert form.image.value() is evening.layer("network")
    for name, count in {"samples": 2, "steps": 3, "tile": 64}.items():
        form.counts[name].setValue(count)
    form.words["device"].setCurrentText("cpu")
    assert form.missing() == ()
    evening.settled()
    assert "about" in evening.dock.cost.text()


def preview(evening: Evening) -> None:
    """One evaluation of what the screen shows."""
    evening.dock.preview.click()
    evening.settled()
    layer = evening.layer("preview of network")
    settings = plugin_metadata(layer)["provenance"]["settings"]
    shown = evening.expected(region=settings["region"], samples=1, steps=1, schedule_points=0)
    assert layer.data.tobytes() == shown.mean.tobytes()
    assert evening.layer("network").units == layer.units


def cancel(evening: Evening) -> None:
    """A run that is far too long, and nothing of it stays."""
    before = list(evening.viewer.layers)
    evening.dock.form.counts["samples"].setValue(1000)
    evening.dock.panel.run.click()
    evening.qtbot.waitUntil(lambda: evening.dock.panel.bar.value() > 3, timeout=30_000)
    evening.dock.panel.cancel.click()
    evening.settled()
    assert list(evening.viewer.layers) == before
    evening.dock.form.counts["samples"].setValue(2)


def run(evening: Evening) -> None:
    """The posterior, as one group of layers that lies on the image."""
    evening.settled()
    evening.dock.panel.run.click()
    evening.settled()
    layers, whole = evening.result("network"), evening.expected()
    assert layers.keys() >= ROLES
    assert layers["reconstruction"].data.tobytes() == whole.mean.tobytes()
    assert layers["uncertainty"].data.tobytes() == whole.std.tobytes()
    assert {plugin_metadata(layer)["group"] for role, layer in layers.items() if role in ROLES} == {
        evening.dock.results.value().name
    }
    source = evening.layer("network")
    np.testing.assert_allclose(layers["reconstruction"].scale, source.scale / 2)
    np.testing.assert_allclose(
        layers["reconstruction"].data_to_world((-0.5, -0.5)), source.data_to_world((-0.5, -0.5))
    )


def add_samples(evening: Evening) -> None:
    """Two more of them: the result is that of four from the start."""
    evening.dock.results.more.click()
    evening.settled()
    layers, whole = evening.result("network"), evening.expected(samples=4)
    assert layers["reconstruction"].data.tobytes() == whole.mean.tobytes()
    assert layers["uncertainty"].data.tobytes() == whole.std.tobytes()
    assert plugin_metadata(layers["reconstruction"])["provenance"]["settings"]["samples"] == 4


def inspect_a_pixel(evening: Evening) -> None:
    """The curves under the mouse are those of the rate map there."""
    evening.action("Plugins", "CVDM reconstruction", "Inspect (CVDM reconstruction)").trigger()
    dock = next(
        dock
        for name, dock in evening.viewer.window.dock_widgets.items()
        if name.startswith("Inspect")
    )
    layers = evening.result("network")
    rate, clock = layers["noise-rate map"], plugin_metadata(layers["reconstruction"])["clock"]
    evening.viewer.cursor.position = rate.data_to_world((30, 20))
    for callback in evening.viewer.mouse_move_callbacks:
        callback(evening.viewer, SimpleNamespace(type="mouse_move"))
    evening.qtbot.waitUntil(
        lambda: (dock.pixel.row.value(), dock.pixel.column.value()) == (30, 20), timeout=10_000
    )
    gamma = dock.pixel.curves._pixel["gamma"].getOriginalDataset()[1]
    np.testing.assert_allclose(
        gamma, np.exp(-rate.data[30, 20] * np.array(clock["values"])), rtol=1e-5
    )


def drop_two_files(evening: Evening, folder: Path) -> None:
    """The dock reconstructs two images, dropped from a file manager, one after the other."""
    paths = []
    for number in range(2):
        paths.append(folder / f"field {number}.tif")
        pixels = np.roll(evening.layer("network").data, 7 * number, axis=0)
        tifffile.imwrite(
            paths[-1],
            pixels,
            imagej=True,
            resolution=(1 / 0.065, 1 / 0.065),
            metadata={"unit": "um"},
        )
    assert drop(evening.dock, *paths)
    evening.qtbot.waitUntil(
        lambda: not evening.dock.queue.running and not evening.dock.panel.busy, timeout=60_000
    )
    for path in paths:
        layer = evening.result(path.stem)["reconstruction"]
        whole = evening.expected(
            image=read_image(path), pixel_um=None, wavelength_um=None, medium_index=None, na=None
        )  # the files say none
        assert layer.data.tobytes() == whole.mean.tobytes()
        np.testing.assert_allclose(evening.layer(path.stem).scale, 0.065)


def save_and_reopen(evening: Evening, folder: Path) -> None:
    """A result layer, saved as OME-TIFF, keeps its pixels, its scale and its provenance."""
    layer = evening.result("field 1")["reconstruction"]
    evening.viewer.layers.selection = {layer}
    (path,) = evening.viewer.layers.save(str(folder / "kept.ome.tif"), selected=True)
    stack = read_image(path)
    assert np.asarray(stack.array).tobytes() == layer.data.tobytes()
    assert stack.pixel_um == pytest.approx(layer.scale[-1])
    with tifffile.TiffFile(path) as file:
        assert plugin_metadata(layer)["provenance"]["model"]["sha256"] in file.ome_metadata
    (opened,) = evening.viewer.open(path)
    assert np.asarray(opened.data).squeeze().tobytes() == layer.data.tobytes()


def repeat(evening: Evening) -> None:
    """The settings of the first result, put back and run again, give the first result again."""
    evening.dock.results.choose(
        plugin_metadata(evening.result("network")["reconstruction"])["group"]
    )
    before = evening.result("network")["reconstruction"].data.copy()
    evening.dock.form.counts["seed"].setValue(99)
    evening.dock.results.repeat.click()
    assert (
        evening.dock.form.counts["seed"].value(),
        evening.dock.form.counts["samples"].value(),
    ) == (0, 4)
    assert evening.dock.form.image.value() is evening.layer("network")
    evening.dock.panel.run.click()
    evening.settled()
    assert evening.result("network")["reconstruction"].data.tobytes() == before.tobytes()


def run_the_copied_command(evening: Evening, folder: Path) -> None:
    """The command line of a dropped file's result gives the same pixels."""
    layer = evening.result("field 0")["reconstruction"]
    evening.dock.results.choose(plugin_metadata(layer)["group"])
    evening.dock.results.command.click()
    evening.settled()
    words = shlex.split(QApplication.clipboard().text())
    assert words[:2] == ["napari-cvdm", "restore"]
    assert main(words[1:]) == 0
    written = tifffile.imread(folder / words[words.index("--out") + 1] / "mean.ome.tif")
    assert written.tobytes() == layer.data.tobytes()
