"""What a user does in the middle of a run, and how the program ends.

The program answers in words, frees its memory, and exits cleanly.
"""

import gc
import os
import subprocess
import sys
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from qtpy.QtWidgets import QDockWidget

from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.training.fine_tuning import RECIPE, unfinished_runs
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.state import load_state
from napari_cvdm.widgets.common.worker import Job
from napari_cvdm.widgets.layers.layer_data import plugin_metadata
from napari_cvdm.widgets.reconstruct import reconstruct_widget
from napari_cvdm.widgets.reconstruct.reconstruct_widget import ReconstructWidget


def leave(moments: tuple[str, ...], loop: str, model: Path, home: Path) -> None:
    """Run the script that leaves napari in the middle of these: it must end cleanly."""
    script = Path(__file__).with_name("exit_script.py")
    of_home = dict.fromkeys(("HOME", "USERPROFILE"), str(home))
    left = subprocess.run(
        [sys.executable, str(script), "+".join(moments), loop, str(model)],
        capture_output=True,
        text=True,
        check=False,
        # The fonts that matplotlib found are in the cache: to look for them again takes seconds.
        env={"XDG_CACHE_HOME": str(Path.home() / ".cache"), **os.environ, **of_home},
    )
    assert (left.returncode, left.stderr) == (0, "")
    assert left.stdout.splitlines() == [f"left while {' '.join(moments)}"]


# Two at a time: Qt starts no more threads for work than there are processors.
@pytest.mark.parametrize(
    ("moments", "loop"),
    [
        (("training", "measuring"), "napari"),
        (("following", "running"), "script"),
        *(
            pytest.param((moment,), loop, marks=pytest.mark.stress)
            for moment in ("training", "measuring", "following", "running")
            for loop in ("napari", "script")
        ),
    ],
)
def test_leaving_in_the_middle_ends_cleanly_and_saves_a_training(
    tiny_widefield_model, tmp_path, moments, loop
):
    leave(moments, loop, tiny_widefield_model, tmp_path)
    if "training" in moments:
        (run,) = unfinished_runs(tmp_path / "napari-cvdm" / "runs")
        saved = load_state(run, read_recipe(run / RECIPE).fingerprint)
        assert saved.stage == "mean"
        assert saved.step > 0


@pytest.fixture
def evaluations(monkeypatch):
    """Which tensors of the network are alive, and the faults of its next evaluations."""
    made, faults, clean = [], [], CVDM.clean

    def watched(*args):
        if faults:
            raise faults.pop()
        answer = clean(*args)
        made.append(weakref.ref(answer))
        return answer

    def alive():
        gc.collect()
        return [one for one in made if one() is not None]

    monkeypatch.setattr(CVDM, "clean", watched)
    return alive, faults


@pytest.fixture
def open_dock(evaluations, tiny_widefield_model, qtbot, monkeypatch):
    """Open a dock in a viewer, in the middle of a run."""
    monkeypatch.setattr(reconstruct_widget, "REST_MS", 50)

    def opened(viewer):
        viewer.add_image(
            np.random.default_rng(0).poisson(100.0, (40, 36)).astype(np.uint16),
            name="cell",
            scale=(0.065, 0.065),
            units=("um", "um"),
        )
        dock = ReconstructWidget(viewer)
        viewer.window.add_dock_widget(dock, name="Reconstruct")
        dock.form.model.set_value(str(tiny_widefield_model))
        for name, count in {"samples": 2, "steps": 100}.items():
            dock.form.counts[name].setValue(count)
        dock.form.words["device"].setCurrentText("cpu")
        dock.start()
        qtbot.waitUntil(partial(_in_the_middle, dock))
        return dock

    return opened


@pytest.fixture
def dock(viewer, open_dock):
    """A dock in the middle of a run."""
    return open_dock(viewer)


def _in_the_middle(dock):
    return dock.panel.bar.value() > 2


def _idle(dock):
    return not dock.panel.busy


def result_of(dock):
    return next(
        layer
        for layer in dock._viewer.layers
        if plugin_metadata(layer).get("role") == "reconstruction"
    )


def test_a_run_goes_on_with_the_model_that_it_began_with(
    dock, qtbot, tiny_widefield_model, tiny_phase_model
):
    dock.form.model.set_value(str(tiny_phase_model))
    assert dock.panel.busy
    qtbot.waitUntil(partial(_idle, dock))
    assert plugin_metadata(result_of(dock))["provenance"]["settings"]["model"] == str(
        tiny_widefield_model
    )
    assert "Needed before a run" in dock.panel.message.text() or "Done" in dock.panel.message.text()


def test_a_hidden_dock_goes_on_and_has_its_result(make_napari_viewer, open_dock, qtbot):
    dock = open_dock(make_napari_viewer(show=True))
    frame = dock.parent()
    while not isinstance(frame, QDockWidget):
        frame = frame.parent()
    frame.hide()
    assert dock.panel.busy
    qtbot.waitUntil(partial(_idle, dock))
    frame.show()
    assert result_of(dock).visible
    assert "Done" in dock.panel.message.text()


@pytest.mark.parametrize("kind", [torch.AcceleratorError, RuntimeError])
def test_a_lost_gpu_is_said_in_words_and_another_run_can_be_made(dock, evaluations, qtbot, kind):
    _, faults = evaluations
    faults.append(
        kind(
            "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously "
            "reported"
        )
    )
    qtbot.waitUntil(partial(_idle, dock))
    said = dock.panel.message.text()
    assert said.startswith("The GPU has failed (CUDA error: device-side assert triggered).")
    assert "Choose device cpu" in said
    assert [layer.name for layer in dock._viewer.layers] == ["cell"]
    dock.form.counts["steps"].setValue(2)
    dock.panel.run.click()
    qtbot.waitUntil(partial(_idle, dock))
    assert np.isfinite(result_of(dock).data).all()


def test_a_cancelled_run_holds_no_tensor(dock, evaluations, qtbot):
    alive, _ = evaluations
    assert alive()
    dock.panel.cancel.click()
    qtbot.waitUntil(lambda: not dock.panel.busy and not dock.cost.waiting)
    assert not alive()


@pytest.mark.window
def test_a_finished_run_holds_its_result_until_the_layers_and_the_dock_are_gone(
    dock, evaluations, qtbot
):
    alive, _ = evaluations
    qtbot.waitUntil(lambda: not dock.panel.busy and not dock.cost.waiting)
    assert not alive()
    viewer, array = dock._viewer, weakref.ref(result_of(dock).data)
    viewer.window.remove_dock_widget(dock)
    dock.deleteLater()
    dock.last = None
    viewer.layers.clear()

    def freed():
        gc.collect()
        assert array() is None

    qtbot.waitUntil(freed)


@pytest.mark.window
def test_a_dock_that_is_destroyed_ends_its_run_and_frees_it(dock, evaluations, qtbot):
    alive, _ = evaluations
    dock._viewer.window.remove_dock_widget(dock)
    dock.deleteLater()
    qtbot.waitUntil(lambda: not Job._running)
    assert not alive()
