"""Which pixels of a result's layers are looked at now.

They are the frame of the sliders, the pixel of the cursor, and regions on the result's grid.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.analysis.correlations import ResultFrame
from napari_cvdm.analysis.regions import regions_on_grid
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.statistics import spread_as
from napari_cvdm.widgets.layers.result_group import RECONSTRUCTION, SAMPLES, UNTRUSTED, ResultGroup

if TYPE_CHECKING:
    from napari.layers import Labels, Layer, Shapes
    from napari.viewer import Viewer

Pixel = tuple[int, int]
CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
SAME_PLACE_PX = 0.1


def frame_index(viewer: "Viewer", layer: "Layer") -> tuple[int, ...]:
    """The nearest indices to the sliders along all axes but Y and X (and colour)."""
    shape = (layer.data[0] if layer.multiscale else layer.data).shape
    position = layer.world_to_data(viewer.dims.point)[: layer.ndim - 2]
    return tuple(
        int(np.clip(round(place), 0, size - 1))
        for place, size in zip(position, shape, strict=False)
    )


def frame_pixels(viewer: "Viewer", layer: "Layer") -> np.ndarray:
    """The (Y, X) pixels of a layer where the sliders stand."""
    return np.asarray(layer.data[frame_index(viewer, layer)])


def result_frame(viewer: "Viewer", group: ResultGroup) -> ResultFrame:
    """The frame of a result where the sliders stand.

    Raises
    ------
    RequestError
        A layer that is needed is not there.
    """
    rate, mean, spread = group.rate, group.layers.get(RECONSTRUCTION), group.spread
    if rate is None or mean is None or spread is None:
        raise RequestError(
            f"{group.name}: {' and '.join(group.missing())} not among the layers; undo the "
            "removal or reconstruct again."
        )
    pixels = frame_pixels(viewer, mean)
    untrusted = group.layers.get(UNTRUSTED)
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
    layers = (group.rate, group.layers[RECONSTRUCTION], group.spread)
    rate, mean, spread = (
        np.asarray(layer.data[(*frame_index(viewer, layer), *pixel)])
        for layer in layers
        if layer is not None
    )
    return (
        float(rate),
        float(mean),
        float(spread_as(spread, group.statistic, "standard deviation", group.factor)),
    )


def samples_at(viewer: "Viewer", group: ResultGroup, pixel: Pixel) -> np.ndarray | None:
    """Every posterior sample at a pixel of the frame that the sliders show.

    Returns None without a layer of samples.
    """
    layer = group.layers.get(SAMPLES)
    if layer is None:
        return None
    return np.asarray(layer.data[(slice(None), *frame_index(viewer, layer)[1:], *pixel)])


def pixel_at(layer: "Layer", world: tuple[float, ...]) -> Pixel | None:
    """Row and column of a layer at a place in the world; None outside."""
    y, x = (round(float(place)) for place in layer.world_to_data(world)[-2:])
    height, width = layer.data.shape[-2:]
    return (y, x) if 0 <= y < height and 0 <= x < width else None


def grid_map(viewer: "Viewer", source: "Layer", target: "Layer") -> np.ndarray:
    """The 3 x 3 matrix that maps (y, x, 1) of one layer's pixels to those of another.

    It holds for the frame that the sliders show.
    """
    world = list(viewer.dims.point)
    leading = source.world_to_data(viewer.dims.point)[:-2]
    mapped = []
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

    Parameters
    ----------
    viewer : Viewer
    layer : Labels or Shapes
        Labels are read where the sliders stand. Shapes count on every slice, numbered from 1 in the
        order of the layer.
    grid : Layer

    Returns
    -------
    ndarray of shape (Y, X), integer
        0 is no region.
    """
    from napari.layers import Labels

    shape = grid.data.shape[-2:]
    if isinstance(layer, Labels):
        matrix = grid_map(viewer, grid, layer)
        return regions_on_grid(frame_pixels(viewer, layer), matrix[:2, :2], matrix[:2, 2], shape)
    return _rasterized(layer, grid_map(viewer, layer, grid), shape)


def _rasterized(shapes: "Shapes", matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    from napari.layers import Shapes

    if not len(shapes.data):
        return np.zeros(shape, int)
    outlines: list[Any] = [
        outline[:, -2:] @ matrix[:2, :2].T + matrix[:2, 2] for outline in shapes.data
    ]
    return Shapes(outlines, shape_type=shapes.shape_type).to_labels(shape)
