"""The Reconstruct dock: a form, a run panel, and layers when the work is done."""

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_cvdm.request import RestoreRequest
from napari_cvdm.result import Progress, Restoration
from napari_cvdm.widgets.fields import wrapped_label
from napari_cvdm.widgets.layers import show_layers, to_layer_data
from napari_cvdm.widgets.placement import Placement
from napari_cvdm.widgets.restore_form import RestoreForm
from napari_cvdm.widgets.run_panel import ERROR, INFORMATION, WARNING, RunPanel

if TYPE_CHECKING:
    from napari.viewer import Viewer


def steps_of(request: RestoreRequest) -> int:
    """Evaluations of the network that a request asks for, over all its frames."""
    from napari_cvdm.restore import frame_indices

    return request.samples * request.steps * sum(1 for _ in frame_indices(request.image))


def reconstruct(request: RestoreRequest) -> Generator[Progress, None, Restoration]:
    """Load the model of a request, then restore; for the worker's thread."""
    from napari_cvdm.model.zoo import load_model
    from napari_cvdm.restore import restore

    yield Progress(stage="loading the model", done=0, total=steps_of(request))
    return (yield from restore(request, load_model(request.model)))


def engine_problem() -> str:
    """Why torch cannot be loaded, in words; "" when it can."""
    try:
        import torch  # noqa: F401 - loading it is the test
    except OSError as error:  # on Windows its libraries fail to load after those of some Qt versions
        return f'PyTorch cannot be loaded beside Qt ({error}). Start napari with: python -c "import torch, napari; napari.run()", or install PyTorch again.'
    return ""


class RestoreWidget(QWidget):
    """Plugins > napari-cvdm > Reconstruct.

    Parameters
    ----------
    napari_viewer : Viewer
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        problem = engine_problem()
        if problem:
            layout.addWidget(wrapped_label(problem))
            return
        self.form = RestoreForm(napari_viewer)
        self.panel = RunPanel("Reconstruct")
        layout.addWidget(_scrolled(self.form), 1)
        layout.addWidget(self.panel)
        self.form.changed.connect(self._on_changed)
        self.form.model.refused.connect(partial(self.panel.message.say, ERROR))
        self.panel.asked.connect(self.start)
        self._on_changed()

    def _on_changed(self) -> None:
        """Say what is missing, wrong or outside the trained range before anything runs."""
        missing = self.form.missing()
        self.panel.set_ready(not missing)
        if self.panel.busy:
            return
        try:
            warnings = self.form.warnings()
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return
        if missing:
            self.panel.message.say(INFORMATION, f"Needed before a run: {', '.join(missing)}.")
        elif warnings:
            self.panel.message.say(WARNING, " ".join(warnings))
        else:
            self.panel.message.clear()

    def start(self) -> None:
        """Reconstruct with the settings of the form as they are now."""
        if self.panel.busy:
            return
        try:
            request, place = self.form.value(), self.form.placement()
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return
        self.panel.start(reconstruct(request), title=f"Reconstructing {place.name}", total=steps_of(request), on_result=partial(self._on_result, place))

    def _on_result(self, place: Placement, restoration: Restoration) -> None:
        show_layers(self._viewer, to_layer_data(restoration, place))
        warnings = restoration.provenance.warnings
        seconds = restoration.provenance.timings_s["total"]
        self.panel.message.say(WARNING if warnings else INFORMATION, " ".join([f"Done in {seconds:.1f} s; values in {restoration.unit}.", *warnings]))


def _scrolled(widget: QWidget) -> QScrollArea:
    area = QScrollArea()
    area.setWidget(widget)
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setMinimumWidth(widget.minimumSizeHint().width() + area.verticalScrollBar().sizeHint().width())
    return area
