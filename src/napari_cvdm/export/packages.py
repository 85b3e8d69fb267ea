"""What goes into each of the two packages. Imported only where the extra ``bmz`` is installed."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from napari_cvdm.export.description import Package, PackagedTensor
from napari_cvdm.export.one_step import OneStep, OneStepFromCounts
from napari_cvdm.export.readme import one_step_readme, sampler_readme
from napari_cvdm.export.sampler import PosteriorSampler
from napari_cvdm.export.settings import PackageSettings
from napari_cvdm.export.weights import onnx_weights, pytorch_weights
from napari_cvdm.models.checkpoint import Checkpoint, ModelCard
from napari_cvdm.reconstruction.plan import prepare_frame, task_of
from napari_cvdm.tasks import NetworkInput

SAMPLER = "posterior-sampler.zip"
ONE_STEP = "one-step-mean.zip"
SMALLEST_PX = 32
# The task whose channels ONNX can compute from counts: it needs no inversion and no deconvolution.
COUNTED = "denoise"
TAGS = {
    "phase-2shot": (
        "transmission-light-microscopy",
        "quantitative-phase-imaging",
        "image-reconstruction",
    ),
    "denoise": ("fluorescence-light-microscopy", "denoising", "image-restoration"),
    "widefield-x2": ("fluorescence-light-microscopy", "super-resolution", "image-restoration"),
}


def sampler_package(
    model: Checkpoint, settings: PackageSettings, planes: np.ndarray, author: str, parts: Path
) -> Package:
    """The whole reconstruction: measured images in, mean and standard deviation out.

    Parameters
    ----------
    model : Checkpoint
    settings : PackageSettings
    planes : ndarray of shape (P, Y, X), float32
        A measured image [counts], for the test.
    author : str
    parts : Path
        An empty folder.

    Returns
    -------
    Package
    """
    card = model.card
    sampler = PosteriorSampler(asdict(card), settings.given()).eval()
    sampler.load_state_dict(model.network.state_dict())
    result = sampler.reconstructed(planes)
    return Package(
        file_name=SAMPLER,
        title="posterior sampler",
        summary=(
            f"{card.title}. Mean and standard deviation of {settings.samples} samples of a "
            f"conditional diffusion model (CVDM), seed {settings.seed}."
        ),
        readme=sampler_readme(card, settings, result.provenance.warnings),
        author=author,
        card=card,
        tags=_tags(card, "uncertainty", "pytorch"),
        inputs=(_measured(card, planes, result.pixel_um * result.upsampling),),
        outputs=(
            _image(
                "mean",
                f"mean of the posterior samples [{result.unit}]",
                result.mean,
                result.pixel_um,
            ),
            _image(
                "std",
                f"standard deviation of the posterior samples [{result.unit}]",
                result.std,
                result.pixel_um,
            ),
        ),
        smallest_px=SMALLEST_PX,
        step_px=1,
        weights=pytorch_weights(sampler, parts),
        parts=parts,
    )


def one_step_package(
    model: Checkpoint, settings: PackageSettings, planes: np.ndarray, author: str, parts: Path
) -> Package:
    """One evaluation of each network, as a package.

    It starts from counts where ONNX can scale them, else from the channels that napari-cvdm makes.
    Parameters and result are those of `sampler_package`.
    """
    card, task = model.card, task_of(model.card)
    request = settings.request(planes, card.name)
    pixel_um, from_counts = request.optics_value("pixel_um"), card.task == COUNTED
    inputs = (
        (_measured(card, planes, pixel_um),)
        if from_counts
        else _prepared(card, prepare_frame(planes, request, task), pixel_um)
    )
    network = (OneStepFromCounts if from_counts else OneStep)(card.config()).eval()
    network.load_state_dict(model.network.state_dict())
    tensors = [torch.from_numpy(tensor.values) for tensor in inputs]
    with torch.inference_mode():
        mean = network(*tensors)[0, 0].numpy()
    step = network.config.condition_fold * network.config.alignment
    return Package(
        file_name=ONE_STEP,
        title="one-step mean",
        summary=(
            f"{card.title}. What a conditional diffusion model (CVDM) expects before it samples: "
            "one evaluation, no spread."
        ),
        readme=one_step_readme(card, from_counts=from_counts),
        author=author,
        card=card,
        tags=_tags(card, "onnx"),
        inputs=inputs,
        outputs=(
            _image(
                "mean",
                f"one-step mean [{task.unit if from_counts else 'network units'}]",
                mean,
                pixel_um / task.upsampling,
            ),
        ),
        smallest_px=-(-SMALLEST_PX // step) * step,
        step_px=step,
        weights=onnx_weights(
            network, tensors, [*(tensor.name for tensor in inputs), "mean"], parts
        ),
        parts=parts,
    )


def _measured(card: ModelCard, planes: np.ndarray, pixel_um: float) -> PackagedTensor:
    return PackagedTensor(
        name="image",
        meaning=f"{card.inputs} [counts]",
        channels=_channels(len(planes)),
        pixel_um=pixel_um,
        values=planes[None],
    )


def _channels(planes: int) -> tuple[str, ...]:
    return ("counts",) if planes == 1 else tuple(f"plane {number + 1}" for number in range(planes))


def _prepared(
    card: ModelCard, prepared: NetworkInput, pixel_um: float
) -> tuple[PackagedTensor, ...]:
    channels, baseline = prepared.channels[None].numpy(), prepared.initial_estimate.numpy()
    return (
        PackagedTensor(
            name="condition",
            meaning="the channels that napari_cvdm.tasks makes",
            channels=card.channels,
            pixel_um=pixel_um,
            values=channels,
        ),
        _image(
            "baseline",
            "the physical estimate [network units]",
            baseline,
            pixel_um * channels.shape[-1] / baseline.shape[-1],
        ),
    )


def _image(name: str, meaning: str, values: np.ndarray, pixel_um: float) -> PackagedTensor:
    return PackagedTensor(
        name=name, meaning=meaning, channels=(name,), pixel_um=pixel_um, values=values[None, None]
    )


def _tags(card: ModelCard, *more: str) -> tuple[str, ...]:
    return (*TAGS.get(card.task, ()), "diffusion-model", "cvdm", "2d", "napari-cvdm", *more)
