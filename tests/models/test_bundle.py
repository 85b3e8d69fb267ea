"""A model in one file: what went in comes out, and nothing else ever does."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from napari_cvdm.cli import main
from napari_cvdm.io import ImageFileError
from napari_cvdm.models.bundle import add_model, write_bundle
from napari_cvdm.models.checkpoint import CARD, WEIGHTS, CheckpointError, load_checkpoint
from napari_cvdm.models.registry import models_in


def files_in(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "written.json"
    }


@pytest.fixture
def bundle(tiny_phase_model: Path, tmp_path: Path) -> Path:
    return write_bundle(tiny_phase_model, tmp_path / "out" / "model.zip")


def test_a_model_comes_back_byte_for_byte_under_the_name_in_its_card(
    tiny_phase_model: Path, bundle: Path, tmp_path: Path
) -> None:
    folder = add_model(bundle, tmp_path / "mine")
    assert folder == tmp_path / "mine" / "tiny-phase-2shot"
    assert files_in(folder) == {CARD, WEIGHTS}
    for name in (CARD, WEIGHTS):
        assert (folder / name).read_bytes() == (tiny_phase_model / name).read_bytes()
    assert [path for path, _ in models_in(tmp_path / "mine")] == [str(folder)]
    assert load_checkpoint(folder).sha256 == load_checkpoint(tiny_phase_model).sha256


def test_the_same_model_makes_the_same_file(
    tiny_phase_model: Path, bundle: Path, tmp_path: Path
) -> None:
    assert (
        write_bundle(tiny_phase_model, tmp_path / "again.zip").read_bytes() == bundle.read_bytes()
    )
    assert files_in(tmp_path) == {"out/model.zip", "again.zip"}


def test_a_folder_is_added_as_a_bundle_is(tiny_widefield_model: Path, tmp_path: Path) -> None:
    folder = add_model(tiny_widefield_model, tmp_path / "mine")
    assert (folder / WEIGHTS).read_bytes() == (tiny_widefield_model / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "/tmp/evil.py",
        "card.json/../../evil",
        "setup.py",
        "sub/card.json",
        "CARD.JSON",
    ],
)
def test_a_bundle_with_anything_else_in_it_is_refused_and_leaves_nothing(
    bundle: Path, tmp_path: Path, name: str
) -> None:
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr(name, "print('never')")
    before = files_in(tmp_path)
    with pytest.raises(CheckpointError, match="nothing else"):
        add_model(bundle, tmp_path / "mine")
    assert files_in(tmp_path) == before
    assert not (tmp_path / "mine").exists()


def test_a_member_that_comes_twice_or_not_at_all_is_refused(bundle: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.zip"
    with zipfile.ZipFile(bundle) as whole, zipfile.ZipFile(alone, "w") as archive:
        archive.writestr(CARD, whole.read(CARD))
    with pytest.raises(CheckpointError, match="a model bundle holds"):
        add_model(alone, tmp_path / "mine")
    with zipfile.ZipFile(alone, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(CARD, "{}")
    with pytest.raises(CheckpointError, match="a model bundle holds"):
        add_model(alone, tmp_path / "mine")


@pytest.mark.parametrize("fault", ["cut", "flipped", "no zip", "empty"])
def test_a_damaged_bundle_is_refused_in_one_line_and_leaves_nothing(
    bundle: Path, tmp_path: Path, fault: str
) -> None:
    content = bytearray(bundle.read_bytes())
    if fault == "flipped":
        content[len(content) // 2] ^= 0xFF
    bundle.write_bytes(
        {"cut": content[:-200], "flipped": content, "no zip": b"no zip at all", "empty": b""}[fault]
    )
    with pytest.raises(CheckpointError) as refusal:
        add_model(bundle, tmp_path / "mine")
    assert str(bundle) in str(refusal.value) and "\n" not in str(refusal.value)
    assert not (tmp_path / "mine").exists()


def test_weights_of_another_model_are_refused_before_they_take_a_name(
    tiny_phase_model: Path, tiny_widefield_model: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed.zip"
    with zipfile.ZipFile(mixed, "w") as archive:
        archive.write(tiny_phase_model / CARD, CARD)
        archive.write(tiny_widefield_model / WEIGHTS, WEIGHTS)
    with pytest.raises(CheckpointError, match=r"mixed\.zip"):
        add_model(mixed, tmp_path / "mine")
    assert files_in(tmp_path) == {"mixed.zip"}


@pytest.mark.parametrize(
    "name", ["../up", "/etc/passwd", "", ".hidden", "a/b", "a\\b", "trailing.", 7, "line\nbreak"]
)
def test_a_name_in_the_card_is_never_a_way_out_of_the_folder(
    tiny_phase_model: Path, tmp_path: Path, name: object
) -> None:
    evil = tmp_path / "evil"
    evil.mkdir()
    card = json.loads((tiny_phase_model / CARD).read_text(encoding="utf-8"))
    (evil / CARD).write_text(json.dumps({**card, "name": name}), encoding="utf-8")
    (evil / WEIGHTS).write_bytes((tiny_phase_model / WEIGHTS).read_bytes())
    with pytest.raises(CheckpointError, match="name"):
        add_model(evil, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_an_older_model_stays_unless_it_is_to_be_replaced(bundle: Path, tmp_path: Path) -> None:
    folder = add_model(bundle, tmp_path / "mine")
    with pytest.raises(ImageFileError, match="exists already"):
        add_model(bundle, tmp_path / "mine")
    np.testing.assert_equal(
        files_in(add_model(bundle, tmp_path / "mine", overwrite=True)), files_in(folder)
    )


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("dangling", [False, True])
def test_a_bundle_is_not_written_through_a_link(
    dangling: bool, tiny_widefield_model: Path, tmp_path: Path
) -> None:
    outside, path = tmp_path / "outside", tmp_path / "model.zip"
    if not dangling:
        outside.write_bytes(b"mine")
    path.symlink_to(outside)
    write_bundle(tiny_widefield_model, path, overwrite=True)
    assert not path.is_symlink() and outside.exists() is not dangling
    assert dangling or outside.read_bytes() == b"mine"


def test_a_model_is_not_added_to_itself(bundle: Path, tmp_path: Path) -> None:
    folder = add_model(bundle, tmp_path / "mine")
    with pytest.raises(ImageFileError, match="choose another folder"):
        add_model(folder, tmp_path / "mine", overwrite=True)


def test_a_broken_model_is_not_passed_on(tiny_phase_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / CARD).write_bytes((tiny_phase_model / CARD).read_bytes())
    (broken / WEIGHTS).write_bytes((tiny_phase_model / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        write_bundle(broken, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_the_command_line_passes_a_model_on(
    tiny_widefield_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "passed on.zip"
    assert main(["export", str(tiny_widefield_model), "--out", str(file)]) == 0
    assert main(["export", str(tiny_widefield_model), "--out", str(file)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["export", str(tiny_widefield_model), "--out", str(file), "--overwrite"]) == 0
    assert main(["models", "add", str(file), "--to", str(tmp_path / "mine")]) == 0
    assert str(tmp_path / "mine" / "tiny-widefield-x2") in capsys.readouterr().out
    assert main(["export", str(tiny_widefield_model), "--out", str(tmp_path / "model.tar")]) == 2
    assert ".zip" in capsys.readouterr().err


def test_models_without_a_word_more_are_still_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "phase-2shot" in capsys.readouterr().out
