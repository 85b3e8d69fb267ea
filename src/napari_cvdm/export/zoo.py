"""A model for other programs: two packages of the BioImage Model Zoo in one folder."""

from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from napari_cvdm.export.errors import ExportError
from napari_cvdm.export.example import example_planes
from napari_cvdm.export.settings import PackageSettings
from napari_cvdm.io import output_folder
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.reconstruction.plan import task_of

NEEDED = ("bioimageio.core", "onnx", "onnxruntime", "onnxscript")
AUTHOR = "napari-cvdm contributors"


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
    folder : path
        A checkpoint.
    out : path
        The folder to make for both files.
    settings : PackageSettings, optional
        What the packages fix: the sampling, and the optics of the images that they will be given.
    author : str
        Who answers for the packages.
    overwrite : bool
        Whether an older export may be replaced; it stays until the new one is complete.

    Returns
    -------
    tuple of Path
        The posterior sampler, and the one-step mean.

    Raises
    ------
    ExportError
        The extra ``bmz`` is missing, or a package does not pass its test.
    CheckpointError, RequestError, OpticsError, ImageFileError
        The model cannot be read, optics that it needs are missing, or the folder cannot be written.
    """
    check_extra()
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


def check_extra() -> None:
    """ExportError unless what the extra ``bmz`` brings is installed."""
    try:
        for name in NEEDED:
            import_module(name)
    except ImportError as error:
        raise ExportError(
            f"packages of the BioImage Model Zoo need {error.name}; install it with pip install "
            '"napari-cvdm[bmz]".'
        ) from None
