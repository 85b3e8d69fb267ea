"""The actions of the menu entries.

napari enables actions by what is selected, but not entries that are docks themselves.
"""

from typing import Any

from napari.layers import Image
from napari.viewer import Viewer

PLUGIN = "napari-cvdm"
DOCK = "Reconstruct"


def open_reconstruct(viewer: Viewer) -> Any:
    """Open the Reconstruct dock, or bring it forward, and return its widget."""
    dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    dock.show()
    dock.raise_()
    return widget


def reconstruct_selected(viewer: Viewer) -> None:
    """Open the Reconstruct dock, or bring it forward, with the selected image chosen.

    napari gives its current viewer.
    """
    widget = open_reconstruct(viewer)
    selection = viewer.layers.selection
    selected = [layer for layer in viewer.layers if layer in selection and isinstance(layer, Image)]
    if isinstance(selection.active, Image):
        selected = [selection.active]
    if selected and hasattr(widget, "form"):  # without its engine the dock says what is missing
        widget.form.image.set_value(selected[-1])
