"""Pixel size, position and optics in micrometres, as headers state them.

A value is None where a file does not really state it.
"""

from math import isfinite
from xml.etree import ElementTree

from napari_cvdm.io.errors import ImageFileError

UM_PER_INCH = 25400.0
_MICROMETRE = "µm"
_UM_BY_UNIT = {
    unit: factor
    for factor, units in (
        (1e6, ("m",)),
        (UM_PER_INCH, ("in", "inch")),
        (1e4, ("cm",)),
        (1e3, ("mm", "millimeter")),
        # The micro sign U+00B5, the Greek letter U+03BC, and what ImageJ writes into a header.
        (1.0, ("um", "µm", "μm", "\\u00b5m")),
        (1.0, ("micron", "microns", "micrometer", "micrometre")),
        (1e-3, ("nm", "nanometer", "nanometre")),
        (1e-4, ("å", "angstrom")),
        (1e-6, ("pm",)),
    )
    for unit in units
}
_LARGEST_ASPECT = 1.01


def length_um(value: float | None, unit: str | None) -> float | None:
    """A length in micrometres, from one in a unit such as ``nm``, ``µm`` or ``micron``.

    None if it is missing, not positive, in pixels or in an unknown unit, or exactly 1. Files that
    were never calibrated say 1.
    """
    length = position_um(value, unit)
    return None if length is None or length <= 0 or 1.0 in (value, length) else length


def position_um(value: float | None, unit: str | None) -> float | None:
    """Position or distance in micrometres, of any sign; None if missing or in an unknown unit."""
    factor = _UM_BY_UNIT.get((unit or "").strip().lower())
    return None if value is None or factor is None or not isfinite(value) else value * factor


def square_pixel(x: float | None, y: float | None, source: str) -> float | None:
    """The side `x` of a square pixel [um]; None when one of the two sides is not known.

    ImageFileError where they differ by more than 1 %.
    """
    if x is None or y is None:
        return None
    if max(x, y) > _LARGEST_ASPECT * min(x, y):
        raise ImageFileError(
            f"{source}: pixels are {x:g} x {y:g} um; they must be square within 1 %. Resample the "
            "image, or correct its pixel size."
        )
    return x


def ome_pixel(xml: str) -> tuple[float | None, float | None]:
    """Pixel size of the first image of OME-XML along X and Y [um].

    None where it is not stated, exactly 1.0, or in pixels.
    """
    pixels = _find(ElementTree.fromstring(xml), "Image", "Pixels")
    if pixels is None:
        return None, None
    x = length_um(_number(pixels, "PhysicalSizeX"), pixels.get("PhysicalSizeXUnit", _MICROMETRE))
    if "PhysicalSizeY" not in pixels.attrib:
        return x, x
    return x, length_um(
        _number(pixels, "PhysicalSizeY"), pixels.get("PhysicalSizeYUnit", _MICROMETRE)
    )


def ome_place(xml: str) -> dict[str, float]:
    """Step along Z and stage position of the first plane of the first image of OME-XML.

    Those of ``z_step_um``, ``y_um`` and ``x_um`` that are stated.
    """
    pixels = _find(ElementTree.fromstring(xml), "Image", "Pixels")
    plane = None if pixels is None else _find(pixels, "Plane")
    stated = {}
    for key, element, name, default_unit in (
        ("z_step_um", pixels, "PhysicalSizeZ", _MICROMETRE),
        ("y_um", plane, "PositionY", "reference frame"),
        ("x_um", plane, "PositionX", "reference frame"),
    ):
        if element is not None:
            unit = element.get(f"{name}Unit", default_unit)
            stated[key] = position_um(_number(element, name), unit)
    return {key: value for key, value in stated.items() if value is not None}


def ome_optics(xml: str) -> dict[str, float]:
    """Optics of the first image of OME-XML.

    Those of ``na``, ``medium_index`` and ``wavelength_um`` (emission, if it is the same in all
    channels) that are stated.
    """
    root = ElementTree.fromstring(xml)
    settings = _find(root, "Image", "ObjectiveSettings")
    objectives = root.findall("{*}Instrument/{*}Objective")
    wanted = None if settings is None else settings.get("ID")
    if wanted is not None:
        objectives = [one for one in objectives if one.get("ID") == wanted][:1]
    image = _find(root, "Image")
    channels = [] if image is None else image.findall("{*}Pixels/{*}Channel")
    wavelengths = {
        length_um(_number(one, "EmissionWavelength"), one.get("EmissionWavelengthUnit", "nm"))
        for one in channels
    }
    stated = {
        "medium_index": _number(settings, "RefractiveIndex"),
        "na": _number(objectives[0], "LensNA") if len(objectives) == 1 else None,
        "wavelength_um": wavelengths.pop() if len(wavelengths) == 1 else None,
    }
    return {name: value for name, value in stated.items() if value is not None and value > 0}


def _find(root: ElementTree.Element, *path: str) -> ElementTree.Element | None:
    # Files carry the namespaces of many schema years: {*} takes any of them.
    return root.find("/".join("{*}" + name for name in path))


def _number(element: ElementTree.Element | None, name: str) -> float | None:
    try:
        return float(element.attrib[name]) if element is not None else None
    except (KeyError, ValueError):
        return None
