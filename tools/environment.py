"""What the two commands of the README need.

System packages, a virtual environment, the package in it.

Nothing but the standard library, and no syntax newer than Python 3.8, so that an old Python gets a
sentence and not a traceback.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Mapping

REPOSITORY = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("NAPARI_CVDM_VENV", str(REPOSITORY / ".venv"))).resolve()
OLDEST_PYTHON = (3, 11)


def stop(message: str) -> None:
    """End with one message and exit status 2."""
    print(message, file=sys.stderr)
    raise SystemExit(2)


def require_python() -> None:
    """Stop if the Python that runs this is too old for napari 0.9."""
    if sys.version_info < OLDEST_PYTHON:
        found, oldest = platform.python_version(), ".".join(map(str, OLDEST_PYTHON))
        stop(
            f"{sys.executable} is Python {found}; napari-cvdm needs {oldest} to 3.14. Start this "
            f"script with a newer one, as in: python3.12 {sys.argv[0]}"
        )


def require_system(programs: Mapping[str, str], libraries: Mapping[str, str]) -> None:
    """Make sure that programs and libraries are there, and that Python can make environments.

    The programs must be in the path, the libraries must load, and this Python must be able to make
    virtual environments.

    Each name comes with the Debian and Ubuntu package that has it. What is missing is installed as
    root; otherwise the line that installs it is named.
    """
    missing = {name: package for name, package in programs.items() if not shutil.which(name)}
    missing.update((name, package) for name, package in libraries.items() if not _loads(name))
    missing.update(
        (name, f"python{_python_version()}-venv")
        for name in ("venv", "ensurepip")
        if not importlib.util.find_spec(name)
    )
    if not missing:
        return
    if not shutil.which("apt-get"):
        stop(
            f"This system lacks {', '.join(missing)}. Install them with the system's package "
            "manager, then start again."
        )
    install = [
        "apt-get",
        "install",
        "-y",
        "--no-install-recommends",
        *sorted(set(missing.values())),
    ]
    if os.geteuid() != 0:
        stop(
            f"This system lacks {', '.join(missing)}. Run this line, then start again:\nsudo "
            f"apt-get update && sudo {' '.join(install)}"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update"], environment)
    run(install, environment)


def prepare(extras: str = "") -> Path:
    """Make the virtual environment and return the folder of its programs.

    The package is installed with its extras at the tested versions.
    """
    require_python()
    require_system({}, {})
    made = _read_marker()
    if made.get("origin") != _origin() or not _pip_works():
        _make_venv()
        made = {}
    sources = _digest()
    installed = made.get("extras", []) if made.get("sources") == sources else []
    if extras not in installed:
        print(
            f"Installing napari-cvdm into {VENV} (once; this downloads PyTorch and takes some "
            "minutes)",
            flush=True,
        )
        target = f"{REPOSITORY}[{extras}]" if extras else str(REPOSITORY)
        run(
            [
                str(_programs() / "python"),
                "-m",
                "pip",
                "install",
                "--constraint",
                str(REPOSITORY / "constraints.txt"),
                "--editable",
                target,
            ]
        )
        _write_marker(
            {"origin": _origin(), "sources": sources, "extras": sorted({*installed, "", extras})}
        )
    return _programs()


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run a command in the repository's folder; if it fails, stop with its status and text."""
    print("$", " ".join(command), flush=True)
    status = subprocess.run(command, cwd=str(REPOSITORY), env=environment, check=False).returncode
    if status:
        print(f"failed with exit status {status}: {' '.join(command)}", file=sys.stderr)
        raise SystemExit(status)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _origin() -> list[str]:
    """Return what an environment belongs to.

    It must be made again if it was moved or copied, or if its Python changed.
    """
    return [str(VENV), str(REPOSITORY), _python_version()]


def _make_venv() -> None:
    if VENV.exists() and not _marker().exists():
        stop(
            f"{VENV} exists and was not made by this script. Move it away, or name another "
            "folder: NAPARI_CVDM_VENV=/some/folder"
        )
    shutil.rmtree(str(VENV), ignore_errors=True)
    VENV.mkdir(parents=True)
    _write_marker({"origin": _origin()})
    run([sys.executable, "-m", "venv", str(VENV)])


def _pip_works() -> bool:
    python = _programs() / "python"
    return (
        shutil.which(str(python)) is not None
        and subprocess.run(
            [str(python), "-c", "import pip"], stderr=subprocess.DEVNULL, check=False
        ).returncode
        == 0
    )


def _programs() -> Path:
    return VENV / ("Scripts" if os.name == "nt" else "bin")


def _marker() -> Path:
    return VENV / "napari-cvdm.json"


def _read_marker() -> dict[str, Any]:
    try:
        return dict(json.loads(_marker().read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _write_marker(made: dict[str, Any]) -> None:
    _marker().write_text(json.dumps(made, indent=2), encoding="utf-8")


def _digest() -> str:
    """Return a digest of everything that decides what is installed.

    If the digest changes, the installation must be done again.
    """
    names = ("setup.cfg", "pyproject.toml", "constraints.txt")
    return hashlib.sha256(
        b"\0".join((REPOSITORY / name).read_bytes() for name in names)
    ).hexdigest()
