"""The pixels of an image: their axes put in order, checked, fingerprinted, planes combined."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from tifffile import PHOTOMETRIC

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io.errors import ImageFileError, one_line

UNNAMED_AXES = "QIARHE"  # letters that tifffile gives to axes without a meaning
# Axes whose meaning a file does not tell get the first letter that is still free.
_LETTERS_FOR_UNKNOWN = "STZC"
_LIKELY_PLANE_AXES = "PZSCT"
_PIXEL_TOLERANCE = 0.01
BAND_ROWS = 256  # compared at a time, so that an image that is only opened is not read whole
# No image is so narrow, and no two of its other axes are colours.
MOST_CHANNELS, SMALLEST_SIDE = 4, 16
LARGEST_ITEM = 8  # bytes of float64; neither TIFF nor torch has long doubles
# Beyond these the variance of float32 results is infinite, or zero where it is not.
LARGEST_PIXEL = 1e18
SMALLEST_SPAN = 1e-16
_ALPHA = (1, 2)  # extra samples that say how opaque a pixel is, associated or not
# ImageJ stores this for each image: 0 is a straight line, 20 means that there is no function.
_STRAIGHT_LINE, _NO_FUNCTION = 0, 20
_PHOTOMETRIC_TAG = 262
# Photometric interpretations of TIFF that are intensities; colours become channels.
_INTENSITIES = frozenset({"MINISBLACK", "MINISWHITE", "RGB", "YCBCR", "PALETTE"})


def usable_dtype(array: np.ndarray, source: str) -> np.ndarray:
    """The array in native byte order, if its pixels are real numbers, else an ImageFileError.

    Booleans become 0 and 1 (uint8), long doubles float64. `source` is a name for messages.
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

    ImageFileError where the pixels are not real numbers, or integers beyond 32 bits.
    """
    array = usable_dtype(array, source)
    if array.dtype == np.float16:  # OME has no such type
        return array.astype(np.float32)
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
    """Put the axes of a file, one letter for each, into the order and letters of an `ImageStack`.

    The letters are those of tifffile: S is colour, and Q, I and others have no meaning that is
    known here. Axes of length 1 are left out, colour becomes a channel axis, and unknown axes
    become S, then T, Z, C. Raises ImageFileError where there are no Y and X, or too many axes.
    """
    if "Y" not in axes or "X" not in axes:
        raise ImageFileError(
            f"{source}: an array of shape {array.shape} is no image; at least two dimensions, Y "
            "and X, are needed."
        )
    check_channels_first(array.shape, axes, source)
    kept = [index for index, one in enumerate(axes) if one in "YX" or array.shape[index] != 1]
    array = np.squeeze(array, axis=tuple(set(range(array.ndim)) - set(kept)))
    axes = "".join(axes[index] for index in kept)
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
    free = [letter for letter in _LETTERS_FOR_UNKNOWN if letter not in leading]
    unknown = [letter for letter in leading if letter not in "TCZ"]
    if len(unknown) > len(free):
        raise ImageFileError(
            f"{source}: {len(leading) + 2} axes are too many; split the file so that at most T, Z, "
            "C and one more axis remain."
        )
    names = dict(zip(unknown, free, strict=False))
    return array, "".join(names.get(letter, letter) for letter in leading) + "YX"


def check_channels_first(shape: tuple[int, ...], axes: str, source: str) -> None:
    """ImageFileError where the axis X is as short as channels are, and others are not."""
    channels_last = len(shape) > 2 and axes.endswith("YX") and shape[-1] <= MOST_CHANNELS
    if channels_last and min(shape[-3:-1]) >= SMALLEST_SIDE:
        raise ImageFileError(
            f"{source}: an array of shape {shape} seems to have its {shape[-1]} channels last; "
            "save it with Y and X last: numpy.moveaxis(array, -1, 0)."
        )


def check_pixels(stack: ImageStack) -> None:
    """Refuse an image that no reconstruction can be made from.

    Frames are looked at until one of them can be used; the others are skipped in the run. Where
    none can be used, the ImageFileError is that of `check_frame` for the first one.
    """
    found: ImageFileError | None = None
    for index in np.ndindex(*stack.loop_shape):
        try:
            check_frame(read_frame(stack, index), frame_name(stack, index))
            return
        except ImageFileError as error:
            found = found or error
    if found is not None:
        raise found


def read_frame(stack: ImageStack, index: tuple[int, ...]) -> np.ndarray:
    """Pixels (P, Y, X) of one frame; ImageFileError where a lazy image cannot be read."""
    try:
        return stack.frame(index)
    except Exception as error:  # each codec of a lazy image has errors of its own
        raise ImageFileError(
            f"{frame_name(stack, index)}: cannot be read ({one_line(error)}). Copy the file again."
        ) from error


def frame_name(stack: ImageStack, index: Sequence[int]) -> str:
    """Name of a frame for messages, such as ``film.tif, frame T 3``, counted from 0."""
    places = zip(stack.loop_axes, index, strict=True)
    where = ", ".join(f"{letter} {place}" for letter, place in places)
    return f"{stack.source}, frame {where}" if where else stack.source


def check_frame(planes: np.ndarray, source: str) -> None:
    """Refuse a frame (P, Y, X) that nothing can be reconstructed from.

    Raises ImageFileError for a plane of which nothing was measured, or all is alike, and for values
    too large or too similar for the variance of a result in float32.
    """
    for number, plane in enumerate(planes, start=1):
        which = f"plane {number}" if len(planes) > 1 else "the image"
        seen = plane[np.isfinite(plane)]
        if not seen.size:
            raise ImageFileError(
                f"{source}: {which} has no measured pixel, all are NaN or infinite; give an image "
                "with something in it."
            )
        low, high = float(seen.min()), float(seen.max())
        if low == high:
            raise ImageFileError(
                f"{source}: {which} is constant (every pixel is {low:g}); give an image with "
                "something in it."
            )
        if max(-low, high) > LARGEST_PIXEL or high - low < SMALLEST_SPAN:
            raise ImageFileError(
                f"{source}: pixels are {low:.4g} to {high:.4g}; allowed are values up to "
                f"{LARGEST_PIXEL:g} that differ by {SMALLEST_SPAN:g} or more. Give counts, or "
                "another unit."
            )


class Fingerprint:
    """SHA-256 of an image's dtype, shape and bytes, computed frame by frame.

    It is the same for any memory layout and byte order. Of the array, dtype and shape count; its
    pixels only as they are added, in C order.
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


def combine_planes(first: ImageStack, *others: ImageStack | None, count: int = 2) -> ImageStack:
    """Bring planes onto an axis P just before YX.

    They are the images that are given, of the same shape, axes and kind of pixels; None is passed
    over. Or they are an axis of the only image: the first of P, Z, S, C and T that is `count` long.

    Raises ImageFileError for fewer than two planes, another number than `count`, planes that do not
    fit together, or the same pixels twice.
    """
    given = [stack for stack in others if stack is not None]
    stack = _planes_of_several([first, *given]) if given else _planes_of_one(first, count)
    # Of a lazy stack, only the first frame is read.
    array = stack.array[(0,) * (stack.array.ndim - 3)] if stack.lazy else stack.array
    for one, other in combinations(range(array.shape[-3]), 2):
        if _same_pixels(array, one, other):
            which = "both planes" if stack.planes == 2 else f"planes {one + 1} and {other + 1}"
            raise ImageFileError(
                f"{stack.source}: {which} have the same pixels; give images at different focus."
            )
    return stack


def _same_pixels(array: np.ndarray, one: int, other: int) -> bool:
    """Whether two planes are the same. They are compared band by band until they differ."""
    return all(
        np.array_equal(np.asarray(array[..., one, rows, :]), np.asarray(array[..., other, rows, :]))
        for rows in _bands(array)
    )


def _bands(array: Any) -> Iterator[slice]:
    """Rows to read at a time. The caller stops at the first difference."""
    return (slice(top, top + BAND_ROWS) for top in range(0, array.shape[-2], BAND_ROWS))


def _planes_of_one(stack: ImageStack, count: int) -> ImageStack:
    sizes = dict(zip(stack.axes, stack.array.shape, strict=True))
    letter = next((axis for axis in _LIKELY_PLANE_AXES if sizes.get(axis) == count), None)
    if letter is None:
        raise ImageFileError(
            f"{stack.source}: has one plane, but {count} are needed: give {count} image files or "
            f"one stack of {count} planes."
            if stack.array.ndim == 2
            else f"{stack.source}: has axes {stack.axes} of shape {stack.array.shape}, none of "
            f"length {count}, but {count} planes are needed, one for each position of defocus_um: "
            f"give {count} image files, one stack of {count} planes, or one position for each "
            "plane of this stack."
        )
    array = np.moveaxis(stack.array, stack.axes.index(letter), -3)
    axes = stack.axes.replace(letter, "")[:-2] + "PYX"
    return replace(stack, array=array, axes=axes, taken_for_planes=letter)


def _planes_of_several(stacks: Sequence[ImageStack]) -> ImageStack:
    for one, other in combinations(stacks, 2):
        _check_fit(one, other)
    return replace(
        stacks[0],
        array=np.stack([stack.array for stack in stacks], axis=-3),
        axes=stacks[0].axes[:-2] + "PYX",
        pixel_um=next((stack.pixel_um for stack in stacks if stack.pixel_um is not None), None),
        source=" + ".join(stack.source for stack in stacks),
        # What the first file says goes before what the later ones say.
        metadata={
            key: value for stack in reversed(stacks) for key, value in stack.metadata.items()
        },
        origins={key: value for stack in reversed(stacks) for key, value in stack.origins.items()},
        warnings=tuple(dict.fromkeys(text for stack in stacks for text in stack.warnings)),
        files=tuple(dict.fromkeys(file for stack in stacks for file in stack.files)),
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
    positions = [stack.place.get("position") for stack in (first, second)]
    if None not in positions and positions[0] != positions[1]:
        raise ImageFileError(
            f"{pair}: are two stage positions of one acquisition (numbers {positions[0]:g} and "
            f"{positions[1]:g}), not two focal planes; give planes of one position."
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


def measured_values(
    pixels: Any, axes: str, page: Any, imagej: Mapping[str, Any], source: str
) -> tuple[Any, str, list[str]]:
    """The values that stored numbers stand for, without samples that are no measurement.

    `pixels` are as stored, also lazy; S is the axis of the samples of a pixel, and `page` says what
    they are. `imagej` is its header, empty for another program. ImageJ's straight line and an
    inverted scale are applied, which is exact, and alpha is left out.

    Returns pixels, axes, and a sentence for everything that was left out. Raises ImageFileError for
    colours of a palette, or numbers that are no intensity.
    """
    noticed = []
    if "S" in axes:
        place = axes.index("S")
        first_extra = pixels.shape[place] - len(page.extrasamples)
        alpha = {first_extra + n for n, kind in enumerate(page.extrasamples) if kind in _ALPHA}
        # Some programs take four channels for colours and alpha. In 8 bits they are.
        if page.photometric == PHOTOMETRIC.RGB and pixels.dtype.itemsize > 1:
            alpha = {n for n in alpha if _is_flat(np.moveaxis(pixels, place, 0)[n])}
        if alpha:
            kept = [number for number in range(pixels.shape[place]) if number not in alpha]
            pixels = pixels[(slice(None),) * place + (kept,)]
            noticed.append("its alpha channel says how opaque a pixel is; it was left out.")
        if _is_grey(np.moveaxis(pixels, place, 0), page):
            pixels, axes = pixels[(slice(None),) * place + (0,)], axes.replace("S", "")
            noticed.append("its three colours are equal; one of them was taken.")
    # tifffile would take zero for white then, and the image would be turned round.
    if not imagej and _PHOTOMETRIC_TAG not in page.keyframe.tags:
        noticed.append("it does not say whether zero is black or white; black was taken.")
        return pixels, axes, noticed
    return _intensities(pixels, page, imagej, source), axes, noticed


def _is_flat(pixels: Any) -> bool:
    first = np.asarray(pixels[(0,) * pixels.ndim])
    return all((np.asarray(pixels[..., rows, :]) == first).all() for rows in _bands(pixels))


def _is_grey(samples: Any, page: Any) -> bool:
    return (
        page.photometric == PHOTOMETRIC.RGB
        and len(samples) == 3
        and all(_same_pixels(np.moveaxis(samples, 0, -3), 0, other) for other in (1, 2))
    )


def _intensities(pixels: Any, page: Any, imagej: Mapping[str, Any], source: str) -> Any:
    kind = page.photometric
    name = getattr(kind, "name", str(kind))
    if kind == PHOTOMETRIC.PALETTE and not imagej:
        # A look-up table that rises is a way of showing an intensity, and no palette.
        if (np.diff(np.asarray(page.colormap, np.int64), axis=1) < 0).any():
            raise ImageFileError(
                f"{source}: its pixels are numbers of colours in a palette, no intensities. Save "
                "the image as grey values, for example by Image > Type > 16-bit in Fiji."
            )
    elif name not in _INTENSITIES:
        raise ImageFileError(
            f"{source}: its pixels are {name}, no intensities; grey values or red, green and blue "
            "are read. Save the image as grey values from Fiji."
        )
    if kind == PHOTOMETRIC.MINISWHITE and not imagej:
        if pixels.dtype == bool:
            return ~pixels
        if pixels.dtype.kind != "u":
            raise ImageFileError(
                f"{source}: white is zero in it, which has no exact meaning for {pixels.dtype}. "
                "Invert the image in Fiji, and save it again."
            )
        pixels = pixels.dtype.type(2**page.bitspersample - 1) - pixels
    return _calibrated(pixels, imagej, source)


def _calibrated(pixels: Any, imagej: Mapping[str, Any], source: str) -> Any:
    """Values of ImageJ's calibration function, a straight line c0 + c1 x."""
    function = imagej.get("cf", _NO_FUNCTION)
    if function == _NO_FUNCTION:
        return pixels
    if function != _STRAIGHT_LINE:
        raise ImageFileError(
            f"{source}: ImageJ's calibration function {function} says what its numbers mean, and "
            "only a straight line is read. Remove it in Fiji by Analyze > Calibrate > None."
        )
    offset, slope = float(imagej.get("c0", 0.0)), float(imagej.get("c1", 1.0))
    # ImageJ stores signed numbers of 16 bits so; as float64 they would take four times the memory.
    if slope == 1 and offset == -32768 and pixels.dtype == np.uint16:
        return (pixels.astype(np.int32) - 32768).astype(np.int16)
    return pixels if (offset, slope) == (0, 1) else offset + slope * pixels.astype(np.float64)
