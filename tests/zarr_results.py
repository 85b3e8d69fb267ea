"""OME-Zarr images as tests make them and look at them."""

from pathlib import Path

import numpy as np
import zarr

from napari_cvdm.core.request import ImageStack

WHOLE_HALO = 64  # more than the tiny networks see in three evaluations


def image_in(path: Path, name: str, level: int = 0) -> np.ndarray:
    return np.asarray(zarr.open_array(str(path / name / str(level)), mode="r"))


def stored(path: Path) -> dict[str, bytes]:
    """All that readers see: every file but the notes on the run."""
    files = (
        file
        for file in sorted(path.rglob("*"))
        if file.is_file() and ".napari-cvdm" not in file.parts and file.name != "provenance.json"
    )
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def ngff_image(path: Path, image: ImageStack, version: str) -> Path:
    """A measured image as another program writes it, in small chunks.

    It is OME-Zarr 0.4 (Zarr 2) or 0.5 (Zarr 3).
    """
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    chunks = (1,) * (image.array.ndim - 2) + (48, 56)
    group.create_array("0", data=image.array, chunks=chunks)
    axes = [
        {"name": letter.lower(), "type": "space", "unit": "micrometer"} for letter in image.axes
    ]
    scale = {"type": "scale", "scale": [image.pixel_um] * len(axes)}
    multiscales = [
        {
            "version": version,
            "name": "i",
            "axes": axes,
            "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
        }
    ]
    group.attrs.update(
        {"multiscales": multiscales}
        if version == "0.4"
        else {"ome": {"version": version, "multiscales": multiscales}}
    )
    return path
