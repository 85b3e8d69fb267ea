"""How large the spread is beside the error, on the sample images: `python -m paper.spread`.

Calibration on data of many kinds is another matter; these are the images that every user has.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from napari_cvdm.analysis.measure import ResultField, measure_objects
from napari_cvdm.analysis.regions import suggest_regions
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from napari_cvdm.simulate.samples import (
    CELL_DEFOCUS_UM,
    CELL_MICROSCOPE,
    MEASURED_DEFOCUS_UM,
    cell_phase,
    cell_planes,
    measured_cell_phase,
    measured_cell_planes,
    microtubules,
    microtubules_pair,
    reticulum,
    reticulum_pair,
)
from paper.measure import Row, finish, print_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Samples for each image, and how much of the image: the middle `side` pixels, None for all."""

    samples: int = 16
    side: int | None = None


WHOLE = Plan()


def middle(image: np.ndarray, side: int | None) -> np.ndarray:
    """The middle `side` x `side` pixels of an image (..., Y, X); all of it with None."""
    if side is None:
        return image
    top, left = ((size - side) // 2 for size in image.shape[-2:])
    return image[..., top : top + side, left : left + side]


def reconstructed(
    image: ImageStack, model: Checkpoint, plan: Plan, **optics: tuple[float, float]
) -> Reconstruction:
    """A sample image, with the optics that it states."""
    part = replace(image, array=middle(image.array, plan.side))
    return finish(
        ReconstructionRequest(
            image=part, model=model.card.name, samples=plan.samples, keep_samples=True, **optics
        ),
        model,
    )


def compared(what: str, result: Reconstruction, truth: np.ndarray, *, piston: bool) -> Row:
    """Root mean square of error and of spread over the pixels that may be trusted."""
    error, kept = result.mean - truth, result.valid
    if piston:
        error = error - error[kept].mean()
    of_error, of_spread = (
        float(np.sqrt(np.mean(values[kept] ** 2))) for values in (error, result.std)
    )
    return Row(
        what=f"{what}: RMS error, RMS spread",
        value=f"{of_error:.3g}, {of_spread:.3g} {result.unit}",
    )


def masses(result: Reconstruction, truth: np.ndarray) -> list[Row]:
    """Dry mass of the simulated cells beside that of their true phase, in the same regions."""
    optics = {"pixel_um": CELL_MICROSCOPE.pixel_um, "wavelength_um": CELL_MICROSCOPE.wavelength_um}
    regions = suggest_regions(result.mean, CELL_MICROSCOPE.pixel_um, result.valid)
    found = measure_objects(
        ResultField(image=result.mean, samples=result.samples, trusted=result.valid, **optics),
        regions,
    )
    true = measure_objects(ResultField(image=truth, **optics), regions)
    return [
        Row(
            what=f"simulated cells: dry mass of region {label}",
            value=f"{one.value:.1f} +- {one.deviation:.1f} pg, true {other.value:.1f} pg",
        )
        for label, one, other in (
            (cell.label, cell.mass_pg, same.mass_pg) for cell, same in zip(found, true, strict=True)
        )
    ]


def measure(phase: Checkpoint, widefield: Checkpoint, plan: Plan = WHOLE) -> list[Row]:
    """Every sample image."""
    cells, truth = (
        reconstructed(cell_planes(), phase, plan, defocus_um=CELL_DEFOCUS_UM),
        middle(cell_phase(), plan.side),
    )
    rows = [compared("simulated cells", cells, truth, piston=True), *masses(cells, truth)]
    measured = reconstructed(measured_cell_planes(), phase, plan, defocus_um=MEASURED_DEFOCUS_UM)
    rows.append(
        compared(
            "cell of measured phase",
            measured,
            middle(measured_cell_phase(), plan.side),
            piston=True,
        )
    )
    fine = None if plan.side is None else 2 * plan.side
    images: dict[str, tuple[Callable[[], ImageStack], np.ndarray]] = {
        "network": (reticulum, reticulum_pair().truth),
        "microtubules": (microtubules, microtubules_pair().truth),
    }
    found = {
        name: (reconstructed(image(), widefield, plan), middle(true, fine))
        for name, (image, true) in images.items()
    }
    return [
        *rows,
        *(compared(name, result, true, piston=False) for name, (result, true) in found.items()),
    ]


if __name__ == "__main__":
    print_rows(
        f"Spread beside error, {WHOLE.samples} samples",
        measure(load_model("phase-2shot"), load_model("widefield-x2")),
    )
