"""``napari-cvdm export``: a model as one file, or as packages of the BioImage Model Zoo."""

from argparse import Namespace

from napari_cvdm.cli import say_done
from napari_cvdm.model.bundle import write_bundle
from napari_cvdm.model.zoo import model_folder


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
    path = write_bundle(model_folder(arguments.model), arguments.out, overwrite=arguments.overwrite)
    say_done(f"{path}: the model in one file; add it elsewhere with napari-cvdm models add {path.name} --to DIR")
