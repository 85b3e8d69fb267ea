"""Layers saved with the scale, units, axes, place and provenance that they have in the viewer."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.io import write_image
from napari_cvdm.io.axes import storable
from napari_cvdm.io.metadata import square_pixel
from napari_cvdm.io.zarr_write import PlacedImage, write_ngff
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, LayerData, plugin_metadata
from napari_cvdm.widgets.layers.placement import Placement, axis_letters

if TYPE_CHECKING:
    from napari.layers import Layer

_NO_LENGTH = ("pixel", "dimensionless")


def write_tiff(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save one image layer as OME-TIFF.

    Parameters
    ----------
    path : str
    data, attributes
        Of the layer, as napari hands them over.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    ImageFileError, RequestError
        The layer cannot be saved so; nothing is left then.
    """
    pixels, place, layer = _placed(data, attributes, "image")
    _tell_what_is_lost(layer)
    pixels = storable(np.asarray(pixels), path)
    sizes = _measured(layer, np.abs(layer.scale), "um")
    first = _measured(layer, layer.translate, "um")
    mark = plugin_metadata(layer)
    write_image(
        path,
        pixels,
        axes=place.axes,
        pixel_um=square_pixel(sizes.get("X"), sizes.get("Y"), place.name),
        unit=mark.get("unit") or "arbitrary unit",
        name=place.name,
        offset_um=(first.get("Y", 0.0), first.get("X", 0.0)),
        z_step_um=sizes.get("Z"),
        t_step_s=_measured(layer, layer.scale, "s").get("T"),
        dtype=pixels.dtype,
        notes={METADATA_KEY: json.dumps(_plain(mark), ensure_ascii=False)},
    )
    return [path]


def write_zarr(path: str, layers: Sequence[LayerData]) -> list[str]:
    """Save one or several layers as one OME-Zarr.

    Parameters
    ----------
    path : str
        Ending in ``.zarr``.
    layers : sequence of (data, attributes, layer type)
        Image and Labels layers, as napari hands them over.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    ImageFileError, RequestError
        A layer cannot be saved so; nothing is left then.
    """
    images = []
    for data, attributes, kind in layers:
        pixels, place, layer = _placed(data, attributes, kind)
        _tell_what_is_lost(layer)
        images.append(
            PlacedImage(
                array=pixels,
                labels=place.labels,
                scale=tuple(place.scale),
                translation=tuple(place.translate),
                units=tuple("" if unit in _NO_LENGTH else unit for unit in place.units),
                name=place.name,
                notes=_plain(plugin_metadata(layer)),
            )
        )
    write_ngff(path, images)
    return [path]


def _placed(data: Any, attributes: dict[str, Any], kind: str) -> "tuple[Any, Placement, Layer]":
    """Pixels at the finest level with colour as channels, their placement, and the layer.

    Every axis of the placement is named.
    """
    from napari.layers import Layer

    layer = Layer.create(data, attributes, kind)
    place = Placement.of(layer)
    place = place.finer(place.axes, 1)
    pixels = layer.data[0] if layer.multiscale else layer.data
    return (np.moveaxis(pixels, -1, 0) if getattr(layer, "rgb", False) else pixels), place, layer


def _tell_what_is_lost(layer: "Layer") -> None:
    from napari.utils.notifications import show_warning

    place = Placement.of(layer)
    if not all(
        np.allclose(matrix, np.eye(len(matrix)))
        for matrix in (place.rotate, place.shear, place.affine)
    ):
        show_warning(
            f"{layer.name}: its rotation, shear or affine transform is not in the saved file; "
            "pixels, scale, position and units are."
        )


def _measured(layer: "Layer", values: np.ndarray, unit: str) -> dict[str, float]:
    """Numbers along the axes in `unit`, by letter.

    Axes whose own unit cannot be converted are left out.
    """
    axes = zip(axis_letters(layer), values, layer.units, strict=True)
    return {
        letter: float((float(value) * own).to(unit).magnitude)
        for letter, value, own in axes
        if own.is_compatible_with(unit)
    }


def _plain(mark: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata in words that JSON has."""
    return dict(
        json.loads(
            json.dumps(
                mark,
                default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value),
            )
        )
    )
