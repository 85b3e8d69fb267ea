"""The window does not import what takes seconds: a worker does.

`tests/stress/heartbeat.py` measures how long the window stands still.
"""

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
SCRIPT = """
import sys, threading
from importlib.abc import MetaPathFinder

importers = []


class Watch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("torch", "dask.array", "imagecodecs", "tifffile"):
            importers.append((name, threading.current_thread() is threading.main_thread()))
        return None


import napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication
from napari_cvdm.widgets.common import menu_actions

viewer = napari.Viewer(show=False)
sys.meta_path.insert(0, Watch())
found = []


def act():
    if sys.argv[1].startswith("sample"):
        found.append(getattr(menu_actions, sys.argv[1])())
        QApplication.quit()
        return
    dock = getattr(menu_actions, sys.argv[1])(viewer)
    viewer.window.add_dock_widget(dock)
    assert dock.sign.text() == menu_actions.LOADING
    found.append(dock)
    dock.when_filled(lambda content: QApplication.quit())


QTimer.singleShot(0, act)
QTimer.singleShot(300_000, QApplication.quit)
QApplication.instance().exec()
viewer.close()
print("torch" in sys.modules, [name for name, is_main in importers if is_main])
"""


@pytest.mark.parametrize("name", ["sample_network", "ReconstructDock", "TrainDock"])
def test_what_takes_seconds_is_imported_by_a_worker(name):
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, name], capture_output=True, text=True, check=False
    )
    assert found.stdout.splitlines()[-1] == "True []", found.stderr


def test_what_the_menus_name_imports_nothing_heavy():
    code = (
        "import napari.viewer, sys; before = set(sys.modules); "
        "import napari_cvdm.widgets.common.menu_actions; "
        "print(*set(sys.modules) - before)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "tifffile", "imagecodecs", "scipy.linalg", "dask.array"} & set(loaded)


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
