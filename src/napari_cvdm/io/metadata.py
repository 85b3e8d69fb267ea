"""Pixel size, position, time and optics, as headers state them.

A value is missing where a file does not really state it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from html import unescape
from itertools import pairwise
from math import isfinite
from statistics import median
from typing import Any
from xml.etree.ElementTree import Element, ParseError, fromstring

from napari_cvdm.core.microscope import PIXEL_RANGE_UM
from napari_cvdm.io.errors import one_line

UM_PER_INCH = 25400.0
_PRINT_UNITS = ("inch", "in", "cm")
# Finer than 20 um for a pixel, yet printing and scanning, not microscopy.
_PRINT_DPI = (1440, 2400, 2540, 2880, 4000, 4800, 5760, 9600)
_STAGE_UNIT = "reference frame"  # the schema's default for positions; it is no length
# Kinds of TIFF with tags that nobody reads here.
_NOT_READ = frozenset(
    {"andor", "avs", "bif", "fei", "indica", "mdgel", "mediacy", "ndpi", "nih", "nuvu", "philips"}
    | {"qpi", "scanimage", "scn", "sem", "streak", "svs", "tvips", "vista"}
)
_LARGEST_ASPECT = 1.01
NM_PER_UM = 1000.0
_LIGHT_NM = (200.0, 2000.0)
_MOST_UNEVEN = 0.2  # of a step between planes, for them to be a focus stack
_TIFF_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "um"}
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
        values = asdict(self)
        return {"metadata": values.pop("optics"), **values}


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


def read_imagej(tiff: Any) -> Mapping[str, Any]:
    """ImageJ's header of a TIFF; empty for another program."""
    return (tiff.imagej_metadata or {}) if tiff.is_imagej else {}


def find_maker(tiff: Any) -> str:
    """Whose private tags a TIFF has, of `MAKERS`; "" for nobody's."""
    return next((kind for kind in MAKERS if getattr(tiff, f"is_{kind}")), "")


def tiff_stated(
    tiff: Any, page: Any, root: Element | None, number: int | None, source: str
) -> Stated:
    """What a TiffFile states of one of its images, by the first of its dialects.

    `page` is the first one of the image. `number` is that of the image in the OME-XML, from 0, and
    None where that is not clear.
    """
    summary = (tiff.micromanager_metadata or {}).get("Summary") if tiff.is_micromanager else None
    if root is not None and root.find("{*}Image") is not None:
        if number is None:
            sentence = "which image of its OME-XML it is, is not clear, so nothing of it is used."
            return Stated(warnings=(sentence,))
        return ome_stated(root, number, source)
    if isinstance(summary, Mapping):
        return micromanager_stated(summary, source)
    shaped: Mapping[str, Any] = next(iter(tiff.shaped_metadata or ()), {})
    said = tags_stated(page, read_imagej(tiff), shaped, source)
    if kind := find_maker(tiff):
        made = maker_stated(kind, getattr(tiff, f"{kind}_metadata"), source)
        if "pixel_um" not in made.origins:
            origins = {**said.origins, **made.origins}
            made = replace(made, pixel_um=said.pixel_um, origins=origins)
        said = made
    other = sorted(kind for kind in _NOT_READ if getattr(tiff, f"is_{kind}"))
    if other and said.pixel_um is None:
        sentence = f"its private tags ({', '.join(other)}) are not read. Type the pixel size."
        said = replace(said, warnings=(sentence,))
    return said


def ome_stated(root: Element, number: int = 0, source: str = "") -> Stated:
    """What OME-XML states of one of its images, counted from 0."""
    images = root.findall("{*}Image")
    image = images[number] if number < len(images) else None
    pixels = None if image is None else image.find("{*}Pixels")
    if image is None or pixels is None:
        return Stated()
    where = f"OME-XML of {source}"
    x, y = (_read_quantity(pixels, f"PhysicalSize{letter}", length_um, "µm") for letter in "XY")
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
        _read_quantity(channel, "EmissionWavelength", length_um, "nm")
        for channel in pixels.findall("{*}Channel")
    }
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
        "z_step_um": _read_quantity(pixels, "PhysicalSizeZ", position_um, "µm"),
        "frame_interval_s": _read_quantity(pixels, "TimeIncrement", time_s, "s"),
        "y_um": _read_quantity(first, "PositionY", position_um, _STAGE_UNIT),
        "x_um": _read_quantity(first, "PositionX", position_um, _STAGE_UNIT),
        "z_um": _read_quantity(first, "PositionZ", position_um, _STAGE_UNIT),
        "t_s": _read_quantity(first, "DeltaT", time_s, "s"),
    }
    # Positions of single planes also tell in which direction Z runs.
    heights = {
        plane.get("TheZ"): _read_quantity(plane, "PositionZ", position_um, _STAGE_UNIT)
        for plane in reversed(planes)
        if all(plane.get(name) == planes[0].get(name) for name in ("TheC", "TheT"))
    }
    lowest, next_one = heights.get("0"), heights.get("1")
    if lowest is not None and next_one is not None and lowest != next_one:
        found |= {"z_step_um": next_one - lowest, "z_directed": 1.0}
    return {name: value for name, value in found.items() if value is not None}


def _read_quantity(
    element: Element | None,
    name: str,
    convert: Callable[[float | None, str | None], float | None],
    usual_unit: str,
) -> float | None:
    """A quantity of an element, whose unit is the usual one where the XML leaves it out."""
    if element is None:
        return None
    return convert(_number(element, name), element.get(f"{name}Unit", usual_unit))


def _number(element: Element | None, name: str) -> float | None:
    return None if element is None else stated_number(element.get(name))


def stated_number(value: object) -> float | None:
    """A number of a header, also with the decimal comma that some countries write; else None."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value.replace(",", ".", 1))
    return float(value) if isinstance(value, int | float) else None


def micromanager_stated(summary: Mapping[str, Any], source: str) -> Stated:
    """What the summary of a Micro-Manager acquisition states."""
    step = summary.get("z-step_um")
    side = summary.get("PixelSize_um")
    pixel_um = length_um(side, "um") if isinstance(side, int | float) else None
    return Stated(
        pixel_um=pixel_um,
        place={"z_step_um": float(step)} if isinstance(step, int | float) and step else {},
        origins={"pixel_um": f"the summary of Micro-Manager in {source}"} if pixel_um else {},
    )


def tags_stated(
    page: Any, imagej: Mapping[str, Any], shaped: Mapping[str, Any], source: str
) -> Stated:
    """What ImageJ's header, tifffile's or the tags of a page say."""
    # tifffile writes the same words as JSON where it is not told to write for ImageJ.
    said = imagej or shaped
    tag_unit, unit = _TIFF_UNITS.get(int(page.resolutionunit), ""), str(said.get("unit") or "")
    units = (unit, str(said.get("yunit") or unit)) if unit else (tag_unit, tag_unit)
    x, y = (
        pixel_of_resolution(float(pixels), name, bool(unit))
        for pixels, name in zip(page.get_resolution(), units, strict=True)
    )
    header = "ImageJ's header" if imagej else "the description"
    where = f"{header if unit else 'the tags'} of {source}"
    pixel_um, origins = square_pixel(x, y, where)
    step, interval = stated_number(said.get("spacing")), stated_number(said.get("finterval"))
    place = {
        "z_step_um": position_um(step, str(said.get("zunit") or unit)),
        "frame_interval_s": (
            time_s(interval, str(said.get("tunit") or "s")) if interval and interval > 0 else None
        ),
    }
    return Stated(
        pixel_um=pixel_um,
        place={name: value for name, value in place.items() if value is not None},
        channels=imagej_channels(imagej),
        origins=origins,
    )


def maker_stated(kind: str, said: Mapping[str, Any], source: str) -> Stated:
    """What the private tags of a TIFF state, as tifffile reads those of one of the `MAKERS`."""
    size, unit, place, channels, waves_nm = _MAKER_TAGS[kind](said)
    where = f"the {MAKERS[kind]} header of {source}"
    x, y = (length_um(stated_number(one), unit) for one in size)
    pixel_um, origins = square_pixel(x, y, where)
    low, high = _LIGHT_NM
    waves = sorted({float(wave) / NM_PER_UM for wave in waves_nm if low <= float(wave) <= high})
    if waves:
        origins["emission_um"] = where if len(waves) == 1 else several_waves(waves)
    return Stated(
        pixel_um=pixel_um,
        optics={"emission_um": waves[0]} if len(waves) == 1 else {},
        place={name: value for name, value in place.items() if value and isfinite(value)},
        channels=channels if any(channels) else (),
        origins=origins,
    )


# Sides of a pixel and their unit, place, names of channels, emission wavelengths [nm].
_Parts = tuple[tuple[Any, Any], str, dict[str, float], tuple[str, ...], Iterable[Any]]


def _metamorph_parts(said: Mapping[str, Any]) -> _Parts:
    side = said.get("XCalibration")
    step, directed = _metamorph_step(said)
    place = {"z_step_um": step} | ({"z_directed": 1.0} if directed else {})
    times = said.get("DatetimeCreated")
    if times is not None and metamorph_axis(said) == "T":
        place["frame_interval_s"] = _even_step([one.astype(int) / 1e9 for one in times])
    waves = said.get("Wavelengths", ())
    names = [f"{wave:g} nm" for wave in waves] if metamorph_axis(said) == "C" else []
    return (
        (side, said.get("YCalibration", side)),
        str(said.get("CalibrationUnits", "")),
        place,
        tuple(names),
        waves,
    )


def metamorph_axis(said: Mapping[str, Any]) -> str:
    """Letter of the planes of a MetaMorph stack, by their heights, wavelengths and times.

    tifffile takes a focus stack for a time-lapse where the first of its distances is 0.
    """
    planes = int(said["NumberPlanes"])
    if planes > 1 and _metamorph_step(said)[0]:
        return "Z"
    for letter, name in (("C", "Wavelengths"), ("T", "DatetimeCreated")):
        values = said.get(name)
        if planes > 1 and values is not None and len(set(values.tolist())) == planes:
            return letter
    return "I"


def _metamorph_step(said: Mapping[str, Any]) -> tuple[float, bool]:
    """Step between planes [um], 0 for no focus stack, and whether its sign is known."""
    heights, valid = said.get("AbsoluteZ"), said.get("AbsoluteZValid")
    if heights is not None and valid is not None and all(valid):
        step = _even_step(heights.tolist())
        if step:
            return step, True
    distances = said.get("ZDistance")
    # It is that to the plane before, or behind: the first or the last one has none.
    inner = [] if distances is None else list(distances[1:-1] if len(distances) > 2 else distances)
    inner = inner or [0.0]
    return (float(median(inner)) if all(inner) else 0.0), False


def _even_step(values: Sequence[float]) -> float:
    """The usual step between values; 0 where steps are not alike, as those of a drift are not."""
    steps = [after - before for before, after in pairwise(values)]
    usual = median(steps) if steps else 0.0
    uneven = any(not abs(step - usual) <= _MOST_UNEVEN * abs(usual) for step in steps)
    return 0.0 if uneven else float(usual)


def _zeiss_parts(said: Mapping[str, Any]) -> _Parts:
    interval = said.get("TimeIntervall") or _even_step(list(said.get("TimeStamps", ())))
    place = {
        "z_step_um": position_um(said.get("VoxelSizeZ"), "m") or 0.0,
        "frame_interval_s": float(interval),
    }
    names = (said.get("ChannelColors") or {}).get("ColorNames") or ()
    return (said["VoxelSizeX"], said["VoxelSizeY"]), "m", place, tuple(map(str, names)), ()


def _fluoview_parts(said: Mapping[str, Any]) -> _Parts:
    axes = {str(name).upper(): (step, unit) for name, _, _, step, unit in said["Dimensions"]}
    (x, unit), (y, _) = axes.get("X", (None, "")), axes.get("Y", (None, ""))
    place = {
        "z_step_um": position_um(*axes.get("Z", (None, ""))),
        "frame_interval_s": time_s(*axes.get("TIME", axes.get("T", (None, "")))),
    }
    return (x, y), unit, {name: value or 0.0 for name, value in place.items()}, (), ()


def _metaseries_parts(said: Mapping[str, Any]) -> _Parts:
    plane = said.get("PlaneInfo") or {}
    size = tuple(plane.get(f"spatial-calibration-{letter}") for letter in "xy")
    wave = stated_number(plane.get("wavelength"))
    unit = str(plane.get("spatial-calibration-units", ""))
    return (size[0], size[1]), unit, {}, (), () if wave is None else (wave,)


def _olympus_parts(said: Mapping[str, Any]) -> _Parts:
    return (said.get("pixelsizex"), said.get("pixelsizey")), "m", {}, (), ()


# By the name that tifffile has for the kind of file.
MAKERS = {
    "stk": "MetaMorph",
    "lsm": "Zeiss LSM",
    "fluoview": "FluoView",
    "metaseries": "MetaSeries",
    "sis": "Olympus",
}
_MAKER_TAGS: dict[str, Callable[[Mapping[str, Any]], _Parts]] = {
    "stk": _metamorph_parts,
    "lsm": _zeiss_parts,
    "fluoview": _fluoview_parts,
    "metaseries": _metaseries_parts,
    "sis": _olympus_parts,
}
