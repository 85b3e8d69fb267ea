"""Odd names, folders, accounts and streams.

Each is used as it is, or refused in one line. Nothing that is read is lost.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_cvdm.cli import main

RECIPE = Path(__file__).parents[2] / "recipes" / "smoke.toml"
Command = Callable[..., list[str]]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A good fluorescence image."""
    np.save(
        tmp_path / "image.npy", np.random.default_rng(0).poisson(100, (32, 32)).astype(np.float32)
    )
    return tmp_path / "image.npy"


@pytest.fixture
def command(image: Path, tiny_widefield_model: Path) -> Command:
    """Makes a command that reconstructs into a folder."""

    def restore(out: Path, image: Path = image, model: Path = tiny_widefield_model) -> list[str]:
        quick = ["--samples", "1", "--steps", "1", "--device", "cpu", "--pixel-um", "0.065"]
        return ["restore", str(image), "--model", str(model), "--out", str(out), *quick]

    return restore


def refused(
    arguments: list[str], words: tuple[str, ...], home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command ends with 2 and one line that has these words; the folder does not change."""
    before = {path: path.lstat().st_mtime_ns for path in home.rglob("*")}
    capfd.readouterr()
    assert main(arguments) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and not [word for word in words if word not in said], said
    assert {path: path.lstat().st_mtime_ns for path in home.rglob("*")} == before


def test_a_model_in_the_folder_is_not_replaced_even_when_asked(
    command: Command, tiny_widefield_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(command(out)) == 0
    model = shutil.copytree(tiny_widefield_model, out / "model")
    refused(
        [*command(out, model=model), "--overwrite"],
        (str(model), "lies in", "another folder"),
        tmp_path,
        capfd,
    )


def test_a_recipe_in_the_folder_is_not_replaced_even_when_asked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["simulate", "widefield", "--recipe", str(RECIPE), "--out", str(out)]) == 0
    recipe = shutil.copy(RECIPE, out)
    refused(
        ["simulate", "widefield", "--recipe", str(recipe), "--out", str(out), "--overwrite"],
        (str(recipe), "lies in"),
        tmp_path,
        capfd,
    )


@pytest.mark.parametrize("name", ["restore", "simulate", "train"])
def test_a_name_that_no_disk_takes_is_refused_with_advice(
    name: str, command: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("x" * 300)
    words = {
        "restore": command(out),
        "simulate": ["simulate", "phase", "--out", str(out)],
        "train": ["train", str(RECIPE), "--out", str(out)],
    }[name]
    refused(words, ("xxx", "Check the name"), tmp_path, capfd)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_loop_of_links_is_refused(
    command: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    refused(command(tmp_path / "loop"), ("loop", "another folder"), tmp_path, capfd)


def test_an_account_without_a_home_may_overwrite(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container with a number for a user, Path.home() raises RuntimeError."""

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    assert [main([*command(tmp_path / "out"), *more]) for more in ([], ["--overwrite"])] == [0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_a_file_name_may_hold_any_bytes(command: Command, image: Path, tmp_path: Path) -> None:
    path = image.rename(tmp_path / os.fsdecode(b"n\xff\n.npy"))
    assert main(command(tmp_path / "out", image=path)) == 0
    assert json.loads((tmp_path / "out" / "provenance.json").read_text(encoding="utf-8"))[
        "settings"
    ]["image"].endswith(".npy")


CLOSED, FULL, CUT = "<&- >&- 2>&-", ">/dev/full 2>&1", "2>&1 | true"
UNREAD = [CLOSED, FULL, CUT, ">&- 2>&-", "2>/dev/full", ">/dev/full", "| true"]


def status_of(line: str) -> int:
    """Exit status of the program at the head of a line for the shell."""
    done = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"], capture_output=True, check=False
    )
    assert b"Traceback" not in done.stderr
    return done.returncode


PROGRAM = [sys.executable, "-m", "napari_cvdm.cli"]
unix = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such shell there")


@unix
@pytest.mark.parametrize("unread", UNREAD)
def test_a_run_ends_as_it_would_where_nobody_reads_what_it_says(unread: str) -> None:
    assert status_of(f"{shlex.join([*PROGRAM, 'models', '--what'])} {unread}") == 2
    assert status_of(f"{shlex.join([*PROGRAM, 'restore', '--help'])} {unread}") == 0


@unix
@pytest.mark.parametrize("unread", [CLOSED, FULL, CUT])
def test_a_run_leaves_its_result_where_nobody_reads_what_it_says(
    unread: str, command: Command, tmp_path: Path
) -> None:
    assert status_of(f"{shlex.join([*PROGRAM, *command(tmp_path / 'out')])} {unread}") == 0
    assert (tmp_path / "out" / "mean.ome.tif").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such shell there")
def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "from napari_cvdm.cli import replace_streams; import sys; replace_streams();"
        f"file = open({str(tmp_path / 'file')!r}, 'w');"
        "print('out'); print('err', file=sys.stderr); file.write(str(file.fileno())); file.close()"
    )
    line = f"{shlex.join([sys.executable, '-c', code])} <&- >&- 2>&-"
    assert subprocess.run(line, shell=True, check=False).returncode == 0
    assert int((tmp_path / "file").read_text()) > 2


@unix
def test_a_list_of_models_may_be_cut_off() -> None:
    """In words and as JSON."""
    code = (
        "import sys; from napari_cvdm.cli import main; sys.argv[1:] = ['models']; first = main();"
        "sys.argv.append('--json'); sys.exit(first or main())"
    )
    with Path("/dev/full").open("w") as nobody:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
