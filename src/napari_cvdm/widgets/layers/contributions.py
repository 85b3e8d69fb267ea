"""What the manifest offers for files: readers, writers and sample images.

Microscope images come with their optics, and results look as in the dock. What the writers save,
the readers give back as it was, and a result stays one.
"""

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import Progress
from napari_cvdm.io import output_folder, write_image
from napari_cvdm.io.axes import storable
from napari_cvdm.io.errors import ImageFileError, import_zarr, one_line
from napari_cvdm.io.limits import parse_json_object, read_bounded
from napari_cvdm.io.metadata import position_um, square_pixel, time_s
from napari_cvdm.io.read import SUFFIXES, open_image, read_image
from napari_cvdm.io.result_folder import (
    PROVENANCE,
    image_notes,
    is_result_folder,
    place_of_source,
    read_result_folder,
)
from napari_cvdm.io.zarr_write import PlacedImage, write_ngff
from napari_cvdm.widgets.layers.layer_data import (
    METADATA_KEY,
    SHOWN,
    LayerData,
    appearance_of,
    as_it_was,
    finest_level,
    plugin_metadata,
)
from napari_cvdm.widgets.layers.placement import Placement, axis_letters
from napari_cvdm.widgets.layers.reconstruction import Run
from napari_cvdm.widgets.layers.result_layers import (
    STORED,
    StoredResult,
    disk_layer_data,
    to_layer_data,
)

if TYPE_CHECKING:
    from napari.layers import Layer


Reader = Callable[[str | Sequence[str]], list[LayerData]]
# Formats of `SUFFIXES` that napari reads itself.
LEFT_TO_NAPARI = (".tif", ".tiff", ".npy")
OME_TIFF = (".ome.tif", ".ome.tiff")
RESULTS = "results"  # folder in an OME-Zarr of layers, and the number of one in their notes
SOURCE = "source.json"  # in such a result: where the measured image lay
IN_MEMORY_BYTES = 1 << 30  # of one layer; the pixels of a larger one stay on disk
PHASE_MODEL, WIDEFIELD_MODEL = "phase-2shot", "widefield-x2"
_WORDS = {"S": "sample", "P": "plane"}
_NO_LENGTH = ("pixel", "dimensionless")  # units of napari that a file does not state


def get_image_reader(path: str | Sequence[str]) -> Reader | None:
    """The reader for one image file that napari itself does not read; None for anything else.

    OME-TIFF is read here, too, because napari leaves out its pixel size. Results have a reader of
    their own.
    """
    file = _single(path)
    if file is None or not file.is_file():
        return None
    ome = file.name.lower().endswith(OME_TIFF) and not image_notes(file)
    known = set(SUFFIXES) - set(LEFT_TO_NAPARI)
    return read_image_layer if ome or file.suffix.lower() in known else None


def get_result_reader(path: str | Sequence[str]) -> Reader | None:
    """The reader for what this program saved; None for any other path.

    It is a result folder or its ``provenance.json``, or the OME-TIFF or OME-Zarr of layers.
    """
    found, folder = _single(path), _result_folder(path)
    if folder is not None and is_result_folder(folder):
        on_disk = (folder / "zarr.json").is_file()
        return _opened(read_disk_layers if on_disk else read_result_layers, first=-1)
    if found is None or not image_notes(found):
        return None
    return _opened(read_saved_zarr if found.is_dir() else read_saved_tiff)


def _opened(read: Reader, first: int | None = None) -> Reader:
    """The same reader, whose layers get their colour bars."""

    def reader(path: str | Sequence[str]) -> list[LayerData]:
        # Not imported before a result is read: napari asks this module about every file.
        from napari_cvdm.widgets.layers.shown_layers import as_opened

        return as_opened(read(path), first)

    return reader


def read_image_layer(path: str | Sequence[str]) -> list[LayerData]:
    """One image layer with pixel size, axis labels and the optics that the file names.

    Raises
    ------
    ImageFileError
        The file cannot be read.
    """
    file = _only(path)
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
    planes = len(stored.planes_um or (0.0,))
    source = replace(source, files=stored.files, planes=planes, channels=stored.channels)
    return to_layer_data(result, source)


def read_disk_layers(path: str | Sequence[str]) -> list[LayerData]:
    """The layers of a result that was written block by block, as the dock shows them.

    Raises
    ------
    ImageFileError
        The folder is damaged; the message says what is wrong with it.
    """
    folder = _result_folder(path)
    if folder is None:
        raise ValueError(f"{path}: give one OME-Zarr.")
    try:
        record = parse_json_object(read_bounded(folder / PROVENANCE))
        mean = open_image(folder / "mean")
        pixel_um = float(record["output"]["pixel_um"])
        upsampling = round(float(record["settings"]["pixel_um"]) / pixel_um)
        # Files drop axes of length 1.
        axes = str(record["output"]["axes"])
        sizes = dict(zip(mean.axes, mean.array.shape, strict=True))
        fine = {letter: upsampling if letter in "YX" else 1 for letter in axes}
        shape = tuple(sizes.get(letter, 1) // fine[letter] for letter in axes)
        source = str(next(iter(record["pixels_sha256"])))
        taken = place_of_source(mean.place, pixel_um, upsampling, None)
        place = placement(source, axes, pixel_um * upsampling, taken)
        run = Run(
            # Of the measured image only its axes are asked for.
            request=ReconstructionRequest(
                image=ImageStack(array=np.broadcast_to(np.float32(0), shape), axes=axes),
                model=str(record["model"]["name"]),
            ),
            place=replace(place, channels=mean.channels),
            unit=str(record["output"]["unit"]),
            upsampling=upsampling,
        )
        names = [entry.name for entry in folder.iterdir() if (entry / "zarr.json").is_file()]
        return disk_layer_data(folder, names, run)
    except ImageFileError:
        raise
    except Exception as error:  # zarr lets through whatever damaged metadata make happen
        raise ImageFileError(
            f"{folder}: cannot be read as a result ({one_line(error)}). Copy it again, or "
            "reconstruct the image again."
        ) from error


def read_saved_zarr(path: str | Sequence[str]) -> list[LayerData]:
    """The layers that `write_zarr` saved, as they were.

    Raises
    ------
    ImageFileError
        The folder is damaged.
    """
    from napari_cvdm.io.zarr_read import open_all

    folder = _only(path)
    import_zarr(folder)
    layers, results = [], dict[int, StoredResult]()
    for image in open_all(folder):
        pixels, notes = image.array, dict(image.notes)
        with _damages_named(folder):
            if RESULTS in notes:
                # Layers of one result share it, as they did before they were saved.
                number = int(notes.pop(RESULTS))
                results[number] = results.get(number) or _read_result(folder, number)
                notes[STORED] = results[number]
            shown = notes[SHOWN]
            # The format puts axes in an order by kind; the layer had its own.
            pixels = pixels.transpose([image.labels.index(label) for label in shown["labels"]])
            if pixels.nbytes <= IN_MEMORY_BYTES:
                pixels = np.asarray(pixels)
            layers.append(as_it_was(pixels, notes))
    return layers


def read_saved_tiff(path: str | Sequence[str]) -> list[LayerData]:
    """The layer that `write_tiff` saved, as it was, or one image of a result folder.

    Raises
    ------
    ImageFileError
        The file is damaged.
    """
    file = _only(path)
    image, notes = read_image(file), image_notes(file)
    data, keywords, kind = image_layer(image, file.name.split(".")[0])
    if SHOWN not in notes:
        metadata = {**keywords["metadata"][METADATA_KEY], **notes}
        return [(data, {**keywords, "metadata": {METADATA_KEY: metadata}}, kind)]
    with _damages_named(file):
        letters = notes[SHOWN]["axes"]
        sizes: dict[str, int] = dict(zip(letters, notes[SHOWN]["stored"], strict=True))
        # As `write_image` says of planes.
        named = {"P": "S" if sizes.get("Z", 1) > 1 else "Z"}
        order = [named.get(letter, letter) for letter, size in sizes.items() if size > 1]
        order += [letter for letter in "YX" if letter not in order and letter in image.axes]
        pixels = image.array.transpose([image.axes.index(letter) for letter in order])
        return [as_it_was(pixels.reshape(tuple(sizes.values())), notes)]


def _read_result(folder: Path, number: int) -> StoredResult:
    """What layers of an OME-Zarr were made from; see `_write_results`."""
    inner = folder / RESULTS / str(number)
    source = Placement.of_json(parse_json_object(read_bounded(inner / SOURCE)))
    result = read_result_folder(inner).reconstruction
    return StoredResult(reconstruction=result, source=source)


@contextmanager
def _damages_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ImageFileError(
            f"{path}: what it notes of its layers is damaged ({one_line(error)}). Copy it again."
        ) from error


def placement(
    name: str, axes: str, pixel_um: float | None, place: Mapping[str, float]
) -> Placement:
    """Where an image from a file lies; in pixels without a `pixel_um`.

    `axes` and `place` are those of an `ImageStack`. Axes without a length have napari's default
    unit. The layer then fits those of other readers.
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


def _only(path: str | Sequence[str]) -> Path:
    """The one path that was given; ValueError if there are others."""
    found = _single(path)
    if found is None:
        raise ValueError(f"{len(path)} paths were given; one is allowed. Open them one by one.")
    return found


def _single(path: str | Sequence[str]) -> Path | None:
    paths = [path] if isinstance(path, str) else list(path)
    return Path(paths[0]) if len(paths) == 1 else None


def _result_folder(path: str | Sequence[str]) -> Path | None:
    found = _single(path)
    if found is not None and found.name == PROVENANCE and found.is_file():
        return found.parent
    return found


def write_tiff(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save one image layer as OME-TIFF, and return its path.

    Raises
    ------
    ImageFileError, RequestError
        The layer cannot be saved so; nothing is left then.
    """
    pixels, place, layer = _placed(data, attributes, "image")
    shown = appearance_of(layer, place, pixels)
    pixels = storable(np.asarray(pixels), path)
    sizes = _measured(layer, np.abs(layer.scale), "um")
    first = _measured(layer, layer.translate, "um")
    pixel_um, said = square_pixel(sizes.get("X"), sizes.get("Y"), f"the scale of {place.name}")
    if pixel_um is None and said:
        raise ImageFileError(f"{path}: {said['pixel_um']}. Resample the layer before it is saved.")
    metadata = {**plugin_metadata(layer), SHOWN: shown}
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
        notes={METADATA_KEY: json.dumps(_plain(metadata))},
    )
    return [path]


def write_zarr(path: str, layers: Sequence[LayerData]) -> list[str]:
    """Save Image and Labels layers as one OME-Zarr, and return its path.

    Raises
    ------
    ImageFileError, RequestError
        A layer cannot be saved so; nothing is left then.
    """
    write_ngff(path, *placed_images(layers))
    return [path]


def placed_images(layers: Sequence[LayerData]) -> tuple[list[PlacedImage], Callable[[Path], None]]:
    """Layers as images of an OME-Zarr, and what is written beside them; no pixels are read yet.

    Beside them are the results that they were made from, once each.
    """
    images, results = [], list[StoredResult]()
    for data, attributes, kind in layers:
        pixels, place, layer = _placed(data, attributes, kind)
        stored = plugin_metadata(layer).get(STORED)
        if stored is not None and stored not in results:
            results.append(stored)
        numbered = {} if stored is None else {RESULTS: results.index(stored)}
        images.append(
            PlacedImage(
                array=pixels,
                labels=place.labels,
                scale=tuple(place.scale),
                translation=tuple(place.translate),
                units=tuple("" if unit in _NO_LENGTH else unit for unit in place.units),
                name=place.name,
                notes=_plain(
                    {
                        **plugin_metadata(layer),
                        SHOWN: appearance_of(layer, place, pixels),
                        **numbered,
                    }
                ),
            )
        )
    return images, partial(_write_results, results)


def _write_results(results: Sequence[StoredResult], folder: Path) -> None:
    """Results beside the images of an OME-Zarr, each a folder as of the command line."""
    for number, stored in enumerate(results):
        inner = folder / RESULTS / str(number)
        inner.mkdir(parents=True)
        write_stored(inner, stored)
        text = json.dumps(_plain(asdict(stored.source)))
        (inner / SOURCE).write_text(text, encoding="utf-8", errors="replace")


def write_stored(folder: Path, stored: StoredResult) -> None:
    """Write a result into a folder, as the command line does."""
    from napari_cvdm.reconstruction.provenance import write_result

    result, source = stored.reconstruction, stored.source
    top, _, left, _ = result.region or (0, 0, 0, 0)
    coarse_um = result.pixel_um * result.upsampling
    # `source` is the place of the region, but write_result() adds the region itself.
    before_um, place = {"Y": top * coarse_um, "X": left * coarse_um}, dict[str, float]()
    for letter, first, step, unit in zip(
        source.axes, source.translate, source.scale, source.units, strict=True
    ):
        first_um, step_um = position_um(float(first), unit), position_um(float(step), unit)
        if letter in "ZYX" and first_um is not None:
            place[f"{letter.lower()}_um"] = first_um - before_um.get(letter, 0.0)
        if letter == "Z" and step_um is not None:
            place["z_step_um"] = step_um
        if letter == "T" and (step_s := time_s(float(step), unit)) is not None:
            place["frame_interval_s"] = step_s
    # Where the result has all axes of the source, each plane was a layer of its own.
    planes: Any = result.provenance.settings.get("defocus_um") or ()
    separate = len(planes) > 1 and set(source.axes) <= set(result.axes)
    write_result(
        folder, result, place, source.files, separate_planes=separate, channels=source.channels
    )


def save_images(
    path: str, images: Sequence[PlacedImage], beside: Callable[[Path], None]
) -> Generator[Progress, None, str]:
    """Write images as one OME-Zarr; for the worker's thread."""
    yield Progress(stage="saving", done=0, total=1)
    write_ngff(path, images, beside)
    return path


def save_result(path: str, stored: StoredResult) -> Generator[Progress, None, str]:
    """Write a result as a folder, in place of an older result there; for the worker's thread."""
    yield Progress(stage="saving", done=0, total=1)
    with output_folder(path, overwrite=True) as folder:
        write_stored(folder, stored)
    return path


def _placed(data: Any, attributes: dict[str, Any], kind: str) -> "tuple[Any, Placement, Layer]":
    """Pixels at the finest level with colour as channels, their placement, and the layer.

    Every axis of the placement is named. The user is told what the file cannot hold.
    """
    from napari.layers import Layer
    from napari.utils.notifications import show_warning

    # napari gives a writer data and attributes, but not the layer.
    layer = Layer.create(data, attributes, kind)
    place = Placement.of(layer)
    matrices = (place.rotate, place.shear, place.affine)
    if not all(np.allclose(matrix, np.eye(len(matrix))) for matrix in matrices):
        show_warning(
            f"{layer.name}: other programs will not see its rotation, shear or affine transform; "
            "they will see pixels, scale, position and units."
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
    axes, step = "YX", dict[str, float]()
    if defocus_um is not None:
        optics["defocus_um"] = defocus_um
        axes, step = "ZYX", {"z_step_um": defocus_um[1] - defocus_um[0]}
    keywords = {
        "name": name,
        "metadata": {METADATA_KEY: {"optics": optics, "model": model}},
        **placement(name, axes, sample.pixel_um, step).keywords(),
    }
    return sample.array, keywords, "image"


def _truth(name: str, values: np.ndarray, image: LayerData) -> LayerData:
    """The hidden truth of a sample, on its grid or on one twice as fine."""
    counts, keywords, _ = image
    coarse_um = keywords["scale"][-1]
    pixel_um = coarse_um / (values.shape[-1] // counts.shape[-1])
    # napari places pixel centres; that of the first fine pixel lies before the coarse one.
    shift_um = (pixel_um - coarse_um) / 2
    place = placement(name, "YX", pixel_um, {"y_um": shift_um, "x_um": shift_um})
    metadata = {METADATA_KEY: {"role": "truth"}}
    return (
        values,
        {"name": name, "visible": False, "metadata": metadata, **place.keywords()},
        "image",
    )
