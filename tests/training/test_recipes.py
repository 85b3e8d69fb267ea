"""A recipe that is written and read again is the same recipe."""

from dataclasses import replace
from pathlib import Path

import pytest

from napari_cvdm.simulate.ranges import PhaseRanges
from napari_cvdm.training.pairs import Arrays, BioSR, Folders
from napari_cvdm.training.recipe import InitialModel, read_recipe, write_recipe
from napari_cvdm.training.sources import CleanImages, SolvedFields

RECIPES = Path(__file__).parents[2] / "recipes"
PHASE_NETWORK = read_recipe(RECIPES / "phase-2shot.toml").network


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_comes_back(path, tmp_path):
    recipe = read_recipe(path)
    again = read_recipe(write_recipe(recipe, tmp_path / "again" / "recipe.toml"))
    assert again == recipe
    assert again.fingerprint == recipe.fingerprint


@pytest.mark.parametrize("place", ["beside", "elsewhere"])
@pytest.mark.parametrize(
    "source",
    [
        lambda folder: {
            "pairs": Folders(
                measured=f"{folder / 'a'}",
                truth=f"{folder / 'b'}",
                pixel_um=0.2,
                defocus_um=(-1.0, 1.0),
            ),
            "simulation": None,
        },
        lambda folder: {
            "pairs": Folders(
                measured=f"{folder / 'a'}",
                truth=f"{folder / 'b'}",
                defocus_um=(-1.0, 0.0, 1.5),
                condenser_na=0.2,
            ),
            "simulation": None,
        },
        lambda folder: {
            "pairs": Arrays(x=f"{folder / 'x.npy'}", y=f"{folder / 'y.npy'}", register=True),
            "simulation": None,
        },
        lambda folder: {
            "pairs": BioSR(folder=f"{folder}", levels=(2, 5)),
            "simulation": None,
            "title": 'a "quoted" title, µm \\ and a\nnew line',
        },
        lambda folder: {"clean": CleanImages(folder=f"{folder / 'clean'}")},
        lambda folder: {"solved": SolvedFields(folder=f"{folder / 'solved'}")},
        lambda folder: {
            "task": "phase-2shot",
            "network": PHASE_NETWORK,
            "simulation": PhaseRanges(photographs=f"{folder / 'photographs'}"),
        },
    ],
)
def test_every_source_of_pairs_comes_back(source, place, tmp_path):
    folder = tmp_path / ("run" if place == "beside" else "data")
    recipe = replace(read_recipe(RECIPES / "smoke.toml"), **source(folder))
    assert read_recipe(write_recipe(recipe, tmp_path / "run" / "recipe.toml")) == recipe


def test_pairs_beside_a_recipe_are_moved_with_it(tmp_path):
    pairs = Folders(
        measured=str(tmp_path / "run" / "pairs" / "measured"),
        truth=str(tmp_path / "run" / "pairs" / "truth"),
    )
    path = write_recipe(
        replace(read_recipe(RECIPES / "smoke.toml"), pairs=pairs, simulation=None),
        tmp_path / "run" / "recipe.toml",
    )
    path.parent.rename(tmp_path / "cluster")
    assert read_recipe(tmp_path / "cluster" / "recipe.toml").pairs.measured == str(
        tmp_path / "cluster" / "pairs" / "measured"
    )


def test_a_fine_tuning_names_its_model_and_not_its_network(tiny_widefield_model, tmp_path):
    """The network is that of the model: written twice, the two could differ."""
    text = (RECIPES / "smoke.toml").read_text().split("[network]")[
        0
    ] + f'[start]\nmodel = "{tiny_widefield_model.as_posix()}"\n[plan]\n'
    path = tmp_path / "recipe.toml"
    path.write_text(
        text + "mean_steps = 1\ndiffusion_steps = 1\npatch_px = 32\n[simulation]\nfield_px = 48\n"
    )
    recipe = read_recipe(path)
    again = write_recipe(recipe, tmp_path / "again.toml")
    assert read_recipe(again) == recipe
    assert "[network" not in again.read_text()
    assert recipe.start == InitialModel(model=tiny_widefield_model.as_posix())
