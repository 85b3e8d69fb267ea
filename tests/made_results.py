"""A made-up reconstruction, for tests of what is shown of one."""

import numpy as np
from napari.layers import Layer

from napari_cvdm.core.result import ClockCurve, Provenance, Reconstruction
from napari_cvdm.widgets.layers.result_layers import groups_of, to_layer_data
from napari_cvdm.widgets.layers.shown_layers import schedule_layer

PROVENANCE = Provenance(
    inputs={},
    model={"name": "tiny"},
    settings={"seed": 3, "wavelength_um": 0.5},
    estimated={},
    versions={},
    timings_s={},
)
ROLES = [
    "gamma",
    "beta",
    "noise-rate map",
    "optical path difference",
    "uncertainty",
    "untrusted pixels",
    "reconstruction",
]
FIRST = ROLES[-3:]  # what a run shows


def every_layer(result, source):
    """Every layer of a result, as a request for each would show it."""
    shown = [Layer.create(*data) for data in to_layer_data(result, source)]
    (group,) = groups_of(shown)
    made = [make() for make in group.stored.makers().values()]
    return [*(schedule_layer(group, role) for role in ("gamma", "beta")), *made]


def reconstruction(shape, axes, upsampling=1, unit="rad", seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape).astype(np.float32)
    return Reconstruction(
        mean=values,
        variance=values**2,
        rate=np.ones(shape, np.float32),
        axes=axes,
        unit=unit,
        pixel_um=0.1,
        upsampling=upsampling,
        valid=values > 0,
        provenance=PROVENANCE,
        clock=ClockCurve(times=(0.5, 1.0), values=(0.4, 1.0), speeds=(1.0, 2.0)),
        counts=np.full(shape[:-2], 2),
    )
