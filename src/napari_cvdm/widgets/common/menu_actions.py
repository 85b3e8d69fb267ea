"""What the menus open: docks, samples, and actions on the selected layers.

napari imports this module in the thread of the window. So it names the modules that take seconds to
import, PyTorch above all, and a worker imports them: the window never stands still.
"""

import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any, ClassVar

from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import QEventLoop, Qt, QThread, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QLabel, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from napari_cvdm.core.result import Progress, finished
from napari_cvdm.widgets.common.worker import Job

PLUGIN, DOCK = "napari-cvdm", "Reconstruct"
LOADING = "Loading PyTorch…"
ENGINE = "torch"
WIDGETS, SAMPLES = "napari_cvdm.widgets", "napari_cvdm.widgets.layers.contributions"
SHOWN = "napari_cvdm.widgets.layers.shown_layers"
# What forms import when they are made, and what results need to be shown.
FORM_MODULES = (
    "dask.array",
    "napari_cvdm.models.registry",
    "napari_cvdm.reconstruction.plan",
    "napari_cvdm.reconstruction.cost",
    "napari_cvdm.checks.training_range",
    "napari_cvdm.analysis.schedule_maps",
)
LEAST_WIDTH_PX = 300
SOURCE = Path(__file__).parents[4]  # of the repository, where the package was installed from it


def import_modules(names: tuple[str, ...]) -> Generator[Progress, None, None]:
    """Import modules, in a worker's thread.

    Windows may be unable to load PyTorch beside Qt. The dock then says so, see `engine_problem`.
    """
    for number, name in enumerate(names):
        yield Progress(stage=LOADING, done=number, total=len(names))
        try:
            import_module(name)
        except OSError:
            if ENGINE in sys.modules:
                raise
            return
    import numpy as np
    from napari.layers import Labels
    from vispy.visuals.line.dash_atlas import DashAtlas

    from napari_cvdm.widgets.common.preferences import preferred

    # What napari does once takes a third of a second each: it reads the settings of a plugin,
    # imports what makes colours of labels, and draws the dashes of their outlines.
    preferred("samples")
    Labels(np.zeros((1, 1), np.uint8))
    DashAtlas()


def page_address(name: str) -> QUrl:
    """Where a page of the documentation is: on the web, or as a file that came with the package.

    The address of the web pages is the project URL Documentation of the package. The result is not
    valid where the page is nowhere.
    """
    pages = [
        place / f"{name}.md" for place in (Path(sys.prefix) / "share" / PLUGIN, SOURCE / "docs")
    ]
    with suppress(PackageNotFoundError):
        for entry in metadata(PLUGIN).get_all("Project-URL") or ():
            label, _, address = entry.partition(", ")
            if label == "Documentation":
                return QUrl(f"{address.rstrip('/')}/{name}.html")
    there = [page for page in pages if page.is_file()]
    return QUrl.fromLocalFile(str(there[0])) if there else QUrl()


class LazyDock(QWidget):
    """A dock that is there at once; its `content` comes when its modules are imported."""

    module: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    page: ClassVar[str] = ""
    imports: ClassVar[tuple[str, ...]] = FORM_MODULES

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.content: Any = None
        # napari would else add a stretch, which the content had to share the height with.
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self._waiting: list[Callable[[Any], object]] = []
        self._layout = layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        self.help = QToolButton()
        self.help.setText("Help")
        self.help.setAutoRaise(True)
        address = page_address(self.page)
        self.help.setToolTip(f"Open the page about this dock: {address.toString()}")
        self.help.setVisible(address.isValid())
        self.help.clicked.connect(lambda: QDesktopServices.openUrl(address))
        layout.addWidget(self.help, 0, Qt.AlignmentFlag.AlignRight)
        names = (ENGINE, *self.imports, f"{WIDGETS}.{self.module}")
        if all(name in sys.modules for name in names):
            self._fill()
            return
        self.sign = QLabel(LOADING)
        self.sign.setWordWrap(True)
        self.sign.setMinimumWidth(LEAST_WIDTH_PX)
        layout.addWidget(self.sign, 1)
        self._job = Job(import_modules(names), title="", total=len(names), owner=self)
        self._job.succeeded.connect(self._on_imported)
        self._job.failed.connect(self.sign.setText)
        self._job.start()

    def _on_imported(self) -> None:
        self.sign.hide()
        self.sign.deleteLater()
        self._fill()

    def _fill(self) -> None:
        module = import_module(f"{WIDGETS}.{self.module}")
        self.content = getattr(module, self.kind)(self._viewer)
        self._layout.addWidget(self.content, 1)
        for act in self._waiting:
            act(self.content)
        self._waiting.clear()

    def when_filled(self, act: Callable[[Any], object]) -> None:
        """Call with the content, now or as soon as it is there."""
        if self.content is None:
            self._waiting.append(act)
        else:
            act(self.content)


class ReconstructDock(LazyDock):
    """Plugins > CVDM reconstruction > Reconstruct."""

    module, kind, page = "reconstruct.reconstruct_widget", "ReconstructWidget", "get-started"


class LiveDock(LazyDock):
    """Plugins > CVDM reconstruction > Live."""

    module, kind, page = "live.live_widget", "LiveWidget", "how-to-many"


class InspectDock(LazyDock):
    """Plugins > CVDM reconstruction > Inspect."""

    module, kind, page = "inspect.inspect_widget", "InspectWidget", "how-to-inspect"
    imports = ("pyqtgraph", "napari_cvdm.analysis.schedule_maps")


class MeasureDock(LazyDock):
    """Plugins > CVDM reconstruction > Measure."""

    module, kind, page = "measure.measure_widget", "MeasureWidget", "how-to-inspect"
    imports = ()


class TrainDock(LazyDock):
    """Plugins > CVDM reconstruction > Train."""

    module, kind, page = "train.train_widget", "TrainWidget", "how-to-train"
    imports = (*FORM_MODULES, "napari_cvdm.training.fine_tuning", "pyqtgraph")


def open_reconstruct(viewer: Viewer, act: Callable[[Any], object]) -> None:
    """Open the Reconstruct dock, or bring it forward, and call `act` with its content."""
    dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    dock.show()
    dock.raise_()
    widget.when_filled(act)


def reconstruct_selected(viewer: Viewer) -> None:
    """Open the Reconstruct dock, or bring it forward, with the selected image chosen.

    napari gives its current viewer.
    """
    selection = viewer.layers.selection
    selected = [layer for layer in viewer.layers if layer in selection and isinstance(layer, Image)]
    if isinstance(selection.active, Image):
        selected = [selection.active]

    def choose(widget: Any) -> None:
        if selected and hasattr(widget, "form"):  # without its engine the dock says what is missing
            widget.form.image.set_value(selected[-1])

    open_reconstruct(viewer, choose)


def make_sample(name: str) -> list[Any]:
    """Simulate a sample, and go on serving the window meanwhile.

    napari wants the layers when this returns, so an event loop of its own runs until they are
    there. A script has no event loop, and nothing to serve.

    Raises
    ------
    ValueError
        It cannot be made, or napari was left.
    """
    from napari.utils.notifications import show_info

    thread = QThread.currentThread()
    if thread is None or thread.loopLevel() == 0:
        return finished(simulate_layers(name))
    made: list[list[Any]] = []
    refused: list[str] = []
    loop, job = QEventLoop(), Job(simulate_layers(name), title="Making the sample", total=0)
    job.succeeded.connect(made.append)
    job.failed.connect(refused.append)
    job.ended.connect(loop.quit)
    show_info("Making the sample…" if ENGINE in sys.modules else LOADING)
    job.start()
    loop.exec()
    if not made:
        raise ValueError((refused or ["napari was left before the sample was there."])[0])
    from napari_cvdm.widgets.layers.shown_layers import as_opened

    return as_opened(made[0], first=-1)


# What the manifest calls; each name given is a function of `contributions`.
sample_two_planes = partial(make_sample, "two_defocused_planes")
sample_measured_cell = partial(make_sample, "measured_cell")
sample_network = partial(make_sample, "widefield_network")
sample_microtubules = partial(make_sample, "widefield_microtubules")


def simulate_layers(name: str) -> Generator[Progress, None, list[Any]]:
    """Import what simulates, and simulate; for the worker's thread."""
    yield from import_modules((ENGINE, SAMPLES, SHOWN))
    yield Progress(stage="making the sample", done=0, total=0)
    layers: list[Any] = getattr(import_module(SAMPLES), name)()
    return layers
