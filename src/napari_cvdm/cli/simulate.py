"""``napari-cvdm simulate``: pairs of images and their truth, with the optics behind them."""

import json
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_cvdm.cli import check_inputs_stay, say_done
from napari_cvdm.cli.progress import bar
from napari_cvdm.core.microscope import FEWEST_PLANES
from napari_cvdm.core.request import RequestError
from napari_cvdm.io import output_folder, write_image
from napari_cvdm.simulate.ranges import DenoisingRanges, PhaseRanges, WidefieldRanges
from napari_cvdm.simulate.scenes import (
    DefocusPair,
    WidefieldPair,
    simulate_fluorescence,
    simulate_phase,
)
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.sources import solve_missing

OPTICS = "optics.json"
RANGES: Mapping[str, type[PhaseRanges] | type[WidefieldRanges]] = {
    "phase": PhaseRanges,
    "widefield": WidefieldRanges,
    "denoising": DenoisingRanges,
}
LARGEST_COUNT = 100_000  # the names have five digits


def run_simulate(arguments: Namespace) -> None:
    """Carry out the command; the output folder is not made where the input is bad."""
    if not 1 <= arguments.count <= LARGEST_COUNT:
        raise RequestError(
            f"count is {arguments.count}; allowed is 1 to {LARGEST_COUNT}. Several folders hold "
            "more."
        )
    if arguments.seed < 0:
        raise RequestError(
            f"seed is {arguments.seed}; allowed are whole numbers from 0. Any will do."
        )
    check_inputs_stay(arguments, [] if arguments.recipe is None else [arguments.recipe])
    ranges = ranges_of(arguments)
    if arguments.solved:
        # No new folder: fields that an earlier run left there are kept.
        out, numbers = Path(arguments.out), range(arguments.count)
        with bar("inverting", total=arguments.count) as shown:
            for _ in solve_missing(out, ranges, arguments.seed, numbers):
                shown.update()
        say_done(f"{arguments.out}: {arguments.count} solved fields")
        return
    with (
        output_folder(arguments.out, arguments.overwrite, sign=OPTICS) as folder,
        bar("simulating", total=arguments.count) as shown,
    ):
        records = []
        for index in range(arguments.count):
            records.append(write_pair(folder, f"{index:05d}", arguments.seed + index, ranges))
            shown.update()
        record = {"kind": arguments.kind, "recipe": arguments.recipe}
        record |= {"ranges": asdict(ranges), "pairs": records}
        (folder / OPTICS).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    say_done(f"{arguments.out}: {arguments.count} pairs and {OPTICS}")


def ranges_of(arguments: Namespace) -> PhaseRanges | WidefieldRanges:
    """The ranges of the recipe that was named, or those by default.

    RequestError where the recipe cannot be read, or is for the other kind.
    """
    kind = RANGES[arguments.kind]
    if arguments.recipe is None:
        return kind()
    recipe = read_recipe(arguments.recipe)
    # The ranges of denoising are a subclass of those of widefield, hence no isinstance.
    if recipe.simulation is None or type(recipe.simulation) is not kind:
        raise RequestError(
            f"{arguments.recipe} is a recipe for {recipe.task}, not for {arguments.kind}; give the "
            "other kind, or another recipe."
        )
    return recipe.simulation


def write_pair(
    folder: Path, name: str, seed: int, ranges: PhaseRanges | WidefieldRanges
) -> dict[str, Any]:
    """Write an image and its truth to files that begin with `name`; return how they were made.

    A phase has planes (over their blank-field intensity) and the phase [rad]. A fluorescence image
    has counts, and its truth [counts] is on a grid as fine or finer.
    """
    if isinstance(ranges, PhaseRanges):
        optics = _write_phase(folder, name, simulate_phase(seed, ranges))
    else:
        optics = _write_fluorescence(folder, name, simulate_fluorescence(seed, ranges))
    return {"name": name, "seed": seed, **optics}


def _write_phase(folder: Path, name: str, pair: DefocusPair) -> dict[str, Any]:
    pixel_um, positions = pair.microscope.pixel_um, pair.defocus_um
    # A file has one z step. It is left out for more than two planes, whose steps differ.
    step = positions[1] - positions[0] if len(positions) == FEWEST_PLANES else None
    planes, truth = (folder / f"{name}-{role}.ome.tif" for role in ("planes", "truth"))
    place: dict[str, Any] = {"axes": "PYX", "pixel_um": pixel_um, "z_step_um": step}
    write_image(planes, pair.planes, unit="I/I_background", name="planes", **place)
    write_image(truth, pair.phase, axes="YX", pixel_um=pixel_um, unit="rad", name="phase")
    return {
        "microscope": asdict(pair.microscope),
        "defocus_um": list(positions),
        "condenser_na": pair.condenser_na,
    }


def _write_fluorescence(folder: Path, name: str, pair: WidefieldPair) -> dict[str, Any]:
    pixel_um, finer = pair.microscope.pixel_um, pair.truth.shape[-1] // pair.counts.shape[-1]
    # The outer edges of both grids coincide, so the first finer pixel lies before the coarse one.
    shift = -(finer - 1) / (2 * finer) * pixel_um
    image, truth = (folder / f"{name}-{role}.ome.tif" for role in ("image", "truth"))
    place: dict[str, Any] = {"pixel_um": pixel_um / finer, "offset_um": (shift, shift)}
    write_image(image, pair.counts, axes="YX", pixel_um=pixel_um, unit="counts", name="image")
    write_image(truth, pair.truth, axes="YX", unit="counts", name="truth", **place)
    return {"microscope": asdict(pair.microscope), "camera": asdict(pair.camera)}
