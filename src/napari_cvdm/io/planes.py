"""Defocused planes as one stack."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io.errors import ImageFileError

_LIKELY_PLANE_AXES = "PZSCT"
_PIXEL_TOLERANCE = 0.01
BAND_ROWS = 256


def combine_planes(first: ImageStack, *others: ImageStack | None, count: int = 2) -> ImageStack:
    """Bring planes onto an axis P just before YX.

    Parameters
    ----------
    first : ImageStack
        The first plane, or a stack that has an axis of all planes.
    others : ImageStack
        The other planes, of the same shape, axes and kind of pixels. None is passed over.
    count : int
        Number of planes that one stack holds.

    Returns
    -------
    ImageStack
        Axes (..., P, Y, X). In one stack, the plane axis is the first of P, Z, S, C and T that has
        `count` planes.

    Raises
    ------
    ImageFileError
        Fewer than two planes, another number than `count`, planes that do not fit together, or the
        same pixels twice.
    """
    given = [stack for stack in others if stack is not None]
    stack = _planes_of_several(first, given) if given else _planes_of_one(first, count)
    alike = _alike(stack)
    if alike is not None:
        which = "both planes" if stack.planes == 2 else "planes {} and {}".format(*alike)
        raise ImageFileError(
            f"{stack.source}: {which} have the same pixels; give images at different focus."
        )
    return stack


def plane_axis(axes: str, shape: Sequence[int], count: int) -> str | None:
    """The letter of the axis that holds `count` planes; None without one."""
    sizes = dict(zip(axes, shape, strict=True))
    return next((letter for letter in _LIKELY_PLANE_AXES if sizes.get(letter) == count), None)


def _alike(stack: ImageStack) -> tuple[int, int] | None:
    """Numbers, from 1, of two equal planes; of a lazy stack, only the first frame is read."""
    array = stack.array[(0,) * (stack.array.ndim - 3)] if stack.lazy else stack.array
    numbers = range(array.shape[-3])
    return next(
        (
            (one + 1, other + 1)
            for one, other in combinations(numbers, 2)
            if _same_pixels(array, one, other)
        ),
        None,
    )


def _same_pixels(array: np.ndarray, one: int, other: int) -> bool:
    """Whether two planes are the same. They are compared band by band until they differ."""
    bands = (slice(top, top + BAND_ROWS) for top in range(0, array.shape[-2], BAND_ROWS))
    return all(
        np.array_equal(np.asarray(array[..., one, rows, :]), np.asarray(array[..., other, rows, :]))
        for rows in bands
    )


def mean_step_um(planes_um: Sequence[float]) -> float:
    """Mean distance of neighbouring planes from their positions [um]."""
    return (max(planes_um) - min(planes_um)) / (len(planes_um) - 1)


def _planes_of_one(stack: ImageStack, count: int) -> ImageStack:
    letter = plane_axis(stack.axes, stack.array.shape, count)
    if letter is None:
        raise ImageFileError(f"{stack.source}: {_why_not(stack, count)}")
    array = np.moveaxis(stack.array, stack.axes.index(letter), -3)
    axes = stack.axes.replace(letter, "")[:-2] + "PYX"
    return replace(stack, array=array, axes=axes, taken_for_planes=letter)


def _why_not(stack: ImageStack, count: int) -> str:
    """Why a stack does not hold so many planes, and what to give."""
    if stack.array.ndim == 2:
        return (
            f"has one plane, but {count} are needed: give {count} image files or one stack of "
            f"{count} planes."
        )
    return (
        f"has axes {stack.axes} of shape {stack.array.shape}, none of length {count}, but {count} "
        "planes are needed, "
        f"one for each position of defocus_um: give {count} image files, one stack of {count} "
        "planes, or one position for each plane of this stack."
    )


def _planes_of_several(first: ImageStack, others: Sequence[ImageStack]) -> ImageStack:
    stacks = [first, *others]
    for one, other in combinations(stacks, 2):
        _check_fit(one, other)
    array = np.stack([stack.array for stack in stacks], axis=-3)
    pixel_um = next((stack.pixel_um for stack in stacks if stack.pixel_um is not None), None)
    source = " + ".join(stack.source for stack in stacks)
    metadata = {name: value for stack in reversed(stacks) for name, value in stack.metadata.items()}
    return replace(
        first,
        array=array,
        axes=first.axes[:-2] + "PYX",
        pixel_um=pixel_um,
        source=source,
        metadata=metadata,
    )


def _check_fit(first: ImageStack, second: ImageStack) -> None:
    pair = f"{first.source} and {second.source}"
    if "P" in first.axes:
        raise ImageFileError(
            f"{first.source}: has {first.planes} planes already; give either one stack of all "
            "planes or one file for each plane."
        )
    if first.axes != second.axes or first.array.shape != second.array.shape:
        given = f"{first.axes} {first.array.shape} and {second.axes} {second.array.shape}"
        raise ImageFileError(
            f"{pair}: the planes are {given}; both must have the same axes and shape. Crop them to "
            "the same field."
        )
    if first.array.dtype.kind != second.array.dtype.kind:
        raise ImageFileError(
            f"{pair}: pixels are {first.array.dtype} and {second.array.dtype}; both planes must "
            "come from the same camera, unchanged."
        )
    if (
        first.pixel_um
        and second.pixel_um
        and abs(first.pixel_um - second.pixel_um) > _PIXEL_TOLERANCE * first.pixel_um
    ):
        raise ImageFileError(
            f"{pair}: pixel sizes are {first.pixel_um:g} and {second.pixel_um:g} um; both planes "
            "need the same magnification."
        )
