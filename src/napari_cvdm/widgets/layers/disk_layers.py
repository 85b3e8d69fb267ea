"""Results on disk as layers that are read part by part, in the resolution that the screen needs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_cvdm.io.limits import parse_json_object
from napari_cvdm.io.result_folder import PROVENANCE
from napari_cvdm.io.zarr_write import open_pyramid
from napari_cvdm.widgets.layers.contrast import inner_limits
from napari_cvdm.widgets.layers.layer_data import (
    METADATA_KEY,
    LayerData,
    look_of,
    placed_image,
    spread_look,
)
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.reconstruction import Run

ORDER = ("samples", "rate", "std", "valid", "mean")  # the one to look at lies on top
ROLES = {
    "samples": "samples",
    "rate": "noise-rate map",
    "std": "uncertainty",
    "valid": "untrusted pixels",
    "mean": "reconstruction",
}


def disk_layer_data(path: Path, images: Sequence[str], run: Run) -> list[LayerData]:
    """Layers of a result that was written block by block.

    Parameters
    ----------
    path : Path
        An OME-Zarr collection of `reconstruct_by_blocks`.
    images : sequence of str
        Its groups: mean, std, rate, valid, and samples where they were kept.
    run : Run
        The run that was asked for. It says where the layers lie.

    Returns
    -------
    list of (data, keywords, layer type)
        Lazy arrays, with several resolutions where the image is large. All but the reconstruction
        are hidden at first. They lie where the measured layer lies.
    """
    return [_layer(path, name, run) for name in ORDER if name in images]


def _layer(path: Path, name: str, run: Run) -> LayerData:
    unit = run.unit if name in ("mean", "std", "samples") else ""
    levels, place = _placed(open_pyramid(path, name), name, run)
    shown = [(level == 0).astype(np.uint8) for level in levels] if name == "valid" else levels
    look = _look(name, levels[-1], unit)
    mark = {
        "role": f"{ROLES[name]} on disk",
        "source": run.place.name,
        "unit": unit,
        "file": str(path / name),
        "provenance": _provenance(path),
    }
    keywords = {
        "name": f"{ROLES[name]} of {run.place.name} ({path.name})",
        "visible": name == "mean",
        "metadata": {METADATA_KEY: mark},
    }
    keywords |= {**place.keywords(), **look, "multiscale": len(shown) > 1}
    return shown if len(shown) > 1 else shown[0], keywords, "labels" if name == "valid" else "image"


def _placed(levels: Sequence[Any], name: str, run: Run) -> tuple[list[Any], Placement]:
    """Levels with the axes of the layer, those of length 1 too, and where the finest one lies."""
    image = run.request.image
    loops = tuple(
        size
        for size, letter in zip(image.array.shape, image.axes, strict=True)
        if letter not in "PYX"
    )
    leading = (levels[0].shape[0],) if name == "samples" else ()
    axes = image.axes.replace("P", "")
    placed = [
        placed_image(
            run.place, axes, run.upsampling, level.reshape((*leading, *loops, *level.shape[-2:]))
        )
        for level in levels
    ]
    place = placed[0][1]
    return [level for level, _ in placed], place.with_leading("S", "sample") if leading else place


def _look(name: str, coarsest: Any, unit: str) -> dict[str, Any]:
    """Colours and contrast, from the first frame in its coarsest resolution."""
    if name == "valid":
        return {"opacity": 0.5}
    first = np.asarray(coarsest[(0,) * (coarsest.ndim - 2)])
    if name == "std":
        return spread_look(first)
    return (
        {"colormap": "viridis", "contrast_limits": inner_limits(first)}
        if name == "rate"
        else look_of(first, unit)
    )


def _provenance(path: Path) -> Mapping[str, Any]:
    return parse_json_object((path / PROVENANCE).read_bytes())
