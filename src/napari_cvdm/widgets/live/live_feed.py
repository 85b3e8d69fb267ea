"""The newest frame of a layer, copied and posted whenever its pixels change."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.core.request import ImageStack, RequestError
from napari_cvdm.io.axes import usable_dtype
from napari_cvdm.live.sources import ReadFrame
from napari_cvdm.widgets.layers.layer_data import layer_pixel_um, plugin_metadata
from napari_cvdm.widgets.layers.placement import Placement, axis_letters

if TYPE_CHECKING:
    from napari.layers import Image


class LayerFeed:
    """Posts each new frame of an image layer.

    napari 0.9.2 emits `data` when data are assigned, and `set_data` before it while the layer is
    visible. It emits `set_data` alone for pixels written in place and `refresh`, but also when a
    slider moves. So the feed listens to both, and does not post a frame that equals the last one
    bit by bit. Pixels written in place into a hidden layer emit nothing and are not seen.

    Parameters
    ----------
    layer : Image
        The last index along its time axis is the newest frame. The finest level of a multiscale
        layer is read.
    planes : int
        Defocus planes of a frame.
    post : callable
        Takes a function that returns the frame as an `ImageStack`, or raises ValueError. It is
        called in the thread that wrote the pixels.

    Raises
    ------
    RequestError, ImageFileError
        A layer that cannot be followed: colour, axes or a pixel that is not square.
    """

    def __init__(self, layer: "Image", planes: int, post: Callable[[ReadFrame], None]) -> None:
        self.layer = layer
        self._planes, self._post = planes, post
        self._last: np.ndarray | None = None
        _, axes = self._newest()
        self.place = replace(Placement.of(layer).finer(axes, 1), planes=planes)
        optics = {
            name: float(value)
            for name, value in plugin_metadata(layer).get("optics", {}).items()
            if name != "defocus_um"
        }
        self._known: dict[str, Any] = {
            "pixel_um": layer_pixel_um(layer),
            "source": layer.name,
            "metadata": optics,
        }
        layer.events.data.connect(self._on_changed)
        layer.events.set_data.connect(self._on_changed)

    def _newest(self) -> tuple[np.ndarray, str]:
        from napari_cvdm.live.follow import newest_index

        layer = self.layer
        if layer.rgb:
            raise RequestError(
                f"{layer.name}: a colour (RGB) image; one channel is needed. Right-click it, "
                "choose Split RGB, and follow one of the three."
            )
        data = layer.data[0] if layer.multiscale else layer.data
        index, axes = newest_index(data.shape, axis_letters(layer), self._planes)
        return np.array(data[index]), axes

    def post_now(self) -> None:
        """Post the frame that is there, unless it was posted already."""
        try:
            pixels, axes = self._newest()
        except (
            RequestError
        ) as error:  # the layer got other axes meanwhile; the one who follows says it
            self._post(partial(_refuse, str(error)))
            return
        if self._last is not None and np.array_equal(
            pixels, self._last, equal_nan=pixels.dtype.kind == "f"
        ):
            return
        self._last = pixels
        self._post(partial(_frame, pixels, axes, self._known))

    def _on_changed(self, event: object = None) -> None:
        self.post_now()

    def close(self) -> None:
        """Listen no more."""
        self.layer.events.data.disconnect(self._on_changed)
        self.layer.events.set_data.disconnect(self._on_changed)


def _frame(pixels: np.ndarray, axes: str, known: dict[str, Any]) -> ImageStack:
    return ImageStack(array=usable_dtype(pixels, known["source"]), axes=axes, **known)


def _refuse(reason: str) -> ImageStack:
    raise RequestError(reason)
