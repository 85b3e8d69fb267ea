"""What the manifest offers for files: readers, writers and sample images.

Microscope images come with their optics, and results look as in the dock.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io import write_image
from napari_cvdm.io.axes import storable
from napari_cvdm.io.errors import ImageFileError
from napari_cvdm.io.metadata import square_pixel
from napari_cvdm.io.read import SUFFIXES, read_image
from napari_cvdm.io.result_folder import PROVENANCE, is_result_folder, read_result_folder
from napari_cvdm.io.zarr_write import PlacedImage, write_ngff
from napari_cvdm.widgets.layers.layer_data import (
    METADATA_KEY,
    LayerData,
    finest_level,
    plugin_metadata,
)
from napari_cvdm.widgets.layers.placement import Placement, axis_letters
from napari_cvdm.widgets.layers.result_layers import STORED, to_layer_data

if TYPE_CHECKING:
    from napari.layers import Layer


Reader = Callable[[str | Sequence[str]], list[LayerData]]
LEFT_TO_NAPARI = (".tif", ".tiff", ".npy")
PHASE_MODEL, WIDEFIELD_MODEL = "phase-2shot", "widefield-x2"
_WORDS = {"S": "sample", "P": "plane"}


def get_image_reader(path: str | Sequence[str]) -> Reader | None:
    """The reader for one image file that napari itself does not read; None for anything else."""
    file = _single(path)
    known = set(SUFFIXES) - set(LEFT_TO_NAPARI)
    wanted = file is not None and file.is_file() and file.suffix.lower() in known
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
    """An image from a file as a layer, in micrometres where the file states them.

    `known_optics` finds the rest in the layer's metadata.
    """
    place = placement(name, image.axes, image.pixel_um, image.place).keywords()
    said = {
        "optics": dict(image.metadata),
        "origins": dict(image.origins),
        "place": dict(image.place),
        "channels": list(image.channels),
        "warnings": list(image.warnings),
        "series": image.series,
    }
    metadata = {METADATA_KEY: {name: value for name, value in said.items() if value}}
    return image.array, {"name": name, "metadata": metadata, **place}, "image"


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
    if stored.planes_um is not None and "Z" not in axes:
        # As beside the layer that has all planes, whose sliders the results share.
        axes = axes.replace("YX", "ZYX")
        planes_um = stored.planes_um
        step_um = (max(planes_um) - min(planes_um)) / (len(planes_um) - 1)
        place = {**place, "z_step_um": step_um}
    source = placement(stored.source, axes, result.pixel_um * result.upsampling, place)
    source = replace(source, files=stored.files, planes=len(stored.planes_um or (0.0,)))
    return to_layer_data(result, source)


def placement(
    name: str, axes: str, pixel_um: float | None, place: Mapping[str, float]
) -> Placement:
    """Where an image from a file lies.

    Axes without a length have napari's default unit. The layer then fits those of other readers.

    Parameters
    ----------
    name : str
    axes : str
        Letters of an `ImageStack`.
    pixel_um : float or None
        None places the image in pixels.
    place : mapping
        See `ImageStack`.
    """
    known: dict[str, float] = {}
    first: dict[str, float] = {}
    if pixel_um is not None:
        known = {"Y": pixel_um, "X": pixel_um}
        first = {"Y": place.get("y_um", 0.0), "X": place.get("x_um", 0.0)}
        if place.get("z_step_um"):
            known["Z"] = abs(place["z_step_um"])
            first["Z"] = place.get("z_um", 0.0) if place["z_step_um"] > 0 else 0.0
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
    inside = found is not None and found.name == PROVENANCE and found.is_file()
    return found.parent if found is not None and inside else found


_NO_LENGTH = ("pixel", "dimensionless")


def write_tiff(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save one image layer as OME-TIFF, and return its path.

    Raises
    ------
    ImageFileError, RequestError
        The layer cannot be saved so; nothing is left then.
    """
    pixels, place, layer = _placed(data, attributes, "image")
    pixels = storable(np.asarray(pixels), path)
    sizes = _measured(layer, np.abs(layer.scale), "um")
    first = _measured(layer, layer.translate, "um")
    pixel_um, said = square_pixel(sizes.get("X"), sizes.get("Y"), f"the scale of {place.name}")
    if pixel_um is None and said:
        raise ImageFileError(f"{path}: {said['pixel_um']}. Resample the layer before it is saved.")
    metadata = plugin_metadata(layer)
    stated = metadata.get("place", {})
    write_image(
        path,
        pixels,
        axes=place.axes,
        pixel_um=pixel_um,
        unit=metadata.get("unit") or "arbitrary unit",
        name=place.name,
        offset_um=(first.get("Y", 0.0), first.get("X", 0.0)),
        z_step_um=sizes.get("Z"),
        t_step_s=_measured(layer, layer.scale, "s").get("T", stated.get("frame_interval_s")),
        channels=metadata.get("channels", ()),
        dtype=pixels.dtype,
        notes={METADATA_KEY: json.dumps(_plain(metadata), ensure_ascii=False)},
    )
    return [path]


def write_zarr(path: str, layers: Sequence[LayerData]) -> list[str]:
    """Save Image and Labels layers as one OME-Zarr, and return its path.

    Raises
    ------
    ImageFileError, RequestError
        A layer cannot be saved so; nothing is left then.
    """
    images = []
    for data, attributes, kind in layers:
        pixels, place, layer = _placed(data, attributes, kind)
        images.append(
            PlacedImage(
                array=pixels,
                labels=place.labels,
                scale=tuple(place.scale),
                translation=tuple(place.translate),
                units=tuple("" if unit in _NO_LENGTH else unit for unit in place.units),
                name=place.name,
                notes=_plain(plugin_metadata(layer)),
            )
        )
    write_ngff(path, images)
    return [path]


def _placed(data: Any, attributes: dict[str, Any], kind: str) -> "tuple[Any, Placement, Layer]":
    """Pixels at the finest level with colour as channels, their placement, and the layer.

    Every axis of the placement is named. The user is told what the file cannot hold.
    """
    from napari.layers import Layer
    from napari.utils.notifications import show_warning

    layer = Layer.create(data, attributes, kind)
    place = Placement.of(layer)
    matrices = (place.rotate, place.shear, place.affine)
    if not all(np.allclose(matrix, np.eye(len(matrix))) for matrix in matrices):
        show_warning(
            f"{layer.name}: its rotation, shear or affine transform is not in the saved file; "
            "pixels, scale, position and units are."
        )
    pixels = finest_level(layer)
    if getattr(layer, "rgb", False):
        pixels = np.moveaxis(pixels, -1, 0)
    return pixels, place.finer(place.axes, 1), layer


def _measured(layer: "Layer", values: np.ndarray, unit: str) -> dict[str, float]:
    """Numbers along the axes in `unit`, by letter.

    Axes whose own unit cannot be converted are left out.
    """
    axes = zip(axis_letters(layer), values, layer.units, strict=True)
    return {
        letter: float((float(value) * own).to(unit).magnitude)
        for letter, value, own in axes
        if own.is_compatible_with(unit)
    }


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata in words that JSON has."""

    def plain(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else str(value)

    known = {name: value for name, value in metadata.items() if name != STORED}
    return dict(json.loads(json.dumps(known, default=plain)))


# The simulated samples of the package become layers with all optics that the form needs.


def two_defocused_planes() -> list[LayerData]:
    """Cells in brightfield below and above focus, (2, Y, X), and their hidden true phase [rad]."""
    from napari_cvdm.simulate.samples import CELL_DEFOCUS_UM, cell_phase, cell_planes

    image = _sample("two defocused planes", cell_planes(), PHASE_MODEL, CELL_DEFOCUS_UM)
    return [_truth("true phase of cells", cell_phase(), image), image]


def measured_cell() -> list[LayerData]:
    """Two planes (2, Y, X) simulated from the measured phase of a cell, and that phase [rad]."""
    from napari_cvdm.simulate import samples

    image = _sample(
        "planes simulated from a measured cell",
        samples.measured_cell_planes(),
        PHASE_MODEL,
        samples.MEASURED_DEFOCUS_UM,
    )
    return [_truth("measured phase of cell", samples.measured_cell_phase(), image), image]


def widefield_network() -> list[LayerData]:
    """A tubular network in widefield fluorescence, and the hidden truth at twice the resolution."""
    from napari_cvdm.simulate.samples import reticulum, reticulum_pair

    image = _sample("widefield network", reticulum(), WIDEFIELD_MODEL)
    return [_truth("true structure of network", reticulum_pair().truth, image), image]


def widefield_microtubules() -> list[LayerData]:
    """Microtubules in widefield fluorescence, and the hidden truth at twice the resolution."""
    from napari_cvdm.simulate.samples import microtubules, microtubules_pair

    image = _sample("widefield microtubules", microtubules(), WIDEFIELD_MODEL)
    return [_truth("true structure of microtubules", microtubules_pair().truth, image), image]


def _sample(
    name: str, sample: ImageStack, model: str, defocus_um: tuple[float, float] | None = None
) -> LayerData:
    """Camera counts as a layer, with an axis z where there are planes, and the model for it."""
    if sample.pixel_um is None:
        raise ValueError(
            f"the sample {sample.source} has no pixel size; it cannot be shown in micrometres."
        )
    optics: dict[str, Any] = dict(sample.metadata)
    scale: tuple[float, ...] = (sample.pixel_um, sample.pixel_um)
    labels: tuple[str, ...] = ("y", "x")
    if defocus_um is not None:
        optics["defocus_um"] = defocus_um
        scale, labels = (defocus_um[1] - defocus_um[0], *scale), ("z", *labels)
    keywords = {
        "name": name,
        "scale": scale,
        "units": ("um",) * len(labels),
        "axis_labels": labels,
        "metadata": {METADATA_KEY: {"optics": optics, "model": model}},
    }
    return sample.array, keywords, "image"


def _truth(name: str, values: np.ndarray, image: LayerData) -> LayerData:
    """The hidden truth of a sample, on its grid or on one twice as fine."""
    counts, keywords, _ = image
    finer = values.shape[-1] // counts.shape[-1]
    pixel_um = keywords["scale"][-1] / finer
    # napari places the centre of a pixel
    shift_um = (pixel_um - keywords["scale"][-1]) / 2
    return (
        values,
        {
            "name": name,
            "scale": (pixel_um, pixel_um),
            "translate": (shift_um, shift_um),
            "units": ("um", "um"),
            "axis_labels": ("y", "x"),
            "visible": False,
            "metadata": {METADATA_KEY: {"role": "truth"}},
        },
        "image",
    )
