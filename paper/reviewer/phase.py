"""Phase as a quantity.

An empty field, strengths from 0.05 to 6 rad, and dry mass against the distance of the planes.
"""

from dataclasses import replace

import numpy as np

from napari_cvdm.analysis.measure import ResultField, measure_objects, optical_path_nm
from napari_cvdm.simulate.phase_objects import cells
from paper.measure import Row
from paper.reviewer.bench import Bench, Case, Finding
from paper.reviewer.blank import empty_phase
from paper.reviewer.figures import drawn
from paper.reviewer.measures import bias, blank_row, kept_pixels, measured
from paper.reviewer.scene import MARGIN_PX, PHASE, SEED, PhaseOptics, phase_map, phase_scene

PHOTON_LEVELS = (1e3, 1e4, 6e4)
STRENGTHS_RAD = (0.05, 0.15, 0.5, 1.5, 3.0, 6.0)
HALF_DISTANCES_UM = (1.0, 2.5, 5.0)
CELL_SHARE = 0.02  # of the strongest phase: more belongs to a cell


def zero_phase(bench: Bench) -> Finding:
    """Two planes of nothing but light."""
    cases, rows = [], []
    for photons in PHOTON_LEVELS:
        planes = (
            np.random.default_rng(SEED)
            .poisson(photons, (2, bench.side, bench.side))
            .astype(np.float32)
        )
        case = bench.case(f"{photons:g} photons", empty_phase(planes))
        noise = optical_path_nm(
            case.result.mean[kept_pixels(case)], PHASE.microscope.wavelength_um
        ).std()
        rows += [
            blank_row(case, bar=True),
            Row(what=f"{case.name}: deviation of the path", value=f"{noise:.3g} nm"),
        ]
        cases.append(case)
    return Finding(rows=rows, figure=drawn("No phase", cases))


def linearity(bench: Bench) -> Finding:
    """The same cells, weak to strong."""
    cases = [
        bench.case(f"{rad:g} rad", phase_scene(bench.side, replace(PHASE, strength_rad=rad)))
        for rad in STRENGTHS_RAD
    ]
    rows = []
    for case in cases:
        one = measured(case)
        value = (
            f"slope {1 + one.bias:.3f}, error {one.error:.1%}, spread {one.spread:.1%}, AUROC "
            f"{one.auroc:.2f}"
        )
        rows.append(Row(what=case.name, value=value))
    return Finding(rows=rows, figure=drawn("Linearity of the phase", cases))


def cell_labels(bench: Bench, optics: PhaseOptics) -> np.ndarray:
    """1 where the object is, from the truth before its mean was taken off: (Y, X), int."""
    phase = phase_map(bench.side, optics.strength_rad, cells)[
        MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX
    ]
    return (phase > CELL_SHARE * phase.max()).astype(int)


def mass(case: Case, phase: np.ndarray, labels: np.ndarray) -> float:
    """Dry mass [pg] of all cells of one phase image."""
    told = case.scene.told
    field = ResultField(image=phase, pixel_um=told["pixel_um"], wavelength_um=told["wavelength_um"])
    return measure_objects(field, labels)[0].mass_pg.value


def dry_mass(bench: Bench) -> Finding:
    """Mass of the same cells, measured with different distances of the planes."""
    cases = [
        bench.case(f"+-{z:g} um", phase_scene(bench.side, replace(PHASE, defocus_um=(-z, z))))
        for z in HALF_DISTANCES_UM
    ]
    labels = cell_labels(bench, PHASE)
    rows = []
    for case in cases:
        true, found = mass(case, case.scene.truth, labels), mass(case, case.result.mean, labels)
        rows.append(
            Row(
                what=f"{case.name}: dry mass over the true {true:.1f} pg",
                value=f"{found / true - 1:+.1%} (slope of the phase {bias(case):+.1%})",
            )
        )
    return Finding(rows=rows, figure=drawn("Dry mass and the distance of the planes", cases))
