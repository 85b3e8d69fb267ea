"""Read files of microscope vendors (Nikon, Zeiss, Leica) through the plugins of bioio.

The extra `bioio` installs them.
"""

import warnings
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io.axes import ordered_axes, usable_dtype
from napari_cvdm.io.errors import ImageFileError, one_line
from napari_cvdm.io.metadata import length_um, ome_optics, ome_place, position_um, square_pixel

NM_PER_UM = 1000.0
SUFFIXES = (".czi", ".lif", ".nd2")
_ZEISS_TAGS = {
    "na": "LensNA",
    "medium_index": "RefractiveIndex",
    "wavelength_um": "EmissionWavelength",
}
_INSTALL = "pip install 'napari-cvdm[bioio]', or save the image as OME-TIFF from Fiji"


def read_vendor_file(path: Path) -> ImageStack:
    """Read the first scene of a vendor's file.

    Pixels are as stored; pixel size, Z step and optics are there where the file says them.

    Raises
    ------
    ImageFileError
        The extra is not installed, the file cannot be read, or its pixels are not square.
    """
    source, suffix = path.name, path.suffix.lower()
    try:
        from bioio import BioImage
    except ImportError as error:
        raise ImageFileError(
            f"{source}: {suffix} files need the extra bioio: {_INSTALL}."
        ) from error
    try:
        with warnings.catch_warnings():
            # The plugins warn about metadata that they cannot translate.
            warnings.simplefilter("ignore")
            image = BioImage(path)
            array, axes = ordered_axes(
                usable_dtype(image.data, source), str(image.dims.order), source
            )
            size, optics, place = image.physical_pixel_sizes, *_said(image, suffix)
    except ImageFileError:
        raise
    except Exception as error:  # the plugins let through whatever a damaged file makes happen
        if type(error).__name__ == "UnsupportedFileFormatError":
            raise ImageFileError(
                f"{source}: the plugin of bioio for {suffix} files is not installed: {_INSTALL}."
            ) from error
        raise ImageFileError(
            f"{source}: cannot be read ({one_line(error)}). Copy it again, or save it as OME-TIFF "
            "from Fiji."
        ) from error
    pixel_um = square_pixel(length_um(size.X, "um"), length_um(size.Y, "um"), source)
    step = position_um(size.Z, "um") or 0.0
    place = {**place, "z_step_um": step} if step > 0 else place
    return ImageStack(
        array=array, axes=axes, pixel_um=pixel_um, source=source, metadata=optics, place=place
    )


def _said(image: Any, suffix: str) -> tuple[dict[str, float], dict[str, float]]:
    """Optics and place as far as the metadata can be read: a help that the form can do without."""
    try:
        if suffix == ".czi":  # its translation to OME fails on many files
            return zeiss_optics(image.metadata), {}
        xml = image.ome_metadata.to_xml()
        return ome_optics(xml), ome_place(xml)
    except Exception:  # what the translations of the vendors' metadata fail with has no end
        return {}, {}


def zeiss_optics(metadata: Element) -> dict[str, float]:
    """Optics in the metadata of a CZI file, whose root is ``ImageDocument``.

    Those of ``na``, ``medium_index`` and ``wavelength_um`` (emission) that are stated, and that are
    the same for all channels.
    """
    said = {
        name: {float(found.text) for found in metadata.iter(tag) if found.text}
        for name, tag in _ZEISS_TAGS.items()
    }
    single = {name: values.pop() for name, values in said.items() if len(values) == 1}
    return {
        name: value / NM_PER_UM if name == "wavelength_um" else value
        for name, value in single.items()
        if value > 0
    }
