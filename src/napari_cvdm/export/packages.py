"""The two packages: their description (format 0.5), files, weights and test.

This module is imported only where the extra ``bmz`` is installed.
"""

import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bioimageio.core import test_description
from bioimageio.spec import save_bioimageio_package
from bioimageio.spec.common import FileDescr
from bioimageio.spec.model import v0_5
from matplotlib.figure import Figure
from torch import Tensor

from napari_cvdm import __version__
from napari_cvdm.core.tiling import aligned_size
from napari_cvdm.export.readme import one_step_readme, sampler_readme
from napari_cvdm.export.sampler import OneStep, OneStepFromCounts, PackageSettings, PosteriorSampler
from napari_cvdm.export.zoo import ExportError
from napari_cvdm.io.errors import one_line
from napari_cvdm.models.checkpoint import Checkpoint, ModelCard
from napari_cvdm.reconstruction.plan import prepare_frame, task_of

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
PAPER = "della Maggiora et al., Conditional Variational Diffusion Models, ICLR 2024"
PAPER_URL = "https://arxiv.org/abs/2312.02246"
SOFTWARE_URL = "https://pypi.org/project/napari-cvdm/"
LONGEST_DESCRIPTION = 500
# pydantic 2.14 breaks bioimageio.spec 0.5.12, hence the versions.
ADVICE = (
    'Check the name and the licence in card.json, and the versions: pip install "napari-cvdm[bmz]".'
)
# Relative to a value, and to the largest value. Other processors and versions of torch may change
# the outputs by this much.
TOLERANCE = 1e-3
OPSET = 18
ENVIRONMENT = """\
name: napari-cvdm
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python >=3.11
  - pip
  - pip:
      - torch=={torch}
      - napari-cvdm=={version}
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackagedTensor:
    """One input or output, with the values (1, C, Y, X), float32, that test it."""

    name: str
    meaning: str
    channels: tuple[str, ...]
    pixel_um: float
    values: np.ndarray = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Package:
    """What makes one package.

    Sizes follow those of the first input, which may be ``smallest_px + n * step_px`` wide and high.
    """

    file_name: str
    title: str
    summary: str
    readme: str  # Markdown
    author: str
    card: ModelCard
    tags: tuple[str, ...]
    inputs: tuple[PackagedTensor, ...]
    outputs: tuple[PackagedTensor, ...]
    smallest_px: int
    step_px: int
    weights: v0_5.WeightsDescr
    parts: Path  # a folder for the files of the package

    def write(self, folder: Path) -> Path:
        """Write the package into a folder as a .zip file, and test it there.

        Raises ExportError for what the format does not allow, or outputs that do not come back.
        """
        try:
            path = save_bioimageio_package(self._description(), output_path=folder / self.file_name)
        except ValueError as error:
            raise ExportError(
                f"{self.card.name} cannot be described for the Model Zoo ({one_line(error)}). "
                f"{ADVICE}"
            ) from None
        # The written file is tested, as other programs will read it.
        summary = test_description(path)
        if summary.status != "passed":
            reasons = [error.msg for detail in summary.details for error in detail.errors]
            raise ExportError(
                f"{path.name} did not pass the test of bioimageio.core "
                f"({one_line('; '.join(reasons) or summary.status)}); report this to napari-cvdm."
            )
        return path

    def _description(self) -> v0_5.ModelDescr:
        (self.parts / "README.md").write_text(self.readme, encoding="utf-8")
        details = v0_5.BioimageioConfig(
            architecture_type="conditional diffusion model",
            out_of_scope_use="\n".join(self.card.limits) or None,
            reproducibility_tolerance=[
                v0_5.ReproducibilityTolerance(
                    relative_tolerance=TOLERANCE,
                    absolute_tolerance=TOLERANCE * max(0.0, float(tensor.values.max())),
                    output_ids=[v0_5.TensorId(tensor.name)],
                )
                for tensor in self.outputs
            ],
        )
        return v0_5.ModelDescr(
            # The format allows no other characters in a name.
            name=re.sub(r"[^a-zA-Z0-9_+\- ()]", "-", f"{self.card.name} {self.title}"),
            description=self.summary[:LONGEST_DESCRIPTION],
            authors=[v0_5.Author(name=self.author)],
            cite=[
                v0_5.CiteEntry(text=PAPER, url=v0_5.HttpUrl(PAPER_URL)),
                v0_5.CiteEntry(text=f"napari-cvdm {__version__}", url=v0_5.HttpUrl(SOFTWARE_URL)),
            ],
            license=v0_5.LicenseId(self.card.licence),
            documentation=FileDescr(source=self.parts / "README.md"),
            covers=[FileDescr(source=self._cover())],
            tags=list(self.tags),
            version=v0_5.Version(__version__),
            inputs=[self._input(tensor) for tensor in self.inputs],
            outputs=[self._output(tensor) for tensor in self.outputs],
            weights=self.weights,
            config=v0_5.Config(bioimageio=details),
        )

    def _input(self, tensor: PackagedTensor) -> v0_5.InputTensorDescr:
        first = tensor is self.inputs[0]
        size = v0_5.ParameterizedSize(min=self.smallest_px, step=self.step_px)
        space = [
            v0_5.SpaceInputAxis(
                **_place(tensor, axis), size=size if first else self._reference(axis)
            )
            for axis in "yx"
        ]
        return v0_5.InputTensorDescr(**_common(tensor, space, self.parts))

    def _output(self, tensor: PackagedTensor) -> v0_5.OutputTensorDescr:
        space = [
            v0_5.SpaceOutputAxis(**_place(tensor, axis), size=self._reference(axis))
            for axis in "yx"
        ]
        return v0_5.OutputTensorDescr(**_common(tensor, space, self.parts))

    def _reference(self, axis: str) -> v0_5.SizeReference:
        return v0_5.SizeReference(
            tensor_id=v0_5.TensorId(self.inputs[0].name), axis_id=v0_5.AxisId(axis)
        )

    def _cover(self) -> Path:
        """First input and first output, side by side: 2 to 1, as the format likes it."""
        figure = Figure(figsize=(6, 3))
        for panel, tensor in zip(
            figure.subplots(1, 2), (self.inputs[0], self.outputs[0]), strict=True
        ):
            panel.imshow(tensor.values[0, 0], cmap="gray")
            panel.set_title(tensor.name)
            panel.set_axis_off()
        figure.savefig(self.parts / "cover.png", dpi=100)
        return self.parts / "cover.png"


def _place(tensor: PackagedTensor, axis: str) -> dict[str, Any]:
    # The format multiplies a size by one scale, divides it by the other and requires a whole
    # number. With the 24-bit mantissa of a float32 the result is one.
    return {
        "id": v0_5.AxisId(axis),
        "scale": float(np.float32(tensor.pixel_um)),
        "unit": "micrometer",
    }


def _common(tensor: PackagedTensor, space: list[Any], parts: Path) -> dict[str, Any]:
    """What inputs and outputs say alike; the values that test them are put among the parts."""
    path = parts / f"{tensor.name}.npy"
    np.save(path, tensor.values)
    # To the format, the name of a channel is an identifier.
    names = [re.sub(r"\W", "_", name) for name in tensor.channels]
    return {
        "axes": [v0_5.BatchAxis(), v0_5.ChannelAxis(channel_names=names), *space],
        "id": v0_5.TensorId(tensor.name),
        "description": tensor.meaning,
        "test_tensor": FileDescr(source=path),
        "data": v0_5.IntervalOrRatioDataDescr(type="float32"),
    }


def sampler_package(
    model: Checkpoint, settings: PackageSettings, planes: np.ndarray, author: str, parts: Path
) -> Package:
    """The whole reconstruction: measured images in, mean and standard deviation out.

    `planes` (P, Y, X), float32, are a measured image [counts] for the test; `parts` is an empty
    folder.
    """
    card = model.card
    sampler = PosteriorSampler(asdict(card), settings.given()).eval()
    sampler.load_state_dict(model.network.state_dict())
    result = sampler.reconstructed(planes)
    pixel_um = result.pixel_um
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
        inputs=(_measured(card, planes, pixel_um * result.upsampling),),
        outputs=tuple(
            _image(name, f"{meaning} of the posterior samples [{result.unit}]", values, pixel_um)
            for name, meaning, values in (
                ("mean", "mean", result.mean),
                ("std", "standard deviation", result.std),
            )
        ),
        smallest_px=SMALLEST_PX,
        step_px=1,  # the reconstruction pads to what its networks need
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
    if from_counts:
        inputs: tuple[PackagedTensor, ...] = (_measured(card, planes, pixel_um),)
    else:
        prepared = prepare_frame(planes, request, task)
        channels, estimate = prepared.channels[None].numpy(), prepared.initial_estimate.numpy()
        condition = PackagedTensor(
            name="condition",
            meaning="the channels that napari_cvdm.tasks makes",
            channels=card.channels,
            pixel_um=pixel_um,
            values=channels,
        )
        fine_um = pixel_um * channels.shape[-1] / estimate.shape[-1]
        meaning = "the physical estimate [network units]"
        inputs = (condition, _image("baseline", meaning, estimate, fine_um))
    network = (OneStepFromCounts if from_counts else OneStep)(card.config()).eval()
    network.load_state_dict(model.network.state_dict())
    tensors = [torch.from_numpy(tensor.values) for tensor in inputs]
    with torch.inference_mode():
        mean = network(*tensors)[0, 0].numpy()
    step = network.config.condition_fold * network.config.alignment
    unit = task.unit if from_counts else "network units"
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
        outputs=(_image("mean", f"one-step mean [{unit}]", mean, pixel_um / task.upsampling),),
        smallest_px=aligned_size(SMALLEST_PX, step),
        step_px=step,
        weights=onnx_weights(
            network, tensors, [*(tensor.name for tensor in inputs), "mean"], parts
        ),
        parts=parts,
    )


def _measured(card: ModelCard, planes: np.ndarray, pixel_um: float) -> PackagedTensor:
    names = [f"plane {number + 1}" for number in range(len(planes))]
    return PackagedTensor(
        name="image",
        meaning=f"{card.inputs} [counts]",
        channels=("counts",) if len(planes) == 1 else tuple(names),
        pixel_um=pixel_um,
        values=planes[None],
    )


def _image(name: str, meaning: str, values: np.ndarray, pixel_um: float) -> PackagedTensor:
    return PackagedTensor(
        name=name, meaning=meaning, channels=(name,), pixel_um=pixel_um, values=values[None, None]
    )


def _tags(card: ModelCard, *more: str) -> tuple[str, ...]:
    return (*TAGS.get(card.task, ()), "diffusion-model", "cvdm", "2d", "napari-cvdm", *more)


def pytorch_weights(sampler: PosteriorSampler, folder: Path) -> v0_5.WeightsDescr:
    """The weights of a sampler, float32, and the environment that its code needs.

    The architecture is imported from napari-cvdm, not copied: a copy would go its own way.
    """
    # PyPI knows releases, and no build of one such as +cu128.
    release = torch.__version__.partition("+")[0]
    torch.save(dict(sampler.state_dict()), folder / "weights.pt")
    (folder / "environment.yaml").write_text(
        ENVIRONMENT.format(torch=release, version=__version__), encoding="utf-8"
    )
    return v0_5.WeightsDescr(
        pytorch_state_dict=v0_5.PytorchStateDictWeightsDescr(
            source=folder / "weights.pt",
            pytorch_version=v0_5.Version(release),
            dependencies=FileDescr(source=folder / "environment.yaml"),
            architecture=v0_5.ArchitectureFromLibraryDescr(
                import_from=PosteriorSampler.__module__,
                callable=v0_5.Identifier(PosteriorSampler.__name__),
                # As JSON gives them back: YAML holds no tuples.
                kwargs=json.loads(
                    json.dumps({"card": asdict(sampler.card), "settings": sampler.settings.given()})
                ),
            ),
        )
    )


def onnx_weights(
    network: OneStep, inputs: Sequence[Tensor], names: Sequence[str], folder: Path
) -> v0_5.WeightsDescr:
    """A network as ONNX, for any batch, height and width, traced with inputs (1, C, Y, X).

    The names are those of the inputs, then of the output.
    """
    open_axis = torch.export.Dim.DYNAMIC
    # Traced with one image alone, the batch would be fixed at one.
    batch = tuple(image.repeat(2, 1, 1, 1) for image in inputs)
    with _quietly():
        program = torch.onnx.export(
            network,
            batch,
            input_names=list(names[:-1]),
            output_names=list(names[-1:]),
            dynamic_shapes=tuple({0: open_axis, 2: open_axis, 3: open_axis} for _ in batch),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export made no program.")
    program.save(str(folder / "weights.onnx"))
    return v0_5.WeightsDescr(
        onnx=v0_5.OnnxWeightsDescr(source=folder / "weights.onnx", opset_version=OPSET)
    )


@contextmanager
def _quietly() -> Iterator[None]:
    """Suppress torch's warnings about packages that are not needed and its deprecated parts."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
