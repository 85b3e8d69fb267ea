"""``napari-cvdm demo``: both shipped models on simulated samples, with one picture for each."""

import shlex
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from napari_cvdm.cli import say_done
from napari_cvdm.cli.figures import Panel, draw_panels
from napari_cvdm.cli.options import build_parser
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
    """A simulated image (in the request for it), and the truth behind it, in the result's unit."""

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
        request=ReconstructionRequest(
            image=planes,
            model="phase-2shot",
            samples=samples,
            defocus_um=CELL_DEFOCUS_UM,
            **planes.metadata,  # type: ignore[arg-type]
        ),
        truth=cell_phase(),
    )
    image = reticulum()
    yield Sample(
        title="Super-resolution from one widefield fluorescence image",
        request=ReconstructionRequest(
            image=image,
            model="widefield-x2",
            samples=samples,
            **image.metadata,  # type: ignore[arg-type]
        ),
        truth=reticulum_pair().truth,
    )


def run_demo(arguments: Namespace) -> None:
    """Carry out the command; the output folder is not made where the input is bad.

    DIR gets the inputs, a folder of results and a PNG for each model, and the commands that make
    the results again.
    """
    out, commands, names = Path(arguments.out), [], []
    with output_folder(out, arguments.overwrite, sign=COMMANDS) as work:
        (work / INPUTS).mkdir()
        for sample in sample_images(arguments.samples):
            name = sample.request.model
            image = {"image": str(out / INPUTS / f"{name}.ome.tif")}
            # --overwrite, since this run leaves its result there.
            command = [*command_words(sample.request, image, str(out / name)), "--overwrite"]
            names.append(_reconstruct_sample(sample, command, work, out))
            commands.append(shlex.join(command))
        text = "\n".join(commands) + "\n"
        # A path need not be text; its bytes are kept, so that the commands work.
        (work / COMMANDS).write_text(text, encoding="utf-8", errors="surrogateescape")
    say_done(f"{arguments.out}: {', '.join(names)}, folders of TIFFs beside them, and {COMMANDS}")


def _reconstruct_sample(sample: Sample, command: list[str], work: Path, out: Path) -> str:
    """Write the input, reconstruct it with the command, and draw the figure.

    The files lie in `work`, which will be renamed to `out`.
    """
    name, image = sample.request.model, sample.request.image
    (work / name).mkdir()
    path, um = work / INPUTS / f"{name}.ome.tif", image.pixel_um
    write_image(path, image.array, axes=image.axes, pixel_um=um, unit="counts", name="input")
    # Parsed, so that the printed command is the one that made the result.
    arguments = build_parser().parse_args(command[1:])
    reconstruction, _ = reconstruct_into(
        work / name, arguments, lambda path: work / Path(path).relative_to(out)
    )
    draw_panels(work / f"{name}.png", sample.title, panels(image, reconstruction, sample.truth))
    return f"{name}.png"


def panels(image: ImageStack, reconstruction: Reconstruction, truth: np.ndarray) -> list[Panel]:
    """Panels of a sample: input, mean, truth; rate, standard deviation, error of the mean.

    The image is YX or PYX (of two planes the first is shown), the reconstruction YX.
    """
    phase, mean, unit = reconstruction.unit == "rad", reconstruction.mean, reconstruction.unit
    if phase:  # planes do not tell the mean phase
        truth = truth + float(np.median(mean - truth))
    error = np.abs(mean - truth)
    low, high = np.percentile(np.stack([mean, truth]), (0.5, 99.8))
    limits = (float(low), float(high))
    # The spread is drawn on the scale of the error, so that both can be compared.
    spread = (0.0, float(np.percentile(error[reconstruction.valid], 99.5)))
    colours = "viridis" if phase else "magma"
    um, rate, std = reconstruction.pixel_um, reconstruction.rate, reconstruction.std
    given = image.array[0] if "P" in image.axes else image.array
    title = "input, first of two planes" if phase else "input"
    return [
        Panel(title, given, "counts", um * reconstruction.upsampling, "gray"),
        Panel("mean of the posterior samples", mean, unit, um, colours, limits),
        Panel("simulated truth", truth, unit, um, colours, limits),
        Panel("learned noise-rate map", rate, "λ, dimensionless", um, "cividis"),
        Panel("standard deviation of the samples", std, unit, um, "inferno", spread),
        Panel("distance of the mean from the truth", error, unit, um, "inferno", spread),
    ]
