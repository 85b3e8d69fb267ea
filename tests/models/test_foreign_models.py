"""What SECURITY.md promises of models from strangers, promise by promise."""

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from tests.stress.fuzzing.watch import confined, frugal

from napari_cvdm.cli import main
from napari_cvdm.cli.models import description
from napari_cvdm.models import registry
from napari_cvdm.models.bundle import LARGEST_BYTES, LARGEST_EXPANSION, add_model, write_bundle
from napari_cvdm.models.checkpoint import (
    CARD,
    WEIGHTS,
    CheckpointError,
    card_of,
    load_checkpoint,
    read_card,
)
from napari_cvdm.models.cvdm import CVDMConfig, regression_network
from napari_cvdm.models.networks import DFCANConfig, UNetConfig
from napari_cvdm.models.registry import models_in


@pytest.fixture
def stranger(tiny_widefield_model: Path, tmp_path: Path) -> Path:
    """A folder with a model from somebody else."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    for path in tiny_widefield_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def with_card(folder: Path, change: Callable[[dict], object]) -> Path:
    """The model with another card."""
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    change(card)
    (folder / CARD).write_text(json.dumps(card), encoding="utf-8")
    return folder


def refused(source: Path, mine: Path, words: str) -> None:
    """The model is refused in one line, with little memory, and nothing is left of it."""
    with confined(mine.parent), frugal(), pytest.raises(CheckpointError, match=words) as refusal:
        add_model(source, mine)
    assert "\n" not in str(refusal.value)
    assert not mine.exists()


def bomb(
    path: Path, stored: int, *, lie: int | None = None, method: int = zipfile.ZIP_DEFLATED
) -> Path:
    """A bundle whose weights unpack to zeros."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(CARD, "{}")
        archive.writestr(WEIGHTS, bytes(stored))
    if lie is not None:
        content = path.read_bytes()
        path.write_bytes(content.replace(struct.pack("<I", stored), struct.pack("<I", lie)))
    return path


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    refused(bomb(tmp_path / "bomb.zip", 30 << 20), tmp_path / "mine", "would unpack to")


def test_a_zip_that_says_to_be_small_is_unpacked_no_further_than_it_says(
    stranger: Path, tmp_path: Path
) -> None:
    path = bomb(tmp_path / "bomb.zip", 30 << 20, lie=500_000)
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo(WEIGHTS).file_size == 500_000
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.write(stranger / CARD, CARD)
    refused(path, tmp_path / "mine", "a model bundle holds")
    with zipfile.ZipFile(tmp_path / "second.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(stranger / CARD, CARD)
        archive.writestr(WEIGHTS, bytes(30 << 20))
    content = (
        (tmp_path / "second.zip")
        .read_bytes()
        .replace(struct.pack("<I", 30 << 20), struct.pack("<I", 500_000))
    )
    (tmp_path / "second.zip").write_bytes(content)
    refused(tmp_path / "second.zip", tmp_path / "mine", "cannot be read as a model")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_only_the_packing_of_this_program_is_unpacked(method: int, tmp_path: Path) -> None:
    refused(bomb(tmp_path / "odd.zip", 1000, method=method), tmp_path / "mine", "packed in a way")


def test_the_limits_leave_room_for_every_real_model(stranger: Path, tmp_path: Path) -> None:
    bundle = write_bundle(stranger, tmp_path / "model.zip")
    with zipfile.ZipFile(bundle) as archive:
        for member in archive.infolist():
            assert member.file_size < LARGEST_BYTES[member.filename]
            assert 10 * member.file_size < LARGEST_EXPANSION * member.compress_size


def test_a_symlink_in_a_zip_becomes_no_symlink(stranger: Path, tmp_path: Path) -> None:
    path = tmp_path / "link.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo(WEIGHTS)
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.write(stranger / CARD, CARD)
    refused(path, tmp_path / "mine", "cannot be loaded")


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("name", [CARD, WEIGHTS])
def test_a_symlink_in_a_folder_is_not_followed(stranger: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    (stranger / name).rename(secret)
    (stranger / name).symlink_to(secret)
    refused(stranger, tmp_path / "mine", "no link")


@pytest.mark.parametrize("name", ["CON", "nul.txt", "com1", "LPT9", "a" * 101, "x" * 300])
def test_names_that_some_system_keeps_or_cannot_hold_are_refused(
    stranger: Path, tmp_path: Path, name: str
) -> None:
    refused(with_card(stranger, lambda card: card.update(name=name)), tmp_path / "mine", "is named")


@pytest.mark.parametrize(
    "shape",
    [
        {"widths": [4096] * 64},
        {"widths": [8, 16], "blocks": [10**9, 1]},
        {"widths": [10**9, 16]},
        {"level_channels": 10**9},
        {"widths": []},
        {"widths": [True, 16]},
        {"blocks": [1, -1]},
        {"widths": [4096, 4096]},
    ],
)
def test_a_card_that_asks_for_a_giant_network_gets_none(
    stranger: Path, tmp_path: Path, shape: dict
) -> None:
    refused(
        with_card(stranger, lambda card: card["network"]["denoiser"].update(shape)),
        tmp_path / "mine",
        "not a model card|not those of the network",
    )


@pytest.mark.parametrize("part", ["mean", "residual_std"])
@pytest.mark.parametrize(
    "shape",
    [
        {"width": 10**9},
        {"groups": 10**9},
        {"blocks": 10**9},
        {"blocks": 0},
        {"reduction": 0},
        {"width": True},
        {"groups": 2.5},
        {"width": 1024, "groups": 32, "blocks": 32},
    ],
)
def test_every_network_of_a_card_is_bounded(
    stranger: Path, tmp_path: Path, part: str, shape: dict
) -> None:
    dfcan = {"width": 8, "groups": 1, "blocks": 1, "reduction": 2, **shape}
    path = with_card(stranger, lambda card: card["network"].update({part: dfcan}))
    refused(path, tmp_path / "mine", "not a model card")


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(),
        UNetConfig(widths=(8, 16, 32), blocks=(1, 0, 2), level_channels=0),
        UNetConfig(widths=(7,), blocks=(3,), level_channels=5),
        DFCANConfig(width=20, groups=3, blocks=2, reduction=7),
    ],
)
def test_parameters_are_counted_as_the_network_has_them(config: UNetConfig | DFCANConfig) -> None:
    network = regression_network(4, 3, config)
    (first,) = {network.entry.out_channels}
    count = sum(parameter.numel() for parameter in network.parameters())
    assert config.count_parameters(7) == count - first - 3


def test_networks_of_many_channels_are_bounded_together() -> None:
    wide = UNetConfig(widths=(512, 512), blocks=(5, 5))
    CVDMConfig(condition_channels=1, mean=UNetConfig(level_channels=0), denoiser=wide)
    for more in ({"mean": wide, "denoiser": wide}, {"fold": 64, "condition_channels": 64}):
        with pytest.raises(ValueError, match="at most 100,000,000 are allowed"):
            CVDMConfig(**{"condition_channels": 1, **more})


def test_weights_are_read_no_further_than_their_network_needs(
    stranger: Path, tmp_path: Path
) -> None:
    with (stranger / WEIGHTS).open("r+b") as file:
        file.truncate(4 << 30)  # with holes: it takes no disk
    with frugal(), pytest.raises(CheckpointError, match="is larger than"):
        load_checkpoint(stranger)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are Unix's")
@pytest.mark.parametrize(
    "make", [getattr(os, "mkfifo", None), lambda path: path.symlink_to("/dev/zero")]
)
@pytest.mark.parametrize("name", [CARD, WEIGHTS, ""])
def test_pipes_and_devices_are_no_model(
    stranger: Path, tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    path = stranger / name if name else tmp_path / "model.zip"
    path.unlink(missing_ok=True)
    make(path)
    refused(stranger if name else path, tmp_path / "mine", "no model|no link")
    if name:
        with pytest.raises(CheckpointError, match="no regular file"):
            load_checkpoint(stranger)
        assert [card.name for _, card in models_in(tmp_path)] == []


NUMBERS = ["1" + "0" * 400, "-1" + "0" * 5000, "1e999", "NaN", "-1", '"x"', "[]", "{}", "null"]


@pytest.mark.parametrize(
    "place",
    [
        ("format",),
        ("optics", "pixel_um", 0),
        ("network", "noise_scale"),
        ("network", "fold"),
        ("calibration", "factor"),
        ("calibration", "level"),
        ("calibration", "samples"),
        ("training", "simulation", "strength_rad"),
        ("training", "simulation", "blur_periods"),
        ("training", "plan", "learning_rate"),
        ("training_distribution", "threshold"),
        ("training_distribution", "mean", 0),
        ("training_distribution", "covariance", 1),
        ("metrics", "held_out"),
    ],
)
@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_in_a_card_is_shown_or_refused_in_one_line(
    stranger: Path, tmp_path: Path, place: tuple, number: str
) -> None:
    def change(card: dict) -> None:
        card["calibration"] = {"factor": 2.0, "level": 0.9, "floor": 0.0, "samples": 8, "steps": 6}
        card["calibration"] |= {"sampler": "sde-2m", "set": "a set", "fields": 3, "date": ""}
        card["training"] = {"simulation": {}, "plan": {}}
        card["training_distribution"] = {"threshold": 1.0, "mean": [0.0, 0.0]}
        card["training_distribution"]["covariance"] = [[1.0, 0.0], [0.0, 1.0]]
        for key in place[:-1]:
            card = card[key]
        card[place[-1]] = "@"

    with_card(stranger, change)
    text = (stranger / CARD).read_text(encoding="utf-8")
    (stranger / CARD).write_text(text.replace('"@"', number), encoding="utf-8")
    found = list(models_in(tmp_path))  # never hides the others
    if found:
        assert description("it", read_card(stranger), 1)
    else:
        with pytest.raises(CheckpointError) as refusal:
            read_card(stranger)
        assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 700


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", [CARD, WEIGHTS])
def test_a_bad_folder_does_not_hide_the_list(
    stranger: Path,
    tmp_path: Path,
    name: str,
    damage: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(stranger, tmp_path / "whole")
    damage(stranger / name)
    monkeypatch.setattr(registry, "SHIPPED", tmp_path)
    for words in (["models"], ["models", "list"], ["models", "--json"]):
        assert main(words) == 0
        assert "whole" in capsys.readouterr().out


@pytest.mark.parametrize(
    "entry",
    [
        {"fold": 10**6},
        {"condition_channels": 10**6},
        {"upsampling": 0},
        {"fold": "2"},
        {"upsampling": True},
    ],
)
def test_a_card_with_counts_that_no_network_has_is_refused(
    stranger: Path, tmp_path: Path, entry: dict
) -> None:
    refused(
        with_card(stranger, lambda card: card["network"].update(entry)),
        tmp_path / "mine",
        "not a model card",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("title", 5),
        ("limits", [1]),
        ("channels", "rate"),
        ("unit", None),
        ("optics", {"na": [1.0, 0.5]}),
    ],
)
def test_a_card_that_cannot_be_shown_is_refused(
    stranger: Path, tmp_path: Path, name: str, value: object
) -> None:
    refused(
        with_card(stranger, lambda card: card.update({name: value})),
        tmp_path / "mine",
        "not a model card",
    )


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int32, torch.float64])
def test_weights_of_another_kind_are_refused(
    stranger: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    tensors = load((stranger / WEIGHTS).read_bytes())
    (stranger / WEIGHTS).write_bytes(
        save({name: tensor.to(dtype) for name, tensor in tensors.items()})
    )
    refused(stranger, tmp_path / "mine", "16 or 32 bits")


@pytest.mark.parametrize(
    "content", [b"\x80\x04\x95pickle", b"PK\x03\x04 a torch file", b"\x7fELF", b"MZ"]
)
def test_what_is_no_safetensors_is_never_unpickled_or_run(
    stranger: Path, tmp_path: Path, content: bytes
) -> None:
    (stranger / WEIGHTS).write_bytes(content + bytes(100))
    refused(stranger, tmp_path / "mine", "cannot be loaded")


def test_a_good_model_is_added_with_no_network_and_no_program_and_its_hash_is_that_of_its_file(
    stranger: Path, tmp_path: Path
) -> None:
    bundle = write_bundle(stranger, tmp_path / "model.zip")
    with confined(tmp_path):
        folder = add_model(bundle, tmp_path / "mine")
        added = load_checkpoint(folder)
    assert added.sha256 == load_checkpoint(stranger).sha256
    weights = bytearray((folder / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS).write_bytes(weights)
    assert load_checkpoint(folder).sha256 != added.sha256


def test_configs_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="allowed are 1 to"):
        UNetConfig(widths=(0,), blocks=(1,))
    with pytest.raises(ValueError, match="whole number from 1"):
        CVDMConfig(condition_channels=0)
    with pytest.raises(ValueError, match="as many of both"):
        replace(UNetConfig(), blocks=(1,))
    with pytest.raises(KeyError):
        card_of({})
