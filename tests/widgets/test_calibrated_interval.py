"""The uncertainty as a bound of the errors.

It comes from a calibrated model, or from a truth among the layers.
"""

from dataclasses import replace

import numpy as np
import pytest

from napari_cvdm.core.statistics import INTERVAL, carried_calibration
from napari_cvdm.evaluation.calibration import Calibration
from napari_cvdm.models.checkpoint import load_checkpoint, save_checkpoint
from napari_cvdm.widgets.inspect.inspect_widget import InspectWidget
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, plugin_metadata
from napari_cvdm.widgets.layers.result_layers import groups_of

SPREAD = "uncertainty of cell [counts]"

MEAN = "reconstruction of cell [counts]"

FITTED = Calibration(
    factor=2.5,
    level=0.9,
    floor=0.0,
    samples=16,
    steps=3,
    sampler="sde-2m",
    set="invented",
    fields=40,
    date="2026-01-01",
)


@pytest.fixture
def calibrated_model(tiny_widefield_model, tmp_path):
    model = load_checkpoint(tiny_widefield_model)
    save_checkpoint(
        tmp_path / "calibrated", model.network, replace(model.card, calibration=FITTED.values())
    )
    return tmp_path / "calibrated"


def test_the_spread_of_a_calibrated_model_can_be_shown_as_an_interval(
    viewer, measured, open_dock, calibrated_model, finished
):
    viewer.add_image(**measured)
    dock = open_dock(calibrated_model)
    dock.start()
    finished(dock)
    layer = viewer.layers[SPREAD]
    assert plugin_metadata(layer)["statistic"] == INTERVAL  # unasked, where there is one
    dock.results.statistic.setCurrentText("standard deviation")
    before = layer.data.copy()
    dock.results.statistic.setCurrentText(INTERVAL)
    factor = carried_calibration(FITTED.values(), 2, 3, "sde-2m")["factor"]
    np.testing.assert_allclose(layer.data, factor * before, rtol=1e-5)
    assert (plugin_metadata(layer)["statistic"], plugin_metadata(layer)["unit"]) == (
        INTERVAL,
        "counts",
    )
    assert "90% of the errors are below this" in dock.results.statistic.toolTip()
    dock.results.statistic.setCurrentText("standard deviation")
    np.testing.assert_allclose(layer.data, before, rtol=1e-5)


def test_a_truth_calibrates_a_result_that_was_not(
    viewer, measured, open_dock, tiny_widefield_model, finished, qtbot
):
    rng = np.random.default_rng(0)
    viewer.add_image(**{**measured, "data": rng.poisson(100, (80, 72)).astype(np.uint16)})
    dock = open_dock(tiny_widefield_model)
    dock.start()
    finished(dock)
    assert [
        dock.results.statistic.itemText(place) for place in range(dock.results.statistic.count())
    ] == ["standard deviation", "variance"]
    inspect = InspectWidget(viewer)
    viewer.window.add_dock_widget(inspect)
    spread, mean = (
        viewer.layers[SPREAD],
        viewer.layers[MEAN],
    )
    before = spread.data.copy()
    assert not inspect.agreement.calibrate.isEnabled()
    truth = mean.data + 5 * before * rng.normal(size=before.shape)
    place = {"scale": mean.scale, "translate": mean.translate, "units": mean.units}
    viewer.add_image(truth, name="known", metadata={METADATA_KEY: {"role": "truth"}}, **place)
    inspect.agreement.truth.choose_preferred()
    qtbot.waitUntil(lambda: inspect.agreement.calibrate.isEnabled())
    with qtbot.waitSignal(inspect.agreement.calibrated):
        inspect.agreement.calibrate.click()
    group = groups_of(viewer.layers)[0]
    assert group.statistic == INTERVAL and group.factor == pytest.approx(5 * 1.7, rel=0.15)
    np.testing.assert_allclose(spread.data, group.factor * before, rtol=1e-4)
    assert "of the errors are below" in inspect.agreement.text.text()
    dock.results.list_statistics()
    assert dock.results.statistic.currentText() == INTERVAL
