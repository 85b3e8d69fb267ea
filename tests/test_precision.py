"""``precision="auto"``: the faster arithmetic here, asked for once, and the same one for whatever goes on later or elsewhere."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_images import spots, widefield_request
from test_by_tiles import stored

from napari_cvdm import precision
from napari_cvdm.by_tiles import BlockRestorer, restore_by_tiles
from napari_cvdm.cli import main
from napari_cvdm.device import DeviceError
from napari_cvdm.distributed import opened, ticket_of
from napari_cvdm.estimate import estimate
from napari_cvdm.model.checkpoint import Checkpoint
from napari_cvdm.model.tiled import placed
from napari_cvdm.model.zoo import load_model
from napari_cvdm.request import Precision
from napari_cvdm.restore import restore
from napari_cvdm.result import Restoration, finished
from napari_cvdm.tiled_job import TiledFiles

OPTIONS = {"pixel_um": 0.065, "samples": 2, "steps": 2, "device": "cpu", "precision": "auto"}
TIMES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=5)


@pytest.fixture
def model(tiny_widefield_model: Path) -> Checkpoint:
    return load_model(str(tiny_widefield_model))


@pytest.fixture(params=["fp32", "bf16"])
def faster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Precision]:
    """What this machine is taken to be faster in; it may be asked once."""
    asked: list[object] = []
    monkeypatch.setattr(precision, "_measured", {})
    monkeypatch.setattr(precision, "step_seconds", lambda network: asked.append(network) or ([2.0], [1.0 if request.param == "bf16" else 20.0]))
    yield request.param
    assert len(asked) <= 1, "the device was measured more than once"


def restored(model: Checkpoint, asked: Precision, earlier: Restoration | None = None, samples: int = 2) -> Restoration:
    return finished(restore(widefield_request(spots((48, 64)), precision=asked, samples=samples, steps=2), model, earlier))


def test_auto_gives_the_bytes_of_the_faster_precision_and_names_it(model: Checkpoint, faster: Precision) -> None:
    found, again = restored(model, "auto"), restored(model, "auto")
    assert found.provenance.settings["precision"] == faster
    assert np.array_equal(found.mean, restored(model, faster).mean)
    assert np.array_equal(found.mean, again.mean)


@pytest.mark.parametrize("begun", ["fp32", "bf16"])
def test_samples_are_added_in_the_precision_of_the_first(model: Checkpoint, faster: Precision, begun: Precision) -> None:
    continued = restored(model, "auto", earlier=restored(model, begun), samples=4)
    assert continued.provenance.settings["precision"] == begun
    assert np.array_equal(continued.mean, restored(model, begun, samples=4).mean), f"though {faster} is faster"


def test_samples_are_added_to_a_result_from_before_precision_was_a_choice(model: Checkpoint) -> None:
    part = restored(model, "fp32")
    settings = {name: value for name, value in part.provenance.settings.items() if name != "precision"}
    older = replace(part, provenance=replace(part.provenance, settings=settings))
    assert restored(model, "auto", earlier=older, samples=3).provenance.settings["precision"] == "fp32"


@pytest.mark.parametrize("begun", ["fp32", "bf16"])
def test_a_job_goes_on_as_it_was_planned_here_and_on_a_worker(
    tmp_path: Path, tiny_widefield_model: Path, faster: Precision, begun: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "in.npy", spots((100, 130)).array)
    files = TiledFiles(images=(str(tmp_path / "in.npy"),), model=str(tiny_widefield_model), out=str(tmp_path / "auto.ome.zarr"), options=OPTIONS, block=64)
    job, model = files.open()
    named = replace(job, out=str(tmp_path / "named.ome.zarr"), request=replace(job.request, precision=begun))
    finished(restore_by_tiles(named, model))
    steps = restore_by_tiles(replace(job, request=named.request), model)
    while next(steps).done < 6:  # a machine that is faster in `begun` plans the job, and is gone
        pass
    steps.close()
    growing = BlockRestorer(job, model, tmp_path / "auto.part.ome.zarr")
    worker, _ = opened(ticket_of(files, growing))
    assert growing.job.request.precision == worker.job.request.precision == begun
    assert finished(restore_by_tiles(job, model)).earlier > 0
    assert stored(tmp_path / "auto.ome.zarr") == stored(tmp_path / "named.ome.zarr"), f"though {faster} is faster"


def test_the_command_line_writes_what_auto_came_to(tmp_path: Path, tiny_widefield_model: Path, faster: Precision) -> None:
    np.save(tmp_path / "in.npy", spots((48, 64)).array)
    words = ["--pixel-um", "0.065", "--samples", "2", "--steps", "2", "--device", "cpu", "--precision", "auto"]
    assert main(["restore", str(tmp_path / "in.npy"), "--model", str(tiny_widefield_model), "--out", str(tmp_path / "out"), *words]) == 0
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["settings"]["precision"] == faster


def test_a_cost_is_estimated_in_the_precision_that_will_be_used(model: Checkpoint, faster: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    monkeypatch.setattr("napari_cvdm.estimate._one_tile", lambda *given: used.append(given[-1]) or _no_time())
    finished(estimate(widefield_request(spots((48, 64)), precision="auto"), model))
    assert used == [faster]


def _no_time() -> Iterator[None]:
    yield from ()
    return 0.0, 0.0, 0


def test_a_device_without_bf16_is_not_measured_and_says_so_where_it_was_asked_for(model: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "knows_bf16", lambda device: False)
    monkeypatch.setattr(precision, "step_seconds", None)
    monkeypatch.setattr(precision, "_measured", {})
    assert restored(model, "auto").provenance.settings["precision"] == "fp32"
    with pytest.raises(DeviceError, match="use fp32 or auto"):
        restored(model, "bf16")


@given(exact=TIMES, narrow=TIMES)
def test_bf16_has_to_win_clearly(exact: list[float], narrow: list[float]) -> None:
    chosen = precision.faster(exact, narrow)
    assert chosen == ("bf16" if min(exact) >= precision.WORTH * min(narrow) else "fp32")
    assert precision.faster(exact, exact) == "fp32", "where both are alike, the exact one"


def test_the_device_is_really_measured(model: Checkpoint) -> None:
    exact, narrow = precision.step_seconds(placed(model.network, model.network.residual_scale.device))
    assert len(exact) == len(narrow) == precision.TURNS
    assert min(*exact, *narrow) > 0
