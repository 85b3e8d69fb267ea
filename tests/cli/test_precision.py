"""``precision="auto"`` is the arithmetic that this machine has.

What is continued later or elsewhere uses the same one.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_images import spots, widefield_request
from zarr_results import stored

from napari_cvdm.cli import main
from napari_cvdm.core.device import multiplies_bf16
from napari_cvdm.core.request import Precision
from napari_cvdm.core.result import Reconstruction, finished
from napari_cvdm.io import ImageFileError
from napari_cvdm.live.follow import LiveFrame, follow
from napari_cvdm.live.sources import LatestValue
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from napari_cvdm.out_of_core.dask import opened, task_spec_of
from napari_cvdm.out_of_core.job import open_job
from napari_cvdm.out_of_core.run import BlockReconstructor, reconstruct_by_blocks
from napari_cvdm.reconstruction import plan
from napari_cvdm.reconstruction.cost import estimate
from napari_cvdm.reconstruction.methods import load_method
from napari_cvdm.reconstruction.reconstruct import reconstruct

pytestmark = pytest.mark.usefixtures("few_solver_steps")
OPTIONS = {"pixel_um": 0.065, "samples": 2, "steps": 2, "device": "cpu", "precision": "auto"}


@pytest.fixture
def model(tiny_widefield_model: Path) -> Checkpoint:
    return load_model(str(tiny_widefield_model))


@pytest.fixture(params=["fp32", "bf16"])
def faster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Precision:
    """What this machine is taken to be faster in."""
    monkeypatch.setattr(plan, "multiplies_bf16", lambda _: request.param == "bf16")
    return request.param


def reconstructed(
    model: Checkpoint, asked: Precision, earlier: Reconstruction | None = None, samples: int = 2
) -> Reconstruction:
    return finished(
        reconstruct(
            widefield_request(spots((48, 64)), precision=asked, samples=samples, steps=2),
            model,
            earlier,
        )
    )


def test_auto_gives_the_bytes_of_the_faster_precision_and_names_it(
    model: Checkpoint, faster: Precision
) -> None:
    found, again = reconstructed(model, "auto"), reconstructed(model, "auto")
    assert found.provenance.settings["precision"] == faster
    assert np.array_equal(found.mean, reconstructed(model, faster).mean)
    assert np.array_equal(found.mean, again.mean)


@pytest.mark.parametrize("begun", ["fp32", "bf16"])
def test_samples_are_added_in_the_precision_of_the_first(
    model: Checkpoint, faster: Precision, begun: Precision
) -> None:
    continued = reconstructed(model, "auto", earlier=reconstructed(model, begun), samples=4)
    assert continued.provenance.settings["precision"] == begun
    assert np.array_equal(continued.mean, reconstructed(model, begun, samples=4).mean), (
        f"though {faster} is faster"
    )


@pytest.fixture
def files(tmp_path: Path, tiny_widefield_model: Path) -> dict[str, Any]:
    """A job of two blocks."""
    np.save(tmp_path / "in.npy", spots((48, 80)).array)
    return dict(
        images=(str(tmp_path / "in.npy"),),
        model=str(tiny_widefield_model),
        out=str(tmp_path / "auto.ome.zarr"),
        options=OPTIONS,
        block=64,
        halo=64,
    )


def begun_in(
    files: dict[str, Any], begun: Precision, evaluations: int = 6, **choices: object
) -> None:
    """A machine that is faster in `begun` plans the job, does some of it, and is gone."""
    job, model = open_job(**files)
    steps = reconstruct_by_blocks(
        replace(job, request=replace(job.request, precision=begun, **choices)), model
    )
    while next(steps).done < evaluations:
        pass
    steps.close()


@pytest.mark.parametrize("begun", ["fp32", "bf16"])
def test_a_job_goes_on_as_it_was_planned_here_and_on_a_worker(
    files: dict[str, Any], faster: Precision, begun: Precision, tmp_path: Path
) -> None:
    job, model = open_job(**files)
    named = replace(
        job, out=str(tmp_path / "named.ome.zarr"), request=replace(job.request, precision=begun)
    )
    finished(reconstruct_by_blocks(named, model))
    begun_in(files, begun)
    worker, _ = opened(
        task_spec_of(BlockReconstructor(job, model, tmp_path / "auto.part.ome.zarr"))
    )
    assert worker.plan.precision == begun
    assert finished(reconstruct_by_blocks(job, model)).earlier > 0
    assert stored(Path(job.out)) == stored(Path(named.out)), f"though {faster} is faster"


def test_another_job_that_is_replaced_does_not_choose(
    files: dict[str, Any], faster: Precision
) -> None:
    begun_in(files, "fp32" if faster == "bf16" else "bf16", seed=5)
    job, model = open_job(**files)
    with pytest.raises(ImageFileError, match="settings differ"):
        finished(reconstruct_by_blocks(job, model))
    result = finished(reconstruct_by_blocks(replace(job, overwrite=True), model))
    assert result.earlier == 0
    assert (
        json.loads((result.path / "provenance.json").read_text())["settings"]["precision"] == faster
    )


@pytest.mark.parametrize(
    "plan", ["", "[]", "[1]", "{}", '{"settings": null}', '{"settings": {"precision": "fp8"}}']
)
def test_a_damaged_plan_is_none_and_another_one_may_be_replaced(
    files: dict[str, Any], plan: str, tmp_path: Path
) -> None:
    begun_in(files, "fp32")
    (tmp_path / "auto.part.ome.zarr" / ".napari-cvdm" / "plan.json").write_text(plan)
    job, model = open_job(**files)
    if "settings" not in plan:
        assert finished(reconstruct_by_blocks(job, model)).earlier == 0
        return
    with pytest.raises(ImageFileError, match=r"--overwrite"):
        finished(reconstruct_by_blocks(job, model))
    assert finished(reconstruct_by_blocks(replace(job, overwrite=True), model)).earlier == 0


def test_the_command_line_writes_what_auto_came_to(
    tmp_path: Path, tiny_widefield_model: Path, faster: Precision
) -> None:
    np.save(tmp_path / "in.npy", spots((48, 64)).array)
    words = [
        "--pixel-um",
        "0.065",
        "--samples",
        "2",
        "--steps",
        "2",
        "--device",
        "cpu",
        "--precision",
        "auto",
    ]
    assert (
        main(
            [
                "restore",
                str(tmp_path / "in.npy"),
                "--model",
                str(tiny_widefield_model),
                "--out",
                str(tmp_path / "out"),
                *words,
            ]
        )
        == 0
    )
    assert (
        json.loads((tmp_path / "out" / "provenance.json").read_text())["settings"]["precision"]
        == faster
    )


def test_a_cost_is_estimated_in_the_precision_that_will_be_used(
    model: Checkpoint, faster: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    monkeypatch.setattr(
        "napari_cvdm.reconstruction.cost._one_tile",
        lambda *given: used.append(given[-1]) or _no_time(),
    )
    finished(estimate(widefield_request(spots((48, 64)), precision="auto"), model))
    assert used == [faster]


def _no_time() -> Iterator[None]:
    yield from ()
    return 0.0, 0.0


def test_a_live_image_uses_the_precision_of_the_machine(
    model: Checkpoint, faster: Precision
) -> None:
    source = LatestValue()
    source.put(lambda: spots((48, 64)))
    frames = follow(source, widefield_request(spots((8, 8)), precision="auto", steps=1), model)
    frame = next(event for event in frames if isinstance(event, LiveFrame))
    frames.close()
    assert frame.reconstruction.provenance.settings["precision"] == faster


@pytest.mark.usefixtures("faster")
def test_a_method_without_a_network_says_fp32() -> None:
    result = finished(
        reconstruct(
            widefield_request(
                spots((48, 64)), precision="auto", wavelength_um=0.52, na=1.4, medium_index=1.518
            ),
            load_method("richardson-lucy"),
        )
    )
    assert result.provenance.settings["precision"] == "fp32"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, False),
        ({"avx2": True}, False),
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": True}, True),
    ],
)
def test_a_processor_with_bf16_arithmetic_is_known(
    capabilities: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert multiplies_bf16(torch.device("cpu")) is expected


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)]
)
def test_a_gpu_with_bf16_arithmetic_is_known(
    capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert multiplies_bf16(torch.device("cuda")) is expected
    assert not multiplies_bf16(torch.device("mps"))
