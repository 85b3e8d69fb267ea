"""Where the time of a reconstruction goes: `python -m benchmarks.profile`.

One reconstruction of each shipped model in processor time, first by stage, then by kind of operation: tables of Markdown. Shares hold on other machines
better than seconds do.
"""

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable, Sequence

from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import finish
from benchmarks.speed import SAMPLES, SIZE, request_of_output
from napari_cvdm.model.checkpoint import Checkpoint
from napari_cvdm.model.zoo import load_model
from napari_cvdm.request import RestoreRequest

STAGES = {  # of a run, by file and function; none of them is called by another
    "the network onto the device, a copy of its own": (("tiled.py", "placed"),),
    "background, US-TIE or intensity scale": (("conditioned.py", "from_request"), ("phase.py", "from_request"), ("widefield.py", "from_request")),
    "mean network and rate map, once for an image": (("frame.py", "begin"),),
    "noise level of the denoiser, once for samples that go together": (("unet.py", "modulations"),),
    "the denoiser itself": (("cvdm.py", "_through"),),
    "noise, keyed to pixels": (("frame.py", "_noise"),),
    "decoding, units and moments": (("frame.py", "image"), ("posterior.py", "add")),
}
KINDS = {
    "convolutions": ("conv",),
    "activations": ("silu", "sigmoid"),
    "exponentials, roots, sines": ("exp", "log", "sqrt", "sin", "cos", "softplus"),
    "sums and products": ("add", "mul", "sub", "div", "neg", "pow", "clamp"),
    "folding, joining, copying": ("pixel", "cat", "copy", "contiguous", "resize", "empty", "fill", "zero"),
    "Fourier transforms": ("fft",),
    "pooling": ("pool",),
}
REST = "the rest"


def stage_seconds(work: Callable[[], object]) -> tuple[float, dict[str, float]]:
    """Processor seconds of some work, and of each stage in it, by Python's own profiler."""
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(work)
    found = pstats.Stats(profiler)
    places = found.stats.items()  # type: ignore[attr-defined]  # typeshed does not know it

    def seconds(file: str, function: str) -> float:
        # A function that calls itself is counted once: its cumulative time is that of the outermost calls.
        return sum(row[3] for (path, _, name), row in places if path.endswith(f"/{file}") and name == function)

    stages = {stage: sum(seconds(*place) for place in named) for stage, named in STAGES.items()}
    whole = float(found.total_tt)  # type: ignore[attr-defined]
    once = "mean network and rate map, once for an image"
    stages["sampler's update, schedule of each step, and the rest"] = whole - sum(stages.values())
    return whole, {stage: spent for stage, spent in stages.items() if spent > 0 or stage == once}


def kind_seconds(work: Callable[[], object]) -> dict[str, float]:
    """Processor seconds inside torch, by kind of operation."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    kinds = dict.fromkeys((*KINDS, REST), 0.0)
    for event in profiled.key_averages():
        name = event.key.removeprefix("aten::").lstrip("_")
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), REST)
        kinds[kind] += event.self_cpu_time_total / 1e6
    return kinds


def print_table(title: str, seconds: dict[str, float], whole: float) -> None:
    """Shares in Markdown, the largest first."""
    print(f"\n| {title} | share | s |\n|---|---|---|")
    for name, spent in sorted(seconds.items(), key=lambda entry: -entry[1]):
        if spent / whole >= 0.001:
            print(f"| {name} | {spent / whole:.1%} | {spent:.2f} |")


def print_profile(model: Checkpoint, request: RestoreRequest) -> None:
    """Both tables of one model."""

    def work() -> object:
        return finish(request, model)

    work()
    whole, stages = stage_seconds(work)
    shape = " x ".join(map(str, request.image.array.shape[-2:]))
    print(f"\n{model.card.name}, input {shape}, {request.samples} samples of {request.steps} evaluations: {whole:.2f} s of processor time")
    print_table("stage", stages, whole)
    kinds = kind_seconds(work)
    print_table("operation", kinds, sum(kinds.values()))


def main(argv: Sequence[str] | None = None) -> None:
    """Profile what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", help="default: both shipped ones")
    parser.add_argument("--size", type=int, default=SIZE, help="side of the output [px]")
    given = parser.parse_args(argv)
    for name in given.model or ["phase-2shot", "widefield-x2"]:
        model = load_model(name)
        print_profile(model, request_of_output(model, given.size, SAMPLES))


if __name__ == "__main__":
    main()
