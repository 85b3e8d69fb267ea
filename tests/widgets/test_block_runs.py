"""Large images from the dock, block by block.

The blocks run in this process, in local processes, or on a scheduler. Runs are cancelled and
resumed.
"""

import multiprocessing
import sys
import threading
from contextlib import closing

import numpy as np
import pytest
import tifffile
from held_steps import hold_while

pytest.importorskip(
    "distributed", reason="dask.distributed is not installed: pip install 'napari-cvdm[cluster]'"
)

from clusters import cluster_in_process
from zarr_results import image_in, stored

from napari_cvdm.core.result import finished as drained
from napari_cvdm.out_of_core import dask as cluster
from napari_cvdm.out_of_core.job import open_job
from napari_cvdm.out_of_core.run import reconstruct_by_blocks
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, is_measurement
from napari_cvdm.widgets.reconstruct.block_runs import IN_BLOCKS, PROCESSES, SCHEDULER

NOBODY = "tcp://127.0.0.1:1"  # no program may listen there


@pytest.fixture
def large(viewer, tmp_path):
    """A layer that was opened from a file: six blocks of 64 px."""
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, np.random.default_rng(0).poisson(100, (70, 130)).astype(np.uint16))
    (layer,) = viewer.open(str(path), plugin="napari")
    layer.scale, layer.units, layer.translate = (0.065, 0.065), ("um", "um"), (5.0, 7.0)
    return layer


@pytest.fixture
def dock(open_dock, tiny_widefield_model):
    """A dock that works in blocks of 64 px."""

    def opened(where, samples=1):
        dock = open_dock(tiny_widefield_model)
        dock.form.counts["samples"].setValue(samples)
        dock.form.counts["steps"].setValue(1)
        dock.blocks.where.setCurrentText(where)
        dock.blocks.block.setValue(64)
        return dock

    return opened


@pytest.fixture
def ended(qtbot):
    """Wait until a dock's job is over: processes take their time to start."""

    def wait(dock):
        qtbot.waitUntil(lambda: not dock.panel.busy)
        return dock.panel.message.text()

    return wait


def of_command_line(dock, layer, out):
    """The bytes of the same job without a window."""
    settings = dock.form.settings()
    options = {
        name: value for name, value in settings.items() if name not in ("model", "background")
    }
    files = dict(
        images=(layer.source.path,),
        model=settings["model"],
        out=str(out),
        options=options,
        block=64,
    )
    drained(reconstruct_by_blocks(*open_job(**files)))
    return stored(out)


@pytest.fixture(scope="module")
def scheduler():
    """The address of a scheduler with a worker."""
    with cluster_in_process() as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def on_scheduler(scheduler, ended):
    """Run a job of six blocks on a scheduler, and wait for its end."""

    def run(dock):
        dock.blocks.scheduler.setText(scheduler)
        dock.panel.run.click()
        assert "(6 blocks)" in ended(dock)

    return run


def test_a_scheduler_makes_the_bytes_of_the_command_line_and_they_are_shown_where_the_image_lies(
    viewer, large, dock, on_scheduler, tmp_path
):
    dock = dock(SCHEDULER)
    on_scheduler(dock)
    (out,) = tmp_path.glob("*.ome.zarr")
    assert out.name == "slide-tiny-widefield-x2.ome.zarr"
    assert stored(out) == of_command_line(dock, large, tmp_path / "other.ome.zarr")
    shown = viewer.layers[f"reconstruction of slide ({out.name}) [counts]"]
    assert not isinstance(shown.data, np.ndarray)
    assert np.array_equal(np.asarray(shown.data), image_in(out, "mean"))
    np.testing.assert_allclose(shown.scale, 0.0325)
    np.testing.assert_allclose(shown.translate, np.array([5.0, 7.0]) - 0.0325 / 2)
    assert shown.units == large.units
    assert shown.metadata[METADATA_KEY]["provenance"]["output"]["blocks"]["block"] == 64
    assert not any(is_measurement(layer) for layer in viewer.layers if layer is not large)


def held_after_a_block(marks, cancelled):
    """The same job, which waits after its first block until it is cancelled."""

    def held(*given):
        with closing(reconstruct_by_blocks(*given)) as steps:
            return (
                yield from hold_while(
                    steps, lambda _: any(marks.glob("*.json")) and not cancelled.wait(0.01)
                )
            )

    return held


def test_a_job_that_is_cancelled_is_kept_and_goes_on(
    viewer, large, dock, ended, qtbot, tmp_path, monkeypatch
):
    part, cancelled = tmp_path / "slide-tiny-widefield-x2.part.ome.zarr", threading.Event()
    dock, marks = dock(IN_BLOCKS), part / ".napari-cvdm" / "done"
    monkeypatch.setattr(
        "napari_cvdm.out_of_core.run.reconstruct_by_blocks", held_after_a_block(marks, cancelled)
    )
    dock.panel.run.click()
    qtbot.waitUntil(lambda: len(list(marks.glob("*.json"))) >= 1)
    dock.panel.cancel.click()
    assert "are kept" in ended(dock)
    cancelled.set()
    assert list(viewer.layers) == [large]
    written = len(list(marks.glob("*.json")))
    assert 1 <= written < 6
    dock.panel.run.click()
    assert f"(6 blocks, {written} of them by an earlier run)" in ended(dock)
    assert stored(tmp_path / "slide-tiny-widefield-x2.ome.zarr") == of_command_line(
        dock, large, tmp_path / "other.ome.zarr"
    )


def test_several_processes_are_ended_when_the_job_is_cancelled(large, dock, ended, qtbot, tmp_path):
    before = set(multiprocessing.active_children())
    dock = dock(PROCESSES, samples=200)
    dock.panel.run.click()
    qtbot.waitUntil(lambda: dock.panel.stage.text().startswith("block"))
    dock.panel.cancel.click()
    assert "are kept" in ended(dock)
    assert not set(multiprocessing.active_children()) - before
    assert (tmp_path / "slide-tiny-widefield-x2.part.ome.zarr").is_dir()


def test_where_nobody_listens_is_said_before_anything_is_written(
    viewer, large, dock, ended, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    dock = dock(SCHEDULER)
    dock.panel.run.click()
    assert "scheduler is empty" in dock.panel.message.text()
    for address, said in (
        ("localhost:8786", "allowed are local:N"),
        (NOBODY, f"The scheduler {NOBODY} does not answer"),
    ):
        dock.blocks.scheduler.setText(address)
        dock.panel.run.click()
        assert said in ended(dock)
    assert list(viewer.layers) == [large]
    assert [path.name for path in tmp_path.iterdir() if path.name != "own models"] == ["slide.tif"]


def test_what_is_not_installed_is_named(large, dock, ended, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    dock = dock(PROCESSES)
    dock.panel.run.click()
    assert "pip install 'napari-cvdm[cluster]'" in ended(dock)


def test_a_layer_without_a_file_goes_block_by_block_here_and_is_asked_for_a_file_elsewhere(
    viewer, measured, dock, ended, tmp_path
):
    viewer.add_image(**measured)
    dock = dock(PROCESSES)
    dock.panel.run.click()
    assert "cell was not opened from a file" in dock.panel.message.text()
    dock.blocks.where.setCurrentText(IN_BLOCKS)
    dock.panel.run.click()
    assert "name the OME-Zarr" in dock.panel.message.text()
    dock.blocks.out.set_value(tmp_path / "cell.ome.zarr")
    dock.panel.run.click()
    assert "(1 blocks)" in ended(dock)
    dock.panel.run.click()
    assert "exists already" in ended(dock)
    dock.blocks.overwrite.setChecked(True)
    dock.panel.run.click()
    assert "(1 blocks)" in ended(dock)
    assert [layer.name for layer in viewer.layers].count(
        "reconstruction of cell (cell.ome.zarr) [counts]"
    ) == 1


def test_a_layer_that_is_not_what_its_file_holds_is_refused(large, dock, ended):
    large.data = large.data + 1
    dock = dock(PROCESSES)
    dock.panel.run.click()
    assert "slide.tif holds other pixels than the layer slide" in ended(dock)


@pytest.mark.window
def test_movies_and_pyramids_keep_the_axes_of_the_layer(viewer, dock, ended, tmp_path):
    movie = np.random.default_rng(1).poisson(100, (2, 1, 20, 300)).astype(np.uint16)
    layer = viewer.add_image(
        movie,
        name="movie",
        scale=(1, 1, 0.065, 0.065),
        units=("s", "um", "um", "um"),
        axis_labels=("t", "z", "y", "x"),
    )
    dock = dock(IN_BLOCKS, samples=2)
    dock.form.keep_samples.setChecked(True)
    dock.blocks.block.setValue(512)
    dock.blocks.out.set_value(tmp_path / "movie.ome.zarr")
    dock.panel.run.click()
    assert "Done" in ended(dock)
    shown = {
        role: next(layer for layer in viewer.layers if layer.name.startswith(f"{role} of movie ("))
        for role in ("reconstruction", "samples", "untrusted pixels")
    }
    assert shown["reconstruction"].multiscale
    assert [level.shape for level in shown["reconstruction"].data] == [
        (2, 1, 40, 600),
        (2, 1, 20, 300),
    ]
    assert shown["samples"].data.shape == (2, 2, 1, 40, 600)
    assert shown["reconstruction"].units == layer.units
    assert np.array_equal(
        np.asarray(shown["untrusted pixels"].data[0]) == 0,
        image_in(tmp_path / "movie.ome.zarr", "valid").reshape(2, 1, 40, 600) > 0,
    )


def test_a_background_layer_travels_to_workers_by_its_file(
    viewer, large, dock, on_scheduler, tmp_path
):
    dark = tmp_path / "dark.tif"
    tifffile.imwrite(dark, np.random.default_rng(1).uniform(80, 90, (70, 130)).astype(np.float32))
    (layer,) = viewer.open(str(dark), plugin="napari")
    dock = dock(SCHEDULER)
    dock.form.image.set_value(large)
    dock.form.background.set_value(layer)
    on_scheduler(dock)
    settings, other = dock.form.settings(), tmp_path / "other.ome.zarr"
    options = {
        name: value for name, value in settings.items() if name not in ("model", "background")
    }
    files = dict(
        images=(large.source.path,),
        model=settings["model"],
        out=str(other),
        options=options,
        block=64,
        background=str(dark),
    )
    drained(reconstruct_by_blocks(*open_job(**files)))
    assert stored(tmp_path / "slide-tiny-widefield-x2.ome.zarr") == stored(other)
