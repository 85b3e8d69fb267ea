"""One click in the dock puts the answers of other methods beside a result."""

from dataclasses import replace

import numpy as np
import pytest

from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import Progress
from napari_cvdm.core.result import finished as drained
from napari_cvdm.reconstruction.methods import load_method
from napari_cvdm.reconstruction.reconstruct import compare_methods, reconstruct
from napari_cvdm.widgets.inspect.inspect_widget import InspectWidget
from napari_cvdm.widgets.layers.layer_data import plugin_metadata, read_layer
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.result_layers import to_layer_data
from napari_cvdm.widgets.layers.shown_layers import show_result_in_turn

OIL = {"wavelength_um": 0.52, "medium_index": 1.518, "na": 1.4}
TWO_PLANES = {"wavelength_um": 0.55, "medium_index": 1.33, "defocus_um": (-1.0, 1.0)}


def fill(dock, optics):
    for name, value in optics.items():
        dock.form.optics[name].set_value(value)


@pytest.fixture(autouse=True)
def without_shipped_models(monkeypatch):
    """They would compute for long."""
    monkeypatch.setattr("napari_cvdm.models.registry.shipped_models", lambda: [])


@pytest.fixture
def widefield(viewer, measured, open_dock, finished, tiny_widefield_model):
    """A dock with a result, made without the optics that only a PSF needs."""
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    dock.start()
    finished(dock)
    return dock


@pytest.mark.window
def test_a_phase_result_is_compared_with_the_physics_alone(
    viewer, planes, open_dock, finished, tiny_phase_model
):
    viewer.add_image(planes, name="near", scale=(1, 0.2, 0.2), units=("um",) * 3)
    dock = open_dock(tiny_phase_model)
    fill(dock, TWO_PLANES)
    assert not dock.results.compare.isEnabled()
    dock.start()
    finished(dock)
    request, result = dock.form.value(), viewer.layers["reconstruction of near [rad]"]
    result.contrast_limits = (-0.5, 0.5)
    dock.results.compare.click()
    finished(dock)
    layer = viewer.layers["phase-physics of near [rad]"]
    assert (
        layer.data.tobytes()
        == drained(reconstruct(request, load_method("phase-physics"))).mean.tobytes()
    )
    assert layer.visible
    assert (tuple(layer.contrast_limits), layer.colormap.name) == (
        (-0.5, 0.5),
        result.colormap.name,
    )
    np.testing.assert_allclose(layer.scale, result.scale)
    assert plugin_metadata(layer)["provenance"]["model"]["kind"] == "baseline"
    grid = viewer.canvas.grid
    assert grid.enabled
    answers = [f"{name} of near [rad]" for name in ("phase-physics", "us-tie", "wotf")]
    shown = [one.name for one in viewer.layers if one.visible]
    assert shown == ["near", "reconstruction of near [rad]", *answers]
    for name in ("tiny-phase-2shot", "phase-physics", "us-tie", "wotf"):
        assert f"{name} in " in dock.panel.message.text()


def test_answers_of_all_methods_are_imaged_again(planes):
    request = ReconstructionRequest(
        image=ImageStack(array=planes, axes="PYX", pixel_um=0.2), model="phase-2shot", **TWO_PLANES
    )
    found = drained(compare_methods(request, ["us-tie", "phase-physics"]))
    assert [one.provenance.model["name"] for one in found.answers] == ["us-tie", "phase-physics"]
    assert not found.refused
    blank, phase = (one.forward.chi2 for one in found.answers)
    assert np.isfinite(blank) and np.isfinite(phase)
    direct = drained(reconstruct(replace(request, model="us-tie"), load_method("us-tie")))
    assert found.answers[0].mean.tobytes() == direct.mean.tobytes()


def test_a_second_comparison_replaces_the_first_and_the_result_stays_chosen(
    viewer, widefield, finished
):
    fill(widefield, OIL)
    before = widefield.results.value().name
    for _ in range(2):
        widefield.results.compare.click()
        finished(widefield)
    assert [layer.name for layer in viewer.layers].count("richardson-lucy of cell [counts]") == 1
    assert (
        viewer.layers["richardson-lucy of cell [counts]"].data.shape
        == viewer.layers["reconstruction of cell [counts]"].data.shape
    )
    assert widefield.results.value().name == before
    assert widefield.results.more.isEnabled()


def test_optics_that_are_filled_in_later_are_used_by_the_method(viewer, widefield, finished):
    sources = []
    for known in ({}, OIL):
        fill(widefield, known)
        widefield.results.compare.click()
        finished(widefield)
        layer = viewer.layers["richardson-lucy of cell [counts]"]
        sources.append(plugin_metadata(layer)["provenance"]["estimated"]["frames"][0]["optics"])
    assert sources[0] in ("estimated", "assumed") and sources[1] == "stated"


def test_a_comparison_can_be_cancelled(viewer, widefield, finished, monkeypatch, qtbot):
    def endless(*_):
        done = 0
        while True:
            yield Progress(stage="waiting", done=done, total=10**9)
            done += 1

    monkeypatch.setattr("napari_cvdm.reconstruction.reconstruct.ClassicalSolver.solve", endless)
    before = [layer.name for layer in viewer.layers]
    fill(widefield, OIL)
    widefield.results.compare.click()
    qtbot.waitUntil(lambda: widefield.panel.bar.value() > 2)
    widefield.panel.cancel.click()
    finished(widefield)
    assert [layer.name for layer in viewer.layers] == before


def test_a_whole_result_of_a_baseline_can_be_shown_and_inspected(viewer, measured, qtbot):
    layer = viewer.add_image(**measured)
    result = drained(
        reconstruct(
            ReconstructionRequest(image=read_layer(layer), model="richardson-lucy:2", **OIL),
            load_method("richardson-lucy:2"),
        )
    )
    for _ in show_result_in_turn(viewer, to_layer_data(result, Placement.of(layer))):
        pass
    assert "gamma of cell" not in viewer.layers
    dock = InspectWidget(viewer)
    viewer.window.add_dock_widget(dock)
    qtbot.waitUntil(lambda: "single answer" in dock.message.text())
    dock.tabs.setCurrentIndex(1)
    qtbot.waitUntil(lambda: not dock.agreement.work.busy)
    qtbot.wait(200)
    assert "single answer" in dock.message.text()
