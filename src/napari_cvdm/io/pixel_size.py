"""Pixel sizes in micrometres, or None where a file does not really say."""

from math import isfinite

from napari_cvdm.core.microscope import PIXEL_RANGE_UM
from napari_cvdm.io.errors import ImageFileError

UM_PER_INCH = 25400.0
_UM_BY_UNIT = {
    "m": 1e6,
    "cm": 1e4,
    "mm": 1e3,
    "millimeter": 1e3,
    "um": 1.0,
    "µm": 1.0,  # U+00B5, the micro sign
    "μm": 1.0,  # U+03BC, the Greek letter
    "\\u00b5m": 1.0,  # as ImageJ writes it into a header
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "nanometre": 1e-3,
    "å": 1e-4,
    "angstrom": 1e-4,
    "pm": 1e-6,
    "in": UM_PER_INCH,
    "inch": UM_PER_INCH,
}
# Finer than 20 um for a pixel, yet printing and scanning, not microscopy.
_PRINT_DPI = (1440, 2400, 2540, 2880, 4000, 4800, 5760, 9600)
_LARGEST_ASPECT = 1.01


def length_um(value: float | None, unit: str | None) -> float | None:
    """A length in micrometres.

    Parameters
    ----------
    value : float, optional
        A length in `unit`.
    unit : str, optional
        Symbol or name, such as ``nm``, ``µm`` or ``micron``.

    Returns
    -------
    float or None
        None if it is missing, not positive, in pixels or in an unknown unit, or exactly 1. Files
        that were never calibrated say 1.
    """
    length = position_um(value, unit)
    return None if length is None or length <= 0 or 1.0 in (value, length) else length


def position_um(value: float | None, unit: str | None) -> float | None:
    """Position or distance in micrometres, of any sign; None if missing or in an unknown unit."""
    factor = _UM_BY_UNIT.get((unit or "").strip().lower())
    return None if value is None or factor is None or not isfinite(value) else value * factor


def length_from_print_resolution(pixels: float, unit: str) -> float | None:
    """A pixel size from a resolution that could be meant for a printer.

    Parameters
    ----------
    pixels : float
        Pixels in one `unit`.
    unit : {"inch", "cm", "mm", "um"}
        Unit of the resolution.

    Returns
    -------
    float or None
        Micrometres. None if no microscope has such pixels, or if a printer has (72, 96, 300 or 2400
        dpi).
    """
    size = length_um(1.0 / pixels if pixels > 0 else None, unit)
    if size is None or not PIXEL_RANGE_UM[0] <= size <= PIXEL_RANGE_UM[1]:
        return None
    dpi = UM_PER_INCH / size
    return None if any(abs(dpi - usual) < 0.01 * usual for usual in _PRINT_DPI) else size


def square_pixel(x: float | None, y: float | None, source: str) -> float | None:
    """The side of a square pixel.

    Parameters
    ----------
    x, y : float or None
        Pixel size along X and Y [um].
    source : str
        Name for messages.

    Returns
    -------
    float or None
        `x`, or None when one of the two is not known.

    Raises
    ------
    ImageFileError
        The two differ by more than 1 %.
    """
    if x is None or y is None:
        return None
    if max(x, y) > _LARGEST_ASPECT * min(x, y):
        raise ImageFileError(
            f"{source}: pixels are {x:g} x {y:g} um; they must be square within 1 %. Resample the "
            "image, or correct its pixel size."
        )
    return x
