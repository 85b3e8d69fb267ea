"""Blocks on a cluster: the same bytes with any number of workers; what dies or fails costs that block, and only for now."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("distributed", reason="dask.distributed is not installed: pip install 'napari-cvdm[cluster]'")

from small_images import spots, widefield_request
from test_by_tiles import drained, stored

from napari_cvdm.by_tiles import restore_by_tiles
from napari_cvdm.cli import main
from napari_cvdm.distributed import ClusterError, on_cluster
from napari_cvdm.model.zoo import load_model
from napari_cvdm.request import RequestError
from napari_cvdm.tiled_job import TiledFiles

OPTIONS = {"pixel_um": 0.065, "samples": 2, "steps": 2, "device": "cpu"}


@pytest.fixture
def files(tmp_path: Path, tiny_widefield_model: Path) -> TiledFiles:
    """A job of twelve blocks."""
    np.save(tmp_path / "in.npy", spots((150, 213)).array)
    return TiledFiles(images=(str(tmp_path / "in.npy"),), model=str(tiny_widefield_model), out=str(tmp_path / "out.ome.zarr"), options=OPTIONS, block=64)


def test_two_processes_give_the_bytes_of_one(files: TiledFiles, tmp_path: Path) -> None:
    job, model = files.open()
    drained(restore_by_tiles(job, model))
    other = tmp_path / "other.ome.zarr"
    words = ["--pixel-um", "0.065", "--samples", "2", "--steps", "2", "--device", "cpu", "--block", "64"]
    assert main(["restore", files.images[0], "--model", files.model, "--out", str(other), *words, "--scheduler", "local:2"]) == 0
    assert stored(Path(files.out)) == stored(other)
