"""The form of the Reconstruct dock: what it shows, what it fills in, and what it refuses before a run."""

import dataclasses
import subprocess
import sys

import pytest

from napari_cvdm.request import RequestError


def test_rows_follow_the_model(viewer, measured, open_dock, tiny_widefield_model, tiny_phase_model):
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    assert dock.form.second.isHidden()
    assert dock.form.optics["defocus_um"].isHidden()
    dock.form.model.set_value(str(tiny_phase_model))
    assert not dock.form.second.isHidden()
    assert dock.form.missing()[0] == "the second plane"


def test_optics_follow_the_layer_but_what_was_typed_stays(viewer, measured, open_dock, tiny_widefield_model):
    viewer.add_image(**measured)
    viewer.add_image(measured["data"], name="unknown")
    dock = open_dock(tiny_widefield_model)
    dock.form.image.set_value(viewer.layers["cell"])
    assert dock.form.optics["pixel_um"].value() == pytest.approx(0.065)
    dock.form.image.set_value(viewer.layers["unknown"])
    assert dock.form.optics["pixel_um"].value() is None
    assert dock.form.missing() == ("pixel_um",)
    dock.form.optics["pixel_um"].setText("0,1")
    dock.form.image.set_value(viewer.layers["cell"])
    dock.form.optics["na"].setText("1.4")
    dock.form.image.set_value(viewer.layers["unknown"])
    assert dock.form.optics["na"].value() == 1.4


def test_set_value_of_value_changes_nothing(viewer, planes, open_dock, tiny_phase_model):
    viewer.add_image(planes, scale=(1, 0.2, 0.2), units=("um",) * 3)
    dock = open_dock(tiny_phase_model)
    for name, value in {"wavelength_um": 0.55, "medium_index": 1.33, "defocus_um": (0.0, 2.5), "na": 0.7}.items():
        dock.form.optics[name].set_value(value)
    dock.form.words["sampler"].setCurrentText("ddim")
    dock.form.background.set_value("none")
    before = dock.form.value()
    other = dataclasses.replace(before, samples=5, seed=2**62 + 1, defocus_um=(-3.0, 1.0), wavelength_um=0.5500000001)
    dock.form.set_value(other)
    assert (dock.form.value().seed, dock.form.value().wavelength_um) == (other.seed, other.wavelength_um)
    dock.form.set_value(before)
    after = dock.form.value()
    for entry in dataclasses.fields(before):
        if entry.name != "image":
            assert getattr(after, entry.name) == getattr(before, entry.name), entry.name


def test_the_trained_range_is_said_before_the_run(viewer, measured, open_dock, tiny_widefield_model):
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    dock.form.optics["pixel_um"].setText("3")
    assert "outside" in dock.panel.message.text()


def test_a_layer_that_is_renamed_or_removed_is_so_in_the_list(viewer, measured, open_dock, tiny_widefield_model):
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    viewer.layers["cell"].name = "yeast"
    assert dock.form.image.currentText() == "yeast"
    viewer.layers.clear()
    assert dock.form.missing() == ("an image layer",)
    with pytest.raises(RequestError, match="an image layer"):
        dock.form.value()


def test_torch_that_cannot_be_loaded_is_said_in_the_dock(viewer, monkeypatch):
    from qtpy.QtWidgets import QLabel

    from napari_cvdm.widgets import restore_widget

    monkeypatch.setattr(restore_widget, "engine_problem", lambda: "PyTorch cannot be loaded")
    dock = restore_widget.RestoreWidget(viewer)
    viewer.window.add_dock_widget(dock)
    assert "PyTorch" in dock.findChild(QLabel).text()


def test_reading_the_manifest_and_the_forms_modules_loads_no_torch():
    script = "import sys, napari_cvdm.widgets.restore_widget, napari_cvdm.widgets.sample_data; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert answer.strip() == "False"


def test_a_long_path_does_not_widen_the_dock(viewer, open_dock, tiny_widefield_model):
    dock = open_dock(tiny_widefield_model)
    dock.form.model.refused.emit("/a/path" * 40 + " is not a model.")
    assert dock.panel.minimumSizeHint().width() < 300
    assert dock.panel.message.text() == "/a/path" * 40 + " is not a model."


def test_a_pixel_size_given_to_the_chosen_layer_later_is_the_one_of_the_run(viewer, spots, open_dock, tiny_widefield_model):
    layer, other = (viewer.add_image(spots, name=name) for name in ("cell", "other"))
    dock = open_dock(tiny_widefield_model)
    dock.form.image.set_value(layer)
    assert "pixel_um" in dock.form.missing()
    for pixel in (0.065, 0.1):
        layer.scale, layer.units = (pixel, pixel), ("um", "um")
        assert dock.form.value().optics_value("pixel_um") == pytest.approx(pixel)
    other.scale, other.units = (0.3, 0.3), ("um", "um")
    assert dock.form.value().optics_value("pixel_um") == pytest.approx(0.1)


def test_align_and_the_size_of_the_field_are_in_the_form(viewer, planes, open_dock, tiny_phase_model, tiny_widefield_model):
    viewer.add_image(planes, scale=(1, 0.2, 0.2), units=("um",) * 3)
    dock = open_dock(tiny_phase_model)
    height, width = planes.shape[-2:]
    assert f"{width * 0.2:.4g} x {height * 0.2:.4g} um" in dock.form.field.text()
    dock.form.optics["pixel_um"].setText("0.4")
    assert f"{width * 0.4:.4g} x {height * 0.4:.4g} um" in dock.form.field.text()
    assert dock.form.settings()["align"] == "off"
    dock.form.words["align"].setCurrentText("auto")
    assert dock.form.settings()["align"] == "auto"
    dock.form.optics["defocus_um"].set_value((1.0, 3.0))
    assert "same side of focus" in dock.panel.message.text() or "same side of focus" in " ".join(dock.form.warnings())
    dock.form.more.expand(animate=False)
    assert not dock.form.words["align"].isHidden()
    dock.form.model.set_value(str(tiny_widefield_model))
    assert dock.form.words["align"].isHidden()
