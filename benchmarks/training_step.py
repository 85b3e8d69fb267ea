"""Where the time of a training step goes: `python -m benchmarks.training_step`.

Printed for both shipped recipes and both stages: the shares of forward and backward of the networks, of waiting for data and of everything else; then the
memory of the process over 2,000 steps of the smoke recipe.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import torch
from torch.profiler import ProfilerActivity, profile, record_function
from tqdm import tqdm

from napari_cvdm.core.request import TrainRequest
from napari_cvdm.training.loop import train
from napari_cvdm.training.parallel import Processes
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.recipe_writing import write_recipe
from napari_cvdm.training.session import Session

RECIPES = Path(__file__).parents[1] / "recipes"
WARM_UP, PROFILED = 8, 24
MEMORY_STEPS, SETTLED = 2000, 500
BAR = 0.9


def marked(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, with its time counted under a name."""

    def counted(*given: Any, **named: Any) -> Any:
        with record_function(name):
            return function(*given, **named)

    return counted


def shares(path: Path, out: Path) -> Iterable[tuple[str, dict[str, float]]]:
    """Share of each part in the steps of each stage."""
    recipe = read_recipe(path)
    plan = replace(
        recipe.plan,
        mean_steps=WARM_UP + PROFILED,
        diffusion_steps=WARM_UP + PROFILED,
        pool_fields=8,
    )
    request = TrainRequest(recipe=str(path), out=str(out), device="cpu")
    Processes.backward = marked(Processes.backward, "forward and backward")  # type: ignore[method-assign]
    with closing(Session(request, replace(recipe, plan=plan), None)) as session:
        for stage in session.stages:
            run = session.begin(stage, None)
            run.step = marked(run.step, "step")  # type: ignore[method-assign]
            batches = session.batches(0, stage.steps)
            for _ in range(WARM_UP):
                run.step(next(batches))
            with profile(activities=[ProfilerActivity.CPU]) as profiled:
                for _ in range(PROFILED):
                    with record_function("waiting for data"):
                        parts = next(batches)
                    run.step(parts)
            found = {
                event.key: event.cpu_time_total
                for event in profiled.key_averages()
                if event.key in ("step", "forward and backward", "waiting for data")
            }
            total = found["step"] + found["waiting for data"]
            yield (
                stage.name,
                {
                    name: found[name] / total
                    for name in ("forward and backward", "waiting for data")
                },
            )
            batches.close()


def memory(out: Path) -> np.ndarray:
    """Resident memory [MiB] after each of 2,000 steps."""
    recipe = read_recipe(RECIPES / "smoke.toml")
    recipe = replace(
        recipe,
        plan=replace(
            recipe.plan,
            mean_steps=MEMORY_STEPS // 2,
            diffusion_steps=MEMORY_STEPS // 2,
            save_every=200,
        ),
    )
    path, process = write_recipe(recipe, out / "recipe.toml"), psutil.Process(os.getpid())
    return np.array(
        [
            process.memory_info().rss / 2**20
            for _ in tqdm(
                train(TrainRequest(recipe=str(path), out=str(out / "run"), device="cpu")),
                total=MEMORY_STEPS,
            )
        ]
    )


def main() -> None:
    """Print the shares, then the memory."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        used = memory(Path(folder))
        for name in ("phase-2shot", "widefield-x2"):
            for stage, found in shares(RECIPES / f"{name}.toml", Path(folder) / name):
                said = ", ".join(f"{part} {share:.1%}" for part, share in found.items())
                print(
                    f"{name}, {stage}: {said}, the rest {1 - sum(found.values()):.1%} (bar: networks >= {BAR:.0%})",
                    flush=True,
                )
    slope = np.polyfit(np.arange(SETTLED, len(used)), used[SETTLED:], 1)[0]
    print(
        f"memory: {used[SETTLED]:.0f} MiB after {SETTLED} steps, {used[-1]:.0f} MiB after {len(used)}; {1000 * slope:+.2f} MiB for 1,000 steps"
    )


if __name__ == "__main__":
    main()
