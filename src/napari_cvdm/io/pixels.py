"""The pixels of an image: their axes put in order, checked, and fingerprinted."""

import hashlib
from dataclasses import replace

import numpy as np

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io.errors import ImageFileError

# Axes whose meaning a file does not tell get the first letter that is still free.
_LETTERS_FOR_UNKNOWN = "STZC"
LARGEST_ITEM = 8
# Beyond these the variance of float32 results is infinite, or zero where it is not.
LARGEST_PIXEL = 1e18
SMALLEST_SPAN = 1e-16


def usable_dtype(array: np.ndarray, source: str) -> np.ndarray:
    """The array in native byte order, if its pixels are real numbers.

    Parameters
    ----------
    array : ndarray
        Pixels of any dtype.
    source : str
        Name for messages.

    Returns
    -------
    ndarray
        The same values; booleans become 0 and 1 (uint8), long doubles float64.

    Raises
    ------
    ImageFileError
        Complex, text, object or structured pixels, or none at all.
    """
    if array.dtype.kind not in "buif":
        advice = (
            "save its amplitude, its phase or its intensity"
            if array.dtype.kind == "c"
            else "save it as uint8, uint16 or float32"
        )
        raise ImageFileError(
            f"{source}: pixels of type {array.dtype} cannot be used; allowed are real numbers: "
            f"{advice}."
        )
    if array.size == 0:
        raise ImageFileError(
            f"{source}: the image is empty (shape {array.shape}); give an image with pixels in it."
        )
    native = np.dtype(np.uint8) if array.dtype.kind == "b" else array.dtype.newbyteorder("=")
    if native.itemsize > LARGEST_ITEM:
        native = np.dtype(np.float64)
    return array.astype(native, copy=False)


def storable(array: np.ndarray, source: str) -> np.ndarray:
    """The same values in a type that OME-TIFF has: integers of at most 32 bits, floats of 32 or 64.

    Parameters
    ----------
    array : ndarray
        Pixels of any real dtype.
    source : str
        Name for messages.

    Returns
    -------
    ndarray

    Raises
    ------
    ImageFileError
        Pixels that are not real numbers, or integers beyond 32 bits.
    """
    array = usable_dtype(array, source)
    if array.dtype == np.float16 or array.dtype.itemsize > 8:
        return array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    if array.dtype.kind == "f" or array.dtype.itemsize <= 4:
        return array
    smallest = np.promote_types(np.min_scalar_type(array.min()), np.min_scalar_type(array.max()))
    if smallest.kind == "f" or smallest.itemsize > 4:
        raise ImageFileError(
            f"{source}: whole numbers from {array.min()} to {array.max()} do not fit the 32 bits "
            "of OME-TIFF; save as OME-Zarr."
        )
    return array.astype(np.int32 if smallest.kind == "i" else np.uint32)


def ordered_axes(array: np.ndarray, axes: str, source: str) -> tuple[np.ndarray, str]:
    """Put the axes of a file into the order and the letters of an `ImageStack`.

    Parameters
    ----------
    array : ndarray
        Pixels, one dimension for each letter of `axes`.
    axes : str
        Letters as tifffile names them. S is colour. Q, I and others have no meaning that is known
        here.
    source : str
        Name for messages.

    Returns
    -------
    array : ndarray of shape (..., Y, X)
        Without axes of length 1; colour has become a leading channel axis.
    axes : str
        Letters among T, C, Z, S, ending in YX; unknown axes are S, then T, Z, C.

    Raises
    ------
    ImageFileError
        No Y and X, or more axes than there are letters.
    """
    if "Y" not in axes or "X" not in axes:
        raise ImageFileError(
            f"{source}: an array of shape {array.shape} is no image; at least two dimensions, Y "
            "and X, are needed."
        )
    single = [
        index for index, letter in enumerate(axes) if letter not in "YX" and array.shape[index] == 1
    ]
    array, axes = (
        np.squeeze(array, axis=tuple(single)),
        "".join(letter for index, letter in enumerate(axes) if index not in single),
    )
    leading = [letter for letter in axes if letter not in "SYX"]
    if "S" in axes:  # colours are channels: (C, S) become one axis
        leading = [
            *(letter for letter in leading if letter != "C"),
            *(letter for letter in "CS" if letter in axes),
        ]
    array = np.transpose(array, [axes.index(letter) for letter in [*leading, "Y", "X"]])
    if "S" in axes:
        leading = [*(letter for letter in leading if letter not in "CS"), "C"]
        array = array.reshape(*array.shape[: len(leading) - 1], -1, *array.shape[-2:])
    return array, _known_letters(leading, source) + "YX"


def _known_letters(letters: list[str], source: str) -> str:
    free = [letter for letter in _LETTERS_FOR_UNKNOWN if letter not in letters]
    unknown = [letter for letter in letters if letter not in "TCZ"]
    if len(unknown) > len(free):
        raise ImageFileError(
            f"{source}: {len(letters) + 2} axes are too many; split the file so that at most T, Z, "
            "C and one more axis remain."
        )
    names = dict(zip(unknown, free, strict=False))
    return "".join(names.get(letter, letter) for letter in letters)


def check_pixels(stack: ImageStack) -> None:
    """Refuse an image that no reconstruction can be made from.

    Parameters
    ----------
    stack : ImageStack
        Any image; of a lazy one the first frame is looked at.

    Raises
    ------
    ImageFileError
        Pixels that are NaN or infinite in float32, an image (one of its planes) that is constant,
        or values too large or too similar for the variance of a result in float32.
    """
    if stack.lazy:
        first = stack.frame((0,) * (stack.array.ndim - 2 - ("P" in stack.axes)))
        stack = replace(
            stack,
            array=first if "P" in stack.axes else first[0],
            axes="PYX" if "P" in stack.axes else "YX",
        )
    check_finite(stack.array, stack.axes, stack.source)
    _check_size(stack)
    planes = (
        np.moveaxis(stack.array, stack.axes.index("P"), 0)
        if "P" in stack.axes
        else stack.array[None]
    )
    for number, plane in enumerate(planes, start=1):
        if plane.min() == plane.max():
            which = f"plane {number}" if "P" in stack.axes else "the image"
            raise ImageFileError(
                f"{stack.source}: {which} is constant (every pixel is {plane.flat[0]:g}); give an "
                "image with something in it."
            )


def check_finite(array: np.ndarray, axes: str, source: str) -> None:
    """ImageFileError where pixels are NaN or infinite in float32."""
    if array.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(array.astype(np.float32, copy=False))
    if bad.any():
        first = ", ".join(
            f"{letter} {index}" for letter, index in zip(axes, np.argwhere(bad)[0], strict=True)
        )
        count = f"{int(bad.sum())} of {bad.size} pixels are NaN or infinite"
        raise ImageFileError(
            f"{source}: {count} (the first at {first}, counted from 0); fill or crop them first."
        )


def _check_size(stack: ImageStack) -> None:
    low, high = float(stack.array.min()), float(stack.array.max())
    if max(-low, high) > LARGEST_PIXEL or 0 < high - low < SMALLEST_SPAN:
        allowed = (
            f"allowed are values up to {LARGEST_PIXEL:g} that differ by {SMALLEST_SPAN:g} or more"
        )
        raise ImageFileError(
            f"{stack.source}: pixels are {low:.4g} to {high:.4g}; {allowed}. Give counts, or "
            "another unit."
        )


class Fingerprint:
    """SHA-256 of an image's dtype, shape and bytes, computed frame by frame.

    It is the same for any memory layout and byte order.

    Parameters
    ----------
    array : ndarray or lazy array
        Its dtype and shape count; its pixels only as they are added, in C order.
    """

    def __init__(self, array: np.ndarray) -> None:
        self._dtype = array.dtype.newbyteorder("<")
        self._digest = hashlib.sha256(f"{self._dtype.str} {array.shape}".encode())

    def add(self, pixels: np.ndarray) -> None:
        """Count the next pixels in."""
        little = np.ascontiguousarray(pixels, dtype=self._dtype)
        self._digest.update(little.data if little.size else b"")

    @property
    def value(self) -> str:
        """64 hexadecimal digits."""
        return self._digest.hexdigest()


def sha256_of(array: np.ndarray) -> str:
    """Fingerprint of a whole image that is in memory."""
    fingerprint = Fingerprint(array)
    fingerprint.add(array)
    return fingerprint.value
