"""The settings of a reconstruction as a form.

The interface of the form is `value`, `set_value` and `changed`.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_cvdm.core.request import (
    ALIGNMENTS,
    PRECISIONS,
    SAMPLERS,
    ImageStack,
    ReconstructionRequest,
    RequestError,
)
from napari_cvdm.io import combine_planes
from napari_cvdm.widgets.common.background_choice import BackgroundChoice
from napari_cvdm.widgets.common.choice_box import LayerChoice
from napari_cvdm.widgets.common.choices import ModelChoice, card_text, whole_number, word_choice
from napari_cvdm.widgets.common.field_of_view import image_shape
from napari_cvdm.widgets.common.fields import (
    LabelledRows,
    OptionalNumber,
    OptionalNumbers,
    collapsible,
    reading_pane,
    wrapped_label,
)
from napari_cvdm.widgets.common.form_help import HELP
from napari_cvdm.widgets.common.lifetime import when_gone
from napari_cvdm.widgets.common.preferences import PREFERENCES, preferred
from napari_cvdm.widgets.common.psf_field import PsfField
from napari_cvdm.widgets.layers.layer_data import (
    known_optics,
    named_layers,
    plugin_metadata,
    read_layer,
)
from napari_cvdm.widgets.layers.placement import Placement, chosen_planes, stated_planes

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_cvdm.tasks import Task

CARD_LINES = 12
OPTICS = ("pixel_um", "wavelength_um", "defocus_um", "medium_index", "na", "condenser_na")
PHASE_OPTICS = ("defocus_um", "condenser_na")
OTHER_PLANES = "the other planes"
COUNTS = {"samples": (1, 1024), "steps": (1, 1000), "seed": (0, 2**63 - 1), "tile": (16, 65536)}


class ReconstructForm(QWidget):
    """Image, model, optics and sampling, under the names of `ReconstructionRequest`.

    Parameters
    ----------
    viewer : Viewer
        Whose layers are offered.
    """

    changed = Signal()

    def __init__(self, viewer: "Viewer") -> None:
        from napari_cvdm.core.device import available_devices

        super().__init__()
        self._viewer = viewer
        self.image, self.second = (
            LayerChoice(viewer),
            LayerChoice(viewer, none_text="in the same layer"),
        )
        self.model = ModelChoice()
        self.card = reading_pane(CARD_LINES)
        self.about = collapsible(
            "", self.card, "What this model was trained for, its limits and its licence."
        )
        self.keep_samples = QCheckBox()
        self.positions = OptionalNumbers("defocus_um")
        numbers = {name: OptionalNumber(name) for name in OPTICS if name != "defocus_um"}
        self.optics: dict[str, OptionalNumber | OptionalNumbers] = {
            name: numbers.get(name, self.positions) for name in OPTICS
        }
        self.counts = {name: whole_number(*bounds) for name, bounds in COUNTS.items()}
        words = {
            "sampler": SAMPLERS,
            "device": ("auto", *available_devices()),
            "precision": PRECISIONS,
            "align": ALIGNMENTS,
        }
        self.words = {name: word_choice(allowed) for name, allowed in words.items()}
        self.background, self.psf = BackgroundChoice(viewer), PsfField()
        self.field = wrapped_label()
        self._from_layer: dict[str, Any] = {}
        self._watched: Image | None = None
        self._gone = gone = Event()
        when_gone(self, gone.set)
        self._lay_out()
        self._set_defaults()
        self._connect()
        self._on_model()
        self._on_image()

    def _lay_out(self) -> None:
        sampled = {name: self.counts[name] for name in ("samples", "steps")}
        often: dict[str, QWidget] = {
            "image": self.image,
            "image2": self.second,
            "model": self.model,
            **self.optics,
            **sampled,
        }
        seldom: dict[str, QWidget] = {
            "seed": self.counts["seed"],
            **{name: self.words[name] for name in ("sampler", "device", "precision")},
        }
        seldom |= {
            "background": self.background,
            "psf": self.psf,
            "align": self.words["align"],
            "tile": self.counts["tile"],
            "keep_samples": self.keep_samples,
        }
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._often = LabelledRows(often, HELP)
        self._often.insertRow(list(often).index("pixel_um") + 1, self.field)
        self._often.insertRow(list(often).index("model") + 1, self.about)
        layout.addLayout(self._often)
        more, self._seldom = QWidget(), LabelledRows(seldom, HELP)
        more.setLayout(self._seldom)
        self.more = collapsible("More settings", more, "Settings that seldom need a change.")
        layout.addWidget(self.more)
        layout.addStretch(1)

    def _set_defaults(self) -> None:
        defaults = {entry.name: entry.default for entry in fields(ReconstructionRequest)}
        for name, box in self.counts.items():
            box.setValue(preferred(name) if name in PREFERENCES else defaults[name])
        for name in ("device", "precision"):
            # A device that this machine lacks changes nothing.
            self.words[name].setCurrentText(preferred(name))

    def _connect(self) -> None:
        self.image.changed.connect(self._on_image)
        self.second.changed.connect(self._on_second)
        for chosen in (self.background, self.psf):
            chosen.changed.connect(self.changed)
        self.model.changed.connect(self._on_model)
        for name, field in self.optics.items():
            field.textChanged.connect(partial(self._on_typed, name))
        for signal in (
            *(box.valueChanged for box in self.counts.values()),
            *(choice.currentIndexChanged for choice in self.words.values()),
        ):
            signal.connect(lambda _: self.changed.emit())
        self.changed.connect(self._say_field)

    @property
    def task(self) -> "Task | None":
        """The job of the chosen model."""
        from napari_cvdm.reconstruction.plan import task_of

        card = self.model.card()
        return None if card is None else task_of(card)

    @property
    def two_planes(self) -> bool:
        """Whether the chosen model takes two planes or more."""
        return self.task is not None and self.task.planes > 1

    @property
    def deconvolved(self) -> bool:
        """Whether the chosen model sees the image deconvolved."""
        return bool(getattr(self.task, "fine_channels", 0))

    @property
    def planes(self) -> int | None:
        """Number of planes of the chosen layers; None if it is not known."""
        return chosen_planes(self.image.value(), self.second.value())

    def _on_second(self) -> None:
        self._count_positions()
        self.changed.emit()

    def _count_positions(self) -> None:
        """Show one position for each plane of the chosen layers.

        If their number is not known, the positions that were typed stay.
        """
        if self.planes is not None or not any(self.positions.typed):
            self.positions.set_count(self.planes or 2)

    def _on_model(self) -> None:
        task, card = self.task, self.model.card()
        self.about.setText(
            "No model is installed. Choose a folder that holds one."
            if card is None
            else f"About {card.name}"
        )
        self.card.setPlainText("" if card is None else card_text(card))
        needed = () if task is None else task.needed_optics
        for name, field in self.optics.items():
            field.set_needed(name in needed)
        for name in ("image2", *PHASE_OPTICS):
            self._often.show_row(name, self.two_planes)
        self._seldom.show_row("align", self.two_planes)
        self._seldom.show_row("psf", self.deconvolved)
        self._choose_second()
        self.changed.emit()

    def _on_image(self, *_: object) -> None:
        """Fill in the optics of the layer and remove those of the former layer.

        Values that the user typed stay.
        """
        if self._gone.is_set():  # a layer outlives a dock that was removed
            return
        layer = self.image.value()
        self._watch(layer)
        known = {} if layer is None else known_optics(layer)
        for name, field in self.optics.items():
            if name in known or (
                name in self._from_layer and field.typed == self._from_layer[name]
            ):
                with signals_blocked(field):
                    field.set_value(known.get(name))
        self._count_positions()
        self._from_layer = {name: self.optics[name].typed for name in known if name in self.optics}
        self._choose_second()
        self.changed.emit()

    def _say_field(self) -> None:
        """How large the field is in the sample: who forgot the binning sees it."""
        from napari_cvdm.checks.training_range import field_text

        layer, pixel_um = self.image.value(), None
        with suppress(RequestError):  # said in the message line
            pixel_um = self.settings()["pixel_um"]
        self.field.setText(
            field_text(image_shape(layer), pixel_um).capitalize()
            if layer is not None and pixel_um
            else ""
        )

    def _watch(self, layer: "Image | None") -> None:
        """Watch the chosen layer for a later change of its pixel size.

        Without it, a run with the former pixel size would be wrong unnoticed.
        """
        for one, act in ((self._watched, "disconnect"), (layer, "connect")):
            if one is not None:
                for change in ("scale", "units"):
                    getattr(getattr(one.events, change), act)(self._on_image)
        self._watched = layer

    def _on_typed(self, name: str, *_: str) -> None:
        """What the user types is no longer what the layer told, even if it is the same number."""
        self._from_layer.pop(name, None)
        self.changed.emit()

    def _choose_second(self) -> None:
        """Guess the other plane: the only other layer of the same shape.

        Nothing is guessed if the image holds all planes.
        """
        image = self.image.value()
        if image is None or self.second.value() is not None or stated_planes(image) is not None:
            return
        others = [
            layer
            for layer in self.second.layers()
            if layer is not image and layer.data.shape == image.data.shape
        ]
        if len(others) == 1:
            self.second.set_value(others[0])

    def missing(self) -> tuple[str, ...]:
        """What must still be chosen or filled in before a run, by name."""
        task, image = self.task, self.image.value()
        if image is None or task is None:
            return tuple(
                name
                for name, found in (("an image layer", image), ("a model", task))
                if found is None
            )
        unknown = tuple(name for name in task.needed_optics if not any(self.optics[name].typed))
        lonely = self.two_planes and self.planes is None
        return (OTHER_PLANES, *unknown) if lonely else unknown

    def settings(self) -> dict[str, Any]:
        """Everything but the image, by request name.

        Raises
        ------
        RequestError
            Text that is not a number.
        """
        optics = {
            name: field.value()
            for name, field in self.optics.items()
            if self.two_planes or name not in PHASE_OPTICS
        }
        counts = {name: box.value() for name, box in self.counts.items()}
        others = {
            "model": self.model.value(),
            "background": self.background.background(),
            "keep_samples": self.keep_samples.isChecked(),
        }
        others["psf"] = self.psf.measured() if self.deconvolved else None
        return {
            **others,
            **optics,
            **counts,
            **{name: box.currentText() for name, box in self.words.items()},
        }

    def typed_settings(self) -> dict[str, Any]:
        """The same settings without the optics of the chosen layer.

        These optics belong to that layer alone.

        Raises
        ------
        RequestError
            Text that is not a number.
        """
        return {**self.settings(), **dict.fromkeys(self._from_layer)}

    def warnings(self) -> tuple[str, ...]:
        """Sentences about settings outside the trained range, without reading a pixel.

        Raises
        ------
        RequestError, OpticsError
            Settings that are not allowed.
        """
        from napari_cvdm.checks.training_range import optics_warnings

        card = self.model.card()
        blank = ImageStack(array=np.zeros((1, 1)), axes="YX")
        return (
            ()
            if card is None
            else optics_warnings(ReconstructionRequest(image=blank, **self.settings()), card)
        )

    def value(self) -> ReconstructionRequest:
        """The request.

        Its pixels are those of the layer, not a copy. The fingerprint reveals pixels that are
        overwritten during a run.

        Raises
        ------
        RequestError, OpticsError, ImageFileError
            What is missing or not allowed.
        """
        missing, task, image = self.missing(), self.task, self.image.value()
        if missing or task is None or image is None:
            raise RequestError(f"Needed before a run: {', '.join(missing)}.")
        stack = read_layer(image)
        settings = self.settings()
        if self.two_planes:
            second = self.second.value()
            stack = combine_planes(
                stack,
                None if second is None else read_layer(second),
                count=len(settings["defocus_um"]),
            )
        return ReconstructionRequest(image=stack, **settings)

    def files(self) -> dict[str, str]:
        """Files that the chosen layers were read from, by option: image, image2, background, psf.

        The result is empty unless all of them are known.
        """
        second = self.second.value() if self.two_planes else None
        layers: dict[str, Image | None] = {
            "image": self.image.value(),
            "image2": second,
            "background": self.background.layer,
        }
        found = {
            role: layer.source.path or plugin_metadata(layer).get("file")
            for role, layer in layers.items()
            if layer is not None
        }
        found |= {"psf": self.psf.value()} if self.psf.value() and self.deconvolved else {}
        return (
            {role: str(path) for role, path in found.items() if path} if all(found.values()) else {}
        )

    def placement(self) -> Placement:
        """Where the chosen image lies now, and which files it came from."""
        image: Image | None = self.image.value()
        if image is None:
            raise RequestError("Needed before a run: an image layer.")
        return replace(Placement.of(image), files=self.files(), planes=self.planes or 1)

    def set_value(self, request: ReconstructionRequest) -> None:
        """Show the settings of a request; its image is chosen if a layer has its name.

        Raises
        ------
        CheckpointError
            The request's model is not there.
        """
        self.set_settings(
            {entry.name: getattr(request, entry.name) for entry in fields(request)},
            request.image.source,
        )

    def set_settings(self, settings: Mapping[str, Any], source: str) -> tuple[str, ...]:
        """Show settings by request name and choose the layers that `source` names.

        The settings are those of a result's provenance.

        Returns
        -------
        tuple of str
            Settings that the form cannot show, in words. A run would give other pixels.

        Raises
        ------
        CheckpointError
            The model is not there.
        """
        self.model.set_value(settings["model"])
        found = named_layers(self.image.layers(), source)
        if found is not None:
            self.image.set_value(found[0])
            self.second.set_value(found[1])
        for name, field in self.optics.items():
            field.set_value(settings[name])
        for name, box in self.counts.items():
            box.setValue(settings[name])
        for name, choice in self.words.items():
            choice.setCurrentText(settings[name])
        self.keep_samples.setChecked(settings["keep_samples"])
        lost = {
            f"the image {source}": found is None,
            "the region": settings.get("region") is not None,
        }
        lost["the measured PSF"] = not self.psf.show_psf(settings["psf"])
        lost["the background image"] = not self.background.show_background(settings["background"])
        return tuple(name for name, is_lost in lost.items() if is_lost)
