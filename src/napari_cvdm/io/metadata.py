"""Pixel size, position, time and optics, as headers state them.

A value is missing where a file does not really state it.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from html import unescape
from math import isfinite
from typing import Any
from xml.etree.ElementTree import Element, ParseError, fromstring

from napari_cvdm.core.microscope import PIXEL_RANGE_UM
from napari_cvdm.io.errors import one_line

UM_PER_INCH = 25400.0
_PRINT_UNITS = ("inch", "in", "cm")
# Finer than 20 um for a pixel, yet printing and scanning, not microscopy.
_PRINT_DPI = (1440, 2400, 2540, 2880, 4000, 4800, 5760, 9600)
_MICROMETRE = "µm"
_LARGEST_ASPECT = 1.01
_LONGEST_UNIT = 24
# ImageJ escapes the micro sign U+00B5, and the Greek letter U+03BC, in either case.
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
# A program without the micro sign puts one of these in its place.
_LOST_SIGN = re.compile("[?\ufffd]{1,2}(?=m$)")
# Some programs name a length of one pixel so.
_PER_PIXEL = re.compile(r"\s*(/|\bper\b)\s*(pixel|px)s?$", re.IGNORECASE)
# ImageJ names a slice after its place in the stack.
_PLACE_IN_STACK = re.compile(r"^[czt]:\d+/\d+( [czt]:\d+/\d+)*( - )?")
# XML forbids these characters, and an ampersand that begins no entity.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_BARE_AMPERSAND = re.compile(r"&(?!#\w+;|\w+;)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What a file states beside its pixels; see `ImageStack` for the names and units."""

    pixel_um: float | None = None
    optics: Mapping[str, float] = field(default_factory=dict)
    place: Mapping[str, float] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def for_stack(self) -> dict[str, Any]:
        """The same as keywords of `ImageStack`."""
        return {
            "pixel_um": self.pixel_um,
            "metadata": dict(self.optics),
            "place": dict(self.place),
            "channels": self.channels,
            "origins": dict(self.origins),
            "warnings": self.warnings,
        }


@cache
def _factor(unit: str, wanted: str) -> float | None:
    """How many of the wanted unit one of another is, by pint; None for another dimension."""
    import pint  # a third of a second that only a file with units needs

    name = unescape(_ESCAPED.sub(lambda found: chr(int(found[1], 16)), unit.strip()))
    with suppress(UnicodeError):  # UTF-8 that was read as another encoding: the sign is two letters
        name = name.encode("cp1252").decode()
    name = _LOST_SIGN.sub("µ", _PER_PIXEL.sub("", name))
    # Letters only: a header is not to be evaluated as an expression.
    if len(name) > _LONGEST_UNIT or not name.isalpha():
        return None
    registry: Any = pint.application_registry
    for spelling in (name, name.lower()):
        try:
            return float(registry.Quantity(1.0, spelling).to(wanted).magnitude)
        except pint.PintError:
            continue
    return None


def length_um(value: float | None, unit: str | None) -> float | None:
    """A length in micrometres, from one in a unit such as ``nm``, ``µm`` or ``micron``.

    None if it is missing, not positive, in pixels or in an unknown unit, or exactly 1. Files that
    were never calibrated say 1.
    """
    length = position_um(value, unit)
    return None if length is None or length <= 0 or 1.0 in (value, length) else length


def position_um(value: float | None, unit: str | None) -> float | None:
    """Position or distance in micrometres, of any sign; None if missing or in an unknown unit."""
    return _converted(value, unit, "micrometer")


def time_s(value: float | None, unit: str | None) -> float | None:
    """Time in seconds, of any sign; None if missing or in an unknown unit."""
    return _converted(value, unit, "second")


def _converted(value: float | None, unit: str | None, wanted: str) -> float | None:
    if value is None or not isfinite(value):
        return None
    factor = _factor(unit or "", wanted)
    return None if factor is None else value * factor


def pixel_of_resolution(pixels: float, unit: str, said_on_purpose: bool) -> float | None:
    """Pixel size [um] from pixels in one `unit`, a resolution that could be meant for a printer.

    None if no microscope has such pixels, or if a printer has (72, 96, 300 or 2400 dpi).
    """
    size = length_um(1.0 / pixels if pixels > 0 else None, unit)
    if said_on_purpose and unit.lower() not in _PRINT_UNITS:
        return size
    if size is None or not PIXEL_RANGE_UM[0] <= size <= PIXEL_RANGE_UM[1]:
        return None
    dpi = UM_PER_INCH / size
    return None if any(abs(dpi - usual) < 0.01 * usual for usual in _PRINT_DPI) else size


def square_pixel(
    x: float | None, y: float | None, where: str
) -> tuple[float | None, dict[str, str]]:
    """The side of a square pixel [um] and its origin, from both sides and where they are stated.

    None, and the reason, where one of the sides is not known or they differ by more than 1 %.
    """
    if x is None or y is None:
        return None, {}
    if max(x, y) > _LARGEST_ASPECT * min(x, y):
        reason = (
            f"{where} says that pixels are {x:g} x {y:g} um, and they must be square within 1 %"
        )
        return None, {"pixel_um": reason}
    return x, {"pixel_um": where}


def read_ome(xml: str) -> tuple[Element | None, tuple[str, ...]]:
    """The root of OME-XML, and a sentence where it is not as XML must be.

    Characters that XML forbids are left out. The root is None where nothing can be read.
    """
    try:
        return fromstring(xml), ()
    except ParseError as error:
        found = one_line(error)
    end = xml.rfind("OME>")
    cured = _BARE_AMPERSAND.sub("&amp;", _FORBIDDEN.sub("", xml[: end + len("OME>")]))
    try:
        return fromstring(cured), (
            f"its OME-XML has what XML forbids, which was left out ({found}).",
        )
    except ParseError:
        return None, (f"its OME-XML cannot be parsed, so what it states is not known ({found}).",)


def imagej_channels(header: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the channels: the labels of ImageJ's slices, if all slices of a channel share one.

    Empty where they do not, or where nothing is left without the place in the stack.
    """
    count, labels = header.get("channels"), header.get("Labels")
    if not isinstance(count, int) or not isinstance(labels, list) or not 1 < count <= len(labels):
        return ()
    texts = [one_line(_PLACE_IN_STACK.sub("", str(label)).strip()) for label in labels]
    found = [set(texts[number::count]) for number in range(count)]
    names = tuple(one.pop() for one in found if len(one) == 1)
    return names if len(names) == count and any(names) else ()


def ome_stated(root: Element, number: int = 0, source: str = "") -> Stated:
    """What OME-XML states of one of its images, counted from 0."""
    images = root.findall("{*}Image")
    image = images[number] if number < len(images) else None
    pixels = None if image is None else image.find("{*}Pixels")
    if image is None or pixels is None:
        return Stated()
    where = f"OME-XML of {source}"
    x, y = (_length(pixels, f"PhysicalSize{letter}", _MICROMETRE) for letter in "XY")
    y = y if "PhysicalSizeY" in pixels.attrib else x
    pixel_um, origins = square_pixel(x, y, where)
    optics, unclear = _ome_optics(root, image, pixels)
    names = [channel.get("Name") or "" for channel in pixels.findall("{*}Channel")]
    return Stated(
        pixel_um=pixel_um,
        optics=optics,
        place=_ome_place(pixels),
        channels=tuple(names) if any(names) else (),
        origins={**dict.fromkeys(optics, where), **unclear, **origins},
    )


def _ome_optics(
    root: Element, image: Element, pixels: Element
) -> tuple[dict[str, float], dict[str, str]]:
    """Optics, and why one of them is not clear."""
    settings = image.find("{*}ObjectiveSettings")
    objectives = root.findall("{*}Instrument/{*}Objective")
    wanted = None if settings is None else settings.get("ID")
    if wanted is not None:
        objectives = [one for one in objectives if one.get("ID") == wanted][:1]
    found = {
        _length(channel, "EmissionWavelength", "nm") for channel in pixels.findall("{*}Channel")
    } - {None}
    waves = sorted(wave for wave in found if wave is not None)
    stated = {
        "immersion_index": _number(settings, "RefractiveIndex"),
        "na": _number(objectives[0], "LensNA") if len(objectives) == 1 else None,
        "emission_um": waves[0] if len(waves) == 1 else None,
    }
    unclear = {"emission_um": several_waves(waves)} if len(waves) > 1 else {}
    return {
        name: value for name, value in stated.items() if value is not None and value > 0
    }, unclear


def several_waves(waves_um: list[float]) -> str:
    """Why there is no emission wavelength where channels have several [um]."""
    listed = ", ".join(f"{wave:g}" for wave in waves_um)
    return f"the channels have several emission wavelengths ({listed} um)"


def _ome_place(pixels: Element) -> dict[str, float]:
    planes = pixels.findall("{*}Plane")
    first = planes[0] if planes else None
    found = {
        "z_step_um": _position(pixels, "PhysicalSizeZ", _MICROMETRE),
        "frame_interval_s": _time(pixels, "TimeIncrement"),
        "y_um": _position(first, "PositionY"),
        "x_um": _position(first, "PositionX"),
        "z_um": _position(first, "PositionZ"),
        "t_s": _time(first, "DeltaT"),
    }
    # Positions of single planes also tell in which direction Z runs.
    heights = {
        plane.get("TheZ"): _position(plane, "PositionZ")
        for plane in reversed(planes)
        if all(plane.get(name) == planes[0].get(name) for name in ("TheC", "TheT"))
    }
    lowest, next_one = heights.get("0"), heights.get("1")
    if lowest is not None and next_one is not None and lowest != next_one:
        found |= {"z_step_um": next_one - lowest, "z_directed": 1.0}
    return {name: value for name, value in found.items() if value is not None}


def _length(element: Element | None, name: str, unit: str) -> float | None:
    return (
        None if element is None else length_um(_number(element, name), _unit(element, name, unit))
    )


def _position(element: Element | None, name: str, unit: str = "reference frame") -> float | None:
    if element is None:
        return None
    return position_um(_number(element, name), _unit(element, name, unit))


def _time(element: Element | None, name: str) -> float | None:
    return None if element is None else time_s(_number(element, name), _unit(element, name, "s"))


def _unit(element: Element, name: str, usual: str) -> str:
    return element.get(f"{name}Unit", usual)


def _number(element: Element | None, name: str) -> float | None:
    return None if element is None else stated_number(element.get(name))


def stated_number(value: object) -> float | None:
    """A number of a header, also with the decimal comma that some countries write; else None."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value.replace(",", ".", 1))
    return float(value) if isinstance(value, int | float) else None
