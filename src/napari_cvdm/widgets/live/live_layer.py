"""The one layer that shows what is being followed."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, LayerData
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.result_layers import to_layer_data
from napari_cvdm.widgets.layers.shown_layers import show_layers

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_cvdm.live.follow import LiveFrame


class LiveLayer:
    """Shows frame after frame in one layer; contrast limits are those of the first, or the user's.

    Parameters
    ----------
    viewer : Viewer
    place : Placement
        Of the measured frame.
    """

    def __init__(self, viewer: "Viewer", place: Placement) -> None:
        self._viewer = viewer
        self.place = place
        self.layer: Layer | None = None

    def show(self, frame: "LiveFrame") -> None:
        """Show a frame, and where it comes from in the metadata."""
        layer = self.layer
        if layer is None or layer.ndim != frame.mean.ndim:
            self.layer = None  # so that nobody takes the change of layers for the user's wish
            show_layers(self._viewer, [self._first(frame)])
            self.layer = self._viewer.layers[-1]
            return
        mark: dict[str, Any] = {
            **layer.metadata[METADATA_KEY],
            "provenance": asdict(frame.reconstruction.provenance),
        }
        layer.metadata = {**layer.metadata, METADATA_KEY: mark}
        layer.data = frame.mean

    def _first(self, frame: "LiveFrame") -> LayerData:
        *_, (values, keywords, kind) = to_layer_data(frame.reconstruction, self.place)
        mark = keywords["metadata"][METADATA_KEY]
        live = {**mark, "group": f"live, {self.place.name}"}
        return (
            values,
            {
                **keywords,
                "name": f"live reconstruction of {self.place.name}",
                "metadata": {METADATA_KEY: live},
            },
            kind,
        )
