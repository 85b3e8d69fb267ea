"""Layers put into a viewer in place of those that they supersede."""

import re
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import count
from typing import TYPE_CHECKING

from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, LayerData, plugin_metadata
from napari_cvdm.widgets.layers.own_sliders import with_own_sliders
from napari_cvdm.widgets.layers.result_group import layers_of

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer


def show_layers(viewer: "Viewer", layers: list[LayerData]) -> None:
    """Put layers into a viewer in place of the earlier layers of the same roles.

    An earlier layer is one of the same group, or of the same source without a group. All new layers
    are made before the first old one goes, so a viewer never holds half a result.

    Parameters
    ----------
    viewer : Viewer
    layers : list of (data, keywords, layer type)
        As from `to_layer_data`. A new layer is visible if the earlier one was.
    """
    from napari.layers import Layer

    pairs = []
    for data, keywords, kind in with_own_sliders(viewer, layers):
        mark = keywords["metadata"][METADATA_KEY]
        shared = "group" if "group" in mark else "source"
        alike = [
            layer
            for layer in viewer.layers
            if all(plugin_metadata(layer).get(key) == mark[key] for key in ("role", shared))
        ]
        old = next((layer for layer in alike if _is_named(layer, keywords["name"])), None)
        pairs.append(
            (
                old,
                Layer.create(
                    data, keywords if old is None else {**keywords, "visible": old.visible}, kind
                ),
            )
        )
    # napari collects garbage after each layer that is removed, but after a batch only once.
    # Where nothing is removed, it does not collect at all.
    together = (
        viewer.layers.batched_update()
        if any(old is not None for old, _ in pairs)
        else nullcontext()
    )
    with together:
        for old, new in pairs:
            if old is not None:
                viewer.layers.remove(old)
            viewer.add_layer(new)


def show_result(viewer: "Viewer", layers: list[LayerData]) -> None:
    """Put a whole result into a viewer in place of the earlier result of the same group.

    The earlier result goes whole, so that samples and maps of two runs do not mix. Layers that the
    user has renamed stay, as a group of their own.

    Parameters
    ----------
    viewer : Viewer
    layers : list of (data, keywords, layer type)
        As from `to_layer_data`.
    """
    group = str(layers[-1][1]["metadata"][METADATA_KEY]["group"])
    earlier = layers_of(viewer.layers, group)
    show_layers(viewer, layers)
    kept = next(
        name
        for name in (f"{group} ({number})" for number in count(1))
        if not layers_of(viewer.layers, name)
    )
    superseded = []
    for layer in [layer for layer in earlier if layer in viewer.layers]:
        mark = plugin_metadata(layer)
        if _is_named(layer, f"{mark['role']} of {mark['source']}"):
            superseded.append(layer)
        else:
            layer.metadata = {**layer.metadata, METADATA_KEY: {**mark, "group": kept}}
    remove_layers(viewer, superseded)


def remove_layers(viewer: "Viewer", layers: Iterable["Layer"]) -> None:
    """Take those away that are still there, all at once."""
    there = [layer for layer in layers if layer in viewer.layers]
    if there:
        with viewer.layers.batched_update():
            for layer in there:
                if layer in viewer.layers:  # who listens may have taken it along with another
                    viewer.layers.remove(layer)


def _is_named(layer: "Layer", name: str) -> bool:
    """Whether a layer has the name that it was given; napari itself may have numbered it."""
    return re.fullmatch(re.escape(name) + r"( \[\d+\])?", layer.name) is not None
