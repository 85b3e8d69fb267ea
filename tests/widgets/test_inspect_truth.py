"""The Inspect dock beside a truth.

The truth is taken automatically, refused, or compared with the result.
"""

import numpy as np
from inspected_result import roles, settle

from napari_cvdm.widgets.layers.layer_data import METADATA_KEY


def test_ranks_without_a_truth_leave_the_error_open(show, inspect):
    show()
    dock = inspect()
    assert dock.agreement.numbers["rate", "spread"].text() == "1.00"
    assert dock.agreement.numbers["rate", "error"].text() == "–"
    assert "only a truth can tell" in dock.agreement.text.text()
    assert dock.agreement.plot.isHidden()


def add_truth(viewer, values, **changes):
    mean = roles(viewer)["reconstruction"]
    place = {
        "scale": mean.scale[-2:],
        "translate": mean.translate[-2:],
        "units": mean.units[-2:],
        "axis_labels": ("y", "x"),
    }
    return viewer.add_image(
        values, name="known", metadata={METADATA_KEY: {"role": "truth"}}, **{**place, **changes}
    )


def test_a_truth_on_the_results_grid_is_taken_by_itself(viewer, show, inspect):
    result, _ = show()
    rng = np.random.default_rng(1)
    add_truth(viewer, result.mean + result.std * rng.normal(size=result.mean.shape))
    dock = inspect()
    assert dock.agreement.truth.currentText() == "known"
    assert float(dock.agreement.numbers["spread", "error"].text()) > 0.2
    assert "λ" in dock.agreement.text.text()
    assert not dock.agreement.plot.isHidden()
    np.testing.assert_allclose(
        dock.agreement.plot._found.getOriginalDataset()[1].mean(), result.std.mean(), rtol=0.2
    )


def test_a_truth_of_another_shape_is_said_in_words(viewer, show, inspect, qtbot):
    show()
    truth = add_truth(viewer, np.zeros((12, 10)))
    dock = inspect()
    assert dock.agreement.truth.value() is None
    dock.agreement.truth.set_value(truth)
    settle(qtbot, dock)
    assert "known has 12 × 10 pixels, the result 24 × 20" in dock.message.text()
    assert dock.agreement.numbers["rate", "error"].text() == "–"
    dock.agreement.truth.set_value(None)
    settle(qtbot, dock)
    assert dock.agreement.numbers["rate", "spread"].text() == "1.00"
    assert dock.message.text() == ""


def test_a_truth_that_lies_elsewhere_is_compared_and_said(viewer, show, inspect, qtbot):
    result, _ = show()
    truth = add_truth(viewer, result.mean + 1, translate=(50, 50))
    dock = inspect()
    assert dock.agreement.truth.value() is None
    dock.agreement.truth.set_value(truth)
    settle(qtbot, dock)
    assert "lies elsewhere" in dock.agreement.text.text()
    assert "1 counts (RMS)" in dock.agreement.text.text()
