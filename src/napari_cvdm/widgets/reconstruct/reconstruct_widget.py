"""The Reconstruct dock: a form, a run panel, results, and layers while the work is done."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QLabel, QVBoxLayout, QWidget
from tqdm import tqdm

from napari_cvdm.core.request import OPTICS, ReconstructionRequest, RequestError
from napari_cvdm.core.result import Progress, Reconstruction
from napari_cvdm.widgets.common.fields import (
    fill_layout,
    make_button,
    scrolled,
    wrapped_label,
)
from napari_cvdm.widgets.common.reconstruct_form import ReconstructForm
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, WARNING, RunPanel
from napari_cvdm.widgets.common.worker import Job
from napari_cvdm.widgets.layers.frames import Region, drawn, frame_index, on_screen
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, LayerData, look_of
from napari_cvdm.widgets.layers.placement import Placement, axis_letters, placed_image
from napari_cvdm.widgets.layers.reconstruction import Run, engine_problem, preview_of, steps_of
from napari_cvdm.widgets.layers.result_layers import (
    RECONSTRUCTION,
    group_name,
    groups_of,
    preview_layer_data,
    to_layer_data,
)
from napari_cvdm.widgets.layers.shown_layers import RunningLayers, show_layers, show_result
from napari_cvdm.widgets.reconstruct.block_runs import BlockForm, LargeImageRun, start_job
from napari_cvdm.widgets.reconstruct.file_queue import FileQueue
from napari_cvdm.widgets.reconstruct.results_panel import ResultsPanel

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from napari.viewer import Viewer

    from napari_cvdm.reconstruction.cost import Estimate

REST_MS = 700
GIGABYTE = 1e9
LONG_S = 100


class ReconstructWidget(QWidget):
    """Plugins > CVDM reconstruction > Reconstruct."""

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.last: tuple[Run, Reconstruction] | None = None
        problem = engine_problem()
        if problem:
            fill_layout(QVBoxLayout(self), wrapped_label(problem))
            return
        self.form, self.blocks = ReconstructForm(napari_viewer), BlockForm()
        self.form.more.addWidget(self.blocks)
        self.cost = CostLine(self._request_to_measure)
        self.panel = RunPanel("&Reconstruct")
        self.preview = make_button(
            "Pr&eview",
            "Look at what is on the screen, or at the rectangle drawn in the selected Shapes "
            "layer, in seconds:\n"
            "one evaluation of the network, the regression mean without a spread.",
            self.start_preview,
        )
        self.panel.buttons.insertWidget(0, self.preview, 1)
        self.queue = FileQueue(napari_viewer, self.form, self.panel)
        self.results = ResultsPanel(
            napari_viewer,
            more=self.add_samples,
            repeat=self.repeat,
            command=self.copy_command,
            compare=self.compare,
        )
        form = scrolled(self.form)
        fill_layout(
            QVBoxLayout(self), (form, 1), self.cost, self.panel, self.queue.view, self.results
        )
        # Qt gives a drop to the innermost widget that accepts drops. A text field would insert the
        # path of a file as text.
        for inside in self.findChildren(QWidget):
            inside.setAcceptDrops(False)
        self.setAcceptDrops(True)
        self.form.changed.connect(self._on_changed)
        self.blocks.changed.connect(self._on_changed)
        self.form.model.refused.connect(partial(self.panel.message.say, ERROR))
        self.panel.asked.connect(self.start)
        self.panel.started.connect(self._on_started)
        self.panel.idle.connect(self._on_idle)
        self.queue.run_asked.connect(self._begin_queued)
        self.results.changed.connect(self._offer_more)
        self._on_changed()

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Take files and folders; leave everything else to others."""
        accept_files(event)

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Queue the files that were dropped."""
        paths = accept_files(event)
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
        # The estimate is of one process that holds the whole image.
        if self.panel.busy or self.form.missing() or not self.blocks.in_memory:
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
            job = LargeImageRun(run=run, how=how, settings=self.form.settings())
            start_job(self._viewer, self.panel, job)

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
        if task is None:
            return None
        return Run(request=request, place=place, unit=task.unit, upsampling=task.upsampling)

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
        live = RunningLayers(self._viewer, run, self.results.wanted)

        def show(reconstruction: Reconstruction) -> None:
            self._on_result(run, reconstruction)
            if on_result is not None:
                on_result(reconstruction)

        self.panel.start(
            run.work(),
            title=f"Reconstructing {run.place.name}",
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
            to_layer_data(reconstruction, run.place, self.results.wanted),
        )
        self.results.show_new(group_name(reconstruction, run.place))
        provenance = reconstruction.provenance
        self.panel.message.report(
            f"Done in {provenance.timings_s['total']:.1f} s; values in {reconstruction.unit}.",
            provenance.warnings,
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
        for button in (self.results.more, self.results.compare):
            button.setEnabled(there and not self.panel.busy)
        self.results.more.setText(f"Add {self.form.counts['samples'].value()} sa&mples")

    def start_preview(self) -> None:
        """Reconstruct the field of view or a drawn rectangle with one network evaluation."""
        run, layer = self._run_of_form(), self.form.image.value()
        if run is None or layer is None or self.panel.busy:
            return
        try:
            indices = frame_index(self._viewer, layer)
            position = dict(zip(axis_letters(layer), indices, strict=False))
            request = preview_of(run.request, position, self._field_of_view(layer))
            run = replace(run, request=request, place=run.place.beginning(position))
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
        self.panel.start(
            other.work(),
            title=f"{other.request.model} of {run.place.name}",
            total=0,
            on_result=partial(self._on_compared, run, group_name(reconstruction, run.place)),
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
            provenance = group.mark["provenance"]
            image = str(next(iter(provenance["inputs"])))
            lost = self.form.set_settings(provenance["settings"], image)
        except (ValueError, KeyError) as error:
            self.panel.message.say(
                ERROR, f"The settings of {group.name} cannot be repeated: {error}"
            )
            return
        shown = f"The form has the settings of {group.name} now"
        if lost:
            self.panel.message.say(
                WARNING, f"{shown}, but for {' and '.join(lost)}: a run would give other pixels."
            )
        else:
            self.panel.message.say(
                INFORMATION, f"{shown}; the same image and these settings give the same pixels."
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


def accept_files(event: QDropEvent | None) -> list[str]:
    """Paths of the local files and folders in a drag or a drop, which is accepted then.

    Other handlers get text, layers of napari's list and web addresses. Files are always copied,
    never moved, because a file manager deletes a file that was moved.
    """
    data = None if event is None else event.mimeData()
    if event is None or data is None:
        return []
    paths = [url.toLocalFile() for url in data.urls() if url.isLocalFile()]
    if paths:
        event.setDropAction(Qt.DropAction.CopyAction)
        event.accept()
    else:
        event.ignore()
    return paths


def measure_cost(request: ReconstructionRequest) -> "Generator[Progress, None, Estimate]":
    """The estimate for a request; for the worker's thread."""
    from napari_cvdm.models.registry import load_model
    from napari_cvdm.reconstruction.cost import estimate

    yield Progress(stage="loading the model", done=0, total=0)
    return (yield from estimate(request, load_model(request.model)))


class CostLine(QLabel):
    """Says what a run would cost, measured on one tile when the settings have come to rest.

    `request` gives None when there is nothing to run, or when something runs already.
    """

    def __init__(self, request: Callable[[], ReconstructionRequest | None]) -> None:
        super().__init__()
        self.setToolTip(
            "Time and memory of the full run with these settings, measured on one tile of this "
            "image on this device."
        )
        self.setWordWrap(True)
        self._request = request
        self._job: Job | None = None
        self._measuring = self._again = False
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._measure)

    @property
    def waiting(self) -> bool:
        """Whether a measurement is to come, or under way."""
        return self._rest.isActive() or self._measuring

    def refresh(self) -> None:
        """Measure again, once the settings have come to rest."""
        self.clear()
        self._rest.start()

    def _measure(self) -> None:
        if self._measuring:  # the one under way is of older settings
            self._again = True
            return
        request = self._request()
        if request is None:
            return
        self._job = job = Job(measure_cost(request), title="", total=0, owner=self)
        job.succeeded.connect(self._on_succeeded)
        job.ended.connect(self._on_ended)
        self._measuring = True
        job.start()

    def _on_succeeded(self, found: "Estimate") -> None:
        if self._again or self._rest.isActive():
            return
        size = (
            f"{found.memory_bytes / GIGABYTE:.1f} GB"
            if found.memory_bytes >= GIGABYTE / 2
            else f"{found.memory_bytes / 1e6:.0f} MB"
        )
        seconds = max(1, round(found.seconds))
        time = f"{seconds} s" if seconds < LONG_S else tqdm.format_interval(seconds)
        tiles = f" in {found.tiles} tiles" if found.tiles > 1 else ""
        self.setText(f"about {time} and {size}{tiles}")

    def _on_ended(self) -> None:
        self._measuring = False
        if self._again:
            self._again = False
            self.refresh()


def classical_run(run: Run, task: str, typed: Mapping[str, Any]) -> Run:
    """The run of the classical method that fits a task, on the same image with the same settings.

    Optics that the model did without are taken from the settings that were `typed`.

    Raises
    ------
    RequestError
        There is no classical method for the task.
    """
    from napari_cvdm.baselines import FITTING

    if task not in FITTING:
        raise RequestError(
            f"no classical method is known for the task {task}; there are some for "
            f"{', '.join(FITTING)}."
        )
    lacking: dict[str, Any] = {
        name: typed.get(name) for name in OPTICS if run.request.known_optics(name) is None
    }
    request = replace(
        run.request,
        model=FITTING[task],
        samples=1,
        keep_samples=False,
        schedule_points=0,
        **lacking,
    )
    return replace(run, request=request, earlier=None)


def classical_layer_data(
    reconstruction: Reconstruction, source: Placement, beside: "Layer | None"
) -> LayerData:
    """One layer for the answer of a classical method; it belongs to no group of results.

    `beside`, which it is compared with, gives contrast limits and colour map.
    """
    source, unit = source.within(reconstruction.region), reconstruction.unit
    values, place = placed_image(
        source, reconstruction.axes, reconstruction.upsampling, reconstruction.mean
    )
    look = look_of(reconstruction.mean, unit)
    if beside is not None:
        look = {name: getattr(beside, name) for name in look}
    method = reconstruction.provenance.model["name"]
    metadata = {
        "role": f"classical {method}",
        "source": source.name,
        "unit": unit,
        "provenance": asdict(reconstruction.provenance),
    }
    keywords = {
        "name": f"{method} (classical) of {source.name}",
        "metadata": {METADATA_KEY: metadata},
        **place.keywords(),
        **look,
    }
    return values, keywords, "image"
