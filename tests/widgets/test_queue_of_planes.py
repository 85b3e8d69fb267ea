"""Files of planes dropped on the dock: one file each, or all in one."""

import numpy as np
import pytest
from dropping import drop, enqueue
from qtpy.QtWidgets import QApplication, QLineEdit

from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.core.result import finished as drained
from napari_cvdm.io import combine_planes, read_image
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.widgets.reconstruct.queue_panel import State


def states(dock):
    return {row.text(0): row.state for row in dock.queue.view.rows}


@pytest.fixture
def phase_dock(open_dock, tiny_phase_model):
    """A dock with a phase model and its optics."""
    dock = open_dock(tiny_phase_model)
    for name, value in {"wavelength_um": 0.55, "medium_index": 1.33}.items():
        dock.form.optics[name].set_value(value)
    return dock


def test_two_files_are_the_two_planes_and_what_no_file_says_is_asked_for_first(
    viewer, phase_dock, write, planes, worked_off
):
    paths = [
        write(f"cell_{name}.tif", plane, 0.2)
        for name, plane in zip(("below", "above"), planes, strict=True)
    ]
    enqueue(phase_dock, *reversed(paths))
    assert states(phase_dock) == {"cell_below.tif + cell_above.tif": State.WAITING}
    assert "plane positions" in phase_dock.panel.message.text().lower()
    phase_dock.form.optics["defocus_um"].set_value((-1.0, 1.0))
    phase_dock.queue.view.start.click()
    worked_off(phase_dock)
    result = viewer.layers["reconstruction of cell_below [rad]"]
    image = combine_planes(*(read_image(path) for path in paths))
    asked = phase_dock.form.settings() | {"pixel_um": None}
    alone = drained(
        reconstruct(ReconstructionRequest(image=image, **asked), load_model(asked["model"]))
    )
    assert result.data.tobytes() == alone.mean.tobytes()
    assert [layer.name for layer in viewer.layers][:2] == ["cell_below", "cell_above"]


def test_two_files_of_two_planes_each_are_two_images(viewer, phase_dock, write, planes, worked_off):
    phase_dock.form.optics["defocus_um"].set_value((-1.0, 1.0))
    enqueue(phase_dock, write("a.tif", planes, 0.2), write("b.tif", planes[:, ::-1], 0.2))
    assert states(phase_dock) == {"a.tif + b.tif": State.WAITING} or phase_dock.panel.busy
    worked_off(phase_dock)
    assert states(phase_dock) == {"a.tif": State.DONE, "b.tif": State.DONE}
    assert viewer.layers["reconstruction of a [rad]"].data.shape == (48, 40)


def test_the_command_of_a_queued_pair_names_both_files(
    qtbot, phase_dock, write, planes, worked_off
):
    phase_dock.form.optics["defocus_um"].set_value((-1.0, 1.0))
    paths = [write(f"cell_{number}.tif", plane, 0.2) for number, plane in enumerate(planes)]
    enqueue(phase_dock, *paths)
    worked_off(phase_dock)
    phase_dock.results.command.click()
    worked_off(phase_dock)
    command = QApplication.clipboard().text()
    assert all(str(path) in command for path in paths)
    phase_dock.form.image.set_value(phase_dock._viewer.layers["cell_0"])
    phase_dock.form.second.set_value(phase_dock._viewer.layers["cell_1"])
    assert phase_dock.form.files() == dict(zip(("image", "image2"), map(str, paths), strict=True))


def test_three_files_become_one_image_when_three_positions_are_typed(
    viewer, phase_dock, write, planes, worked_off
):
    three = [*planes, planes[0, ::-1]]
    paths = [write(f"cell_z{number}.tif", plane, 0.2) for number, plane in enumerate(three)]
    enqueue(phase_dock, *paths)
    assert len(states(phase_dock)) == 3
    first = phase_dock.form.positions.findChildren(QLineEdit)[0]
    first.setText("-1 0 1,5")
    first.editingFinished.emit()
    assert phase_dock.form.positions.typed == ("-1", "0", "1.5")
    phase_dock.queue.view.start.click()
    assert list(states(phase_dock)) == ["cell_z0.tif + cell_z1.tif + cell_z2.tif"]
    worked_off(phase_dock)
    assert list(states(phase_dock).values()) == [State.DONE]
    assert viewer.layers["reconstruction of cell_z0 [rad]"].data.shape == (48, 40)
    phase_dock.results.command.click()
    worked_off(phase_dock)
    assert all(str(path) in QApplication.clipboard().text() for path in paths)


def test_a_dropped_stack_has_as_many_planes_as_positions(
    viewer, phase_dock, write, planes, worked_off
):
    stack = np.stack([*planes, planes[0, ::-1]])
    phase_dock.form.optics["defocus_um"].set_value((-1.0, 1.0))
    enqueue(phase_dock, write("cell.tif", stack, 0.2))
    worked_off(phase_dock)
    assert states(phase_dock) == {"cell.tif": State.FAILED}
    assert "one position for each plane of this stack" in phase_dock.queue.view.rows[0].detail
    phase_dock.form.optics["defocus_um"].set_value((-1.0, 0.0, 1.5))
    phase_dock.queue.view.start.click()
    worked_off(phase_dock)
    assert states(phase_dock) == {"cell.tif": State.DONE}
    assert viewer.layers["reconstruction of cell [rad]"].data.shape == (48, 40)


@pytest.mark.parametrize("names", [("below", "above"), ("z0", "z1")])
def test_after_a_dropped_pair_the_form_is_ready_but_for_what_no_file_says(
    viewer, write, planes, names, worked_off
):
    from napari_cvdm.widgets.reconstruct.reconstruct_widget import ReconstructWidget

    dock = ReconstructWidget(viewer)
    viewer.window.add_dock_widget(dock)
    paths = [
        write(f"cell_{name}.tif", plane, 0.2) for name, plane in zip(names, planes, strict=True)
    ]
    drop(dock, *paths)
    worked_off(dock)
    assert [layer.name for layer in viewer.layers] == [f"cell_{name}" for name in names]
    assert dock.form.image.value() is viewer.layers[0]
    assert dock.form.second.value() is viewer.layers[1]
    assert dock.form.two_planes
    assert dock.form.missing() == ("wavelength_um", "medium_index", "defocus_um")
    assert dock.panel.message.text() == (
        "Needed before a run: wavelength, medium index, plane positions."
    )
