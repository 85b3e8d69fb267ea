"""The task and the model follow from the layer, and what the user chose stays."""

import numpy as np
import pytest

from napari_cvdm.widgets.common import choices
from napari_cvdm.widgets.common.reconstruct_form import ReconstructForm
from napari_cvdm.widgets.layers import contributions
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, holds_planes

PHASE, WIDEFIELD = contributions.PHASE_MODEL, contributions.WIDEFIELD_MODEL


@pytest.fixture
def remembered(monkeypatch):
    """What the user chose last, kept in memory."""
    kept = {"model": ""}
    really = choices.preferred
    monkeypatch.setattr(choices, "preferred", lambda name: kept.get(name, really(name)))
    monkeypatch.setattr(choices, "remember", kept.__setitem__)
    return kept


@pytest.mark.parametrize(
    ("shape", "labels", "optics", "planes"),
    [
        ((8, 9), None, {}, False),
        ((2, 8, 9), None, {}, True),
        ((5, 8, 9), None, {}, None),
        ((2, 8, 9), ("z", "y", "x"), {}, True),
        ((5, 8, 9), ("plane", "y", "x"), {}, True),
        ((5, 8, 9), ("z", "y", "x"), {}, None),
        ((2, 8, 9), ("z", "y", "x"), {"emission_um": 0.52}, False),
        ((2, 8, 9), ("c", "y", "x"), {}, False),
        ((5, 8, 9), ("t", "y", "x"), {}, False),
        ((2, 8, 9), ("t", "y", "x"), {}, None),
        ((8, 9), None, {"defocus_um": (-1.0, 1.0)}, True),
        ((8, 9), ("x", "y"), {}, None),
    ],
)
def test_a_layer_tells_whether_it_holds_planes(shape, labels, optics, planes):
    from napari.layers import Image

    layer = Image(np.zeros(shape), axis_labels=labels, metadata={METADATA_KEY: {"optics": optics}})
    assert holds_planes(layer, [layer]) is planes


def test_two_layers_of_one_shape_may_be_planes_or_channels():
    from napari.layers import Image

    one, other = (Image(np.zeros((8, 9))) for _ in range(2))
    assert holds_planes(one, [one, other]) is None


@pytest.mark.parametrize(
    ("sample", "model"),
    [
        ("two_defocused_planes", PHASE),
        ("measured_cell", PHASE),
        ("widefield_network", WIDEFIELD),
        ("widefield_microtubules", WIDEFIELD),
    ],
)
def test_each_sample_chooses_its_model(viewer, remembered, sample, model):
    remembered["model"] = ({PHASE, WIDEFIELD} - {model}).pop()
    form = ReconstructForm(viewer)
    for data, keywords, _ in getattr(contributions, sample)():
        viewer.add_image(data, **keywords)
    assert form.model.value() == model
    assert form.missing() == ()


def test_a_single_image_is_not_taken_for_two_planes(viewer, remembered, spots):
    remembered["model"] = PHASE
    form = ReconstructForm(viewer)
    assert form.model.value() == PHASE
    viewer.add_image(spots)
    assert form.model.value() == WIDEFIELD
    assert "the other planes" not in form.missing()


def test_the_last_choice_is_remembered_and_one_by_hand_stays(viewer, remembered, spots):
    form = ReconstructForm(viewer)
    box = form.model._box
    box.setCurrentIndex(box.findData(PHASE))
    box.activated.emit(box.currentIndex())
    assert remembered["model"] == PHASE
    viewer.add_image(spots)
    assert form.model.value() == PHASE
    viewer.layers.clear()
    for number in range(2):
        viewer.add_image(spots, name=str(number))  # planes or channels: nothing tells
    assert ReconstructForm(viewer).model.value() == PHASE


def test_the_second_plane_is_found_when_it_is_opened_later(
    viewer, planes, open_dock, tiny_phase_model
):
    viewer.add_image(planes[0], name="below")
    dock = open_dock(tiny_phase_model)
    assert "the other planes" in dock.form.missing()
    above = viewer.add_image(planes[1], name="above")
    assert dock.form.image.value().name == "below"
    assert dock.form.second.value() is above
    assert "the other planes" not in dock.form.missing()
