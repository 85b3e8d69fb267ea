"""Layers to images and back: pixel sizes, axes, and every result pixel where it was measured."""

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from made_results import PROVENANCE, ROLES, every_layer, reconstruction
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.core.result import FrameView
from napari_cvdm.core.statistics import STATISTICS
from napari_cvdm.widgets.layers.frames import frame_pixels
from napari_cvdm.widgets.layers.layer_data import (
    METADATA_KEY,
    is_measurement,
    known_optics,
    layer_pixel_um,
    plugin_metadata,
    read_layer,
)
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.reconstruction import Run
from napari_cvdm.widgets.layers.result_layers import to_layer_data
from napari_cvdm.widgets.layers.shown_layers import RunningLayers, show_layers


def results(source, **changes):
    data = every_layer(reconstruction(**changes), Placement.of(source))
    return {
        layer.metadata[METADATA_KEY]["role"]: layer
        for layer in (Layer.create(*one) for one in data)
    }


@pytest.mark.parametrize(
    ("scale", "unit", "expected"),
    [
        (0.065, "um", 0.065),
        (65.0, "nm", 0.065),
        (6.5e-5, "mm", 0.065),
        (-0.1, "um", 0.1),
        (1.0, "um", None),
        (0.1, "pixel", None),
        (1.0, "pixel", None),
    ],
)
def test_pixel_size_is_known_only_where_the_layer_says_it(scale, unit, expected):
    layer = Image(np.zeros((4, 5)), scale=(scale, scale), units=(unit, unit))
    assert layer_pixel_um(layer) == (expected if expected is None else pytest.approx(expected))


def test_a_pixel_that_is_not_square_is_unknown_and_has_a_reason():
    layer = Image(np.zeros((4, 5)), scale=(0.1, 0.2), units=("um", "um"))
    assert "pixel_um" not in known_optics(layer)
    read = read_layer(layer)
    assert read.pixel_um is None and "0.2 x 0.1 um" in read.origins["pixel_um"]


@pytest.mark.parametrize(
    ("labels", "letters"),
    [
        (("time", "z", "y", "x"), "TZYX"),
        (("Channel", "T", "y", "x"), "CTYX"),
        (("-4", "-3", "-2", "-1"), "TZYX"),
        (("foo", "t", "y", "x"), "ZTYX"),
        (("t", "time", "y", "x"), "TZYX"),
    ],
)
def test_axes_are_named_by_labels_and_the_others_in_order(labels, letters):
    assert read_layer(Image(np.zeros((2, 3, 4, 5)), axis_labels=labels)).axes == letters


@pytest.mark.parametrize(
    ("shape", "labels"),
    [((2, 4, 5), ("y", "x", "t")), ((1,) * 7, ("a", "b", "c", "d", "e", "f", "g"))],
)
def test_axes_that_cannot_be_used_are_refused(shape, labels):
    with pytest.raises(RequestError):
        read_layer(Image(np.zeros(shape), axis_labels=labels))


def test_colours_are_channels_and_lie_where_the_image_lies():
    photo = np.random.default_rng(0).integers(0, 255, (4, 5, 4), dtype=np.uint8)
    layer = Image(photo, rgb=True, name="photo", scale=(0.1, 0.1), units=("um", "um"))
    stack, place = read_layer(layer), Placement.of(layer)
    assert (stack.axes, place.axes, place.labels[0]) == ("CYX", "CYX", "channel")
    np.testing.assert_array_equal(stack.array, np.moveaxis(photo[..., :3], -1, 0))
    result = results(layer, shape=(3, 8, 10), axes="CYX", upsampling=2)["reconstruction"]
    np.testing.assert_allclose(result.data_to_world((1, 0, 0))[1:], np.array([-0.025, -0.025]))


def test_a_lazy_layer_is_left_where_it_is():
    lazy = da.zeros((100, 4096, 4096), chunks=(1, 512, 512), dtype=np.uint16)
    stack = read_layer(Image(lazy, multiscale=False, contrast_limits=(0, 1)))
    assert stack.lazy
    assert stack.array is lazy


def test_samples_have_an_axis_of_their_own():
    source = Image(np.zeros((6, 8)), scale=(0.1, 0.1), units=("um", "um"), axis_labels=("y", "x"))
    kept = replace(reconstruction((6, 8), "YX"), samples=np.zeros((5, 6, 8), np.float32))
    layers = {
        data[1]["metadata"][METADATA_KEY]["role"]: Layer.create(*data)
        for data in every_layer(kept, Placement.of(source))
    }
    assert layers["samples"].axis_labels == ("sample", "y", "x")
    assert layers["samples"].units[1:] == source.units


@pytest.mark.parametrize("factor", [1, 2])
def test_a_region_lies_where_it_was_taken(factor):
    source = Image(np.zeros((60, 80)), scale=(0.1, 0.2), translate=(5.0, 7.0), rotate=30.0)
    whole = results(source, shape=(60 * factor, 80 * factor), axes="YX", upsampling=factor)[
        "reconstruction"
    ]
    part = replace(
        reconstruction((20 * factor, 30 * factor), "YX", factor), region=(10, 30, 40, 70)
    )
    layer = Layer.create(*to_layer_data(part, Placement.of(source))[-1])
    for pixel in ((0, 0), (7, 11)):
        there = (pixel[0] + 10 * factor, pixel[1] + 40 * factor)
        np.testing.assert_allclose(
            layer.data_to_world(pixel), whole.data_to_world(there), atol=1e-9
        )


def test_the_spread_is_shown_one_way_or_the_other():
    source = Placement.of(Image(np.zeros((6, 8))))
    layers = {
        name: Layer.create(*to_layer_data(reconstruction((6, 8), "YX"), source, name)[-3])
        for name in STATISTICS
    }
    np.testing.assert_allclose(
        layers["variance"].data, layers["standard deviation"].data ** 2, rtol=1e-6
    )
    assert [layer.metadata[METADATA_KEY]["unit"] for layer in layers.values()] == ["rad", "rad²"]
    assert layers["variance"].metadata[METADATA_KEY]["statistic"] == "variance"


def test_the_finest_level_of_a_multiscale_layer_is_read():
    levels = [np.ones((8, 8)), np.ones((4, 4))]
    assert read_layer(Image(levels, multiscale=True)).array.shape == (8, 8)


def test_regions_of_a_pyramid_are_those_of_its_finest_level():
    viewer = ViewerModel()
    labels = viewer.add_labels([np.eye(8, dtype=int), np.eye(4, dtype=int)], multiscale=True)
    assert np.array_equal(frame_pixels(viewer, labels), np.eye(8))


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize(
    "turned",
    [
        {},
        {"rotate": 30.0, "shear": [0.2]},
        {"affine": np.array([[1, 0.1, 3], [0, 2, 1], [0, 0, 1]])},
    ],
)
def test_every_result_pixel_lies_where_it_was_measured(factor, turned):
    source = Image(
        np.zeros((6, 8)),
        name="cell",
        scale=(0.1, 0.1),
        translate=(5.0, 7.0),
        units=("um", "um"),
        axis_labels=("y", "x"),
        **turned,
    )
    layers = results(source, shape=(6 * factor, 8 * factor), axes="YX", upsampling=factor)
    for pixel in [(0, 0), (3, 4), (6 * factor - 1, 8 * factor - 1)]:
        measured = source.data_to_world((np.array(pixel) + 0.5) / factor - 0.5)
        np.testing.assert_allclose(
            layers["reconstruction"].data_to_world(pixel), measured, atol=1e-9
        )
        np.testing.assert_allclose(
            layers["gamma"].data_to_world((0, *pixel))[1:], measured, atol=1e-9
        )


def test_a_finer_result_covers_exactly_what_the_image_covers():
    source = Image(np.zeros((6, 8)), scale=(0.1, 0.1), translate=(5.0, 7.0), units=("um", "um"))
    half_a_pixel = np.array([[-0.05], [0.05]])
    result = results(source, shape=(12, 16), axes="YX", upsampling=2)["reconstruction"]
    np.testing.assert_allclose(
        result.extent.world + half_a_pixel / 2, source.extent.world + half_a_pixel
    )


def test_results_carry_names_units_labels_limits_and_provenance():
    source = Image(
        np.zeros((6, 8)), name="cell", scale=(0.1, 0.1), units=("um", "um"), axis_labels=("y", "x")
    )
    layers = results(source, shape=(6, 8), axes="YX")
    assert list(layers) == ROLES
    units = {
        "optical path difference": " [nm]",
        "uncertainty": " [rad]",
        "reconstruction": " [rad]",
    }
    names = [f"{role} of cell{units.get(role, '')}" for role in ROLES]
    assert [layer.name for layer in layers.values()] == names
    assert all(
        layer.units[-2:] == source.units and layer.axis_labels[-2:] == ("y", "x")
        for layer in layers.values()
    )
    assert layers["gamma"].axis_labels == ("t", "y", "x")
    assert layers["gamma"].contrast_limits == [0, 1]
    assert layers["reconstruction"].contrast_limits[0] <= 0  # the background of a phase
    assert all(
        layer.metadata[METADATA_KEY]["provenance"]["settings"] == PROVENANCE.settings
        for layer in layers.values()
    )
    assert [role for role, layer in layers.items() if layer.visible] == ["reconstruction"]
    assert not any(is_measurement(layer) for layer in layers.values())


def test_the_t_axis_shows_the_schedule_times():
    layer = results(Image(np.zeros((6, 8))), shape=(6, 8), axes="YX")["beta"]
    assert [layer.data_to_world((k, 0, 0))[0] for k in (0, 1)] == [0.5, 1.0]


SOURCES = [
    ((6, 8), ("y", "x"), (6, 8), "YX"),
    ((2, 6, 8), ("z", "y", "x"), (6, 8), "YX"),
    ((3, 6, 8), ("t", "y", "x"), (3, 6, 8), "TYX"),
    ((3, 2, 6, 8), ("t", "z", "y", "x"), (3, 6, 8), "TYX"),
    ((2, 3, 6, 8), ("z", "t", "y", "x"), (3, 6, 8), "TYX"),
]


@pytest.mark.parametrize(("source_shape", "labels", "shape", "axes"), SOURCES)
def test_units_stay_consistent_and_sliders_agree(source_shape, labels, shape, axes):
    units = tuple("s" if label == "t" else "um" for label in labels)
    source = Image(
        np.zeros(source_shape), scale=[0.1] * len(labels), units=units, axis_labels=labels
    )
    viewer = ViewerModel()
    viewer.add_layer(source)
    show_layers(viewer, every_layer(reconstruction(shape, axes), Placement.of(source)))
    layers = {plugin_metadata(layer)["role"]: layer for layer in viewer.layers[1:]}
    assert viewer.layers.units is not None
    assert all(
        layer.units[-source.ndim :] == source.units[-layer.ndim :] for layer in layers.values()
    )
    leading = len(labels) - 2
    for corner in np.ndindex(*source_shape[:leading]):
        world = source.data_to_world((*corner, 2, 3))
        index = np.round(
            layers["uncertainty"].world_to_data(world[-layers["uncertainty"].ndim :])
        ).astype(int)
        assert all(
            0 <= i < size for i, size in zip(index, layers["uncertainty"].data.shape, strict=True)
        )
        assert tuple(index[-2:]) == (2, 3)


def test_a_name_of_the_images_own_t_axis_is_left_alone():
    source = Image(np.zeros((3, 6, 8)), axis_labels=("t", "y", "x"))
    assert results(source, shape=(3, 6, 8), axes="TYX")["gamma"].axis_labels == (
        "schedule t",
        "t",
        "y",
        "x",
    )


def test_a_rerun_replaces_its_own_results_only():
    viewer = ViewerModel()
    source = viewer.add_image(np.zeros((6, 8)), name="cell")
    impostor = viewer.add_image(np.zeros((6, 8)), name="beta of cell")
    show_layers(viewer, to_layer_data(reconstruction((6, 8), "YX"), Placement.of(source)))
    viewer.layers["uncertainty of cell [rad]"].visible = True
    count = len(viewer.layers)
    again = reconstruction((6, 8), "YX", seed=1)
    show_layers(viewer, to_layer_data(again, Placement.of(source)))
    assert len(viewer.layers) == count
    assert impostor in viewer.layers
    assert source in viewer.layers
    np.testing.assert_array_equal(viewer.layers["reconstruction of cell [rad]"].data, again.mean)
    assert viewer.layers["uncertainty of cell [rad]"].visible


def test_a_result_that_cannot_be_shown_leaves_the_earlier_one_whole():
    viewer = ViewerModel()
    source = viewer.add_image(np.zeros((6, 8)), name="cell")
    show_layers(viewer, to_layer_data(reconstruction((6, 8), "YX"), Placement.of(source)))
    before = list(viewer.layers)
    broken = to_layer_data(reconstruction((6, 8), "YX", seed=1), Placement.of(source))
    broken[-1] = (broken[-1][0], {**broken[-1][1], "scale": (1, 2, 3, 4)}, "image")
    with pytest.raises(ValueError, match=r".+"):
        show_layers(viewer, broken)
    assert list(viewer.layers) == before


def test_the_first_sample_takes_the_place_of_a_first_look_with_contrast_of_its_own():
    source = Image(np.zeros((8, 8)), name="planes", metadata={})
    viewer = ViewerModel()
    viewer.add_layer(source)
    request = ReconstructionRequest(
        image=ImageStack(array=np.ones((2, 8, 8), np.float32), axes="PYX"), model="phase-2shot"
    )
    run = Run(request=request, place=Placement.of(source), unit="rad", upsampling=1)
    running = RunningLayers(viewer, run, "variance")

    def show(samples, largest):
        mean, empty = np.linspace(0, largest, 64).reshape(8, 8), np.zeros((8, 8), np.float32)
        view = FrameView(
            index=(),
            samples=samples,
            mean=mean.astype(np.float32),
            variance=empty,
            rate=empty,
            valid=empty.astype(bool),
        )
        running.show(view)
        (layer,) = (one for one in viewer.layers if "running" in one.name)
        return layer

    look = show(0, 10.0)
    first_limits = look.contrast_limits
    sample = show(1, 1.0)
    assert sample is look
    assert sample.contrast_limits[1] <= 1.0 < first_limits[1]
