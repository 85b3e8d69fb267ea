"""Run the project's checks in the Python environment that starts this script.

Usage: python tools/check.py [lint] [types] [imports] [docs] [manifest] [tests] [stress]
       by default all of them but stress, tests last
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# The platform plugin "offscreen" has no OpenGL, which napari needs: on Linux the pictures get a
# virtual screen instead. The tests start their own (tests/conftest.py).
SCREEN = (
    ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24"] if sys.platform.startswith("linux") else []
)
SITE = str(Path(tempfile.gettempdir()) / f"napari-cvdm-docs-{os.getpid()}")
CHECKS = {
    "lint": [["ruff", "check", "."], ["ruff", "format", "--check", "."]],
    "types": [["mypy"]],
    "imports": [["lint-imports", "--config", "setup.cfg"]],
    "docs": [
        [*SCREEN, "python", "docs/pictures.py"],
        ["sphinx-build", "-q", "-n", "-W", "--keep-going", "-d", f"{SITE}/doctrees", "docs", SITE],
    ],
    "manifest": [["npe2", "validate", "--imports", "napari-cvdm"]],
    "tests": [["pytest", "-n", "2", "--dist", "worksteal"]],  # each process has its own screen
    "stress": [["pytest", "-n", "2", "--dist", "worksteal", "-m", "stress"]],
}
ONLY_IF_NAMED = {"stress"}


def main() -> None:
    """Run the named checks, go on after a failure, and exit with status 1 if there was one."""
    names = sys.argv[1:] or [name for name in CHECKS if name not in ONLY_IF_NAMED]
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise SystemExit(f"unknown check {' '.join(unknown)}; known are: {' '.join(CHECKS)}")
    failed = [name for name in names if not all([passes(command) for command in CHECKS[name]])]
    if failed:
        raise SystemExit(f"FAILED: {' '.join(failed)}")


def passes(command: list[str]) -> bool:
    """Run one command in the repository's folder.

    The path starts with this environment's programs.
    """
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]),
    }
    environment.pop("QT_QPA_PLATFORM", None)
    environment.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # the networks of the tests are tiny: more threads only wait for each other
    program = shutil.which(command[0], path=environment["PATH"])
    print("$", " ".join(command), flush=True)
    return (
        program is not None
        and subprocess.run(
            [program, *command[1:]], cwd=REPOSITORY, env=environment, check=False
        ).returncode
        == 0
    )


if __name__ == "__main__":
    main()
