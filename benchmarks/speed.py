"""One 256 x 256 sample in ten steps, model loaded: `python -m benchmarks.speed`. Seconds of this machine, and ratios."""

import argparse
import statistics
import time

import numpy as np
import torch

from benchmarks.measure import Row, finish, print_rows
from napari_cvdm.model.checkpoint import Checkpoint
from napari_cvdm.model.zoo import load_model
from napari_cvdm.request import ImageStack, RestoreRequest

SIZE, STEPS, REPEATS = 256, 10, 5


def request_for(model: Checkpoint) -> RestoreRequest:
    """A noisy image of the right kind."""
    rng = np.random.default_rng(0)
    if model.card.task == "phase-2shot":
        image = ImageStack(array=1 + 0.05 * rng.standard_normal((2, SIZE, SIZE)), axes="PYX", pixel_um=0.2)
        return RestoreRequest(image=image, model=model.card.name, samples=1, steps=STEPS, wavelength_um=0.55, medium_index=1.33, defocus_um=(-1, 1))
    image = ImageStack(array=rng.poisson(100, (SIZE, SIZE)).astype(np.float32), axes="YX", pixel_um=0.0626)
    return RestoreRequest(image=image, model=model.card.name, samples=1, steps=STEPS)


def seconds(model: Checkpoint) -> list[float]:
    """Wall seconds of each repeat, after one to warm up."""
    request, times = request_for(model), []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        finish(request, model)
        times.append(time.perf_counter() - start)
    return times[1:]


def measure(model: Checkpoint) -> list[Row]:
    """Median and spread."""
    times = seconds(model)
    median = statistics.median(times)
    spread = f"{median:.2f} s ({min(times):.2f} to {max(times):.2f})"
    name = f"{model.card.name}: {SIZE} x {SIZE} input, 1 sample, {STEPS} steps, {torch.get_num_threads()} threads"
    return [Row(what=name, value=spread, bar="< 1 s on 2 cores", met=median < 1.0)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append")
    for chosen in parser.parse_args().model or ["phase-2shot", "widefield-x2"]:
        print_rows("Speed", measure(load_model(chosen)))
