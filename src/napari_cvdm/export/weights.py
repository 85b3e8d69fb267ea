"""The two kinds of weights that the packages carry."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from bioimageio.spec.common import FileDescr
from bioimageio.spec.model import v0_5
from torch import Tensor

from napari_cvdm import __version__
from napari_cvdm.export.one_step import OneStep
from napari_cvdm.export.sampler import PosteriorSampler

OPSET = 18


def pytorch_weights(sampler: PosteriorSampler, folder: Path) -> v0_5.WeightsDescr:
    """The weights of a sampler, float32, and the environment that its code needs.

    The architecture is imported from napari-cvdm, not copied: a copy would go its own way.
    """
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
                kwargs=sampler_arguments(sampler),
            ),
        )
    )


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


def sampler_arguments(sampler: PosteriorSampler) -> dict[str, Any]:
    """What makes the same sampler again, as plain values that YAML holds."""
    return {"card": _plain(asdict(sampler.card)), "settings": _plain(sampler.settings.given())}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def onnx_weights(
    network: OneStep, inputs: Sequence[Tensor], names: Sequence[str], folder: Path
) -> v0_5.WeightsDescr:
    """A network as ONNX, for any batch, height and width.

    Parameters
    ----------
    network : OneStep
    inputs : sequence of Tensor of shape (1, C, Y, X)
        What it is traced with.
    names : sequence of str
        Of the inputs, then of the output.
    folder : Path
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
