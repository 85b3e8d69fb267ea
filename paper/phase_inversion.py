"""What the inversion of the phase chooses, and how well.

`python -m paper.phase_inversion [borders] [priors] [spread]`

borders: error with each border, the difference of their evidence, and the one that is taken.
priors: errors with other priors of the phase. spread: draws of the physics' posterior beside the
error, on simulated fields, no network.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from unittest.mock import patch

import numpy as np
import torch
from scipy.stats import norm

from napari_cvdm.core.result import finished
from napari_cvdm.inversion import PowerLaws, priors
from napari_cvdm.physics.camera import inverse_variance
from napari_cvdm.simulate.ranges import PhaseRanges
from napari_cvdm.simulate.scenes import simulate_phase
from napari_cvdm.tasks import PhaseTwoShot
from napari_cvdm.tasks.phase_inversion import (
    EQUAL_GAIN,
    PhaseEstimate,
    border_gain,
    fit_periodic,
    fit_surrounded,
    invert_planes,
)
from napari_cvdm.tasks.phase_posterior import PhasePosterior
from paper import phase_fields
from paper.measure import Row, print_rows, rmse
from paper.phase_fields import PHOTOGRAPHS, JudgedField

SETS: dict[str, Callable[[], list[JudgedField]]] = {
    "photographs": lambda: phase_fields.photograph_fields(192, names=PHOTOGRAPHS[:8]),
    "parts": lambda: phase_fields.photograph_fields(160, 32, PHOTOGRAPHS[:8]),
    "HL60 whole": lambda: phase_fields.hl60_fields()[:4],
    "HL60 cut": lambda: phase_fields.hl60_fields(phase_fields.CUT_PX)[:4],
    "specimens": lambda: phase_fields.specimen_fields(6),
}
FIELDS, FIRST_SEED, DRAWS, LEVEL = 48, 5_000_000, 16, 0.9


def planes_and_weight(one: JudgedField) -> tuple[torch.Tensor, torch.Tensor, tuple[float, ...]]:
    """Planes in rising order of their positions, and what the inversion needs of them."""
    order = np.argsort(one.defocus_um)
    planes = one.planes[order].astype(np.float64)
    weight = torch.from_numpy(inverse_variance(planes)).float()
    return torch.from_numpy(planes).float(), weight, tuple(one.defocus_um[place] for place in order)


def borders() -> Iterator[Row]:
    """Both borders on every field."""
    for name, make in SETS.items():
        for one in make():
            planes, weight, positions = planes_and_weight(one)
            optics = positions, one.microscope, one.condenser_na
            surrounded = finished(fit_surrounded(planes, weight, *optics))
            periodic = finished(fit_periodic(planes, weight, *optics, surrounded))
            gain = finished(border_gain(periodic, surrounded))
            errors = [rmse(fit.phase.numpy(), one.phase) for fit in (surrounded, periodic)]
            taken = "periodic" if gain > EQUAL_GAIN else "surrounded"
            yield Row(
                what=f"{name}, {one.name}: surrounded, periodic [rad]",
                value=f"{errors[0]:.4f}, {errors[1]:.4f}",
                bar=f"gain {gain:+.3f}: {taken} is taken",
            )


def without_fit(laws: PowerLaws, *_: object) -> PowerLaws:
    """Amplitudes as they start."""
    return laws


PRIORS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "A f^-2 + B f^-4, B at most by strength (taken)": nullcontext,
    "A f^-2": lambda: patch.multiple(priors, SMOOTH_PHASE=1e-14, SMOOTH_SHARE=0.0),
    "A f^-2 + B f^-4, B <= 3e-8": lambda: patch.object(priors, "SMOOTH_SHARE", 0.0),
    "A f^-2 + B f^-4, B <= 1e-6": lambda: patch.multiple(
        priors, SMOOTH_PHASE=1e-6, SMOOTH_SHARE=0.0
    ),
    "A and B from all frequencies": lambda: patch.object(
        priors, "SMOOTH_FREQUENCY", priors.HIGHEST_FREQUENCY
    ),
    "A and B not fitted": lambda: patch.object(PowerLaws, "refine", without_fit),
}


def compare_priors() -> Iterator[Row]:
    """Mean errors of every set with every prior."""
    for name, make in SETS.items():
        fields = make()
        for prior, within in PRIORS.items():
            with within():
                errors = [rmse(invert(one).fit.phase.numpy(), one.phase) for one in fields]
            yield Row(
                what=f"{name}: {prior} [rad]",
                value=f"{np.mean(errors):.4f}",
                bar=f"worst {max(errors):.4f}",
            )


def invert(one: JudgedField) -> PhaseEstimate:
    """A field as the phase task inverts it."""
    planes, weight, positions = planes_and_weight(one)
    return finished(invert_planes(planes, weight, positions, one.microscope, one.condenser_na))


def spread() -> Iterator[Row]:
    """Spread over error and coverage of the physics alone, each field without its mean."""
    variances, squares, inside = [], [], []
    for number in range(FIELDS):
        pair = simulate_phase(FIRST_SEED + number, PhaseRanges())
        prepared = PhaseTwoShot().condition(
            pair.planes, pair.microscope, pair.defocus_um, "none", condenser_na=pair.condenser_na
        )
        assert isinstance(prepared.posterior, PhasePosterior)
        error = prepared.estimate - pair.phase
        error, draws = (
            error - error.mean(),
            finished(prepared.posterior.draw_phases(DRAWS)) - prepared.estimate,
        )
        width = np.sqrt(np.square(draws - draws.mean(axis=(1, 2), keepdims=True)).mean(axis=0))
        variances.append(float(np.square(width).mean()))
        squares.append(float(np.square(error).mean()))
        inside.append(float((np.abs(error) <= norm.ppf((1 + LEVEL) / 2) * width).mean()))
    ratios = np.sqrt(np.array(variances) / np.array(squares))
    pooled = np.sqrt(np.mean(np.minimum(variances, 1.0)) / np.mean(np.minimum(squares, 1.0)))
    yield Row(
        what=f"spread / error of the physics, {FIELDS} fields, each at most 1 rad",
        value=f"{pooled:.2f}",
    )
    yield Row(
        what="spread / error of the physics, median of the fields",
        value=f"{np.median(ratios):.2f}",
        bar=f"{ratios.min():.2f} to {ratios.max():.2f}",
    )
    yield Row(what=f"{LEVEL:.0%} intervals of the physics cover", value=f"{np.mean(inside):.1%}")


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "borders": borders,
    "priors": compare_priors,
    "spread": spread,
}


def main(words: Sequence[str] | None = None) -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=", ".join(PARTS)
    )
    for name in parser.parse_args(words).parts or PARTS:
        print_rows(f"Inversion of the phase: {name}", PARTS[name]())


if __name__ == "__main__":
    main()
