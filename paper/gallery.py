"""Every real image of shared/data: input, classical method, mean, uncertainty and truth.

`python -m paper.gallery --out DIR [--only NAME ...]` writes one PNG for each image. A truth is a
sharper or a measured image of the same field, where there is one.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.methods import load_method
from paper.measure import finish
from paper.microlens import measured_planes
from paper.phase_accuracy import cell_parts, solve
from paper.phase_fields import JudgedField, hl60_fields
from paper.super_resolution import RealField, airyscan_fields, dlsim_fields, tsim_fields

SAMPLES = 8
LARGEST_PX = 384  # of a panel, in pixels of the result: the middle of the image
PANEL_INCHES, DOTS_PER_INCH = 3.2, 110
PERCENTILES = (0.5, 99.5)
COLOURS = {"counts": "gray", "rad": "viridis"}
CLASSICAL = {"counts": "richardson-lucy", "rad": "us-tie"}
MODELS = {"counts": "widefield-x2", "rad": "phase-2shot"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exhibit:
    """One image and what was made of it.

    Parameters
    ----------
    name : str
    image : ndarray of shape (Y, X)
        As the camera saw it; the first plane of several.
    classical, found : Reconstruction
    truth : ndarray of shape (Y, X), optional
        In its own units.
    """

    name: str
    image: np.ndarray = field(repr=False)
    classical: Reconstruction
    found: Reconstruction
    truth: np.ndarray | None = field(repr=False)


def microlens_field() -> JudgedField:
    """The array of the US-TIE authors, with their result as the truth."""
    planes, reference = measured_planes()
    microscope = Microscope(pixel_um=0.2325, wavelength_um=0.55, medium_index=1.0)
    return JudgedField(
        name="microlens array",
        planes=planes / np.median(planes),
        phase=reference,
        microscope=microscope,
        defocus_um=(0.0, -1.0),
    )


def real_inputs() -> Iterator[tuple[RealField | JudgedField, np.ndarray | None]]:
    """Every real image with its truth, where there is one."""
    for image in (*tsim_fields(), *dlsim_fields(), *airyscan_fields()):
        yield image, image.truth
    for judged in hl60_fields():
        yield replace(judged, name=f"HL60 {judged.name}, simulated planes"), judged.phase
    lenses = microlens_field()
    yield lenses, lenses.phase
    for judged, _ in cell_parts():
        yield judged, None


def reconstruct_exhibit(one: RealField | JudgedField, truth: np.ndarray | None) -> Exhibit:
    """Both methods on one image."""
    unit = "counts" if isinstance(one, RealField) else "rad"
    classical, model = load_method(CLASSICAL[unit]), load_model(MODELS[unit])
    if isinstance(one, RealField):
        image = one.image
        found = [
            finish(one.request(CLASSICAL[unit], 1), classical),
            finish(one.request(MODELS[unit], SAMPLES), model),
        ]
    else:
        image = one.planes[0]
        found = [solve(one, classical, 1), solve(one, model, SAMPLES)]
    return Exhibit(name=one.name, image=image, classical=found[0], found=found[1], truth=truth)


def draw_exhibit(one: Exhibit) -> Figure:
    """One line of panels; classical method, mean and a truth in radians share their scale."""
    unit = one.found.unit
    results = {CLASSICAL[unit]: one.classical.mean, f"{MODELS[unit]}, mean": one.found.mean}
    if unit == "rad":
        results = {name: image - np.median(image) for name, image in results.items()}
    spread = {f"standard deviation of {SAMPLES} samples [{unit}]": one.found.std}
    truths = {} if one.truth is None else {"truth": one.truth}
    if unit == "rad":
        truths = {name: image - np.median(image) for name, image in truths.items()}
    panels = {"input": one.image} | results | spread | truths
    figure = Figure(
        figsize=(PANEL_INCHES * len(panels), PANEL_INCHES + 0.6),
        dpi=DOTS_PER_INCH,
        layout="constrained",
    )
    shared = results | (truths if unit == "rad" else {})
    low, high = np.percentile([crop_middle(image) for image in shared.values()], PERCENTILES)
    for panel, (name, image) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        seen = crop_middle(image, LARGEST_PX * image.shape[0] // one.found.mean.shape[0])
        limits = (low, high) if name in shared else np.percentile(seen, PERCENTILES)
        colours = "magma" if name in spread else COLOURS[unit] if name in shared else "gray"
        shown = panel.imshow(seen, cmap=colours, vmin=limits[0], vmax=limits[1])
        panel.set(xticks=[], yticks=[])
        panel.set_title(name, fontsize=9)
        panel.figure.colorbar(shown, ax=panel, shrink=0.8, pad=0.02)
    flag = one.found.provenance.quality_flag
    figure.suptitle(f"{one.name}: the quality flag is {flag}", fontsize=11)
    return figure


def crop_middle(image: np.ndarray, largest: int = LARGEST_PX) -> np.ndarray:
    """The middle of an image, at most so many pixels wide."""
    places = ((size - min(size, largest)) // 2 for size in image.shape)
    return image[tuple(slice(place, place + largest) for place in places)]


def main(words: Sequence[str] | None = None) -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[""], help="beginnings of names")
    options = parser.parse_args(words)
    options.out.mkdir(parents=True, exist_ok=True)
    for one, truth in real_inputs():
        if one.name.startswith(tuple(options.only)):
            path = options.out / f"{re.sub(r'[^a-z0-9]+', '-', one.name.lower())}.png"
            draw_exhibit(reconstruct_exhibit(one, truth)).savefig(path)
            print(path, flush=True)


if __name__ == "__main__":
    main()
