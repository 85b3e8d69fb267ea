"""Results among other layers.

Which are replaced, which stay beside each other, and whose sliders they use.
"""

from dataclasses import replace

import numpy as np
import pytest
from made_results import FIRST, PROVENANCE, ROLES, every_layer, reconstruction
from napari.components import ViewerModel
from napari.layers import Image

from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, plugin_metadata
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.result_layers import groups_of, to_layer_data
from napari_cvdm.widgets.layers.shown_layers import (
    remove_layers,
    show_result_in_turn,
    show_schedule,
    show_stored,
)


def shown(viewer, source, seed, model="tiny", *, samples=False, everything=False):
    """Show a result of this source; what was shown."""
    result = reconstruction((6, 8), "YX", seed=seed)
    kept = {"samples": np.stack([result.mean] * 2)} if samples else {}
    result = replace(result, provenance=replace(PROVENANCE, model={"name": model}), **kept)
    for _ in show_result_in_turn(viewer, to_layer_data(result, Placement.of(source))):
        pass
    if everything:
        (group,) = groups_of(viewer.layers)
        for role in ("gamma", "beta"):
            show_schedule(viewer, group, role)
        for role in group.stored.makers():
            show_stored(viewer, group, role)
    return result


def test_results_of_one_source_by_two_models_stay_side_by_side_and_each_is_replaced_by_its_own():
    viewer = ViewerModel()
    source = viewer.add_image(np.zeros((6, 8)), name="cell")
    shown(viewer, source, 1, "one")
    other = shown(viewer, source, 2, "two")
    first = shown(viewer, source, 3, "one")
    found = {group.name: group.layers for group in groups_of(viewer.layers)}
    assert set(found) == {"cell by one", "cell by two"}
    for name, result in (("one", first), ("two", other)):
        np.testing.assert_array_equal(found[f"cell by {name}"]["reconstruction"].data, result.mean)
    assert len(viewer.layers) == 1 + 2 * len(FIRST)


def test_samples_of_an_earlier_run_do_not_stay_with_a_later_one():
    viewer = ViewerModel()
    source = viewer.add_image(np.zeros((6, 8)), name="cell")
    shown(viewer, source, 1, samples=True, everything=True)
    assert "samples of cell [rad]" in viewer.layers
    shown(viewer, source, 2)
    shown_again = set(ROLES) - {"gamma", "beta"}
    assert {plugin_metadata(layer).get("role") for layer in viewer.layers} == {None, *shown_again}


def test_layers_go_all_at_once_and_others_take_over():
    viewer, said = ViewerModel(), []
    for name in ("begin_batch", "removed", "end_batch"):
        getattr(viewer.layers.events, name).connect(lambda event, name=name: said.append(name))
    source = viewer.add_image(np.zeros((6, 8)), name="cell")
    shown(viewer, source, 1, samples=True, everything=True)
    said.clear()
    before = set(viewer.layers)
    shown(viewer, source, 2)
    # Those that the new result does not have: the samples and two maps over t.
    assert said == ["begin_batch", *["removed"] * 3, "end_batch"]
    assert set(viewer.layers) < before
    said.clear()
    remove_layers(viewer, list(viewer.layers))
    remove_layers(viewer, [source])
    assert said == ["begin_batch", *["removed"] * (len(ROLES) - 1), "end_batch"]


def test_what_the_user_renamed_is_kept_as_a_group_of_its_own():
    viewer = ViewerModel()
    source = viewer.add_image(np.zeros((6, 8)), name="cell")
    for seed in range(3):
        result = shown(viewer, source, seed)
        newest = {group.name: group for group in groups_of(viewer.layers)}["cell by tiny"]
        np.testing.assert_array_equal(newest.layers["reconstruction"].data, result.mean)
        newest.layers["reconstruction"].name = f"mine {seed}"
    assert [group.name for group in groups_of(viewer.layers)] == [
        "cell by tiny (1)",
        "cell by tiny (2)",
        "cell by tiny",
    ]
    assert viewer.layers["mine 0"].metadata[METADATA_KEY]["group"] == "cell by tiny (1)"


@pytest.mark.parametrize("unit", ["s", "um", "pixel"])
@pytest.mark.parametrize("samples", [False, True])
def test_a_result_beside_a_movie_takes_no_units_from_the_viewer(unit, samples):
    """t and sample get sliders of their own.

    napari drops all units, and the scale bar, where the units of one slider differ.
    """
    viewer = ViewerModel()
    viewer.add_image(
        np.zeros((5, 6, 8)),
        name="movie",
        scale=(0.5, 0.1, 0.1),
        units=(unit, "um", "um"),
        axis_labels=("t", "y", "x"),
    )
    source = viewer.add_image(
        np.zeros((6, 8)),
        name="cell",
        scale=(0.1, 0.1),
        translate=(3, 4),
        units=("um", "um"),
        axis_labels=("y", "x"),
    )
    shown(viewer, source, 1, samples=samples, everything=True)
    assert viewer.layers.units is not None
    assert [str(one) for one in viewer.layers.units[-3:]] == [
        str(one) for one in viewer.layers["movie"].units
    ]
    assert viewer.dims.axis_labels == (
        ("schedule t", *(("sample",) if samples else ()), "t", "y", "x")
    )
    for layer in (
        viewer.layers["gamma of cell"],
        viewer.layers["samples of cell [rad]"] if samples else viewer.layers["beta of cell"],
    ):
        np.testing.assert_allclose(layer.data_to_world((0,) * layer.ndim)[-2:], (3, 4))
        for frame in range(5):
            index = layer.world_to_data(viewer.layers["movie"].data_to_world((frame, 0, 0)))
            assert round(float(index[-3])) == 0


def test_samples_and_schedule_of_one_result_have_two_sliders():
    viewer = ViewerModel()
    source = viewer.add_image(np.zeros((6, 8)), name="cell", axis_labels=("y", "x"))
    shown(viewer, source, 1, samples=True, everything=True)
    assert viewer.layers["gamma of cell"].data.shape == (2, 1, 6, 8)
    assert viewer.layers["samples of cell [rad]"].data.shape == (2, 6, 8)
    assert viewer.dims.axis_labels == ("t", "sample", "y", "x")


def test_frames_that_were_not_begun_set_no_contrast():
    maps = ("mean", "variance", "rate")
    one = reconstruction((1, 6, 8), "TYX")
    movie = replace(
        one,
        counts=np.array([2, 0, 0]),
        **{name: np.concatenate([getattr(one, name)] + 2 * [0 * one.mean]) for name in maps},
    )
    source = Placement.of(Image(np.zeros((3, 6, 8)), axis_labels=("t", "y", "x"), name="cell"))
    limits = [
        {
            keywords["name"]: keywords.get("contrast_limits")
            for _, keywords, _ in every_layer(result, source)
        }
        for result in (one, movie)
    ]
    assert limits[0] == limits[1]
