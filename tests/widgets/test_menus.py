"""What the manifest offers, used as napari uses it."""

import subprocess
import sys
from pathlib import Path

import npe2
import numpy as np
import pytest
from napari._app_model import get_app_model

import napari_cvdm
from napari_cvdm.widgets.common.menu_actions import ReconstructDock
from napari_cvdm.widgets.inspect.inspect_widget import InspectWidget
from napari_cvdm.widgets.live.live_widget import LiveWidget
from napari_cvdm.widgets.reconstruct.reconstruct_widget import ReconstructWidget

MANIFEST = Path(napari_cvdm.__file__).with_name("napari.yaml")
SUBMENU = "napari-cvdm/reconstruct"
VERBS = (
    "Copy",
    "Measure",
    "Inspect",
    "Open",
    "Read",
    "Reconstruct",
    "Save",
    "Train",
    "Follow",
    "Load",
    "Repeat",
    "Watch",
    "Queue",
    "Show",
)


@pytest.fixture(scope="module")
def contributions():
    """What the manifest contributes."""
    return npe2.PluginManifest.from_file(MANIFEST).contributions


@pytest.fixture
def plugin(npe2pm):
    """The plugin, as if it were installed."""
    with npe2pm.tmp_plugin(manifest=str(MANIFEST)) as registered:
        yield registered.name


def test_docks_and_samples_open_from_the_menu(plugin, make_napari_viewer, tiny_phase_model, qtbot):
    viewer = make_napari_viewer()

    def opened(name):
        _, dock = viewer.window.add_plugin_dock_widget(plugin, name)
        qtbot.waitUntil(lambda: dock.content is not None)
        return dock.content

    assert isinstance(opened("Inspect"), InspectWidget)
    live = opened("Live")
    assert isinstance(live, LiveWidget)
    assert "an image layer" in live.message.text()
    for key in ("two_planes", "network", "measured_cell", "microtubules"):
        layers = viewer.open_sample(plugin, key)
        assert len(layers) == 2
        assert all(str(unit) == "micrometer" for layer in layers for unit in layer.units)
    assert viewer.layers.units is not None
    viewer.layers.clear()
    viewer.open_sample(plugin, "two_planes")
    dock = opened("Reconstruct")
    assert isinstance(dock, ReconstructWidget)
    dock.form.model.set_value(str(tiny_phase_model))
    assert dock.form.missing() == ()
    assert dock.panel.run.isEnabled()


def test_titles_are_what_the_user_wants_to_do(contributions):
    assert [
        command.title for command in contributions.commands if command.title.split()[0] not in VERBS
    ] == []


def test_every_icon_is_there(contributions):
    icons = [
        one.icon for one in (*contributions.commands, *(contributions.submenus or ())) if one.icon
    ]
    paths = [
        path
        for icon in icons
        for path in ((icon,) if isinstance(icon, str) else (icon.light, icon.dark))
        if path
    ]
    assert [
        path for path in paths if ":" not in path and not MANIFEST.with_name(path).exists()
    ] == []


def test_every_reference_is_declared(contributions):
    commands = {command.id for command in contributions.commands}
    submenus = {submenu.id for submenu in contributions.submenus}
    items = [item for menu in contributions.menus.values() for item in menu]
    used = [
        *contributions.readers,
        *contributions.writers,
        *contributions.widgets,
        *contributions.sample_data,
        *(i for i in items if hasattr(i, "command")),
    ]
    assert {one.command for one in used} <= commands
    assert {item.submenu for item in items if hasattr(item, "submenu")} == submenus


def test_importing_the_manifest_imports_nothing_heavy():
    code = (
        f"import npe2, sys; npe2.PluginManifest.from_file({str(MANIFEST)!r}); import napari_cvdm; "
        "print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "npe2" in loaded
    assert not {"torch", "qtpy", "pyqtgraph", "zarr", "bioio"} & set(loaded)


def test_readers_claim_no_file_that_napari_reads(contributions):
    patterns = {pattern for reader in contributions.readers for pattern in reader.filename_patterns}
    assert not patterns & {"*", "*.*", "*.tif", "*.tiff", "*.npy", "*.png", "*.json"}


def entry(viewer):
    """The menu entry as the user sees it now."""
    menu = viewer.window.layers_menu
    menu.aboutToShow.emit()
    (filters,) = (
        action.menu()
        for action in menu.actions()
        if action.menu() is not None and action.text().replace("&", "") == "Filter"
    )
    filters.aboutToShow.emit()
    (ours,) = (
        action.menu()
        for action in filters.actions()
        if action.menu() is not None and action.text() == "napari-cvdm"
    )
    ours.aboutToShow.emit()
    (action,) = (
        action
        for action in ours.actions()
        if action.text().startswith("Reconstruct the selected image")
    )
    return action


def test_the_menu_entry_opens_one_dock_with_the_selected_image(plugin, make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    assert SUBMENU in get_app_model().menus
    assert not entry(viewer).isEnabled()
    viewer.add_points(np.zeros((1, 2)))
    assert not entry(viewer).isEnabled()
    first, second = (
        viewer.add_image(np.random.default_rng(0).random((32, 32)), name=name)
        for name in ("first", "second")
    )
    assert entry(viewer).isEnabled()
    for wanted in (first, second, first):
        viewer.layers.selection = {wanted}
        entry(viewer).trigger()
        (dock,) = (
            dock
            for dock in viewer.window.dock_widgets.values()
            if isinstance(dock, ReconstructDock)
        )
        qtbot.waitUntil(lambda dock=dock: dock.content is not None)
        assert dock.content.form.image.value() is wanted
