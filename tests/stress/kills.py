"""Kills and power cuts at random moments of every command that writes.

`python -m tests.stress.kills` gives each command 50 kills (SIGKILL) and 10 power cuts, goes on with
it as a user would, and compares all that is there with a run that nothing happened to. `--only` and
`--seed` choose commands and moments.

A power cut is a copy of a mounted disk image while the command is stopped (for root on Linux), and
a simulated disk that loses what was not synced. Half of the moments are random times. The others
are random changes of files, because the shortest gaps lie between those.
"""

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from paper.measure import Row, print_rows
from tests.forked import MODULES
from tests.forked import PROCESSES as FORKED
from tests.power_cuts import UnsafeDisk
from tests.stress.fuzzing.model_specimens import RECIPE, tiny_model
from tests.stress.fuzzing.specimens import pixels

from napari_cvdm.cli import main as command
from napari_cvdm.io import write_image
from napari_cvdm.io.atomic import LEFTOVERS
from napari_cvdm.io.folders import MANIFEST
from napari_cvdm.models.bundle import write_bundle
from napari_cvdm.training.recipe import read_recipe, write_recipe

KILLS, CUTS = 50, 10
MOST_IN_A_ROW = 3  # kills before a command may end
DISK_BYTES = 48 << 20
PATIENCE_S = 3600  # a busy machine is no failure
# Times of day, and the option with which a user goes on.
NOT_COMPARED = frozenset({"timings_s", "date", "overwrite"})
CHANGES = frozenset({"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link"})

COMMANDS = (f"napari_cvdm.cli.{name}" for name in ("restore", "calibrate", "models"))
FORKED.set_forkserver_preload(
    [*MODULES, *COMMANDS, "tests.stress.fuzzing.model_specimens", "paper.measure"]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command that writes.

    Parameters
    ----------
    name : str
    words : str
        The command. It runs in the user's folder; ``{inputs}`` holds what it reads.
    out : str
        What it makes there.
    again : str
        Added to go on where something is there.
    before : tuple of str
        Commands that may have run before, one a round; "" for none.
    whole : bool
        Whether what it makes is the older or the newer one at any moment.
    """

    name: str
    words: str
    out: str
    again: str = "--overwrite"
    before: tuple[str, ...] = ("",)
    whole: bool = True


_SHORT = "--samples 2 --steps 2 --device cpu"
_RESTORE = "restore {inputs}/image.tif --model {inputs}/model --pixel-um 0.065 " + _SHORT
_FOLDER = f"{_RESTORE} --out deep/er/out"
_BLOCKS = f"{_RESTORE} --block 64 --halo 0 --out out.ome.zarr"
_FACTOR = (
    "calibrate {inputs}/model --out model --fields 2 --level 0.5 --check 0 --field-px 32 " + _SHORT
)
_ADD = "models add {inputs}/model.zip --to models"
_IN_PLACE = "calibrate models/tiny-denoise --in-place --distribution --fields 14 --held-out 4"
JOBS = (
    Job(name="restore", words=_FOLDER, out="deep/er/out", before=("", f"{_FOLDER} --seed 1")),
    Job(name="blocks", words=_BLOCKS, out="out.ome.zarr", before=("", f"{_BLOCKS} --seed 1")),
    Job(
        name="train",
        words="train {inputs}/recipe.toml --out run --device cpu",
        out="run",
        again="--resume",
        whole=False,
    ),
    Job(name="calibrate", words=_FACTOR, out="model", before=("", f"{_FACTOR} --seed 1")),
    Job(
        name="calibrate in place",
        words=f"{_IN_PLACE} --field-px 32",
        out="models/tiny-denoise",
        again="",
        before=(_ADD,),
    ),
    Job(
        name="models add",
        words=_ADD,
        out="models/tiny-denoise",
        before=("", "models add {inputs}/other.zip --to models"),
    ),
)


def make_inputs(folder: Path) -> Path:
    """What the commands read."""
    folder.mkdir()
    model = tiny_model(folder / "model", "denoise")
    write_bundle(model, folder / "model.zip")
    card = json.loads((model / "card.json").read_text())
    other = shutil.copytree(model, folder / "other")
    (other / "card.json").write_text(json.dumps({**card, "title": "An older model"}))
    write_bundle(other, folder / "other.zip")
    image = pixels(100, 120).astype("float32")
    write_image(folder / "image.tif", image, axes="YX", pixel_um=0.065, unit="counts", name="image")
    recipe = read_recipe(RECIPE)
    short = {"mean_steps": 8, "diffusion_steps": 8, "save_every": 3, "log_every": 1}
    plan = replace(recipe.plan, **short, batch=2, pool_fields=2, fields_per_step=0.1)
    write_recipe(replace(recipe, plan=plan), folder / "recipe.toml")
    return folder


def make_user_folder(root: Path) -> Path:
    """A user's folder with files that no command may touch, and a temporary folder beside it."""
    home = root / "home"
    for name in ("thesis.txt", "data/cells.part", ".out.0123456789abcdef.keep"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("all of it")
    (root / "tmp").mkdir()
    return root


def tree(root: Path) -> dict[str, Any]:
    """Every file and folder below one, without times of day."""
    return {path.relative_to(root).as_posix(): _content(path) for path in sorted(root.rglob("*"))}


def _content(path: Path) -> Any:
    if path.is_symlink() or not path.is_file():
        return "link" if path.is_symlink() else "folder"
    if path.suffix != ".json":
        return path.read_bytes()
    if path.stat().st_size == 0:
        return b""
    values = _compared(json.loads(path.read_text()))
    if path.as_posix().endswith(MANIFEST):  # it has sizes of files that hold times of day
        values["written"] = {
            name: mark for name, mark in values["written"].items() if not name.endswith(".json")
        }
    return values


def _compared(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _compared(entry) for name, entry in value.items() if name not in NOT_COMPARED}
    return [_compared(entry) for entry in value] if isinstance(value, list) else value


def run_in_child(
    words: Sequence[str],
    root: Path,
    log: Path,
    moments: frozenset[int],
    number: int,
    copies: dict[int, Path] | None,
) -> None:
    """Run a command in the user's folder, in a process that has imported everything already.

    Parameters
    ----------
    log : Path
        For what is printed; ``.json`` beside it has the number of changes and of operations.
    moments : set of int
        Changes of files before which the process sends itself the signal `number`.
    copies : dict of int to Path, optional
        Operations before which the simulated disk is copied, see `UnsafeDisk`.
    """
    torch.set_num_threads(1)
    os.chdir(root / "home")
    os.environ["TMPDIR"] = tempfile.tempdir = str(root / "tmp")
    seen, watching = 0, True

    def watch(event: str, given: tuple[Any, ...]) -> None:
        nonlocal seen
        opened = event == "open" and isinstance(given[2], int) and given[2] & 3
        if watching and (opened or event in CHANGES):
            if seen in moments:
                os.kill(os.getpid(), number)
            seen += 1

    disk = None if copies is None else UnsafeDisk(root, pytest.MonkeyPatch(), copies)
    with log.open("w") as stream, redirect_stdout(stream), redirect_stderr(stream):
        sys.addaudithook(watch)
        code = command([*words])
    watching = False
    counts = {"changes": seen, "operations": 0 if disk is None else disk.operations}
    log.with_suffix(".json").write_text(json.dumps(counts))
    sys.exit(code)


def start(
    words: Sequence[str],
    root: Path,
    log: Path,
    moments: frozenset[int] = frozenset(),
    number: int = signal.SIGKILL,
    copies: dict[int, Path] | None = None,
) -> Any:
    """A process that runs a command; see `run_in_child`."""
    process = FORKED.Process(
        target=run_in_child, args=(list(words), root, log, moments, number, copies)
    )
    process.start()
    return process


class Accidents:
    """Accidents in one command.

    Parameters
    ----------
    place : Path
        An empty folder to work in.
    inputs : Path
        See `make_inputs`.

    Attributes
    ----------
    failures : list of str
        Where a law did not hold.
    """

    def __init__(self, job: Job, place: Path, inputs: Path, seed: int = 0) -> None:
        self.job, self.place, self.inputs = job, place, inputs
        self.chance = random.Random(f"{job.name} {seed}")
        self.failures: list[str] = []
        self._log = place / "log.txt"
        self._rounds = 0
        self.begins, self.older, self.wanted = [], [], {}
        for before in job.before:
            root = make_user_folder(place / f"begin-{len(self.begins)}")
            if before:
                self._finish(self._words(before), root)
            self.begins.append(root)
            self.older.append(tree(root / "home" / job.out))
        end = self._new_root(self.begins[0])
        begun = time.perf_counter()
        self._finish(self.next_words(end), end)
        self.seconds = time.perf_counter() - begun
        self.changes = json.loads(self._log.with_suffix(".json").read_text())["changes"]
        self.wanted = tree(end)
        self.new = tree(end / "home" / job.out)

    def _words(self, text: str) -> list[str]:
        return shlex.split(text.format(inputs=self.inputs))

    def next_words(self, root: Path) -> list[str]:
        """The command as a user gives it who sees what is there."""
        out = root / "home" / self.job.out
        filled = out.is_dir() and any(out.iterdir())
        return self._words(f"{self.job.words} {self.job.again if filled else ''}")

    def _finish(self, words: Sequence[str], root: Path) -> None:
        process = start(words, root, self._log)
        process.join(PATIENCE_S)
        if process.exitcode != 0:
            process.kill()
            raise RuntimeError(f"{' '.join(words)}: {process.exitcode}: {self._log.read_text()}")

    def _new_root(self, begin: Path, within: Path | None = None) -> Path:
        self._rounds += 1
        return shutil.copytree(begin, (within or self.place) / f"round-{self._rounds}")

    def kill(self) -> int:
        """Kill a command up to some times in a row, go on, and compare; how many kills came."""
        number = self.chance.randrange(len(self.begins))
        root, kills = self._new_root(self.begins[number]), 0
        said = []
        for _ in range(self.chance.randint(1, MOST_IN_A_ROW)):
            words, at, after_s = self.next_words(root), frozenset[int](), PATIENCE_S * 1.0
            if self.chance.random() < 0.5:
                at = frozenset({self.chance.randrange(self.changes)})
                said.append(f"change {min(at)}")
            else:
                after_s = self.chance.uniform(0, self.seconds)
                said.append(f"{after_s:.3f} s")
            process = start(words, root, self._log, at)
            process.join(after_s)
            process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
            if process.exitcode not in (0, -signal.SIGKILL):
                self._fail(f"{said}: {' '.join(words)}: {self._log.read_text()}", root)
            self._check_whole(root, number, f"kills at {', '.join(said)}")
        self._go_on(root, f"kills at {', '.join(said)}")
        return kills

    def cut_simulated(self, count: int) -> int:
        """Copies of a disk that loses what was not synced, gone on with; how many there were."""
        number = self.chance.randrange(len(self.begins))
        for path in self.place.glob("cut-*"):
            shutil.rmtree(path)
        copies: dict[int, Path] = {}
        for _ in range(2):  # the first run counts
            root = self._new_root(self.begins[number])
            process = start(self.next_words(root), root, self._log, copies=copies)
            process.join(PATIENCE_S)
            operations = json.loads(self._log.with_suffix(".json").read_text())["operations"]
            moments = self.chance.sample(range(operations), min(count, operations))
            copies = copies or {at: self.place / f"cut-{at}" for at in moments}
            shutil.rmtree(root)
        found = {at: path for at, path in copies.items() if path.exists()}
        for at, path in found.items():
            said = f"simulated power cut at operation {at}"
            self._check_whole(path, number, said)
            self._go_on(path, said)
        return len(found)

    def cut_mounted(self, count: int) -> int:
        """Copies of a mounted disk, taken while the command is stopped, and gone on with."""
        number = self.chance.randrange(len(self.begins))
        image, at = make_disk(self.place / "disk"), self.place / "mounted"
        moments = frozenset(self.chance.sample(range(self.changes), min(count // 2, self.changes)))
        pauses = sorted(self.chance.uniform(0, self.seconds) for _ in range(count - count // 2))
        copies = []
        with mounted(image, at):
            root = self._new_root(self.begins[number], at)
            subprocess.run(["sync", "-f", str(at)], check=True)
            process, begun = (
                start(self.next_words(root), root, self._log, moments, signal.SIGSTOP),
                time.perf_counter(),
            )
            while process.is_alive():
                if pauses and time.perf_counter() - begun > pauses[0]:
                    pauses.pop(0)
                    os.kill(process.pid, signal.SIGSTOP)
                    while process.is_alive() and not _is_stopped(process.pid):
                        time.sleep(0.001)
                if _is_stopped(process.pid):
                    copies.append(self.place / f"copy-{len(copies)}")
                    shutil.copyfile(image, copies[-1])
                    os.kill(process.pid, signal.SIGCONT)
                time.sleep(0.001)
        for copy in copies:
            with mounted(copy, at):
                again = at / root.name
                self._check_whole(again, number, f"power cut {copy.name}")
                self._go_on(again, f"power cut {copy.name}")
            copy.unlink()
        return len(copies)

    def _check_whole(self, root: Path, number: int, said: str) -> None:
        if not self.job.whole:
            return
        found = {
            name: content
            for name, content in tree(root / "home" / self.job.out).items()
            if not Path(name).match(LEFTOVERS)
        }
        if found not in (self.older[number], self.new):
            self._fail(f"{said}: neither the older nor the newer result is there", root)

    def _go_on(self, root: Path, said: str) -> None:
        words = self.next_words(root)
        process = start(words, root, self._log)
        process.join(PATIENCE_S)
        if process.exitcode != 0:
            process.kill()
            self._fail(f"{said}: {' '.join(words)}: {self._log.read_text()}", root)
            return
        found = tree(root)
        differ = [
            name
            for name in sorted({*found, *self.wanted})
            if found.get(name) != self.wanted.get(name)
        ]
        if differ:
            self._fail(f"{said}: {', '.join(differ[:4])} differ", root)
        else:
            shutil.rmtree(root)

    def _fail(self, what: str, root: Path) -> None:
        self.failures.append(f"{self.job.name}: {root.name}: {what}")
        print(self.failures[-1], file=sys.stderr, flush=True)


def make_disk(path: Path) -> Path:
    """An image of an empty disk."""
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, DISK_BYTES)
    quick = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", quick, str(path)], check=True)
    return path


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[None]:
    """Mount a disk image.

    The disk does not guess that a renamed file should be on it, as ext4 else does.
    """
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop,noauto_da_alloc", str(image), str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


@cache
def can_mount() -> bool:
    """Whether this user may mount disk images here."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as name:
        try:
            with mounted(make_disk(Path(name) / "disk"), Path(name) / "mounted"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def _is_stopped(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] == "T"


def run_job(
    job: Job, place: Path, inputs: Path, kills: int, cuts: int, seed: int = 0
) -> tuple[list[Row], list[str]]:
    """All accidents of one command: what was counted, and where a law did not hold."""
    accidents, came = Accidents(job, place, inputs, seed), 0
    before = tree(inputs)
    while came < kills:
        came += accidents.kill()
    simulated = accidents.cut_simulated(cuts) if cuts else 0
    mounted_cuts = accidents.cut_mounted(cuts) if cuts and can_mount() else 0
    if tree(inputs) != before:
        accidents.failures.append(f"{job.name}: an input changed")
    failed = len(accidents.failures)
    row = Row(
        what=f"{job.name}: {came} kills, {simulated} and {mounted_cuts} power cuts",
        value=f"{failed} differ",
        bar="0",
        met=failed == 0,
    )
    return [row], accidents.failures


def main() -> None:
    """Run the accidents of every command; exit with 1 where a law did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[job.name for job in JOBS])
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--cuts", type=int, default=CUTS)
    parser.add_argument("--seed", type=int, default=0)
    arguments, failures = parser.parse_args(), list[str]()
    place = Path(tempfile.mkdtemp())
    inputs = make_inputs(place / "inputs")
    for job in (job for job in JOBS if job.name in arguments.only):
        (place / job.name).mkdir()
        rows, failed = run_job(
            job, place / job.name, inputs, arguments.kills, arguments.cuts, arguments.seed
        )
        print_rows(job.name, rows)
        failures += failed
    if failures:
        print(f"what is left is in {place}")
        sys.exit(1)
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
