"""What a screen of many images costs on one worker and on fifty, and what would bend first: `python -m benchmarks.screen [--model NAME] [--images N]`.

Measured here, in seconds: the processor time of an image of each side on one thread, so that a straight line gives the cost of an image and of its
megapixels; the model's loading; a task that does nothing, through a scheduler of dask; a megabyte of result, made into a TIFF, and on the disk that all share
(here the local one; a network's is another). From these follows how long each part of the machinery would be at work for the whole screen. The slowest of
them is the time that the screen takes, since they work at the same time.

No GPU was at hand where this was written: `--faster K` says how many times faster than one thread of this machine a worker computes.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from distributed import Client, LocalCluster, wait

from benchmarks.measure import Row, finish, print_rows
from benchmarks.scale import made, request_for
from napari_cvdm.cli.results import write_images
from napari_cvdm.core.request import STEPS
from napari_cvdm.core.result import Restoration
from napari_cvdm.models.checkpoint import Checkpoint, load_checkpoint
from napari_cvdm.models.registry import load_model, model_folder

SIDES = (128, 192, 256)
TASKS = 2000
WORKERS = (1, 50)
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds, as measured.

    Parameters
    ----------
    image, megapixel : float
        Of computing: for each image whatever its size, and for each megapixel of input.
    load : float
        Of the model, once for a worker.
    task : float
        Of the scheduler, for a task that does nothing.
    encoded_mb : float
        Of a worker, for a megabyte of result: making a TIFF of it, and handing it to the system.
    written_mb : float
        Of the disk that all share, for a megabyte of result, until it is there.
    megabytes : float
        Of the result, for a megapixel of input.
    """

    image: float
    megapixel: float
    load: float
    task: float
    encoded_mb: float
    written_mb: float
    megabytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """Seconds that each part is at work for a screen; they work at the same time.

    Parameters
    ----------
    computing : float
        Of the workers, with the loading of the model.
    scheduling : float
        Of the one scheduler.
    writing : float
        Of the one disk.
    """

    computing: float
    scheduling: float
    writing: float

    @property
    def total(self) -> float:
        """The slowest part."""
        return max(self.computing, self.scheduling, self.writing)

    @property
    def bends(self) -> str:
        """The name of that part."""
        return max(("computing", "scheduling", "writing"), key=lambda name: getattr(self, name))


def screen_of(
    costs: Costs, images: int, megapixels: float, workers: int, faster: float = 1.0
) -> Screen:
    """A screen of so many images on so many workers, each so many times faster than one thread here; an image is one task."""
    rounds = -(-images // workers)
    each = (
        costs.image + costs.megapixel * megapixels
    ) / faster + megapixels * costs.megabytes * costs.encoded_mb
    return Screen(
        computing=costs.load + rounds * each,
        scheduling=images * costs.task,
        writing=images * megapixels * costs.megabytes * costs.written_mb,
    )


def clocked(work: Callable[[], object]) -> float:
    """Seconds of one call, wall time."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measured_costs(
    model: Checkpoint,
    folder: Path,
    samples: int,
    steps: int,
    sides: Sequence[int] = SIDES,
    tasks: int = TASKS,
) -> Costs:
    """Measure all of it on this machine; `folder` is that of the model."""
    seconds = []
    for side in sides:
        started = time.process_time()
        result = finish(request_for(model, made(model, side), samples, steps), model)
        seconds.append(time.process_time() - started)
    slope, offset = np.polyfit([side**2 / 1e6 for side in sides], seconds, 1)
    encoding, megabytes = written(result)
    return Costs(
        image=max(0.0, float(offset)),
        megapixel=float(slope),
        load=clocked(lambda: load_checkpoint(folder)),
        task=scheduler_seconds(tasks),
        encoded_mb=encoding / megabytes,
        written_mb=disk_seconds(megabytes) / megabytes,
        megabytes=megabytes / (sides[-1] ** 2 / 1e6),
    )


def written(result: Restoration) -> tuple[float, float]:
    """Seconds and megabytes of a result folder's images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = clocked(lambda: write_images(folder, result, {}))
        return seconds, sum(
            path.stat().st_size for path in folder.rglob("*") if path.is_file()
        ) / 1e6


def disk_seconds(megabytes: float) -> float:
    """Seconds until so many megabytes are on the disk."""
    with tempfile.NamedTemporaryFile() as file:

        def work() -> None:
            file.write(np.random.default_rng(0).bytes(int(megabytes * 1e6)))
            file.flush()
            os.fsync(file.fileno())

        return clocked(work)


def scheduler_seconds(tasks: int) -> float:
    """Seconds of dask's scheduler and one worker for a task that does nothing."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        return clocked(lambda: wait(client.map(_nothing, range(tasks), pure=False))) / tasks


def _nothing(number: int) -> int:
    return number


def rows_of(costs: Costs, images: int, megapixels: float, faster: float) -> list[Row]:
    """What was measured, and the screens that follow."""
    rows = [
        Row(
            what="computing, one thread here",
            value=f"{costs.image:.2f} s for an image + {costs.megapixel:.1f} s for a megapixel",
        ),
        Row(what="loading the model, once for a worker", value=f"{costs.load:.2f} s"),
        Row(what="a task through the scheduler", value=f"{1e3 * costs.task:.2f} ms"),
        Row(what="the result, for a megapixel of input", value=f"{costs.megabytes:.0f} MB"),
        Row(what="writing one MB: a worker", value=f"{1e3 * costs.encoded_mb:.1f} ms"),
        Row(what="writing one MB: the disk", value=f"{1e3 * costs.written_mb:.1f} ms"),
    ]
    for workers in WORKERS:
        one = screen_of(costs, images, megapixels, workers, faster)
        parts = f"computing {one.computing / HOUR_S:.2f}, scheduling {one.scheduling / HOUR_S:.3f}, writing {one.writing / HOUR_S:.2f}"
        what = f"{images} images of {megapixels:g} Mpx, {workers} worker(s), each {faster:g} x one thread here"
        rows.append(
            Row(what=what, value=f"{one.total / HOUR_S:.2f} h ({parts}); {one.bends} sets the time")
        )
    return [
        *rows,
        Row(
            what="workers beyond which another part sets the time",
            value=f"{most_workers(costs, images, megapixels, faster):.0f}",
        ),
    ]


def most_workers(costs: Costs, images: int, megapixels: float, faster: float) -> float:
    """Computing of one worker over the slower of scheduling and writing."""
    alone = screen_of(costs, images, megapixels, 1, faster)
    return alone.computing / max(alone.scheduling, alone.writing)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--model", default="widefield-x2")
    made.add_argument("--images", type=int, default=10_000)
    made.add_argument(
        "--megapixels", type=float, default=4.2, help="of an image: 2048 x 2048 by default"
    )
    made.add_argument("--samples", type=int, default=8)
    made.add_argument("--steps", type=int, default=STEPS)
    made.add_argument("--faster", type=float, nargs="+", default=[1.0, 100.0])
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the screens."""
    options = parser().parse_args(argv)
    torch.set_num_threads(1)
    costs = measured_costs(
        load_model(options.model), model_folder(options.model), options.samples, options.steps
    )
    for faster in options.faster:
        print_rows(
            f"A screen, {options.model}, {options.samples} samples of {options.steps} evaluations",
            rows_of(costs, options.images, options.megapixels, faster),
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
