"""What is written survives power cuts, links, signals, other writers and leftovers."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from power_cuts import UnsafeDisk

from napari_cvdm.io import ImageFileError, folders, output_folder, write_image
from napari_cvdm.io.atomic import (
    append_text,
    clear_leftovers,
    complete_file,
    sole_writer,
    temporary_name,
    write_file,
)
from napari_cvdm.io.folders import check_no_overlap, find_foreign, renew_manifest

posix = pytest.mark.skipif(sys.platform == "win32", reason="links and locks are those of POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="open folders have names in /proc there")


def make_result(target: Path, text: str = "new", overwrite: bool = False) -> Path:
    """A result of two files, one in a folder below."""
    with output_folder(target, overwrite) as folder:
        (folder / "provenance.json").write_text(text)
        (folder / "maps").mkdir()
        (folder / "maps" / "mean.bin").write_text(text)
    return target


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@linux
def test_content_is_synced_before_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = UnsafeDisk(tmp_path, monkeypatch)
    write_file(tmp_path / "deep" / "card.json", b"{}", within=tmp_path)
    kinds = [kind for kind, _ in disk.log]
    assert kinds == ["mkdir", "fsync", "fsync", "replace", "fsync"]
    assert disk.log[1] == ("fsync", tmp_path.name)
    assert disk.log[3:] == [("replace", "card.json"), ("fsync", "deep")]


@linux
@pytest.mark.parametrize("exchanged", [True, False])
def test_a_power_cut_leaves_the_older_or_the_newer_result(
    exchanged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the power fails, the next look at the folder finds one of the two, whole."""
    older, newer = (make_result(tmp_path / name, name) for name in ("old", "new"))
    wanted = [content(older), content(newer)]
    root = tmp_path / "disk"
    root.mkdir()
    make_result(root / "result", "old")
    if not exchanged:
        monkeypatch.setattr(folders, "_exchange", lambda *names: False)
    copies = {number: tmp_path / f"cut-{number}" for number in range(100)}
    UnsafeDisk(root, monkeypatch, copies)
    make_result(root / "result", "new", overwrite=True)
    found = [path for path in copies.values() if path.exists()]
    assert 10 < len(found) < 100
    monkeypatch.undo()
    for cut in found:
        clear_leftovers(cut)
        if not (cut / "result").exists():
            assert not exchanged
            with pytest.raises(ImageFileError, match="exists already"):  # it has its name again
                folders.target_folder(cut / "result", False, "provenance.json")
        assert content(cut / "result") in wanted
        assert [path.name for path in cut.iterdir()] == ["result"]


@posix
@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_is_written_through_a_link(dangling: bool, tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "named"
    outside.mkdir()
    folder.mkdir()
    if not dangling:
        (outside / "secret").write_bytes(b"mine")
    before = content(outside)
    for name in ("a.json", "b.ome.tif", "log.csv"):
        (folder / name).symlink_to(outside / "secret")
    (folder / "below").symlink_to(outside, target_is_directory=True)
    write_file(folder / "a.json", b"ours")
    write_image(
        folder / "b.ome.tif",
        np.ones((4, 4), np.float32),
        axes="YX",
        pixel_um=None,
        unit="rad",
        name="mean",
    )
    with pytest.raises(ImageFileError, match="is a link"):
        append_text(folder / "log.csv", "ours")
    with pytest.raises(ImageFileError, match="below: is a link"):
        write_file(folder / "below" / "c.json", b"ours", within=folder)
    assert content(outside) == before
    assert (folder / "a.json").read_bytes() == b"ours" and not (folder / "a.json").is_symlink()


def test_temporary_names_cannot_be_foreseen_and_are_not_shared(tmp_path: Path) -> None:
    seen = set()
    for _ in range(20):
        with complete_file(tmp_path / "a") as file:
            file.write(b"1")
            seen |= {path.name for path in tmp_path.iterdir()} - {"a"}
    assert len(seen) == 20


@posix
def test_leftovers_of_killed_runs_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    (tmp_path / temporary_name()).write_bytes(b"half")
    (tmp_path / temporary_name() / "deep").mkdir(parents=True)
    (tmp_path / temporary_name()).symlink_to(tmp_path)
    (tmp_path / "thesis.part").touch()
    with complete_file(tmp_path / "a") as file, output_folder(tmp_path / "result", False) as work:
        file.write(b"alive")
        make_result(tmp_path / "other")
        assert work.is_dir()
        living = {path.name for path in tmp_path.iterdir()} - {"thesis.part", "other"}
        assert len(living) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"a", "other", "result", "thesis.part"}
    assert (tmp_path / "a").read_bytes() == b"alive"


@posix
def test_what_a_killed_process_leaves_is_cleared_by_the_next_run(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from napari_cvdm.io import output_folder\n"
        "from napari_cvdm.io.atomic import complete_file\n"
        "place = Path(sys.argv[1])\n"
        "with complete_file(place / 'a') as file, output_folder(place / 'result', False) as work:\n"
        "    (work / 'mean').write_text('half'); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    make_result(tmp_path / "result")
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


@posix
def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    with sole_writer(tmp_path):
        with (
            pytest.raises(ImageFileError, match="another napari-cvdm writes"),
            sole_writer(tmp_path),
        ):
            raise AssertionError("the work must not start")
    with sole_writer(tmp_path):
        pass


@pytest.mark.parametrize("exchanged", [True, False])
@pytest.mark.parametrize("moment", range(4))
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_during_the_exchange_leaves_one_of_the_two_results(
    name: str, moment: int, exchanged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes before or after a rename; what it does is done when both are over."""
    target = make_result(tmp_path / "result", "old")
    really, calls = {"rename": os.rename, "_exchange": folders._exchange}, []

    def interrupted(kind: str) -> Callable[..., object]:
        def call(*names: Path) -> object:
            calls.append(kind)
            if kind == "_exchange" and not exchanged:
                return False
            for place in (0, 1):
                if len(calls) - 1 == moment and place == 0:
                    signal.raise_signal(getattr(signal, name))
                if place == 0:
                    done = really[kind](*names)
            return done

        return call

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupted("rename"))
    monkeypatch.setattr(folders, "_exchange", interrupted("_exchange"))
    before = signal.signal(getattr(signal, name), stop)
    try:
        make_result(target, "new", overwrite=True)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(getattr(signal, name), before)
    monkeypatch.undo()
    texts = set(content(target)[name] for name in ("provenance.json", "maps/mean.bin"))
    assert texts in ({b"old"}, {b"new"})
    make_result(tmp_path / "next")  # the next run clears what is left
    assert {path.name for path in tmp_path.iterdir()} == {"result", "next"}


@pytest.mark.parametrize(
    "plant",
    [
        lambda folder: (folder / "thesis.doc").write_text("all of it"),
        lambda folder: (folder / "maps" / "deep").mkdir() or (folder / "maps/deep/a").touch(),
        lambda folder: (folder / "provenance.json").write_text("my notes"),
        lambda folder: (folder / "maps" / "mean.bin").write_text("longer than it was"),
        lambda folder: (folder / "link").symlink_to(folder.parent),
    ],
)
def test_a_folder_with_anything_else_in_it_is_refused_and_the_file_is_named(
    plant: Callable[[Path], object], tmp_path: Path
) -> None:
    target = make_result(tmp_path / "result")
    assert find_foreign(target) is None
    before = set(content(target).items())
    plant(target)
    changed = {name for name, _ in set(content(target).items()) - before} or {"link"}
    with pytest.raises(ImageFileError, match=rf"holds {changed.pop()}, .*never overwritten"):
        make_result(target, overwrite=True)


def test_a_file_that_comes_during_the_work_is_not_lost(tmp_path: Path) -> None:
    target = make_result(tmp_path / "result", "old")
    with (
        pytest.raises(ImageFileError, match="holds thesis"),
        output_folder(target, True) as folder,
    ):
        (folder / "provenance.json").write_text("new")
        (target / "thesis.doc").write_text("all of it")
    assert (target / "thesis.doc").read_text() == "all of it"
    assert (target / "provenance.json").read_text() == "old"


def test_what_this_program_replaced_itself_is_its_own(tmp_path: Path) -> None:
    target = make_result(tmp_path / "result")
    write_file(target / "provenance.json", b"calibrated")
    assert find_foreign(target) == "provenance.json"
    renew_manifest(target / "provenance.json")
    assert find_foreign(target) is None


def test_a_result_of_the_first_version_is_known_by_names_and_provenance(tmp_path: Path) -> None:
    """It has no manifest. Another program's folder of these names is not ours."""
    target = tmp_path / "result"
    target.mkdir()
    for name in ("mean", "std", "variance", "rate", "valid"):
        (target / f"{name}.ome.tif").touch()
    (target / "provenance.json").write_text('{"made by": "another program"}')
    assert find_foreign(target) == "mean.ome.tif"
    (target / "provenance.json").write_text('{"versions": {"napari-cvdm": "0.1.0"}}')
    assert find_foreign(target) is None
    (target / "notes.txt").touch()
    assert find_foreign(target) == "notes.txt"
    (target / "notes.txt").unlink()
    make_result(target, overwrite=True)


@posix
@pytest.mark.parametrize("way", ["plain", "link", "relative", "below", "hard link below"])
def test_a_result_never_takes_the_place_of_an_input(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = make_result(tmp_path / "out")
    given = out
    if way == "link":
        given = tmp_path / "link"
        given.symlink_to(out)
    elif way == "relative":
        monkeypatch.chdir(tmp_path)
        given = Path("out") / ".." / "out"
    elif way == "below":
        given = out / "maps" / "mean.bin"
    elif way == "hard link below":  # another name of the input goes, the input stays
        given = tmp_path / "image.bin"
        os.link(out / "maps" / "mean.bin", given)
        make_result(out, "other", overwrite=True)
        assert given.read_text() == "new"
        return
    with pytest.raises(ImageFileError, match="choose another folder"):
        check_no_overlap(out, [given])
    check_no_overlap(out, [tmp_path])
