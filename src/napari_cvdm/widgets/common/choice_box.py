"""Boxes that offer what a viewer holds at the moment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox
from superqt.utils import signals_blocked

from napari_cvdm.widgets.common.choices import limit_width
from napari_cvdm.widgets.common.lifetime import listen, when_gone
from napari_cvdm.widgets.layers.layer_data import is_measurement

if TYPE_CHECKING:
    from napari.viewer import Viewer


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceItem:
    """One thing to choose.

    Parameters
    ----------
    text : str
        As shown.
    key : object
        By which the same thing is known again when its text or value changes.
    value : object
        What is chosen.
    preferred : bool
        Whether it is chosen when nothing was, or when what was chosen is gone.
    """

    text: str
    key: Any
    value: Any
    preferred: bool = False


class ChoiceBox(QComboBox):
    """What can be chosen among the layers of a viewer, kept up to date.

    Parameters
    ----------
    viewer : Viewer
    entries : callable
        Lists what can be chosen now.
    """

    changed = Signal()

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
        before = self._chosen()
        self._entries = self._listed()
        same = [
            index
            for index, entry in enumerate(self._entries)
            if kept is not None and entry.key == kept.key
        ]
        preferred = [index for index, entry in enumerate(self._entries) if entry.preferred]
        with signals_blocked(self):
            self.clear()
            self.addItems([entry.text for entry in self._entries])
            self.setCurrentIndex((same or preferred or [0 if self._entries else -1])[0])
        if self.value() != (None if before is None else before.value):
            self.changed.emit()

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


class LayerChoice(ChoiceBox):
    """Layers of a viewer: the measured images, or others.

    The active layer is preferred, else the topmost.

    Parameters
    ----------
    viewer : Viewer
    none_text : str, optional
        An entry for no layer, the first one, which is preferred then.
    accepts : callable, optional
        Layer -> bool: which layers are offered.
    """

    def __init__(
        self,
        viewer: "Viewer",
        none_text: str | None = None,
        accepts: Callable[[Any], bool] = is_measurement,
    ) -> None:
        super().__init__(viewer, partial(_layer_entries, viewer, none_text, accepts))

    def layers(self) -> list[Any]:
        """Every layer that is offered."""
        return [entry.value for entry in self._entries if entry.value is not None]


def _layer_entries(
    viewer: "Viewer", none_text: str | None, accepts: Callable[[Any], bool]
) -> list[ChoiceItem]:
    offered = [layer for layer in viewer.layers if accepts(layer)]
    active = viewer.layers.selection.active
    preferred = active if active in offered else offered[-1] if offered else None
    entries = [
        ChoiceItem(
            text=layer.name,
            key=layer,
            value=layer,
            preferred=layer is preferred and none_text is None,
        )
        for layer in offered
    ]
    return (
        entries
        if none_text is None
        else [ChoiceItem(text=none_text, key=None, value=None, preferred=True), *entries]
    )
