"""Write a complete recipe file; defaults are written too, so that later versions keep them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from napari_cvdm.training.pair_files import Arrays, BioSR, Folders
from napari_cvdm.training.recipe import PAIRS, PATHS, Recipe

SECTIONS = ("start", "simulation", "clean", "solved", "plan", "validation")
WITH_PATHS = ("simulation", "clean", "solved")
OF_THE_TASK = ("condition_channels", "upsampling")  # of the network: the task says them


def recipe_text(recipe: Recipe, beside: Path | None = None) -> str:
    """TOML that `read_recipe` makes the same recipe of.

    Parameters
    ----------
    recipe : Recipe
    beside : Path, optional
        Folder of the file. Paths inside it are written relative to it, so that both can be moved
        together.

    Returns
    -------
    str
    """
    values = _without_none(asdict(recipe))
    network: dict[str, Any] = {
        name: value for name, value in values.pop("network").items() if name not in OF_THE_TASK
    }
    pairs = values.pop("pairs", None)
    sections: dict[str, Any] = {name: values.pop(name) for name in SECTIONS if name in values}
    if recipe.start is None:
        sections["network"] = network
    if pairs is not None and recipe.pairs is not None:
        sections[section_of(recipe.pairs)] = _named_from(beside, pairs)
    sections |= {
        name: _named_from(beside, sections[name]) for name in WITH_PATHS if name in sections
    }
    return tomli_w.dumps({**values, **sections})


def write_recipe(recipe: Recipe, path: str | Path) -> Path:
    """Write a recipe; see `recipe_text`.

    Parameters
    ----------
    recipe : Recipe
    path : path
        Its folder is made.

    Returns
    -------
    Path
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(recipe_text(recipe, path.parent), encoding="utf-8")
    return path


def section_of(pairs: Folders | BioSR | Arrays) -> str:
    """Name of the section that holds measured pairs."""
    return next(name for name, kind in PAIRS.items() if isinstance(pairs, kind))


def _named_from(folder: Path | None, values: dict[str, Any]) -> dict[str, Any]:
    """Files and folders beside the recipe by their way from there, others by their whole path."""
    paths = {
        name: Path(value).absolute() for name, value in values.items() if name in PATHS and value
    }
    beside = None if folder is None else folder.absolute()
    said = {
        name: path.relative_to(beside)
        if beside is not None and path.is_relative_to(beside)
        else path
        for name, path in paths.items()
    }
    return {**values, **{name: path.as_posix() for name, path in said.items()}}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    """TOML has no word for nothing: what is None is left out."""
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }
