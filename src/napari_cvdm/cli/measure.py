"""``napari-cvdm measure`` and ``napari-cvdm plan``: objects of a result, and the next image."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from napari_cvdm.analysis.measure import (
    NO_SAMPLES,
    PHASE,
    MaskFrame,
    MeasuredFrame,
    measure_frames,
    object_rows,
    suggest_frames,
    table_text,
)
from napari_cvdm.cli import say_done
from napari_cvdm.cli.progress import with_bar
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.io import read_image
from napari_cvdm.io.atomic import write_file
from napari_cvdm.io.result_folder import read_result_folder


def run_measure(arguments: Namespace) -> None:
    """Measure the objects of a result folder, and write one CSV table."""
    out = _free_file(arguments)
    stored = read_result_folder(arguments.result)
    result = stored.reconstruction
    frames = frames_of(result, above_background=arguments.above_background)
    if arguments.mask is None:
        masks, thresholds = with_bar(suggest_frames(frames), "looking for objects")
    else:
        masks, thresholds = _read_masks(arguments.mask, result), (None,) * len(frames)
    # A mask of the command line lies on the grid of the result, unlike a layer.
    pairs = [
        (frame, MaskFrame(labels=mask, matrix=np.eye(2), offset=np.zeros(2), threshold=threshold))
        for frame, mask, threshold in zip(frames, masks, thresholds, strict=True)
    ]
    measured = with_bar(measure_frames(pairs, arguments.alpha), "measuring")
    model = result.provenance.model
    made_with = {
        **({"alpha_um3_per_pg": arguments.alpha} if result.unit == PHASE else {}),
        "wavelength_um": frames[0].optics["wavelength_um"],
        "pixel_um": result.pixel_um,
        "unit": result.unit,
        "group": f"{stored.source} by {model.get('name', '')}",
        "model": model.get("name", ""),
        "model_sha256": model.get("sha256", ""),
        "warnings": " ".join(result.provenance.warnings),
        "mask": arguments.mask or "suggested",
    }
    rows = object_rows(measured, made_with)
    write_file(out, table_text(rows).encode())
    say_done(f"{out}: {len(rows)} objects")
    if result.samples is None:
        say_done(f"{NO_SAMPLES}; reconstruct with --keep-samples to have one.")


def _free_file(arguments: Namespace) -> Path:
    """The file to make; RequestError where there is one that may not be replaced."""
    out = Path(arguments.out)
    if out.is_dir() or (out.exists() and not arguments.overwrite):
        raise RequestError(f"{out} exists already; choose another name or say --overwrite.")
    return out


def frames_of(result: Reconstruction, *, above_background: bool) -> list[MeasuredFrame]:
    """Every frame of a result, with its place on the axes that are longer than one."""
    shape, known = result.mean.shape[:-2], result.provenance
    calibration = known.model.get("calibration")
    wavelength_um = known.settings.get("wavelength_um")
    # The dry mass of a phase needs it; nothing of an intensity does.
    has_path = result.unit == PHASE and wavelength_um is not None
    optics = {
        "pixel_um": result.pixel_um,
        "unit": result.unit,
        "wavelength_um": float(str(wavelength_um)) if has_path else None,
        "calibration": calibration if isinstance(calibration, Mapping) else {},
        "above_background": above_background,
    }
    # An axis of length one would be a column of zeros in the table.
    long_axes = [axis for axis, size in enumerate(shape) if size > 1]
    return [
        MeasuredFrame(
            place={result.axes[axis].lower(): index[axis] for axis in long_axes},
            image=result.mean[index],
            samples=None if result.samples is None else result.samples[(slice(None), *index)],
            untrusted=~result.valid[index],
            optics=optics,
        )
        for index in np.ndindex(shape)
    ]


def _read_masks(path: str, result: Reconstruction) -> np.ndarray:
    """Labels of every frame (F, Y, X); those of a single plane count for every frame."""
    labels = np.asarray(read_image(path).array)
    size = result.mean.shape[-2:]
    if labels.shape[-2:] != size:
        raise RequestError(
            f"{path} has {' x '.join(map(str, labels.shape[-2:]))} pixels, the result "
            f"{' x '.join(map(str, size))}; draw the mask on the result."
        )
    if not np.isfinite(labels).all() or (labels < 0).any() or (labels % 1).any():
        raise RequestError(
            f"{path} has values that are no labels; give whole numbers, 0 outside the objects."
        )
    # Files may hold labels as floats.
    masks = labels.reshape(-1, *size).astype(np.int64)
    count = int(np.prod(result.mean.shape[:-2]))
    if len(masks) not in (1, count):
        raise RequestError(
            f"{path} has {len(masks)} frames, the result {count}; give one mask, or one for each."
        )
    return np.broadcast_to(masks, (count, *size))


def run_plan(arguments: Namespace) -> None:
    """Say the expected error of the next image, from the first frame of this one."""
    # They bring torch, which a table needs not wait for.
    from napari_cvdm.analysis.next_image import describe_outlook, plan_next_image
    from napari_cvdm.cli.restore import request_of
    from napari_cvdm.reconstruction.methods import card_of_method
    from napari_cvdm.reconstruction.plan import resolve, task_of

    out = None if arguments.out is None else _free_file(arguments)
    card = card_of_method(arguments.model)
    task, request = task_of(card), request_of(arguments, card)
    image = request.image
    frame = image.frame((0,) * len(image.loop_axes))
    outlook = with_bar(plan_next_image(frame, resolve(request, task), task.name), "planning")
    say_done(describe_outlook(outlook).replace("µm", "um"))  # as options and files spell it
    if out is not None:
        name = "half_distance_um" if outlook.of_planes else "exposure"
        rows = [
            {name: float(at), f"expected_error_{outlook.unit}": float(error)}
            for at, error in zip(outlook.curve, outlook.errors, strict=True)
        ]
        write_file(out, table_text(rows).encode())
        say_done(f"{out}: expected error over {name}")
