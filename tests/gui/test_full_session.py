"""A full session of one user in a window that is shown.

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
from napari_cvdm.widgets.layers.result_layers import groups_of
from napari_cvdm.widgets.reconstruct import reconstruct_widget

MANIFEST = Path(napari_cvdm.__file__).with_name("napari.yaml")
SAMPLE = "Network, widefield fluorescence (simulated)"
ROLES = {"reconstruction", "uncertainty", "untrusted pixels"}


@dataclass
class UserSession:
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
        self.qtbot.waitUntil(lambda: not (self.dock.panel.busy or self.dock.cost.waiting))

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
def session(make_napari_viewer, npe2pm, qtbot, tiny_widefield_model, monkeypatch):
    """A window on the screen, with the plugin installed."""
    monkeypatch.setattr(reconstruct_widget, "REST_MS", 50)
    with npe2pm.tmp_plugin(package="napari"), npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        yield UserSession(
            viewer=make_napari_viewer(show=True), qtbot=qtbot, model=tiny_widefield_model
        )


def test_a_full_session_at_the_microscope(session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_a_sample_by_the_menu(session)
    open_the_dock_by_the_menu(session)
    preview(session)
    cancel(session)
    run(session)
    add_samples(session)
    inspect_a_pixel(session)
    drop_two_files(session, tmp_path)
    save_and_reopen(session, tmp_path)
    repeat(session)
    run_the_copied_command(session, tmp_path)


def open_a_sample_by_the_menu(session: UserSession) -> None:
    """File > Open Sample > CVDM reconstruction > ..."""
    session.action("File", "Open Sample", "CVDM reconstruction", SAMPLE).trigger()
    truth, measured = sorted(
        session.viewer.layers, key=lambda layer: plugin_metadata(layer).get("role") != "truth"
    )
    assert plugin_metadata(truth)["role"] == "truth"
    assert measured.units == truth.units
    measured.data = measured.data[:56, :48]  # less to wait for
    measured.name = "network"


def open_the_dock_by_the_menu(session: UserSession) -> None:
    """Plugins > CVDM reconstruction > Reconstruct; a small model and few samples."""
    session.action("Plugins", "CVDM reconstruction", "Reconstruct (CVDM reconstruction)").trigger()
    (opened,) = session.viewer.window.dock_widgets.values()
    session.qtbot.waitUntil(lambda: opened.content is not None)
    session.dock = opened.content
    form = session.dock.form
    form.model.set_value(str(session.model))
    assert form.image.value() is session.layer("network")
    for name, count in {"samples": 2, "steps": 3, "tile": 64}.items():
        form.counts[name].setValue(count)
    form.words["device"].setCurrentText("cpu")
    assert form.missing() == ()
    session.settled()
    assert "about" in session.dock.cost.text()


def preview(session: UserSession) -> None:
    """One evaluation of what the screen shows."""
    session.dock.preview.click()
    session.settled()
    layer = session.layer("preview of network [counts]")
    settings = plugin_metadata(layer)["provenance"]["settings"]
    shown = session.expected(region=settings["region"], samples=1, steps=1, schedule_points=0)
    assert layer.data.tobytes() == shown.mean.tobytes()
    assert session.layer("network").units == layer.units


def cancel(session: UserSession) -> None:
    """A run that is far too long, and nothing of it stays."""
    before = list(session.viewer.layers)
    session.dock.form.counts["samples"].setValue(1000)
    session.dock.panel.run.click()
    session.qtbot.waitUntil(lambda: session.dock.panel.bar.value() > 3)
    session.dock.panel.cancel.click()
    session.settled()
    assert list(session.viewer.layers) == before
    session.dock.form.counts["samples"].setValue(2)


def run(session: UserSession) -> None:
    """The posterior, as one group of layers that lies on the image."""
    session.settled()
    session.dock.panel.run.click()
    session.settled()
    session.dock.results.statistic.setCurrentText("standard deviation")
    layers, whole = session.result("network"), session.expected()
    assert layers.keys() >= ROLES
    assert layers["reconstruction"].data.tobytes() == whole.mean.tobytes()
    assert layers["uncertainty"].data.tobytes() == whole.std.tobytes()
    assert {plugin_metadata(layer)["group"] for role, layer in layers.items() if role in ROLES} == {
        session.dock.results.value().name
    }
    source = session.layer("network")
    np.testing.assert_allclose(layers["reconstruction"].scale, source.scale / 2)
    np.testing.assert_allclose(
        layers["reconstruction"].data_to_world((-0.5, -0.5)), source.data_to_world((-0.5, -0.5))
    )


def add_samples(session: UserSession) -> None:
    """Two more of them: the result is that of four from the start."""
    session.dock.results.more.click()
    session.settled()
    layers, whole = session.result("network"), session.expected(samples=4)
    assert layers["reconstruction"].data.tobytes() == whole.mean.tobytes()
    assert layers["uncertainty"].data.tobytes() == whole.std.tobytes()
    assert plugin_metadata(layers["reconstruction"])["provenance"]["settings"]["samples"] == 4


def inspect_a_pixel(session: UserSession) -> None:
    """The curves under the mouse are those of the rate map there."""
    session.action("Plugins", "CVDM reconstruction", "Inspect (CVDM reconstruction)").trigger()
    opened = next(
        dock
        for name, dock in session.viewer.window.dock_widgets.items()
        if name.startswith("Inspect")
    )
    session.qtbot.waitUntil(lambda: opened.content is not None)
    dock = opened.content
    layers = session.result("network")
    (group,) = groups_of(layers.values())
    rate, clock = group.rate, plugin_metadata(layers["reconstruction"])["clock"]
    session.viewer.cursor.position = rate.data_to_world((30, 20))
    for callback in session.viewer.mouse_move_callbacks:
        callback(session.viewer, SimpleNamespace(type="mouse_move"))
    session.qtbot.waitUntil(lambda: (dock.pixel.row.value(), dock.pixel.column.value()) == (30, 20))
    gamma = dock.pixel.curves._pixel["gamma"].getOriginalDataset()[1]
    np.testing.assert_allclose(
        gamma, np.exp(-rate.data[30, 20] * np.array(clock["values"])), rtol=1e-5
    )


def drop_two_files(session: UserSession, folder: Path) -> None:
    """The dock reconstructs two images, dropped from a file manager, one after the other."""
    paths = []
    for number in range(2):
        paths.append(folder / f"field {number}.tif")
        pixels = np.roll(session.layer("network").data, 7 * number, axis=0)
        tifffile.imwrite(
            paths[-1],
            pixels,
            imagej=True,
            resolution=(1 / 0.065, 1 / 0.065),
            metadata={"unit": "um"},
        )
    assert drop(session.dock, *paths)
    session.dock.queue.view.start.click()
    session.qtbot.waitUntil(lambda: not session.dock.queue.running and not session.dock.panel.busy)
    for path in paths:
        layer = session.result(path.stem)["reconstruction"]
        whole = session.expected(
            image=read_image(path), pixel_um=None, wavelength_um=None, medium_index=None, na=None
        )  # the files say none
        assert layer.data.tobytes() == whole.mean.tobytes()
        np.testing.assert_allclose(session.layer(path.stem).scale, 0.065)


def save_and_reopen(session: UserSession, folder: Path) -> None:
    """A result layer, saved as OME-TIFF, keeps its pixels, its scale and its provenance."""
    layer = session.result("field 1")["reconstruction"]
    session.viewer.layers.selection = {layer}
    (path,) = session.viewer.layers.save(str(folder / "kept.ome.tif"), selected=True)
    stack = read_image(path)
    assert np.asarray(stack.array).tobytes() == layer.data.tobytes()
    assert stack.pixel_um == pytest.approx(layer.scale[-1])
    with tifffile.TiffFile(path) as file:
        assert plugin_metadata(layer)["provenance"]["model"]["sha256"] in file.ome_metadata
    (opened,) = session.viewer.open(path)
    assert np.asarray(opened.data).squeeze().tobytes() == layer.data.tobytes()


def repeat(session: UserSession) -> None:
    """The settings of the first result, put back and run again, give the first result again."""
    session.dock.results.choose(
        plugin_metadata(session.result("network")["reconstruction"])["group"]
    )
    before = session.result("network")["reconstruction"].data.copy()
    session.dock.form.counts["seed"].setValue(99)
    session.dock.results.repeat.click()
    assert (
        session.dock.form.counts["seed"].value(),
        session.dock.form.counts["samples"].value(),
    ) == (0, 4)
    assert session.dock.form.image.value() is session.layer("network")
    session.dock.panel.run.click()
    session.settled()
    assert session.result("network")["reconstruction"].data.tobytes() == before.tobytes()


def run_the_copied_command(session: UserSession, folder: Path) -> None:
    """The command line of a dropped file's result gives the same pixels."""
    layer = session.result("field 0")["reconstruction"]
    session.dock.results.choose(plugin_metadata(layer)["group"])
    session.dock.results.command.click()
    session.settled()
    words = shlex.split(QApplication.clipboard().text())
    assert words[:2] == ["napari-cvdm", "restore"]
    assert main(words[1:]) == 0
    written = tifffile.imread(folder / words[words.index("--out") + 1] / "mean.ome.tif")
    assert written.tobytes() == layer.data.tobytes()
