"""A restoration as files: OME-TIFF images and ``provenance.json``."""

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from napari_cvdm.core.result import Restoration
from napari_cvdm.io import write_image
from napari_cvdm.io.result_folder import ENDING, LOCAL_CHI2, PROVENANCE, RESIDUAL

NO_UNIT = "dimensionless"


def images_of(restoration: Restoration) -> Iterator[tuple[str, np.ndarray, str, str]]:
    """Name, pixels, axes and unit of everything that is written as an image.

    Parameters
    ----------
    restoration : Restoration

    Yields
    ------
    tuple
        For example ``("mean", array of shape (T, Y, X), "TYX", "rad")``.
        ``valid`` is 1 where the result can be trusted, else 0.
    """
    axes, unit = restoration.axes, restoration.unit
    yield "mean", restoration.mean, axes, unit
    yield "std", restoration.std, axes, unit
    yield "variance", restoration.variance, axes, f"{unit}^2"
    if restoration.interval is not None:
        yield "interval", restoration.interval, axes, unit
    yield "rate", restoration.rate, axes, NO_UNIT
    yield "valid", restoration.valid, axes, NO_UNIT
    if restoration.gamma is not None and restoration.beta is not None:
        yield "gamma", restoration.gamma, "K" + axes, NO_UNIT
        yield "beta", restoration.beta, "K" + axes, NO_UNIT
    if restoration.samples is not None:
        yield "samples", restoration.samples, "S" + axes, unit


def first_pixel_um(restoration: Restoration, place: Mapping[str, float]) -> tuple[float, float]:
    """Position (y, x) of the centre of the first output pixel [um]; an unknown input position is 0.

    A finer grid starts half a pixel before that of the input.
    """
    shift = -(restoration.upsampling - 1) / 2 * restoration.pixel_um
    top, _, left, _ = restoration.region or (0, 0, 0, 0)
    pixel_um = restoration.pixel_um * restoration.upsampling
    return place.get("y_um", 0.0) + top * pixel_um + shift, place.get(
        "x_um", 0.0
    ) + left * pixel_um + shift


def write_images(folder: Path, restoration: Restoration, place: Mapping[str, float]) -> list[str]:
    """Write every image of a restoration as float32 OME-TIFF.

    Parameters
    ----------
    folder : Path
        An existing folder.
    restoration : Restoration
    place : mapping
        Of the input, see `ImageStack`.

    Returns
    -------
    list of str
        Names of the files.

    Raises
    ------
    ImageFileError
        The disk is full, or the folder may not be written to.
    """
    names = []
    for name, pixels, axes, unit in images_of(restoration):
        write_image(
            folder / f"{name}{ENDING}",
            pixels,
            axes=axes,
            pixel_um=restoration.pixel_um,
            unit=unit,
            name=name,
            offset_um=first_pixel_um(restoration, place),
            z_step_um=place.get("z_step_um") if "Z" in axes else None,
            times=restoration.times if "K" in axes else None,
        )
        names.append(f"{name}{ENDING}")
    return [*names, *_write_check(folder, restoration, place)]


def _write_check(folder: Path, restoration: Restoration, place: Mapping[str, float]) -> list[str]:
    """Write the residual of the forward check and its local chi-squared, on the camera's grid.

    Nothing is written where they are not known.
    """
    check = restoration.forward
    if check is None:
        return []
    pixel_um = restoration.pixel_um * restoration.upsampling
    top, _, left, _ = restoration.region or (0, 0, 0, 0)
    images = {
        RESIDUAL: (check.residual, check.axes),
        LOCAL_CHI2: (check.local_chi2, check.axes.replace("P", "")),
    }
    known = {name: (pixels, axes) for name, (pixels, axes) in images.items() if pixels is not None}
    for name, (pixels, axes) in known.items():
        write_image(
            folder / f"{name}{ENDING}",
            pixels,
            axes=axes,
            pixel_um=pixel_um,
            unit=NO_UNIT,
            name=name,
            offset_um=(
                place.get("y_um", 0.0) + top * pixel_um,
                place.get("x_um", 0.0) + left * pixel_um,
            ),
            z_step_um=place.get("z_step_um") if "Z" in axes else None,
        )
    return [f"{name}{ENDING}" for name in known]


def write_provenance(
    folder: Path,
    restoration: Restoration,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Any],
    timings_s: Mapping[str, float],
    device: str,
) -> None:
    """Write ``provenance.json``: everything needed to make the same pixels again.

    Parameters
    ----------
    folder : Path
    restoration : Restoration
    settings : mapping
        Every option by its name. They take precedence over those of the restoration, which add what
        was left out.
    inputs : mapping
        Path and SHA-256 of every file, by option.
    timings_s : mapping
        Seconds by stage.
    device : str
        The device that was used in the end.
    """
    provenance = asdict(restoration.provenance)
    machine = {"device": device, "platform": platform.platform(), "processor": platform.machine()}
    record = {
        **provenance,
        "inputs": dict(inputs),
        "pixels_sha256": provenance["inputs"],
        "settings": {**provenance["settings"], **settings},
        "versions": {"python": platform.python_version(), **provenance["versions"]},
        "machine": machine,
        "timings_s": {name: round(seconds, 3) for name, seconds in timings_s.items()},
        "output": {
            name: getattr(restoration, name) for name in ("unit", "axes", "pixel_um", "times")
        }
        | {"clock": asdict(restoration.clock), "counts": restoration.counts.tolist()},
        "forward": None if restoration.forward is None else restoration.forward.numbers(),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    # The name of a file may be no UTF-8.
    (folder / PROVENANCE).write_text(text, encoding="utf-8", errors="replace")
