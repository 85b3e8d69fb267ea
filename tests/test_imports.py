"""Which package may import which.

import-linter checks most of it; these tests check the rest.
"""

import ast
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "napari_cvdm"
MODULES = sorted(PACKAGE.rglob("*.py"))


def names_in(source: str) -> Iterator[str]:
    """Dotted names that a module imports or reaches through attributes.

    The local name does not matter: ``torch.nn.functional``.
    """
    nodes, local = list(ast.walk(ast.parse(source))), {}
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            local |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            local |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
    for node in nodes:
        if isinstance(node, ast.Attribute):
            first, dot, rest = ast.unparse(node).partition(".")
            yield f"{local.get(first, first)}{dot}{rest}"


@cache
def names_of(path: Path) -> frozenset[str]:
    return frozenset(names_in(path.read_text(encoding="utf-8")))


def modules_that_name(*prefixes: str) -> set[str]:
    def names(path: Path) -> bool:
        return any(
            f"{name}.".startswith(f"{prefix}.") for name in names_of(path) for prefix in prefixes
        )

    return {path.relative_to(PACKAGE).as_posix() for path in MODULES if names(path)}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package in a folder: it looks in the working directory first."""
    program = shutil.which("lint-imports", path=sysconfig.get_path("scripts"))
    assert program is not None, "import-linter is not installed: pip install '.[test]'"
    command = [program, "--config", str(REPOSITORY / "setup.cfg"), "--no-cache", "--no-logo"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.parametrize(
    "source",
    [
        "import torch.nn as nn\nx = nn.Linear",
        "from torch import nn\nx = nn.Linear",
        "from torch import nn as networks\nx = networks.Linear",
        "import torch as t\nx = t.nn.Linear",
        "from torch.nn import Linear as L",
        "import torch\nx = torch.nn.Linear",
    ],
)
def test_a_planted_import_is_seen(source: str) -> None:
    assert any(f"{name}.".startswith("torch.nn.Linear.") for name in names_in(source))


def test_networks_live_in_models_only() -> None:
    bare = {
        "torch.nn.Module",
        "torch.nn.Parameter",
    }  # of no architecture: an objective of a training is a module, too
    layers = {
        f"torch.nn.{name}" for name in dir(torch.nn) if isinstance(getattr(torch.nn, name), type)
    } - bare
    assert {path.partition("/")[0] for path in modules_that_name(*layers)} <= {"models"}
    assert {path.partition("/")[0] for path in modules_that_name(*bare)} <= {"models", "training"}


def test_physics_does_without_torch_nn_altogether() -> None:
    assert not {path for path in modules_that_name("torch.nn") if path.startswith("physics/")}


def test_only_device_names_an_accelerator() -> None:
    assert modules_that_name(
        "torch.cuda", "torch.mps", "torch.backends.cuda", "torch.backends.mps"
    ) <= {"core/device.py"}


def test_importing_the_package_loads_neither_torch_nor_qt() -> None:
    script = (
        "import sys, napari_cvdm; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    assert "napari_cvdm" in loaded
    assert not loaded & {"torch", "napari", "magicgui", "qtpy", "superqt", "PyQt6", "PySide6"}


def test_imports_point_down() -> None:
    result = lint_imports(PACKAGE.parent)
    assert result.returncode == 0, result.stdout


PLANTED = [
    ("physics/fresnel.py", "napari_cvdm.training.loop"),
    ("physics/fresnel.py", "napari_cvdm.inversion.priors"),
    ("diffusion/process.py", "napari_cvdm.models.networks"),
    ("tasks/phase.py", "napari_cvdm.models.networks"),
    ("core/noise.py", "qtpy"),
]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The package in another folder."""
    ignored = shutil.ignore_patterns("*.safetensors", "*.tif", "__pycache__")
    return shutil.copytree(PACKAGE, tmp_path / "napari_cvdm", ignore=ignored)


def test_planted_faults_break_the_contracts(copied: Path) -> None:
    for module, imported in PLANTED:
        path = copied / module
        path.write_text(f"import {imported}\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
    result = lint_imports(copied.parent)
    assert result.returncode != 0
    said = " ".join(result.stdout.split())
    for module, imported in PLANTED:
        importer = f"napari_cvdm.{module.removesuffix('.py').replace('/', '.')}"
        assert f"{importer} -> {imported} (l." in said, result.stdout


def test_a_room_that_no_contract_names_breaks_one(copied: Path) -> None:
    (copied / "new_room.py").write_text("import napari_cvdm.core.noise\n", encoding="utf-8")
    result = lint_imports(copied.parent)
    assert result.returncode != 0, result.stdout
