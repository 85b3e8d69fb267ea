"""How the uncertainty layer of a result shows the spread.

The choices are standard deviation, variance and the calibrated interval.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from napari_cvdm.core.statistics import INTERVAL, STATISTICS, spread_as
from napari_cvdm.widgets.layers.layer_data import (
    METADATA_KEY,
    plugin_metadata,
    spread_look,
    spread_unit,
)
from napari_cvdm.widgets.layers.result_group import ResultGroup, layers_of

if TYPE_CHECKING:
    from napari.viewer import Viewer

HELP = (
    "Show the spread of the samples in the unit of the image (standard deviation) or squared "
    "(variance)."
)


def choices_of(group: ResultGroup) -> tuple[str, ...]:
    """Ways to show the spread of a result.

    The interval is offered only if the model or the result is calibrated.
    """
    return STATISTICS if group.factor is None else (*STATISTICS, INTERVAL)


def help_of(group: ResultGroup | None) -> str:
    """What the choices mean."""
    if group is None or group.factor is None:
        return f"{HELP}\nThis model is not calibrated: see napari-cvdm calibrate."
    said = group.calibration
    return (
        f"{HELP}\n"
        f"Calibrated interval: {said['level']:.0%} of the errors are below this, "
        f"{group.factor:.3g} times the spread; fitted on {said['set']}."
    )


def show_spread_as(group: ResultGroup, wanted: str) -> None:
    """Show the spread of a result in another way; one that is not there changes nothing."""
    layer = group.spread
    if layer is None or group.statistic == wanted or wanted not in choices_of(group):
        return
    layer.data = spread_as(layer.data, group.statistic, wanted, group.factor)
    unit = spread_unit(str(group.mark["unit"]), wanted)
    layer.metadata = {
        **layer.metadata,
        METADATA_KEY: {**plugin_metadata(layer), "statistic": wanted, "unit": unit},
    }
    layer.contrast_limits = spread_look(layer.data)["contrast_limits"]


def put_calibration(viewer: "Viewer", group: ResultGroup, calibration: Mapping[str, Any]) -> None:
    """Write a calibration into the provenance of a result's layers, and show an interval."""
    show_spread_as(group, STATISTICS[0])  # what is shown may be an interval by an older factor
    for layer in layers_of(viewer.layers, group.name):
        mark = plugin_metadata(layer)
        provenance = mark.get("provenance", {})
        known = {
            **provenance,
            "model": {**provenance.get("model", {}), "calibration": dict(calibration)},
        }
        layer.metadata = {**layer.metadata, METADATA_KEY: {**mark, "provenance": known}}
    show_spread_as(group, INTERVAL)
