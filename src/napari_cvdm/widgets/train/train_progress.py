"""The view of a training: health lights, curves and a held-out field.

The field is reconstructed again every few minutes.
"""

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QSpinBox, QVBoxLayout, QWidget

from napari_cvdm.widgets.common.fields import explain_control
from napari_cvdm.widgets.common.lifetime import listen
from napari_cvdm.widgets.common.plots import ThemeColors
from napari_cvdm.widgets.train.health_signs import HealthSigns
from napari_cvdm.widgets.train.train_plots import TrainPlots
from napari_cvdm.widgets.train.train_preview import TrainingPreview
from napari_cvdm.widgets.train.train_run import PREVIEW_EVERY_MIN, TrainingControl

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_cvdm.training.loop import Trained, TrainStep
    from napari_cvdm.training.validation import Preview


class TrainProgress(QWidget):
    """Lights, plots and previews of one training at a time.

    Parameters
    ----------
    viewer : Viewer
        Gets the layers of the preview.
    """

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._control: TrainingControl | None = None
        self.lights, self.preview = HealthSigns(), TrainingPreview(viewer)
        self.every, self.field, self.now = QSpinBox(), QSpinBox(), QPushButton("&Make one now")
        self.plots = TrainPlots(ThemeColors.of(viewer))
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(4, 4, 4, 4)
        self._layout.addLayout(self._preview_row())
        self._layout.addWidget(self.lights)
        self._layout.addWidget(self.plots, 1)
        listen(self, viewer.events.theme, self._on_theme)
        for signal in (self.every.valueChanged, self.field.valueChanged):
            signal.connect(lambda _: self._set_control())
        self.now.clicked.connect(self._ask_preview)
        self.end()

    def _preview_row(self) -> QGridLayout:
        self.every.setRange(0, 999)
        self.every.setValue(PREVIEW_EVERY_MIN)
        self.field.setRange(1, 999)
        explain_control(
            self.every,
            "Minutes after which a held-out field is reconstructed again and shown as layers; 0 "
            "for never.",
        )
        explain_control(self.field, "Which of the held-out fields.")
        explain_control(self.now, "Reconstruct it after the next step.")
        grid = QGridLayout()
        for column, (text, field) in enumerate(
            (("preview ever&y, min", self.every), ("fiel&d", self.field))
        ):
            label = QLabel(text)
            label.setBuddy(field)
            grid.addWidget(label, 0, 2 * column)
            grid.addWidget(field, 0, 2 * column + 1)
        grid.addWidget(self.now, 0, 4)
        grid.setColumnStretch(4, 1)
        return grid

    def begin(self, control: TrainingControl) -> None:
        """Show nothing of an earlier training, and heed what is asked of this one."""
        old, self.plots = self.plots, TrainPlots(ThemeColors.of(self._viewer))
        self._layout.replaceWidget(old, self.plots)
        old.hide()
        old.deleteLater()
        self.lights.forget()
        self._control = control
        self.now.setEnabled(True)
        self._set_control()

    def end(self) -> None:
        """The training has ended; what is shown stays."""
        self._control = None
        self.now.setEnabled(False)

    def on_step(self, step: "TrainStep") -> None:
        """Draw what a step has to tell."""
        self.plots.add(step)
        if step.findings is not None:
            self.lights.show_findings(step.findings)

    def on_preview(self, preview: "Preview") -> None:
        """Show a held-out field."""
        self.preview.show(preview)

    def on_trained(self, trained: "Trained") -> None:
        """The last look: at the model that was made."""
        if trained.score is not None:
            self.plots.add_last(trained.score)

    def _set_control(self) -> None:
        if self._control is not None:
            self._control.preview_every_s = 60.0 * self.every.value()
            self._control.field = self.field.value() - 1

    def _ask_preview(self) -> None:
        if self._control is not None:
            self._control.ask_preview()

    def _on_theme(self) -> None:
        self.plots.set_theme_colors(ThemeColors.of(self._viewer))
