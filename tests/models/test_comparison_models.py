"""What CVDM is compared with: fixed schedules, a plain regression, DFCAN.

They are trained, stored and used like any other model.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint

from napari_cvdm.core.request import ImageStack, ReconstructionRequest, TrainRequest
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.models.cvdm import CVDM, CVDMConfig
from napari_cvdm.models.networks import DFCAN, DFCANConfig, UNetConfig
from napari_cvdm.models.schedule import (
    COSINE_OFFSET,
    COSINE_RATE,
    LINEAR_RATE,
    CosineClock,
    LinearClock,
)
from napari_cvdm.reconstruction.reconstruct import SINGLE_ANSWER, reconstruct
from napari_cvdm.training.loop import train

SMALL = UNetConfig(widths=(4, 8), blocks=(1, 1), level_channels=4)
RECIPE = """
name = "compared"
title = "A trial"
task = "widefield-x2"
resolution = "none worth stating"
[network]
target = "{target}"
schedule = "{schedule}"
denoiser = {{ widths = [8, 16], blocks = [1, 1], level_channels = 8 }}
mean = {mean}
[simulation]
field_px = 32
[plan]
mean_steps = 3
diffusion_steps = 3
batch = 2
patch_px = 16
pool_fields = 2
[validation]
fields = 1
every = 2
samples = 2
evaluations = 2
largest_px = 32
"""
U_NET = "{ widths = [8, 16], blocks = [1, 1], level_channels = 0 }"
DFCAN_SHAPE = "{ width = 8, groups = 1, blocks = 1, reduction = 4 }"


def result_of(steps):
    """What a generator returns, and how many steps it took."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        count += 1


def test_linear_schedule_is_the_limit_of_a_thousand_steps_of_ho_et_al():
    gamma = torch.exp(
        -LINEAR_RATE * LinearClock()(torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64))[0]
    )
    products = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[[249, 499, 999]]
    np.testing.assert_allclose(gamma.sqrt().numpy(), np.sqrt(products), atol=4e-3)


def test_cosine_schedule_is_that_of_nichol_and_dhariwal_but_for_its_last_step():
    times = torch.linspace(0, 0.98, 50, dtype=torch.float64)
    gamma = torch.exp(-COSINE_RATE * CosineClock()(times)[0])
    angle = (times.numpy() + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2
    published = (np.cos(angle) / math.cos(angle[0])) ** 2
    np.testing.assert_allclose(gamma.numpy(), published, atol=0.01)


def test_attention_of_dfcan_weighs_channels_by_their_spectrum():
    network = DFCAN(2, 4, DFCANConfig(width=8, groups=1, blocks=1, reduction=4))
    assert (
        torch.count_nonzero(network(torch.randn(1, 2, 20, 17))) == 0
    )  # it starts from the physical estimate
    features = torch.randn(2, 8, 20, 17)
    out = network.groups[0](features)
    assert out.shape == features.shape
    flipped = network.groups[0](torch.roll(features, 5, dims=-1).roll(3, dims=-2))
    inner = torch.roll(out, 5, dims=-1).roll(3, dims=-2) - flipped
    assert (
        inner[..., 8:-4, 10:-4].abs().max() < 0.05 * out.abs().max()
    )  # a shift moves the answer; the spectrum hardly notices


@pytest.mark.parametrize(
    ("target", "schedule", "mean"),
    [
        ("residual", "linear", U_NET),
        ("zero-mean", "cosine", U_NET),
        ("regression", "cosine", DFCAN_SHAPE),
    ],
)
def test_they_are_trained_stored_and_used_by_the_same_code(target, schedule, mean, tmp_path: Path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(target=target, schedule=schedule, mean=mean))
    trained, steps = result_of(
        train(TrainRequest(recipe=str(recipe), out=str(tmp_path / "model"), device="cpu"))
    )
    assert steps == {"residual": 3, "zero-mean": 6, "regression": 3}[target]
    model = load_checkpoint(tmp_path / "model")
    assert model.card.config() == trained.card.config() == model.network.config
    assert isinstance(model.network.mean, DFCAN) == (mean == DFCAN_SHAPE)
    image = ImageStack(
        array=np.random.default_rng(0).poisson(50, (40, 36)).astype(np.float32),
        axes="YX",
        pixel_um=0.065,
    )
    found, _ = result_of(
        reconstruct(
            ReconstructionRequest(
                image=image, model="compared", samples=2, steps=2, device="cpu", schedule_points=2
            ),
            model,
        )
    )
    assert (found.variance.max() > 0) == (target != "regression")
    assert (SINGLE_ANSWER in found.provenance.warnings) == (target == "regression")
    assert np.ptp(found.rate) == 0


def test_a_regression_is_the_mean_network_of_a_zero_mean_model(tmp_path: Path):
    whole = load_checkpoint(tiny_checkpoint("widefield-x2", tmp_path / "whole")).network
    config = whole.config
    alone = CVDM(
        CVDMConfig(
            **{
                **{name: getattr(config, name) for name in config.__dataclass_fields__},
                "target": "regression",
            }
        )
    )
    alone.load_state_dict(
        {name: value for name, value in whole.state_dict().items() if name.startswith("mean.")},
        strict=False,
    )
    condition, initial_estimate = torch.randn(1, 2, 16, 16), torch.randn(1, 1, 32, 32)
    mean_residual = alone.mean_residual(condition)
    noisy = torch.randn(1, 1, 32, 32)
    features = alone.features(condition, mean_residual)
    answer = alone.decode(
        alone.clean(noisy, noisy.abs(), alone.first_layer_features(features)),
        initial_estimate,
        mean_residual,
        alone.residual_std(features),
    )
    torch.testing.assert_close(
        answer, whole.centre(initial_estimate, whole.mean_residual(condition))
    )
