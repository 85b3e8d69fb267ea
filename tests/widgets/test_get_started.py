"""The tutorial works as it is written: each step is one that the page names."""

import re
from pathlib import Path

import npe2
import pytest
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
    "The text beside the button estimates the time.",
    "**Preview** reconstructs the visible part of the image",
    "**Reconstruct** draws posterior samples.",
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
