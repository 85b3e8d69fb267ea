"""What stands for the empty field: a word, or an image of it that is a layer."""

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.image_files import sha256_of
from napari_cvdm.widgets.layers import is_measurement, read_layer
from napari_cvdm.widgets.offer import Entry, Offer

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_cvdm.tasks.conditioned import Background

WORDS = ("auto", "none")


class BackgroundChoice(Offer):
    """``auto``, ``none``, or a measured layer: the dark image of a camera (fluorescence), a blank field (phase).

    Parameters
    ----------
    viewer : Viewer
    """

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__(viewer, lambda: _entries(viewer))

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
        return self.value() if layer is None else np.asarray(read_layer(layer).array)

    def show_background(self, wanted: "Background") -> bool:
        """Choose a word, or the layer with these pixels or with the fingerprint that a result's settings give; whether it is there.

        Without it ``auto`` is chosen.
        """
        self.set_value(wanted if isinstance(wanted, str) and wanted in WORDS else WORDS[0])
        if isinstance(wanted, str) and wanted in WORDS:
            return True
        known = wanted.removeprefix("image sha256:") if isinstance(wanted, str) else sha256_of(wanted)
        alike = [entry.key for entry in self._entries if entry.key not in WORDS and sha256_of(np.asarray(read_layer(entry.value).array)) == known]
        if alike:
            self.set_value(alike[0])
        return bool(alike)


def _entries(viewer: "Viewer") -> list[Entry]:
    words = [Entry(text=word, key=word, value=word, preferred=word == WORDS[0]) for word in WORDS]
    layers: list[Any] = [layer for layer in viewer.layers if is_measurement(layer)]
    return [*words, *(Entry(text=layer.name, key=layer, value=layer) for layer in layers)]
