"""``napari-cvdm restore``: make a folder with reconstruction and provenance from image files.

With ``--out NAME.ome.zarr`` it works block by block, in this process or on a cluster.
"""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.checks.training_range import field_text
from napari_cvdm.cli import check_inputs_stay, say_done
from napari_cvdm.cli.progress import with_bar
from napari_cvdm.core.device import pick_device
from napari_cvdm.core.plan import optics_origins
from napari_cvdm.core.request import (
    OPTICS,
    ReconstructionRequest,
    RequestError,
    image_roles,
    roles_of_images,
)
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.io import check_pixels, output_folder, read_image
from napari_cvdm.io.read import read_images, read_psf
from napari_cvdm.io.result_folder import PROVENANCE, check_measured
from napari_cvdm.models.checkpoint import ModelCard
from napari_cvdm.reconstruction.methods import load_method
from napari_cvdm.reconstruction.plan import with_planes
from napari_cvdm.reconstruction.provenance import file_sha256, write_images, write_provenance
from napari_cvdm.reconstruction.reconstruct import ReconstructionRun, reconstruct

if TYPE_CHECKING:
    from napari_cvdm.models.checkpoint import Checkpoint
    from napari_cvdm.out_of_core.job import BlockJob

Locate = Callable[[str], Path]
_OME_AXES = "TZC"


def run_restore(arguments: Namespace) -> None:
    """Carry out the command; the output folder is not made where the input is bad."""
    files = files_of(arguments)
    check_inputs_stay(arguments, [*files.values(), arguments.model])
    if arguments.out.lower().endswith(".zarr"):
        _restore_by_blocks(arguments, files)
        return
    given = [name for name in ("block", "halo", "scheduler") if hasattr(arguments, name)]
    if given:
        raise RequestError(
            f"--{given[0]} works block by block: choose a name with --out that ends in .ome.zarr, "
            "or leave it out."
        )
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

    `locate` says where a file with the name that the arguments give lies now. The names are those
    of the image files.
    """
    laps, begun = {"total": 0.0}, time.perf_counter()

    def end_lap(stage: str) -> None:
        total = time.perf_counter() - begun
        laps[stage], laps["total"] = total - laps["total"], total

    def input_of(path: str, place: Path) -> dict[str, str]:
        return {"path": printable_path(path), "file_sha256": file_sha256(place)}

    model = load_method(arguments.model)
    end_lap("load_model")
    request = request_of(arguments, model.card, locate)
    files = files_of(arguments)
    inputs = {role: input_of(path, locate(path)) for role, path in files.items()}
    # Files that an image file names are inputs, too.
    known = {os.path.realpath(locate(path)) for path in files.values()}
    companions = [path for path in request.image.files if path not in known]
    inputs |= {
        f"companion {number}": input_of(path, Path(path))
        for number, path in enumerate(companions, start=1)
        if Path(path).is_file()
    }
    end_lap("read")
    work = _say_optics(reconstruct(request, model), request)
    reconstruction = with_bar(work, "reconstructing")
    end_lap("restore")
    names = write_images(folder, reconstruction, request.image.place, request.image.channels)
    end_lap("write")
    device = str(pick_device(request.device))
    write_provenance(folder, reconstruction, settings_of(arguments), inputs, laps, device)
    return reconstruction, names


def _say_optics(work: ReconstructionRun, request: ReconstructionRequest) -> ReconstructionRun:
    """A run that first says which optics it uses, and where they come from."""
    first = next(work)  # what is wrong with the request is raised here
    known = request.with_known_optics()
    origins = optics_origins(known)
    said = [f"{name} {getattr(known, name):g} ({origin})" for name, origin in origins.items()]
    say_done(f"optics: {', '.join(said)}")
    yield first
    return (yield from work)


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
    # The reconstruction has these from the files as well, and the precision that auto chose.
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

    The card says how many planes the model takes; `locate` is that of `reconstruct_into`. What is
    wrong with the files or the options is a RequestError, OpticsError or ImageFileError.
    """
    paths = files_of(arguments)
    images = [locate(paths[role]) for role in image_roles(paths)]
    # A saved result is an image file, too, and is not reconstructed again.
    check_measured(images)
    stacks = read_images(images, getattr(arguments, "series", None))
    image = with_planes(stacks, card, getattr(arguments, "defocus_um", None))
    check_pixels(image)
    options = _request_options(arguments)
    if "background" in paths:
        blank = locate(paths["background"])
        options["background"] = read_image(blank).array
        if not np.isfinite(options["background"]).all():
            raise RequestError(
                f"the background {blank} has NaN or infinite pixels; give a blank-field image "
                "without, or --background auto."
            )
    if "psf" in paths:
        options["psf"] = read_psf(locate(paths["psf"]))
    options |= {name: tuple(options[name]) for name in ("defocus_um", "region") if name in options}
    request = ReconstructionRequest(**{**options, "image": image})
    request.optics_value("pixel_um")  # an error where nobody states it
    # An image file has T, Z, C and one more axis.
    frames = [letter for letter in image.axes if letter not in "PYX"]
    if len(frames) > len(_OME_AXES) and (request.keep_samples or request.schedule_points):
        raise RequestError(
            f"{image.source}: axes {image.axes} leave no room for samples or schedule points; give "
            "fewer axes, or neither of the two options."
        )
    return request


def _request_options(arguments: Namespace) -> dict[str, Any]:
    names = [entry.name for entry in fields(ReconstructionRequest)]
    return {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}


def _restore_by_blocks(arguments: Namespace, files: Mapping[str, str]) -> None:
    """Blocks of an earlier run are kept."""
    # Zarr and dask, which others need not wait for.
    from napari_cvdm.out_of_core.run import Executor, reconstruct_by_blocks, run_serial

    executor: Executor = run_serial
    if hasattr(arguments, "scheduler"):
        from napari_cvdm.out_of_core.dask import check_scheduler, on_cluster

        # Before the image is read, which may take minutes.
        check_scheduler(arguments.scheduler)
        executor = on_cluster(arguments.scheduler)
    job, model = job_of(arguments, files)
    try:
        made = with_bar(reconstruct_by_blocks(job, model, executor), "reconstructing")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "the blocks that are done are kept; give the same command again to go on."
        ) from None
    earlier = f", {made.earlier} of them by an earlier run" if made.earlier else ""
    say_done(f"{made.path}: {', '.join(made.images)} ({made.blocks} blocks{earlier})")
    for warning in made.warnings:
        print(f"napari-cvdm: warning: {warning}", file=sys.stderr)


def job_of(arguments: Namespace, files: Mapping[str, str]) -> "tuple[BlockJob, Checkpoint]":
    """The job, block by block, that the arguments name; the files are by role."""
    from napari_cvdm.out_of_core.job import open_job

    options = _request_options(arguments)
    for name in ("image", "model", "background"):
        options.pop(name, None)
    # Only what was given: the job has the defaults.
    named = ("model", "out", "background", "overwrite", "block", "halo", "series")
    given = {name: value for name, value in vars(arguments).items() if name in named}
    return open_job(images=[files[role] for role in image_roles(files)], options=options, **given)
