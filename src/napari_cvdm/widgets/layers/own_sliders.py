"""Sliders of their own for the axes that only results have: the schedule's t, and sample."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, LayerData, plugin_metadata
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.result_group import SAMPLES, SCHEDULE

if TYPE_CHECKING:
    from napari.viewer import Viewer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """An axis of the viewer: the two ends of its slider in the world, its unit and its label."""

    span: tuple[float, float]
    unit: str
    label: str


def with_own_sliders(viewer: "Viewer", layers: list[LayerData]) -> list[LayerData]:
    """The same layers, with t and sample before every other axis of the viewer.

    napari aligns axes from the last. Without this, t would share a slider with the samples or with
    the frames of a time-lapse beside it. Where their units differ, napari drops the units of all
    layers, and the scale bar with them.

    Parameters
    ----------
    viewer : Viewer
    layers : list of (data, keywords, layer type)
        As from `to_layer_data`.

    Returns
    -------
    list of (data, keywords, layer type)
        Maps of the schedule and samples get more axes, one pixel long. Their number is that of the
        axes of the widest other layer.
    """
    frames = _frame_axes(viewer)
    counts = [len(data) for data, keywords, _ in layers if _role(keywords) == SAMPLES]
    counts += [
        len(layer.data) for layer in viewer.layers if plugin_metadata(layer).get("role") == SAMPLES
    ]
    samples = (
        [_Axis(span=(-0.5, max(counts) - 0.5), unit="dimensionless", label="sample")]
        if counts
        else []
    )
    before = {SAMPLES: frames} | {role: [*samples, *frames] for role in SCHEDULE}
    return [
        _lifted(one, before[_role(one[1])]) if _role(one[1]) in before else one for one in layers
    ]


def _role(keywords: dict[str, Any]) -> str:
    return str(keywords["metadata"][METADATA_KEY]["role"])


def _frame_axes(viewer: "Viewer") -> list[_Axis]:
    """The axes of the widest layer that has neither t nor sample."""
    plain = [
        layer
        for layer in viewer.layers
        if plugin_metadata(layer).get("role") not in (SAMPLES, *SCHEDULE)
    ]
    if not plain:
        return []
    widest = max(plain, key=lambda layer: layer.ndim)
    ranges = viewer.dims.range[-widest.ndim :]
    spans = [(one.start - one.step / 2, one.stop + one.step / 2) for one in ranges]
    return [
        _Axis(span=span, unit=str(unit), label=label)
        for span, unit, label in zip(spans, widest.units, widest.axis_labels, strict=True)
    ]


def _lifted(layer: LayerData, before: list[_Axis]) -> LayerData:
    """A layer whose first axis stands before all of these, which it spans where it has them not."""
    data, keywords, kind = layer
    missing = before[: len(before) - (data.ndim - 1)]
    if not missing:
        return layer
    place = _placement(keywords)
    label = "schedule t" if place.labels[0] in [axis.label for axis in missing] else place.labels[0]
    rest = place.without_first().spanning(
        [axis.span for axis in missing],
        [axis.unit for axis in missing],
        [axis.label for axis in missing],
    )
    lifted = rest.with_leading(
        place.axes[0], label, float(place.translate[0]), float(place.scale[0])
    )
    return (
        np.expand_dims(data, tuple(range(1, 1 + len(missing)))),
        {**keywords, **lifted.keywords()},
        kind,
    )


def _placement(keywords: dict[str, Any]) -> Placement:
    placed = {
        name: keywords[name]
        for name in ("scale", "translate", "rotate", "shear", "affine", "units")
    }
    return Placement(
        name=keywords["name"],
        axes="_" * len(keywords["scale"]),
        labels=keywords["axis_labels"],
        **placed,
    )
