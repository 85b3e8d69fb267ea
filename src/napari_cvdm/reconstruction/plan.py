"""From a request to a plan: every open value is filled in once, and what is missing is named."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from napari_cvdm.core.device import multiplies_bf16, pick_device
from napari_cvdm.core.microscope import check_defocus
from napari_cvdm.core.plan import Plan, count_planes
from napari_cvdm.core.request import OPTICS, ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.core.result import finished
from napari_cvdm.io import combine_planes, sha256_of
from napari_cvdm.models.checkpoint import CheckpointError, ModelCard
from napari_cvdm.tasks import TASKS, NetworkInput, Task, find_task

_OME_AXES = "TZC"


def resolve(
    request: ReconstructionRequest, task: Task, begun: Mapping[str, Any] | None = None
) -> Plan:
    """Fill in what a request leaves open.

    `begun` are the settings of a result that the run continues; they decide on the precision.

    Raises
    ------
    RequestError, OpticsError
        What the task needs and neither request nor image states, or what does not fit the task.
    DeviceError
        This machine has no such device.
    """
    check_planes(request.image, task)
    if request.psf is not None and not getattr(task, "fine_channels", 0):
        raise RequestError(
            f"{request.psf.source}: {task.name} has no use for a measured PSF; leave --psf out, or "
            "choose widefield-x2 or richardson-lucy."
        )
    for name in task.needed_optics:
        if name in OPTICS:
            request.optics_value(name)
    if "defocus_um" in task.needed_optics:
        request.plane_positions()
    device = pick_device(request.device)
    # In the request, so that its settings tell what was chosen.
    request = replace(request, precision=_resolve_precision(request.precision, device, begun))
    return Plan(
        image=request.image,
        pixel_um=request.optics_value("pixel_um"),
        wavelength_um=request.known_optics("wavelength_um"),
        medium_index=request.known_optics("medium_index"),
        na=request.known_optics("na"),
        defocus_um=None if request.defocus_um is None else check_defocus(request.defocus_um),
        condenser_na=request.condenser_na or 0.0,
        background=request.background,
        psf=request.psf,
        register=request.align == "auto",
        region=request.region,
        samples=request.samples,
        steps=request.steps,
        seed=request.seed,
        sampler=request.sampler,
        device=str(device),
        precision="bf16" if request.precision == "bf16" else "fp32",  # auto is resolved by now
        tile=request.tile,
        schedule_points=request.schedule_points,
        keep_samples=request.keep_samples,
        settings=settings_of(request),
    )


def prepare_frame(pixels: np.ndarray, request: ReconstructionRequest, task: Task) -> NetworkInput:
    """The networks' input for one frame (P, Y, X) of a request; errors as of `resolve`."""
    return finished(task.prepare(pixels, resolve(request, task)))


def _resolve_precision(asked: str, device: Any, begun: Mapping[str, Any] | None) -> Any:
    if asked != "auto":
        return asked
    if begun is not None:
        return begun.get("precision")  # None in a damaged record: the request refuses it
    return "bf16" if multiplies_bf16(device) else "fp32"


def settings_of(request: ReconstructionRequest) -> dict[str, Any]:
    """Every setting by its name, with the image's optics, and images as fingerprints."""
    settings = {entry.name: getattr(request, entry.name) for entry in fields(request)}
    del settings["image"]
    settings |= {name: request.known_optics(name) for name in OPTICS}
    if request.image.series is not None:
        settings["series"] = request.image.series
    if not isinstance(request.background, str):
        settings["background"] = f"image sha256:{sha256_of(request.background)}"
    if request.psf is not None:
        settings["psf"] = (
            f"image sha256:{sha256_of(request.psf.array)}, {request.psf.pixel_um:g} um"
        )
    return settings


def task_of(card: ModelCard) -> Task:
    """The task of a model, or of a method that has no network.

    CheckpointError where this version does not know it, or a network has another shape than it
    needs.
    """
    task = find_task(card.task)
    if task is None:
        raise CheckpointError(
            f"{card.name}: task {card.task!r} is not known to this version; known are "
            f"{', '.join(TASKS)}. Update napari-cvdm, or install the package that has it."
        )
    if not card.network:
        return task
    config = card.config()
    if (config.condition_channels, config.upsampling) != (len(task.channels), task.upsampling):
        raise CheckpointError(
            f"{card.name}: its network does not fit the task {task.name}; the card belongs to "
            "another model. Copy the model again."
        )
    return task


def check_planes(image: ImageStack, task: Task) -> None:
    """RequestError unless the plane axis is just before YX, and as long as the task takes."""
    if "P" in image.axes and not image.axes.endswith("PYX"):
        raise RequestError(
            f"{image.source}: axes {image.axes}; the plane axis P must stand just before YX. Move "
            "it there with numpy.moveaxis."
        )
    planes = image.planes or 1
    more_are_allowed = task.planes > 1
    if planes < task.planes or (planes > task.planes and not more_are_allowed):
        needed = f"{task.planes} or more" if more_are_allowed else str(task.planes)
        raise RequestError(
            f"{image.source}: {planes} plane(s) of axes {image.axes}; {task.name} needs {needed}: "
            f"{task.inputs}."
        )


def with_planes(
    stacks: Sequence[ImageStack], card: ModelCard, defocus_um: Sequence[float] | None = None
) -> ImageStack:
    """One image with all planes, its unnamed axis under a name that image files have.

    `stacks` are one stack, or one image for each plane. With `defocus_um`, a single stack must have
    an axis of as many planes as positions.

    Raises
    ------
    RequestError, ImageFileError
        Too many or too few planes, or planes that do not fit together.
    """
    task = task_of(card)
    if task.planes > 1:
        image = combine_planes(*stacks, count=count_planes(task.planes, defocus_um))
    elif len(stacks) == 1:
        image = stacks[0]
    else:
        sources = " and ".join(stack.source for stack in stacks)
        raise RequestError(
            f"{len(stacks)} images were given ({sources}); {card.name} takes {task.inputs}. Give "
            "one image."
        )
    # An axis without a name is S; OME has T, Z and C.
    free = next((letter for letter in _OME_AXES if letter not in image.axes), "S")
    return replace(image, axes=image.axes.replace("S", free))
