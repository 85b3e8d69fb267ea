"""What is in the field.

Beads, structure out of focus, structure that no training showed, and reversed contrast.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree
from skimage.feature import peak_local_max

from napari_cvdm.simulate.scenes import DrawStructure
from napari_cvdm.simulate.structures import Emitters, Field
from paper.measure import Row
from paper.reviewer.bench import Bench, Case, Finding
from paper.reviewer.compare import compared
from paper.reviewer.figures import drawn
from paper.reviewer.measures import blank_row, common_level, kept_pixels
from paper.reviewer.pictures import PICTURES
from paper.reviewer.scene import (
    MARGIN_PX,
    PHASE,
    WIDEFIELD,
    DrawMap,
    Scene,
    emitters_of,
    phase_scene,
    widefield_scene,
)

BEADS_PER_UM2 = 1.0
DEPTH_UM = (
    WIDEFIELD.medium_index[0] * WIDEFIELD.wavelength_um[0] / WIDEFIELD.na[0] ** 2
)  # the unit of a defocus
SPHERE_RADIUS_PX = 5.0
SPHERES = 12
CLEAR_OF_FRAME_PX = 24
PEAK_DISTANCE_PX = 3
SAME_PEAK_PX = 3.0
OUT_OF_FOCUS_UM = (0.5, 1.0, 2.0)
FOCUS_OFFSETS_UM = (1.0, 3.0)


def point_beads(rng: np.random.Generator, field: Field) -> Emitters:
    """Equal points."""
    count = max(3, int(BEADS_PER_UM2 * field[0] * field[1]))
    return rng.uniform(0, 1, (count, 2)) * np.array(field), np.ones(count)


def spheres(margin: float) -> DrawMap:
    """Thickness 2 sqrt(R^2 - r^2) of equal spheres.

    Their centres are farther than a margin [px] from the edge of the field.
    """

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        y, x = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
        image = np.zeros(shape)
        for centre in margin + rng.uniform(0, 1, (SPHERES, 2)) * (np.array(shape) - 2 * margin):
            image = np.maximum(
                image,
                2
                * np.sqrt(
                    (SPHERE_RADIUS_PX**2 - (y - centre[0]) ** 2 - (x - centre[1]) ** 2).clip(min=0)
                ),
            )
        return image

    return draw


def peaks(image: np.ndarray, case: Case) -> np.ndarray:
    """Rows and columns of an image's single peaks, away from its border: (N, 2)."""
    inside = np.where(kept_pixels(case), image, image.min())
    return peak_local_max(
        gaussian_filter(inside, 1.0),
        min_distance=PEAK_DISTANCE_PX,
        threshold_abs=common_level(image) + case.scene.threshold,
    )


def counted(case: Case) -> Row:
    """How many beads were found, and how many that are not there."""
    true, found = peaks(case.scene.truth, case), peaks(case.result.mean, case)
    if not len(true) or not len(found):
        return Row(what=f"{case.name}: found of {len(true)}, false", value=f"0, {len(found)}")
    near = KDTree(true).query(found)[0] <= SAME_PEAK_PX
    missed = KDTree(found).query(true)[0] > SAME_PEAK_PX
    return Row(
        what=f"{case.name}: found of {len(true)}, false",
        value=f"{int((~missed).sum())}, {int((~near).sum())}",
    )


def beads(bench: Bench) -> Finding:
    """Single beads: those found, and those that are not there."""
    if bench.is_phase:
        clear = min(CLEAR_OF_FRAME_PX, bench.side // 4)
        margins = {
            "beads": MARGIN_PX + clear,
            "beads, some cut by the frame": MARGIN_PX - SPHERE_RADIUS_PX,
        }
        finding = compared(
            bench,
            "Beads",
            {
                name: phase_scene(bench.side, PHASE, spheres(margin))
                for name, margin in margins.items()
            },
        )
    else:
        finding = compared(
            bench,
            "Beads",
            {"beads": widefield_scene(bench.side, WIDEFIELD, emitters_of(point_beads))},
        )
    return replace(finding, rows=[*finding.rows, *map(counted, finding.cases[1:])])


def out_of_focus(bench: Bench) -> Finding:
    """Nothing is in focus.

    Widefield: light from elsewhere is no structure. Phase: both planes are off by the same
    distance.
    """
    if bench.is_phase:
        below, above = PHASE.defocus_um
        off = {
            f"both planes {z:+g} um": replace(PHASE, defocus_um=(below + z, above + z))
            for z in FOCUS_OFFSETS_UM
        }
        scenes = {
            name: phase_scene(bench.side, optics).told_otherwise(defocus_um=PHASE.defocus_um)
            for name, optics in off.items()
        }
        return compared(bench, "Out of focus", scenes)
    cases = []
    for z in OUT_OF_FOCUS_UM:
        scene = widefield_scene(
            bench.side, replace(WIDEFIELD, defocus=(z / DEPTH_UM, z / DEPTH_UM))
        )
        cases.append(
            bench.case(f"all of it {z:g} um off", replace(scene, truth=np.zeros_like(scene.truth)))
        )
    return Finding(
        rows=[blank_row(case) for case in cases],
        figure=drawn("Out of focus: there is nothing in focus", cases),
    )


def picture_emitters(name: str) -> DrawStructure:
    """Light that follows a picture."""
    return lambda rng, side, fine_um: torch.from_numpy(PICTURES[name]((side, side)))


def picture_phase(name: str) -> DrawMap:
    """Phase that follows a picture."""
    return lambda rng, shape: PICTURES[name](shape)


def unseen(bench: Bench) -> Finding:
    """Structure that no training showed."""
    scenes = {
        name: phase_scene(bench.side, PHASE, picture_phase(name))
        if bench.is_phase
        else widefield_scene(bench.side, WIDEFIELD, picture_emitters(name))
        for name in PICTURES
    }
    return compared(bench, "Unseen structure", scenes)


def inverted(bench: Bench) -> Finding:
    """Contrast is reversed.

    Phase: the planes are exchanged, which changes its sign. Widefield: dark structure is on a
    bright field.
    """
    scene = bench.scene
    if bench.is_phase:
        return compared(
            bench,
            "Contrast inverted",
            {"planes exchanged": replace(scene, array=scene.array[::-1], truth=-scene.truth)},
        )
    dark = Scene(
        array=scene.array.max() + scene.array.min() - scene.array,
        truth=scene.truth.max() - scene.truth,
        told=scene.told,
        threshold=scene.threshold,
    )
    cases = [bench.untouched, bench.case("dark on bright", dark)]
    rows = [
        Row(
            what=case.name,
            value=(
                f"correlation with the truth {truth_correlation(case):.3f}, spread "
                f"{case.result.std.mean():.3g} counts"
            ),
        )
        for case in cases
    ]
    return Finding(rows=rows, figure=drawn("Contrast inverted", cases))


def truth_correlation(case: Case) -> float:
    """Pearson's, inside the border band; 0 for a constant image."""
    kept = kept_pixels(case)
    found, truth = case.result.mean[kept], case.scene.truth[kept]
    return float(np.corrcoef(found, truth)[0, 1]) if found.std() * truth.std() > 0 else 0.0
