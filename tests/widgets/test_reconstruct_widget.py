"""The dock in a real window: fill, run, cancel, fail, run again, close."""

from functools import partial
from itertools import count

import numpy as np
import pytest

from napari_cvdm.core.result import Progress
from napari_cvdm.core.result import finished as drained
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY
from napari_cvdm.widgets.layers.shown_layers import show_schedule

SPREAD = "uncertainty of cell [counts]"

MEAN = "reconstruction of cell [counts]"

RESULTS = ("uncertainty", "untrusted pixels", "reconstruction")


def _moving(bar):
    return bar.value() > 2


def endless(*_):
    for done in count():
        yield Progress(stage="waiting", done=done, total=10**9)


@pytest.mark.window
def test_a_widefield_run_adds_its_layers(
    viewer, measured, open_dock, finished, tiny_widefield_model
):
    source = viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    dock.panel.run.click()
    finished(dock)
    assert [layer.name for layer in viewer.layers] == [
        "cell",
        SPREAD,
        "untrusted pixels of cell",
        MEAN,
    ]
    result = viewer.layers[MEAN]
    assert result.data.shape == (80, 72)
    np.testing.assert_allclose(result.scale, source.scale / 2)
    assert result.units == source.units
    assert viewer.dims.ndim == 2  # no axis that the image does not have
    assert "Done" in dock.panel.message.text()
    assert dock.panel.run.isEnabled()


def test_the_dock_and_the_core_give_the_same_pixels(
    viewer, measured, open_dock, finished, tiny_widefield_model
):
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    request = dock.form.value()
    dock.start()
    finished(dock)
    alone = drained(reconstruct(request, load_model(request.model)))
    assert viewer.layers[MEAN].data.tobytes() == alone.mean.tobytes()
    assert viewer.layers[SPREAD].metadata[METADATA_KEY]["provenance"]["settings"][
        "pixel_um"
    ] == pytest.approx(0.065)


@pytest.mark.parametrize("together", [True, False])
def test_a_phase_run_takes_one_layer_of_two_planes_or_two_layers(
    viewer, planes, open_dock, finished, tiny_phase_model, together
):
    if together:
        viewer.add_image(planes, name="near", scale=(1, 0.2, 0.2), units=("um",) * 3)
    else:
        for name, plane in zip(("far", "near"), planes, strict=True):
            viewer.add_image(plane, name=name, scale=(0.2, 0.2), units=("um", "um"))
    dock = open_dock(tiny_phase_model)
    assert dock.form.missing() == ("wavelength_um", "medium_index", "defocus_um")
    assert not dock.panel.run.isEnabled()
    for name, value in {
        "wavelength_um": 0.55,
        "medium_index": 1.33,
        "defocus_um": (-1.0, 1.0),
    }.items():
        dock.form.optics[name].set_value(value)
    assert dock.panel.run.isEnabled()
    dock.start()
    finished(dock)
    assert viewer.layers["reconstruction of near [rad]"].data.shape == (48, 40)
    assert viewer.layers.units is not None


@pytest.mark.parametrize("text", ["abc", "-1", "65"])
def test_bad_optics_are_refused_in_one_line_and_nothing_runs(
    viewer, measured, open_dock, finished, tiny_widefield_model, text
):
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    dock.form.optics["pixel_um"].setText(text)
    dock.start()
    finished(dock)
    assert "Pixel size is" in dock.panel.message.text()
    assert len(viewer.layers) == 1
    assert dock.panel.run.isEnabled()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(lambda image: np.full_like(image, np.nan), "NaN"), (np.zeros_like, "constant")],
)
def test_bad_pixels_are_refused(
    viewer, measured, open_dock, finished, tiny_widefield_model, spoil, words
):
    viewer.add_image(
        **{
            **measured,
            "data": spoil(measured["data"].astype(np.float32)),
            "contrast_limits": (0, 1),
        }
    )
    dock = open_dock(tiny_widefield_model)
    dock.start()
    finished(dock)
    assert words in dock.panel.message.text()
    assert len(viewer.layers) == 1


def test_a_planted_runtime_error_is_reported_and_the_button_comes_back(
    viewer, measured, open_dock, finished, tiny_widefield_model, monkeypatch
):
    def broken(*_):
        yield Progress(stage="sampling", done=1, total=6)
        raise RuntimeError("cuDNN error: planted")

    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    with monkeypatch.context() as planted:
        planted.setattr("napari_cvdm.reconstruction.reconstruct.reconstruct", broken)
        dock.start()
        assert not dock.panel.run.isEnabled()
        finished(dock)
    assert "cuDNN error: planted" in dock.panel.message.text()
    assert dock.panel.run.isEnabled()
    assert len(viewer.layers) == 1
    dock.start()
    finished(dock)
    assert MEAN in viewer.layers


def test_a_corrupted_model_is_reported(
    viewer, measured, open_dock, finished, tiny_widefield_model, tmp_path
):
    (tmp_path / "card.json").write_bytes((tiny_widefield_model / "card.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    viewer.add_image(**measured)
    dock = open_dock(str(tmp_path))
    dock.start()
    finished(dock)
    assert "cannot be loaded" in dock.panel.message.text()
    assert dock.panel.run.isEnabled()


def test_cancel_answers_within_one_step_and_leaves_no_half_result(
    viewer, measured, open_dock, finished, tiny_widefield_model, monkeypatch, qtbot
):
    made = []

    def counted(request, model, earlier):
        steps = reconstruct(request, model, earlier)
        while True:
            try:
                made.append(next(steps))
            except StopIteration as end:
                return end.value
            yield made[-1]

    monkeypatch.setattr("napari_cvdm.reconstruction.reconstruct.reconstruct", counted)
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    dock.form.counts["steps"].setValue(1000)
    dock.start()
    qtbot.waitUntil(lambda: dock.panel.bar.value() > 2)
    dock.panel.cancel.click()
    seen = len(made)
    finished(dock)
    assert len(made) <= seen + 1
    assert "Cancelled" in dock.panel.message.text()
    assert [layer.name for layer in viewer.layers] == ["cell"]
    assert dock.panel.run.isEnabled()


def test_the_window_says_cancelled_when_the_worker_has_ended_one_tile_later(
    viewer, measured, open_dock, finished, tiny_widefield_model, monkeypatch, qtbot
):
    evaluated = []

    def count(name, really):
        def evaluate(*given):
            evaluated.append(name)
            return really(*given)

        monkeypatch.setattr(CVDM, name, evaluate)

    for name in ("mean_residual", "rate", "residual_std", "clean"):
        count(name, getattr(CVDM, name))
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    dock.form.counts["steps"].setValue(1000)
    dock.form.counts["tile"].setValue(16)
    dock.start()
    qtbot.waitUntil(lambda: dock.panel.stage.text().startswith("sample 1 of 2, tile"))
    before = len(evaluated)
    dock.panel.cancel.click()
    seen = len(evaluated)
    assert before > 10
    assert dock.panel.message.text() == dock.panel.stage.text() == "Cancelling…"
    assert not dock.panel.cancel.isEnabled() and not dock.panel.run.isEnabled()
    finished(dock)
    assert len(evaluated) <= seen + 1
    assert dock.panel.message.text() == "Cancelled; no layer was changed."
    assert [layer.name for layer in viewer.layers] == ["cell"]


def test_a_rerun_replaces_the_former_result_when_it_is_complete(
    viewer, measured, open_dock, finished, tiny_widefield_model
):
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    for seed in (0, 1):
        dock.form.counts["seed"].setValue(seed)
        dock.start()
        finished(dock)
    assert len(viewer.layers) == 1 + len(RESULTS)
    assert viewer.layers[MEAN].metadata[METADATA_KEY]["provenance"]["settings"]["seed"] == 1
    assert dock.form.image.count() == 1


@pytest.mark.window
def test_the_source_layer_may_go_and_the_slider_may_move_during_a_run(
    viewer, measured, open_dock, finished, tiny_widefield_model
):
    source = viewer.add_image(
        **{
            **measured,
            "data": np.stack([measured["data"]] * 3),
            "scale": (1, 0.065, 0.065),
            "translate": (0, 5, 7),
            "units": ("s", "um", "um"),
            "axis_labels": ("t", "y", "x"),
        }
    )
    dock = open_dock(tiny_widefield_model)
    dock.start()
    viewer.dims.set_current_step(0, 2)
    viewer.layers.remove(source)
    finished(dock)
    assert viewer.layers[MEAN].data.shape == (3, 80, 72)
    show_schedule(viewer, dock.results.value(), "gamma")
    assert viewer.layers["gamma of cell"].axis_labels == ("schedule t", "t", "y", "x")
    np.testing.assert_allclose(viewer.layers[MEAN].scale, (1, 0.0325, 0.0325))


def test_a_second_start_during_a_run_does_nothing(
    viewer, measured, open_dock, finished, tiny_widefield_model
):
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    dock.start()
    dock.start()
    finished(dock)
    assert len(viewer.layers) == 1 + len(RESULTS)


@pytest.mark.window
def test_removing_the_dock_in_mid_run_is_survived(
    viewer, measured, open_dock, tiny_widefield_model, qtbot
):
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    dock.form.counts["steps"].setValue(50)
    dock.start()
    qtbot.waitUntil(lambda: dock.panel.bar.value() > 2)
    worker_gone = dock.panel._job.ended
    with qtbot.waitSignal(worker_gone):
        viewer.window.remove_dock_widget(dock)
    viewer.add_image(measured["data"], name="later")
    assert "later" in viewer.layers


@pytest.mark.window
def test_a_dock_that_is_destroyed_in_mid_run_leaves_no_trace(
    viewer, measured, open_dock, tiny_widefield_model, qtbot
):
    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    dock.form.counts["steps"].setValue(50)
    dock.start()
    bar = dock.panel.bar
    qtbot.waitUntil(partial(_moving, bar))
    with qtbot.waitSignal(dock.panel._job.ended):
        viewer.window.remove_dock_widget(dock)
        dock.deleteLater()
        del dock, bar
    viewer.layers["cell"].name = "yeast"
    assert [layer.name for layer in viewer.layers] == ["yeast"]


def test_closing_the_viewer_in_mid_run_is_survived(
    make_napari_viewer, measured, tiny_widefield_model, monkeypatch, qtbot
):
    from superqt.utils import WorkerBase

    from napari_cvdm.widgets.reconstruct.reconstruct_widget import ReconstructWidget

    viewer = make_napari_viewer()
    viewer.add_image(**measured)
    dock = ReconstructWidget(viewer)
    viewer.window.add_dock_widget(dock)
    dock.form.model.set_value(str(tiny_widefield_model))
    monkeypatch.setattr("napari_cvdm.reconstruction.reconstruct.reconstruct", endless)
    dock.start()
    qtbot.waitUntil(lambda: dock.panel.bar.value() > 2)
    viewer.close()
    WorkerBase.await_workers(600_000)
    qtbot.wait(50)
    assert MEAN not in viewer.layers


@pytest.mark.window
def test_napari_s_activity_area_shows_the_run_and_nothing_after_it(
    viewer, measured, open_dock, finished, tiny_widefield_model
):
    from napari.utils import progress

    viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    before = len(progress._all_instances)
    dock.start()
    assert [bar.desc.rstrip(": ") for bar in progress._all_instances][before:] == [
        "Reconstructing cell"
    ]
    finished(dock)
    assert len(progress._all_instances) == before
