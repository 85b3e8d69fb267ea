"""The Reconstruct dock: a form, a run panel, results, and layers while the work is done."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Layer, Shapes
from napari.viewer import Viewer
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QLabel, QVBoxLayout, QWidget
from tqdm import tqdm

from napari_cvdm.core.request import OPTICS, ReconstructionRequest
from napari_cvdm.core.result import Progress, Reconstruction
from napari_cvdm.widgets.common.fields import (
    Dock,
    fill_layout,
    make_button,
    scrolled,
    wrapped_label,
)
from napari_cvdm.widgets.common.preferences import own_models
from napari_cvdm.widgets.common.reconstruct_form import ReconstructForm
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, WARNING, RunPanel
from napari_cvdm.widgets.common.worker import Job, listen
from napari_cvdm.widgets.layers.frames import (
    Region,
    check_plane_view,
    drawn,
    drawn_each,
    frame_index,
    on_screen,
)
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, LayerData, layer_name, look_of
from napari_cvdm.widgets.layers.placement import Placement, axis_letters, placed_image
from napari_cvdm.widgets.layers.reconstruction import Run, engine_problem, preview_of, steps_of
from napari_cvdm.widgets.layers.result_layers import (
    OTHER_ANSWER,
    RECONSTRUCTION,
    group_name,
    groups_of,
    preview_layer_data,
    to_layer_data,
)
from napari_cvdm.widgets.layers.shown_layers import (
    RunningLayers,
    leave_grid,
    show_in_grid,
    show_in_turn,
    show_result_in_turn,
)
from napari_cvdm.widgets.reconstruct.block_runs import BlockForm, LargeImageRun, start_job
from napari_cvdm.widgets.reconstruct.file_queue import FileQueue
from napari_cvdm.widgets.reconstruct.results_panel import ResultsPanel, start_saving

if TYPE_CHECKING:
    from napari_cvdm.reconstruction.cost import Estimate
    from napari_cvdm.reconstruction.reconstruct import Comparison

REST_MS = 700  # without a change, before a measurement begins
GIGABYTE = 1e9
LONG_S = 100  # longer times are said in minutes


class ReconstructWidget(Dock):
    """Plugins > CVDM reconstruction > Reconstruct."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.last: tuple[Run, Reconstruction] | None = None
        if problem := engine_problem():
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
        self.rectangles = make_button(
            "Reconstruct the rectan&gles",
            "Reconstruct each shape of the selected Shapes layer, or those that are selected in it,"
            "\none after the other: what lies around a rectangle is taken into account.",
            self.start_rectangles,
        )
        self.queue = FileQueue(napari_viewer, self.form, self.panel)
        self.results = ResultsPanel(
            napari_viewer,
            more=self.add_samples,
            repeat=self.repeat,
            save=self.save_result,
            command=self.copy_command,
            compare=self.compare,
            correct=self.correct_positions,
        )
        form = scrolled(self.form)
        fill_layout(
            QVBoxLayout(self),
            (form, 1),
            self.cost,
            self.rectangles,
            self.panel,
            self.queue.view,
            self.results,
        )
        listen(self, napari_viewer.layers.selection.events.active, self._offer_rectangles)
        self._offer_rectangles()
        # Qt gives a drop to the innermost widget that accepts drops. A text field would insert the
        # path of a file as text.
        for inside in self.findChildren(QWidget):
            inside.setAcceptDrops(False)
        self.setAcceptDrops(True)
        self.form.changed.connect(self._on_changed)
        self.blocks.changed.connect(self._on_changed)
        for refused in (self.form.model.refused, self.form.presets.refused):
            refused.connect(partial(self.panel.message.say, ERROR))
        self.panel.asked.connect(self.start)
        self.panel.started.connect(self._on_started)
        self.panel.idle.connect(self._on_idle)
        self.queue.run_asked.connect(self._begin_queued)
        self.queue.opened.connect(self._on_changed)
        self.results.changed.connect(self._offer_more)
        self._on_changed()

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Take files and folders; leave everything else to others."""
        accept_files(event)

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Open the file that was dropped, or list several; nothing starts by itself."""
        paths = accept_files(event)
        if paths:
            self.queue.add(paths)

    def _on_changed(self) -> None:
        """Say what is missing, wrong or outside the trained range before anything runs."""
        missing = self.form.missing()
        self.panel.set_ready(not missing)
        self._offer_more()
        if self.panel.busy:  # the message line belongs to the run
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
            model = run.request.model if card is None else card.name
            how = self.blocks.value(run.place.name, run.place.files, model)
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return
        if how is None:  # in memory
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

        # The queue is told when every layer is there, because it goes on at once.
        def show(reconstruction: Reconstruction) -> Iterator[None]:
            yield from self._on_result(run, reconstruction, live.hand_over())
            if on_result is not None:
                on_result(reconstruction)

        self.panel.start(
            run.work(),
            title=f"Reconstructing {run.place.name}",
            total=steps_of(run.request),
            on_result=show,
            on_view=live.show,
            on_leave=live.remove,  # also where the dock went during the run
            on_failure=on_failure,
            on_end=on_end,
        )

    def _on_started(self) -> None:
        self.preview.setEnabled(False)
        self.cost.clear()
        self._offer_more()

    def _on_result(
        self, run: Run, reconstruction: Reconstruction, unfinished: Mapping[str, Layer]
    ) -> Iterator[None]:
        self.last = run, reconstruction
        leave_grid(self._viewer)  # answers of an earlier comparison would cover the result
        layers = to_layer_data(reconstruction, run.place, self.results.wanted)
        yield from show_result_in_turn(self._viewer, layers, unfinished)
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
        for button in (self.results.more, self.results.compare, self.results.light.classical):
            button.setEnabled(there and not self.panel.busy)
        count = self.form.counts["samples"].value()
        self.results.more.setText("Add 1 sa&mple" if count == 1 else f"Add {count} sa&mples")

    def _offer_rectangles(self) -> None:
        """Only while a Shapes layer is selected."""
        self.rectangles.setVisible(isinstance(self._viewer.layers.selection.active, Shapes))

    def start_rectangles(self) -> None:
        """Reconstruct the drawn rectangles, one after the other, each as a result of its own."""
        run, layer = self._run_of_form(), self.form.image.value()
        shapes = self._viewer.layers.selection.active
        if run is None or layer is None or shapes is None or self.panel.busy:
            return
        try:
            regions = drawn_each(shapes, layer)
        except ValueError as error:
            self.panel.message.say(ERROR, str(error))
            return
        requests = [replace(run.request, region=region) for region in regions.values()]
        self._begin_each([replace(run, request=request) for request in requests])

    def _begin_each(self, runs: Sequence[Run]) -> None:
        """Begin the first, and the others when it has given its result."""
        done: list[Reconstruction] = []  # stays empty after a failure or a cancel, which end all

        def go_on() -> None:
            if done and runs[1:]:
                self._begin_each(runs[1:])

        self._begin(runs[0], on_result=done.append, on_end=go_on)

    def start_preview(self) -> None:
        """Reconstruct the field of view or a drawn rectangle with one network evaluation."""
        run, layer = self._run_of_form(), self.form.image.value()
        if run is None or layer is None or self.panel.busy:
            return
        try:
            indices = frame_index(self._viewer, layer)
            # Y and X, and colours, have no slider.
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

    def _field_of_view(self, layer: Image) -> Region:
        check_plane_view(self._viewer, layer)
        active = self._viewer.layers.selection.active
        return drawn(active, layer) if isinstance(active, Shapes) else on_screen(layer)

    def _on_preview(self, run: Run, reconstruction: Reconstruction) -> Iterator[None]:
        yield from show_in_turn(self._viewer, [preview_layer_data(reconstruction, run.place)])
        seconds = reconstruction.provenance.timings_s["total"]
        self.panel.message.say(
            INFORMATION,
            f"Preview in {seconds:.1f} s: the regression mean alone, without samples. Reconstruct "
            "draws the posterior.",
        )

    def compare(self) -> None:
        """Run all other methods for the last result's task on the same image.

        Their answers and the result are shown side by side in napari's grid.
        """
        if self.last is None or self.panel.busy:
            return
        run, reconstruction = self.last
        task = str(reconstruction.provenance.model["task"])
        names = methods_beside(run.request.model, task)
        if not names:
            self.panel.message.say(
                INFORMATION, f"No other method is known for the task {task}; install a model of it."
            )
            return
        self.panel.start(
            compared_by(run, names, self.form.settings()),
            title=f"Comparing methods on {run.place.name}",
            total=0,
            on_result=partial(self._on_compared, run, reconstruction),
        )

    def _on_compared(self, run: Run, shown: Reconstruction, found: "Comparison") -> Iterator[None]:
        groups = {one.name: one.layers for one in groups_of(self._viewer.layers)}
        beside = groups.get(group_name(shown, run.place), {}).get(RECONSTRUCTION)
        layers = [classical_layer_data(answer, run.place, beside) for answer in found.answers]
        yield from show_in_turn(self._viewer, layers)
        show_in_grid(self._viewer, run.place.name, beside)
        lines = [
            f"{answer.provenance.model['name']} {scores_of(answer)}"
            for answer in (shown, *found.answers)
        ]
        refused = [f"{name} was left out: {reason}" for name, reason in found.refused.items()]
        self.panel.message.report(
            f"Side by side with one contrast: {'; '.join(lines)}. Chi-squared near 1 leaves noise "
            "alone.",
            refused,
        )

    def repeat(self) -> None:
        """Put the settings of the chosen result into the form."""
        group = self.results.value()
        if group is None:
            return
        try:
            provenance = group.mark["provenance"]
            image = str(next(iter(provenance["inputs"])))  # the measured image is the first
            lost = self.form.set_settings(provenance["settings"], image)
        except (ValueError, KeyError) as error:
            self.panel.message.say(
                ERROR, f"The settings of {group.name} cannot be repeated: {error}"
            )
            return
        rest = f", but for {' and '.join(lost)}: a run would give other pixels."
        same = "; the same image and these settings give the same pixels."
        self.panel.message.say(
            WARNING if lost else INFORMATION,
            f"The form has the settings of {group.name} now{rest if lost else same}",
        )

    def save_result(self) -> None:
        """Ask for a place, and save the chosen result there."""
        group = self.results.value()
        if group is not None and not self.panel.busy:
            start_saving(self._viewer, self.panel, group)

    def correct_positions(self, positions: tuple[float, ...]) -> None:
        """Put other plane positions into the form; the user runs it again."""
        self.form.positions.set_value(positions)
        listed = " and ".join(f"{position:g}" for position in positions)
        self.panel.message.say(
            INFORMATION, f"The plane positions are {listed} µm now. Reconstruct again to compare."
        )

    def copy_command(self) -> None:
        """Copy the command line that gives the chosen result again."""
        group = self.results.value()
        if group is not None and not self.panel.busy:
            from napari_cvdm.reconstruction.command import command_of

            # A job, because the files are read to see that they still hold these pixels.
            work = command_of(group.mark["provenance"], group.mark.get("files", {}))
            self.panel.start(work, title="", total=1, on_result=self._on_command)

    def _on_command(self, command: str) -> None:
        QApplication.clipboard().setText(command)
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
        if self._again or self._rest.isActive():  # it is of older settings
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


def methods_beside(model: str, task: str) -> list[str]:
    """Other methods for a task: classical ones, shipped models, and the user's own."""
    from napari_cvdm.baselines import BASELINES
    from napari_cvdm.models.registry import models_in, shipped_models

    classical = [name for name, method in BASELINES.items() if method.task == task]
    cards = (*shipped_models(), *models_in(own_models()))
    learned = [str(name) for name, card in cards if card.task == task]
    return [name for name in (*classical, *learned) if name != model]


def compared_by(
    run: Run, names: Sequence[str], typed: Mapping[str, Any]
) -> "Generator[Progress, Any, Comparison]":
    """The answers of other methods to a run; for the worker's thread.

    Optics that the model did without are taken from the settings that were `typed`.
    """
    from napari_cvdm.reconstruction.reconstruct import compare_methods

    yield Progress(stage="loading the methods", done=0, total=0)
    # Settings may have been typed since: those that the run knew are not touched.
    lacking: dict[str, Any] = {
        name: typed.get(name) for name in OPTICS if run.request.known_optics(name) is None
    }
    return (yield from compare_methods(replace(run.request, **lacking), names))


def scores_of(answer: Reconstruction) -> str:
    """Seconds and chi-squared of an answer, in words."""
    seconds = f"{answer.provenance.timings_s['total']:.1f} s"
    chi2 = None if answer.forward is None else answer.forward.chi2
    return f"in {seconds}" if chi2 is None else f"in {seconds}, chi-squared {chi2:.2f}"


def classical_layer_data(
    reconstruction: Reconstruction, source: Placement, beside: Layer | None
) -> LayerData:
    """One layer for the answer of another method; it belongs to no group of results.

    `beside`, which it is compared with, gives contrast limits and colour map.
    """
    source, unit = source.within(reconstruction.region), reconstruction.unit
    values, place = placed_image(
        source, reconstruction.axes, reconstruction.upsampling, reconstruction.mean
    )
    look = look_of(reconstruction.mean, unit)
    if beside is not None:  # two answers can be compared by eye only with one contrast
        look = {name: getattr(beside, name) for name in look}
    method = reconstruction.provenance.model["name"]
    metadata = {
        "role": f"{OTHER_ANSWER}{method}",
        "source": source.name,
        "unit": unit,
        "provenance": asdict(reconstruction.provenance),
    }
    keywords = {
        "name": layer_name(str(method), source.name, unit),
        "metadata": {METADATA_KEY: metadata},
        **place.keywords(),
        **look,
    }
    return values, keywords, "image"
