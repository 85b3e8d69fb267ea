"""Time against pixels, memory, and what a halo costs.

`python -m paper.scale slope|whole|memory|halo`, or `--small`; small unless told otherwise.

A shipped model is named as for `reconstruct`; `tiny` is a network of almost no cost, with which
reading, writing and bookkeeping are seen, and `tiny-denoise` the same on the grid of the image,
with which an image of any size can be carried out. One image is read from an OME-Zarr, a movie of
planes is made while it is read.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import dask.array as da
import numpy as np
import zarr
from yaozarrs import validate_zarr_store

from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.io.read import open_image
from napari_cvdm.io.zarr_write import Grid, GridImage, create_images, open_level
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from napari_cvdm.out_of_core.job import BlockJob
from napari_cvdm.out_of_core.run import reconstruct_by_blocks
from paper.measure import Row, finish, print_rows, tiny_model
from paper.same_pixels import scale_rows

SLOPE_BAR = 0.07
MEMORY_BAR_GIB = 2.0
PIECE = 1024
TINY = {"tiny": tiny_model, "tiny-denoise": partial(tiny_model, "denoise")}


def model_of(name: str) -> Checkpoint:
    """A shipped model, or one that costs almost nothing."""
    return TINY[name]() if name in TINY else load_model(name)


def counts(*shape: int) -> da.Array:
    """Whole counts around 100, made piece by piece when they are read."""
    chunks = (1,) * (len(shape) - 2) + (min(shape[-1], PIECE),) * 2
    return da.random.default_rng(0).integers(80, 120, shape, dtype=np.uint16, chunks=chunks)


def stored(path: Path, side: int) -> ImageStack:
    """One fluorescence image as a microscope leaves it: written as OME-Zarr, and opened again."""
    grid = Grid(shape=(side, side), chunk=min(side, PIECE), pixel_um=0.0626)
    create_images(path, [GridImage(name="image", dtype="uint16", unit="counts")], grid, {})
    da.store(counts(side, side), open_level(path, "image"), scheduler="synchronous")
    return open_image(path)


def made(model: Checkpoint, side: int) -> ImageStack:
    """The input of the model's task, one fluorescence image or two defocused planes.

    It is made while it is read.
    """
    if model.card.unit == "counts":
        return ImageStack(
            array=counts(side, side), axes="YX", pixel_um=0.0626, source=f"{side} x {side}"
        )
    return ImageStack(
        array=counts(2, side, side), axes="PYX", pixel_um=0.2, source=f"{side} x {side}"
    )


def request_for(
    model: Checkpoint, image: ImageStack, samples: int, steps: int
) -> ReconstructionRequest:
    """A request of the right kind."""
    optics = (
        {}
        if model.card.unit == "counts"
        else {"wavelength_um": 0.55, "medium_index": 1.33, "defocus_um": (-1.0, 1.0)}
    )
    return ReconstructionRequest(
        image=image, model=model.card.name, samples=samples, steps=steps, **optics
    )  # type: ignore[arg-type]


def field(model: Checkpoint, side: int, folder: str) -> ImageStack:
    """What the model's task takes, from a file where it is one image."""
    return (
        stored(Path(folder) / f"{side}.ome.zarr", side)
        if model.card.unit == "counts"
        else made(model, side)
    )


def carried_out(
    model: Checkpoint, side: int, options: argparse.Namespace, blocks: int | None = None
) -> float:
    """Seconds of a job on an image of some side; with `blocks`, of its beginning only."""
    with tempfile.TemporaryDirectory() as folder:
        request = request_for(model, field(model, side, folder), options.samples, options.steps)
        out = f"{folder}/out.ome.zarr"
        steps = reconstruct_by_blocks(
            BlockJob(request=request, out=out, block=options.block, halo=options.halo), model
        )
        started = time.perf_counter()
        for step in steps:
            if (
                blocks is not None
                and step.total > 1
                and step.done >= blocks * options.samples * options.steps
            ):
                steps.close()
        seconds = time.perf_counter() - started
        if blocks is None:
            validate_zarr_store(out)
        return seconds


def slope(model: Checkpoint, options: argparse.Namespace) -> Iterator[Row]:
    """Cost of a megapixel block by block, and the exponent of time in pixels."""
    carried_out(model, options.block, options)  # what is compiled, loaded or cached once
    seconds = {side: carried_out(model, side, options) for side in options.sizes}
    for side, spent in seconds.items():
        each = spent / (side**2 / 1e6) / options.samples
        name = (
            f"{model.card.name}: {side} x {side} px, {options.samples} samples of {options.steps} "
            "steps"
        )
        yield Row(what=name, value=f"{spent:.2f} s, {each:.2f} s/Mpx/sample")
    yield from exponent_rows(model, seconds)


def exponent_rows(model: Checkpoint, seconds: Mapping[int, float]) -> Iterator[Row]:
    """Exponent of time in pixels, by least squares over the logarithms; seconds by side."""
    if len(seconds) < 2:
        return
    exponent = float(np.polyfit(2 * np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])
    yield Row(
        what=f"{model.card.name}: slope of log time against log pixels",
        value=f"{exponent:.3f}",
        bar=f"1.00 +- {SLOPE_BAR}",
        met=abs(exponent - 1) <= SLOPE_BAR,
    )


def whole(model: Checkpoint, options: argparse.Namespace) -> Iterator[Row]:
    """The same in memory, with the inversion, and the largest resident memory above the model.

    The memory of a size shows only if it is larger than that of those before: give them in order.
    """
    seconds, before = {}, 0.0
    for side in (min(options.sizes) // 2, *options.sizes):
        image = made(model, side)
        request = request_for(
            model, replace(image, array=np.asarray(image.array)), options.samples, options.steps
        )
        started = time.perf_counter()
        finish(request, model)
        seconds[side] = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if len(seconds) == 1:  # what is loaded or cached once
            before = peak
            continue
        megapixels = side**2 / 1e6
        yield Row(
            what=f"{model.card.name}: {side} x {side} px, {options.samples} samples of "
            f"{options.steps} steps, in memory",
            value=f"{seconds[side] / megapixels:.2f} s/Mpx, {(peak - before) / megapixels:.2f} "
            "GiB/Mpx",
        )
    yield from exponent_rows(model, {side: seconds[side] for side in options.sizes})


def memory(model: Checkpoint, options: argparse.Namespace) -> Iterator[Row]:
    """Largest resident memory beyond that of the program with its model.

    That is measured after the program has reconstructed one small image.
    """
    carried_out(model, options.block // 4, options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for side in options.sizes:
        spent = carried_out(model, side, options, options.blocks)
        above = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 - before
        part = "all" if options.blocks is None else f"the global statistics and {options.blocks}"
        name = (
            f"{model.card.name}: {side} x {side} px, {part} blocks, {spent:.0f} s: peak memory "
            "above the model"
        )
        yield Row(what=name, value=f"{above:.2f} GiB", bar="< 2 GiB", met=above < MEMORY_BAR_GIB)


def halo(model: Checkpoint, options: argparse.Namespace) -> Iterator[Row]:
    """Difference of a block from the whole image, over the posterior spread, for several halos."""
    side = max(options.sizes)
    with tempfile.TemporaryDirectory() as folder:
        lazy = field(model, side, folder)
        request = request_for(
            model, replace(lazy, array=np.asarray(lazy.array)), options.samples, options.steps
        )
    whole = finish(request, model)
    for pixels in options.halos:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.ome.zarr"
            for _ in reconstruct_by_blocks(
                BlockJob(request=request, out=str(out), block=options.block, halo=pixels), model
            ):
                pass
            difference = np.abs(
                np.asarray(zarr.open_array(str(out / "mean" / "0"), mode="r")) - whole.mean
            )
        share = float(difference.max() / np.median(whole.std))
        root = float(np.sqrt(np.mean(difference**2)) / np.median(whole.std))
        name = (
            f"{model.card.name}: {side} px in blocks of {options.block}, halo {pixels} px: error "
            "of the mean"
        )
        yield Row(what=name, value=f"{root:.1e} (worst {share:.1e}) of std")


MEASURED = {"slope": slope, "whole": whole, "memory": memory, "halo": halo}


def parser() -> argparse.ArgumentParser:
    """Options of the command line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("what", nargs="?", choices=tuple(MEASURED), help="without it: --small")
    made.add_argument(
        "--small",
        action="store_true",
        help="all of them on tiny images, and whether the paths compared give the same pixels",
    )
    made.add_argument("--model", default="tiny")
    made.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    made.add_argument("--samples", type=int, default=1)
    made.add_argument("--steps", type=int, default=1)
    made.add_argument("--block", type=int, default=256)
    made.add_argument("--halo", type=int, default=128)
    made.add_argument("--halos", type=int, nargs="+", default=[64, 128, 192])
    made.add_argument(
        "--blocks",
        type=int,
        help="memory: carry out only so many blocks after the global statistics",
    )
    return made


def small_tables() -> list[Row]:
    """Every table on tiny images; the times in them mean nothing."""
    options = parser().parse_args(
        [
            "--samples",
            "2",
            "--steps",
            "2",
            "--block",
            "64",
            "--halo",
            "64",
            "--halos",
            "64",
            "--sizes",
            "64",
            "128",
        ]
    )
    return [row for measured in MEASURED.values() for row in measured(tiny_model(), options)]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for.

    The status is 1 where paths that must give the same pixels do not.
    """
    chosen = parser().parse_args(argv)
    if chosen.what == "halo" and min(chosen.samples, chosen.steps) < 2:
        parser().error("halo is said in units of the spread: give --samples and --steps 2 or more")
    if chosen.what is not None and not chosen.small:
        print_rows(f"Scale: {chosen.what}", MEASURED[chosen.what](model_of(chosen.model), chosen))
        return 0
    print_rows("Scale, small: the times mean nothing", small_tables())
    same = scale_rows(tiny_model())
    print_rows("Scale: the same pixels", same)
    return int(not all(row.met for row in same))


if __name__ == "__main__":
    raise SystemExit(main())
