"""Layers put into a viewer in place of those that they supersede."""

import re
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_cvdm.analysis.schedule_maps import schedule_maps, shown_ranges
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import ClockCurve, FrameView
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
    layers_of,
    own_name,
)

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from napari.viewer import Viewer


def show_layers(
    viewer: "Viewer", layers: list[LayerData], superseded: "Iterable[Layer]" = ()
) -> None:
    """Put layers into a viewer in place of the earlier layers of the same roles.

    Those that are `superseded` go with them. An earlier layer is one of the same group, or of the
    same source without a group. All new layers are made before the first old one goes, so a viewer
    never holds half a result.

    A new layer is visible if the earlier one was.
    """
    from napari.layers import Image, Layer

    pairs = []
    for data, keywords, kind in with_own_sliders(viewer, layers):
        metadata = keywords["metadata"][METADATA_KEY]
        keys = ("role", "group" if "group" in metadata else "source")
        earlier = (
            layer
            for layer in viewer.layers
            if all(plugin_metadata(layer).get(key) == metadata[key] for key in keys)
            and _is_named(layer, keywords["name"])
        )
        old = next(earlier, None)
        if old is not None:
            keywords = {**keywords, "visible": old.visible}
        pairs.append((old, Layer.create(data, keywords, kind)))
    # napari collects garbage after each layer that is removed, but after a batch only once.
    # Where nothing is removed, it does not collect at all.
    gone = list(superseded)
    replaced = bool(gone) or any(old is not None for old, _ in pairs)
    with viewer.layers.batched_update() if replaced else nullcontext():
        for old, new in pairs:
            if old is not None:
                viewer.layers.remove(old)
            viewer.add_layer(new)
            if isinstance(new, Image) and "unit" in plugin_metadata(new):
                new.colorbar.visible = new.name_overlay.visible = True
        for layer in gone:
            if layer in viewer.layers:
                viewer.layers.remove(layer)


def show_result(viewer: "Viewer", layers: list[LayerData]) -> None:
    """Put a whole result into a viewer in place of the earlier result of the same group.

    The earlier result goes whole, so that samples and maps of two runs do not mix. What was shown
    of it on request is shown of the new one, too, but for the schedule over t. Layers that the user
    has renamed stay, as a group of their own.
    """
    mark = layers[-1][1]["metadata"][METADATA_KEY]
    group, makers = str(mark["group"]), mark[STORED].makers()
    earlier = layers_of(viewer.layers, group)
    shown = {str(plugin_metadata(layer)["role"]) for layer in earlier if _has_own_name(layer)}
    more = [make() for role, make in makers.items() if role in shown and role not in FIRST]
    names = (f"{group} ({number})" for number in count(1))
    kept = next(name for name in names if not layers_of(viewer.layers, name))
    # Who listens to new layers must not find the renamed ones among them.
    for layer in earlier:
        if not _has_own_name(layer):
            mark = plugin_metadata(layer)
            layer.metadata = {**layer.metadata, METADATA_KEY: {**mark, "group": kept}}
    show_layers(viewer, [*more, *layers], [layer for layer in earlier if _has_own_name(layer)])


def show_stored(viewer: "Viewer", group: ResultGroup, role: str) -> None:
    """Show one more layer of a result, on top. A role that the result lacks changes nothing."""
    stored = group.stored
    maker = None if stored is None else stored.makers().get(role)
    if maker is not None and role not in group.layers:
        data, keywords, kind = maker()
        stacks = [one for one in SCHEDULE if role == SAMPLES and one in shown_roles(viewer, group)]
        more = [schedule_layer(group, one) for one in stacks]
        show_layers(viewer, [*more, (data, {**keywords, "visible": True}, kind)])


def shown_roles(viewer: "Viewer", group: ResultGroup) -> set[str]:
    """Roles of all layers of a result that a viewer holds, of the schedule, too."""
    return {str(plugin_metadata(layer)["role"]) for layer in layers_of(viewer.layers, group.name)}


def show_only(viewer: "Viewer", group: ResultGroup, role: str) -> None:
    """Show one of the layers of a result that cover each other: all others would hide it."""
    for layer in layers_of(viewer.layers, group.name):
        found = plugin_metadata(layer)["role"]
        if found in (RECONSTRUCTION, SPREAD, RATE, *AT_TIME.values()):
            layer.visible = found == role


WITH_SCHEDULE = "with the schedule"  # marks a rate map that goes with it
FIELDS = {"gamma": "gamma", "beta": "beta", "log-SNR": "half_log_snr"}
# Where the slider stands when a first map appears: at its ends a map is all one colour.
FIRST_TIME = 0.5


def show_schedule_at(viewer: "Viewer", group: ResultGroup, time: float) -> None:
    """Show gamma, beta and the rate of a result at one time, as images without an axis of times.

    Those that are there already are drawn anew.

    Parameters
    ----------
    time : float
        t in (0, 1]; the nearest time of the clock is shown.
    """
    clock, stored = group.clock, group.stored
    rate = group.rate
    if clock is None or rate is None:
        return
    nearest = int(np.argmin(np.abs(np.array(clock.times) - time)))
    one = ClockCurve(
        times=(clock.times[nearest],),
        values=(clock.values[nearest],),
        speeds=(clock.speeds[nearest],),
    )
    maps = schedule_maps(rate.data, one)
    layers = layers_of(viewer.layers, group.name)
    there = {plugin_metadata(layer)["role"]: layer for layer in layers}
    if RATE not in there and stored is not None:
        data, keywords, kind = stored.makers()[RATE]()
        known = {**keywords["metadata"][METADATA_KEY], WITH_SCHEDULE: True}
        show_layers(viewer, [(data, {**keywords, "metadata": {METADATA_KEY: known}}, kind)])
    for field, role in reversed(AT_TIME.items()):
        values = getattr(maps, field)[0]
        values = values.compute() if values.ndim == 2 else values
        # Those of this time: over all times one map has hardly any contrast.
        shown = np.asarray(values[frame_index(viewer, rate)])
        look = {"colormap": "viridis", "contrast_limits": inner_limits(shown)}
        if role in there:
            there[role].data, there[role].contrast_limits = values, look["contrast_limits"]
            continue
        mark = {**plugin_metadata(rate), "role": role, "unit": ""}
        keywords = {
            "name": own_name(mark),
            "metadata": {METADATA_KEY: mark},
            **Placement.of(rate).keywords(),
            **look,
        }
        show_layers(viewer, [(values, keywords, "image")])
    if not there.keys() >= set(AT_TIME.values()):
        show_only(viewer, group, AT_TIME["gamma"])


def show_schedule(viewer: "Viewer", group: ResultGroup, role: str) -> "Layer":
    """Put one map of the schedule on top, with a slider for t; `role` is a key of `FIELDS`.

    Raises
    ------
    RequestError
        The result has no rate map or no clock any more.
    """
    before = set(viewer.layers)
    first = not any(is_schedule(layer) and layer.visible for layer in before)
    show_layers(viewer, [schedule_layer(group, role)])
    layer = next(layer for layer in viewer.layers if layer not in before)
    layer.visible = True
    if first:
        viewer.dims.set_point(viewer.dims.ndim - layer.ndim, FIRST_TIME)
    return layer


def is_schedule(layer: "Layer") -> bool:
    """Whether a layer is a map of the schedule, with t as its first axis."""
    return plugin_metadata(layer).get("role") in SCHEDULE


def schedule_layer(group: ResultGroup, role: str) -> LayerData:
    """A lazy map that lies where the rate map lies, with t as its first axis."""
    rate, clock = group.rate, group.clock
    if rate is None or clock is None:
        raise RequestError(
            f"{group.name}: {' and '.join(group.missing())} not among the layers; undo the "
            "removal or reconstruct again."
        )
    place = Placement.of(rate).with_times(clock.times)
    maps = getattr(schedule_maps(rate.data, clock), FIELDS[role])
    mark = {**plugin_metadata(rate), "role": role, "unit": ""}
    limits = shown_ranges(np.asarray(rate.data), clock)[FIELDS[role]]
    name = f"{role} of {mark.get('source', rate.name)}"
    return (
        maps,
        {
            "name": name,
            "visible": False,
            "metadata": {METADATA_KEY: mark},
            **place.keywords(),
            "colormap": "viridis",
            "contrast_limits": limits,
        },
        "image",
    )


def hide_schedule(viewer: "Viewer", group: ResultGroup) -> None:
    """Take away what `show_schedule_at` has shown, and show the reconstruction again."""
    show_only(viewer, group, RECONSTRUCTION)
    shown = [
        layer
        for layer in layers_of(viewer.layers, group.name)
        if plugin_metadata(layer)["role"] in AT_TIME.values()
        or WITH_SCHEDULE in plugin_metadata(layer)
    ]
    remove_layers(viewer, [layer for layer in shown if _has_own_name(layer)])


def show_in_grid(viewer: "Viewer", source: str, beside: "Layer | None") -> None:
    """Show the image, a result and the answers of other methods side by side."""
    measured = named_layers(viewer.layers, source) or ()
    for layer in viewer.layers:
        mark = plugin_metadata(layer)
        answer = str(mark.get("role", "")).startswith(OTHER_ANSWER) and mark["source"] == source
        layer.visible = answer or layer is beside or layer in measured
        if answer:
            layer.colorbar.visible = False  # the result has one, and all have its contrast
    viewer.canvas.grid.enabled = True
    viewer.reset_view()


def leave_grid(viewer: "Viewer") -> None:
    """Hide the answers of other methods, which would cover a result outside of the grid."""
    if viewer.canvas.grid.enabled:
        viewer.canvas.grid.enabled = False
        viewer.reset_view()
        for layer in viewer.layers:
            if str(plugin_metadata(layer).get("role", "")).startswith(OTHER_ANSWER):
                layer.visible = False


def remove_layers(viewer: "Viewer", layers: Iterable["Layer"]) -> None:
    """Take those away that are still there, all at once."""
    there = [layer for layer in layers if layer in viewer.layers]
    if there:
        with viewer.layers.batched_update():
            for layer in there:
                if layer in viewer.layers:  # who listens may have taken it along with another
                    viewer.layers.remove(layer)


def _has_own_name(layer: "Layer") -> bool:
    """Whether a layer of a result has the name that it was given: the user did not rename it."""
    mark = plugin_metadata(layer)
    return _is_named(layer, own_name(mark))


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
    counts = [len(data) for data, keywords, _ in layers if _role(keywords) == SAMPLES]
    counts += [
        len(layer.data) for layer in viewer.layers if plugin_metadata(layer).get("role") == SAMPLES
    ]
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

    They are removed when the final layers come. A calibrated interval comes only with those: until
    then the spread is shown as a standard deviation.
    """

    def __init__(self, viewer: "Viewer", run: Run, statistic: str) -> None:
        self._viewer, self._run = viewer, run
        self._statistic = "variance" if statistic == "variance" else "standard deviation"
        self._layers: dict[str, Image] = {}
        self._arrays: dict[str, np.ndarray] = {}

    def show(self, view: FrameView) -> None:
        """Put in what there is to see of one frame."""
        spread = spread_as(view.variance, "variance", self._statistic)
        for role, values in ((SPREAD, spread), (RECONSTRUCTION, view.mean)):
            layer = self._layers.get(role)
            if layer is None:
                layer = self._layers[role] = self._add(role, values, view.index)
            if layer in self._viewer.layers:  # the user may have removed it
                self._arrays[role][view.index] = values
                layer.refresh()
        if view.samples == 2 and SPREAD in self._layers:  # before, there is no spread
            self._layers[SPREAD].contrast_limits = spread_look(spread)["contrast_limits"]

    def _add(self, role: str, values: np.ndarray, index: tuple[int, ...]) -> "Image":
        from napari.layers import Image

        run = self._run
        self._arrays[role] = array = np.zeros(
            (*run.request.image.loop_shape, *values.shape), np.float32
        )
        array[index] = values
        axes, source = run.request.image.axes.replace("P", ""), run.place.name
        data, place = placed_image(
            run.place.within(run.request.region), axes, run.upsampling, array
        )
        final = role == RECONSTRUCTION
        look = (
            look_of(values, run.unit)
            if final
            else {"colormap": "magma", "contrast_limits": (0.0, 1.0)}
        )
        layer = Image(
            data,
            name=f"{role} of {source} (running)",
            visible=final,
            metadata={METADATA_KEY: {"role": f"running {role}", "source": source}},
            **place.keywords(),
            **look,
        )
        self._viewer.add_layer(layer)
        return layer

    def remove(self) -> None:
        """Take them away."""
        remove_layers(self._viewer, self._layers.values())
        self._layers.clear()
