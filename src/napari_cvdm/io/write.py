"""Images as OME-TIFF with pixel size, position, units and notes; results as float32."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import tifffile

from napari_cvdm.io.atomic import clear_leftovers, complete_file
from napari_cvdm.io.axes import sha256_of
from napari_cvdm.io.errors import ImageFileError

_ALLOWED = "STCZPKYX"
# OME knows T, Z and C. Posterior samples are its "other" axis (Q). Planes are a Z, and schedule
# times are a T, where those are free.
_OME_LETTERS = {"S": "Q", "P": "ZQ", "K": "TQ"}
_MEANING = {"S": "posterior sample", "P": "defocus plane", "K": "schedule time"}


def write_image(
    path: str | Path,
    array: np.ndarray,
    *,
    axes: str,
    pixel_um: float | None,
    unit: str,
    name: str,
    offset_um: tuple[float, float] = (0.0, 0.0),
    z_step_um: float | None = None,
    t_step_s: float | None = None,
    z_um: float | None = None,
    channels: Sequence[str] = (),
    times: Sequence[float] | None = None,
    dtype: type[np.generic] | np.dtype = np.float32,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write an image as OME-TIFF; the file appears when it is complete.

    Parameters
    ----------
    path : str or Path
        File to write, ending in ``.tif`` or ``.tiff``; replaced if it exists.
    array : ndarray of shape (..., Y, X)
        Pixels.
    axes : str
        One letter for each dimension, ending in YX: T, C, Z, S (posterior sample), P (defocus
        plane), K (schedule time). `read_image` returns S, T, C and Z as they are. It returns P as Z
        and K as T where those letters are free, else as S.
    pixel_um : float or None
        Pixel size of this array [um].
    unit : str
        Unit of the values, such as ``rad`` or ``counts``.
    name : str
        What the values are, such as ``mean``.
    offset_um : tuple of float
        Position (y, x) of the centre of the first pixel [um].
    z_step_um : float, optional
        Distance of the planes along Z [um].
    t_step_s : float, optional
        Time between frames along T [s].
    z_um : float, optional
        Position of the first plane along Z [um].
    channels : sequence of str
        Names along C, where there is one for each.
    times : sequence of float, optional
        The schedule times along K.
    dtype : dtype
        Of the stored pixels: an integer of 8 to 32 bits, or a float of 32 or 64.
    notes : mapping of str to str, optional
        More entries for the file's map annotation, which holds ``axes`` and ``value_unit``.

    Raises
    ------
    ImageFileError
        Axes that do not fit, a name that is no TIFF, or a disk that is full or may not be written
        to. Nothing is left then, and an older file stays as it was.
    """
    path = Path(path)
    _check(path, array, axes, times)
    # Axes of length 1 need no letter of OME's, which has few.
    kept = [index for index, letter in enumerate(axes) if letter in "YX" or array.shape[index] > 1]
    pixels = np.ascontiguousarray(
        array.reshape([array.shape[index] for index in kept]), dtype=dtype
    )
    pixels, ome_axes, meaning = _ome_axes(pixels, "".join(axes[index] for index in kept), path)
    metadata = _ome_metadata(
        pixels.shape, ome_axes, pixel_um, unit, name, offset_um, z_step_um, z_um
    )
    if "C" in ome_axes and len(channels) == pixels.shape[ome_axes.index("C")]:
        metadata["Channel"] = {"Name": [f"{name} [{unit}] {channel}" for channel in channels]}
    if t_step_s is not None and "T" in ome_axes:
        metadata |= {"TimeIncrement": float(t_step_s), "TimeIncrementUnit": "s"}
    if meaning:
        metadata["TypeDescription"] = {"Q": meaning}
    schedule = {"schedule_times": " ".join(map(str, times))} if times is not None else {}
    metadata["MapAnnotation"] = {**(notes or {}), "axes": axes, "value_unit": unit, **schedule}
    # The same pixels under the same name give the same bytes. tifffile would take an identifier
    # from the clock.
    metadata["UUID"] = str(uuid5(NAMESPACE_URL, f"{sha256_of(pixels)} {metadata}"))
    clear_leftovers(path.parent)
    with complete_file(path) as file:
        tifffile.imwrite(file, pixels, ome=True, photometric="minisblack", metadata=metadata)


def _check(path: Path, array: np.ndarray, axes: str, times: Sequence[float] | None) -> None:
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise ImageFileError(
            f"{path}: only OME-TIFF is written; choose a name that ends in .ome.tif."
        )
    if (
        len(axes) != array.ndim
        or not axes.endswith("YX")
        or len(set(axes)) != len(axes)
        or not set(axes) <= set(_ALLOWED)
    ):
        raise ImageFileError(
            f"{path}: axes {axes!r} do not fit an array of shape {array.shape}; letters of "
            f"{_ALLOWED}, each once, ending in YX."
        )
    if array.size == 0 or array.dtype.kind not in "buif":
        raise ImageFileError(
            f"{path}: an array of shape {array.shape} and type {array.dtype} cannot be written; "
            "real pixels are needed."
        )
    points = array.shape[axes.index("K")] if "K" in axes else None
    if times is not None and len(times) != points:
        raise ImageFileError(
            f"{path}: {len(times)} times for {points or 'no'} points along K; one time for each "
            "point is needed."
        )


def _ome_axes(pixels: np.ndarray, axes: str, path: Path) -> tuple[np.ndarray, str, str]:
    """Letters that OME has, and what its letter Q means here."""
    letters, meaning = list(axes), ""
    for index, letter in enumerate(axes):
        if letter in _OME_LETTERS:
            free = (other for other in _OME_LETTERS[letter] if other not in letters)
            letters[index] = next(free, "")
            meaning = _MEANING[letter] if letters[index] == "Q" else meaning
    if "" in letters:
        raise ImageFileError(
            f"{path}: OME-TIFF cannot hold the axes {axes}; write one file for each sample or "
            "plane."
        )
    # With all three, Q must follow an axis that it shares in the file.
    if letters[0] == "Q" and {"T", "Z", "C"} <= set(letters):
        pixels, letters = np.moveaxis(pixels, 0, 1), [letters[1], "Q", *letters[2:]]
    return pixels, "".join(letters), meaning


def _ome_metadata(
    shape: tuple[int, ...],
    axes: str,
    pixel_um: float | None,
    unit: str,
    name: str,
    offset_um: tuple[float, float],
    z_step_um: float | None,
    z_um: float | None,
) -> dict[str, object]:
    planes = int(np.prod(shape[:-2]))
    plane: dict[str, list[float] | list[str]] = {
        "PositionX": [float(offset_um[1])] * planes,
        "PositionXUnit": ["µm"] * planes,
        "PositionY": [float(offset_um[0])] * planes,
        "PositionYUnit": ["µm"] * planes,
    }
    if z_um is not None and "Z" in axes:
        # OME has no other place for the first height, and none for the sign of the step.
        numbers = np.indices(shape[:-2])[axes.index("Z")].ravel()
        plane["PositionZ"] = [float(z_um + number * (z_step_um or 0.0)) for number in numbers]
        plane["PositionZUnit"] = ["µm"] * planes
    channels = shape[axes.index("C")] if "C" in axes else 1
    label = f"{name} [{unit}]"
    names = [label] if channels == 1 else [f"{label} {number}" for number in range(channels)]
    metadata: dict[str, object] = {
        "axes": axes,
        "Name": label,
        "Description": f"{name}, pixel values in {unit}",
        "Channel": {"Name": names},
        "Plane": plane,
    }
    z_side = None if z_step_um is None else abs(z_step_um)
    for letter, size in (("X", pixel_um), ("Y", pixel_um), ("Z", z_side)):
        if size is not None:
            metadata |= {f"PhysicalSize{letter}": float(size), f"PhysicalSize{letter}Unit": "µm"}
    return metadata
