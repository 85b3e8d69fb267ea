"""The window does not import what takes seconds: a worker does.

`tests/stress/heartbeat.py` measures how long the window stands still.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import napari_cvdm
from napari_cvdm.widgets.common import menu_actions
from napari_cvdm.widgets.common.menu_actions import LazyDock, page_address

DOCKS = LazyDock.__subclasses__()
DOCS = Path(__file__).parents[2] / "docs"
MANIFEST = Path(napari_cvdm.__file__).with_name("napari.yaml")
NAMES = ("sample_network", "ReconstructDock", "TrainDock")
# What all begin with takes seconds, too. On Linux a process that has done that, and has neither a
# thread nor a screen yet, is forked for each name.
RUNS = [NAMES] if sys.platform == "linux" else [(), *((name,) for name in NAMES)]
SCRIPT = """
import os, sys, threading
from importlib.abc import MetaPathFinder

importers = []


class Watch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("torch", "dask.array", "imagecodecs", "tifffile"):
            importers.append((name, threading.current_thread() is threading.main_thread()))
        return None


def open_by_name(name):
    app = QApplication([])
    sys.meta_path.insert(0, Watch())
    found = []

    def act():
        if name.startswith("sample"):
            found.append(getattr(menu_actions, name)())
            app.quit()
            return
        dock = getattr(menu_actions, name)(ViewerModel())
        assert dock.sign.text() == menu_actions.LOADING
        found.append(dock)
        dock.when_filled(lambda content: app.quit())

    QTimer.singleShot(0, act)
    QTimer.singleShot(300_000, app.quit)
    app.exec()
    in_window = [module for module, is_main in importers if is_main]
    print(f"{name}: {len(found)} {'torch' in sys.modules} {in_window}", flush=True)


import napari.viewer
from napari.components import ViewerModel
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

before = set(sys.modules)
from napari_cvdm.widgets.common import menu_actions

print("menus:", *set(sys.modules) - before, flush=True)
names = sys.argv[1:]
for name in names:
    if len(names) == 1 or os.fork() == 0:
        open_by_name(name)
        os._exit(0)
    os.wait()
if len(names) != 1:
    import napari_cvdm.widgets.layers.contributions
    import napari_cvdm.widgets.reconstruct.reconstruct_widget

    print("forms:", *set(sys.modules) - before, flush=True)
"""


@pytest.fixture(scope="module")
def imported():
    """What the script says of each of its imports and actions."""
    said = {}
    for names in RUNS:
        found = subprocess.run(
            [sys.executable, "-c", SCRIPT, *names],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},  # no OpenGL without a window
        )
        assert found.returncode == 0, found.stderr
        said |= dict(line.split(": ", 1) for line in found.stdout.splitlines() if ": " in line)
        said["errors"] = said.get("errors", "") + found.stderr
    return said


@pytest.mark.parametrize("name", NAMES)
def test_what_takes_seconds_is_imported_by_a_worker(imported, name):
    assert imported.get(name) == "1 True []", imported["errors"]


def test_what_the_menus_name_imports_nothing_heavy(imported):
    loaded = set(imported["menus"].split())
    assert "napari_cvdm.widgets.common.menu_actions" in loaded
    assert not {"torch", "tifffile", "imagecodecs", "scipy.linalg", "dask.array"} & loaded


def test_the_modules_of_forms_and_readers_import_no_torch(imported):
    loaded = set(imported["forms"].split())
    assert "napari_cvdm.widgets.reconstruct.reconstruct_widget" in loaded
    assert "torch" not in loaded


@pytest.mark.parametrize("kind", DOCKS, ids=lambda kind: kind.__name__)
def test_each_dock_has_a_page_and_a_button_that_opens_it(kind, viewer, qtbot, monkeypatch):
    opened = []
    monkeypatch.setattr(menu_actions.QDesktopServices, "openUrl", opened.append)
    assert (DOCS / f"{kind.page}.md").is_file()
    dock = kind(viewer)
    qtbot.addWidget(dock)
    qtbot.waitUntil(lambda: dock.content is not None)
    dock.help.click()
    assert opened == [page_address(kind.page)]
    assert kind.page in opened[0].toString()


def test_the_address_of_the_pages_is_that_of_the_package(monkeypatch):
    from email.message import Message

    named = Message()
    named["Project-URL"] = "Documentation, https://example.org/docs/"
    monkeypatch.setattr(menu_actions, "metadata", lambda name: named)
    assert page_address("trust").toString() == "https://example.org/docs/trust.html"
    monkeypatch.setattr(menu_actions, "metadata", lambda name: Message())
    assert page_address("get-started").toLocalFile() == str(DOCS / "get-started.md")
    assert not page_address("nowhere").isValid()
