"""A made-up result in the viewer, to be inspected."""

from types import SimpleNamespace

import numpy as np

from napari_cvdm.core.result import ClockCurve, Provenance, Reconstruction
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, plugin_metadata

TIMES = (0.25, 0.5, 0.75, 1.0)
CLOCK = ClockCurve(times=TIMES, values=(0.05, 0.1, 0.3, 1.0), speeds=(0.2, 0.4, 1.5, 9.0))
PROVENANCE = Provenance(
    inputs={}, model={"name": "tiny"}, settings={}, estimated={}, versions={}, timings_s={}
)


def reconstruction(shape=(24, 20), axes="YX"):
    rng = np.random.default_rng(0)
    rate = rng.uniform(7, 40, shape).astype(np.float32)
    mean = np.zeros(shape, np.float32)
    mean[..., 4:9, :] = 5
    return Reconstruction(
        mean=mean + rng.normal(size=shape).astype(np.float32),
        variance=np.square(rate / 40).astype(np.float32),
        rate=rate,
        axes=axes,
        unit="counts",
        pixel_um=0.1,
        upsampling=2,
        valid=np.ones(shape, bool),
        provenance=PROVENANCE,
        clock=CLOCK,
        counts=np.full(shape[:-2], 2),
    )


def add_samples(viewer, result):
    mean = roles(viewer)["reconstruction"]
    values = result.mean + np.arange(-3, 4).reshape(7, *[1] * result.mean.ndim)
    viewer.add_image(
        values,
        name="samples",
        visible=False,
        scale=(1, *mean.scale),
        translate=(0, *mean.translate),
        units=("dimensionless", *mean.units),
        axis_labels=("sample", *mean.axis_labels),
        metadata={METADATA_KEY: {**plugin_metadata(mean), "role": "samples"}},
    )


def roles(viewer):
    return {
        plugin_metadata(layer)["role"]: layer
        for layer in viewer.layers
        if "role" in plugin_metadata(layer)
    }


def delayed(dock):
    """Calls that come when nothing has changed for a while."""
    return (
        dock.refresh,
        dock._show_frame,
        dock.pixel.refresh_regions,
        dock.agreement.refresh,
        dock.pixel.on_mouse,
        dock.profile.refresh,
    )


def settle(qtbot, dock):
    """Wait until neither a delayed call nor a job is left."""

    def quiet():
        assert not any(one._timer.isActive() for one in delayed(dock))
        assert not dock.pixel.work.busy
        assert not dock.agreement.work.busy
        assert not dock.profile.work.busy
        assert not dock.next_image.work.busy

    qtbot.waitUntil(quiet)


def point_at(viewer, layer, pixel):
    viewer.cursor.position = layer.data_to_world((*[0] * (layer.ndim - 2), *pixel))
    for callback in viewer.mouse_move_callbacks:
        callback(viewer, SimpleNamespace(type="mouse_move"))


def drawn(dock, name):
    return dock.pixel.curves._pixel[name].getOriginalDataset()[1]
