"""The tabs Profile and Next image of the Inspect dock in a real window."""

import csv
import io

import numpy as np
import pytest
from inspected_result import settle
from qtpy.QtGui import QImage

from napari_cvdm.analysis.intervals import profile_along
from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.core.result import finished as drained
from napari_cvdm.widgets.inspect.further_tabs import KEEP_SAMPLES
from napari_cvdm.widgets.layers.layer_data import read_layer
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.result_layers import to_layer_data
from napari_cvdm.widgets.layers.shown_layers import show_layers


def add_line(viewer, layer, pixels, kind="line", **more):
    """A line over a layer, from its pixels, on a grid of its own."""
    world = np.array(
        [layer.data_to_world((*[0] * (layer.ndim - 2), *pixel))[-2:] for pixel in pixels]
    )
    return viewer.add_shapes(
        [(world - 3) / 0.5],
        shape_type=kind,
        scale=(0.5, 0.5),
        translate=(3, 3),
        units=("um", "um"),
        **more,
    )


def rows_of(dock):
    return list(csv.DictReader(io.StringIO(dock.profile.text())))


def column(dock, name):
    return np.array([float(row[name]) for row in rows_of(dock)])


ACROSS = [(1, 10), (14, 10)]


def test_a_line_shows_what_the_core_finds_along_it(viewer, show, inspect, qtbot):
    result, layers = show(samples=True)
    dock = inspect()
    assert "Draw a line" in dock.profile.numbers.text()
    add_line(viewer, layers["reconstruction"], ACROSS)
    settle(qtbot, dock)
    samples = viewer.layers["samples"].data
    expected = profile_along(
        np.array(ACROSS, float), result.mean, 0.1, samples=samples, spread=result.std
    )
    np.testing.assert_allclose(column(dock, "value"), expected.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(column(dock, "low"), expected.low, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(column(dock, "distance_um"), expected.distance_um, rtol=1e-5)
    assert {row["samples"] for row in rows_of(dock)} == {"7"}
    assert "FWHM of the highest peak" in dock.profile.numbers.text()
    assert "not calibrated" in dock.profile.legend.text().replace("&nbsp;", " ")
    assert column(dock, "raw").max() == 0  # the measured image of the fixture is dark


def test_a_line_that_moves_is_read_again_and_one_that_goes_is_forgotten(
    viewer, show, inspect, qtbot
):
    _, layers = show()
    dock = inspect()
    line = add_line(viewer, layers["reconstruction"], ACROSS)
    settle(qtbot, dock)
    before = column(dock, "value")
    assert KEEP_SAMPLES in dock.profile.numbers.text()
    assert rows_of(dock)[0]["fwhm_um_low"] == ""
    assert rows_of(dock)[0]["low"] != ""  # from the spread of each pixel
    line.data = [line.data[0] + [0, 1]]
    settle(qtbot, dock)
    assert not np.allclose(column(dock, "value"), before)
    viewer.layers.remove(line)
    settle(qtbot, dock)
    assert dock.profile.text() == ""
    assert not dock.profile.csv.isEnabled()


@pytest.mark.window
def test_the_button_draws_a_line_over_the_brightest_pixel(viewer, show, inspect, qtbot):
    result, _ = show()
    dock = inspect()
    dock.profile.draw.click()
    settle(qtbot, dock)
    assert viewer.layers[-1].name == "profile line"
    assert viewer.layers.units is not None
    row, middle = np.unravel_index(np.argmax(result.mean), result.mean.shape)
    half, most = 0.3 * result.mean.shape[1], result.mean.shape[1] - 1
    ends = np.array([[row, max(middle - half, 0)], [row, min(middle + half, most)]])
    expected = profile_along(ends, result.mean, 0.1)
    np.testing.assert_allclose(column(dock, "value"), expected.mean, rtol=1e-4, atol=1e-5)


def test_lines_outside_and_of_no_length_are_answered_in_words(viewer, show, inspect, qtbot):
    _, layers = show()
    dock = inspect()
    add_line(viewer, layers["reconstruction"], [(100, 0), (100, 30)])
    settle(qtbot, dock)
    assert "misses the result" in dock.message.text()
    rectangle = add_line(
        viewer, layers["reconstruction"], [(1, 1), (1, 9), (9, 9), (9, 1)], kind="rectangle"
    )
    dock.profile.line.set_value(rectangle)
    settle(qtbot, dock)
    assert "Draw a line" in dock.profile.numbers.text()


def test_table_and_picture_are_saved(viewer, show, inspect, qtbot, tmp_path, monkeypatch):
    _, layers = show()
    dock = inspect()
    add_line(viewer, layers["reconstruction"], [(2, 2), (5, 12), (20, 12)], kind="path")
    settle(qtbot, dock)
    for name, button in (("profile.csv", dock.profile.csv), ("profile.png", dock.profile.png)):
        monkeypatch.setattr(
            "napari_cvdm.widgets.inspect.further_tabs.QFileDialog.getSaveFileName",
            lambda *_, name=name: (str(tmp_path / name), ""),
        )
        button.click()
    assert (tmp_path / "profile.csv").read_text() == dock.profile.text()
    picture = QImage(str(tmp_path / "profile.png"))
    assert picture.width() == 3 * dock.profile.plot.plot.width()
    dock.profile.save(str(tmp_path / "nowhere" / "a.csv"), b"")
    assert "cannot be written" in dock.message.text()


def test_a_calibration_widens_the_band(viewer, show, inspect, qtbot):
    from napari_cvdm.widgets.layers.result_layers import groups_of, put_calibration

    _, layers = show()
    dock = inspect()
    add_line(viewer, layers["reconstruction"], ACROSS)
    settle(qtbot, dock)
    before = column(dock, "high") - column(dock, "value")
    put_calibration(
        viewer, groups_of(viewer.layers)[0], {"factor": 3.29, "level": 0.9, "floor": 0, "set": "x"}
    )
    dock.profile.set_group(dock.group.value())
    settle(qtbot, dock)
    after = column(dock, "high") - column(dock, "value")
    np.testing.assert_allclose(after, 2 * before, rtol=1e-3)
    assert rows_of(dock)[0]["interval_calibrated"] == "True"


@pytest.fixture
def measured_result(viewer, spots, tiny_widefield_model):
    """A fluorescence image and its result, as the Reconstruct dock leaves them."""
    layer = viewer.add_image(
        np.tile(spots, (2, 2)), name="cell", scale=(0.065, 0.065), units=("um", "um")
    )
    from napari_cvdm.models.registry import load_model
    from napari_cvdm.reconstruction.reconstruct import reconstruct

    request = ReconstructionRequest(
        image=read_layer(layer),
        model=str(tiny_widefield_model),
        pixel_um=0.065,
        wavelength_um=0.52,
        na=1.4,
        medium_index=1.515,
        samples=1,
        steps=1,
        device="cpu",
    )
    show_layers(
        viewer,
        to_layer_data(
            drained(reconstruct(request, load_model(request.model))), Placement.of(layer)
        ),
    )
    return layer


def test_the_next_image_is_planned_from_the_measured_one(viewer, measured_result, inspect, qtbot):
    dock = inspect()
    dock.next_image.estimate.click()
    settle(qtbot, dock)
    assert "Twice the light: error" in dock.next_image.text.text(), dock.message.text()
    assert not dock.next_image.plot.isHidden()
    errors = dock.next_image.plot._curve.getOriginalDataset()[1]
    assert (np.diff(errors) < 0).all()
    viewer.layers.remove(measured_result)
    settle(qtbot, dock)
    dock.next_image.estimate.click()
    settle(qtbot, dock)
    assert "is not among the layers" in dock.message.text()
    assert dock.next_image.text.text() == ""


def test_a_result_without_settings_is_answered_in_words(show, inspect, qtbot):
    show()
    dock = inspect()
    dock.next_image.estimate.click()
    settle(qtbot, dock)
    assert "the plan needs the measured image" in dock.message.text()
