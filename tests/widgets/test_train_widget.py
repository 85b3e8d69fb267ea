"""The Train dock in a real window.

It trains what the command line trains, and no training is lost.
"""

import csv
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from qtpy.QtCore import QCoreApplication, QEvent
from qtpy.QtWidgets import QApplication, QFileDialog
from short_trainings import PATCH_PX, few_small_fields

from napari_cvdm.cli import main
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import Progress
from napari_cvdm.export import zoo
from napari_cvdm.io import write_image
from napari_cvdm.models.bundle import add_model
from napari_cvdm.models.checkpoint import CARD, load_checkpoint
from napari_cvdm.training.fine_tuning import PRESETS_MIN, RECIPE
from napari_cvdm.training.health import (
    FAILURES,
    SCHEDULE_FAILURES,
    SPREAD_FAILURES,
    Finding,
)
from napari_cvdm.training.loop import Trained, TrainStep
from napari_cvdm.training.pairs import Arrays, BioSR
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.state import STATE, load_state
from napari_cvdm.widgets.layers.layer_data import plugin_metadata
from napari_cvdm.widgets.reconstruct.reconstruct_widget import ReconstructWidget
from napari_cvdm.widgets.train import train_widget
from napari_cvdm.widgets.train.pair_source import ARRAYS, BIOSR, CLEAN, FOLDERS, LAYERS, MICROSCOPE
from napari_cvdm.widgets.train.train_form import OWN_STEPS
from napari_cvdm.widgets.train.train_progress import ROLE, looked_for
from napari_cvdm.widgets.train.train_widget import TrainWidget


def prepared(viewer, model, kind, steps=(12, 12)):
    """A dock that is ready for a short training of a tiny model."""
    dock = TrainWidget(viewer)
    viewer.window.add_dock_widget(dock, name="Train")
    dock.form.model.set_value(str(model))
    dock.form.source.kind.setCurrentText(kind)
    dock.form.time.setCurrentText(OWN_STEPS)
    small = {
        "mean_steps": steps[0],
        "diffusion_steps": steps[1],
        "batch": 2,
        "patch_px": PATCH_PX,
        "held-out fields": 1,
    }
    for name, count in small.items():
        dock.form.counts[name].setValue(count)
    dock.form.numbers["learning_rate"].set_value(1e-3)
    dock.form.words["precision"].setCurrentText("fp32")
    dock.form.words["device"].setCurrentText("cpu")
    dock.form.name.setText("mine")
    return dock


@pytest.fixture(autouse=True)
def small_trainings():
    """Show that a training runs with the fewest and smallest fields."""
    with few_small_fields():
        yield


@pytest.fixture
def dock(viewer, tiny_widefield_model):
    """A dock with a described microscope."""
    return prepared(viewer, tiny_widefield_model, MICROSCOPE)


@pytest.fixture
def endless(viewer, tiny_widefield_model, qtbot):
    """A training that takes longer than anybody waits, and is stopped at the end."""
    dock = prepared(viewer, tiny_widefield_model, MICROSCOPE, steps=(100_000, 100_000))
    yield dock
    if dock.training:
        dock.panel.stop.click()
        qtbot.waitUntil(lambda: not dock.training)


def wait(qtbot, dock):
    qtbot.waitUntil(lambda: not dock.training)


def steps_done(dock):
    """Of the training itself: the bar also shows how the pace is measured."""
    return (
        dock.panel.bar.value() if dock.panel.stage.text().startswith(("mean", "diffusion")) else 0
    )


def weights(folder):
    return load_checkpoint(folder).network.state_dict()


def equal(first, second):
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_better_model_is_in_the_list_of_reconstruct_and_used_there(
    dock, own_models, qtbot, viewer, monkeypatch
):
    reconstruct = ReconstructWidget(viewer)
    viewer.window.add_dock_widget(reconstruct)
    # Whether so short a training is better on one small field is chance.
    monkeypatch.setattr(Trained, "better", True)
    dock.panel.start.click()
    wait(qtbot, dock)
    assert "; better." in dock.panel.message.text()
    assert load_checkpoint(own_models / "mine").card.name == "mine"
    reconstruct.form.model._box.showPopup()
    reconstruct.form.model._box.hidePopup()
    reconstruct.form.model.set_value(str(own_models / "mine"))
    assert reconstruct.form.model.card().name == "mine"
    assert not dock.form.name.text() == "mine"  # the next one needs a name of its own
    opened = ReconstructWidget(viewer)
    viewer.window.add_dock_widget(opened)
    monkeypatch.setattr(train_widget, "open_reconstruct", lambda _, act: act(opened))
    assert dock.result.use.isEnabled()
    dock.result.use.click()
    assert Path(opened.form.model.value()) == own_models / "mine"


def test_a_model_that_is_not_better_is_kept_apart_and_said_so(dock, own_models, qtbot):
    dock.form.part.setCurrentText("denoiser")
    dock.form.numbers["learning_rate"].set_value(30.0)
    dock.form.counts["diffusion_steps"].setValue(6)  # before the gradients are no numbers any more
    dock.panel.start.click()
    wait(qtbot, dock)
    assert "NOT better" in dock.panel.message.text()
    assert not (own_models / "mine").exists()
    assert (own_models / "runs" / "mine" / CARD).exists()
    assert not dock.result.use.isEnabled()
    assert dock.result.export.isEnabled()


def test_the_recipe_of_the_run_repeats_it_on_the_command_line_and_its_model_is_exported(
    dock, own_models, qtbot, tmp_path, monkeypatch
):
    dock.panel.start.click()
    wait(qtbot, dock)
    run = own_models / "runs" / "mine"
    dock.result.command.click()
    words = shlex.split(QApplication.clipboard().text())
    assert words[:3] == ["napari-cvdm", "train", str(run / RECIPE)]
    assert main([*words[1:], "--device", "cpu"]) == 0
    assert equal(weights(run), weights(f"{run}-again"))

    def export(name, kind):
        chosen = str(tmp_path / name), kind
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: chosen)
        dock.result.export.click()

    export("passed on.zip", "")
    qtbot.waitUntil(lambda: "Exported" in dock.panel.message.text())
    added = add_model(tmp_path / "passed on.zip", tmp_path / "theirs")
    assert equal(weights(added), weights(run))
    # Packages for other programs say what they lack.
    monkeypatch.setattr(zoo, "NEEDED", ("a_module_that_nobody_has",))
    export("packages", train_widget.ZOO)
    qtbot.waitUntil(lambda: "napari-cvdm[bmz]" in dock.panel.message.text())
    assert not (tmp_path / "packages").exists()


def paused_after(steps, control, monkeypatch):
    """Pause a training in its own thread, after so many steps: the window may be late."""
    asked, looks = control.preview_is_due, []

    def look():
        looks.append(len(looks))
        if len(looks) == steps:
            control.pausing.set()
        return asked()

    monkeypatch.setattr(control, "preview_is_due", look)


def test_stopped_and_resumed_it_comes_to_the_same_weights(dock, own_models, qtbot, monkeypatch):
    """The dock stops where it likes; the command line never stops."""
    run = own_models / "runs" / "mine"
    dock.panel.start.click()
    paused_after(7, dock.run.control, monkeypatch)
    qtbot.waitUntil(lambda: "paused" in dock.panel.stage.text())
    assert steps_done(dock) == 7
    dock.panel.stop.click()
    wait(qtbot, dock)
    assert "saved" in dock.panel.message.text()
    assert (run / STATE).exists()
    assert not (run / CARD).exists()
    assert dock.panel.resume.isEnabled()
    dock.resume(run)
    wait(qtbot, dock)
    assert (
        main(["train", str(run / RECIPE), "--out", str(own_models / "whole"), "--device", "cpu"])
        == 0
    )
    assert equal(weights(run), weights(own_models / "whole"))


def test_a_pause_holds_every_step_and_a_paused_training_can_be_stopped(endless, own_models, qtbot):
    endless.panel.start.click()
    held = []
    endless.run.progressed.connect(
        lambda progress: "paused" in progress.stage and held.append(progress.done)
    )
    qtbot.waitUntil(lambda: steps_done(endless) > 2)
    endless.panel.pause.click()
    qtbot.waitUntil(lambda: len(held) > 3)
    assert len(set(held)) == 1
    endless.panel.pause.click()
    qtbot.waitUntil(lambda: steps_done(endless) > held[0])
    endless.panel.pause.click()
    qtbot.waitUntil(lambda: "paused" in endless.panel.stage.text())
    endless.panel.stop.click()
    wait(qtbot, endless)
    assert (own_models / "runs" / "mine" / STATE).exists()


def test_finished_early_it_makes_a_model(endless, own_models, qtbot):
    endless.panel.start.click()
    qtbot.waitUntil(lambda: steps_done(endless) > 5)
    endless.panel.finish.click()
    wait(qtbot, endless)
    assert load_checkpoint(own_models / "runs" / "mine").card.name == "mine"


def test_training_goes_on_when_the_dock_is_hidden(make_napari_viewer, tiny_widefield_model, qtbot):
    viewer = make_napari_viewer(show=True)
    dock = prepared(viewer, tiny_widefield_model, MICROSCOPE, steps=(100_000, 100_000))
    dock.panel.start.click()
    qtbot.waitUntil(lambda: steps_done(dock) > 2)
    dock.parentWidget().hide()
    before = steps_done(dock)
    qtbot.waitUntil(lambda: steps_done(dock) > before + 3)
    assert dock.training
    dock.panel.stop.click()
    wait(qtbot, dock)


@pytest.mark.window
def test_training_is_saved_when_the_dock_goes(viewer, tiny_widefield_model, own_models, qtbot):
    dock = prepared(viewer, tiny_widefield_model, MICROSCOPE, steps=(100_000, 100_000))
    dock.panel.start.click()
    qtbot.waitUntil(lambda: steps_done(dock) > 2)
    viewer.window.remove_dock_widget(dock)
    dock.deleteLater()
    QCoreApplication.sendPostedEvents(dock, QEvent.Type.DeferredDelete.value)
    run = own_models / "runs" / "mine"
    qtbot.waitUntil(lambda: (run / STATE).exists())
    assert load_state(run, read_recipe(run / RECIPE).fingerprint).step > 0


def test_a_training_says_what_it_prepares_and_its_curves_are_the_log(dock, own_models, qtbot):
    dock.form.counts["mean_steps"].setValue(40)
    of_before = Finding(name="overfitting", value=2.0, threshold=1.0, advice="Stop here.")
    dock.progress.lights.add(of_before)
    assert "Stop here." in dock.progress.lights.advice.text()
    said = []
    dock.panel.start.click()
    assert dock.progress.lights.advice.text() == ""
    dock.run.progressed.connect(lambda progress: said.append(progress.stage))
    wait(qtbot, dock)
    before = said[: next(n for n, stage in enumerate(said) if "/" in stage)]
    assert {
        "preparing held-out fields",
        "scoring the model to start from",
        "preparing the first images",
    } <= set(before)
    with (own_models / "runs" / "mine" / "log.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    plots = dock.progress.plots
    for stage in ("mean", "diffusion"):
        logged = [
            float(row["baseline" if stage == "mean" else "network"])
            for row in rows
            if row["stage"] == stage and row["learning_rate"]
        ]
        drawn = plots.terms.traces[stage]["baseline" if stage == "mean" else "network"].values
        assert np.allclose(drawn, logged, rtol=1e-5)
        assert set(plots.terms.traces[stage]) == (
            {"baseline", "mean"}
            if stage == "mean"
            else {"network", "noise", "prior", "smoothness", "boundary", "schedule"}
        )
    looked = [float(row["held_out_rmse"]) for row in rows if row["held_out_rmse"]]
    assert np.allclose(plots.held_out.rmse.values[: len(looked)], looked, rtol=1e-5)
    assert len(plots.schedule.seen) > 0


def test_a_held_out_field_is_shown_and_renewed(endless, viewer, qtbot):
    endless.progress.every.setValue(0)
    endless.panel.start.click()
    qtbot.waitUntil(lambda: steps_done(endless) > 0)
    assert endless.progress.preview.layers() == {}
    endless.progress.now.click()
    qtbot.waitUntil(lambda: len(endless.progress.preview.layers()) == 4)
    first = endless.progress.preview.layers()
    before = first["mean"].data
    assert all(plugin_metadata(layer)["role"] == ROLE for layer in first.values())
    low, high = (np.array(first[name].extent.world) for name in ("measured", "mean"))
    pixel = first["measured"].scale[0]
    assert np.allclose(first["mean"].scale, pixel / 2)
    assert np.allclose(low, high, atol=pixel)  # the finer image covers the same place
    endless.progress.now.click()
    qtbot.waitUntil(
        lambda: not np.array_equal(endless.progress.preview.layers()["mean"].data, before),
    )
    assert endless.progress.preview.layers()["mean"] is first["mean"]
    viewer.layers.remove(first["spread"])
    endless.progress.now.click()
    qtbot.waitUntil(lambda: len(endless.progress.preview.layers()) == 4)


def test_a_preview_is_no_measurement(endless, qtbot):
    endless.panel.start.click()
    qtbot.waitUntil(lambda: steps_done(endless) > 0)
    endless.progress.now.click()
    qtbot.waitUntil(lambda: len(endless.progress.preview.layers()) == 4)
    assert endless.form.source.layers["measured layer"].layers() == []


@pytest.fixture
def pairs():
    """Six measured fields, and truths of which they are the means over two by two pixels."""
    rng = np.random.default_rng(0)
    truth = np.zeros((6, 128, 128), np.float32)
    for field in truth:
        for row, column in rng.integers(10, 118, size=(30, 2)):
            field[row - 2 : row + 3, column - 2 : column + 3] += 1000
    measured = truth.reshape(6, 64, 2, 64, 2).mean(axis=(2, 4)) + rng.normal(100, 3, (6, 64, 64))
    return measured.astype(np.float32), truth


def with_layers(viewer, model, measured, truth):
    units = {"units": ("pixel", "um", "um"), "axis_labels": ("t", "y", "x")}
    viewer.add_image(measured, name="measured", scale=(1, 0.1, 0.1), **units)
    viewer.add_image(truth, name="truth", scale=(1, 0.05, 0.05), **units)
    dock = prepared(viewer, model, LAYERS)
    layers = dock.form.source.layers
    for name in ("measured", "truth"):
        layers[f"{name} layer"].set_value(viewer.layers[name])
    return dock


def test_layers_become_folders_beside_the_recipe(
    viewer, tiny_widefield_model, pairs, own_models, qtbot, tmp_path
):
    dock = with_layers(viewer, tiny_widefield_model, *pairs)
    assert dock.form.source.numbers["pixel_um"].value() == pytest.approx(0.1)
    dock.panel.start.click()
    wait(qtbot, dock)
    run = own_models / "runs" / "mine"
    assert len(list((run / "pairs" / "measured").iterdir())) == len(pairs[0])
    own_models.rename(tmp_path / "cluster")
    moved = tmp_path / "cluster" / "runs" / "mine"
    assert (
        main(["train", str(moved / RECIPE), "--out", str(tmp_path / "again"), "--device", "cpu"])
        == 0
    )
    assert equal(weights(moved), weights(tmp_path / "again"))


def test_pairs_that_are_shifted_light_the_light_and_leave_nothing(
    viewer, tiny_widefield_model, pairs, own_models, qtbot
):
    measured, truth = pairs
    dock = with_layers(viewer, tiny_widefield_model, measured, np.roll(truth, 4, axis=-1))
    dock.panel.start.click()
    wait(qtbot, dock)
    assert "register" in dock.panel.message.text()
    assert dock.progress.lights.lights["data wrong"].finding is not None
    assert "px right" in dock.progress.lights.advice.text()
    assert not (own_models / "runs" / "mine").exists()
    dock.form.source.register.setChecked(True)
    dock.panel.start.click()
    wait(qtbot, dock)
    assert (own_models / "runs" / "mine" / CARD).exists()


def test_every_failure_has_a_light(dock):
    assert tuple(dock.progress.lights.lights) == tuple(FAILURES)


def test_a_light_is_grey_until_somebody_has_looked_and_then_says_what_is_so(dock):
    lights = dock.progress.lights
    assert all(light.is_grey for light in lights.lights.values())
    lights.show_findings([], {"overfitting"})
    light = lights.lights["overfitting"]
    assert (light.text(), light.is_grey) == ("no overfitting", False)
    assert sum(not light.is_grey for light in lights.lights.values()) == 1
    found = Finding(name="overfitting", value=1.1, threshold=1.03, advice="Stop here.")
    lights.show_findings([found], {"overfitting", "exploding gradients"})
    assert light.text() == "overfitting"
    assert lights.lights["exploding gradients"].text() == "gradients stable"
    lights.forget()
    assert all(light.is_grey for light in lights.lights.values())


@pytest.mark.parametrize(
    ("stage", "scored", "scheduled", "looked"),
    [
        ("mean", False, False, set()),
        ("mean", True, False, {"overfitting"}),
        ("diffusion", False, True, set(SCHEDULE_FAILURES)),
        ("diffusion", True, True, {"overfitting", *SCHEDULE_FAILURES, *SPREAD_FAILURES}),
    ],
)
def test_a_step_tells_what_was_looked_for(stage, scored, scheduled, looked):
    step = TrainStep(
        stage=stage,
        step=1,
        total=2,
        score=object() if scored else None,
        schedule=object() if scheduled else None,
        preview=lambda number: None,
    )
    assert looked_for(step) - {"exploding gradients", "data wrong"} == looked


def test_two_minutes_are_a_time_to_choose(dock):
    minutes = [PRESETS_MIN.get(dock.form.time.itemText(n)) for n in range(dock.form.time.count())]
    assert 2.0 in minutes and minutes[0] == 10.0


def test_what_is_missing_is_named_and_nothing_starts(viewer, tiny_widefield_model):
    dock = prepared(viewer, tiny_widefield_model, FOLDERS)
    assert "measured folder, truth folder" in dock.panel.message.text()
    assert not dock.panel.start.isEnabled()
    dock.start()
    assert not dock.training


@pytest.mark.parametrize("name", ["a/b", "..", "runs", "con:1"])
def test_names_that_no_folder_may_have_are_refused(dock, name):
    dock.form.name.setText(name)
    dock.start()
    assert not dock.training
    assert name in dock.panel.message.text()


def test_a_name_that_is_taken_is_refused(dock, own_models):
    (own_models / "mine").mkdir(parents=True)
    dock.start()
    assert not dock.training
    assert "has that name already" in dock.panel.message.text()


def test_every_source_makes_its_section_of_the_recipe(viewer, tiny_widefield_model, tmp_path):
    dock = prepared(viewer, tiny_widefield_model, ARRAYS)
    source = dock.form.source
    for name in source.paths:
        source.paths[name].set_value(tmp_path / name)
    assert isinstance(dock.form.value().recipe.pairs, Arrays)
    source.kind.setCurrentText(BIOSR)
    source.levels["lowest level"].setValue(4)
    assert dock.form.value().recipe.pairs == BioSR(
        folder=str(tmp_path / "BioSR folder"), levels=(4, 12)
    )
    source.kind.setCurrentText(CLEAN)
    source.numbers["na"].set_value(1.2)
    recipe = dock.form.value().recipe
    assert recipe.clean.folder == str(tmp_path / "clean folder")
    assert recipe.simulation.na == (1.2, 1.2)
    source.kind.setCurrentText(FOLDERS)
    assert dock.form.value().recipe.pairs.measured == str(tmp_path / "measured folder")


def test_a_phase_model_asks_for_two_planes(viewer, tiny_phase_model):
    dock = prepared(viewer, tiny_phase_model, MICROSCOPE)
    source = dock.form.source
    assert {"defocus_um", "strength_rad"} <= set(source.shown())
    for name, value in {"pixel_um": 0.2, "wavelength_um": 0.55, "medium_index": 1.337}.items():
        source.numbers[name].set_value(value)
    source.numbers["defocus_um"].set_value((-2.5, 2.5))
    assert dock.form.value().recipe.simulation.fresnel[0] == pytest.approx(
        0.55 * 5 / (1.337 * 0.2**2)
    )
    source.kind.setCurrentText(BIOSR)
    source.paths["BioSR folder"].set_value("cells")
    with pytest.raises(RequestError, match="fluorescence"):
        dock.form.value()


def test_layers_of_three_planes_and_the_condenser_reach_the_recipe(viewer, tiny_phase_model):
    rng = np.random.default_rng(0)
    viewer.add_image(
        rng.random((4, 3, 40, 48)), name="planes", axis_labels=("t", "plane", "y", "x")
    )
    viewer.add_image(rng.random((4, 40, 48)), name="phase", axis_labels=("t", "y", "x"))
    source = prepared(viewer, tiny_phase_model, LAYERS).form.source
    for name, layer in {"measured layer": "planes", "truth layer": "phase"}.items():
        source.layers[name].set_value(viewer.layers[layer])
    assert len(source.numbers["defocus_um"].typed) == 3
    for name, value in {"defocus_um": (-1.0, 0.0, 1.5), "condenser_na": 0.2}.items():
        source.numbers[name].set_value(value)
    folders, layers = source.value()
    assert (folders.defocus_um, folders.condenser_na) == ((-1.0, 0.0, 1.5), 0.2)
    assert (layers.measured.axes, layers.measured.planes) == ("TPYX", 3)
    source.kind.setCurrentText(MICROSCOPE)
    for name, value in {"pixel_um": 0.2, "wavelength_um": 0.55, "medium_index": 1.337}.items():
        source.numbers[name].set_value(value)
    ranges = source.value()[0].ranges
    assert ranges.condenser_na == (0.2, 0.2)
    assert ranges.fresnel[0] == pytest.approx(0.55 * 2.5 / (1.337 * 0.2**2))


def test_a_phase_model_is_tuned_on_files(viewer, tiny_phase_model, own_models, qtbot, tmp_path):
    from napari_cvdm.simulate.ranges import PhaseRanges
    from napari_cvdm.simulate.scenes import simulate_phase

    for number in range(2):
        pair = simulate_phase(
            number,
            PhaseRanges(
                field_px=(64, 64),
                photons=(1e5, 1e5),
                strength_rad=(1.0, 2.0),
                absorption=(0.01, 0.011),
            ),
        )
        for kind, pixels, axes in (("measured", pair.planes, "PYX"), ("truth", pair.phase, "YX")):
            (tmp_path / kind).mkdir(exist_ok=True)
            write_image(
                tmp_path / kind / f"{number}.ome.tif",
                pixels,
                axes=axes,
                pixel_um=pair.microscope.pixel_um,
                unit="rad",
                name=kind,
            )
    dock = prepared(viewer, tiny_phase_model, FOLDERS, steps=(2, 2))
    for name in ("measured", "truth"):
        dock.form.source.paths[f"{name} folder"].set_value(tmp_path / name)
    dock.panel.start.click()
    wait(qtbot, dock)
    assert "wavelength" in dock.panel.message.text()  # files say only the pixel size
    assert not (own_models / "runs" / "mine").exists()


@pytest.mark.parametrize(
    ("named", "folder"), [("passed on.zip", "passed on"), ("cells v1.2", "cells v1.2")]
)
def test_a_folder_of_packages_keeps_the_dots_of_its_name(
    viewer, qtbot, tmp_path, monkeypatch, named, folder
):
    from qtpy.QtWidgets import QFileDialog

    from napari_cvdm.widgets.train import train_widget

    def export(_model, path, _optics):
        yield Progress(stage="exporting", done=0, total=1)
        return path

    monkeypatch.setattr(train_widget, "export_packages", export)
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / named), train_widget.ZOO)
    )
    result, said = train_widget.TrainedModel(viewer, dict), []
    qtbot.addWidget(result)
    result.said.connect(lambda _, text: said.append(text))
    result.show_end(train_widget.TrainingEnd(run=tmp_path))
    result.export.setEnabled(True)
    result.export.click()
    qtbot.waitUntil(lambda: bool(said))
    assert said == [f"Exported to {tmp_path / folder}."]


def test_a_full_disk_is_said_and_loses_nothing_else(dock, own_models, qtbot, monkeypatch):
    from napari_cvdm.training import fine_tuning

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fine_tuning, "write_recipe", full)
    with qtbot.captureExceptions() as raised:
        dock.panel.start.click()
        wait(qtbot, dock)
    assert raised == []
    assert "No space left" in dock.panel.message.text()
    assert not (own_models / "runs" / "mine").exists()
    assert dock.panel.start.isEnabled()
