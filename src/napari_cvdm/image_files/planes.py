"""Two defocused planes as one stack."""

from dataclasses import replace

import numpy as np

from napari_cvdm.image_files.errors import ImageFileError
from napari_cvdm.request import ImageStack

_LIKELY_PLANE_AXES = "PZSCT"
_PIXEL_TOLERANCE = 0.01
BAND_ROWS = 256


def combine_planes(first: ImageStack, second: ImageStack | None = None) -> ImageStack:
    """Bring two planes onto an axis P just before YX.

    Parameters
    ----------
    first : ImageStack
        The first plane, or a stack that has an axis of length 2.
    second : ImageStack, optional
        The second plane, of the same shape, axes and kind of pixels.

    Returns
    -------
    ImageStack
        Axes (..., P, Y, X) with P of length 2. In one stack the plane axis is Z if that has length 2, else S, C or T.

    Raises
    ------
    ImageFileError
        Not two planes, planes that do not fit together, or twice the same pixels.
    """
    stack = _planes_of_one(first) if second is None else _planes_of_two(first, second)
    if _alike(stack):
        raise ImageFileError(f"{stack.source}: both planes have the same pixels; give two images at different focus.")
    return stack


def _alike(stack: ImageStack) -> bool:
    """Whether both planes are the same; of a lazy stack the first frame is looked at, band by band until they differ."""
    if not stack.lazy:
        return np.array_equal(*np.moveaxis(stack.array, -3, 0))
    frame = stack.array[(0,) * (stack.array.ndim - 3)]
    return all(np.array_equal(*np.asarray(frame[:, top : top + BAND_ROWS])) for top in range(0, frame.shape[-2], BAND_ROWS))


def distance_um(planes_um: tuple[float, float]) -> float:
    """Distance of two planes from their positions [um]."""
    return abs(planes_um[1] - planes_um[0])


def _planes_of_one(stack: ImageStack) -> ImageStack:
    letter = next((letter for letter in _LIKELY_PLANE_AXES if letter in stack.axes and stack.array.shape[stack.axes.index(letter)] == 2), None)
    if letter is None:
        given = "one plane" if stack.array.ndim == 2 else f"axes {stack.axes} of shape {stack.array.shape}, none of length 2"
        raise ImageFileError(f"{stack.source}: has {given}; exactly two planes are needed: give two image files or one stack of two planes.")
    array = np.moveaxis(stack.array, stack.axes.index(letter), -3)
    axes = stack.axes.replace(letter, "")[:-2] + "PYX"
    return replace(stack, array=array, axes=axes, taken_for_planes=letter)


def _planes_of_two(first: ImageStack, second: ImageStack) -> ImageStack:
    _check_fit(first, second)
    array = np.stack([first.array, second.array], axis=-3)
    pixel_um = second.pixel_um if first.pixel_um is None else first.pixel_um
    source = f"{first.source} + {second.source}"
    metadata = {**second.metadata, **first.metadata}
    return replace(first, array=array, axes=first.axes[:-2] + "PYX", pixel_um=pixel_um, source=source, metadata=metadata)


def _check_fit(first: ImageStack, second: ImageStack) -> None:
    pair = f"{first.source} and {second.source}"
    if "P" in first.axes:
        raise ImageFileError(f"{first.source}: has two planes already; give either one stack of two planes or two files of one plane.")
    if first.axes != second.axes or first.array.shape != second.array.shape:
        given = f"{first.axes} {first.array.shape} and {second.axes} {second.array.shape}"
        raise ImageFileError(f"{pair}: the planes are {given}; both must have the same axes and shape. Crop them to the same field.")
    if first.array.dtype.kind != second.array.dtype.kind:
        raise ImageFileError(f"{pair}: pixels are {first.array.dtype} and {second.array.dtype}; both planes must come from the same camera, unchanged.")
    if first.pixel_um and second.pixel_um and abs(first.pixel_um - second.pixel_um) > _PIXEL_TOLERANCE * first.pixel_um:
        raise ImageFileError(f"{pair}: pixel sizes are {first.pixel_um:g} and {second.pixel_um:g} um; both planes need the same magnification.")
