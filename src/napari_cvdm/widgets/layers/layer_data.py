"""napari layers as images: what a layer says of itself, its pixels, and how it looks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.core.request import OPTICS, ImageStack, RequestError
from napari_cvdm.io.axes import usable_dtype
from napari_cvdm.io.metadata import length_um, square_pixel
from napari_cvdm.widgets.layers.placement import METADATA_KEY as METADATA_KEY
from napari_cvdm.widgets.layers.placement import Placement, axis_letters, stated_planes

if TYPE_CHECKING:
    from napari.layers import Image, Layer


SHOWN = "shown"  # in the notes of a saved layer: how it looked, and where it lay
_PLACE = ("scale", "translate", "rotate", "shear", "axis_labels")
_LOOK = ("name", "visible", "opacity", "blending")
_IMAGE_LOOK = ("contrast_limits", "gamma")
LayerData = tuple[Any, dict[str, Any], str]
PATH_UNITS = ("rad", "nm")
COLOURS = 3
SHOWN_PERCENTILE = 99.9  # contrast limits leave out the rarest pixels
BLACK, ORANGE = (0.04, 0.05, 0.07), (0.80, 0.38, 0.10)


def plugin_metadata(layer: "Layer") -> Mapping[str, Any]:
    """What this package wrote into a layer's metadata; empty for a layer of another origin."""
    found = layer.metadata.get(METADATA_KEY, {})
    return found if isinstance(found, Mapping) else {}


def layer_name(role: str, source: str, unit: str = "") -> str:
    """What a layer shows, of which image, and its unit, which napari's colour bar has not."""
    return f"{role} of {source} [{unit}]" if unit else f"{role} of {source}"


def is_measurement(layer: "Layer") -> bool:
    """Whether a layer is an image to reconstruct: neither a result of ours nor a truth."""
    from napari.layers import Image

    return isinstance(layer, Image) and "role" not in plugin_metadata(layer)


def holds_planes(layer: "Image", others: "Sequence[Image]") -> bool | None:
    """Whether a layer shows planes of focus; None where nothing tells.

    One of the `others`, the measured images, of the same shape may be the second plane.
    """
    said = plugin_metadata(layer).get("optics", {})
    if "defocus_um" in said or "emission_um" in said:
        return "defocus_um" in said
    try:
        sizes = dict(zip(axis_letters(layer), layer.data.shape[: layer.ndim], strict=True))
    except RequestError:  # said in the message line
        return None
    labels = [label.strip().lower() for label in layer.axis_labels[:-2]]
    named = all(not label.lstrip("-").isdigit() for label in labels)
    looped = set(sizes) - set("YX")
    if layer.rgb or not named or looped & set("PZ"):
        # An axis without a name is one of planes if it has the length of a pair.
        planes = not layer.rgb and stated_planes(layer) is not None
        return True if planes and (not named or sizes.get("P") or sizes.get("Z") == 2) else None
    alike = [one for one in others if one is not layer and one.data.shape == layer.data.shape]
    return None if alike or sizes.get("T") == 2 else False


def named_layers(layers: "Sequence[Layer]", source: str) -> "tuple[Layer, Layer | None] | None":
    """The layer of this name and None, or the two planes that it names (``first + second``).

    Returns None if they are not there.
    """
    names = {layer.name: layer for layer in layers}
    if source in names:
        return names[source], None
    parts = source.split(" + ")  # a name may hold it, too
    for cut in range(1, len(parts)):
        first, second = " + ".join(parts[:cut]), " + ".join(parts[cut:])
        if first in names and second in names:
            return names[first], names[second]
    return None


def finest_level(layer: "Layer") -> Any:
    """The pixels of a layer, of its finest level where it has several."""
    return layer.data[0] if layer.multiscale else layer.data


def layer_pixel_um(layer: "Image") -> float | None:
    """Pixel size of a layer [um] from its scale and units.

    Returns None if the scale is in pixels, has no unit, is exactly 1, or is not square.
    """
    return _pixel_of(layer)[0]


def _pixel_of(layer: "Image") -> tuple[float | None, dict[str, str]]:
    """The pixel size, and where it comes from or why it is not known."""
    y, x = (
        length_um(abs(float(size)), f"{unit:~}")
        for size, unit in zip(layer.scale[-2:], layer.units[-2:], strict=True)
    )
    return square_pixel(x, y, f"the scale of layer {layer.name}")


def header_of(layer: "Image", *, of_planes: bool = False) -> ImageStack:
    """What a layer states, as an image of a pixel: read no pixels to know the optics.

    `of_planes` says that the layer is brightfield. What a file states of immersion and emission
    does not count then.
    """
    said, (pixel_um, origins) = plugin_metadata(layer), _pixel_of(layer)
    optics = {
        name: float(value)
        for name, value in dict(said.get("optics", {})).items()
        if name != "defocus_um"
    }
    return ImageStack(
        array=np.zeros((2, 1, 1) if of_planes else (1, 1)),
        axes="PYX" if of_planes else "YX",
        pixel_um=pixel_um,
        source=layer.name,
        metadata=optics,
        # The scale of the layer counts, which may have been changed since the file was read.
        origins={**said.get("origins", {}), "pixel_um": "", **origins},
    )


def known_optics(layer: "Image", *, of_planes: bool = False) -> dict[str, Any]:
    """Optics of a layer by request name: pixel size from its scale, the rest from metadata."""
    header = header_of(layer, of_planes=of_planes)
    found = {name: header.states(name) for name in OPTICS}
    positions = plugin_metadata(layer).get("optics", {}).get("defocus_um")
    found |= {} if positions is None else {"defocus_um": positions}
    return {name: value for name, value in found.items() if value is not None}


def read_layer(layer: "Image") -> ImageStack:
    """The pixels, axes and optics of an image layer.

    Data that are not in memory are read later, when they are needed. The finest level of a
    multiscale layer is read. Colours become a leading channel axis. Opacity is left out.

    Raises
    ------
    RequestError, ImageFileError
        Axes or pixels that cannot be used.
    """
    pixels, axes = finest_level(layer), axis_letters(layer)
    if not isinstance(pixels, np.ndarray):
        import dask.array as da

        pixels = pixels if isinstance(pixels, da.Array) else da.from_array(pixels)
    if layer.rgb:
        pixels, axes = np.moveaxis(pixels[..., :COLOURS], -1, 0), "C" + axes
    said = plugin_metadata(layer)
    # The rest of its place is that of the layer, which may have been moved.
    place = {
        name: float(value)
        for name, value in dict(said.get("place", {})).items()
        if name in ("frame_interval_s", "t_s", "position")
    }
    if "Z" in axes and not layer.rgb:
        number = axes.index("Z")
        step_um = length_um(abs(float(layer.scale[number])), f"{layer.units[number]:~}")
        if step_um is not None and step_um != 1:  # napari's scale of an axis without a length is 1
            place["z_step_um"] = step_um
    return replace(
        header_of(layer),
        array=usable_dtype(pixels, layer.name),
        axes=axes,
        place=place,
        channels=tuple(said.get("channels", ())),
        warnings=tuple(said.get("warnings", ())),
        series=said.get("series"),
    )


def look_of(values: np.ndarray, unit: str) -> dict[str, Any]:
    """Colour map and fixed contrast limits of a reconstruction.

    A phase rises from the cell-free background, which is zero; lower values only where there are
    some. Counts are gray.
    """
    low, high = inner_limits(values)
    if unit in PATH_UNITS:
        return {"colormap": "viridis", "contrast_limits": (min(low, 0.0), max(high, 1e-6))}
    return {"colormap": "gray", "contrast_limits": (low, high)}


def spread_look(values: np.ndarray) -> dict[str, Any]:
    """Colour map and fixed contrast limits of an uncertainty."""
    largest = float(np.percentile(values, SHOWN_PERCENTILE)) or 1.0
    return {"colormap": "magma", "contrast_limits": (0.0, largest)}


def signed_colormap() -> Any:
    """Blue for negative, black for zero, orange for positive: an empty field is dark."""
    from napari.utils import Colormap

    return Colormap(
        colors=[(0.70, 0.87, 1.0), (0.18, 0.48, 0.80), BLACK, ORANGE, (1.0, 0.88, 0.62)],
        name="signed",
        display_name="signed (blue 0 orange)",
    )


def chi2_colormap() -> Any:
    """Colour map for chi-squared from 0 to 5.

    Gray means that nothing was compared, blue is below noise, black is noise alone (1), and orange
    is structure that is left over.
    """
    from napari.utils import Colormap

    return Colormap(
        colors=[(0.35, 0.35, 0.35), (0.10, 0.28, 0.48), BLACK, ORANGE, (1.0, 0.88, 0.62)],
        controls=[0.0, 0.02, 0.2, 0.6, 1.0],
        name="chi-squared",
        display_name="chi-squared (black 1)",
    )


def inner_limits(values: np.ndarray) -> tuple[float, float]:
    """Without the rarest pixels at either end."""
    ends = np.percentile(values, (100 - SHOWN_PERCENTILE, SHOWN_PERCENTILE))
    low, high = (float(end) for end in ends)
    return (low, high) if low < high else (low, low + 1.0)


def as_it_was(pixels: Any, notes: dict[str, Any]) -> LayerData:
    """A saved layer; `notes` are its metadata, and how it looked."""
    from napari.utils import Colormap

    shown = notes.pop(SHOWN)
    settings = notes.get("provenance", {}).get("settings", {})
    settings |= {name: tuple(v) for name, v in settings.items() if isinstance(v, list)}
    wanted = (*_PLACE, *_LOOK, "affine", "units")
    keywords: dict[str, Any] = {name: shown[name] for name in wanted}
    keywords["metadata"] = {METADATA_KEY: notes} if notes else {}
    if shown["kind"] == "image":
        keywords["rgb"] = bool(shown["rgb"])
        if not keywords["rgb"]:
            keywords |= {name: shown[name] for name in _IMAGE_LOOK}
            found = shown["colormap"]
            keywords["colormap"] = found if isinstance(found, str) else Colormap(**found)
        else:
            pixels = np.moveaxis(pixels, 0, -1)
    return pixels.astype(np.dtype(shown["dtype"]), copy=False), keywords, str(shown["kind"])


def appearance_of(layer: "Layer", place: Placement, pixels: Any) -> dict[str, Any]:
    """All that `as_it_was` needs, in words that JSON has."""
    from napari.layers import Labels

    kind = "labels" if isinstance(layer, Labels) else "image"
    shown: dict[str, Any] = {name: getattr(layer, name) for name in (*_PLACE, *_LOOK)}
    shown |= {
        "kind": kind,
        "affine": layer.affine.affine_matrix,
        "units": [str(unit) for unit in layer.units],
        "axes": place.axes,
        "labels": place.labels,
        "stored": pixels.shape,
        "dtype": str(pixels.dtype),
        "rgb": bool(getattr(layer, "rgb", False)),
    }
    if kind == "image" and not shown["rgb"]:
        shown |= {name: getattr(layer, name) for name in _IMAGE_LOOK}
        shown["colormap"] = _plain_colormap(layer.colormap)
    return shown


def _plain_colormap(colormap: Any) -> Any:
    """The name of a colour map of napari, or the colours of another."""
    from napari.utils.colormaps import AVAILABLE_COLORMAPS

    known = AVAILABLE_COLORMAPS.get(colormap.name)
    if known is not None and np.array_equal(known.colors, colormap.colors):
        return colormap.name
    names = ("name", "display_name", "colors", "controls", "interpolation")
    return {name: getattr(colormap, name) for name in names}
