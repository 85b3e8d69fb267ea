"""Images in files: read with axes, pixel size and optics; written completely or not at all."""

from napari_cvdm.io.axes import (
    Fingerprint,
    check_frame,
    check_pixels,
    combine_planes,
    sha256_of,
)
from napari_cvdm.io.errors import ImageFileError
from napari_cvdm.io.folders import output_folder
from napari_cvdm.io.read import SUFFIXES, read_image
from napari_cvdm.io.write import write_image

__all__ = [
    "SUFFIXES",
    "Fingerprint",
    "ImageFileError",
    "check_frame",
    "check_pixels",
    "combine_planes",
    "output_folder",
    "read_image",
    "sha256_of",
    "write_image",
]
