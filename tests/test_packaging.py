"""What a user installs: manifest, versions, requirements and files in the wheel."""

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import npe2
import pytest
import yaml
from napari._app_model.constants import MenuId
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from napari_cvdm.widgets.common.menu_actions import LazyDock

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "napari_cvdm"
LARGEST_MODEL_BYTES = 12_000_000
FEATURE_EXTRAS = (
    "bioio",
    "bmz",
    "cluster",
    "evaluate",
    "zarr",
)  # what the code imports where it is there, and names where it is not
NAMESPACES = {
    "bioimageio": ["bioimageio.core"]
}  # whose home has another name, where it is not installed
QT_BINDINGS = {"pyqt5", "pyqt6", "pyside2", "pyside6"}


def setup_cfg() -> ConfigParser:
    parsed = ConfigParser()
    parsed.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    return parsed


def requirements(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.strip().splitlines() if not line.startswith("#")]


@pytest.fixture(scope="module")
def manifest() -> npe2.PluginManifest:
    return npe2.PluginManifest.from_file(PACKAGE / "napari.yaml")


def test_manifest_is_that_of_the_package(manifest: npe2.PluginManifest) -> None:
    assert manifest.name == setup_cfg()["metadata"]["name"]
    assert "Image Processing" in [category.value for category in manifest.categories]


def test_top_level_manifest_is_the_same_file() -> None:
    assert (REPOSITORY / "napari.yaml").resolve() == (PACKAGE / "napari.yaml").resolve()


def test_menu_entries_are_in_menus_that_napari_shows(manifest: npe2.PluginManifest) -> None:
    shown = {menu.value for menu in MenuId.contributables()} | {
        submenu.id for submenu in manifest.contributions.submenus or ()
    }
    assert set(manifest.contributions.menus or {}) <= shown


def test_every_command_that_is_used_exists_and_can_be_imported(
    manifest: npe2.PluginManifest,
) -> None:
    contributions = manifest.contributions
    users = [
        *(contributions.widgets or ()),
        *(contributions.sample_data or ()),
        *(item for items in (contributions.menus or {}).values() for item in items),
    ]
    used = {item.command for item in users if getattr(item, "command", None)}
    commands = {command.id for command in contributions.commands or ()}
    assert used <= commands
    manifest.validate_imports()


def test_versions_agree() -> None:
    version = setup_cfg()["metadata"]["version"]
    assert (
        yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))["version"]
        == version
    )
    assert f"\n## {version} " in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def test_pyproject_holds_no_metadata() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(settings) == {"build-system", "tool"}
    assert "setuptools" not in settings["tool"]


def test_constraints_pin_what_is_installed_for_the_tests() -> None:
    pinned = {
        canonicalize_name(pin.name): pin
        for pin in requirements((REPOSITORY / "constraints.txt").read_text(encoding="utf-8"))
    }
    options = setup_cfg()
    direct = requirements(options["options"]["install_requires"]) + [
        needed
        for extra in ("test", "docs")
        for needed in requirements(options["options.extras_require"][extra])
    ]
    assert {canonicalize_name(needed.name) for needed in direct} <= set(pinned)
    assert str(pinned["torch"]) == "torch==2.13.0"
    assert all(
        needed.specifier.contains(
            next(iter(pinned[canonicalize_name(needed.name)].specifier)).version
        )
        for needed in direct
    )


def base_closure() -> set[str]:
    """Names of everything that the base installation needs.

    Extras of dependencies are included where they are asked for.
    """
    todo, seen = requirements(setup_cfg()["options"]["install_requires"]), set()
    while todo:
        needed = todo.pop()
        key = (canonicalize_name(needed.name), frozenset(needed.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            further = [Requirement(line) for line in distribution(needed.name).requires or ()]
        except PackageNotFoundError:  # a dependency for another system
            continue
        extras = needed.extras or {""}
        todo += [
            one
            for one in further
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    return {name for name, _ in seen}


def test_base_installation_brings_no_qt() -> None:
    names = base_closure()
    assert {"napari", "torch", "qtpy"} <= names
    assert not names & QT_BINDINGS


def imported_packages() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            yield from (name.partition(".")[0] for name in names)


def test_every_imported_package_is_required() -> None:
    options = setup_cfg()
    asked_for = [
        options["options"]["install_requires"],
        *(options["options.extras_require"][extra] for extra in FEATURE_EXTRAS),
    ]
    required = {
        canonicalize_name(needed.name) for text in asked_for for needed in requirements(text)
    }
    homes = {**NAMESPACES, **packages_distributions()}
    foreign = set(imported_packages()) - set(sys.stdlib_module_names) - {"napari_cvdm"}
    assert not {
        name
        for name in foreign
        if not required & {canonicalize_name(home) for home in homes.get(name, [name])}
    }


def test_no_model_is_larger_than_promised() -> None:
    sizes = {path.name: path.stat().st_size for path in PACKAGE.rglob("*.safetensors")}
    assert not {name: size for name, size in sizes.items() if size > LARGEST_MODEL_BYTES}


def test_wheel_carries_every_file_of_the_package(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(
        PACKAGE, source / "src" / "napari_cvdm", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    (source / "docs").mkdir()
    for page in (REPOSITORY / "docs").glob("*.md"):
        shutil.copy(page, source / "docs")
    build = "import setuptools.build_meta as backend; print(backend.build_wheel('.'))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    carried = set(zipfile.ZipFile(next(source.glob("*.whl"))).namelist())
    wanted = {
        path.relative_to(source / "src").as_posix()
        for path in (source / "src" / "napari_cvdm").rglob("*")
        if path.is_file()
    }
    assert wanted <= carried
    # The Help buttons of the docks open these.
    pages = {Path(name).stem for name in carried if "/share/napari-cvdm/" in name}
    assert pages == {dock.page for dock in LazyDock.__subclasses__()}


@pytest.mark.parametrize("name", ["environment.py", "run_demo.py", "run_tests.py"])
def test_the_scripts_that_come_first_parse_on_an_old_python(name: str) -> None:
    source = (REPOSITORY / "tools" / name).read_text(encoding="utf-8")
    assert ast.parse(source, feature_version=(3, 8)).body
