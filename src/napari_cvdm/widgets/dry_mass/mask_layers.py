"""Labels and Shapes layers as regions on the pixels of a result, wherever both lie in the world."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.analysis.dry_mass import MaskFrame
from napari_cvdm.core.request import RequestError
from napari_cvdm.widgets.layers.layer_data import plugin_metadata

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer, Shapes

    from napari_cvdm.widgets.dry_mass.phase_results import Index

WITHOUT_INSIDE = ("line", "path")


def is_mask(layer: "Layer") -> bool:
    """Whether a layer can say where to measure: Labels that the user made, or Shapes."""
    from napari.layers import Labels, Shapes

    return (
        isinstance(layer, Labels | Shapes)
        and plugin_metadata(layer).get("role") != "untrusted pixels"
    )


def mask_frame(mask: "Layer", image: "Image", index: "Index", point: Sequence[float]) -> MaskFrame:
    """The regions of one frame of an image.

    Parameters
    ----------
    mask : Labels or Shapes
        With fewer axes than the image it holds for every frame.
    image : Image
    index : tuple of int
        Of the frame, along the leading axes of the image.
    point : sequence of float
        In world coordinates, such as ``viewer.dims.point``. The mask is read there along axes that
        the image lacks.

    Returns
    -------
    MaskFrame

    Raises
    ------
    RequestError
        A mask without this frame; shapes that have no inside or cover no pixel.
    """
    from napari.layers import Shapes

    return (
        _shapes_frame(mask, image, index, point)
        if isinstance(mask, Shapes)
        else _labels_frame(mask, image, index, point)
    )


def _map_between(
    source: "Layer", target: "Layer", point: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and offset that map pixels of one layer to pixels of another.

    They are found from the mapped ends of the axes.
    """

    def there(pixel: np.ndarray) -> np.ndarray:
        world = np.zeros(max(len(point), source.ndim))
        world[-len(point) :] = point
        world[-source.ndim :] = source.data_to_world(pixel)
        return np.asarray(target.world_to_data(world))

    offset = there(np.zeros(source.ndim))
    return np.stack([there(axis) - offset for axis in np.eye(source.ndim)], axis=1), offset


def _labels_frame(
    mask: "Labels", image: "Image", index: "Index", point: Sequence[float]
) -> MaskFrame:
    matrix, offset = _map_between(image, mask, point)
    labels: Any = mask.data[0] if mask.multiscale else mask.data
    at_frame = matrix[:, :-2] @ np.array(index, float) + offset
    frame = []
    for position, size, label in zip(at_frame, labels.shape[:-2], mask.axis_labels, strict=False):
        number = 0 if size == 1 else round(float(position))
        if not 0 <= number < size:
            raise RequestError(
                f"the mask {mask.name} has no frame {number} on axis {label}; it has {size}. Draw "
                "one over all frames."
            )
        frame.append(number)
    return MaskFrame(labels=labels[tuple(frame)], matrix=matrix[-2:, -2:], offset=at_frame[-2:])


def _shapes_frame(
    mask: "Shapes", image: "Image", index: "Index", point: Sequence[float]
) -> MaskFrame:
    """Regions of a Shapes layer, drawn by napari's own rasteriser on the pixels of the image.

    Region n is the n-th shape of the layer.
    """
    from napari.layers import Shapes

    matrix, offset = _map_between(mask, image, point)
    placed = [np.asarray(vertices) @ matrix.T + offset for vertices in mask.data]
    here = [
        number
        for number, vertices in enumerate(placed)
        if mask.ndim < image.ndim or _lies_in(vertices, index, image)
    ]
    flat = [number + 1 for number in here if mask.shape_type[number] in WITHOUT_INSIDE]
    if flat:
        raise RequestError(
            f"shape {flat[0]} of {mask.name} is a {mask.shape_type[flat[0] - 1]} and has no "
            "inside. Draw a polygon, an ellipse or a rectangle."
        )
    size = image.data.shape[-2:]
    if not here:
        return _as_they_are(np.zeros(size, int))
    drawn = Shapes(
        [placed[number][:, -2:] for number in here],
        shape_type=[mask.shape_type[number] for number in here],
        ndim=2,
    )
    regions = np.array([0, *(number + 1 for number in here)])[drawn.to_labels(size)]
    missed = sorted({number + 1 for number in here} - set(np.unique(regions).tolist()))
    if missed:
        raise RequestError(
            f"shape {missed[0]} of {mask.name} covers no pixel of {image.name}, or other shapes "
            "cover it. Move it onto a cell, or delete it."
        )
    return _as_they_are(regions)


def _lies_in(vertices: np.ndarray, index: "Index", image: "Image") -> bool:
    """Whether a shape was drawn in this frame; an axis of one frame holds every shape."""
    long = [axis for axis, size in enumerate(image.data.shape[:-2]) if size > 1]
    return all(round(float(vertices[0, axis])) == index[axis] for axis in long)


def _as_they_are(regions: np.ndarray) -> MaskFrame:
    return MaskFrame(labels=regions, matrix=np.eye(2), offset=np.zeros(2))
