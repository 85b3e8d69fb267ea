"""Blank fields must come back blank: `python -m paper.blank`."""

import argparse

import numpy as np
from scipy.ndimage import zoom

from napari_cvdm.core.microscope import Camera
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from paper.measure import Row, finish, print_rows

PHOTON_LEVELS = (0.0, 5.0, 50.0, 500.0)
SEEDS = (0, 1)
SIZE = 256
FALSE_STRUCTURE_SIGMAS = 1.5  # cubic upsampling alone fails the bar by far


def blank_field(photons: float, seed: int, size: int = SIZE) -> np.ndarray:
    """A flat background through a camera: counts (size, size)."""
    camera, rng = Camera(), np.random.default_rng(seed)
    electrons = rng.poisson(np.full((size, size), photons)) + rng.normal(
        0, camera.read_noise_e, (size, size)
    )
    return (
        np.round(electrons / camera.gain_e_per_count + camera.offset_counts)
        .clip(0, 65535)
        .astype(np.uint16)
    )


def false_structure(counts: np.ndarray, model: Checkpoint, samples: int) -> float:
    """`standing_out` of the posterior mean."""
    mean = finish(
        ReconstructionRequest(
            image=ImageStack(array=counts, axes="YX", pixel_um=0.0626),
            model=model.card.name,
            samples=samples,
        ),
        model,
    ).mean
    return standing_out(mean, counts)


def standing_out(image: np.ndarray, counts: np.ndarray) -> float:
    """Share of output pixels above the output's median by 1.5 deviations of the input's noise."""
    return float(np.mean(image - np.median(image) > FALSE_STRUCTURE_SIGMAS * counts.std()))


def measure(model: Checkpoint, samples: int = 4, size: int = SIZE) -> list[Row]:
    """One row for each light level, and the worst."""
    shares = {
        level: max(
            false_structure(blank_field(level, seed, size), model, samples) for seed in SEEDS
        )
        for level in PHOTON_LEVELS
    }
    rows = [
        Row(what=f"blank field, {level:g} photons: false structure area", value=f"{share:.3%}")
        for level, share in shares.items()
    ]
    worst = max(shares.values())
    fields = [blank_field(level, 0, size) for level in PHOTON_LEVELS]
    cubic = [
        standing_out(zoom(field.astype(float), 2, order=3, grid_mode=True, mode="nearest"), field)
        for field in fields
    ]
    rows.append(
        Row(
            what="blank fields: the same of cubic upsampling, which does nothing about noise",
            value=f"{max(cubic):.3%}",
        )
    )
    return [
        *rows,
        Row(
            what="blank fields: worst false structure area",
            value=f"{worst:.3%}",
            bar="< 0.1 %",
            met=worst < 1e-3,
        ),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="widefield-x2")
    print_rows("Blank fields", measure(load_model(parser.parse_args().model)))
