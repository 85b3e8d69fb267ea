"""The blank field is given in the dock as a word or as a layer.

The quality flag of a result with a given blank field may be green.
"""

import shlex
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import tifffile
from qtpy.QtWidgets import QApplication

from napari_cvdm.cli import main
from napari_cvdm.io import read_image
from napari_cvdm.simulate.samples import WIDEFIELD_RANGES
from napari_cvdm.simulate.scenes import simulate_widefield
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, plugin_metadata


def dark_image(shape: tuple[int, int]) -> np.ndarray:
    return np.full(shape, 90.0, np.float32)


def test_a_layer_is_what_a_command_with_its_file_would_take(
    viewer, spots, open_dock, finished, tiny_widefield_model, tmp_path
):
    files = {"cell": spots, "dark": dark_image(spots.shape)}
    for name, pixels in files.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels)
        viewer.open(str(tmp_path / f"{name}.tif"), plugin="napari")
        viewer.layers[name].scale, viewer.layers[name].units = (0.065, 0.065), ("um", "um")
    dock = open_dock(tiny_widefield_model)
    dock.form.image.set_value(viewer.layers["cell"])
    dock.form.background.set_value(viewer.layers["dark"])
    assert np.array_equal(dock.form.value().background, files["dark"])
    dock.start()
    finished(dock)
    assert not any("dark level" in reason for reason in dock.results.light.toolTip().splitlines())
    dock.results.command.click()
    finished(dock)
    words = shlex.split(QApplication.clipboard().text())
    assert words[words.index("--background") + 1] == str(tmp_path / "dark.tif")
    words[words.index("--out") + 1] = str(tmp_path / "out")
    assert main(words[1:]) == 0
    np.testing.assert_array_equal(
        read_image(tmp_path / "out" / "mean.ome.tif").array,
        viewer.layers["reconstruction of cell [counts]"].data,
    )
    dock.form.background.set_value("none")
    dock.results.repeat.click()
    assert dock.form.background.layer is viewer.layers["dark"]
    assert "same pixels" in dock.panel.message.text()
    viewer.layers.remove("dark")
    assert dock.form.settings()["background"] == "auto"
    dock.results.repeat.click()
    assert "but for the background image" in dock.panel.message.text()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(lambda dark: dark[:-1], "shape"), (lambda dark: np.where(dark > 0, np.nan, 0), "NaN")],
)
def test_a_background_that_does_not_fit_is_refused_in_words(
    viewer, measured, open_dock, finished, tiny_widefield_model, spoil, words
):
    viewer.add_image(**measured)
    viewer.add_image(spoil(dark_image(measured["data"].shape)), name="dark", contrast_limits=(0, 1))
    dock = open_dock(tiny_widefield_model)
    dock.form.image.set_value(viewer.layers["cell"])
    dock.form.background.set_value(viewer.layers["dark"])
    dock.start()
    finished(dock)
    assert "background" in dock.panel.message.text() and words in dock.panel.message.text()


def test_with_a_dark_image_and_the_optics_a_good_reconstruction_is_green(
    viewer, open_dock, finished
):
    pair = simulate_widefield(9_100_000, replace(WIDEFIELD_RANGES, field_px=64))
    optics = {
        name: getattr(pair.microscope, name) for name in ("wavelength_um", "medium_index", "na")
    }
    place = {
        "scale": (pair.microscope.pixel_um,) * 2,
        "units": ("um", "um"),
        "metadata": {METADATA_KEY: {"optics": optics}},
    }
    dark = viewer.add_image(
        np.full(pair.counts.shape, pair.camera.offset_counts, np.float32), contrast_limits=(0, 200)
    )
    viewer.add_image(pair.counts, name="cell", **place)
    dock = open_dock("widefield-x2")
    dock.form.background.set_value(dark)
    dock.start()
    finished(dock)
    assert dock.results.light.colour == "green", dock.results.light.toolTip()
    provenance = plugin_metadata(viewer.layers["reconstruction of cell [counts]"])["provenance"]
    assert (
        provenance["quantitative"]
        and "explains the measured image" in provenance["quality_reasons"][-1]
    )


def test_layers_that_are_no_background_are_passed_over_unread(
    viewer, open_dock, tiny_widefield_model
):
    read_blocks = set()

    def read(block_info=None):
        read_blocks.add(block_info[None]["chunk-location"])
        return np.zeros((1, 64, 64), np.uint16)

    viewer.add_image(
        da.map_blocks(read, chunks=((1,) * 50, (64,), (64,)), dtype=np.uint16),
        name="stack",
        contrast_limits=(0, 1),
    )
    viewer.add_image(dark_image((8, 8)), name="dark")
    choice = open_dock(tiny_widefield_model).form.background
    read_blocks.clear()  # napari has looked at the first
    assert choice.show_background(dark_image((8, 8))) and choice.layer is viewer.layers["dark"]
    assert not choice.show_background(dark_image((9, 9))) and choice.value() == "auto"
    assert not read_blocks


def test_a_lazy_background_is_the_same_array_as_long_as_its_layer_is(
    viewer, open_dock, tiny_widefield_model
):
    viewer.add_image(da.from_array(dark_image((8, 8))), name="dark", contrast_limits=(0, 100))
    choice = open_dock(tiny_widefield_model).form.background
    choice.set_value(viewer.layers["dark"])
    first = choice.background()
    assert choice.background() is first
    viewer.layers["dark"].data = da.from_array(dark_image((8, 8)) + 1)
    assert np.array_equal(choice.background(), first + 1)
