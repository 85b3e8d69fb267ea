"""``napari-cvdm export``: a model as one file, or as packages of the BioImage Model Zoo."""

from argparse import Namespace
from dataclasses import fields

from napari_cvdm.cli import check_inputs_stay, say_done
from napari_cvdm.cli.parser import UsageError
from napari_cvdm.export.settings import PackageSettings
from napari_cvdm.export.zoo import write_bioimageio
from napari_cvdm.models.bundle import write_bundle
from napari_cvdm.models.registry import model_folder


def run(arguments: Namespace) -> None:
    """Carry out ``napari-cvdm export``.

    Parameters
    ----------
    arguments : Namespace

    Raises
    ------
    ValueError, OSError
        Bad input, in words; no file is left behind then.
    """
    if arguments.format == "bundle":
        _as_bundle(arguments)
    else:
        _as_packages(arguments)


def _as_bundle(arguments: Namespace) -> None:
    needless = [
        name
        for name in ("author", *(entry.name for entry in fields(PackageSettings)))
        if hasattr(arguments, name)
    ]
    if needless:
        option = "--" + needless[0].replace("_", "-")
        raise UsageError(
            f"{option} is fixed in a bioimageio package only; leave it out, or add --format "
            "bioimageio."
        )
    path = write_bundle(model_folder(arguments.model), arguments.out, overwrite=arguments.overwrite)
    say_done(
        f"{path}: the model in one file; add it elsewhere with napari-cvdm models add {path.name} "
        "--to DIR"
    )


def _as_packages(arguments: Namespace) -> None:
    check_inputs_stay(arguments, [arguments.model])
    author = {"author": arguments.author} if hasattr(arguments, "author") else {}
    settings = PackageSettings.of(vars(arguments))
    paths = write_bioimageio(
        model_folder(arguments.model),
        arguments.out,
        settings,
        overwrite=arguments.overwrite,
        **author,
    )
    say_done(
        f"{arguments.out}: {' and '.join(path.name for path in paths)}, tested with bioimageio.core"
    )
