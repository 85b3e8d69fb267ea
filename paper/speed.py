"""How fast, in ratios that one run measures side by side: `python -m paper.speed`.

Time of a sample of 256 x 256 pixels against the published procedure; the shares of physics and
network; what sampling costs beside the network; the network against the rate of a matrix product;
16 samples of 512 x 512 pixels. Medians over turns, so that what else the machine does falls on both
sides; in brackets the interquartile range. Processor time is what counts on a shared machine: it is
that of all threads. Start-up is measured by `paper.startup`. `--small` runs everything on tiny
images and compares pixels. `python -m paper.speed --compare A B` times two commits.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import tifffile
import torch
from scipy.ndimage import gaussian_filter
from torch.utils.flop_counter import FlopCounterMode

from napari_cvdm.core.device import autocast
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import Reconstruction, finished
from napari_cvdm.core.statistics import RunningMoments
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.models.registry import load_model
from napari_cvdm.models.tiled import network_on
from napari_cvdm.reconstruction.cost import BenchmarkTile
from napari_cvdm.reconstruction.plan import resolve
from napari_cvdm.reconstruction.sampling import FrameIndex, FrameSampler, sample_frame
from napari_cvdm.tasks import TASKS
from paper.clocks import ROUNDS, Work, by_turns
from paper.measure import Row, finish, print_rows, tiny_model
from paper.published import STEPS as PUBLISHED_STEPS
from paper.published import Published, published_sample
from paper.same_pixels import speed_rows

SIZE, SAMPLES, LARGE_SAMPLES = 256, 5, 16
SMALL_SIZE, MATRIX = 64, 1024
INTERACTIVE_S, CORES = 12.0, 2  # seconds with the inversion, which was no part of 0.1.0
STAGE_SAMPLES, EVEN_SAMPLES = (1, 8, 16), 8
CPU = torch.device("cpu")


def request_for(
    model: Checkpoint, side: int = SIZE, samples: int = 1, **choices: object
) -> ReconstructionRequest:
    """A noisy image of the right kind, of `side` x `side` pixels."""
    rng = np.random.default_rng(0)
    if TASKS[model.card.task].planes == 2:
        image = ImageStack(
            array=1 + 0.05 * rng.standard_normal((2, side, side)), axes="PYX", pixel_um=0.2
        )
        choices |= {"wavelength_um": 0.55, "medium_index": 1.33, "defocus_um": (-1.0, 1.0)}
    else:
        image = ImageStack(
            array=rng.poisson(100, (side, side)).astype(np.float32), axes="YX", pixel_um=0.0626
        )
    return ReconstructionRequest(image=image, model=model.card.name, samples=samples, **choices)  # type: ignore[arg-type]


def request_of_output(
    model: Checkpoint, size: int, samples: int, **choices: object
) -> ReconstructionRequest:
    """The same, so that the output has `size` x `size` pixels."""
    return request_for(model, size // TASKS[model.card.task].upsampling, samples, **choices)


def one_rows(model: Checkpoint, size: int, rounds: int, **choices: object) -> list[Row]:
    """One sample of an input of that size with a loaded model.

    It uses as many threads as the bar has cores.
    """
    request, threads = request_for(model, size, **choices), torch.get_num_threads()
    torch.set_num_threads(CORES)
    (timed,) = by_turns([lambda: finish(request, model)], rounds)
    torch.set_num_threads(threads)
    name = (
        f"{model.card.name}: {size} x {size} input, 1 sample, {request.steps} steps, {CORES} "
        "threads"
    )
    return [
        Row(
            what=name,
            value=str(timed),
            bar=f"< 1 s on {CORES} cores",
            met=timed.processor.median / CORES < 1.0,
        )
    ]


def published_step(size: int) -> Work:
    """One step of the published procedure: schedule and noise network, once each."""
    model, condition = Published.build(), torch.randn(1, 2, size, size)
    return lambda: list(published_sample(model, condition, 1))


def begin_frame(request: ReconstructionRequest, model: Checkpoint) -> FrameSampler:
    """What samples are drawn with, after the physics of the only frame was inverted."""
    task = TASKS[model.card.task]
    plan = resolve(request, task)
    prepared = finished(task.prepare(plan.image.frame(()), plan))
    network = network_on(model.network, CPU)
    return finished(FrameSampler.begin(plan, network, prepared, FrameIndex((), 0, 1)))


def draw_samples(frame: FrameSampler) -> None:
    """Draw all samples of a frame."""
    empty = np.zeros(frame.rate.shape[-2:], np.float32)
    for _ in sample_frame(frame, RunningMoments(empty, empty)):
        pass


def ratio_rows(model: Checkpoint, size: int, rounds: int, **choices: object) -> list[Row]:
    """A sample against the published procedure, which is extrapolated from one step."""
    request = request_of_output(model, size, LARGE_SAMPLES, **choices)
    frame = begin_frame(request, model)
    step, whole, sampling = by_turns(
        [published_step(size), lambda: finish(request, model), lambda: draw_samples(frame)], rounds
    )
    name = (
        f"{model.card.name}, {size} x {size}, {request.steps} evaluations of {request.sampler}, "
        f"{request.precision}, {request.samples} samples"
    )
    rows = [Row(what=f"published: one of {PUBLISHED_STEPS} steps", value=str(step))]
    for part, ours, bar in (
        ("everything, the inversion too", whole, 500),
        ("sampling alone", sampling, 1000),
    ):
        ratios = [
            PUBLISHED_STEPS * one.median / (other.median / request.samples)
            for one, other in ((step.processor, ours.processor), (step.wall, ours.wall))
        ]
        rows += [
            Row(what=f"{name}: {part}", value=str(ours)),
            Row(
                what=f"published sample / ours, {part}, processor (wall)",
                value=f"{ratios[0]:.0f} ({ratios[1]:.0f})",
                bar=f">= {bar}",
                met=ratios[0] >= bar,
            ),
        ]
    return rows


def stage_rows(model: Checkpoint, size: int, rounds: int, **choices: object) -> list[Row]:
    """Which share of a run the physics, the network and all the rest have."""
    task, rows = TASKS[model.card.task], []
    for samples in STAGE_SAMPLES:
        request = request_of_output(model, size, samples, **choices)
        plan, frame = resolve(request, task), begin_frame(request, model)
        whole, physics, network = (
            timed.processor.median
            for timed in by_turns(
                [
                    partial(finish, request, model),
                    lambda plan=plan: finished(task.prepare(plan.image.frame(()), plan)),  # type: ignore[misc]
                    partial(draw_samples, frame),
                ],
                rounds,
            )
        )
        asked = samples == EVEN_SAMPLES
        rows.append(
            Row(
                what=f"{model.card.name}, {size} x {size}, {samples} samples: physics, network",
                value=f"{physics / whole:.0%}, {network / whole:.0%} of {whole:.2f} s",
                bar="physics <= 50 %" if asked else "",
                met=physics <= whole / 2 if asked else None,
            )
        )
    return rows


def overhead(
    model: Checkpoint,
    size: int = SIZE,
    samples: int = SAMPLES,
    rounds: int = ROUNDS,
    **choices: object,
) -> float:
    """Processor time of sampling over that of the bare evaluations of the network in it, less 1.

    The bare evaluations are as many, in the same groups, the first one for all samples; sampling
    adds the schedule, the noise, the sampler's update, decoding and the moments.
    """
    request = request_of_output(model, size, samples, **choices)
    frame = begin_frame(request, model)
    first, *neg_log_gammas = [frame.rate * clock for clock in frame.clock_values()]
    groups = [frame.rate.expand(len(group), -1, -1, -1).contiguous() for group in frame.groups(0)]

    @torch.inference_mode()
    def bare() -> None:
        with autocast(CPU, frame.plan.precision):
            finished(frame.tiled.clean(frame.rate, first, frame.first_layer_features))
            for noisy, neg_log_gamma in product(groups, neg_log_gammas):
                finished(frame.tiled.clean(noisy, neg_log_gamma, frame.first_layer_features))

    network, whole = by_turns([bare, partial(draw_samples, frame)], rounds)
    return whole.processor.median / network.processor.median - 1


def overhead_rows(model: Checkpoint, size: int, rounds: int, **choices: object) -> list[Row]:
    """What sampling adds to the network."""
    found = overhead(model, size, rounds=rounds, **choices)  # type: ignore[arg-type]
    return [
        Row(
            what=f"{model.card.name}: sampling over the bare evaluations",
            value=f"{found:+.1%}",
            bar="<= 5 %",
            met=found <= 0.05,
        )
    ]


def evaluation(
    model: Checkpoint,
    size: int,
    precision: str = "fp32",
    change: Callable[[CVDM], CVDM] = lambda network: network,
) -> Callable[[], torch.Tensor]:
    """One evaluation of the denoiser for an output of `size` x `size` pixels, ready to be timed."""
    side = size // model.card.config().upsampling
    return partial(
        BenchmarkTile(change(network_on(model.network, CPU)), (side, side)).step, precision
    )


def rate_rows(model: Checkpoint, size: int, rounds: int, **_: object) -> list[Row]:
    """Operations per second of one evaluation, against a product of two matrices.

    Both use the same threads; it is measured in both precisions.
    """
    rows = []
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        evaluate = evaluation(model, size, precision)
        with FlopCounterMode(display=False) as counted:
            evaluate()
        one, other = (
            torch.randn(MATRIX, MATRIX, dtype=kind),
            torch.randn(MATRIX, MATRIX, dtype=kind),
        )
        network, matrices = by_turns([evaluate, partial(torch.matmul, one, other)], 3 * rounds)
        operations = counted.get_total_flops()
        reached, possible = (
            operations / network.processor.median,
            2 * MATRIX**3 / matrices.processor.median,
        )
        share, asked = reached / possible, precision == "fp32"
        rows += [
            Row(
                what=(
                    f"{model.card.name}, {precision}: one evaluation, {operations / 1e9:.2f} GFLOP"
                ),
                value=str(network),
            ),
            Row(
                what="network / product of two matrices, for each thread",
                value=f"{reached / 1e9:.0f} / {possible / 1e9:.0f} GFLOP/s, {share:.0%}",
                bar=">= 50 %" if asked else "",
                met=share >= 0.5 if asked else None,
            ),
        ]
    return rows


def precision_rows(model: Checkpoint, size: int, rounds: int, **_: object) -> list[Row]:
    """What bf16 saves here, and how far it moves the samples."""
    exact, narrow = (
        request_of_output(model, size, SAMPLES, keep_samples=True, precision=precision)
        for precision in ("fp32", "bf16")
    )
    one, other = finish(exact, model), finish(narrow, model)
    timed = by_turns([lambda: finish(exact, model), lambda: finish(narrow, model)], rounds)
    faster = timed[0].processor.median / timed[1].processor.median
    return [
        Row(
            what=f"{model.card.name}: a reconstruction in fp32 / in bf16",
            value=f"{faster:.2f} x faster",
        ),
        Row(
            what="samples in bf16 less those in fp32, root mean square",
            value=f"{_apart(other, one):.2%} of the spread",
        ),
    ]


def tile_rows(model: Checkpoint, size: int, rounds: int, **_: object) -> list[Row]:
    """How far tiles move the samples of an image of twice the side, in each precision."""
    side, rows = size // TASKS[model.card.task].upsampling, []
    for precision in ("fp32", "bf16"):
        whole = request_of_output(model, 2 * size, 2, keep_samples=True, precision=precision)
        moved = _apart(finish(replace(whole, tile=side), model), finish(whole, model))
        name = (
            f"{model.card.name}, {precision}: samples in four tiles less those in one, root mean "
            "square"
        )
        rows.append(Row(what=name, value=f"{moved:.1e} of the spread"))
    return rows


def _apart(one: Reconstruction, other: Reconstruction) -> float:
    """Root mean square difference of two results' samples, over the spread of the second."""
    assert one.samples is not None and other.samples is not None
    return float(np.sqrt(np.mean((one.samples - other.samples) ** 2) / other.variance.mean()))


def compile_rows(model: Checkpoint, size: int, rounds: int, **_: object) -> list[Row]:
    """torch.compile of the denoiser, with the time to compile it.

    It takes long, so it is not part of a plain run.
    """
    plain = evaluation(model, size)
    network = deepcopy(network_on(model.network, CPU))
    network.output = torch.compile(network.output)  # type: ignore[method-assign]
    compiled = evaluation(model, size, change=lambda _: network)
    began, used = time.perf_counter(), time.process_time()
    compiled()
    wall, processor = time.perf_counter() - began, time.process_time() - used
    one, other = by_turns([plain, compiled], rounds)
    ratio = one.processor.median / other.processor.median
    return [
        Row(
            what=f"{model.card.name}: one evaluation, as it is / compiled",
            value=f"{ratio:.2f} x faster",
        ),
        Row(
            what="the first compiled evaluation",
            value=f"{processor:.0f} s processor, {wall:.0f} s wall",
        ),
    ]


def large_rows(model: Checkpoint, size: int, rounds: int, **choices: object) -> list[Row]:
    """Sixteen samples of four times as many pixels.

    They are in fp32 and in the faster precision here, unless one is asked for.
    """
    asked = [choices["precision"]] if "precision" in choices else ["fp32", "auto"]
    return [
        _large_row(
            model,
            request_of_output(
                model, 2 * size, LARGE_SAMPLES, **{**choices, "precision": precision}
            ),
        )
        for precision in asked
    ]


def _large_row(model: Checkpoint, request: ReconstructionRequest) -> Row:
    """Run once: the time on two free cores is the processor time over two.

    The measurement of ``auto`` is part of that time.
    """
    began, used = time.perf_counter(), time.process_time()
    result = finish(request, model)
    wall, processor = time.perf_counter() - began, time.process_time() - used
    free, (height, width), chosen = (
        processor / CORES,
        result.mean.shape,
        result.provenance.settings["precision"],
    )
    name = (
        f"{model.card.name}: {request.samples} samples of {height} x {width}, {request.steps} "
        f"evaluations, {request.precision}"
    )
    value = (
        f"{free:.1f} s on {CORES} free cores ({wall:.1f} s wall with {torch.get_num_threads()} "
        "threads here)"
    )
    named = name if chosen == request.precision else f"{name} ({chosen})"
    return Row(what=named, value=value, bar=f"< {INTERACTIVE_S:.0f} s", met=free < INTERACTIVE_S)


PARTS = {
    "one": one_rows,
    "ratio": ratio_rows,
    "stages": stage_rows,
    "overhead": overhead_rows,
    "rate": rate_rows,
    "precision": precision_rows,
    "tiles": tile_rows,
    "large": large_rows,
}
SELDOM = {"compile": compile_rows}


# Each is a command line in both commits; {folder} holds the images.
COMPARED = {
    "help": ("--help",),
    "widefield-x2, 128 px, 8 samples": (
        *("restore", "{folder}/widefield.tif", "--model", "widefield-x2", "--pixel-um", "0.0626"),
        *("--na", "1.49", "--wavelength-um", "0.525", "--samples", "8", "--out", "{folder}/out"),
    ),
    "phase-2shot, 128 px, 8 samples": (
        *("restore", "{folder}/below.tif", "{folder}/above.tif", "--model", "phase-2shot"),
        *("--defocus-um", "-1", "1", "--wavelength-um", "0.55", "--medium-index", "1.33"),
        *("--pixel-um", "0.2", "--samples", "8", "--out", "{folder}/out"),
    ),
}


def write_compared_images(folder: Path) -> None:
    """The images of `COMPARED`: smooth structures under noise."""
    rng = np.random.default_rng(0)
    for name, level in (("widefield", 200.0), ("below", 2e4), ("above", 2e4)):
        smooth = gaussian_filter(rng.standard_normal((128, 128)), 3)
        expected = level * (1 + 0.3 * smooth / np.abs(smooth).max())
        tifffile.imwrite(folder / f"{name}.tif", rng.poisson(expected).astype(np.uint16))


def compare_commits(commits: tuple[str, str], rounds: int) -> list[Row]:
    """Processor time of whole commands in the second commit over that in the first, by turns."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as trees:
        write_compared_images(Path(folder))
        sources = [Path(folder, f"tree-{number}") for number in range(2)]
        for source, commit in zip(sources, commits, strict=True):
            git = ["git", "-C", str(Path(__file__).parents[1]), "worktree"]
            subprocess.run([*git, "add", "--quiet", "--detach", source, commit], check=True)
            trees.callback(subprocess.run, [*git, "remove", "--force", source], check=True)
        for name, words in COMPARED.items():
            command = [word.format(folder=folder) for word in words]
            spent: list[list[float]] = [[], []]
            for _ in range(rounds):
                for source, found in zip(sources, spent, strict=True):
                    shutil.rmtree(Path(folder, "out"), ignore_errors=True)
                    found.append(time_command(command, source / "src"))
            one, other = (statistics.median(found) for found in spent)
            rows.append(
                Row(what=name, value=f"{other / one:.2f} ({one:.2f} s, {other:.2f} s processor)")
            )
    return rows


def time_command(words: Sequence[str], source: Path) -> float:
    """Processor seconds of a command line of the package in a folder of sources."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "napari_cvdm.cli", *words],
        env={**os.environ, "PYTHONPATH": str(source)},
        check=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def small_tables() -> list[Row]:
    """Every part on a tiny image with a tiny network; the times in them mean nothing."""
    model = tiny_model()
    return [row for part in PARTS.values() for row in part(model, SMALL_SIZE, 1)]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for.

    The status is 1 where paths that must give the same pixels do not.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", help="default: both shipped ones")
    parser.add_argument("--only", action="append", choices=PARTS | SELDOM)
    parser.add_argument(
        "--size",
        type=int,
        default=SIZE,
        help="side of the output [px] (of the input for one), a multiple of 32",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two commits, and no more")
    for name, kind in (("steps", int), ("precision", str), ("sampler", str)):
        parser.add_argument(f"--{name}", type=kind, help="of the reconstruction, default as in use")
    parser.add_argument(
        "--small",
        action="store_true",
        help="all of it on tiny images, and whether the paths compared give the same pixels",
    )
    given = parser.parse_args(argv)
    if given.compare:
        title = "Speed: {1} over {0}".format(*given.compare)
        print_rows(title, compare_commits(tuple(given.compare), given.rounds))
        return 0
    if given.small:
        print_rows("Speed, small: the times mean nothing", small_tables())
        print_rows("Speed: the same pixels", same := speed_rows(tiny_model()))
        return int(not all(row.met for row in same))
    choices = {
        name: getattr(given, name)
        for name in ("steps", "precision", "sampler")
        if getattr(given, name)
    }
    for name in given.model or ["phase-2shot", "widefield-x2"]:
        model = load_model(name)
        rows = [
            row
            for part in given.only or PARTS
            for row in (PARTS | SELDOM)[part](model, given.size, given.rounds, **choices)
        ]
        print_rows(f"Speed of {name}, {torch.get_num_threads()} threads", rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
