"""Save images in memory as files of pairs.

A training that was started from layers can then be repeated from its folder.
"""

from collections.abc import Generator
from itertools import product
from pathlib import Path

import numpy as np

from napari_cvdm.core.request import ImageStack, RequestError
from napari_cvdm.core.result import Progress
from napari_cvdm.io import write_image
from napari_cvdm.tasks import TASKS

FIELD_AXES = "TS"  # along these, every frame counts as a field of view of its own
MEASURED, TRUTH = "measured", "truth"
UNTOUCHED = (np.uint8, np.uint16, np.uint32, np.float32, np.float64)


def save_pairs(
    measured: ImageStack, truth: ImageStack, task: str, folder: str | Path
) -> Generator[Progress, None, tuple[Path, Path]]:
    """Write each field of view into a file of its own, as ``[folders]`` of a recipe wants them.

    Parameters
    ----------
    measured : ImageStack
        Axes (..., Y, X), for phase (..., P, Y, X). Frames along T (or an axis without a name) and S
        are fields of view; frames along Z and C belong to one.
    truth : ImageStack
        The same axes and frames without P, on a grid that is as much finer as the task says.
    task : str
    folder : path
        Gets the folders ``measured`` and ``truth``.

    Yields
    ------
    Progress
        Before every field of view.

    Returns
    -------
    tuple of Path
        Both folders.

    Raises
    ------
    RequestError
        The axes or the numbers of frames differ.
    ImageFileError
        The disk is full or may not be written to.
    """
    _check_frames(measured, truth)
    folders = Path(folder) / MEASURED, Path(folder) / TRUTH
    for one in folders:
        one.mkdir(parents=True, exist_ok=True)
    sizes = [
        size
        for letter, size in zip(measured.axes, measured.array.shape, strict=True)
        if letter in FIELD_AXES
    ]
    views = list(product(*(range(size) for size in sizes)))
    for number, view in enumerate(views):
        yield Progress(stage="saving the pairs", done=number, total=len(views))
        for stack, target, unit in (
            (measured, folders[0], "counts"),
            (truth, folders[1], TASKS[task].unit),
        ):
            _write(stack, view, target / f"field-{number + 1:04d}.ome.tif", unit)
    return folders


def _check_frames(measured: ImageStack, truth: ImageStack) -> None:
    frames = [
        {
            letter: size
            for letter, size in zip(stack.axes, stack.array.shape, strict=True)
            if letter not in "PYX"
        }
        for stack in (measured, truth)
    ]
    if frames[0] != frames[1]:
        said = [
            "no frames" if not one else " ".join(f"{letter} {size}" for letter, size in one.items())
            for one in frames
        ]
        raise RequestError(
            f"{measured.source} has {said[0]}, and {truth.source} {said[1]}; each frame needs its "
            "truth, so both need the same axes before Y and X."
        )


def _write(stack: ImageStack, view: tuple[int, ...], path: Path, unit: str) -> None:
    places = iter(view)
    index = tuple(next(places) if letter in FIELD_AXES else slice(None) for letter in stack.axes)
    axes = "".join(letter for letter in stack.axes if letter not in FIELD_AXES)
    pixels = np.asarray(stack.array[index])
    kept = pixels.dtype if pixels.dtype in UNTOUCHED else np.dtype(np.float32)
    write_image(
        path, pixels, axes=axes, pixel_um=stack.pixel_um, unit=unit, name=stack.source, dtype=kept
    )
