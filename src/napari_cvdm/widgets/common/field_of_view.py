"""The part of an image that a preview shows: the screen or a drawn rectangle.

This module returns slices only, no pixels.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.core.request import SMALLEST_REGION_PX, RequestError

if TYPE_CHECKING:
    from napari.layers import Image, Shapes

Region = tuple[int, int, int, int]


def on_screen(layer: "Image") -> Region:
    """The part of a layer that the canvas shows, as (top, bottom, left, right) in its pixels."""
    corners = np.asarray(layer.corner_pixels)[:, -2:]
    if layer.multiscale:
        corners = corners * np.asarray(layer.downsample_factors[layer.data_level])[-2:]
    return _clipped(corners[0], corners[1] + 1, layer)


def drawn(shapes: "Shapes", layer: "Image") -> Region:
    """The box around the selected shapes of a layer, or around the last one.

    Raises
    ------
    RequestError
        There is no shape, or it lies outside the image.
    """
    chosen = sorted(shapes.selected_data) or [shapes.nshapes - 1]
    if shapes.nshapes == 0:
        raise RequestError(f"{shapes.name} has no shape; draw a rectangle on the image first.")
    corners = [
        layer.world_to_data(shapes.data_to_world(corner))
        for index in chosen
        for corner in shapes.data[index]
    ]
    plane = np.array([corner[-2:] for corner in corners])
    return _clipped(np.floor(plane.min(axis=0) + 0.5), np.ceil(plane.max(axis=0) + 0.5), layer)


def image_shape(layer: "Image") -> tuple[int, ...]:
    """Size of a layer's image along every axis but that of colours, of its finest level."""
    data: Any = layer.data[0] if layer.multiscale else layer.data
    return tuple(data.shape[: layer.ndim])


def _clipped(first: np.ndarray, last: np.ndarray, layer: "Image") -> Region:
    """A box within the image, at least as large as the smallest region.

    Raises RequestError if the box misses the image.
    """
    parts: list[int] = []
    for start, stop, size in zip(first, last, image_shape(layer)[-2:], strict=True):
        if stop <= 0 or start >= size:
            raise RequestError(
                f"the field of view misses {layer.name}; move the view (or the rectangle) onto "
                "the image."
            )
        low, high = max(0, int(start)), min(size, int(stop))
        missing = max(0, SMALLEST_REGION_PX - (high - low))
        low = max(0, min(low - missing // 2, size - SMALLEST_REGION_PX))
        parts += [low, min(size, max(high, low + SMALLEST_REGION_PX))]
    return parts[0], parts[1], parts[2], parts[3]
