"""Where a large reconstruction is computed.

The choices are this window, block by block, several processes, or a scheduler elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QLineEdit, QVBoxLayout, QWidget

from napari_cvdm.core.request import RequestError
from napari_cvdm.core.tiling import BLOCK_PX, BLOCK_STEP_PX
from napari_cvdm.io.zarr_write import SUFFIXES
from napari_cvdm.widgets.common.fields import (
    NARROWEST_PX,
    LabelledRows,
    PathField,
    whole_number,
    word_choice,
)

IN_MEMORY, IN_BLOCKS, PROCESSES, SCHEDULER = (
    "this computer, in memory",
    "this computer, block by block",
    "local processes",
    "a scheduler",
)
MOST_BLOCK_PX = 16384
MOST_PROCESSES = 64
HELP = {
    "run on": (
        "In memory is right for images of a few thousand pixels: the result is layers of this "
        "window.\n"
        "Block by block, local processes and a scheduler make an OME-Zarr folder of any size; a "
        "job that is cancelled goes on when it is started again."
    ),
    "processes": "How many at a time, each with the model in its memory.",
    "scheduler": (
        "Address of a dask scheduler, tcp://host:port. Its workers must see the image and the "
        "result under the same paths,\n"
        "and have this version of napari-cvdm."
    ),
    "block": (
        "Side of what is computed and written at once [px of the image]; smaller needs less "
        "memory. A multiple of 64."
    ),
    "out": (
        "The OME-Zarr to make, NAME.ome.zarr. Empty: beside the image, named after the image and "
        "the model."
    ),
    "overwrite": (
        "Replace an older result of this name, and begin anew where a job with other settings was "
        "begun."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfCoreOptions:
    """How a reconstruction is carried out block by block.

    Parameters
    ----------
    scheduler : str
        ``local:N``, an address, or "" for this process.
    out : str
        Folder to make, ending in ``.ome.zarr``.
    block : int
        Side of a block [px of the image].
    overwrite : bool
    """

    scheduler: str
    out: str
    block: int
    overwrite: bool


class BlockForm(QWidget):
    """Asks where to run; `changed` tells when another place was chosen."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.where = word_choice((IN_MEMORY, IN_BLOCKS, PROCESSES, SCHEDULER))
        self.processes = whole_number(1, MOST_PROCESSES)
        self.scheduler = QLineEdit()
        self.scheduler.setPlaceholderText("tcp://host:8786")
        self.scheduler.setMinimumWidth(NARROWEST_PX)
        self.block = whole_number(BLOCK_STEP_PX, MOST_BLOCK_PX)
        self.block.setSingleStep(BLOCK_STEP_PX)
        self.out = PathField("Name the OME-Zarr to make", f"OME-Zarr (*{SUFFIXES[0]})", new=True)
        self.out.line.setPlaceholderText("beside the image")
        self.overwrite = QCheckBox()
        self.processes.setValue(2)
        self.block.setValue(BLOCK_PX)
        rows: dict[str, QWidget] = {
            "run on": self.where,
            "processes": self.processes,
            "scheduler": self.scheduler,
        }
        self._rows = LabelledRows(
            rows | {"block": self.block, "out": self.out, "overwrite": self.overwrite}, HELP
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self._rows)
        self.where.currentIndexChanged.connect(lambda _: self._on_where())
        self._on_where()

    def _on_where(self) -> None:
        where = self.where.currentText()
        shown = {
            "processes": where == PROCESSES,
            "scheduler": where == SCHEDULER,
            **dict.fromkeys(("block", "out", "overwrite"), where != IN_MEMORY),
        }
        for name, is_shown in shown.items():
            self._rows.show_row(name, is_shown)
        self.changed.emit()

    @property
    def in_memory(self) -> bool:
        """Whether the result is to be layers of this window."""
        return self.where.currentText() == IN_MEMORY

    def value(self, layer: str, files: Mapping[str, str], model: str) -> OutOfCoreOptions | None:
        """What was asked for; None in memory.

        Parameters
        ----------
        layer : str
            Name of the image layer.
        files : mapping of str to str
            Files that it was opened from, as `ReconstructForm.files` knows them; may be empty.
        model : str
            Name of the model.

        Raises
        ------
        RequestError
            A file or a name is missing: what is needed, and what to do.
        """
        where = self.where.currentText()
        if where == IN_MEMORY:
            return None
        if where != IN_BLOCKS and not files:
            raise RequestError(
                f"{layer} was not opened from a file, or another layer of this run was not, and "
                f"{where} read them from files. Save the layer (File > Save Selected Layers, as "
                f".ome.zarr or .tif), open that file and choose it here; or run on: {IN_BLOCKS}."
            )
        scheduler = {
            IN_BLOCKS: "",
            PROCESSES: f"local:{self.processes.value()}",
            SCHEDULER: self.scheduler.text().strip(),
        }[where]
        if where == SCHEDULER and not scheduler:
            raise RequestError(
                "scheduler is empty; give the address of a dask scheduler, for example "
                "tcp://host:8786, or run on local processes."
            )
        return OutOfCoreOptions(
            scheduler=scheduler,
            out=self._out(layer, files, model),
            block=self.block.value(),
            overwrite=self.overwrite.isChecked(),
        )

    def _out(self, layer: str, files: Mapping[str, str], model: str) -> str:
        named = self.out.value()
        if named is not None:
            return str(named)
        if not files:
            raise RequestError(
                f"out is empty, and {layer} was not opened from a file beside which the result "
                "could lie; name the OME-Zarr to make."
            )
        image = Path(files["image"])
        return str(image.with_name(f"{image.stem.removesuffix('.ome')}-{model}{SUFFIXES[0]}"))
