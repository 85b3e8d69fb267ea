"""A reconstruction as files: OME-TIFF images and ``provenance.json``."""

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from napari_cvdm.core.result import Reconstruction
from napari_cvdm.io import write_image
from napari_cvdm.io.result_folder import ENDING, LOCAL_CHI2, PROVENANCE, RESIDUAL
from napari_cvdm.models.schedule import gamma_and_beta

NO_UNIT = "dimensionless"


def images_of(reconstruction: Reconstruction) -> Iterator[tuple[str, np.ndarray, str, str]]:
    """Name, pixels, axes and unit of everything that is written as an image.

    Parameters
    ----------
    reconstruction : Reconstruction

    Yields
    ------
    tuple
        For example ``("mean", array of shape (T, Y, X), "TYX", "rad")``.
        ``valid`` is 1 where the result can be trusted, else 0.
    """
    axes, unit = reconstruction.axes, reconstruction.unit
    yield "mean", reconstruction.mean, axes, unit
    yield "std", reconstruction.std, axes, unit
    yield "variance", reconstruction.variance, axes, f"{unit}^2"
    if reconstruction.interval is not None:
        yield "interval", reconstruction.interval, axes, unit
    yield "rate", reconstruction.rate, axes, NO_UNIT
    yield "valid", reconstruction.valid, axes, NO_UNIT
    if reconstruction.schedule_clock.times:
        gamma, beta = gamma_and_beta(reconstruction.rate, reconstruction.schedule_clock)
        yield "gamma", gamma, "K" + axes, NO_UNIT
        yield "beta", beta, "K" + axes, NO_UNIT
    if reconstruction.samples is not None:
        yield "samples", reconstruction.samples, "S" + axes, unit


def first_pixel_um(
    reconstruction: Reconstruction, place: Mapping[str, float]
) -> tuple[float, float]:
    """Position (y, x) of the centre of the first output pixel [um]; an unknown input position is 0.

    A finer grid starts half a pixel before that of the input.
    """
    shift = -(reconstruction.upsampling - 1) / 2 * reconstruction.pixel_um
    top, _, left, _ = reconstruction.region or (0, 0, 0, 0)
    pixel_um = reconstruction.pixel_um * reconstruction.upsampling
    return place.get("y_um", 0.0) + top * pixel_um + shift, place.get(
        "x_um", 0.0
    ) + left * pixel_um + shift


def write_images(
    folder: Path, reconstruction: Reconstruction, place: Mapping[str, float]
) -> list[str]:
    """Write every image of a reconstruction as float32 OME-TIFF.

    Parameters
    ----------
    folder : Path
        An existing folder.
    reconstruction : Reconstruction
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
    for name, pixels, axes, unit in images_of(reconstruction):
        write_image(
            folder / f"{name}{ENDING}",
            pixels,
            axes=axes,
            pixel_um=reconstruction.pixel_um,
            unit=unit,
            name=name,
            offset_um=first_pixel_um(reconstruction, place),
            z_step_um=place.get("z_step_um") if "Z" in axes else None,
            times=reconstruction.schedule_clock.times if "K" in axes else None,
        )
        names.append(f"{name}{ENDING}")
    return [*names, *_write_check(folder, reconstruction, place)]


def _write_check(
    folder: Path, reconstruction: Reconstruction, place: Mapping[str, float]
) -> list[str]:
    """Write the residual of the forward check and its local chi-squared, on the camera's grid.

    Nothing is written where they are not known.
    """
    check = reconstruction.forward
    if check is None:
        return []
    pixel_um = reconstruction.pixel_um * reconstruction.upsampling
    top, _, left, _ = reconstruction.region or (0, 0, 0, 0)
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
    reconstruction: Reconstruction,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Any],
    timings_s: Mapping[str, float],
    device: str,
) -> None:
    """Write ``provenance.json``: everything needed to make the same pixels again.

    Parameters
    ----------
    folder : Path
    reconstruction : Reconstruction
    settings : mapping
        Every option by its name. They take precedence over those of the reconstruction, which add
        what was left out.
    inputs : mapping
        Path and SHA-256 of every file, by option.
    timings_s : mapping
        Seconds by stage.
    device : str
        The device that was used in the end.
    """
    provenance = asdict(reconstruction.provenance)
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
            "unit": reconstruction.unit,
            "axes": reconstruction.axes,
            "pixel_um": reconstruction.pixel_um,
            "times": reconstruction.schedule_clock.times,
            "clock": asdict(reconstruction.clock),
            "counts": reconstruction.counts.tolist(),
        },
        "forward": None if reconstruction.forward is None else reconstruction.forward.numbers(),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    # The name of a file may be no UTF-8.
    (folder / PROVENANCE).write_text(text, encoding="utf-8", errors="replace")
