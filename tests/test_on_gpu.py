"""Laws on a GPU, where there is one.

The pixels are those of the CPU to rounding, and nothing stays on the GPU.
"""

import gc

import numpy as np
import pytest
import torch
from paper.measure import finish
from paper.speed import request_of_output

from napari_cvdm.core.device import to_device
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.sampling import FrameSampler

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no CUDA device here"
)


@pytest.fixture(scope="module", params=["phase-2shot", "widefield-x2"])
def model(request: pytest.FixtureRequest) -> Checkpoint:
    return load_model(request.param)


@pytest.mark.parametrize(("precision", "share"), [("fp32", 0.01), ("bf16", 0.1)])
def test_a_gpu_moves_the_samples_far_less_than_they_scatter(
    model: Checkpoint, precision: str, share: float
) -> None:
    here = finish(request_of_output(model, 128, 6, keep_samples=True, device="cpu"), model)
    there = finish(
        request_of_output(model, 128, 6, keep_samples=True, device="cuda", precision=precision),
        model,
    )
    assert here.samples is not None and there.samples is not None
    moved = np.sqrt(np.mean((there.samples - here.samples) ** 2))
    assert moved < share * np.sqrt(here.variance.mean())


def test_auto_names_what_it_came_to(model: Checkpoint) -> None:
    result = finish(request_of_output(model, 128, 1, device="cuda", precision="auto"), model)
    assert result.provenance.settings["precision"] in ("fp32", "bf16")


def test_nothing_stays_on_the_gpu_after_a_run_or_an_error(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of_output(model, 128, 2, device="cuda")
    finish(request, model)
    gc.collect()
    before = torch.cuda.memory_allocated()
    finish(request, model)
    gc.collect()
    assert torch.cuda.memory_allocated() <= before

    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(FrameSampler, "image", fail)
    with pytest.raises(RuntimeError, match="planted"):
        finish(request, model)
    gc.collect()
    assert torch.cuda.memory_allocated() <= before


def test_pixels_arrive_as_they_were_sent() -> None:
    pixels = np.random.default_rng(0).standard_normal((4, 1, 300, 200), dtype=np.float32)
    assert np.array_equal(to_device(pixels, torch.device("cuda:0")).cpu().numpy(), pixels)
