"""The parts of a result that is written block by block: images, grid and provenance."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from napari_cvdm import __version__
from napari_cvdm.checks.quality_flag import estimated_optics
from napari_cvdm.checks.training_range import (
    axes_warnings,
    beyond_warning,
    lens_warnings,
    optics_warnings,
)
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.plane_positions import z_step_warning
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.tiling.blocks import BlockPlan
from napari_cvdm.io.atomic import JobFolder
from napari_cvdm.io.zarr_write import Grid, GridImage
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.reconstruction.provenance import short_memory_warning
from napari_cvdm.reconstruction.reconstruct import single_answer
from napari_cvdm.tasks import Task

NO_UNIT = "dimensionless"
_ORDER = "TCZ"
NOT_ALIGNED = (
    "a shift between the planes is not looked for block by block; reconstruct a --region into a "
    "folder to see whether they fit."
)


def images_of(plan: Plan, task: Task) -> tuple[GridImage, ...]:
    """Mean, std, rate and valid, and the samples where they are kept.

    Raises
    ------
    RequestError
        Axes that NGFF cannot hold.
    """
    image = plan.image
    looped = [
        (axis, size)
        for size, axis in zip(image.array.shape, image.axes, strict=True)
        if axis not in "PYX"
    ]
    others = [axis for axis, _ in looped if axis not in "TZ"]
    letters = [axis for axis, _ in looped]
    if (
        len(others) > 1
        or (others and plan.keep_samples)
        or letters != sorted(letters, key="TCSZ".index)
    ):
        raise RequestError(
            f"{image.source}: axes {image.axes} do not fit OME-Zarr; give T, one of C or S, and Z "
            "in that order, and no C with --keep-samples."
        )
    leading = tuple((axis.lower() if axis in _ORDER else "other", size) for axis, size in looped)
    said = (
        ("mean", "float32", task.unit),
        ("std", "float32", task.unit),
        ("rate", "float32", NO_UNIT),
        ("valid", "uint8", NO_UNIT),
    )
    images = tuple(
        GridImage(name=name, dtype=dtype, unit=unit, leading=leading) for name, dtype, unit in said
    )
    if not plan.keep_samples:
        return images
    return (
        *images,
        GridImage(
            name="samples",
            dtype="float32",
            unit=task.unit,
            leading=(("sample", plan.samples), *leading),
        ),
    )


def grid_of(plan: Plan, task: Task, layout: BlockPlan) -> Grid:
    """Size, chunks and place of the output: a finer grid starts half a pixel before the input's."""
    pixel_um, place = plan.pixel_um / task.upsampling, plan.image.place
    shift = (task.upsampling - 1) / 2 * pixel_um
    first_um = (place.get("y_um", 0.0) - shift, place.get("x_um", 0.0) - shift)
    shape = (layout.shape[0] * task.upsampling, layout.shape[1] * task.upsampling)
    return Grid(
        shape=shape,
        chunk=layout.chunk(task.upsampling),
        pixel_um=pixel_um,
        first_um=first_um,
        z_step_um=place.get("z_step_um"),
    )


def provenance_of(
    plan: Plan,
    model: Checkpoint,
    folder: JobFolder,
    layout: BlockPlan,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Everything needed to make the same pixels again, and reasons to doubt them."""
    marks = folder.marks()
    tiles = sorted({int(said["tile"]) for said in marks.values()})
    frames = _estimated(marks)
    return {
        "plan": folder.plan(),
        "source": plan.image.source,
        "tile": plan.tile,
        "tile_used": tiles[0],
        "estimated": {"frames": frames},
        "warnings": list(_warnings(plan, model, marks, layout, frames)),
        "versions": {
            "python": platform.python_version(),
            "napari-cvdm": __version__,
            **{name: version(name) for name in ("torch", "numpy", "zarr")},
        },
        "machine": {"device": plan.device, "platform": platform.platform()},
        "timings_s": dict(seconds),
    }


def _estimated(marks: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What was estimated from each frame, in the order of frames.

    The blocks of a frame share the numbers. Marks of older versions lack them.
    """
    frames = {said["frame"]: said["estimated"] for said in marks.values() if "frame" in said}
    return [frames[number] for number in sorted(frames)]


def _warnings(
    plan: Plan,
    model: Checkpoint,
    marks: Mapping[str, Mapping[str, Any]],
    layout: BlockPlan,
    frames: list[Mapping[str, Any]],
) -> tuple[str, ...]:
    warnings = [
        *axes_warnings(plan.image),
        *optics_warnings(plan, model.card),
        *z_step_warning(plan),
        *single_answer(plan, model),
    ]
    beyond, usable = (sum(said[name] for said in marks.values()) for name in ("beyond", "usable"))
    tile = min(said["tile"] for said in marks.values())
    pixels = (
        len(layout.frames) * layout.shape[0] * layout.shape[1] * model.card.config().upsampling ** 2
    )
    warnings += [*estimated_optics(frames), *lens_warnings(frames, model.card)]
    if beyond:
        warnings.append(beyond_warning(beyond / pixels, model.card))
    if not usable:
        warnings.append(
            "no pixel can be trusted: each is saturated, dark, near the edge, or the optics are "
            "far from the training."
        )
    warnings += [NOT_ALIGNED] if "P" in plan.image.axes and plan.register else []
    return (*warnings, *short_memory_warning(tile, plan.tile))
