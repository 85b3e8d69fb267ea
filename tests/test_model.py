"""The networks: locality, exact rebuilding from a card, and files that cannot be trusted."""

import gc
import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from napari_cvdm.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from napari_cvdm.model.cvdm import CVDM, CVDMConfig
from napari_cvdm.model.schedule import RATE_MAX, RATE_MIN
from napari_cvdm.model.unet import UNet, UNetConfig
from napari_cvdm.model.zoo import load_model, model_folder, shipped_models

SMALL = UNetConfig(widths=(4, 8, 8), blocks=(1, 1, 1), level_channels=4)
SMALL_MEAN = UNetConfig(widths=(4, 8, 8), blocks=(1, 1, 1), level_channels=0)


def shaken(module, seed=0):
    """The module with every parameter random: fresh networks start at zero output and hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.mark.parametrize("shape", [SMALL, UNetConfig(widths=(4, 6), blocks=(2, 1), level_channels=4)])
def test_nothing_beyond_the_receptive_radius_changes_a_pixel(shape):
    network = shaken(UNet(2, 1, shape)).double()
    radius = shape.receptive_radius
    size = -(-(2 * radius + 20) // shape.stride) * shape.stride
    image, level = torch.randn(1, 2, size, size, dtype=torch.float64), torch.zeros(1, 1, size, size, dtype=torch.float64)
    changed = image.clone()
    changed[..., 0, 0] += 10.0
    difference = (network(changed, level) - network(image, level)).abs()[0, 0]
    assert difference[0, 0] > 0
    assert difference[radius + 1 :, :].max() == 0
    assert difference[:, radius + 1 :].max() == 0


@pytest.mark.parametrize("schedule", ["pixel-wise", "global"])
@pytest.mark.parametrize("target", ["zero-mean", "residual", "direct"])
@pytest.mark.parametrize("upsampling", [1, 2])
def test_every_kind_of_model_has_the_right_shapes_and_decodes_what_it_encodes(schedule, target, upsampling):
    config = CVDMConfig(condition_channels=3, upsampling=upsampling, denoiser=SMALL, mean=SMALL_MEAN, schedule=schedule, target=target)
    network = shaken(CVDM(config))
    network.residual_scale.fill_(0.3)
    condition = torch.randn(2, 3, 16, 24)
    fine = (2, 1, 16 * upsampling, 24 * upsampling)
    correction = network.correction(condition)
    features = network.features(condition, correction)
    rate = network.rate(features)
    assert correction.shape == rate.shape == fine
    assert ((rate >= RATE_MIN) & (rate <= RATE_MAX)).all()
    assert network.clean(torch.randn(fine), rate * 0.5, features).shape == fine
    truth, baseline = torch.randn(fine), torch.randn(fine)
    torch.testing.assert_close(network.decode(network.encode(truth, baseline, correction), baseline, correction), truth)
    if schedule == "global":
        assert rate.min() == rate.max()


def test_the_denoiser_sees_the_noise_level_of_each_pixel():
    network = shaken(CVDM(CVDMConfig(condition_channels=1, denoiser=SMALL, mean=SMALL_MEAN)))
    features, noisy = network.features(torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)), torch.zeros(1, 1, 32, 32)
    exponent = torch.full((1, 1, 32, 32), 0.5)
    other = exponent.clone()
    other[..., :16] = 3.0
    assert (network.output(noisy, exponent, features) - network.output(noisy, other, features)).abs().max() > 1e-4


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
    """safetensors 0.8.0 leaves two objects of every tensor when it reads a file: some 25 KiB for seven loads, found by `python -m benchmarks.soak`."""

    def blocks():
        gc.collect()
        return sys.getallocatedblocks()

    for _ in range(3):
        tensors = len(load_checkpoint(tiny_phase_model).network.state_dict())
    before = blocks()
    for _ in range(10):
        load_checkpoint(tiny_phase_model)
    assert blocks() - before < 10 * tensors / 2
