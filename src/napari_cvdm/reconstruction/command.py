"""A result made again: from what it says of itself and from the files it was made of."""

import shlex
from collections.abc import Generator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from napari_cvdm.core.request import (
    MeasuredPsf,
    ReconstructionRequest,
    RequestError,
    command_words,
    image_roles,
)
from napari_cvdm.core.result import Progress
from napari_cvdm.io import read_image, sha256_of
from napari_cvdm.io.read import read_images, read_psf
from napari_cvdm.reconstruction.methods import card_of_method
from napari_cvdm.reconstruction.plan import with_planes
from napari_cvdm.reconstruction.reconstruct import STOPPED_UNEVENLY

FINGERPRINT = "image sha256:"


def command_of(
    provenance: Mapping[str, Any], files: Mapping[str, str]
) -> Generator[Progress, None, str]:
    """The command that gives the pixels of a result again, one line for a shell.

    Parameters
    ----------
    provenance : mapping
        `Provenance` as plain values: its settings and the fingerprint of its input.
    files : mapping of str to str
        The files that its image was read from, by option: image, and image2, image3, ... where
        there are such. Reading them takes a moment.

    Raises
    ------
    RequestError, ImageFileError, CheckpointError
        No files are known, they do not hold the pixels that the result was made of, or its frames
        have different numbers of samples.
    """
    if not files:
        raise RequestError(
            "the image was not opened from a file, so no command can name it. Save the layer as "
            ".npy or OME-TIFF, open that file, and reconstruct it."
        )
    if any(warning.startswith(STOPPED_UNEVENLY) for warning in provenance["warnings"]):
        raise RequestError(
            "the run was stopped before all frames had the same number of samples, so no command "
            "gives its pixels. Add samples first."
        )
    yield Progress(stage="reading the files", done=0, total=1)
    request = request_of(provenance["settings"], files)
    if sha256_of(request.image.array) not in provenance["inputs"].values():
        raise RequestError(
            f"{' and '.join(files.values())} holds other pixels than the layer had. Save the "
            "layer, open that file, and reconstruct it."
        )
    # Before the first dot, as the ending may be .ome.tif or .ome.zarr.
    out = f"{Path(files['image']).name.split('.')[0]}-{provenance['model']['name']}"
    return shlex.join(command_words(request, files, out))


def request_of(settings: Mapping[str, Any], files: Mapping[str, str]) -> ReconstructionRequest:
    """The request that settings and files make."""
    stacks = read_images([files[role] for role in image_roles(files)], settings.get("series"))
    known = {
        entry.name: settings[entry.name]
        for entry in fields(ReconstructionRequest)
        if entry.name in settings
    }
    # JSON has no tuples.
    known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    if "background" in files:
        known["background"] = read_image(files["background"]).array
    known["psf"] = _same_psf(settings.get("psf"), files.get("psf"))
    card = card_of_method(settings["model"])
    known["image"] = with_planes(stacks, card, known.get("defocus_um"))
    return ReconstructionRequest(**known)


def _same_psf(setting: str | None, file: str | None) -> MeasuredPsf | None:
    """The PSF of a file; RequestError where the settings name one that it does not hold."""
    if setting is None:
        return None
    if file is None:
        raise RequestError(
            "the file of the measured PSF is not known, so no command can name it. Choose it "
            "again, and reconstruct."
        )
    psf = read_psf(file)
    if setting.startswith(FINGERPRINT) and sha256_of(psf.array) not in setting:
        raise RequestError(
            f"{file} holds another PSF than the result was made with. Choose the one that was used."
        )
    return psf
