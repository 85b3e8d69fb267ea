"""Boxes that offer what a viewer holds at the moment, and the models that are there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtGui import QFocusEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QInputDialog,
    QMenu,
    QToolButton,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_cvdm.core.request import RequestError
from napari_cvdm.io import sha256_of
from napari_cvdm.widgets.common.fields import browse_button, fill_layout, limit_width
from napari_cvdm.widgets.common.preferences import (
    PRESET_HELP,
    own_models,
    preferred,
    read_presets,
    remember,
    save_preset,
    write_presets,
)
from napari_cvdm.widgets.common.worker import listen, when_gone
from napari_cvdm.widgets.layers.layer_data import is_measurement, read_layer
from napari_cvdm.widgets.layers.placement import MOST_PLANES
from napari_cvdm.widgets.layers.result_layers import groups_of

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_cvdm.models.checkpoint import ModelCard
    from napari_cvdm.tasks.task import Background

WORDS = ("auto", "none")
NO_PRESET = "none"
# Larger layers are not read for a comparison: the window would stand still meanwhile.
MOST_PIXELS = 1 << 25


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceItem:
    """One thing to choose, and the text that is shown for it."""

    text: str
    key: Any  # by which the same thing is known again when its text or value changes
    value: Any
    preferred: bool = False  # chosen when nothing was, or when what was chosen is gone


class ChoiceBox(QComboBox):
    """What can be chosen among the layers of a viewer, kept up to date.

    `entries` lists what can be chosen now. `changed` tells that something else is chosen, `listed`
    that the choices were listed again.
    """

    changed = Signal()
    listed = Signal()

    def __init__(self, viewer: "Viewer", entries: Callable[[], Sequence[ChoiceItem]]) -> None:
        super().__init__()
        limit_width(self)
        self._listed = entries
        self._entries: Sequence[ChoiceItem] = ()
        self._gone = gone = Event()
        when_gone(self, gone.set)
        for event in ("inserted", "removed", "reordered", "renamed"):
            listen(self, getattr(viewer.layers.events, event), self.refresh)
        self.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.refresh()

    def refresh(self) -> None:
        """List the choices again; the chosen one stays chosen while it is there.

        `changed` is emitted when it is no longer the same.
        """
        if not self._gone.is_set():  # the viewer outlives a dock that was removed
            self._list(self._chosen())

    def choose_preferred(self) -> None:
        """Forget what was chosen, and choose what is preferred now, or the first."""
        self._list(None)

    def _list(self, kept: ChoiceItem | None) -> None:
        before = self.value()
        self._entries = self._listed()
        numbered = list(enumerate(self._entries))
        same = [number for number, entry in numbered if kept is not None and entry.key == kept.key]
        preferred = [number for number, entry in numbered if entry.preferred]
        # While it is empty nothing is chosen: who listens must not hear of that.
        with signals_blocked(self):
            self.clear()
            self.addItems([entry.text for entry in self._entries])
            self.setCurrentIndex((same or preferred or [0 if self._entries else -1])[0])
        if self.value() != before:
            self.changed.emit()
        self.listed.emit()

    def _chosen(self) -> ChoiceItem | None:
        index = self.currentIndex()
        return self._entries[index] if 0 <= index < len(self._entries) else None

    def value(self) -> Any:
        """What is chosen; None without anything."""
        chosen = self._chosen()
        return None if chosen is None else chosen.value

    def set_value(self, key: Any) -> None:
        """Choose by key; one that is not listed changes nothing."""
        keys = [entry.key for entry in self._entries]
        if key in keys:
            self.setCurrentIndex(keys.index(key))


class ResultChoice(ChoiceBox):
    """The results in a viewer, each a `ResultGroup`; the newest is preferred."""

    def __init__(self, viewer: "Viewer") -> None:
        def entries() -> list[ChoiceItem]:
            groups = groups_of(viewer.layers)
            # A group is made anew at each call, so that only its name can be the key.
            return [
                ChoiceItem(text=one.name, key=one.name, value=one, preferred=one is groups[-1])
                for one in groups
            ]

        super().__init__(viewer, entries)


class LayerChoice(ChoiceBox):
    """Layers of a viewer that are accepted. The active one is preferred, else the topmost.

    With a `none_text` the first entry is for no layer, and is preferred.
    """

    def __init__(
        self,
        viewer: "Viewer",
        none_text: str | None = None,
        accepts: Callable[[Any], bool] = is_measurement,
    ) -> None:
        def entries() -> list[ChoiceItem]:
            offered = [layer for layer in viewer.layers if accepts(layer)]
            active = viewer.layers.selection.active
            best = active if active in offered else offered[-1] if offered else None
            items = [
                ChoiceItem(text=one.name, key=one, value=one, preferred=one is best)
                for one in offered
            ]
            if none_text is not None:
                items.insert(0, ChoiceItem(text=none_text, key=None, value=None, preferred=True))
            return items

        super().__init__(viewer, entries)

    def layers(self) -> list[Any]:
        """Every layer that is offered."""
        return [entry.value for entry in self._entries if entry.value is not None]


class BackgroundChoice(ChoiceBox):
    """What stands for the empty field: ``auto``, ``none``, or a measured layer.

    The layer is the dark image of a camera (fluorescence) or a blank field (phase).
    """

    def __init__(self, viewer: "Viewer") -> None:
        def entries() -> list[ChoiceItem]:
            layers = [layer for layer in viewer.layers if is_measurement(layer)]
            return [
                *(ChoiceItem(text=word, key=word, value=word) for word in WORDS),
                *(ChoiceItem(text=layer.name, key=layer, value=layer) for layer in layers),
            ]

        super().__init__(viewer, entries)
        self._lazy: tuple[Any, np.ndarray] | None = None

    @property
    def layer(self) -> "Image | None":
        """The chosen layer; None where a word is chosen."""
        chosen: str | Image = self.value()
        return None if isinstance(chosen, str) else chosen

    def background(self) -> "Background":
        """What a request takes: the word, or the pixels (Y, X) or (2, Y, X) of the layer.

        Raises
        ------
        RequestError, ImageFileError
            Pixels of a type that cannot be used.
        """
        layer = self.layer
        if layer is None:
            return self.value()
        if isinstance(layer.data, np.ndarray):
            return np.asarray(read_layer(layer).array)
        # The array stays the same as long as a lazy layer shows the same data. Otherwise the form
        # would report a change.
        if self._lazy is None or self._lazy[0] is not layer.data:
            self._lazy = layer.data, np.asarray(read_layer(layer).array)
        return self._lazy[1]

    def show_background(self, wanted: "Background") -> bool:
        """Choose a word or a layer, and return whether it is there.

        The layer is the one with these pixels, or with the fingerprint that a result's settings
        give. If there is none, ``auto`` is chosen.
        """
        known = wanted if isinstance(wanted, str) else sha256_of(wanted)
        self.set_value(known if known in WORDS else WORDS[0])
        if known in WORDS:
            return True
        known = known.removeprefix("image sha256:")
        for entry in self._entries:
            if entry.key not in WORDS and _shows(entry.value, known):
                self.set_value(entry.key)
                return True
        return False


def _shows(layer: "Image", fingerprint: str) -> bool:
    """Whether a layer has these pixels; False for too many planes or too large a layer."""
    shape = tuple(layer.data.shape)
    # In float, which the size of a huge lazy layer cannot overflow.
    if (
        not 2 <= len(shape) <= 3
        or (len(shape) == 3 and shape[0] > MOST_PLANES)
        or np.prod(shape, dtype=float) > MOST_PIXELS
    ):
        return False
    try:
        return sha256_of(np.asarray(read_layer(layer).array)) == fingerprint
    except ValueError:  # of a type that is no background
        return False


class OpenedBox(QComboBox):
    """A box that tells when it is about to be looked into."""

    opening = Signal()

    def showPopup(self) -> None:
        """Tell, then open."""
        self.opening.emit()
        super().showPopup()

    def focusInEvent(self, event: QFocusEvent | None) -> None:
        """Tell: keys choose without opening."""
        self.opening.emit()
        super().focusInEvent(event)


class ModelChoice(QWidget):
    """Shipped models, the user's own, and any checkpoint folder.

    The chosen model is a name or a path, as in `ReconstructionRequest`. The widget reads its card,
    but not its weights. It begins with the model that the user chose last.

    Attributes
    ----------
    by_hand : bool
        Whether the model was chosen, and not only suggested.
    """

    changed = Signal()
    refused = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._cards: dict[str, ModelCard] = {}
        self.by_hand = False
        self._box = OpenedBox()
        limit_width(self._box)
        self._folder = browse_button(
            self,
            "Use a model from a folder with card.json and model.safetensors. Nothing in it is "
            "executed.",
        )
        fill_layout(QHBoxLayout(self), (self._box, 1), self._folder)
        self.setFocusProxy(self._box)
        self.refresh()
        self.suggest()
        self._box.opening.connect(self.refresh)
        self._box.currentIndexChanged.connect(self._on_chosen)
        # Qt emits this where the user chooses, but not where a program does.
        self._box.activated.connect(self._on_picked)
        self._folder.clicked.connect(self._ask_folder)
        self._on_chosen()

    def refresh(self) -> None:
        """Offer new models, trained or added by hand. The chosen model stays chosen."""
        from napari_cvdm.models.registry import models_in, shipped_models

        for model, card in (*shipped_models(), *models_in(own_models())):
            if model not in self._cards:
                self._add(model, card)

    def _add(self, model: str, card: "ModelCard") -> None:
        self._cards[model] = card
        self._box.addItem(card.name, model)

    def suggest(
        self, fits: "Callable[[ModelCard], bool]" = lambda card: True, named: str = ""
    ) -> None:
        """Choose the model `named`, else one that fits, unless the user has chosen one.

        Of those that fit, the one that the user chose last comes first, then the present one.
        """
        if self.by_hand:
            return
        fitting = [model for model, card in self._cards.items() if fits(card)]
        wanted = [named] if named in self._cards else []
        wanted += [one for one in (preferred("model"), self.value(), *fitting) if one in fitting]
        if wanted:
            self._box.setCurrentIndex(self._box.findData(wanted[0]))

    def set_value(self, model: str) -> None:
        """Choose a model by name, or by its checkpoint folder.

        Raises
        ------
        CheckpointError
            There is no readable card in it, or one of a task that this version does not know.
        """
        from napari_cvdm.models.checkpoint import read_card
        from napari_cvdm.reconstruction.plan import task_of

        if model not in self._cards:
            card = read_card(model)
            task_of(card)  # before it is listed: an unknown task is refused here
            self._add(model, card)
        self.by_hand = True
        self._box.setCurrentIndex(self._box.findData(model))

    def _on_picked(self) -> None:
        """The user has picked a model, now and for the docks to come."""
        self.by_hand = True
        remember("model", self.value() or "")

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Choose a model folder (card.json and model.safetensors)"
        )
        if folder:
            try:
                self.set_value(folder)
            except ValueError as error:
                self.refused.emit(str(error))
            else:
                self._on_picked()

    def _on_chosen(self) -> None:
        card = self.card()
        self._box.setToolTip("" if card is None else card_text(card))
        self.changed.emit()

    def value(self) -> str | None:
        """Name of a shipped model or path of a folder; None when there is no model."""
        return self._box.currentData()

    def card(self) -> "ModelCard | None":
        """Card of the chosen model."""
        return self._cards.get(self.value() or "")


class PresetChoice(QWidget):
    """The microscopes that the user saved, in all docks the same.

    `shown` gives what the form shows now, by request name: what is saved under a new name.
    """

    changed = Signal()
    refused = Signal(str)

    def __init__(self, shown: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__()
        self._shown, self._presets = shown, dict[str, dict[str, Any]]()
        self._filled: dict[str, Any] = {}
        self._box = OpenedBox()
        limit_width(self._box)
        self._box.setToolTip(PRESET_HELP)
        menu = QMenu(self)
        self.save = menu.addAction("Save…", self._ask)
        self.remove = menu.addAction("Remove", self._on_remove)
        more = QToolButton()
        more.setText("⋯")
        more.setToolTip("Save the fields below under a name, or forget the chosen microscope.")
        more.setMenu(menu)
        more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        fill_layout(QHBoxLayout(self), (self._box, 1), more)
        self.setFocusProxy(self._box)
        self.refresh()
        self._box.opening.connect(self.refresh)
        self._box.currentIndexChanged.connect(self._on_chosen)

    def refresh(self) -> None:
        """Offer what is in the file now; the chosen microscope stays chosen while it is there."""
        chosen = self._box.currentText()
        try:
            self._presets = read_presets()
        except RequestError as error:
            self._presets = {}
            self.refused.emit(str(error))
        with signals_blocked(self._box):
            self._box.clear()
            self._box.addItems([NO_PRESET, *self._presets])
            self._box.setCurrentText(chosen if chosen in self._presets else NO_PRESET)
        self.remove.setEnabled(bool(self.value()))

    def value(self) -> dict[str, Any]:
        """Optics of the chosen microscope by request name; empty without one."""
        return self._presets.get(self._box.currentText(), {})

    def fill(self, fields: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[str, ...]:
        """Fill in the chosen microscope where nothing was typed; values of an earlier one go.

        `told` is what stands in fields that a layer filled, by name. The result is the names of the
        fields that were filled.
        """
        preset, filled, self._filled = self.value(), self._filled, {}
        for name, field in fields.items():
            # A value that the user changed afterwards is a typed one, and stays.
            ours = name in filled and field.typed == filled[name]
            free = ours or not any(field.typed) or (name in told and field.typed == told[name])
            if free and (name in preset or ours):
                # Else the form would take the value for one that the user typed.
                with signals_blocked(field):
                    field.set_value(preset.get(name))
                self._filled |= {name: field.typed} if name in preset else {}
        return tuple(self._filled)

    def set_value(self, name: str) -> None:
        """Choose a microscope by its name; one that is not there changes nothing."""
        if name in self._presets:
            self._box.setCurrentText(name)

    def _on_chosen(self) -> None:
        self.remove.setEnabled(bool(self.value()))
        self.changed.emit()

    def save_as(self, name: str) -> None:
        """Keep what the form shows under a name, and choose it."""
        try:
            save_preset(name, self._shown())
        except ValueError as error:
            self.refused.emit(str(error))
            return
        self.refresh()
        self.set_value(name)

    def _ask(self) -> None:
        proposed = self._box.currentText() if self.value() else ""
        name, given = QInputDialog.getText(
            self, "Save the microscope", "Name, such as 63x 1.4 GFP:", text=proposed
        )
        if given and name.strip():
            self.save_as(name.strip())

    def _on_remove(self) -> None:
        chosen = self._box.currentText()
        try:
            # The file counts, not what is listed: another dock may have saved one since.
            write_presets({name: one for name, one in read_presets().items() if name != chosen})
        except ValueError as error:
            self.refused.emit(str(error))
        self.refresh()
        self.changed.emit()


def card_text(card: "ModelCard") -> str:
    """What a model is for and where it stops, in plain lines."""
    ranges = [f"{name}: {low:g} to {high:g}" for name, (low, high) in card.optics.items()]
    return "\n".join(
        [
            card.title,
            f"Takes {card.inputs}.",
            "Trained for",
            *ranges,
            f"Resolution: {card.resolution}",
            *(f"Limit: {limit}" for limit in card.limits),
            f"Licence: {card.licence}",
        ]
    )
