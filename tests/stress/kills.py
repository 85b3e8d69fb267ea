"""Fifty kills.

`python -m tests.stress.kills` ends a training with kill -9 at random moments, goes on with it each
time, and compares.

Printed: how many kills came, the most steps that one of them lost, files that could not be read,
and whether the last weights are those of a training that nobody killed.
"""

import json
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from napari_cvdm.core.request import TrainRequest
from napari_cvdm.models.checkpoint import CARD, load_checkpoint
from napari_cvdm.training.loop import train
from napari_cvdm.training.recipe import Recipe, read_recipe, write_recipe
from napari_cvdm.training.state import STATE

RECIPE = Path(__file__).parents[2] / "recipes" / "smoke.toml"
KILLS, STEPS, INTERVAL = 50, 1500, 10
LONGEST_S = 1.0  # after the first step
ONE_THREAD = "import torch; torch.set_num_threads(1); "
TRAIN = ONE_THREAD + "from napari_cvdm.cli import main; import sys; sys.exit(main(sys.argv[1:]))"


def steps_saved(run: Path) -> int:
    """Steps behind the state, over both stages; 0 without one.

    Raises
    ------
    SafetensorError
        The file cannot be read.
    """
    if not (run / STATE).exists():
        return 0
    with safe_open(run / STATE, framework="pt") as stream:
        progress = json.loads(stream.metadata()["progress"])
    return int(progress["step"]) + (STEPS if progress["stage"] == "diffusion" else 0)


def steps_logged(run: Path) -> int:
    """Steps behind the last whole line of the log, over both stages."""
    log = run / "log.csv"
    lines = (
        [
            line.split(",")
            for line in log.read_text().splitlines(keepends=True)[1:]
            if line.endswith("\n")
        ]
        if log.exists()
        else []
    )
    return int(lines[-1][1]) + (STEPS if lines[-1][0] == "diffusion" else 0) if lines else 0


def killed_once(recipe: Path, run: Path, chance: random.Random) -> bool:
    """Start or go on, and kill at a random moment of the training; whether it was still at work."""
    resume = ["--resume"] if (run / STATE).exists() else []
    log, started = run / "log.csv", time.time()
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            TRAIN,
            "train",
            str(recipe),
            "--out",
            str(run),
            "--device",
            "cpu",
            *resume,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # what it goes on with has lines that it will make again: it is at work when it has written one
    # of its own
    while process.poll() is None and not (
        log.exists() and log.stat().st_mtime > started and steps_logged(run) > steps_saved(run)
    ):
        time.sleep(0.02)
    time.sleep(chance.uniform(0, LONGEST_S))
    at_work = process.poll() is None
    process.kill()
    process.wait()
    return at_work


def uninterrupted(recipe: Path, out: Path) -> None:
    """Train without a kill."""
    for _ in train(TrainRequest(recipe=str(recipe), out=str(out), device="cpu")):
        pass


def longer(recipe: Recipe) -> Recipe:
    """Long enough for fifty kills, saved and logged often."""
    plan = replace(
        recipe.plan, mean_steps=STEPS, diffusion_steps=STEPS, save_every=INTERVAL, log_every=1
    )
    return replace(recipe, plan=plan)


def main() -> None:
    """Kill, go on, compare."""
    torch.set_num_threads(1)
    chance, lost, unreadable, kills = random.Random(0), [0], 0, 0
    with TemporaryDirectory() as folder:
        recipe, run, whole = (
            write_recipe(longer(read_recipe(RECIPE)), Path(folder) / "recipe.toml"),
            Path(folder) / "run",
            Path(folder) / "whole",
        )
        for _ in tqdm(range(KILLS)):
            if (run / CARD).exists():
                break
            kills += killed_once(recipe, run, chance)
            try:
                lost.append(steps_logged(run) - steps_saved(run))
                if (run / "so-far" / CARD).exists():
                    load_checkpoint(run / "so-far")
            except (SafetensorError, ValueError):
                unreadable += 1
        for step in (
            train(TrainRequest(recipe=str(recipe), out=str(run), resume=True, device="cpu"))
            if not (run / CARD).exists()
            else ()
        ):
            del step
        uninterrupted(recipe, whole)
        first, second = (load_checkpoint(one).network.state_dict() for one in (run, whole))
        same = all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    print(
        f"{kills} kills while at work; most steps lost by one: {max(lost)} (interval {INTERVAL}); "
        f"unreadable files: {unreadable}"
    )
    print(f"last weights as without a kill, bit for bit: {'yes' if same else 'NO'}")


if __name__ == "__main__":
    main()
