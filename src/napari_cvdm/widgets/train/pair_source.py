"""Choosing where pairs come from; only what the chosen source and task need is shown."""

from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Layer
from napari.viewer import Viewer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_cvdm.core.plan import count_planes
from napari_cvdm.core.request import RequestError
from napari_cvdm.io import combine_planes
from napari_cvdm.widgets.common.choices import LayerChoice, PresetChoice
from napari_cvdm.widgets.common.fields import (
    LabelledRows,
    OptionalNumber,
    OptionalNumbers,
    PathField,
    whole_number,
    word_choice,
)
from napari_cvdm.widgets.common.preferences import PRESET_HELP, PRESET_VALUES
from napari_cvdm.widgets.layers.layer_data import known_optics, plugin_metadata, read_layer
from napari_cvdm.widgets.layers.placement import chosen_planes

if TYPE_CHECKING:
    from napari_cvdm.tasks import Task
    from napari_cvdm.training.fine_tuning import LayerPairs, Source

LAYERS, FOLDERS, MICROSCOPE, CLEAN, BIOSR, ARRAYS = KINDS = (
    "two layers",
    "two folders",
    "a described microscope",
    "clean images and a microscope",
    "BioSR folders",
    "arrays x and y",
)
OPTICS = ("pixel_um", "wavelength_um", "defocus_um", "medium_index", "na", "condenser_na")
PRESET = "microscope"
ROWS: dict[str, tuple[str, ...]] = {
    LAYERS: ("measured layer", "second plane", "truth layer", "register", PRESET, *OPTICS),
    FOLDERS: ("measured folder", "truth folder", "register", PRESET, *OPTICS),
    MICROSCOPE: (PRESET, *OPTICS, "photons", "strength_rad"),
    CLEAN: ("clean folder", "clean pixel_um", PRESET, *OPTICS, "photons"),
    BIOSR: ("BioSR folder", "lowest level", "highest level"),
    ARRAYS: ("x", "y", "register", PRESET, *OPTICS),
}
ONLY_PHASE = ("second plane", "defocus_um", "condenser_na", "strength_rad")
NEEDED_FOR_PHASE = ("pixel_um", "wavelength_um", "defocus_um", "medium_index")
NO_BIOSR = (
    "BioSR is fluorescence; choose a super-resolution model to start from, or another source of "
    "pairs."
)
HELP = {
    "pairs from": (
        "Where images and their truths come from. A described microscope needs no images at all:\n"
        "structures are simulated, and seen by your optics and your camera's photons."
    ),
    "measured layer": (
        "The measured images: one layer whose frames (along t, or an axis without a name) are "
        "fields of view.\n"
        "At least two, so that one can be held out to judge the training."
    ),
    "second plane": (
        "The images at the other focus, frame by frame. More than two planes must be in the "
        "measured layer."
    ),
    "truth layer": (
        "The sharp image, or the phase in radians, of every frame: on a grid twice as fine for "
        "super-resolution x2."
    ),
    "measured folder": (
        "Measured images, one file for each field of view; frames of one file are one field of "
        "view."
    ),
    "truth folder": "A truth for each of them, under the same name.",
    "register": (
        "Move a truth that lies beside its image onto it. Without it, such a pair is refused, and "
        "told by how much it is off."
    ),
    "clean folder": (
        "Sharp fluorescence images, or phase maps in radians: the described microscope looks at "
        "them."
    ),
    "clean pixel_um": "Pixel size of the clean images [µm], where their files do not say.",
    "BioSR folder": (
        "A structure of BioSR as it is downloaded: folders of cells with raw SIM frames and their "
        "reconstruction (MRC)."
    ),
    "lowest level": "The lowest level of signal to learn from.",
    "highest level": "The highest level of signal to learn from.",
    "x": (
        "Inputs of the official code: .npy, or .npz with arrays x and y. Shape (N, Y, X, C), "
        "values in [-1, 1]."
    ),
    "y": "Their truths: .npy, or the same .npz.",
    PRESET: PRESET_HELP,
    "pixel_um": (
        "Pixel size in the sample [µm]. For a described microscope, empty means: any that the "
        "model was trained for."
    ),
    "wavelength_um": (
        "Vacuum wavelength [µm]: of the illumination for phase, of the emission for fluorescence. "
        "520 nm is 0.52."
    ),
    "defocus_um": (
        "Position of each plane [µm], in their order, with sign: positive is toward the "
        "objective.\n"
        "Several numbers in one field, with spaces between them, are the positions of as many "
        "planes.\n"
        "Of a described microscope, only the distance of the outermost planes is used."
    ),
    "medium_index": (
        "Refractive index of the medium between the planes or at the objective: air 1.0, water "
        "1.333, oil 1.518."
    ),
    "na": "Numerical aperture of the detection.",
    "condenser_na": (
        "Numerical aperture of the illumination. Empty: the light is taken for coherent;\n"
        "of a described microscope, any that the model was trained for."
    ),
    "photons": (
        "Photons of the brightest structure (fluorescence), or of a blank pixel (phase). Counts "
        "times gain, above the dark level."
    ),
    "strength_rad": "Largest phase difference in a field [rad].",
}


def has_pixels(layer: Layer) -> bool:
    """Whether a layer can be a truth: any image but the maps that belong to a result."""
    role = plugin_metadata(layer).get("role")
    return isinstance(layer, Image) and role in (None, "truth", "reconstruction")


class PairSource(QWidget):
    """A kind of source, and the fields that it needs under the names of the recipe."""

    changed = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._task: Task | None = None
        self._told: dict[str, Any] = {}  # what the layer said, as long as nobody typed over it
        self.kind = word_choice(KINDS)
        self.layers = {
            "measured layer": LayerChoice(viewer),
            "second plane": LayerChoice(viewer, none_text="in the same layer"),
            "truth layer": LayerChoice(viewer, none_text="needed", accepts=has_pixels),
        }
        self.paths = {
            name: PathField(f"Choose the {name}")
            for name in ("measured folder", "truth folder", "clean folder", "BioSR folder")
        }
        self.paths |= {
            name: PathField(f"Choose the arrays {name}", "Arrays (*.npy *.npz)")
            for name in ("x", "y")
        }
        self.register = QCheckBox()
        self.levels = {"lowest level": whole_number(1, 12), "highest level": whole_number(1, 12)}
        self.levels["highest level"].setValue(12)  # all of them, as in the recipe
        numbers = ("clean pixel_um", *OPTICS, "photons", "strength_rad")
        self.numbers: dict[str, Any] = {
            name: OptionalNumbers(name) if name == "defocus_um" else OptionalNumber(name)
            for name in numbers
        }
        self.presets = PresetChoice(self._shown_values)
        self._fields: dict[str, Any] = {
            **self.layers,
            **self.paths,
            "register": self.register,
            **self.levels,
            PRESET: self.presets,
            **self.numbers,
        }
        self._rows = LabelledRows({"pairs from": self.kind, **self._fields}, HELP)
        self.setLayout(self._rows)
        self.kind.currentIndexChanged.connect(self._on_kind)
        self.presets.changed.connect(self._on_preset)
        self.layers["measured layer"].changed.connect(self._on_measured)
        self.layers["second plane"].changed.connect(self._count_positions)
        for signal in (
            *(self._fields[name].changed for name in (*self.layers, *self.paths)),
            *(box.valueChanged for box in self.levels.values()),
            self.register.toggled,
        ):
            signal.connect(self.changed)
        for name, field in self.numbers.items():
            field.textChanged.connect(partial(self._on_typed, name))
        self._on_kind()

    def set_task(self, task: "Task | None") -> None:
        """Show what this task needs."""
        self._task = task
        self._on_kind()

    @property
    def phase(self) -> bool:
        """Whether the task takes two planes or more."""
        return self._task is not None and self._task.planes > 1

    @property
    def measured(self) -> bool:
        """Whether the pairs were measured, and are not made by simulated optics."""
        return self.kind.currentText() not in (MICROSCOPE, CLEAN)

    def shown(self) -> tuple[str, ...]:
        """Names of the fields that the source and the task need."""
        return tuple(
            name for name in ROWS[self.kind.currentText()] if self.phase or name not in ONLY_PHASE
        )

    def _on_kind(self) -> None:
        names = self.shown()
        for name in self._fields:
            self._rows.show_row(name, name in names)
        # Simulated optics may stay open: they are drawn from the range of the model's training.
        for name, field in self.numbers.items():
            field.set_needed(self.phase and self.measured and name in NEEDED_FOR_PHASE)
        self.changed.emit()

    def _on_measured(self) -> None:
        """Fill in the optics of the layer and remove those of the former layer.

        Values that the user typed stay.
        """
        layer = self.layers["measured layer"].value()
        known = {} if layer is None else known_optics(layer, of_planes=self.phase)
        told, self._told = self._told, {}
        for name in OPTICS:
            if name in known or name in told:  # other fields keep what was typed
                self.numbers[name].set_value(known.get(name))
                self._told[name] = known.get(name)
        self._on_preset()  # the chosen microscope fills what this layer does not say
        self._count_positions()

    def _on_preset(self) -> None:
        told = {name: self.numbers[name].typed for name in self._told}
        fields = {name: self.numbers[name] for name in (*OPTICS, "photons")}
        for name in self.presets.fill(fields, told):
            self._told.pop(name, None)  # else the next layer would empty it
        self.changed.emit()

    def _shown_values(self) -> dict[str, Any]:
        """What is saved as a microscope."""
        return {
            name: value
            for name in self.shown()
            if name in PRESET_VALUES and (value := self.numbers[name].value()) is not None
        }

    def _count_positions(self) -> None:
        """Show one position for each plane of the chosen layers, if their number is known."""
        planes = chosen_planes(
            self.layers["measured layer"].value(), self.layers["second plane"].value()
        )
        if planes is not None:  # else what the user sees stays
            self.numbers["defocus_um"].set_count(planes)

    def _on_typed(self, name: str, *_: str) -> None:  # one field gives its text, several none
        self._told.pop(name, None)
        self.changed.emit()

    def missing(self) -> tuple[str, ...]:
        """What must still be chosen or filled in, by name."""
        needed = ("measured layer", "truth layer", *self.paths)
        return tuple(
            name for name in self.shown() if name in needed and self._fields[name].value() is None
        )

    def value(self) -> "tuple[Source, LayerPairs | None]":
        """The source of a recipe; with the pixels of the layers, where it is layers.

        RequestError, OpticsError and ImageFileError say what is missing or not allowed.
        """
        from napari_cvdm.simulate.ranges import ranges_for
        from napari_cvdm.training.fine_tuning import LayerPairs, Simulated
        from napari_cvdm.training.pairs import Arrays, BioSR, Folders
        from napari_cvdm.training.sources import CleanImages

        if self.missing() or self._task is None:
            raise RequestError(f"Needed before a start: {', '.join(self.missing()) or 'a model'}.")
        kind, register = self.kind.currentText(), self.register.isChecked()
        optics = {name: self.numbers[name].value() for name in OPTICS if name in self.shown()}
        paths = {name: str(path.value()) for name, path in self.paths.items()}
        if kind == LAYERS:
            sharp = read_layer(self.layers["truth layer"].value())
            layers = LayerPairs(measured=self._measured_stack(), truth=sharp)
            # The run saves the layers into two folders, and names them here.
            return Folders(measured="", truth="", register=register, **optics), layers
        if kind == FOLDERS:
            measured, truth = paths["measured folder"], paths["truth folder"]
            return Folders(measured=measured, truth=truth, register=register, **optics), None
        if kind == BIOSR:
            if self.phase:
                raise RequestError(NO_BIOSR)
            levels = self.levels["lowest level"].value(), self.levels["highest level"].value()
            return BioSR(folder=paths["BioSR folder"], levels=levels), None
        if kind == ARRAYS:
            optics.pop("na", None)  # the arrays of a recipe have none
            return Arrays(x=paths["x"], y=paths["y"], register=register, **optics), None
        clean = None
        if kind == CLEAN:
            pixel_um = self.numbers["clean pixel_um"].value()
            clean = CleanImages(folder=paths["clean folder"], pixel_um=pixel_um)
        defocus_um = optics.pop("defocus_um", None)
        # A phase has a strength; clean phase maps bring their own.
        light = [name for name in ("photons", "strength_rad") if name in self.shown()]
        known: dict[str, Any] = {**optics, **{name: self.numbers[name].value() for name in light}}
        ranges = ranges_for(self._task.name, known, defocus_um=defocus_um)
        return Simulated(ranges=ranges, clean=clean), None

    def optics(self) -> dict[str, Any]:
        """Every number of the optics that is filled in, by name; RequestError for other text."""
        return {name: value for name in OPTICS if (value := self.numbers[name].value()) is not None}

    def _measured_stack(self) -> Any:
        stack = read_layer(self.layers["measured layer"].value())
        second = self.layers["second plane"].value()
        if self._task is None or not self.phase:
            return stack
        count = count_planes(self._task.planes, self.numbers["defocus_um"].value())
        return combine_planes(stack, None if second is None else read_layer(second), count=count)
