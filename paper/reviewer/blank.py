"""Fields with nothing in them: a blank field, and noise that is not a camera's."""

import numpy as np
from scipy.ndimage import gaussian_filter

from paper.measure import Row
from paper.reviewer.bench import Bench, Case, Finding
from paper.reviewer.figures import drawn
from paper.reviewer.measures import blank_row
from paper.reviewer.scene import (
    FALSE_STRUCTURE_RAD,
    FALSE_STRUCTURE_SIGMAS,
    OFFSET_COUNTS,
    PHASE,
    SEED,
    Scene,
    flat_counts,
    told_of,
)

PHOTON_LEVELS = (0.0, 5.0, 50.0, 500.0)
NOISE_COUNTS = 20.0
NOISE_CONTRAST = 0.03
CORRELATION_PX = 1.0


def empty_widefield(bench: Bench, counts: np.ndarray) -> Scene:
    """A scene whose truth is nothing; the threshold follows from the image's own noise."""
    truth = np.zeros((2 * counts.shape[0], 2 * counts.shape[1]))
    return Scene(
        array=counts,
        truth=truth,
        told=bench.scene.told,
        threshold=FALSE_STRUCTURE_SIGMAS * float(counts.std()),
    )


def empty_phase(planes: np.ndarray) -> Scene:
    """Two planes (2, Y, X) behind which there is no phase."""
    return Scene(
        array=planes,
        truth=np.zeros(planes.shape[1:]),
        told=told_of(PHASE),
        threshold=FALSE_STRUCTURE_RAD,
    )


def blank(bench: Bench) -> Finding:
    """A flat background at several light levels."""
    cases = [
        bench.case(f"{photons:g} photons", empty_widefield(bench, flat_counts(bench.side, photons)))
        for photons in PHOTON_LEVELS
    ]
    return Finding(
        rows=[blank_row(case, bar=True) for case in cases], figure=drawn("Blank field", cases)
    )


def noises(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Noise of unit standard deviation: white, smoothed, and in rows.

    Registration or interpolation smooths it so. A CMOS camera makes such rows.
    """
    white = np.random.default_rng(SEED).standard_normal(shape)
    smooth = gaussian_filter(white, (*(0,) * (len(shape) - 2), CORRELATION_PX, CORRELATION_PX))
    rows = np.broadcast_to(white[..., :1], shape) + white
    return {
        "white": white,
        "smoothed by 1 px": smooth / smooth.std(),
        "half of it in rows": rows / rows.std(),
    }


def noise_only(bench: Bench) -> Finding:
    """No light, or no object, and noise of several kinds."""
    cases: list[Case] = []
    for name, noise in noises(
        (2, bench.side, bench.side) if bench.is_phase else (bench.side, bench.side)
    ).items():
        if bench.is_phase:
            scene = empty_phase(
                np.round(PHASE.photons * (1 + NOISE_CONTRAST * noise))
                .clip(0, 65535)
                .astype(np.uint16)
            )
        else:
            scene = empty_widefield(
                bench,
                np.round(OFFSET_COUNTS + NOISE_COUNTS * noise).clip(0, 65535).astype(np.uint16),
            )
        cases.append(bench.case(name, scene))
    rows: list[Row] = [blank_row(case, bar=True) for case in cases]
    return Finding(rows=rows, figure=drawn("Noise only", cases))
