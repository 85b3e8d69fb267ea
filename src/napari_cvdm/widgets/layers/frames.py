"""Which pixels of a layer are looked at now.

They are the frame of the sliders, the pixel of the cursor, the part on the screen or in a
rectangle, and regions on a result's grid.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.analysis.correlations import ResultFrame
from napari_cvdm.analysis.regions import regions_on_grid
from napari_cvdm.core.request import SMALLEST_REGION_PX, RequestError
from napari_cvdm.core.statistics import spread_as
from napari_cvdm.widgets.layers.layer_data import finest_level
from napari_cvdm.widgets.layers.result_layers import RECONSTRUCTION, SAMPLES, UNTRUSTED, ResultGroup

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer, Shapes
    from napari.viewer import Viewer


Pixel = tuple[int, int]
Region = tuple[int, int, int, int]  # top, bottom, left, right
CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
SAME_PLACE_PX = 0.1


def frame_index(viewer: "Viewer", layer: "Layer") -> tuple[int, ...]:
    """The nearest indices to the sliders along all axes but Y and X (and colour)."""
    shape = finest_level(layer).shape
    position = layer.world_to_data(viewer.dims.point)[: layer.ndim - 2]
    # The sliders span all layers: one may stand where this layer has no frame.
    return tuple(
        int(np.clip(round(place), 0, size - 1))
        for place, size in zip(position, shape, strict=False)
    )


def frame_pixels(viewer: "Viewer", layer: "Layer") -> np.ndarray:
    """The (Y, X) pixels of a layer where the sliders stand."""
    return np.asarray(finest_level(layer)[frame_index(viewer, layer)])


def result_frame(viewer: "Viewer", group: ResultGroup) -> ResultFrame:
    """The frame of a result where the sliders stand.

    Raises
    ------
    RequestError
        A layer that is needed is not there.
    """
    rate, mean, spread = group.rate, group.layer(RECONSTRUCTION), group.spread
    if rate is None or mean is None or spread is None:
        raise RequestError(group.describe_missing())
    pixels = frame_pixels(viewer, mean)
    untrusted = group.layer(UNTRUSTED)
    valid = (
        np.ones(pixels.shape, bool) if untrusted is None else frame_pixels(viewer, untrusted) == 0
    )
    deviation = spread_as(
        frame_pixels(viewer, spread), group.statistic, "standard deviation", group.factor
    )
    return ResultFrame(mean=pixels, spread=deviation, rate=frame_pixels(viewer, rate), valid=valid)


def values_at(viewer: "Viewer", group: ResultGroup, pixel: Pixel) -> tuple[float, float, float]:
    """Rate, mean and standard deviation at a pixel of the frame that the sliders show.

    Nothing may be missing in the group.
    """
    layers = (group.rate, group.layer(RECONSTRUCTION), group.spread)
    rate, mean, spread = (
        np.asarray(layer.data[(*frame_index(viewer, layer), *pixel)])
        for layer in layers
        if layer is not None
    )
    deviation = spread_as(spread, group.statistic, "standard deviation", group.factor)
    return float(rate), float(mean), float(deviation)


def samples_at(viewer: "Viewer", group: ResultGroup, pixel: Pixel) -> np.ndarray | None:
    """Every posterior sample at a pixel of the frame that the sliders show, if there are any."""
    layer = group.layer(SAMPLES)
    if layer is None:
        return None
    # The first axis is that of the samples, all of which are wanted.
    return np.asarray(layer.data[(slice(None), *frame_index(viewer, layer)[1:], *pixel)])


def pixel_at(layer: "Layer", world: tuple[float, ...]) -> Pixel | None:
    """Row and column of a layer at a place in the world; None outside."""
    # In napari the centre of pixel i is at i, so that its nearest integer is its index.
    y, x = (round(float(place)) for place in layer.world_to_data(world)[-2:])
    height, width = layer.data.shape[-2:]
    return (y, x) if 0 <= y < height and 0 <= x < width else None


def grid_map(viewer: "Viewer", source: "Layer", target: "Layer") -> np.ndarray:
    """The 3 x 3 matrix from (y, x, 1) of a layer's pixels to another's, in the frame shown."""
    world = list(viewer.dims.point)
    leading = source.world_to_data(viewer.dims.point)[:-2]
    mapped = []
    # Three points fix an affine map of the plane.
    for corner in CORNERS:
        place = source.data_to_world((*leading, *corner))
        mapped.append(target.world_to_data((*world[: len(world) - len(place)], *place))[-2:])
    origin, down, right = np.array(mapped)
    matrix = np.eye(3)
    matrix[:2] = np.stack([down - origin, right - origin, origin], axis=1)
    return matrix


def same_place(viewer: "Viewer", first: "Layer", second: "Layer") -> bool:
    """Whether the pixels of two layers lie on each other, to a tenth of a pixel."""
    height, width = first.data.shape[-2:]
    corners = np.array([(0, 0, 1), (height, 0, 1), (0, width, 1), (height, width, 1)]).T
    return bool(np.abs(grid_map(viewer, first, second) @ corners - corners).max() < SAME_PLACE_PX)


def drawn_regions(viewer: "Viewer", layer: "Labels | Shapes", grid: "Layer") -> np.ndarray:
    """Numbers of the regions of a Labels or Shapes layer at the pixels of another layer.

    Labels are read where the sliders stand. Shapes count on every slice, numbered from 1 in the
    order of the layer.

    Returns
    -------
    ndarray of shape (Y, X), integer
        0 is no region.
    """
    from napari.layers import Labels, Shapes

    shape = grid.data.shape[-2:]
    if isinstance(layer, Labels):
        # Each pixel of the grid looks up its label, so the map begins at the grid.
        matrix = grid_map(viewer, grid, layer)
        return regions_on_grid(frame_pixels(viewer, layer), matrix[:2, :2], matrix[:2, 2], shape)
    if not len(layer.data):
        return np.zeros(shape, int)
    matrix = grid_map(viewer, layer, grid)
    outlines: list[Any] = [
        outline[:, -2:] @ matrix[:2, :2].T + matrix[:2, 2] for outline in layer.data
    ]
    return Shapes(outlines, shape_type=layer.shape_type).to_labels(shape)


def check_plane_view(viewer: "Viewer", layer: "Image") -> None:
    """Raise RequestError where the window shows a side view or a volume, not the image plane."""
    dims = viewer.dims
    if dims.ndisplay != 2 or tuple(dims.order[-2:]) != (dims.ndim - 2, dims.ndim - 1):
        raise RequestError(
            f"the window does not show the y and x axes of {layer.name}. Roll the view back, or "
            "leave 3D, and look again."
        )


def on_screen(layer: "Image") -> Region:
    """The part of a layer that the canvas shows, in its pixels."""
    # napari names the first and the last pixel, in pixels of the level that is drawn.
    first, last = np.asarray(layer.corner_pixels)[:, -2:]
    last = last + 1
    if layer.multiscale:
        fine = np.asarray(layer.downsample_factors[layer.data_level])[-2:]
        first, last = first * fine, np.ceil(last * fine)
    return _clipped(first, last, layer)


def drawn(shapes: "Shapes", layer: "Image") -> Region:
    """The box around the selected shapes of a layer, or around the last one.

    Raises
    ------
    RequestError
        There is no shape, or it lies outside the image.
    """
    _check_drawn(shapes)
    return _box(shapes, sorted(shapes.selected_data) or [shapes.nshapes - 1], layer)


def drawn_each(shapes: "Shapes", layer: "Image") -> dict[int, Region]:
    """The box around each selected shape of a layer, or around all, by number from 1.

    Raises
    ------
    RequestError
        There is no shape, or one lies outside the image.
    """
    _check_drawn(shapes)
    chosen = sorted(shapes.selected_data) or range(shapes.nshapes)
    return {index + 1: _box(shapes, [index], layer) for index in chosen}


def _check_drawn(shapes: "Shapes") -> None:
    if shapes.nshapes == 0:
        raise RequestError(f"{shapes.name} has no shape; draw a rectangle on the image first.")


def _box(shapes: "Shapes", chosen: Iterable[int], layer: "Image") -> Region:
    """The box around some shapes, in pixels of a layer."""
    corners = [
        layer.world_to_data(shapes.data_to_world(corner))
        for index in chosen
        for corner in shapes.data[index]
    ]
    plane = np.array([corner[-2:] for corner in corners])
    # Pixel i covers i - 0.5 to i + 0.5.
    return _clipped(np.floor(plane.min(axis=0) + 0.5), np.ceil(plane.max(axis=0) + 0.5), layer)


def image_shape(layer: "Image") -> tuple[int, ...]:
    """Size of a layer's image along every axis but that of colours, of its finest level."""
    return tuple(finest_level(layer).shape[: layer.ndim])


def _clipped(first: np.ndarray, last: np.ndarray, layer: "Image") -> Region:
    """A box within the image, at least as large as the smallest region."""
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
