"""A run shows three layers; everything else of a result is one press away, without a new axis."""

import numpy as np
import pytest
from made_results import FIRST, reconstruction
from napari.layers import Image

from napari_cvdm.core.result import ClockCurve
from napari_cvdm.widgets.layers.layer_data import look_of, plugin_metadata
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.result_layers import AT_TIME, groups_of, to_layer_data
from napari_cvdm.widgets.layers.shown_layers import (
    schedule_in_turn,
    show_result_in_turn,
    show_stored,
)


@pytest.fixture
def result_dock(viewer, measured, open_dock, finished, tiny_widefield_model):
    """A dock after its run."""
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    dock.start()
    finished(dock)
    return dock


def roles(viewer):
    return {
        role: layer
        for layer in viewer.layers
        if (role := plugin_metadata(layer).get("role")) is not None
    }


def camera(viewer):
    return tuple(viewer.scene.camera.center), viewer.scene.camera.zoom


@pytest.mark.window
def test_a_run_adds_three_layers_with_colour_bars_and_leaves_the_view(viewer, result_dock):
    assert list(roles(viewer)) == FIRST
    assert viewer.dims.ndim == 2
    before = camera(viewer)
    result_dock.start()
    result_dock.panel.cancel.click()
    for role in ("noise-rate map", "uncertainty"):
        show_stored(viewer, result_dock.results.value(), role)
    assert camera(viewer) == before
    bars = [layer.colorbar.visible for layer in roles(viewer).values() if isinstance(layer, Image)]
    assert all(bars) and len(bars) == 3


def test_one_click_shows_reconstruction_and_uncertainty_in_turn(viewer, result_dock):
    layers, panel = roles(viewer), result_dock.results
    for visible in ("uncertainty", "reconstruction", "uncertainty"):
        panel.turn.click()
        assert {role for role in ("reconstruction", "uncertainty") if layers[role].visible} == {
            visible
        }
        assert visible not in panel.turn.text().replace("&", "")


@pytest.mark.window
def test_the_schedule_is_two_dimensional_at_the_time_of_the_slider(viewer, result_dock, qtbot):
    panel, before = result_dock.results, camera(viewer)
    assert panel.time.isHidden()
    panel.schedule.click()
    assert not panel.time.isHidden()
    group = panel.value()
    clock, rate = group.clock, group.rate.data
    for time in (0.5, 0.1, 0.9):
        panel.time.slider.setValue(time)
        qtbot.waitUntil(lambda: not panel.drawing.busy)
        layers = roles(viewer)
        nearest = int(np.argmin(np.abs(np.array(clock.times) - time)))
        np.testing.assert_allclose(
            layers["gamma at t"].data, np.exp(-rate * clock.values[nearest]), rtol=1e-5
        )
        np.testing.assert_allclose(
            layers["beta at t"].data, rate * clock.speeds[nearest], rtol=1e-5
        )
    assert viewer.dims.ndim == 2 and camera(viewer) == before
    panel.time.stack.click()
    assert viewer.dims.axis_labels[0] == "t" and viewer.dims.ndim == 3
    shown = {role for role, layer in roles(viewer).items() if layer.visible}
    assert "gamma at t" in shown and "reconstruction" not in shown
    panel.schedule.click()
    hidden = {role for role, layer in roles(viewer).items() if not layer.visible}
    assert hidden >= {*AT_TIME.values(), "noise-rate map"}
    assert roles(viewer)["reconstruction"].visible


def test_the_schedule_is_shown_again_however_fast_the_slider_moves(viewer, result_dock, qtbot):
    panel = result_dock.results
    panel.schedule.click()
    for time in (0.5, 0.1, 0.9):  # the window is not served between
        panel.time.slider.setValue(time)
    for _ in range(2):
        qtbot.waitUntil(lambda: not panel.drawing.busy)
        assert roles(viewer)["gamma at t"].visible
        assert not roles(viewer)["reconstruction"].visible
        panel.schedule.click()
        assert not roles(viewer)["gamma at t"].visible
        assert roles(viewer)["reconstruction"].visible
        panel.schedule.click()


def test_the_schedule_follows_a_new_run_and_a_preference_asks_for_it(
    viewer, result_dock, finished, monkeypatch, qtbot
):
    from napari_cvdm.widgets.reconstruct import results_panel

    panel = result_dock.results
    monkeypatch.setattr(results_panel, "preferred", lambda name: name == "show_schedule")
    result_dock.start()
    finished(result_dock)
    qtbot.waitUntil(lambda: not panel.drawing.busy)
    assert panel.schedule.isChecked() and "gamma at t" in roles(viewer)
    gamma = roles(viewer)["gamma at t"]
    panel.schedule.click()
    result_dock.form.counts["seed"].setValue(7)
    result_dock.start()
    finished(result_dock)
    group = panel.value()
    nearest = int(np.argmin(np.abs(np.array(group.clock.times) - 0.5)))
    assert roles(viewer)["gamma at t"] is gamma
    np.testing.assert_allclose(
        gamma.data, np.exp(-group.rate.data * group.clock.values[nearest]), rtol=1e-5
    )


def test_other_layers_are_listed_and_shown_on_request(viewer, result_dock):
    panel = result_dock.results
    panel.list_layers()
    actions = {action.text(): action for action in panel.layers.menu().actions()}
    assert "Noise-rate map" in actions and "Reconstruction" not in actions
    actions["Noise-rate map"].trigger()
    assert roles(viewer)["noise-rate map"].visible
    panel.list_layers()
    shown = {action.text() for action in panel.layers.menu().actions() if not action.isEnabled()}
    assert shown == {"Noise-rate map"}


def test_a_movie_has_the_schedule_of_each_frame_without_an_axis_of_times(viewer):
    source = viewer.add_image(np.zeros((3, 6, 8)), name="cell", axis_labels=("t", "y", "x"))
    result = reconstruction((3, 6, 8), "TYX")
    for _ in show_result_in_turn(viewer, to_layer_data(result, Placement.of(source))):
        pass
    (group,) = groups_of(viewer.layers)
    for _ in schedule_in_turn(viewer, group, 1.0):
        pass
    gamma = roles(viewer)["gamma at t"]
    assert viewer.dims.ndim == 3
    np.testing.assert_allclose(np.asarray(gamma.data), np.exp(-result.rate), rtol=1e-6)
    assert isinstance(group.clock, ClockCurve)


def test_a_phase_rises_from_its_background_without_a_turn_at_zero():
    phase = np.linspace(-0.02, 3.0, 64).reshape(8, 8)
    look = look_of(phase, "rad")
    low, high = look["contrast_limits"]
    assert low <= 0.0 < high
    layer = Image(phase, **look)
    brightness = layer.colormap.map(np.linspace(0, 1, 50))[:, :3] @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(brightness) > 0).all()
