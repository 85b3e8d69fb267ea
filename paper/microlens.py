"""A real microlens array, in focus and at -1 um, against the US-TIE authors' own result.

`python -m paper.microlens`
"""

import argparse

import numpy as np
import tifffile

from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from paper.measure import DATA, Row, finish, print_rows

FOLDER = DATA / "qpi/ustie_microlens"


def measured_planes() -> tuple[np.ndarray, np.ndarray]:
    """Both planes (2, Y, X), and what the authors made of them (Y, X) [rad]."""
    planes = np.stack([tifffile.imread(FOLDER / name) for name in ("I0.tiff", "Iz_-1um.tiff")])
    return planes, tifffile.imread(FOLDER / "phase_USTIE_reference.tif").astype(np.float64)


def measure(
    model: Checkpoint, planes: np.ndarray, reference: np.ndarray, samples: int = 2
) -> list[Row]:
    """Correlation with the stored result, and the warnings.

    The correlation is over the whole field, and over the pixels that the validity mask keeps.
    """
    image = ImageStack(array=planes, axes="PYX", pixel_um=0.2325, source="microlens")
    result = finish(
        ReconstructionRequest(
            image=image,
            model=model.card.name,
            samples=samples,
            wavelength_um=0.55,
            medium_index=1.0,
            defocus_um=(0.0, -1.0),
        ),
        model,
    )
    kept = result.valid
    whole = float(np.corrcoef(result.mean.ravel(), reference.ravel())[0, 1])
    valid = (
        float(np.corrcoef(result.mean[kept], reference[kept])[0, 1])
        if kept.sum() > 2
        else float("nan")
    )
    said = "; ".join(result.provenance.warnings) or "none"
    return [
        Row(
            what="microlens: correlation with the stored US-TIE, whole field",
            value=f"{whole:.3f}",
            bar=">= 0.9",
            met=whole >= 0.9,
        ),
        Row(what=f"microlens: the same over the valid {kept.mean():.0%}", value=f"{valid:.3f}"),
        Row(what="microlens: warnings", value=said),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="phase-2shot")
    print_rows(
        "Microlens array", measure(load_model(parser.parse_args().model), *measured_planes())
    )
