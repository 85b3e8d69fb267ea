"""The samples open by menu, know their optics, and are always the same."""

import socket

import numpy as np
import pytest
from napari.layers import Layer

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.models.checkpoint import read_card
from napari_cvdm.models.registry import model_folder
from napari_cvdm.simulate import samples
from napari_cvdm.simulate.scenes import defocus_pair_of
from napari_cvdm.tasks import TASKS
from napari_cvdm.widgets.layers.contributions import (
    measured_cell,
    two_defocused_planes,
    widefield_microtubules,
    widefield_network,
)
from napari_cvdm.widgets.layers.layer_data import is_measurement, known_optics, read_layer

PHASE = (two_defocused_planes, measured_cell)
FLUORESCENCE = (widefield_network, widefield_microtubules)


@pytest.mark.parametrize(
    ("sample", "task"),
    [*((one, "phase-2shot") for one in PHASE), *((one, "widefield-x2") for one in FLUORESCENCE)],
)
def test_a_sample_says_all_that_its_task_needs(sample, task):
    truth, image = (Layer.create(*one) for one in sample())
    assert is_measurement(image)
    assert not is_measurement(truth)
    assert set(TASKS[task].needed_optics) <= set(known_optics(image))
    assert read_layer(image).array.std() > 0
    np.testing.assert_allclose(
        truth.extent.world[:, -2:], image.extent.world[:, -2:], atol=image.scale[-1]
    )
    np.testing.assert_array_equal(sample()[1][0], image.data)


@pytest.mark.parametrize("sample", FLUORESCENCE)
def test_the_truth_of_a_structure_matches_its_image(sample):
    truth, image = (one[0] for one in sample())
    binned = truth.reshape(256, 2, 256, 2).mean(axis=(1, 3))
    assert np.corrcoef(binned.ravel(), image.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("sample", PHASE)
def test_the_truth_of_a_phase_makes_its_planes(sample):
    truth, image = (Layer.create(*one) for one in sample())
    optics = known_optics(image)
    microscope = Microscope(
        pixel_um=optics["pixel_um"],
        wavelength_um=optics["wavelength_um"],
        medium_index=optics["medium_index"],
    )
    planes = defocus_pair_of(
        truth.data, np.zeros_like(truth.data), microscope, optics["defocus_um"]
    )[:, 40:-40, 40:-40]
    assert np.corrcoef(planes.ravel(), image.data[:, 40:-40, 40:-40].ravel())[0, 1] > 0.9


def test_the_measured_cell_comes_without_a_network(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("a sample asked for the network")

    monkeypatch.setattr(socket, "socket", refused)
    samples._wide_measured_cell.cache_clear()
    assert np.ptp(measured_cell()[0][0]) > 1


@pytest.mark.parametrize("sample", [*PHASE, *FLUORESCENCE])
def test_the_shipped_models_are_trained_for_every_sample(sample):
    optics = known_optics(Layer.create(*sample()[1]))
    card = read_card(model_folder("phase-2shot" if sample in PHASE else "widefield-x2"))
    outside = {
        name: optics[name]
        for name, (low, high) in card.optics.items()
        if name in optics and not low <= optics[name] <= high
    }
    assert not outside
