"""Layers put into a viewer in place of those that they supersede."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from qtpy.QtCore import QObject, QThread, QTimer
from qtpy.QtWidgets import QApplication

from napari_cvdm.analysis.schedule_maps import schedule_at, schedule_maps, shown_ranges
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import FrameView
from napari_cvdm.core.statistics import spread_as
from napari_cvdm.widgets.layers.frames import frame_index
from napari_cvdm.widgets.layers.layer_data import (
    METADATA_KEY,
    LayerData,
    inner_limits,
    look_of,
    named_layers,
    plugin_metadata,
    spread_look,
)
from napari_cvdm.widgets.layers.placement import Placement, placed_image
from napari_cvdm.widgets.layers.reconstruction import Run
from napari_cvdm.widgets.layers.result_layers import (
    AT_TIME,
    FIRST,
    OTHER_ANSWER,
    RATE,
    RECONSTRUCTION,
    SAMPLES,
    SCHEDULE,
    SPREAD,
    STORED,
    ResultGroup,
    groups_of,
    layers_of,
    own_name,
    without_border,
)

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from napari.viewer import Viewer


PART_MS = 20  # in which the window is drawn, and keys and clicks are heard


def show_layers(viewer: "Viewer", layers: list[LayerData]) -> None:
    """Put layers into a viewer in place of the earlier layers of the same roles; all at once."""
    for _ in show_in_turn(viewer, layers):
        pass


def show_in_turn(
    viewer: "Viewer",
    layers: list[LayerData],
    superseded: "Iterable[Layer]" = (),
    unfinished: "Mapping[str, Layer] | None" = None,
) -> Iterator[None]:
    """Put layers into a viewer, with time for the window after each part of it.

    An earlier layer of the same role and group, or of the same source without a group, takes over
    what the new one has. So does the `unfinished` layer of a role. napari needs much longer to add
    and to remove a layer. Those that are `superseded` go, if they have not taken over anything. All
    new layers are made before the first old one changes, so a viewer never holds half a result.

    A new layer is visible if the earlier one was.
    """
    from napari.layers import Layer

    running = dict(unfinished or {})
    pairs: list[tuple[Layer | None, Layer]] = []
    replaced: dict[Layer, Layer] = {}
    for data, keywords, kind in with_own_sliders(viewer, layers):
        metadata = keywords["metadata"][METADATA_KEY]
        keys = ("role", "group" if "group" in metadata else "source")
        earlier = (
            layer
            for layer in viewer.layers
            if all(plugin_metadata(layer).get(key) == metadata[key] for key in keys)
            and _is_named(layer, keywords["name"])
        )
        new = Layer.create(data, keywords, kind)
        old = next(earlier, None) or running.pop(metadata["role"], None)
        if old is not None and not _can_take_over(old, new):
            replaced[new] = old
            new.visible, old = old.visible, None
        pairs.append((old, new))
    taken = [old for old, _ in pairs if old is not None]
    gone = [layer for layer in (*superseded, *running.values()) if layer not in taken]
    for old, new in pairs:
        if old is not None:
            _take_over(old, new)
    if taken:
        if list(viewer.layers)[-len(taken) :] != taken:
            places = [viewer.layers.index(layer) for layer in taken]
            viewer.layers.move_multiple(places, len(viewer.layers))
        taken[-1].events.name()  # refreshes the lists of results
        yield
    for number, (old, new) in enumerate(pairs):
        if old is None:
            remove_layers(viewer, [replaced[new]] if new in replaced else ())
            above = (one for one, _ in pairs[number:] if one is not None and one in viewer.layers)
            under = next(above, None)
            end = len(viewer.layers)
            viewer.layers.insert(end if under is None else viewer.layers.index(under), new)
            yield
    if pairs and any(old is None for old, _ in pairs):
        on_top = pairs[-1][0] or pairs[-1][1]
        if on_top in viewer.layers:  # the user may have removed it meanwhile
            viewer.layers.selection.active = on_top
    yield from put_on_bars(new if old is None else old for old, new in pairs)
    remove_layers(viewer, gone)


def _can_take_over(old: "Layer", new: "Layer") -> bool:
    """Whether a layer can become another one by taking its pixels, its place and its look."""
    same = type(old) is type(new) and old.ndim == new.ndim
    return same and not (getattr(old, "multiscale", False) or getattr(new, "multiscale", False))


_TAKEN = ("name", "scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
# The range comes before the limits, which napari clips to it.
_TAKEN_LOOK = ("colormap", "contrast_limits_range", "contrast_limits")


def _take_over(old: "Layer", new: "Layer") -> None:
    """Give a layer the pixels, the place and the look of another one."""
    old.metadata = new.metadata
    old.data = new.data
    for name in (*_TAKEN, *(name for name in _TAKEN_LOOK if hasattr(new, name))):
        wanted = getattr(new, name)
        # To set a property draws the layer anew, even where nothing changes.
        if not np.array_equal(_comparable(getattr(old, name)), _comparable(wanted)):
            setattr(old, name, wanted)


def _comparable(value: Any) -> Any:
    """A property of a layer as NumPy can compare it: a matrix, names, or numbers."""
    if isinstance(value, tuple):
        return tuple(map(str, value))
    return getattr(value, "affine_matrix", getattr(value, "name", value))


def put_on_bars(layers: "Iterable[Layer]") -> Iterator[None]:
    """Show the colour bar and the unit of each layer of ours that has a unit, one after another."""
    from napari.layers import Image

    for layer in layers:
        if isinstance(layer, Image) and {"role", "unit"} <= plugin_metadata(layer).keys():
            for overlay in (layer.colorbar, layer.name_overlay):
                if not overlay.visible:
                    overlay.visible = True
                    yield


def as_opened(layers: list[LayerData], first: int | None = None) -> list[LayerData]:
    """Layers as a reader or a sample gives them to napari. Colour bars are added later.

    napari adds all of them before it serves the window. In a window it gets only the one of index
    `first`, if that is named, and the others are added one after the other.
    """
    from napari import current_viewer

    viewer, thread = current_viewer(), QThread.currentThread()
    window = QApplication.instance()
    if viewer is None or thread is None or window is None or thread is not window.thread():
        return layers

    def follow() -> None:
        turns = Turns(QApplication.instance())
        turns.start(_complete(viewer, layers), turns.deleteLater)

    # napari adds what this returns first; only then there is something to complete.
    QTimer.singleShot(0, follow)
    return layers if first is None or thread.loopLevel() == 0 else [layers[first]]


def _complete(viewer: "Viewer", layers: list[LayerData]) -> Iterator[None]:
    """Add the layers that the viewer lacks beside the others, and put on the colour bars."""
    from napari.layers import Layer

    marks = [keywords["metadata"].get(METADATA_KEY) for _, keywords, _ in layers]
    # napari keeps the mapping itself, so that its identity tells these layers from all others.
    there = {
        number: layer
        for layer in viewer.layers
        for number, mark in enumerate(marks)
        if mark is not None and plugin_metadata(layer) is mark
    }
    for number, data in enumerate(layers if there else ()):
        if number not in there:
            below, above = there.get(number - 1), there[max(there)]
            beside = above if below is None else below
            at = len(viewer.layers)  # the user may have removed the layer meanwhile
            if beside in viewer.layers:
                at = viewer.layers.index(beside) + (below is not None)
            there[number] = Layer.create(*data)
            viewer.layers.insert(at, there[number])
            yield
    if there and there[max(there)] in viewer.layers:
        viewer.layers.selection.active = there[max(there)]
    yield from put_on_bars(there.values())


def show_result_in_turn(
    viewer: "Viewer", layers: list[LayerData], unfinished: "Mapping[str, Layer] | None" = None
) -> Iterator[None]:
    """Put a whole result into a viewer, with time for the window after each part of it.

    The earlier result goes whole, so that samples and maps of two runs do not mix. What was shown
    of it on request is shown of the new one, too, but for the schedule over t. Layers that the user
    has renamed stay, as a group of their own. The `unfinished` layers of the run become those of
    the result.
    """
    mark = layers[-1][1]["metadata"][METADATA_KEY]
    group, makers = str(mark["group"]), mark[STORED].makers()
    earlier = layers_of(viewer.layers, group)
    own = [layer for layer in earlier if _is_named(layer, own_name(plugin_metadata(layer)))]
    shown = {plugin_metadata(layer)["role"] for layer in own}
    more = [make() for role, make in makers.items() if role in shown and role not in FIRST]
    at_time = [layer for layer in own if plugin_metadata(layer)["role"] in AT_TIME.values()]
    names = (f"{group} ({number})" for number in count(1))
    kept = next(name for name in names if not layers_of(viewer.layers, name))
    # Who listens to new layers must not find the renamed ones among them.
    for layer in earlier:
        if layer not in own:
            known = plugin_metadata(layer)
            layer.metadata = {**layer.metadata, METADATA_KEY: {**known, "group": kept}}
    # Maps at one time are drawn anew at the end; until then they stay.
    superseded = [layer for layer in own if layer not in at_time]
    yield from show_in_turn(viewer, [*more, *layers], superseded, unfinished)
    for found in groups_of(viewer.layers) if at_time else ():
        if found.name == group:
            time = float(plugin_metadata(at_time[0])["t"])
            yield from schedule_in_turn(viewer, found, time, show=False)


def show_stored(viewer: "Viewer", group: ResultGroup, role: str) -> None:
    """Show one more layer of a result, on top. A role that the result lacks changes nothing."""
    stored = group.stored
    maker = None if stored is None else stored.makers().get(role)
    if maker is not None and role not in group.layers:
        data, keywords, kind = maker()
        there = {plugin_metadata(one)["role"] for one in layers_of(viewer.layers, group.name)}
        # Maps over t are made again, because their axis lies before that of the samples.
        more = [schedule_layer(group, one) for one in SCHEDULE if role == SAMPLES and one in there]
        show_layers(viewer, [*more, (data, {**keywords, "visible": True}, kind)])


def show_only(viewer: "Viewer", group: ResultGroup, role: str) -> None:
    """Show one of the layers of a result that cover each other: all others would hide it."""
    for layer in layers_of(viewer.layers, group.name):
        found = plugin_metadata(layer)["role"]
        if found in (RECONSTRUCTION, SPREAD, RATE, *AT_TIME.values()):
            layer.visible = found == role


FIELDS = {"gamma": "gamma", "beta": "beta", "log-SNR": "half_log_snr"}
# Where the slider stands when a first map appears: at its ends a map is all one colour.
FIRST_TIME = 0.5


def schedule_in_turn(
    viewer: "Viewer", group: ResultGroup, time: float, *, show: bool = True
) -> Iterator[None]:
    """Draw gamma, beta and the rate of a result at one time, as images without an axis of times.

    The window is served after each layer. Layers that are there already are drawn anew. Of `time`,
    t in (0, 1], the nearest one of the clock is shown. With `show`, gamma is shown where no map of
    the schedule is.
    """
    clock, rate = group.clock, group.rate
    if clock is None or rate is None:
        return
    nearest, maps = schedule_at(rate.data, clock, time)
    there = {plugin_metadata(one)["role"]: one for one in layers_of(viewer.layers, group.name)}
    frame, inner = frame_index(viewer, rate), np.ones(rate.data.shape[-2:], dtype=bool)
    if group.stored is not None:
        valid = group.stored.reconstruction.valid.reshape(rate.data.shape)
        inner = without_border(valid[frame])
    wanted: list[LayerData] = []
    if RATE not in there and group.stored is not None:
        wanted.append(group.stored.makers()[RATE]())
    for field, role in reversed(AT_TIME.items()):
        values = getattr(maps, field)
        # Those of this time: over all times one map has hardly any contrast.
        shown = np.asarray(values[frame])
        limits = inner_limits(shown[inner] if inner.any() else shown)
        mark = {**plugin_metadata(rate), "role": role, "unit": "", "t": nearest}
        if role in there:
            layer = there[role]
            layer.data, layer.contrast_limits = values, limits
            layer.metadata = {METADATA_KEY: mark}
            continue
        wanted.append(_map_layer(values, own_name(mark), mark, Placement.of(rate), limits))
    # Where a map of the schedule is looked at, it stays the one that is shown.
    maps_of = {RATE, *AT_TIME.values()}
    hidden = not any(layer.visible for role, layer in there.items() if role in maps_of)
    yield from show_in_turn(viewer, wanted)
    if hidden and show:
        show_only(viewer, group, AT_TIME["gamma"])


def show_schedule(viewer: "Viewer", group: ResultGroup, role: str) -> "Layer":
    """Put one map of the schedule on top, with a slider for t; `role` is a key of `FIELDS`.

    Raises
    ------
    RequestError
        The result has no rate map or no clock any more.
    """
    first = not any(is_schedule(layer) and layer.visible for layer in viewer.layers)
    show_layers(viewer, [schedule_layer(group, role)])
    of_result = reversed(layers_of(viewer.layers, group.name))
    layer = next(one for one in of_result if plugin_metadata(one)["role"] == role)
    layer.visible = True
    if first:
        # napari aligns axes from the last: t is the first axis of the layer, not of the viewer.
        viewer.dims.set_point(viewer.dims.ndim - layer.ndim, FIRST_TIME)
    return layer


def is_schedule(layer: "Layer") -> bool:
    """Whether a layer is a map of the schedule, with t as its first axis."""
    return plugin_metadata(layer).get("role") in SCHEDULE


def schedule_layer(group: ResultGroup, role: str) -> LayerData:
    """A lazy map that lies where the rate map lies, with t as its first axis."""
    rate, clock = group.rate, group.clock
    if rate is None or clock is None:
        raise RequestError(group.describe_missing())
    place, start = Placement.of(rate), clock.times[0]
    place = place.with_leading("K", "schedule t" if "t" in place.labels else "t", start, start)
    maps = getattr(schedule_maps(rate.data, clock), FIELDS[role])
    mark = {**plugin_metadata(rate), "role": role, "unit": ""}
    limits = shown_ranges(np.asarray(rate.data), clock)[FIELDS[role]]
    return _map_layer(maps, f"{role} of {mark.get('source', rate.name)}", mark, place, limits)


def _map_layer(
    values: Any, name: str, mark: dict[str, Any], place: Placement, limits: tuple[float, float]
) -> LayerData:
    keywords = {
        "name": name,
        "visible": False,
        "metadata": {METADATA_KEY: mark},
        **place.keywords(),
        "colormap": "viridis",
        "contrast_limits": limits,
    }
    return values, keywords, "image"


def show_in_grid(viewer: "Viewer", source: str, beside: "Layer | None") -> None:
    """Show the image, a result and the answers of other methods side by side."""
    measured = named_layers(viewer.layers, source) or ()
    for layer in viewer.layers:
        mark = plugin_metadata(layer)
        answer = str(mark.get("role", "")).startswith(OTHER_ANSWER) and mark["source"] == source
        layer.visible = answer or layer is beside or layer in measured
        if answer or layer is beside:
            layer.colorbar.visible = False  # in a small tile it would hide the image
    viewer.canvas.grid.enabled = True
    viewer.reset_view()


def leave_grid(viewer: "Viewer") -> None:
    """Hide the answers of other methods, which would cover a result outside of the grid."""
    if viewer.canvas.grid.enabled:
        viewer.canvas.grid.enabled = False
        viewer.reset_view()
        for layer in viewer.layers:
            role = str(plugin_metadata(layer).get("role", ""))
            if role.startswith(OTHER_ANSWER):
                layer.visible = False
            elif role == RECONSTRUCTION:
                layer.colorbar.visible = True


def remove_layers(viewer: "Viewer", layers: Iterable["Layer"]) -> None:
    """Take those away that are still there, all at once."""
    there = [layer for layer in layers if layer in viewer.layers]
    if there:
        # One by one, napari would collect garbage after each: seconds in which the window stands.
        with viewer.layers.batched_update():
            for layer in there:
                if layer in viewer.layers:  # who listens may have taken it along with another
                    viewer.layers.remove(layer)


def _is_named(layer: "Layer", name: str) -> bool:
    """Whether a layer has the name that it was given; napari itself may have numbered it."""
    return re.fullmatch(re.escape(name) + r"( \[\d+\])?", layer.name) is not None


class _Axis(NamedTuple):
    """An axis of the viewer: the two ends of its slider in the world, its unit and its label."""

    span: tuple[float, float]
    unit: str
    label: str


def with_own_sliders(viewer: "Viewer", layers: list[LayerData]) -> list[LayerData]:
    """The same layers, with t and sample before every other axis of the viewer.

    napari aligns axes from the last. Without this, t would share a slider with the samples or with
    the frames of a time-lapse beside it. Where their units differ, napari drops the units of all
    layers, and the scale bar with them.

    Maps of the schedule and samples get more axes, one pixel long. Their number is that of the axes
    of the widest other layer.
    """
    frames = _frame_axes(viewer)
    there = [one.data for one in viewer.layers if plugin_metadata(one).get("role") == SAMPLES]
    there += [data for data, keywords, _ in layers if _role(keywords) == SAMPLES]
    counts = [len(samples) for samples in there]
    samples = [_Axis((-0.5, max(counts) - 0.5), "dimensionless", "sample")] if counts else []
    before = {SAMPLES: frames} | {role: [*samples, *frames] for role in SCHEDULE}
    return [
        _lift(layer, before[_role(layer[1])]) if _role(layer[1]) in before else layer
        for layer in layers
    ]


def _role(keywords: dict[str, Any]) -> str:
    return str(keywords["metadata"][METADATA_KEY]["role"])


def _frame_axes(viewer: "Viewer") -> list[_Axis]:
    """The axes of the widest layer that has neither t nor sample."""
    own = (SAMPLES, *SCHEDULE)
    plain = [layer for layer in viewer.layers if plugin_metadata(layer).get("role") not in own]
    if not plain:
        return []
    widest = max(plain, key=lambda layer: layer.ndim)
    ranges = viewer.dims.range[-widest.ndim :]
    return [
        _Axis((one.start - one.step / 2, one.stop + one.step / 2), str(unit), label)
        for one, unit, label in zip(ranges, widest.units, widest.axis_labels, strict=True)
    ]


def _lift(layer: LayerData, before: list[_Axis]) -> LayerData:
    """A layer whose first axis stands before all of these, which it spans where it has them not."""
    data, keywords, kind = layer
    missing = before[: max(0, len(before) - (data.ndim - 1))]
    if not missing:
        return layer
    place, added = Placement.of_keywords(keywords), len(missing)
    if place.labels[0] in [axis.label for axis in missing]:
        place = replace(place, labels=("schedule t", *place.labels[1:]))
    for (first, last), unit, label in reversed(missing):
        place = place.with_leading("_", label, (first + last) / 2, last - first, unit)
    place = place.with_axes([added, *range(added), *range(added + 1, len(place.axes))])
    data = np.expand_dims(data, tuple(range(1, 1 + added)))
    return data, {**keywords, **place.keywords()}, kind


class RunningLayers:
    """An unfinished reconstruction and its uncertainty, frame by frame.

    They become those of the result. A calibrated interval comes only then: before, the spread is
    shown as a standard deviation.
    """

    def __init__(self, viewer: "Viewer", run: Run, statistic: str) -> None:
        self._viewer, self._run = viewer, run
        self._statistic = "variance" if statistic == "variance" else "standard deviation"
        self._layers: dict[str, Image] = {}
        self._arrays: dict[str, np.ndarray] = {}

    def show(self, view: FrameView) -> None:
        """Put in what there is to see of one frame; at most one layer is added."""
        spread = spread_as(view.variance, "variance", self._statistic)
        added = False
        for role, values in ((RECONSTRUCTION, view.mean), (SPREAD, spread)):
            if role not in self._arrays:
                shape = (*self._run.request.image.loop_shape, *values.shape)
                self._arrays[role] = np.zeros(shape, np.float32)
            self._arrays[role][view.index] = values
            # There is no spread before the second sample.
            if role not in self._layers and not added and (role != SPREAD or view.samples > 1):
                self._layers[role], added = self._add(role, values), True
            elif role in self._layers and self._layers[role] in self._viewer.layers:
                self._layers[role].refresh()  # napari does not see a change in place
                if role == RECONSTRUCTION and view.samples == 1:
                    # A first look of a classical method has other low spatial frequencies.
                    look = look_of(values, self._run.unit)
                    self._layers[role].contrast_limits = look["contrast_limits"]
        if view.samples == 2 and SPREAD in self._layers:
            self._layers[SPREAD].contrast_limits = spread_look(spread)["contrast_limits"]

    def _add(self, role: str, values: np.ndarray) -> "Image":
        from napari.layers import Image

        run, is_mean = self._run, role == RECONSTRUCTION
        axes, source = run.request.image.axes.replace("P", ""), run.place.name
        data, place = placed_image(
            run.place.within(run.request.region), axes, run.upsampling, self._arrays[role]
        )
        layer = Image(
            data,
            name=f"{role} of {source} (running)",
            visible=is_mean,
            metadata={METADATA_KEY: {"role": f"running {role}", "source": source}},
            **place.keywords(),
            **(look_of(values, run.unit) if is_mean else spread_look(values)),
        )
        mean, layers = self._layers.get(RECONSTRUCTION), self._viewer.layers
        layers.insert(layers.index(mean) if mean in layers else len(layers), layer)
        return layer

    def hand_over(self) -> "dict[str, Layer]":
        """The layers by role, which are no longer unfinished ones then."""
        there = {role: one for role, one in self._layers.items() if one in self._viewer.layers}
        self._layers.clear()
        return there

    def remove(self) -> None:
        """Take them away."""
        remove_layers(self._viewer, self._layers.values())
        self._layers.clear()


class Turns(QObject):
    """Work in the window's own thread, such as adding layers: after each part the window is served.

    When the parent goes, the rest is not done.
    """

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._parts: Iterator[None] | None = None
        self._on_end: Callable[[], object] | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._go_on)

    @property
    def busy(self) -> bool:
        """Whether a part is still to come."""
        return self._parts is not None

    def start(self, parts: Iterator[None], on_end: Callable[[], object] | None = None) -> None:
        """Do the first part now, the others later, and what is left of other work not at all."""
        self._parts, self._on_end = parts, on_end
        self._go_on()

    def _go_on(self) -> None:
        parts = self._parts
        if parts is None:
            return
        going_on = False
        try:
            going_on = next(parts, self) is None
        finally:
            if parts is self._parts:  # the part may have started other work
                if going_on:
                    self._timer.start(PART_MS)
                else:
                    self._parts = None
                    if self._on_end is not None:
                        self._on_end()
