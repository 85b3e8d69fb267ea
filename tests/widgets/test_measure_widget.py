"""The Measure dock in a real window.

It shows the numbers of the core, wherever the mask was drawn, or a message where there are none.
"""

import csv
import io
import sys

import numpy as np
import pytest
from qtpy.QtGui import QGuiApplication

from napari_cvdm.analysis.intervals import Estimate
from napari_cvdm.analysis.measure import ResultField, measure_objects
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY
from napari_cvdm.widgets.measure.measure_widget import MeasureWidget, format_estimate

PIXEL_UM = 0.2
SETTINGS = {"pixel_um": PIXEL_UM, "wavelength_um": 0.55}
OUTSIDE = "n is 2, outside the 1 to 1.5 that tiny was trained for; do not quantify this result."


def cells():
    """Phase of two smooth cells, left heavier than right."""
    y, x = np.mgrid[:48, :64]
    return 1.5 * np.exp(-((y - 24) ** 2 + (x - 18) ** 2) / 40) + 0.8 * np.exp(
        -((y - 24) ** 2 + (x - 46) ** 2) / 40
    )


def boxes():
    regions = np.zeros((48, 64), np.int32)
    regions[10:38, 6:30], regions[10:38, 34:58] = 1, 2
    return regions


def marked(role, warnings=(), settings=None):
    model = {"name": "tiny", "sha256": "0123abcd"}
    provenance = {
        "settings": {**SETTINGS, **(settings or {})},
        "model": model,
        "warnings": list(warnings),
    }
    return {
        METADATA_KEY: {
            "role": role,
            "unit": "rad",
            "group": "cell by tiny",
            "source": "cell",
            "provenance": provenance,
        }
    }


def add_result(viewer, phase, samples=None, labels=("y", "x"), **mark):
    """A reconstruction as the Reconstruct dock leaves it, away from the world's origin."""
    place = {
        "scale": (1,) * (phase.ndim - 2) + (PIXEL_UM,) * 2,
        "translate": (0,) * (phase.ndim - 2) + (5, 7),
        "units": ("um",) * phase.ndim,
    }
    if samples is not None:
        led = {
            "scale": (1, *place["scale"]),
            "translate": (0, *place["translate"]),
            "units": ("dimensionless", *place["units"]),
        }
        viewer.add_image(
            samples,
            name="samples of cell [rad]",
            axis_labels=("sample", *labels),
            metadata=marked("samples", **mark),
            **led,
        )
    viewer.add_labels(
        np.zeros(phase.shape, np.uint8),
        name="untrusted pixels of cell",
        axis_labels=labels,
        metadata=marked("untrusted pixels"),
        **place,
    )
    viewer.add_image(
        phase,
        name="reconstruction of cell [rad]",
        axis_labels=labels,
        metadata=marked("reconstruction", **mark),
        **place,
    )
    return place


@pytest.fixture
def dock(viewer):
    opened = MeasureWidget(viewer)
    viewer.window.add_dock_widget(opened)
    return opened


@pytest.fixture
def draws():
    return cells() + 0.05 * np.random.default_rng(0).normal(size=(6, 48, 64))


def rows_of(dock):
    return list(csv.DictReader(io.StringIO(dock.table.text())))


def masses_of(dock):
    return [float(row["dry_mass_pg"]) for row in rows_of(dock)]


def core(phase, regions, samples=None, alpha=0.18):
    return measure_objects(
        ResultField(image=phase, pixel_um=PIXEL_UM, wavelength_um=0.55, samples=samples),
        regions,
        alpha,
    )


@pytest.mark.window
def test_the_dock_shows_what_the_core_weighs(viewer, dock, draws, finished):
    place = add_result(viewer, cells(), draws)
    mask = viewer.add_labels(boxes(), **place)
    dock.panel.run.click()
    finished(dock)
    expected = core(cells(), boxes(), draws)
    assert masses_of(dock) == [mass.mass_pg.value for mass in expected]
    assert [float(row["error_pg"]) for row in rows_of(dock)] == [
        mass.mass_pg.deviation for mass in expected
    ]
    assert dock.table.item(0, 2).text() == format_estimate(expected[0].mass_pg)
    assert "α = 0.18 µm³/pg" in dock.panel.message.text()
    assert "known to about 32%" in dock.panel.message.text()
    assert list(mask.features["dry mass [pg]"]) == masses_of(dock)
    assert "dry mass" in mask.get_status(mask.data_to_world((24, 18)), world=True)["coordinates"]


def test_without_samples_the_table_says_why_there_is_no_error(viewer, dock, finished):
    place = add_result(viewer, cells())
    viewer.add_labels(boxes(), **place)
    dock.alpha.setValue(0.2)
    dock.start()
    finished(dock)
    assert masses_of(dock) == [mass.mass_pg.value for mass in core(cells(), boxes(), alpha=0.2)]
    assert {row["error_pg"] for row in rows_of(dock)} == {""}
    assert all("not kept" in row["remark"] for row in rows_of(dock))
    assert "No intervals: tick Keep samples" in dock.panel.message.text()


def test_a_mask_counts_where_it_lies_in_the_world(viewer, dock, finished):
    """The same regions give the same mass on half the pixels, and as rectangles.

    The rectangles are drawn on a layer with another scale and origin.
    """
    place = add_result(viewer, cells())
    coarse = viewer.add_labels(
        boxes()[::2, ::2],
        scale=(2 * PIXEL_UM,) * 2,
        translate=np.array(place["translate"]) + PIXEL_UM / 2,
        units=("um", "um"),
    )
    assert np.array_equal(np.kron(coarse.data, np.ones((2, 2), int)), boxes())
    corners = [
        np.array([[10, left], [10, left + 23], [37, left + 23], [37, left]]) for left in (6, 34)
    ]
    world = [np.array(place["translate"]) + PIXEL_UM * vertices for vertices in corners]
    shapes = viewer.add_shapes(
        [(vertices - 3) / 0.5 for vertices in world],
        scale=(0.5, 0.5),
        translate=(3, 3),
        units=("um", "um"),
    )
    expected = [mass.mass_pg.value for mass in core(cells(), boxes())]
    for mask in (coarse, shapes):
        dock.mask.set_value(mask)
        dock.start()
        finished(dock)
        np.testing.assert_allclose(masses_of(dock), expected)


def test_an_ellipse_weighs_what_lies_inside(viewer, dock, finished):
    place = add_result(viewer, cells())
    shape = {
        "shape_type": "ellipse",
        "scale": place["scale"],
        "translate": place["translate"],
        "units": place["units"],
    }
    viewer.add_shapes([np.array([[10, 4], [10, 32], [38, 32], [38, 4]])], **shape)
    dock.start()
    finished(dock)
    y, x = np.mgrid[:48, :64]
    (expected,) = core(cells(), (np.hypot(y - 24, x - 18) < 14).astype(int))
    assert masses_of(dock)[0] == pytest.approx(expected.mass_pg.value, rel=0.01)
    assert float(rows_of(dock)[0]["area_um2"]) == pytest.approx(expected.area_um2.value, rel=0.03)


@pytest.mark.parametrize(
    ("kind", "where", "words"),
    [
        ("line", [[10, 6], [30, 40]], "has no inside"),
        ("rectangle", [[90, 90], [95, 95]], "covers no pixel"),
    ],
)
def test_shapes_that_cannot_be_weighed_are_named(viewer, dock, kind, where, words):
    place = add_result(viewer, cells())
    viewer.add_shapes(
        [np.array(where)],
        shape_type=kind,
        scale=place["scale"],
        translate=place["translate"],
        units=place["units"],
    )
    dock.start()
    assert not dock.panel.busy
    assert words in dock.panel.message.text()
    assert "shape 1" in dock.panel.message.text()


def test_the_suggested_mask_lies_on_the_phase_and_can_be_measured(viewer, dock, finished):
    add_result(viewer, cells())
    phase = viewer.layers["reconstruction of cell [rad]"]
    dock.suggest.click()
    finished(dock)
    mask = dock.mask.value()
    np.testing.assert_allclose(mask.extent.world, phase.extent.world)
    assert mask.units == phase.units
    assert viewer.layers.units is not None
    dock.start()
    finished(dock)
    heavy, light = masses_of(dock)
    assert heavy / light == pytest.approx(1.5 / 0.8, rel=0.05)
    dock.suggest.click()  # what was corrected by hand is not written over
    finished(dock)
    assert mask in viewer.layers
    assert dock.mask.value() is not mask


def test_of_a_time_lapse_the_shown_frame_or_every_frame_is_weighed(viewer, dock, finished):
    movie = np.stack([1.0 * cells(), 2.0 * cells(), 3.0 * cells()])
    draws = np.stack([movie, 1.1 * movie])
    place = add_result(viewer, movie, draws, labels=("t", "y", "x"))
    viewer.add_labels(np.stack([boxes(), 0 * boxes(), boxes()]), **place)
    viewer.dims.set_point(1, 2)
    dock.start()
    finished(dock)
    assert masses_of(dock) == [mass.mass_pg.value for mass in core(movie[2], boxes(), draws[:, 2])]
    assert {row["t"] for row in rows_of(dock)} == {"2"}
    dock.every_frame.setChecked(True)
    dock.start()
    finished(dock)
    assert [row["t"] for row in rows_of(dock)] == ["0", "0", "2", "2"]
    assert dock.table.horizontalHeaderItem(0).text() == "t"


def test_shapes_belong_to_the_frame_they_were_drawn_in_and_flat_ones_to_all(viewer, dock, finished):
    movie = np.stack([1.0 * cells(), 2.0 * cells()])
    place = add_result(viewer, movie, labels=("t", "y", "x"))
    box = np.array([[10, 6], [10, 29], [37, 29], [37, 6]])
    deep = [
        np.column_stack([np.full(4, frame), box + np.array([0, 28 * frame])]) for frame in (0, 1)
    ]
    viewer.add_shapes(
        deep, scale=place["scale"], translate=place["translate"], units=place["units"]
    )
    dock.every_frame.setChecked(True)
    dock.start()
    finished(dock)
    assert [(row["t"], row["region"]) for row in rows_of(dock)] == [("0", "1"), ("1", "2")]
    viewer.add_shapes(
        [box], scale=place["scale"][1:], translate=place["translate"][1:], units=place["units"][1:]
    )
    dock.mask.set_value(viewer.layers[-1])
    dock.start()
    finished(dock)
    first, second = masses_of(dock)
    assert second == pytest.approx(2 * first)


def test_a_pair_of_planes_that_became_one_image_is_one_frame(viewer, dock, draws, finished):
    """Result layers may carry a Z axis of one, their samples beside it."""
    place = add_result(viewer, cells()[None], draws[:, None], labels=("z", "y", "x"))
    viewer.add_labels(boxes()[None], **place)
    assert dock.every_frame.isHidden()
    dock.start()
    finished(dock)
    assert masses_of(dock) == [mass.mass_pg.value for mass in core(cells(), boxes(), draws)]
    assert "z" not in rows_of(dock)[0]


def test_every_row_that_leaves_the_dock_says_how_it_was_made(viewer, dock, tmp_path, finished):
    place = add_result(viewer, cells(), warnings=[OUTSIDE])
    mask = viewer.add_labels(boxes(), **place)
    dock.start()
    finished(dock)
    dock.copy.click()
    copied = list(csv.DictReader(io.StringIO(QGuiApplication.clipboard().text()), delimiter="\t"))
    if sys.platform != "win32":  # a planted link is replaced, not followed
        (tmp_path / "mass.csv").symlink_to(tmp_path / "outside")
    dock.save_table(str(tmp_path / "mass.csv"))
    assert not (tmp_path / "outside").exists()
    saved = list(csv.DictReader(io.StringIO((tmp_path / "mass.csv").read_text(encoding="utf-8"))))
    assert copied == saved == rows_of(dock)
    made = {
        "alpha_um3_per_pg": "0.18",
        "wavelength_um": "0.55",
        "pixel_um": "0.2",
        "group": "cell by tiny",
        "model_sha256": "0123abcd",
        "warnings": OUTSIDE,
    }
    assert all(row | made == row and row["mask"] == mask.name for row in saved)
    dock.save_table(str(tmp_path / "nowhere" / "mass.csv"))
    assert "cannot be written" in dock.panel.message.text()


def test_a_result_outside_the_trained_range_is_not_for_quantification(viewer, dock, finished):
    place = add_result(viewer, cells(), warnings=[OUTSIDE])
    viewer.add_labels(boxes(), **place)
    assert dock.panel.message.text() == f"Not for quantification: {OUTSIDE}"
    dock.start()
    finished(dock)
    assert f"Not for quantification: {OUTSIDE}" in dock.panel.message.text()


def test_the_dock_says_what_it_needs(viewer, dock):
    assert "a reconstruction" in dock.panel.message.text()
    assert not dock.panel.run.isEnabled()
    assert not dock.suggest.isEnabled()
    add_result(viewer, cells())
    assert "a mask" in dock.panel.message.text()
    assert dock.suggest.isEnabled()
    assert dock.mask.layers() == []  # untrusted pixels are no mask
    viewer.add_labels(np.zeros((48, 64), int))
    assert dock.panel.run.isEnabled()
    viewer.layers.clear()
    assert not dock.panel.run.isEnabled()


def test_wrong_masks_and_pixels_are_answered_in_words(viewer, dock, finished):
    place = add_result(viewer, cells())
    viewer.add_labels(0 * boxes(), **place)
    dock.start()
    finished(dock)
    assert "The mask is empty" in dock.panel.message.text()
    viewer.layers["reconstruction of cell [rad]"].scale = (0.1, 0.1)
    dock.start()
    assert "was reconstructed with 0.2 µm" in dock.panel.message.text()
    assert dock.table.rowCount() == 0


def test_features_of_the_user_are_kept(viewer, dock, finished):
    place = add_result(viewer, cells())
    theirs = {"index": [1, 2], "kind": ["heavy", "light"]}
    mask = viewer.add_labels(boxes(), features=theirs, **place)
    dock.start()
    finished(dock)
    assert list(mask.features.columns) == ["index", "kind"]
    assert len(masses_of(dock)) == 2


@pytest.mark.window
def test_a_click_on_a_row_selects_the_object_and_the_other_way_round(viewer, dock, finished):
    place = add_result(viewer, cells())
    mask = viewer.add_labels(boxes(), **place)
    dock.start()
    finished(dock)
    dock.table.selectRow(1)
    assert mask.selected_label == 2
    np.testing.assert_allclose(
        viewer.scene.camera.center[-2:], mask.data_to_world((23.5, 45.5)), atol=PIXEL_UM
    )
    mask.selected_label = 1
    assert dock.table.selected_object() == ({}, 1)
    mask.selected_label = 7  # there is no such object
    assert dock.table.selected_object() is None


def test_a_row_of_a_movie_shows_its_frame(viewer, dock, finished):
    movie = np.stack([1.0 * cells(), 2.0 * cells(), 3.0 * cells()])
    place = add_result(viewer, movie, labels=("t", "y", "x"))
    viewer.add_labels(np.stack([boxes()] * 3), **place)
    dock.every_frame.setChecked(True)
    dock.start()
    finished(dock)
    dock.table.selectRow(5)
    assert dock.table.selected_object() == ({"t": 2}, 2)
    assert viewer.dims.point[0] == 2


def test_a_row_selects_its_shape(viewer, dock, finished):
    place = add_result(viewer, cells())
    corners = [
        np.array([[10, left], [10, left + 23], [37, left + 23], [37, left]]) for left in (6, 34)
    ]
    shapes = viewer.add_shapes(
        corners, scale=place["scale"], translate=place["translate"], units=place["units"]
    )
    dock.start()
    finished(dock)
    dock.table.selectRow(1)
    assert shapes.selected_data == {1}


def test_a_suggested_mask_gives_the_area_an_interval(viewer, dock, draws, finished):
    add_result(viewer, cells(), draws)
    dock.suggest.click()
    finished(dock)
    assert not dock.outlines.isHidden()
    dock.start()
    finished(dock)
    assert all(
        float(row["area_um2_low"]) < float(row["area_um2"]) < float(row["area_um2_high"])
        for row in rows_of(dock)
    )
    dock.outlines.setChecked(False)
    dock.start()
    finished(dock)
    assert {row["area_um2_low"] for row in rows_of(dock)} == {""}
    viewer.add_labels(boxes(), **Placed.of(viewer.layers["reconstruction of cell [rad]"]))
    dock.mask.set_value(viewer.layers[-1])
    assert dock.outlines.isHidden()


class Placed:
    """The place of a layer, as keywords for another."""

    @staticmethod
    def of(layer):
        return {"scale": layer.scale, "translate": layer.translate, "units": layer.units}


def test_fluorescence_has_sums_and_no_mass(viewer, dock, finished):
    place = add_result(viewer, cells())
    layer = viewer.layers["reconstruction of cell [rad]"]
    mark = layer.metadata[METADATA_KEY]
    model = {**mark["provenance"]["model"], "calibration": {"factor": 2.5, "level": 0.9}}
    layer.metadata = {
        METADATA_KEY: {
            **mark,
            "unit": "counts",
            "provenance": {**mark["provenance"], "model": model},
        }
    }
    viewer.add_labels(boxes(), **place)
    dock._on_changed()
    assert dock.alpha.isHidden() and not dock.background.isHidden()
    dock.start()
    finished(dock)
    sums = [float(row["sum"]) for row in rows_of(dock)]
    assert sum(sums) == pytest.approx(cells()[boxes() > 0].sum())
    assert "dry_mass_pg" not in rows_of(dock)[0]
    assert "Dry mass" not in "".join(
        dock.table.horizontalHeaderItem(column).text() for column in range(dock.table.columnCount())
    )
    dock.background.setChecked(True)
    dock.start()
    finished(dock)
    medium = np.median(cells()[boxes() == 0])
    assert float(rows_of(dock)[0]["sum"]) == pytest.approx(
        sums[0] - medium * (boxes() == 1).sum(), abs=1.0
    )


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (151.437, 1.09, "151.4 ± 1.1"),
        (1234.5, 12.0, "1234 ± 12"),
        (0.01234, 0.00056, "0.01234 ± 0.00056"),
        (151.437, None, "151.4"),
        (2.0, 0.0, "2"),
    ],
)
def test_a_number_has_as_many_digits_as_its_interval_allows(value, half, text):
    low, high = (None, None) if half is None else (value - half, value + half)
    assert format_estimate(Estimate(value=value, low=low, high=high)) == text


def change_mask(dock, mask, layer):
    mask.data_setitem((np.array([20]), np.array([30])), 1)


def move_mask(dock, mask, layer):
    mask.translate = (0, 0)


def run_again(dock, mask, layer):
    layer.data = 2 * layer.data


def choose_another(dock, mask, layer):
    dock._viewer.add_labels(boxes(), name="another")
    dock.mask.set_value(dock._viewer.layers["another"])


@pytest.mark.parametrize("change", [change_mask, move_mask, run_again, choose_another])
def test_a_table_of_an_earlier_mask_or_result_says_so(viewer, dock, finished, change):
    place = add_result(viewer, cells())
    mask = viewer.add_labels(boxes(), name="mask", **place)
    dock.start()
    finished(dock)
    mask.selected_label = 2
    assert dock.outdated.isHidden()
    change(dock, mask, dock.result.value())
    assert not dock.outdated.isHidden() and "Measure again" in dock.outdated.text()
    dock.mask.set_value(mask)
    assert not dock.outdated.isHidden()
    dock.start()
    finished(dock)
    assert dock.outdated.isHidden()


def test_a_suggested_threshold_counts_for_the_run_that_it_was_found_in(
    viewer, dock, draws, finished
):
    add_result(viewer, cells(), draws)
    dock.suggest.click()
    finished(dock)
    assert not dock.outlines.isHidden()
    for one in viewer.layers:
        mark = one.metadata.get(METADATA_KEY, {})
        if "provenance" in mark:
            again = marked(mark["role"], settings={"seed": 1})[METADATA_KEY]
            one.metadata = {METADATA_KEY: again}
    assert dock.outlines.isHidden()
    dock.start()
    finished(dock)
    assert all("±" not in dock.table.item(row, 1).text() for row in range(len(rows_of(dock))))
