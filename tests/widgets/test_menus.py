"""What the manifest offers, used as napari uses it."""

from pathlib import Path

import pytest

import napari_cvdm
from napari_cvdm.widgets.restore_widget import RestoreWidget

MANIFEST = Path(napari_cvdm.__file__).with_name("napari.yaml")


@pytest.fixture
def plugin(npe2pm):
    """The plugin, as if it were installed."""
    with npe2pm.tmp_plugin(manifest=str(MANIFEST)) as registered:
        yield registered.name


def test_the_dock_opens_from_the_menu_on_an_opened_sample(plugin, make_napari_viewer, tiny_phase_model):
    viewer = make_napari_viewer()
    viewer.open_sample(plugin, "two_planes")
    _, dock = viewer.window.add_plugin_dock_widget(plugin, "Reconstruct")
    assert isinstance(dock, RestoreWidget)
    dock.form.model.set_value(str(tiny_phase_model))
    assert dock.form.missing() == ()
    assert dock.panel.run.isEnabled()


def test_every_sample_opens_with_units(plugin, make_napari_viewer):
    viewer = make_napari_viewer()
    for key in ("two_planes", "network"):
        layers = viewer.open_sample(plugin, key)
        assert len(layers) == 2
        assert all(str(unit) == "micrometer" for layer in layers for unit in layer.units)
    assert viewer.layers.units is not None
