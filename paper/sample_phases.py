"""The two phase samples that ship with the program, whose truth is known.

`python -m paper.sample_phases`

Printed: what of the measured structure a reconstruction leaves over when it is imaged again, with
the right planes and with the sign of dz turned round; and what the alignment of planes does to
pairs that have nothing between them but the focus.
"""

from dataclasses import replace

import numpy as np

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from napari_cvdm.simulate import samples
from paper.measure import Row, finish, print_rows, rmse


def request_of(
    image: ImageStack, microscope: Microscope, defocus_um: tuple[float, float]
) -> ReconstructionRequest:
    """A sample with its optics."""
    return ReconstructionRequest(
        image=image,
        model="phase-2shot",
        wavelength_um=microscope.wavelength_um,
        medium_index=microscope.medium_index,
        defocus_um=defocus_um,
    )


def row(what: str, request: ReconstructionRequest, truth: np.ndarray, model: Checkpoint) -> Row:
    """Error, and what is left over."""
    result = finish(request, model)
    left = (
        "not known"
        if result.forward is None or result.forward.unexplained is None
        else f"{result.forward.unexplained:.1%}"
    )
    return Row(
        what=f"{what}: RMSE [rad], left over, light",
        value=f"{rmse(result.mean, truth):.3f}, {left}, {result.provenance.quality_flag}",
    )


def main() -> None:
    """Print the rows."""
    model = load_model("phase-2shot")
    cells = request_of(samples.cell_planes(), samples.CELL_MICROSCOPE, samples.CELL_DEFOCUS_UM)
    cell = request_of(
        samples.measured_cell_planes(), samples.MEASURED_MICROSCOPE, samples.MEASURED_DEFOCUS_UM
    )
    rows = [
        row(
            "cells, dz turned round",
            replace(cells, defocus_um=samples.CELL_DEFOCUS_UM[::-1]),
            samples.cell_phase(),
            model,
        )
    ]
    for name, request, truth in (
        ("cells", cells, samples.cell_phase()),
        ("cell of measured phase", cell, samples.measured_cell_phase()),
    ):
        rows.append(row(name, request, truth, model))
    print_rows("Sample phases", rows)


if __name__ == "__main__":
    main()
