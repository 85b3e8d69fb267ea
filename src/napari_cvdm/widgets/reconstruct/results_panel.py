"""Actions on a result: choose it, change how its spread is shown, continue it, repeat it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from napari.viewer import Viewer
from qtpy.QtCore import QPointF, Qt, Signal
from qtpy.QtGui import QColor, QEnterEvent, QPainter, QPixmap
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider
from superqt.utils import signals_blocked

from napari_cvdm.core.statistics import INTERVAL, STATISTICS
from napari_cvdm.widgets.common.choices import ResultChoice
from napari_cvdm.widgets.common.fields import (
    explain_control,
    fill_layout,
    in_words,
    label_field,
    make_button,
    word_choice,
    wrapped_label,
)
from napari_cvdm.widgets.common.preferences import preferred
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, RunPanel
from napari_cvdm.widgets.layers.contributions import placed_images, save_images, save_result
from napari_cvdm.widgets.layers.layer_data import plugin_metadata
from napari_cvdm.widgets.layers.result_layers import (
    AT_TIME,
    FIRST,
    RECONSTRUCTION,
    SCHEDULE,
    SPREAD,
    ResultGroup,
    choices_of,
    help_of,
    layers_of,
    show_spread_as,
)
from napari_cvdm.widgets.layers.shown_layers import (
    Turns,
    leave_grid,
    remove_layers,
    schedule_in_turn,
    show_only,
    show_schedule,
    show_stored,
)

# Of equal meaning for who cannot tell red from green: the word stands beside the colour.
COLOURS = {"green": "#3aa655", "amber": "#e0a526", "red": "#d2453c"}
WORDS = {"green": "Green", "amber": "Amber", "red": "Red"}
SHOW_SPREAD, SHOW_MEAN = "Show &uncertainty", "Show reconstr&uction"
SCHEDULE_HELP = (
    "Show the learned schedule: noise-rate map, gamma and beta at one time t.\n"
    "The slider below moves t."
)
MIDDLE_TIME = 0.5  # at the ends a map is all one colour
SAVE_FOLDER, SAVE_ZARR = "Result folder (*)", "OME-Zarr (*.ome.zarr)"
COMMAND_HELP = "Copy the napari-cvdm command that gives the same pixels."
NO_FILES = "Not possible here: the image of this result was not opened from a file."


class ResultsPanel(QWidget):
    """The results in a viewer, each a group of layers, and what can be done with the chosen one.

    The functions are called when the buttons of these names are pressed. `correct` takes plane
    positions [um] that a reason of the flag proposes.
    """

    changed = Signal()

    def __init__(
        self,
        viewer: Viewer,
        *,
        more: Callable[[], None],
        repeat: Callable[[], None],
        save: Callable[[], None],
        command: Callable[[], None],
        compare: Callable[[], None],
        correct: Callable[[tuple[float, ...]], None],
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self.group = ResultChoice(viewer)
        self.light = QualityFlagSign(correct=correct, compare=compare)
        self.statistic = word_choice(STATISTICS)
        self._scheduled: ResultGroup | None = None  # whose schedule is shown
        self.drawing = Turns(self)
        self.wanted = INTERVAL  # what the next result shows its spread as, where it can
        self.more = make_button(
            "Add sa&mples",
            "Draw more samples of this result; mean and spread go on from where they are.",
            more,
        )
        self.repeat = make_button(
            "Repe&at", "Put the settings of this result into the form above.", repeat
        )
        self.save = make_button(
            "Save…",
            "Save this result as a folder, as the command line writes it, or as OME-Zarr. Both "
            "open here again as the same result.",
            save,
        )
        self.command = make_button("Cop&y as command", COMMAND_HELP, command)
        self.remove = make_button("Rem&ove", "Remove all layers of this result.", self._on_remove)
        self.compare = make_button(
            "Compare metho&ds",
            "Run all other methods that fit on the same image with the same settings, and show\n"
            "them side by side with one contrast, each with its time and chi-squared. For the\n"
            "last result of this dock.",
            compare,
        )
        self.turn = make_button(
            SHOW_SPREAD,
            "Look at the reconstruction and at its uncertainty in turn, in the same place.",
            self._on_turn,
        )
        self.schedule = make_button("Schedule", SCHEDULE_HELP, self._on_schedule)
        self.schedule.setCheckable(True)
        self.layers = make_button("Other layers", "Show more of this result.", lambda: None)
        self._menu = QMenu(self.layers)
        self.layers.setMenu(self._menu)
        self.time = TimeSlider(self._show_schedule, self._on_stack)
        self.group.setToolTip("A result: all layers that came from one run.")
        self.statistic.setToolTip(help_of(None))
        fill_layout(
            QVBoxLayout(self),
            fill_layout(QHBoxLayout(), label_field("Result", self.group), (self.group, 1)),
            self.light,
            fill_layout(
                QHBoxLayout(),
                (self.turn, 1),
                label_field("as", self.statistic),
                (self.statistic, 1),
            ),
            fill_layout(QHBoxLayout(), (self.schedule, 1), (self.layers, 1)),
            self.time,
            fill_layout(QHBoxLayout(), self.more, self.compare),
            fill_layout(QHBoxLayout(), self.repeat, self.save, self.command, self.remove),
            margins=(4, 0, 4, 4),
        ).setSpacing(4)
        self._menu.aboutToShow.connect(self.list_layers)
        self.group.changed.connect(self._on_chosen)
        self.statistic.currentTextChanged.connect(self._on_statistic)
        self._on_chosen()

    def value(self) -> ResultGroup | None:
        """The chosen result; None without one."""
        group: ResultGroup | None = self.group.value()
        return group

    def choose(self, name: str) -> None:
        """Choose a result by its name; one that is not there changes nothing."""
        self.group.set_value(name)

    def _on_chosen(self) -> None:
        group = self.value()
        self.setVisible(group is not None)
        self.light.show_provenance({} if group is None else group.mark.get("provenance", {}))
        files = {} if group is None else group.mark.get("files", {})
        self.command.setEnabled(bool(files))
        explain_control(self.command, COMMAND_HELP if files else f"{COMMAND_HELP}\n{NO_FILES}")
        self.list_statistics()
        self._say_turn()
        has_schedule = group is not None and group.clock is not None
        self.schedule.setEnabled(has_schedule)
        self.time.setVisible(has_schedule and self.schedule.isChecked())
        if self._scheduled is not None and (group is None or group.name != self._scheduled.name):
            self._show_schedule()
        self.layers.setEnabled(group is not None and group.stored is not None)
        self.changed.emit()

    def show_new(self, name: str) -> None:
        """Choose a result that a run has just shown, with its schedule where that is wanted."""
        self.choose(name)
        group = self.value()
        if group is not None and group.clock is not None and preferred("show_schedule"):
            self.schedule.setChecked(True)
        self._on_chosen()
        self._show_schedule()

    def enterEvent(self, event: QEnterEvent) -> None:
        """What the Inspect dock has calibrated since is offered, too."""
        super().enterEvent(event)
        self.list_statistics()

    def list_statistics(self) -> None:
        """Offer what the spread of the chosen result can be shown as, and what it is now."""
        group = self.value()
        if group is None or group.spread is None:
            return
        with signals_blocked(self.statistic):  # else the layer would be drawn anew
            self.statistic.clear()
            self.statistic.addItems(choices_of(group))
            self.statistic.setCurrentText(group.statistic)
        self.statistic.setToolTip(help_of(group))

    def _on_statistic(self, wanted: str) -> None:
        """Show the chosen result's spread the other way."""
        group = self.value()
        if group is not None:
            self.wanted = wanted
            show_spread_as(group, wanted)

    def _on_turn(self) -> None:
        """Show the uncertainty, or the reconstruction again."""
        group = self.value()
        if group is not None:
            leave_grid(self._viewer)  # where both are seen beside each other
            mean = group.layers.get(RECONSTRUCTION)
            show_only(
                self._viewer, group, SPREAD if mean is not None and mean.visible else RECONSTRUCTION
            )
            self._say_turn()

    def _say_turn(self) -> None:
        group = self.value()
        mean = None if group is None else group.layers.get(RECONSTRUCTION)
        both = () if group is None else group.layers.keys() & {RECONSTRUCTION, SPREAD}
        self.turn.setEnabled(len(both) == 2)
        self.turn.setText(SHOW_SPREAD if mean is None or mean.visible else SHOW_MEAN)

    def _on_schedule(self, wanted: bool) -> None:
        """Show the learned schedule of the chosen result, or take it away."""
        group = self.value()
        self.time.setVisible(wanted)
        if group is not None and wanted:
            self._show_schedule()
        elif group is not None:
            self.drawing.start(iter(()))  # nothing, in place of maps that are still to come
            show_only(self._viewer, group, RECONSTRUCTION)
        self._say_turn()

    def _show_schedule(self) -> None:
        group = self.value()
        former, self._scheduled = self._scheduled, None
        # Its maps would cover the newly chosen result.
        if former is not None and (group is None or group.name != former.name):
            show_only(self._viewer, former, RECONSTRUCTION)
        if group is not None and self.schedule.isChecked():
            self._scheduled = group
            parts = schedule_in_turn(self._viewer, group, self.time.value())
            self.drawing.start(parts, self._say_turn)

    def _on_stack(self) -> None:
        """Show gamma and beta with an axis of times, for who wants that axis."""
        group = self.value()
        if group is not None:
            for role in AT_TIME:
                show_schedule(self._viewer, group, role)

    def list_layers(self) -> None:
        """Offer the layers of the chosen result that are not shown, before the menu opens."""
        group = self.value()
        if group is None:
            return
        self._menu.clear()
        for role in () if group.stored is None else group.stored.makers():
            if role in FIRST and role in group.layers:  # what each run shows anyway
                continue
            action = self._menu.addAction(role[:1].upper() + role[1:])
            action.setEnabled(role not in group.layers)
            action.triggered.connect(partial(self._show_role, group, role))

    def _show_role(self, group: ResultGroup, role: str, *_: object) -> None:
        # `triggered` also gives whether the action is checked.
        show_stored(self._viewer, group, role)

    def _on_remove(self) -> None:
        group = self.value()
        if group is not None:
            remove_layers(self._viewer, layers_of(self._viewer.layers, group.name))


class TimeSlider(QWidget):
    """The time t of the schedule that is shown.

    `moved` is called when t changes, `stack` when an axis of times is asked for.
    """

    def __init__(self, moved: Callable[[], None], stack: Callable[[], None]) -> None:
        super().__init__()
        self.slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0.0, 1.0)
        self.slider.setDecimals(2)
        self.slider.setValue(MIDDLE_TIME)
        # superqt's label is a field of its own, which would show no help.
        for part in (self.slider, *self.slider.findChildren(QLineEdit)):
            part.setToolTip("Time t of the schedule: 0 is the clean image, 1 is pure noise.")
        self.stack = make_button(
            "As a stack over t", "Add gamma and beta with an axis of times.", stack
        )
        fill_layout(QHBoxLayout(self), label_field("t", self.slider), (self.slider, 1), self.stack)
        self.slider.valueChanged.connect(lambda _: moved())
        self.hide()

    def value(self) -> float:
        """t from 0 to 1."""
        return float(self.slider.value())


class QualityFlagSign(QWidget):
    """The quality flag with its gravest reason, and buttons for what the reasons propose.

    The tooltip lists all reasons.
    """

    def __init__(
        self, *, correct: Callable[[tuple[float, ...]], None], compare: Callable[[], None]
    ) -> None:
        super().__init__()
        self._lamp, self._text = QLabel(), wrapped_label()
        self._lamp.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self._positions: tuple[float, ...] | None = None
        self._correct = correct
        self.swap = make_button(
            "Swap the positions",
            "Put the plane positions that fit the planes better into the form above.",
            self._on_swap,
        )
        self.classical = make_button(
            "Compare methods", "Show the answers of the other methods beside this one.", compare
        )
        row = fill_layout(QHBoxLayout(), self._lamp, (self._text, 1))
        row.setAlignment(self._lamp, Qt.AlignmentFlag.AlignTop)
        fill_layout(
            QVBoxLayout(self), row, self.swap, self.classical, margins=(4, 0, 4, 0)
        ).setSpacing(2)
        self.colour = ""
        self.hide()

    def show_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Show the quality flag of a result. A result of an older version shows none."""
        self.colour = str(provenance.get("quality_flag", ""))
        is_known = self.colour in COLOURS
        self.setVisible(is_known)
        reasons = [str(one) for one in provenance.get("quality_reasons", ())] if is_known else []
        if is_known:
            self._lamp.setPixmap(draw_lamp(COLOURS[self.colour], self.fontMetrics().height()))
            # A reason never begins with a name.
            shown = [in_words(reason[:1].upper() + reason[1:]) for reason in reasons]
            self._text.setText(f"{WORDS[self.colour]}: {(shown or [''])[0]}")
            self.setToolTip("\n".join(shown))
        # The checks find their advice in their own words, not in those of a window.
        self._positions, beaten = None, False
        if reasons:
            from napari_cvdm.checks.plane_warnings import corrected_positions
            from napari_cvdm.checks.run_checks import CLASSICAL

            given = provenance.get("settings", {}).get("defocus_um") or ()
            self._positions = corrected_positions(reasons, given) if given else None
            beaten = any(CLASSICAL in reason for reason in reasons)
        self.swap.setVisible(self._positions is not None)
        self.classical.setVisible(beaten)

    def _on_swap(self) -> None:
        if self._positions is not None:
            self._correct(self._positions)

    def text(self) -> str:
        """What stands beside the lamp."""
        return self._text.text()


def draw_lamp(colour: str, side: int) -> QPixmap:
    """A filled circle."""
    pixmap = QPixmap(side, side)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(QColor(colour))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.drawEllipse(QPointF(side / 2, side / 2), side / 2 - 1, side / 2 - 1)
    painter.end()
    return pixmap


def start_saving(viewer: Viewer, panel: RunPanel, group: ResultGroup) -> None:
    """Ask for a place, and save a result there: as a result folder, or its layers as OME-Zarr."""
    stored = group.stored
    kinds = (SAVE_ZARR,) if stored is None else (SAVE_FOLDER, SAVE_ZARR)
    wanted = re.sub(r"[^\w.-]+", "-", group.name)  # not every character may be in a file's name
    path, kind = QFileDialog.getSaveFileName(panel, "Save result", wanted, ";;".join(kinds))
    if not path:
        return
    as_zarr = kind == SAVE_ZARR or path.lower().endswith(".zarr")
    if as_zarr and not path.lower().endswith(".zarr"):
        path += ".ome.zarr"
        if Path(path).exists():  # the dialog asked about the name without its ending
            panel.message.say(ERROR, f"{path} is there already. Choose another name.")
            return
    try:
        if as_zarr or stored is None:
            # Maps of the schedule follow from the rate map, and those over time are large.
            saved = [
                layer.as_layer_data_tuple()
                for layer in layers_of(viewer.layers, group.name)
                if plugin_metadata(layer).get("role") not in (*SCHEDULE, *AT_TIME.values())
            ]
            work = save_images(path, *placed_images(saved))
        else:
            # It may have been calibrated since.
            model = group.mark["provenance"]["model"]
            known = replace(stored.reconstruction.provenance, model=model)
            result = replace(stored.reconstruction, provenance=known)
            work = save_result(path, replace(stored, reconstruction=result))
    except ValueError as error:
        panel.message.say(ERROR, str(error))
        return

    panel.start(
        work,
        title=f"Saving {group.name}",
        total=1,
        on_result=lambda saved: panel.message.say(INFORMATION, f"Saved: {saved}"),
        cancelled="nothing was saved",
    )
