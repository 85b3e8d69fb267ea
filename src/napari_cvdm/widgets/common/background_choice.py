"""What stands for the empty field: a word, or an image of it that is a layer."""

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.io import sha256_of
from napari_cvdm.widgets.common.choice_box import ChoiceBox, ChoiceItem
from napari_cvdm.widgets.layers.layer_data import is_measurement, read_layer
from napari_cvdm.widgets.layers.placement import MOST_PLANES

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_cvdm.tasks.task import Background

WORDS = ("auto", "none")
MOST_PIXELS = 1 << 25


class BackgroundChoice(ChoiceBox):
    """``auto``, ``none``, or a measured layer.

    The layer is the dark image of a camera (fluorescence) or a blank field (phase).

    Parameters
    ----------
    viewer : Viewer
    """

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__(viewer, lambda: _entries(viewer))
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
        return self.value() if layer is None else self._pixels(layer)

    def _pixels(self, layer: "Image") -> np.ndarray:
        """The pixels of a layer.

        For lazily read data, the array stays the same as long as the layer shows the same data.
        Otherwise the form would report a change.
        """
        if isinstance(layer.data, np.ndarray):
            return np.asarray(read_layer(layer).array)
        if self._lazy is None or self._lazy[0] is not layer.data:
            self._lazy = layer.data, np.asarray(read_layer(layer).array)
        return self._lazy[1]

    def show_background(self, wanted: "Background") -> bool:
        """Choose a word or a layer, and return whether it is there.

        The layer is the one with these pixels, or with the fingerprint that a result's settings
        give. If there is none, ``auto`` is chosen.
        """
        self.set_value(wanted if isinstance(wanted, str) and wanted in WORDS else WORDS[0])
        if isinstance(wanted, str) and wanted in WORDS:
            return True
        known = (
            wanted.removeprefix("image sha256:") if isinstance(wanted, str) else sha256_of(wanted)
        )
        alike = next(
            (
                entry.key
                for entry in self._entries
                if entry.key not in WORDS and _shows(entry.value, known)
            ),
            None,
        )
        if alike is not None:
            self.set_value(alike)
        return alike is not None


def _shows(layer: "Image", fingerprint: str) -> bool:
    """Whether a layer has these pixels; False for too many planes or too large a layer."""
    shape = tuple(layer.data.shape)
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


def _entries(viewer: "Viewer") -> list[ChoiceItem]:
    words = [
        ChoiceItem(text=word, key=word, value=word, preferred=word == WORDS[0]) for word in WORDS
    ]
    layers: list[Any] = [layer for layer in viewer.layers if is_measurement(layer)]
    return [*words, *(ChoiceItem(text=layer.name, key=layer, value=layer) for layer in layers)]
