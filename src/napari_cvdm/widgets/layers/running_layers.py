"""Layers that show a result while it is made."""

from typing import TYPE_CHECKING

import numpy as np

from napari_cvdm.core.result import FrameView
from napari_cvdm.core.statistics import spread_as
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, look_of, placed_image, spread_look
from napari_cvdm.widgets.layers.reconstruction import Run
from napari_cvdm.widgets.layers.shown_layers import remove_layers

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer


class RunningLayers:
    """An unfinished reconstruction and its uncertainty, frame by frame.

    They are removed when the final layers come.

    Parameters
    ----------
    viewer : Viewer
    run : Run
    statistic : {"standard deviation", "variance", "calibrated interval"}
        How the spread is shown. An interval comes with the last sample only.
    """

    def __init__(self, viewer: "Viewer", run: Run, statistic: str) -> None:
        self._viewer, self._unit, self._statistic = (
            viewer,
            run.unit,
            "variance" if statistic == "variance" else "standard deviation",
        )
        image = run.request.image
        self._loops = tuple(
            size
            for size, axis in zip(image.array.shape, image.axes, strict=True)
            if axis not in "PYX"
        )
        self._axes = "".join(axis for axis in image.axes if axis != "P")
        self._source, self._upsampling = run.place.within(run.request.region), run.upsampling
        self._layers: dict[str, Image] = {}
        self._arrays: dict[str, np.ndarray] = {}

    def show(self, view: FrameView) -> None:
        """Put in what there is to see of one frame."""
        spread = spread_as(view.variance, "variance", self._statistic)
        for role, values in (("uncertainty", spread), ("reconstruction", view.mean)):
            layer = self._layers.get(role)
            if layer is None:
                layer = self._layers[role] = self._add(role, values, view.index)
            if layer in self._viewer.layers:  # the user may have removed it
                self._arrays[role][view.index] = values
                layer.refresh()
        if view.samples == 2 and "uncertainty" in self._layers:  # before, there is no spread
            self._layers["uncertainty"].contrast_limits = spread_look(spread)["contrast_limits"]

    def _add(self, role: str, values: np.ndarray, index: tuple[int, ...]) -> "Image":
        from napari.layers import Image

        self._arrays[role] = array = np.zeros((*self._loops, *values.shape), np.float32)
        array[index] = values
        data, place = placed_image(self._source, self._axes, self._upsampling, array)
        look = (
            look_of(values, self._unit)
            if role == "reconstruction"
            else {"colormap": "magma", "contrast_limits": (0.0, 1.0)}
        )
        name = f"{role} of {self._source.name} (running)"
        metadata = {METADATA_KEY: {"role": f"running {role}", "source": self._source.name}}
        layer = Image(
            data,
            name=name,
            visible=role == "reconstruction",
            metadata=metadata,
            **place.keywords(),
            **look,
        )
        self._viewer.add_layer(layer)
        return layer

    def remove(self) -> None:
        """Take them away."""
        remove_layers(self._viewer, self._layers.values())
        self._layers.clear()
