"""Gradients do not depend on how many processes, or how many parts, a batch is shared among."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forked import begin
from safetensors.torch import load_file, save_file
from short_trainings import write_short_recipe

from napari_cvdm.cli import main
from napari_cvdm.core.request import RequestError, TrainRequest
from napari_cvdm.training.parallel import Processes
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.session import Session


def in_float64(parts):
    """Batches and draws of a step, in double precision."""
    return [
        tuple(
            replace(one, **{name: getattr(one, name).double() for name in type(one).__slots__})
            for one in pair
        )
        for pair in parts
    ]


def save_gradients(recipe: Path, out: Path) -> None:
    """One backward pass of each stage as in the session; the first process writes gradients."""
    session = Session(
        TrainRequest(recipe=str(recipe), out=str(out), device="cpu"), read_recipe(recipe), None
    )
    session.network.double()  # so that what is compared is not rounding
    torch.manual_seed(1)
    for parameter in session.network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    found = {}
    for stage in session.stages:
        run = session.begin(stage, None)
        run.accumulate(in_float64(next(session.batches(0, 1))))
        found |= {
            f"{stage.name}.{index}": parameter.grad.contiguous()
            for index, parameter in enumerate(stage.parameters)
        }
    if os.environ.get("RANK", "0") == "0":
        save_file(found, out / "gradients.safetensors")
    session.close()


def together(folder: Path, work: Callable[..., object], *given: object) -> list[str]:
    """Run a function in two processes that torchrun might have started; what each of them said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    files = [folder / f"said-{rank}.txt" for rank in range(2)]
    processes = [
        begin(work, *given, said=said, RANK=str(rank), LOCAL_RANK=str(rank), **shared)
        for rank, said in enumerate(files)
    ]
    for process in processes:
        process.join()
    said = [file.read_text() for file in files]
    assert [process.exitcode for process in processes] == [0, 0], said
    return said


def torchrun(processes: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Start several processes as the documentation says."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*words, "--nproc_per_node", str(processes), *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Gradients of one process, with the whole batch at once."""
    folder = tmp_path_factory.mktemp("alone")
    save_gradients(write_short_recipe(folder / "short.toml", 2, batch=4), folder)
    return load_file(folder / "gradients.safetensors")


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Equal to 1e-9 of the largest gradient."""
    assert found.keys() == expected.keys()
    largest = max(float(tensor.abs().max()) for tensor in expected.values())
    assert largest > 0
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name],
            tensor,
            rtol=0,
            atol=1e-9 * largest,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_two_processes_find_the_gradients_of_one(alone, tmp_path):
    recipe = write_short_recipe(tmp_path / "short.toml", 2, batch=4)
    together(tmp_path, save_gradients, recipe, tmp_path)
    assert_same(load_file(tmp_path / "gradients.safetensors"), alone)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_parts_find_the_gradients_of_the_whole(alone, tmp_path, parts):
    recipe = write_short_recipe(tmp_path / "short.toml", 2, batch=4, accumulate=parts)
    save_gradients(recipe, tmp_path)
    assert_same(load_file(tmp_path / "gradients.safetensors"), alone)


def check_one_model(out: Path, said: str) -> None:
    """One process of two speaks and writes, and logs two steps of two stages."""
    assert said.count("use it with --model") == 1
    assert len((out / "log.csv").read_text().splitlines()) == 5


def test_two_processes_train_one_model(tmp_path):
    recipe, out = write_short_recipe(tmp_path / "short.toml", 2, batch=4), tmp_path / "out"
    words = ["train", str(recipe), "--out", str(out), "--device", "cpu"]
    check_one_model(out, "".join(together(tmp_path, main, words)))


@pytest.mark.stress
def test_torchrun_trains_one_model_and_ends_well(tmp_path):
    recipe, out = write_short_recipe(tmp_path / "short.toml", 2, batch=4), tmp_path / "out"
    words = ["train", str(recipe), "--out", str(out), "--device", "cpu"]
    done = torchrun(2, "-m", "napari_cvdm.cli", *words)
    assert done.returncode == 0, done.stderr
    check_one_model(out, done.stdout)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(RequestError, match="a multiple of 3 is needed"):
        Processes("cpu", "fp32", 3, 4)
