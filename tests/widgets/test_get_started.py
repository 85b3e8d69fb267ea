"""The tutorial works as it is written: each step is one that the page names."""

import re
from pathlib import Path

import npe2
import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton

import napari_cvdm
from napari_cvdm.widgets.layers.layer_data import plugin_metadata

PAGE = Path(__file__).parents[2] / "docs" / "get-started.md"
MANIFEST = Path(napari_cvdm.__file__).with_name("napari.yaml")
# napari names the plugin behind each dock of a plugin that is in other menus, too.
NAMED = " (CVDM reconstruction)"
TEXT = " ".join(PAGE.read_text(encoding="utf-8").split())
PATHS = re.findall(r"\*\*([^*]+ > [^*]+)\*\*", TEXT)
SENTENCES = (
    "The dock chooses the model widefield-x2 for it, and reads pixel size, wavelength, refractive "
    "index and NA from the layer.",
    "The text beside the button estimates the time on your machine.",
    "**Preview** reconstructs the visible part of the image",
    "Then it draws *samples*: images that all fit the measured one.",
    "The preview has no spread",
    "**Add samples** draws more samples and updates mean and spread.",
    "**Repeat** puts the settings of the result back into the form.",
    "**Remove** removes the layers of the result.",
)


def follow(viewer, path):
    """Choose a menu entry as the page writes it."""
    menu = viewer.window._qt_window.menuBar()
    for name in path.split(" > "):
        found = [one for one in menu.actions() if one.text().replace("&", "") == name]
        assert len(found) == 1, f"{name} of {path}: {[one.text() for one in menu.actions()]}"
        menu = found[0].menu()
        if menu is None:
            found[0].trigger()
        else:
            menu.aboutToShow.emit()


def press(dock, name):
    """Press the button that the page names."""
    assert f"**{name}**" in TEXT
    buttons = [
        button
        for button in dock.findChildren(QAbstractButton)
        if button.text().replace("&", "") == name and button.isVisibleTo(dock)
    ]
    assert len(buttons) == 1 and buttons[0].isEnabled(), name
    buttons[0].click()


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_page_has_what_is_tested(sentence):
    assert sentence in TEXT


def test_the_tutorial_works_as_it_is_written(make_napari_viewer, npe2pm, qtbot):
    opening, docking = PATHS[:2]
    with npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        viewer = make_napari_viewer()
        follow(viewer, opening)
        follow(viewer, docking)
        opened = next(iter(viewer.window.dock_widgets.values()))
        qtbot.waitUntil(lambda: opened.content is not None)
        dock = opened.content
        form, image = dock.form, viewer.layers["widefield network"]
        hidden = viewer.layers["true structure of network"]
        assert not hidden.visible and viewer.layers.index(hidden) < viewer.layers.index(image)
        assert form.image.value() is image and form.model.value() == "widefield-x2"
        for name in ("pixel_um", "wavelength_um", "medium_index", "na"):
            assert form.optics[name].value() is not None
        assert form.missing() == () and form.about.text() == "About widefield-x2"
        for name, count in {"samples": 2, "steps": 2}.items():
            form.counts[name].setValue(count)
        image.data = image.data[:56, :48]  # less to wait for
        dock.cost._rest.start(0)
        qtbot.waitUntil(lambda: not dock.cost.waiting)
        assert re.match(r"about \d+ s", dock.cost.text())
        press(dock, "Preview")
        qtbot.waitUntil(lambda: not dock.panel.busy)
        assert len(viewer.layers) == 3
        press(dock, "Reconstruct")
        qtbot.waitUntil(lambda: not dock.panel.busy)
        made = {plugin_metadata(layer).get("role") for layer in viewer.layers}
        assert {"reconstruction", "uncertainty"} <= made
        dock.results.more.click()
        assert dock.results.more.text().replace("&", "") == "Add 2 samples"
        qtbot.waitUntil(lambda: not dock.panel.busy)
        press(dock, "Repeat")
        assert not dock.results.command.isEnabled()  # the sample came from no file
        press(dock, "Remove")
        assert "reconstruction" not in {
            plugin_metadata(layer).get("role") for layer in viewer.layers
        }


def test_the_menu_paths_of_the_page_are_those_of_the_manifest():
    contributions = npe2.PluginManifest.from_file(MANIFEST).contributions
    offered = {one.display_name for one in (*contributions.widgets, *contributions.sample_data)}
    assert {path.split(" > ")[-1].removesuffix(NAMED) for path in PATHS[:2]} <= offered


def click(qtbot, widget):
    """Press with the mouse, and count it."""
    qtbot.waitUntil(widget.isEnabled)
    qtbot.mouseClick(widget, Qt.MouseButton.LeftButton)


OPEN_DOCK = 2  # the menu, and the entry of the dock: napari shows the menus of plugins by name


def test_an_own_image_is_a_result_in_four_clicks(make_napari_viewer, npe2pm, qtbot, tmp_path):
    """Dropped on the window: no click. The menu, the dock, Reconstruct."""
    path = tmp_path / "own.ome.tif"
    pixels = np.random.default_rng(0).poisson(200.0, (48, 40)).astype(np.uint16)
    tifffile.imwrite(path, pixels, metadata={"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1})
    with npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        viewer, clicks = make_napari_viewer(show=True), OPEN_DOCK
        viewer.open(str(path), plugin="napari-cvdm")
        follow(viewer, PATHS[1])
        opened = next(iter(viewer.window.dock_widgets.values()))
        qtbot.waitUntil(lambda: opened.content is not None)
        dock = opened.content
        assert dock.form.model.value() == "widefield-x2"
        for name in ("pixel_um", "wavelength_um", "na", "medium_index"):  # numbers of no file
            if name in dock.form.missing():
                dock.form.optics[name].set_value(
                    {"pixel_um": 0.1, "wavelength_um": 0.52}.get(name, 1.3)
                )
        for name, count in {"samples": 1, "steps": 1}.items():
            dock.form.counts[name].setValue(count)
        click(qtbot, dock.panel.run)
        clicks += 1
        qtbot.waitUntil(lambda: not dock.panel.busy)
        assert "reconstruction" in {plugin_metadata(one).get("role") for one in viewer.layers}
    assert clicks <= 4


def test_two_files_of_planes_are_a_phase_in_five_clicks(
    make_napari_viewer, npe2pm, qtbot, tmp_path
):
    """Both dropped on the window. The menu, the dock, the model in its box, Reconstruct."""
    rng, paths = np.random.default_rng(1), [tmp_path / name for name in ("a.ome.tif", "b.ome.tif")]
    for path in paths:
        pixels = (1000 + 20 * rng.normal(size=(48, 40))).astype(np.float32)
        tifffile.imwrite(path, pixels)
    with npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        viewer, clicks = make_napari_viewer(show=True), OPEN_DOCK
        viewer.open([str(path) for path in paths], plugin="napari-cvdm")
        follow(viewer, PATHS[1])
        opened = next(iter(viewer.window.dock_widgets.values()))
        qtbot.waitUntil(lambda: opened.content is not None)
        dock = opened.content
        form = dock.form
        if not form.two_planes:  # the box, and the model in it
            form.model.set_value("phase-2shot")
            clicks += 2
        assert form.second.value() is not None
        numbers = {"pixel_um": 0.2, "wavelength_um": 0.52, "medium_index": 1.33}
        for name, value in numbers.items():
            form.optics[name].set_value(value)
        form.positions.set_value((-1.0, 1.0))
        for name, count in {"samples": 1, "steps": 1}.items():
            form.counts[name].setValue(count)
        assert form.missing() == ()
        click(qtbot, dock.panel.run)
        clicks += 1
        qtbot.waitUntil(lambda: not dock.panel.busy)
        assert "reconstruction" in {plugin_metadata(one).get("role") for one in viewer.layers}
    assert clicks <= 5
