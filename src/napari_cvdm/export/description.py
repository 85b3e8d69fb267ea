"""Description (format 0.5), files and test of a package for the BioImage Model Zoo.

This module is imported only where the extra ``bmz`` is installed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bioimageio.core import test_description
from bioimageio.spec import save_bioimageio_package
from bioimageio.spec.common import FileDescr
from bioimageio.spec.model import v0_5
from matplotlib.figure import Figure

from napari_cvdm import __version__
from napari_cvdm.export.errors import ExportError
from napari_cvdm.io.errors import one_line
from napari_cvdm.models.checkpoint import ModelCard

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackagedTensor:
    """One input or output, with the values that test it.

    Parameters
    ----------
    name, meaning : str
    channels : tuple of str
        Name of each channel.
    pixel_um : float
        Pixel size [um].
    values : ndarray of shape (1, C, Y, X), float32
    """

    name: str
    meaning: str
    channels: tuple[str, ...]
    pixel_um: float
    values: np.ndarray = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Package:
    """What makes one package.

    Parameters
    ----------
    file_name, title, summary, readme, author : str
        `readme` is Markdown.
    card : ModelCard
    tags : tuple of str
    inputs, outputs : tuple of PackagedTensor
        Sizes follow those of the first input.
    smallest_px, step_px : int
        The first input may be ``smallest_px + n * step_px`` wide and high.
    weights : v0_5.WeightsDescr
    parts : Path
        A folder for the files of the package.
    """

    file_name: str
    title: str
    summary: str
    readme: str
    author: str
    card: ModelCard
    tags: tuple[str, ...]
    inputs: tuple[PackagedTensor, ...]
    outputs: tuple[PackagedTensor, ...]
    smallest_px: int
    step_px: int
    weights: v0_5.WeightsDescr
    parts: Path

    def write(self, folder: Path) -> Path:
        """Write the package into a folder and test it there.

        Returns
        -------
        Path
            The .zip file.

        Raises
        ------
        ExportError
            What the format does not allow, or outputs that do not come back.
        """
        try:
            path = save_bioimageio_package(self._description(), output_path=folder / self.file_name)
        except ValueError as error:
            raise ExportError(
                f"{self.card.name} cannot be described for the Model Zoo ({one_line(error)}). "
                f"{ADVICE}"
            ) from None
        check_package(path)
        return path

    def _description(self) -> v0_5.ModelDescr:
        (self.parts / "README.md").write_text(self.readme, encoding="utf-8")
        return v0_5.ModelDescr(
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
            config=v0_5.Config(bioimageio=self._details()),
        )

    def _details(self) -> v0_5.BioimageioConfig:
        return v0_5.BioimageioConfig(
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

    def _input(self, tensor: PackagedTensor) -> v0_5.InputTensorDescr:
        first = tensor is self.inputs[0]
        size = v0_5.ParameterizedSize(min=self.smallest_px, step=self.step_px)
        space = [
            v0_5.SpaceInputAxis(
                **_place(tensor, axis), size=size if first else self._reference(axis)
            )
            for axis in "yx"
        ]
        return v0_5.InputTensorDescr(
            axes=[v0_5.BatchAxis(), _channels(tensor), *space], **_common(tensor, self.parts)
        )

    def _output(self, tensor: PackagedTensor) -> v0_5.OutputTensorDescr:
        space = [
            v0_5.SpaceOutputAxis(**_place(tensor, axis), size=self._reference(axis))
            for axis in "yx"
        ]
        return v0_5.OutputTensorDescr(
            axes=[v0_5.BatchAxis(), _channels(tensor), *space], **_common(tensor, self.parts)
        )

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


def _channels(tensor: PackagedTensor) -> v0_5.ChannelAxis:
    return v0_5.ChannelAxis(channel_names=[re.sub(r"\W", "_", name) for name in tensor.channels])


def _common(tensor: PackagedTensor, parts: Path) -> dict[str, Any]:
    path = parts / f"{tensor.name}.npy"
    np.save(path, tensor.values)
    return {
        "id": v0_5.TensorId(tensor.name),
        "description": tensor.meaning,
        "test_tensor": FileDescr(source=path),
        "data": v0_5.IntervalOrRatioDataDescr(type="float32"),
    }


def check_package(path: Path) -> None:
    """Raise ExportError unless bioimageio.core accepts the package and reproduces its outputs."""
    summary = test_description(path)
    if summary.status != "passed":
        reasons: Sequence[str] = [
            error.msg for detail in summary.details for error in detail.errors
        ]
        raise ExportError(
            f"{path.name} did not pass the test of bioimageio.core "
            f"({one_line('; '.join(reasons) or summary.status)}); report this to napari-cvdm."
        )
