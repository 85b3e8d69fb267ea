"""A made-up reconstruction, for tests of what is shown of one."""

import numpy as np

from napari_cvdm.core.result import ClockCurve, Provenance, Reconstruction

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
