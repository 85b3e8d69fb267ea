"""Real widefield images of the endoplasmic reticulum against SIM of the same field: `python -m benchmarks.tsim_er`."""

import argparse

import numpy as np
import tifffile
from scipy.ndimage import zoom

from benchmarks.measure import DATA, Row, finish, fitted_psnr, matched_psnr, print_rows
from napari_cvdm.model.checkpoint import Checkpoint
from napari_cvdm.model.zoo import load_model
from napari_cvdm.request import ImageStack, RestoreRequest

FIELDS = (1, 2, 3)
ASSUMED_PIXEL_UM = 0.0626  # not recorded with the data; only the warning about trained ranges uses it


def scaled_truth(image: np.ndarray) -> np.ndarray:
    """SIM between its 0.1 and 99.9 percentiles, clipped to 0..1."""
    low, high = np.percentile(image, (0.1, 99.9))
    return ((image - low) / (high - low)).clip(0, 1)


def measure(model: Checkpoint, samples: int = 16) -> list[Row]:
    """PSNR of cubic upsampling and of the posterior mean, as it is and at matched resolution, for each field."""
    rows, gains = [], []
    for number in FIELDS:
        widefield = tifffile.imread(DATA / f"sr/tsim_er/ER_{number}_wf_t1.tif")
        truth = scaled_truth(tifffile.imread(DATA / f"sr/tsim_er/ER_{number}_gt_sim.tif").astype(np.float64))
        request = RestoreRequest(image=ImageStack(array=widefield, axes="YX", pixel_um=ASSUMED_PIXEL_UM), model=model.card.name, samples=samples)
        mean = finish(request, model).mean.astype(np.float64)
        floor = fitted_psnr(zoom(widefield.astype(np.float64), 2, order=3, grid_mode=True, mode="nearest"), truth)
        plain, (matched, sigma) = fitted_psnr(mean, truth), matched_psnr(mean, truth)
        gains.append((plain - floor, matched - floor))
        rows.append(Row(what=f"T-SIM ER {number}: cubic, mean, mean at matched resolution [dB]", value=f"{floor:.2f}, {plain:.2f}, {matched:.2f} (sigma {sigma:.1f} px)"))
    plain, matched = np.mean(gains, axis=0)
    return [
        *rows,
        Row(what="T-SIM ER: mean gain over cubic, as it is [dB]", value=f"{plain:+.2f}"),
        Row(what="T-SIM ER: mean gain over cubic, matched resolution [dB]", value=f"{matched:+.2f}", bar=">= +2.5", met=bool(matched >= 2.5)),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="widefield-x2")
    print_rows("T-SIM endoplasmic reticulum", measure(load_model(parser.parse_args().model)))
