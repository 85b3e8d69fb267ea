"""The Inspect dock in a real window.

Schedules as layers and curves, samples, agreement, and everything that may be missing.
"""

import dask.array as da
import numpy as np
import pytest
from inspected_result import CLOCK, drawn, point_at, reconstruction, settle

from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, plugin_metadata
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.result_layers import groups_of, to_layer_data
from napari_cvdm.widgets.layers.shown_layers import show_layers


def test_without_a_result_it_says_what_to_do(inspect):
    dock = inspect()
    assert "Reconstruct an image first" in dock.message.text()
    assert not dock.pixel.isEnabled()
    assert not dock.agreement.isEnabled()


def test_a_result_that_comes_later_is_shown(viewer, show, inspect, qtbot):
    dock = inspect()
    show()
    settle(qtbot, dock)
    assert dock.group.currentText() == "cell by tiny"
    assert dock.message.text() == ""
    assert dock.pixel.isEnabled()


def test_curves_are_those_of_the_pixel_under_the_mouse(viewer, show, inspect, qtbot):
    result, layers = show()
    dock = inspect()
    point_at(viewer, layers["reconstruction"], (7, 13))
    settle(qtbot, dock)
    rate = result.rate[7, 13]
    assert (dock.pixel.row.value(), dock.pixel.column.value()) == (7, 13)
    np.testing.assert_allclose(
        drawn(dock, "gamma"), np.exp(-rate * np.array(CLOCK.values)), rtol=1e-6
    )
    np.testing.assert_allclose(drawn(dock, "beta"), rate * np.array(CLOCK.speeds), rtol=1e-6)
    assert f"λ = {rate:.3g}" in dock.pixel.values.text()
    assert f"± {result.std[7, 13]:.2g} counts" in dock.pixel.values.text()
    assert "not calibrated" in dock.pixel.values.text()


def test_the_mouse_outside_changes_nothing_and_a_typed_pixel_stays(viewer, show, inspect, qtbot):
    result, layers = show()
    dock = inspect()
    before = dock.pixel.row.value()
    point_at(viewer, layers["reconstruction"], (-5, 13))
    settle(qtbot, dock)
    assert dock.pixel.row.value() == before
    dock.pixel.row.setValue(3)
    point_at(viewer, layers["reconstruction"], (9, 9))
    settle(qtbot, dock)
    assert not dock.pixel.follow.isChecked()
    np.testing.assert_allclose(
        drawn(dock, "gamma"), np.exp(-result.rate[3, 10] * np.array(CLOCK.values)), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("role", "field"),
    [
        pytest.param("gamma", "gamma", marks=pytest.mark.window),
        ("beta", "beta"),
        ("log-SNR", "half_log_snr"),
    ],
)
def test_a_map_is_lazy_lies_on_the_rate_map_and_has_a_slider_for_t(
    viewer, show, inspect, qtbot, role, field
):
    _, layers = show()
    dock = inspect()
    dock.pixel.buttons[role].click()
    settle(qtbot, dock)
    layer, rate = viewer.layers[f"{role} of cell"], layers["noise-rate map"]
    assert isinstance(layer.data, da.Array)
    assert layer.data.shape == (4, 24, 20)
    assert layer.visible
    assert layer.axis_labels == ("t", "y", "x")
    assert str(layer.units[0]) == "dimensionless"
    assert viewer.layers.units is not None
    assert viewer.dims.axis_labels[0] == "t"
    assert viewer.dims.point[0] == pytest.approx(0.5)
    assert plugin_metadata(layer) == {**plugin_metadata(rate), "role": role, "unit": ""}
    np.testing.assert_allclose(layer.data_to_world((2, 5, 6)), (0.75, *rate.data_to_world((5, 6))))
    limits = list(layer.contrast_limits)
    viewer.dims.set_current_step(0, 3)
    settle(qtbot, dock)
    assert list(layer.contrast_limits) == limits
    point_at(viewer, rate, (5, 6))
    settle(qtbot, dock)
    np.testing.assert_allclose(np.asarray(layer.data[:, 5, 6]), drawn(dock, field), rtol=1e-5)
    assert dock.pixel.curves._now[field].value() == pytest.approx(1.0)


def test_a_map_asked_for_twice_is_there_once(viewer, show, inspect, qtbot):
    show()
    dock = inspect()
    for _ in range(2):
        dock.pixel.buttons["gamma"].click()
        settle(qtbot, dock)
    assert [layer.name for layer in viewer.layers].count("gamma of cell") == 1
    assert len(groups_of(viewer.layers)) == 1


def test_t_gets_a_slider_of_its_own_beside_planes_and_samples(viewer, show, inspect, qtbot):
    _, layers = show(samples=True)
    dock = inspect()
    dock.pixel.buttons["gamma"].click()
    settle(qtbot, dock)
    layer = viewer.layers["gamma of cell"]
    assert viewer.dims.axis_labels == ("t", "sample", "y", "x")
    assert viewer.layers.units is not None
    for sample in range(7):
        world = layers["samples"].data_to_world((sample, 3, 4))
        index = np.round(layer.world_to_data((0.75, *world))).astype(int)
        assert tuple(index) == (2, 0, 3, 4)


def test_the_histogram_holds_the_samples_of_the_pixel(viewer, show, inspect, qtbot):
    result, layers = show(samples=True)
    dock = inspect()
    point_at(viewer, layers["reconstruction"], (7, 13))
    settle(qtbot, dock)
    edges, counts = dock.pixel.samples._bars.getOriginalDataset()
    assert not dock.pixel.samples.isHidden()
    assert counts.sum() == 7
    np.testing.assert_allclose(
        (edges[0], edges[-1]), result.mean[7, 13] + np.array([-3, 3]), rtol=1e-5
    )
    low, high = dock.pixel.samples._claim.getRegion()
    np.testing.assert_allclose((low + high) / 2, result.mean[7, 13], rtol=1e-5)
    np.testing.assert_allclose((high - low) / 2, 1.645 * result.std[7, 13], rtol=1e-3)


def test_without_samples_it_says_how_to_get_them(show, inspect):
    show()
    dock = inspect()
    assert dock.pixel.samples.isHidden()
    assert "keep the samples" in dock.pixel.values.text()


def test_structure_and_background_have_curves_of_their_own(show, inspect):
    show()
    dock = inspect()
    assert [one.name.split(" (")[0] for one in dock.pixel._regions] == ["structure", "background"]
    assert sum(one.curves.pixels for one in dock.pixel._regions) == 24 * 20
    assert "structure" in dock.pixel.legend.text()


def test_regions_follow_shapes_that_are_drawn_on_another_grid(viewer, show, inspect, qtbot):
    result, _ = show()
    shapes = viewer.add_shapes(
        scale=(0.2, 0.2), units=("um", "um"), axis_labels=("y", "x"), name="drawn"
    )
    dock = inspect()
    dock.pixel.regions.set_value(shapes)
    settle(qtbot, dock)
    assert dock.pixel._regions == []
    shapes.add_rectangles([[1, 1], [3, 4]])
    settle(qtbot, dock)
    (region,) = dock.pixel._regions
    covered = result.rate[
        3:7, 3:9
    ]  # 1 to 3 and 1 to 4 measured pixels, between the centres of pixels
    assert region.curves.pixels == covered.size
    np.testing.assert_allclose(
        region.curves.beta, covered.mean() * np.array(CLOCK.speeds), rtol=1e-5
    )
    shapes.add_ellipses([[6, 6], [9, 9]])
    settle(qtbot, dock)
    assert [one.name.split(" (")[0] for one in dock.pixel._regions] == ["shape 1", "shape 2"]
    assert len({one.color for one in dock.pixel._regions}) == 2


def test_labels_on_a_coarser_grid_cover_the_pixels_they_lie_on(viewer, show, inspect, qtbot):
    result, _ = show()
    painted = np.zeros((12, 10), np.uint8)
    painted[2:4, 5] = 3
    labels = viewer.add_labels(
        painted, scale=(0.2, 0.2), units=("um", "um"), axis_labels=("y", "x")
    )
    dock = inspect()
    dock.pixel.regions.set_value(labels)
    settle(qtbot, dock)
    (region,) = dock.pixel._regions
    assert region.name == "label 3 (8 px)"
    np.testing.assert_allclose(
        region.curves.beta, result.rate[4:8, 10:12].mean() * np.array(CLOCK.speeds), rtol=1e-5
    )
    viewer.layers.remove(labels)
    settle(qtbot, dock)
    assert dock.pixel.regions.currentText() == "structure and background"


def test_the_slider_picks_the_frame_of_a_time_lapse(viewer, show, inspect, qtbot):
    result, _ = show(shape=(3, 24, 20), axes="TYX")
    dock = inspect()
    dock.pixel.row.setValue(5)
    for frame in (2, 0):
        viewer.dims.set_current_step(0, frame)
        settle(qtbot, dock)
        np.testing.assert_allclose(
            drawn(dock, "beta"), result.rate[frame, 5, 10] * np.array(CLOCK.speeds), rtol=1e-5
        )
    dock.pixel.buttons["beta"].click()
    settle(qtbot, dock)
    layer = viewer.layers["beta of cell"]
    assert layer.axis_labels == ("schedule t", "t", "y", "x")
    viewer.dims.set_current_step(1, 1)
    settle(qtbot, dock)
    np.testing.assert_allclose(drawn(dock, "beta"), np.asarray(layer.data[:, 1, 5, 10]), rtol=1e-5)


def test_variance_and_standard_deviation_are_the_same_to_the_dock(viewer, show, inspect, qtbot):
    _, layers = show()
    dock = inspect()
    before = dock.pixel.values.text()
    spread = layers["uncertainty"]
    variance = viewer.add_image(
        np.square(spread.data),
        scale=spread.scale,
        translate=spread.translate,
        units=spread.units,
        axis_labels=spread.axis_labels,
        visible=False,
    )
    variance.metadata[METADATA_KEY] = {**plugin_metadata(spread), "statistic": "variance"}
    viewer.layers.remove(spread)
    settle(qtbot, dock)
    assert dock.pixel.values.text() == before


@pytest.mark.parametrize("role", ["noise-rate map", "reconstruction"])
def test_a_removed_layer_is_missed_in_words(viewer, show, inspect, qtbot, role):
    """As of layers that were read from single files: there is nothing to make them from."""
    _, layers = show()
    for layer in layers.values():
        layer.metadata[METADATA_KEY] = {
            name: value for name, value in plugin_metadata(layer).items() if name != "stored"
        }
    dock = inspect()
    viewer.layers.remove(layers[role])
    point_at(viewer, layers["untrusted pixels"], (3, 3))
    settle(qtbot, dock)
    assert role in dock.message.text()
    assert not dock.pixel.isEnabled()
    viewer.layers.append(layers[role])
    settle(qtbot, dock)
    assert dock.message.text() == ""
    viewer.layers.clear()
    settle(qtbot, dock)
    assert "Reconstruct an image first" in dock.message.text()


def test_the_dock_goes_through_two_results(viewer, show, inspect, qtbot):
    result, layers = show()
    other = viewer.add_image(
        np.zeros((10, 8)),
        name="yeast",
        scale=(0.2, 0.2),
        units=("um", "um"),
        axis_labels=("y", "x"),
    )
    show_layers(viewer, to_layer_data(reconstruction((20, 16)), Placement.of(other)))
    dock = inspect()
    assert dock.group.currentText() == "yeast by tiny"
    assert dock.pixel.row.maximum() == 19
    dock.group.set_value("cell by tiny")
    settle(qtbot, dock)
    assert dock.pixel.row.maximum() == 23
    layers["reconstruction"].name = "renamed"
    dock.pixel.row.setValue(1)
    assert f"λ = {result.rate[1, 10]:.3g}" in dock.pixel.values.text()


@pytest.mark.window
def test_plots_wear_the_theme(viewer, show, inspect):
    from napari.utils.theme import get_theme

    show(samples=True)
    dock = inspect()
    for theme in ("light", "dark"):
        viewer.theme = theme
        colors = get_theme(theme)
        background, text = (
            color.as_hex(format="long") for color in (colors.background, colors.text)
        )
        for plot in (
            *dock.pixel.curves.plots.values(),
            dock.pixel.samples.plot,
            dock.agreement.plot.plot,
        ):
            assert plot.backgroundBrush().color().name() == background
            assert plot.getPlotItem().getAxis("left").textPen().color().name() == text
        assert text in dock.pixel.legend.text()


@pytest.mark.window
def test_every_control_has_help_and_the_dock_may_be_narrow(show, inspect):
    show()
    dock = inspect()
    controls = [
        *dock.pixel.buttons.values(),
        dock.pixel.row,
        dock.pixel.column,
        dock.pixel.follow,
        dock.pixel.regions,
        dock.agreement.truth,
        dock.group,
    ]
    assert all(control.toolTip() for control in controls)
    assert dock.minimumSizeHint().width() <= 330
    assert dock.minimumSizeHint().height() <= 620
