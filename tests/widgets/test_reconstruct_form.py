"""The form of the Reconstruct dock.

What it shows, what it fills in, and what it refuses before a run.
"""

import dataclasses

import numpy as np
import pytest

from napari_cvdm.core.plan import z_step_warning
from napari_cvdm.core.request import RequestError, command_words
from napari_cvdm.io import write_image
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY


def test_rows_follow_the_model(viewer, measured, open_dock, tiny_widefield_model, tiny_phase_model):
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    assert dock.form.second.isHidden()
    assert dock.form.optics["defocus_um"].isHidden()
    dock.form.model.set_value(str(tiny_phase_model))
    assert not dock.form.second.isHidden()
    assert dock.form.missing()[0] == "the other planes"


def test_optics_follow_the_layer_but_what_was_typed_stays(
    viewer, measured, open_dock, tiny_widefield_model
):
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


def test_a_measured_psf_is_asked_for_where_it_is_used_and_comes_back_with_a_request(
    viewer, measured, open_dock, tiny_widefield_model, tiny_phase_model, tmp_path
):
    y, x = np.mgrid[-10:11, -10:11]
    write_image(
        tmp_path / "bead.ome.tif",
        np.exp(-(x**2 + y**2) / 8.0).astype(np.float32),
        axes="YX",
        pixel_um=0.05,
        unit="counts",
        name="bead",
    )
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    assert not dock.form.psf.isHidden() and dock.form.value().psf is None
    dock.form.psf.set_value(tmp_path / "bead.ome.tif")
    request = dock.form.value()
    assert request.psf.pixel_um == pytest.approx(0.05)
    dock.form.psf.set_value("")
    dock.form.set_value(request)
    assert dock.form.value().psf.array.tobytes() == request.psf.array.tobytes()
    dock.form.psf.set_value(tmp_path / "none.tif")
    with pytest.raises(RequestError, match=r"none\.tif"):
        dock.form.value()
    dock.form.psf.set_value("~nobody-of-this-name/bead.tif")
    with pytest.raises(RequestError, match="nobody"):
        dock.form.value()
    dock.form.model.set_value(str(tiny_phase_model))
    assert dock.form.psf.isHidden() and dock.form.settings()["psf"] is None


def test_positions_that_a_layer_told_go_with_it(viewer, planes, open_dock, tiny_phase_model):
    told = {METADATA_KEY: {"optics": {"defocus_um": (-1.0, 0.0, 1.5)}}}
    viewer.add_image(
        np.concatenate([planes, planes[:1]]),
        name="stack",
        axis_labels=("plane", "y", "x"),
        metadata=told,
    )
    viewer.add_image(planes, name="pair", axis_labels=("plane", "y", "x"))
    dock = open_dock(tiny_phase_model)
    dock.form.image.set_value(viewer.layers["stack"])
    assert dock.form.positions.value() == (-1.0, 0.0, 1.5)
    dock.form.image.set_value(viewer.layers["pair"])
    assert dock.form.positions.typed == ("", "")


def test_set_value_of_value_changes_nothing(viewer, planes, open_dock, tiny_phase_model):
    viewer.add_image(planes, scale=(1, 0.2, 0.2), units=("um",) * 3)
    dock = open_dock(tiny_phase_model)
    for name, value in {
        "wavelength_um": 0.55,
        "medium_index": 1.33,
        "defocus_um": (0.0, 2.5),
        "na": 0.7,
    }.items():
        dock.form.optics[name].set_value(value)
    dock.form.words["sampler"].setCurrentText("ddim")
    dock.form.background.set_value("none")
    before = dock.form.value()
    other = dataclasses.replace(
        before, samples=5, seed=2**62 + 1, defocus_um=(-3.0, 1.0), wavelength_um=0.5500000001
    )
    dock.form.set_value(other)
    assert (dock.form.value().seed, dock.form.value().wavelength_um) == (
        other.seed,
        other.wavelength_um,
    )
    dock.form.set_value(before)
    after = dock.form.value()
    for entry in dataclasses.fields(before):
        if entry.name != "image":
            assert getattr(after, entry.name) == getattr(before, entry.name), entry.name


def test_keeping_the_samples_changes_the_cost_that_is_said(
    viewer, measured, open_dock, qtbot, tiny_widefield_model
):
    viewer.add_image(**measured)
    form = open_dock(tiny_widefield_model).form
    for kept in (True, False):
        with qtbot.waitSignal(form.changed):
            form.keep_samples.click()
        assert form.value().keep_samples is kept


def test_the_trained_range_is_said_before_the_run(
    viewer, measured, open_dock, tiny_widefield_model
):
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    dock.form.optics["pixel_um"].setText("3")
    assert "outside" in dock.panel.message.text()


def test_a_layer_that_is_renamed_or_removed_is_so_in_the_list(
    viewer, measured, open_dock, tiny_widefield_model
):
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

    from napari_cvdm.widgets.reconstruct import reconstruct_widget

    monkeypatch.setattr(reconstruct_widget, "engine_problem", lambda: "PyTorch cannot be loaded")
    dock = reconstruct_widget.ReconstructWidget(viewer)
    viewer.window.add_dock_widget(dock)
    assert "PyTorch" in dock.findChild(QLabel).text()


@pytest.mark.window
def test_a_long_path_does_not_widen_the_dock(viewer, open_dock, tiny_widefield_model):
    dock = open_dock(tiny_widefield_model)
    dock.form.model.refused.emit("/a/path" * 40 + " is not a model.")
    assert dock.panel.minimumSizeHint().width() < 300
    assert dock.panel.message.text() == "/a/path" * 40 + " is not a model."


def test_a_pixel_size_given_to_the_chosen_layer_later_is_the_one_of_the_run(
    viewer, spots, open_dock, tiny_widefield_model
):
    layer, other = (viewer.add_image(spots, name=name) for name in ("cell", "other"))
    dock = open_dock(tiny_widefield_model)
    dock.form.image.set_value(layer)
    assert "pixel_um" in dock.form.missing()
    for pixel in (0.065, 0.1):
        layer.scale, layer.units = (pixel, pixel), ("um", "um")
        assert dock.form.value().optics_value("pixel_um") == pytest.approx(pixel)
    other.scale, other.units = (0.3, 0.3), ("um", "um")
    assert dock.form.value().optics_value("pixel_um") == pytest.approx(0.1)


def test_align_and_the_size_of_the_field_are_in_the_form(
    viewer, planes, open_dock, tiny_phase_model, tiny_widefield_model
):
    viewer.add_image(planes, scale=(1, 0.2, 0.2), units=("um",) * 3)
    dock = open_dock(tiny_phase_model)
    height, width = planes.shape[-2:]
    assert f"{width * 0.2:.3g} x {height * 0.2:.3g} µm" in dock.form.field.text()
    dock.form.optics["pixel_um"].setText("0.4")
    assert f"{width * 0.4:.3g} x {height * 0.4:.3g} µm" in dock.form.field.text()
    assert dock.form.settings()["align"] == "off"
    dock.form.words["align"].setCurrentText("auto")
    assert dock.form.settings()["align"] == "auto"
    dock.form.optics["defocus_um"].set_value((1.0, 3.0))
    assert "one side of focus" in dock.panel.message.text() or "one side of focus" in " ".join(
        dock.form.warnings()
    )
    dock.form.more.expand(animate=False)
    assert not dock.form.words["align"].isHidden()
    dock.form.model.set_value(str(tiny_widefield_model))
    assert dock.form.words["align"].isHidden()


def fill(form, **values):
    for name, value in {
        "pixel_um": 0.2,
        "wavelength_um": 0.55,
        "medium_index": 1.33,
        **values,
    }.items():
        form.optics[name].set_value(value)


def test_a_layer_of_three_planes_has_three_positions_and_two_layers_have_two(
    viewer, open_dock, tiny_phase_model
):
    pixels = np.random.default_rng(0).random((3, 48, 40))
    viewer.add_image(
        pixels, name="stack", scale=(0.5, 0.2, 0.2), units=("um",) * 3, axis_labels=("z", "y", "x")
    )
    form = open_dock(tiny_phase_model).form
    fill(form)
    assert form.missing() == ("defocus_um",)
    assert len(form.optics["defocus_um"].typed) == 3
    form.optics["defocus_um"].set_value((-1.0, 0.0, 2.0))
    form.optics["condenser_na"].setText("0,3")
    request = form.value()
    assert (request.image.axes, request.image.planes) == ("PYX", 3)
    assert (request.defocus_um, request.condenser_na) == ((-1.0, 0.0, 2.0), 0.3)
    assert "0.5 um" in z_step_warning(request)[0] and "2 um" in z_step_warning(request)[0]
    assert form.placement().planes == 3
    command = " ".join(command_words(request, {"image": "stack.tif"}, "out"))
    assert "--defocus-um -1 0 2 " in command and "--condenser-na 0.3 " in command
    for name in ("below", "above"):
        viewer.add_image(pixels[0], name=name)
    form.image.set_value(viewer.layers["below"])
    form.second.set_value(viewer.layers["above"])
    assert len(form.optics["defocus_um"].typed) == 2


def test_one_of_three_positions_left_empty_is_said(viewer, open_dock, tiny_phase_model):
    viewer.add_image(
        np.random.default_rng(0).random((3, 48, 40)), name="stack", axis_labels=("plane", "y", "x")
    )
    form = open_dock(tiny_phase_model).form
    fill(form, defocus_um=(-1.0, 0.0, 2.0))
    form.optics["condenser_na"].setText("1.5")
    with pytest.raises(ValueError, match=r"condenser_na is 1\.5; allowed is 0 to 1\.33"):
        form.value()
    form.optics["condenser_na"].setText("")
    assert form.value().condenser_na is None
    form.optics["defocus_um"]._parts[1].setText("")
    with pytest.raises(RequestError, match="2 of 3 values"):
        form.value()


def test_settings_of_three_planes_come_back_into_the_form(
    viewer, open_dock, tiny_phase_model, tiny_widefield_model
):
    viewer.add_image(np.random.default_rng(0).random((4, 48, 40)), name="stack")
    dock = open_dock(tiny_phase_model)
    fill(dock.form, defocus_um=(-2.0, -1.0, 1.0, 2.0), condenser_na=0.2)
    before = dock.form.value()
    assert before.image.planes == 4
    dock.form.model.set_value(str(tiny_widefield_model))
    assert dock.form.optics["condenser_na"].isHidden()
    assert "condenser_na" not in dock.form.settings()
    fill(dock.form, defocus_um=(0.0, 1.0), condenser_na=None)
    dock.form.set_value(before)
    after = dock.form.value()
    assert (after.defocus_um, after.condenser_na) == (before.defocus_um, before.condenser_na)


def test_a_field_says_where_its_value_comes_from(
    viewer, measured, planes, open_dock, tiny_phase_model, tiny_widefield_model
):
    told = {"immersion_index": 1.515, "emission_um": 0.52, "na": 1.4}
    origins = dict.fromkeys(told, "OME-XML of cell.ome.tif")
    metadata = {METADATA_KEY: {"optics": told, "origins": origins}}
    viewer.add_image(planes, name="pair", axis_labels=("plane", "y", "x"), metadata=metadata)
    dock = open_dock(tiny_phase_model)
    dock.form.image.set_value(viewer.layers["pair"])
    optics = dock.form.optics
    assert optics["medium_index"].value() is None
    assert "the index of the immersion" in optics["medium_index"].toolTip()
    viewer.add_image(**{**measured, "metadata": metadata})
    dock.form.model.set_value(str(tiny_widefield_model))
    dock.form.image.set_value(viewer.layers["cell"])
    assert (optics["medium_index"].value(), optics["wavelength_um"].value()) == (1.515, 0.52)
    assert "From the layer: OME-XML of cell.ome.tif." in optics["wavelength_um"].toolTip()


def test_a_typed_pixel_size_places_the_result_and_can_scale_the_layer(
    viewer, spots, open_dock, finished, tiny_widefield_model
):
    layer = viewer.add_image(spots, name="cell", translate=(3.0, 4.0))
    dock = open_dock(tiny_widefield_model)
    assert dock.form.scale.isHidden()
    dock.form.optics["pixel_um"].setText("0.1")
    assert not dock.form.scale.isHidden()
    dock.start()
    finished(dock)
    result = viewer.layers["reconstruction of cell [counts]"]
    np.testing.assert_allclose(result.scale, 0.05)
    assert [f"{unit:~}" for unit in result.units] == ["µm", "µm"]
    dock.form.scale.click()
    np.testing.assert_allclose(layer.scale, 0.1)
    np.testing.assert_allclose(layer.translate, (0.3, 0.4))
    assert viewer.layers.units is not None
    assert dock.form.scale.isHidden() and dock.form.settings()["pixel_um"] == 0.1
    fine = (np.array((7, 9)) + 0.5) * 2 - 0.5
    np.testing.assert_allclose(result.data_to_world(fine), layer.data_to_world((7, 9)))


@pytest.mark.parametrize("text", ["nan", "inf", "0", "-0.1"])
def test_a_layer_is_not_scaled_to_what_is_no_pixel_size(
    viewer, spots, open_dock, tiny_widefield_model, text
):
    viewer.add_image(spots, name="cell")
    dock = open_dock(tiny_widefield_model)
    dock.form.optics["pixel_um"].setText(text)
    assert dock.form.scale.isHidden()


def test_both_planes_are_scaled(viewer, planes, open_dock, tiny_phase_model):
    layers = [viewer.add_image(plane, name=str(n)) for n, plane in enumerate(planes)]
    dock = open_dock(tiny_phase_model)
    dock.form.optics["pixel_um"].setText("0.2")
    dock.form.scale.click()
    for layer in layers:
        np.testing.assert_allclose(layer.scale, 0.2)


def test_pixels_that_are_not_square_are_named(viewer, spots, open_dock, tiny_widefield_model):
    viewer.add_image(spots, scale=(0.1, 0.2), units=("um", "um"), name="cell")
    dock = open_dock(tiny_widefield_model)
    assert "0.2 x 0.1 µm, and they must be square" in dock.form.field.text()


@pytest.mark.window
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_fold_looks_like_a_button(viewer, open_dock, tiny_widefield_model, theme):
    viewer.theme = theme
    dock = open_dock(tiny_widefield_model)
    for fold in (dock.form.about, dock.form.more):
        button = fold.toggleButton()
        image = button.grab().toImage()
        edge = image.pixelColor(image.width() // 2, 0)
        assert edge != image.pixelColor(image.width() // 2, image.height() // 4)
    viewer.theme = "dark"
