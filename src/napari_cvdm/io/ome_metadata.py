"""What an OME-XML header says about pixels and optics."""

from xml.etree import ElementTree

from napari_cvdm.io.pixel_size import length_um, position_um

_MICROMETRE = "µm"


def _find(root: ElementTree.Element, *path: str) -> ElementTree.Element | None:
    # Files carry the namespaces of many schema years: {*} takes any of them.
    return root.find("/".join("{*}" + name for name in path))


def _number(element: ElementTree.Element | None, name: str) -> float | None:
    try:
        return float(element.attrib[name]) if element is not None else None
    except (KeyError, ValueError):
        return None


def ome_pixel(xml: str) -> tuple[float | None, float | None]:
    """Pixel size of the first image along X and Y.

    Parameters
    ----------
    xml : str
        OME-XML.

    Returns
    -------
    tuple of (float or None)
        Micrometres, or None where not said (also 1.0 exactly, or pixels).
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
    """Where the first image lies: step along Z and stage position of its first plane.

    Parameters
    ----------
    xml : str
        OME-XML.

    Returns
    -------
    dict
        Those of ``z_step_um``, ``y_um`` and ``x_um`` that are said.
    """
    pixels = _find(ElementTree.fromstring(xml), "Image", "Pixels")
    plane = _find(pixels, "Plane") if pixels is not None else None
    said = {
        "z_step_um": _position_um(pixels, "PhysicalSizeZ", _MICROMETRE),
        "y_um": _position_um(plane, "PositionY", "reference frame"),
        "x_um": _position_um(plane, "PositionX", "reference frame"),
    }
    return {name: value for name, value in said.items() if value is not None}


def _position_um(element: ElementTree.Element | None, name: str, default_unit: str) -> float | None:
    return (
        None
        if element is None
        else position_um(_number(element, name), element.get(f"{name}Unit", default_unit))
    )


def ome_optics(xml: str) -> dict[str, float]:
    """Optics of the first image.

    Parameters
    ----------
    xml : str
        OME-XML.

    Returns
    -------
    dict
        Those of ``na``, ``medium_index`` and ``wavelength_um`` (emission, if it is the same in all
        channels) that the file states.
    """
    root = ElementTree.fromstring(xml)
    settings = _find(root, "Image", "ObjectiveSettings")
    said = {
        "medium_index": _number(settings, "RefractiveIndex"),
        "na": _number(_objective(root, settings), "LensNA"),
        "wavelength_um": _emission_um(root),
    }
    return {name: value for name, value in said.items() if value is not None and value > 0}


def _objective(
    root: ElementTree.Element, settings: ElementTree.Element | None
) -> ElementTree.Element | None:
    objectives = root.findall("{*}Instrument/{*}Objective")
    wanted = settings.get("ID") if settings is not None else None
    if wanted is None:
        return objectives[0] if len(objectives) == 1 else None
    return next((objective for objective in objectives if objective.get("ID") == wanted), None)


def _emission_um(root: ElementTree.Element) -> float | None:
    image = _find(root, "Image")
    channels = image.findall("{*}Pixels/{*}Channel") if image is not None else []
    lengths = {
        length_um(
            _number(channel, "EmissionWavelength"), channel.get("EmissionWavelengthUnit", "nm")
        )
        for channel in channels
    }
    return lengths.pop() if len(lengths) == 1 else None
