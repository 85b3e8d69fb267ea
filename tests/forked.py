"""Processes of their own, without the seconds that imports take: forks of one that has them."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path

MODULES = (
    *("napari_cvdm.cli.train", "napari_cvdm.out_of_core.run", "napari_cvdm.out_of_core.dask"),
    "torch._dynamo",  # the first optimiser of a process imports it, for seconds
    *("distributed", "pytest", "zarr"),
)
PROCESSES = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
PROCESSES.set_forkserver_preload(list(MODULES))


def begin(
    work: Callable[..., object], *given: object, said: Path | str = os.devnull, **environment: str
) -> BaseProcess:
    """Start a function of a module in a process; it ends with what the function returns.

    Parameters
    ----------
    said : Path
        The file for all that it prints.
    environment : str
        Variables of the process.
    """
    process = PROCESSES.Process(target=_run, args=(work, given, str(said), environment))
    process.start()
    return process


def _run(
    work: Callable[..., object], given: tuple[object, ...], said: str, environment: dict[str, str]
) -> None:
    os.environ.update(environment)
    with Path(said).open("w") as file, redirect_stdout(file), redirect_stderr(file):
        raise SystemExit(work(*given))
