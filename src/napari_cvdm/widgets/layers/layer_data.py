"""Convert napari layers to images, and reconstructions to napari layers.

The layers of a reconstruction lie where the measured image lies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.analysis.dry_mass import optical_path_nm
from napari_cvdm.core.request import ImageStack
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.core.statistics import INTERVAL, STATISTICS, spread_as
from napari_cvdm.io.axes import usable_dtype
from napari_cvdm.io.errors import ImageFileError
from napari_cvdm.io.metadata import length_um, square_pixel
from napari_cvdm.widgets.layers.contrast import (
    chi2_colormap,
    inner_limits,
    limits_from_zero,
    phase_colormap,
    symmetric_limits,
)
from napari_cvdm.widgets.layers.placement import Placement, axis_letters

if TYPE_CHECKING:
    from napari.layers import Image, Layer

METADATA_KEY = "napari-cvdm"
LayerData = tuple[Any, dict[str, Any], str]
SIGNED_UNITS = ("rad", "nm")
COLOURS = 3
RESIDUAL_ROLE = "residual"
RESIDUAL_LIMITS = (-5.0, 5.0)  # standard deviations, fixed: an image of noise alone is nearly dark
CHI2_ROLE = "local chi-squared"
CHI2_LIMITS = (0.0, 5.0)  # fixed, so that results can be compared; 1 is noise alone


def plugin_metadata(layer: "Layer") -> Mapping[str, Any]:
    """What this package wrote into a layer's metadata; empty for a layer of another origin."""
    found = layer.metadata.get(METADATA_KEY, {})
    return found if isinstance(found, Mapping) else {}


def is_measurement(layer: "Layer") -> bool:
    """Whether a layer is an image to reconstruct: neither a result of ours nor a truth."""
    from napari.layers import Image

    return isinstance(layer, Image) and "role" not in plugin_metadata(layer)


def named_layers(layers: "Sequence[Layer]", source: str) -> "tuple[Layer, Layer | None] | None":
    """The layer of this name and None, or the two planes that it names (``first + second``).

    Returns None if they are not there.
    """
    names = {layer.name: layer for layer in layers}
    if source in names:
        return names[source], None
    parts = source.split(" + ")  # a name may hold it, too
    pairs = [(" + ".join(parts[:cut]), " + ".join(parts[cut:])) for cut in range(1, len(parts))]
    return next(
        (
            (names[first], names[second])
            for first, second in pairs
            if first in names and second in names
        ),
        None,
    )


def layer_pixel_um(layer: "Image") -> float | None:
    """Pixel size of a layer [um] from its scale and units.

    Returns None if the scale is in pixels, has no unit, or is exactly 1.

    Raises
    ------
    ImageFileError
        Pixels that are not square.
    """
    y, x = (
        length_um(abs(float(size)), f"{unit:~}")
        for size, unit in zip(layer.scale[-2:], layer.units[-2:], strict=True)
    )
    return square_pixel(x, y, layer.name)


def known_optics(layer: "Image") -> dict[str, Any]:
    """Optics of a layer by request name: pixel size from its scale, the rest from metadata."""
    optics = dict(plugin_metadata(layer).get("optics", {}))
    try:
        pixel_um = layer_pixel_um(layer)
    except ImageFileError:  # said aloud when the request is made
        pixel_um = None
    return optics if pixel_um is None else {**optics, "pixel_um": pixel_um}


def read_layer(layer: "Image", index: tuple[int, ...] | None = None) -> ImageStack:
    """The pixels, axes and optics of an image layer.

    Data that are not in memory are read later, when they are needed.

    Parameters
    ----------
    layer : Image
        The finest level of a multiscale layer is read. Colours become a leading channel axis.
        Opacity is left out.
    index : tuple of int, optional
        Take one frame: the position along every axis before Y and X (colours excepted).

    Returns
    -------
    ImageStack

    Raises
    ------
    RequestError, ImageFileError
        Axes or pixels that cannot be used.
    """
    pixels, axes = layer.data[0] if layer.multiscale else layer.data, axis_letters(layer)
    if not isinstance(pixels, np.ndarray):
        import dask.array as da

        pixels = pixels if isinstance(pixels, da.Array) else da.from_array(pixels)
    if index is not None:
        pixels, axes = pixels[index], axes[-2:]
    if layer.rgb:
        pixels, axes = np.moveaxis(pixels[..., :COLOURS], -1, 0), "C" + axes
    optics = {
        name: float(value)
        for name, value in plugin_metadata(layer).get("optics", {}).items()
        if name != "defocus_um"
    }
    known: dict[str, Any] = {
        "pixel_um": layer_pixel_um(layer),
        "source": layer.name,
        "metadata": optics,
        "place": _z_step(layer, axes),
    }
    return ImageStack(array=usable_dtype(pixels, layer.name), axes=axes, **known)


def _z_step(layer: "Image", axes: str) -> dict[str, float]:
    """The z step of a layer by its name in `ImageStack.place`.

    The result is empty without a step, for a step in pixels, or for a step of exactly 1.
    """
    if "Z" not in axes or layer.rgb:
        return {}
    place = axes.index("Z")
    step = length_um(abs(float(layer.scale[place])), f"{layer.units[place]:~}")
    return {} if step is None or step == 1 else {"z_step_um": step}


def to_layer_data(
    reconstruction: Reconstruction, source: Placement, statistic: str = STATISTICS[0]
) -> list[LayerData]:
    """Layers of a reconstruction. The reconstruction itself comes last, so that it lies on top.

    Parameters
    ----------
    reconstruction : Reconstruction
    source : Placement
        Of the measured image.
    statistic : {"standard deviation", "variance", "calibrated interval"}
        How the spread of the samples is shown. If the model is not calibrated, it is shown as a
        standard deviation.

    Returns
    -------
    list of (data, keywords, layer type)
        One group: gamma and beta with a leading axis of times (lazy), the samples with a leading
        axis (if the reconstruction has them), rate map, residual (one for each plane) and local
        chi-squared on the camera's grid, optical path difference (of a phase), uncertainty,
        untrusted pixels, reconstruction. All but the last are hidden at first.
    """
    source = source.within(reconstruction.region)
    unit = reconstruction.unit
    factor = _factor(reconstruction)
    statistic = STATISTICS[0] if statistic == INTERVAL and factor is None else statistic
    spread = spread_as(reconstruction.variance, "variance", statistic, factor)
    # Frames that were not, in a run that was stopped, are zero and set no contrast.
    begun = reconstruction.counts > 0
    return [
        *_schedule_layers(reconstruction, source),
        *_sample_layers(reconstruction, source),
        _layer(
            reconstruction,
            source,
            "noise-rate map",
            reconstruction.rate,
            "",
            colormap="viridis",
            contrast_limits=inner_limits(reconstruction.rate[begun]),
        ),
        *_check_layers(reconstruction, source),
        *_path_layers(reconstruction, source),
        _layer(
            reconstruction,
            source,
            "uncertainty",
            spread,
            spread_unit(unit, statistic),
            mark={"statistic": statistic},
            **spread_look(spread[begun]),
        ),
        (
            *_layer(
                reconstruction,
                source,
                "untrusted pixels",
                (~reconstruction.valid).astype(np.uint8),
                "",
                opacity=0.5,
            )[:2],
            "labels",
        ),
        _layer(
            reconstruction,
            source,
            "reconstruction",
            reconstruction.mean,
            unit,
            visible=True,
            **look_of(reconstruction.mean[begun], unit),
        ),
    ]


def _factor(reconstruction: Reconstruction) -> float | None:
    """Half-width of the calibrated interval over the standard deviation.

    Returns None without a calibration.
    """
    calibration = reconstruction.provenance.model.get("calibration")
    return float(calibration["factor"]) if isinstance(calibration, Mapping) else None


def group_name(reconstruction: Reconstruction, source: Placement) -> str:
    """What all layers of one result share."""
    return f"{source.name} by {reconstruction.provenance.model['name']}"


def preview_layer_data(reconstruction: Reconstruction, source: Placement) -> LayerData:
    """One layer of a quick look at a part of one frame; it belongs to no result.

    A colour image keeps every axis of its source. Its axes then have the same units as those of the
    layers beside it.
    """
    values, axes = reconstruction.mean, reconstruction.axes
    if values.ndim > len("YX"):
        values = np.expand_dims(
            values, [number for number, letter in enumerate(source.axes) if letter not in axes]
        )
        axes = source.axes
    place = source.within(reconstruction.region).finer(axes, reconstruction.upsampling)
    metadata = {
        METADATA_KEY: {
            "role": "preview",
            "source": source.name,
            "unit": reconstruction.unit,
            "provenance": asdict(reconstruction.provenance),
        }
    }
    return (
        values,
        {
            "name": f"preview of {source.name}",
            "metadata": metadata,
            **place.keywords(),
            **look_of(values, reconstruction.unit),
        },
        "image",
    )


def look_of(values: np.ndarray, unit: str) -> dict[str, Any]:
    """Colour map and fixed contrast limits of a reconstruction.

    The colour map diverges about zero for a phase and is gray for counts.
    """
    if unit in SIGNED_UNITS:
        return {"colormap": phase_colormap(), "contrast_limits": symmetric_limits(values)}
    return {"colormap": "gray", "contrast_limits": inner_limits(values)}


def spread_look(values: np.ndarray) -> dict[str, Any]:
    """Colour map and fixed contrast limits of an uncertainty."""
    return {"colormap": "magma", "contrast_limits": limits_from_zero(values)}


def spread_unit(unit: str, statistic: str) -> str:
    """Unit of an uncertainty of values in `unit`."""
    return f"{unit}²" if statistic == "variance" else unit


def _schedule_layers(reconstruction: Reconstruction, source: Placement) -> list[LayerData]:
    """gamma and beta over time: computed when they are looked at, where the clock is known."""
    if not reconstruction.clock.times:
        return []
    from napari_cvdm.analysis.schedule_maps import schedule_maps, shown_ranges

    maps = schedule_maps(reconstruction.rate, reconstruction.clock)
    ranges = shown_ranges(reconstruction.rate, reconstruction.clock)
    return [
        _layer(
            reconstruction,
            source,
            role,
            values,
            "",
            colormap="viridis",
            contrast_limits=ranges[role],
        )
        for role, values in (("gamma", maps.gamma), ("beta", maps.beta))
    ]


def _sample_layers(reconstruction: Reconstruction, source: Placement) -> list[LayerData]:
    if reconstruction.samples is None:
        return []
    look = look_of(reconstruction.mean[reconstruction.counts > 0], reconstruction.unit)
    return [
        _layer(
            reconstruction, source, "samples", reconstruction.samples, reconstruction.unit, **look
        )
    ]


def _check_layers(reconstruction: Reconstruction, source: Placement) -> list[LayerData]:
    """Layers of what the reconstruction leaves unexplained, and where that exceeds noise.

    The residual of each plane is in standard deviations of the camera's noise.
    """
    check = reconstruction.forward
    if check is None or check.residual is None:
        return []
    planes = (
        [check.residual]
        if "P" not in check.axes
        else list(np.moveaxis(check.residual, check.axes.index("P"), 0))
    )
    coarse, look = (
        replace(reconstruction, upsampling=1),
        {"colormap": phase_colormap(), "contrast_limits": RESIDUAL_LIMITS},
    )
    roles, mark = (
        [
            RESIDUAL_ROLE,
            *(f"{RESIDUAL_ROLE} of plane {number}" for number in range(2, len(planes) + 1)),
        ],
        {"forward": check.numbers()},
    )
    layers = [
        _layer(coarse, source, role, plane, "sigma", mark=mark, **look)
        for role, plane in zip(roles, planes, strict=True)
    ]
    if check.local_chi2 is None:
        return layers
    look = {"colormap": chi2_colormap(), "contrast_limits": CHI2_LIMITS}
    return [*layers, _layer(coarse, source, CHI2_ROLE, check.local_chi2, "", mark=mark, **look)]


def _path_layers(reconstruction: Reconstruction, source: Placement) -> list[LayerData]:
    if reconstruction.unit != "rad":
        return []
    path = optical_path_nm(
        reconstruction.mean, float(str(reconstruction.provenance.settings["wavelength_um"]))
    )
    return [
        _layer(
            reconstruction,
            source,
            "optical path difference",
            path,
            "nm",
            **look_of(path[reconstruction.counts > 0], "nm"),
        )
    ]


def _layer(
    reconstruction: Reconstruction,
    source: Placement,
    role: str,
    values: np.ndarray,
    unit: str,
    *,
    visible: bool = False,
    mark: Mapping[str, Any] | None = None,
    **look: Any,
) -> LayerData:
    values, place = _placed(reconstruction, source, role, values)
    provenance = reconstruction.provenance
    marks = {
        "role": role,
        "group": group_name(reconstruction, source),
        "source": source.name,
        "unit": unit,
        "provenance": asdict(provenance),
        "clock": asdict(reconstruction.clock),
        "files": dict(source.files),
        **(mark or {}),
    }
    return (
        values,
        {
            "name": f"{role} of {source.name}",
            "visible": visible,
            "metadata": {METADATA_KEY: marks},
            **place.keywords(),
            **look,
        },
        "image",
    )


def placed_image(
    source: Placement, axes: str, upsampling: int, values: np.ndarray
) -> tuple[np.ndarray, Placement]:
    """An array and its placement.

    The result is a plain (Y, X) image, or has as many axes as the source. napari's sliders then
    agree.

    Parameters
    ----------
    source : Placement
        Of the measured image; the letters that are not among `axes` are merged.
    axes : str
        Of an image of the result, without a leading axis of times or samples.
    upsampling : int
    values : ndarray
        With one letter of `axes` for each dimension, or one more leading dimension.

    Returns
    -------
    tuple of ndarray and Placement
        A view of the array, and the placement of its last dimensions (not of a leading one).
    """
    source = replace(source, merged="".join(set(source.axes) - set(axes)))
    if values.ndim == len("YX") or not source.merged:
        return values, source.finer(axes, upsampling)
    leading = values.ndim - len(axes)
    return np.expand_dims(values, source.axes.index(source.merged) + leading), source.finer(
        source.axes, upsampling
    )


def _placed(
    reconstruction: Reconstruction, source: Placement, role: str, values: np.ndarray
) -> tuple[np.ndarray, Placement]:
    leading = values.ndim > len(reconstruction.axes)
    values, place = placed_image(source, reconstruction.axes, reconstruction.upsampling, values)
    if not leading:
        return values, place
    return values, place.with_leading("S", "sample") if role == "samples" else place.with_times(
        reconstruction.clock.times
    )
