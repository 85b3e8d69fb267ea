"""The actions of the menu entries.

napari enables actions by what is selected, but not entries that are docks themselves.
"""

from typing import Any

from napari.layers import Image
from napari.viewer import Viewer

PLUGIN = "napari-cvdm"
DOCK = "Reconstruct"


def open_reconstruct(viewer: Viewer) -> Any:
    """Open the Reconstruct dock, or bring it forward.

    Parameters
    ----------
    viewer : Viewer

    Returns
    -------
    ReconstructWidget
    """
    dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    dock.show()
    dock.raise_()
    return widget


def reconstruct_selected(viewer: Viewer) -> None:
    """Open the Reconstruct dock, or bring it forward, with the selected image chosen.

    Parameters
    ----------
    viewer : Viewer
        napari gives the current one.
    """
    widget = open_reconstruct(viewer)
    active = viewer.layers.selection.active
    selected = (
        [active]
        if isinstance(active, Image)
        else [
            layer
            for layer in viewer.layers
            if layer in viewer.layers.selection and isinstance(layer, Image)
        ]
    )
    if selected and hasattr(
        widget, "form"
    ):  # without its engine the dock only says what is missing
        widget.form.image.set_value(selected[-1])
