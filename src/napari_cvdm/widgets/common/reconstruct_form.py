"""The settings of a reconstruction as a form: `value`, `set_value` and `changed`."""

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
from napari_cvdm.widgets.common.choices import (
    BackgroundChoice,
    LayerChoice,
    ModelChoice,
    PresetChoice,
    card_text,
)
from napari_cvdm.widgets.common.fields import (
    LabelledRows,
    OptionalNumber,
    OptionalNumbers,
    PsfField,
    collapsible,
    fill_layout,
    in_words,
    label_of,
    make_button,
    reading_pane,
    whole_number,
    word_choice,
    wrapped_label,
)
from napari_cvdm.widgets.common.preferences import PREFERENCES, PRESET_HELP, preferred
from napari_cvdm.widgets.common.worker import Follower, when_gone
from napari_cvdm.widgets.layers.frames import image_shape
from napari_cvdm.widgets.layers.layer_data import (
    header_of,
    holds_planes,
    known_optics,
    layer_pixel_um,
    named_layers,
    plugin_metadata,
    read_layer,
)
from napari_cvdm.widgets.layers.placement import Placement, chosen_planes, stated_planes

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_cvdm.tasks import Task


HELP = {
    "image": (
        "The measured image: a layer of the viewer. Time, z and channel axes are looped over.\n"
        "The planes of a phase may also be one layer: with an axis of length 2, or with an axis "
        "named plane or z."
    ),
    "image2": (
        "The image at the other focus: same field, same camera.\n"
        "More than two planes must be one layer."
    ),
    "model": "What to reconstruct, and with which trained network.",
    "microscope": PRESET_HELP,
    "pixel_um": (
        "Pixel size in the sample [µm]: camera pixel × binning / magnification. 65 nm is 0.065."
    ),
    "wavelength_um": (
        "Vacuum wavelength [µm]: of the illumination for phase, of the emission for fluorescence. "
        "520 nm is 0.52."
    ),
    "defocus_um": (
        "Position of each plane [µm], in their order, with sign:\n"
        "positive is away from the light source, toward the objective.\n"
        "0 and 2.5 (one plane in focus) works, too.\n"
        "Several numbers in one field, with spaces between them, are the positions of as many "
        "planes."
    ),
    "medium_index": (
        "Refractive index of the medium between the planes: air 1.0, water 1.333, oil 1.518."
    ),
    "na": (
        "Numerical aperture of the detection.\n"
        "A fluorescence image is deconvolved with it; without it, its cut-off frequency is "
        "estimated."
    ),
    "condenser_na": (
        "Numerical aperture of the illumination, at most the refractive index.\n"
        "Empty: the light is taken for coherent."
    ),
    "samples": (
        "Draws from the posterior. Their mean is the reconstruction, their variance the spread;\n"
        "one draw has no spread. 8 is a good start, 16 for reports."
    ),
    "steps": (
        "Evaluations of the network for each sample. 6 are enough for sde-2m;\n"
        "with 1 all samples are alike, and there is no spread."
    ),
    "seed": "Chooses the noise. The same seed gives the same pixels, in one precision.",
    "sampler": (
        "How the diffusion is reversed: sde-2m is the most exact for few steps,\n"
        "ancestral (the paper's) wants 200."
    ),
    "device": "Where to compute; auto takes the fastest that is there.",
    "precision": (
        "Of the network. bf16 moves the samples by a few per cent of the spread;\n"
        "it is faster on most GPUs and on some processors.\n"
        "auto takes bf16 where the device has arithmetic for it; the result says which it was."
    ),
    "tile": "Side of a square tile [px]. It changes memory and time; the pixels only by rounding.",
    "keep_samples": (
        "Also show every sample, along an axis of its own: for the histogram at a pixel and the "
        "intervals of Measure and Profile.\n"
        "It takes as much memory as the samples need."
    ),
    "align": (
        "auto: look for a shift between the outermost planes and report it. Nothing is moved."
    ),
    "psf": (
        "The image of a bead, one plane or a stack: it decides over NA and wavelength.\n"
        "The file must say its pixel size."
    ),
    "background": (
        "auto: estimate the blank-field intensity (phase) or the dark level (fluorescence).\n"
        "none: it is already divided out (phase) or zero (fluorescence).\n"
        "A layer: an image of an empty, lit field (phase) or a dark image of the camera "
        "(fluorescence), of the same size.\n"
        "auto is a guess: counts and phases may be quantified only where it was not needed."
    ),
}


CARD_LINES = 12
SAME_PIXEL = 1e-6  # relative: pixel sizes that differ by less are the same
OPTICS = ("pixel_um", "wavelength_um", "defocus_um", "medium_index", "na", "condenser_na")
ORIGIN = "From the layer: "
PHASE_OPTICS = ("defocus_um", "condenser_na")
FLUORESCENCE_LABELS = {
    "medium_index": "Immersion index",
    "wavelength_um": "Emission wavelength [µm]",
}
OTHER_PLANES = "the other planes"
# Lowest and highest number that a request takes, too.
COUNTS = {"samples": (1, 1024), "steps": (1, 1000), "seed": (0, 2**63 - 1), "tile": (16, 65536)}


class ReconstructForm(QWidget):
    """Image, model, optics and sampling, under the names of `ReconstructionRequest`."""

    changed = Signal()

    def __init__(self, viewer: "Viewer") -> None:
        from napari_cvdm.core.device import available_devices

        super().__init__()
        self._viewer = viewer
        self.image = LayerChoice(viewer)
        self.second = LayerChoice(viewer, none_text="in the same layer")
        self.model = ModelChoice()
        self.card = reading_pane(CARD_LINES)
        self.about = collapsible(
            "", self.card, "What this model was trained for, its limits and its licence."
        )
        self.keep_samples = QCheckBox()
        self.positions = OptionalNumbers("defocus_um")
        self.optics: dict[str, OptionalNumber | OptionalNumbers] = {
            name: self.positions if name == "defocus_um" else OptionalNumber(name)
            for name in OPTICS
        }
        self.counts = {name: whole_number(*bounds) for name, bounds in COUNTS.items()}
        self.words = {
            "sampler": word_choice(SAMPLERS),
            "device": word_choice(("auto", *available_devices())),
            "precision": word_choice(PRECISIONS),
            "align": word_choice(ALIGNMENTS),
        }
        self.background, self.psf = BackgroundChoice(viewer), PsfField()
        self.field = wrapped_label()
        self.scale = make_button(
            "Scale the layer",
            "Give the image layer this pixel size, too. The scale bar is then right for it as for "
            "the result.",
            self.scale_layers,
        )
        self.presets = PresetChoice(self.optics_values)
        self._from_layer: dict[str, Any] = {}
        self._image_events = Follower(self, self._on_image, ("scale", "units"))
        # The boxes of layers may emit when Qt has destroyed the form already.
        self._gone = gone = Event()
        when_gone(self, gone.set)
        self._lay_out()
        # Defaults before connections: they are no change by the user.
        self._set_defaults()
        self._connect()
        self._on_model()
        self._on_image()

    def _on_listed(self) -> None:
        """A layer that was opened later may be the second plane, and tell the task."""
        if not self._gone.is_set():
            self._choose_model()
            self._choose_second()

    def _choose_model(self) -> None:
        """Choose the model that the image calls for, unless the user has chosen one."""
        from napari_cvdm.reconstruction.plan import task_of

        layer = self.image.value()
        # Our samples name their model; other layers tell at most whether they hold planes.
        planes = None if layer is None else holds_planes(layer, self.image.layers())
        if layer is not None and (planes is not None or "model" in plugin_metadata(layer)):
            self.model.suggest(
                lambda card: planes is None or (task_of(card).planes > 1) is planes,
                str(plugin_metadata(layer).get("model", "")),
            )

    def _lay_out(self) -> None:
        often: dict[str, QWidget] = {
            "image": self.image,
            "image2": self.second,
            "model": self.model,
            "microscope": self.presets,
            **self.optics,
            **{name: self.counts[name] for name in ("samples", "steps")},
        }
        seldom: dict[str, QWidget] = {
            "seed": self.counts["seed"],
            **{name: self.words[name] for name in ("sampler", "device", "precision")},
            "background": self.background,
            "psf": self.psf,
            "align": self.words["align"],
            "tile": self.counts["tile"],
            "keep_samples": self.keep_samples,
        }
        self._often = LabelledRows(often, HELP)
        self._fields_line = QWidget()
        fill_layout(QVBoxLayout(self._fields_line), self.field, self.scale)
        # From below, so that the index of the upper row still counts.
        self._often.insertRow(list(often).index("pixel_um") + 1, self._fields_line)
        self._often.insertRow(list(often).index("model") + 1, self.about)
        more, self._seldom = QWidget(), LabelledRows(seldom, HELP)
        more.setLayout(self._seldom)
        self.more = collapsible("More settings", more, "Settings that seldom need a change.")
        fill_layout(QVBoxLayout(self), self._often, self.more).addStretch(1)

    def _set_defaults(self) -> None:
        defaults = {entry.name: entry.default for entry in fields(ReconstructionRequest)}
        for name, box in self.counts.items():
            box.setValue(preferred(name) if name in PREFERENCES else defaults[name])
        for name in ("device", "precision"):
            # A device that this machine lacks changes nothing.
            self.words[name].setCurrentText(preferred(name))

    def _connect(self) -> None:
        self.image.changed.connect(self._on_image)
        self.presets.changed.connect(self._on_preset)
        self.second.changed.connect(self._count_positions)
        self.second.changed.connect(self.changed)
        for box in (self.image, self.second):
            box.listed.connect(self._on_listed)
        self.model.changed.connect(self._on_model)
        for name, field in self.optics.items():
            field.textChanged.connect(partial(self._on_typed, name))
        for chosen in (self.background, self.psf):
            chosen.changed.connect(self.changed)
        for box in self.counts.values():
            box.valueChanged.connect(lambda _: self.changed.emit())
        for choice in self.words.values():
            choice.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.keep_samples.toggled.connect(lambda _: self.changed.emit())
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

    def _count_positions(self) -> None:
        """One for each plane; the typed positions stay if the number of planes is not known."""
        if self.planes is not None or not any(self.positions.typed):
            self.positions.set_count(self.planes or 2)

    def _on_model(self) -> None:
        task, card = self.task, self.model.card()
        none = "No model is installed. Choose a folder that holds one."
        self.about.setText(none if card is None else f"About {card.name}")
        self.card.setPlainText("" if card is None else card_text(card))
        needed = () if task is None else task.needed_optics
        for name, field in self.optics.items():
            field.set_needed(name in needed)
        for name in ("image2", *PHASE_OPTICS):
            self._often.show_row(name, self.two_planes)
        fluorescence = task is not None and not self.two_planes
        for name, label in FLUORESCENCE_LABELS.items():
            self._often.set_label(name, label if fluorescence else label_of(name))
        self._seldom.show_row("align", self.two_planes)
        self._seldom.show_row("psf", self.deconvolved)
        # Another model takes other optics from the layer, but never what was typed.
        self._fill_optics(typed_stays=True)
        self._choose_second()
        self.changed.emit()

    def _on_image(self, *_: object) -> None:
        """Fill in what the layer states.

        A later change of the layer's pixel size must show: a run with the former one would be wrong
        unnoticed.
        """
        self._image_events.follow(self.image.value())
        self._choose_model()
        self._fill_optics()
        self._count_positions()
        self._choose_second()
        self.changed.emit()

    def _fill_optics(self, *, typed_stays: bool = False) -> None:
        """Fill in the optics of the layer, and remove those of the former layer but not typed ones.

        What a file states of immersion and emission counts for fluorescence only.
        """
        layer = self.image.value()
        known = {} if layer is None else known_optics(layer, of_planes=self.two_planes)
        header = None if layer is None else header_of(layer, of_planes=self.two_planes)
        for name, field in self.optics.items():
            told = field.typed == self._from_layer.get(name)
            if told or (name in known and not (typed_stays and any(field.typed))):
                # Else `_on_typed` would take the value for a typed one.
                with signals_blocked(field):
                    field.set_value(known.get(name))
                self._from_layer[name] = field.typed
            origin = "" if header is None else header.origin(name)
            field.setToolTip(f"{HELP[name]}\n{ORIGIN}{origin}." if origin else HELP[name])
        self._from_layer = {name: text for name, text in self._from_layer.items() if name in known}
        self._fill_preset()

    def _say_field(self) -> None:
        """How large the field is in the sample: who forgot the binning sees it."""
        from napari_cvdm.checks.training_range import field_text

        layer, pixel_um, other = self.image.value(), None, None
        with suppress(RequestError):  # said in the message line
            pixel_um, other = self.settings()["pixel_um"], self._other_pixel()
        self.scale.setVisible(other is not None)
        if layer is None:
            text = ""
        elif pixel_um:
            text = field_text(image_shape(layer), pixel_um)
        else:  # such as pixels that are not square
            text = header_of(layer).origin("pixel_um")
        self.field.setText(in_words(text[:1].upper() + text[1:]))
        self._fields_line.setVisible(bool(text) or other is not None)

    def _on_typed(self, name: str, *_: str) -> None:
        """What the user types is no longer what the layer told, even if it is the same number."""
        self._from_layer.pop(name, None)
        self.changed.emit()

    def _shown_optics(self) -> dict[str, Any]:
        # A field that the chosen model hides keeps its text, which must not count.
        return {
            name: field.value()
            for name, field in self.optics.items()
            if self.two_planes or name not in PHASE_OPTICS
        }

    def optics_values(self) -> dict[str, Any]:
        """The optics that the form shows, by request name; what is saved as a microscope."""
        return {name: value for name, value in self._shown_optics().items() if value is not None}

    def _on_preset(self) -> None:
        self._fill_preset()  # what an earlier one filled goes, so that the layer's values come back
        self._fill_optics(typed_stays=True)
        self.changed.emit()

    def _fill_preset(self) -> None:
        """Fill in the chosen microscope where nothing was typed."""
        for name in self.presets.fill(self.optics, self._from_layer):
            self._from_layer.pop(name, None)

    def _choose_second(self) -> None:
        """Guess the other plane: the only other layer of this shape, unless the image has all."""
        image = self.image.value()
        if image is None or self.second.value() is not None or stated_planes(image) is not None:
            return
        alike = [one for one in self.second.layers() if one.data.shape == image.data.shape]
        others = [one for one in alike if one is not image]
        if len(others) == 1:
            self.second.set_value(others[0])

    def missing(self) -> tuple[str, ...]:
        """What must still be chosen or filled in before a run, by name."""
        task = self.task
        chosen = {"an image layer": self.image.value(), "a model": task}
        if task is None or chosen["an image layer"] is None:
            return tuple(name for name, found in chosen.items() if found is None)
        unknown = tuple(name for name in task.needed_optics if not any(self.optics[name].typed))
        return (OTHER_PLANES, *unknown) if self.two_planes and self.planes is None else unknown

    def settings(self) -> dict[str, Any]:
        """Everything but the image, by request name.

        Raises
        ------
        RequestError
            Text that is not a number.
        """
        return {
            **self._shown_optics(),
            "model": self.model.value(),
            "background": self.background.background(),
            "keep_samples": self.keep_samples.isChecked(),
            "psf": self.psf.measured() if self.deconvolved else None,
            **{name: box.value() for name, box in self.counts.items()},
            **{name: box.currentText() for name, box in self.words.items()},
        }

    def typed_settings(self) -> dict[str, Any]:
        """The same settings without the optics of the chosen layer, which belong to it alone."""
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
        if card is None:
            return ()
        # A request needs an image, but its pixels tell nothing of the optics.
        blank = ImageStack(array=np.zeros((1, 1)), axes="YX")
        return optics_warnings(ReconstructionRequest(image=blank, **self.settings()), card)

    def value(self) -> ReconstructionRequest:
        """The request.

        Its pixels are those of the layer, not a copy. The fingerprint reveals pixels that are
        overwritten during a run.

        Raises
        ------
        RequestError, OpticsError, ImageFileError
            What is missing or not allowed.
        """
        missing = self.missing()
        if missing:
            raise RequestError(f"Needed before a run: {', '.join(missing)}.")
        stack, settings = read_layer(self.image.value()), self.settings()
        # Of a phase the positions are typed: `missing` has looked.
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
        layers: dict[str, Image | None] = {
            "image": self.image.value(),
            "image2": self.second.value() if self.two_planes else None,
            "background": self.background.layer,
        }
        found = {
            role: layer.source.path or plugin_metadata(layer).get("file")
            for role, layer in layers.items()
            if layer is not None
        }
        if self.psf.value() and self.deconvolved:
            found["psf"] = self.psf.value()
        # A command with some of the files alone would make other pixels.
        return {role: str(path) for role, path in found.items()} if all(found.values()) else {}

    def placement(self) -> Placement:
        """Where the chosen image lies now, and which files it came from.

        A pixel size that was typed counts, so that the scale bar of the result is right.
        """
        image: Image | None = self.image.value()
        if image is None:
            raise RequestError("Needed before a run: an image layer.")
        place = Placement.of(image).with_pixel(self._other_pixel())
        return replace(place, files=self.files(), planes=self.planes or 1)

    def _other_pixel(self) -> float | None:
        """The pixel size of the form where the image has another one, or none."""
        image, pixel_um = self.image.value(), self.optics["pixel_um"].value()
        if image is None or not isinstance(pixel_um, float) or not 0 < pixel_um < np.inf:
            return None
        known = layer_pixel_um(image)
        same = known is not None and abs(pixel_um / known - 1) < SAME_PIXEL
        return None if same else pixel_um

    def scale_layers(self) -> None:
        """Give the chosen layers the pixel size of the form, so that they lie as the result does.

        Raises
        ------
        RequestError
            Text that is not a number.
        """
        # Asked for once: each change of a layer fills in the form anew.
        pixel_um = self._other_pixel()
        for layer in (self.image.value(), self.second.value() if self.two_planes else None):
            if layer is not None:
                place = Placement.of(layer).with_pixel(pixel_um).keywords()
                for name in ("units", "translate", "scale"):
                    setattr(layer, name, place[name])
        self.changed.emit()

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
        # Model and layers first: both fill in optics, which the settings then overwrite.
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
            "the measured PSF": not self.psf.show_psf(settings["psf"]),
            "the background image": not self.background.show_background(settings["background"]),
        }
        return tuple(name for name, is_lost in lost.items() if is_lost)
