"""What must not matter: half a pixel, a turn, where the frame was cut."""

from dataclasses import replace

import numpy as np
from scipy.ndimage import shift as shifted

from napari_cvdm.simulate.scenes import DrawStructure
from napari_cvdm.simulate.structures import reticulum
from napari_cvdm.tasks.task import BORDER_PX
from paper.measure import Row
from paper.reviewer.bench import Bench, Case, Finding
from paper.reviewer.compare import compared
from paper.reviewer.figures import drawn
from paper.reviewer.scene import WIDEFIELD, Scene, emitters_of, phase_scene, widefield_scene

HALF_PX = 0.5
CUTS_PX = (8, 3)


def half_pixel(bench: Bench) -> Finding:
    """Shift by half a pixel: one plane (phase), or the specimen (widefield).

    The plane is shifted against the other one, the specimen against the camera.
    """
    if bench.is_phase:
        first, second = bench.scene.array.astype(np.float32)
        planes = {
            move: np.stack([first, shifted(second, (0, move), order=3, mode="nearest")])
            for move in (-HALF_PX, HALF_PX)
        }
        return compared(
            bench,
            "Half a pixel",
            {
                f"second plane {move:+g} px": bench.scene.spoiled(array)
                for move, array in planes.items()
            },
        )
    scenes = {
        f"specimen {step / 2:+g} px": widefield_scene(bench.side, WIDEFIELD, moved(step))
        for step in (-1, 1)
    }
    return compared(bench, "Half a pixel", scenes)


def moved(fine_px: int) -> DrawStructure:
    """The reticulum, moved along x by whole pixels of the fine grid."""
    return lambda rng, side, fine_um: emitters_of(reticulum)(rng, side, fine_um).roll(
        fine_px, dims=1
    )


TURNS = {
    "turned by 90 degrees": lambda image: np.rot90(image, 1, axes=(-2, -1)),
    "turned by 180 degrees": lambda image: np.rot90(image, 2, axes=(-2, -1)),
    "mirrored": lambda image: image[..., ::-1],
}


def rotation(bench: Bench) -> Finding:
    """A turned image must give the turned result."""
    scene = bench.scene
    chance = inner(bench.reconstructed(scene, seed=1).mean, bench) - inner(
        bench.untouched.result.mean, bench
    )
    cases, rows = [bench.untouched], []
    for name, turn in TURNS.items():
        case = bench.case(name, replace(scene, array=turn(scene.array), truth=turn(scene.truth)))
        rows.append(
            against_chance(
                name, inner(case.result.mean - turn(bench.untouched.result.mean), bench), chance
            )
        )
        cases.append(case)
    return Finding(rows=rows, figure=drawn("Rotation", cases))


def inner(image: np.ndarray, bench: Bench) -> np.ndarray:
    """An output image without its border band."""
    border = BORDER_PX * bench.untouched.result.upsampling
    return image[border:-border, border:-border]


def against_chance(name: str, away: np.ndarray, chance: np.ndarray) -> Row:
    """Root mean square of a difference over that of two seeds."""
    ratio = float(away.std() / max(float(chance.std()), 1e-12))
    return Row(what=f"{name}: difference over that of another seed", value=f"x {ratio:.2f}")


def translation(bench: Bench) -> Finding:
    """Two overlapping parts of one field must agree where they overlap."""
    side = bench.side + max(CUTS_PX)
    whole = phase_scene(side) if bench.is_phase else widefield_scene(side)
    first = bench.case("cut at 0 px", part(whole, 0, bench.side))
    chance = inner(bench.reconstructed(first.scene, seed=1).mean - first.result.mean, bench)
    cases, rows = [first], []
    for start in CUTS_PX:
        case = bench.case(f"cut at {start} px", part(whole, start, bench.side))
        rows.append(against_chance(case.name, overlap(first, case, start), chance))
        cases.append(case)
    return Finding(rows=rows, figure=drawn("Translation", cases))


def part(whole: Scene, start: int, side: int) -> Scene:
    """A square part of a scene that begins at (start, start)."""
    factor = whole.truth.shape[-1] // whole.array.shape[-1]
    window, fine = slice(start, start + side), slice(factor * start, factor * (start + side))
    return replace(whole, array=whole.array[..., window, window], truth=whole.truth[fine, fine])


def overlap(first: Case, second: Case, start: int) -> np.ndarray:
    """Difference of two results where both are inside their border bands.

    `second` begins at (start, start) of `first`.
    """
    factor = first.result.upsampling
    border, step = BORDER_PX * factor, start * factor
    one = first.result.mean[step + border : -border, step + border : -border]
    other = second.result.mean[border : one.shape[0] + border, border : one.shape[1] + border]
    return one - other
