"""The blocks of one job on dask.distributed.

The workers are processes of this machine, or those of a scheduler that is already running. Only
names of files are sent. Every worker opens the image, the model and the growing result itself, so
these must lie where all workers can read them. Only one task writes a block, and writing it twice
gives the same bytes. So a worker that dies costs time but no data.
"""

import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from napari_cvdm import __version__
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import Progress, finished
from napari_cvdm.core.tiling import Block
from napari_cvdm.io.errors import one_line
from napari_cvdm.io.folders import JobFolder
from napari_cvdm.out_of_core.job import open_job
from napari_cvdm.out_of_core.run import BlockReconstructor, Executor

CONNECT_S = 20
POLL_S = 0.1
LOCAL = "local:"
LOOPBACK = "127.0.0.1"  # a scheduler runs code for whoever reaches it
MOST_PROCESSES = 1024
SCHEMES = ("tcp://", "tls://", "ws://", "wss://")
WITH_CERTIFICATES = ("tls://", "wss://")
NAMED_BLOCKS = 5  # an error is one line


class ClusterError(ValueError):
    """Blocks failed, workers do not fit the job, or a cluster cannot be reached.

    Finished blocks are kept.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """What a task is told of its job, and what it must find there.

    `files` is `BlockJob.files` as JSON, `path` the folder that grows. The others are of the process
    that planned the job; `inputs` is `BlockJob.state_of_inputs`.
    """

    files: str
    path: str
    version: str
    plan_sha256: str
    model_sha256: str
    inputs: str


def task_spec_of(reconstructor: BlockReconstructor) -> TaskSpec:
    """The description of a job whose folder has its plan already."""
    return TaskSpec(
        files=json.dumps(reconstructor.job.files),
        path=str(reconstructor.folder.path),
        version=__version__,
        plan_sha256=reconstructor.folder.plan_sha256(),
        model_sha256=reconstructor.model.sha256,
        inputs=reconstructor.inputs,
    )


@lru_cache(maxsize=2)
def opened(spec: TaskSpec) -> tuple[BlockReconstructor, dict[int, Block]]:
    """The job of a spec and its blocks by number: opened once in a process, the model with it.

    ClusterError where this process has another version, another plan or another model.
    """
    # The version first: the rest is read as this version writes it.
    _check("version of napari-cvdm", __version__, spec.version)
    folder = JobFolder(Path(spec.path))
    _check("plan", folder.plan_sha256(), spec.plan_sha256)
    job, model = open_job(**json.loads(spec.files))
    _check(f"model {model.card.name}", model.sha256, spec.model_sha256)
    # Computed in the precision that was planned, whatever is faster here.
    begun = folder.plan()["settings"]
    reconstructor = BlockReconstructor(job, model, folder.path, begun, spec.inputs)
    return reconstructor, {block.number: block for block in reconstructor.layout.blocks()}


def _check(what: str, here: str, wanted: str) -> None:
    if here != wanted:
        raise ClusterError(
            f"a worker has another {what} ({here}) than the job ({wanted}); install the same on "
            "every machine, and start again."
        )


def run_task(spec: TaskSpec, number: int) -> dict[str, Any]:
    """One task: reconstruct a block, write it, mark it; returns what the marker says."""
    reconstructor, blocks = opened(spec)
    return dict(finished(reconstructor.run_block(blocks[number])))


def on_cluster(where: str) -> Executor:
    """An executor for `run.reconstruct_by_blocks` that runs blocks on a cluster.

    `where` is ``local:N`` for N processes of this machine, or ``tcp://host:port`` of a scheduler;
    RequestError where it is neither. The executor raises ClusterError where blocks failed, or where
    the scheduler went away.
    """
    _check_where(where)

    def run_blocks(
        reconstructor: BlockReconstructor, left: Sequence[Block]
    ) -> Generator[Progress, None, None]:
        if not left:  # a complete job starts no process
            return
        each = reconstructor.plan.samples * reconstructor.plan.steps
        yield Progress(
            stage=f"starting {where}" if where.startswith(LOCAL) else f"connecting to {where}",
            done=0,
            total=len(left) * each,
        )
        with cluster_client(where) as client:
            yield from _followed(client, task_spec_of(reconstructor), reconstructor, left)

    return run_blocks


def check_scheduler(where: str) -> None:
    """Find out before an image is read what would stop a job at its first block.

    RequestError where `where` is no scheduler, see `on_cluster`. ClusterError where
    dask.distributed is not installed, or the address does not answer.
    """
    _check_where(where)
    if where.startswith(LOCAL):
        _distributed()  # to start processes now would only cost time
    else:
        with cluster_client(where):
            pass


def _check_where(where: str) -> None:
    count = where.removeprefix(LOCAL)
    local = where.startswith(LOCAL) and count.isdecimal() and 1 <= int(count) <= MOST_PROCESSES
    if not local and not (where.startswith(SCHEMES) and _has_port(where)):
        raise RequestError(
            f"scheduler is {where!r:.80}; allowed are local:N with 1 to {MOST_PROCESSES} processes "
            "of this machine, or tcp://host:port of a scheduler of dask."
        )


def _has_port(where: str) -> bool:
    """Whether an address has a host that may have a name, and a port that is a number."""
    # dask waits for CONNECT_S where there is no port; idna refuses names that are too long.
    try:
        parts = urlsplit(where)
        return bool((parts.hostname or "").encode("idna") and parts.port) and not parts.path
    except ValueError:
        return False


@contextmanager
def cluster_client(where: str) -> Iterator[Any]:
    """A client of a cluster that is started here, or of a scheduler that runs already.

    The client is closed at the end, and a started cluster with it. ClusterError where
    dask.distributed is not installed, or the scheduler does not answer.
    """
    distributed = _distributed()
    if where.startswith(LOCAL):
        settings = {
            "n_workers": int(where.removeprefix(LOCAL)),
            "threads_per_worker": 1,
            "memory_limit": None,
            "host": LOOPBACK,
            "dashboard_address": f"{LOOPBACK}:0",
        }
        with (
            distributed.LocalCluster(**settings) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            yield client
        return
    # Without certificates the client of dask fails with a traceback of its own.
    certified = distributed.Security().get_connection_args("client").get("ssl_context")
    if where.startswith(WITH_CERTIFICATES) and certified is None:
        raise ClusterError(
            f"the scheduler {where} needs certificates; name them in the configuration of dask, as "
            "SECURITY.md shows."
        )
    # The client is never the default. Other lazy arrays of this process, such as layers of a
    # viewer, must not run on the cluster.
    try:
        client = distributed.Client(where, timeout=CONNECT_S, set_as_default=False)
    except Exception as error:  # dask lets through whatever a protocol raises
        raise ClusterError(
            f"the scheduler {where} does not answer ({one_line(error)}); check the address, and "
            "that it runs."
        ) from error
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_S)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise ClusterError(
            "a scheduler needs the extra cluster: pip install 'napari-cvdm[cluster]'."
        ) from error
    return distributed


def _followed(
    client: Any, spec: TaskSpec, reconstructor: BlockReconstructor, left: Sequence[Block]
) -> Generator[Progress, None, None]:
    """Submit every block, and wait for all of them; a failed block does not stop the others."""
    each = reconstructor.plan.samples * reconstructor.plan.steps
    # A key of its own: a scheduler remembers results, and the job may be begun anew.
    key = f"{spec.plan_sha256[:8]}-{time.time_ns()}"
    futures = {
        client.submit(run_task, spec, block.number, key=f"{block.name}-{key}"): block
        for block in left
    }
    failed: dict[Block, str] = {}
    waiting = dict(futures)
    try:
        while waiting:
            # Polled rather than awaited, so that the job can be cancelled between two looks.
            ended = [future for future in waiting if future.status != "pending"]
            lost = False
            for future in ended:
                block = waiting.pop(future)
                if future.status == "error":
                    failed[block] = one_line(future.exception())
                else:
                    lost = lost or future.status != "finished"
            if lost or client.status != "running":
                raise ClusterError(
                    "the scheduler went away; what is done is kept in "
                    f"{reconstructor.folder.path}. Start the same job again to go on."
                )
            done = len(left) - len(waiting)
            yield Progress(
                stage=f"block {done} of {len(left)}", done=done * each, total=len(left) * each
            )
            time.sleep(0 if ended else POLL_S)
    finally:
        # A scheduler that went away answers nobody.
        if client.status == "running":
            client.cancel(list(waiting))
    if failed:
        raise ClusterError(_failures(failed, len(left)))


def _failures(failed: Mapping[Block, str], blocks: int) -> str:
    in_order = sorted(failed, key=lambda block: block.number)
    named = "; ".join(f"{block.name}: {failed[block]}" for block in in_order[:NAMED_BLOCKS])
    more = f"; and {len(failed) - NAMED_BLOCKS} more" if len(failed) > NAMED_BLOCKS else ""
    return (
        f"{len(failed)} of {blocks} blocks failed ({named}{more}); the others are done. Start the "
        "same job again to try these once more."
    )
