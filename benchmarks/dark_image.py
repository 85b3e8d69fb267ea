"""What a dark image is worth to super-resolution: `python -m benchmarks.dark_image [--fields N]`.

Simulated fields that nobody trained on, each restored with the dark level guessed (background auto), with the camera's dark image given, and with that image
already subtracted (background none): error over the truth's deviation, flux over the true flux, chi-squared of the check, and the lights.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from benchmarks.familiarity import ranges_of
from benchmarks.measure import Row, finish, print_rows
from napari_cvdm.checks.quality_flag import Colour
from napari_cvdm.core.request import ImageStack, RestoreRequest
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from napari_cvdm.simulate.samples import WIDEFIELD_RANGES
from napari_cvdm.simulate.widefield import WidefieldPair, WidefieldRanges, simulate_widefield

FIRST_SEED = 9_100_000
FIELDS, FIELD_PX, BORDER_PX = 10, 96, 16
BRIGHT_PHOTONS = (300.0, 3000.0)
SAMPLES, STEPS = 2, 6
WAYS = ("dark level guessed", "dark image given", "dark image subtracted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Error over the truth's deviation, flux over the true one, chi-squared, colour of the light."""

    error: float
    flux: float
    chi2: float
    light: str


def request_of(pair: WidefieldPair, way: str) -> RestoreRequest:
    """A request for a field, in one of `WAYS`."""
    seen = pair.microscope
    dark = np.full(pair.counts.shape, pair.camera.offset_counts, np.float32)
    pixels = pair.counts - dark if way == WAYS[2] else pair.counts
    background = {WAYS[0]: "auto", WAYS[1]: dark, WAYS[2]: "none"}[way]
    optics = {
        name: getattr(seen, name) for name in ("pixel_um", "wavelength_um", "medium_index", "na")
    }
    image = ImageStack(array=pixels, axes="YX", source="simulated field")
    return RestoreRequest(
        image=image,
        model="widefield-x2",
        background=background,
        samples=SAMPLES,
        steps=STEPS,
        device="cpu",
        **optics,
    )  # type: ignore[arg-type]


def inner(image: np.ndarray) -> np.ndarray:
    """Away from the border, float64."""
    return image[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX].astype(np.float64)


def outcome(pair: WidefieldPair, way: str, model: Checkpoint) -> Outcome:
    """One field restored in one way, away from the border."""
    result = finish(request_of(pair, way), model)
    found, truth = inner(result.mean), inner(pair.truth)
    chi2 = np.nan if result.forward is None or result.forward.chi2 is None else result.forward.chi2
    error, flux = np.sqrt(np.mean((found - truth) ** 2)) / truth.std(), found.sum() / truth.sum()
    return Outcome(error=float(error), flux=float(flux), chi2=chi2, light=result.provenance.light)


def rows_of(what: str, ranges: WidefieldRanges, fields: int, model: Checkpoint) -> list[Row]:
    """Medians over the fields with any structure for each way, and the lights."""
    pairs = [
        pair
        for number in range(fields)
        if inner((pair := simulate_widefield(FIRST_SEED + number, ranges)).truth).any()
    ]
    rows = []
    for way in WAYS:
        found = [outcome(pair, way, model) for pair in pairs]
        medians = ", ".join(
            f"{np.median([getattr(one, name) for one in found]):.2f}"
            for name in ("error", "flux", "chi2")
        )
        lights = ", ".join(
            str(sum(one.light == colour for one in found)) for colour in get_args(Colour)
        )
        rows.append(
            Row(
                what=f"{what}, {way}: error, flux, chi-squared; green, amber, red",
                value=f"{medians}; {lights}",
            )
        )
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fields", type=int, default=FIELDS)
    parser.add_argument("--model", default="widefield-x2")
    given = parser.parse_args(words)
    model = load_model(given.model)
    trained = replace(WidefieldRanges(**ranges_of(model.card)), field_px=FIELD_PX)
    kinds = {
        "like the samples": replace(WIDEFIELD_RANGES, field_px=FIELD_PX),
        "trained ranges": trained,
        "bright": replace(trained, photons=BRIGHT_PHOTONS),
    }
    for what, ranges in kinds.items():
        print_rows(
            f"{what}: medians over {given.fields} fields, less those without structure",
            rows_of(what, ranges, given.fields, model),
        )


if __name__ == "__main__":
    main()
