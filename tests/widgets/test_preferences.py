"""Preferences: what the manifest offers, and what the user set.

The defaults of the request are used where neither can be read.
"""

import sys
from pathlib import Path
from types import ModuleType

import npe2
import pytest

import napari_cvdm
from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.widgets.common.preferences import (
    PLUGIN,
    PREFERENCES,
    defaults,
    own_models,
    preferred,
)

MANIFEST = Path(napari_cvdm.__file__).with_name("napari.yaml")
BOUNDS = {"samples": (1, 1024), "steps": (1, 1000), "tile": (16, 65536)}


@pytest.fixture
def stored(plugin_settings, npe2pm):
    """The plugin's settings in a napari that has it."""
    from napari.settings import get_plugin_settings

    with npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        yield get_plugin_settings(PLUGIN)


def offered():
    groups = npe2.PluginManifest.from_file(MANIFEST).contributions.configurations
    return {
        name: (group, entry)
        for group, content in groups.items()
        for name, entry in content.properties.items()
    }


def test_the_manifest_offers_every_preference_with_its_default():
    assert {name: group for name, (group, _) in offered().items()} == PREFERENCES
    assert {name: entry.default for name, (_, entry) in offered().items()} == defaults()
    assert all(entry.title and entry.description for _, entry in offered().values())


@pytest.mark.parametrize(("name", "bounds"), BOUNDS.items())
def test_the_manifest_allows_what_a_request_allows(name, bounds):
    import numpy as np

    from napari_cvdm.core.request import ImageStack, RequestError

    entry = offered()[name][1]
    assert (entry.minimum, entry.maximum) == bounds
    image = ImageStack(array=np.zeros((2, 2)), axes="YX")
    for value, step in zip(bounds, (-1, 1), strict=True):
        assert (
            getattr(ReconstructionRequest(image=image, model="m", **{name: value}), name) == value
        )
        with pytest.raises(RequestError):
            ReconstructionRequest(image=image, model="m", **{name: value + step})


@pytest.mark.usefixtures("stored")
def test_nothing_set_means_the_defaults():
    assert {name: preferred(name) for name in PREFERENCES} == defaults()


CHOSEN = {
    "device": "cpu",
    "precision": "auto",
    "tile": 256,
    "samples": 16,
    "steps": 6,
    "model_folder": "/models",
    "offline": True,
}


@pytest.mark.parametrize(("name", "value"), CHOSEN.items())
def test_what_is_set_is_preferred(stored, name, value):
    setattr(getattr(stored, PREFERENCES[name]), name, value)
    assert preferred(name) == value


def test_a_folder_of_nobody_is_one_that_is_not_there(stored):
    stored.models.model_folder = "~nobody-of-this-name/models"
    assert not own_models().exists()


def test_a_napari_without_plugin_settings_gives_the_defaults(monkeypatch):
    monkeypatch.setitem(sys.modules, "napari.settings", ModuleType("napari.settings"))
    assert {name: preferred(name) for name in PREFERENCES} == defaults()


@pytest.mark.usefixtures("plugin_settings", "npe2pm")
def test_a_plugin_that_napari_does_not_know_gives_the_defaults():
    assert {name: preferred(name) for name in PREFERENCES} == defaults()


@pytest.mark.parametrize(
    "text", ["sampling: {samples: 0}", "sampling: {samples: many}", "sampling: [", "sampling: 3"]
)
def test_a_damaged_settings_file_gives_the_defaults(
    plugin_settings, npe2pm, tmp_path, text, caplog
):
    from napari import settings

    with npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        path = settings.get_plugin_settings(PLUGIN).config_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        settings._clear_plugin_settings_cache()
        assert preferred("samples") == 8


def test_an_unknown_preference_is_an_error():
    with pytest.raises(KeyError):
        preferred("colour")


def test_a_new_dock_starts_with_what_is_preferred(stored, viewer, tiny_phase_model, tmp_path):
    from napari_cvdm.widgets.common.reconstruct_form import ReconstructForm

    (tmp_path / "no model").mkdir()
    (tmp_path / "mine").symlink_to(tiny_phase_model)
    stored.sampling.samples, stored.sampling.steps, stored.computing.tile = 5, 7, 128
    stored.computing.device, stored.computing.precision, stored.models.model_folder = (
        "cpu",
        "auto",
        str(tmp_path),
    )
    form = ReconstructForm(viewer)
    settings = form.settings()
    set_up = {"samples": 5, "steps": 7, "tile": 128, "device": "cpu", "precision": "auto"}
    assert {name: settings[name] for name in set_up} == set_up
    form.model.set_value(str(tmp_path / "mine"))
    assert form.model.card().name == "tiny-phase-2shot"


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [("computing", "device", "cuda:9"), ("models", "model_folder", "/no/such/folder")],
)
def test_a_preference_that_does_not_fit_this_machine_is_passed_over(
    stored, viewer, group, name, value
):
    from napari_cvdm.widgets.common.reconstruct_form import ReconstructForm

    setattr(getattr(stored, group), name, value)
    form = ReconstructForm(viewer)
    assert form.settings()["device"] == "auto"
    assert form.model.card() is not None
