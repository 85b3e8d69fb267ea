"""Real widefield images of the endoplasmic reticulum against SIM of the same field.

`python -m paper.tsim_er`
"""

import argparse
from collections.abc import Mapping

import numpy as np
import tifffile
from scipy.ndimage import shift, zoom

from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from paper.measure import DATA, Row, finish, fitted_psnr, matched_psnr, print_rows

FIELDS = (1, 2, 3)
GRID_SHIFT_PX = (
    -0.5
)  # this SIM reconstruction puts its pixel 2i on widefield pixel i; napari and we centre both grids
ASSUMED_PIXEL_UM = (
    0.0626  # not recorded with the data; only the warning about trained ranges uses it
)


def scaled_truth(image: np.ndarray) -> np.ndarray:
    """SIM between its 0.1 and 99.9 percentiles, clipped to 0..1."""
    low, high = np.percentile(image, (0.1, 99.9))
    return ((image - low) / (high - low)).clip(0, 1)


def on_its_grid(image: np.ndarray) -> np.ndarray:
    """An image on centred grids, moved onto the SIM reconstruction's grid."""
    return shift(image, GRID_SHIFT_PX, order=3, mode="nearest")


def gains(
    floor: np.ndarray, mean: np.ndarray, truth: np.ndarray
) -> tuple[float, float, float, float]:
    """PSNR [dB] of the floor, the mean, and the mean at matched resolution; the blur [px].

    The blur is the one that matches the resolution.
    """
    matched, sigma = matched_psnr(mean, truth)
    return fitted_psnr(floor, truth), fitted_psnr(mean, truth), matched, sigma


Fields = Mapping[int, tuple[np.ndarray, np.ndarray]]
"""Widefield image (Y, X) and SIM reconstruction (2Y, 2X), by number."""


def measured_fields() -> Fields:
    """The fields of the data set."""
    names = {number: (f"ER_{number}_wf_t1.tif", f"ER_{number}_gt_sim.tif") for number in FIELDS}
    read = {
        number: [tifffile.imread(DATA / "sr/tsim_er" / name).astype(np.float64) for name in pair]
        for number, pair in names.items()
    }
    return {number: (widefield, sim) for number, (widefield, sim) in read.items()}


def measure(model: Checkpoint, fields: Fields, samples: int = 16) -> list[Row]:
    """Cubic upsampling and the posterior mean against SIM.

    They are compared on the grids as they come and on the SIM's own grid.
    """
    rows, as_they_come, registered = [], [], []
    for number, (widefield, sim) in fields.items():
        truth = scaled_truth(sim)
        request = ReconstructionRequest(
            image=ImageStack(array=widefield, axes="YX", pixel_um=ASSUMED_PIXEL_UM),
            model=model.card.name,
            samples=samples,
        )
        mean = finish(request, model).mean.astype(np.float64)
        cubic = zoom(widefield, 2, order=3, grid_mode=True, mode="nearest")
        as_they_come.append(gains(cubic, mean, truth))
        registered.append(gains(on_its_grid(cubic), on_its_grid(mean), truth))
        for name, found in (("as they come", as_they_come[-1]), ("registered", registered[-1])):
            value = f"{found[0]:.2f}, {found[1]:.2f}, {found[2]:.2f} (sigma {found[3]:.1f} px)"
            rows.append(
                Row(
                    what=(
                        f"T-SIM ER {number}, grids {name}: cubic, mean, mean at matched "
                        "resolution [dB]"
                    ),
                    value=value,
                )
            )
    return [*rows, *summary("as they come", as_they_come), *summary("registered", registered)]


def summary(name: str, found: list[tuple[float, float, float, float]]) -> list[Row]:
    """Mean gains over the floor."""
    floor, plain, matched, _ = np.mean(found, axis=0)
    return [
        Row(
            what=f"T-SIM ER, grids {name}: mean gain over cubic [dB]", value=f"{plain - floor:+.2f}"
        ),
        Row(
            what=f"T-SIM ER, grids {name}: mean gain at matched resolution [dB]",
            value=f"{matched - floor:+.2f}",
            bar=">= +2.5",
            met=bool(matched - floor >= 2.5),
        ),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="widefield-x2")
    print_rows(
        "T-SIM endoplasmic reticulum",
        measure(load_model(parser.parse_args().model), measured_fields()),
    )
