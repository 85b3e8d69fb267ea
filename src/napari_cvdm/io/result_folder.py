"""A folder of results read back into the `Reconstruction` that was written there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_cvdm.core.request import ImageStack
from napari_cvdm.core.result import (
    NUMBERS,
    ClockCurve,
    ForwardCheck,
    Provenance,
    Reconstruction,
)
from napari_cvdm.io.errors import ImageFileError, one_line
from napari_cvdm.io.limits import parse_json_object, read_bounded
from napari_cvdm.io.read import read_image
from napari_cvdm.io.tiff import read_annotation
from napari_cvdm.io.zarr_write import NOTES_KEY

PROVENANCE = "provenance.json"
ENDING = ".ome.tif"
RESIDUAL = "residual"
LOCAL_CHI2 = "chi2"
TRUTH = "truth"  # the role of a simulated truth, which is no result
_PROGRAM = "napari-cvdm"
_IMAGES = (
    *("mean", "std", "variance", "interval", "rate", "valid", "gamma", "beta", "samples"),
    *(RESIDUAL, LOCAL_CHI2),
)
_NEEDED = ("mean", "variance", "rate", "valid")
# What a record raises in which parts are missing or have another type.
_DAMAGES = (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredResult:
    """A result folder's content, and what is known of the measured image."""

    reconstruction: Reconstruction
    source: str  # name of the measured image
    # z_step_um, and y_um, x_um of the centre of its first pixel, where known; see `ImageStack`.
    place: Mapping[str, float] = field(default_factory=dict)
    # Positions of the defocus planes, if one file held all of them.
    planes_um: tuple[float, ...] | None = None
    files: Mapping[str, str] = field(default_factory=dict)  # by option of the command line
    channels: tuple[str, ...] = ()  # names; empty where they have none


def is_result_folder(path: str | Path) -> bool:
    """Whether a folder says that this program filled it, be it whole or damaged."""
    folder = Path(path)
    if not (folder / PROVENANCE).is_file():
        return False
    try:
        versions = _record(folder).get("versions")
        return isinstance(versions, dict) and _PROGRAM in versions
    except ImageFileError:  # cut short: ours if the images beside it are
        return any((folder / f"{name}{ENDING}").exists() for name in _NEEDED)


def image_notes(path: str | Path, series: int | None = None) -> dict[str, Any]:
    """What this program noted of an image that it wrote; ``role`` and ``source`` of a result.

    `path` is that of a result folder or an image in it, of an OME-TIFF, or of an OME-Zarr, and
    `series` counts the images of an OME-Zarr from 1. The notes of any other image are empty.
    """
    path = Path(path)
    name = path.name.removesuffix(ENDING)
    try:
        if is_result_folder(path):
            return _notes_of_record(path, "result")
        if name in _IMAGES and is_result_folder(path.parent):
            return _notes_of_record(path.parent, name)
        if path.is_dir():
            return _zarr_notes(path, series)
        is_tiff = path.suffix.lower() in (".tif", ".tiff") and path.is_file()
        return read_annotation(path, NOTES_KEY) if is_tiff else {}
    except (OSError, ValueError):  # a name that the system does not take
        return {}


def _notes_of_record(folder: Path, role: str) -> dict[str, Any]:
    try:
        record = _record(folder)
        files = [str(entry["path"]) for entry in record["inputs"].values() if "path" in entry]
        return {"role": role, "source": ", ".join(files or record["pixels_sha256"])}
    except (ImageFileError, *_DAMAGES):  # cut short
        return {"role": role, "source": ""}


def _zarr_notes(folder: Path, series: int | None) -> dict[str, Any]:
    """Notes of an image in an OME-Zarr 0.5."""
    try:
        known = _attributes(folder)
        if NOTES_KEY not in known and (folder / "OME").is_dir():
            names = _attributes(folder / "OME")["ome"]["series"]
            known = _attributes(folder / names[(series or 1) - 1])
        return dict(known[NOTES_KEY])
    except (OSError, *_DAMAGES):
        return {}


def _attributes(group: Path) -> dict[str, Any]:
    return dict(parse_json_object(read_bounded(group / "zarr.json"))["attributes"])


def check_measured(paths: Sequence[str | Path], series: int | None = None) -> None:
    """Raise ImageFileError where an image is a result: it is not reconstructed a second time."""
    for path in paths:
        notes = image_notes(path, series)
        if notes.get("role") not in (None, TRUTH):
            named = f" ({notes['source']})" if notes.get("source") else ""
            raise ImageFileError(
                f"{path}: is a result of napari-cvdm ({notes['role']}), not a measured image. "
                f"Reconstruct the original image, which its provenance names{named}."
            )


def read_result_folder(path: str | Path) -> StoredResult:
    """Read what ``napari-cvdm restore`` wrote: ``provenance.json`` and the images beside it.

    Pixels are as they were written, bit for bit. Raises ImageFileError where it is no such folder,
    or has a file that is missing, cut short or of another shape than the rest.
    """
    folder = Path(path)
    if not is_result_folder(folder):
        raise ImageFileError(
            f"{folder}: is no result of napari-cvdm (no {PROVENANCE} of it); choose a folder that "
            "`napari-cvdm restore` made."
        )
    record = _record(folder)
    try:
        return _stored(folder, record)
    except ImageFileError:
        raise
    except _DAMAGES as error:
        raise ImageFileError(
            f"{folder}: {PROVENANCE} lacks what a result has ({type(error).__name__}: "
            f"{one_line(error)}). Reconstruct the image again."
        ) from error


def _record(folder: Path) -> dict[str, Any]:
    try:
        return parse_json_object(read_bounded(folder / PROVENANCE))
    except (OSError, ValueError) as error:
        raise ImageFileError(
            f"{folder}: {PROVENANCE} cannot be read, it may be cut short. Copy the folder again, "
            "or reconstruct the image again."
        ) from error


def _stored(folder: Path, record: Mapping[str, Any]) -> StoredResult:
    output, settings, inputs = record["output"], record["settings"], record["inputs"]
    axes, pixel_um, clock = output["axes"], float(output["pixel_um"]), output["clock"]
    mean = _image(folder, "mean")
    # The settings hold the pixel of the measured image, the output that of the result.
    upsampling = round(float(settings["pixel_um"]) / pixel_um)
    sizes = dict(zip(mean.axes, mean.array.shape, strict=True))
    shape = tuple(sizes.get(letter, 1) for letter in axes)  # files drop axes of length 1
    planes = len(settings.get("defocus_um") or (0.0,))
    has_samples = (folder / f"samples{ENDING}").exists()
    region = settings.get("region")
    reconstruction = Reconstruction(
        mean=_pixels(folder, "mean", shape, mean),
        variance=_pixels(folder, "variance", shape),
        rate=_pixels(folder, "rate", shape),
        valid=_pixels(folder, "valid", shape) > 0,
        axes=axes,
        unit=output["unit"],
        pixel_um=pixel_um,
        upsampling=upsampling,
        provenance=_provenance(record),
        clock=ClockCurve(**{name: tuple(clock[name]) for name in ("times", "values", "speeds")}),
        samples=_pixels(folder, "samples", shape, leading=True) if has_samples else None,
        counts=np.array(output["counts"], dtype=int),
        region=tuple(region) if region else None,
        forward=_forward(folder, record["forward"], {**sizes, "P": planes}, upsampling),
    )
    return StoredResult(
        reconstruction=reconstruction,
        source=next(iter(reconstruction.provenance.inputs)),
        place=place_of_source(mean.place, pixel_um, upsampling, reconstruction.region),
        files={
            role: str(entry["path"])
            for role, entry in inputs.items()
            if isinstance(entry, Mapping) and "path" in entry
        },
        channels=_channels_of(mean, f"mean [{output['unit']}] "),
        planes_um=None
        if "image2" in inputs
        else reconstruction.provenance.settings.get("defocus_um"),  # type: ignore[arg-type]
    )


def _channels_of(image: ImageStack, before: str) -> tuple[str, ...]:
    """Names of channels without what the writer puts before each; it numbers those without one."""
    names = tuple(name.removeprefix(before) for name in image.channels)
    unnamed = "C" not in image.axes or names == tuple(map(str, range(len(names))))
    return () if unnamed else names


def _image(folder: Path, name: str) -> ImageStack:
    path = folder / f"{name}{ENDING}"
    if not path.exists():
        raise ImageFileError(
            f"{folder}: {path.name} is missing, so the result is not whole. Copy the folder again, "
            "or reconstruct the image again."
        )
    return read_image(path)


def _pixels(
    folder: Path,
    name: str,
    shape: tuple[int, ...],
    stack: ImageStack | None = None,
    *,
    leading: bool = False,
) -> np.ndarray:
    """Pixels in the shape that was written, of an image that may be read already.

    `leading` tells that one more axis stands before the shape.
    """
    stack = stack or _image(folder, name)
    array = stack.array
    # OME puts its other axis behind the one it shares.
    if leading and "S" in stack.axes and array.ndim > len(shape):
        array = np.moveaxis(array, stack.axes.index("S"), 0)
    wanted = (max(1, array.size // int(np.prod(shape))), *shape) if leading else shape
    if [size for size in array.shape if size > 1] != [size for size in wanted if size > 1]:
        raise ImageFileError(
            f"{folder}: {name}{ENDING} has the shape {array.shape}, which does not fit the mean's "
            f"{shape}; it is from another result."
        )
    return array.reshape(wanted)


def _provenance(record: Mapping[str, Any]) -> Provenance:
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in record["settings"].items()
    }
    same = {name: record[name] for name in ("model", "estimated", "versions", "timings_s")}
    return Provenance(
        inputs=record["pixels_sha256"],
        settings=settings,
        origins=dict(record.get("origins", {})),
        warnings=tuple(record["warnings"]),
        quantitative=bool(record["quantitative"]),
        not_quantitative_because=tuple(record["not_quantitative_because"]),
        quality_flag=str(record["quality_flag"]),
        quality_reasons=tuple(record["quality_reasons"]),
        **same,
    )


def _forward(
    folder: Path, said: Mapping[str, Any] | None, sizes: Mapping[str, int], upsampling: int
) -> ForwardCheck | None:
    """The check against the measured image, where one was made."""
    if said is None:
        return None
    numbers: dict[str, Any] = {name: said[name] for name in NUMBERS}
    numbers |= {name: np.array(said[name], dtype=float) for name in ("frame_chi2", "sample_chi2")}
    axes = numbers["axes"]
    if not axes:
        return ForwardCheck(**numbers)
    coarse = {**sizes, "Y": sizes["Y"] // upsampling, "X": sizes["X"] // upsampling}
    planes, frames = (
        tuple(coarse.get(letter, 1) for letter in letters)
        for letters in (axes, axes.replace("P", ""))
    )
    has_chi2 = (folder / f"{LOCAL_CHI2}{ENDING}").exists()
    return ForwardCheck(
        residual=_pixels(folder, RESIDUAL, planes),
        local_chi2=_pixels(folder, LOCAL_CHI2, frames) if has_chi2 else None,
        **numbers,
    )


def place_of_source(
    place: Mapping[str, float],
    pixel_um: float,
    upsampling: int,
    region: tuple[int, int, int, int] | None,
) -> dict[str, float]:
    """Position of the measured image, from that of the result.

    The centre of a coarse pixel is that of the fine pixels in it. A part begins at its own first
    pixel.
    """
    top, _, left, _ = region or (0, 0, 0, 0)
    first = {"y_um": top, "x_um": left}
    shift = (upsampling - 1) / 2 * pixel_um
    return {
        name: value + (shift - first[name] * pixel_um * upsampling if name in first else 0.0)
        for name, value in place.items()
    }
