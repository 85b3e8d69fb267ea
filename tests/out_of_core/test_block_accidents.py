"""A job by blocks that meets a power cut, a link, a changed image or its own remains."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_checkpoint
from power_cuts import UnsafeDisk
from small_images import spots, widefield_request
from zarr_results import ngff_image, stored

from napari_cvdm.cli import main
from napari_cvdm.core.result import finished as drained
from napari_cvdm.io import ImageFileError
from napari_cvdm.io.atomic import temporary_name
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from napari_cvdm.out_of_core import run
from napari_cvdm.out_of_core.job import BlockJob
from napari_cvdm.out_of_core.run import reconstruct_by_blocks

posix = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


@pytest.fixture(scope="module")
def model(tiny_denoising_model: Path) -> Checkpoint:
    """A denoiser: it is small, and reads nothing around a block."""
    return load_model(str(tiny_denoising_model))


def job_in(folder: Path, **choices: object) -> BlockJob:
    """Four blocks."""
    return BlockJob(
        request=widefield_request(spots((100, 120)), steps=1, samples=1),
        out=str(folder / "out.ome.zarr"),
        block=64,
        halo=0,
        **choices,
    )


@pytest.fixture(scope="module")
def undisturbed(model: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    job = job_in(tmp_path_factory.mktemp("whole"))
    drained(reconstruct_by_blocks(job, model))
    return stored(Path(job.out))


@pytest.fixture(scope="module")
def killed(model: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The growing folder of a job that was killed after two blocks."""
    folder = tmp_path_factory.mktemp("killed")
    steps, growing = reconstruct_by_blocks(job_in(folder), model), folder / "out.part.ome.zarr"
    while len(list(growing.glob(".napari-cvdm/done/*.json"))) < 2:
        next(steps)
    steps.close()
    return growing


@pytest.mark.skipif(sys.platform != "linux", reason="open folders have names in /proc there")
def test_a_power_cut_at_any_moment_costs_no_more_than_time(
    model: Checkpoint,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    disk = UnsafeDisk(root, monkeypatch)
    drained(reconstruct_by_blocks(job_in(root), model))
    moments = {*np.linspace(1, disk.operations - 1, 6).astype(int)}
    # A marker that is on the disk says that its chunks are.
    moments |= {
        number + 2
        for number, (kind, name) in enumerate(disk.log)
        if kind == "replace" and name.startswith("f0-y")
    }
    assert len(moments) >= 9
    monkeypatch.undo()
    shutil.rmtree(root)
    root.mkdir()
    copies = {int(number): tmp_path / f"cut-{number}" for number in moments}
    UnsafeDisk(root, monkeypatch, copies)
    drained(reconstruct_by_blocks(job_in(root), model))
    monkeypatch.undo()
    for cut in copies.values():
        if not (cut / "out.ome.zarr").exists():
            drained(reconstruct_by_blocks(job_in(cut), model))
        assert stored(cut / "out.ome.zarr") == undisturbed
        assert [path.name for path in cut.iterdir()] == ["out.ome.zarr"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff"])
@pytest.mark.parametrize("name", ["plan.json", "done", "frames"])
def test_a_note_that_was_cut_short_means_not_done(
    name: str,
    damage: bytes,
    model: Checkpoint,
    killed: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    """An unreadable plan is none; an unreadable marker costs its block, and no more."""
    note = shutil.copytree(killed, tmp_path / killed.name) / ".napari-cvdm" / name
    note = note if note.is_file() else next(iter(sorted(note.iterdir())))
    note.write_bytes(damage)
    made = drained(reconstruct_by_blocks(job_in(tmp_path), model))
    assert made.earlier == {"plan.json": 0, "done": 1, "frames": 2}[name]
    assert stored(Path(made.path)) == undisturbed


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_job_that_died_before_its_plan_is_begun_again(
    overwrite: bool, model: Checkpoint, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    notes = tmp_path / "out.part.ome.zarr" / ".napari-cvdm"
    notes.mkdir(parents=True)
    (notes / temporary_name()).write_bytes(b'{"version"')
    (notes / ".plan.json.0123abcd.part").write_bytes(b'{"version"')  # of 0.1.0
    made = drained(reconstruct_by_blocks(job_in(tmp_path, overwrite=overwrite), model))
    assert made.earlier == 0 and stored(Path(made.path)) == undisturbed
    assert not list(Path(made.path).rglob("*.part"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_growing_folder_with_a_foreign_file_is_left_alone(
    overwrite: bool, model: Checkpoint, tmp_path: Path
) -> None:
    growing = tmp_path / "out.part.ome.zarr"
    growing.mkdir()
    (growing / "thesis.txt").write_text("all of it")
    with pytest.raises(ImageFileError, match=r"thesis\.txt: is not of this job"):
        drained(reconstruct_by_blocks(job_in(tmp_path, overwrite=overwrite), model))
    assert (growing / "thesis.txt").read_text() == "all of it"


def test_a_file_that_comes_during_a_job_does_not_become_its_own(
    model: Checkpoint, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    steps, growing = reconstruct_by_blocks(job_in(tmp_path), model), tmp_path / "out.part.ome.zarr"
    while not growing.exists():
        next(steps)
    (growing / "thesis.txt").write_text("all of it")
    with pytest.raises(ImageFileError, match=r"thesis\.txt: is not of this job"):
        drained(steps)
    (growing / "thesis.txt").unlink()
    made = drained(reconstruct_by_blocks(job_in(tmp_path), model))
    assert made.earlier == made.blocks and stored(Path(made.path)) == undisturbed


@posix
@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize(
    "place",
    [
        *("mean/0/c/0/0", "mean/0/c", "mean", "provenance.json", ".napari-cvdm/plan.json"),
        *(".napari-cvdm/done", ".napari-cvdm/done/f0-y0-x64.json", ".napari-cvdm/frames/0.npz"),
        "",
    ],
)
def test_a_planted_link_lets_nothing_outside_be_changed(
    place: str, dangling: bool, model: Checkpoint, killed: Path, tmp_path: Path
) -> None:
    """Chunks, markers, plan, numbers, provenance, and the growing folder itself."""
    home = tmp_path / "home"
    outside, spot = tmp_path / "outside", shutil.copytree(killed, home / killed.name) / place
    if spot.is_dir():
        shutil.copytree(spot, outside) if not dangling else None
        shutil.rmtree(spot)
    else:
        spot.unlink(missing_ok=True)
        outside.write_bytes(b"mine") if not dangling else None
    spot.symlink_to(outside)
    before = stored(outside) if outside.is_dir() else outside.is_file() and outside.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(ImageFileError, match="is not of this job"):
            drained(reconstruct_by_blocks(job_in(home, overwrite=overwrite), model))
    after = stored(outside) if outside.is_dir() else outside.is_file() and outside.read_bytes()
    assert before == after and outside.exists() is not dangling


@pytest.mark.parametrize("kind", ["npy", "zarr", "shorter"])
def test_an_image_that_changes_ends_the_job_in_one_line(
    kind: str,
    model: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Blocks that were done before stay done, and none has pixels of two images."""
    image = spots((100, 120))
    source = tmp_path / ("in.ome.zarr" if kind == "zarr" else "in.npy")
    if kind == "zarr":
        ngff_image(source, image, "0.5")
    else:
        np.save(source, image.array)
    begin, seen = run.begin_block, []

    def changing(*given: object) -> object:
        seen.append(given)
        if len(seen) == 6:  # four parts for the rate, then blocks
            file = next(source.rglob("0")) if kind == "zarr" else source
            entry = next(path for path in (file, *file.rglob("*")) if path.is_file())
            pixels = entry.read_bytes()
            entry.write_bytes(pixels[:-8] if kind == "shorter" else pixels[:-8] + b"12345678")
            os.utime(entry, ns=(1, 1))
        return begin(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "begin_block", changing)
    folder = tmp_path / "model"
    tiny_checkpoint("denoise", folder)
    words = ["restore", str(source), "--model", str(folder), "--out", str(tmp_path / "o.ome.zarr")]
    words += ["--block", "64", "--halo", "0", "--samples", "1", "--steps", "1"]
    assert main([*words, "--pixel-um", "0.065", "--device", "cpu"]) == 2
    said = capsys.readouterr().err.replace("\r", "\n").splitlines()
    errors = [line for line in said if "error:" in line]
    assert len(errors) == 1 and "changed while the blocks were computed" in errors[0]
    assert not [line for line in said if "Traceback" in line]
    marks = list((tmp_path / "o.part.ome.zarr" / ".napari-cvdm" / "done").iterdir())
    assert len(marks) == 1


def test_an_image_is_never_its_own_result(model: Checkpoint, tmp_path: Path) -> None:
    """The result, and the folder in which it grows, are both no input."""
    job = job_in(tmp_path)
    drained(reconstruct_by_blocks(job, model))
    link = tmp_path / "link.ome.zarr"
    if sys.platform != "win32":
        link.symlink_to(job.out)
    for given in (job.out, str(link)) if link.exists() else (job.out,):
        with pytest.raises(ImageFileError, match="choose another folder"):
            replace(job, inputs=(given,), overwrite=True)
    growing = Path(job.out).rename(tmp_path / "out.part.ome.zarr")
    with pytest.raises(ImageFileError, match="choose another folder"):
        replace(job, inputs=(str(growing),))
    assert json.loads((growing / "provenance.json").read_text())
