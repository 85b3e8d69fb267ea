"""OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3) in: the finest level, with axes, pixel size and place."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dask.array as da

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io.errors import ImageFileError, one_line
from napari_cvdm.io.ngff import zarr_library
from napari_cvdm.io.ngff_limits import check_declared_sizes, size_limited
from napari_cvdm.io.pixel_size import length_um, position_um, square_pixel
from napari_cvdm.io.pixels import ordered_axes, usable_dtype

_UNNAMED = "QIARHE"


def open_ngff(path: Path) -> ImageStack:
    """The first image of an OME-Zarr folder, its pixels still on disk.

    Parameters
    ----------
    path : Path
        The folder of an image, or of a collection (``bioformats2raw.layout``). Of a collection,
        image ``0`` or the first one named is taken.

    Returns
    -------
    ImageStack
        Axes among T, C, Z, S and YX; a dask array with the file's chunks.

    Raises
    ------
    ImageFileError
        zarr is not installed, the folder is no OME-Zarr, the axes lack y or x, or the metadata
        declare more than the folder can hold.

    References
    ----------
    .. [1] Next-generation file format 0.4 and 0.5, https://ngff.openmicroscopy.org
    """
    zarr = zarr_library(path)
    try:
        group = zarr.open_group(str(path), mode="r")
        ome = _image_of(group)
        multiscale = ome[1]["multiscales"][0]
        dataset = multiscale["datasets"][0]
        stored = ome[0][dataset["path"]]
        check_declared_sizes(stored, path)
        axes = [
            axis if isinstance(axis, Mapping) else {"name": axis} for axis in multiscale["axes"]
        ]
        array, letters = ordered_axes(
            usable_dtype(da.from_zarr(size_limited(stored)), path.name), _letters(axes), path.name
        )
        scale, translation = _placed(
            [
                *dataset["coordinateTransformations"],
                *multiscale.get("coordinateTransformations", ()),
            ],
            len(axes),
        )
        return ImageStack(
            array=array,
            axes=letters,
            source=path.name,
            **_lengths(axes, scale, translation, path.name),
        )
    except ImageFileError:
        raise
    except Exception as error:  # zarr lets through whatever damaged metadata make happen
        raise ImageFileError(
            f"{path}: cannot be read as OME-Zarr 0.4 or 0.5 ({one_line(error)}). Give the folder "
            "that ends in .ome.zarr."
        ) from error


def _image_of(group: Any) -> tuple[Any, Mapping[str, Any]]:
    """The group of the first image, and its metadata: under ``ome`` in 0.5, at the top in 0.4."""
    found = group.attrs.get("ome", dict(group.attrs))
    if "multiscales" in found:
        return group, found
    series = (
        group["OME"].attrs.get("ome", dict(group["OME"].attrs)).get("series", ["0"])
        if "OME" in group
        else ["0"]
    )
    return _image_of(group[series[0]])


def _letters(axes: Sequence[Mapping[str, Any]]) -> str:
    names = [str(axis["name"]).upper() for axis in axes]
    free = iter(_UNNAMED)
    return "".join(name if name in ("T", "C", "Z", "Y", "X") else next(free) for name in names)


def _placed(
    transformations: Sequence[Mapping[str, Any]], dimensions: int
) -> tuple[list[float], list[float]]:
    """Scale and translation of all transformations, applied in turn."""
    scale, translation = [1.0] * dimensions, [0.0] * dimensions
    for step in transformations:
        if step["type"] == "scale":
            scale = [one * factor for one, factor in zip(scale, step["scale"], strict=True)]
            translation = [
                one * factor for one, factor in zip(translation, step["scale"], strict=True)
            ]
        elif step["type"] == "translation":
            translation = [
                one + shift for one, shift in zip(translation, step["translation"], strict=True)
            ]
    return scale, translation


def _lengths(
    axes: Sequence[Mapping[str, Any]],
    scale: Sequence[float],
    translation: Sequence[float],
    source: str,
) -> dict[str, Any]:
    """Pixel size, and where the image lies, of axes that have a unit of length."""
    by_name = {
        str(axis["name"]).lower(): (axis.get("unit"), size, start)
        for axis, size, start in zip(axes, scale, translation, strict=True)
    }
    unit_y, size_y, _ = by_name["y"]
    unit_x, size_x, _ = by_name["x"]
    place = {f"{name}_um": position_um(by_name[name][2], by_name[name][0]) for name in "yx"}
    if "z" in by_name:
        place["z_step_um"] = position_um(by_name["z"][1], by_name["z"][0])
    pixel_um = square_pixel(length_um(size_x, unit_x), length_um(size_y, unit_y), source)
    return {
        "pixel_um": pixel_um,
        "place": {name: value for name, value in place.items() if value is not None},
    }
