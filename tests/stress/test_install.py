"""The package as a stranger gets it: built, installed bare, started. It downloads PyTorch."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MINORS = range(11, 15)
LARGEST_WHEEL_BYTES = 30_000_000
LOADED = "import sys, napari_cvdm.cli as c; c.main(['models', 'list']); print(sorted(sys.modules))"
pytestmark = pytest.mark.stress


def pythons() -> Iterator[str]:
    """Every Python here that may install the package, the oldest first."""
    for minor in MINORS:
        name = f"python3.{minor}"
        found = shutil.which(name) or ""
        asked = [found, "-c", "import sys, venv; print(sys.version_info[1])"]
        if found and subprocess.run(asked, capture_output=True, text=True).stdout == f"{minor}\n":
            yield name


def oldest_and_newest() -> list[str]:
    found = list(pythons()) or [sys.executable]
    return sorted({found[0], found[-1]})


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist that `python -m build` makes of the sources."""
    folder = tmp_path_factory.mktemp("built")
    source, packages = folder / "source", folder / "packages"
    shutil.copytree(
        REPOSITORY, source, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "demo*")
    )
    programs = make_venv(folder / "venv", sys.executable)
    run(programs / "pip", "install", "--quiet", "build")
    run(programs / "python", "-m", "build", "--outdir", packages, source)
    return packages


def make_venv(folder: Path, python: str) -> Path:
    run(python, "-m", "venv", folder)
    return folder / ("Scripts" if sys.platform == "win32" else "bin")


def run(*words: object, cwd: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
@pytest.mark.parametrize("python", oldest_and_newest())
def test_what_is_built_runs_the_demo_in_a_bare_environment(
    built: Path, tmp_path: Path, python: str, kind: str
) -> None:
    package = next(built.glob(kind))
    programs = make_venv(tmp_path / "venv", python)
    run(programs / "pip", "install", "--quiet", "-c", REPOSITORY / "constraints.txt", package)
    run(programs / "napari-cvdm", "demo", "--samples", 2, "--out", tmp_path / "demo", cwd=tmp_path)
    assert list((tmp_path / "demo").rglob("*.png"))
    loaded = run(programs / "python", "-c", LOADED, cwd=tmp_path).splitlines()[-1]
    assert not [name for name in ("'napari'", "'qtpy'") if name in loaded]
    installed = run(programs / "pip", "list").lower()
    assert not [name for name in ("pyqt5", "pyqt6", "pyside") if name in installed]


def test_the_wheel_is_small(built: Path) -> None:
    assert next(built.glob("*.whl")).stat().st_size < LARGEST_WHEEL_BYTES
