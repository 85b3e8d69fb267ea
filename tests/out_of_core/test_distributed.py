"""Blocks on a cluster give the same bytes with any number of workers.

A worker that dies or fails costs its block only, and the block can be made later.
"""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

pytest.importorskip(
    "distributed", reason="dask.distributed is not installed: pip install 'napari-cvdm[cluster]'"
)

from clusters import cluster_in_process, forked_workers
from small_images import spots
from yaozarrs import validate_zarr_store
from zarr_results import ngff_image, stored

from napari_cvdm.cli import main
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import Progress
from napari_cvdm.core.result import finished as drained
from napari_cvdm.out_of_core import dask
from napari_cvdm.out_of_core.dask import (
    LOOPBACK,
    ClusterError,
    check_scheduler,
    cluster_client,
    on_cluster,
    opened,
    run_task,
    task_spec_of,
)
from napari_cvdm.out_of_core.job import open_job
from napari_cvdm.out_of_core.run import (
    BlockReconstructor,
    BlockResult,
    reconstruct_by_blocks,
)

OPTIONS = {"pixel_um": 0.065, "samples": 2, "steps": 2, "device": "cpu"}


@pytest.fixture
def files(tmp_path: Path, tiny_widefield_model: Path) -> dict[str, Any]:
    """A job of twelve blocks."""
    np.save(tmp_path / "in.npy", spots((150, 213)).array)
    return dict(
        images=(str(tmp_path / "in.npy"),),
        model=str(tiny_widefield_model),
        out=str(tmp_path / "out.ome.zarr"),
        options=OPTIONS,
        block=64,
    )


@pytest.fixture
def six_blocks(files: dict[str, Any], tmp_path: Path, tiny_denoising_model: Path) -> dict[str, Any]:
    """A job of six blocks of little work: denoising needs no deconvolution."""
    np.save(tmp_path / "in.npy", spots((70, 130)).array)
    return dict(files, model=str(tiny_denoising_model))


def test_two_processes_give_the_bytes_of_one(six_blocks: dict[str, Any], tmp_path: Path) -> None:
    files = six_blocks
    job, model = open_job(**files)
    drained(reconstruct_by_blocks(job, model))
    other = tmp_path / "other.ome.zarr"
    words = ["restore", files["images"][0], "--model", files["model"], "--out", str(other)]
    words += ["--pixel-um", "0.065", "--samples", "2", "--steps", "2", "--device", "cpu"]
    with forked_workers():
        assert main([*words, "--block", "64", "--scheduler", "local:2"]) == 0
    assert stored(Path(files["out"])) == stored(other)


@contextmanager
def started_by_hand(
    tmp_path: Path, workers: int
) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and workers in processes of their own: (address, [scheduler, worker, ...]).

    They are started as dask's documentation shows.
    """
    note = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    module = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
        "--scheduler-file",
        str(note),
    ]
    processes = [subprocess.Popen(module, **quiet)]
    worker = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        "--scheduler-file",
        str(note),
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
    ]
    try:
        processes += [
            subprocess.Popen([*worker, "--local-directory", str(tmp_path)], **quiet)
            for _ in range(workers)
        ]
        yield address_in(note, processes[0]), processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def address_in(note: Path, scheduler: subprocess.Popen[bytes]) -> str:
    """Wait for a scheduler to write down where it is."""
    while scheduler.poll() is None:
        try:
            return str(json.loads(note.read_text(encoding="utf-8"))["address"])
        except (OSError, ValueError):
            time.sleep(0.1)
    raise AssertionError("the scheduler did not start")


def stopped_at(steps: Generator[Progress, None, BlockResult], evaluations: int) -> Progress:
    """Go on until that many evaluations are done."""
    for step in steps:
        if step.done >= evaluations and step.stage.startswith("block"):
            return step
    raise AssertionError("the job ended before")


@pytest.mark.stress
def test_a_worker_that_is_killed_costs_no_data_and_without_scheduler_the_job_can_go_on(
    files: dict[str, Any], tmp_path: Path
) -> None:
    (job, model), other = open_job(**files), dict(files, out=str(tmp_path / "other.ome.zarr"))
    third = dict(files, out=str(tmp_path / "third.ome.zarr"))
    drained(reconstruct_by_blocks(job, model))
    with started_by_hand(tmp_path, workers=2) as (address, (scheduler, first, _)):
        steps = reconstruct_by_blocks(open_job(**other)[0], model, on_cluster(address))
        stopped_at(steps, 4)
        first.kill()
        assert drained(steps).earlier == 0
        assert stored(Path(files["out"])) == stored(Path(other["out"]))
        steps = reconstruct_by_blocks(open_job(**third)[0], model, on_cluster(address))
        stopped_at(steps, 4)
        scheduler.kill()
        with pytest.raises(ClusterError, match=r"scheduler went away.*same job again"):
            drained(steps)
    assert drained(reconstruct_by_blocks(open_job(**third)[0], model)).earlier >= 1
    assert stored(Path(files["out"])) == stored(Path(third["out"]))


def test_without_scheduler_a_job_stops_in_words_and_can_go_on(
    six_blocks: dict[str, Any], tmp_path: Path
) -> None:
    job, model = open_job(**six_blocks)
    other = dict(six_blocks, out=str(tmp_path / "other.ome.zarr"))
    with cluster_in_process() as cluster:
        steps = reconstruct_by_blocks(job, model, on_cluster(cluster.scheduler_address))
        stopped_at(steps, 4)
        cluster.close()
        with pytest.raises(ClusterError, match=r"scheduler went away.*same job again"):
            drained(steps)
    assert drained(reconstruct_by_blocks(job, model)).earlier >= 1
    drained(reconstruct_by_blocks(open_job(**other)[0], model))
    assert stored(Path(six_blocks["out"])) == stored(Path(other["out"]))


def test_a_block_that_cannot_be_read_is_named_and_the_others_are_done(
    files: dict[str, Any], tmp_path: Path, tiny_denoising_model: Path
) -> None:
    store = ngff_image(tmp_path / "in.ome.zarr", spots((150, 213)), "0.5")
    denoising = str(tiny_denoising_model)  # reads nothing around a block
    files = dict(files, images=(str(store),), halo=0, model=denoising)
    job, model = open_job(**files)
    with cluster_in_process() as cluster:
        steps = reconstruct_by_blocks(job, model, on_cluster(cluster.scheduler_address))
        while not (
            tmp_path / "out.part.ome.zarr" / ".napari-cvdm" / "frames" / "0.npz"
        ).exists():  # the image was read once
            next(steps)
        (corner,) = (path for path in (store / "0" / "c").rglob("3") if path.parent.name == "3")
        kept, entry = corner.read_bytes(), corner.stat()
        corner.write_bytes(kept[:7].ljust(len(kept), b"\0"))
        os.utime(corner, ns=(entry.st_atime_ns, entry.st_mtime_ns))  # as if it had always been so
        with pytest.raises(
            ClusterError,
            match=(
                r"4 of 12 blocks failed \(f0-y64-x128: in.ome.zarr: rows 64 to 150, .*the others "
                r"are done"
            ),
        ):
            drained(steps)
    corner.write_bytes(kept)
    again = drained(reconstruct_by_blocks(job, model))
    assert again.earlier == 8
    validate_zarr_store(files["out"])


def test_a_worker_checks_version_plan_and_model(six_blocks: dict[str, Any]) -> None:
    files = six_blocks
    job, model = open_job(**files)
    steps = reconstruct_by_blocks(job, model)
    stopped_at(steps, 1)
    reconstructor = BlockReconstructor(
        job, model, Path(files["out"]).with_name("out.part.ome.zarr")
    )
    spec = task_spec_of(reconstructor)
    run_task(spec, 3)
    for name, words in (
        ("version", "another version"),
        ("plan_sha256", "another plan"),
        ("model_sha256", "another model"),
    ):
        with pytest.raises(ClusterError, match=words):
            opened(replace(spec, **{name: "0"}))


@pytest.mark.parametrize(
    "where",
    [
        *("local", "local:0", "local:two", "local:99999", "localhost:8786", "tcp:8786", "nonsense"),
        *("", "tcp://", "tcp://host", "tcp://host:port", "tcp://host:-1", "tcp://host:99999999"),
        *("tcp://[::1", "tcp:///etc/passwd", "tcp://host:1/path", f"tcp://{'a' * 300}:1"),
    ],
)
def test_a_scheduler_that_is_none_is_said(where: str) -> None:
    for check in (on_cluster, check_scheduler):
        with pytest.raises(RequestError, match="local:N"):
            check(where)


@pytest.mark.parametrize(
    "where",
    ["tcp://nowhere.invalid:1", "tcp://127.0.0.1:1", "tls://a:1", "wss://a:1", "ws://a b:1"],
)
def test_a_scheduler_that_cannot_be_reached_is_said(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask, "CONNECT_S", 1)
    with pytest.raises(ClusterError, match=r"does not answer|needs certificates") as refusal:
        check_scheduler(where)
    assert "\n" not in str(refusal.value)
    gc.collect()  # what is left of the client says nothing either


def test_nothing_listens_beyond_this_machine() -> None:
    with cluster_client("local:1"):
        here = psutil.Process()
        found = [
            connection.laddr.ip
            for process in (here, *here.children(recursive=True))
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        ]
    assert len(found) >= 3  # the scheduler, its dashboard and a worker
    assert set(found) == {LOOPBACK}
