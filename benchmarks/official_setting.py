"""Phase in the setting of the official code, on objects that no training showed: `python -m benchmarks.official_setting`.

0.21 um pixels, 0.521 um, planes at +-1 um in air, phases from 0 to 3.5 rad, noise of standard deviation 0.05 on an intensity of 1
(arXiv 2312.02246). The phases are photographs that come with scikit-image, so nothing about them is like the cells and textures of
the training. The official code propagates a field that is its own neighbour on every side; a microscope sees a part of a larger one,
which is measured, too.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from skimage import data
from skimage.color import rgb2gray
from skimage.util import img_as_float64

from benchmarks.hl60 import REGULARISATIONS
from benchmarks.measure import Row, finish, print_rows
from napari_cvdm.microscope import Microscope
from napari_cvdm.model.checkpoint import Checkpoint
from napari_cvdm.model.zoo import load_model
from napari_cvdm.physics.tie import us_tie_of
from napari_cvdm.request import ImageStack, RestoreRequest
from napari_cvdm.simulate.phase import defocus_pair_of

MICROSCOPE = Microscope(pixel_um=0.21, wavelength_um=0.521, medium_index=1.0)
DEFOCUS_UM = (-1.0, 1.0)
LARGEST_RAD, NOISE = 3.5, 0.05
SIDE, BEYOND = 224, 16  # waves from outside the frame reach in, where it is part of a larger one
PHOTOGRAPHS = ("camera", "coins", "cell", "brick", "gravel", "astronaut", "coffee", "cat")
BAR = 0.506  # lower than US-TIE, as the paper reports it


def phase_of(name: str, side: int, margin: int) -> np.ndarray:
    """A photograph as a phase [rad], its middle side + 2 margin pixels square."""
    image = img_as_float64(getattr(data, name)())
    image = rgb2gray(image) if image.ndim == 3 else image
    whole = side + 2 * margin
    top, left = ((size - whole) // 2 for size in image.shape)
    cut = image[top : top + whole, left : left + whole]
    return np.asarray(LARGEST_RAD * (cut - cut.min()) / np.ptp(cut))


def planes_of(phase: np.ndarray, seed: int, margin: int) -> np.ndarray:
    """Two noisy planes of a phase (Y, X) without its margin, (2, Y - 2 margin, X - 2 margin)."""
    seen = slice(margin, phase.shape[0] - margin)
    planes = defocus_pair_of(phase, np.zeros_like(phase), MICROSCOPE, DEFOCUS_UM)[:, seen, seen]
    return np.asarray(planes + np.random.default_rng(seed).normal(0, NOISE, planes.shape))


def mean_error(found: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> float:
    """Mean absolute error [rad] over valid pixels, the piston removed."""
    difference = (found - truth)[valid]
    return float(np.abs(difference - np.median(difference)).mean())


def errors_of(name: str, seed: int, model: Checkpoint, side: int, margin: int) -> tuple[float, float]:
    """Mean absolute error [rad] of the posterior mean, and of US-TIE with the regularisation that suits this field best."""
    phase, seen = phase_of(name, side, margin), slice(margin, margin + side)
    planes, truth = planes_of(phase, seed, margin), phase[seen, seen]
    image = ImageStack(array=planes.astype(np.float32), axes="PYX", pixel_um=MICROSCOPE.pixel_um, source=name)
    optics = {"wavelength_um": MICROSCOPE.wavelength_um, "medium_index": MICROSCOPE.medium_index, "defocus_um": DEFOCUS_UM}
    found = finish(RestoreRequest(image=image, model=model.card.name, samples=8, background="none", align="off", **optics), model)
    inside = np.zeros(truth.shape, dtype=bool)
    inside[8:-8, 8:-8] = True
    light = torch.from_numpy(planes)
    tie = min(mean_error(us_tie_of(light, DEFOCUS_UM, MICROSCOPE, r).numpy(), truth, inside) for r in REGULARISATIONS)
    return mean_error(found.mean, truth, inside), tie


def compared(model: Checkpoint, photographs: Sequence[str], side: int, margin: int, said: str) -> list[Row]:
    """Errors of every photograph, and the mean over them."""
    pairs = {name: errors_of(name, seed, model, side, margin) for seed, name in enumerate(photographs)}
    rows = [Row(what=f"{said}, {name}: MAE, CVDM / best US-TIE [rad]", value=f"{ours:.3f} / {tie:.3f}") for name, (ours, tie) in pairs.items()]
    ours, tie = (float(np.mean([pair[place] for pair in pairs.values()])) for place in (0, 1))
    value, met = f"{ours:.3f} / {tie:.3f}: {1 - ours / tie:+.1%} lower", 1 - ours / tie >= BAR
    return [*rows, Row(what=f"{said}: mean MAE, CVDM / best US-TIE [rad]", value=value, bar=f">= {BAR:.1%} lower", met=met)]


def measure(model: Checkpoint, photographs: Sequence[str] = PHOTOGRAPHS, side: int = SIDE) -> list[Row]:
    """The official setting, and the same photographs as parts of larger fields."""
    return [row for margin, said in ((0, "official"), (BEYOND, "part of a larger field")) for row in compared(model, photographs, side, margin, said)]


def main(words: Sequence[str] | None = None) -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="phase-2shot")
    print_rows("Phase, the official setting", measure(load_model(parser.parse_args(words).model)))


if __name__ == "__main__":
    main()
