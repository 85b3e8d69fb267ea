"""Broken files for every reader.

`python -m tests.stress.fuzz --minutes M` makes them, reads them, and prints what came of it.

Each reader works in a process of its own, with a limit on memory and on the time of one input.
Printed for each: inputs, how many were read and how many refused by which error, and every escape:
another error, a message of many lines, a crash, a hang, memory far beyond the file, a file outside
the folder, a network asked, a program started. The input of an escape is kept in the folder that
--keep names.
"""

import argparse
import faulthandler
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, Phase, given, seed, settings
from tests.stress.fuzzing.targets import OWN_ERRORS, Files, Target, targets
from tests.stress.fuzzing.watch import Escape, confined, frugal, outcome

INPUT_S = 20
ROUND = 200
ADDRESS_SPACE = 4 << 30  # more than there is when everything is imported [bytes]
SLICE_S = 20.0
QUIET = settings(
    max_examples=ROUND,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def put(files: Files, folder: Path) -> Path:
    """Files in an empty folder, its surroundings empty, too."""
    shutil.rmtree(folder, ignore_errors=True)
    inside = folder / "given"
    inside.mkdir(parents=True)
    for name, content in files.items():
        (inside / name).parent.mkdir(parents=True, exist_ok=True)
        (inside / name).write_bytes(content)
    return inside


def read_once(target: Target, files: Files, folder: Path) -> str:
    """Give one input to a reader; returns what came of it.

    Raises
    ------
    Escape
    """
    inside = put(files, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with confined(folder), frugal():
            return outcome(lambda: target.act(inside), OWN_ERRORS)


def work(target: Target, folder: Path, start: int, seconds: float) -> None:
    """In a process of its own: one input after the other, a line of JSON for each round."""
    _limit_memory()
    until, number = time.monotonic() + seconds, start
    while time.monotonic() < until:
        counts: Counter[str] = Counter()
        one_round(target, number, until, partial(count, target, folder, counts))
        print(json.dumps(counts), flush=True)
        number += 1


def one_round(target: Target, start: int, until: float, take: Callable[[Files], None]) -> None:
    """Draw inputs by a seed, and hand them on until the time is over."""

    @seed(start)
    @QUIET
    @given(target.files)
    def attempt(files: Files) -> None:
        if time.monotonic() < until:
            take(files)

    attempt()


def count(target: Target, folder: Path, counts: Counter[str], files: Files) -> None:
    """Count what came of one input.

    An input that takes longer than `INPUT_S` ends the process, and the parent calls that a hang.
    """
    faulthandler.dump_traceback_later(INPUT_S, exit=True, file=sys.__stderr__)
    try:
        counts[read_once(target, files, folder / "input")] += 1
    except Escape as escape:
        counts[f"ESCAPE {escape}"] += 1
        _keep(folder, f"{target.name}-{abs(hash(str(escape))) % 10**8}")
    finally:
        faulthandler.cancel_dump_traceback_later()


def _keep(folder: Path, name: str) -> None:
    if (folder / "input").exists() and not (folder / "kept" / name).exists():
        shutil.copytree(folder / "input", folder / "kept" / name, symlinks=True)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def fuzz(target: Target, start: int, seconds: float, keep: Path) -> Counter[str]:
    """Run one reader's process for a while; a process that dies is an escape of its own."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        command = [
            sys.executable,
            "-m",
            "tests.stress.fuzz",
            "--worker",
            target.name,
            "--folder",
            name,
            "--seed",
            str(start),
            "--minutes",
            str(seconds / 60),
        ]
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"},
        )
        counts: Counter[str] = Counter()
        for line in ended.stdout.splitlines():
            counts.update(json.loads(line) if line.startswith("{") else {})
        if ended.returncode:
            lines = ended.stderr.strip().splitlines()
            kind = (
                "hang"
                if "Timeout (" in ended.stderr
                else f"ended with {ended.returncode}: {lines[-1] if lines else ''}"
            )
            counts[f"ESCAPE {kind}"] += 1
            _keep(folder, f"{target.name}-ended-{start}")
        if (folder / "kept").exists():
            shutil.copytree(folder / "kept", keep, symlinks=True, dirs_exist_ok=True)
    return counts


def report(name: str, counts: Counter[str]) -> None:
    """One line of counts, and one for each kind of escape."""
    escapes = {kind: count for kind, count in counts.items() if kind.startswith("ESCAPE")}
    usual = ", ".join(
        f"{kind} {count}" for kind, count in counts.most_common() if kind not in escapes
    )
    print(
        f"{name:<12} {counts.total():>7} inputs: {usual}; escapes {sum(escapes.values())}",
        flush=True,
    )
    for kind, count in sorted(escapes.items()):
        print(f"    {count:>5} x {kind}", flush=True)


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="in all, shared by the readers (10)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another one makes other inputs (0)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=sorted(targets()),
        default=sorted(targets()),
        help="these readers only",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("fuzz-escapes"),
        help="folder for inputs that escaped (fuzz-escapes)",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Share the time among the readers, in slices; exit with 1 if anything escaped."""
    asked = options()
    if asked.worker:
        work(targets()[asked.worker], asked.folder, asked.seed, 60 * asked.minutes)
        return
    totals = {name: Counter() for name in asked.only}
    share = 60 * asked.minutes / len(asked.only)
    slices = max(1, round(share / SLICE_S))
    for number in range(slices):
        for name in asked.only:
            totals[name].update(
                fuzz(
                    targets()[name],
                    1000 * asked.seed + 100_000 * number,
                    share / slices,
                    asked.keep,
                )
            )
    for name, counts in totals.items():
        report(name, counts)
    report("all", sum(totals.values(), Counter()))
    sys.exit(any(kind.startswith("ESCAPE") for counts in totals.values() for kind in counts))


if __name__ == "__main__":
    main()
