"""The networks: locality, exact rebuilding from a card, and files that cannot be trusted."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from napari_cvdm.core.result import finished
from napari_cvdm.models.checkpoint import (
    CheckpointError,
    config_values,
    load_checkpoint,
    read_card,
    save_checkpoint,
)
from napari_cvdm.models.cvdm import CVDM, LARGEST_LOG_STD, CVDMConfig
from napari_cvdm.models.networks import UNet, UNetConfig
from napari_cvdm.models.registry import load_model, model_folder, shipped_models
from napari_cvdm.models.schedule import DILATIONS, RATE_MAX, RATE_MIN, PixelRate
from napari_cvdm.models.tiled import TiledModel

SMALL = UNetConfig(widths=(4, 8, 8), blocks=(1, 1, 1), level_channels=4)
SMALL_MEAN = UNetConfig(widths=(4, 8, 8), blocks=(1, 1, 1), level_channels=0)


def shaken(module, seed=0):
    """The module with random parameters: fresh networks give zero and hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.mark.parametrize(
    "shape", [SMALL, UNetConfig(widths=(4, 6), blocks=(2, 1), level_channels=4)]
)
def test_nothing_beyond_the_receptive_radius_changes_a_pixel(shape):
    network = shaken(UNet(2, 1, shape)).double()
    radius = shape.receptive_radius
    size = -(-(2 * radius + 20) // shape.stride) * shape.stride
    image, level = (
        torch.randn(1, 2, size, size, dtype=torch.float64),
        torch.zeros(1, 1, size, size, dtype=torch.float64),
    )
    changed = image.clone()
    changed[..., 0, 0] += 10.0
    difference = (network(changed, level) - network(image, level)).abs()[0, 0]
    assert difference[0, 0] > 0
    assert difference[radius + 1 :, :].max() == 0
    assert difference[:, radius + 1 :].max() == 0


@pytest.mark.parametrize("changing", [1, 2])
def test_channels_that_enter_before_the_others_give_what_all_give_together(changing):
    network, image = (
        shaken(UNet(3, 2, SMALL)).double(),
        torch.randn(1, 3, 32, 48, dtype=torch.float64),
    )
    level = torch.randn(1, 1, 32, 48, dtype=torch.float64)
    parted = network.forward_blocks(
        network.first_layer_features(image[:, changing:]),
        network.modulations(level),
        image[:, :changing],
    )
    torch.testing.assert_close(parted, network(image, level))


@pytest.mark.parametrize("dilations", [(), (1,), DILATIONS, (3, 2)])
def test_a_rate_sees_as_far_as_its_layers_reach(dilations):
    network = shaken(PixelRate(3, 2, dilations)).double()
    radius, middle = network.receptive_radius, 12
    image = torch.randn(1, 3, 25, 25, dtype=torch.float64)
    changed = image.clone()
    changed[..., middle, middle] += 10.0
    difference = (
        (network(changed) - network(image)).abs()[0, 0].reshape(25, 2, 25, 2).amax(dim=(1, 3))
    )
    rows, columns = torch.nonzero(difference, as_tuple=True)
    assert int((rows - middle).abs().max()) == int((columns - middle).abs().max()) == radius


def test_a_card_that_says_nothing_of_the_schedules_shape_has_the_usual_one(tiny_phase_model):
    card = read_card(tiny_phase_model)
    older = replace(
        card,
        network={
            name: value
            for name, value in card.network.items()
            if name not in ("rate_dilations", "clock_terms")
        },
    )
    assert older.config() == card.config()
    assert (card.config().rate_dilations, card.config().clock_terms) == (DILATIONS, 8)


@pytest.mark.parametrize(("dilations", "terms"), [((), 2), ((1, 2, 4, 8, 16), 32)])
def test_a_schedule_of_another_shape_comes_back(tmp_path, tiny_phase_model, dilations, terms):
    card = read_card(tiny_phase_model)
    config = replace(card.config(), rate_dilations=dilations, clock_terms=terms)
    network = CVDM(config)
    save_checkpoint(tmp_path / "model", network, replace(card, network=config_values(config)))
    loaded = load_checkpoint(tmp_path / "model").network
    assert loaded.config == config
    torch.testing.assert_close(loaded.clock.weights, network.clock.weights)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_dilations": (0,)},
        {"rate_dilations": (1.5,)},
        {"rate_dilations": (1,) * 9},
        {"clock_terms": 7},
    ],
)
def test_a_schedule_of_no_such_shape_is_refused(wrong):
    with pytest.raises(ValueError, match=r"allowed are|are needed"):
        CVDMConfig(condition_channels=1, **wrong)


@pytest.mark.parametrize("schedule", ["pixel-wise", "global"])
@pytest.mark.parametrize("target", ["zero-mean", "residual", "direct"])
@pytest.mark.parametrize(("upsampling", "residual_std"), [(1, None), (2, SMALL_MEAN)])
def test_every_kind_of_model_has_the_right_shapes_and_decodes_what_it_encodes(
    schedule, target, upsampling, residual_std
):
    config = CVDMConfig(
        condition_channels=3,
        upsampling=upsampling,
        denoiser=SMALL,
        mean=SMALL_MEAN,
        schedule=schedule,
        target=target,
        residual_std=residual_std,
    )
    network = shaken(CVDM(config))
    network.residual_scale.fill_(0.3)
    condition = torch.randn(2, 3, 16, 24)
    fine = (2, 1, 16 * upsampling, 24 * upsampling)
    mean_residual = network.mean_residual(condition)
    features = network.features(condition, mean_residual)
    rate = network.rate(features)
    assert mean_residual.shape == rate.shape == fine
    assert ((rate >= RATE_MIN) & (rate <= RATE_MAX)).all()
    assert (
        network.clean(torch.randn(fine), rate * 0.5, network.first_layer_features(features)).shape
        == fine
    )
    truth, initial_estimate = torch.randn(fine), torch.randn(fine)
    std = network.residual_std(features)
    assert std.shape == fine
    assert (std.min() < std.max()) == (residual_std is not None)
    torch.testing.assert_close(
        network.decode(
            network.encode(truth, initial_estimate, mean_residual, std),
            initial_estimate,
            mean_residual,
            std,
        ),
        truth,
    )
    if schedule == "global":
        assert rate.min() == rate.max()


def test_the_denoiser_sees_the_noise_level_of_each_pixel():
    network = shaken(CVDM(CVDMConfig(condition_channels=1, denoiser=SMALL, mean=SMALL_MEAN)))
    first_layer_features, noisy = (
        network.first_layer_features(
            network.features(torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32))
        ),
        torch.zeros(1, 1, 32, 32),
    )
    neg_log_gamma = torch.full((1, 1, 32, 32), 0.5)
    other = neg_log_gamma.clone()
    other[..., :16] = 3.0
    assert (
        network.output(noisy, neg_log_gamma, first_layer_features)
        - network.output(noisy, other, first_layer_features)
    ).abs().max() > 1e-4


@pytest.mark.parametrize("push", [-1e6, 0.0, 1e6])
def test_the_predicted_error_is_bounded(push):
    """The predicted error stays within a factor of e^4 of the residual scale.

    That holds for any output of the network. No gradient is lost at the middle.
    """
    network = CVDM(
        CVDMConfig(condition_channels=1, denoiser=SMALL, mean=SMALL_MEAN, residual_std=SMALL_MEAN)
    )
    network.residual_scale.fill_(0.3)
    torch.nn.init.constant_(network.std_network.exit.bias, push)
    std = network.residual_std(
        network.features(torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32))
    )
    torch.testing.assert_close(
        std,
        torch.full_like(std, 0.3 * math.exp(math.copysign(LARGEST_LOG_STD, push) if push else 0)),
    )


def test_tiles_do_not_change_the_predicted_error():
    config = CVDMConfig(
        condition_channels=2, denoiser=SMALL, mean=SMALL_MEAN, residual_std=SMALL_MEAN
    )
    network, image = shaken(CVDM(config)).double(), torch.randn(1, 2, 96, 80, dtype=torch.float64)
    features = network.features(image, network.mean_residual(image))
    whole, parts = (
        finished(TiledModel(network, (96, 80), tile).residual_std(features)) for tile in (200, 32)
    )
    torch.testing.assert_close(parts, whole)


def test_a_checkpoint_is_what_was_saved(tiny_phase_model, tmp_path):
    first = load_checkpoint(tiny_phase_model)
    save_checkpoint(tmp_path / "copy", first.network, first.card)
    second = load_checkpoint(tmp_path / "copy")
    assert second.card == first.card
    assert second.sha256 == first.sha256
    for name, tensor in first.network.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[name])


def test_a_checkpoint_holds_no_pickle(tiny_phase_model):
    assert sorted(path.suffix for path in tiny_phase_model.iterdir()) == [".json", ".safetensors"]
    assert load_file(tiny_phase_model / "model.safetensors")


def damaged(folder, tmp_path, name, change):
    """A copy of a checkpoint with one file changed."""
    copy = tmp_path / "damaged"
    copy.mkdir()
    for path in folder.iterdir():
        data = path.read_bytes()
        (copy / path.name).write_bytes(change(data) if path.name == name else data)
    return copy


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.safetensors", lambda data: data[: len(data) // 2]),
        ("model.safetensors", lambda data: b""),
        ("model.safetensors", lambda data: b"\x80\x04" + data),
        ("card.json", lambda data: b"{"),
        ("card.json", lambda data: b"[]"),
        ("card.json", lambda data: b"\xff\xfe"),
        ("card.json", lambda data: data.replace(b'"format": 1', b'"format": 99')),
        ("card.json", lambda data: data.replace(b'"prediction": "v"', b'"prediction": "w"')),
    ],
)
def test_damaged_checkpoints_are_refused_in_one_line(tiny_phase_model, tmp_path, name, change):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(damaged(tiny_phase_model, tmp_path, name, change))
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_are_refused(tiny_phase_model, tmp_path):
    def wider(data):
        card = json.loads(data)
        card["network"]["denoiser"]["widths"] = [16, 16]
        return json.dumps(card).encode()

    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_checkpoint(damaged(tiny_phase_model, tmp_path, "card.json", wider))


def test_an_unknown_model_is_answered_with_the_known_ones():
    with pytest.raises(CheckpointError, match="phase-2shot"):
        model_folder("phase-3shot")


def test_shipped_models_are_complete_and_small():
    cards = dict(shipped_models())
    assert sorted(cards) == ["phase-2shot", "widefield-x2"]
    for name, card in cards.items():
        model = load_model(name)
        assert model.card == card
        assert card.licence
        assert card.limits
        assert card.metrics
        assert card.optics
        assert sum(path.stat().st_size for path in model_folder(name).iterdir()) <= 12e6


def test_loading_a_model_again_and_again_leaves_nothing_behind(tiny_phase_model):
    """Loading a model again leaves hardly any memory behind.

    safetensors 0.8.0 leaves two objects of every tensor when it reads a file: some 25 KiB for seven
    loads, found by `python -m tests.stress.soak`.

    In a process of its own, where nothing but the loading takes blocks, and after what the first
    twenty loads of a process keep for all later ones.
    """
    code = f"""
import gc, sys
from pathlib import Path
from napari_cvdm.models.checkpoint import load_checkpoint

def blocks():
    gc.collect()
    return sys.getallocatedblocks()

for _ in range(20):
    tensors = len(load_checkpoint(Path({str(tiny_phase_model)!r})).network.state_dict())
before = blocks()
for _ in range(10):
    load_checkpoint(Path({str(tiny_phase_model)!r}))
print(blocks() - before, tensors)
"""
    grown, tensors = map(
        int,
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split(),
    )
    assert grown < 10 * tensors / 2
