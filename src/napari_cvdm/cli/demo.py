"""``napari-cvdm demo``: both shipped models on simulated samples, with one picture for each."""

import shlex
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from napari_cvdm.cli import say_done
from napari_cvdm.cli.options import build_parser
from napari_cvdm.cli.pictures import Panel, draw
from napari_cvdm.cli.restore import reconstruct_into
from napari_cvdm.core.request import ImageStack, ReconstructionRequest, command_words
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.io import output_folder, write_image
from napari_cvdm.simulate.samples import (
    CELL_DEFOCUS_UM,
    cell_phase,
    cell_planes,
    reticulum,
    reticulum_pair,
)

COMMANDS = "commands.txt"
INPUTS = "inputs"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """A simulated image, the request for it, and the truth behind it.

    Parameters
    ----------
    title : str
        Of the picture.
    request : ReconstructionRequest
        Its image is the sample.
    truth : ndarray of shape (uY, uX)
        In the unit of the result.
    """

    title: str
    request: ReconstructionRequest
    truth: np.ndarray = field(repr=False)


def sample_images(samples: int) -> Iterator[Sample]:
    """Sample images, each to be reconstructed with this number of posterior samples.

    They are a pair of defocused planes of cells, and a widefield image of an endoplasmic reticulum.
    """
    planes = cell_planes()
    yield Sample(
        title="Quantitative phase from two defocused brightfield planes",
        request=_request(
            planes, "phase-2shot", samples, defocus_um=CELL_DEFOCUS_UM, **planes.metadata
        ),
        truth=cell_phase(),
    )
    image = reticulum()
    yield Sample(
        title="Super-resolution from one widefield fluorescence image",
        request=_request(image, "widefield-x2", samples, **image.metadata),
        truth=reticulum_pair().truth,
    )


def _request(
    image: ImageStack, model: str, samples: int, **optics: object
) -> ReconstructionRequest:
    return ReconstructionRequest(image=image, model=model, samples=samples, **optics)  # type: ignore[arg-type]


def run(arguments: Namespace) -> None:
    """Carry out ``napari-cvdm demo``.

    DIR gets the inputs, a folder of results and a PNG for each model, and the commands that make
    the results again.

    Raises
    ------
    ValueError, OSError
        Bad input, in words; the output folder is not made then.
    """
    out, commands, names = Path(arguments.out), [], []
    with output_folder(out, arguments.overwrite, sign=COMMANDS) as work:
        (work / INPUTS).mkdir()
        for sample in sample_images(arguments.samples):
            command = _command(sample, out)
            names.append(_reconstruct_sample(sample, command, work, out))
            commands.append(shlex.join(command))
        (work / COMMANDS).write_text(
            "\n".join(commands) + "\n", encoding="utf-8", errors="surrogateescape"
        )
    say_done(f"{arguments.out}: {', '.join(names)}, folders of TIFFs beside them, and {COMMANDS}")


def _command(sample: Sample, out: Path) -> list[str]:
    name = sample.request.model
    return [
        *command_words(
            sample.request, {"image": str(out / INPUTS / f"{name}.ome.tif")}, str(out / name)
        ),
        "--overwrite",
    ]


def _reconstruct_sample(sample: Sample, command: list[str], work: Path, out: Path) -> str:
    """Write the input, reconstruct it with the command, and draw the figure.

    The files lie in `work`, which will be renamed to `out`.
    """
    request, image = sample.request, sample.request.image
    folder = work / request.model
    folder.mkdir()
    write_image(
        work / INPUTS / f"{request.model}.ome.tif",
        image.array,
        axes=image.axes,
        pixel_um=image.pixel_um,
        unit="counts",
        name="input",
    )
    reconstruction, _ = reconstruct_into(
        folder,
        build_parser().parse_args(command[1:]),
        lambda path: work / Path(path).relative_to(out),
    )
    picture = f"{request.model}.png"
    draw(work / picture, sample.title, panels(image, reconstruction, sample.truth))
    return picture


def panels(image: ImageStack, reconstruction: Reconstruction, truth: np.ndarray) -> list[Panel]:
    """Panels of a sample: input, mean, truth; standard deviation, error of the mean, rate.

    Parameters
    ----------
    image : ImageStack
        Axes YX or PYX; of two planes the first is shown.
    reconstruction : Reconstruction
        Axes YX.
    truth : ndarray of shape (uY, uX)

    Returns
    -------
    list of Panel
        Six, in reading order.
    """
    phase, mean = reconstruction.unit == "rad", reconstruction.mean
    if phase:  # planes do not tell the mean phase
        truth = truth + float(np.median(mean - truth))
    error = np.abs(mean - truth)
    limits, spread = (
        _limits(mean, truth),
        (0.0, float(np.percentile(error[reconstruction.valid], 99.5))),
    )
    colours = "viridis" if phase else "magma"

    def fine(
        title: str,
        pixels: np.ndarray,
        colormap: str,
        limits: tuple[float, float] | None,
        unit: str = reconstruction.unit,
    ) -> Panel:
        return Panel(
            title=title,
            pixels=pixels,
            unit=unit,
            pixel_um=reconstruction.pixel_um,
            colormap=colormap,
            limits=limits,
        )

    given = image.array[0] if "P" in image.axes else image.array
    first = "input, first of two planes" if phase else "input"
    return [
        Panel(
            title=first,
            pixels=given,
            unit="counts",
            pixel_um=reconstruction.pixel_um * reconstruction.upsampling,
            colormap="gray",
        ),
        fine("mean of the posterior samples", mean, colours, limits),
        fine("simulated truth", truth, colours, limits),
        fine("learned noise-rate map", reconstruction.rate, "cividis", None, "λ, dimensionless"),
        fine("standard deviation of the samples", reconstruction.std, "inferno", spread),
        fine("distance of the mean from the truth", error, "inferno", spread),
    ]


def _limits(mean: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(np.stack([mean, truth]), (0.5, 99.8))
    return float(low), float(high)
