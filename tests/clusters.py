"""A cluster of dask in the process of the tests: it costs no start of Python."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import distributed


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
