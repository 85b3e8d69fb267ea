"""Open files and folders as napari layers.

Microscope images come with their optics, and results look as in the dock.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io.read import SUFFIXES, read_image
from napari_cvdm.io.result_folder import PROVENANCE, is_result_folder, read_result_folder
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, LayerData, to_layer_data
from napari_cvdm.widgets.layers.placement import Placement

Reader = Callable[[str | Sequence[str]], list[LayerData]]
LEFT_TO_NAPARI = (".tif", ".tiff", ".npy")
_WORDS = {"S": "sample", "P": "plane"}


def get_image_reader(path: str | Sequence[str]) -> Reader | None:
    """The reader for an image file that napari itself does not read.

    Returns None for other files, and for several at once.

    Parameters
    ----------
    path : str or sequence of str
        As napari gives it.
    """
    file = _single(path)
    wanted = (
        file is not None
        and file.is_file()
        and file.suffix.lower() in SUFFIXES
        and file.suffix.lower() not in LEFT_TO_NAPARI
    )
    return read_image_layer if wanted else None


def get_result_reader(path: str | Sequence[str]) -> Reader | None:
    """The reader for a result folder or its ``provenance.json``; None for any other path."""
    folder = _result_folder(path)
    return read_result_layers if folder is not None and is_result_folder(folder) else None


def read_image_layer(path: str | Sequence[str]) -> list[LayerData]:
    """One image layer with pixel size, axis labels and the optics that the file names.

    Raises
    ------
    ImageFileError
        The file cannot be read.
    """
    file = _single(path)
    if file is None:
        raise ValueError(f"{len(path)} files were given; open them one by one.")
    return [image_layer(read_image(file), file.stem)]


def image_layer(image: ImageStack, name: str) -> LayerData:
    """An image from a file as a layer.

    Parameters
    ----------
    image : ImageStack
    name : str

    Returns
    -------
    (data, keywords, layer type)
        In micrometres where the file states them. `known_optics` finds the rest in the layer's
        metadata.
    """
    place = placement(name, image.axes, image.pixel_um, image.place).keywords()
    return (
        image.array,
        {"name": name, "metadata": {METADATA_KEY: {"optics": dict(image.metadata)}}, **place},
        "image",
    )


def read_result_layers(path: str | Sequence[str]) -> list[LayerData]:
    """The layers of a result, as the dock shows them after a run.

    Raises
    ------
    ImageFileError
        The folder is damaged; the message says what is wrong with it.
    """
    folder = _result_folder(path)
    if folder is None:
        raise ValueError(f"{path}: give one result folder.")
    stored = read_result_folder(folder)
    result, axes, place = stored.reconstruction, stored.reconstruction.axes, stored.place
    if (
        stored.planes_um is not None and "Z" not in axes
    ):  # as beside the layer that has all planes, whose sliders the results share
        planes_um = stored.planes_um
        step_um = (max(planes_um) - min(planes_um)) / (len(planes_um) - 1)
        axes, place = axes.replace("YX", "ZYX"), {**place, "z_step_um": step_um}
    source = placement(stored.source, axes, result.pixel_um * result.upsampling, place)
    source = replace(source, files=stored.files, planes=len(stored.planes_um or (0.0,)))
    return to_layer_data(result, source)


def placement(
    name: str, axes: str, pixel_um: float | None, place: Mapping[str, float]
) -> Placement:
    """Where an image from a file lies.

    Parameters
    ----------
    name : str
    axes : str
        Letters of an `ImageStack`.
    pixel_um : float or None
        None places the image in pixels.
    place : mapping
        See `ImageStack`.

    Returns
    -------
    Placement
        Axes without a length have napari's default unit. The layer then fits those of other
        readers.
    """
    known = (
        {}
        if pixel_um is None
        else {"Y": pixel_um, "X": pixel_um}
        | ({"Z": place["z_step_um"]} if place.get("z_step_um", 0.0) > 0 else {})
    )
    first = {"Y": place.get("y_um", 0.0), "X": place.get("x_um", 0.0)} if known else {}
    return Placement(
        name=name,
        axes=axes,
        scale=np.array([known.get(letter, 1.0) for letter in axes]),
        translate=np.array([first.get(letter, 0.0) for letter in axes]),
        rotate=np.eye(len(axes)),
        shear=np.eye(len(axes)),
        affine=np.eye(len(axes) + 1),
        units=tuple("um" if letter in known else "pixel" for letter in axes),
        labels=tuple(_WORDS.get(letter, letter.lower()) for letter in axes),
    )


def _single(path: str | Sequence[str]) -> Path | None:
    paths = [path] if isinstance(path, str) else list(path)
    return Path(paths[0]) if len(paths) == 1 else None


def _result_folder(path: str | Sequence[str]) -> Path | None:
    found = _single(path)
    return (
        found.parent
        if found is not None and found.name == PROVENANCE and found.is_file()
        else found
    )
