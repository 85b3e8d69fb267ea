"""Boxes to choose a model, a word or a whole number."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtGui import QFocusEvent
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QStyle, QToolButton, QWidget
from superqt import QLargeIntSpinBox

from napari_cvdm.widgets.common.preferences import own_models

if TYPE_CHECKING:
    from napari_cvdm.models.checkpoint import ModelCard

NARROWEST_PX = 60
USUAL_LETTERS = 16


def limit_width(box: QComboBox) -> QComboBox:
    """The box, made to shrink with the dock instead of growing with its longest entry."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(USUAL_LETTERS)
    box.setMinimumWidth(NARROWEST_PX)
    return box


def word_choice(words: Iterable[str]) -> QComboBox:
    """One of several words."""
    box = limit_width(QComboBox())
    box.addItems(words)
    return box


def whole_number(low: int, high: int) -> Any:
    """A whole number from `low` to `high`, which may be a seed: QSpinBox ends at 2**31."""
    box: Any = QLargeIntSpinBox()  # superqt gives it no types
    box.setRange(low, high)
    box.setMinimumWidth(NARROWEST_PX)
    return box


class _OpenedBox(QComboBox):
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
    but not its weights.
    """

    changed = Signal()
    refused = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._cards: dict[str, ModelCard] = {}
        self._box = _OpenedBox()
        limit_width(self._box)
        self._folder = QToolButton()
        self._folder.setIcon(self.style().standardIcon(QStyle.StandardPixmap.SP_DirOpenIcon))
        self._folder.setToolTip(
            "Use a model from a folder with card.json and model.safetensors. Nothing in it is "
            "executed."
        )
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box, 1)
        layout.addWidget(self._folder)
        self.setFocusProxy(self._box)
        self.refresh()
        self._box.opening.connect(self.refresh)
        self._box.currentIndexChanged.connect(self._on_chosen)
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

    def add_folder(self, folder: str) -> None:
        """Offer a checkpoint folder and choose it.

        Raises
        ------
        CheckpointError
            There is no readable card in it, or one of a task that this version does not know.
        """
        from napari_cvdm.models.checkpoint import read_card
        from napari_cvdm.reconstruction.plan import task_of

        if folder not in self._cards:
            card = read_card(folder)
            task_of(card)
            self._add(folder, card)
        self._box.setCurrentIndex(self._box.findData(folder))

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Choose a model folder (card.json and model.safetensors)"
        )
        if folder:
            try:
                self.add_folder(folder)
            except ValueError as error:
                self.refused.emit(str(error))

    def _on_chosen(self) -> None:
        card = self.card()
        self._box.setToolTip("" if card is None else card_text(card))
        self.changed.emit()

    def value(self) -> str | None:
        """Name of a shipped model or path of a folder; None when there is no model."""
        return self._box.currentData()

    def set_value(self, model: str) -> None:
        """Choose a shipped model by name, or a folder."""
        if model in self._cards:
            self._box.setCurrentIndex(self._box.findData(model))
        else:
            self.add_folder(model)

    def card(self) -> "ModelCard | None":
        """Card of the chosen model."""
        return self._cards.get(self.value() or "")


def card_text(card: "ModelCard") -> str:
    """What a model is for and where it stops, in plain lines."""
    ranges = [f"{name}: {low:g} to {high:g}" for name, (low, high) in card.optics.items()]
    limits = [f"Limit: {limit}" for limit in card.limits]
    return "\n".join(
        [
            card.title,
            f"Takes {card.inputs}.",
            "Trained for",
            *ranges,
            f"Resolution: {card.resolution}",
            *limits,
            f"Licence: {card.licence}",
        ]
    )
