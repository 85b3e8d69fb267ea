"""The samples open by menu, know their optics, and are always the same."""

import numpy as np
import pytest
from napari.layers import Layer

from napari_cvdm.tasks import TASKS
from napari_cvdm.widgets.layers import is_measurement, known_optics, read_layer
from napari_cvdm.widgets.sample_data import two_defocused_planes, widefield_network


@pytest.mark.parametrize(("sample", "task"), [(two_defocused_planes, "phase-2shot"), (widefield_network, "widefield-x2")])
def test_a_sample_says_all_that_its_task_needs(sample, task):
    truth, image = (Layer.create(*one) for one in sample())
    assert is_measurement(image)
    assert not is_measurement(truth)
    assert set(TASKS[task].needed_optics) <= set(known_optics(image))
    assert read_layer(image).array.std() > 0
    np.testing.assert_allclose(truth.extent.world[:, -2:], image.extent.world[:, -2:], atol=image.scale[-1])
    np.testing.assert_array_equal(sample()[1][0], image.data)


def test_the_truth_of_the_network_matches_its_image():
    truth, image = (one[0] for one in widefield_network())
    binned = truth.reshape(256, 2, 256, 2).mean(axis=(1, 3))
    assert np.corrcoef(binned.ravel(), image.ravel())[0, 1] > 0.8
