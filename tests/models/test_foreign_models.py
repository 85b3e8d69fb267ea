"""What SECURITY.md promises of models from strangers, promise by promise."""

import json
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from tests.stress.fuzzing.watch import confined, frugal

from napari_cvdm.models.bundle import LARGEST_BYTES, LARGEST_EXPANSION, add_model, write_bundle
from napari_cvdm.models.checkpoint import CARD, WEIGHTS, CheckpointError, card_of, load_checkpoint
from napari_cvdm.models.cvdm import CVDMConfig
from napari_cvdm.models.networks import UNetConfig


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
