"""The Reconstruct dock: a form, a run panel, results, and layers while the work is done."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QPushButton, QVBoxLayout, QWidget

from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.widgets.common.fields import explain_control, scrolled, wrapped_label
from napari_cvdm.widgets.common.reconstruct_form import ReconstructForm
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, WARNING, RunPanel
from napari_cvdm.widgets.layers.frames import Region, drawn, frame_index, on_screen
from napari_cvdm.widgets.layers.placement import axis_letters
from napari_cvdm.widgets.layers.reconstruction import Run, engine_problem, preview_of, steps_of
from napari_cvdm.widgets.layers.result_layers import (
    RECONSTRUCTION,
    group_name,
    groups_of,
    preview_layer_data,
    to_layer_data,
)
from napari_cvdm.widgets.layers.shown_layers import RunningLayers, show_layers, show_result
from napari_cvdm.widgets.reconstruct.block_form import BlockForm
from napari_cvdm.widgets.reconstruct.block_job import BlockJob, BlockRuns
from napari_cvdm.widgets.reconstruct.classical import classical_layer_data, classical_run
from napari_cvdm.widgets.reconstruct.cost_line import CostLine
from napari_cvdm.widgets.reconstruct.drops import accepted_files, take_drops
from napari_cvdm.widgets.reconstruct.file_queue import FileQueue
from napari_cvdm.widgets.reconstruct.results_panel import ResultsPanel

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer


class ReconstructWidget(QWidget):
    """Plugins > CVDM reconstruction > Reconstruct.

    Parameters
    ----------
    napari_viewer : Viewer
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.last: tuple[Run, Reconstruction] | None = None
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        problem = engine_problem()
        if problem:
            layout.addWidget(wrapped_label(problem))
            return
        self.form = ReconstructForm(napari_viewer)
        self.blocks = BlockForm()
        self.form.more.addWidget(self.blocks)
        self.cost = CostLine(self._request_to_measure)
        self.panel = RunPanel("&Reconstruct")
        self.preview = QPushButton("Pr&eview")
        self._block_runs = BlockRuns(napari_viewer, self.panel)
        self.queue = FileQueue(napari_viewer, self.form, self.panel)
        self.results = ResultsPanel(napari_viewer)
        self.panel.buttons.insertWidget(0, self.preview, 1)
        for widget, stretch in (
            (scrolled(self.form), 1),
            (self.cost, 0),
            (self.panel, 0),
            (self.queue.view, 0),
            (self.results, 0),
        ):
            layout.addWidget(widget, stretch)
        take_drops(self)
        self._connect()
        self._on_changed()

    def _connect(self) -> None:
        explain_control(
            self.preview,
            "Look at what is on the screen, or at the rectangle drawn in the selected Shapes "
            "layer, in seconds:\n"
            "one evaluation of the network, the regression mean without a spread.",
        )
        self.form.changed.connect(self._on_changed)
        self.blocks.changed.connect(self._on_changed)
        self.form.model.refused.connect(partial(self.panel.message.say, ERROR))
        self.panel.asked.connect(self.start)
        self.panel.started.connect(self._on_started)
        self.panel.idle.connect(self._on_idle)
        self.queue.run_asked.connect(self._begin_queued)
        self.preview.clicked.connect(self.start_preview)
        self.results.changed.connect(self._offer_more)
        self.results.more_asked.connect(self.add_samples)
        self.results.repeat_asked.connect(self.repeat)
        self.results.command_asked.connect(self.copy_command)
        self.results.compare_asked.connect(self.compare)

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Take files and folders; leave everything else to others."""
        accepted_files(event)

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Queue the files that were dropped."""
        paths = accepted_files(event)
        if paths:
            self.queue.add(paths)

    def _on_changed(self) -> None:
        """Say what is missing, wrong or outside the trained range before anything runs."""
        missing = self.form.missing()
        self.panel.set_ready(not missing)
        self._offer_more()
        if self.panel.busy:
            return
        self.preview.setEnabled(not missing)
        self.cost.refresh()
        try:
            warnings = self.form.warnings()
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return
        if missing:
            self.panel.message.say(INFORMATION, f"Needed before a run: {', '.join(missing)}.")
        elif warnings:
            self.panel.message.say(WARNING, " ".join(warnings))
        else:
            self.panel.message.clear()

    def _request_to_measure(self) -> ReconstructionRequest | None:
        if (
            self.panel.busy or self.form.missing() or not self.blocks.in_memory
        ):  # the estimate is of one process that holds the whole image
            return None
        try:
            return self.form.value()
        except ValueError:  # said in the message line already
            return None

    def start(self) -> None:
        """Reconstruct with the settings of the form as they are now."""
        run = self._run_of_form()
        if run is None:
            return
        try:
            card = self.form.model.card()
            how = self.blocks.value(
                run.place.name, run.place.files, run.request.model if card is None else card.name
            )
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return
        if how is None:
            self._begin(run)
        elif not self.panel.busy:
            self._block_runs.start(BlockJob(run=run, how=how, settings=self.form.settings()))

    def add_samples(self) -> None:
        """Draw as many samples more of the last result as the form says."""
        if self.last is not None:
            run, reconstruction = self.last
            self._begin(run.going_on(reconstruction, self.form.counts["samples"].value()))

    def _run_of_form(self) -> Run | None:
        """None, and the reason in the message line, where the form does not make a request."""
        task = self.form.task
        try:
            request, place = self.form.value(), self.form.placement()
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return None
        return (
            None
            if task is None
            else Run(request=request, place=place, unit=task.unit, upsampling=task.upsampling)
        )

    def _begin_queued(self, run: Run) -> None:
        self._begin(
            run,
            on_result=self.queue.on_result,
            on_failure=self.queue.on_failure,
            on_end=self.queue.on_end,
        )

    def _begin(
        self,
        run: Run,
        *,
        on_result: Callable[[Reconstruction], None] | None = None,
        on_failure: Callable[[str], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """Reconstruct, with layers that show the result in the making."""
        if self.panel.busy:
            return
        live = RunningLayers(self._viewer, run, self.results.statistic.currentText())

        def show(reconstruction: Reconstruction) -> None:
            self._on_result(run, reconstruction)
            if on_result is not None:
                on_result(reconstruction)

        title = f"Reconstructing {run.place.name}"
        self.panel.start(
            run.work(),
            title=title,
            total=steps_of(run.request),
            on_result=show,
            on_view=live.show,
            on_leave=live.remove,
            on_failure=on_failure,
            on_end=on_end,
        )

    def _on_started(self) -> None:
        self.preview.setEnabled(False)
        self.cost.clear()
        self._offer_more()

    def _on_result(self, run: Run, reconstruction: Reconstruction) -> None:
        self.last = run, reconstruction
        show_result(
            self._viewer,
            to_layer_data(reconstruction, run.place, self.results.statistic.currentText()),
        )
        self.results.choose(group_name(reconstruction, run.place))
        warnings = reconstruction.provenance.warnings
        seconds = reconstruction.provenance.timings_s["total"]
        self.panel.message.say(
            WARNING if warnings else INFORMATION,
            " ".join([f"Done in {seconds:.1f} s; values in {reconstruction.unit}.", *warnings]),
        )

    def _on_idle(self) -> None:
        if self.panel.busy:  # with the queue
            return
        self.preview.setEnabled(not self.form.missing())
        self.cost.refresh()
        self._offer_more()

    def _offer_more(self) -> None:
        """Offer more samples and a comparison while the last result is there and chosen."""
        group = self.results.value()
        there = (
            self.last is not None
            and group is not None
            and group_name(self.last[1], self.last[0].place) == group.name
        )
        self.results.more.setEnabled(there and not self.panel.busy)
        self.results.compare.setEnabled(there and not self.panel.busy)
        self.results.more.setText(f"Add {self.form.counts['samples'].value()} sa&mples")

    def start_preview(self) -> None:
        """Reconstruct the field of view or a drawn rectangle with one network evaluation."""
        run, layer = self._run_of_form(), self.form.image.value()
        if run is None or layer is None or self.panel.busy:
            return
        try:
            position = dict(
                zip(axis_letters(layer), frame_index(self._viewer, layer), strict=False)
            )
            run = replace(
                run,
                request=preview_of(run.request, position, self._field_of_view(layer)),
                place=run.place.beginning(position),
            )
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return
        self.panel.start(
            run.work(),
            title=f"Preview of {run.place.name}",
            total=steps_of(run.request),
            on_result=partial(self._on_preview, run),
        )

    def _field_of_view(self, layer: "Image") -> Region:
        from napari.layers import Shapes

        active = self._viewer.layers.selection.active
        return drawn(active, layer) if isinstance(active, Shapes) else on_screen(layer)

    def _on_preview(self, run: Run, reconstruction: Reconstruction) -> None:
        show_layers(self._viewer, [preview_layer_data(reconstruction, run.place)])
        seconds = reconstruction.provenance.timings_s["total"]
        self.panel.message.say(
            INFORMATION,
            f"Preview in {seconds:.1f} s: the regression mean alone, without samples. Reconstruct "
            "draws the posterior.",
        )

    def compare(self) -> None:
        """Run the classical method for the last result's task on the same image.

        The classical result is shown beside the last result.
        """
        if self.last is None or self.panel.busy:
            return
        run, reconstruction = self.last
        try:
            other = classical_run(
                run, str(reconstruction.provenance.model["task"]), self.form.settings()
            )
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return
        shown = partial(self._on_compared, run, group_name(reconstruction, run.place))
        self.panel.start(
            other.work(),
            title=f"{other.request.model} of {run.place.name}",
            total=0,
            on_result=shown,
        )

    def _on_compared(self, run: Run, group: str, answer: Reconstruction) -> None:
        results = [found for found in groups_of(self._viewer.layers) if found.name == group]
        beside = results[0].layers.get(RECONSTRUCTION) if results else None
        show_layers(self._viewer, [classical_layer_data(answer, run.place, beside)])
        seconds, name = answer.provenance.timings_s["total"], answer.provenance.model["name"]
        kind = (
            "its spread is not shown"
            if answer.variance.any()
            else "a single answer, without a spread"
        )
        self.panel.message.say(
            INFORMATION,
            f"{name} in {seconds:.1f} s, with the settings and the contrast of the result; {kind}.",
        )

    def repeat(self) -> None:
        """Put the settings of the chosen result into the form."""
        group = self.results.value()
        if group is None:
            return
        try:
            lost = self.form.set_settings(
                group.mark["provenance"]["settings"],
                str(next(iter(group.mark["provenance"]["inputs"]))),
            )
        except (ValueError, KeyError) as error:
            self.panel.message.say(
                ERROR, f"The settings of {group.name} cannot be repeated: {error}"
            )
            return
        if lost:
            self.panel.message.say(
                WARNING,
                f"The form has the settings of {group.name} now, but for {' and '.join(lost)}: a "
                "run would give other pixels.",
            )
        else:
            self.panel.message.say(
                INFORMATION,
                f"The form has the settings of {group.name} now; the same image and these "
                "settings give the same pixels.",
            )

    def copy_command(self) -> None:
        """Copy the command line that gives the chosen result again."""
        group = self.results.value()
        if group is not None and not self.panel.busy:
            from napari_cvdm.reconstruction.command import command_of

            work = command_of(group.mark["provenance"], group.mark.get("files", {}))
            self.panel.start(work, title="", total=1, on_result=self._on_command)

    def _on_command(self, command: str) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(command)
        self.panel.message.say(INFORMATION, f"Copied: {command}")
