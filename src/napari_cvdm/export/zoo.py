"""A model for other programs: two packages of the BioImage Model Zoo in one folder."""

from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.export.sampler import PackageSettings
from napari_cvdm.io import output_folder
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.reconstruction.plan import task_of
from napari_cvdm.simulate.samples import CELL_COUNTS, cell_phase, reticulum
from napari_cvdm.simulate.scenes import defocus_pair_of

NEEDED = ("bioimageio.core", "onnx", "onnxruntime", "onnxscript")
AUTHOR = "napari-cvdm contributors"
EXAMPLE_SHAPE = (96, 128)
EXAMPLE_CORNER = (80, 96)  # of the sample images; both show something there


class ExportError(ValueError):
    """A package that cannot be made, and why."""


def write_bioimageio(
    folder: str | Path,
    out: str | Path,
    settings: PackageSettings | None = None,
    *,
    author: str = AUTHOR,
    overwrite: bool = False,
) -> tuple[Path, Path]:
    """Export a checkpoint as two packages of the BioImage Model Zoo.

    ``posterior-sampler.zip`` takes measured images and returns mean and standard deviation; it
    needs PyTorch. ``one-step-mean.zip`` is one evaluation of the networks, as ONNX. Each package is
    tested with bioimageio.core before it gets its file name.

    Parameters
    ----------
    settings : PackageSettings, optional
        What the packages fix: the sampling, and the optics of the images that they will be given.
    author : str
        Who answers for the packages.
    overwrite : bool
        Whether an older export may be replaced; it stays until the new one is complete.

    Raises
    ------
    ExportError
        The extra ``bmz`` is missing, or a package does not pass its test.
    CheckpointError, RequestError, OpticsError, ImageFileError
        The model cannot be read, optics that it needs are missing, or the folder cannot be written.
    """
    try:
        for name in NEEDED:
            import_module(name)
    except ImportError as error:
        raise ExportError(
            f"packages of the BioImage Model Zoo need {error.name}; install it with pip install "
            '"napari-cvdm[bmz]".'
        ) from None
    from napari_cvdm.export.packages import ONE_STEP, SAMPLER, one_step_package, sampler_package

    settings, model = settings or PackageSettings(), load_checkpoint(folder)
    planes = example_planes(
        settings.request(np.zeros((1, 1, 1), np.float32), model.card.name),
        task_of(model.card).planes,
    )
    with output_folder(out, overwrite, sign=SAMPLER) as work:
        for pack in (sampler_package, one_step_package):
            with TemporaryDirectory(ignore_cleanup_errors=True) as parts:
                pack(model, settings, planes, author, Path(parts)).write(work)
    return Path(out) / SAMPLER, Path(out) / ONE_STEP


def example_planes(request: ReconstructionRequest, planes: int) -> np.ndarray:
    """The simulated image with which a package tests itself; it has the optics of the package.

    `planes` is 1 for a fluorescence image. A phase image has one plane for each position of the
    request. The counts (P, 96, 128) are whole; float32. Raises OpticsError or RequestError for
    optics that the model needs and that are not given.
    """
    window = tuple(
        slice(start, start + size)
        for start, size in zip(EXAMPLE_CORNER, EXAMPLE_SHAPE, strict=True)
    )
    if planes == 1:
        request.optics_value("pixel_um")  # a missing one is named before anything is written
        return reticulum().array[window].astype(np.float32)[None]
    # No plan: the image of the request is blank, so its planes would not pass.
    names = ("pixel_um", "wavelength_um", "medium_index")
    microscope = Microscope(
        **{name: request.optics_value(name) for name in names}, na=request.known_optics("na")
    )
    positions_um = request.plane_positions()
    phase = cell_phase()
    light = defocus_pair_of(
        phase, np.zeros_like(phase), microscope, positions_um, request.condenser_na or 0.0
    )[:, *window]
    return np.random.default_rng(0).poisson(CELL_COUNTS * light.clip(min=0)).astype(np.float32)
