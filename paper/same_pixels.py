"""Paths that `paper.speed` and `paper.scale` compare give the same pixels.

Their `--small` prints these rows, and CI holds them.

No clock is in these rows, so they mean the same on every machine.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np

from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.reconstruction import sampling as frame
from paper.measure import Row, finish

SIDE = 96
ROUNDING = 1e-4  # of the range: float32, another order of sums
SEEN_PX = 64  # more than the tiny network sees in two steps


def small_request() -> ReconstructionRequest:
    """Six samples of two steps of a noisy fluorescence image, no multiple of anything."""
    counts = np.random.default_rng(0).poisson(100, (SIDE + 5, SIDE + 34)).astype(np.float32)
    return ReconstructionRequest(
        image=ImageStack(array=counts, axes="YX", pixel_um=0.0626),
        model="tiny",
        samples=6,
        steps=2,
        device="cpu",
        keep_samples=True,
    )


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference over the range."""
    return float(np.abs(one - other).max() / np.ptp(other))


def _row(what: str, difference: float, most: float) -> Row:
    bar = "the same bytes" if most == 0 else f"<= {most:g} of the range"
    return Row(what=what, value=f"{difference:.1e}", bar=bar, met=difference <= most)


def speed_rows(model: Checkpoint) -> list[Row]:
    """Samples together, tiles, and the CPU's batches, against single samples.

    The single samples come one after the other, on the whole image.
    """
    request = small_request()
    with patch.object(frame, "SAMPLES_TOGETHER", 1):
        alone = finish(request, model)
    together, tiled = finish(request, model), finish(replace(request, tile=64), model)
    assert alone.samples is not None and together.samples is not None and tiled.samples is not None
    return [
        _row("samples together and one by one", _difference(together.samples, alone.samples), 0.0),
        _row("their variance", _difference(together.variance, alone.variance), 0.0),
        _row("in tiles of 64 px and whole", _difference(tiled.samples, alone.samples), ROUNDING),
    ]


def scale_rows(model: Checkpoint) -> list[Row]:
    """Blocks against the whole image; a resumed job against one that was not stopped."""
    from napari_cvdm.io.zarr_write import open_level
    from napari_cvdm.out_of_core.job import BlockJob
    from napari_cvdm.out_of_core.run import reconstruct_by_blocks  # zarr and dask

    request = small_request()
    whole = finish(request, model)
    with TemporaryDirectory() as folder:
        jobs = [
            BlockJob(request=request, out=f"{folder}/{name}.ome.zarr", block=64, halo=SEEN_PX)
            for name in ("through", "stopped")
        ]
        steps = reconstruct_by_blocks(jobs[1], model)
        for step in steps:
            if step.stage.startswith("block 3"):
                steps.close()
        for job in jobs:
            for _ in reconstruct_by_blocks(job, model):
                pass
        through, stopped = (
            {name: open_level(Path(job.out), name)[:] for name in ("mean", "std", "samples")}
            for job in jobs
        )
    expected = {"mean": whole.mean, "std": whole.std, "samples": whole.samples}
    rows = [
        _row(
            f"{name}: block by block and whole",
            _difference(through[name], expected[name]),
            ROUNDING,
        )
        for name in through
    ]
    return rows + [
        _row(
            f"{name}: stopped and taken up, and run through",
            _difference(stopped[name], through[name]),
            0.0,
        )
        for name in through
    ]
