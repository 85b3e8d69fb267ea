"""The pixels of an image: their axes put in order, checked, and fingerprinted."""

import hashlib

import numpy as np

from napari_cvdm.image_files.errors import ImageFileError
from napari_cvdm.request import ImageStack

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
        advice = "save its amplitude, its phase or its intensity" if array.dtype.kind == "c" else "save it as uint8, uint16 or float32"
        raise ImageFileError(f"{source}: pixels of type {array.dtype} cannot be used; allowed are real numbers: {advice}.")
    if array.size == 0:
        raise ImageFileError(f"{source}: the image is empty (shape {array.shape}); give an image with pixels in it.")
    native = np.dtype(np.uint8) if array.dtype.kind == "b" else array.dtype.newbyteorder("=")
    if native.itemsize > LARGEST_ITEM:
        native = np.dtype(np.float64)
    return array.astype(native, copy=False)


def ordered_axes(array: np.ndarray, axes: str, source: str) -> tuple[np.ndarray, str]:
    """Put the axes of a file into the order and the letters of an `ImageStack`.

    Parameters
    ----------
    array : ndarray
        Pixels, one dimension for each letter of `axes`.
    axes : str
        Letters as tifffile names them: S is colour, Q, I and others have no meaning that is known here.
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
        raise ImageFileError(f"{source}: an array of shape {array.shape} is no image; at least two dimensions, Y and X, are needed.")
    single = [index for index, letter in enumerate(axes) if letter not in "YX" and array.shape[index] == 1]
    array, axes = np.squeeze(array, axis=tuple(single)), "".join(letter for index, letter in enumerate(axes) if index not in single)
    leading = [letter for letter in axes if letter not in "SYX"]
    if "S" in axes:  # colours are channels: (C, S) become one axis
        leading = [*(letter for letter in leading if letter != "C"), *(letter for letter in "CS" if letter in axes)]
    array = np.transpose(array, [axes.index(letter) for letter in [*leading, "Y", "X"]])
    if "S" in axes:
        leading = [*(letter for letter in leading if letter not in "CS"), "C"]
        array = array.reshape(*array.shape[: len(leading) - 1], -1, *array.shape[-2:])
    return array, _known_letters(leading, source) + "YX"


def _known_letters(letters: list[str], source: str) -> str:
    free = [letter for letter in _LETTERS_FOR_UNKNOWN if letter not in letters]
    unknown = [letter for letter in letters if letter not in "TCZ"]
    if len(unknown) > len(free):
        raise ImageFileError(f"{source}: {len(letters) + 2} axes are too many; split the file so that at most T, Z, C and one more axis remain.")
    names = dict(zip(unknown, free, strict=False))
    return "".join(names.get(letter, letter) for letter in letters)


def check_pixels(stack: ImageStack) -> None:
    """Refuse an image that no reconstruction can be made from.

    Parameters
    ----------
    stack : ImageStack
        Any image.

    Raises
    ------
    ImageFileError
        Pixels that are NaN or infinite in float32, an image (one of its planes) that is constant, or values too large or too
        much alike for the variance of a result in float32.
    """
    if stack.array.dtype.kind == "f":
        _check_finite(stack)
    _check_size(stack)
    planes = np.moveaxis(stack.array, stack.axes.index("P"), 0) if "P" in stack.axes else stack.array[None]
    for number, plane in enumerate(planes, start=1):
        if plane.min() == plane.max():
            which = f"plane {number}" if "P" in stack.axes else "the image"
            raise ImageFileError(f"{stack.source}: {which} is constant (every pixel is {plane.flat[0]:g}); give an image with something in it.")


def _check_finite(stack: ImageStack) -> None:
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(stack.array.astype(np.float32, copy=False))
    if bad.any():
        first = ", ".join(f"{letter} {index}" for letter, index in zip(stack.axes, np.argwhere(bad)[0], strict=True))
        count = f"{int(bad.sum())} of {bad.size} pixels are NaN or infinite"
        raise ImageFileError(f"{stack.source}: {count} (the first at {first}, counted from 0); fill or crop them first.")


def _check_size(stack: ImageStack) -> None:
    low, high = float(stack.array.min()), float(stack.array.max())
    if max(-low, high) > LARGEST_PIXEL or 0 < high - low < SMALLEST_SPAN:
        allowed = f"allowed are values up to {LARGEST_PIXEL:g} that differ by {SMALLEST_SPAN:g} or more"
        raise ImageFileError(f"{stack.source}: pixels are {low:.4g} to {high:.4g}; {allowed}. Give counts, or another unit.")


def sha256_of(array: np.ndarray) -> str:
    """Fingerprint of an image: dtype, shape and bytes.

    Parameters
    ----------
    array : ndarray
        Any image.

    Returns
    -------
    str
        64 hexadecimal digits; the same for any memory layout and byte order.
    """
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little.dtype.str} {array.shape}".encode())
    digest.update(little.data if little.size else b"")
    return digest.hexdigest()
