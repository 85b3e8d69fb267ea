"""napari layers to images, and reconstructions to napari layers that lie where the measured image lies."""

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.image_files.errors import ImageFileError
from napari_cvdm.image_files.pixel_size import length_um, square_pixel
from napari_cvdm.image_files.pixels import usable_dtype
from napari_cvdm.request import ImageStack, RequestError
from napari_cvdm.result import Restoration
from napari_cvdm.widgets.placement import Placement, axis_letters

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from napari.viewer import Viewer

METADATA_KEY = "napari-cvdm"
LayerData = tuple[Any, dict[str, Any], str]

_SHOWN_PERCENTILE = 99.9


def our_metadata(layer: "Layer") -> Mapping[str, Any]:
    """What this package wrote into a layer's metadata; empty for a layer of another origin."""
    found = layer.metadata.get(METADATA_KEY, {})
    return found if isinstance(found, Mapping) else {}


def is_measurement(layer: "Layer") -> bool:
    """Whether a layer is an image that could be reconstructed: not a result of ours and not a truth."""
    from napari.layers import Image

    return isinstance(layer, Image) and "role" not in our_metadata(layer)


def layer_pixel_um(layer: "Image") -> float | None:
    """Pixel size of a layer [um] from its scale and units; None in pixels, without a unit or exactly 1.

    Raises
    ------
    ImageFileError
        Pixels that are not square.
    """
    y, x = (length_um(abs(float(size)), f"{unit:~}") for size, unit in zip(layer.scale[-2:], layer.units[-2:], strict=True))
    return square_pixel(x, y, layer.name)


def known_optics(layer: "Image") -> dict[str, Any]:
    """Optics that a layer tells, by request name: the pixel size from its scale, the rest from its metadata."""
    optics = dict(our_metadata(layer).get("optics", {}))
    try:
        pixel_um = layer_pixel_um(layer)
    except ImageFileError:  # said aloud when the request is made
        pixel_um = None
    return optics if pixel_um is None else {**optics, "pixel_um": pixel_um}


def read_layer(layer: "Image") -> ImageStack:
    """The pixels, axes and optics of an image layer.

    Parameters
    ----------
    layer : Image
        Of a multiscale layer the finest level is read.

    Returns
    -------
    ImageStack

    Raises
    ------
    RequestError, ImageFileError
        A colour image, axes or pixels that cannot be used.
    """
    if layer.rgb:
        raise RequestError(f"{layer.name}: a colour (RGB) image; one channel is needed. Right-click the layer, choose Split RGB, and take one of the three.")
    pixels = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    optics = {name: float(value) for name, value in our_metadata(layer).get("optics", {}).items() if name != "defocus_um"}
    return ImageStack(array=usable_dtype(pixels, layer.name), axes=axis_letters(layer), pixel_um=layer_pixel_um(layer), source=layer.name, metadata=optics)


def to_layer_data(restoration: Restoration, source: Placement) -> list[LayerData]:
    """Layers of a reconstruction, the one to look at last, so that it lies on top.

    Parameters
    ----------
    restoration : Restoration
    source : Placement
        Of the measured image.

    Returns
    -------
    list of (data, keywords, layer type)
        gamma and beta with a leading axis of times (if the restoration has them), rate map, sample variance, untrusted
        pixels, reconstruction; all but the last are hidden at first.
    """
    source = replace(source, merged="".join(set(source.axes) - set(restoration.axes)))
    signed = restoration.unit == "rad"
    layers = []
    if restoration.gamma is not None and restoration.beta is not None:
        layers += [
            _layer(restoration, source, "gamma", restoration.gamma, "", colormap="viridis", contrast_limits=(0.0, 1.0)),
            _layer(restoration, source, "beta", restoration.beta, "", colormap="viridis", contrast_limits=_from_zero(restoration.beta)),
        ]
    look = {"colormap": phase_colormap(), "contrast_limits": _symmetric(restoration.mean)} if signed else {"contrast_limits": _inner(restoration.mean)}
    variance, unit = restoration.variance, restoration.unit
    return [
        *layers,
        _layer(restoration, source, "noise-rate map", restoration.rate, "", colormap="viridis", contrast_limits=_inner(restoration.rate)),
        _layer(restoration, source, "sample variance", variance, f"{unit}²", colormap="magma", contrast_limits=_from_zero(variance)),
        (*_layer(restoration, source, "untrusted pixels", (~restoration.valid).astype(np.uint8), "", opacity=0.5)[:2], "labels"),
        _layer(restoration, source, "reconstruction", restoration.mean, unit, visible=True, **look),
    ]


def _layer(restoration: Restoration, source: Placement, role: str, values: np.ndarray, unit: str, *, visible: bool = False, **look: Any) -> LayerData:
    values, place = _placed(restoration, source, values)
    provenance = asdict(restoration.provenance)
    group = f"{source.name} by {restoration.provenance.model['name']}"
    mark = {"role": role, "group": group, "source": source.name, "unit": unit, "provenance": provenance, "clock": asdict(restoration.clock)}
    metadata = {METADATA_KEY: mark}
    return values, {"name": f"{role} of {source.name}", "visible": visible, "metadata": metadata, **place.keywords(), **look}, "image"


def _placed(restoration: Restoration, source: Placement, values: np.ndarray) -> tuple[np.ndarray, Placement]:
    """An array and its placement: a plain (Y, X) image, or as many axes as the source has, so that napari's sliders agree."""
    timed = values.ndim > len(restoration.axes)
    if values.ndim == 2 or not source.merged:
        place = source.finer(restoration.axes, restoration.upsampling)
    else:
        values = np.expand_dims(values, source.axes.index(source.merged) + timed)
        place = source.finer(source.axes, restoration.upsampling)
    return values, place.with_times(restoration.times) if timed else place


def phase_colormap() -> Any:
    """Blue for negative, black for zero, orange for positive: an empty field is dark, as the canvas is."""
    from napari.utils import Colormap

    colors = [(0.70, 0.87, 1.0), (0.18, 0.48, 0.80), (0.04, 0.05, 0.07), (0.80, 0.38, 0.10), (1.0, 0.88, 0.62)]
    return Colormap(colors=colors, name="phase", display_name="phase (blue 0 orange)")


def _symmetric(values: np.ndarray) -> tuple[float, float]:
    largest = float(np.percentile(np.abs(values), _SHOWN_PERCENTILE)) or 1.0
    return -largest, largest


def _from_zero(values: np.ndarray) -> tuple[float, float]:
    return 0.0, float(np.percentile(values, _SHOWN_PERCENTILE)) or 1.0


def _inner(values: np.ndarray) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(values, (100 - _SHOWN_PERCENTILE, _SHOWN_PERCENTILE)))
    return (low, high) if low < high else (low, low + 1.0)


def show_layers(viewer: "Viewer", layers: list[LayerData]) -> None:
    """Put result layers into a viewer, in place of earlier results of the same name.

    All new layers are made before the first old one goes, so a viewer never holds half a result.

    Parameters
    ----------
    viewer : Viewer
    layers : list of (data, keywords, layer type)
        As from `to_layer_data`. An earlier layer hands down whether it is visible.
    """
    from napari.layers import Layer

    pairs = []
    for data, keywords, kind in layers:
        old = _earlier_result(viewer, keywords)
        pairs.append((old, Layer.create(data, keywords if old is None else {**keywords, "visible": old.visible}, kind)))
    for old, new in pairs:
        if old is not None:
            viewer.layers.remove(old)
        viewer.add_layer(new)


def _earlier_result(viewer: "Viewer", keywords: dict[str, Any]) -> "Layer | None":
    """The layer of the same role and source that the user has not renamed; napari itself may have numbered it."""
    ours = re.compile(re.escape(keywords["name"]) + r"( \[\d+\])?")
    mark = keywords["metadata"][METADATA_KEY]
    same = (layer for layer in viewer.layers if all(our_metadata(layer).get(key) == mark[key] for key in ("role", "source")))
    return next((layer for layer in same if ours.fullmatch(layer.name)), None)
