"""A microscope is saved once, chosen in every dock, and what is typed wins."""

import pytest

from napari_cvdm.core.request import RequestError
from napari_cvdm.widgets.common import preferences
from napari_cvdm.widgets.common.preferences import read_presets, save_preset
from napari_cvdm.widgets.common.reconstruct_form import ReconstructForm
from napari_cvdm.widgets.train.pair_source import MICROSCOPE, PairSource

GFP = {"pixel_um": 0.065, "wavelength_um": 0.52, "medium_index": 1.518, "na": 1.4}
PAIR = {"pixel_um": 0.2, "defocus_um": (-2.5, 2.5), "condenser_na": 0.3}


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    """A file of microscopes that is not the one of whoever runs the tests."""
    path = tmp_path / "settings" / "microscopes.toml"
    monkeypatch.setattr(preferences, "presets_path", lambda: path)
    return path


def test_what_is_saved_is_read_again(path):
    assert read_presets() == {}
    save_preset("63x 1.4 GFP", GFP)
    save_preset('20x "air" µ', PAIR)
    assert read_presets() == {"63x 1.4 GFP": GFP, '20x "air" µ': PAIR}
    save_preset("63x 1.4 GFP", PAIR)
    assert read_presets()["63x 1.4 GFP"] == PAIR
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "no list of microscopes"),
        ("name = 3", "has no values"),
        ("[a]\nmagnification = 63", "allowed are pixel_um"),
        ('[a]\nna = "1.4"', "a number is needed"),
        ("[a]\nna = true", "a number is needed"),
        ("[a]\nna = nan", "a number is needed"),
        ("[a]\npixel_um = -1.0", "pixel_um"),
        ("[a]\ndefocus_um = 1.0", "a number is needed"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_with_a_sentence_and_stays_as_it_is(path, text, says):
    path.parent.mkdir()
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(content)
    with pytest.raises(RequestError, match=says) as refused:
        read_presets()
    assert "Remove it, or mend it." in str(refused.value)
    with pytest.raises(RequestError):
        save_preset("new", GFP)
    assert path.read_bytes() == content


def test_a_bad_file_is_said_in_the_dock(viewer, path, open_dock, tiny_widefield_model):
    dock = open_dock(tiny_widefield_model)
    path.parent.mkdir()
    path.write_text("[")
    dock.form.presets.refresh()
    assert "no list of microscopes" in dock.panel.message.text()


def test_a_microscope_fills_what_was_not_typed(viewer, open_dock, tiny_widefield_model, measured):
    save_preset("63x 1.4 GFP", GFP)
    dock = open_dock(tiny_widefield_model)
    form = dock.form
    form.optics["na"].setText("1.2")
    form.presets.set_value("63x 1.4 GFP")
    assert form.settings()["na"] == 1.2
    assert form.settings()["wavelength_um"] == 0.52
    viewer.add_image(measured["data"])
    assert form.missing() == () and form.settings()["pixel_um"] == 0.065
    form.presets._box.setCurrentIndex(0)
    assert form.settings()["wavelength_um"] is None and form.settings()["na"] == 1.2


def test_without_a_microscope_the_values_of_the_layer_come_back(
    viewer, open_dock, tiny_widefield_model, measured
):
    save_preset("63x 1.4 GFP", {**GFP, "pixel_um": 0.11})
    viewer.add_image(**measured)
    form = open_dock(tiny_widefield_model).form
    assert form.settings()["pixel_um"] == 0.065
    form.presets.set_value("63x 1.4 GFP")
    assert form.settings()["pixel_um"] == 0.11
    form.presets._box.setCurrentIndex(0)
    assert form.settings()["pixel_um"] == 0.065


def test_two_microscopes_leave_nothing_of_each_other(viewer, open_dock, tiny_phase_model):
    save_preset("one", GFP)
    save_preset("pair", PAIR)
    form = open_dock(tiny_phase_model).form
    form.presets.set_value("one")
    form.presets.set_value("pair")
    assert form.optics_values() == PAIR


def test_what_a_dock_saves_each_other_dock_offers(viewer, open_dock, tiny_widefield_model):
    form = open_dock(tiny_widefield_model).form
    for name, value in GFP.items():
        form.optics[name].set_value(value)
    form.presets.save_as("63x 1.4 GFP")
    assert read_presets() == {"63x 1.4 GFP": GFP}
    other, source = ReconstructForm(viewer), PairSource(viewer)
    other.presets.set_value("63x 1.4 GFP")
    assert {name: other.optics[name].value() for name in GFP} == GFP
    source.kind.setCurrentText(MICROSCOPE)
    source.presets.set_value("63x 1.4 GFP")
    assert source.optics() == GFP
    form.presets.remove.trigger()
    assert read_presets() == {}
    assert form.presets.value() == {}
