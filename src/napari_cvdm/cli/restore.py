"""``napari-cvdm restore``: make a folder with reconstruction and provenance from image files."""

import hashlib
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from napari_cvdm.checks.training_range import field_text
from napari_cvdm.cli import check_inputs_stay, say_done
from napari_cvdm.cli.progress import with_bar
from napari_cvdm.cli.results import write_images, write_provenance
from napari_cvdm.core.device import pick_device
from napari_cvdm.core.request import (
    OPTICS,
    ReconstructionRequest,
    RequestError,
    image_roles,
    roles_of_images,
)
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.io import check_pixels, output_folder, read_image
from napari_cvdm.io.read import read_psf
from napari_cvdm.io.result_folder import PROVENANCE
from napari_cvdm.models.checkpoint import ModelCard
from napari_cvdm.reconstruction.methods import load_method
from napari_cvdm.reconstruction.plan import with_planes
from napari_cvdm.reconstruction.reconstruct import reconstruct

Locate = Callable[[str], Path]
_OME_AXES = "TZC"


def run(arguments: Namespace) -> None:
    """Carry out ``napari-cvdm restore``.

    Parameters
    ----------
    arguments : Namespace
        Of `napari_cvdm.cli.options.build_parser`.

    Raises
    ------
    ValueError, OSError
        Bad input, in words; the output folder is not made then.
    """
    check_inputs_stay(arguments, [*files_of(arguments).values(), arguments.model])
    if arguments.out.lower().endswith(".zarr"):
        # Zarr and dask, which others need not wait for.
        from napari_cvdm.cli.by_blocks import run_by_blocks

        run_by_blocks(arguments, files_of(arguments))
        return
    check_in_memory(arguments)
    with output_folder(arguments.out, arguments.overwrite) as folder:
        reconstruction, names = reconstruct_into(folder, arguments)
    say_done(f"{arguments.out}: {', '.join([*names, PROVENANCE])}")
    say_done(field_text(reconstruction.mean.shape, reconstruction.pixel_um))
    if reconstruction.forward is not None:
        print(f"napari-cvdm: check: {reconstruction.forward.verdict}", file=sys.stderr)
    for warning in reconstruction.provenance.warnings:
        print(f"napari-cvdm: warning: {warning}", file=sys.stderr)


def reconstruct_into(
    folder: Path, arguments: Namespace, locate: Locate = Path
) -> tuple[Reconstruction, list[str]]:
    """Reconstruct the image that the arguments name, and write everything into a folder.

    Parameters
    ----------
    folder : Path
        An existing folder.
    arguments : Namespace
    locate : callable
        Where a file with the name that the arguments give lies now.

    Returns
    -------
    reconstruction : Reconstruction
    names : list of str
        Of the image files.
    """
    clock = Stopwatch()
    model = load_method(arguments.model)
    clock.lap("load_model")
    request = request_of(arguments, model.card, locate)
    inputs = {
        role: {"path": printable_path(path), "file_sha256": file_sha256(locate(path))}
        for role, path in files_of(arguments).items()
    }
    clock.lap("read")
    reconstruction = with_bar(reconstruct(request, model), "reconstructing")
    clock.lap("restore")
    names = write_images(folder, reconstruction, request.image.place)
    clock.lap("write")
    write_provenance(
        folder,
        reconstruction,
        settings_of(arguments),
        inputs,
        clock.laps,
        str(pick_device(request.device)),
    )
    return reconstruction, names


def check_in_memory(arguments: Namespace) -> None:
    """RequestError where an option is given that only an OME-Zarr as output has."""
    given = [name for name in ("block", "halo", "scheduler") if hasattr(arguments, name)]
    if given:
        raise RequestError(
            f"--{given[0]} works block by block: choose a name with --out that ends in .ome.zarr, "
            "or leave it out."
        )


class Stopwatch:
    """Seconds by stage, and in total."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {"total": 0.0}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self.laps["total"] += self.laps[stage]
        self._last = now


def file_sha256(path: Path) -> str:
    """Fingerprint of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_of(arguments: Namespace) -> dict[str, str]:
    """Files that the arguments name, by option: image, image2, image3, ..., background, psf."""
    images = [arguments.image, *arguments.image2]
    files = dict(zip(roles_of_images(len(images)), images, strict=True))
    background = getattr(arguments, "background", "auto")
    files |= {} if background in ("auto", "none") else {"background": background}
    return files | ({"psf": arguments.psf} if hasattr(arguments, "psf") else {})


def settings_of(arguments: Namespace) -> dict[str, Any]:
    """Every option that was given, by its name.

    The reconstruction has the others, and the values chosen for ``auto``.
    """
    left_out = ("command", *OPTICS, "defocus_um", "condenser_na", "precision")
    given = {**vars(arguments), "image2": None, **files_of(arguments)}
    return {
        name: printable_path(value) if isinstance(value, str) else value
        for name, value in given.items()
        if name not in left_out
    }


def printable_path(path: str) -> str:
    """A path as text that any file can hold; bytes that are no UTF-8 are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def request_of(
    arguments: Namespace, card: ModelCard, locate: Locate = Path
) -> ReconstructionRequest:
    """Read the files that the arguments name, and make the request.

    Parameters
    ----------
    arguments : Namespace
    card : ModelCard
        Says how many planes the model takes.
    locate : callable
        Where a file with the name that the arguments give lies now.

    Returns
    -------
    ReconstructionRequest

    Raises
    ------
    RequestError, OpticsError, ImageFileError
        What is wrong with the files or the options.
    """
    paths = files_of(arguments)
    stacks = [read_image(locate(paths[role])) for role in image_roles(paths)]
    image = with_planes(stacks, card, getattr(arguments, "defocus_um", None))
    check_pixels(image)
    options = {
        entry.name: getattr(arguments, entry.name)
        for entry in fields(ReconstructionRequest)
        if hasattr(arguments, entry.name)
    }
    options["background"] = (
        read_background(locate(paths["background"]))
        if "background" in paths
        else options.get("background", "auto")
    )
    options |= {"psf": read_psf(locate(paths["psf"]))} if "psf" in paths else {}
    options |= {name: tuple(options[name]) for name in ("defocus_um", "region") if name in options}
    request = ReconstructionRequest(**{**options, "image": image})
    request.optics_value("pixel_um")
    check_axes(request)
    return request


def read_background(path: Path) -> np.ndarray:
    """Read the blank-field (dark-field) image of a file, shape (Y, X) or (P, Y, X).

    Raises RequestError if it is not finite.
    """
    background = read_image(path).array
    if not np.isfinite(background).all():
        raise RequestError(
            f"the background {path} has NaN or infinite pixels; give a blank-field image without, "
            "or --background auto."
        )
    return background


def check_axes(request: ReconstructionRequest) -> None:
    """Raise RequestError if an image file cannot hold the axes of the result.

    A file has T, Z, C and one more axis.
    """
    frames = [letter for letter in request.image.axes if letter not in "PYX"]
    if len(frames) > len(_OME_AXES) and (request.keep_samples or request.schedule_points):
        raise RequestError(
            f"{request.image.source}: axes {request.image.axes} leave no room for samples or "
            "schedule points; give fewer axes, or neither of the two options."
        )
