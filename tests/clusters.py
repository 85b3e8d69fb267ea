"""Clusters of dask that cost no start of Python: in the process of the tests, or in its forks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
import distributed
import forked
import pytest


@contextmanager
def cluster_in_process() -> Iterator[Any]:
    """A scheduler at a TCP address, and one worker."""
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=None,
    ) as cluster:
        yield cluster


@contextmanager
def forked_workers() -> Iterator[None]:
    """Workers of this machine are processes that have their imports."""
    method = {"distributed.worker.multiprocessing-method": forked.PROCESSES.get_start_method()}
    with dask.config.set(method), pytest.MonkeyPatch.context() as patch:
        # dask would name other modules.
        patch.setattr(distributed.utils, "_forkserver_preload_set", True, raising=False)
        yield
