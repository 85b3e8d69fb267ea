"""gamma, beta and log-SNR of a result as lazy layers whose first axis is the schedule's time."""

from typing import TYPE_CHECKING

from napari_cvdm.analysis.schedule_maps import schedule_maps, shown_ranges
from napari_cvdm.core.request import RequestError
from napari_cvdm.widgets.layers.frames import frame_pixels
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, LayerData, plugin_metadata
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.result_layers import SCHEDULE, ResultGroup
from napari_cvdm.widgets.layers.shown_layers import show_layers

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

FIELDS = {"gamma": "gamma", "beta": "beta", "log-SNR": "half_log_snr"}
FIRST_TIME = (
    0.5  # where the slider stands when a first map appears: at its ends a map is all one colour
)


def show_schedule(viewer: "Viewer", group: ResultGroup, role: str) -> "Layer":
    """Put one map of the schedule on top, with a slider for t.

    Parameters
    ----------
    viewer : Viewer
    group : ResultGroup
    role : str
        "gamma", "beta" or "log-SNR" (half of its logarithm, as the network sees it).

    Raises
    ------
    RequestError
        The result has no rate map or no clock any more.
    """
    before = set(viewer.layers)
    first = not any(is_schedule(layer) and layer.visible for layer in before)
    show_layers(viewer, [schedule_layer(viewer, group, role)])
    layer = next(layer for layer in viewer.layers if layer not in before)
    layer.visible = True
    if first:
        viewer.dims.set_point(viewer.dims.ndim - layer.ndim, FIRST_TIME)
    return layer


def is_schedule(layer: "Layer") -> bool:
    """Whether a layer is a map of the schedule, with t as its first axis."""
    return plugin_metadata(layer).get("role") in SCHEDULE


def schedule_layer(viewer: "Viewer", group: ResultGroup, role: str) -> LayerData:
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
    limits = shown_ranges(frame_pixels(viewer, rate), clock)[FIELDS[role]]
    name = f"{role} of {mark.get('source', rate.name)}"
    return (
        maps,
        {
            "name": name,
            "metadata": {METADATA_KEY: mark},
            **place.keywords(),
            "colormap": "viridis",
            "contrast_limits": limits,
        },
        "image",
    )
