"""What can be done with a model that was trained: use it, pass it on, make it again elsewhere."""

import shlex
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QApplication, QFileDialog, QHBoxLayout, QPushButton, QStyle, QWidget

from napari_cvdm.core.result import Progress
from napari_cvdm.widgets.common.fields import explain_control
from napari_cvdm.widgets.common.menu_actions import open_reconstruct
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION
from napari_cvdm.widgets.common.worker import LatestWork
from napari_cvdm.widgets.train.train_run import TrainingEnd

if TYPE_CHECKING:
    from napari.viewer import Viewer

BUNDLE, ZOO = "Model bundle (*.zip)", "BioImage Model Zoo, a folder with two packages (*)"


def exported(folder: Path, path: Path) -> Generator[Progress, None, Path]:
    """Put a model into one file, for a worker's thread."""
    from napari_cvdm.models.bundle import write_bundle

    yield Progress(stage="exporting", done=0, total=1)
    return write_bundle(folder, path, overwrite=True)  # the dialog has asked


def packaged(
    folder: Path, path: Path, optics: Mapping[str, Any]
) -> Generator[Progress, None, Path]:
    """Write two packages of the BioImage Model Zoo into a folder, in a worker's thread."""
    from napari_cvdm.export.sampler import PackageSettings
    from napari_cvdm.export.zoo import write_bioimageio

    yield Progress(stage="exporting, and testing the packages", done=0, total=1)
    write_bioimageio(folder, path, PackageSettings.of(optics))
    return path


class TrainedModel(QWidget):
    """Buttons for the model of the run that ended last; without one, they take no room.

    Parameters
    ----------
    viewer : Viewer
    optics : callable
        () -> optics by name: what a package of the BioImage Model Zoo fixes.
    """

    said = Signal(QStyle.StandardPixmap, str)

    def __init__(self, viewer: "Viewer", optics: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__()
        self._viewer, self._optics = viewer, optics
        self._end: TrainingEnd | None = None
        self.use, self.export, self.command = (
            QPushButton("Use &in Reconstruct"),
            QPushButton("E&xport…"),
            QPushButton("&Copy command"),
        )
        explain_control(self.use, "Open the Reconstruct dock with this model chosen.")
        explain_control(
            self.export,
            "Save the model as one file, to be added elsewhere with napari-cvdm models add,\n"
            "or as packages of the BioImage Model Zoo for other programs, with the optics of the "
            "settings.",
        )
        explain_control(
            self.command,
            "Copy the command that makes this model again, for example on a cluster: its recipe "
            "and pairs lie in the run's folder.",
        )
        self._work = LatestWork(self, "Exporting a model")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(4, 0, 4, 4)
        for button in (self.use, self.export, self.command):
            layout.addWidget(button)
        self.use.clicked.connect(self._on_use)
        self.export.clicked.connect(self._on_export)
        self.command.clicked.connect(self._on_command)
        self._work.succeeded.connect(
            lambda path: self.said.emit(INFORMATION, f"Exported to {path}.")
        )
        self._work.failed.connect(lambda message: self.said.emit(ERROR, message))
        self.forget()

    def forget(self) -> None:
        """Offer nothing."""
        self._end = None
        self.hide()

    def show_end(self, end: TrainingEnd) -> None:
        """Offer the model of a training: for use if it is better, for export in any case."""
        self._end = end
        self.use.setEnabled(end.model is not None)
        self.export.setEnabled(end.trained is not None)
        self.show()

    def _on_use(self) -> None:
        if self._end is not None and self._end.model is not None:
            open_reconstruct(self._viewer).form.model.set_value(str(self._end.model))

    def _on_export(self) -> None:
        if self._end is None:
            return
        proposed = str(Path.home() / f"{self._end.run.name}.zip")
        path, kind = QFileDialog.getSaveFileName(
            self, "Export the model", proposed, f"{BUNDLE};;{ZOO}"
        )
        if not path:
            return
        try:
            self._work.start(
                packaged(self._end.run, Path(path).with_suffix(""), self._optics())
                if kind == ZOO
                else exported(self._end.run, Path(path))
            )
        except ValueError as error:  # a number that is none
            self.said.emit(ERROR, str(error))

    def _on_command(self) -> None:
        clipboard = QApplication.clipboard()
        if self._end is not None and clipboard is not None:
            command = command_of(self._end.run)
            clipboard.setText(command)
            self.said.emit(INFORMATION, f"Copied: {command}")


def command_of(run: Path) -> str:
    """The command that makes the model of a run again, beside it."""
    return shlex.join(["napari-cvdm", "train", str(run / "recipe.toml"), "--out", f"{run}-again"])
